// conv_direct.cpp: convolutions of several taps from staged rows, and of one tap on small maps.
//
// A unit is some rows of the result of one image. The rows of the image that it sees are copied once, between zeros and
// apart by their place within a stride, so that a tap of neighbouring pixels reads neighbouring elements. Where rows of
// the result fill vectors, the micro-kernel takes pixels where they lie, by a list of offsets. Elsewhere pixels are
// packed, to be taken one by one against vectors of outputs: 49 or 196 of them fill tiles of 14 lines.
#include "conv_direct.hpp"

#include "conv_packed.hpp"
#include "conv_window.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kFewestPixels = 4 * kTileRows, kMostPixels = 2048;  // of a unit; each reads all weights

// Whether a product of `lines` of weights, `depth` of each, and a row of `pixels` is better turned, pixels one by one
// against vectors of weights: where that fills vectors better, which costs a transpose of the result, and `packing`, in
// products of vectors.
template <class T>
bool is_turned(int64_t lines, int64_t depth, int64_t pixels, int64_t packing) {
  constexpr int W = kWidth<T>, kTranspose = 48;  // as much as so many k
  return ceil_div(lines, W) * pixels * (depth + kTranspose) + packing < ceil_div(pixels, W) * lines * depth;
}

template <class T>
struct Direct {
  const View &images, &result;
  const Epilogue* epilogue;
  int64_t channels;  // of a group
  Axis y, x;
  bool in_place;  // one tap that sees all of an image, which is one row then: nothing has to be staged
  PackedWeights<T> weights;
  int64_t* offset = nullptr;  // of each k in the staged rows
  int64_t* place = nullptr;   // of each staged row in the image, for the first unit
  // Divided once.
  int64_t row_step = y.phases();  // from what a row of the result sees to what the next one does, in staged rows
  int64_t row_pitch = x.phases() * phase_pitch();

  int64_t groups() const { return images.shape[1] / channels; }
  const T* first_channel(int64_t image, int64_t group) const {
    return (const T*)images.data + image * images.strides[0] + group * channels * images.strides[1];
  }
  int64_t pixels() const { return y.output * x.output; }

  // Whether channels are adjacent, whole vectors of them.
  bool by_pixels() const { return channels_last(images) && channels % kWidth<T> == 0; }

  bool reads(const T* vector) const { return !in_place || vector + kWidth<T> <= Memory<T>(images).end; }

  // ---- the staged rows of a unit: [channel][y][phase of y][phase of x][x] ----

  int64_t phase_pitch() const { return ceil_div(x.output, kTileColumns<T>) * kTileColumns<T> + x.shift(x.kernel - 1); }
  // What tap k of y sees at the first row of the result, and how many rows all taps see at `count` of them.
  int64_t first_seen(int64_t k) const { return y.shift(k) * row_step + y.phase(k); }
  int64_t rows_seen(int64_t count) const { return (count - 1) * row_step + first_seen(y.kernel - 1) + 1; }
  // An odd number of cache lines, so that channels spread over the sets of L1.
  int64_t channel_pitch(int64_t count) const {
    constexpr int64_t kLine = 64 / sizeof(T);
    return (ceil_div(rows_seen(count) * row_pitch, kLine) | 1) * kLine;
  }
  int64_t staged_size(int64_t count) const {
    return in_place ? 0 : channels * channel_pitch(count) + 2 * kTileColumns<T>;
  }
  int64_t packed_size(int64_t count) const {
    return weights.turned ? row_panels(count * x.output) * weights.depth * kPackedRows<T> : 0;
  }

  // The offset of each k, and the staged rows; k runs over taps in order, channel fastest. A flipped kernel has its
  // taps the other way round.
  void list(int64_t count, bool flipped) {
    for (int64_t i = 0; i < rows_seen(count); i++)
      place[i] = i < row_step ? y.phase_begin(i) : place[i - row_step] + y.stride;
    for (int64_t t = 0, k = 0; t < y.kernel * x.kernel; t++) {
      int64_t ky = t / x.kernel, kx = t % x.kernel;
      if (flipped) ky = y.kernel - 1 - ky, kx = x.kernel - 1 - kx;
      const int64_t tap = first_seen(ky) * row_pitch + x.phase(kx) * phase_pitch() + x.shift(kx);
      const int64_t pitch = in_place ? images.strides[1] : channel_pitch(count);
      for (int64_t c = 0; c < channels; c++) offset[k++] = tap + c * pitch;
    }
  }

