// pool_avg.cpp: avg_pool2d and adaptive_avg_pool2d, which give the mean of each window, and their gradients.
//
// A window's elements are added in row-major order from +0 and the sum is divided; a gradient adds each output's share
// in row-major order of the outputs. Padding adds +0 at most, which changes no bit.
#include "pool_planes.hpp"

namespace nl::NL_ISA {
namespace {

// ---- windows of one size at regular distances ----

// By how much the sum of a window is divided: a product of one number for its row and one for its column. As floats
// they are rounded like the product of the integers.
template <class T>
struct Divisor {
  bool include_pad;
  int64_t fixed;     // instead, unless 0
  const T* columns;  // of each output column, in whole vectors

  T row(const Axis& a, int64_t o) const { return T(fixed ? fixed : positions(a, o)); }
  T column(const Axis& a, int64_t o) const { return T(fixed || o >= a.outputs ? 1 : positions(a, o)); }

  // How many positions of a window count along an axis.
  int64_t positions(const Axis& a, int64_t o) const {
    int64_t begin = a.origin(o), end = begin + a.kernel;
    if (include_pad) return min_of(end, a.size + a.pad) - begin;
    return min_of(end, a.size) - max_of(begin, 0);
  }
};

// The attributes of a pooling op on an [N, C, height, width] input.
struct Geometry {
  Axis rows, columns;
  bool include_pad;
  int64_t fixed_divisor;

  Geometry(const int64_t* a, const View& input, const View& output)
      : rows(windows_along(0, input, output, a, 1)),
        columns(windows_along(1, input, output, a, 1)),
        include_pad(a[7] != 0),
        fixed_divisor(a[8]) {}

  template <class T>
  Divisor<T> divisor() const {
    int64_t n = whole_vectors<T>(columns.outputs);
    T* numbers = (T*)nl_scratch(0, n * sizeof(T));
    Divisor<T> d{include_pad, fixed_divisor, numbers};
    for (int64_t o = 0; o < n; o++) numbers[o] = d.column(columns, o);
    return d;
  }
};

template <class T>
struct AvgPool {
  Planes<T> means;
  Axis rows, columns;
  Divisor<T> divisor;

  using Plane = T*;
  Plane plane(int64_t p) const { return means.plane(p); }

  template <int kStride, class V>
  void vector(T* plane, const T* corner, int64_t row_stride, int64_t oh, int64_t ow, int64_t count) const {
    V sum = {};
    for (int64_t i = 0; i < rows.kernel; i++) {
      const T* row = corner + i * row_stride;
      for (int64_t j = 0; j < columns.kernel; j++) sum += strided_load<V, kStride>(row + j, columns.stride);
    }
    V mean = sum / (splat<V>(divisor.row(rows, oh)) * load<V>(divisor.columns + ow));
    strided_store(plane + oh * means.row_stride + ow * means.column_stride, means.column_stride, count, mean);
  }
};

// The gradient, a row of the input at a time. The row is kept apart by phase: position d lies in slot (d + pad) /
// stride of phase (d + pad) % stride, so that tap j of all outputs is a run of slots of phase j % stride.
template <class T>
struct Spread {
  using V = typename Simd<T>::V;

  Planes<const T> g;
  Planes<T> to;
  Axis rows, columns;
  Divisor<T> divisor;
  int64_t outputs, slots;  // in whole vectors

  void run() const {
    int64_t work = to.size() * rows.kernel * columns.kernel / rows.stride;
    parallel_for(to.count, grain_of(work), [=](int64_t begin, int64_t end) {
      T* phases = (T*)nl_scratch(1, (columns.stride * slots + outputs + 2 * slots) * sizeof(T));
      for (int64_t p = begin; p < end; p++) {
        for (int64_t i = 0; i < to.height; i++) row(g.plane(p), to.plane(p) + i * to.row_stride, i, phases);
      }
    });
  }

  void row(const T* g_plane, T* to_row, int64_t i, T* phases) const {
    T* shares = phases + columns.stride * slots;
    __builtin_memset(phases, 0, columns.stride * slots * sizeof(T));
    const Taps seen = rows.seen_by(i);
    Polls polls;
    for (int64_t oh = seen.begin; oh < seen.end; oh++) {
      share(g_plane + oh * g.row_stride, oh, shares);
      // The outputs that reach a position are met in ascending order when the taps descend.
      for (int64_t j = columns.kernel - 1; j >= 0; j--) {
        add(phases + j % columns.stride * slots + j / columns.stride, shares);
      }
      polls.after(columns.kernel * outputs);
    }
    join(phases, to_row);
  }

