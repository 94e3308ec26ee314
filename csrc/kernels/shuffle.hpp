// shuffle.hpp: rearranging the elements of vectors: interleaving, every other one, square transposes.
#pragma once
#include "../simd/vec.h"

namespace nl::NL_ISA {
namespace {

// (a0 b0 a1 b1 …) and the second half of the same.
template <class V>
struct Zipped {
  V low, high;
};

template <class V>
NL_FN Zipped<V> zip(V a, V b) {
  constexpr int kWidth = sizeof(V) / sizeof(a[0]);
  if constexpr (kWidth == 2) return {__builtin_shufflevector(a, b, 0, 2), __builtin_shufflevector(a, b, 1, 3)};
  if constexpr (kWidth == 4) {
    return {__builtin_shufflevector(a, b, 0, 4, 1, 5), __builtin_shufflevector(a, b, 2, 6, 3, 7)};
  }
  if constexpr (kWidth == 8) {
    return {__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11),
            __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)};
  }
  if constexpr (kWidth == 16) {
    return {__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
            __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)};
  }
}

// The elements 0, 2, 4, … of two vectors in a row.
template <class V>
NL_FN V even(V a, V b) {
  constexpr int kWidth = sizeof(V) / sizeof(a[0]);
  if constexpr (kWidth == 2) return __builtin_shufflevector(a, b, 0, 2);
  if constexpr (kWidth == 4) return __builtin_shufflevector(a, b, 0, 2, 4, 6);
  if constexpr (kWidth == 8) return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
  if constexpr (kWidth == 16) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  }
}

// The elements 1, 3, 5, … of two vectors in a row.
template <class V>
NL_FN V odd(V a, V b) {
  constexpr int kWidth = sizeof(V) / sizeof(a[0]);
  if constexpr (kWidth == 2) return __builtin_shufflevector(a, b, 1, 3);
  if constexpr (kWidth == 4) return __builtin_shufflevector(a, b, 1, 3, 5, 7);
  if constexpr (kWidth == 8) return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  if constexpr (kWidth == 16) {
    return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  }
}

// The elements of a from 1 on, then the first of b.
template <class V>
NL_FN V next_lanes(V a, V b) {
  constexpr int kWidth = sizeof(V) / sizeof(a[0]);
  if constexpr (kWidth == 2) return __builtin_shufflevector(a, b, 1, 2);
  if constexpr (kWidth == 4) return __builtin_shufflevector(a, b, 1, 2, 3, 4);
  if constexpr (kWidth == 8) return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8);
  if constexpr (kWidth == 16) {
    return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
  }
}

// The elements 0, 2, 4, … of one vector, then 1, 3, 5, … of another.
template <class V>
NL_FN V even_then_odd(V a, V b) {
  constexpr int kWidth = sizeof(V) / sizeof(a[0]);
  if constexpr (kWidth == 2) return __builtin_shufflevector(a, b, 0, 3);
  if constexpr (kWidth == 4) return __builtin_shufflevector(a, b, 0, 2, 5, 7);
  if constexpr (kWidth == 8) return __builtin_shufflevector(a, b, 0, 2, 4, 6, 9, 11, 13, 15);
  if constexpr (kWidth == 16) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
  }
}

// Transposes W vectors of W: each round zips the first half of them with the second.
template <class V, int W>
NL_FN void transpose(V (&rows)[W]) {
#pragma GCC unroll 4
  for (int round = 1; round < W; round *= 2) {
    V next[W];
#pragma GCC unroll 8
    for (int r = 0; r < W / 2; r++) {
      Zipped<V> zipped = zip(rows[r], rows[r + W / 2]);
      next[2 * r] = zipped.low;
      next[2 * r + 1] = zipped.high;
    }
#pragma GCC unroll 16
    for (int r = 0; r < W; r++) rows[r] = next[r];
  }
}

// Lane l of the result is lane l ^ d.
template <int d, class V>
NL_FN V swap_lanes(V v) {
  constexpr int kWidth = sizeof(V) / sizeof(v[0]);
  if constexpr (kWidth == 2) return __builtin_shufflevector(v, v, 0 ^ d, 1 ^ d);
  if constexpr (kWidth == 4) return __builtin_shufflevector(v, v, 0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d);
  if constexpr (kWidth == 8) {
    return __builtin_shufflevector(v, v, 0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d);
  }
  if constexpr (kWidth == 16) {
    return __builtin_shufflevector(v, v, 0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d, 8 ^ d, 9 ^ d, 10 ^ d,
                                   11 ^ d, 12 ^ d, 13 ^ d, 14 ^ d, 15 ^ d);
  }
}

// Moving the lanes whose bits are set to the front; only some levels have an instruction for it.
template <class V>
constexpr bool kCompresses = NL_VEC_BYTES == 64 && sizeof(V) == 64;

template <class V>
NL_FN unsigned less_bits(V a, V b) {
#if NL_VEC_BYTES == 64 && defined(__x86_64__)
  if constexpr (sizeof(a[0]) == 4) return __builtin_ia32_cmpd512_mask((vi32)a, (vi32)b, 1, (unsigned short)-1);
  typedef long long Longs __attribute__((vector_size(64)));
  if constexpr (sizeof(a[0]) == 8) return __builtin_ia32_cmpq512_mask((Longs)a, (Longs)b, 1, (unsigned char)-1);
#endif
  return 0;
}

template <class V>
NL_FN V compress(V v, unsigned lanes) {
#if NL_VEC_BYTES == 64 && defined(__x86_64__)
  if constexpr (sizeof(v[0]) == 4) {
    return (V)__builtin_ia32_compresssi512_mask((vi32)v, (vi32)v, (unsigned short)lanes);
  }
  typedef long long Longs __attribute__((vector_size(64)));
  if constexpr (sizeof(v[0]) == 8) {
    return (V)__builtin_ia32_compressdi512_mask((Longs)v, (Longs)v, (unsigned char)lanes);
  }
#endif
  return v;
}

}  // namespace
}  // namespace nl::NL_ISA
