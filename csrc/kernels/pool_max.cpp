// pool_max.cpp: max_pool2d and adaptive_max_pool2d, which give the largest element of each window, or that and its
// index.
//
// The first of equal elements in row-major order wins, a NaN beats every number. Padding is -inf and beats nothing, so
// a window's index starts at its first element inside the plane. A window without any gives -inf and kNowhere.
#include "pool_planes.hpp"
#include "row_group.hpp"

namespace nl::NL_ISA {
namespace {

// The largest of the vectors taken, lane by lane; any NaN gives NaN.
template <class T, class V>
struct Largest {
  V best = splat<V>(-T(__builtin_inf()));
  decltype(V{} != V{}) nans = {};

  void take(V next) {
    best = next > best ? next : best;
    nans |= next != next;
  }
  V value() const { return nans ? splat<V>(T(__builtin_nan(""))) : best; }
};

// The first tap of output o that lies inside the plane.
int64_t first_tap(const Axis& a, int64_t o) { return (a.taps(o).begin - a.origin(o)) / a.dilation; }

// ---- vectors along rows ----

// `Offset` holds the distance of any element of a window from its origin, in the plane.
template <class T, class Offset>
struct MaxPool {
  Planes<T> values;
  Planes<int64_t> indices;
  Axis rows, columns;
  int64_t width;                // of the input plane
  const Offset* first_columns;  // of each output's window, as an offset

  struct Plane {
    T* value;
    int64_t* index;
  };
  Plane plane(int64_t p) const { return {values.plane(p), indices.plane(p)}; }

  template <int kStride, class V>
  void vector(const Plane& p, const T* corner, int64_t row_stride, int64_t oh, int64_t ow, int64_t count) const {
    constexpr int kWidth = sizeof(V) / sizeof(T);
    using OffsetV = typename VecOf<Offset, kWidth*(int)sizeof(Offset)>::V;
    V best = splat<V>(-T(__builtin_inf()));
    OffsetV at;
    __builtin_memcpy(&at, first_columns + ow, sizeof at);
    at += Offset(first_tap(rows, oh) * rows.dilation * width);
    bool any_nan = windows<kStride, false>(corner, row_stride, best, at);
    if (any_nan) windows<kStride, true>(corner, row_stride, best, at);
    int64_t w = values.column_stride;
    strided_store(p.value + oh * values.row_stride + ow * w, w, count, best);
    int64_t* index = p.index + oh * indices.row_stride + ow * indices.column_stride;
    store_indices<kWidth>(index, count, rows.origin(oh) * width + columns.origin(ow), at);
  }

  // Takes the taps of a vector of windows. NaNs are looked for only when told so; whether there are any is returned.
  // A second look, on top of the first one's result, gives what a first look for them would have given.
  template <int kStride, bool kNans, class V, class OffsetV>
  bool windows(const T* corner, int64_t row_stride, V& best, OffsetV& at) const {
    auto nans = best != best;
    for (int64_t i = 0; i < rows.kernel; i++) {
      const T* row = corner + i * rows.dilation * row_stride;
      Offset here = Offset(i * rows.dilation * width);
      for (int64_t j = 0; j < columns.kernel; j++, here += Offset(columns.dilation)) {
        V next = strided_load<V, kStride>(row + j * columns.dilation, columns.stride);
        auto wins = kNans ? (next != next) & (best == best) : next > best;
        best = wins ? next : best;
        at = __builtin_convertvector(wins, OffsetV) ? here - OffsetV{} : at;
        nans |= next != next;
      }
    }
    return any_lane(nans);
  }

  // index[l] = origin + l * stride + at[l], in 64 bits.
  template <int kWidth, class OffsetV>
  void store_indices(int64_t* index, int64_t count, int64_t origin, const OffsetV& at) const {
    constexpr int kStep = int(min_of(kWidth, Simd<int64_t>::kWidth));
    using Part = typename VecOf<Offset, kStep*(int)sizeof(Offset)>::V;
    using Wide = typename VecOf<int64_t, kStep * 8>::V;
    Offset offset[kWidth];
    __builtin_memcpy(offset, &at, sizeof at);
    Wide steps = {};
    for (int l = 0; l < kStep; l++) steps[l] = l * columns.stride;
    for (int l = 0; l < kWidth && l < count; l += kStep) {
      Wide wide = __builtin_convertvector(load<Part>(offset + l), Wide) + steps + (origin + l * columns.stride);
      strided_store(index + l * indices.column_stride, indices.column_stride, count - l, wide);
    }
  }
};

template <class T>
struct MaxValues {
  Planes<T> values;
  Axis rows, columns;