  // The row of which every stride-th element lies in one phase.
  void join(const T* phases, T* to_row) const {
    if (columns.stride == 1 && to.column_stride == 1) return copy(phases + columns.pad, to_row);
    if (columns.stride == 2 && to.column_stride == 1) {
      T* padded = (T*)phases + 2 * slots + outputs;
      for (int64_t slot = 0; slot < slots; slot += Simd<T>::kWidth) {
        Zipped<V> both = zip(load<V>(phases + slot), load<V>(phases + slots + slot));
        store(padded + 2 * slot, both.low);
        store(padded + 2 * slot + Simd<T>::kWidth, both.high);
      }
      return copy(padded + columns.pad, to_row);
    }
    for (int64_t r = 0; r < columns.stride; r++) {
      const T* phase = phases + r * slots;
      int64_t slot = r >= columns.pad ? 0 : ceil_div(columns.pad - r, columns.stride);
      for (int64_t d = slot * columns.stride + r - columns.pad; d < to.width; d += columns.stride) {
        to_row[d * to.column_stride] = phase[slot++];
      }
    }
  }

  void copy(const T* from, T* to_row) const { __builtin_memcpy(to_row, from, to.width * sizeof(T)); }

  // shares = g / divisor, +0 beyond the outputs.
  void share(const T* row, int64_t oh, T* shares) const {
    V height = splat<V>(divisor.row(rows, oh));
    gather_row(row, g.column_stride, columns.outputs, shares);
    for (int64_t ow = columns.outputs; ow < outputs; ow++) shares[ow] = 0;
    for (int64_t ow = 0; ow < outputs; ow += Simd<T>::kWidth) {
      store(shares + ow, load<V>(shares + ow) / (height * load<V>(divisor.columns + ow)));
    }
  }

  void add(T* phase, const T* shares) const {
    for (int64_t ow = 0; ow < outputs; ow += Simd<T>::kWidth) {
      store(phase + ow, load<V>(phase + ow) + load<V>(shares + ow));
    }
  }
};

// ---- vectors across planes: windows of any ranges ----

template <class T>
struct RegularWindows {
  using Axis = nl::NL_ISA::Axis;
  Axis rows, columns;
  Divisor<T> count;

  T divisor(int64_t oh, int64_t ow) const { return count.row(rows, oh) * count.column(columns, ow); }
};

// Windows of nearly equal size that cover everything.
template <class T>
struct AdaptiveWindows {
  using Axis = AdaptiveAxis;
  Axis rows, columns;

  T divisor(int64_t oh, int64_t ow) const { return T(rows.taps(oh).count() * columns.taps(ow).count()); }
};

template <class V, bool kLong, class Source>
V sum_of(const Source& x, Taps rows, Taps columns) {
  V sum = {};
  for_taps<kLong>(rows, columns, [&](int64_t i, int64_t j) { sum += x.at(i, j); });
  return sum;
}

template <class V, class Source>
V sum_of(const Source& x, Taps rows, Taps columns, bool is_long) {
  return is_long ? sum_of<V, true>(x, rows, columns) : sum_of<V, false>(x, rows, columns);
}

template <class T, class Windows>
struct Means {
  using V = typename Simd<T>::V;
  static constexpr int kResults = 1;
  static constexpr bool kPrepares = false;
  Planes<T> y;
  Windows windows;

  template <class Source>
  void tile(const Source& x, const Tile& t, int64_t first, T* results) const {
    const bool is_long = t.is_long();
    T* to = results;
    for (int64_t oh = t.top; oh < t.bottom; oh++) {
      for (int64_t ow = t.left; ow < t.right; ow++, to += Simd<T>::kWidth) {
        V sum = sum_of<V>(x, t.rows(oh), t.columns(ow), is_long);
        store(to, sum / splat<V>(windows.divisor(oh, ow)));
      }
    }
    finish(y, first, t, results);
  }
};

// The way back: outputs become their shares, and every position adds those of the windows it lies in.
template <class T, class Windows>
struct Shares {
  using V = typename Simd<T>::V;
  static constexpr int kResults = 1;
  static constexpr bool kPrepares = true;
  Planes<T> to;
  Windows windows;

  void prepare(T* panel, const Tile& t) const {
    for (int64_t oh = t.first_row; oh < t.end_row; oh++) {
      for (int64_t ow = t.first_column; ow < t.end_column; ow++, panel += Simd<T>::kWidth) {
        store(panel, load<V>(panel) / splat<V>(windows.divisor(oh, ow)));
      }
    }
  }

