// scan.cpp: cumsum, cumprod, cummax, cummin, logcumsumexp: each element combined with all before it along an axis.
//
// S(n): blocks of 64. In a block elements are combined serially from the identity; an element's result is that,
// combined with the last result of the block before (for the first block with the identity). Depends on n only.
//
// Along a row, a vector's lanes are blocks, which a transpose brings there and back: one serial chain alone would wait
// for each addition. Down columns, vectors lie across a kept axis.
#include "functions.hpp"
#include "monoids.hpp"
#include "rows.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kScanBlock = 64;

// ---- what is combined: a monoid over vectors of T ----

template <class T>
struct CumSum {
  using Element = T;
  static constexpr T identity = 0;
  template <class V>
  static V combine(V a, V b) {
    return a + b;
  }
};

template <class T>
struct CumProd {
  using Element = T;
  static constexpr T identity = 1;
  template <class V>
  static V combine(V a, V b) {
    return a * b;
  }
};

// The larger of Order's keys, kept as numbers: a scan hands out every intermediate result.
template <class T>
struct CumMax {
  using Element = T;
  using Order = Ordered<T, 1>;
  static constexpr T identity = kIsFloat<T> ? -T(__builtin_inf()) : lowest<T>();
  template <class V>
  static V combine(V a, V b) {
    return Order::key(a) > Order::key(b) ? a : b;
  }
};

template <class T>
struct CumMin {
  using Element = T;
  using Order = Ordered<T, -1>;
  static constexpr T identity = kIsFloat<T> ? T(__builtin_inf()) : highest<T>();
  template <class V>
  static V combine(V a, V b) {
    return Order::key(a) < Order::key(b) ? a : b;
  }
};

// log(exp a + exp b) = max + log1p(exp(min - max)); equal infinities stay what they are.
template <class T>
struct LogCumSumExp {
  using Element = T;
  static constexpr T identity = -T(__builtin_inf());
  template <class V>
  static V combine(V a, V b) {
    V large = a > b ? a : b, small = a > b ? b : a;
    V below = a == b ? V{} : small - large;
    return large + log1p_of(exp_of(below));
  }
};

// ---- along rows ----

template <class M>
struct ScanRows {
  using T = typename M::Element;
  using V = typename Simd<T>::V;
  static constexpr int kWidth = Simd<T>::kWidth;

  const Walk<2>& kept;
  const View &x, &y;
  const T* end;  // of readable memory
  int64_t n, in_step, out_step, blocks;
  bool stream;

  ScanRows(const Walk<2>& walk, const View& in, const View& out, int axis)
      : kept(walk),
        x(in),
        y(out),
        end(end_of<T>(in)),
        n(in.shape[axis]),
        in_step(in.strides[axis]),
        out_step(out.strides[axis]),
        blocks(ceil_div(n, kScanBlock)),
        stream(streams<T>(out, n, walk.total) && out_step == 1) {}

  // A block of a row.
  struct Segment {
    const T* in;
    T* out;
    int count;
    bool first;  // of its row
  };

  // A vector's worth of neighbouring blocks, of one row or of several.
  struct Group {
    Segment segments[kWidth];
    int size, longest;
  };

  Group group(int64_t begin, int64_t last) const {
    Group g;
    g.size = int(min_of(kWidth, last - begin)), g.longest = 0;
    int64_t row = begin / blocks, block = begin % blocks;
    auto c = kept.seek(row);
    for (int l = 0; l < g.size; l++) {
      int64_t at = block * kScanBlock;
      int count = int(min_of(kScanBlock, n - at));
      g.segments[l] = {(const T*)x.data + c.at[0] + at * in_step, (T*)y.data + c.at[1] + at * out_step, count,
                       block == 0};
      g.longest = count > g.longest ? count : g.longest;
      if (++block == blocks) block = 0, kept.next(c);
    }
    for (int l = g.size; l < kWidth; l++) g.segments[l] = g.segments[0];
    return g;
  }

  V load_part(const Segment& s, int i) const {
    const T* p = s.in + i * in_step;
    if (in_step == 1 && end - p >= kWidth) return load<V>(p);
    T part[kWidth] = {};
    gather_row(p, in_step, max_of(0, min_of(kWidth, s.count - i)), part);
    return load<V>(part);
  }