  using Plane = T*;
  Plane plane(int64_t p) const { return values.plane(p); }

  template <int kStride, class V>
  void vector(T* plane, const T* corner, int64_t row_stride, int64_t oh, int64_t ow, int64_t count) const {
    Largest<T, V> largest;
    for (int64_t i = 0; i < rows.kernel; i++) {
      const T* row = corner + i * rows.dilation * row_stride;
      for (int64_t j = 0; j < columns.kernel; j++) {
        largest.take(strided_load<V, kStride>(row + j * columns.dilation, columns.stride));
      }
    }
    const int64_t w = values.column_stride;
    strided_store(plane + oh * values.row_stride + ow * w, w, count, largest.value());
  }
};

template <class T, class Offset>
void with_indices(const Call& call, const Axis& rows, const Axis& columns) {
  int64_t outputs = max_of(columns.outputs, kLeastWidth<T>);
  Offset* first_columns = (Offset*)nl_scratch(0, outputs * sizeof(Offset));
  for (int64_t ow = 0; ow < outputs; ow++) first_columns[ow] = Offset(first_tap(columns, ow) * columns.dilation);
  MaxPool<T, Offset> outs{Planes<T>(call.out[0]), Planes<int64_t>(call.out[1]), rows, columns, columns.size,
                          first_columns};
  pool<T>(call.in[0], rows, columns, -T(__builtin_inf()), outs);
}

// ---- vectors across planes ----

// The largest of each row's windows first, then of these: where windows overlap, less is compared. Of equal elements
// that keeps the first, as row-major order does.
template <class T>
struct ValuesAcross {
  using V = typename Simd<T>::V;
  static constexpr int W = Simd<T>::kWidth, kResults = 1;
  static constexpr bool kPrepares = false;
  Planes<T> values;

  template <class Source>
  void tile(const Source& x, const Tile& t, int64_t first, T* results) const {
    const int64_t width = t.right - t.left, height = max_of(0, t.end_row - t.first_row);
    T* of_rows = (T*)nl_scratch(3, height * width * W * sizeof(T));
    Polls polls;
    for (int64_t i = t.first_row; i < t.end_row; i++) {
      for (int64_t ow = t.left; ow < t.right; ow++) {
        store(of_rows + ((i - t.first_row) * width + ow - t.left) * W,
              largest({i, i + 1, 1}, t.columns(ow), [&](int64_t i, int64_t j) { return x.at(i, j); }));
      }
      polls.after(t.end_column - t.first_column);
    }
    const Vectors<T> rows{of_rows - (t.first_row * width + t.left) * W, width * W, W};
    T* to = results;
    for (int64_t oh = t.top; oh < t.bottom; oh++) {
      for (int64_t ow = t.left; ow < t.right; ow++, to += W) {
        store(to, largest(t.rows(oh), {ow, ow + 1, 1}, [&](int64_t i, int64_t j) { return rows.at(i, j); }));
      }
    }
    finish(values, first, t, results);
  }

  template <class At>
  static V largest(Taps rows, Taps columns, const At& at) {
    Largest<T, V> largest;
    for_taps(rows, columns, [&](int64_t i, int64_t j) { largest.take(at(i, j)); });
    return largest.value();
  }
};

template <class T>
struct IndicesAcross {
  using V = typename Simd<T>::V;
  using Offset = Mask<T>;
  using OffsetV = typename Simd<Offset>::V;
  static constexpr int kResults = 2;
  static constexpr bool kPrepares = false;
  Planes<T> values;
  Planes<int64_t> indices;
  int64_t width;  // of the input plane, whose offsets fit

  template <class Source>
  void tile(const Source& x, const Tile& t, int64_t first, T* results) const {
    const int64_t outputs = (t.bottom - t.top) * (t.right - t.left);
    T* to = results;
    Offset* places = (Offset*)(results + outputs * Simd<T>::kWidth);
    for (int64_t oh = t.top; oh < t.bottom; oh++) {
      for (int64_t ow = t.left; ow < t.right; ow++, to += Simd<T>::kWidth, places += Simd<T>::kWidth) {
        t.is_long() ? window<true>(x, t.rows(oh), t.columns(ow), to, places)
                    : window<false>(x, t.rows(oh), t.columns(ow), to, places);
      }
    }
    finish(values, first, t, results);
    finish(indices, first, t, (const Offset*)(results + outputs * Simd<T>::kWidth));
  }

