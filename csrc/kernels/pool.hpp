// pool.hpp: planes, windows along an axis, and pooling with vectors along rows: in bands of output rows, padded where
// they must be, or by windows of 2 x 2.
#pragma once
#include "loops.hpp"
#include "shuffle.hpp"
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kNowhere = -1;  // the index of a window that sees nothing, whose gradient goes nowhere

// The N * C planes of an [N, C, H, W] tensor.
template <class T>
struct Planes {
  T* data;
  int64_t channels, count, height, width;
  int64_t image_stride, channel_stride, row_stride, column_stride;

  explicit Planes(const View& v)
      : data((T*)v.data),
        channels(v.shape[1]),
        count(v.shape[0] * v.shape[1]),
        height(v.shape[2]),
        width(v.shape[3]),
        image_stride(v.strides[0]),
        channel_stride(v.strides[1]),
        row_stride(v.strides[2]),
        column_stride(v.strides[3]) {}

  // Whether all planes are as far apart.
  bool even() const { return image_stride == channels * channel_stride; }
  T* plane(int64_t p) const {
    if (even()) return data + p * channel_stride;  // a division costs more than a row
    return data + p / channels * image_stride + p % channels * channel_stride;
  }
  int64_t size() const { return height * width; }
  bool contiguous() const { return column_stride == 1 && row_stride == width; }
  // Whether they are one piece of memory, in order.
  bool dense() const { return even() && contiguous() && channel_stride == size(); }
};

// Zeros in n elements `stride` apart.
template <class T>
void clear_row(T* to, int64_t stride, int64_t n) {
  int64_t i = 0;
  for (; stride == 1 && i + Simd<T>::kWidth <= n; i += Simd<T>::kWidth) store(to + i, typename Simd<T>::V{});
  for (; i < n; i++) to[i * stride] = 0;
}

template <class T>
void clear(const Planes<T>& to, T* plane) {
  const int64_t height = to.contiguous() ? 1 : to.height, width = to.contiguous() ? to.size() : to.width;
  Polls polls;
  for (int64_t i = 0; i < height; i++, plane += to.row_stride) {
    for (int64_t j = 0, count; j < width; j += count) {
      count = min_of(kGrain, width - j);
      clear_row(plane + j * to.column_stride, to.column_stride, count);
      polls.after(count);
    }
  }
}

// Positions begin, begin + step, … below end.
struct Taps {
  int64_t begin, end, step;
  int64_t count() const { return ceil_div(end - begin, step); }
};

// The windows along one axis: output o reads the positions origin(o) + t * dilation for t < kernel.
struct Axis {
  int64_t size, outputs, kernel, stride, pad, dilation;

  int64_t origin(int64_t o) const { return o * stride - pad; }
  int64_t reach() const { return (kernel - 1) * dilation; }
  int64_t extent(int64_t n) const { return (n - 1) * stride + reach() + 1; }  // what n neighbouring windows read
  bool inside(int64_t begin, int64_t end) const { return origin(begin) >= 0 && origin(end - 1) + reach() < size; }

  // What output o reads inside the plane.
  Taps taps(int64_t o) const {
    const int64_t first = origin(o), begin = first >= 0 ? first : first + ceil_div(-first, dilation) * dilation;
    return {begin, max_of(begin, min_of(first + reach() + 1, size)), dilation};
  }

  // The outputs that read position i, without dilation; of n neighbouring positions at most seen_extent(n).
  Taps seen_by(int64_t i) const {
    const int64_t below = i + pad - kernel, end = min_of(outputs, (i + pad) / stride + 1);
    return {below < 0 ? 0 : min_of(below / stride + 1, end), end, 1};
  }
  int64_t seen_extent(int64_t n) const { return (n + kernel - 2) / stride + 1; }
};

// The windows along axis `d` (0: rows, 1: columns) of planes [N, C, H, W]; attributes are pairs of kernel, stride and
// padding. A stride beyond the padded input leaves one window, whatever it is, and the taps of one that hangs over read
// nothing there: what is counted from them stays small.
inline Axis windows_along(int d, const View& input, const View& output, const int64_t* attr, int64_t dilation) {
  const int64_t size = input.shape[2 + d], pad = attr[4 + d], padded = max_of(1, size + 2 * pad);
  const int64_t kernel = min_of(attr[d], (padded - 1) / dilation + 1);
  return {size, output.shape[2 + d], kernel, min_of(attr[2 + d], padded), pad, dilation};
}

// The inputs of a band of output rows, padding included: `data` is the origin of the band's first window.
template <class T>
struct Band {
  const T* data;
  int64_t row_stride;
  const T* end;  // where readable memory ends
};

template <class T>
constexpr int kLeastWidth = 16 / (int)sizeof(T);  // of the smallest vectors used

