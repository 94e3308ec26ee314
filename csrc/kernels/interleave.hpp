// interleave.hpp: from rows, one to a lane, to a vector for each position of them, and back.
#pragma once
#include "loops.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

// Element j of every lane to the vector at to(j), for n elements. What lies `ahead` of a lane's elements, if that is
// not 0, is brought into L2 meanwhile.
template <class T, class To>
void interleave(const T* const* lanes, int64_t n, const To& to, int64_t ahead = 0) {
  using V = typename Simd<T>::V;
  constexpr int W = Simd<T>::kWidth;
  int64_t j = 0;
  auto block = [&](int64_t first) {
    V rows[W];
#pragma GCC unroll 16
    for (int l = 0; l < W; l++) rows[l] = load<V>(lanes[l] + first);
    if (ahead != 0) {
#pragma GCC unroll 16
      for (int l = 0; l < W; l++) __builtin_prefetch(lanes[l] + first + ahead, 0, 2);
    }
    transpose(rows);
#pragma GCC unroll 16
    for (int l = 0; l < W; l++) store(to(first + l), rows[l]);
  };
  for (; j + W <= n; j += W) block(j);
  if (n >= W && n - j > W / 4) return block(n - W);
  for (; j < n; j++) {
    for (int l = 0; l < W; l++) to(j)[l] = lanes[l][j];
  }
}

// From `count` rows of n elements, `pitch` apart, to n rows of `count`: a vector of rows for each element, whose lanes
// without a row run into what is written next. So it is written to `buffer`, which has room for a vector more.
template <class T>
void turn(const T* from, int64_t pitch, int64_t count, int64_t n, T* buffer, T* to) {
  constexpr int W = Simd<T>::kWidth;
  for (int64_t r = (count - 1) / W * W; r >= 0; r -= W) {
    const T* lanes[W];
    for (int l = 0; l < W; l++) lanes[l] = from + min_of(r + l, count - 1) * pitch;
    interleave(lanes, n, [=](int64_t i) { return buffer + i * count + r; });
  }
  __builtin_memcpy(to, buffer, count * n * sizeof(T));
}

// Stores a vector as elements that may be wider.
template <class V, class To>
void widen_store(To* p, V v) {
  constexpr int kWidth = sizeof(V) / sizeof(v[0]);
  if constexpr (sizeof(To) == sizeof(v[0])) {
    store(p, (typename VecOf<To, sizeof(V)>::V)v);
  } else {
    typename VecOf<typename IntOf<sizeof(v[0])>::I, sizeof(V) / 2>::V half[2];
    __builtin_memcpy(half, &v, sizeof v);
    for (int k = 0; k < 2; k++) {
      store(p + k * kWidth / 2, __builtin_convertvector(half[k], typename VecOf<To, sizeof(V)>::V));
    }
  }
}

// The way back: element j of each of `count` lanes, for n elements `stride` apart, from vectors `pitch` apart.
template <class T, class To>
void deinterleave(const T* from, int64_t pitch, int64_t n, To* const* lanes, int64_t count, int64_t stride) {
  using V = typename Simd<T>::V;
  constexpr int W = Simd<T>::kWidth;
  const int64_t blocks = stride == 1 ? n / W : 0;
  auto block = [=](int64_t first) {
    V rows[W];
#pragma GCC unroll 16
    for (int l = 0; l < W; l++) rows[l] = load<V>(from + (first + l) * pitch);
    transpose(rows);
    if (count == W) {
#pragma GCC unroll 16
      for (int l = 0; l < W; l++) widen_store(lanes[l] + first, rows[l]);
    } else {
      for (int64_t l = 0; l < count; l++) widen_store(lanes[l] + first, rows[l]);
    }
  };
  for (int64_t b = 0; b < blocks; b++) block(b * W);
  if (blocks > 0 && n % W > W / 4) return block(n - W);
  for (int64_t j = blocks * W; j < n; j++) {
    for (int64_t l = 0; l < count; l++) lanes[l][j * stride] = To(from[j * pitch + l]);
  }
}

}  // namespace
}  // namespace nl::NL_ISA
