// conv.hpp: the geometry of a convolution, images staged so that each tap is a shifted window, and panels of windows.
//
// Before the product, images are copied once, into planes padded with zeros. Every kernel tap of every output pixel then
// reads data[line offset + step offset], with no test for borders, and neighbouring pixels (or channels) are adjacent.
// Panels are gathered from there vector by vector; the matrix of patches (im2col) never exists.
#pragma once
#include "gemm_pack.hpp"

namespace nl::NL_ISA {
namespace {

// Bytes of images staged at a time: as many as stay in a shared cache until they are used.
constexpr int64_t kStageBytes = 4 << 20;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t gcd(int64_t a, int64_t b) { return b == 0 ? a : gcd(b, a % b); }

// One axis of a convolution: tap k of output i reads input i * stride + k * dilation - pad.
struct Axis {
  int64_t input, kernel, output, stride, pad, dilation;

  // Taps of equal k * dilation % stride share a phase: every stride-th input element, where they are plain shifts.
  int64_t period() const { return stride / gcd(stride, dilation); }
  int64_t phases() const { return min_of(kernel, period()); }
  int64_t phase(int64_t k) const { return k % period(); }
  int64_t phase_begin(int64_t phase) const { return phase * dilation % stride - pad; }
  int64_t shift(int64_t k) const { return k * dilation / stride; }
  int64_t phase_size() const { return output + shift(kernel - 1); }
};

// The attributes of the three rows: stride, padding, dilation of y and x, groups, then two extents of the output.
struct Geometry {
  int64_t images, channels, outputs, groups;
  Axis y, x;

  int64_t group_channels() const { return channels / groups; }
  int64_t group_outputs() const { return outputs / groups; }
  int64_t pixels() const { return y.output * x.output; }
  int64_t taps() const { return y.kernel * x.kernel; }
};

// `images` are of the size of the convolution's input, `maps` of its output; `weight` is [outputs, channels / groups,
// y.kernel, x.kernel].
inline Geometry geometry(const View& images, const View& weight, const View& maps, const int64_t* attr) {
  return {images.shape[0],
          images.shape[1],
          maps.shape[1],
          attr[6],
          {images.shape[2], weight.shape[2], maps.shape[2], attr[0], attr[2], attr[4]},
          {images.shape[3], weight.shape[3], maps.shape[3], attr[1], attr[3], attr[5]}};
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

// The elements of a 4-d view in row-major order: where they lie, or copied into the caller's scratch.
template <class T>
const T* contiguous(const View& v) {
  int64_t size = 1;
  bool already = true;
  for (int d = 3; d >= 0; size *= v.shape[d--]) already = already && (v.shape[d] == 1 || v.strides[d] == size);
  if (already) return (const T*)v.data;
  T* copy = (T*)nl_scratch(3, size * sizeof(T));
  int64_t rows = size / max_of(1, v.shape[3]);
  parallel_for(rows, grain_of(v.shape[3]), [=, &v](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      int64_t y = r % v.shape[2], c = r / v.shape[2] % v.shape[1], n = r / v.shape[2] / v.shape[1];
      const T* row = (const T*)v.data + n * v.strides[0] + c * v.strides[1] + y * v.strides[2];
      gather_row(row, v.strides[3], v.shape[3], copy + r * v.shape[3]);
    }
  });
  return copy;
}

// Elements begin, begin + step, … of a row of `extent`, zero outside of it.
template <class T>
void copy_padded(const T* row, int64_t stride, int64_t extent, int64_t begin, int64_t step, int64_t count, T* to) {
  int64_t first = min_of(count, begin < 0 ? ceil_div(-begin, step) : 0);
  int64_t stop = max_of(first, min_of(count, ceil_div(extent - begin, step)));
  for (int64_t i = 0; i < first; i++) to[i] = 0;
  const T* from = row + (begin + first * step) * stride;
  if (step * stride == 1) {
    __builtin_memcpy(to + first, from, (stop - first) * sizeof(T));
  } else {
    for (int64_t i = first; i < stop; i++) to[i] = from[(i - first) * step * stride];
  }
  for (int64_t i = stop; i < count; i++) to[i] = 0;
}

// ---- panels of windows ------------------------------------------------------------------------------------------

// Offsets listed one by one.
struct Table {
  const int64_t* offsets;
};

// Offsets [first, first + count); `buffer` is for those that have to be computed.
inline const int64_t* offsets_in(const Table& table, int64_t first, int, int64_t*) { return table.offsets + first; }
inline const int64_t* offsets_in(const Grid& grid, int64_t first, int count, int64_t* buffer) {
  offsets_of(grid, first, count, buffer);
  return buffer;
}

// A vector of a panel: runs of adjacent lines, each read as a whole vector that counts from its first lane on.
template <class T>
struct Runs {
  using Mask = typename Vec<T>::Mask;
  static constexpr int kMax = 4;
  int count = 0;
  int64_t begin[kMax];
  Mask lanes[kMax];

