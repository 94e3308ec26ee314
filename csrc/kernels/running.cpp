// running.cpp: cummax, cummin: the largest or smallest element up to each one along an axis, and its place.
//
// Of equals the last one is taken; a NaN beats all numbers. Which lane or thread takes which elements never shows.
// Down columns, vectors lie across a kept axis. Along rows, which a transpose brings there and back, a vector's lanes
// are rows, or the parts of few rows: then what lies before each part is found first.
#include "rows.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

// What a lane holds of an element: bytes are too small for a place beside them.
template <class T>
struct InLane {
  using Type = T;
};
template <>
struct InLane<uint8_t> {
  using Type = int32_t;
};

template <int kBytes>
struct PlaceOf {
  using Type = uint32_t;
};
template <>
struct PlaceOf<8> {
  using Type = uint64_t;
};

// The extremum so far in each lane of a vector of kBytes, and its place.
template <class T, bool kLargest, int kBytes = sizeof(typename Simd<typename InLane<T>::Type>::V)>
struct Running {
  using Short =
      Running<T, kLargest, int(min_of(kBytes, 4 * sizeof(typename InLane<T>::Type)))>;  // of four lanes at most
  using Element = T;
  using Lane = typename InLane<T>::Type;
  using Place = typename PlaceOf<sizeof(Lane)>::Type;
  static constexpr int kWidth = kBytes / sizeof(Lane);
  using V = typename VecOf<Lane, kBytes>::V;
  using P = typename VecOf<Place, kBytes>::V;
  using Memory = typename VecOf<T, kWidth * sizeof(T)>::V;
  static constexpr Lane kMost = kIsFloat<Lane> ? Lane(__builtin_inf()) : highest<Lane>();
  static constexpr Lane kLeast = kIsFloat<Lane> ? Lane(-__builtin_inf()) : lowest<Lane>();

  V value = splat<V>(kLargest ? kLeast : kMost);
  P place = {};

  __attribute__((always_inline)) void take(V x, P where) {
    auto wins = kLargest ? x >= value : x <= value;
    if constexpr (kIsFloat<Lane>) wins |= x != x;
    value = wins ? x : value;
    place = wins ? where : place;
  }

  static V widened(Memory v) { return __builtin_convertvector(v, V); }

  // Up to `left` elements that lie `step` apart, in memory that ends at `end`; lanes without one hold anything.
  static V read(const T* p, int64_t step, int64_t left, const T* end) {
    if (step == 1 && end - p >= kWidth) return widened(load<Memory>(p));
    T part[kWidth] = {};
    gather_row(p, step, max_of(0, min_of(left, kWidth)), part);
    return widened(load<Memory>(part));
  }

  static void write_values(V v, T* p, int64_t step, int64_t left) {
    const Memory narrow = __builtin_convertvector(v, Memory);
    if (step == 1) return left >= kWidth ? store(p, narrow) : store_first(p, narrow, int(max_of(left, 0)));
    for (int l = 0; l < min_of(left, kWidth); l++) p[l * step] = narrow[l];
  }

  static void write_places(P v, int64_t* p, int64_t step, int64_t left) {
    constexpr int kPart = int(min_of(kWidth, Simd<int64_t>::kWidth));
    using Wide = typename VecOf<int64_t, kPart * sizeof(int64_t)>::V;
    typename VecOf<Place, kPart * sizeof(Place)>::V parts[kWidth / kPart];
    __builtin_memcpy(parts, &v, sizeof v);
    for (const auto& part : parts) {
      const auto wide = __builtin_convertvector(part, Wide);
      if (step != 1) {
        for (int l = 0; l < min_of(left, kPart); l++) p[l * step] = wide[l];
      } else if (left >= kPart) {
        store(p, wide);
      } else {
        store_first(p, wide, int(max_of(left, 0)));
      }
      p += kPart * step, left -= kPart;
    }
  }
};

// ---- along rows ----

template <class R>
struct RunningRows {
  using T = typename R::Element;
  using V = typename R::V;
  using P = typename R::P;
  static constexpr int kWidth = R::kWidth;
  static constexpr int64_t kPart = 256;  // elements of a part of a row, at least

  const View &x, &values, &places;
  const Walk<3>& kept;
  int axis;
  int64_t n = x.shape[axis], parts = 1, size = n;  // of a part; the last one may be shorter
  const T* end = end_of<T>(x);

  RunningRows(const View& x, const View& values, const View& places, const Walk<3>& kept, int axis)
      : x(x), values(values), places(places), kept(kept), axis(axis) {
    const int64_t wanted = 4 * kWidth * nl_num_threads();
    if (kept.total >= wanted || n * kept.total < kGrain) return;
    size = whole_vectors<T>(max_of(kPart, ceil_div(n, ceil_div(wanted, kept.total))));
    parts = ceil_div(n, size);
  }

