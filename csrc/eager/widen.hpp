// widen.hpp: calls on narrow dtypes, which kernels of the wide ones run: operands are widened, results rounded once.
#pragma once
#include "nest.hpp"

namespace nl {

// Writes the elements of one view into another of the same shape, in its dtype.
void convert(const View& from, const View& to);

// Readies an elementwise call's nest: its kernel, and how its narrow operands are converted.
void set_kernel(Nest& nest, const Call& call);

// The nest's kernel on operands that it can walk, narrow ones converted block by block.
void call_widened(const Nest& nest, char* const* ptr, const int64_t* step, int64_t n, int64_t first);

inline void call_kernel(const Nest& nest, char* const* ptr, const int64_t* step, int64_t n, int64_t first) {
  nest.widened ? call_widened(nest, ptr, step, n, first) : nest.kernel(ptr, step, n, first);
}

// Any other call on narrow operands, by `fn` on wide copies of them.
int run_widened(const Call& call, NativeFn fn);
bool has_narrow(const Call& call);

}  // namespace nl
