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

template <class K, class T>
void row(const Strided<T>& g, const Strided<T>& y, RowOut<T> out, int64_t n) {
  using V = typename Simd<T>::V;
  alignas(64) T buffer[2][kBlock];
  auto terms = [&](int64_t i, int64_t count, T* to) {
    const T *a = g(i, count, buffer[0]), *b = y(i, count, buffer[1]);
    for (int64_t k = 0; k < count; k += Simd<T>::kWidth) {
      __builtin_prefetch(a + n + k, 0, 2);  // most likely the next row
      __builtin_prefetch(b + n + k, 0, 2);
      store(to + k, K::term(load<V>(a + k), load<V>(b + k)));
    }
    return (const T*)to;
  };
  V sum = splat<V>(TreeRow<Sum<T>>::run(terms, n));
  for (int64_t i = 0; i < n; i += kBlock) {
    int64_t count = min_of(kBlock, n - i);
    const T* b = y(i, count, buffer[1]);
    auto result = [=](V v, int64_t k) { return K::result(v, load<V>(b + k), sum); };
    map_block(g(i, count, buffer[0]), i, count, out, result);
  }
}

template <class K, class T>
void tile(const T* g, int64_t g_step, const T* y, int64_t y_step, T* out, int64_t out_step, int64_t n, int columns,
          T* buffer) {
  using V = typename Simd<T>::V;
  alignas(64) T sums[TreeColumns<Sum<T>>::kTile];
  auto term = [&](int64_t i, int c) { return K::term(load<V>(g + i * g_step + c), load<V>(y + i * y_step + c)); };
  column_sums(0, n, columns, term, buffer, sums);
  for (int64_t i = 0; i < n; i++) {
    for_vectors<T>(columns, [&](int c) {
      V v = K::result(load<V>(g + i * g_step + c), load<V>(y + i * y_step + c), load<V>(sums + c));
      store(out + i * out_step + c, v);
    });
  }
}

template <class K, class T>
void over_axis(const Call& call) {
  const View &g = call.in[0], &y = call.in[1], &out = call.out[0];
  const int axis = int(call.attr[0]);
  const int64_t n = g.shape[axis], g_step = g.strides[axis], y_step = y.strides[axis], out_step = out.strides[axis];
  if (n == 0) return;
  Walk<3> kept;
  for (int d = 0; d < g.rank; d++) {
    if (d != axis) kept.add_axis(g.shape[d], {g.strides[d], y.strides[d], out.strides[d]});
  }
  const int d = g_step == 1 && y_step == 1 ? -1 : column_axis<T>(kept);
  if (d < 0) {
    bool stream = out_step == 1 && streams<T>(out, n, kept.total);
    parallel_for(kept.total, grain_of(2 * n), [&](int64_t begin, int64_t stop) {
      auto c = kept.seek(begin);
      for (int64_t i = begin; i < stop; i++, kept.next(c)) {
        Strided<T> g_row{(const T*)g.data + c.at[0], g_step, end_of<T>(g)};
        Strided<T> y_row{(const T*)y.data + c.at[1], y_step, end_of<T>(y)};
        row<K>(g_row, y_row, RowOut<T>{(T*)out.data + c.at[2], out_step, stream}, n);
      }
      if (stream) stream_fence();
    });
    return;
  }
  const int64_t columns = kept.shape[d];
  kept.remove_axis(d);
  const int64_t tiles = column_tiles<T>(columns, n, kept.total);
  parallel_for(kept.total * tiles, grain_of(2 * n * (columns / tiles)), [&](int64_t begin, int64_t stop) {
    T* buffer = (T*)nl_scratch(1, (kTileElements<T> + kLanes) * sizeof(T));
    for (int64_t i = begin; i < stop; i++) {
      auto c = kept.seek(i / tiles);
      int64_t first = i % tiles * columns / tiles, width = (i % tiles + 1) * columns / tiles - first;
      tile<K>((const T*)g.data + c.at[0] + first, g_step, (const T*)y.data + c.at[1] + first, y_step,
              (T*)out.data + c.at[2] + first, out_step, n, int(width), buffer);
    }
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
