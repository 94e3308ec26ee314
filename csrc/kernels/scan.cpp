// scan.cpp: cumsum, cumprod, logcumsumexp: each element combined with all before it along an axis.
//
// S(n): blocks of 64. In a block elements are combined serially from the identity; an element's result is that,
// combined with the last result of the block before (for the first block with the identity). Depends on n only.
//
// Along a row, a vector's lanes are blocks, which a transpose brings there and back: one serial chain alone would wait
// for each addition; very short rows stay as they lie, several to a vector. Down columns, vectors lie across a kept
// axis.
#include "functions.hpp"
#include "interleave.hpp"
#include "monoids.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kScanBlock = 64;

// ---- what is combined: a monoid over vectors of T ----

template <class T>
struct CumSum {
  using Element = T;
  static constexpr T identity = 0;
  static constexpr bool kCheap = true;  // so lanes may be left idle
  template <class V>
  static V combine(V a, V b) {
    return a + b;
  }
};

template <class T>
struct CumProd {
  using Element = T;
  static constexpr T identity = 1;
  static constexpr bool kCheap = true;
  template <class V>
  static V combine(V a, V b) {
    return a * b;
  }
};

// log(exp a + exp b) = max + log1p(exp(min - max)); equal infinities stay what they are.
template <class T>
struct LogCumSumExp {
  using Element = T;
  static constexpr T identity = -T(__builtin_inf());
  static constexpr bool kCheap = false;
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

  // Rows of one block that lie as one and are shorter than a vector, as many at a time as one holds: what is combined
  // with the lane before it once for every element of a row is what comes of combining them in turn.
  void in_lanes(int64_t begin, int64_t last) const {
    const int whole = int(kWidth / n * n);
    typename Simd<Mask<T>>::V begins;
    for (int l = 0; l < kWidth; l++) begins[l] = -(l % n == 0);
    const V identity = splat<V>(M::identity);
    const T* in = (const T*)x.data + begin * n;
    T* out = (T*)y.data + begin * n;
    Polls polls;
    for (int64_t left = (last - begin) * n; left > 0; left -= whole, in += whole, out += whole) {
      polls.after(whole);
      const int count = int(min_of(left, whole));
      const V v = end - in >= kWidth ? load<V>(in) : load_first<V>(in, count);
      V state = M::combine(identity, v);
      for (int i = 1; i < n; i++) state = M::combine(begins ? identity : previous_lanes(state), v);
      left >= kWidth ? store(out, state) : store_first(out, state, count);
    }
  }

  // The same as squares of vectors, to the end of each: the rows that follow overwrite what is too much.
  void in_squares(int64_t begin, int64_t last) const {
    Polls polls;
    for (; begin + 2 * kWidth <= last; begin += kWidth) {
      polls.after(kWidth * n);
      V part[kWidth], state = splat<V>(M::identity);
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) part[l] = load<V>((const T*)x.data + (begin + l) * n);
      transpose(part);
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; k++) part[k] = state = M::combine(state, part[k]);
      transpose(part);
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) store((T*)y.data + (begin + l) * n, part[l]);
    }
    in_lanes(begin, last);
  }

  // Rows of one block, a vector's width at a time. Nothing lies before a block, so it is not combined with that.
  void turned(int64_t begin, int64_t last) const {
    alignas(64) T tile[kScanBlock * kWidth];
    auto c = kept.seek(begin);
    Polls polls;
    for (int64_t i = begin; i < last; i += kWidth) {
      polls.after(kWidth * n);
      const int64_t count = min_of(kWidth, last - i);
      const T* ins[kWidth];
      T* outs[kWidth];
      for (int64_t l = 0; l < count; l++, kept.next(c)) {
        ins[l] = (const T*)x.data + c.at[0], outs[l] = (T*)y.data + c.at[1];
      }
      for (int64_t l = count; l < kWidth; l++) ins[l] = ins[0];
      interleave(ins, n, [&](int64_t k) { return tile + k * kWidth; });
      V state = splat<V>(M::identity);
      for (int64_t k = 0; k < n; k++) {
        store(tile + k * kWidth, state = M::combine(state, load<V>(tile + k * kWidth)));
      }
      deinterleave(tile, kWidth, n, outs, count, out_step);
    }
  }

  // Rows of one block each.
  void short_rows(int64_t begin, int64_t last) const {
    const bool as_one = kept.rank == 1 && kept.stride[0][0] == n && kept.stride[1][0] == n && out_step == 1;
    if (!as_one || n >= kWidth || !M::kCheap) return turned(begin, last);
    n <= kWidth / 2 ? in_lanes(begin, last) : in_squares(begin, last);
  }

  void run() const {
    // Groups of blocks end their rows element by element, but are as fast where there is no such end.
    const bool even = M::kCheap && n % kWidth == 0 && n > 2 * kWidth;
    if (blocks == 1 && in_step == 1 && !stream && !even) {
      return parallel_for(kept.total, grain_of(n), [=](int64_t begin, int64_t last) { short_rows(begin, last); });
    }
    bool few = kept.total < 2 * nl_num_threads() && nl_num_threads() > 1 && n * kept.total > 2 * kGrain;
    if (few) return parts();
    parallel_for(kept.total, grain_of(n), [=](int64_t begin, int64_t last) { rows(begin, last); });
  }
};

// ---- down columns ----

template <class M>
struct ScanColumns {
  using T = typename M::Element;
  static constexpr int kWidth = Simd<T>::kWidth;
  static constexpr int kStrip = 4;  // vectors whose results so far stay in registers
  using Short = typename VecOf<T, M::kCheap ? 16 : sizeof(typename Simd<T>::V)>::V;

