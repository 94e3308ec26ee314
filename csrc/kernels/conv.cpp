// conv.cpp: the rows conv2d and conv2d_input: which kernel takes a shape, and the implicit matrix products.
//
// Forward: weights [outputs, channels] times pixels [channels, pixels] for one tap, or pixels times weights where the
// result alone has its channels last. One tap from pixels to pixels is in conv_pixels.cpp, several taps to pixels are
// in conv_taps.cpp, others, and one on small maps, in conv_direct.cpp. The gradient for the input is gathered: the
// positions of one residue modulo the stride see the same taps, so each residue is a product of its own, of those taps
// only, and nothing is computed for taps that fall between strides. Where images have their channels last, one tap at
// stride 1 is in conv_pixels.cpp, all others are in conv_taps.cpp.
#include "../base/numerics.hpp"
#include "conv_depthwise.hpp"
#include "conv_direct.hpp"
#include "conv_packed.hpp"
#include "conv_pixels.hpp"
#include "conv_taps.hpp"
#include "conv_window.hpp"
#include "conv_winograd.hpp"

namespace nl::NL_ISA {
namespace {

// A product of weights and pixels of some images.
template <class T>
struct PixelProduct {
  const Epilogue* epilogue;  // on finished rectangles
  const View& result;        // pixels are the rows of the product where its channels lie last
  int64_t first_image, groups, group_lines;

  // Lines of a group and pixels [first, stop).
  void finish(int64_t group, int64_t first_line, int64_t stop_line, int64_t first, int64_t stop) const {
    const int64_t line = group * group_lines;
    finish_tiles(epilogue, result, first_image, line + first_line, line + stop_line, first, stop);
  }

  // `out` has a row for each line of a group, or for each of the `count` pixels.
  void run(Operand<T> weights, Operand<T> windows, int64_t count, int64_t depth, const Output<T>& out) const {
    auto by_lines = [](const void* owner, int64_t group, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
      ((const PixelProduct*)owner)->finish(group, i0, i1, j0, j1);
    };
    auto by_pixels = [](const void* owner, int64_t group, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
      ((const PixelProduct*)owner)->finish(group, j0, j1, i0, i1);
    };
    Contraction<T> job = {groups, group_lines, count, 0, depth, false, weights, windows, out, by_lines, this};
    if (channels_last(result)) {
      job = {groups, count, group_lines, 0, depth, false, windows, weights, out, by_pixels, this};
    }
    if (!epilogue) job.finish = nullptr;
    contract(job);
  }
};

// Pixels of images with channels last, as the lines of an operand.
template <class T>
struct PixelLines {
  const T* data;
  Grid grid;         // of all images
  int64_t channels;  // of a group

  PixelLines(const View& v, const Geometry& g)
      : data((const T*)v.data),
        grid{g.y.output, g.x.output, v.strides[0], v.strides[2] * g.y.stride, v.strides[3] * g.x.stride},
        channels(g.group_channels()) {}

  static Panel<T> fetch(const void* source, const Slice& slice, T* buffer) {
    const PixelLines& p = *(const PixelLines*)source;
    const T* from = p.data + slice.batch * p.channels + slice.k;
    int64_t offset[max_of(kTileRows, kTileColumns<T>)];
    offsets_of(p.grid, slice.line, slice.count, offset);
    auto line = [&](int64_t i) { return from + offset[i]; };
    pack_lines_of(line, slice.depth, slice, buffer, [](int k) { return k; });
    return {buffer, 1, slice.pitch};
  }
};

// ---- conv2d -----------------------------------------------------------------------------------------------------

// Of one tap.
template <class T>
struct Forward {
  const Call& call;
  Geometry g;
  bool adjacent;  // the channels of a pixel, which is packed from where it lies
  Stage<T> stage;
  PackedWeights<T> weights;
  int64_t* offset;  // of each channel in the stage

  explicit Forward(const Call& c)
      : call(c),
        g(conv2d_geometry(c)),
        adjacent(channels_last(c.in[0]) && g.y.pad == 0 && g.x.pad == 0),
        stage(c.in[0], g.y, g.x, 1),
        weights{g.group_outputs(), g.group_channels(), channels_last(c.out[0]), call.kept != nullptr} {
    if (adjacent) stage.skip();
    offset = (int64_t*)nl_scratch(2, stage.size() * sizeof(T) + weights.depth * sizeof(int64_t));
    stage.copies = (T*)(offset + weights.depth);
    for (int64_t k = 0; k < weights.depth; k++) offset[k] = k * stage.channel_stride;
    call.kept ? keep_weights() : weights.lie(contiguous<T>(call.in[1]), g.groups, weights.depth, 1);
  }

