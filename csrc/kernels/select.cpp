// select.cpp: topk, the first k of a row in stable order; searchsorted, where numbers belong in a sorted row.
#include "sort_short.hpp"

namespace nl::NL_ISA {
namespace {

// ---- topk ----

// Writes the places of the keys below `bound` in elements [begin, end) of a row; returns how many.
template <class T>
int64_t places_below(const SortRow<T>& r, int64_t begin, int64_t end, typename SortKey<T>::Key bound, int64_t* places) {
  using Key = typename SortKey<T>::Key;
  using V = typename Simd<Key>::V;
  constexpr int kWidth = Simd<Key>::kWidth;
  alignas(64) Key keys[512];
  int64_t found = 0;
  for (int64_t first = begin; first < end; first += 512) {
    int64_t count = min_of(512, end - first), i = 0;
    keys_of(r.in + first * r.in_step, r.in_step, count, r.descending, keys);
    if constexpr (kCompresses<V>) {
      for (; i + kWidth <= count; i += kWidth) {
        unsigned bits = less_bits(load<V>(keys + i), splat<V>(bound));
        for (; bits != 0; bits &= bits - 1) places[found++] = first + i + __builtin_ctz(bits);
      }
    }
    for (; i < count; i++) {
      places[found] = first + i;
      found += keys[i] < bound;
    }
  }
  return found;
}

// The same for a whole row, on all threads: each writes to a stretch of its own, which are then joined.
template <class T>
int64_t all_places_below(const SortRow<T>& r, typename SortKey<T>::Key bound, int64_t* places, bool shared) {
  constexpr int64_t kStretch = kGrain;
  if (!shared) return places_below(r, 0, r.n, bound, places);
  int64_t stretches = ceil_div(r.n, kStretch), found = 0;
  int64_t* counts = (int64_t*)nl_scratch(2, stretches * sizeof(int64_t));
  parallel_for(stretches, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++) {
      int64_t first = s * kStretch;
      counts[s] = places_below(r, first, min_of(first + kStretch, r.n), bound, places + first);
    }
  });
  for (int64_t s = 0; s < stretches; s++) {
    __builtin_memmove(places + found, places + s * kStretch, counts[s] * sizeof(int64_t));
    found += counts[s];
  }
  return found;
}

// The places, ascending, of some elements among which the first k of the sorted row are; returns how many. A sample
// says below which key there are a few more than k.
template <class T>
int64_t candidates(const SortRow<T>& r, int64_t k, int64_t* places, bool shared) {
  using Key = typename SortKey<T>::Key;
  constexpr int kMost = 256;
  Key sample[kMost + kNetworkSize<Key>], spare[spare_of(kMost)];
  const int size = r.n < 512 ? 32 : r.n < 8192 ? 64 : kMost;
  Places random{uint64_t(r.n)};
  for (int i = 0; i < size; i++) sample[i] = key_of(r.in[random.next() * r.in_step], r.descending);
  quicksort(sample, size, spare);
  double rank = double(k) / double(r.n) * size;
  int64_t at = int64_t(rank + 3 * __builtin_sqrt(rank)) + 2;
  if (at < size) {
    Key bound = sample[at];
    int64_t found = all_places_below(r, bound, places, shared);
    if (found < k && bound < highest<Key>()) found = all_places_below(r, Key(bound + 1), places, shared);
    if (found >= k) return found;
  }
  for (int64_t i = 0; i < r.n; i++) places[i] = i;
  return r.n;
}

// Whether all of a row of n elements is sorted sooner than a sample says among which the first k are.
constexpr bool sorts_all(int64_t n, int64_t k) { return n <= 256 || (n < kLongRow && 4 * k > n); }

template <class T>
void first_of_row(const SortRow<T>& r, bool shared) {
  const int64_t k = r.wanted;
  if (sorts_all(r.n, k)) return sort_row(r, false);
  int64_t* places = (int64_t*)nl_scratch(1, (r.n + 1) * sizeof(int64_t));
  int64_t count = candidates(r, k, places, shared);
  T* chosen = (T*)nl_scratch(2, 2 * count * sizeof(T));
  T* sorted = chosen + count;
  int64_t* order = (int64_t*)nl_scratch(3, count * sizeof(int64_t));
  for (int64_t i = 0; i < count; i++) chosen[i] = r.in[places[i] * r.in_step];
  sort_row(SortRow<T>{chosen, 1, sorted, 1, order, 1, count, k, r.descending}, shared && count >= kLongRow);
  for (int64_t i = 0; i < k; i++) {
    r.values[i * r.values_step] = sorted[i];
    r.places[i * r.places_step] = places[order[i]];
  }
}

