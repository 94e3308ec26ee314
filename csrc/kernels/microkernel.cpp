// microkernel.cpp: the micro-kernel at every tile size.
#include "microkernel.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kStretch = 16;  // of k between two prefetches

template <class T, PanelOfB kB, int kRows, int kVecs>
void multiply_tile(int64_t depth, Panel<T> a, Panel<T> b, T* c, int64_t c_row, bool accumulate) {
  using V = typename Simd<T>::V;
  V sum[kRows][kVecs] = {};
  auto run = [&](int64_t steps) __attribute__((always_inline)) {
    for (int64_t k = 0; k < steps; k++) {
      const T* right = kB == PanelOfB::listed ? b.data + b.at[k] : b.data;
      if (kB == PanelOfB::with_next) __builtin_prefetch(b.next, 0, 2), b.next += b.next_step;
      V column[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) column[v] = load<V>(right + v * kWidth<T>);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; i++) {
        V row = splat<V>(a.data[i * a.line_stride]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; v++) sum[i][v] = multiply_add(row, column[v], sum[i][v]);
      }
      a.data += a.step;
      if (kB != PanelOfB::listed) b.data += b.step;
    }
    if (kB == PanelOfB::listed) b.at += steps;
    depth -= steps;
  };
  // C, added at the end, is prefetched row by row: all at once it holds up the loads of A and B (2 % at 2048^3).
  for (int i = 0; accumulate && i < kRows; i++) {
    for (int v = 0; v < kVecs; v++) __builtin_prefetch(c + i * c_row + v * kWidth<T>, 1);
    run(depth < kStretch ? depth : kStretch);
  }
  run(depth);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; i++) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; v++) {
      T* to = c + i * c_row + v * kWidth<T>;
      store(to, accumulate ? load<V>(to) + sum[i][v] : sum[i][v]);
    }
  }
}

template <class T, PanelOfB kB, int kVecs, int kRows = kTileRows>
MicroKernel<T> by_rows(int rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return by_rows<T, kB, kVecs, kRows - 1>(rows);
  }
  return multiply_tile<T, kB, kRows, kVecs>;
}

template <class T, PanelOfB kB>
MicroKernel<T> by_vecs(int rows, int vecs) {
  if constexpr (kTileVecs == 4) {
    if (vecs == 4) return by_rows<T, kB, 4>(rows);
    if (vecs == 3) return by_rows<T, kB, 3>(rows);
  }
  return vecs == 2 ? by_rows<T, kB, 2>(rows) : by_rows<T, kB, 1>(rows);
}

template <class T>
MicroKernel<T> by_panel(int rows, int vecs, PanelOfB b) {
  return b == PanelOfB::plain    ? by_vecs<T, PanelOfB::plain>(rows, vecs)
         : b == PanelOfB::listed ? by_vecs<T, PanelOfB::listed>(rows, vecs)
                                 : by_vecs<T, PanelOfB::with_next>(rows, vecs);
}

}  // namespace

MicroKernel<float> micro_kernel(float, int rows, int vecs, PanelOfB b) { return by_panel<float>(rows, vecs, b); }
MicroKernel<double> micro_kernel(double, int rows, int vecs, PanelOfB b) { return by_panel<double>(rows, vecs, b); }

}  // namespace nl::NL_ISA
