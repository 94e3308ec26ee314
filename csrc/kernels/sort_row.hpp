// sort_row.hpp: one row in stable order, -0 before +0, NaN last: its values, their places, or both.
//
// Values alone are sorted as keys; with places, as words of a key and a place (sort.hpp). The keys of 64-bit dtypes
// leave no room for a place: their upper 32 bits that differ are sorted first, then the runs that are equal in those.
#pragma once
#include "sort.hpp"

namespace nl::NL_ISA {
namespace {

// A row to be sorted, and what is asked for: values, places, or both, of the first `wanted`.
template <class T>
struct SortRow {
  const T* in;
  int64_t in_step;
  T* values;
  int64_t values_step;
  int64_t* places;
  int64_t places_step;
  int64_t n, wanted;
  bool descending;
};

// Calls fn with a zero of the element type; bools are bytes.
template <class F>
void by_element(DType dtype, const F& fn) {
  switch (dtype) {
    case DType::i32: return fn(int32_t(0));
    case DType::i64: return fn(int64_t(0));
    case DType::f32: return fn(float(0));
    case DType::f64: return fn(double(0));
    default: return fn(uint8_t(0));
  }
}

constexpr int64_t kLongRow = 8192;  // from here on several threads sort one row

inline void sort_words(int64_t* words, int64_t n, int64_t* spare, bool shared) {
  shared ? sort_on_all_threads(words, n, spare) : quicksort(words, n, spare);
}

// Runs body over [0, n), on all threads if they share the row.
template <class F>
void over(int64_t n, bool shared, const F& body) {
  shared ? parallel_for(n, kGrain / 4, body) : body(0, n);
}

constexpr int64_t word_of(uint32_t upper, int64_t place) { return int64_t(uint64_t(upper) << 32 | uint64_t(place)); }
constexpr int64_t place_in(int64_t word) { return int64_t(uint32_t(word)); }

template <class T>
void sort_values_only(const SortRow<T>& r, bool shared) {
  using Key = typename SortKey<T>::Key;
  Key* keys = (Key*)nl_scratch(0, (r.n + spare_of(r.n)) * sizeof(Key));
  over(r.n, shared, [=](int64_t begin, int64_t end) {
    keys_of(r.in + begin * r.in_step, r.in_step, end - begin, r.descending, keys + begin);
  });
  shared ? sort_on_all_threads(keys, r.n, keys + r.n) : quicksort(keys, r.n, keys + r.n);
  over(r.wanted, shared, [=](int64_t begin, int64_t end) {
    values_of(keys + begin, end - begin, r.descending, r.values + begin * r.values_step, r.values_step);
  });
}

// Writes what is asked for, where words hold keys and places.
template <class T>
void unpack(const SortRow<T>& r, const int64_t* words, int64_t begin, int64_t end) {
  if (r.places) {
    for (int64_t i = begin; i < end; i++) r.places[i * r.places_step] = place_in(words[i]);
  }
  if (!r.values) return;
  if constexpr (sizeof(T) == 8) {
    for (int64_t i = begin; i < end; i++) r.values[i * r.values_step] = r.in[place_in(words[i]) * r.in_step];
  } else {
    for (int64_t i = begin; i < end; i++)
      r.values[i * r.values_step] = value_of<T>(int32_t(words[i] >> 32), r.descending);
  }
}

template <class T>
void sort_narrow(const SortRow<T>& r, bool shared) {
  int64_t* words = (int64_t*)nl_scratch(0, (r.n + spare_of(r.n)) * sizeof(int64_t));
  over(r.n, shared, [=](int64_t begin, int64_t end) {
    int32_t keys[kGrain / 64];
    for (int64_t first = begin; first < end; first += kGrain / 64) {
      int64_t count = min_of(kGrain / 64, end - first);
      keys_of(r.in + first * r.in_step, r.in_step, count, r.descending, keys);
      for (int64_t i = 0; i < count; i++) words[first + i] = word_of(uint32_t(keys[i]), first + i);
    }
  });
  sort_words(words, r.n, words + r.n, shared);
  over(r.wanted, shared, [=](int64_t begin, int64_t end) { unpack(r, words, begin, end); });
}

// Keys of 64 bits as distances from the least one, which often need fewer.
struct WideKeys {
  const int64_t* keys;
  int64_t least;
  int shift;  // the lower bits that are not in a word at first

  uint64_t distance(int64_t place) const { return uint64_t(keys[place]) - uint64_t(least); }
  // As the upper half of a word, which is compared as signed.
  uint32_t upper(int64_t place) const { return uint32_t(distance(place) >> shift) ^ 0x80000000u; }
  uint32_t lower(int64_t place) const { return uint32_t(distance(place) & ((uint64_t(1) << shift) - 1)) ^ 0x80000000u; }
};

inline WideKeys wide_keys(const int64_t* keys, int64_t n) {
  int64_t least = keys[0], most = keys[0];
  for (int64_t i = 0; i < n; i++) {
    least = keys[i] < least ? keys[i] : least;
    most = keys[i] > most ? keys[i] : most;
  }
  uint64_t range = uint64_t(most) - uint64_t(least);
  int bits = range ? 64 - __builtin_clzll(range) : 0;
  return {keys, least, bits > 32 ? bits - 32 : 0};
}

// Orders the runs of words whose upper halves are equal by the lower bits of their keys.
inline void sort_runs(const WideKeys& wide, int64_t* words, int64_t n, int64_t* spare) {
  for (int64_t begin = 0, end; begin < n; begin = end) {
    for (end = begin + 1; end < n && words[end] >> 32 == words[begin] >> 32;) end++;
    if (end - begin == 1) continue;
    for (int64_t i = begin; i < end; i++) words[i] = word_of(wide.lower(place_in(words[i])), place_in(words[i]));
    quicksort(words + begin, end - begin, spare);
  }
}

template <class T>
void sort_wide(const SortRow<T>& r, bool shared) {
  int64_t* words = (int64_t*)nl_scratch(0, (2 * r.n + spare_of(r.n)) * sizeof(int64_t));
  int64_t *keys = words + r.n, *spare = keys + r.n;
  over(r.n, shared, [=](int64_t begin, int64_t end) {
    keys_of(r.in + begin * r.in_step, r.in_step, end - begin, r.descending, keys + begin);
  });
  WideKeys wide = wide_keys(keys, r.n);
  over(r.n, shared, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) words[i] = word_of(wide.upper(i), i);
  });
  sort_words(words, r.n, spare, shared);
  if (wide.shift > 0) sort_runs(wide, words, r.n, spare);
  over(r.wanted, shared, [=](int64_t begin, int64_t end) { unpack(r, words, begin, end); });
}

template <class T>
void sort_row(const SortRow<T>& r, bool shared) {
  if (!r.places) return sort_values_only(r, shared);
  if constexpr (sizeof(T) == 8) {
    sort_wide(r, shared);
  } else {
    sort_narrow(r, shared);
  }
}

}  // namespace
}  // namespace nl::NL_ISA
