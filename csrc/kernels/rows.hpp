// rows.hpp: elementwise passes over rows, and over tiles of columns: what softmax and norm are made of besides T(n).
#pragma once
#include "panel.hpp"
#include "stream_store.hpp"
#include "tree_columns.hpp"

namespace nl::NL_ISA {
namespace {

// One row of an output, and how it is written.
template <class T>
struct RowOut {
  T* data;
  int64_t stride;
  bool stream;  // only where every block of the row is aligned
};

// out[i] = f(in[i], i) for `count` elements, a vector at least; f maps vectors, and is a copy, of which a compiler
// knows that stores do not change it. The last vector is moved back to end at the last element: `out` is not `in`.
template <class T, class F>
__attribute__((always_inline)) inline void map_vectors(const T* in, int64_t count, T* out, F f) {
  using V = typename Simd<T>::V;
  constexpr int kWidth = Simd<T>::kWidth;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(out + i, f(load<V>(in + i), i));
  if (i < count) store(out + count - kWidth, f(load<V>(in + count - kWidth), count - kWidth));
}

// The same for any `count` up to a block, from element `begin` of a row on.
template <class T, class F>
void map_block(const T* in, int64_t begin, int64_t count, RowOut<T> out, F f) {
  using V = typename Simd<T>::V;
  constexpr int kWidth = Simd<T>::kWidth;
  alignas(64) T buffer[kBlock];
  T* to = out.stride == 1 ? out.data + begin : buffer;
  if (count < kWidth) {
    store_first(to, f(load<V>(in), 0), int(count));
  } else if (!out.stream) {
    map_vectors(in, count, to, f);
  } else {
    int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) stream_store(to + i, f(load<V>(in + i), i));
    if (i < count) store(to + count - kWidth, f(load<V>(in + count - kWidth), count - kWidth));
  }
  for (int64_t k = 0; out.stride != 1 && k < count; k++) out.data[(begin + k) * out.stride] = buffer[k];
}

// Rows of n elements of x that become rows of y of the same shape, `axis` their axis: short ones in groups.
template <class T>
struct RowMap {
  static constexpr int W = Simd<T>::kWidth;

  const View &x, &y;
  Walk<2> rows;
  int64_t n, x_step, y_step;
  bool stream, grouped;

  RowMap(const View& x, const View& y, int axis)
      : x(x),
        y(y),
        rows(walk_without({&x, &y}, axis)),
        n(x.shape[axis]),
        x_step(x.strides[axis]),
        y_step(y.strides[axis]) {
    stream = y_step == 1 && streams<T>(y, n, rows.total);
    grouped = x_step == 1 && is_short<T>(n);
  }

  Strided<T> in(int64_t at) const { return {(const T*)x.data + at, x_step, end_of<T>(x)}; }
  RowOut<T> out(int64_t at) const { return {(T*)y.data + at, y_step, stream}; }