  int64_t n, in_step, in_stride, out_step, out_stride;
  const T* end;  // of readable memory
  bool stream;

  // Down vectors of columns: load_at(i, v) gives vector v of row i, store_at(i, v, result) takes what becomes of it.
  template <class V, int kVectors, class Load, class Store>
  void down(int columns, const Load& load_at, const Store& store_at) const {
    V carry[kVectors], inside[kVectors];
    for (V& c : carry) c = splat<V>(M::identity);
    Polls polls;
    for (int64_t first = 0; first < n; first += kScanBlock) {
      polls.after(kScanBlock * columns);
      for (V& v : inside) v = splat<V>(M::identity);
      for (int64_t i = first; i < min_of(first + kScanBlock, n); i++) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) {
          inside[v] = M::combine(inside[v], load_at(i, v));
          store_at(i, v, M::combine(carry[v], inside[v]));
        }
      }
      for (int v = 0; v < kVectors; v++) carry[v] = M::combine(carry[v], inside[v]);
    }
  }

  // At least a vector of contiguous columns; the last one is moved back to end at the last column.
  template <int kVectors>
  void strip(const T* in, T* out, int columns) const {
    using V = typename Simd<T>::V;
    auto at = [=](int v) { return v == kVectors - 1 ? columns - kWidth : v * kWidth; };
    down<V, kVectors>(
        columns, [=](int64_t i, int v) { return load<V>(in + i * in_step + at(v)); },
        [=](int64_t i, int v, V result) {
          T* p = out + i * out_step + at(v);
          stream ? stream_store(p, result) : store(p, result);
        });
  }

  // Fewer than a vector V. Of adjacent rows whole vectors are written: the rows that follow overwrite what is too much.
  template <class V>
  void narrow(const T* in, T* out, int columns) const {
    constexpr int kWide = sizeof(V) / sizeof(T);
    const int64_t whole = out_step == columns ? n - ceil_div(kWide, columns) : -1;
    down<V, 1>(
        columns,
        [=](int64_t i, int) {
          const T* p = in + i * in_step;
          return end - p >= kWide ? load<V>(p) : load_first<V>(p, columns);
        },
        [=](int64_t i, int, V result) {
          T* p = out + i * out_step;
          i <= whole ? store(p, result) : store_first(p, result, columns);
        });
  }

  // At most a vector of columns that lie apart, in the operand or in the result.
  void apart(const T* in, T* out, int columns) const {
    using V = typename Simd<T>::V;
    down<V, 1>(
        columns,
        [=](int64_t i, int) {
          T part[kWidth] = {};
          gather_row(in + i * in_step, in_stride, columns, part);
          return load<V>(part);
        },
        [=](int64_t i, int, V result) {
          for (int c = 0; c < columns; c++) out[i * out_step + c * out_stride] = result[c];
        });
  }

  // At most kStrip vectors of columns, or one of columns that lie apart.
  void few(const T* in, T* out, int columns) const {
    if (in_stride != 1 || out_stride != 1) return apart(in, out, columns);
    if (columns * sizeof(T) <= sizeof(Short)) return narrow<Short>(in, out, columns);
    if (columns < kWidth) return narrow<typename Simd<T>::V>(in, out, columns);
    switch (ceil_div(columns, kWidth)) {
      case 1: return strip<1>(in, out, columns);
      case 2: return strip<2>(in, out, columns);
      case 3: return strip<3>(in, out, columns);
      default: return strip<4>(in, out, columns);
    }
  }

  void tile(const T* in, T* out, int columns) const {
    const int most = in_stride != 1 || out_stride != 1 ? kWidth : kStrip * kWidth;
    for (int c = 0; c < columns; c += most) {
      few(in + c * in_stride, out + c * out_stride, int(min_of(most, columns - c)));
    }
    if (stream) stream_fence();
  }
};

template <class M>
void scan_columns(const View& x, const View& y, const Walk<2>& kept, int d, int axis) {
  using Columns = ScanColumns<M>;
  using T = typename M::Element;
  const int64_t columns = kept.shape[d];
  Columns scan{x.shape[axis], x.strides[axis], kept.stride[0][d], y.strides[axis], kept.stride[1][d], end_of<T>(x),
               false};
  scan.stream =
      scan.out_stride == 1 && columns % Columns::kWidth == 0 && streams<T>(y, columns, kept.total / columns * scan.n);
  for_line_tiles<T>(kept, d, scan.n, 1, [&](const int64_t (&at)[2], int64_t first, int width) {
    scan.tile((const T*)x.data + at[0] + first * scan.in_stride, (T*)y.data + at[1] + first * scan.out_stride, width);
  });
}

template <class M>
int scan(const Call& call) {
  const View &x = call.in[0], &y = call.out[0];
  int axis = int(call.attr[0]);
  Walk<2> kept = walk_without({&x, &y}, axis);
  if (kept.total * x.shape[axis] == 0) return kOk;
  auto fits = [&](int d) {
    const bool adjacent = kept.stride[0][d] == 1 && kept.stride[1][d] == 1;
    return kept.shape[d] >= Simd<typename M::Element>::kWidth || (M::kCheap && adjacent);
  };
  int d = column_axis(kept, x.strides[axis], fits);
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
int logcumsumexp(const Call& call) {
  return call.in[0].dtype == DType::f64 ? scan<LogCumSumExp<double>>(call) : scan<LogCumSumExp<float>>(call);
}

}  // namespace nl::NL_ISA
