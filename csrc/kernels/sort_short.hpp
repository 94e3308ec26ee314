// sort_short.hpp: many short rows at once: a vector's lanes are rows, which one network sorts, or whose first few are
// selected.
#pragma once
#include "interleave.hpp"
#include "sort_row.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kShort = 32;           // elements of rows that a network sorts, and of a panel
constexpr int kFew = 8;              // wanted of each row, to be selected
constexpr int64_t kSelected = 4096;  // elements of rows of which few are selected

// Some rows, one to a lane: those that there are not are the first one again.
template <class T>
struct LaneRows {
  using Key = typename SortKey<T>::Key;
  using Place = Mask<Key>;
  using V = typename Simd<Key>::V;
  using P = typename Simd<Place>::V;
  static constexpr int kWidth = Simd<Key>::kWidth;
  static constexpr int64_t kPanel = kShort * kWidth;
  static constexpr int64_t kAhead = 1024 / sizeof(T);  // hardware does not foresee how squares go through rows
  static constexpr bool kSquares = sizeof(T) == sizeof(Key);

  SortRow<T> rows[kWidth];
  int count;

  // ---- in and out ----

  bool side_by_side() const {
    for (int l = 1; l < kWidth; l++) {
      if (rows[l].in != rows[0].in + l) return false;
    }
    return true;
  }

  // The keys of `n` elements from `first` on, a vector for those of all rows.
  void read(int64_t first, int64_t n, bool adjacent, Key* keys) const {
    const int64_t step = rows[0].in_step;
    alignas(64) T elements[kPanel];
    const T* lanes[kWidth];
    for (int l = 0; l < kWidth; l++) lanes[l] = rows[l].in + first * step;
    if (adjacent) {
      for (int64_t i = 0; i < n; i++) __builtin_memcpy(elements + i * kWidth, lanes[0] + i * step, kWidth * sizeof(T));
    } else if (kSquares && step == 1) {
      if constexpr (kSquares) interleave(lanes, n, [&](int64_t i) { return elements + i * kWidth; }, kAhead);
    } else {
      for (int64_t i = 0; i < n; i++) {
        for (int l = 0; l < kWidth; l++) elements[i * kWidth + l] = lanes[l][i * step];
      }
    }
    keys_of(elements, 1, n * kWidth, rows[0].descending, keys);
  }

  // Writes the i-th of each row: its value and its place, as far as they are asked for.
  void write(int64_t i, const Key* keys, const Place* places) const {
    T values[kWidth];
    values_of(keys, kWidth, rows[0].descending, values, 1);
    for (int l = 0; l < count && rows[0].values; l++) rows[l].values[i * rows[0].values_step] = values[l];
    for (int l = 0; l < count && rows[0].places; l++) rows[l].places[i * rows[0].places_step] = places[l];
  }

  // ---- all of short rows ----

  // Sorts all of each row.
  void sort() const {
    const int n = int(rows[0].n);
    alignas(64) Key keys[kPanel];
    alignas(64) Place places[kPanel];
    read(0, n, side_by_side(), keys);
    if (!rows[0].places) {
      sort_keys<Key>(keys, n);
    } else if constexpr (sizeof(Key) == 8) {
      sort_beside(keys, places, n);
    } else {
      sort_words(keys, places, n);
    }
    for (int64_t i = 0; i < rows[0].wanted; i++) write(i, keys + i * kWidth, places + i * kWidth);
  }

  // Columns of a tile that is a vector wide.
  template <class K>
  static void sort_keys(K* tile, int n) {
    using Row = typename Simd<K>::V;
    batcher(n, [=](int i, int j) {
      Row a = load<Row>(tile + i * Simd<K>::kWidth), b = load<Row>(tile + j * Simd<K>::kWidth);
      exchange(a, b);
      store(tile + i * Simd<K>::kWidth, a);
      store(tile + j * Simd<K>::kWidth, b);
    });
  }

