// conv_geometry.hpp: which input element each tap of a convolution reads, and rows copied with zeros around them.
#pragma once
#include "gemm_pack.hpp"

namespace nl::NL_ISA {
namespace {

// Bytes of images, or of images and maps, staged at a time: as many as stay in a shared cache until they are used.
constexpr int64_t kStageBytes = 4 << 20;

inline int64_t gcd(int64_t a, int64_t b) { return b == 0 ? a : gcd(b, a % b); }

// One axis of a convolution: tap k of output i reads input i * stride + k * dilation - pad.
struct Axis {
  int64_t input, kernel, output, stride, pad, dilation;

  // Of the input, padding included.
  int64_t span() const { return (output - 1) * stride + (kernel - 1) * dilation + 1; }

  // Taps of equal k * dilation % stride share a phase: every stride-th input element, where they are plain shifts.
  int64_t period() const { return stride / gcd(stride, dilation); }
  int64_t phases() const { return min_of(kernel, period()); }
  int64_t phase(int64_t k) const { return k % period(); }
  int64_t phase_begin(int64_t phase) const { return phase * dilation % stride - pad; }
  int64_t shift(int64_t k) const { return k * dilation / stride; }
  int64_t phase_size() const { return output + shift(kernel - 1); }
};

// A stride beyond the padded input leaves one place, whatever it is: what is counted from it stays small.
inline Axis axis_of(int64_t input, int64_t kernel, int64_t output, int64_t stride, int64_t pad, int64_t dilation) {
  return {input, kernel, output, min_of(stride, max_of(1, input + 2 * pad)), pad, dilation};
}

// Every stride-th input position of one axis from `begin` on, with (position + pad) % stride == residue, and the taps
// that reach them. There are as many that differ as residues, or as positions.
struct Residue {
  const Axis& axis;
  int64_t residue, begin, count;  // the positions begin, begin + stride, …

  Residue(const Axis& a, int64_t first)
      : axis(a), residue((first + a.pad) % a.stride), begin(first), count(ceil_div(a.input - first, a.stride)) {}

  static int64_t number(const Axis& a) { return min_of(a.stride, a.input); }

  int64_t taps() const {
    int64_t n = 0;
    for (int64_t tap = 0; tap < axis.kernel; tap++) n += reached_by(tap);
    return n;
  }

  bool reached_by(int64_t tap) const { return tap * axis.dilation % axis.stride == residue; }

  // The element of the padded maps that a tap reads at position `begin`.
  int64_t first_read(int64_t tap, const Axis& padded) const {
    return padded.pad + (begin + axis.pad - tap * axis.dilation) / axis.stride;
  }
};

// The taps of an axis that some outputs see, and what they read: tap number[t] of output begin + i * step reads input
// delta[t] + i * stride.
struct AxisTaps {
  int64_t count, stride, outputs, begin;
  int64_t *number, *delta;

  // Of the convolution; `memory` has room for two numbers a tap.
  AxisTaps(const Axis& a, int64_t* memory) : count(a.kernel), stride(a.stride), outputs(a.output), begin(0) {
    number = memory, delta = memory + a.kernel;
    for (int64_t k = 0; k < count; k++) number[k] = k, delta[k] = k * a.dilation - a.pad;
  }

  // Of its gradient at the positions of a residue.
  AxisTaps(const Residue& r, int64_t* memory) : count(0), stride(1), outputs(r.count), begin(r.begin) {
    const Axis& a = r.axis;
    number = memory, delta = memory + a.kernel;
    for (int64_t k = 0; k < a.kernel; k++) {
      if (!r.reached_by(k)) continue;
      number[count] = k;
      delta[count++] = (r.begin + a.pad - k * a.dilation) / a.stride;
    }
  }

