// norm.cpp: layer_norm over the rows of a matrix: (x - mean - rest) (1 / sqrt(var + eps)) weight + bias; rms_norm:
// x / sqrt(mean of x^2 + eps) weight.
//
// The mean is T(n) of x, rest that of x - mean, which the rounding of the mean left, both divided by n; var is T(n) of
// (x - mean)^2 divided by n, less rest^2, of the same reading. Every operation is rounded, so the bits are the
// definition's.
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

  // What is taken from a row's elements, and the root that scales them.
  struct Moments {
    T mean, rest, deviation;
  };

  // The terms of a row's sums; squares ask for what lies some elements behind them.
  static auto squares(T mean, int64_t ahead) {
    return [m = splat<V>(mean), ahead](V v, const T* p, int64_t) {
      __builtin_prefetch(p + ahead, 0, 2);
      const V d = kCentred ? v - m : v;
      return d * d;
    };
  }
  static auto distances(T mean) {
    return [m = splat<V>(mean)](V v, const T*, int64_t) { return v - m; };
  }

  void row(const Strided<T>& x, RowOut<T> y) const {
    T mean = 0, rest = 0, variance;
    if constexpr (kCentred) {
      mean = Tree::run(x, n) / T(n);
      const auto sums = Tree::both(x, 0, n, distances(mean), squares(mean, n));
      rest = sums.a[0] / T(n), variance = without_rounding(sums.b[0] / T(n), rest * rest);
    } else {
      variance = Tree::run(x, n, squares(mean, n)) / T(n);
    }
    const Moments of{mean, rest, square_root(variance + eps)};
    for_blocks(n, [&](int64_t i, int64_t count) { scaled(x, i, count, of, y); });
  }

  // A group of short rows at once.
  template <int W>
  void short_rows(const Strided<T> (&x)[W], const RowOut<T> (&y)[W]) const {
    T means[W] = {}, rests[W] = {}, variances[W];
    const V size = splat<V>(T(n));
    auto row_at = [&](int r) { return x[r].data; };
    auto squares_of = [&](int r) { return squares(means[r], Tree::ahead(n)); };
    if constexpr (kCentred) {
      store(means, Tree::several_asking(row_at, n) / size);
      const auto sums =
          Tree::template both_of_blocks<W>(row_at, n, 0, [&](int r) { return distances(means[r]); }, squares_of);
      const V rest = sums.a / size;
      store(rests, rest), store(variances, without_rounding(sums.b / size, rest * rest));
    } else {
      store(variances, Tree::several(row_at, n, squares_of) / size);
    }
    for (int r = 0; r < W; r++) scaled(x[r], 0, n, {means[r], rests[r], square_root(variances[r] + eps)}, y[r]);
  }

  // y = (x - mean - rest) (1 / deviation) weight + bias, or x / deviation weight, in a block. A function of its own:
  // inlined into both that call it, it passes its vectors on to another through memory.
  __attribute__((noinline)) void scaled(const Strided<T>& x, int64_t i, int64_t count, const Moments& of,
                                        RowOut<T> y) const {
    alignas(64) T buffer[3][kBlock];
    const V mean = splat<V>(of.mean), rest = splat<V>(of.rest);
    const V scale = splat<V>(kCentred ? T(1) / of.deviation : of.deviation);
    const T* w = weight.vectors(i, count, buffer[1]);
    const T* b = kCentred ? bias.vectors(i, count, buffer[2]) : nullptr;
    map_block(x.vectors(i, count, buffer[0]), i, count, y, [=](V v, int64_t k) {
      const V normal = kCentred ? (v - mean - rest) * scale : v / scale, scaled = normal * load<V>(w + k);
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
