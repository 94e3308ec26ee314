// sort.hpp: sorts arrays of 32- or 64-bit integers: a quicksort whose partitions and small sorts are made of vectors.
//
// Every dtype is sorted as such integers. With places, an integer holds a key in its upper half and the place in its
// lower one: no two are equal, so every correct sort gives one result, the stable one.
//
// Against radix sort: a partition moves 16 elements in about 8 cycles where there is a compress instruction, a pass of
// radix sort takes as long for 3. (Blacher et al. 2022; Bramas 2017.)
#pragma once
#include "loops.hpp"
#include "monoids.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

// ---- dtypes as integers that compare in the same order ----

template <class T>
struct SortKey : Ordered<T, 1> {};
// Bytes are widened: few distinct values need few partitions.
template <>
struct SortKey<uint8_t> {
  using Key = int32_t;
  static uint8_t value(Key key) { return uint8_t(key); }
};

// A NaN is the largest, so that it comes last; -0 comes before +0. Descending order is that of all bits inverted.
template <class T>
typename SortKey<T>::Key key_of(T x, bool descending) {
  typename SortKey<T>::Key key;
  if constexpr (sizeof(T) == 1) {
    key = x;
  } else {
    typedef T One __attribute__((vector_size(16)));
    key = SortKey<T>::key(One{x})[0];
  }
  return descending ? ~key : key;
}

template <class T>
T value_of(typename SortKey<T>::Key key, bool descending) {
  return SortKey<T>::value(descending ? ~key : key);
}

template <class T>
void keys_of(const T* x, int64_t step, int64_t n, bool descending, typename SortKey<T>::Key* keys) {
  using Key = typename SortKey<T>::Key;
  int64_t i = 0;
  if constexpr (sizeof(T) == sizeof(Key)) {
    using V = typename Simd<T>::V;
    using KeyV = typename Simd<Key>::V;
    KeyV flip = splat<KeyV>(Key(descending ? -1 : 0));
    for (; step == 1 && i + Simd<T>::kWidth <= n; i += Simd<T>::kWidth) {
      store(keys + i, SortKey<T>::key(load<V>(x + i)) ^ flip);
    }
  }
  for (; i < n; i++) keys[i] = key_of(x[i * step], descending);
}

template <class T>
void values_of(const typename SortKey<T>::Key* keys, int64_t n, bool descending, T* x, int64_t step) {
  using Key = typename SortKey<T>::Key;
  int64_t i = 0;
  if constexpr (sizeof(T) == sizeof(Key)) {
    using KeyV = typename Simd<Key>::V;
    KeyV flip = splat<KeyV>(Key(descending ? -1 : 0)), magnitude = splat<KeyV>(kIsFloat<T> ? highest<Key>() : Key(0));
    for (; step == 1 && i + Simd<Key>::kWidth <= n; i += Simd<Key>::kWidth) {
      KeyV key = load<KeyV>(keys + i) ^ flip;
      store((Key*)x + i, key ^ ((key >> (8 * sizeof(Key) - 1)) & magnitude));
    }
  }
  for (; i < n; i++) x[i * step] = value_of<T>(keys[i], descending);
}

// ---- sorting networks ----

template <class V>
void exchange(V& a, V& b) {
  V low = a < b ? a : b;
  b = a < b ? b : a;
  a = low;
}

// Batcher's odd-even merge sort (1968) of n things: calls compare(i, j), i < j, for each of its comparators.
template <class F>
constexpr void batcher(int n, const F& compare) {
  for (int p = 1; p < n; p *= 2) {
    for (int k = p; k >= 1; k /= 2) {
      for (int j = k % p; j + k < n; j += 2 * k) {
        for (int i = 0; i < k; i++) {
          if (i + j + k < n && (i + j) / (2 * p) == (i + j + k) / (2 * p)) compare(i + j, i + j + k);
        }
      }
    }
  }
}

// The comparators for n things as a table, which loops over registers unroll: the loops above they do not.
template <int n>
struct Comparators {
  int count = 0, low[n * n] = {}, high[n * n] = {};

  constexpr Comparators() {
    batcher(n, [this](int i, int j) { low[count] = i, high[count++] = j; });
  }
};

// Sorts up to kSize elements in registers: columns by a network, a transpose, then bitonic merges of rows.
template <class K, int kBytes, int kVecs>
struct Network {
  using V = typename VecOf<K, kBytes>::V;
  static constexpr int kWidth = kBytes / sizeof(K);
  static constexpr int kSize = kVecs * kWidth;