  // False when there are more runs than can be read that way.
  bool find(const int64_t* offset, int n) {
    Mask index;
    for (int i = 0; i < kWidth<T>; i++) index[i] = i;
    for (int l = 0; l < n; l++) {
      if (l > 0 && offset[l] == offset[l - 1] + 1) continue;
      if (count == kMax) return false;
      begin[count] = offset[l] - l;
      lanes[count++] = index >= l;
    }
    return true;
  }
};

template <class T, int kRuns>
void pack_runs(const T* data, const Runs<T>& runs, const int64_t* step, const Slice& slice, T* to) {
  using V = typename Vec<T>::V;
  using V_u = typename Vec<T>::V_u;
  const Runs<T> local = runs;  // stays in registers
  for (int k = 0; k < slice.depth; k++) {
    const T* from = data + step[k];
    V v = LOAD(V, from + local.begin[0]);
#pragma GCC unroll 4
    for (int r = 1; r < kRuns; r++) v = local.lanes[r] ? LOAD(V, from + local.begin[r]) : v;
    STORE(V, to + k * slice.pitch, v);
  }
}

template <class T>
void pack_points(const T* data, const int64_t* line, int count, const int64_t* step, const Slice& slice, T* to) {
  for (int k = 0; k < slice.depth; k++) {
    for (int i = 0; i < count; i++) to[k * slice.pitch + i] = data[line[i] + step[k]];
  }
}

// The operand whose element (line, k) is data[line offset + step offset]. Reads up to a vector beyond either end.
template <class T, class Lines, class Steps>
struct Windows {
  const T* data;
  int64_t batch_stride;
  Lines lines;
  Steps steps;

  static Panel<T> fetch(const void* source, const Slice& slice, T* buffer) {
    const Windows& w = *(const Windows*)source;
    constexpr int W = kWidth<T>;
    int64_t line_buffer[kTileColumns<T>], step_buffer[kDepth];
    const int64_t* line = offsets_in(w.lines, slice.line, slice.count, line_buffer);
    const int64_t* step = offsets_in(w.steps, slice.k, slice.depth, step_buffer);
    const T* data = w.data + slice.batch * w.batch_stride;
    for (int i = 0; i < slice.count; i += W) {
      Runs<T> runs;
      int count = int(min_of(W, slice.count - i));
      if (!runs.find(line + i, count)) {
        pack_points(data, line + i, count, step, slice, buffer + i);
        continue;
      }
      switch (runs.count) {
        case 1: pack_runs<T, 1>(data, runs, step, slice, buffer + i); break;
        case 2: pack_runs<T, 2>(data, runs, step, slice, buffer + i); break;
        case 3: pack_runs<T, 3>(data, runs, step, slice, buffer + i); break;
        case 4: pack_runs<T, 4>(data, runs, step, slice, buffer + i); break;
      }
    }
    return {buffer, 1, slice.pitch};
  }
};

}  // namespace
}  // namespace nl::NL_ISA
