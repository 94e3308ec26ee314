// pool_max.cpp: max_pool2d, which gives the largest element of each window and its index, and its gradient.
//
// The first of equal elements in row-major order wins, a NaN beats every number. Padding never wins. Rows of outputs
// whose windows lie inside the plane are vectorised across the outputs.
#include "pool.hpp"

namespace nl::NL_ISA {
namespace {

// The windows along one axis. Output o reads positions origin(o) + t * dilation for taps t in [first(o), last(o)).
struct Windows {
  int64_t size, kernel, stride, pad, dilation;

  int64_t origin(int64_t o) const { return o * stride - pad; }
  int64_t first(int64_t o) const { return origin(o) >= 0 ? 0 : taps(-origin(o)); }
  int64_t last(int64_t o) const { return origin(o) + reach() < size ? kernel : taps(size - origin(o)); }
  int64_t taps(int64_t distance) const { return (distance + dilation - 1) / dilation; }
  int64_t reach() const { return (kernel - 1) * dilation; }

  // Outputs [inner_begin, inner_end(n)) of n have windows without padding.
  int64_t inner_begin() const { return (pad + stride - 1) / stride; }
  int64_t inner_end(int64_t n) const {
    int64_t room = size - 1 - reach() + pad;
    return room < 0 ? 0 : min_of(n, room / stride + 1);
  }
};

template <class V>
auto beats(V a, V b) {
  return (a > b) | ((a != a) & (b == b));
}

template <class T>
struct MaxPool {
  Planes<const T> x;
  Planes<T> values;
  Planes<int64_t> indices;
  Windows rows, columns;
  const T* end;

  // One plane of each tensor.
  struct Plane {
    const T* x;
    T* value;
    int64_t* index;

    Plane row(const MaxPool& m, int64_t o) const {
      return {x, value + o * m.values.row_stride, index + o * m.indices.row_stride};
    }
  };

  void run() const {
    auto plane = [=](int64_t p) { return Plane{x.plane(p), values.plane(p), indices.plane(p)}; };
    int64_t work = values.width * rows.kernel * columns.kernel;
    with_stride(columns.stride * x.column_stride, [&](auto stride) {
      for_rows(values.count, values.height, work, plane,
               [=](const Plane& p, int64_t oh) { row<decltype(stride)::value>(p.row(*this, oh), oh); });
    });
  }

  template <int kStride>
  void row(const Plane& p, int64_t oh) const {
    auto one = [=](int64_t ow) { window(p, oh, ow); };
    auto several = [=](auto v, int64_t ow) { windows<kStride, decltype(v)>(p, oh, ow); };
    int64_t width = values.width, begin = min_of(columns.inner_begin(), width);
    int64_t stop = max_of(begin, columns.inner_end(width));
    // Offsets from a window's origin are kept in lanes as wide as T.
    if ((rows.reach() * x.width + columns.reach()) >> (8 * sizeof(T) - 1)) stop = begin;
    for (int64_t ow = 0; ow < begin; ow++) one(ow);
    cover_row<T>(begin, stop, several, one);
    for (int64_t ow = stop; ow < width; ow++) one(ow);
  }

  // One window, which may reach into the padding.
  void window(const Plane& p, int64_t oh, int64_t ow) const {
    T best = -T(__builtin_inf());
    int64_t at = -1;
    for (int64_t i = rows.first(oh); i < rows.last(oh); i++) {
      for (int64_t j = columns.first(ow); j < columns.last(ow); j++) {
        int64_t h = rows.origin(oh) + i * rows.dilation, w = columns.origin(ow) + j * columns.dilation;
        T next = p.x[h * x.row_stride + w * x.column_stride];
        if (at >= 0 && !beats(next, best)) continue;
        best = next, at = h * x.width + w;
      }
    }
    p.value[ow * values.column_stride] = best;
    p.index[ow * indices.column_stride] = at;
  }

  // The windows of neighbouring outputs, one a lane, all inside the row.
  template <int kStride, class V>
  void windows(const Plane& p, int64_t oh, int64_t ow) const {
    using Offset = Mask<T>;
    using OffsetV = typename VecOf<Offset, sizeof(V)>::V;
    const T* corner = p.x + rows.origin(oh) * x.row_stride + columns.origin(ow) * x.column_stride;
    int64_t step = columns.stride * x.column_stride, first = rows.first(oh), last = rows.last(oh);
    V best = strided_load<V, kStride>(corner + first * rows.dilation * x.row_stride, step, end);
    OffsetV at = splat<OffsetV>(Offset(first * rows.dilation * x.width));
    for (int64_t i = first; i < last; i++) {
      for (int64_t j = 0; j < columns.kernel; j++) {
        const T* from = corner + i * rows.dilation * x.row_stride + j * columns.dilation * x.column_stride;
        V next = strided_load<V, kStride>(from, step, end);
        auto wins = beats(next, best);
        best = wins ? next : best;
        at = wins ? splat<OffsetV>(Offset(i * rows.dilation * x.width + j * columns.dilation)) : at;
      }
    }
    strided_store(p.value + ow * values.column_stride, values.column_stride, best);
    store_indices(p.index + ow * indices.column_stride, rows.origin(oh) * x.width + columns.origin(ow), at);
  }

  // index[l] = origin + l * stride + at[l], in 64 bits.
  template <class OffsetV>
  void store_indices(int64_t* index, int64_t origin, OffsetV at) const {
    constexpr int kWidth = sizeof(OffsetV) / sizeof(Mask<T>), kStep = min_of(kWidth, Simd<int64_t>::kWidth);
    using Part = typename VecOf<Mask<T>, kStep * sizeof(T)>::V;
    using Wide = typename VecOf<int64_t, kStep * 8>::V;
    Mask<T> offset[kWidth];
    store(offset, at);
    Wide steps;
    for (int l = 0; l < kStep; l++) steps[l] = l * columns.stride;
    for (int l = 0; l < kWidth; l += kStep) {
      Wide wide = __builtin_convertvector(load<Part>(offset + l), Wide) + steps + (origin + l * columns.stride);
      strided_store(index + l * indices.column_stride, indices.column_stride, wide);
    }
  }
};

template <class T>
void forward(const Call& call) {
  const int64_t* a = call.attr;  // kernel, stride, pad, dilation of rows and columns
  const View& x = call.in[0];
  MaxPool<T>{Planes<const T>(x), Planes<T>(call.out[0]), Planes<int64_t>(call.out[1]),
             {x.shape[2], a[0], a[2], a[4], a[6]}, {x.shape[3], a[1], a[3], a[5], a[7]}, end_of<T>(x)}
      .run();
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
  int64_t* fault = call.fault;
  int status = kOk;
  parallel_for(to.count, grain_of(to.size()), [&](int64_t begin, int64_t end) {
    int64_t found[3];
    for (int64_t p = begin; p < end; p++) {
      if (scatter_plane(g, index, to, p, found)) continue;
      // Of several bad planes any may be named: the first one to get here.
      int expected = kOk;
      if (__atomic_compare_exchange_n(&status, &expected, int(kIndexError), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        __builtin_memcpy(fault, found, sizeof found);
      }
      return;
    }
  });
  return status;
}

}  // namespace

int max_pool2d(const Call& call) {
  if (call.in[0].dtype == DType::f64) forward<double>(call);
  else forward<float>(call);
  return kOk;
}

int max_pool2d_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? backward<double>(call) : backward<float>(call);
}

}  // namespace nl::NL_ISA
