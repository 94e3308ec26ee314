// shuffle.hpp: rearranging the elements of vectors: interleaving, every other one, square transposes.
#pragma once
#include "vector.hpp"

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

// Each element in the lane after its own; the last one comes first.
template <class V>
NL_FN V previous_lanes(V v) {
  constexpr int kWidth = sizeof(V) / sizeof(v[0]);
  if constexpr (kWidth == 2) return __builtin_shufflevector(v, v, 1, 0);
  if constexpr (kWidth == 4) return __builtin_shufflevector(v, v, 3, 0, 1, 2);
  if constexpr (kWidth == 8) return __builtin_shufflevector(v, v, 7, 0, 1, 2, 3, 4, 5, 6);
  if constexpr (kWidth == 16) {
    return __builtin_shufflevector(v, v, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14);
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

// zip and even/odd where elements stay in their 128 bits, or 128 bits move as one: instructions of 1 cycle, half of
// what others cost. Vectors of 128 bits at most are zipped as a whole.
template <class V>
NL_FN Zipped<V> zip_quads(V a, V b) {
  constexpr int kWidth = sizeof(V) / sizeof(a[0]);
  static_assert(sizeof(V) <= 16 || sizeof(a[0]) >= 4);
  if constexpr (sizeof(V) == 32 && kWidth == 4) {
    return {__builtin_shufflevector(a, b, 0, 4, 2, 6), __builtin_shufflevector(a, b, 1, 5, 3, 7)};
  }
  if constexpr (sizeof(V) == 32 && kWidth == 8) {
    return {__builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13),
            __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15)};
  }
  if constexpr (sizeof(V) == 64 && kWidth == 8) {
    return {__builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14),
            __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15)};
  }
  if constexpr (sizeof(V) == 64 && kWidth == 16) {
    return {__builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29),
            __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)};
  }
  if constexpr (sizeof(V) <= 16) return zip(a, b);
}

// The 128 bits 0, 2, … of two vectors in a row, and the 128 bits 1, 3, …
template <class V>
NL_FN Zipped<V> part_quads(V a, V b) {
  static_assert(sizeof(V) == 32 || sizeof(V) == 64);
  using Pairs = typename VecOf<int64_t, sizeof(V)>::V;
  const Pairs x = (Pairs)a, y = (Pairs)b;
  if constexpr (sizeof(V) == 32) {
    return {(V)__builtin_shufflevector(x, y, 0, 1, 4, 5), (V)__builtin_shufflevector(x, y, 2, 3, 6, 7)};
  }
  if constexpr (sizeof(V) == 64) {
    return {(V)__builtin_shufflevector(x, y, 0, 1, 4, 5, 8, 9, 12, 13),
            (V)__builtin_shufflevector(x, y, 2, 3, 6, 7, 10, 11, 14, 15)};
  }
}

// zip_quads of pairs of 4 bytes, or of elements of 8.
template <class V>
NL_FN Zipped<V> zip_pairs(V a, V b) {
  using Pairs = typename VecOf<int64_t, sizeof(V)>::V;
  const Zipped<Pairs> zipped = zip_quads((Pairs)a, (Pairs)b);
  return {(V)zipped.low, (V)zipped.high};
}

// The first halves of two vectors of 512 bits, and the second ones.
template <class V>
NL_FN Zipped<V> part_halves(V a, V b) {
  using Pairs = typename VecOf<int64_t, sizeof(V)>::V;
  const Pairs x = (Pairs)a, y = (Pairs)b;
  return {(V)__builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11),
          (V)__builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15)};
}

// Transposes the squares of every 128 bits of W vectors, as many for each as have elements in it: a round zips the
// first half of a square's vectors with the second.
template <class V, int W>
NL_FN void transpose_quads(V (&rows)[W]) {
  constexpr int kSquare = sizeof(V) <= 16 ? W : 16 / (int)sizeof(rows[0][0]);
#pragma GCC unroll 4
  for (int round = 1; round < kSquare; round *= 2) {
    V next[W];
#pragma GCC unroll 16
    for (int i = 0; i < W / 2; i++) {
      const int square = i / (kSquare / 2) * kSquare, r = i % (kSquare / 2);
      const Zipped<V> zipped = zip_quads(rows[square + r], rows[square + r + kSquare / 2]);
      next[square + 2 * r] = zipped.low, next[square + 2 * r + 1] = zipped.high;
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) rows[i] = next[i];
  }
}

// Two vectors in a row as one.
template <class V>
NL_FN auto joined_lanes(V a, V b) {
  using Joined = typename VecOf<__typeof__(a[0] + 0), 2 * sizeof(V)>::V;
  using Pairs = typename VecOf<int64_t, sizeof(V)>::V;
  const Pairs x = (Pairs)a, y = (Pairs)b;
  if constexpr (sizeof(V) == 16) return (Joined)__builtin_shufflevector(x, y, 0, 1, 2, 3);
  if constexpr (sizeof(V) == 32) return (Joined)__builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7);
}

// A vector of 128 bits each of the memory that at(0), at(1), … give.
template <class V, class At>
NL_FN V load_quads(const At& at) {
  using Quad = typename VecOf<__typeof__(V{}[0] + 0), 16>::V;
  if constexpr (sizeof(V) == 16) return load<Quad>(at(0));
  if constexpr (sizeof(V) == 32) return joined_lanes(load<Quad>(at(0)), load<Quad>(at(1)));
  if constexpr (sizeof(V) == 64) {
    return joined_lanes(joined_lanes(load<Quad>(at(0)), load<Quad>(at(1))),
                        joined_lanes(load<Quad>(at(2)), load<Quad>(at(3))));
  }
}

// The first kCount elements, whole 128 bits, of a vector's width of rows, which row_at(l) gives: element k of row l in
// lane l of columns[k]. Joined as they are read, 128 bits need only be transposed inside.
template <class V, int kCount, class RowAt>
NL_FN void load_columns(const RowAt& row_at, V (&columns)[kCount]) {
  constexpr int kSquare = 16 / sizeof(columns[0][0]);
#pragma GCC unroll 8
  for (int first = 0; first < kCount; first += kSquare) {
    V square[kSquare];
#pragma GCC unroll 4
    for (int r = 0; r < kSquare; r++) square[r] = load_quads<V>([&](int q) { return row_at(q * kSquare + r) + first; });
    transpose_quads(square);
#pragma GCC unroll 4
    for (int k = 0; k < kSquare; k++) columns[first + k] = square[k];
  }
}

// Transposes W vectors of W: squares of 128 bits first, then these, by rounds that part every vector from its
// neighbour.
template <class V, int W>
NL_FN void transpose(V (&rows)[W]) {
  constexpr int kSquare = sizeof(V) <= 16 ? W : 16 * W / (int)sizeof(V);  // vectors of one
  transpose_quads(rows);
  if constexpr (kSquare < W) {
#pragma GCC unroll 4
    for (int round = kSquare; round < W; round *= 2) {
      V next[W];
#pragma GCC unroll 16
      for (int i = 0; i < W / 2; i++) {
        const int square = i / kSquare * kSquare, r = i % kSquare;
        const Zipped<V> parted = part_quads(rows[2 * square + r], rows[2 * square + kSquare + r]);
        next[square + r] = parted.low, next[square + r + W / 2] = parted.high;
      }
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) rows[i] = next[i];
    }
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