// Output rows [begin, end) of a plane. The inputs are copied where they lie strided or need padding.
template <class T>
Band<T> band_of(const Planes<const T>& x, const T* plane, const T* x_end, const Axis& rows, const Axis& columns,
                int64_t begin, int64_t end, T padding) {
  int64_t top = rows.origin(begin);
  bool direct = x.column_stride == 1 && rows.inside(begin, end) && columns.inside(0, columns.outputs);
  if (direct && columns.outputs >= kLeastWidth<T>) {
    return {plane + top * x.row_stride + columns.origin(0), x.row_stride, x_end};
  }
  int64_t height = rows.extent(end - begin), width = columns.extent(max_of(columns.outputs, kLeastWidth<T>));
  T* copy = (T*)nl_scratch(1, height * width * sizeof(T));
  int64_t left = min_of(columns.pad, width), inside = min_of(x.width, width - left);
  for (int64_t i = 0; i < height; i++) {
    T* to = copy + i * width;
    bool padded = top + i < 0 || top + i >= x.height;
    int64_t n = padded ? 0 : inside;
    const T* from = plane + (top + i) * x.row_stride;
    for (int64_t j = 0; j < left; j++) to[j] = padding;
    gather_row(from, x.column_stride, n, to + left);
    for (int64_t j = left + n; j < width; j++) to[j] = padding;
  }
  return {copy, width, copy + height * width};
}

// A vector of elements `stride` apart; for kStride = 2 one element more is read than needed.
template <class V, int kStride, class T>
V strided_load(const T* p, int64_t stride) {
  constexpr int kWidth = sizeof(V) / sizeof(T);
  if constexpr (kStride == 1) return load<V>(p);
  if constexpr (kStride == 2) return even(load<V>(p), load<V>(p + kWidth));
  V v = {};
  for (int l = 0; l < kWidth; l++) v[l] = p[l * stride];
  return v;
}

// Stores the first `count` lanes.
template <class V, class T>
void strided_store(T* p, int64_t stride, int64_t count, V v) {
  constexpr int kWidth = sizeof(V) / sizeof(T);
  if (stride == 1 && count >= kWidth) return store(p, v);
  T lanes[kWidth];
  store(lanes, v);
  for (int64_t l = 0; l < min_of(count, kWidth); l++) p[l * stride] = lanes[l];
}

// Covers `n` outputs with vectors of V: body(V{}, first, count). The last is moved back to end at the last output.
template <class V, class F>
void cover(int64_t n, const F& body) {
  constexpr int64_t kWidth = sizeof(V) / sizeof(V{}[0]);
  for (int64_t i = 0; i < n; i += kWidth) {
    int64_t first = max_of(0, min_of(i, n - kWidth));
    body(V{}, first, n - first);
  }
}

// The same with the widest vectors that fit, or the smallest.
template <class T, class F>
void cover_row(int64_t n, const F& body) {
  if (n >= Simd<T>::kWidth) return cover<typename Simd<T>::V>(n, body);
  if constexpr (NL_VEC_BYTES > 32) {
    if (n >= 2 * kLeastWidth<T>) return cover<typename VecOf<T, 32>::V>(n, body);
  }
  cover<typename VecOf<T, 16>::V>(n, body);
}

// Calls outputs.vector<kStride, V>(plane, corner, row_stride, oh, ow, count) for vectors that cover the outputs of a
// band: `corner` is where the first window begins.
template <int kStride, class T, class Outputs>
void pool_band(const Band<T>& from, const Axis& rows, const Axis& columns, int64_t begin, int64_t end,
               const Outputs& outputs, const typename Outputs::Plane& plane) {
  int64_t reach = rows.reach() * from.row_stride + columns.reach();
  const int64_t taps = rows.kernel * columns.kernel * ceil_div(columns.outputs, Simd<T>::kWidth);  // of a row, vectors
  Polls polls;
  for (int64_t oh = begin; oh < end; oh++) {
    const T* row = from.data + (oh - begin) * rows.stride * from.row_stride;
    cover_row<T>(columns.outputs, [&](auto v, int64_t ow, int64_t count) {
      using V = decltype(v);
      const T* corner = row + ow * columns.stride;
      bool ends = kStride == 2 && from.end - corner < reach + 2 * int(sizeof(V) / sizeof(T));
      if (ends) return outputs.template vector<0, V>(plane, corner, from.row_stride, oh, ow, count);
      outputs.template vector<kStride, V>(plane, corner, from.row_stride, oh, ow, count);
    });
    polls.after(taps);
  }
}

constexpr int64_t kBand = 32768;  // input elements in a band, about: they stay in the L2 cache

