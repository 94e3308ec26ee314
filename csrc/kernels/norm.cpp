// norm.cpp: layer_norm over the rows of a matrix: (x - mean) / sqrt(var + eps) * weight + bias; rms_norm: without the
// mean and the bias.
//
// mean = T(n) of x / n, var = T(n) of (x - mean)^2 / n; every operation is rounded, so the bits are the definition's.
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

template <class T, bool kCentred>
struct Norm {
  using V = typename Simd<T>::V;
  using Tree = TreeRow<Sum<T>>;

  Strided<T> weight, bias;  // rms_norm has no bias: its is never looked at
  int64_t n;
  T eps;

  static V centred(V v, V mean) { return kCentred ? v - mean : v; }

  // The terms of a row's variance, which ask for what lies some elements behind them.
  auto squares(T mean, int64_t ahead) const {
    return [m = splat<V>(mean), ahead](V v, const T* p, int64_t) {
      __builtin_prefetch(p + ahead, 0, 2);
      const V d = centred(v, m);
      return d * d;
    };
  }

  void row(const Strided<T>& x, RowOut<T> y) const {
    const T mean = kCentred ? Tree::run(x, n) / T(n) : T(0);
    const T deviation = square_root(Tree::run(x, n, squares(mean, n)) / T(n) + eps);
    for_blocks(n, [&](int64_t i, int64_t count) { scaled(x, i, count, mean, deviation, y); });
  }

  // A group of short rows at once.
  template <int W>
  void short_rows(const Strided<T> (&x)[W], const RowOut<T> (&y)[W]) const {
    T means[W] = {}, variances[W];
    auto row_at = [&](int r) { return x[r].data; };
    if (kCentred) store(means, Tree::several_asking(row_at, n) / splat<V>(T(n)));
    store(variances,
          Tree::several(row_at, n, [&](int r) { return squares(means[r], Tree::ahead(n)); }) / splat<V>(T(n)));
    for (int r = 0; r < W; r++) scaled(x[r], 0, n, means[r], square_root(variances[r] + eps), y[r]);
  }

  // y = (x - mean) / deviation * weight + bias in a block.
  void scaled(const Strided<T>& x, int64_t i, int64_t count, T mean, T deviation, RowOut<T> y) const {
    alignas(64) T buffer[3][kBlock];
    const V m = splat<V>(mean), d = splat<V>(deviation);
    const T* w = weight.vectors(i, count, buffer[1]);
    const T* b = kCentred ? bias.vectors(i, count, buffer[2]) : nullptr;
    map_block(x.vectors(i, count, buffer[0]), i, count, y, [=](V v, int64_t k) {
      V scaled = centred(v, m) / d * load<V>(w + k);
      return kCentred ? scaled + load<V>(b + k) : scaled;
    });
  }
};

template <class T>
Strided<T> vector_of(const View& v) {
  return {(const T*)v.data, v.strides[0], end_of<T>(v)};
}

// A vector of one block in a form that is not copied for every row.
template <class T>
Strided<T> laid_out(const Strided<T>& v, int64_t n, T* buffer) {
  if (n > kBlock) return v;
  const T* p = v(0, n, buffer);
  return {p, 1, p + whole_steps(n)};
}

template <class T, bool kCentred>
int over_rows(const Call& call) {
  const RowMap<T> map(call.in[0], call.out[0], 1);
  const int64_t n = map.n;
  if (n == 0) return kOk;
  const T eps = T(double_of(call.attr[0]));
  parallel_for(map.rows.total, grain_of(n), [=, &call, &map](int64_t begin, int64_t stop) {
    alignas(64) T buffer[2][kBlock];
    const auto weight = laid_out(vector_of<T>(call.in[1]), n, buffer[0]);
    const auto bias = laid_out(vector_of<T>(call.in[kCentred ? 2 : 1]), n, buffer[1]);
    const Norm<T, kCentred> norm{weight, bias, n, eps};
    map.run(
        begin, stop, [&](const auto& x, const auto& y) { norm.row(x, y); },
        [&](const auto& x, const auto& y) { norm.short_rows(x, y); });
  });
  return kOk;
}

}  // namespace

int layer_norm(const Call& call) {
  return call.in[0].dtype == DType::f64 ? over_rows<double, true>(call) : over_rows<float, true>(call);
}

int rms_norm(const Call& call) {
  return call.in[0].dtype == DType::f64 ? over_rows<double, false>(call) : over_rows<float, false>(call);
}

}  // namespace nl::NL_ISA