  // The rows [begin, stop): row(in, out) for each, short_rows(ins, outs) for each group.
  template <class Row, class ShortRows>
  void run(int64_t begin, int64_t stop, const Row& row, const ShortRows& short_rows) const {
    auto c = rows.seek(begin);
    auto together = [&](const RowGroup<2, W>& group) {
      if (!group.readable(0, (const T*)x.data, end_of<T>(x), n)) return false;
      Strided<T> ins[W];
      RowOut<T> outs[W];
      for (int r = 0; r < W; r++) ins[r] = in(group.at[0][r]), outs[r] = out(group.at[1][r]);
      short_rows(ins, outs);
      return true;
    };
    int64_t i = grouped ? for_groups<W>(rows, c, begin, stop, together) : begin;
    for (; i < stop; i++, rows.next(c)) row(in(c.at[0]), out(c.at[1]));
    if (stream) stream_fence();
  }
};

// ---- tiles of columns: vectors lie across a kept axis, where the reduced one is strided ----

// Elements of the 512 rows of a block that are kept between making them and adding them up: a quarter of a 1 MiB L2.
template <class T>
constexpr int64_t kTileElements = (256 << 10) / sizeof(T);

// The same of few rows: they, what is kept of them and the results are in a 32 KiB L1.
template <class T>
constexpr int64_t kNearElements = (10 << 10) / sizeof(T);

// How `columns` are cut for tiles of n rows, with `elements` of a block at most: into parts of nearly equal width,
// enough of them for all threads, but whole where these share the `others` evenly, for hardware follows whole rows
// best. Edges are moved to whole vectors, which may make a part wider by less than one.
template <class T>
int64_t column_tiles(int64_t columns, int64_t n, int64_t others, int64_t elements) {
  const int64_t threads = nl_num_threads();
  int64_t widest = min_of(elements / max_of(1, min_of(n, kBlock)), TreeColumns<Sum<T>>::kTile) - Simd<T>::kWidth;
  int64_t wanted = others % threads == 0 ? 1 : ceil_div(2 * threads, others);
  return max_of(ceil_div(columns, widest), min_of(wanted, columns / (2 * Simd<T>::kWidth)));
}

// Room that a tile needs for the rows of a block.
template <class T>
constexpr int64_t kTileRoom = kTileElements<T> + kLanes;

// body(at, first, width) for tiles of `width` columns along axis `d` of a walk, from the first-th on, where `at` is the
// place in each view of the tile's other axes; `work` is that of one of the n elements of a column.
template <class T, int K, class F>
void for_tiles(Walk<K> kept, int d, int64_t n, int64_t work, int64_t elements, const F& body) {
  constexpr int kWidth = Simd<T>::kWidth;
  const int64_t columns = kept.shape[d];
  kept.remove_axis(d);
  const int64_t tiles = column_tiles<T>(columns, n, kept.total, elements);
  auto edge = [=](int64_t tile) { return tile == tiles ? columns : tile * columns / tiles / kWidth * kWidth; };
  parallel_for(kept.total * tiles, grain_of(work * n * (columns / tiles)), [&](int64_t begin, int64_t stop) {
    auto c = kept.seek(begin / tiles);
    int64_t tile = begin % tiles;
    for (int64_t i = begin; i < stop; i++) {
      const int64_t first = edge(tile);
      body(c.at, first, int(edge(tile + 1) - first));
      if (++tile == tiles) tile = 0, kept.next(c);
    }
  });
}

// The same where what is made of few rows is read again: it stays near.
template <class T, int K, class F>
void for_tiles(const Walk<K>& kept, int d, int64_t n, int64_t work, const F& body) {
  for_tiles<T>(kept, d, n, work, n <= kLanes ? kNearElements<T> : kTileElements<T>, body);
}

// The same for who goes down all of n elements at once: tiles of up to 4 KiB, which begin at whole lines, so that a
// line belongs to one thread.
template <class T, int K, class F>
void for_line_tiles(Walk<K> kept, int d, int64_t n, int64_t work, const F& body) {
  constexpr int64_t kLine = 64 / sizeof(T), kMost = 4096 / sizeof(T);
  const int64_t columns = kept.shape[d];
  kept.remove_axis(d);
  const int64_t shares = ceil_div(nl_num_threads(), max_of(kept.total, 1));
  const int64_t wanted = max_of(ceil_div(columns, kMost), min_of(shares, columns / Simd<T>::kWidth));
  const int64_t width = ceil_div(ceil_div(columns, wanted), kLine) * kLine, tiles = ceil_div(columns, width);
  parallel_for(kept.total * tiles, grain_of(work * n * min_of(width, columns)), [&](int64_t begin, int64_t end) {
    auto c = kept.seek(begin / tiles);
    each_row(tiles, begin, end, [&](int64_t, int64_t first, int64_t last) {
      for (int64_t at = first * width; at < min_of(last * width, columns); at += width) {
        body(c.at, at, int(min_of(width, columns - at)));
      }
      kept.next(c);
    });
  });
}

// body(c) for vectors that cover `columns` >= kWidth columns; the last one is moved back to end at the last column.
template <class T, class F>
void for_vectors(int columns, const F& body) {
  constexpr int kWidth = Simd<T>::kWidth;
  for (int c = 0; c < columns; c += kWidth) body(int(min_of(c, columns - kWidth)));
}

// T(n) of n rows of `columns` >= kWidth columns: finish(c, results) gets those of a vector of columns.
template <class M, class F>
void column_trees(const typename M::In* x, int64_t step, int64_t n, int columns, const F& finish) {
  using Tree = TreeColumns<M>;
  if (0 < n && n <= kFewRows) {
    return Tree::few(x, step, int(n), columns, nullptr, [&](int c, int, const auto& results) { finish(c, results); });
  }
  alignas(64) typename M::Lane found[Tree::kTile];
  Tree::run(x, {step, 1, columns}, n, found);
  for_vectors<typename M::In>(columns, [&](int c) { finish(c, M::results(load<typename Tree::V>(found + c))); });
}

// T(n) down the columns of rows [first, first + n), where term(i, c) gives the vector of row i at column c. `buffer`
// has room for the rows of a block. If the terms are kept it holds the last block's afterwards; else those of a lane
// are added up in it as they are made.
template <bool kKept, class T, class F>
void column_sums(int64_t first, int64_t n, int columns, const F& term, T* buffer, T* result) {
  using V = typename Simd<T>::V;
  using Tree = TreeColumns<Sum<T>>;
  if (n <= kBlock) {
    const F f = term;  // a copy, of which a compiler knows that stores do not change it
    const int64_t rows = kKept ? n : min_of(n, kLanes);
    for (int64_t i = 0; i < rows; i++) {
      for_vectors<T>(columns, [&](int c) { store(buffer + i * columns + c, f(first + i, c)); });
    }
    for (int64_t i = rows; i < n; i++) {
      T* lane = buffer + i % kLanes * columns;
      auto sum = [=](int c) { return load<V>(lane + c) + f(first + i, c); };
      const int end = columns - Simd<T>::kWidth;
      const V last = sum(end);  // overlaps the one before
      for (int c = 0; c < end; c += Simd<T>::kWidth) store(lane + c, sum(c));
      store(lane + end, last);
    }
    return Tree::of_terms(buffer, {columns, 1, columns}, rows, result, typename Tree::Element());
  }
  const int64_t left = left_part(n, columns);
  alignas(64) T other[Tree::kTile];
  column_sums<kKept>(first, left, columns, term, buffer, result);
  column_sums<kKept>(first + left, n - left, columns, term, buffer, other);
  Tree::merge(result, other, columns);
}

// Whether axis `d` is contiguous in the first `views` views.
template <int K>
bool is_contiguous(const Walk<K>& kept, int d, int views) {
  bool contiguous = true;
  for (int k = 0; k < views; k++) contiguous = contiguous && kept.stride[k][d] == 1;
  return contiguous;
}

// Whether vectors may be laid across axis `d`: it is contiguous in the first `views` views, and a vector long.
template <class T, int K>
bool is_tiled(const Walk<K>& kept, int d, int views = K) {
  return kept.shape[d] >= Simd<T>::kWidth && is_contiguous(kept, d, views);
}

// The axis to lay vectors of n rows across, in tiles or panels, or -1 (column_axis).
template <class T, int K>
int tiled_axis(const Walk<K>& kept, int64_t step, int64_t n, int views = K) {
  return column_axis(kept, step, [&](int d) {
    return is_tiled<T>(kept, d, views) || (in_panels<T>(kept, d, n) && is_contiguous(kept, d, views));
  });
}

}  // namespace
}  // namespace nl::NL_ISA
