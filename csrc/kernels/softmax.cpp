// softmax.cpp: softmax = exp(x - max) / sum exp(x - max), log_softmax = (x - max) - log sum exp(x - max), over an axis.
//
// Every operation is rounded as in the definition, the sum is T(n), so the bits are those of the definition spelled
// out. A row makes three passes, of which only the first reads memory and only the last writes it. Where the axis is
// strided and its neighbour is not, the same is done to tiles of columns.
#include "functions.hpp"
#include "rows.hpp"

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

// How many exponentials of a row are kept between passes; a longer row leaves the L2 cache, and they are computed
// twice.
template <class T>
constexpr int64_t kKept = (512 << 10) / sizeof(T);

// T(n) of e = exp(x - max); e is left in `exps`, contiguous, or nowhere when that is null.
template <class T>
T sum_of_exps(const Strided<T>& x, T max, int64_t n, T* exps) {
  using V = typename Simd<T>::V;
  auto source = [=](int64_t i, int64_t count, T* buffer) {
    const T* in = x(i, count, buffer);
    T* to = exps ? exps + i : buffer;
    for (int64_t k = 0; k < count; k += Simd<T>::kWidth) {
      __builtin_prefetch(in + n + k, 0, 2);  // most likely the next row: memory would idle while exp is computed
      store(to + k, exp_of(load<V>(in + k) - splat<V>(max)));
    }
    return (const T*)to;
  };
  return TreeRow<Sum<T>>::run(source, n);
}

// One row; `exps` is room for the exponentials, or null.
template <class K, class T>
void row(const Strided<T>& x, RowOut<T> y, int64_t n, T* exps) {
  using V = typename Simd<T>::V;
  alignas(64) T buffer[kBlock];
  T max = Max<T>::finish(TreeRow<Max<T>>::run(x, n));
  V total = K::total(splat<V>(sum_of_exps(x, max, n, exps)));
  for (int64_t i = 0; i < n; i += kBlock) {
    int64_t count = min_of(kBlock, n - i);
    if (exps) {
      map_block(exps + i, i, count, y, [=](V e, int64_t) { return K::of_exp(e, total); });
    } else {
      auto result = [=](V v, int64_t) { return K::of_difference(v - splat<V>(max), total); };
      map_block(x(i, count, buffer), i, count, y, result);
    }
  }
}

// A group of short rows at once, from x[r] to y[r]; `exps` has room for their exponentials.
template <class K, class T>
void short_rows(const T* const* x, const RowOut<T>* y, int64_t n, T* exps) {
  using V = typename Simd<T>::V;
  constexpr int W = Simd<T>::kWidth;
  const int64_t pitch = whole_steps(n);
  typename Max<T>::Lane keys[W];
  T max[W], totals[W];
  store(keys, TreeRow<Max<T>>::several([=](int r) { return x[r]; }, n));
  for (int r = 0; r < W; r++) {
    max[r] = Max<T>::finish(keys[r]);
    for (int64_t k = 0; k < n; k += W) store(exps + r * pitch + k, exp_of(load<V>(x[r] + k) - splat<V>(max[r])));
  }
  store(totals, K::total(TreeRow<Sum<T>>::several([=](int r) { return exps + r * pitch; }, n)));
  for (int r = 0; r < W; r++) {
    const V total = splat<V>(totals[r]), largest = splat<V>(max[r]);
    if (K::kOfExp) map_block(exps + r * pitch, 0, n, y[r], [=](V e, int64_t) { return K::of_exp(e, total); });
    if (!K::kOfExp) {
      map_block(x[r], 0, n, y[r], [=](V v, int64_t) { return K::of_difference(v - largest, total); });
    }
  }
}

template <class K, class T>
void over_rows(const View& x, const View& y, const Walk<2>& rows, int64_t n, int64_t x_step, int64_t y_step) {
  constexpr int W = Simd<T>::kWidth;
  const T* end = end_of<T>(x);
  bool stream = y_step == 1 && streams<T>(y, n, rows.total);
  bool keep = K::kOfExp && n <= kKept<T>, grouped = x_step == 1 && is_short<T>(n);
  parallel_for(rows.total, grain_of(4 * n), [=, &x, &y, &rows](int64_t begin, int64_t stop) {
    T* exps = keep || grouped ? (T*)nl_scratch(1, (grouped ? W : 1) * whole_steps(n) * sizeof(T)) : nullptr;
    auto c = rows.seek(begin);
    auto short_ones = [&](const RowGroup<2, W>& group) {
      const T* in[W];
      RowOut<T> out[W];
      for (int r = 0; r < W; r++) {
        in[r] = (const T*)x.data + group.at[0][r];
        out[r] = RowOut<T>{(T*)y.data + group.at[1][r], y_step, stream};
      }
      if (!group.readable(0, (const T*)x.data, end, n)) return false;
      short_rows<K>(in, out, n, exps);
      return true;
    };
    int64_t i = grouped ? for_groups<W>(rows, c, begin, stop, short_ones) : begin;
    for (; i < stop; i++, rows.next(c)) {
      Strided<T> in{(const T*)x.data + c.at[0], x_step, end};
      row<K>(in, RowOut<T>{(T*)y.data + c.at[1], y_step, stream}, n, K::kOfExp ? exps : nullptr);
    }
    if (stream) stream_fence();
  });
}