  void keep_weights() {
    weights.data = (T*)nl_keep(call.kept, weights.size(g.groups) * sizeof(T));
    make_once(call.kept, [&] { weights.pack(call.in[1], g.groups); });
  }

  void run() {
    for (int64_t first = 0; first < g.images; first += stage.chunk) {
      const int64_t count = min_of(stage.chunk, g.images - first);
      stage.fill(first, count);
      const auto windows = stage.windows(first, g.y.output, g.x.output, g.group_channels(), offset);
      const PixelLines<T> lines(call.in[0], g);
      Operand<T> pixels = {windows.fetch, &windows, nullptr, windows.lying};
      if (adjacent) pixels = {lines.fetch, &lines};
      const PixelProduct<T> product = {call.epilogue, call.out[0], first, g.groups, weights.lines};
      product.run(weights.operand(), pixels, count * g.pixels(), weights.depth, output(first));
    }
  }

  Output<T> output(int64_t first) const {
    T* data = (T*)call.out[0].data + first * g.outputs * g.pixels();
    if (channels_last(call.out[0])) return {data, g.group_outputs(), g.outputs, {1, g.group_outputs(), 0, 0, 1}};
    return {data, g.group_outputs() * g.pixels(), g.pixels(), {1, g.pixels(), g.outputs * g.pixels(), 0, 1}};
  }
};

// ---- conv2d_input -----------------------------------------------------------------------------------------------

template <class T>
struct InputGradient {
  const Call& call;
  Geometry g;
  Stage<T> stage;
  PackedWeights<T> weights;  // k runs over (residue, tap, output)
  int64_t* offset;           // of each k in the stage

  explicit InputGradient(const Call& c)
      : call(c),
        g(conv2d_input_geometry(c)),
        stage(c.in[0], padded_maps(g.y), padded_maps(g.x), g.taps()),
        weights{g.group_channels(), g.taps() * g.group_outputs(), false, g.taps() > 1} {
    int64_t size = weights.size(g.groups), numbers = weights.depth + g.taps();
    offset = (int64_t*)nl_scratch(2, (size + stage.size()) * sizeof(T) + numbers * sizeof(int64_t));
    weights.data = (T*)(offset + numbers);
    stage.copies = weights.data + size;
    order_taps(place());
    pack_weights();
  }

  int64_t* place() const { return offset + weights.depth; }

  int64_t residues() const { return Residue::number(g.y) * Residue::number(g.x); }
  Residue y_residue(int64_t r) const { return Residue(g.y, r / Residue::number(g.x)); }
  Residue x_residue(int64_t r) const { return Residue(g.x, r % Residue::number(g.x)); }

  // Groups the taps by residue: place[tap] is its number in that order; those that reach no position come last.
  void order_taps(int64_t* place) const {
    int64_t k = 0;
    for (int64_t t = 0; t < g.taps(); t++) place[t] = -1;
    for (int64_t r = 0; r < residues(); r++) {
      Residue y = y_residue(r), x = x_residue(r);
      for (int64_t t = 0; t < g.taps(); t++) {
        int64_t ky = t / g.x.kernel, kx = t % g.x.kernel;
        if (!y.reached_by(ky) || !x.reached_by(kx)) continue;
        int64_t at = y.first_read(ky, stage.y) * stage.row_stride + x.first_read(kx, stage.x);
        place[t] = k / g.group_outputs();
        for (int64_t o = 0; o < g.group_outputs(); o++) offset[k++] = at + o * stage.channel_stride;
      }
    }
    for (int64_t t = 0; t < g.taps(); t++) {
      if (place[t] < 0) place[t] = k / g.group_outputs(), k += g.group_outputs();
    }
  }

  void pack_weights() {
    if (!weights.packs) return weights.lie(contiguous<T>(call.in[1]), g.groups, 1, weights.lines);
    weights.pack_input(call.in[1], g.groups, [place = place()](int t) { return place[t]; });
  }

  void run() {
    for (int64_t first = 0; first < g.images; first += stage.chunk) {
      int64_t count = min_of(stage.chunk, g.images - first);
      stage.fill(first, count);
      if (leaves_gaps()) clear(first, count);
      int64_t k = 0;
      for (int64_t r = 0; r < residues(); r++) k += multiply(y_residue(r), x_residue(r), k, first, count);
      if (call.epilogue && !whole()) finish_images(first, count);
    }
  }

