// conv_window.hpp: images staged so that each tap sees a shifted window of them, and panels of such windows.
//
// Before the product, images are copied once, into planes padded with zeros. Every kernel tap of every output pixel
// then reads data[line offset + step offset], with no test for borders, and neighbouring pixels (or channels) are
// adjacent. Panels are gathered from there vector by vector; the matrix of patches (im2col) never exists.
#pragma once
#include "conv_geometry.hpp"

namespace nl::NL_ISA {
namespace {

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
  using Lanes = typename Simd<Mask<T>>::V;
  static constexpr int kMax = 4;
  int count = 0;
  int64_t begin[kMax];
  Lanes lanes[kMax];

  // False when there are more runs than can be read that way.
  bool find(const int64_t* offset, int n) {
    Lanes index;
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
  using V = typename Simd<T>::V;
  const Runs<T> local = runs;  // stores through `to` could change anything that is not local
  const int64_t depth = slice.depth, pitch = slice.pitch;
  for (int64_t k = 0; k < depth; k++, to += pitch) {
    const T* from = data + step[k];
    V v = load<V>(from + local.begin[0]);
#pragma GCC unroll 4
    for (int r = 1; r < kRuns; r++) v = local.lanes[r] ? load<V>(from + local.begin[r]) : v;
    store(to, v);
  }
}

template <class T>
void pack_points(const T* data, const int64_t* line, int count, const int64_t* step, const Slice& slice, T* to) {
  for (int k = 0; k < slice.depth; k++) {
    for (int i = 0; i < count; i++) to[k * slice.pitch + i] = data[line[i] + step[k]];
  }
}

// Packs a vector of lines, element (line i, k) being data[line[i] + step[k]]; `readable(runs)` says whether whole
// vectors may be read of each.
template <class T, class Readable>
void pack_lines(const T* data, const int64_t* line, int count, const int64_t* step, const Slice& slice, T* to,
                const Readable& readable) {
  Runs<T> runs;
  if (!runs.find(line, count) || !readable(runs)) return pack_points(data, line, count, step, slice, to);
  switch (runs.count) {
    case 1: return pack_runs<T, 1>(data, runs, step, slice, to);
    case 2: return pack_runs<T, 2>(data, runs, step, slice, to);
    case 3: return pack_runs<T, 3>(data, runs, step, slice, to);
    case 4: return pack_runs<T, 4>(data, runs, step, slice, to);
  }
}

// The operand whose element (line, k) is data[line offset + step offset]. Vectors that would not lie in
// [readable, readable_end) are gathered element by element; step offsets ascend where that can happen.
template <class T, class Lines, class Steps>
struct Windows {
  const T* data;
  int64_t batch_stride;
  Lines lines;
  Steps steps;
  const T *readable, *readable_end;
  int64_t step = 0;  // from one step's offset to the next, where that is the same for all

  bool reads(const T* first, const T* last) const { return first >= readable && last + kWidth<T> <= readable_end; }

  // Whether all vectors of the runs can be read, `first` and `last` being the data of the first and last step.
  bool reads(const Runs<T>& runs, const T* first, const T* last) const {
    bool all = true;
    for (int r = 0; r < runs.count; r++) all = all && reads(first + runs.begin[r], last + runs.begin[r]);
    return all;
  }

  static Panel<T> lying(const void* source, const Slice& slice) {
    const Windows& w = *(const Windows*)source;
    int64_t line_buffer[1], step_buffer[1];
    const int64_t* line = offsets_in(w.lines, slice.line, 1, line_buffer);
    const int64_t* step = offsets_in(w.steps, slice.k, 1, step_buffer);
    return {w.data + slice.batch * w.batch_stride + *line + *step, 1, w.step};
  }

