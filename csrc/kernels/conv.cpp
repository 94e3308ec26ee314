// conv.cpp: the rows conv2d and conv2d_input as implicit matrix products over staged images.
//
// Forward: weights [outputs, taps x channels] times windows [taps x channels, pixels]. The gradient for the input is
// gathered: the positions of one residue modulo the stride see the same taps, so each residue is a product of its own,
// of those taps only, and nothing is computed for taps that fall between strides.
#include "conv_depthwise.hpp"
#include "conv_window.hpp"

namespace nl::NL_ISA {
namespace {

// Row panels of the weights of all groups, packed once: [group][panel][k][kPackedRows]. A product may be of the k from
// `first_k` on.
template <class T>
struct PackedWeights {
  T* data;
  int64_t rows, depth;  // of a group
  int64_t first_k;

  int64_t panel_size() const { return depth * kPackedRows<T>; }
  int64_t size(int64_t groups) const { return groups * row_panels(rows) * panel_size(); }
  T* panel(int64_t group, int64_t index) const { return data + (group * row_panels(rows) + index) * panel_size(); }

  static Panel<T> fetch(const void* source, const Slice& slice, T*) {
    const PackedWeights& w = *(const PackedWeights*)source;
    return {w.panel(slice.batch, slice.index) + (w.first_k + slice.k) * kPackedRows<T>, 1, kPackedRows<T>};
  }

  // Panels written by pack(to, group, first row, rows) on all threads.
  template <class Pack>
  void fill(int64_t groups, const Pack& pack) const {
    int64_t panels = row_panels(rows);
    parallel_for(groups * panels, grain_of(panel_size()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        int64_t p = i % panels, first = row_panel_begin(rows, p);
        pack(panel(i / panels, p), i / panels, first, row_panel_begin(rows, p + 1) - first);
      }
    });
  }
};

// Reports finished rectangles by image and channel.
struct PixelRectangles {
  const Epilogue* epilogue;
  int64_t first_image, group_rows, pixels;

  static void finish(const void* owner, int64_t group, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    const PixelRectangles& r = *(const PixelRectangles*)owner;
    int64_t row = group * r.group_rows;
    for (int64_t j = j0; j < j1;) {
      int64_t image = j / r.pixels, begin = image * r.pixels, stop = min_of(j1, begin + r.pixels);
      r.epilogue->fn(r.epilogue->ctx, r.first_image + image, row + i0, row + i1, j - begin, stop - begin);
      j = stop;
    }
  }
};

// ---- conv2d -----------------------------------------------------------------------------------------------------

template <class T>
struct Forward {
  const Call& call;
  Geometry g;
  Stage<T> stage;
  PackedWeights<T> weights;
  int64_t* offset;  // of each k in the stage

