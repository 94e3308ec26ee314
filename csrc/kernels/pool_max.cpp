// pool_max.cpp: max_pool2d and adaptive_max_pool2d, which give the largest element of each window, or that and its
// index, and their gradient.
//
// The first of equal elements in row-major order wins, a NaN beats every number. Padding is -inf and beats nothing, so
// a window's index starts at its first element inside the plane.
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
    for (int64_t i = t.first_row; i < t.end_row; i++) {
      for (int64_t ow = t.left; ow < t.right; ow++) {
        store(of_rows + ((i - t.first_row) * width + ow - t.left) * W,
              largest({i, i + 1, 1}, t.columns(ow), [&](int64_t i, int64_t j) { return x.at(i, j); }));
      }
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
        window(x, t.rows(oh), t.columns(ow), to, places);
      }
    }
    finish(values, first, t, results);
    finish(indices, first, t, (const Offset*)(results + outputs * Simd<T>::kWidth));
  }

  // As MaxPool::windows, of one window in every plane.
  template <class Source>
  void window(const Source& x, Taps rows, Taps columns, T* value, Offset* place) const {
    V best = splat<V>(-T(__builtin_inf()));
    OffsetV at = splat<OffsetV>(Offset(rows.begin * width + columns.begin));
    auto nans = best != best;
    for_taps(rows, columns, [&](int64_t i, int64_t j) {
      const V next = x.at(i, j);
      auto wins = next > best;
      best = wins ? next : best;
      at = wins ? splat<OffsetV>(Offset(i * width + j)) : at;
      nans |= next != next;
    });
    if (any_lane(nans)) {
      for_taps(rows, columns, [&](int64_t i, int64_t j) {
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

// The largest element of every plane, as a maximum in any order; but of zeros it is the first that wins.
template <class T>
void of_planes(const Planes<const T>& x, const T* end, const Planes<T>& y) {
  using Tree = TreeRow<Max<T>>;
  constexpr int W = Simd<T>::kWidth;
  const int64_t n = x.size();
  auto finish = [&](int64_t p, typename Max<T>::Lane found) {
    T largest = Max<T>::finish(found);
    if (largest == 0) {
      const T* zero = x.plane(p);
      while (*zero != 0) zero++;
      largest = *zero;
    }
    *y.plane(p) = largest;
  };
  parallel_for(x.count, grain_of(n), [&](int64_t begin, int64_t stop) {
    int64_t p = begin;
    auto plane_at = [&](int r) { return x.plane(p + r); };
    auto readable = [&] {
      bool inside = is_short<T>(n);
      for (int r = 0; r < W; r++) inside = inside && end - plane_at(r) >= whole_steps(n);
      return inside;
    };
    for (; p + W <= stop && readable(); p += W) {
      typename Max<T>::Lane found[W];
      store(found, Tree::several(Tree::asking_ahead(plane_at, n), n));
      for (int r = 0; r < W; r++) finish(p + r, found[r]);
    }
    for (; p < stop; p++) finish(p, Tree::tree(Strided<T>{x.plane(p), 1, end}, 0, n)[0]);
  });
}

template <class T>
void forward(const Call& call) {
  const int64_t* a = call.attr;  // kernel, stride, pad, dilation, each of rows and columns
  const View &x = call.in[0], &out = call.out[0];
  const Axis rows = windows_along(0, x, out, a, a[6]), columns = windows_along(1, x, out, a, a[7]);
  const bool wide = x.shape[2] * x.shape[3] >> (8 * sizeof(T) - 1) != 0;
  // Across planes the values alone take 10 comparisons of a 5 x 5 window instead of 25: worth more than short rows.
  const bool separates = call.n_out == 1 && rows.kernel > rows.stride && columns.kernel > 3;
  const int64_t row = separates ? columns.outputs * 9 / (rows.kernel * columns.kernel) : columns.outputs;
  const Planes<const T> planes(x);
  const Planes<T> values(out);
  const bool whole = rows.kernel == rows.size && columns.kernel == columns.size && rows.pad == 0 && columns.pad == 0;
  if (call.n_out == 1 && whole && planes.contiguous()) return of_planes(planes, end_of<T>(x), values);
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

template <class T>
void forward_adaptive(const Call& call) {
  const View &x = call.in[0], &out = call.out[0];
  across<T>(call, AdaptiveAxis{x.shape[2], out.shape[2]}, AdaptiveAxis{x.shape[3], out.shape[3]});
}

// ---- the way back ----

// Adds each g at its index, in row-major order of g. False if an index lies outside the plane.
template <class T>
bool scatter_plane(const Planes<const T>& g, const Planes<const int64_t>& index, const Planes<T>& to, int64_t p,
                   int64_t* fault) {
  const bool flat = g.contiguous() && index.contiguous();
  const int64_t height = flat ? 1 : g.height, width = flat ? g.size() : g.width, size = to.size();
  const T* shares = g.plane(p);
  const int64_t* places = index.plane(p);
  T* plane = to.plane(p);
  for (int64_t h = 0; h < height; h++, shares += g.row_stride, places += index.row_stride) {
    for (int64_t w = 0; w < width; w++) {
      const int64_t i = places[w * index.column_stride];
      if ((uint64_t)i >= (uint64_t)size) {
        fault[0] = i, fault[1] = size, fault[2] = 2;
        return false;
      }
      int64_t place = to.contiguous() ? i : i / to.width * to.row_stride + i % to.width * to.column_stride;
      plane[place] += shares[w * g.column_stride];
    }
  }
  return true;
}

// Zeros in the planes from p on, in as many as stay in the L1 cache and lie side by side; returns the next one.
template <class T>
int64_t clear_some(const Planes<T>& to, int64_t p, int64_t end) {
  const bool dense = to.contiguous() && to.channel_stride == to.size() && to.image_stride == to.channels * to.size();
  const int64_t most = dense ? kGroupBytes / (int64_t)sizeof(T) / max_of(1, to.size()) : 1;
  const int64_t stop = min_of(end, p + max_of(1, most));
  if (stop == p + 1) {
    clear(to, to.plane(p));
  } else {
    __builtin_memset(to.plane(p), 0, (stop - p) * to.size() * sizeof(T));
  }
  return stop;
}

template <class T>
int backward(const Call& call) {
  Planes<const T> g(call.in[0]);
  Planes<const int64_t> index(call.in[1]);
  Planes<T> to(call.out[0]);
  int status = kOk;
  parallel_for(to.count, grain_of(to.size()), [&](int64_t begin, int64_t end) {
    int64_t fault[3], cleared = begin;
    for (int64_t p = begin; p < end; p++) {
      if (p == cleared) cleared = clear_some(to, p, end);
      if (scatter_plane(g, index, to, p, fault)) continue;
      // Of several bad planes any may be named: the first one to get here.
      int none = kOk;
      if (__atomic_compare_exchange_n(&status, &none, int(kIndexError), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        __builtin_memcpy(call.fault, fault, sizeof fault);
      }
      return;
    }
  });
  return status;
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

int max_pool2d_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? backward<double>(call) : backward<float>(call);
}

}  // namespace nl::NL_ISA