  static Panel<T> fetch(const void* source, const Slice& slice, T* buffer) {
    const Windows& w = *(const Windows*)source;
    constexpr int W = kWidth<T>;
    int64_t line_buffer[kTileColumns<T>], step_buffer[kDepth];
    const int64_t* line = offsets_in(w.lines, slice.line, slice.count, line_buffer);
    const int64_t* step = offsets_in(w.steps, slice.k, slice.depth, step_buffer);
    const T* data = w.data + slice.batch * w.batch_stride;
    for (int i = 0; i < slice.count; i += W) {
      pack_lines(data, line + i, int(min_of(W, slice.count - i)), step, slice, buffer + i,
                 [&](const Runs<T>& runs) { return w.reads(runs, data + step[0], data + step[slice.depth - 1]); });
    }
    return {buffer, 1, slice.pitch};
  }
};

// Images copied into zero-padded planes, one for each phase of the stride: [image][channel][phase y][phase x][y][x].
// Where the one tap of a 1x1 kernel sees the image as it is, that is read in place.
template <class T>
struct Stage {
  const View& from;
  Axis y, x;
  bool in_place;
  int64_t image_stride, channel_stride, row_stride;
  int64_t chunk;  // images at a time
  T* copies;

  Stage(const View& images, const Axis& rows, const Axis& columns, int64_t taps) : from(images), y(rows), x(columns) {
    in_place = taps == 1 && sees_all(y) && sees_all(x) && from.strides[3] == 1 && from.strides[1] >= 0;
    row_stride = in_place ? from.strides[2] : x.phase_size();
    channel_stride = in_place ? from.strides[1] : y.phases() * x.phases() * plane_size();
    image_stride = in_place ? from.strides[0] : from.shape[1] * channel_stride;
    chunk = from.shape[0];
    if (!in_place) chunk = max_of(1, min_of(chunk, kStageBytes / max_of(1, image_stride * int64_t(sizeof(T)))));
  }

  // For images that are read some other way.
  void skip() { in_place = true, chunk = max_of(1, from.shape[0]); }

  static bool sees_all(const Axis& a) { return a.stride == 1 && a.pad == 0 && a.input == a.output; }

  int64_t plane_size() const { return y.phase_size() * x.phase_size(); }

  // Elements of memory that it needs: the copies, with room for vectors that run over either end.
  int64_t size() const { return in_place ? 0 : chunk * image_stride + 2 * kWidth<T>; }

  // Where the window of a tap begins.
  int64_t tap_offset(int64_t ky, int64_t kx) const {
    int64_t plane = y.phase(ky) * x.phases() + x.phase(kx);
    return plane * plane_size() + y.shift(ky) * row_stride + x.shift(kx);
  }

  // The windows over images [first, first + count), of pixels in rows of `ys` x `xs`.
  Windows<T, Grid, Table> windows(int64_t first, int64_t ys, int64_t xs, int64_t channels, const int64_t* step) const {
    Grid pixels = {ys, xs, image_stride, row_stride, 1};
    const int64_t batch_stride = channels * channel_stride;
    if (!in_place) return {copies + kWidth<T>, batch_stride, pixels, {step}, copies, copies + size(), channel_stride};
    Memory<T> memory(from);
    return {(const T*)from.data + first * image_stride,
            batch_stride,
            pixels,
            {step},
            memory.begin,
            memory.end,
            channel_stride};
  }

  void fill(int64_t first, int64_t count) const {
    if (in_place) return;
    int64_t channels = from.shape[1];
    parallel_for(count * channels, grain_of(channel_stride), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const T* image = (const T*)from.data + (first + i / channels) * from.strides[0];
        fill_channel(image + i % channels * from.strides[1], copies + kWidth<T> + i * channel_stride);
      }
    });
  }

  void fill_channel(const T* channel, T* to) const {
    for (int64_t py = 0; py < y.phases(); py++) {
      for (int64_t px = 0; px < x.phases(); px++) {
        PaddedRow<T> padded(x.input, x.phase_begin(px), x.stride, x.phase_size());
        for (int64_t i = 0; i < y.phase_size(); i++, to += x.phase_size()) {
          int64_t row = y.phase_begin(py) + i * y.stride;
          bool inside = row >= 0 && row < y.input;
          inside ? padded.copy(channel + row * from.strides[2], from.strides[3], to) : padded.clear(to);
        }
      }
    }
  }
};

}  // namespace
}  // namespace nl::NL_ISA
