// row_sums.hpp: rows that are read twice: something found first becomes a row's center, then terms of the distances
// from it are added up. Every operation is rounded, all sums are T(n); a row is in the caches when it is read again.
#pragma once
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

// A kind says what is found first and made the center, which terms of a distance x - center are added up, and whether
// the distances themselves are wanted too. This one is about sums of exp(x - max).
template <class T>
struct ExpSums {
  using V = typename Simd<T>::V;
  using First = Max<T>;
  static constexpr bool kSumsDistances = false;

  static V center(V found, int64_t) { return found; }
  static V term(V distance) { return exp_of(distance); }
};

// What was found of up to kWidth rows, one in a lane.
template <class T>
struct RowSums {
  using V = typename Simd<T>::V;
  V center, sum, distances;
};

// The elements of x along an axis, as a walk over all others that may cover more views than x.
template <class T, int K>
struct RowsOf {
  const View& x;
  Walk<K> kept;
  int64_t n, step;
  const T *data = (const T*)x.data, *end = end_of<T>(x);
};

template <class K, class T>
RowSums<T> sums_of_row(const Strided<T>& x, int64_t n) {
  using V = typename Simd<T>::V;
  using First = typename K::First;
  const V center = K::center(splat<V>(First::finish(TreeRow<First>::run(x, n))), n);
  auto sum_of = [&](auto&& term) {
    return TreeRow<Sum<T>>::run(x, n, [=](V v, const T* p, int64_t) {
      __builtin_prefetch(p + n, 0, 2);  // most likely the next row
      return term(v - center);
    });
  };
  const T distances = K::kSumsDistances ? sum_of([](V d) { return d; }) : T(0);
  const T sum = sum_of([](V d) { return K::term(d); });
  return {center, splat<V>(sum), splat<V>(distances)};
}

// A group of short rows at once; `terms` has room for theirs, and holds them afterwards. They are made apart from the
// sum, whose last step would take 32 exponentials of a row of 33 elements.
template <class K, class T, int W>
RowSums<T> sums_of_short_rows(const T* const (&x)[W], int64_t n, T* terms) {
  using V = typename Simd<T>::V;
  const int64_t pitch = whole_steps(n);
  T centers[W];
  auto row_at = [=](int r) { return x[r]; };
  using First = TreeRow<typename K::First>;
  store(centers, K::center(K::First::results(First::several_asking(row_at, n)), n));
  auto row_of_terms = [=](int r) { return terms + r * pitch; };
  auto store_terms = [&](auto&& term) __attribute__((always_inline)) {
    for (int r = 0; r < W; r++) {
      const V center = splat<V>(centers[r]);
      for (int64_t k = 0; k < n; k += W) store(terms + r * pitch + k, term(load<V>(x[r] + k) - center));
    }
  };
  V distances = {};
  if (K::kSumsDistances) {
    store_terms([](V d) { return d; });
    distances = TreeRow<Sum<T>>::several(row_of_terms, n);
  }
  store_terms([](V d) { return K::term(d); });
  return {load<V>(centers), TreeRow<Sum<T>>::several(row_of_terms, n), distances};
}

// finish(group, count, sums) gets where up to kWidth rows lie in the walk's views, and what was found of them.
template <class K, class T, int N, class F>
void sums_along_rows(const RowsOf<T, N>& rows, const F& finish) {
  constexpr int W = Simd<T>::kWidth;
  const int64_t n = rows.n, step = rows.step;
  parallel_for(rows.kept.total, grain_of(4 * n), [&](int64_t begin, int64_t stop) {
    T* terms = is_short<T>(n) ? (T*)nl_scratch(1, W * whole_steps(n) * sizeof(T)) : nullptr;
    auto c = rows.kept.seek(begin);
    auto short_ones = [&](const RowGroup<N, W>& group) {
      const T* in[W];
      if (!group.readable(0, rows.data, rows.end, n)) return false;
      for (int r = 0; r < W; r++) in[r] = rows.data + group.at[0][r];
      finish(group, W, sums_of_short_rows<K>(in, n, terms));
      return true;
    };
    int64_t i = terms && step == 1 ? for_groups<W>(rows.kept, c, begin, stop, short_ones) : begin;
    for (; i < stop; i++, rows.kept.next(c)) {
      RowGroup<N, W> one;
      for (int k = 0; k < N; k++) one.at[k][0] = c.at[k];
      finish(one, 1, sums_of_row<K>(Strided<T>{rows.data + c.at[0], step, rows.end}, n));
    }
  });
}

// What is found of a tile of columns; found(c, sums) gets that of the vector at column c.
template <class K, class T, class F>
void sums_of_tile(const T* x, int64_t step, int64_t n, int columns, const F& found) {
  using V = typename Simd<T>::V;
  using Tree = TreeColumns<Sum<T>>;
  alignas(64) T centers[Tree::kTile], sums[Tree::kTile], distances[Tree::kTile];
  column_trees<typename K::First>(x, step, n, columns,
                                  [&](int c, V first) { store(centers + c, K::center(first, n)); });
  auto distance = [&centers](V v, int c) { return v - load<V>(centers + c); };
  auto term = [&](V v, int c) { return K::term(distance(v, c)); };
  if (K::kSumsDistances) Tree::of_terms(x, {step, 1, columns}, n, distances, distance);
  Tree::of_terms(x, {step, 1, columns}, n, sums, term);
  for_vectors<T>(columns, [&](int c) {
    const V of_distances = K::kSumsDistances ? load<V>(distances + c) : V{};
    found(c, RowSums<T>{load<V>(centers + c), load<V>(sums + c), of_distances});
  });
}

// The same as along rows where columns lie along axis `d` of the walk, in tiles.
template <class K, class T, int N, class F>
void sums_down_columns(const RowsOf<T, N>& rows, int d, const F& finish) {
  constexpr int W = Simd<T>::kWidth;
  for_tiles<T>(rows.kept, d, rows.n, 2, [&](const auto& place, int64_t first, int columns) {
    const T* x = rows.data + place[0] + first;
    sums_of_tile<K>(x, rows.step, rows.n, columns, [&](int c, const RowSums<T>& sums) {
      RowGroup<N, W> group;
      for (int k = 0; k < N; k++) {
        for (int l = 0; l < W; l++) group.at[k][l] = place[k] + (first + c + l) * rows.kept.stride[k][d];
      }
      finish(group, W, sums);
    });
  });
}

// The same where they do not fill a vector.
template <class K, class T, int N, class F>
void sums_in_panels(const RowsOf<T, N>& rows, int d, const F& finish) {
  int64_t stride[N];
  for (int k = 0; k < N; k++) stride[k] = rows.kept.stride[k][d];
  for_panels<T>(rows.kept, d, rows.n, 2, [&](const Panel<T, N>& panel) {
    T* x = (T*)nl_scratch(1, panel.kSize * sizeof(T));
    panel.read(0, rows.data, rows.step, rows.end, rows.n, x);
    sums_of_tile<K>(x, panel.W, rows.n, panel.W, [&](int, const RowSums<T>& sums) {
      finish(panel.lanes(stride), panel.items * panel.columns, sums);
    });
  });
}

template <class K, class T, int N, class F>
void row_sums(const RowsOf<T, N>& rows, const F& finish) {
  const int d = tiled_axis<T>(rows.kept, rows.step, rows.n, 1);
  if (d < 0) return sums_along_rows<K>(rows, finish);
  in_panels<T>(rows.kept, d, rows.n) ? sums_in_panels<K>(rows, d, finish) : sums_down_columns<K>(rows, d, finish);
}

}  // namespace
}  // namespace nl::NL_ISA
