// conv.cpp: the rows conv2d and conv2d_input as implicit matrix products over staged images.
//
// Forward: [outputs, taps x channels] times windows [taps x channels, pixels]. Its gradient for the input is gathered:
// the pixels of one residue modulo the stride see the same taps, so each residue is a product of its own, of those taps
// only, and nothing is computed for taps that fall between strides.
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

  int64_t tap_offset(int64_t ky, int64_t kx) const {
    int64_t plane = y.phase(ky) * x.phases() + x.phase(kx);
    return plane * plane_size() + y.shift(ky) * x.phase_size() + x.shift(kx);
  }

  // Pixels of the output, and the points of a stage that tap (0, 0) sees at them.
  Grid pixels() const { return {y.output, x.output, image_size(), x.phase_size(), 1}; }

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

  // Panels gathered by pack(to, group, first row, rows) on all threads.
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
      int64_t image = j / r.pixels, stop = min_of(j1, (image + 1) * r.pixels), begin = image * r.pixels;
      r.epilogue->fn(r.epilogue->ctx, r.first_image + image, row + i0, row + i1, j - begin, stop - begin);
      j = stop;
    }
  }
};

// One tap of a panel of weights: rows of k = (tap, inner), inner fastest.
template <class T>
void pack_tap(const T* from, int64_t row_stride, int64_t inner_stride, int64_t rows, int64_t inner, T* to) {
  Slice slice = {0, 0, 0, 0, int(rows), 0, 0, kPackedRows<T>};
  for (int64_t k = 0; k < inner; k += kDepth) {
    slice.depth = int(min_of(kDepth, inner - k));
    const T* at = from + k * inner_stride;
    if (inner_stride == 1 && slice.depth >= kWidth<T>) {
      pack_transposed(at, row_stride, slice, to + k * kPackedRows<T>);
    } else {
      pack_strided(at, row_stride, inner_stride, slice, to + k * kPackedRows<T>);
    }
  }
}

template <class T>
void forward(const Call& call) {
  const View &x = call.in[0], &w = call.in[1], &out = call.out[0];
  Geometry g = geometry(x, w, out, call.attr);
  Stage<T> stage(g.y, g.x, g.channels, g.images);
  PackedWeights<T> weights = {nullptr, g.group_outputs(), g.taps() * g.group_channels()};
  weights.data = (T*)nl_scratch(0, weights.size(g.groups) * sizeof(T) + g.taps() * sizeof(int64_t));
  int64_t* tap_offset = (int64_t*)(weights.data + weights.size(g.groups));
  for (int64_t t = 0; t < g.taps(); t++) tap_offset[t] = stage.tap_offset(t / g.x.kernel, t % g.x.kernel);
  weights.fill(g.groups, [&](T* to, int64_t group, int64_t first, int64_t rows) {
    const T* from = (const T*)w.data + (group * g.group_outputs() + first) * w.strides[0];
    for (int64_t t = 0; t < g.taps(); t++, to += g.group_channels() * kPackedRows<T>) {
      const T* tap = from + t / g.x.kernel * w.strides[2] + t % g.x.kernel * w.strides[3];
      pack_tap(tap, w.strides[0], w.strides[1], rows, g.group_channels(), to);
    }
  });
  Windows<T, Grid, Taps> windows = {stage.data, g.group_channels() * stage.channel_size(), stage.pixels(),
                                    {tap_offset, g.group_channels(), stage.channel_size()}};
  for (int64_t first = 0; first < g.images; first += stage.chunk) {
    int64_t count = min_of(stage.chunk, g.images - first);
    stage.fill(x, first, count);
    PixelRectangles rectangles = {call.epilogue, first, g.group_outputs(), g.pixels()};
    Grid columns = {1, g.pixels(), g.outputs * g.pixels(), 0, 1};
    contract({g.groups, g.group_outputs(), count * g.pixels(), 0, weights.depth,
              {weights.fetch, &weights}, {windows.fetch, &windows},
              {(T*)out.data + first * g.outputs * g.pixels(), g.group_outputs() * g.pixels(), g.pixels(), columns},
              call.epilogue ? rectangles.finish : nullptr, &rectangles});
  }
}

// The input positions of one axis that see the same taps: those with (position + pad) % stride == residue.
struct Residue {
  int64_t begin, count;  // the positions begin, begin + stride, …

  Residue(const Axis& axis, int64_t residue) {
    begin = ((residue - axis.pad) % axis.stride + axis.stride) % axis.stride;
    count = begin < axis.input ? ceil_div(axis.input - begin, axis.stride) : 0;
  }
};

// Whether tap k reaches the positions of `residue`.
inline bool reaches(const Axis& axis, int64_t k, int64_t residue) { return k * axis.dilation % axis.stride == residue; }

// The maps of an axis, padded so far that every tap of every input position falls into them.
inline Axis padded_maps(const Axis& axis) {
  int64_t before = max_of(0, ((axis.kernel - 1) * axis.dilation - axis.pad) / axis.stride);
  return {axis.output, 1, before + (axis.input - 1 + axis.pad) / axis.stride + 1, 1, before, 1};
}

// The index in padded maps that tap k reads at the first position of its residue.
inline int64_t first_read(const Axis& axis, const Axis& maps, int64_t begin, int64_t k) {
  return maps.pad + (begin + axis.pad - k * axis.dilation) / axis.stride;
}

// The product of one residue.
template <class T>
struct Gathered {
  Residue y, x;
  int64_t taps;
  int64_t* tap_offset;
  int64_t* tap;  // their numbers in the kernel
  PackedWeights<T> weights;
};

template <class T>
struct InputGradient {
  const Call& call;
  const View &maps, &w, &out;
  Geometry g;
  Stage<T> stage;

  explicit InputGradient(const Call& c)
      : call(c), maps(c.in[0]), w(c.in[1]), out(c.out[0]), g(geometry(out, w, maps, c.attr)),
        stage(padded_maps(g.y), padded_maps(g.x), g.outputs, g.images) {}

  void run() {
    int64_t residues = g.y.stride * g.x.stride;
    int64_t weights_size = g.groups * row_panels(g.group_channels()) * kPackedRows<T> * g.taps() * g.group_outputs();
    char* memory = (char*)nl_scratch(0, weights_size * sizeof(T) + 2 * g.taps() * sizeof(int64_t));
    (void)residues, (void)memory;
  }
};

}  // namespace

int conv2d(const Call& call) {
  call.out[0].dtype == DType::f32 ? forward<float>(call) : forward<double>(call);
  return kOk;
}

}  // namespace nl::NL_ISA