// Pools all planes; `outputs` knows what is done to a vector of windows.
template <class T, class Outputs>
void pool(const View& input, const Axis& rows, const Axis& columns, T padding, const Outputs& outputs) {
  Planes<const T> x(input);
  const T* end = end_of<T>(input);
  int64_t band = min_of(max_of(1, kBand / max_of(columns.extent(columns.outputs) * rows.stride, 1)), rows.outputs);
  int64_t bands = band ? ceil_div(rows.outputs, band) : 0;
  int64_t work = band * columns.outputs * rows.kernel * columns.kernel;
  parallel_for(x.count * bands, grain_of(work), [=, &rows, &columns, &outputs](int64_t begin, int64_t stop) {
    for (int64_t item = begin; item < stop; item++) {
      int64_t p = item / bands, first = item % bands * band, last = min_of(first + band, rows.outputs);
      Band<T> from = band_of(x, x.plane(p), end, rows, columns, first, last, padding);
      auto plane = outputs.plane(p);
      if (columns.stride == 1)
        pool_band<1>(from, rows, columns, first, last, outputs, plane);
      else if (columns.stride == 2)
        pool_band<2>(from, rows, columns, first, last, outputs, plane);
      else
        pool_band<0>(from, rows, columns, first, last, outputs, plane);
    }
  });
}

// ---- windows of 2 x 2 side by side ----

// Whether two loads of either row give all elements of a vector of windows.
template <class T>
bool is_quads(const Planes<const T>& x, const Planes<T>& y, const Axis& rows, const Axis& columns) {
  auto halves = [](const Axis& a) {
    return a.kernel == 2 && a.stride == 2 && a.pad == 0 && a.dilation == 1 && 2 * a.outputs <= a.size;
  };
  return halves(rows) && halves(columns) && x.column_stride == 1 && y.contiguous() && y.width >= kLeastWidth<T>;
}

// A row of results of(a, b, c, d), where a b lie above c d. Rows of fewer than a vector write on into the next one's
// place, if `may_overrun`.
template <class V, class T, class F>
void quad_row(const T* upper, const T* lower, const T* end, int64_t outputs, T* to, bool may_overrun, const F& of) {
  constexpr int kWidth = sizeof(V) / sizeof(T);
  constexpr int64_t kLine = 64 / sizeof(T), kAhead = (8 << 10) / sizeof(T);  // hardware gives up on rows this short
  for (int64_t i = 0; i < outputs; i += kWidth) {
    const int64_t at = max_of(0, min_of(i, outputs - kWidth)), count = min_of(kWidth, outputs - at);
    T room[2][2 * kWidth];
    const T *a = upper + 2 * at, *b = lower + 2 * at;
    if (end - b < 2 * kWidth || end - a < 2 * kWidth) {
      __builtin_memcpy(room[0], a, 2 * count * sizeof(T));
      __builtin_memcpy(room[1], b, 2 * count * sizeof(T));
      a = room[0], b = room[1];
    }
    for (int64_t k = 0; k < 2 * kWidth; k += kLine) {
      __builtin_prefetch(upper + 2 * at + kAhead + k);
      __builtin_prefetch(lower + 2 * at + kAhead + k);
    }
    const V a0 = load<V>(a), a1 = load<V>(a + kWidth), b0 = load<V>(b), b1 = load<V>(b + kWidth);
    const V result = of(even(a0, a1), odd(a0, a1), even(b0, b1), odd(b0, b1));
    if (count == kWidth || may_overrun) {
      store(to + at, result);
    } else {
      __builtin_memcpy(to + at, &result, count * sizeof(T));
    }
  }
}

template <class V, class T, class F>
void pool_quads_by(const Planes<const T>& x, const T* end, const Planes<T>& y, const F& of) {
  parallel_for(x.count, grain_of(x.size()), [&](int64_t begin, int64_t stop) {
    for (int64_t p = begin; p < stop; p++) {
      const T* from = x.plane(p);
      T* to = y.plane(p);
      const bool followed =
          p + 1 < stop && y.plane(p + 1) == to + y.size() && y.width >= int(sizeof(V) / sizeof(T)) / 2;
      for (int64_t i = 0; i < y.height; i++, from += 2 * x.row_stride, to += y.width) {
        quad_row<V>(from, from + x.row_stride, end, y.width, to, i + 1 < y.height || followed, of);
      }
    }
  });
}

// Pools all planes, with the vectors that leave the fewest lanes empty.
template <class T, class F>
void pool_quads(const View& input, const Planes<T>& y, const F& of) {
  const Planes<const T> x(input);
  const T* end = end_of<T>(input);
  if (y.width > Simd<T>::kWidth / 2) return pool_quads_by<typename Simd<T>::V>(x, end, y, of);
  if constexpr (NL_VEC_BYTES > 32) {
    if (y.width > kLeastWidth<T>) return pool_quads_by<typename VecOf<T, 32>::V>(x, end, y, of);
  }
  pool_quads_by<typename VecOf<T, 16>::V>(x, end, y, of);
}

}  // namespace
}  // namespace nl::NL_ISA