  void store_part(const Segment& s, int i, V v) const {
    T* p = s.out + i * out_step;
    if (out_step == 1 && i + kWidth <= s.count) return stream ? stream_store(p, v) : store(p, v);
    T part[kWidth];
    store(part, v);
    for (int k = 0; k < kWidth && i + k < s.count; k++) p[k * out_step] = part[k];
  }

  // The results inside each block: element i of segment l goes to tile[i * kWidth + l].
  void inside(const Group& g, T* tile) const {
    V state = splat<V>(M::identity);
    for (int i = 0; i < g.longest; i += kWidth) {
      V part[kWidth];
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) part[l] = load_part(g.segments[l], i);
      transpose(part);
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; k++) store(tile + (i + k) * kWidth, state = M::combine(state, part[k]));
    }
  }

  // Combines each with its segment's carry and writes it.
  void finish(const Group& g, const T* tile, const T* carries) const {
    V carry = load<V>(carries);
    for (int i = 0; i < g.longest; i += kWidth) {
      V part[kWidth];
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; k++) part[k] = M::combine(carry, load<V>(tile + (i + k) * kWidth));
      transpose(part);
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) {
        if (l < g.size) store_part(g.segments[l], i, part[l]);
      }
    }
  }

  static T combine(T a, T b) { return M::combine(splat<V>(a), splat<V>(b))[0]; }
  static T total(const Group& g, const T* tile, int l) { return tile[(g.segments[l].count - 1) * kWidth + l]; }

  // Whole rows.
  void rows(int64_t begin, int64_t last) const {
    alignas(64) T tile[kScanBlock * kWidth], carries[kWidth];
    T carry = M::identity;
    Polls polls;
    for (int64_t i = begin * blocks; i < last * blocks; i += kWidth) {
      polls.after(kWidth * kScanBlock);
      Group g = group(i, last * blocks);
      inside(g, tile);
      for (int l = 0; l < g.size; l++) {
        carries[l] = g.segments[l].first ? M::identity : carry;
        carry = combine(carries[l], total(g, tile, l));
      }
      finish(g, tile, carries);
    }
    if (stream) stream_fence();
  }

  // Too few rows for the threads: the totals of all blocks first, which are read twice.
  void parts() const {
    int64_t all = kept.total * blocks, groups = ceil_div(all, kWidth);
    T* carries = (T*)nl_scratch(0, groups * kWidth * sizeof(T));
    parallel_for(groups, grain_of(kWidth * kScanBlock), [=](int64_t begin, int64_t last) {
      alignas(64) T tile[kScanBlock * kWidth];
      for (int64_t i = begin * kWidth; i < min_of(last * kWidth, all); i += kWidth) {
        Group g = group(i, all);
        inside(g, tile);
        for (int l = 0; l < g.size; l++) carries[i + l] = total(g, tile, l);
      }
    });
    T carry = M::identity;
    for (int64_t i = 0; i < all; i++) {
      T next = combine(carry = i % blocks == 0 ? M::identity : carry, carries[i]);
      carries[i] = carry, carry = next;
    }
    parallel_for(groups, grain_of(kWidth * kScanBlock), [=](int64_t begin, int64_t last) {
      alignas(64) T tile[kScanBlock * kWidth];
      for (int64_t i = begin * kWidth; i < min_of(last * kWidth, all); i += kWidth) {
        Group g = group(i, all);
        inside(g, tile);
        finish(g, tile, carries + i);
      }
      if (stream) stream_fence();
    });
  }

  void run() const {
    bool few = kept.total < 2 * nl_num_threads() && nl_num_threads() > 1 && n * kept.total > 2 * kGrain;
    if (few) return parts();
    parallel_for(kept.total, grain_of(n), [=](int64_t begin, int64_t last) { rows(begin, last); });
  }
};

// ---- down columns ----

template <class M>
struct ScanColumns {
  using T = typename M::Element;
  using V = typename Simd<T>::V;
  static constexpr int kWidth = Simd<T>::kWidth;
  static constexpr int kTile = 4096 / sizeof(T);

  int64_t n, in_step, in_stride, out_step, out_stride;
  bool stream;