  // A part of a row in each lane, from number `first` of all on.
  struct Group {
    const T* in[kWidth];
    T* values[kWidth];
    int64_t* places[kWidth];
    int64_t left[kWidth];  // elements
    alignas(64) typename R::Place begin[kWidth];
    int size;
  };

  Group group(int64_t first) const {
    Group g;
    g.size = int(min_of(kWidth, kept.total * parts - first));
    auto c = kept.seek(first / parts);
    int64_t part = first % parts;
    for (int l = 0; l < kWidth; l++) {
      const int64_t at = part * size;
      g.in[l] = (const T*)x.data + c.at[0] + at * x.strides[axis];
      g.values[l] = (T*)values.data + c.at[1] + at * values.strides[axis];
      g.places[l] = (int64_t*)places.data + c.at[2] + at * places.strides[axis];
      g.left[l] = l < g.size ? min_of(size, n - at) : 0;
      g.begin[l] = typename R::Place(at);
      if (l + 1 < g.size && ++part == parts) part = 0, kept.next(c);
    }
    return g;
  }

  // Goes through the parts of a group, and writes what is found unless only what is left at their ends is asked for.
  template <bool kWrites>
  void run(const Group& g, R& found) const {
    Polls polls;
    for (int64_t i = 0; i < size; i += kWidth) {
      polls.after(kWidth * kWidth);
      V v[kWidth];
      P p[kWidth];
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) {
        v[l] = R::read(g.in[l] + i * x.strides[axis], x.strides[axis], g.left[l] - i, end);
      }
      transpose(v);
      const P begin = load<P>(g.begin) + typename R::Place(i);
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; k++) {
        found.take(v[k], begin + typename R::Place(k));
        v[k] = found.value, p[k] = found.place;
      }
      if (!kWrites) continue;
      transpose(v);
      transpose(p);
#pragma GCC unroll 16
      for (int l = 0; l < kWidth; l++) {
        R::write_values(v[l], g.values[l] + i * values.strides[axis], values.strides[axis], g.left[l] - i);
        R::write_places(p[l], g.places[l] + i * places.strides[axis], places.strides[axis], g.left[l] - i);
      }
    }
  }

  // body(g, found, first) for all groups, where `found` is what was found before them, if `before` is not null.
  template <class F>
  void each_group(const V* before, const P* at, const F& body) const {
    const int64_t groups = ceil_div(kept.total * parts, kWidth);
    parallel_for(groups, grain_of(4 * kWidth * size), [&](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; i++) {
        R found;
        if (before) found.value = before[i], found.place = at[i];
        body(group(i * kWidth), found, i);
      }
    });
  }

  // Rows that lie as one, as many as a vector holds at a time: what is combined with the lane before it once for every
  // element of a row is what comes of combining them in turn. The rows that follow overwrite what is too much.
  void in_lanes(int64_t begin, int64_t stop) const {
    const int whole = int(kWidth / n * n);
    __typeof__(V{} == V{}) starts;
    P own;
    for (int l = 0; l < kWidth; l++) starts[l] = -(l % n == 0), own[l] = typename R::Place(l % n);
    Polls polls;
    for (int64_t i = begin * n; i < stop * n; i += whole) {
      polls.after(whole);
      const int64_t left = stop * n - i;
      const V v = R::read((const T*)x.data + i, 1, left, end);
      R found;
      found.take(v, own);
      for (int k = 1; k < n; k++) {
        const R before;
        found.value = starts ? before.value : previous_lanes(found.value);
        found.place = starts ? before.place : previous_lanes(found.place);
        found.take(v, own);
      }
      R::write_values(found.value, (T*)values.data + i, 1, left);
      R::write_places(found.place, (int64_t*)places.data + i, 1, left);
    }
  }

  bool as_one() const {
    bool dense = kept.rank == 1 && x.strides[axis] == 1 && values.strides[axis] == 1 && places.strides[axis] == 1;
    for (int k = 0; k < 3; k++) dense = dense && kept.stride[k][0] == n;
    return dense;
  }

  void run() const {
    if (n <= kWidth / 2 && as_one()) {
      return parallel_for(kept.total, grain_of(4 * n), [&](int64_t begin, int64_t stop) { in_lanes(begin, stop); });
    }
    auto write = [&](const Group& g, R& found, int64_t) { run<true>(g, found); };
    if (parts == 1) return each_group(nullptr, nullptr, write);
    const int64_t all = kept.total * parts, groups = ceil_div(all, kWidth);
    V* before = (V*)nl_scratch(0, groups * 2 * sizeof(V));
    P* at = (P*)(before + groups);
    each_group(nullptr, nullptr, [&](const Group& g, R& found, int64_t i) {
      run<false>(g, found);
      before[i] = found.value, at[i] = found.place;
    });
    R carry;
    for (int64_t i = 0; i < all; i++) {
      const R own{splat<V>(before[i / kWidth][i % kWidth]), splat<P>(at[i / kWidth][i % kWidth])};
      if (i % parts == 0) carry = R();
      before[i / kWidth][i % kWidth] = carry.value[0], at[i / kWidth][i % kWidth] = carry.place[0];
      carry.take(own.value, own.place);
    }
    each_group(before, at, write);
  }
};

