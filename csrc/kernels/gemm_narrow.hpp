// gemm_narrow.hpp: a matrix that is contiguous in k times two to four columns: its rows lie across the lanes.
//
// The micro-kernel would fill a vector with these few columns and read the matrix an element at a time. Here squares of
// it are transposed in registers, so every lane of every multiplication counts: twice as fast at two columns.
#pragma once
#include "gemm_pack.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kMostNarrow = 4;  // columns

template <class T>
bool is_narrow(const Matrix<T>& a, const Matrix<T>& b, int64_t k) {
  return b.lines <= kMostNarrow && a.step == 1 && k >= kWidth<T> && a.lines >= kWidth<T>;
}

// kWidth lines of A times N columns.
template <class T, int N>
struct NarrowProduct {
  using V = typename Simd<T>::V;
  static constexpr int W = kWidth<T>;

  const T* columns;  // element (k, n) at columns[k * step + n * stride]
  int64_t step, stride, k;

  // sum[n] of the lines that begin at line[0..W).
  void run(const T* const* line, V* sum) const {
    for (int64_t at = 0; at < k; at += kDepth) {
      V block[N];
      add_block(line, at, min_of(at + kDepth, k), block);
      for (int n = 0; n < N; n++) sum[n] = at > 0 ? sum[n] + block[n] : block[n];
    }
  }

 private:
  // A block is one chain of its own, from +0, in registers: sums that are written could be the columns that are read.
  void add_block(const T* const* line, int64_t begin, int64_t end, V* block) const {
    V square[W], sum[N] = {};
    const T* column = columns + begin * step;
    int64_t at = begin;
    for (; at + W <= end; at += W) {
      read(line, at, square);
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) add(square[i], column, sum);
    }
    if (at < end) {
      read(line, k - W, square);  // the last square overlaps the one before
      T lanes[W][W];
      for (int i = 0; i < W; i++) store(lanes[i], square[i]);
      for (; at < end; at++) add(load<V>(lanes[at - (k - W)]), column, sum);
    }
    for (int n = 0; n < N; n++) block[n] = sum[n];
  }

  NL_FN void read(const T* const* line, int64_t at, V (&square)[W]) {
#pragma GCC unroll 16
    for (int r = 0; r < W; r++) square[r] = load<V>(line[r] + at);
    transpose(square);
  }

  // Of the next k. One pointer goes along: gcc would hold an address for each of W k and N columns.
  __attribute__((always_inline)) void add(V x, const T*& column, V* sum) const {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) sum[n] = multiply_add(x, splat<V>(column[n * stride]), sum[n]);
    column += step;
    __asm__("" : "+r"(column));
  }
};

template <int N, class T, class Finish>
void multiply_narrow(const Matrix<T>& a, const Matrix<T>& b, const Output<T>& c, int64_t batches, int64_t k,
                     const Finish& finish) {
  constexpr int W = kWidth<T>;
  const int64_t groups = ceil_div(a.lines, W);
  parallel_for(batches * groups, grain_of(W * k), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; u++) {
      const int64_t batch = u / groups, first = u % groups * W, count = min_of(W, a.lines - first);
      const T *lines = a.batch(batch) + first * a.line_stride, *line[W];
      for (int r = 0; r < W; r++) line[r] = lines + min_of(r, count - 1) * a.line_stride;
      typename Simd<T>::V sum[N];
      NarrowProduct<T, N>{b.batch(batch), b.step, b.line_stride, k}.run(line, sum);
      T* to = c.data + batch * c.batch_stride + first * c.row_stride;
      for (int n = 0; n < N; n++, to += c.columns.x_stride) {
        for (int64_t r = 0; r < count; r++) to[r * c.row_stride] = sum[n][r];
      }
    }
    for (int64_t u = begin, stop; u < end; u = stop) {
      const int64_t batch = u / groups;
      stop = min_of(end, (batch + 1) * groups);
      finish(batch, u % groups * W, min_of(a.lines, (stop - batch * groups) * W));
    }
  });
}

// finish(batch, begin, end) is called on each part of A's lines that is complete.
template <class T, class Finish>
void multiply_narrow(const Matrix<T>& a, const Matrix<T>& b, const Output<T>& c, int64_t batches, int64_t k,
                     const Finish& finish) {
  if (b.lines == 2) return multiply_narrow<2>(a, b, c, batches, k, finish);
  if (b.lines == 3) return multiply_narrow<3>(a, b, c, batches, k, finish);
  multiply_narrow<4>(a, b, c, batches, k, finish);
}

}  // namespace
}  // namespace nl::NL_ISA
