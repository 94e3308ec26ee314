// conv_taps.cpp: convolutions of several taps where the result has its channels last, from images read in place.
//
// A tile is some neighbouring pixels of a row of the result, or two short rows. What a k reads of them lies evenly
// apart in a row of the image, so the micro-kernel takes it where it lies, by a list of offsets, against vectors of
// outputs: nothing is packed. Tiles that reach over the border read a copy of their window between zeros.
#include "conv_taps.hpp"

#include "conv_packed.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kPlanesBytes =
    16 << 10;                          // of a window whose channels lie in planes, each k in cache lines of its own
constexpr int64_t kFewestColumns = 7;  // of the result, for tiles that are worth it
constexpr int64_t kFewestTiles = 4;    // of a unit, that meet weights which come from L2
constexpr int64_t kFewestProducts = 1 << 19;  // of a unit: some 10 us
constexpr int64_t kWindowBytes = 1 << 20;     // at most, of a unit whose weights do not

template <class T>
struct Taps {
  const View &images, &result;
  const Epilogue* epilogue;
  int64_t channels;  // of a group
  Axis y, x;
  PackedWeights<T> weights;
  Reach reach = NL_ISA::reach(weights, result, epilogue);
  int64_t* offset = nullptr;  // of each k: in an image, then in a copied window
  // Divided once, for that takes as long as many products.
  int64_t row_tiles = ceil_div(x.output, tile_pixels());
  int64_t part_ahead = tile_rows() * y.stride * images.strides[2] / (row_tiles * weights.panels());
  int64_t step_ahead = ceil_div(part_ahead, weights.depth);

  int64_t groups() const { return images.shape[1] / channels; }
  int64_t depth() const { return weights.depth; }
  int64_t pixels() const { return y.output * x.output; }

  // From memory pixels come too late unless they are asked for: 16 images of 16 channels at 320 x 320 took 1.7 times as
  // long. From L3 asking for them costs 1-5 %.
  bool looks_ahead() const {
    const int64_t elements = images.shape[0] * images.shape[1] * y.input * x.input;
    return weights.is_near() && by_pixels() && elements * int64_t(sizeof(T)) >= kFarBytes;
  }

  // ---- tiles: two rows of the result where they fit, else nearly equal parts of a row ----

  // Of one vector of outputs more pixels fit the registers.
  int64_t tile_pixels() const { return weights.lines <= kWidth<T> ? 2 * kTileRows : kTileRows; }
  int64_t tile_rows() const { return 2 * x.output <= tile_pixels() ? 2 : 1; }
  int64_t tiles() const { return ceil_div(y.output, tile_rows()) * row_tiles; }
  int64_t column(int64_t part) const { return part * x.output / row_tiles; }
  int64_t tile_begin(int64_t t) const {
    return min_of(t / row_tiles * tile_rows(), y.output) * x.output + column(t % row_tiles);
  }

  // ---- copied windows: [ky][column][channel] of adjacent channels, else [channel][ky][column] ----

  bool by_pixels() const { return images.strides[1] == 1; }
  int64_t columns_seen(int64_t count) const { return (count - 1) * x.stride + (x.kernel - 1) * x.dilation + 1; }
  int64_t widest() const { return columns_seen(min_of(x.output, tile_pixels())); }
  // Pixels of a tile must not crowd the same sets of L1.
  int64_t pixel_pitch() const {
    if (!by_pixels()) return 1;
    return channels * x.stride * int64_t(sizeof(T)) % 4096 == 0 ? channels + kWidth<T> : channels;
  }
  int64_t row_pitch() const { return widest() * pixel_pitch(); }
  int64_t channel_pitch() const { return by_pixels() ? 1 : y.kernel * row_pitch(); }
  int64_t window_size() const { return y.kernel * row_pitch() * (by_pixels() ? 1 : channels); }

  int64_t tile_size() const { return tile_rows() * window_size(); }

  void list_offsets() {
    for (int64_t ky = 0, k = 0; ky < y.kernel; ky++) {
      for (int64_t kx = 0; kx < x.kernel; kx++) {
        const int64_t row = ky * y.dilation * images.strides[2], column = kx * x.dilation;
        for (int64_t c = 0; c < channels; c++, k++) {
          offset[k] = row + column * images.strides[3] + c * images.strides[1];
          offset[depth() + k] = ky * row_pitch() + column * pixel_pitch() + c * channel_pitch();
        }
      }
    }
  }

