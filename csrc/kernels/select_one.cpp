// select_one.cpp: the k-th element of a row in stable order, and its place: medians and their like.
//
// A sample says between which two keys the k-th one must be. One pass over the row counts what is below them and what
// is between, a second one collects that, a tenth, and so on until what is left fits the caches: a long row is read at
// memory speed. (Floyd and Rivest 1975.) The rest is divided as by the quicksort, but only one part of two is looked at
// again (Hoare 1961); the place is found by the key.
#include "sort_row.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kFew = 1 << 18;  // elements that are divided as a whole
constexpr int kSampleSize = 2048;  // their rank is off by 23 of 2048 (one deviation)
constexpr int kMargin = 100;       // ranks of the sample on either side, 4 deviations
constexpr int64_t kStretch = kGrain;

template <class T>
struct KthOfRow {
  using Key = typename SortKey<T>::Key;
  using KeyV = typename Simd<Key>::V;

  const T* x;
  int64_t step;
  bool shared, nan_wins;

  // Elements of the row: all n of them, or those whose keys and places have been collected.
  struct Part {
    const Key* keys;
    const int64_t* places;  // null: all
    int64_t n;
  };

  struct Range {
    Key low, high;  // both inside
    // One comparison without a sign: of two the processor would foresee one half of the time.
    bool has(Key key) const { return uint64_t(key) - uint64_t(low) <= uint64_t(high) - uint64_t(low); }
  };

  struct Count {
    int64_t below, inside;
  };

  // The keys of elements [first, first + count), in `buffer` where they are not in memory.
  const Key* keys_in(const Part& part, int64_t first, int64_t count, Key* buffer) const {
    if (part.keys) return part.keys + first;
    keys_of(x + first * step, step, count, false, buffer);
    return buffer;
  }

  Key key_at(const Part& part, int64_t i) const { return part.keys ? part.keys[i] : key_of(x[i * step], false); }
  int64_t place_at(const Part& part, int64_t i) const { return part.keys ? part.places[i] : i; }

  // Where the element of rank k is by a sample: between two of its keys, or one key that makes up much of the row.
  Range estimate(const Part& part, int64_t k) const {
    Key sample[kSampleSize + kNetworkSize<Key>], spare[spare_of(kSampleSize)];
    Places random{uint64_t(part.n)};
    for (int i = 0; i < kSampleSize; i++) sample[i] = key_at(part, random.next());
    quicksort(sample, kSampleSize, spare);
    const int64_t at = int64_t(double(k) / double(part.n) * kSampleSize);
    const Range range = {at < kMargin ? lowest<Key>() : sample[at - kMargin],
                         at + kMargin >= kSampleSize ? highest<Key>() : sample[at + kMargin]};
    int inside = 0;
    for (int i = 0; i < kSampleSize; i++) inside += range.has(sample[i]);
    return inside <= 3 * kMargin ? range : Range{sample[at], sample[at]};
  }

  Count count(const Part& part, int64_t first, int64_t n, Range range) const {
    constexpr int kWidth = Simd<Key>::kWidth;
    alignas(64) Key buffer[512];
    Count total = {};
    for (int64_t end = first + n; first < end; first += 512) {
      const int64_t size = min_of(512, end - first);
      const Key* keys = keys_in(part, first, size, buffer);
      KeyV below = {}, inside = {};
      int64_t i = 0;
      for (; i + kWidth <= size; i += kWidth) {
        KeyV key = load<KeyV>(keys + i), under = KeyV(key < splat<KeyV>(range.low));
        below -= under, inside -= KeyV(key <= splat<KeyV>(range.high)) & ~under;
      }
      for (int l = 0; l < kWidth; l++) total.below += below[l], total.inside += inside[l];
      for (; i < size; i++) total.below += keys[i] < range.low, total.inside += range.has(keys[i]);
    }
    return total;
  }

  // Takes as many as were counted: somebody who shares the memory may have written it since.
  void collect(const Part& part, int64_t first, int64_t n, Range range, int64_t counted, Key* to_keys,
               int64_t* to_places) const {
    alignas(64) Key buffer[512];
    int64_t found = 0;
    for (int64_t end = first + n; first < end; first += 512) {
      const int64_t size = min_of(512, end - first);
      const Key* keys = keys_in(part, first, size, buffer);
      for (int64_t i = 0; i < size; i++) {
        if (!range.has(keys[i])) continue;
        if (found == counted) return;
        to_keys[found] = keys[i], to_places[found++] = place_at(part, first + i);
      }
    }
    for (; found < counted; found++) to_keys[found] = range.low, to_places[found] = 0;
  }

  // The part within a range that holds rank k; what lies below it is taken off k. The range becomes another one where
  // the sample was odd.
  Part narrowed(const Part& part, Range& range, int64_t& k, int slot) const {
    const int64_t stretches = ceil_div(part.n, kStretch);
    Count* counts = (Count*)nl_scratch(2, stretches * sizeof(Count));
    over_stretches(part, [=](int64_t s, int64_t first, int64_t n) { counts[s] = count(part, first, n, range); });
    Count total = {};
    for (int64_t s = 0; s < stretches; s++) {
      Count here = counts[s];
      counts[s] = total;
      total.below += here.below, total.inside += here.inside;
    }
    if (k < total.below || k >= total.below + total.inside) {
      range = k < total.below ? Range{lowest<Key>(), Key(range.low - 1)} : Range{Key(range.high + 1), highest<Key>()};
      return narrowed(part, range, k, slot);
    }
    k -= total.below;
    int64_t* places = (int64_t*)nl_scratch(slot, total.inside * int64_t(sizeof(int64_t) + sizeof(Key)));
    Key* keys = (Key*)(places + total.inside);
    over_stretches(part, [=](int64_t s, int64_t first, int64_t n) {
      const int64_t at = counts[s].inside, stop = s + 1 < stretches ? counts[s + 1].inside : total.inside;
      collect(part, first, n, range, stop - at, keys + at, places + at);
    });
    return {keys, places, total.inside};
  }

