// softmax.cpp: softmax = exp(x - max) / sum exp(x - max), log_softmax = (x - max) - log sum exp(x - max), over an axis.
//
// Every operation is rounded as in the definition, the sum is T(n), so the bits are those of the definition spelled
// out. A row makes three passes, of which only the first reads memory and only the last writes it. Where the axis is
// strided and its neighbour is not, the same is done to tiles or panels of columns.
#include "row_sums.hpp"

namespace nl::NL_ISA {
namespace {

// How a result is made of d = x - max, e = exp(d) and the total, which is made of the sum of all e.
struct Softmax {
  static constexpr bool kOfExp = true;  // e suffices
  template <class V>
  static V total(V sum) {
    return sum;
  }
  template <class V>
  static V of_exp(V e, V total) {
    return e / total;
  }
  template <class V>
  static V of_difference(V d, V total) {
    return exp_of(d) / total;
  }
};

struct LogSoftmax {
  static constexpr bool kOfExp = false;
  template <class V>
  static V total(V sum) {
    return log_of(sum);
  }
  template <class V>
  static V of_exp(V e, V) {
    return e;
  }
  template <class V>
  static V of_difference(V d, V total) {
    return d - total;
  }
};

// Whether the exponentials of a row of n are kept between passes; those of a longer row would leave the L2 cache, and
// are computed twice.
template <class T>
bool keeps(int64_t n) {
  return n * int64_t(sizeof(T)) <= kNearBytes;
}

// The terms e = exp(x - max) of a row's sum; e is left in `exps`, contiguous, or nowhere when that is null.
template <class T>
auto exponentials(T max, int64_t n, T* exps) {
  using V = typename Simd<T>::V;
  return [=, m = splat<V>(max)](V x, const T* p, int64_t i) {
    __builtin_prefetch(p + n, 0, 2);  // most likely the next row: memory would idle while exp is computed
    const V e = exp_of(x - m);
    if (exps) store(exps + i, e);
    return e;
  };
}

// One row; `exps` is room for the exponentials, or null.
template <class K, class T>
void row(const Strided<T>& x, RowOut<T> y, int64_t n, T* exps) {
  using V = typename Simd<T>::V;
  alignas(64) T buffer[kBlock];
  T max = Max<T>::finish(TreeRow<Max<T>>::run(x, n));
  V total = K::total(splat<V>(TreeRow<Sum<T>>::run(x, n, exponentials(max, n, exps))));
  for_blocks(n, [&](int64_t i, int64_t count) {
    if (exps) {
      map_block(exps + i, i, count, y, [=](V e, int64_t) { return K::of_exp(e, total); });
    } else {
      auto result = [=](V v, int64_t) { return K::of_difference(v - splat<V>(max), total); };
      map_block(x(i, count, buffer), i, count, y, result);
    }
  });
}

// A group of short rows at once; `exps` has room for their exponentials.
template <class K, class T, int W>
void short_rows(const Strided<T> (&x)[W], const RowOut<T> (&y)[W], int64_t n, T* exps) {
  using V = typename Simd<T>::V;
  const T* in[W];
  for (int r = 0; r < W; r++) in[r] = x[r].data;
  const RowSums<T> found = sums_of_short_rows<ExpSums<T>>(in, n, exps);
  const V totals = K::total(found.sum);
  for (int r = 0; r < W; r++) {
    const V total = splat<V>(totals[r]), largest = splat<V>(found.center[r]);
    if (K::kOfExp) map_block(exps + r * whole_steps(n), 0, n, y[r], [=](V e, int64_t) { return K::of_exp(e, total); });
    if (!K::kOfExp) {
      map_block(in[r], 0, n, y[r], [=](V v, int64_t) { return K::of_difference(v - largest, total); });
    }
  }
}

template <class K, class T>
void over_rows(const RowMap<T>& map) {
  const int64_t n = map.n, row_room = K::kOfExp && keeps<T>(n) ? whole_steps(n) : 0;
  const int64_t room = map.grouped ? map.W * whole_steps(n) : row_room;
  parallel_for(map.rows.total, grain_of(4 * n), [=, &map](int64_t begin, int64_t stop) {
    T* exps = room ? (T*)nl_scratch(1, room * sizeof(T)) : nullptr;
    map.run(
        begin, stop, [=](const auto& x, const auto& y) { row<K>(x, y, n, row_room ? exps : nullptr); },
        [=](const auto& x, const auto& y) { short_rows<K>(x, y, n, exps); });
  });
}

// n rows of `columns` >= kWidth columns. Exponentials that are wanted wait in `buffer` if all fit, else in the result.
template <class K, class T>
void tile(const T* x, int64_t x_step, T* y, int64_t y_step, int64_t n, int columns, T* buffer) {
  using V = typename Simd<T>::V;
  constexpr int kTile = TreeColumns<Sum<T>>::kTile;
  alignas(64) T max[kTile], sums[kTile], totals[kTile];
  const bool fits = K::kOfExp && n <= kBlock;
  const int64_t ahead = n <= kLanes ? columns : 4 * x_step;  // most likely the next tile, or rows of this one
  column_trees<Max<T>>(x, x_step, n, columns, [&](int c, V largest) { store(max + c, largest); });
  const T* const largest = max;
  auto difference = [=](int64_t i, int c) { return load<V>(x + i * x_step + c) - load<V>(largest + c); };
  auto exponential = [=](int64_t i, int c) {
    __builtin_prefetch(x + i * x_step + c + ahead);
    V e = exp_of(difference(i, c));
    if (K::kOfExp && !fits) store(y + i * y_step + c, e);
    return e;
  };
  fits ? column_sums<true>(0, n, columns, exponential, buffer, sums)
       : column_sums<false>(0, n, columns, exponential, buffer, sums);
  for_vectors<T>(columns, [&](int c) { store(totals + c, K::total(load<V>(sums + c))); });
  const T* exps = fits ? buffer : y;
  const int64_t step = fits ? columns : y_step;
  auto result = [&](int64_t i, int c) {
    V total = load<V>(totals + c);
    return K::kOfExp ? K::of_exp(load<V>(exps + i * step + c), total) : K::of_difference(difference(i, c), total);
  };
  Polls polls;
  for (int64_t i = 0; i < n; i++) {
    polls.after(columns);
    V last = result(i, columns - Simd<T>::kWidth);  // overlaps the one before, whose exponentials it would overwrite
    for (int c = 0; c + Simd<T>::kWidth < columns; c += Simd<T>::kWidth) store(y + i * y_step + c, result(i, c));
    store(y + i * y_step + columns - Simd<T>::kWidth, last);
  }
}

// Columns along axis `d` that do not fill a vector.
template <class K, class T>
void over_panels(const RowMap<T>& map, int d) {
  for_panels<T>(map.rows, d, map.n, 4, [&](const Panel<T, 2>& panel) {
    T* rows = (T*)nl_scratch(1, 2 * panel.kSize * sizeof(T));
    panel.read(0, (const T*)map.x.data, map.x_step, end_of<T>(map.x), map.n, rows);
    tile<K>(rows, panel.W, rows, panel.W, map.n, panel.W, rows + panel.kSize);
    panel.write(1, rows, map.n, (T*)map.y.data, map.y_step);
  });
}

template <class K, class T>
void over_axis(const Call& call) {
  const int axis = int(call.attr[0]);
  const RowMap<T> map(call.in[0], call.out[0], axis);
  if (map.n == 0) return;
  const int d = tiled_axis<T>(map.rows, map.x_step, map.n);
  if (d < 0) return over_rows<K>(map);
  if (in_panels<T>(map.rows, d, map.n)) return over_panels<K>(map, d);
  for_tiles<T>(map.rows, d, map.n, 4, [&](const auto& at, int64_t first, int columns) {
    T* buffer = (T*)nl_scratch(1, kTileRoom<T> * sizeof(T));
    const T* from = (const T*)map.x.data + at[0] + first;
    tile<K>(from, map.x_step, (T*)map.y.data + at[1] + first, map.y_step, map.n, columns, buffer);
  });
}

template <class K>
int by_dtype(const Call& call) {
  call.in[0].dtype == DType::f64 ? over_axis<K, double>(call) : over_axis<K, float>(call);
  return kOk;
}

}  // namespace

int softmax(const Call& call) { return by_dtype<Softmax>(call); }
int log_softmax(const Call& call) { return by_dtype<LogSoftmax>(call); }

}  // namespace nl::NL_ISA
