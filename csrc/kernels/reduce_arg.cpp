// reduce_arg.cpp: argmax and argmin over one axis: the first index of the extremum, where -0 equals +0 and a NaN beats
// every number.
//
// Elements become integer keys of which the largest is looked for, so that one search serves all types of a size.
#include "interleave.hpp"
#include "reduce.hpp"

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

  static constexpr bool kSeveral = sizeof(T) >= 4, kSideBySide = false, kFew = false;

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

  // ---- many short rows: a vector's lanes are rows ----

  static constexpr int64_t kShortRow = 64;                    // longer ones from memory are faster one by one
  static constexpr int kColumns = 8;                          // most elements of rows that are read as columns
  static constexpr int64_t kAhead = kGroupBytes / sizeof(T);  // hardware does not foresee how squares go through rows

  // The largest key so far in each lane, and its place.
  struct Lanes {
    using KeyV = typename Simd<Key>::V;
    using Index = Mask<Key>;
    using IndexV = typename Simd<Index>::V;

    KeyV best = splat<KeyV>(lowest<Key>());
    IndexV where = {};

    void take(V v, int64_t place) {
      const KeyV next = key(v);
      const auto wins = next > best;
      best = wins ? next : best;
      where = wins ? splat<IndexV>(Index(place)) : where;
    }
  };

  static bool in_groups(int64_t n) { return n <= kShortRow; }

  template <class RowAt>
  static void several(const RowAt& row_at, int64_t n, Out* to) {
    const Lanes found = n <= kColumns / 2 ? in_columns<kColumns / 2>(row_at, n)
                        : n <= kColumns   ? in_columns<kColumns>(row_at, n)
                                          : in_squares(row_at, n);
    widen_store(to, found.where);
  }

  template <int kCount, class RowAt>
  static Lanes in_columns(const RowAt& row_at, int64_t n) {
    V columns[kCount];
    load_columns(row_at, columns);
    Lanes found;
#pragma GCC unroll 8
    for (int k = 0; k < kCount; k++) {
      if (k < n) found.take(columns[k], k);
    }
    return found;
  }

  template <class RowAt>
  static Lanes in_squares(const RowAt& row_at, int64_t n) {
    Lanes found;
    for (int64_t first = 0; first < n; first += kWidth) {
      V part[kWidth];
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) {
        part[l] = load<V>(row_at(l) + first);
        __builtin_prefetch(row_at(l) + first + kAhead);
      }
      transpose(part);
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; k++) {
        if (first + k < n) found.take(part[k], first + k);
      }
    }
    return found;
  }
};

template <class T>
using ArgMax = Arg<T, 1>;
template <class T>
using ArgMin = Arg<T, -1>;

}  // namespace

int argmax(const Call& call) { return reduce_by_dtype<ArgMax>(call); }
int argmin(const Call& call) { return reduce_by_dtype<ArgMin>(call); }

}  // namespace nl::NL_ISA
