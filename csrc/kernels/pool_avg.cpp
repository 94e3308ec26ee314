// pool_avg.cpp: avg_pool2d and adaptive_avg_pool2d, which give the mean of each window, and their gradients.
//
// A window's elements are added in row-major order from +0 and the sum is divided; a gradient adds each output's share
// in row-major order of the outputs. Padding adds +0 at most, which changes no bit.
#include "pool.hpp"

namespace nl::NL_ISA {
namespace {

// The positions [begin, end) of a window along one axis, and how many it has with the padding.
struct Span {
  int64_t begin, end, padded;

  int64_t count() const { return max_of(end - begin, 0); }
};

// Windows of one size at regular distances.
struct Regular {
  int64_t size, kernel, stride, pad;

  Span span(int64_t o) const {
    int64_t begin = o * stride - pad;
    return {max_of(begin, 0), min_of(begin + kernel, size), min_of(begin + kernel, size + pad) - begin};
  }
};

// Nearly equal windows that cover everything.
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

  int64_t extent(const Span& s) const { return include_pad ? s.padded : s.count(); }
  int64_t divisor(const Span& h, const Span& w) const {
    return divisor_override ? divisor_override : extent(h) * extent(w);
  }
};

// One window in each of kPlanes planes: independent chains of additions, as one alone waits for each addition.
template <int kPlanes, class T, class Axis>
struct Mean {
  Planes<const T> x;
  Planes<T> y;
  Windows<Axis> windows;

  void run(const T* const* from, T* const* to, int64_t oh, int64_t ow) const {
    Span h = windows.rows.span(oh), w = windows.columns.span(ow);
    T sum[kPlanes] = {};
    for (int64_t i = h.begin; i < h.end; i++) {
      for (int64_t j = w.begin; j < w.end; j++) {
        int64_t at = i * x.row_stride + j * x.column_stride;
#pragma GCC unroll 8
        for (int k = 0; k < kPlanes; k++) sum[k] += from[k][at];
      }
    }
    T divisor = T(windows.divisor(h, w));
    for (int k = 0; k < kPlanes; k++) to[k][oh * y.row_stride + ow * y.column_stride] = sum[k] / divisor;
  }

  // All windows of the planes p, p + 1, … .
  void planes(int64_t p) const {
    const T* from[kPlanes];
    T* to[kPlanes];
    for (int k = 0; k < kPlanes; k++) from[k] = x.plane(p + k), to[k] = y.plane(p + k);
    for (int64_t oh = 0; oh < y.height; oh++) {
      for (int64_t ow = 0; ow < y.width; ow++) run(from, to, oh, ow);
    }
  }
};

template <class T>
void forward_adaptive(const Call& call) {
  constexpr int kPlanes = 8;
  Planes<const T> x(call.in[0]);
  Planes<T> y(call.out[0]);
  Windows<Adaptive> windows{{x.height, y.height}, {x.width, y.width}};
  parallel_for(y.count, grain_of(x.size()), [=](int64_t begin, int64_t end) {
    int64_t p = begin;
    for (; p + kPlanes <= end; p += kPlanes) Mean<kPlanes, T, Adaptive>{x, y, windows}.planes(p);
    for (; p < end; p++) Mean<1, T, Adaptive>{x, y, windows}.planes(p);
  });
}

template <class T>
struct RegularMean {
  Planes<const T> x;
  Planes<T> y;
  Windows<Regular> windows;
  const T* end;

  struct Plane {
    const T* x;
    T* y;
  };

  void run() const {
    const Regular &rows = windows.rows, &columns = windows.columns;
    auto plane = [=](int64_t p) { return Plane{x.plane(p), y.plane(p)}; };
    with_stride(columns.stride * x.column_stride, [&](auto stride) {
      for_rows(y.count, y.height, y.width * rows.kernel * columns.kernel, plane,
               [=](const Plane& p, int64_t oh) { row<decltype(stride)::value>(p, oh); });
    });
  }

  template <int kStride>
  void row(const Plane& p, int64_t oh) const {
    // Outputs [inner, outer) have windows without padding to the left and right.
    const Regular& columns = windows.columns;
    int64_t inner = min_of((columns.pad + columns.stride - 1) / columns.stride, y.width);
    int64_t room = x.width - columns.kernel + columns.pad;
    int64_t outer = max_of(inner, room < 0 ? 0 : min_of(y.width, room / columns.stride + 1));
    auto one = [=](int64_t ow) { Mean<1, T, Regular>{x, y, windows}.run(&p.x, &p.y, oh, ow); };
    auto several = [=](auto v, int64_t ow) { means<kStride, decltype(v)>(p, oh, ow); };
    for (int64_t ow = 0; ow < inner; ow++) one(ow);
    cover_row<T>(inner, outer, several, one);
    for (int64_t ow = outer; ow < y.width; ow++) one(ow);
  }

