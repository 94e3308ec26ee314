// conv.cpp: the rows conv2d and conv2d_input as implicit matrix products over staged images.
//
// Forward: weights [outputs, taps x channels] times windows [taps x channels, pixels]. The gradient for the input is
// gathered: the positions of one residue modulo the stride see the same taps, so each residue is a product of its own, of
// those taps only, and nothing is computed for taps that fall between strides.
#include "conv.hpp"

namespace nl::NL_ISA {
namespace {

// Images copied into zero-padded planes, one for each phase of the stride: [image][channel][phase y][phase x][y][x].
template <class T>
struct Stage {
  Axis y, x;
  int64_t channels, chunk;  // images at a time
  T* data;

  Stage(const Axis& rows, const Axis& columns, int64_t channel_count, int64_t images)
      : y(rows), x(columns), channels(channel_count) {
    chunk = max_of(1, min_of(images, kStageBytes / max_of(1, image_size() * int64_t(sizeof(T)))));
    data = (T*)nl_scratch(2, (chunk * image_size() + 2 * kWidth<T>) * sizeof(T)) + kWidth<T>;
  }

  int64_t plane_size() const { return y.phase_size() * x.phase_size(); }
  int64_t channel_size() const { return y.phases() * x.phases() * plane_size(); }
  int64_t image_size() const { return channels * channel_size(); }

  // Where the window of a tap begins.
  int64_t tap_offset(int64_t ky, int64_t kx) const {
    int64_t plane = y.phase(ky) * x.phases() + x.phase(kx);
    return plane * plane_size() + y.shift(ky) * x.phase_size() + x.shift(kx);
  }

  void fill(const View& from, int64_t first, int64_t count) const {
    parallel_for(count * channels, grain_of(channel_size()), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        Image<T> image = image_of<T>(from, first + i / channels);
        image.data += i % channels * image.channel_stride;
        fill_channel(image, data + i * channel_size());
      }
    });
  }

  void fill_channel(const Image<T>& image, T* to) const {
    for (int64_t py = 0; py < y.phases(); py++) {
      for (int64_t px = 0; px < x.phases(); px++) {
        for (int64_t i = 0; i < y.phase_size(); i++, to += x.phase_size()) {
          int64_t row = y.phase_begin(py) + i * y.stride;
          bool inside = row >= 0 && row < y.input;
          copy_padded(image.data + (inside ? row : 0) * image.y_stride, image.x_stride, inside ? x.input : 0,
                      x.phase_begin(px), x.stride, x.phase_size(), to);
        }
      }
    }
  }
};

// Row panels of the weights of all groups, packed once: [group][panel][k][kPackedRows].
template <class T>
struct PackedWeights {
  T* data;
  int64_t rows, depth;  // of a group

  int64_t panel_size() const { return depth * kPackedRows<T>; }
  int64_t size(int64_t groups) const { return groups * row_panels(rows) * panel_size(); }
  T* panel(int64_t group, int64_t index) const { return data + (group * row_panels(rows) + index) * panel_size(); }

