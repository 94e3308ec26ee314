// conv.cpp: the rows conv2d and conv2d_input as implicit matrix products over staged images.
//
// Forward: weights [outputs, taps x channels] times windows [taps x channels, pixels]. The gradient for the input is
// gathered: the positions of one residue modulo the stride see the same taps, so each residue is a product of its own,
// of those taps only, and nothing is computed for taps that fall between strides.
#include "../base/numerics.hpp"
#include "conv_depthwise.hpp"
#include "conv_window.hpp"
#include "conv_winograd.hpp"

namespace nl::NL_ISA {
namespace {

// Whether a product of `lines` weights and `pixels` is better turned, with vectors of weights: on small maps vectors
// of pixels are not full.
template <class T>
bool is_turned(int64_t lines, int64_t pixels) {
  return lines >= kTileColumns<T> && 16 * pixels < 15 * ceil_div(pixels, kWidth<T>) * kWidth<T>;
}

// The weights of all groups as an operand. Those of one tap are a matrix, fetched like any other. Those of several are
// packed once: [group][panel][k][pitch]. Panels are of rows, or of columns where the product is turned; a product may
// be of the k from `first_k` on.
template <class T>
struct Weights {
  int64_t lines, depth;  // of a group
  bool turned, packs;
  T* data = nullptr;
  Walk<2> groups = {};
  Matrix<T> matrix = {};
  int64_t first_k = 0;

  int64_t pitch() const { return turned ? kTileColumns<T> : kPackedRows<T>; }
  int64_t panels() const { return turned ? ceil_div(lines, pitch()) : row_panels(lines); }
  int64_t begin(int64_t p) const { return turned ? min_of(p * pitch(), lines) : row_panel_begin(lines, p); }
  int64_t panel_size() const { return depth * pitch(); }
  int64_t size(int64_t groups) const { return packs ? groups * panels() * panel_size() : 0; }

  // Reads weights that lie in memory, line by line or k by k; for this weight stays where it is.
  void lie(const T* w, int64_t count, int64_t line_stride, int64_t step) {
    groups.push_axis(count, {lines * depth, lines * depth});
    matrix = {w, lines, line_stride, step, nullptr, 0, false};
  }

  Operand<T> operand() {
    if (packs) return {fetch, this};
    matrix.batches = &groups;
    return {matrix.fetch, &matrix};
  }

  static Panel<T> fetch(const void* source, const Slice& slice, T*) {
    const Weights& w = *(const Weights*)source;
    T* panel = w.data + (slice.batch * w.panels() + slice.index) * w.panel_size();
    return {panel + (w.first_k + slice.k) * w.pitch(), 1, w.pitch()};
  }

  // Panels written by pack(to, group, slice) on all threads; the slice says which lines.
  template <class Pack>
  void fill(int64_t count, const Pack& pack) const {
    parallel_for(count * panels(), grain_of(panel_size()), [&](int64_t first, int64_t stop) {
      for (int64_t i = first; i < stop; i++) {
        int64_t p = i % panels();
        Slice slice = {i / panels(), p, begin(p), 0, int(begin(p + 1) - begin(p)), int(depth), 0, int(pitch())};
        pack(data + i * panel_size(), slice);
      }
    });
  }
};

// A product of weights and pixels of some images, as it is or turned.
template <class T>
struct PixelProduct {
  const Epilogue* epilogue;                          // on finished rectangles
  int64_t first_image, groups, group_lines, pixels;  // pixels of an image
  bool turned;

  static void finish(const void* owner, int64_t group, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    const PixelProduct& p = *(const PixelProduct*)owner;
    if (p.turned) {
      p.finish_pixels(group, j0, j1, i0, i1);
    } else {
      p.finish_pixels(group, i0, i1, j0, j1);
    }
  }

  // By image and channel.
  void finish_pixels(int64_t group, int64_t i0, int64_t i1, int64_t j0, int64_t j1) const {
    int64_t row = group * group_lines;
    for (int64_t j = j0; j < j1;) {
      int64_t image = j / pixels, begin = image * pixels, stop = min_of(j1, begin + pixels);
      epilogue->fn(epilogue->ctx, first_image + image, row + i0, row + i1, j - begin, stop - begin);
      j = stop;
    }
  }