  struct Tile {
    const T* data;
    const int64_t* at;
    int64_t pitch, half;    // of pixels, and from the last one of a row to the first one of the next, less that
    int64_t pixel, pixels;  // of the result
    const T* ahead;         // what the next rows of the result will see, a part for each tile of these and panel
  };

  // Tiles [begin, end) of a group of an image with all weights of the group.
  struct Unit {
    const Taps& conv;
    int64_t image, group, begin, end;
    Tile* tiles;
    T* copies;

    void run() const {
      parallel_for(end - begin, grain_of(conv.tile_size()), [=](int64_t first, int64_t stop) {
        for (int64_t i = first; i < stop; i++) tiles[i] = place(begin + i, copies + i * conv.tile_size());
      });
      const int64_t panels = conv.weights.panels();
      parallel_for(panels, ceil_div(panels, nl_num_threads()), [=](int64_t first, int64_t stop) {
        for (int64_t q = first; q < stop; q += kFinishedPanels) {
          if (q > first) nl_check_interrupt();
          multiply(q, min_of(q + kFinishedPanels, stop));
        }
        if (conv.reach.past) stream_fence();
      });
    }

    // A tile where it lies, or from a copy.
    Tile place(int64_t t, T* copy) const {
      const View& v = conv.images;
      const Axis &y = conv.y, &x = conv.x;
      const int64_t first = t / conv.row_tiles * conv.tile_rows(), part = t % conv.row_tiles;
      const int64_t begin = conv.column(part), width = conv.column(part + 1) - begin;
      const int64_t rows = min_of(conv.tile_rows(), y.output - first), columns = conv.columns_seen(width);
      const int64_t row = first * y.stride - y.pad, column = begin * x.stride - x.pad;
      const int64_t last = row + (rows - 1) * y.stride + (y.kernel - 1) * y.dilation;
      const T* from = (const T*)v.data + image * v.strides[0] + group * conv.channels * v.strides[1];
      const T* ahead = from + (last + 1) * v.strides[2] + part * conv.weights.panels() * conv.part_ahead;
      auto at = [&](const T* data, const int64_t* offset, int64_t row_pitch, int64_t pixel_pitch) -> Tile {
        const int64_t pitch = x.stride * pixel_pitch, half = rows > 1 ? row_pitch - x.output * pitch : 0;
        return {data, offset, pitch, half, first * x.output + begin, rows * width, ahead};
      };
      if (row >= 0 && last < y.input && column >= 0 && column + columns <= x.input) {
        from += row * v.strides[2] + column * v.strides[3];
        return at(from, conv.offset, y.stride * v.strides[2], v.strides[3]);
      }
      for (int64_t i = 0; i < rows * y.kernel; i++) {
        const int64_t r = i / y.kernel, ky = i % y.kernel;
        T* to = copy + r * conv.window_size() + ky * conv.row_pitch();
        copy_row(from, row + r * y.stride + ky * y.dilation, column, columns, to);
      }
      return at(copy, conv.offset + conv.depth(), conv.window_size(), conv.pixel_pitch());
    }

    void copy_row(const T* from, int64_t row, int64_t column, int64_t columns, T* to) const {
      const View& v = conv.images;
      const PaddedRow<T> padded(row >= 0 && row < conv.y.input ? conv.x.input : 0, column, 1, columns);
      from += row * v.strides[2];
      if (conv.by_pixels()) return copy_pixels(from, padded, to);
      for (int64_t c = 0; c < conv.channels; c++) {
        padded.copy(from + c * v.strides[1], v.strides[3], to + c * conv.channel_pitch());
      }
    }

    void copy_pixels(const T* from, const PaddedRow<T>& row, T* to) const {
      const int64_t pitch = conv.pixel_pitch(), channels = conv.channels, stride = conv.images.strides[3];
      const int64_t existing = row.stop - row.first;
      clear(to, row.first * pitch);
      clear(to + row.stop * pitch, (row.count - row.stop) * pitch);
      from += row.from * stride, to += row.first * pitch;
      if (pitch == channels && stride == channels) return copy_line(from, existing * channels, to);
      for (int64_t i = 0; i < existing; i++) copy_line(from + i * stride, channels, to + i * pitch);
    }

    static void clear(T* to, int64_t count) {
      for (int64_t i = 0; i < count; i++) to[i] = 0;
    }

