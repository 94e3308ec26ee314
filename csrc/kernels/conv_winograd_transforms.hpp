// conv_winograd_transforms.hpp: Winograd's transforms for 2x2 results of a 3x3 kernel, at stride 1 and at stride 2, for
// the gradient by the input at stride 2 and for those by the weights; and for 4x4 results at stride 1.
//
// Each is written for a row of numbers and applied along the rows, then down the columns (the gradient by the weights
// spreads down the columns first). The order of the operations is that of ARCHITECTURE.md, section 3.
#pragma once
#include "microkernel.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

struct Transforms {
  using V = Simd<float>::V;
  static constexpr int W = kWidth<float>;

  // Vector j of W tiles side by side, 4 inputs apart: their inputs j.
  __attribute__((always_inline)) static void columns_of_4(const float* row, V* x) {
    const V a = load<V>(row), b = load<V>(row + W), c = load<V>(row + 2 * W), d = load<V>(row + 3 * W);
    const V evens[] = {even(a, b), even(c, d)}, odds[] = {odd(a, b), odd(c, d)};
    x[0] = even(evens[0], evens[1]), x[1] = even(odds[0], odds[1]);
    x[2] = odd(evens[0], evens[1]), x[3] = odd(odds[0], odds[1]);
  }
};

// The weight gradient's transforms are those of maps (2 to kSide) and from elements to taps (kSide to 3); its inputs'
// are the same as the convolution's. What it spreads are vectors or, to find the rows that a row of elements needs,
// their numbers.

// F(2x2, 3x3): tiles of 4x4 inputs, 16 products a channel instead of 36.
struct Stride1 : Transforms {
  static constexpr int kStep = 2;     // inputs from one tile to the next
  static constexpr int kInputs = 4;   // that a tile sees
  static constexpr int kSide = 4;     // elements of a transformed tile, a way
  static constexpr int kResults = 2;  // of a tile

  template <class T>
  __attribute__((always_inline)) static constexpr void spread(const T (&x)[kInputs], T (&to)[kSide]) {
    to[0] = x[0] - x[2], to[1] = x[1] + x[2], to[2] = x[2] - x[1], to[3] = x[1] - x[3];
  }
  __attribute__((always_inline)) static void spread_weights(V a, V b, V c, V (&to)[kSide]) {
    const V ends = a + c, half = splat<V>(0.5f);
    to[0] = a, to[1] = (ends + b) * half, to[2] = (ends - b) * half, to[3] = c;
  }
  __attribute__((always_inline)) static void collect(const V (&m)[kSide], V (&to)[kResults]) {
    to[0] = (m[0] + m[1]) + m[2], to[1] = (m[1] - m[2]) - m[3];
  }

  template <class T>
  __attribute__((always_inline)) static constexpr void spread_maps(T a, T b, T (&to)[kSide]) {
    to[0] = a, to[1] = a + b, to[2] = a - b, to[3] = b;
  }
  __attribute__((always_inline)) static void collect_taps(const V (&m)[kSide], V (&to)[3]) {
    const V half = splat<V>(0.5f), middle = (m[1] + m[2]) * half;
    to[0] = m[0] + middle, to[1] = (m[1] - m[2]) * half, to[2] = middle - m[3];
  }

  // Vector j of what W tiles side by side see: their inputs j.
  __attribute__((always_inline)) static void columns(const float* row, const float* next, V (&x)[kInputs]) {
    const V a = load<V>(row), b = load<V>(row + W), c = load<V>(next), d = load<V>(next + W);
    x[0] = even(a, b), x[1] = odd(a, b), x[2] = even(c, d), x[3] = odd(c, d);
  }
};

// The taps 0 and 2 see even inputs only, at stride 1: F(2, 2) of them, and tap 1 for itself. 25 products instead of 36.
struct Stride2 : Transforms {
  static constexpr int kStep = 4, kInputs = 5, kSide = 5, kResults = 2;

  template <class T>
  __attribute__((always_inline)) static constexpr void spread(const T (&x)[kInputs], T (&to)[kSide]) {
    to[0] = x[0] - x[2], to[1] = x[2], to[2] = x[2] - x[4], to[3] = x[1], to[4] = x[3];
  }
  __attribute__((always_inline)) static void spread_weights(V a, V b, V c, V (&to)[kSide]) {
    to[0] = a, to[1] = a + c, to[2] = c, to[3] = b, to[4] = b;
  }
  __attribute__((always_inline)) static void collect(const V (&m)[kSide], V (&to)[kResults]) {
    to[0] = (m[0] + m[1]) + m[3], to[1] = (m[1] - m[2]) + m[4];
  }