  // `out` has a row for each line of a group; `count` pixels in all.
  void run(Operand<T> weights, Operand<T> windows, int64_t count, int64_t depth, const Output<T>& out) const {
    auto finish = epilogue ? PixelProduct::finish : nullptr;
    if (!turned) return contract({groups, group_lines, count, 0, depth, false, weights, windows, out, finish, this});
    Output<T> across = {out.data, out.batch_stride, 1, {1, group_lines, 0, 0, out.row_stride}};
    contract({groups, count, group_lines, 0, depth, false, windows, weights, across, finish, this});
  }
};

// ---- conv2d -----------------------------------------------------------------------------------------------------

template <class T>
struct Forward {
  const Call& call;
  Geometry g;
  Stage<T> stage;
  Weights<T> weights;
  int64_t* offset;  // of each k in the stage

  explicit Forward(const Call& c)
      : call(c),
        g(geometry(c.in[0], c.in[1], c.out[0], c.attr)),
        stage(c.in[0], g.y, g.x, g.taps()),
        weights{g.group_outputs(), g.taps() * g.group_channels(),
                g.images == 1 && is_turned<T>(g.group_outputs(), g.pixels()), g.taps() > 1 || call.kept != nullptr} {
    int64_t size = weights.size(g.groups), in_scratch = call.kept ? 0 : size;
    offset = (int64_t*)nl_scratch(2, (in_scratch + stage.size()) * sizeof(T) + 2 * weights.depth * sizeof(int64_t));
    stage.copies = (T*)(offset + 2 * weights.depth) + in_scratch;
    weights.data = call.kept ? (T*)nl_keep(call.kept, size * sizeof(T)) : stage.copies - size;
    order_taps(offset + weights.depth);
    if (call.kept && call.kept->ready) return;
    pack_weights(offset + weights.depth);
    if (call.kept) call.kept->ready = true;
  }

  // k runs over (tap, channel) but weights lie as (channel, tap): row_of[i] is the k of a row's element i.
  void order_taps(int64_t* row_of) const {
    for (int64_t t = 0, k = 0; t < g.taps(); t++) {
      int64_t tap = stage.tap_offset(t / g.x.kernel, t % g.x.kernel);
      for (int64_t c = 0; c < g.group_channels(); c++, k++) {
        offset[k] = tap + c * stage.channel_stride;
        row_of[c * g.taps() + t] = k;
      }
    }
  }

  void pack_weights(const int64_t* row_of) {
    const T* w = contiguous<T>(call.in[1]);
    const int64_t depth = weights.depth;
    if (!weights.packs) return weights.lie(w, g.groups, depth, 1);
    weights.fill(g.groups, [&](T* to, const Slice& slice) {
      const T* from = w + (slice.batch * weights.lines + slice.line) * depth;
      pack_transposed(from, depth, depth, slice, to, [=](int k) { return row_of[k]; });
    });
  }

  void run() {
    for (int64_t first = 0; first < g.images; first += stage.chunk) {
      int64_t count = min_of(stage.chunk, g.images - first);
      stage.fill(first, count);
      auto windows = stage.windows(first, g.y.output, g.x.output, g.group_channels(), offset);
      Grid columns = {1, g.pixels(), g.outputs * g.pixels(), 0, 1};
      T* data = (T*)call.out[0].data + first * g.outputs * g.pixels();
      Output<T> out = {data, g.group_outputs() * g.pixels(), g.pixels(), columns};
      PixelProduct<T> product = {call.epilogue, first, g.groups, weights.lines, g.pixels(), weights.turned};
      product.run(weights.operand(), {windows.fetch, &windows}, count * g.pixels(), weights.depth, out);
    }
  }
};

// ---- conv2d_input -----------------------------------------------------------------------------------------------

template <class T>
struct InputGradient {
  const Call& call;
  Geometry g;
  Stage<T> stage;
  Weights<T> weights;  // k runs over (residue, tap, output)
  int64_t* offset;     // of each k in the stage

  explicit InputGradient(const Call& c)
      : call(c),
        g(geometry(c.out[0], c.in[1], c.in[0], c.attr)),
        stage(c.in[0], padded_maps(g.y), padded_maps(g.x), g.taps()),
        weights{g.group_channels(), g.taps() * g.group_outputs(),
                g.images == 1 && whole() && is_turned<T>(g.group_channels(), g.y.input * g.x.input), g.taps() > 1} {
    int64_t size = weights.size(g.groups), numbers = weights.depth + g.taps();
    offset = (int64_t*)nl_scratch(2, (size + stage.size()) * sizeof(T) + numbers * sizeof(int64_t));
    weights.data = (T*)(offset + numbers);
    stage.copies = weights.data + size;
    order_taps(place());
    pack_weights();
  }

  int64_t* place() const { return offset + weights.depth; }