// n rows of `columns` >= kWidth columns. The exponentials wait in `buffer` if all of them fit, else in the result.
template <class K, class T>
void tile(const T* x, int64_t x_step, T* y, int64_t y_step, int64_t n, int columns, T* buffer) {
  using V = typename Simd<T>::V;
  constexpr int kTile = TreeColumns<Sum<T>>::kTile;
  alignas(64) T max[kTile], sums[kTile], totals[kTile];
  alignas(64) typename Max<T>::Lane keys[kTile];
  const bool fits = n <= kBlock;
  TreeColumns<Max<T>>::run(x, {x_step, 1, columns}, n, keys);
  for (int c = 0; c < columns; c++) max[c] = Max<T>::finish(keys[c]);
  auto difference = [&](int64_t i, int c) { return load<V>(x + i * x_step + c) - load<V>(max + c); };
  auto exponential = [&](int64_t i, int c) {
    __builtin_prefetch(x + (i + 4) * x_step + c);
    V e = exp_of(difference(i, c));
    if (K::kOfExp && !fits) store(y + i * y_step + c, e);
    return e;
  };
  column_sums(0, n, columns, exponential, buffer, sums);
  for_vectors<T>(columns, [&](int c) { store(totals + c, K::total(load<V>(sums + c))); });
  const T* exps = fits ? buffer : y;
  const int64_t step = fits ? columns : y_step;
  auto result = [&](int64_t i, int c) {
    V total = load<V>(totals + c);
    return K::kOfExp ? K::of_exp(load<V>(exps + i * step + c), total) : K::of_difference(difference(i, c), total);
  };
  for (int64_t i = 0; i < n; i++) {
    V last = result(i, columns - Simd<T>::kWidth);  // overlaps the one before, whose exponentials it would overwrite
    for (int c = 0; c + Simd<T>::kWidth < columns; c += Simd<T>::kWidth) store(y + i * y_step + c, result(i, c));
    store(y + i * y_step + columns - Simd<T>::kWidth, last);
  }
}

// Columns lie along axis `d` of `kept`, in tiles of nearly equal width.
template <class K, class T>
void over_columns(const View& x, const View& y, Walk<2> kept, int d, int64_t n, int64_t x_step, int64_t y_step) {
  const int64_t columns = kept.shape[d];
  kept.remove_axis(d);
  const int64_t tiles = column_tiles<T>(columns, n, kept.total);
  int64_t grain = grain_of(4 * n * (columns / tiles));
  parallel_for(kept.total * tiles, grain, [=, &x, &y, &kept](int64_t begin, int64_t stop) {
    T* buffer = (T*)nl_scratch(1, (kTileElements<T> + kLanes) * sizeof(T));
    for (int64_t i = begin; i < stop; i++) {
      auto c = kept.seek(i / tiles);
      int64_t first = i % tiles * columns / tiles, width = (i % tiles + 1) * columns / tiles - first;
      const T* from = (const T*)x.data + c.at[0] + first;
      tile<K>(from, x_step, (T*)y.data + c.at[1] + first, y_step, n, int(width), buffer);
    }
  });
}

template <class K, class T>
void over_axis(const Call& call) {
  const View &x = call.in[0], &y = call.out[0];
  int axis = int(call.attr[0]);
  int64_t n = x.shape[axis], x_step = x.strides[axis], y_step = y.strides[axis];
  if (n == 0) return;
  Walk<2> kept = walk_without(x, y, axis);
  int d = column_axis(kept, x_step, [&](int d) { return is_tiled<T>(kept, d); });
  if (d < 0) return over_rows<K, T>(x, y, kept, n, x_step, y_step);
  over_columns<K, T>(x, y, kept, d, n, x_step, y_step);
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
