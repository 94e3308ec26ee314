// conv_weight.cpp: the row conv2d_weight as an implicit matrix product over staged images.
//
// Maps [outputs, pixels] times windows [pixels, taps x channels], k running over the pixels of all images. Images are
// staged channels last, so that a window is a run of adjacent channels (and of adjacent taps); one tap that sees all of
// an image reads it like the maps.
#include "../base/numerics.hpp"
#include "conv_depthwise.hpp"
#include "conv_weight_rows.hpp"
#include "conv_window.hpp"
#include "conv_winograd.hpp"
#include "interleave.hpp"

namespace nl::NL_ISA {
namespace {

// Zero-padded images, channels last: [image][y][x][channel]. Channels fill whole vectors where there are that many.
template <class T>
struct ChannelsLast {
  Axis y, x;
  int64_t channels, pitch;
  T* data;

  ChannelsLast(const Axis& rows, const Axis& columns, int64_t n) : y(rows), x(columns), channels(n) {
    pitch = channels < kWidth<T> ? channels : whole_vectors<T>(channels);
  }

  int64_t row_size() const { return x.span() * pitch; }
  int64_t image_size() const { return y.span() * row_size(); }
  int64_t size(int64_t images) const { return images * image_size() + 2 * kWidth<T>; }

  void fill(const View& from, int64_t first, int64_t count) const {
    int64_t rows = y.span();
    parallel_for(count * rows, grain_of(row_size()), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        fill_row(image_of<T>(from, first + i / rows), i % rows - y.pad, data + i * row_size());
    });
  }

  // Row `row` of an image between zeros; lanes past the last channel do not matter.
  void fill_row(const Image<T>& image, int64_t row, T* to) const {
    bool inside = row >= 0 && row < y.input;
    int64_t begin = min_of(x.pad, x.span()), stop = inside ? min_of(x.pad + x.input, x.span()) : begin;
    for (int64_t i = 0; i < begin * pitch; i++) to[i] = 0;
    if (begin < stop) copy_pixels(image.data + row * image.y_stride, image, stop - begin, to + begin * pitch);
    for (int64_t i = stop * pitch; i < row_size(); i++) to[i] = 0;
  }

  // With few channels vectors run over their pixel into what is written next, so the last ones go one by one.
  void copy_pixels(const T* from, const Image<T>& image, int64_t count, T* to) const {
    constexpr int W = kWidth<T>;
    int64_t done = 0;
    if (image.channel_stride == 1) {
      return pack_adjacent(from, image.x_stride, channels, {0, 0, 0, 0, int(channels), int(count), 0, int(pitch)}, to);
    }
    if (image.x_stride == 1 && pitch > 0 && pitch < W) {
      const T* lanes[W];
      for (int l = 0; l < W; l++) lanes[l] = from + min_of(l, channels - 1) * image.channel_stride;
      done = max_of(0, count - ceil_div(W, pitch));
      interleave(lanes, done, [=](int64_t i) { return to + i * pitch; });
    }
    Slice slice = {0, 0, 0, 0, int(channels), int(count - done), 0, int(pitch)};
    if (image.x_stride == 1 && pitch >= W) {
      pack_transposed(from, image.channel_stride, slice, to);
    } else {
      pack_strided(from + done * image.x_stride, image.channel_stride, image.x_stride, slice, to + done * pitch);
    }
  }
};

// The channels of images over all of their pixels: planes as rows of pixels, or, where channels lie last, pixels as
// rows of channels: those are read where they lie, in 0.5-0.95 of the time of packed ones. A panel may run over several
// images, or rows.
template <class T>
struct Maps {
  const T* data;
  int64_t channels, group_channels;
  int64_t pixels;  // of an image
  Grid grid;       // of all pixels, where channels lie last
  bool last;
  bool in_place;  // a panel inside of an image

