// reduce.cpp: reductions over one axis of any strided tensor: sum, prod, amax, amin, any, all, argmax, argmin.
//
// Two ways through memory: along rows, when the reduced axis has the smallest stride, or down columns, with vectors
// across a kept axis. Long reductions are split between threads at powers of two of blocks, which are whole subtrees of
// T(n) (tree.hpp), so no split shows in the bits.
#include "loops.hpp"
#include "tree.hpp"

namespace nl::NL_ISA {
namespace {

template <class T, class L = T, class O = T>
struct Prod : Sum<T, L, O> {
  static constexpr L identity = 1;

  template <class V>
  static V combine(V a, V b) {
    return a * b;
  }
};

template <class T>
struct Min {
  using In = T;
  using Out = T;
  using Order = Ordered<T, -1>;
  using Lane = typename Order::Key;
  static constexpr Lane identity = highest<Lane>();

  template <class V>
  static auto lift(V v) {
    return Order::key(v);
  }
  template <class V>
  static V combine(V a, V b) {
    return a < b ? a : b;
  }
  static T finish(Lane lane) { return Order::value(lane); }
};

template <class T>
struct Any {
  using In = T;
  using Lane = Mask<T>;
  using Out = uint8_t;
  static constexpr Lane identity = 0;

  template <class V>
  static auto lift(V v) {
    return v != T(0);
  }
  template <class V>
  static V combine(V a, V b) {
    return a | b;
  }
  static Out finish(Lane lane) { return lane != 0; }
};

template <class T>
struct All : Any<T> {
  static constexpr Mask<T> identity = -1;

  template <class V>
  static V combine(V a, V b) {
    return a & b;
  }
};

// A reduction by T(n), in the form that the drivers below run.
template <class M>
struct Tree {
  using In = typename M::In;
  using Out = typename M::Out;
  using Part = typename M::Lane;
  static constexpr int kWidth = Simd<Part>::kWidth;
  static constexpr int kTile = TreeColumns<M>::kTile;

  static Part row(const In* p, int64_t step, int64_t n, const In* end, int64_t) {
    return TreeRow<M>::run(Strided<In>{p, step, end}, n);
  }
  static void columns(const In* p, int64_t step, int64_t stride, int64_t n, int columns, int64_t, Part* result) {
    TreeColumns<M>::run(p, {step, stride, columns}, n, result);
  }
  static void merge(Part* a, const Part* b, int64_t count) { TreeColumns<M>::merge(a, b, count); }
  static Out finish(Part part) { return M::finish(part); }
};

struct Largest {
  template <class V>
  static auto beats(V a, V b) {
    return (a > b) | ((a != a) & (b == b));
  }
};

struct Smallest {
  template <class V>
  static auto beats(V a, V b) {
    return (a < b) | ((a != a) & (b == b));
  }
};

// argmax and argmin: the first index of the extremum, where -0 equals +0 and a NaN beats every number.
template <class Order, class T>
struct Arg {
  struct Best {
    T value;
    int64_t at;
  };
  using In = T;
  using Out = int64_t;
  using Part = Best;
  using V = typename Simd<T>::V;
  using Index = Mask<T>;
  using IndexV = typename Simd<Index>::V;
  static constexpr int kWidth = Simd<T>::kWidth;
  static constexpr int kTile = 2048 / sizeof(T);
  // Indices are as wide as the elements, so that one mask serves both; longer runs are taken in segments.
  static constexpr int64_t kSegment = highest<Index>();

  static int64_t finish(Best best) { return best.at; }

  // The better of two candidates in any order of index.
  static Best better(Best a, Best b) {
    bool b_wins = Order::beats(b.value, a.value) || (b.at < a.at && !Order::beats(a.value, b.value));
    return b_wins ? b : a;
  }

  static void merge(Best* a, const Best* b, int64_t count) {
    for (int64_t i = 0; i < count; i++) a[i] = better(a[i], b[i]);
  }

