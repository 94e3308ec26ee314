// panel.hpp: columns that do not fill a vector, those of several items side by side in a panel of whole vectors.
#pragma once
#include "row_group.hpp"

namespace nl::NL_ISA {
namespace {

// What goes through one panel: up to a vector of columns, of items that lie somewhere in K views.
template <class T, int K>
struct Panel {
  using V = typename Simd<T>::V;
  static constexpr int W = Simd<T>::kWidth;
  static constexpr int64_t kSize = (kBlock + 1) * W;  // elements of a block of rows, and what is written behind them

  int columns, items;
  int64_t at[K][W];

  // n rows of view k, in memory that ends at `end`. What lies behind an item is overwritten by the next one; what lies
  // behind the last is never used.
  void read(int k, const T* data, int64_t step, const T* end, int64_t n, T* panel) const {
    for (int64_t i = 0; i < n; i++) {
      for (int j = 0; j < items; j++) {
        const T* from = data + at[k][j] + i * step;
        T* to = panel + i * W + j * columns;
        if (end - from >= W) {
          store(to, load<V>(from));
        } else {
          copy_first<V>(from, to, columns);
        }
      }
    }
  }

  // The columns of an item are written as two parts of a fixed size, of which the second ends at the last column.
  template <int kPart = W / 2>
  void write(int k, const T* panel, int64_t n, T* data, int64_t step) const {
    if constexpr (kPart > 1) {
      if (columns < kPart) return write<kPart / 2>(k, panel, n, data, step);
    }
    for (int64_t i = 0; i < n; i++) {
      for (int j = 0; j < items; j++) {
        const T* from = panel + i * W + j * columns;
        T* to = data + at[k][j] + i * step;
        __builtin_memcpy(to, from, kPart * sizeof(T));
        __builtin_memcpy(to + columns - kPart, from + columns - kPart, kPart * sizeof(T));
      }
    }
  }

  // Where the columns, `stride` apart, lie in the views.
  RowGroup<K, W> lanes(const int64_t (&stride)[K]) const {
    RowGroup<K, W> group;
    for (int k = 0; k < K; k++) {
      for (int j = 0, l = 0; j < items; j++) {
        for (int c = 0; c < columns; c++) group.at[k][l++] = at[k][j] + c * stride[k];
      }
    }
    return group;
  }
};

// Whether n rows of the columns along axis `d` of a walk go through panels, which they fill half of at least.
template <class T, int K>
bool in_panels(const Walk<K>& kept, int d, int64_t n) {
  return n <= kBlock && kept.shape[d] < Simd<T>::kWidth && kept.total >= Simd<T>::kWidth / 2;
}

// body(panel) for panels of all columns along axis `d`; `work` is that of one of the n elements of a column.
template <class T, int K, class F>
void for_panels(Walk<K> kept, int d, int64_t n, int64_t work, const F& body) {
  constexpr int W = Simd<T>::kWidth;
  const int columns = int(kept.shape[d]), together = W / columns;
  kept.remove_axis(d);
  parallel_for(ceil_div(kept.total, together), grain_of(work * n * W), [&](int64_t begin, int64_t stop) {
    auto c = kept.seek(begin * together);
    for (int64_t i = begin; i < stop; i++) {
      Panel<T, K> panel;
      panel.columns = columns;
      panel.items = int(min_of(together, kept.total - i * together));
      for (int j = 0; j < panel.items; j++, kept.next(c)) {
        for (int k = 0; k < K; k++) panel.at[k][j] = c.at[k];
      }
      body(panel);
    }
  });
}

}  // namespace
}  // namespace nl::NL_ISA
