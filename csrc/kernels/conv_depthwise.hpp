// conv_depthwise.hpp: convolutions of single channels, straight from a staged plane: one product per tap and pixel is
// too little to pay for packing.
#pragma once
#include "gemm.hpp"
#include "loops.hpp"

namespace nl::NL_ISA {
namespace {

// Sums over taps at `rows` x `columns` pixels:
// to[i, j] = dot over k of weight[k] * plane[offset[k] + i * row_stride + j].
template <class T>
struct PlaneSums {
  using V = typename Simd<T>::V;
  static constexpr int W = kWidth<T>;
  static constexpr int kVecs = 4;  // side by side: one load of a weight serves four products

  const int64_t* offset;
  const T* weight;
  int64_t taps;

  // Reads up to kVecs vectors beyond the last pixel.
  void run(const T* plane, int64_t row_stride, int64_t rows, int64_t columns, T* to, int64_t y_stride,
           int64_t x_stride) const {
    for (int64_t i = 0; i < rows; i++, plane += row_stride, to += y_stride) {
      for (int64_t j = 0; j < columns; j += kVecs * W) {
        int count = int(min_of(kVecs * W, columns - j));
        if (x_stride == 1 && count == kVecs * W) {
          sum<kVecs>(plane + j, to + j);
          continue;
        }
        T part[kVecs * W];
        count <= W ? sum<1>(plane + j, part) : count <= 2 * W ? sum<2>(plane + j, part) : sum<kVecs>(plane + j, part);
        for (int l = 0; l < count; l++) to[(j + l) * x_stride] = part[l];
      }
    }
  }

  template <int N>
  void sum(const T* from, T* to) const {
    V total[N] = {};
    for (int64_t k = 0; k < taps; k += kDepth) {
      V block[N] = {};
      for (int64_t t = k; t < min_of(k + kDepth, taps); t++) {
        V w = splat<V>(weight[t]);
#pragma GCC unroll 4
        for (int v = 0; v < N; v++) block[v] = multiply_add(w, load<V>(from + offset[t] + v * W), block[v]);
      }
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) total[v] = k == 0 ? block[v] : total[v] + block[v];
    }
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) store(to + v * W, total[v]);
  }
};

}  // namespace
}  // namespace nl::NL_ISA