  // Keys with their places, as words of both, which takes half of the lanes at a time.
  static void sort_words(Key* keys, Place* places, int n) {
    constexpr int kHalf = Simd<int64_t>::kWidth;
    using Words = typename Simd<int64_t>::V;
    using Half = typename VecOf<int32_t, kHalf * sizeof(int32_t)>::V;
    alignas(64) int64_t words[kShort * kHalf];
    for (int l = 0; l < kWidth; l += kHalf) {
      for (int i = 0; i < n; i++) {
        const Words upper = __builtin_convertvector(load<Half>(keys + i * kWidth + l), Words) << 32;
        store(words + i * kHalf, upper | splat<Words>(int64_t(i)));
      }
      sort_keys(words, n);
      for (int i = 0; i < n; i++) {
        const Words found = load<Words>(words + i * kHalf);
        store(keys + i * kWidth + l, __builtin_convertvector(found >> 32, Half));
        store(places + i * kWidth + l, __builtin_convertvector(found & splat<Words>(int64_t(kShort - 1)), Half));
      }
    }
  }

  // Keys of 64 bits, which leave no room for a place: it lies beside.
  static void sort_beside(Key* keys, Place* places, int n) {
    for (int i = 0; i < n; i++) store(places + i * kWidth, splat<P>(Place(i)));
    batcher(n, [=](int i, int j) {
      const V a = load<V>(keys + i * kWidth), b = load<V>(keys + j * kWidth);
      const P p = load<P>(places + i * kWidth), q = load<P>(places + j * kWidth);
      const auto swaps = (b < a) | ((a == b) & (q < p));
      store(keys + i * kWidth, swaps ? b : a);
      store(keys + j * kWidth, swaps ? a : b);
      store(places + i * kWidth, swaps ? q : p);
      store(places + j * kWidth, swaps ? p : q);
    });
  }

  // ---- a few ----

  // The first of the elements so far, in order, and the last of these.
  struct First {
    V key[kFew] = {}, last = {};
    P place[kFew] = {};
    int count = 0, wanted;

    // Most elements are not among them, in any lane.
    void take(V x, int64_t i) {
      if (count == wanted && !ANY(x < last)) return;
      insert(x, splat<P>(Place(i)));
      count += count < wanted;
      last = key[count - 1];
    }

    // Behind its equals, for it comes after them.
    void insert(V x, P at) {
      V next = x;
      P before = {};
      for (int p = 0; p < count; p++) {
        const V old = key[p];
        const P from = place[p];
        before |= (P)(x < old);
        key[p] = before ? next : old, place[p] = before ? at : from;
        next = before ? old : next, at = before ? from : at;
      }
      if (count < wanted) key[count] = next, place[count] = at;
    }
  };

  // Selects what is wanted of each row.
  void select() const {
    const int64_t n = rows[0].n, wanted = rows[0].wanted;
    alignas(64) Key keys[kPanel];
    First found;
    found.wanted = int(wanted);
    const bool adjacent = side_by_side();
    for (int64_t first = 0; first < n; first += kShort) {
      const int64_t size = min_of(kShort, n - first);
      read(first, size, adjacent, keys);
      for (int64_t i = 0; i < size; i++) found.take(load<V>(keys + i * kWidth), first + i);
    }
    alignas(64) Place places[kWidth];
    for (int64_t i = 0; i < wanted; i++) {
      store(keys, found.key[i]);
      store(places, found.place[i]);
      write(i, keys, places);
    }
  }
};

// Whether `count` rows of n elements are sorted so, or the first `wanted` of each selected.
inline bool is_short_sort(int64_t n, int64_t count) { return n <= kShort && count >= 4; }
template <class T>
bool is_short_select(int64_t n, int64_t wanted, int64_t count) {
  return wanted <= kFew && n <= kSelected && 2 * count >= LaneRows<T>::kWidth;
}

// The rows of a walk, n elements long, which row_of(cursor) gives.
template <class T, class RowOf>
void sort_short_rows(const Walk<3>& kept, int64_t n, const RowOf& row_of) {
  constexpr int kWidth = LaneRows<T>::kWidth;
  parallel_for(ceil_div(kept.total, kWidth), grain_of(4 * kWidth * n), [&](int64_t begin, int64_t end) {
    LaneRows<T> lanes;
    auto c = kept.seek(begin * kWidth);
    for (int64_t group = begin; group < end; group++) {
      lanes.count = int(min_of(kWidth, kept.total - group * kWidth));
      for (int l = 0; l < lanes.count; l++, kept.next(c)) lanes.rows[l] = row_of(c);
      for (int l = lanes.count; l < kWidth; l++) lanes.rows[l] = lanes.rows[0];
      const bool few = lanes.rows[0].wanted <= min_of(kFew, n - 1);
      few ? lanes.select() : lanes.sort();
    }
  });
}

}  // namespace
}  // namespace nl::NL_ISA
