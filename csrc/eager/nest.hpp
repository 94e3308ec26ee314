// nest.hpp: the operands of an elementwise call over one index space, its axes ordered and merged.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "../kernels/dispatch.hpp"
#include "eager.hpp"

namespace nl {

constexpr int64_t kShortRow = 16;       // shorter rows are gathered into blocks; longer ones where it pays (map.cpp)
constexpr int64_t kMapGrain = 1 << 15;  // cheap elements a thread takes at least: below, waking a thread costs more
constexpr int64_t kCheap = 32;          // operations of an element that costs no more than its memory

// All operands over one index space, outputs first; strides in bytes.
struct Nest {
  int n_op = 0, n_out = 0, rank = 0;
  int64_t shape[kMaxRank];
  int64_t strides[kMaxOperands][kMaxRank];
  char* data[kMaxOperands];
  int64_t item[kMaxOperands];
  MapFn kernel;
  int64_t grain = kMapGrain;         // elements a thread takes at least
  MapFn convert[kMaxOperands] = {};  // of narrow operands: to the dtype of the kernel, or of outputs back from it
  bool widened = false;              // whether there are any

  // Whether the kernels can walk operand k along the innermost axis.
  bool direct(int k) const {
    const int64_t step = strides[k][rank - 1];
    return step == item[k] || (step == 0 && k >= n_out);
  }

  int64_t size() const {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= shape[d];
    return n;
  }
};

// fn with a zero as large as an element.
template <class F>
void by_size(int64_t item, const F& fn) {
  switch (item) {
    case 1: return fn(uint8_t(0));
    case 2: return fn(uint16_t(0));
    case 4: return fn(uint32_t(0));
    default: return fn(uint64_t(0));
  }
}

inline void add_operand(Nest& nest, const View& v) {
  const int k = nest.n_op++;
  nest.data[k] = v.data;
  nest.item[k] = itemsize(v.dtype);
  const int lead = nest.rank - v.rank;
  for (int d = 0; d < nest.rank; ++d) {
    const bool broadcast = d < lead || v.shape[d - lead] == 1;
    nest.strides[k][d] = broadcast ? 0 : v.strides[d - lead] * nest.item[k];
  }
}

inline void swap_axes(Nest& nest, int a, int b) {
  std::swap(nest.shape[a], nest.shape[b]);
  for (int k = 0; k < nest.n_op; ++k) std::swap(nest.strides[k][a], nest.strides[k][b]);
}

// Walks memory in the output's order; kernels that read the element's index need the row-major order kept.
inline void order_axes(Nest& nest) {
  for (int i = 1; i < nest.rank; ++i)
    for (int j = i; j > 0 && std::abs(nest.strides[0][j - 1]) < std::abs(nest.strides[0][j]); --j)
      swap_axes(nest, j - 1, j);
}

inline bool mergeable(const Nest& nest, int outer, int inner) {
  for (int k = 0; k < nest.n_op; ++k)
    if (nest.strides[k][outer] != nest.strides[k][inner] * nest.shape[inner]) return false;
  return true;
}

inline void coalesce(Nest& nest) {
  int top = -1;  // last axis kept
  for (int d = 0; d < nest.rank; ++d) {
    if (nest.shape[d] == 1) continue;
    if (top >= 0 && mergeable(nest, top, d)) {
      nest.shape[top] *= nest.shape[d];
      for (int k = 0; k < nest.n_op; ++k) nest.strides[k][top] = nest.strides[k][d];
      continue;
    }
    ++top;
    nest.shape[top] = nest.shape[d];
    for (int k = 0; k < nest.n_op; ++k) nest.strides[k][top] = nest.strides[k][d];
  }
  nest.rank = top + 1;
  if (nest.rank == 0) {
    nest.rank = 1;
    nest.shape[0] = 1;
    for (int k = 0; k < nest.n_op; ++k) nest.strides[k][0] = k < nest.n_out ? nest.item[k] : 0;
  }
}

// The sum of `strides` along the way to the element with row-major index `linear`.
inline int64_t locate(const int64_t* shape, const int64_t* strides, int rank, int64_t linear) {
  int64_t at = 0;
  for (int d = rank - 1; d >= 0; --d) {
    at += linear % shape[d] * strides[d];
    linear /= shape[d];
  }
  return at;
}

// Byte offset of the element with row-major index `linear`.
inline int64_t locate(const Nest& nest, int k, int64_t linear) {
  return locate(nest.shape, nest.strides[k], nest.rank, linear);
}

}  // namespace nl