  static Panel<T> fetch(const void* source, const Slice& slice, T*) {
    const PackedWeights& w = *(const PackedWeights*)source;
    return {w.panel(slice.batch, slice.index) + slice.k * kPackedRows<T>, 1, kPackedRows<T>};
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
        stage(g.y, g.x, g.channels, g.images),
        weights{nullptr, g.group_outputs(), g.taps() * g.group_channels()} {
    int64_t size = weights.size(g.groups);
    weights.data = (T*)nl_scratch(0, size * sizeof(T) + 2 * weights.depth * sizeof(int64_t));
    offset = (int64_t*)(weights.data + size);
    pack_weights(offset + weights.depth);
  }

  // k runs over (tap, channel) but weights lie as (channel, tap): row_of[i] is the k of a row's element i.
  void pack_weights(int64_t* row_of) {
    for (int64_t t = 0, k = 0; t < g.taps(); t++) {
      int64_t tap = stage.tap_offset(t / g.x.kernel, t % g.x.kernel);
      for (int64_t c = 0; c < g.group_channels(); c++, k++) {
        offset[k] = tap + c * stage.channel_size();
        row_of[c * g.taps() + t] = k;
      }
    }
    const T* w = contiguous<T>(call.in[1]);
    int64_t depth = weights.depth;
    weights.fill(g.groups, [&](T* to, int64_t group, int64_t first, int64_t rows) {
      Slice slice = {0, 0, 0, 0, int(rows), int(depth), 0, kPackedRows<T>};
      pack_transposed(w + (group * g.group_outputs() + first) * depth, depth, slice, to, [=](int k) { return row_of[k]; });
    });
  }

  void run() const {
    Grid pixels = {g.y.output, g.x.output, stage.image_size(), stage.x.phase_size(), 1};
    Windows<T, Grid, Table> windows = {stage.data, g.group_channels() * stage.channel_size(), pixels, {offset}};
    for (int64_t first = 0; first < g.images; first += stage.chunk) {
      int64_t count = min_of(stage.chunk, g.images - first);
      stage.fill(call.in[0], first, count);
      PixelRectangles rectangles = {call.epilogue, first, g.group_outputs(), g.pixels()};
      Output<T> out = {(T*)call.out[0].data + first * g.outputs * g.pixels(), g.group_outputs() * g.pixels(), g.pixels(),
                       {1, g.pixels(), g.outputs * g.pixels(), 0, 1}};
      contract({g.groups, g.group_outputs(), count * g.pixels(), 0, weights.depth, {weights.fetch, &weights},
                {windows.fetch, &windows}, out, call.epilogue ? rectangles.finish : nullptr, &rectangles});
    }
  }
};

// ---- conv2d_input -----------------------------------------------------------------------------------------------

// The input positions of one axis with (position + pad) % stride == residue, and the taps that reach them.
struct Residue {
  const Axis& axis;
  int64_t residue, begin, count;  // the positions begin, begin + stride, …

  Residue(const Axis& a, int64_t r) : axis(a), residue(r) {
    begin = ((r - a.pad) % a.stride + a.stride) % a.stride;
    count = begin < a.input ? ceil_div(a.input - begin, a.stride) : 0;
  }

  bool reached_by(int64_t tap) const { return tap * axis.dilation % axis.stride == residue; }

  // The element of the padded maps that a tap reads at position `begin`.
  int64_t first_read(int64_t tap, const Axis& padded) const {
    return padded.pad + (begin + axis.pad - tap * axis.dilation) / axis.stride;
  }
};

// The maps of an axis, padded so far that whatever any tap reads falls into them.
inline Axis padded_maps(const Axis& axis) {
  int64_t before = max_of(0, ((axis.kernel - 1) * axis.dilation - axis.pad) / axis.stride);
  return {axis.output, 1, before + (axis.input - 1 + axis.pad) / axis.stride + 1, 1, before, 1};
}

template <class T>
struct InputGradient {
  const Call& call;
  Geometry g;
  Stage<T> stage;
  T* weights;  // packed, one residue after the other
  int64_t* offset;  // of each k of a residue in the stage
  int64_t* taps;  // the taps of a residue

  explicit InputGradient(const Call& c)
      : call(c),
        g(geometry(c.out[0], c.in[1], c.in[0], c.attr)),
        stage(padded_maps(g.y), padded_maps(g.x), g.outputs, g.images) {
    int64_t size = PackedWeights<T>{nullptr, g.group_channels(), g.taps() * g.group_outputs()}.size(g.groups);
    weights = (T*)nl_scratch(0, size * sizeof(T) + g.taps() * (g.group_outputs() + 1) * sizeof(int64_t));
    offset = (int64_t*)(weights + size);
    taps = offset + g.taps() * g.group_outputs();
  }