  // Whether no tap reaches the positions of some residue, whose sums are +0.
  bool leaves_gaps() const {
    for (int64_t r = 0; r < residues(); r++) {
      if (y_residue(r).taps() * x_residue(r).taps() == 0) return true;
    }
    return false;
  }

  // In one go, because positions of a residue are written one by one.
  void clear(int64_t first, int64_t count) const {
    const int64_t size = g.y.input * g.x.input;
    T* images = (T*)call.out[0].data + first * g.channels * size;
    parallel_for(count * g.channels, grain_of(size), [=](int64_t begin, int64_t end) {
      __builtin_memset(images + begin * size, 0, (end - begin) * size * sizeof(T));
    });
  }

  // With one residue, tiles of the product are rectangles of pixels.
  bool whole() const { return residues() == 1; }

  void finish_images(int64_t first, int64_t count) const {
    const int64_t plane = g.y.input * g.x.input;
    parallel_for(count, grain_of(g.channels * plane), [&](int64_t begin, int64_t end) {
      finish_tiles(call.epilogue, call.out[0], first, 0, g.channels, begin * plane, end * plane);
    });
  }

  // The product for the positions of one residue, whose taps begin at `k`; returns their extent in k.
  int64_t multiply(const Residue& y, const Residue& x, int64_t k, int64_t first, int64_t count) {
    const int64_t depth = y.taps() * x.taps() * g.group_outputs(), plane = g.y.input * g.x.input;
    if (depth == 0 && !whole()) return 0;
    weights.first_k = k;
    auto windows = stage.windows(first, y.count, x.count, g.group_outputs(), offset + k);
    Grid columns = {y.count, x.count, g.channels * plane, g.y.stride * g.x.input, g.x.stride};
    if (whole()) columns = {1, plane, g.channels * plane, 0, 1};
    T* data = (T*)call.out[0].data + first * g.channels * plane + y.begin * g.x.input + x.begin;
    Output<T> out = {data, g.group_channels() * plane, plane, columns};
    PixelProduct<T> product = {whole() ? call.epilogue : nullptr, call.out[0], first, g.groups, weights.lines};
    product.run(weights.operand(), {windows.fetch, &windows}, count * y.count * x.count, depth, out);
    return depth;
  }
};

int64_t elements(const View& v) { return v.shape[0] * v.shape[1] * v.shape[2] * v.shape[3]; }

// Where there are no results, or no weights: then every sum is +0. Returns whether that was all.
bool sums_of_nothing(const Call& call) {
  const View& out = call.out[0];
  const int64_t size = elements(out);
  if (size > 0 && elements(call.in[1]) > 0) return false;
  // Whatever the dtype and layout: +0 has no bit set, and a result lies in one piece.
  parallel_for(size * itemsize(out.dtype), kGrain,
               [&](int64_t begin, int64_t end) { __builtin_memset(out.data + begin, 0, end - begin); });
  if (size > 0) finish_tiles(call.epilogue, out, 0, 0, out.shape[1], 0, size / out.shape[1]);
  return true;
}

}  // namespace

int conv2d(const Call& call) {
  if (sums_of_nothing(call)) return kOk;
  const View &weight = call.in[1], &out = call.out[0];
  if (conv2d_geometry(call).depthwise() && conv2d_depthwise(call)) return kOk;
  const int tile = winograd_tile(out.dtype, weight.shape[1], weight.shape[0] / call.attr[6], out.shape[2], out.shape[3],
                                 weight.shape + 2, call.attr);
  if (tile > 1) {
    conv2d_winograd(call, tile);
  } else if (!conv2d_pixels(call) && !conv2d_taps(call) && !conv2d_direct(call)) {
    out.dtype == DType::f32 ? Forward<float>(call).run() : Forward<double>(call).run();
  }
  return kOk;
}

int conv2d_input(const Call& call) {
  if (sums_of_nothing(call)) return kOk;
  const View &weight = call.in[1], &out = call.out[0];
  if (conv2d_input_geometry(call).depthwise() && conv2d_depthwise_input(call)) return kOk;
  const int tile = winograd_tile_input(out.dtype, weight.shape[0] / call.attr[6], weight.shape[1], out.shape[2],
                                       out.shape[3], weight.shape + 2, call.attr);
  if (tile > 1) {
    conv2d_winograd_input(call, tile);
  } else if (!conv2d_pixels_input(call) && !conv2d_taps_input(call) && !conv2d_direct_input(call)) {
    out.dtype == DType::f32 ? InputGradient<float>(call).run() : InputGradient<double>(call).run();
  }
  return kOk;
}

}  // namespace nl::NL_ISA