  Maps(const View& v, int64_t groups, bool reads_in_place, int slot = 3)
      : channels(v.shape[1]),
        group_channels(channels / groups),
        pixels(v.shape[2] * v.shape[3]),
        last(channels_last(v)) {
    in_place = reads_in_place && !last;
    data = last ? (const T*)v.data : contiguous<T>(v, slot);
    grid = {v.shape[2], v.shape[3], v.strides[0], v.strides[2], v.strides[3]};
    if (grid.y_stride == grid.xs * grid.x_stride) grid.xs *= grid.ys, grid.ys = 1;
    if (grid.ys == 1 && grid.plane_stride == grid.xs * grid.x_stride) grid.xs *= v.shape[0];
  }

  Operand<T> operand() const { return {fetch, this, nullptr, last ? lying : nullptr}; }

  static Panel<T> lying(const void* source, const Slice& slice) {
    const Maps& maps = *(const Maps*)source;
    int64_t at;
    offsets_of(maps.grid, slice.k, 1, &at);
    return {maps.data + slice.batch * maps.group_channels + slice.line + at, 1, maps.grid.x_stride};
  }

  static Panel<T> fetch(const void* source, const Slice& slice, T* buffer) {
    const Maps& maps = *(const Maps*)source;
    return maps.last ? maps.fetch_pixels(slice, buffer) : maps.fetch_planes(slice, buffer);
  }

  Panel<T> fetch_planes(const Slice& slice, T* buffer) const {
    Slice piece = slice;
    for (int done = 0; done < slice.depth; done += piece.depth) {
      int64_t image = (slice.k + done) / pixels, pixel = (slice.k + done) % pixels;
      int64_t row = image * channels + slice.batch * group_channels + slice.line;
      piece.depth = int(min_of(slice.depth - done, pixels - pixel));
      if (in_place && piece.depth == slice.depth) return {data + row * pixels + pixel, pixels, 1};
      pack_transposed(data + row * pixels + pixel, pixels, piece, buffer + done * slice.pitch);
    }
    return {buffer, 1, slice.pitch};
  }

  Panel<T> fetch_pixels(const Slice& slice, T* buffer) const {
    const T* from = data + slice.batch * group_channels + slice.line;
    Slice piece = slice;
    for (int done = 0; done < slice.depth; done += piece.depth) {
      int64_t at;
      offsets_of(grid, slice.k + done, 1, &at);
      piece.depth = int(min_of(slice.depth - done, grid.xs - (slice.k + done) % grid.xs));
      const bool whole = piece.depth == slice.depth && group_channels - slice.line >= slice.reach;
      if (whole) return {from + at, 1, grid.x_stride};
      pack_adjacent(from + at, grid.x_stride, group_channels - slice.line, piece, buffer + done * slice.pitch);
    }
    return {buffer, 1, slice.pitch};
  }
};

// Whether maps are read where they lie, one by one: few columns of a product do not pay for packing them.
template <class T>
bool reads_in_place(const Geometry& g) {
  return g.pixels() >= kDepth && g.taps() * g.group_channels() <= 5 * kTileColumns<T>;
}

template <class T>
struct WeightGradient {
  const Call& call;
  Geometry g;
  ChannelsLast<T> stage;
  int64_t chunk;    // images staged at a time
  int64_t* offset;  // of each (tap, channel of a group) in the stage
  T* sums;          // [output][tap][channel]

  explicit WeightGradient(const Call& c) : call(c), g(conv2d_weight_geometry(c)), stage(g.y, g.x, g.channels) {
    // A chunk ends where a block of k ends; one image more than a block takes lets every chunk complete one.
    int64_t fitting = kStageBytes / max_of(1, stage.image_size() * int64_t(sizeof(T)));
    chunk = min_of(g.images, max_of(fitting, 1 + ceil_div(kDepth, g.pixels())));
    offset = (int64_t*)nl_scratch(2, (stage.size(chunk) + g.outputs * lines()) * sizeof(T) + lines() * sizeof(int64_t));
    sums = (T*)(offset + lines());
    stage.data = sums + g.outputs * lines() + kWidth<T>;
    Grid grid = {g.x.kernel, g.group_channels(), g.y.dilation * stage.row_size(), g.x.dilation * stage.pitch, 1};
    offsets_of(grid, 0, int(lines()), offset);
  }