  // Of what a tap reads at output 0; 0 where there is none.
  int64_t least() const {
    int64_t found = count > 0 ? delta[0] : 0;
    for (int64_t t = 1; t < count; t++) found = min_of(found, delta[t]);
    return found;
  }
  int64_t most() const {
    int64_t found = count > 0 ? delta[0] : 0;
    for (int64_t t = 1; t < count; t++) found = max_of(found, delta[t]);
    return found;
  }
};

// Of the convolution, or of its gradient at the positions of residue `r`.
template <bool kGradient>
AxisTaps axis_taps(const Axis& a, int64_t r, int64_t* memory) {
  if constexpr (kGradient) {
    return AxisTaps(Residue(a, r), memory);
  } else {
    return AxisTaps(a, memory);
  }
}

// The maps of an axis, padded so far that whatever any tap reads falls into them.
inline Axis padded_maps(const Axis& axis) {
  int64_t before = max_of(0, ((axis.kernel - 1) * axis.dilation - axis.pad) / axis.stride);
  return {axis.output, 1, before + (axis.input - 1 + axis.pad) / axis.stride + 1, 1, before, 1};
}

// The attributes of the three rows: stride, padding, dilation of y and x, groups, the largest Winograd tile, then two
// extents of the output.
struct Geometry {
  int64_t images, channels, outputs, groups;
  Axis y, x;

  int64_t group_channels() const { return channels / groups; }
  int64_t group_outputs() const { return outputs / groups; }
  int64_t pixels() const { return y.output * x.output; }
  int64_t taps() const { return y.kernel * x.kernel; }
  bool depthwise() const { return groups == channels && groups == outputs; }
};

// `images` are of the size of the convolution's input, `maps` of its output; `weight` is [outputs, channels / groups,
// y.kernel, x.kernel].
inline Geometry geometry_of(const View& images, const View& weight, const View& maps, const int64_t* attr) {
  return {images.shape[0],
          images.shape[1],
          maps.shape[1],
          attr[6],
          axis_of(images.shape[2], weight.shape[2], maps.shape[2], attr[0], attr[2], attr[4]),
          axis_of(images.shape[3], weight.shape[3], maps.shape[3], attr[1], attr[3], attr[5])};
}
inline Geometry conv2d_geometry(const Call& c) { return geometry_of(c.in[0], c.in[1], c.out[0], c.attr); }
inline Geometry conv2d_input_geometry(const Call& c) { return geometry_of(c.out[0], c.in[1], c.in[0], c.attr); }
inline Geometry conv2d_weight_geometry(const Call& c) { return geometry_of(c.in[0], c.out[0], c.in[1], c.attr); }

// The memory between the lowest and the highest element of a view: what vectors may read of it.
template <class T>
struct Memory {
  const T *begin, *end;

  explicit Memory(const View& v) : begin((const T*)v.data), end(begin + 1) {
    for (int d = 0; d < v.rank; d++) {
      begin += min_of(0, (v.shape[d] - 1) * v.strides[d]);
      end += max_of(0, (v.shape[d] - 1) * v.strides[d]);
    }
  }
};

// What one tap sees of images, at stride 1.
inline void skip_strides(View& images, Axis& y, Axis& x) {
  images.shape[2] = y.output, images.shape[3] = x.output;
  images.strides[2] *= y.stride, images.strides[3] *= x.stride;
  y = {y.output, 1, y.output, 1, 0, 1}, x = {x.output, 1, x.output, 1, 0, 1};
}

// Whether the channels of a pixel are adjacent, in images of several pixels.
inline bool channels_last(const View& v) { return v.strides[1] == 1 && v.shape[2] * v.shape[3] > 1; }

// Runs the epilogue, if there is one, on some channels and pixels of an image of the result. What is adjacent are the
// columns of the rectangle.
inline void finish_tile(const Epilogue* epilogue, const View& result, int64_t image, int64_t first_channel,
                        int64_t stop_channel, int64_t first_pixel, int64_t stop_pixel) {
  if (!epilogue) return;
  if (channels_last(result)) {
    epilogue->fn(epilogue->ctx, image, first_pixel, stop_pixel, first_channel, stop_channel);
  } else {
    epilogue->fn(epilogue->ctx, image, first_channel, stop_channel, first_pixel, stop_pixel);
  }
}

// The same on pixels that are numbered through images, from that of number `image` on.
inline void finish_tiles(const Epilogue* epilogue, const View& result, int64_t image, int64_t first_channel,
                         int64_t stop_channel, int64_t first_pixel, int64_t stop_pixel) {
  if (!epilogue) return;
  each_row(result.shape[2] * result.shape[3], first_pixel, stop_pixel, [&](int64_t i, int64_t begin, int64_t end) {
    finish_tile(epilogue, result, image + i, first_channel, stop_channel, begin, end);
  });
}

// A strided image: `channel`, `y` and `x` strides.
template <class T>
struct Image {
  const T* data;
  int64_t channel_stride, y_stride, x_stride;
};

template <class T>
Image<T> image_of(const View& v, int64_t index) {
  return {(const T*)v.data + index * v.strides[0], v.strides[1], v.strides[2], v.strides[3]};
}

// Stores the first `count` elements of a vector.
template <class T>
void store_few(typename Simd<T>::V v, int64_t count, T* to) {
  if (count == kWidth<T>) return store(to, v);
  T part[kWidth<T>];
  store(part, v);
  copy_few(part, count, to);
}

// Copies elements begin, begin + step, … of rows of `extent` elements, with zeros for those outside.
template <class T>
struct PaddedRow {
  int64_t from, step;          // the first element that exists, and the distance of two
  int64_t first, stop, count;  // [first, stop) of `count` exist

