// microkernel.cpp: the micro-kernel at every tile size.
#include "microkernel.hpp"

#include "stream_store.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kStretch = 16;  // of k between two prefetches

// The columns are kVecs vectors, each a V.
template <class T, class V, PanelKind kKind, int kRows, int kVecs>
void multiply_tile(int64_t depth, const Panel<T>& left, const Panel<T>& right, T* c, int64_t c_row, const T* before,
                   int64_t before_row) {
  constexpr int kWide = sizeof(V) / sizeof(T);
  Panel<T> a = left, b = right;
  V sum[kRows][kVecs] = {};
  const bool accumulate = before != nullptr;
  constexpr bool kListed = kKind == PanelKind::listed, kListedRows = kKind == PanelKind::listed_rows;
  constexpr bool kStrided = kKind == PanelKind::strided || kKind == PanelKind::strided_with_next || kListedRows;
  constexpr bool kHasNext = kKind == PanelKind::with_next || kKind == PanelKind::strided_with_next || kListedRows;
  const int64_t a_line = kStrided ? a.line_stride : 1;
  auto run = [&](int64_t steps) __attribute__((always_inline)) {
    for (int64_t k = 0; k < steps; k++) {
      const T* rows = kListedRows ? a.data + a.at[k] : a.data;
      const T* columns = kListed ? b.data + b.at[k] : b.data;
      if (kHasNext) __builtin_prefetch(b.next, 0, 2), b.next += b.next_step;
      V column[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) column[v] = load<V>(columns + v * kWide);
#pragma GCC unroll 32
      for (int i = 0; i < kRows; i++) {
        V row = splat<V>(rows[i * a_line + (kListedRows && i >= kRows / 2 ? a.half : 0)]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; v++) sum[i][v] = multiply_add(row, column[v], sum[i][v]);
      }
      if (!kListedRows) a.data += a.step;
      if (!kListed) b.data += b.step;
    }
    if (kListedRows) a.at += steps;
    if (kListed) b.at += steps;
    depth -= steps;
  };
  // What is added at the end is brought into L2 row by row: all at once it holds up the loads of A and B (2 % at
  // 2048^3), and in L1 rows that lie a power of two apart crowd each other and B out. A row that does not begin a line
  // ends in one more, whose loads would wait (5 % at 1021^3, 8 % at 2047^3).
  const T* ahead = before;
  for (int i = 0; accumulate && i < kRows; i++, ahead += before_row) {
    for (int v = 0; v < kVecs; v++) __builtin_prefetch(ahead + v * kWide, 0, 2);
    __builtin_prefetch(ahead + kVecs * kWide - 1, 0, 2);
    run(depth < kStretch ? depth : kStretch);
  }
  // Stores to memory wait for the lines that they overwrite (4-20 % of a 1x1 convolution of 16 images), but where those
  // are in a cache asking for them costs 2-5 %.
  constexpr bool kMayBeFar = kHasNext || kListed;
  if (kMayBeFar && b.far && !accumulate) {
    const T* to = c;
    for (int i = 0; i < kRows; i++, to += c_row) {
      for (int v = 0; v < kVecs; v++) __builtin_prefetch(to + v * kWide, 1, 3);
      run(depth < kStretch / 4 ? depth : kStretch / 4);
    }
  }
  run(depth);
  if constexpr (kHasNext && kWide == kWidth<T>) {
    if (b.past) {
#pragma GCC unroll 32
      for (int i = 0; i < kRows; i++, c += c_row) {
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; v++) stream_store(c + v * kWide, sum[i][v]);
      }
      return;
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kRows; i++, c += c_row, before += before_row) {
    // Else gcc computes the address of every row from the first one, into registers that it does not have.
    __asm__("" : "+r"(c), "+r"(before));
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; v++) {
      store(c + v * kWide, accumulate ? load<V>(before + v * kWide) + sum[i][v] : sum[i][v]);
    }
  }
}

template <class T, class V, PanelKind kKind, int kVecs, int kRows = kTileRows>
MicroKernel<T> by_rows(int rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return by_rows<T, V, kKind, kVecs, kRows - 1>(rows);
  }
  return multiply_tile<T, V, kKind, kRows, kVecs>;
}

template <class T, PanelKind kKind>
MicroKernel<T> by_columns(int rows, int columns) {
  using V = typename Simd<T>::V;
  if constexpr (kTileVecs == 4) {
    if (columns > 3 * kWidth<T>) return by_rows<T, V, kKind, 4>(rows);
    if (columns > 2 * kWidth<T>) return by_rows<T, V, kKind, 3>(rows);
  }
  if (columns > kWidth<T>) return by_rows<T, V, kKind, 2>(rows);
  constexpr int kMost = kKind == PanelKind::listed_rows ? 2 * kTileRows : kTileRows;
  if constexpr (kHalf<T> > 0) {
    if (columns <= kHalf<T>) return by_rows<T, typename VecOf<T, sizeof(V) / 2>::V, kKind, 1, kMost>(rows);
  }
  return by_rows<T, V, kKind, 1, kMost>(rows);
}

template <class T>
MicroKernel<T> by_kind(int rows, int columns, PanelKind kind) {
  switch (kind) {
    case PanelKind::strided: return by_columns<T, PanelKind::strided>(rows, columns);
    case PanelKind::packed: return by_columns<T, PanelKind::packed>(rows, columns);
    case PanelKind::listed: return by_columns<T, PanelKind::listed>(rows, columns);
    case PanelKind::with_next: return by_columns<T, PanelKind::with_next>(rows, columns);
    case PanelKind::strided_with_next: return by_columns<T, PanelKind::strided_with_next>(rows, columns);
    default: return by_columns<T, PanelKind::listed_rows>(rows, columns);
  }
}

}  // namespace

MicroKernel<float> micro_kernel(float, int rows, int columns, PanelKind kind) {
  return by_kind<float>(rows, columns, kind);
}
MicroKernel<double> micro_kernel(double, int rows, int columns, PanelKind kind) {
  return by_kind<double>(rows, columns, kind);
}

}  // namespace nl::NL_ISA
