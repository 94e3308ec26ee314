// softmax_grad.cpp: the gradients of softmax, y (g - sum(g y)), and log_softmax, g - exp(y) sum(g), from the result y.
//
// Every operation is rounded as in the definition and the sum is T(n); a row or a tile of columns makes two passes.
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

struct OfSoftmax {
  template <class V>
  static V term(V g, V y) {
    return g * y;
  }
  template <class V>
  static V result(V g, V y, V sum) {
    return y * (g - sum);
  }
};

struct OfLogSoftmax {
  template <class V>
  static V term(V g, V) {
    return g;
  }
  template <class V>
  static V result(V g, V y, V sum) {
    return g - exp_of(y) * sum;
  }
};

// The terms of the sum over a row of g, of which those of y lie beside them in whole steps.
template <class K, class T>
auto terms_beside(const T* y, int64_t ahead) {
  using V = typename Simd<T>::V;
  return [=](V g, const T* p, int64_t i) __attribute__((always_inline)) {
    __builtin_prefetch(p + ahead, 0, 2);
    __builtin_prefetch(y + i + ahead, 0, 2);
    return K::term(g, load<V>(y + i));
  };
}

template <class K, class T>
void row(const Strided<T>& g, const Strided<T>& y, RowOut<T> out, int64_t n) {
  using V = typename Simd<T>::V;
  alignas(64) T buffer[2][kBlock];
  auto terms = [&](int64_t i, int64_t count, T* to) {
    const T *a = g(i, count, buffer[0]), *b = y(i, count, buffer[1]);
    for (int64_t k = 0; k < count; k += Simd<T>::kWidth) store(to + k, K::term(load<V>(a + k), load<V>(b + k)));
    return (const T*)to;
  };
  using Tree = TreeRow<Sum<T>>;
  const bool beside = y.stride == 1 && y.end - y.data >= whole_steps(n);
  // Ahead of a row lies the next one, most likely.
  const V sum = splat<V>(beside ? Tree::run(g, n, terms_beside<K>(y.data, n)) : Tree::run(terms, n));
  for_blocks(n, [&](int64_t i, int64_t count) {
    const T* b = y(i, count, buffer[1]);
    auto result = [=](V v, int64_t k) { return K::result(v, load<V>(b + k), sum); };
    map_block(g(i, count, buffer[0]), i, count, out, result);
  });
}

// A group of short rows at once.
template <class K, class T, int W>
void short_rows(const T* const (&g)[W], const T* const (&y)[W], const RowOut<T>* out, int64_t n) {
  using V = typename Simd<T>::V;
  T sums[W];
  store(sums, TreeRow<Sum<T>>::several([&](int r) { return g[r]; }, n,
                                       [&](int r) { return terms_beside<K>(y[r], TreeRow<Sum<T>>::ahead(n)); }));
  for (int r = 0; r < W; r++) {
    const V sum = splat<V>(sums[r]);
    const T* of = y[r];
    map_block(g[r], 0, n, out[r], [=](V v, int64_t k) { return K::result(v, load<V>(of + k), sum); });
  }
}

template <class K, class T>
void over_rows(const View& g, const View& y, const View& out, const Walk<3>& rows, int64_t n,
               const int64_t (&step)[3]) {
  constexpr int W = Simd<T>::kWidth;
  const bool stream = step[2] == 1 && streams<T>(out, n, rows.total);
  const bool grouped = step[0] == 1 && step[1] == 1 && is_short<T>(n);
  const T *g_data = (const T*)g.data, *y_data = (const T*)y.data, *g_end = end_of<T>(g), *y_end = end_of<T>(y);
  parallel_for(rows.total, grain_of(2 * n), [&](int64_t begin, int64_t stop) {
    auto c = rows.seek(begin);
    auto short_ones = [&](const RowGroup<3, W>& group) {
      const T *g_rows[W], *y_rows[W];
      RowOut<T> to[W];
      for (int r = 0; r < W; r++) {
        g_rows[r] = g_data + group.at[0][r];
        y_rows[r] = y_data + group.at[1][r];
        to[r] = RowOut<T>{(T*)out.data + group.at[2][r], step[2], stream};
      }
      if (!group.readable(0, g_data, g_end, n) || !group.readable(1, y_data, y_end, n)) return false;
      short_rows<K>(g_rows, y_rows, to, n);
      return true;
    };
    int64_t i = grouped ? for_groups<W>(rows, c, begin, stop, short_ones) : begin;
    for (; i < stop; i++, rows.next(c)) {
      Strided<T> g_row{g_data + c.at[0], step[0], g_end}, y_row{y_data + c.at[1], step[1], y_end};
      row<K>(g_row, y_row, RowOut<T>{(T*)out.data + c.at[2], step[2], stream}, n);
    }
    if (stream) stream_fence();
  });
}