  // One row of a tile: the block's results so far, and what it begins with.
  void row(const T* in, T* out, int columns, T* inside, const T* carry) const {
    int c = 0;
    for (; c + kWidth <= columns; c += kWidth) {
      V next = M::combine(load<V>(inside + c), load<V>(in + c));
      store(inside + c, next);
      V result = M::combine(load<V>(carry + c), next);
      stream ? stream_store(out + c, result) : store(out + c, result);
    }
    if (c == columns) return;
    T part[kWidth] = {};
    __builtin_memcpy(part, in + c, (columns - c) * sizeof(T));
    V next = M::combine(load<V>(inside + c), load<V>(part));
    store(inside + c, next);
    V result = M::combine(load<V>(carry + c), next);
    __builtin_memcpy(out + c, &result, (columns - c) * sizeof(T));
  }

  void tile(const T* in, T* out, int columns) const {
    alignas(64) T inside[kTile + kWidth], carry[kTile + kWidth], from[kTile], to[kTile];
    for (T& c : carry) c = M::identity;
    Polls polls;
    for (int64_t i = 0; i < n; i++) {
      polls.after(columns);
      if (i % kScanBlock == 0) {
        for (T& c : inside) c = M::identity;
      }
      const T* x = in + i * in_step;
      T* y = out + i * out_step;
      if (in_stride != 1) gather_row(x, in_stride, columns, from);
      T* result = out_stride == 1 ? y : to;
      row(in_stride == 1 ? x : from, result, columns, inside, carry);
      if (out_stride != 1) {
        for (int c = 0; c < columns; c++) y[c * out_stride] = to[c];
      }
      if (i % kScanBlock != kScanBlock - 1) continue;
      for (int c = 0; c < columns; c += kWidth) store(carry + c, M::combine(load<V>(carry + c), load<V>(inside + c)));
    }
    if (stream) stream_fence();
  }
};

template <class M>
void scan_columns(const View& x, const View& y, Walk<2> kept, int d, int axis) {
  using Columns = ScanColumns<M>;
  using T = typename M::Element;
  int64_t columns = kept.shape[d];
  Columns scan{x.shape[axis], x.strides[axis], kept.stride[0][d], y.strides[axis], kept.stride[1][d], false};
  kept.remove_axis(d);
  int64_t tiles = max_of(ceil_div(columns, Columns::kTile), min_of(nl_num_threads(), columns / Columns::kWidth));
  // Tiles begin at whole lines, so that a line belongs to one thread.
  int64_t width = ceil_div(ceil_div(columns, tiles), 64 / sizeof(T)) * (64 / sizeof(T));
  tiles = ceil_div(columns, width);
  scan.stream = scan.out_stride == 1 && streams<T>(y, columns, kept.total * scan.n);
  parallel_for(kept.total * tiles, grain_of(scan.n * width), [=, &kept](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      auto c = kept.seek(i / tiles);
      int64_t first = i % tiles * width;
      scan.tile((const T*)x.data + c.at[0] + first * scan.in_stride, (T*)y.data + c.at[1] + first * scan.out_stride,
                int(min_of(width, columns - first)));
    }
  });
}

template <class M>
int scan(const Call& call) {
  const View &x = call.in[0], &y = call.out[0];
  int axis = int(call.attr[0]);
  Walk<2> kept = walk_without({&x, &y}, axis);
  if (kept.total * x.shape[axis] == 0) return kOk;
  auto fills_a_vector = [&](int d) { return kept.shape[d] >= Simd<typename M::Element>::kWidth; };
  int d = column_axis(kept, x.strides[axis], fills_a_vector);
  d < 0 ? ScanRows<M>(kept, x, y, axis).run() : scan_columns<M>(x, y, kept, d, axis);
  return kOk;
}

// Runs the scan by M<T> of the operand's element type.
template <template <class> class M>
int scan_numbers(const Call& call) {
  switch (call.in[0].dtype) {
    case DType::f32: return scan<M<float>>(call);
    case DType::f64: return scan<M<double>>(call);
    default: return scan<M<int64_t>>(call);
  }
}

}  // namespace

int cumsum(const Call& call) { return scan_numbers<CumSum>(call); }
int cumprod(const Call& call) { return scan_numbers<CumProd>(call); }
int cummax(const Call& call) { return scan_numbers<CumMax>(call); }
int cummin(const Call& call) { return scan_numbers<CumMin>(call); }
int logcumsumexp(const Call& call) {
  return call.in[0].dtype == DType::f64 ? scan<LogCumSumExp<double>>(call) : scan<LogCumSumExp<float>>(call);
}

}  // namespace nl::NL_ISA