    // Panels [first, stop) of the weights, a block of k at a time.
    void multiply(int64_t first, int64_t stop) const {
      for (int64_t q = first; q < stop; q++) {
        for (int64_t k = 0; k < conv.depth(); k += kDepth) multiply_block(q, k);
      }
      const int64_t line = group * conv.weights.lines;
      finish_tile(conv.epilogue, conv.result, image, line + conv.weights.begin(first), line + conv.weights.begin(stop),
                  conv.tile_begin(begin), conv.tile_begin(end));
    }

    void multiply_block(int64_t q, int64_t k) const {
      const PackedWeights<T>& w = conv.weights;
      const int64_t steps = min_of(kDepth, conv.depth() - k), outputs = conv.result.shape[1], count = end - begin;
      const int64_t line = w.begin(q), lines = w.begin(q + 1) - line, number = group * w.panels() + q;
      T* result = (T*)conv.result.data + image * conv.pixels() * outputs + group * w.lines + line;
      Panel<T> b = {w.data + number * w.panel_size() + k * w.pitch(), 1, w.pitch()};
      b.far = conv.reach.far, b.past = conv.reach.past;
      const bool looks_ahead = conv.looks_ahead();
      for (int64_t i = 0; i < count; i++) {
        const Tile& t = tiles[i];
        if (looks_ahead) {
          b.next = t.ahead + q * conv.part_ahead + k * conv.step_ahead, b.next_step = conv.step_ahead;
        } else {
          b.fetch_next(b.data + steps * b.step, steps, i, count);
        }
        sum_pixels(PanelKind::listed_rows, steps, t.pixels, lines, {t.data, t.pitch, 0, t.at + k, t.half}, b, k > 0,
                   result + t.pixel * outputs, outputs);
      }
    }
  };

  // Of a unit: some for weights that stay in L2, else as many as there is room for.
  int64_t tiles_at_a_time() const {
    const int64_t bytes = tile_size() * int64_t(sizeof(T)), products = tile_pixels() * depth() * weights.lines;
    return max_of(kFewestTiles, weights.is_near() ? kFewestProducts / products : kWindowBytes / bytes);
  }

  void run(const Call& call) {
    const int64_t threads = nl_num_threads(), all = images.shape[0] * groups();
    int64_t units = ceil_div(tiles(), tiles_at_a_time());
    if (all * units > 1) units = min_of(tiles(), ceil_div(ceil_div(all * units, threads) * threads, all));
    const int64_t most = ceil_div(tiles(), units), count = all * units;

    const int64_t bytes = weights.size(groups()) * int64_t(sizeof(T));
    offset = (int64_t*)nl_scratch(2, 2 * depth() * int64_t(sizeof(int64_t)) + (call.kept ? 0 : bytes));
    weights.data = (T*)(call.kept ? nl_keep(call.kept, bytes) : offset + 2 * depth());
    list_offsets();
    make_once(call.kept, [&] { weights.pack(call.in[1], groups()); });

    // One thread after another takes fewer units than threads, whose panels of weights are shared then.
    parallel_for(count, count >= threads ? 1 : count, [&](int64_t first, int64_t stop) {
      Tile* memory = (Tile*)nl_scratch(0, most * int64_t(sizeof(Tile) + tile_size() * sizeof(T)));
      for (int64_t i = first; i < stop; i++) {
        const int64_t number = i / units, u = i % units, begin = u * tiles() / units, end = (u + 1) * tiles() / units;
        Unit{*this, number / groups(), number % groups(), begin, end, memory, (T*)(memory + most)}.run();
      }
    });
  }
};

template <class T>
bool forward(const Call& call, const Geometry& g) {
  const int64_t channels = g.group_channels(), lines = g.group_outputs(), depth = g.taps() * channels;
  Taps<T> conv = {call.in[0], call.out[0], call.epilogue, channels, g.y, g.x, {lines, depth, true, true}};
  if (!conv.by_pixels() && conv.window_size() * int64_t(sizeof(T)) > kPlanesBytes) return false;
  conv.run(call);
  return true;
}

}  // namespace

bool conv2d_taps(const Call& call) {
  const Geometry g = geometry(call.in[0], call.in[1], call.out[0], call.attr);
  if (g.taps() == 1 || !channels_last(call.out[0]) || g.x.output < kFewestColumns) return false;
  return call.out[0].dtype == DType::f32 ? forward<float>(call, g) : forward<double>(call, g);
}

}  // namespace nl::NL_ISA