  // ---- units ----

  struct Unit {
    const Direct& conv;
    int64_t image, group, begin, end;  // rows of the result
    int64_t channel_pitch;
    int64_t parts;  // into which threads cut the pixels
    T* packed;
    const T* staged;

    int64_t pixels() const { return (end - begin) * conv.x.output; }
    // Of the result, for line `line` of the group.
    T* out(int64_t line) const {
      const int64_t channel = image * conv.result.shape[1] + group * conv.weights.lines + line;
      return (T*)conv.result.data + channel * conv.pixels() + begin * conv.x.output;
    }

    void run() const {
      const int64_t work = conv.rows_seen(end - begin) * conv.row_pitch, each = conv.by_pixels() ? kWidth<T> : 1;
      parallel_for(conv.in_place ? 0 : conv.channels / each, grain_of(work * each), [=](int64_t first, int64_t stop) {
        for (int64_t c = first * each; c < stop * each; c += each) {
          T* rows = (T*)staged + c * channel_pitch;
          conv.by_pixels() ? stage_pixels(c, rows) : stage(c, rows);
        }
      });
      if (!conv.weights.turned) {
        parallel_for(conv.weights.panels(), 1, [=](int64_t first, int64_t stop) { multiply(first, stop); });
        return;
      }
      parallel_for(row_panels(pixels()), grain_of(conv.weights.depth * kTileRows), [=](int64_t first, int64_t stop) {
        for (int64_t p = first; p < stop; p++) pack(p);
      });
      parallel_for(conv.weights.panels() * parts, 1, [=](int64_t first, int64_t stop) {
        for (int64_t i = first; i < stop; i++) multiply_turned(i / parts, i % parts);
        if (finishes_rows()) finish(conv.weights.begin(first), conv.weights.begin(stop), 0, pixels());
      });
    }

    // Whether the epilogue waits for all panels of a thread: with channels last it then has longer runs.
    bool finishes_rows() const { return parts == 1 && channels_last(conv.result); }

    void stage(int64_t c, T* rows) const {
      const View& v = conv.images;
      const Axis &y = conv.y, &x = conv.x;
      const T* channel = conv.first_channel(image, group) + c * v.strides[1];
      const int64_t seen = conv.rows_seen(end - begin);
      for (int64_t px = 0; px < x.phases(); px++) {
        const PaddedRow<T> padded(x.input, x.phase_begin(px), x.stride, x.phase_size());
        T* to = rows + px * conv.phase_pitch();
        for (int64_t i = 0; i < seen; i++, to += conv.row_pitch) {
          const int64_t row = begin * y.stride + conv.place[i];
          const bool inside = row >= 0 && row < y.input;
          inside ? padded.copy(channel + row * v.strides[2], v.strides[3], to) : padded.clear(to);
        }
      }
    }

    // A vector of channels that are adjacent, from `c` on: row by row apart first.
    void stage_pixels(int64_t c, T* rows) const {
      const View& v = conv.images;
      const Axis &y = conv.y, &x = conv.x;
      constexpr int W = kWidth<T>;
      const int64_t pitch = ceil_div(x.input, W) * W, seen = conv.rows_seen(end - begin);
      T* apart = (T*)nl_scratch(1, W * pitch * int64_t(sizeof(T)));
      for (int64_t i = 0; i < seen; i++, rows += conv.row_pitch) {
        const int64_t row = begin * y.stride + conv.place[i];
        const bool inside = row >= 0 && row < y.input;
        if (inside) put_apart(conv.first_channel(image, group) + c + row * v.strides[2], apart, pitch);
        for (int64_t px = 0; px < x.phases(); px++) {
          const PaddedRow<T> padded(x.input, x.phase_begin(px), x.stride, x.phase_size());
          T* to = rows + px * conv.phase_pitch();
          for (int64_t l = 0; l < W; l++, to += channel_pitch) {
            inside ? padded.copy(apart + l * pitch, 1, to) : padded.clear(to);
          }
        }
      }
    }

    // A row of pixels, W channels of each, as W rows of pixels.
    void put_apart(const T* pixels, T* to, int64_t pitch) const {
      using V = typename Simd<T>::V;
      constexpr int W = kWidth<T>;
      const int64_t width = conv.x.input, stride = conv.images.strides[3];
      for (int64_t j = 0; j < width; j += W) {
        V square[W];
#pragma GCC unroll 16
        for (int r = 0; r < W; r++) square[r] = load<V>(pixels + min_of(j + r, width - 1) * stride);
        transpose(square);
#pragma GCC unroll 16
        for (int r = 0; r < W; r++) store(to + r * pitch + j, square[r]);
      }
    }