  // As MaxPool::windows, of one window in every plane.
  template <bool kLong, class Source>
  void window(const Source& x, Taps rows, Taps columns, T* value, Offset* place) const {
    V best = splat<V>(-T(__builtin_inf()));
    OffsetV at = splat<OffsetV>(Offset(rows.begin * width + columns.begin));
    auto nans = best != best;
    for_taps<kLong>(rows, columns, [&](int64_t i, int64_t j) {
      const V next = x.at(i, j);
      auto wins = next > best;
      best = wins ? next : best;
      at = wins ? splat<OffsetV>(Offset(i * width + j)) : at;
      nans |= next != next;
    });
    if (any_lane(nans)) {
      for_taps<kLong>(rows, columns, [&](int64_t i, int64_t j) {
        const V next = x.at(i, j);
        auto wins = (next != next) & (best == best);
        best = wins ? next : best;
        at = wins ? splat<OffsetV>(Offset(i * width + j)) : at;
      });
    }
    store(value, best);
    store(place, at);
  }
};

// The largest elements alone, or with their indices where there is a second result.
template <class T, class A>
void across(const Call& call, const A& rows, const A& columns) {
  const Planes<const T> x(call.in[0]);
  const Planes<T> values(call.out[0]);
  if (call.n_out == 1) return pool_planes<T>(x, rows, columns, ValuesAcross<T>{values});
  pool_planes<T>(x, rows, columns, IndicesAcross<T>{values, Planes<int64_t>(call.out[1]), x.width});
}

// ---- vectors along one window's rows: whole planes, and windows wider than a vector ----
//
// The largest element is a maximum in any order. Its place is looked for afterwards: the first that equals it, or the
// first NaN. Of zeros the first is the result, whatever its sign.

template <class T>
bool beats(T a, T b) {
  return (a > b || a != a) && b == b;
}

// The place of the largest of n elements side by side; n if somebody who shares the memory has written it since.
template <class T>
int64_t place_of(const T* p, int64_t n, T largest) {
  using V = typename Simd<T>::V;
  const V wanted = splat<V>(largest);
  const bool nan = largest != largest;
  int64_t i = 0;
  for (; i + Simd<T>::kWidth <= n; i += Simd<T>::kWidth) {
    const V v = load<V>(p + i);
    if (any_lane(nan ? v != v : v == wanted)) break;
  }
  while (i < n && !(nan ? p[i] != p[i] : p[i] == largest)) i++;
  return i;
}

// Where results go.
template <class T>
struct Results {
  Planes<T> values;
  const View* indices;  // null: none

  explicit Results(const Call& call) : values(call.out[0]), indices(call.n_out > 1 ? &call.out[1] : nullptr) {}
  bool needs_place(T largest) const { return indices || largest == 0; }
  // The values of planes of one element, from p on.
  template <class V>
  void put_several(int64_t p, V v) const {
    if (values.dense()) return store(values.plane(p), v);
    for (int r = 0; r < Simd<T>::kWidth; r++) *values.plane(p + r) = v[r];
  }
  void put(int64_t p, int64_t oh, int64_t ow, T value, int64_t index) const {
    values.plane(p)[oh * values.row_stride + ow * values.column_stride] = value;
    if (!indices) return;
    const Planes<int64_t> to(*indices);
    to.plane(p)[oh * to.row_stride + ow * to.column_stride] = index;
  }
};

// The largest element of every plane, each contiguous.
template <class T>
struct WholePlanes {
  using V = typename Simd<T>::V;
  using Tree = TreeRow<Max<T>>;
  static constexpr int W = Simd<T>::kWidth;
  const Planes<const T>& x;
  const T* end;
  Results<T> results;

  void run() const {
    const int64_t n = x.size(), threads = nl_num_threads(), parts = min_of(n / kGrain, 4 * threads);
    if (x.count < 2 * threads && parts > 1) return in_parts(parts);
    parallel_for(x.count, grain_of(n), [=](int64_t begin, int64_t stop) {
      int64_t p = begin;
      while (is_short<T>(n) && p + W <= stop && group(p)) p += W;
      const int64_t half = Tree::has_stretches(n) ? (stop - p) / 2 : 0;
      for (int64_t i = 0; i < half; i++, p++) {
        const auto found = Tree::two(x.plane(p), x.plane(p + half), n, end);
        finish(p, 0, n, Max<T>::finish(found.p[0]));
        finish(p + half, 0, n, Max<T>::finish(found.q[0]));
      }
      for (p += half; p < stop; p++) finish(p, 0, n, largest(x.plane(p), n));
    });
  }