  template <class T>
  __attribute__((always_inline)) static constexpr void spread_maps(T a, T b, T (&to)[kSide]) {
    to[0] = a, to[1] = a + b, to[2] = b, to[3] = a, to[4] = b;
  }
  __attribute__((always_inline)) static void collect_taps(const V (&m)[kSide], V (&to)[3]) {
    to[0] = m[0] + m[1], to[1] = m[3] + m[4], to[2] = m[1] - m[2];
  }

  __attribute__((always_inline)) static void columns(const float* row, const float* next, V (&x)[kInputs]) {
    V others[4];
    columns_of_4(row, x), columns_of_4(next, others);
    x[4] = others[0];
  }
};

// The gradient by the input at stride 2 and padding 1: tiles of 4x4 positions, of which odd ones see taps 2 and 0 of
// two neighbours, F(2, 2), and even ones tap 1 of one. 25 products instead of 36.
struct Gradient2 : Transforms {
  static constexpr int kStep = 2, kInputs = 3, kSide = 5, kResults = 4;

  __attribute__((always_inline)) static void spread(const V (&x)[kInputs], V (&to)[kSide]) {
    to[0] = x[0] - x[1], to[1] = x[1], to[2] = x[2] - x[1], to[3] = x[0], to[4] = x[1];
  }
  __attribute__((always_inline)) static void spread_weights(V a, V b, V c, V (&to)[kSide]) {
    Stride2::spread_weights(a, b, c, to);
  }
  __attribute__((always_inline)) static void collect(const V (&m)[kSide], V (&to)[kResults]) {
    to[0] = m[3], to[1] = m[0] + m[1], to[2] = m[4], to[3] = m[1] + m[2];
  }

  __attribute__((always_inline)) static void columns(const float* row, const float* next, V (&x)[kInputs]) {
    const V a = load<V>(row), b = load<V>(row + W), c = load<V>(next), d = load<V>(next + W);
    x[0] = even(a, b), x[1] = odd(a, b), x[2] = even(c, d);
  }
};

// F(4x4, 3x3): tiles of 6x6 inputs, 36 products a channel instead of 144. Its points 0, +-2/3, +-3/2 and infinity give
// 0.44 of the error of 0, +-1, +-2 (points c and 1/c: Alam, Anderson, Barabasz and Gregg 2022; 3/2 is best).
struct LargeTiles : Transforms {
  static constexpr int kStep = 4, kInputs = 6, kSide = 6, kResults = 4;

  __attribute__((always_inline)) static V fma(float a, V b, V c) { return multiply_add(splat<V>(a), b, c); }

  __attribute__((always_inline)) static void spread(const V (&x)[kInputs], V (&to)[kSide]) {
    constexpr float kSquares = 97.0f / 36;  // 4/9 + 9/4
    to[0] = fma(-kSquares, x[2], x[0] + x[4]), to[5] = fma(-kSquares, x[3], x[1] + x[5]);
    spread_pair(x, 2.0f / 3, 9.0f / 4, to[1], to[2]);
    spread_pair(x, 3.0f / 2, 4.0f / 9, to[3], to[4]);
  }
  // The elements of two points, given the square of the other two.
  __attribute__((always_inline)) static void spread_pair(const V (&x)[kInputs], float point, float square, V& plus,
                                                         V& minus) {
    const V evens = fma(-square, x[2], x[4]), odds = fma(-square, x[1], x[3]);
    plus = fma(point, odds, evens), minus = fma(-point, odds, evens);
  }
  __attribute__((always_inline)) static void spread_weights(V a, V b, V c, V (&to)[kSide]) {
    const V first = fma(3.0f / 2, a, splat<V>(2.0f / 3) * c), second = fma(3.0f / 2, c, splat<V>(2.0f / 3) * a);
    const V scale = splat<V>(18.0f / 65), less = splat<V>(-18.0f / 65);
    to[0] = a, to[1] = (first + b) * less, to[2] = (first - b) * less;
    to[3] = (second + b) * scale, to[4] = (second - b) * scale, to[5] = c;
  }
  __attribute__((always_inline)) static void collect(const V (&m)[kSide], V (&to)[kResults]) {
    const V sum = m[1] + m[2], difference = m[1] - m[2], far_sum = m[3] + m[4], far_difference = m[3] - m[4];
    to[0] = fma(2.0f / 3, far_sum, fma(3.0f / 2, sum, m[0])), to[1] = difference + far_difference;
    to[2] = fma(3.0f / 2, far_sum, splat<V>(2.0f / 3) * sum);
    to[3] = fma(9.0f / 4, far_difference, fma(4.0f / 9, difference, m[5]));
  }

  __attribute__((always_inline)) static void columns(const float* row, const float* next, V (&x)[kInputs]) {
    V others[4];
    columns_of_4(row, x), columns_of_4(next, others);
    x[4] = others[0], x[5] = others[1];
  }
};

}  // namespace
}  // namespace nl::NL_ISA