template <class T>
void topk_along(const Call& call) {
  const View &x = call.in[0], &values = call.out[0], &places = call.out[1];
  int axis = int(call.attr[0]);
  int64_t n = x.shape[axis], k = values.shape[axis];
  const Walk<3> kept = walk_without({&x, &values, &places}, axis);
  if (k == 0 || kept.total == 0) return;
  auto row_of = [&](const Walk<3>::Cursor& c) {
    return SortRow<T>{(const T*)x.data + c.at[0],
                      x.strides[axis],
                      (T*)values.data + c.at[1],
                      values.strides[axis],
                      (int64_t*)places.data + c.at[2],
                      places.strides[axis],
                      n,
                      k,
                      call.attr[2] != 0};
  };
  if (is_short_sort(n, kept.total) || is_short_select<T>(n, k, kept.total)) {
    return sort_short_rows<T>(kept, n, row_of);
  }
  const bool shared = n >= 2 * kGrain && kept.total < 2 * nl_num_threads();
  auto rows = [&](int64_t begin, int64_t end) {
    auto c = kept.seek(begin);
    for (int64_t i = begin; i < end; i++, kept.next(c)) first_of_row(row_of(c), shared);
  };
  shared ? rows(0, kept.total) : parallel_for(kept.total, grain_of(4 * n), rows);
}

// ---- searchsorted ----

constexpr int kSearches = 16;  // made side by side: each step of one waits for memory

// How many of m sorted elements are below each of some numbers, or with kEqual not above it; a NaN is above all
// numbers.
template <class T, bool kEqual>
void search(const T* sorted, int64_t step, int64_t m, const T* x, int64_t* found) {
  int64_t at[kSearches] = {}, left = m;
  auto before = [](T a, T b) { return -int64_t(kEqual ? a <= b : a < b); };  // a mask: no branch could be foreseen
  for (; left > 1; left -= left / 2) {
    int64_t half = left / 2;
#pragma GCC unroll 16
    for (int l = 0; l < kSearches; l++) at[l] += half & before(sorted[(at[l] + half - 1) * step], x[l]);
  }
  for (int l = 0; l < kSearches; l++) found[l] = at[l] + (left == 1 && before(sorted[at[l] * step], x[l]) != 0);
}

// A NaN belongs after all numbers: before its equals, or after them.
template <class T>
void place_nans(const T* sorted, int64_t step, int64_t m, bool right, const T* x, int64_t* found) {
  for (int l = 0; l < kSearches; l++) {
    if (x[l] == x[l]) continue;
    found[l] = m;
    while (!right && found[l] > 0 && sorted[(found[l] - 1) * step] != sorted[(found[l] - 1) * step]) found[l]--;
  }
}

template <class T>
void search_rows(const Call& call) {
  const View &sorted = call.in[0], &x = call.in[1], &out = call.out[0];
  int last = x.rank - 1;
  bool right = call.attr[0] != 0;
  Walk<3> rows;
  for (int d = 0; d < last; d++) rows.add_axis(x.shape[d], {sorted.strides[d], x.strides[d], out.strides[d]});
  int64_t m = sorted.shape[last], n = x.shape[last], step = sorted.strides[last];
  int64_t groups = ceil_div(n, kSearches);
  parallel_for(rows.total * groups, 256, [=, &rows, &x, &out](int64_t begin, int64_t end) {
    T numbers[kSearches] = {};
    int64_t found[kSearches];
    for (int64_t i = begin; i < end; i++) {
      auto c = rows.seek(i / groups);
      int64_t first = i % groups * kSearches, count = min_of(kSearches, n - first);
      gather_row((const T*)x.data + c.at[1] + first * x.strides[last], x.strides[last], count, numbers);
      const T* from = (const T*)sorted.data + c.at[0];
      right ? search<T, true>(from, step, m, numbers, found) : search<T, false>(from, step, m, numbers, found);
      if (kIsFloat<T>) place_nans(from, step, m, right, numbers, found);
      int64_t* to = (int64_t*)out.data + c.at[2] + first * out.strides[last];
      for (int64_t l = 0; l < count; l++) to[l * out.strides[last]] = found[l];
    }
  });
}

}  // namespace

int topk(const Call& call) {
  by_element(call.in[0].dtype, [&](auto zero) { topk_along<decltype(zero)>(call); });
  return kOk;
}

int searchsorted(const Call& call) {
  by_element(call.in[0].dtype, [&](auto zero) { search_rows<decltype(zero)>(call); });
  return kOk;
}

}  // namespace nl::NL_ISA
