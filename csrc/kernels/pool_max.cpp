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
  int64_t first(int64_t o) const { return origin(o) >= 0 ? 0 : (-origin(o) + dilation - 1) / dilation; }
  int64_t last(int64_t o) const { return min_of(kernel, (size - origin(o) + dilation - 1) / dilation); }
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

  void run() const {
    int64_t outputs = values.height;
    int64_t work = values.width * rows.kernel * columns.kernel;
    parallel_for(values.count * outputs, grain_of(work), [=](int64_t begin, int64_t stop) {
      for (int64_t i = begin; i < stop; i++) row(i / outputs, i % outputs);
    });
  }

  void row(int64_t p, int64_t oh) const {
    const T* plane = x.plane(p);
    T* value = values.plane(p) + oh * values.row_stride;
    int64_t* index = indices.plane(p) + oh * indices.row_stride;
    auto one = [=](int64_t ow) { window(plane, oh, ow, value, index); };
    int64_t width = values.width, begin = min_of(columns.inner_begin(), width);
    int64_t stop = max_of(begin, columns.inner_end(width));
    // Offsets from a window's origin are kept in lanes as wide as T.
    bool wide = (rows.reach() * x.width + columns.reach()) >> (8 * sizeof(T) - 1) != 0;
    for (int64_t ow = 0; ow < begin; ow++) one(ow);
    if (wide) {
      for (int64_t ow = begin; ow < stop; ow++) one(ow);
    } else {
      cover_row<T>(begin, stop, [=](auto v, int64_t ow) { windows<decltype(v)>(plane, oh, ow, value, index); }, one);
    }
    for (int64_t ow = stop; ow < width; ow++) one(ow);
  }

  // One window, which may reach into the padding.
  void window(const T* plane, int64_t oh, int64_t ow, T* value, int64_t* index) const {
    T best = -T(__builtin_inf());
    int64_t at = -1;
    for (int64_t i = rows.first(oh); i < rows.last(oh); i++) {
      for (int64_t j = columns.first(ow); j < columns.last(ow); j++) {
        int64_t h = rows.origin(oh) + i * rows.dilation, w = columns.origin(ow) + j * columns.dilation;
        T next = plane[h * x.row_stride + w * x.column_stride];
        if (at >= 0 && !beats(next, best)) continue;
        best = next, at = h * x.width + w;
      }
    }
    value[ow * values.column_stride] = best;
    index[ow * indices.column_stride] = at;
  }

  // The windows of neighbouring outputs, one a lane, all inside the row.
  template <class V>
  void windows(const T* plane, int64_t oh, int64_t ow, T* value, int64_t* index) const {
    constexpr int kWidth = sizeof(V) / sizeof(T);
    using Offset = Mask<T>;
    using OffsetV = typename VecOf<Offset, sizeof(V)>::V;
    const T* corner = plane + rows.origin(oh) * x.row_stride + columns.origin(ow) * x.column_stride;
    int64_t step = columns.stride * x.column_stride, first = rows.first(oh), last = rows.last(oh);
    V best = strided_load<V>(corner + first * rows.dilation * x.row_stride, step, end);
    OffsetV at = splat<OffsetV>(Offset(first * rows.dilation * x.width));
    for (int64_t i = first; i < last; i++) {
      for (int64_t j = 0; j < columns.kernel; j++) {
        const T* p = corner + i * rows.dilation * x.row_stride + j * columns.dilation * x.column_stride;
        V next = strided_load<V>(p, step, end);
        auto wins = beats(next, best);
        best = wins ? next : best;
        at = wins ? splat<OffsetV>(Offset(i * rows.dilation * x.width + j * columns.dilation)) : at;
      }
    }
    strided_store(value + ow * values.column_stride, values.column_stride, best);
    int64_t origin = rows.origin(oh) * x.width + columns.origin(ow);
    for (int l = 0; l < kWidth; l++) {
      index[(ow + l) * indices.column_stride] = origin + l * columns.stride + at[l];
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

template <class T>
void clear(const Planes<T>& to, T* plane) {
  if (to.contiguous()) {
    __builtin_memset(plane, 0, to.size() * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < to.size(); i++) plane[i / to.width * to.row_stride + i % to.width * to.column_stride] = 0;
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
