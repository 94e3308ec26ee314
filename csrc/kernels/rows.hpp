// rows.hpp: elementwise passes over rows, block by block: what softmax and norm are made of besides T(n).
#pragma once
#include "loops.hpp"
#include "tree.hpp"

namespace nl::NL_ISA {
namespace {

// An output from here on (half of a usual L3 cache) is written past the caches: saves reading what is overwritten.
constexpr int64_t kStreamBytes = 16 << 20;

inline void stream_store(float* p, typename Simd<float>::V v) {
#if defined(__AVX512F__)
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

// One row of an output, and how it is written.
template <class T>
struct RowOut {
  T* data;
  int64_t stride;
  bool stream;  // only where every block of the row is aligned
};

// Whether an output of `rows` contiguous rows of n elements is to be streamed: it is large, and every row is aligned.
template <class T>
bool streams(const View& out, int64_t n, int64_t rows) {
  bool aligned = (uint64_t)out.data % NL_VEC_BYTES == 0;
  for (int d = 0; d < out.rank; d++) {
    aligned = aligned && (out.shape[d] == 1 || out.strides[d] == 1 || out.strides[d] * sizeof(T) % NL_VEC_BYTES == 0);
  }
  return aligned && n * rows * (int64_t)sizeof(T) >= kStreamBytes;
}

// out[i] = f(in[i], i) for `count` elements from element `begin` of a row on; f maps vectors.
template <class T, class F>
void map_block(const T* in, int64_t begin, int64_t count, RowOut<T> out, const F& f) {
  using V = typename Simd<T>::V;
  constexpr int kWidth = Simd<T>::kWidth;
  alignas(64) T buffer[kBlock];
  T* to = out.stride == 1 ? out.data + begin : buffer;
  int64_t i = 0;
  if (out.stream) {
    for (; i + kWidth <= count; i += kWidth) stream_store(to + i, f(load<V>(in + i), i));
  } else {
    for (; i + kWidth <= count; i += kWidth) store(to + i, f(load<V>(in + i), i));
  }
  if (i < count) {
    V last = f(load<V>(in + i), i);
    __builtin_memcpy(to + i, &last, (count - i) * sizeof(T));
  }
  for (int64_t k = 0; out.stride != 1 && k < count; k++) out.data[(begin + k) * out.stride] = buffer[k];
}

}  // namespace
}  // namespace nl::NL_ISA