  explicit Forward(const Call& c)
      : call(c),
        g(geometry(c.in[0], c.in[1], c.out[0], c.attr)),
        stage(c.in[0], g.y, g.x, g.taps()),
        weights{nullptr, g.group_outputs(), g.taps() * g.group_channels(), 0} {
    int64_t size = weights.size(g.groups);
    offset = (int64_t*)nl_scratch(2, (size + stage.size()) * sizeof(T) + 2 * weights.depth * sizeof(int64_t));
    weights.data = (T*)(offset + 2 * weights.depth);
    stage.copies = weights.data + size;
    order_taps(offset + weights.depth);
    pack_weights(offset + weights.depth);
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

  void pack_weights(const int64_t* row_of) const {
    const T* w = contiguous<T>(call.in[1]);
    const int64_t depth = weights.depth;
    weights.fill(g.groups, [&](T* to, int64_t group, int64_t first, int64_t rows) {
      Slice slice = {0, 0, 0, 0, int(rows), int(depth), 0, kPackedRows<T>};
      const T* from = w + (group * g.group_outputs() + first) * depth;
      pack_transposed(from, depth, depth, slice, to, [=](int k) { return row_of[k]; });
    });
  }

  void run() const {
    for (int64_t first = 0; first < g.images; first += stage.chunk) {
      int64_t count = min_of(stage.chunk, g.images - first);
      stage.fill(first, count);
      auto windows = stage.windows(first, g.y.output, g.x.output, g.group_channels(), offset);
      PixelRectangles rectangles = {call.epilogue, first, g.group_outputs(), g.pixels()};
      Grid columns = {1, g.pixels(), g.outputs * g.pixels(), 0, 1};
      T* data = (T*)call.out[0].data + first * g.outputs * g.pixels();
      Output<T> out = {data, g.group_outputs() * g.pixels(), g.pixels(), columns};
      Operand<T> a = {weights.fetch, &weights}, b = {windows.fetch, &windows};
      auto finish = call.epilogue ? rectangles.finish : nullptr;
      int64_t pixels = count * g.pixels();
      contract({g.groups, g.group_outputs(), pixels, 0, weights.depth, false, a, b, out, finish, &rectangles});
    }
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
        g(geometry(c.out[0], c.in[1], c.in[0], c.attr)),
        stage(c.in[0], padded_maps(g.y), padded_maps(g.x), g.taps()),
        weights{nullptr, g.group_channels(), g.taps() * g.group_outputs(), 0} {
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
  void pack_weights() const {
    const T* w = contiguous<T>(call.in[1]);
    const int64_t* place = this->place();
    const int64_t taps = g.taps(), outputs = g.group_outputs();
    const T* end = w + g.outputs * g.group_channels() * taps;
    weights.fill(g.groups, [=](T* to, int64_t group, int64_t first, int64_t rows) {
      Slice slice = {0, 0, 0, 0, int(rows), int(taps), 0, kPackedRows<T>};
      for (int64_t o = 0; o < outputs; o++) {
        const T* from = w + ((group * outputs + o) * weights.rows + first) * taps;
        int64_t readable = end - from - (rows - 1) * taps;
        pack_transposed(from, taps, readable, slice, to, [=](int t) { return place[t] * outputs + o; });
      }
    });
  }

  void run() const {
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
  int64_t multiply(const Residue& y, const Residue& x, int64_t k, int64_t first, int64_t count) const {
    const int64_t depth = y.taps() * x.taps() * g.group_outputs(), plane = g.y.input * g.x.input;
    PackedWeights<T> taps = weights;
    taps.first_k = k;
    auto windows = stage.windows(first, y.count, x.count, g.group_outputs(), offset + k);
    PixelRectangles rectangles = {call.epilogue, first, g.group_channels(), plane};
    Grid columns = {y.count, x.count, g.channels * plane, g.y.stride * g.x.input, g.x.stride};
    if (whole()) columns = {1, plane, g.channels * plane, 0, 1};
    T* data = (T*)call.out[0].data + first * g.channels * plane + y.begin * g.x.input + x.begin;
    Output<T> out = {data, g.group_channels() * plane, plane, columns};
    Operand<T> a = {taps.fetch, &taps}, b = {windows.fetch, &windows};
    auto finish = call.epilogue && whole() ? rectangles.finish : nullptr;
    int64_t pixels = count * y.count * x.count;
    contract({g.groups, g.group_channels(), pixels, 0, depth, false, a, b, out, finish, &rectangles});
    return depth;
  }
};

}  // namespace

int conv2d(const Call& call) {
  if (is_depthwise(call.in[0], call.in[1], call.attr)) return conv2d_depthwise(call), kOk;
  call.out[0].dtype == DType::f32 ? Forward<float>(call).run() : Forward<double>(call).run();
  return kOk;
}

int conv2d_input(const Call& call) {
  if (is_depthwise(call.out[0], call.in[1], call.attr)) return conv2d_depthwise_input(call), kOk;
  call.out[0].dtype == DType::f32 ? InputGradient<float>(call).run() : InputGradient<double>(call).run();
  return kOk;
}

}  // namespace nl::NL_ISA
