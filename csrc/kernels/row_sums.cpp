// row_sums.cpp: logsumexp, log of sum exp(x - max) + max, and sum_square_deviations, the sum of (x - mean)^2 less what
// the rounding of the mean adds, rest (rest / n) with rest = sum (x - mean).
#include "row_sums.hpp"

namespace nl::NL_ISA {
namespace {

template <class T>
struct LogSumExp : ExpSums<T> {
  using V = typename Simd<T>::V;

  // Nothing is taken from an infinity.
  static V center(V max, int64_t) { return max - max == T(0) ? max : V{}; }
  static V result(const RowSums<T>& s, int64_t) { return log_of(s.sum) + s.center; }
};

template <class T>
struct SquareDeviations {
  using V = typename Simd<T>::V;
  using First = Sum<T>;
  static constexpr bool kSumsDistances = true;

  static V center(V sum, int64_t n) { return sum / splat<V>(T(n)); }
  static V term(V distance) { return distance * distance; }
  static V result(const RowSums<T>& s, int64_t n) {
    return without_rounding(s.sum, s.distances * (s.distances / splat<V>(T(n))));
  }
};

template <class K, class T>
void over_axis(const Call& call) {
  constexpr int W = Simd<T>::kWidth;
  const View &x = call.in[0], &out = call.out[0];
  const int axis = int(call.attr[0]);
  const int64_t n = x.shape[axis];
  const RowsOf<T, 2> rows{x, walk_without({&x, &out}, axis), n, x.strides[axis]};
  row_sums<K>(rows, [=, to = (T*)out.data](const RowGroup<2, W>& group, int count, const RowSums<T>& sums) {
    const auto results = K::result(sums, n);
    for (int r = 0; r < count; r++) to[group.at[1][r]] = results[r];
  });
}

template <template <class> class K>
int by_dtype(const Call& call) {
  call.in[0].dtype == DType::f64 ? over_axis<K<double>, double>(call) : over_axis<K<float>, float>(call);
  return kOk;
}

}  // namespace

int logsumexp(const Call& call) { return by_dtype<LogSumExp>(call); }
int sum_square_deviations(const Call& call) { return by_dtype<SquareDeviations>(call); }

}  // namespace nl::NL_ISA
