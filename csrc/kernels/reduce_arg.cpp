// reduce_arg.cpp: argmax and argmin over one axis: the first index of the extremum, where -0 equals +0 and a NaN beats
// every number.
//
// Elements become integer keys of which the largest is looked for, so that one search serves all types of a size.
#include "reduce.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

template <class Key>
struct Best {
  Key key;
  int64_t at;
};

// The better of two candidates in any order of index.
template <class Key>
Best<Key> better(Best<Key> a, Best<Key> b) {
  return b.key > a.key || (b.key == a.key && b.at < a.at) ? b : a;
}

// The search for the largest key in every column of a matrix, which comes in panels of rows.
template <class Key>
struct Search {
  using V = typename Simd<Key>::V;
  using Index = Mask<Key>;  // as wide as a key, so that one mask serves both
  using IndexV = typename Simd<Index>::V;
  static constexpr int kWidth = Simd<Key>::kWidth;
  static constexpr int kTile = kLanes * kWidth;
  static constexpr int kRows = 16;      // of a panel
  static constexpr int kSegment = 112;  // rows after which narrow indices are widened; at most 127, whole panels

  // Rows [begin, end) of a segment, whose keys lie in a panel with columns in whole vectors.
  static void panel(const Key* keys, int columns, int begin, int end, Key* largest, Index* at) {
    for (int c = 0; c < columns; c += kWidth) {
      V best = load<V>(largest + c);
      IndexV where = load<IndexV>(at + c);
      for (int i = begin; i < end; i++) {
        V next = load<V>(keys + (i - begin) * kTile + c);
        auto wins = next > best;
        best = wins ? next : best;
        where = wins ? splat<IndexV>(Index(i)) : where;
      }
      store(largest + c, best);
      store(at + c, where);
    }
  }

  // Adds what a segment found to what the ones before did.
  static void widen(const Key* largest, const Index* at, int columns, int64_t first, Best<Key>* result) {
    for (int c = 0; c < columns; c++) {
      if (first > 0 && largest[c] <= result[c].key) continue;
      result[c] = {largest[c], first + at[c]};
    }
  }

  // n rows of columns; keys_of(row, keys) makes the keys of one row.
  template <class KeysOf>
  static void run(int64_t n, int columns, const KeysOf& keys_of, Best<Key>* result) {
    alignas(64) Key keys[kRows * kTile], largest[kTile];
    alignas(64) Index at[kTile];
    for (int64_t first = 0; first < n; first += kSegment) {
      int rows = int(min_of(kSegment, n - first));
      keys_of(first, largest);
      __builtin_memset(at, 0, sizeof at);
      for (int begin = 0; begin < rows; begin += kRows) {
        int end = int(min_of(begin + kRows, rows));
        for (int i = begin; i < end; i++) keys_of(first + i, keys + (i - begin) * kTile);
        panel(keys, columns, begin, end, largest, at);
      }
      widen(largest, at, columns, first, result);
    }
  }
};

// argmax for kSign = 1, argmin for -1.
template <class T, int kSign>
struct Arg {
  using Order = Ordered<T, kSign>;
  using Key = typename Order::Key;
  using In = T;
  using Out = int64_t;
  using Part = Best<Key>;
  using V = typename Simd<T>::V;
  static constexpr int kWidth = Simd<T>::kWidth;
  static constexpr int kTile = Search<Key>::kTile;

  static constexpr bool kSeveral = false, kFew = false;

  static int64_t finish(Part best) { return best.at; }
  static void merge(Part* a, const Part* b, int64_t count) {
    for (int64_t i = 0; i < count; i++) a[i] = better(a[i], b[i]);
  }

  static auto key(V v) {
    auto order = Order::key(v + V{});  // -0 + 0 is +0
    return kSign > 0 ? order : ~order;
  }

  // The keys of contiguous columns, at least kWidth. Prefetches the row that lies `ahead` elements further.
  static void keys(const T* p, int columns, int64_t ahead, Key* to) {
    for (int c = 0; c < columns; c += kWidth) {
      int at = c + kWidth <= columns ? c : columns - kWidth;
      __builtin_prefetch(p + at + ahead);
      store(to + at, key(load<V>(p + at)));
    }
  }

  static void columns(const T* p, int64_t step, int64_t stride, int64_t n, int columns, int64_t first, Part* result) {
    if (columns < kWidth) return narrow(p, n, columns, first, result);
    T gathered[kTile];
    auto keys_of = [&](int64_t i, Key* to) {
      if (stride != 1) gather_row(p + i * step, stride, columns, gathered);
      keys(stride == 1 ? p + i * step : gathered, columns, Search<Key>::kRows * step, to);
    };
    Search<Key>::run(n, columns, keys_of, result);
    for (int c = 0; c < columns; c++) result[c].at += first;
  }

  // Too few columns for a vector, but adjacent rows: a group of 32 rows is one row with a lane for every element.
  static void narrow(const T* p, int64_t n, int columns, int64_t first, Part* result) {
    Part lanes[kLanes * kWidth];
    int64_t groups = n / kLanes;
    if (groups > 0) Arg::columns(p, kLanes * columns, 1, groups, kLanes * columns, 0, lanes);
    for (int c = 0; c < columns; c++) {
      Part best = one(p[c], first);
      for (int l = 0; groups > 0 && l < kLanes; l++) {
        const Part& lane = lanes[l * columns + c];
        best = better(best, {lane.key, first + lane.at * kLanes + l});
      }
      for (int64_t i = groups * kLanes; i < n; i++) best = better(best, one(p[i * columns + c], first + i));
      result[c] = best;
    }
  }