  // The windows of neighbouring outputs, one a lane, all inside the row.
  template <int kStride, class V>
  void means(const Plane& p, int64_t oh, int64_t ow) const {
    Span h = windows.rows.span(oh), w = windows.columns.span(ow);
    V sum = {};
    for (int64_t i = h.begin; i < h.end; i++) {
      for (int64_t j = 0; j < windows.columns.kernel; j++) {
        const T* from = p.x + i * x.row_stride + (w.begin + j) * x.column_stride;
        sum += strided_load<V, kStride>(from, windows.columns.stride * x.column_stride, end);
      }
    }
    T* to = p.y + oh * y.row_stride + ow * y.column_stride;
    strided_store(to, y.column_stride, sum / splat<V>(T(windows.divisor(h, w))));
  }
};

inline Windows<Regular> regular_windows(const int64_t* a, int64_t height, int64_t width) {
  return {{height, a[0], a[2], a[4]}, {width, a[1], a[3], a[5]}, a[7] != 0, a[8]};
}

template <class T>
void forward_regular(const Call& call) {
  const View& x = call.in[0];
  Windows<Regular> windows = regular_windows(call.attr, x.shape[2], x.shape[3]);
  RegularMean<T>{Planes<const T>(x), Planes<T>(call.out[0]), windows, end_of<T>(x)}.run();
}

// The gradient of regular windows, a row of the input at a time. The row is kept apart by phase: position d lies in slot
// (d + pad) / stride of phase (d + pad) % stride, so that tap j of all outputs is a run of slots of phase j % stride.
template <class T>
struct Spread {
  using V = typename Simd<T>::V;
  static constexpr int64_t kWidth = Simd<T>::kWidth;

  Planes<const T> g;
  Planes<T> to;
  Windows<Regular> windows;
  const T* widths;  // of the outputs' windows; the product with a height is rounded like the integers' product
  int64_t outputs, slots;  // in whole vectors

  struct Plane {
    const T* g;
    T* to;
  };

  void run() const {
    auto plane = [=](int64_t p) { return Plane{g.plane(p), to.plane(p)}; };
    int64_t work = to.width * windows.columns.kernel;
    for_rows(to.count, to.height, work, plane, [=](const Plane& p, int64_t i) { row(p, i); });
  }

  void row(const Plane& p, int64_t i) const {
    const Regular &rows = windows.rows, &columns = windows.columns;
    T* phases = (T*)nl_scratch(1, (columns.stride * slots + outputs) * sizeof(T));
    T* shares = phases + columns.stride * slots;
    __builtin_memset(phases, 0, columns.stride * slots * sizeof(T));
    int64_t below = i + rows.pad - rows.kernel;
    int64_t first = below < 0 ? 0 : below / rows.stride + 1, last = min_of(g.height - 1, (i + rows.pad) / rows.stride);
    for (int64_t oh = first; oh <= last; oh++) {
      share(p.g + oh * g.row_stride, oh, shares);
      // The outputs that reach a position are met in ascending order when the taps descend.
      for (int64_t j = columns.kernel - 1; j >= 0; j--) {
        add(phases + j % columns.stride * slots + j / columns.stride, shares);
      }
    }
    for (int64_t d = 0; d < to.width; d++) {
      int64_t position = d + columns.pad;
      p.to[i * to.row_stride + d * to.column_stride] =
          phases[position % columns.stride * slots + position / columns.stride];
    }
  }

  // shares = g / divisor, +0 beyond the outputs.
  void share(const T* row, int64_t oh, T* shares) const {
    V height = splat<V>(T(windows.extent(windows.rows.span(oh)))), fixed = splat<V>(T(windows.divisor_override));
    gather_row(row, g.column_stride, g.width, shares);
    for (int64_t ow = g.width; ow < outputs; ow++) shares[ow] = 0;
    for (int64_t ow = 0; ow < outputs; ow += kWidth) {
      V divisor = windows.divisor_override ? fixed : height * load<V>(widths + ow);
      store(shares + ow, load<V>(shares + ow) / divisor);
    }
  }

  void add(T* phase, const T* shares) const {
    for (int64_t ow = 0; ow < outputs; ow += kWidth) store(phase + ow, load<V>(phase + ow) + load<V>(shares + ow));
  }
};

template <class T>
void backward_regular(const Call& call) {
  const View &g = call.in[0], &to = call.out[0];
  Windows<Regular> windows = regular_windows(call.attr, to.shape[2], to.shape[3]);
  const Regular& columns = windows.columns;
  constexpr int kWidth = Simd<T>::kWidth;
  int64_t outputs = (g.shape[3] + kWidth - 1) / kWidth * kWidth;
  int64_t slots = max_of(outputs + (columns.kernel - 1) / columns.stride, (to.shape[3] + columns.pad) / columns.stride + 1);
  T* widths = (T*)nl_scratch(0, outputs * sizeof(T));
  for (int64_t ow = 0; ow < outputs; ow++) {
    widths[ow] = ow < g.shape[3] ? T(windows.extent(columns.span(ow))) : T(1);
  }
  Spread<T>{Planes<const T>(g), Planes<T>(to), windows, widths, outputs, slots}.run();
}

template <class T>
void backward_adaptive(const Call& call) {
  Planes<const T> g(call.in[0]);
  Planes<T> to(call.out[0]);
  Windows<Adaptive> windows{{to.height, g.height}, {to.width, g.width}};
  parallel_for(to.count, grain_of(to.size()), [=](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++) {
      T* plane = to.plane(p);
      clear(to, plane);
      for (int64_t o = 0; o < g.size(); o++) {
        int64_t oh = o / g.width, ow = o % g.width;
        Span h = windows.rows.span(oh), w = windows.columns.span(ow);
        T share = g.plane(p)[oh * g.row_stride + ow * g.column_stride] / T(windows.divisor(h, w));
        for (int64_t i = h.begin; i < h.end; i++) {
          T* run = plane + i * to.row_stride + w.begin * to.column_stride;
          for (int64_t j = 0; j < w.count(); j++) run[j * to.column_stride] += share;
        }
      }
    }
  });
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