// ---- down columns ----

template <class R>
struct RunningColumns {
  using T = typename R::Element;
  static constexpr int kWidth = R::kWidth;
  static constexpr int kStrip = 4;  // vectors whose results so far stay in registers

  int64_t n, step[3];
  const T* end;

  // Vectors of columns, the last one moved back to end at the last column.
  template <int kVectors>
  void strip(const T* in, T* values, int64_t* places, int64_t columns) const {
    R found[kVectors];
    Polls polls;
    for (int64_t i = 0; i < n; i++) {
      polls.after(columns);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        const int64_t at = v == kVectors - 1 ? columns - kWidth : v * kWidth;
        found[v].take(R::read(in + i * step[0] + at, 1, kWidth, end), splat<typename R::P>(typename R::Place(i)));
        R::write_values(found[v].value, values + i * step[1] + at, 1, kWidth);
        R::write_places(found[v].place, places + i * step[2] + at, 1, kWidth);
      }
    }
  }

  // Fewer than one of N's vectors. Of adjacent rows whole vectors are written: the rows that follow overwrite what is
  // too much.
  template <class N>
  void narrow(const T* in, T* values, int64_t* places, int64_t columns) const {
    const bool adjacent = step[1] == columns && step[2] == columns;
    const int64_t whole = adjacent ? n - ceil_div(N::kWidth, columns) : -1;
    N found;
    Polls polls;
    for (int64_t i = 0; i < n; i++) {
      polls.after(columns);
      found.take(N::read(in + i * step[0], 1, columns, end), splat<typename N::P>(typename N::Place(i)));
      const int64_t count = i <= whole ? N::kWidth : columns;
      N::write_values(found.value, values + i * step[1], 1, count);
      N::write_places(found.place, places + i * step[2], 1, count);
    }
  }

  // At most kStrip vectors of columns.
  void few(const T* in, T* values, int64_t* places, int64_t columns) const {
    if (columns <= R::Short::kWidth) return narrow<typename R::Short>(in, values, places, columns);
    if (columns < kWidth) return narrow<R>(in, values, places, columns);
    switch (ceil_div(columns, kWidth)) {
      case 1: return strip<1>(in, values, places, columns);
      case 2: return strip<2>(in, values, places, columns);
      case 3: return strip<3>(in, values, places, columns);
      default: return strip<4>(in, values, places, columns);
    }
  }

  void tile(const T* in, T* values, int64_t* places, int64_t columns) const {
    for (int64_t c = 0; c < columns; c += kStrip * kWidth) {
      few(in + c, values + c, places + c, min_of(kStrip * kWidth, columns - c));
    }
  }
};

template <class R>
void running_columns(const View& x, const View& values, const View& places, const Walk<3>& kept, int d, int axis) {
  using T = typename R::Element;
  const RunningColumns<R> down{
      x.shape[axis], {x.strides[axis], values.strides[axis], places.strides[axis]}, end_of<T>(x)};
  for_line_tiles<T>(kept, d, down.n, 4, [&](const int64_t (&at)[3], int64_t first, int width) {
    down.tile((const T*)x.data + at[0] + first, (T*)values.data + at[1] + first, (int64_t*)places.data + at[2] + first,
              width);
  });
}

template <class R>
void running(const Call& call) {
  const View &x = call.in[0], &values = call.out[0], &places = call.out[1];
  const int axis = int(call.attr[0]);
  const Walk<3> kept = walk_without({&x, &values, &places}, axis);
  if (kept.total * x.shape[axis] == 0) return;
  const int d = column_axis(kept, x.strides[axis], [&](int d) { return is_contiguous(kept, d, 3); });
  if (d >= 0) return running_columns<R>(x, values, places, kept, d, axis);
  RunningRows<R>(x, values, places, kept, axis).run();
}

template <bool kLargest>
int running_by_dtype(const Call& call) {
  switch (call.in[0].dtype) {
    case DType::i32: running<Running<int32_t, kLargest>>(call); break;
    case DType::i64: running<Running<int64_t, kLargest>>(call); break;
    case DType::f32: running<Running<float, kLargest>>(call); break;
    case DType::f64: running<Running<double, kLargest>>(call); break;
    default: running<Running<uint8_t, kLargest>>(call);
  }
  return kOk;
}

}  // namespace

int cummax(const Call& call) { return running_by_dtype<true>(call); }
int cummin(const Call& call) { return running_by_dtype<false>(call); }

}  // namespace nl::NL_ISA