    const T* staged_at(int64_t row, int64_t column) const {
      return staged + row * conv.row_step * conv.row_pitch + column;
    }

    // Whether results are worth asking for: from memory, and while sums are long enough for them to come. A 7x7 stem of
    // 16 images is 1.2 times as fast; with 27 products an element it was 0.9 times.
    bool is_far() const {
      const int64_t bytes = conv.result.shape[0] * conv.result.shape[1] * conv.pixels() * int64_t(sizeof(T));
      return bytes >= kFarBytes && conv.weights.depth >= 4 * kTileRows;
    }

    // Vectors of pixels times lines of outputs, panels [first, stop) of them, one after another: planes are written in
    // the order of memory, as many at a time as a panel has lines.
    void multiply(int64_t first, int64_t stop) const {
      const int64_t columns = conv.x.output, plane = conv.pixels();
      const bool far = is_far();
      for (int64_t p = first; p < stop; p++) {
        const int64_t line = conv.weights.begin(p), lines = conv.weights.begin(p + 1) - line;
        for (int64_t i = 0; i < end - begin; i++) {
          for (int64_t j = 0; j < columns; j += kTileColumns<T>) {
            const int64_t count = min_of(kTileColumns<T>, columns - j);
            Panel<T> b = {staged_at(i, j), 1, 0, conv.offset};
            T* to = out(line) + i * columns + j;
            if (fills_tile<T>(count)) {
              b.far = far;
              sum(lines, count, panel(p), b, to, plane);
            } else {
              T part[kTileRows * kTileColumns<T>];
              sum(lines, count, panel(p), b, part, kTileColumns<T>);
              for (int64_t l = 0; l < lines; l++) copy_line(part + l * kTileColumns<T>, count, to + l * plane);
            }
          }
        }
      }
      finish(conv.weights.begin(first), conv.weights.begin(stop), 0, pixels());
    }

    // Through all of k, a block at a time.
    void sum(int64_t rows, int64_t columns, Panel<T> a, Panel<T> b, T* to, int64_t pitch) const {
      const auto kernel = micro_kernel(T(), int(rows), int(columns), PanelKind::listed);
      for (int64_t k = 0; k < conv.weights.depth; k += kDepth) {
        kernel(min_of(kDepth, conv.weights.depth - k), a, b, to, pitch, k > 0 ? to : nullptr, pitch);
        a.data += kDepth * a.step;
        b.at += kDepth;
      }
    }

    Panel<T> panel(int64_t p) const {
      const int64_t number = group * conv.weights.panels() + p;
      return {conv.weights.data + number * conv.weights.panel_size(), 1, conv.weights.pitch()};
    }

    // Pixels one by one times vectors of outputs. Packed, [panel][k][pixel], pixels of a panel share a cache line.
    void pack(int64_t p) const {
      const int64_t first = row_panel_begin(pixels(), p);
      const int count = int(row_panel_begin(pixels(), p + 1) - first);
      const Grid grid = {end - begin, conv.x.output, 0, conv.row_step * conv.row_pitch, 1};
      int64_t line[kTileRows];
      offsets_of(grid, first, count, line);
      T* to = packed + p * conv.weights.depth * kPackedRows<T>;
      // The last channel may end where its memory does.
      const int64_t depth = conv.weights.depth, whole = conv.in_place ? depth - 1 : depth;
      const Slice slice = {0, 0, 0, 0, count, int(whole), count, kPackedRows<T>};
      auto readable = [&](const Runs<T>& runs) { return conv.reads(staged + runs.begin[0] + conv.offset[whole - 1]); };
      for (int i = 0; i < count; i += kWidth<T>) {
        const int lanes = int(min_of(kWidth<T>, count - i));
        if (whole > 0) pack_lines(staged, line + i, lanes, conv.offset, slice, to + i, readable);
        for (int64_t k = whole; k < depth; k++) {
          for (int l = i; l < i + lanes; l++) to[k * kPackedRows<T> + l] = staged[line[l] + conv.offset[k]];
        }
      }
    }

