// pool.hpp: what the pooling kernels share: planes, vectors of strided elements, rows of outputs in vectors.
#pragma once
#include "loops.hpp"
#include "tree.hpp"

namespace nl::NL_ISA {
namespace {

// The N * C planes of an [N, C, H, W] tensor.
template <class T>
struct Planes {
  T* data;
  int64_t channels, count, height, width;
  int64_t image_stride, channel_stride, row_stride, column_stride;

  explicit Planes(const View& v)
      : data((T*)v.data), channels(v.shape[1]), count(v.shape[0] * v.shape[1]), height(v.shape[2]), width(v.shape[3]),
        image_stride(v.strides[0]), channel_stride(v.strides[1]), row_stride(v.strides[2]), column_stride(v.strides[3]) {}

  T* plane(int64_t p) const { return data + p / channels * image_stride + p % channels * channel_stride; }
  int64_t size() const { return height * width; }
  bool contiguous() const { return column_stride == 1 && row_stride == width; }
};

template <class T>
void clear(const Planes<T>& to, T* plane) {
  if (to.contiguous()) {
    __builtin_memset(plane, 0, to.size() * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < to.size(); i++) plane[i / to.width * to.row_stride + i % to.width * to.column_stride] = 0;
}

// A number as a type.
template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

// The elements 0, 2, 4, … of two vectors in a row.
template <class V>
V even(V a, V b) {
  constexpr int kWidth = sizeof(V) / sizeof(a[0]);
  if constexpr (kWidth == 2) return __builtin_shufflevector(a, b, 0, 2);
  if constexpr (kWidth == 4) return __builtin_shufflevector(a, b, 0, 2, 4, 6);
  if constexpr (kWidth == 8) return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
  if constexpr (kWidth == 16) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  }
}

// A vector of elements `stride` apart; kStride is 1 or 2 where that is known, else 0. Reads nothing from `end` on.
template <class V, int kStride, class T>
V strided_load(const T* p, int64_t stride, const T* end) {
  constexpr int kWidth = sizeof(V) / sizeof(T);
  if constexpr (kStride == 1) return load<V>(p);
  if constexpr (kStride == 2) {
    if (end - p >= 2 * kWidth) return even(load<V>(p), load<V>(p + kWidth));
  }
  V v;
  for (int l = 0; l < kWidth; l++) v[l] = p[l * stride];
  return v;
}

template <class V, class T>
void strided_store(T* p, int64_t stride, V v) {
  if (stride == 1) return store(p, v);
  for (int l = 0; l < int(sizeof(V) / sizeof(T)); l++) p[l * stride] = v[l];
}

// Calls fn with the stride as a compile-time number, see strided_load.
template <class F>
void with_stride(int64_t stride, const F& fn) {
  if (stride == 1) return fn(Constant<1>{});
  if (stride == 2) return fn(Constant<2>{});
  fn(Constant<0>{});
}

// Calls row(plane, o) for the rows of all planes; begins(plane) before the first row of a plane that a thread meets.
template <class B, class R>
void for_rows(int64_t planes, int64_t rows, int64_t work, const B& begins, const R& row) {
  parallel_for(planes * rows, grain_of(work), [&](int64_t begin, int64_t end) {
    int64_t p = begin / rows, o = begin % rows;
    auto plane = begins(p);
    for (int64_t i = begin; i < end; i++) {
      row(plane, o);
      if (++o < rows || i + 1 == end) continue;
      o = 0, plane = begins(++p);
    }
  });
}

// Covers [begin, end) with vectors of V and calls body(V{}, first) for each; the last one is moved back to end at `end`,
// so the body must not mind doing an element twice. False if there is no room for one vector.
template <class V, class F>
bool cover(int64_t begin, int64_t end, const F& body) {
  constexpr int kWidth = sizeof(V) / sizeof(V{}[0]);
  if (end - begin < kWidth) return false;
  for (int64_t i = begin; i < end; i += kWidth) body(V{}, min_of(i, end - kWidth));
  return true;
}

// Covers [begin, end) with the widest vectors that fit; what is too short for any goes to scalar(i).
template <class T, class F, class S>
void cover_row(int64_t begin, int64_t end, const F& body, const S& scalar) {
  if (cover<typename Simd<T>::V>(begin, end, body)) return;
  if constexpr (NL_VEC_BYTES > 32) {
    if (cover<typename VecOf<T, 32>::V>(begin, end, body)) return;
  }
  if constexpr (NL_VEC_BYTES > 16) {
    if (cover<typename VecOf<T, 16>::V>(begin, end, body)) return;
  }
  for (int64_t i = begin; i < end; i++) scalar(i);
}

}  // namespace
}  // namespace nl::NL_ISA
