// gemm_stream.hpp: rows of a large matrix, read once and in the order of memory, times a few numbers each.
//
// A product with few rows takes the time of reading B. Its rows are read kStreams side by side in long pieces, the next
// ones prefetched, and are added to sums that stay in L1. Nothing of B is packed.
#pragma once
#include "gemm.hpp"
#include "loops.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kStreams = NL_VEC_BYTES == 64 ? 8 : 4;
constexpr int kStreamBytes = 2048;  // of a row that are read at a time
template <class T>
constexpr int kStreamColumns = kStreamBytes / int(sizeof(T));

// R rows of N vectors at `from`: sums at sums[line * pitch], factors at factor[line * R + row].
template <int R, int N, class T>
NL_FN void add_columns(const T* from, int64_t step, const T* factor, int lines, T* sums, int pitch) {
  using V = typename Simd<T>::V;
  V b[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < N; v++) {
      b[r][v] = load<V>(from + r * step + v * kWidth<T>);
      __builtin_prefetch(from + (R + r) * step + v * kWidth<T>);
    }
  }
  for (int i = 0; i < lines; i++, sums += pitch, factor += R) {
    V sum[N];
#pragma GCC unroll 2
    for (int v = 0; v < N; v++) sum[v] = load<V>(sums + v * kWidth<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      V f = splat<V>(factor[r]);
#pragma GCC unroll 2
      for (int v = 0; v < N; v++) sum[v] = multiply_add(f, b[r][v], sum[v]);
    }
#pragma GCC unroll 2
    for (int v = 0; v < N; v++) store(sums + v * kWidth<T>, sum[v]);
  }
}

// sums[line][column] = fma(factor[line][row], from[row][column], the sum), rows in ascending order. A last vector that
// is not whole lies `width - kWidth` from the beginning, and so reads what lies before it; its sums are a vector of
// their own, of which only the last lanes count.
template <int R, class T>
void add_rows(const T* from, int64_t step, int width, const T* factor, int lines, T* sums, int pitch) {
  constexpr int W = kWidth<T>;
  int j = 0;
  for (; j + 2 * W <= width; j += 2 * W) add_columns<R, 2>(from + j, step, factor, lines, sums + j, pitch);
  for (; j < width; j += W) add_columns<R, 1>(from + min_of(j, width - W), step, factor, lines, sums + j, pitch);
}

// Where add_rows left the sum of column j.
template <class T>
NL_FN int sum_of_column(int j, int width) {
  int whole = width / kWidth<T> * kWidth<T>;
  return j < whole ? j : j - width + whole + kWidth<T>;
}

// A few lines of A times columns of B that are adjacent in memory; k > 0.
template <class T>
struct StreamedProduct {
  int64_t lines, k;
  int64_t a_line, a_step, b_step;
  T* c;
  int64_t c_line, c_column;

  static constexpr int kMaxLines = 32;

  // Elements of scratch that `run` needs.
  static int64_t scratch_elements(int64_t lines) { return lines * (kStreams + kStreamColumns<T> + kWidth<T>); }

  // Columns [first, first + width) over all of k.
  void run(const T* a, const T* b, int64_t first, int width, T* scratch) const {
    int pitch = int(ceil_div(width, kWidth<T>) + 1) * kWidth<T>;  // no power of two: lines would share sets of L1
    T *factors = scratch, *sums = scratch + lines * kStreams;
    for (int64_t at = 0; at < k; at += kDepth) {
      int depth = int(min_of(kDepth, k - at));
      for (int64_t i = 0; i < lines * pitch; i++) sums[i] = 0;
      add_block(a + at * a_step, b + at * b_step + first, depth, width, factors, sums, pitch);
      put(first, width, sums, pitch, at > 0);
    }
  }

 private:
  void add_block(const T* a, const T* b, int depth, int width, T* factors, T* sums, int pitch) const {
    int i = 0;
    for (; i + kStreams <= depth; i += kStreams) {
      for (int64_t line = 0; line < lines; line++) {
        gather_row(a + line * a_line + i * a_step, a_step, kStreams, factors + line * kStreams);
      }
      add_rows<kStreams>(b + i * b_step, b_step, width, factors, int(lines), sums, pitch);
    }
    for (; i < depth; i++) {
      for (int64_t line = 0; line < lines; line++) factors[line] = a[line * a_line + i * a_step];
      add_rows<1>(b + i * b_step, b_step, width, factors, int(lines), sums, pitch);
    }
  }

  void put(int64_t first, int width, const T* sums, int pitch, bool add) const {
    for (int64_t line = 0; line < lines; line++, sums += pitch) {
      T* to = c + line * c_line + first * c_column;
      int j = c_column == 1 ? put_vectors(to, width, sums, add) : 0;
      for (; j < width; j++) {
        T sum = sums[sum_of_column<T>(j, width)];
        to[j * c_column] = add ? to[j * c_column] + sum : sum;
      }
    }
  }

  static int put_vectors(T* to, int width, const T* sums, bool add) {
    using V = typename Simd<T>::V;
    int j = 0;
    for (; j + kWidth<T> <= width; j += kWidth<T>) {
      V sum = load<V>(sums + j);
      store(to + j, add ? load<V>(to + j) + sum : sum);
    }
    return j;
  }
};

}  // namespace
}  // namespace nl::NL_ISA