    // Panel p of the weights with a part of the pixels.
    void multiply_turned(int64_t p, int64_t part) const {
      const int64_t all = row_panels(pixels()), first = part * all / parts, stop = (part + 1) * all / parts;
      const int64_t begin = row_panel_begin(pixels(), first), count = row_panel_begin(pixels(), stop) - begin;
      const int64_t depth = conv.weights.depth, lines = conv.weights.begin(p + 1) - conv.weights.begin(p);
      T* sums = (T*)nl_scratch(1, count * kTileColumns<T> * sizeof(T));
      for (int64_t k = 0; k < depth; k += kDepth) {  // a block of weights stays in L1
        Panel<T> b = panel(p);
        b.data += k * b.step;
        for (int64_t t = first; t < stop; t++) {
          b.fetch_next(b.data + kDepth * b.step, min_of(kDepth, depth - k), t - first, stop - first);
          const int64_t j = row_panel_begin(pixels(), t), rows = row_panel_begin(pixels(), t + 1) - j;
          const Panel<T> a = {packed + (t * depth + k) * kPackedRows<T>, 1, kPackedRows<T>};
          T* to = sums + (j - begin) * kTileColumns<T>;
          const auto kernel = micro_kernel(T(), int(rows), int(lines), PanelKind::with_next);
          kernel(min_of(kDepth, depth - k), a, b, to, kTileColumns<T>, k > 0 ? to : nullptr, kTileColumns<T>);
        }
      }
      channels_last(conv.result) ? put_pixels(sums, p, begin, count) : put_turned(sums, p, begin, count);
      if (!finishes_rows()) finish(conv.weights.begin(p), conv.weights.begin(p + 1), begin, begin + count);
    }

    // Sums of [pixel][line] to the result's pixels from `begin` on.
    void put_turned(const T* sums, int64_t p, int64_t begin, int64_t count) const {
      using V = typename Simd<T>::V;
      constexpr int W = kWidth<T>;
      const int64_t lines = conv.weights.begin(p + 1) - conv.weights.begin(p);
      for (int64_t l = 0; l < lines; l += W) {
        T* to = out(conv.weights.begin(p) + l) + begin;
        for (int64_t j = 0; j < count; j += W) {
          V square[W];
#pragma GCC unroll 16
          for (int r = 0; r < W; r++) square[r] = load<V>(sums + min_of(j + r, count - 1) * kTileColumns<T> + l);
          transpose(square);
          for (int r = 0; r < min_of(W, lines - l); r++) {
            store_few<T>(square[r], min_of(W, count - j), to + r * conv.pixels() + j);
          }
        }
      }
    }

    // The same where the result's channels lie last.
    void put_pixels(const T* sums, int64_t p, int64_t first, int64_t count) const {
      const int64_t channels = conv.result.shape[1], line = group * conv.weights.lines + conv.weights.begin(p);
      const int64_t lines = conv.weights.begin(p + 1) - conv.weights.begin(p);
      const int64_t pixel = image * conv.pixels() + begin * conv.x.output + first;
      T* to = (T*)conv.result.data + pixel * channels + line;
      for (int64_t j = 0; j < count; j++) copy_line(sums + j * kTileColumns<T>, lines, to + j * channels);
    }

    // The epilogue of lines [l0, l1) and of the unit's pixels [j0, j1).
    void finish(int64_t l0, int64_t l1, int64_t j0, int64_t j1) const {
      const int64_t line = group * conv.weights.lines, pixel = begin * conv.x.output;
      finish_tile(conv.epilogue, conv.result, image, line + l0, line + l1, pixel + j0, pixel + j1);
    }
  };

  // How many rows of the result make a unit, which reads what stays in L2.
  int64_t rows_at_a_time() const {
    const int64_t fewest = weights.turned ? min_of(y.output, ceil_div(kFewestPixels, x.output)) : 1;
    int64_t rows = max_of(fewest, min_of(y.output, kMostPixels / x.output));
    while (rows > fewest && max_of(staged_size(rows), packed_size(rows)) * int64_t(sizeof(T)) > kNearBytes) rows--;
    return rows;
  }