  PaddedRow(int64_t extent, int64_t begin, int64_t distance, int64_t n) : step(distance), count(n) {
    first = min_of(n, begin < 0 ? ceil_div(-begin, distance) : 0);
    stop = max_of(first, min_of(n, ceil_div(extent - begin, distance)));
    from = begin + first * distance;
  }

  void copy(const T* row, int64_t stride, T* to) const {
    for (int64_t i = 0; i < first; i++) to[i] = 0;
    copy_existing(row, stride, to);
    for (int64_t i = stop; i < count; i++) to[i] = 0;
  }

  void copy_existing(const T* row, int64_t stride, T* to) const {
    row += from * stride;
    int64_t distance = step * stride, n = stop - first;
    distance == 1   ? copy_adjacent(row, n, to + first)
    : distance == 2 ? copy_even(row, n, to + first)
                    : gather_row(row, distance, n, to + first);
  }

  static void copy_adjacent(const T* row, int64_t n, T* to) {
    using V = typename Simd<T>::V;
    if (n < kWidth<T>) return copy_few(row, n, to);
    for (int64_t i = 0; i + kWidth<T> < n; i += kWidth<T>) store(to + i, load<V>(row + i));
    store(to + n - kWidth<T>, load<V>(row + n - kWidth<T>));
  }

  // Every other element, as strides of 2 need them. The last vector ends with the last element, for nothing behind it
  // may be read.
  static void copy_even(const T* row, int64_t n, T* to) {
    using V = typename Simd<T>::V;
    constexpr int W = kWidth<T>;
    int64_t i = 0;
    for (; i + W < n; i += W) store(to + i, even(load<V>(row + 2 * i), load<V>(row + 2 * i + W)));
    if (n < W) {
      for (; i < n; i++) to[i] = row[2 * i];
    } else {
      row += 2 * (n - W);
      store(to + n - W, even_then_odd(load<V>(row), load<V>(row + W - 1)));
    }
  }

  void clear(T* to) const {
    for (int64_t i = 0; i < count; i++) to[i] = 0;
  }
};

// The elements of a 4-d view in row-major order: where they lie, or copied into a slot of the caller's scratch.
template <class T>
const T* contiguous(const View& v, int slot = 3) {
  int64_t size = 1;
  bool already = true;
  for (int d = 3; d >= 0; size *= v.shape[d--]) already = already && (v.shape[d] == 1 || v.strides[d] == size);
  if (already) return (const T*)v.data;
  T* copy = (T*)nl_scratch(slot, size * sizeof(T));
  int64_t rows = size / max_of(1, v.shape[3]);
  parallel_for(rows, grain_of(v.shape[3]), [=, &v](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      int64_t y = r % v.shape[2], c = r / v.shape[2] % v.shape[1], n = r / v.shape[2] / v.shape[1];
      const T* row = (const T*)v.data + n * v.strides[0] + c * v.strides[1] + y * v.strides[2];
      PaddedRow<T>(v.shape[3], 0, 1, v.shape[3]).copy(row, v.strides[3], copy + r * v.shape[3]);
    }
  });
  return copy;
}

}  // namespace
}  // namespace nl::NL_ISA
