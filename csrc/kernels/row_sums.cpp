// row_sums.cpp: what reads a row twice and leaves one number: logsumexp, log of sum exp(x - max) + max, and
// sum_square_deviations, the sum of (x - mean)^2 less what the rounding of the mean adds, (sum (x - mean))^2 / n.
//
// Every operation is rounded as in the definition and all sums are T(n). A row is in the caches when it is read again.
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

// A kind says what is found first and made the center of a row, which terms of a distance x - center are added up, and
// what becomes of their sum, and of that of the distances where that is wanted.
template <class T>
struct LogSumExp {
  using V = typename Simd<T>::V;
  using First = Max<T>;

  // Nothing is taken from an infinity.
  static T center(typename First::Lane found, int64_t) {
    const T max = First::finish(found);
    return max - max == 0 ? max : T(0);
  }
  static constexpr bool kSumsDistances = false;
  static V term(V distance) { return exp_of(distance); }
  static V result(V sum, V center, V, int64_t) { return log_of(sum) + center; }
};

template <class T>
struct SquareDeviations {
  using V = typename Simd<T>::V;
  using First = Sum<T>;

  static T center(T found, int64_t n) { return found / T(n); }
  static constexpr bool kSumsDistances = true;
  static V term(V distance) { return distance * distance; }
  static V result(V sum, V, V rest, int64_t n) {
    const V squares = sum - rest * rest / splat<V>(T(n));
    return squares < V{} ? V{} : squares + V{};  // -0 + 0 is +0
  }
};

template <class K, class T>
T row(const Strided<T>& x, int64_t n) {
  using V = typename Simd<T>::V;
  const V center = splat<V>(K::center(TreeRow<typename K::First>::tree(x, 0, n)[0], n));
  auto source = [=](auto&& term) {
    return [=](int64_t i, int64_t count, T* buffer) {
      const T* in = x(i, count, buffer);
      for (int64_t k = 0; k < count; k += Simd<T>::kWidth) {
        __builtin_prefetch(in + n + k, 0, 2);  // most likely the next row
        store(buffer + k, term(load<V>(in + k) - center));
      }
      return (const T*)buffer;
    };
  };
  T rest = 0;
  if (K::kSumsDistances) rest = TreeRow<Sum<T>>::run(source([](V d) { return d; }), n);
  const T sum = TreeRow<Sum<T>>::run(source([](V d) { return K::term(d); }), n);
  return K::result(splat<V>(sum), center, splat<V>(rest), n)[0];
}

// A group of short rows at once; `terms` has room for theirs.
template <class K, class T, int W>
void short_rows(const T* const (&x)[W], int64_t n, T* terms, T* results) {
  using V = typename Simd<T>::V;
  const int64_t pitch = whole_steps(n);
  typename K::First::Lane found[W];
  T centers[W];
  store(found, TreeRow<typename K::First>::several([=](int r) { return x[r]; }, n));
  for (int r = 0; r < W; r++) {
    const V center = splat<V>(centers[r] = K::center(found[r], n));
    for (int64_t k = 0; k < n; k += W) store(terms + r * pitch + k, load<V>(x[r] + k) - center);
  }
  V rest = {};
  auto row_of_terms = [=](int r) { return terms + r * pitch; };
  if (K::kSumsDistances) rest = TreeRow<Sum<T>>::several(row_of_terms, n);
  for (int r = 0; r < W; r++) {
    for (int64_t k = 0; k < n; k += W) store(terms + r * pitch + k, K::term(load<V>(terms + r * pitch + k)));
  }
  const V sums = TreeRow<Sum<T>>::several(row_of_terms, n);
  store(results, K::result(sums, load<V>(centers), rest, n));
}

template <class K, class T>
void over_rows(const View& x, T* out, const Walk<2>& rows, int64_t n, int64_t step) {
  constexpr int W = Simd<T>::kWidth;
  const T *data = (const T*)x.data, *end = end_of<T>(x);
  parallel_for(rows.total, grain_of(2 * n), [=, &rows](int64_t begin, int64_t stop) {
    T* terms = is_short<T>(n) ? (T*)nl_scratch(1, W * whole_steps(n) * sizeof(T)) : nullptr;
    auto c = rows.seek(begin);
    auto short_ones = [&](const RowGroup<2, W>& group) {
      const T* in[W];
      T results[W];
      if (!group.readable(0, data, end, n)) return false;
      for (int r = 0; r < W; r++) in[r] = data + group.at[0][r];
      short_rows<K>(in, n, terms, results);
      for (int r = 0; r < W; r++) out[group.at[1][r]] = results[r];
      return true;
    };
    int64_t i = terms && step == 1 ? for_groups<W>(rows, c, begin, stop, short_ones) : begin;
    for (; i < stop; i++, rows.next(c)) out[c.at[1]] = row<K>(Strided<T>{data + c.at[0], step, end}, n);
  });
}

// Columns lie along axis `d` of `kept`, in tiles of nearly equal width.
template <class K, class T>
void over_columns(const View& x, T* out, Walk<2> kept, int d, int64_t n, int64_t step) {
  using V = typename Simd<T>::V;
  using Tree = TreeColumns<typename K::First>;
  constexpr int kTile = TreeColumns<Sum<T>>::kTile;
  const int64_t columns = kept.shape[d];
  kept.remove_axis(d);
  const int64_t tiles = column_tiles<T>(columns, n, kept.total);
  parallel_for(kept.total * tiles, grain_of(2 * n * (columns / tiles)), [=, &x, &kept](int64_t begin, int64_t stop) {
    T* buffer = (T*)nl_scratch(1, (kTileElements<T> + kLanes) * sizeof(T));
    alignas(64) typename K::First::Lane found[kTile];
    alignas(64) T centers[kTile], sums[kTile], rests[kTile];
    for (int64_t i = begin; i < stop; i++) {
      auto c = kept.seek(i / tiles);
      const int64_t first = i % tiles * columns / tiles;
      const int width = int((i % tiles + 1) * columns / tiles - first);
      const T* from = (const T*)x.data + c.at[0] + first;
      Tree::run(from, {step, 1, width}, n, found);
      for (int k = 0; k < width; k++) centers[k] = K::center(found[k], n);
      auto distance = [=, &centers](int64_t r, int k) {
        __builtin_prefetch(from + (r + 4) * step + k);
        return load<V>(from + r * step + k) - load<V>(centers + k);
      };
      if (K::kSumsDistances) column_sums(0, n, width, distance, buffer, rests);
      column_sums(0, n, width, [&](int64_t r, int k) { return K::term(distance(r, k)); }, buffer, sums);
      for_vectors<T>(width, [&](int k) {
        const V rest = K::kSumsDistances ? load<V>(rests + k) : V{};
        store(out + c.at[1] + first + k, K::result(load<V>(sums + k), load<V>(centers + k), rest, n));
      });
    }
  });
}

template <class K, class T>
void over_axis(const Call& call) {
  const View &x = call.in[0], &out = call.out[0];
  const int axis = int(call.attr[0]);
  const int64_t n = x.shape[axis], step = x.strides[axis];
  const Walk<2> kept = walk_without(x, out, axis);
  const int d = step == 1 ? -1 : column_axis<T>(kept);
  d < 0 ? over_rows<K>(x, (T*)out.data, kept, n, step) : over_columns<K>(x, (T*)out.data, kept, d, n, step);
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