  int64_t residues() const { return g.y.stride * g.x.stride; }
  Residue y_residue(int64_t r) const { return Residue(g.y, r / g.x.stride); }
  Residue x_residue(int64_t r) const { return Residue(g.x, r % g.x.stride); }

  // Groups the taps by residue: place[tap] is its number in that order.
  void order_taps(int64_t* place) const {
    int64_t k = 0;
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
  }

  // Weights lie as (output, channel, tap).
  void pack_weights() {
    const T* w = contiguous<T>(call.in[1]);
    if (!weights.packs) return weights.lie(w, g.groups, 1, weights.lines);
    const int64_t* place = this->place();
    const int64_t taps = g.taps(), outputs = g.group_outputs();
    const T* end = w + g.outputs * g.group_channels() * taps;
    weights.fill(g.groups, [=](T* to, const Slice& lines) {
      Slice slice = lines;
      slice.depth = int(taps);
      for (int64_t o = 0; o < outputs; o++) {
        const T* from = w + ((slice.batch * outputs + o) * weights.lines + slice.line) * taps;
        int64_t readable = end - from - (slice.count - 1) * taps;
        pack_transposed(from, taps, readable, slice, to, [=](int t) { return place[t] * outputs + o; });
      }
    });
  }

  void run() {
    for (int64_t first = 0; first < g.images; first += stage.chunk) {
      int64_t count = min_of(stage.chunk, g.images - first);
      stage.fill(first, count);
      int64_t k = 0;
      for (int64_t r = 0; r < residues(); r++) k += multiply(y_residue(r), x_residue(r), k, first, count);
      if (call.epilogue && !whole()) finish_images(first, count);
    }
  }

  // With one residue, tiles of the product are rectangles of pixels.
  bool whole() const { return residues() == 1; }

  void finish_images(int64_t first, int64_t count) const {
    parallel_for(count, grain_of(g.channels * g.y.input * g.x.input), [&](int64_t begin, int64_t end) {
      for (int64_t i = first + begin; i < first + end; i++) {
        call.epilogue->fn(call.epilogue->ctx, i, 0, g.channels, 0, g.y.input * g.x.input);
      }
    });
  }

  // The product for the positions of one residue, whose taps begin at `k`; returns their extent in k.
  int64_t multiply(const Residue& y, const Residue& x, int64_t k, int64_t first, int64_t count) {
    const int64_t depth = y.taps() * x.taps() * g.group_outputs(), plane = g.y.input * g.x.input;
    weights.first_k = k;
    auto windows = stage.windows(first, y.count, x.count, g.group_outputs(), offset + k);
    Grid columns = {y.count, x.count, g.channels * plane, g.y.stride * g.x.input, g.x.stride};
    if (whole()) columns = {1, plane, g.channels * plane, 0, 1};
    T* data = (T*)call.out[0].data + first * g.channels * plane + y.begin * g.x.input + x.begin;
    Output<T> out = {data, g.group_channels() * plane, plane, columns};
    PixelProduct<T> product = {
        whole() ? call.epilogue : nullptr, first, g.groups, weights.lines, plane, weights.turned};
    product.run(weights.operand(), {windows.fetch, &windows}, count * y.count * x.count, depth, out);
    return depth;
  }
};

}  // namespace

int conv2d(const Call& call) {
  if (is_depthwise(call.in[0], call.in[1], call.attr)) return conv2d_depthwise(call), kOk;
  const View &weight = call.in[1], &out = call.out[0];
  const int64_t groups = call.attr[6], outputs = weight.shape[0] / groups;
  if (is_winograd(out.dtype, weight.shape[1], outputs, out.shape[2], out.shape[3], weight.shape + 2, call.attr)) {
    return conv2d_winograd(call), kOk;
  }
  out.dtype == DType::f32 ? Forward<float>(call).run() : Forward<double>(call).run();
  return kOk;
}

int conv2d_input(const Call& call) {
  if (is_depthwise(call.out[0], call.in[1], call.attr)) return conv2d_depthwise_input(call), kOk;
  const View &weight = call.in[1], &out = call.out[0];
  const int64_t groups = call.attr[6], maps = weight.shape[0] / groups;
  if (is_winograd(out.dtype, maps, weight.shape[1], out.shape[2], out.shape[3], weight.shape + 2, call.attr)) {
    return conv2d_winograd_input(call), kOk;
  }
  out.dtype == DType::f32 ? InputGradient<float>(call).run() : InputGradient<double>(call).run();
  return kOk;
}

}  // namespace nl::NL_ISA
