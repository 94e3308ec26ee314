// softmax.cpp: softmax = exp(x - max) / sum exp(x - max) and log_softmax = (x - max) - log sum exp(x - max) over an axis.
//
// Every operation is rounded as in the definition, the sum is T(n); so the bits are those of the definition spelled out.
// A row makes three passes, of which only the first reads memory and only the last writes it.
#include "exprs.gen.h"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

inline vf32 exp_of(vf32 x) { return nl_exp_f32(x); }
inline vf64 exp_of(vf64 x) { return nl_exp_f64(x); }
inline vf32 log_of(vf32 x) { return nl_log_f32(x); }
inline vf64 log_of(vf64 x) { return nl_log_f64(x); }

template <class T>
T max_of_row(const Strided<T>& x, int64_t n) {
  return TreeRow<Max<T>>::run(x, n);
}

// T(n) of e = exp(x - max); e is left in `exps`, contiguous, or nowhere when that is null.
template <class T>
T sum_of_exps(const Strided<T>& x, T max, int64_t n, T* exps) {
  using V = typename Simd<T>::V;
  auto source = [=](int64_t i, int64_t count, T* buffer) {
    const T* in = x(i, count, buffer);
    T* to = exps ? exps + i : buffer;
    for (int64_t k = 0; k < count; k += Simd<T>::kWidth) store(to + k, exp_of(load<V>(in + k) - splat<V>(max)));
    return (const T*)to;
  };
  return TreeRow<Sum<T>>::run(source, n);
}

// Calls block(i, count) for every block of a row.
template <class F>
void for_blocks(int64_t n, const F& block) {
  for (int64_t i = 0; i < n; i += kBlock) block(i, min_of(kBlock, n - i));
}

struct Softmax {
  template <class T>
  static void row(const Strided<T>& x, RowOut<T> y, int64_t n) {
    using V = typename Simd<T>::V;
    constexpr int64_t kKept = kRowBytes / sizeof(T);
    alignas(64) T kept[kKept], buffer[kBlock];
    T* exps = n <= kKept ? kept : nullptr;
    T max = max_of_row(x, n);
    V sum = splat<V>(sum_of_exps(x, max, n, exps));
    for_blocks(n, [&](int64_t i, int64_t count) {
      if (exps) return map_block(exps + i, i, count, y, [=](V e, int64_t) { return e / sum; });
      auto f = [=](V v, int64_t) { return exp_of(v - splat<V>(max)) / sum; };
      map_block(x(i, count, buffer), i, count, y, f);
    });
  }
};

struct LogSoftmax {
  template <class T>
  static void row(const Strided<T>& x, RowOut<T> y, int64_t n) {
    using V = typename Simd<T>::V;
    alignas(64) T buffer[kBlock];
    T max = max_of_row(x, n);
    V log_sum = log_of(splat<V>(sum_of_exps(x, max, n, (T*)nullptr)));
    auto f = [=](V v, int64_t) { return (v - splat<V>(max)) - log_sum; };
    for_blocks(n, [&](int64_t i, int64_t count) { map_block(x(i, count, buffer), i, count, y, f); });
  }
};

template <class K, class T>
void over_rows(const Call& call) {
  const View &x = call.in[0], &y = call.out[0];
  int axis = int(call.attr[0]);
  int64_t n = x.shape[axis], x_stride = x.strides[axis], y_stride = y.strides[axis];
  Walk<2> rows = walk_without(x, y, axis);
  const T* end = end_of<T>(x);
  bool stream = y_stride == 1 && streams<T>(y, n, rows.total);
  if (n == 0) return;
  parallel_for(rows.total, grain_of(4 * n), [=, &x, &y, &rows](int64_t begin, int64_t stop) {
    auto c = rows.seek(begin);
    for (int64_t i = begin; i < stop; i++, rows.next(c)) {
      K::row(Strided<T>{(const T*)x.data + c.at[0], x_stride, end}, RowOut<T>{(T*)y.data + c.at[1], y_stride, stream}, n);
    }
    if (stream) stream_fence();
  });
}

template <class K>
int by_dtype(const Call& call) {
  if (call.in[0].dtype == DType::f64) over_rows<K, double>(call);
  else over_rows<K, float>(call);
  return kOk;
}

}  // namespace

int softmax(const Call& call) { return by_dtype<Softmax>(call); }
int log_softmax(const Call& call) { return by_dtype<LogSoftmax>(call); }

}  // namespace nl::NL_ISA