  // pack() fills the weights.
  template <class Pack>
  void run(const Call& call, bool flipped, const Pack& pack) {
    const int64_t threads = nl_num_threads(), all = images.shape[0] * groups();
    if (all == 0) return;
    int64_t chunks = ceil_div(y.output, rows_at_a_time());
    if (all * chunks > 1) chunks = min_of(y.output, ceil_div(ceil_div(all * chunks, threads) * threads, all));
    const int64_t rows = ceil_div(y.output, chunks), count = all * ceil_div(y.output, rows);

    const int64_t bytes = weights.size(groups()) * int64_t(sizeof(T));
    const int64_t numbers = weights.depth + rows_seen(rows);
    offset = (int64_t*)nl_scratch(2, numbers * int64_t(sizeof(int64_t)) + (call.kept ? 0 : bytes));
    place = offset + weights.depth;
    weights.data = (T*)(call.kept ? nl_keep(call.kept, bytes) : offset + numbers);
    list(rows, flipped);
    make_once(call.kept, pack);

    // Units that threads share are cut so that the panels of weights come out even.
    const int64_t tiles = row_panels(rows * x.output);
    const int64_t parts = count >= threads ? 1 : min_of(tiles, threads / gcd(weights.panels(), threads));
    parallel_for(count, count >= threads ? 1 : count, [&](int64_t begin, int64_t end) {
      T* packed = (T*)nl_scratch(0, (packed_size(rows) + staged_size(rows)) * sizeof(T));
      for (int64_t u = begin; u < end; u++) {
        const int64_t number = u / (count / all), first = u % (count / all) * rows;
        const int64_t image = number / groups(), group = number % groups();
        const T* staged = in_place ? first_channel(image, group) : packed + packed_size(rows) + kTileColumns<T>;
        Unit{*this, image, group, first, min_of(first + rows, y.output), channel_pitch(rows), parts, packed, staged}
            .run();
      }
    });
  }
};

// A convolution of the first operand with these axes; pack(weights) fills them.
template <class T, class Pack>
bool convolve(const Call& call, Axis y, Axis x, int64_t channels, int64_t lines, bool flipped, const Pack& pack) {
  View images = call.in[0];
  const bool one_tap = y.kernel * x.kernel == 1 && y.pad == 0 && x.pad == 0;
  if (one_tap) skip_strides(images, y, x);
  const bool in_place = one_tap && images.strides[3] == 1 && images.strides[2] == x.input && images.strides[1] >= 0;
  if (in_place) x = {y.input * x.input, 1, y.output * x.output, 1, 0, 1}, y = {1, 1, 1, 1, 0, 1};
  const int64_t depth = y.kernel * x.kernel * channels;
  const int64_t pixels = one_tap ? y.output * x.output : x.output;
  // Else weights of one tap are read where they lie. To pack one takes as long as a product.
  const int64_t packing = one_tap && !call.kept ? lines * depth / images.shape[0] : 0;
  const bool turned = channels_last(call.out[0]) || is_turned<T>(lines, depth, pixels, packing);
  if (y.kernel * x.kernel == 1 && !(one_tap && turned)) return false;
  Direct<T> direct = {images, call.out[0], call.epilogue, channels, y, x, in_place, {lines, depth, turned, true}};
  direct.run(call, flipped, [&] { pack(direct.weights); });
  return true;
}

template <class T>
bool forward(const Call& call) {
  const Geometry g = conv2d_geometry(call);
  if (g.taps() == 1 && (channels_last(call.in[0]) || channels_last(call.out[0]))) return false;
  const auto pack = [&](const PackedWeights<T>& weights) { weights.pack(call.in[1], g.groups); };
  return convolve<T>(call, g.y, g.x, g.group_channels(), g.group_outputs(), false, pack);
}

// With stride 1 the gradient is a convolution of the maps, padded to what their taps reach.
template <class T>
bool input_gradient(const Call& call) {
  const Geometry g = conv2d_input_geometry(call);
  if (g.y.stride > 1 || g.x.stride > 1) return false;
  auto seen = [](const Axis& a) {
    return Axis{a.output, a.kernel, a.input, 1, (a.kernel - 1) * a.dilation - a.pad, a.dilation};
  };
  const auto pack = [&](const PackedWeights<T>& weights) { weights.pack_input(call.in[1], g.groups); };
  return convolve<T>(call, seen(g.y), seen(g.x), g.group_outputs(), g.group_channels(), true, pack);
}

}  // namespace

bool conv2d_direct(const Call& call) {
  return call.out[0].dtype == DType::f32 ? forward<float>(call) : forward<double>(call);
}

bool conv2d_direct_input(const Call& call) {
  return call.out[0].dtype == DType::f32 ? input_gradient<float>(call) : input_gradient<double>(call);
}

}  // namespace nl::NL_ISA