template <class K, class T>
void tile(const T* g, int64_t g_step, const T* y, int64_t y_step, T* out, int64_t out_step, int64_t n, int columns,
          T* buffer) {
  using V = typename Simd<T>::V;
  alignas(64) T sums[TreeColumns<Sum<T>>::kTile];
  auto term = [=](int64_t i, int c) { return K::term(load<V>(g + i * g_step + c), load<V>(y + i * y_step + c)); };
  column_sums<false>(0, n, columns, term, buffer, sums);
  Polls polls;
  for (int64_t i = 0; i < n; i++) {
    polls.after(columns);
    for_vectors<T>(columns, [&](int c) {
      V v = K::result(load<V>(g + i * g_step + c), load<V>(y + i * y_step + c), load<V>(sums + c));
      store(out + i * out_step + c, v);
    });
  }
}

// Columns along axis `d` that do not fill a vector.
template <class K, class T>
void over_panels(const View& g, const View& y, const View& out, const Walk<3>& kept, int d, int64_t n,
                 const int64_t (&step)[3]) {
  for_panels<T>(kept, d, n, 2, [&](const Panel<T, 3>& panel) {
    T *g_rows = (T*)nl_scratch(1, 3 * panel.kSize * sizeof(T)), *y_rows = g_rows + panel.kSize;
    panel.read(0, (const T*)g.data, step[0], end_of<T>(g), n, g_rows);
    panel.read(1, (const T*)y.data, step[1], end_of<T>(y), n, y_rows);
    tile<K>(g_rows, panel.W, y_rows, panel.W, g_rows, panel.W, n, panel.W, y_rows + panel.kSize);
    panel.write(2, g_rows, n, (T*)out.data, step[2]);
  });
}

template <class K, class T>
void over_axis(const Call& call) {
  const View &g = call.in[0], &y = call.in[1], &out = call.out[0];
  const int axis = int(call.attr[0]);
  const int64_t n = g.shape[axis], g_step = g.strides[axis], y_step = y.strides[axis], out_step = out.strides[axis];
  if (n == 0) return;
  const Walk<3> kept = walk_without({&g, &y, &out}, axis);
  const int64_t longest = max_of(g_step < 0 ? -g_step : g_step, y_step < 0 ? -y_step : y_step);
  const int d = tiled_axis<T>(kept, longest, n);
  if (d < 0) return over_rows<K, T>(g, y, out, kept, n, {g_step, y_step, out_step});
  if (in_panels<T>(kept, d, n)) return over_panels<K, T>(g, y, out, kept, d, n, {g_step, y_step, out_step});
  for_tiles<T>(kept, d, n, 2, kTileElements<T>, [&](const auto& at, int64_t first, int columns) {
    T* buffer = (T*)nl_scratch(1, kTileRoom<T> * sizeof(T));
    tile<K>((const T*)g.data + at[0] + first, g_step, (const T*)y.data + at[1] + first, y_step,
            (T*)out.data + at[2] + first, out_step, n, columns, buffer);
  });
}

template <class K>
int by_dtype(const Call& call) {
  call.in[0].dtype == DType::f64 ? over_axis<K, double>(call) : over_axis<K, float>(call);
  return kOk;
}

}  // namespace

int softmax_grad(const Call& call) { return by_dtype<OfSoftmax>(call); }
int log_softmax_grad(const Call& call) { return by_dtype<OfLogSoftmax>(call); }

}  // namespace nl::NL_ISA