  // Short planes from p on, one to a lane; false, and nothing done, where memory ends too early.
  bool group(int64_t p) const {
    const int64_t n = x.size();
    auto plane_at = [=](int r) { return x.plane(p + r); };
    V found = {};
    if (!Tree::plainly(plane_at, n, found)) {
      for (int r = 0; r < W; r++) {
        if (end - plane_at(r) < whole_steps(n)) return false;
      }
      const auto keys = Tree::several(plane_at, n);
      for (int r = 0; r < W; r++) found[r] = Max<T>::finish(keys[r]);
    }
    if (!results.indices && !any_lane(found == T(0))) {
      results.put_several(p, found);
    } else {
      for (int r = 0; r < W; r++) finish(p + r, 0, n, found[r]);
    }
    return true;
  }

  // Of few large planes threads share the parts.
  void in_parts(int64_t parts) const {
    const int64_t n = x.size(), size = ceil_div(n, parts);
    T* found = (T*)nl_scratch(0, x.count * parts * sizeof(T));
    parallel_for(x.count * parts, 1, [=](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; i++) {
        const int64_t first = i % parts * size;
        found[i] = largest(x.plane(i / parts) + first, min_of(size, n - first));
      }
    });
    for (int64_t p = 0; p < x.count; p++, found += parts) {
      int64_t best = 0;
      for (int64_t i = 1; i < parts; i++) best = beats(found[i], found[best]) ? i : best;
      finish(p, best * size, min_of(size, n - best * size), found[best]);
    }
  }

  T largest(const T* p, int64_t n) const { return Max<T>::finish(Tree::tree(Strided<T>{p, 1, end}, 0, n)[0]); }

  // The largest of a plane is in the n elements from `first` on.
  void finish(int64_t p, int64_t first, int64_t n, T value) const {
    int64_t place = first;
    if (results.needs_place(value)) {
      const T* plane = x.plane(p);
      place += min_of(place_of(plane + first, n, value), n - 1);
      if (value == 0) value = plane[place];
    }
    results.put(p, 0, 0, value, place);
  }
};

// Adaptive windows of a vector's width at least; where planes fill the lanes, of three: of one they take twice as long.
template <class T>
struct WideWindows {
  using V = typename Simd<T>::V;
  static constexpr int W = Simd<T>::kWidth;
  const Planes<const T>& x;
  AdaptiveAxis rows, columns;
  Results<T> results;

  bool fit() const {
    const int64_t least = x.count < W / 2 ? W : 3 * W;
    return x.column_stride == 1 && columns.size >= least * columns.outputs;
  }

  void run() const {
    const int64_t outputs = rows.outputs * columns.outputs;
    if (outputs == 0) return;
    parallel_for(x.count * outputs, grain_of(x.size() / outputs), [=](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; i++) {
        const int64_t oh = i % outputs / columns.outputs, ow = i % columns.outputs;
        window(i / outputs, oh, ow, rows.taps(oh), columns.taps(ow));
      }
    });
  }

  void window(int64_t p, int64_t oh, int64_t ow, Taps of_rows, Taps of_columns) const {
    const T* corner = x.plane(p) + of_rows.begin * x.row_stride + of_columns.begin;
    const int64_t height = of_rows.count(), width = of_columns.count();
    T value = largest(corner, height, width);
    int64_t place = 0, i = 0;
    if (results.needs_place(value)) {
      while ((place = place_of(corner + i * x.row_stride, width, value)) == width && i + 1 < height) i++;
      place = min_of(place, width - 1);
      if (value == 0) value = corner[i * x.row_stride + place];
    }
    results.put(p, oh, ow, value, (of_rows.begin + i) * x.width + of_columns.begin + place);
  }

  T largest(const T* row, int64_t height, int64_t width) const {
    constexpr int kSide = 4;  // vectors side by side: a comparison waits for the one before
    Largest<T, V> found[kSide];
    Polls polls;
    for (int64_t i = 0; i < height; i++, row += x.row_stride) {
      int64_t j = 0;
      for (; j + kSide * W <= width; j += kSide * W) {
#pragma GCC unroll 4
        for (int k = 0; k < kSide; k++) found[k].take(load<V>(row + j + k * W));
      }
      for (; j < width; j += W) found[0].take(load<V>(row + min_of(j, width - W)));
      polls.after(width);
    }
    for (int k = 1; k < kSide; k++) found[0].take(found[k].value());
    const V lanes = found[0].value();
    T best = lanes[0];
    for (int l = 1; l < W; l++) best = beats(T(lanes[l]), best) ? T(lanes[l]) : best;
    return best;
  }
};

