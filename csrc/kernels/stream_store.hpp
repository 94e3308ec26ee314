// stream_store.hpp: stores past the caches, and the results that they are worth it for.
#pragma once
#include "../base/view.hpp"
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

// An output from here on (half of a usual L3 cache) is written past the caches: saves reading what is overwritten.
constexpr int64_t kStreamBytes = 16 << 20;

inline void stream_store(float* p, typename Simd<float>::V v) {
#if defined(__clang__)
  __builtin_nontemporal_store(v, (typename Simd<float>::V*)p);
#elif defined(__AVX512F__)
  __builtin_ia32_movntps512(p, v);
#elif defined(__AVX__)
  __builtin_ia32_movntps256(p, v);
#elif defined(__SSE__)
  __builtin_ia32_movntps(p, v);
#else
  store(p, v);
#endif
}

template <class T>
void stream_store(T* p, typename Simd<T>::V v) {
  stream_store((float*)p, (typename Simd<float>::V)v);
}

// Streaming stores are not ordered with others: call before another thread may look.
inline void stream_fence() {
#if defined(__SSE__)
  __builtin_ia32_sfence();
#endif
}

// Whether all rows of an output begin where stores past the caches may.
template <class T>
bool is_aligned(const View& out) {
  bool aligned = (uint64_t)out.data % NL_VEC_BYTES == 0;
  for (int d = 0; d < out.rank; d++) {
    aligned = aligned && (out.shape[d] == 1 || out.strides[d] == 1 || out.strides[d] * sizeof(T) % NL_VEC_BYTES == 0);
  }
  return aligned;
}

// Whether an output of `rows` contiguous rows of n elements is to be streamed: it is large, with the `read`
// operands of its size.
template <class T>
bool streams(const View& out, int64_t n, int64_t rows, int64_t read = 1) {
  return is_aligned<T>(out) && (1 + read) * n * rows * (int64_t)sizeof(T) >= 2 * kStreamBytes;
}

}  // namespace
}  // namespace nl::NL_ISA
