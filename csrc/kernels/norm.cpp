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

  Strided<T> weight, bias;  // rms_norm has no bias
  int64_t n;
  T eps;

  T mean_of(const Strided<T>& x) const { return TreeRow<Sum<T>>::run(x, n) / T(n); }

  static V centred(V v, T mean) { return kCentred ? v - splat<V>(mean) : v; }

  T variance_of(const Strided<T>& x, T mean) const {
    auto squares = [=, n = n](int64_t i, int64_t count, T* buffer) {
      const T* in = x(i, count, buffer);
      for (int64_t k = 0; k < count; k += Simd<T>::kWidth) {
        __builtin_prefetch(in + n + k, 0, 2);  // most likely the next row
        V v = centred(load<V>(in + k), mean);
        store(buffer + k, v * v);
      }
      return (const T*)buffer;
    };
    return TreeRow<Sum<T>>::run(squares, n) / T(n);
  }

  void row(const Strided<T>& x, RowOut<T> y) const {
    alignas(64) T buffer[3][kBlock];
    T mean = kCentred ? mean_of(x) : T(0);
    T deviation = square_root(variance_of(x, mean) + eps);
    for (int64_t i = 0; i < n; i += kBlock) {
      int64_t count = min_of(kBlock, n - i);
      const T* w = weight(i, count, buffer[1]);
      const T* b = kCentred ? bias(i, count, buffer[2]) : nullptr;
      map_block(x(i, count, buffer[0]), i, count, y, [=](V v, int64_t k) {
        V scaled = centred(v, mean) / splat<V>(deviation) * load<V>(w + k);
        return kCentred ? scaled + load<V>(b + k) : scaled;
      });
    }
  }
};

template <class T>
Strided<T> vector_of(const View& v) {
  return {(const T*)v.data, v.strides[0], end_of<T>(v)};
}

template <class T, bool kCentred>
int over_rows(const Call& call) {
  const View &x = call.in[0], &y = call.out[0];
  double eps;
  __builtin_memcpy(&eps, &call.attr[0], sizeof eps);
  int64_t rows = x.shape[0], n = x.shape[1];
  Norm<T, kCentred> norm{vector_of<T>(call.in[1]), vector_of<T>(call.in[kCentred ? 2 : 1]), n, T(eps)};
  const T* end = end_of<T>(x);
  bool stream = y.strides[1] == 1 && streams<T>(y, n, rows);
  if (n == 0) return kOk;
  parallel_for(rows, grain_of(n), [=, &x, &y, &norm](int64_t begin, int64_t stop) {
    for (int64_t i = begin; i < stop; i++) {
      norm.row(Strided<T>{(const T*)x.data + i * x.strides[0], x.strides[1], end},
               RowOut<T>{(T*)y.data + i * y.strides[0], y.strides[1], stream});
    }
    if (stream) stream_fence();
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
