// pool_avg.cpp: avg_pool2d and adaptive_avg_pool2d, which give the mean of each window, and their gradients.
//
// A window's elements are added in row-major order from +0 and the sum is divided; a gradient adds each output's share
// in row-major order of the outputs.
#include "pool.hpp"

namespace nl::NL_ISA {
namespace {

// The positions [begin, end) of a window along one axis, and how many it has with the padding.
struct Span {
  int64_t begin, end, padded;

  int64_t count() const { return max_of(end - begin, 0); }
};

struct Regular {
  int64_t size, kernel, stride, pad;

  Span span(int64_t o) const {
    int64_t begin = o * stride - pad;
    return {max_of(begin, 0), min_of(begin + kernel, size), min_of(begin + kernel, size + pad) - begin};
  }
};

struct Adaptive {
  int64_t size, outputs;

  Span span(int64_t o) const {
    int64_t begin = o * size / outputs, end = ((o + 1) * size + outputs - 1) / outputs;
    return {begin, end, end - begin};
  }
};

template <class Axis>
struct Windows {
  Axis rows, columns;
  bool include_pad = false;
  int64_t divisor_override = 0;

  int64_t divisor(const Span& h, const Span& w) const {
    if (divisor_override) return divisor_override;
    return include_pad ? h.padded * w.padded : h.count() * w.count();
  }
};

// The mean of one window in kPlanes planes: independent chains of additions, because one alone waits for each addition.
template <int kPlanes, class T, class Axis>
void means(const Planes<const T>& x, const Planes<T>& y, const Windows<Axis>& windows, int64_t p, int64_t oh, int64_t ow) {
  Span h = windows.rows.span(oh), w = windows.columns.span(ow);
  const T* from[kPlanes];
  T sum[kPlanes];
  for (int k = 0; k < kPlanes; k++) from[k] = x.plane(p + k), sum[k] = 0;
  for (int64_t i = h.begin; i < h.end; i++) {
    for (int64_t j = w.begin; j < w.end; j++) {
      int64_t at = i * x.row_stride + j * x.column_stride;
#pragma GCC unroll 8
      for (int k = 0; k < kPlanes; k++) sum[k] += from[k][at];
    }
  }
  T divisor = T(windows.divisor(h, w));
  for (int k = 0; k < kPlanes; k++) y.plane(p + k)[oh * y.row_stride + ow * y.column_stride] = sum[k] / divisor;
}

template <class T>
void forward_adaptive(const Call& call) {
  constexpr int kPlanes = 8;
  Planes<const T> x(call.in[0]);
  Planes<T> y(call.out[0]);
  Windows<Adaptive> windows{{x.height, y.height}, {x.width, y.width}};
  parallel_for(y.count, grain_of(x.size()), [=](int64_t begin, int64_t end) {
    int64_t p = begin;
    for (; p + kPlanes <= end; p += kPlanes) {
      for (int64_t o = 0; o < y.size(); o++) means<kPlanes>(x, y, windows, p, o / y.width, o % y.width);
    }
    for (; p < end; p++) {
      for (int64_t o = 0; o < y.size(); o++) means<1>(x, y, windows, p, o / y.width, o % y.width);
    }
  });
}

// The windows of neighbouring outputs, one a lane, all inside the row.
template <class V, class T>
void mean_vector(const Planes<const T>& x, const Planes<T>& y, const Windows<Regular>& windows, int64_t p, int64_t oh,
                 int64_t ow, const T* end) {
  Span h = windows.rows.span(oh), w = windows.columns.span(ow);
  const T* row = x.plane(p) + w.begin * x.column_stride;
  V sum = {};
  for (int64_t i = h.begin; i < h.end; i++) {
    for (int64_t j = 0; j < windows.columns.kernel; j++) {
      const T* from = row + i * x.row_stride + j * x.column_stride;
      sum += strided_load<V>(from, windows.columns.stride * x.column_stride, end);
    }
  }
  T* to = y.plane(p) + oh * y.row_stride + ow * y.column_stride;
  strided_store(to, y.column_stride, sum / splat<V>(T(windows.divisor(h, w))));
}

template <class T>
void forward_regular(const Call& call) {
  const int64_t* a = call.attr;  // kernel, stride, pad of rows and columns; ceil_mode, count_include_pad, divisor
  Planes<const T> x(call.in[0]);
  Planes<T> y(call.out[0]);
  Windows<Regular> windows{{x.height, a[0], a[2], a[4]}, {x.width, a[1], a[3], a[5]}, a[7] != 0, a[8]};
  const Regular& columns = windows.columns;
  const T* end = end_of<T>(call.in[0]);
  // Outputs [inner, outer) have windows without padding to the left and right.
  int64_t inner = min_of((columns.pad + columns.stride - 1) / columns.stride, y.width);
  int64_t room = x.width - columns.kernel + columns.pad;
  int64_t outer = max_of(inner, room < 0 ? 0 : min_of(y.width, room / columns.stride + 1));
  parallel_for(y.count * y.height, grain_of(y.width * a[0] * a[1]), [=](int64_t begin, int64_t stop) {
    for (int64_t r = begin; r < stop; r++) {
      int64_t p = r / y.height, oh = r % y.height;
      auto one = [=](int64_t ow) { means<1>(x, y, windows, p, oh, ow); };
      for (int64_t ow = 0; ow < inner; ow++) one(ow);
      auto several = [=](auto v, int64_t ow) { mean_vector<decltype(v)>(x, y, windows, p, oh, ow, end); };
      cover_row<T>(inner, outer, several, one);
      for (int64_t ow = outer; ow < y.width; ow++) one(ow);
    }
  });
}

template <class T>
void add_to_run(T* p, int64_t stride, int64_t n, T share) {
  using V = typename Simd<T>::V;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + Simd<T>::kWidth <= n; i += Simd<T>::kWidth) store(p + i, load<V>(p + i) + splat<V>(share));
  }
  for (; i < n; i++) p[i * stride] += share;
}