  void tile(const Vectors<T>& shares, const Tile& t, int64_t first, T* results) const {
    const bool is_long = t.is_long();
    T* at = results;
    for (int64_t i = t.top; i < t.bottom; i++) {
      for (int64_t j = t.left; j < t.right; j++, at += Simd<T>::kWidth) {
        store(at, sum_of<V>(shares, t.rows(i), t.columns(j), is_long));
      }
    }
    finish(to, first, t, results);
  }
};

template <class T, class Windows>
void forward_across(const Call& call, const Windows& w) {
  pool_planes<T>(Planes<const T>(call.in[0]), w.rows, w.columns, Means<T, Windows>{Planes<T>(call.out[0]), w});
}

template <class T, class Windows>
void backward_across(const Call& call, const Windows& w) {
  using Axis = Backward<typename Windows::Axis>;
  pool_planes<T>(Planes<const T>(call.in[0]), Axis(w.rows), Axis(w.columns),
                 Shares<T, Windows>{Planes<T>(call.out[0]), w});
}

// ---- which way ----

template <class T>
void forward_regular(const Call& call) {
  const Geometry g(call.attr, call.in[0], call.out[0]);
  const Divisor<T> divisor = g.divisor<T>();
  const Planes<const T> x(call.in[0]);
  const Planes<T> means(call.out[0]);
  if (is_quads(x, means, g.rows, g.columns)) {
    const T count = divisor.row(g.rows, 0) * divisor.column(g.columns, 0);
    return pool_quads<T>(call.in[0], means, [=](auto a, auto b, auto c, auto d) {
      return ((((decltype(a){} + a) + b) + c) + d) / splat<decltype(a)>(count);
    });
  }
  if (goes_across(x, g.columns.outputs)) return forward_across<T>(call, RegularWindows<T>{g.rows, g.columns, divisor});
  pool<T>(call.in[0], g.rows, g.columns, T(0), AvgPool<T>{means, g.rows, g.columns, divisor});
}

template <class T>
void backward_regular(const Call& call) {
  const Geometry g(call.attr, call.out[0], call.in[0]);
  const Divisor<T> divisor = g.divisor<T>();
  const Planes<const T> shares(call.in[0]);
  const Axis& columns = g.columns;
  if (goes_across(shares, columns.size / 2))
    return backward_across<T>(call, RegularWindows<T>{g.rows, columns, divisor});
  const int64_t outputs = whole_vectors<T>(columns.outputs);
  const int64_t of_taps = outputs + (columns.kernel - 1) / columns.stride;
  const int64_t slots = whole_vectors<T>(max_of(of_taps, (columns.size + columns.pad) / columns.stride + 1));
  Spread<T>{shares, Planes<T>(call.out[0]), g.rows, columns, divisor, outputs, slots}.run();
}

template <class T>
AdaptiveWindows<T> adaptive(const View& input, const View& output) {
  return {{input.shape[2], output.shape[2]}, {input.shape[3], output.shape[3]}};
}

// Window by window: each is one chain of additions, of which few planes would fill few lanes.
template <class T>
void means_of_windows(const Planes<const T>& x, const AdaptiveWindows<T>& w, const Planes<T>& y) {
  const int64_t outputs = y.size();
  parallel_for(x.count * outputs, grain_of(2 * x.size() / outputs), [=](int64_t begin, int64_t stop) {
    Polls polls;
    for (int64_t n = begin; n < stop; n++) {
      const int64_t oh = n % outputs / y.width, ow = n % y.width;
      const Taps rows = w.rows.taps(oh), columns = w.columns.taps(ow);
      const T* row = x.plane(n / outputs) + rows.begin * x.row_stride;
      T sum = 0;
      for (int64_t i = rows.begin; i < rows.end; i++, row += x.row_stride) {
        for (int64_t j = columns.begin; j < columns.end; j++) sum += row[j * x.column_stride];
        polls.after(columns.count());
      }
      y.plane(n / outputs)[oh * y.row_stride + ow * y.column_stride] = sum / w.divisor(oh, ow);
    }
  });
}

template <class T>
void forward_adaptive(const Call& call) {
  const Planes<const T> x(call.in[0]);
  const Planes<T> y(call.out[0]);
  const AdaptiveWindows<T> windows = adaptive<T>(call.in[0], call.out[0]);
  const bool few = y.size() > 0 && x.count < Simd<T>::kWidth / 2 && !channels_last(x);
  few ? means_of_windows(x, windows, y) : forward_across<T>(call, windows);
}

template <class T>
void backward_adaptive(const Call& call) {
  backward_across<T>(call, adaptive<T>(call.out[0], call.in[0]));
}

}  // namespace

int avg_pool2d(const Call& call) {
  call.in[0].dtype == DType::f64 ? forward_regular<double>(call) : forward_regular<float>(call);
  return kOk;
}

int avg_pool2d_grad(const Call& call) {
  call.in[0].dtype == DType::f64 ? backward_regular<double>(call) : backward_regular<float>(call);
  return kOk;
}

int adaptive_avg_pool2d(const Call& call) {
  call.in[0].dtype == DType::f64 ? forward_adaptive<double>(call) : forward_adaptive<float>(call);
  return kOk;
}

int adaptive_avg_pool2d_grad(const Call& call) {
  call.in[0].dtype == DType::f64 ? backward_adaptive<double>(call) : backward_adaptive<float>(call);
  return kOk;
}

}  // namespace nl::NL_ISA