  // Sorts two bitonic vectors: lanes kWidth / 2, … 1 apart are compared. A zip turns the bits of an element's place,
  // the vector's number first, by one, so that the next such lanes are in different vectors, and the last one brings
  // all back: 9 instructions a vector, where comparing each with a permutation of itself takes 16.
  static void merge_lanes(V& a, V& b) {
#pragma GCC unroll 8
    for (int d = kWidth; d > 0; d /= 2) {
      auto zipped = zip(a, b);
      a = zipped.low, b = zipped.high;
      if (d > 1) exchange(a, b);
    }
  }

  // Makes one sorted run of two neighbouring ones of `size` vectors each.
  template <int size>
  static void merge(V* v) {
    V back[size];
#pragma GCC unroll 16
    for (int i = 0; i < size; i++) back[i] = swap_lanes<kWidth - 1>(v[2 * size - 1 - i]);
#pragma GCC unroll 16
    for (int i = 0; i < size; i++) {
      exchange(v[i], back[i]);
      v[size + i] = back[i];
    }
#pragma GCC unroll 4
    for (int d = size / 2; d > 0; d /= 2) {
#pragma GCC unroll 16
      for (int i = 0; i < 2 * size; i++) {
        if ((i & d) == 0) exchange(v[i], v[i + d]);
      }
    }
#pragma GCC unroll 32
    for (int i = 0; i < 2 * size; i += 2) merge_lanes(v[i], v[i + 1]);
  }

  template <int size>
  static void merge_all(V (&v)[kVecs]) {
    if constexpr (size < kVecs) {
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; i += 2 * size) merge<size>(v + i);
      merge_all<2 * size>(v);
    }
  }

  // Makes each of kWidth vectors a sorted run.
  static void rows(V* v) {
    V square[kWidth];
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; i++) square[i] = v[i];
    constexpr Comparators<kWidth> pairs;
#pragma GCC unroll 64
    for (int c = 0; c < pairs.count; c++) exchange(square[pairs.low[c]], square[pairs.high[c]]);
    transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; i++) v[i] = square[i];
  }

  // Reads kSize elements, of which the last ones do not count: scalars would fill up more slowly than vectors sort.
  __attribute__((noinline)) static void sort(K* a, int64_t n) {
    V v[kVecs], lane, last = splat<V>(K(n));
    for (int l = 0; l < kWidth; l++) lane[l] = K(l);
#pragma GCC unroll 32
    for (int i = 0; i < kVecs; i++) {
      v[i] = lane + K(i * kWidth) < last ? load<V>(a + i * kWidth) : splat<V>(highest<K>());
    }
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; i += kWidth) rows(v + i);
    merge_all<1>(v);
#pragma GCC unroll 32
    for (int i = 0; i < kVecs; i++) {
      int64_t left = n - i * kWidth;
      if (left >= kWidth) {
        store(a + i * kWidth, v[i]);
      } else if (left > 0) {
        K part[kWidth];
        store(part, v[i]);
        for (int64_t l = 0; l < left; l++) a[i * kWidth + l] = part[l];
      }
    }
  }
};

constexpr int kFullBytes = NL_VEC_BYTES, kHalfBytes = NL_VEC_BYTES > 16 ? NL_VEC_BYTES / 2 : 16;
template <class K>
constexpr int kNetworkSize = 32 * kFullBytes / sizeof(K);

// Sorts up to kNetworkSize elements by the smallest network that takes them. As many may be read beyond the last one,
// here and in what calls this.
template <class K>
void sort_few(K* a, int64_t n) {
  constexpr int kHalf = kHalfBytes / sizeof(K), kFull = kFullBytes / sizeof(K);
  if (n <= kHalf * kHalf) return Network<K, kHalfBytes, kHalf>::sort(a, n);
  if (n <= kHalf * 16) return Network<K, kHalfBytes, 16>::sort(a, n);
  if (n <= kFull * 16) return Network<K, kFullBytes, 16>::sort(a, n);
  Network<K, kFullBytes, 32>::sort(a, n);
}

// ---- quicksort ----

// Keeps the elements below `pivot` at the front, in order, and puts the others, in order, to `high`, which has room
// for a vector more. Returns how many there are below.
template <class K>
int64_t partition(K* a, int64_t n, K pivot, K* high) {
  using V = typename Simd<K>::V;
  constexpr int kWidth = Simd<K>::kWidth;
  int64_t low = 0, above = 0, i = 0;
  if constexpr (kCompresses<V>) {
    V p = splat<V>(pivot);
    for (; i + kWidth <= n; i += kWidth) {  // what is overwritten has been read
      V v = load<V>(a + i);
      unsigned below = less_bits(v, p);
      store(a + low, compress(v, below));
      store(high + above, compress(v, ~below));
      int count = __builtin_popcount(below);
      low += count, above += kWidth - count;
    }
  }
  for (; i < n; i++) {
    K x = a[i];
    bool below = x < pivot;
    a[low] = x, high[above] = x;
    low += below, above += !below;
  }
  return low;
}

