// loops.hpp: walks the index space of strided views and spreads it over threads; what the native kernels share.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {
namespace {

// Work below this many elements is not worth waking a thread for.
constexpr int64_t kGrain = 32768;
// What stays in L2 while other memory goes through it: half of one of 1 MiB.
constexpr int64_t kNearBytes = 512 << 10;

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The float that an attribute, the bits of a double, stands for.
inline double double_of(int64_t bits) {
  double value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Runs `make`, which fills memory; only once where that is kept between the runs of a program.
template <class F>
void make_once(Kept* kept, const F& make) {
  if (kept && kept->ready) return;
  make();
  if (kept) kept->ready = true;
}

// How many items of `work` elements make one chunk.
inline int64_t grain_of(int64_t work) { return max_of(1, kGrain / max_of(work, 1)); }

// Runs body(begin, end) over [0, n) in chunks of at least `grain` items.
template <class F>
void parallel_for(int64_t n, int64_t grain, const F& body) {
  if (n <= 0) return;
  nl_parallel_for(n, grain, [](void* f, int64_t begin, int64_t end) { (*(const F*)f)(begin, end); }, (void*)&body);
}

// body(row, begin, end) for each row that some of the items [first, stop) are in, which are numbered through rows of
// `columns`, and for which of the row's items they are.
template <class F>
void each_row(int64_t columns, int64_t first, int64_t stop, const F& body) {
  if (first >= stop) return;
  int64_t row = first / columns;
  for (int64_t begin = row * columns; begin < stop; row++, begin += columns) {
    body(row, max_of(first - begin, 0), min_of(stop - begin, columns));
  }
}

// Lets signals be seen now and then in a long loop, which says how many elements it has done.
struct Polls {
  int64_t done = 0;

  void after(int64_t elements) {
    done += elements;
    if (done < kGrain) return;
    done = 0;
    nl_check_interrupt();
  }
};

// The row-major index space of K views at once. Neighbouring axes are merged where all K views allow it.
template <int K>
struct Walk {
  struct Cursor {
    int64_t at[K];  // element offset in each view
    int64_t index[kMaxRank];
  };

  int rank = 0;
  int64_t total = 1;
  int64_t shape[kMaxRank];
  int64_t stride[K][kMaxRank];

  // Appends an axis inside the ones already there.
  void add_axis(int64_t extent, const int64_t (&step)[K]) {
    if (extent == 1) return;
    bool merges = rank > 0;
    for (int k = 0; k < K && merges; k++) merges = stride[k][rank - 1] == step[k] * extent;
    if (!merges) return push_axis(extent, step);
    total *= extent;
    shape[rank - 1] *= extent;
    for (int k = 0; k < K; k++) stride[k][rank - 1] = step[k];
  }

  // Appends an axis that stays one of its own.
  void push_axis(int64_t extent, const int64_t (&step)[K]) {
    total *= extent;
    shape[rank] = extent;
    for (int k = 0; k < K; k++) stride[k][rank] = step[k];
    rank++;
  }

  // Takes axis `d` out; the caller runs over it itself.
  void remove_axis(int d) {
    total = 1;
    rank--;
    for (int i = d; i < rank; i++) {
      shape[i] = shape[i + 1];
      for (int k = 0; k < K; k++) stride[k][i] = stride[k][i + 1];
    }
    for (int i = 0; i < rank; i++) total *= shape[i];
  }

  // The position of the element with row-major number `i`; of number 0 also where there is no element.
  Cursor seek(int64_t i) const {
    Cursor c = {};
    for (int d = rank - 1; d >= 0 && i > 0; d--) {
      c.index[d] = i % shape[d];
      i /= shape[d];
      for (int k = 0; k < K; k++) c.at[k] += c.index[d] * stride[k][d];
    }
    return c;
  }

  void next(Cursor& c) const {
    for (int d = rank - 1; d >= 0; d--) {
      for (int k = 0; k < K; k++) c.at[k] += stride[k][d];
      if (++c.index[d] < shape[d]) return;
      for (int k = 0; k < K; k++) c.at[k] -= shape[d] * stride[k][d];
      c.index[d] = 0;
    }
  }
};

// The index space of views of one shape, but for `axis` (-1: all of it).
template <int K>
Walk<K> walk_without(const View* const (&views)[K], int axis) {
  Walk<K> walk;
  for (int d = 0; d < views[0]->rank; d++) {
    int64_t step[K];
    for (int k = 0; k < K; k++) step[k] = views[k]->strides[d];
    if (d != axis) walk.add_axis(views[0]->shape[d], step);
  }
  return walk;
}

// The kept axis to lay vectors across, or -1: the one of the smallest stride in the first view, below the `step` of the
// axis that is worked along, of those that `fits(d)` admits.
template <int K, class F>
int column_axis(const Walk<K>& kept, int64_t step, const F& fits) {
  int best = -1;
  int64_t smallest = step < 0 ? -step : step;
  for (int d = 0; d < kept.rank; d++) {
    const int64_t stride = kept.stride[0][d] < 0 ? -kept.stride[0][d] : kept.stride[0][d];
    if (stride > 0 && stride < smallest && fits(d)) best = d, smallest = stride;
  }
  return best;
}

// One past the highest address that an element of `v` occupies: everything from `v`'s lowest element up to here may
// be read (never used) by a vector load that runs over the end of a row.
inline const char* memory_end(const View& v) {
  int64_t last = 0;
  for (int d = 0; d < v.rank; d++) {
    if (v.strides[d] > 0) last += (v.shape[d] - 1) * v.strides[d];
  }
  return v.data + (last + 1) * itemsize(v.dtype);
}

template <class T>
const T* end_of(const View& v) {
  return (const T*)memory_end(v);
}

template <class T>
void gather_row(const T* from, int64_t stride, int64_t n, T* to) {
  if (stride == 1) {
    __builtin_memcpy(to, from, n * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < n; i++) to[i] = from[i * stride];
}

}  // namespace
}  // namespace nl::NL_ISA