  int64_t lines() const { return g.taps() * g.group_channels(); }
  Grid pixels() const {
    return {g.y.output, g.x.output, stage.image_size(), g.y.stride * stage.row_size(), g.x.stride * stage.pitch};
  }

  void run() const {
    const Maps<T> maps(call.in[1], g.groups, reads_in_place<T>(g));
    int64_t total = g.images * g.pixels(), k = 0;
    do {
      int64_t first = k / g.pixels(), last = min_of(g.images, first + chunk);
      int64_t stop = last == g.images ? total : last * g.pixels() / kDepth * kDepth;
      stage.fill(call.in[0], first, last - first);
      multiply(maps, first, k, stop);
      k = stop;
    } while (k < total);
    parallel_for(g.outputs, grain_of(lines()), [=](int64_t begin, int64_t end) {
      // In place, threads would write to each other's cache lines.
      T* buffer = (T*)nl_scratch(0, (lines() + kWidth<T>)*sizeof(T));
      for (int64_t o = begin; o < end; o++) {
        turn(sums + o * lines(), g.group_channels(), g.taps(), g.group_channels(), buffer,
             (T*)call.out[0].data + o * lines());
      }
      if (call.epilogue) call.epilogue->fn(call.epilogue->ctx, 0, begin, end, 0, lines());
    });
  }

  // Adds pixels [k, stop) of all images; image `first` is the first one staged.
  void multiply(const Maps<T>& maps, int64_t first, int64_t k, int64_t stop) const {
    Windows<T, Table, Grid> windows = {
        stage.data - first * stage.image_size(), g.group_channels(), {offset}, pixels(), nullptr, (const T*)INTPTR_MAX};
    Output<T> out = {sums, g.group_outputs() * lines(), lines(), {1, lines(), 0, 0, 1}};
    const Operand<T> b = {windows.fetch, &windows};
    contract({g.groups, g.group_outputs(), lines(), k, stop, k > 0, maps.operand(), b, out, nullptr, nullptr});
  }
};

// Of one tap without padding: what it sees of the images lies like the maps.
template <class T>
void one_tap(const Call& call, Geometry g) {
  View images = call.in[0];
  skip_strides(images, g.y, g.x);
  const Maps<T> maps(call.in[1], g.groups, reads_in_place<T>(g)), seen(images, g.groups, false, 2);
  const int64_t lines = g.group_outputs(), columns = g.group_channels();
  const Output<T> out = {(T*)call.out[0].data, lines * columns, columns, {1, columns, 0, 0, 1}};
  const int64_t pixels = g.images * g.pixels();
  contract({g.groups, lines, columns, 0, pixels, false, maps.operand(), seen.operand(), out, nullptr, nullptr});
  if (call.epilogue) call.epilogue->fn(call.epilogue->ctx, 0, 0, g.outputs, 0, columns);
}

template <class T>
void weight_gradient(const Call& call) {
  const Geometry g = conv2d_weight_geometry(call);
  g.taps() == 1 && g.y.pad == 0 && g.x.pad == 0 ? one_tap<T>(call, g) : WeightGradient<T>(call).run();
}

}  // namespace

int conv2d_weight(const Call& call) {
  const View &maps = call.in[1], &out = call.out[0];
  if (conv2d_weight_geometry(call).depthwise()) {
    conv2d_depthwise_weight(call);
  } else if (winograd_tile_weight(out.dtype, out.shape[1], out.shape[0] / call.attr[6], maps.shape[2], maps.shape[3],
                                  out.shape + 2, call.attr) > 1) {
    conv2d_winograd_weight(call);
  } else if (!conv2d_weight_rows(call)) {
    out.dtype == DType::f32 ? weight_gradient<float>(call) : weight_gradient<double>(call);
  }
  return kOk;
}

}  // namespace nl::NL_ISA