template <class T>
void largest_of_windows(const Call& call, const Axis& rows, const Axis& columns) {
  const View &x = call.in[0], &out = call.out[0];
  const bool wide = x.shape[2] * x.shape[3] >> (8 * sizeof(T) - 1) != 0;
  // Across planes the values alone take 10 comparisons of a 5 x 5 window instead of 25: worth more than short rows.
  const bool separates = call.n_out == 1 && rows.kernel > rows.stride && columns.kernel > 3;
  const int64_t row = separates ? columns.outputs * 9 / (rows.kernel * columns.kernel) : columns.outputs;
  const Planes<const T> planes(x);
  const Planes<T> values(out);
  const bool whole = rows.kernel == rows.size && columns.kernel == columns.size && rows.pad == 0 && columns.pad == 0;
  if (whole && planes.contiguous()) return WholePlanes<T>{planes, end_of<T>(x), Results<T>(call)}.run();
  if (call.n_out == 1 && is_quads(planes, values, rows, columns)) {
    return pool_quads<T>(x, values, [](auto a, auto b, auto c, auto d) {
      Largest<T, decltype(a)> largest;
      largest.take(a), largest.take(b), largest.take(c), largest.take(d);
      return largest.value();
    });
  }
  if (!wide && (whole || goes_across(planes, row))) return across<T>(call, rows, columns);
  if (call.n_out == 1) {
    return pool<T>(x, rows, columns, -T(__builtin_inf()), MaxValues<T>{values, rows, columns});
  }
  wide ? with_indices<T, int64_t>(call, rows, columns) : with_indices<T, Mask<T>>(call, rows, columns);
}

bool sees_nothing(const Axis& a, int64_t o) { return a.taps(o).count() == 0; }

// Whether some windows do.
bool has_blind(const Axis& a) {
  for (int64_t o = 0; o < a.outputs; o++) {
    if (sees_nothing(a, o)) return true;
  }
  return false;
}

// kNowhere at the indices of windows that see nothing.
void mark_blind(const View& v, const Axis& rows, const Axis& columns) {
  if (!has_blind(rows) && !has_blind(columns)) return;
  const Planes<int64_t> indices(v);
  parallel_for(indices.count, grain_of(indices.size()), [&](int64_t begin, int64_t stop) {
    Polls polls;
    for (int64_t p = begin; p < stop; p++) {
      for (int64_t oh = 0; oh < rows.outputs; oh++) {
        int64_t* row = indices.plane(p) + oh * indices.row_stride;
        const bool blind = sees_nothing(rows, oh);
        for (int64_t ow = 0; ow < columns.outputs; ow++) {
          if (blind || sees_nothing(columns, ow)) row[ow * indices.column_stride] = kNowhere;
        }
        polls.after(columns.outputs);
      }
    }
  });
}

template <class T>
void forward(const Call& call) {
  const int64_t* a = call.attr;  // kernel, stride, pad, dilation, each of rows and columns
  const View &x = call.in[0], &out = call.out[0];
  const Axis rows = windows_along(0, x, out, a, a[6]), columns = windows_along(1, x, out, a, a[7]);
  largest_of_windows<T>(call, rows, columns);
  if (call.n_out > 1) mark_blind(call.out[1], rows, columns);
}

template <class T>
void forward_adaptive(const Call& call) {
  const View &x = call.in[0], &out = call.out[0];
  const AdaptiveAxis rows{x.shape[2], out.shape[2]}, columns{x.shape[3], out.shape[3]};
  const Planes<const T> planes(x);
  const Results<T> results(call);
  const WideWindows<T> wide{planes, rows, columns, results};
  if (rows.outputs == 1 && columns.outputs == 1 && planes.contiguous()) {
    return WholePlanes<T>{planes, end_of<T>(x), results}.run();
  }
  wide.fit() ? wide.run() : across<T>(call, rows, columns);
}

}  // namespace

int max_pool2d(const Call& call) {
  call.in[0].dtype == DType::f64 ? forward<double>(call) : forward<float>(call);
  return kOk;
}

int max_pool2d_values(const Call& call) { return max_pool2d(call); }

int adaptive_max_pool2d(const Call& call) {
  call.in[0].dtype == DType::f64 ? forward_adaptive<double>(call) : forward_adaptive<float>(call);
  return kOk;
}

}  // namespace nl::NL_ISA