  static Part one(T value, int64_t at) { return {key(splat<V>(value))[0], at}; }

  // The largest key of a row's elements, in the tree of any other reduction: a key does not show who combined it.
  struct Largest {
    using In = T;
    using Lane = Key;
    static constexpr Lane identity = lowest<Lane>();
    static auto lift(V v) { return key(v); }
    template <class K>
    static K combine(K a, K b) {
      return a > b ? a : b;
    }
  };

  // Which block holds the largest key is found first, then where it is in there.
  static Part row(const T* p, int64_t step, int64_t n, const T* end, int64_t first) {
    const Strided<T> source = {p, step, end};
    alignas(64) T buffer[kBlock];
    Part best = {};
    for (int64_t i = 0; i < n; i += kBlock) {
      int64_t count = min_of(kBlock, n - i);
      Key largest = TreeRow<Largest>::block(source(i, count, buffer), count)[0];
      if (i == 0 || largest > best.key) best = {largest, i};
    }
    const int64_t count = min_of(kBlock, n - best.at);
    best.at += first + min_of(place_of(source(best.at, count, buffer), count, best.key), count - 1);
    return best;
  }

  // The first of `count` elements with this key. There is one, unless somebody who shares the memory has written it.
  static int64_t place_of(const T* p, int64_t count, Key largest) {
    int64_t i = 0;
    if constexpr (sizeof(V) == NL_VEC_BYTES) {
      using Lane = Mask<Key>;
      using Lanes = typename Simd<Lane>::V;
      using Least = TreeRow<Min<Lane>>;
      Lanes lane, equal;
      for (int l = 0; l < kWidth; l++) lane[l] = Lane(l);
      for (; i < count; i += kWidth) {
        equal = key(load<V>(p + i)) == splat<typename Simd<Key>::V>(largest);
        if (ANY(equal))
          return i + Least::fold(Least::template narrow<16>(equal ? lane : splat<Lanes>(Lane(kWidth))))[0];
      }
    }
    while (i < count && one(p[i], 0).key != largest) i++;
    return i;
  }
};

template <class T>
using ArgMax = Arg<T, 1>;
template <class T>
using ArgMin = Arg<T, -1>;

// ---- many short rows: a vector's lanes are rows, which squares of vectors bring there ----

constexpr int64_t kShortRow = 64;  // longer ones from memory are faster one by one

template <class A>
struct ShortRows {
  using T = typename A::In;
  using V = typename Simd<T>::V;
  using Key = typename A::Key;
  using Index = Mask<Key>;
  using IndexV = typename Simd<Index>::V;
  static constexpr int kWidth = Simd<T>::kWidth;
  static constexpr int64_t kAhead = kGroupBytes / sizeof(T);  // hardware does not foresee how squares go through rows

  const View &x, &out;
  const Walk<2> kept;
  int64_t n;

  // The place in each of some rows, of which whole vectors may be read.
  static IndexV places(const T* data, const int64_t (&at)[kWidth], int64_t n) {
    auto best = splat<typename Simd<Key>::V>(lowest<Key>());
    IndexV where = {};
    for (int64_t first = 0; first < n; first += kWidth) {
      V part[kWidth];
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) {
        part[l] = load<V>(data + at[l] + first);
        __builtin_prefetch(data + at[l] + first + kAhead);
      }
      transpose(part);
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; k++) {
        if (first + k == n) break;
        const auto next = A::key(part[k]);
        const auto wins = next > best;
        best = wins ? next : best;
        where = wins ? splat<IndexV>(Index(first + k)) : where;
      }
    }
    return where;
  }

  void run(int64_t begin, int64_t end) const {
    const T *data = (const T*)x.data, *stop = end_of<T>(x);
    int64_t* to = (int64_t*)out.data;
    auto c = kept.seek(begin);
    auto together = [&](const RowGroup<2, kWidth>& group) {
      if (!group.readable(0, data, stop, n)) return false;
      Index found[kWidth];
      store(found, places(data, group.at[0], n));
      for (int l = 0; l < kWidth; l++) to[group.at[1][l]] = found[l];
      return true;
    };
    int64_t i = for_groups<kWidth>(kept, c, begin, end, together);
    for (; i < end; i++, kept.next(c)) to[c.at[1]] = A::row(data + c.at[0], 1, n, stop, 0).at;
  }
};

template <class A>
int arg(const Call& call, int (*otherwise)(const Call&)) {
  const View &x = call.in[0], &out = call.out[0];
  const int axis = int(call.attr[0]);
  const int64_t n = x.shape[axis];
  if (x.strides[axis] != 1 || n < 2 || n > kShortRow) return otherwise(call);
  const ShortRows<A> rows{x, out, walk_without({&x, &out}, axis), n};
  parallel_for(rows.kept.total, grain_of(n), [&](int64_t begin, int64_t end) { rows.run(begin, end); });
  return kOk;
}

template <template <class> class A>
int arg_by_dtype(const Call& call) {
  switch (call.in[0].dtype) {
    case DType::i32: return arg<A<int32_t>>(call, reduce_by_dtype<A>);
    case DType::i64: return arg<A<int64_t>>(call, reduce_by_dtype<A>);
    case DType::f32: return arg<A<float>>(call, reduce_by_dtype<A>);
    case DType::f64: return arg<A<double>>(call, reduce_by_dtype<A>);
    default: return reduce_by_dtype<A>(call);
  }
}

}  // namespace

int argmax(const Call& call) { return arg_by_dtype<ArgMax>(call); }
int argmin(const Call& call) { return arg_by_dtype<ArgMin>(call); }

}  // namespace nl::NL_ISA