  // body(number, first element, elements) of all stretches.
  template <class Body>
  void over_stretches(const Part& part, const Body& body) const {
    const int64_t stretches = ceil_div(part.n, kStretch);
    auto some = [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; s++) {
        nl_check_interrupt();
        body(s, s * kStretch, min_of(kStretch, part.n - s * kStretch));
      }
    };
    shared ? parallel_for(stretches, 1, some) : some(0, stretches);
  }

  // The place of the element of rank k among n; of the first NaN if there is one and NaNs win.
  int64_t find(int64_t n, int64_t k) const {
    if (nan_wins) {
      if (const int64_t place = first_nan(n); place >= 0) return place;
    }
    Part part{nullptr, nullptr, n};
    for (int slot = 1; part.n > kFew; slot = 4 - slot) {  // what is read and what is written take turns
      Range range = estimate(part, k);
      const int64_t before = part.n;
      part = narrowed(part, range, k, slot);
      if (range.low == range.high) return part.places[k];  // all are equal
      if (part.n > before / 2) break;                      // many that a sample does not tell apart
    }
    const Found found = select(part, k);
    int64_t before = k - found.below;
    return max_of(0, find_key(part, 0, part.n, found.key, before));  // the row may be another one by now
  }

  // The place of the first NaN among n elements, or -1.
  int64_t first_nan(int64_t n) const {
    if constexpr (!kIsFloat<T>) return -1;
    const Part all{nullptr, nullptr, n};
    const int64_t stretches = ceil_div(n, kStretch);
    int64_t* found = (int64_t*)nl_scratch(2, stretches * sizeof(int64_t));
    over_stretches(all, [=](int64_t s, int64_t first, int64_t count) {
      int64_t before = 0;
      found[s] = find_key(all, first, first + count, highest<Key>(), before);
    });
    for (int64_t s = 0; s < stretches; s++) {
      if (found[s] >= 0) return found[s];
    }
    return -1;
  }

  // A key, and how many are below it.
  struct Found {
    Key key;
    int64_t below;
  };

  Found select(const Part& part, int64_t k) const {
    Key* keys = (Key*)nl_scratch(2, (part.n + spare_of(part.n)) * sizeof(Key));
    if (const Key* from = keys_in(part, 0, part.n, keys); from != keys)
      __builtin_memcpy(keys, from, part.n * sizeof(Key));
    Piece rest{0, part.n}, first, second;
    while (rest.end - rest.begin > kNetworkSize<Key>) {
      nl_check_interrupt();
      divide(keys, rest, pivot_of(keys + rest.begin, rest.end - rest.begin), keys + part.n, &first, &second);
      if (k >= first.end && k < second.begin) return {keys[k], first.end};
      rest = k < first.end ? first : second;  // no key before it equals one in it
    }
    sort_few(keys + rest.begin, rest.end - rest.begin);
    int64_t below = k;
    while (below > rest.begin && keys[below - 1] == keys[k]) below--;
    return {keys[k], below};
  }

  // The place of the first element of [first, end) with a key that `before` others with it precede, or -1; then
  // `before` is what is left of it.
  int64_t find_key(const Part& part, int64_t first, int64_t end, Key wanted, int64_t& before) const {
    constexpr int kWidth = Simd<Key>::kWidth;
    alignas(64) Key buffer[512];
    for (; first < end; first += 512) {
      const int64_t size = min_of(512, end - first);
      const Key* keys = keys_in(part, first, size, buffer);
      for (int64_t i = 0; i < size; i += kWidth) {
        if (i + kWidth <= size && !ANY(load<KeyV>(keys + i) == splat<KeyV>(wanted))) continue;
        for (int64_t l = i; l < min_of(i + kWidth, size); l++) {
          if (keys[l] == wanted && before-- == 0) return place_at(part, first + l);
        }
      }
    }
    return -1;
  }
};

template <class T>
void kth_along(const Call& call) {
  const View &x = call.in[0], &value = call.out[0], &place = call.out[1];
  const int axis = int(call.attr[0]);
  const int64_t n = x.shape[axis], rank = call.attr[1];
  const bool nan_wins = call.attr[2] != 0;
  const Walk<3> kept = walk_without({&x, &value, &place}, axis);
  const bool shared = n >= 2 * kGrain && kept.total < 2 * nl_num_threads();
  auto rows = [&](int64_t begin, int64_t end) {
    auto c = kept.seek(begin);
    for (int64_t i = begin; i < end; i++, kept.next(c)) {
      const T* row = (const T*)x.data + c.at[0];
      const int64_t at = KthOfRow<T>{row, x.strides[axis], shared, nan_wins}.find(n, rank);
      ((T*)value.data)[c.at[1]] = row[at * x.strides[axis]];
      ((int64_t*)place.data)[c.at[2]] = at;
    }
  };
  shared ? rows(0, kept.total) : parallel_for(kept.total, grain_of(4 * n), rows);
}

}  // namespace

int kth(const Call& call) {
  by_element(call.in[0].dtype, [&](auto zero) { kth_along<decltype(zero)>(call); });
  return kOk;
}

}  // namespace nl::NL_ISA