  // Rows [begin, end) of one vector of columns, on top of what earlier rows gave.
  static void scan(const T* p, int64_t step, int64_t begin, int64_t end, T* values, Index* indices) {
    V value = load<V>(values);
    IndexV at = load<IndexV>(indices);
    for (int64_t i = begin; i < end; i++) {
      V next = load<V>(p + i * step);
      auto wins = Order::beats(next, value);
      value = wins ? next : value;
      at = wins ? splat<IndexV>(Index(i)) : at;
    }
    store(values, value);
    store(indices, at);
  }

  // At most kSegment rows of contiguous columns, 8 rows side by side. The last vector of columns is moved back to end
  // at the last column: to scan a row twice changes nothing.
  static void segment(const T* p, int64_t step, int64_t n, int columns, int64_t first, Best* result) {
    T values[kTile];
    Index indices[kTile];
    for (int c = 0; c < columns; c++) values[c] = p[c], indices[c] = 0;
    for (int64_t i = 0; i < n; i += 8) {
      for (int c = 0; c < columns; c += kWidth) {
        int at = c + kWidth <= columns ? c : columns - kWidth;
        scan(p + at, step, i, min_of(i + 8, n), values + at, indices + at);
      }
    }
    for (int c = 0; c < columns; c++) result[c] = {values[c], first + indices[c]};
  }

  static void columns(const T* p, int64_t step, int64_t stride, int64_t n, int columns, int64_t first, Best* result) {
    if (stride != 1) return strided(p, step, stride, n, columns, first, result);
    if (columns < kWidth) return narrow(p, n, columns, first, result);
    segment(p, step, min_of(kSegment, n), columns, first, result);
    for (int64_t i = kSegment; i < n; i += kSegment) {
      Best next[kTile];
      segment(p + i * step, step, min_of(kSegment, n - i), columns, first + i, next);
      merge(result, next, columns);
    }
  }

  // Columns are gathered 16 rows at a time.
  static void strided(const T* p, int64_t step, int64_t stride, int64_t n, int columns, int64_t first, Best* result) {
    constexpr int kRows = 16;
    T panel[kRows * kTile];
    for (int64_t i = 0; i < n; i += kRows) {
      int64_t count = min_of(kRows, n - i);
      for (int64_t r = 0; r < count; r++) gather_row(p + (i + r) * step, stride, columns, panel + r * kTile);
      Best next[kTile];
      segment(panel, kTile, count, columns, first + i, i == 0 ? result : next);
      if (i > 0) merge(result, next, columns);
    }
  }

  // Too few columns for a vector, but adjacent rows: a group of 32 rows is one row with a lane for every element.
  static void narrow(const T* p, int64_t n, int columns, int64_t first, Best* result) {
    Best lanes[kLanes * kWidth];
    int64_t groups = n / kLanes;
    if (groups > 0) Arg::columns(p, kLanes * columns, 1, groups, kLanes * columns, 0, lanes);
    for (int c = 0; c < columns; c++) {
      Best best = {p[c], first};
      for (int l = 0; groups > 0 && l < kLanes; l++) {
        const Best& lane = lanes[l * columns + c];
        best = better(best, {lane.value, first + lane.at * kLanes + l});
      }
      for (int64_t i = groups * kLanes; i < n; i++) best = better(best, {p[i * columns + c], first + i});
      result[c] = best;
    }
  }

  // A row is one column of adjacent rows.
  static Best row(const T* p, int64_t step, int64_t n, const T*, int64_t first) {
    Best best = {p[0], first};
    if (step == 1) {
      narrow(p, n, 1, first, &best);
      return best;
    }
    T buffer[kBlock];
    for (int64_t i = 0; i < n; i += kBlock) {
      Best next;
      gather_row(p + i * step, step, min_of(kBlock, n - i), buffer);
      narrow(buffer, min_of(kBlock, n - i), 1, first + i, &next);
      best = better(best, next);
    }
    return best;
  }
};

// How the reduced axis is cut: into `count` chunks of `size` elements, a power of two of blocks.
struct Split {
  int64_t size, count;
};

// Cuts only where the kept elements alone do not feed all threads; `width` elements are reduced side by side.
Split split(int64_t n, int64_t items, int64_t width) {
  int64_t size = kBlock;
  while (size < n && (size * width < kGrain || items * (n / size) > 8 * nl_num_threads())) size *= 2;
  return {size, n > 0 ? (n + size - 1) / size : 1};
}

// The parts of the chunks, as a matrix of s.count rows of `width` results (padded to whole vectors).
template <class K>
struct Parts {
  Split s;
  int64_t width;
  typename K::Part* data;