// Places in an array of n elements, as if drawn by chance.
struct Places {
  uint64_t n, state = n;

  int64_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return int64_t(n < uint64_t(1) << 32 ? (state >> 32) * n >> 32 : (state >> 1) % n);
  }
};

template <class K>
K middle(K a, K b, K c) {
  K low = a < b ? a : b, high = a < b ? b : a, least = high < c ? high : c;
  return low > least ? low : least;
}

// The element of rank `part` / 256 in a sample: of nine in a short array, else of as many as a network sorts.
template <class K>
K pivot_of(const K* a, int64_t n, int part = 128) {
  if (n < 4096 && part == 128) {
    int64_t s = n / 9;
    K first = middle(a[0], a[s], a[2 * s]), second = middle(a[3 * s], a[4 * s], a[5 * s]);
    return middle(first, second, middle(a[6 * s], a[7 * s], a[8 * s]));
  }
  constexpr int kSample = kNetworkSize<K> / 2;
  K sample[kSample];
  Places random{uint64_t(n)};
  for (K& x : sample) x = a[random.next()];
  sort_few(sample, kSample);
  return sample[part * kSample / 256];
}

// A part of an array that is sorted by itself.
struct Piece {
  int64_t begin, end;
};

// Divides a piece in two, of which no element of the first is above one of the second; either may be empty, and all
// elements between the two are in their place.
template <class K>
void divide(K* a, Piece piece, K pivot, K* spare, Piece* first, Piece* second) {
  K* from = a + piece.begin;
  int64_t n = piece.end - piece.begin, low = partition(from, n, pivot, spare), equal = 0;
  __builtin_memcpy(from + low, spare, (n - low) * sizeof(K));
  if (low == 0) {  // the pivot is the least: those that equal it are in their place
    equal = pivot == highest<K>() ? n : partition(from, n, K(pivot + 1), spare);
    __builtin_memcpy(from + equal, spare, (n - equal) * sizeof(K));
  }
  *first = {piece.begin, piece.begin + low};
  *second = {piece.begin + low + equal, piece.end};
}

constexpr int64_t kLongPiece = 1 << 18;  // takes about a millisecond: before each such, signals are looked for

// `spare` is room for n elements and a vector.
template <class K>
void quicksort(K* a, int64_t n, K* spare) {
  Piece rest{0, n}, first, second;
  while (rest.end - rest.begin > kNetworkSize<K>) {
    if (rest.end - rest.begin > kLongPiece) nl_check_interrupt();
    K* from = a + rest.begin;
    divide(a, rest, pivot_of(from, rest.end - rest.begin), spare, &first, &second);
    bool smaller = first.end - first.begin < second.end - second.begin;
    const Piece& now = smaller ? first : second;
    quicksort(a + now.begin, now.end - now.begin, spare);  // at most log2(n) deep
    rest = smaller ? second : first;
  }
  sort_few(a + rest.begin, rest.end - rest.begin);
}

constexpr int64_t kPieces = 64;

// The same on all threads: pieces are halved until there is one for each.
template <class K>
void sort_on_all_threads(K* a, int64_t n, K* spare) {
  Piece pieces[kPieces] = {{0, n}};
  int64_t count = 1;
  for (; count < 2 * nl_num_threads() && 2 * count <= kPieces && n / count > 2 * kGrain / 8; count *= 2) {
    Piece halves[kPieces];
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        int64_t size = pieces[i].end - pieces[i].begin;
        halves[2 * i] = pieces[i], halves[2 * i + 1] = {pieces[i].end, pieces[i].end};
        if (size <= kNetworkSize<K>) continue;
        K pivot = pivot_of(a + pieces[i].begin, size);
        divide(a, pieces[i], pivot, spare + pieces[i].begin + i * 64, &halves[2 * i], &halves[2 * i + 1]);
      }
    });
    __builtin_memcpy(pieces, halves, sizeof pieces);
  }
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      quicksort(a + pieces[i].begin, pieces[i].end - pieces[i].begin, spare + pieces[i].begin + i * 64);
    }
  });
}

// What `spare` must hold for n elements.
constexpr int64_t spare_of(int64_t n) { return n + 64 * (kPieces + 1) + 2048; }

}  // namespace
}  // namespace nl::NL_ISA