template <class T, class Axis>
void backward(const Call& call, const Windows<Axis>& windows) {
  Planes<const T> g(call.in[0]);
  Planes<T> to(call.out[0]);
  parallel_for(to.count, grain_of(to.size()), [=](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++) {
      T* plane = to.plane(p);
      for (int64_t i = 0; i < to.height; i++) {
        for (int64_t j = 0; j < to.width; j++) plane[i * to.row_stride + j * to.column_stride] = 0;
      }
      for (int64_t o = 0; o < g.size(); o++) {
        int64_t oh = o / g.width, ow = o % g.width;
        Span h = windows.rows.span(oh), w = windows.columns.span(ow);
        T share = g.plane(p)[oh * g.row_stride + ow * g.column_stride] / T(windows.divisor(h, w));
        for (int64_t i = h.begin; i < h.end; i++) {
          add_to_run(plane + i * to.row_stride + w.begin * to.column_stride, to.column_stride, w.count(), share);
        }
      }
    }
  });
}

template <class T>
void backward_regular(const Call& call) {
  const int64_t* a = call.attr;
  Regular rows{a[9], a[0], a[2], a[4]}, columns{a[10], a[1], a[3], a[5]};
  backward<T>(call, Windows<Regular>{rows, columns, a[7] != 0, a[8]});
}

template <class T>
void backward_adaptive(const Call& call) {
  const View &g = call.in[0], &to = call.out[0];
  backward<T>(call, Windows<Adaptive>{{to.shape[2], g.shape[2]}, {to.shape[3], g.shape[3]}});
}

}  // namespace

int avg_pool2d(const Call& call) {
  if (call.in[0].dtype == DType::f64) forward_regular<double>(call);
  else forward_regular<float>(call);
  return kOk;
}

int avg_pool2d_grad(const Call& call) {
  if (call.in[0].dtype == DType::f64) backward_regular<double>(call);
  else backward_regular<float>(call);
  return kOk;
}

int adaptive_avg_pool2d(const Call& call) {
  if (call.in[0].dtype == DType::f64) forward_adaptive<double>(call);
  else forward_adaptive<float>(call);
  return kOk;
}

int adaptive_avg_pool2d_grad(const Call& call) {
  if (call.in[0].dtype == DType::f64) backward_adaptive<double>(call);
  else backward_adaptive<float>(call);
  return kOk;
}

}  // namespace nl::NL_ISA