  Parts(Split split, int64_t items) : s(split), width((items + kLanes - 1) / kLanes * kLanes) {
    data = (typename K::Part*)nl_scratch(0, s.count * width * sizeof(typename K::Part));
  }

  typename K::Part* row(int64_t chunk) const { return data + chunk * width; }

  // Combines the rows in the order of T(n); row 0 is the result.
  void combine() const {
    for (int64_t span = 1; span < s.count; span *= 2) {
      for (int64_t c = 0; c + span < s.count; c += 2 * span) K::merge(row(c), row(c + span), width);
    }
  }
};

template <class K>
void reduce_rows(const View& x, const View& out, const Walk<2>& kept, int64_t n, int64_t step) {
  using In = typename K::In;
  const In* in = (const In*)x.data;
  const In* end = end_of<In>(x);
  auto* to = (typename K::Out*)out.data;
  Split s = split(n, kept.total, 1);
  if (s.count == 1) {
    parallel_for(kept.total, grain_of(n), [=, &kept](int64_t begin, int64_t stop) {
      auto c = kept.seek(begin);
      for (int64_t i = begin; i < stop; i++, kept.next(c)) {
        to[c.at[1]] = K::finish(K::row(in + c.at[0], step, n, end, 0));
      }
    });
    return;
  }
  Parts<K> parts(s, kept.total);
  parallel_for(kept.total * s.count, 1, [=, &kept](int64_t begin, int64_t stop) {
    for (int64_t i = begin; i < stop; i++) {
      int64_t item = i / s.count, chunk = i % s.count, at = chunk * s.size;
      const In* p = in + kept.seek(item).at[0] + at * step;
      parts.row(chunk)[item] = K::row(p, step, min_of(s.size, n - at), end, at);
    }
  });
  parts.combine();
  for (int64_t i = 0; i < kept.total; i++) to[kept.seek(i).at[1]] = K::finish(parts.row(0)[i]);
}

// Columns lie along axis `d` of `kept`, in tiles of nearly equal width.
template <class K>
void reduce_columns(const View& x, const View& out, Walk<2> kept, int d, int64_t n, int64_t step) {
  using In = typename K::In;
  const In* in = (const In*)x.data;
  auto* to = (typename K::Out*)out.data;
  const int64_t columns = kept.shape[d], stride = kept.stride[0][d], out_stride = kept.stride[1][d];
  kept.remove_axis(d);
  const int64_t tiles = (columns + K::kTile - 1) / K::kTile;
  Split s = split(n, kept.total * tiles, columns / tiles);
  Parts<K> parts(s, s.count == 1 ? 0 : kept.total * columns);
  auto store_row = [=](const typename K::Part* row, int64_t count, int64_t at) {
    for (int64_t c = 0; c < count; c++) to[at + c * out_stride] = K::finish(row[c]);
  };
  int64_t grain = grain_of(min_of(s.size, n) * (columns / tiles));
  parallel_for(kept.total * tiles * s.count, grain, [=, &kept](int64_t begin, int64_t stop) {
    for (int64_t i = begin; i < stop; i++) {
      int64_t item = i / s.count, chunk = i % s.count, row = chunk * s.size, outer = item / tiles;
      int64_t first = item % tiles * columns / tiles, width = (item % tiles + 1) * columns / tiles - first;
      auto c = kept.seek(outer);
      alignas(64) typename K::Part result[K::kTile];
      K::columns(in + c.at[0] + first * stride + row * step, step, stride, min_of(s.size, n - row), int(width), row,
                 result);
      if (s.count == 1) store_row(result, width, c.at[1] + first * out_stride);
      else __builtin_memcpy(parts.row(chunk) + outer * columns + first, result, width * sizeof result[0]);
    }
  });
  if (s.count == 1) return;
  parts.combine();
  for (int64_t i = 0; i < kept.total; i++) store_row(parts.row(0) + i * columns, columns, kept.seek(i).at[1]);
}

// The kept axis to lay vectors across, or -1 where the reduced axis has the smaller stride or no axis fills a vector:
// one column's, or one of a group of 32 adjacent rows.
int column_axis(const Walk<2>& kept, int64_t n, int64_t step, int width) {
  int best = -1;
  int64_t smallest = n == 1 ? INT64_MAX : step < 0 ? -step : step;
  for (int d = 0; d < kept.rank; d++) {
    int64_t stride = kept.stride[0][d] < 0 ? -kept.stride[0][d] : kept.stride[0][d];
    bool adjacent = kept.stride[0][d] == 1 && step == kept.shape[d] && n >= kLanes;
    if (stride == 0 || stride >= smallest || (kept.shape[d] < width && !adjacent)) continue;
    best = d, smallest = stride;
  }
  return best;
}

template <class K>
void reduce(const Call& call) {
  const View &x = call.in[0], &out = call.out[0];
  int axis = int(call.attr[0]);
  int64_t n = x.shape[axis], step = x.strides[axis];
  Walk<2> kept = walk_without(x, out, axis);
  int d = column_axis(kept, n, step, K::kWidth);
  if (d < 0) return reduce_rows<K>(x, out, kept, n, step);
  reduce_columns<K>(x, out, kept, d, n, step);
}

// Runs the reduction R<T> of the operand's element type.
template <template <class> class R>
int by_dtype(const Call& call) {
  switch (call.in[0].dtype) {
    case DType::b8:
    case DType::u8: reduce<R<uint8_t>>(call); break;
    case DType::i32: reduce<R<int32_t>>(call); break;
    case DType::i64: reduce<R<int64_t>>(call); break;
    case DType::f32: reduce<R<float>>(call); break;
    case DType::f64: reduce<R<double>>(call); break;
  }
  return kOk;
}

template <class T, bool = kIsFloat<T>>
struct Accumulator {  // integers wrap in 64 bits; unsigned, because signed overflow is undefined
  using Sums = Sum<T, uint64_t, int64_t>;
  using Prods = Prod<T, uint64_t, int64_t>;
};
template <class T>
struct Accumulator<T, true> {
  using Sums = Sum<T>;
  using Prods = Prod<T>;
};

template <class T>
using SumTree = Tree<typename Accumulator<T>::Sums>;
template <class T>
using ProdTree = Tree<typename Accumulator<T>::Prods>;
template <class T>
using MaxTree = Tree<Max<T>>;
template <class T>
using MinTree = Tree<Min<T>>;
template <class T>
using AnyTree = Tree<Any<T>>;
template <class T>
using AllTree = Tree<All<T>>;
template <class T>
using ArgMax = Arg<Largest, T>;
template <class T>
using ArgMin = Arg<Smallest, T>;

}  // namespace

int sum(const Call& call) { return by_dtype<SumTree>(call); }
int prod(const Call& call) { return by_dtype<ProdTree>(call); }
int amax(const Call& call) { return by_dtype<MaxTree>(call); }
int amin(const Call& call) { return by_dtype<MinTree>(call); }
int any(const Call& call) { return by_dtype<AnyTree>(call); }
int all(const Call& call) { return by_dtype<AllTree>(call); }
int argmax(const Call& call) { return by_dtype<ArgMax>(call); }
int argmin(const Call& call) { return by_dtype<ArgMin>(call); }

}  // namespace nl::NL_ISA
