// pool_max.cpp: max_pool2d, which gives the largest element of each window and its index, and its gradient.
//
// The first of equal elements in row-major order wins, a NaN beats every number. Padding is -inf and beats nothing, so
// a window's index starts at its first element inside the plane.
#include "pool.hpp"

namespace nl::NL_ISA {
namespace {

// The first tap of output o that lies inside the plane.
int64_t first_tap(const Axis& a, int64_t o) { return a.origin(o) >= 0 ? 0 : ceil_div(-a.origin(o), a.dilation); }

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

template <class T, class Offset>
void run(const Call& call, const Axis& rows, const Axis& columns) {
  int64_t outputs = max_of(columns.outputs, kLeastWidth<T>);
  Offset* first_columns = (Offset*)nl_scratch(0, outputs * sizeof(Offset));
  for (int64_t ow = 0; ow < outputs; ow++) first_columns[ow] = Offset(first_tap(columns, ow) * columns.dilation);
  MaxPool<T, Offset> outs{Planes<T>(call.out[0]), Planes<int64_t>(call.out[1]), rows, columns, columns.size,
                          first_columns};
  pool<T>(call.in[0], rows, columns, -T(__builtin_inf()), outs);
}

template <class T>
void forward(const Call& call) {
  const int64_t* a = call.attr;  // kernel, stride, pad, dilation, each of rows and columns
  const View &x = call.in[0], &out = call.out[0];
  Axis rows{x.shape[2], out.shape[2], a[0], a[2], a[4], a[6]};
  Axis columns{x.shape[3], out.shape[3], a[1], a[3], a[5], a[7]};
  bool wide = (rows.reach() * columns.size + columns.reach()) >> (8 * sizeof(T) - 1) != 0;
  wide ? run<T, int64_t>(call, rows, columns) : run<T, Mask<T>>(call, rows, columns);
}

// Adds each g at its index, in row-major order of g. False if an index lies outside the plane.
template <class T>
bool scatter_plane(const Planes<const T>& g, const Planes<const int64_t>& index, const Planes<T>& to, int64_t p,
                   int64_t* fault) {
  T* plane = to.plane(p);
  clear(to, plane);
  for (int64_t h = 0; h < g.height; h++) {
    const T* share = g.plane(p) + h * g.row_stride;
    const int64_t* at = index.plane(p) + h * index.row_stride;
    for (int64_t w = 0; w < g.width; w++) {
      int64_t i = at[w * index.column_stride];
      if ((uint64_t)i >= (uint64_t)to.size()) {
        fault[0] = i, fault[1] = to.size(), fault[2] = 2;
        return false;
      }
      int64_t place = to.contiguous() ? i : i / to.width * to.row_stride + i % to.width * to.column_stride;
      plane[place] += share[w * g.column_stride];
    }
  }
  return true;
}

template <class T>
int backward(const Call& call) {
  Planes<const T> g(call.in[0]);
  Planes<const int64_t> index(call.in[1]);
  Planes<T> to(call.out[0]);
  int status = kOk;
  parallel_for(to.count, grain_of(to.size()), [&](int64_t begin, int64_t end) {
    int64_t fault[3];
    for (int64_t p = begin; p < end; p++) {
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

int max_pool2d_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? backward<double>(call) : backward<float>(call);
}

}  // namespace nl::NL_ISA
