// sort_short.hpp: many short rows at once: a vector's lanes are rows, which one network sorts or whose first few are
// selected.
#pragma once
#include "sort_row.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kShort = 32;
constexpr int64_t kFew = 4;  // wanted of each row

// Lanes hold keys, or words of a key and a place.
template <class T, class K>
struct ShortRows {
  using V = typename Simd<K>::V;
  static constexpr int kWidth = Simd<K>::kWidth;
  static constexpr bool kPlaces = sizeof(K) > sizeof(typename SortKey<T>::Key);

  // Writes the first `wanted` of each row.
  static void run(const SortRow<T>* rows, int count, int64_t wanted) {
    int n = int(rows[0].n);
    bool descending = rows[0].descending;
    alignas(64) K tile[kShort * kWidth];
    for (int l = 0; l < kWidth; l++) {
      const SortRow<T>& r = rows[l < count ? l : 0];
      for (int i = 0; i < n; i++) {
        auto key = key_of(r.in[i * r.in_step], descending);
        if constexpr (kPlaces) {
          tile[i * kWidth + l] = word_of(uint32_t(key), i);
        } else {
          tile[i * kWidth + l] = key;
        }
      }
    }
    wanted <= kFew ? select(tile, n, int(wanted)) : sort(tile, n);
    for (int l = 0; l < count; l++) {
      for (int i = 0; i < wanted; i++) write(rows[l], i, tile[i * kWidth + l]);
    }
  }

  static void sort(K* tile, int n) {
    batcher(n, [=](int i, int j) {
      V a = load<V>(tile + i * kWidth), b = load<V>(tile + j * kWidth);
      exchange(a, b);
      store(tile + i * kWidth, a);
      store(tile + j * kWidth, b);
    });
  }

  // Brings only the least ones to the front, one after the other: fewer comparisons while few are wanted.
  static void select(K* tile, int n, int wanted) {
    for (int place = 0; place < wanted; place++) {
      V least = load<V>(tile + place * kWidth);
      for (int i = place + 1; i < n; i++) {
        V other = load<V>(tile + i * kWidth);
        exchange(least, other);
        store(tile + i * kWidth, other);
      }
      store(tile + place * kWidth, least);
    }
  }

  static void write(const SortRow<T>& r, int i, K found) {
    if constexpr (kPlaces) {
      if (r.places) r.places[i * r.places_step] = place_in(found);
      if (r.values) r.values[i * r.values_step] = value_of<T>(int32_t(found >> 32), r.descending);
    } else {
      r.values[i * r.values_step] = value_of<T>(found, r.descending);
    }
  }
};

// Whether `count` rows of n elements are; a key and a place fill 64 bits.
template <class T>
bool is_short_sort(int64_t n, int64_t count, bool places) {
  return n <= kShort && count >= 4 && !(places && sizeof(typename SortKey<T>::Key) == 8);
}

// The first `wanted` of each row of a walk, n elements long, where row_of(cursor) gives the row.
template <class T, class K, class RowOf>
void sort_short_rows(const Walk<3>& kept, int64_t n, int64_t wanted, const RowOf& row_of) {
  constexpr int kWidth = Simd<K>::kWidth;
  parallel_for(ceil_div(kept.total, kWidth), grain_of(4 * kWidth * n), [&](int64_t begin, int64_t end) {
    SortRow<T> rows[kWidth];
    auto c = kept.seek(begin * kWidth);
    for (int64_t group = begin; group < end; group++) {
      const int size = int(min_of(kWidth, kept.total - group * kWidth));
      for (int l = 0; l < size; l++, kept.next(c)) rows[l] = row_of(c);
      ShortRows<T, K>::run(rows, size, wanted);
    }
  });
}

}  // namespace
}  // namespace nl::NL_ISA