  void run() const {
    const T* w = contiguous<T>(call.in[1]);
    for (int64_t first = 0; first < g.images; first += stage.chunk) {
      int64_t count = min_of(stage.chunk, g.images - first);
      stage.fill(call.in[0], first, count);
      T* packed = weights;
      for (int64_t r = 0; r < g.y.stride * g.x.stride; r++) {
        packed += residue(Residue(g.y, r / g.x.stride), Residue(g.x, r % g.x.stride), w, packed, first, count);
      }
      if (call.epilogue && !whole()) finish_images(first, count);
    }
  }

  // With one residue, tiles of the product are rectangles of pixels.
  bool whole() const { return g.y.stride * g.x.stride == 1; }

  void finish_images(int64_t first, int64_t count) const {
    parallel_for(count, grain_of(g.channels * g.y.input * g.x.input), [&](int64_t begin, int64_t end) {
      for (int64_t i = first + begin; i < first + end; i++) {
        call.epilogue->fn(call.epilogue->ctx, i, 0, g.channels, 0, g.y.input * g.x.input);
      }
    });
  }

  // The product for the positions of one residue; returns the size of its packed weights.
  int64_t residue(const Residue& y, const Residue& x, const T* w, T* packed, int64_t first, int64_t count) const {
    int64_t tap_count = find_taps(y, x);
    PackedWeights<T> a = {packed, g.group_channels(), tap_count * g.group_outputs()};
    if (first == 0) pack_weights(a, w, tap_count);
    Grid positions = {y.count, x.count, stage.image_size(), stage.x.phase_size(), 1};
    Windows<T, Grid, Table> windows = {stage.data, g.group_outputs() * stage.channel_size(), positions, {offset}};
    int64_t plane = g.y.input * g.x.input;
    PixelRectangles rectangles = {call.epilogue, first, g.group_channels(), plane};
    Output<T> out = {(T*)call.out[0].data + first * g.channels * plane + y.begin * g.x.input + x.begin,
                     g.group_channels() * plane, plane,
                     {y.count, x.count, g.channels * plane, g.y.stride * g.x.input, g.x.stride}};
    if (whole()) out.columns = {1, plane, g.channels * plane, 0, 1};
    contract({g.groups, g.group_channels(), count * y.count * x.count, 0, a.depth, {a.fetch, &a},
              {windows.fetch, &windows}, out, call.epilogue && whole() ? rectangles.finish : nullptr, &rectangles});
    return a.size(g.groups);
  }

  int64_t find_taps(const Residue& y, const Residue& x) const {
    int64_t count = 0;
    for (int64_t t = 0; t < g.taps(); t++) {
      int64_t ky = t / g.x.kernel, kx = t % g.x.kernel;
      if (!y.reached_by(ky) || !x.reached_by(kx)) continue;
      int64_t at = y.first_read(ky, stage.y) * stage.x.phase_size() + x.first_read(kx, stage.x);
      for (int64_t o = 0; o < g.group_outputs(); o++) {
        offset[count * g.group_outputs() + o] = at + o * stage.channel_size();
      }
      taps[count++] = t;
    }
    return count;
  }

  // k runs over (tap, output); weights lie as (output, channel, tap).
  void pack_weights(const PackedWeights<T>& a, const T* w, int64_t tap_count) const {
    a.fill(g.groups, [&](T* to, int64_t group, int64_t first, int64_t rows) {
      for (int64_t o = 0; o < g.group_outputs(); o++) {
        const T* from = w + ((group * g.group_outputs() + o) * g.group_channels() + first) * g.taps();
        for (int64_t t = 0; t < tap_count; t++) {
          T* row = to + (t * g.group_outputs() + o) * kPackedRows<T>;
          for (int64_t c = 0; c < rows; c++) row[c] = from[c * g.taps() + taps[t]];
        }
      }
    });
  }
};

}  // namespace

int conv2d(const Call& call) {
  if (call.out[0].dtype == DType::f32) Forward<float>(call).run();
  else Forward<double>(call).run();
  return kOk;
}

int conv2d_input(const Call& call) {
  if (call.out[0].dtype == DType::f32) InputGradient<float>(call).run();
  else InputGradient<double>(call).run();
  return kOk;
}

}  // namespace nl::NL_ISA
