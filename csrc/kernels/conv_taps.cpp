// conv_taps.cpp: convolutions of several taps where the result has its channels last, and their gradients by the input,
// from images read in place.
//
// A tile is some neighbouring pixels of a row of the result, or two short rows. What a k reads of them lies evenly
// apart in a row of the image, so the micro-kernel takes it where it lies, by a list of offsets, against vectors of
// outputs: nothing is packed. Tiles that reach over the border, or whose pixels crowd the same sets of L1, read a copy
// of their window between zeros.
//
// The gradient reads maps and writes pixels of images. Positions of one residue modulo the stride see the same taps and
// are a part of the result; a unit goes through all parts, so that what it reads is read once and what it writes is
// adjacent. Where no tap reaches some residue, whose sums are +0, what a unit writes is cleared before, in one go.
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
constexpr int64_t kBeyondBytes = 3 << 19;     // of images, or results, that lie beyond L2
constexpr int64_t kLongSum = 128;             // while which results come from L3

// Results that see the same taps: every y_step-th row and x_step-th column of all, numbered as cells. Of a window that
// is copied only the rows that taps see are: [tap of y][column][channel], or [channel][tap of y][column] where channels
// are not adjacent.
struct Part {
  AxisTaps y, x;
  int64_t first_k;  // of its taps among those of all parts

  int64_t taps() const { return y.count * x.count; }
  int64_t columns_seen(int64_t cells) const { return (cells - 1) * x.stride + x.most() - x.least() + 1; }
};

template <class T>
struct Taps {
  const View &images, &result;
  const Epilogue* epilogue;
  int64_t channels;        // of a group
  int64_t y_step, x_step;  // of the results of a part
  PackedWeights<T> weights;
  Part* parts;
  int64_t* offset;  // of each k: in an image, then in a copied window
  Reach reach = NL_ISA::reach(weights, result, epilogue);
  // Divided once, for that takes as long as many products.
  int64_t row_tiles = ceil_div(columns(), most_cells());
  int64_t part_ahead = tile_rows() * parts[0].y.stride * images.strides[2] / (row_tiles * weights.panels());
  int64_t step_ahead = ceil_div(part_ahead, weights.depth);

  int64_t part_count() const { return y_step * x_step; }
  int64_t groups() const { return images.shape[1] / channels; }
  int64_t depth() const { return weights.depth; }
  int64_t pixels() const { return result.shape[2] * result.shape[3]; }
  // Whether no tap reaches the positions of some residue.
  bool leaves_gaps() const {
    for (int64_t p = 0; p < part_count(); p++) {
      if (parts[p].taps() == 0) return true;
    }
    return false;
  }
  int64_t part_depth(const Part& part) const { return part.taps() * channels; }

  // The lowest row that the first row of results sees; of a residue it is that of the last one.
  int64_t bottom() const { return parts[part_count() - 1].y.most(); }

  // Cells; the first part has one in each.
  int64_t rows() const { return parts[0].y.outputs; }
  int64_t columns() const { return parts[0].x.outputs; }

  static int64_t bytes(const View& v) { return v.shape[0] * v.shape[1] * v.shape[2] * v.shape[3] * int64_t(sizeof(T)); }
  // From beyond L2 pixels come too late unless they are asked for: 16 images of 16 channels at 320 x 320 took 1.7 times
  // as long.
  bool looks_ahead() const { return weights.is_near() && by_pixels() && bytes(images) >= kBeyondBytes; }
  // So do the lines that results overwrite, for which stores wait; from L3 they are worth it while sums are long.
  bool asks_for_results() const {
    return reach.far || (!reach.past && depth() >= kLongSum && bytes(result) >= kBeyondBytes);
  }

  // ---- tiles: two rows of the result where they fit, else nearly equal parts of a row ----

  // Of one vector of outputs more pixels fit the registers.
  int64_t most_cells() const { return weights.lines <= kWidth<T> ? 2 * kTileRows : kTileRows; }
  int64_t tile_rows() const { return part_count() == 1 && 2 * columns() <= most_cells() ? 2 : 1; }
  int64_t tiles() const { return ceil_div(rows(), tile_rows()) * row_tiles; }
  struct Cells {
    int64_t row, column, rows, width;
  };
  Cells cells(int64_t t) const {
    const int64_t r = t / row_tiles, i = t - r * row_tiles, row = r * tile_rows();
    const int64_t column = i * columns() / row_tiles, stop = (i + 1) * columns() / row_tiles;
    return {row, column, min_of(tile_rows(), rows() - row), stop - column};
  }
  int64_t first_cell(int64_t t) const { return min_of(cells(t).row, rows()) * columns() + cells(t).column; }

  // ---- copied windows ----

  bool by_pixels() const { return images.strides[1] == 1; }
  int64_t widest(const Part& part) const { return part.columns_seen(min_of(columns(), most_cells())); }
  // Pixels of a tile must not crowd the same sets of L1.
  int64_t pixel_pitch(const Part& part) const {
    if (!by_pixels()) return 1;
    return aliases<T>(channels * part.x.stride) ? whole_vectors<T>(channels) + kWidth<T> : channels;
  }
  int64_t row_pitch(const Part& part) const { return widest(part) * pixel_pitch(part); }
  int64_t channel_pitch(const Part& part) const { return by_pixels() ? 1 : part.y.count * row_pitch(part); }
  int64_t window_size(const Part& part) const { return part.y.count * row_pitch(part) * (by_pixels() ? 1 : channels); }
  int64_t tile_size() const {
    int64_t most = 0;
    for (int64_t p = 0; p < part_count(); p++) most = max_of(most, window_size(parts[p]));
    return tile_rows() * most;
  }

  void list_offsets() {
    for (int64_t p = 0; p < part_count(); p++) {
      const Part& part = parts[p];
      for (int64_t t = 0, k = part.first_k; t < part.taps(); t++) {
        const int64_t ky = t / part.x.count, kx = t % part.x.count;
        const int64_t row = part.y.delta[ky] * images.strides[2], column = part.x.delta[kx] - part.x.least();
        for (int64_t c = 0; c < channels; c++, k++) {
          offset[k] = row + part.x.delta[kx] * images.strides[3] + c * images.strides[1];
          offset[depth() + k] = ky * row_pitch(part) + column * pixel_pitch(part) + c * channel_pitch(part);
        }
      }
    }
  }

  struct Tile {
    const T* data;
    const int64_t* at;
    int64_t pitch, half;    // of pixels, and from the last one of a row to the first one of the next, less that
    int64_t pixel, pixels;  // of the result: the first one, and how many, x_step apart
    const T* ahead;         // what the next rows of the result will see, a part for each tile of these and panel
  };

  // Tiles [begin, end) of a group of an image, in all parts, with all weights of the group.
  struct Unit {
    const Taps& conv;
    int64_t image, group, begin, end;
    Tile* tiles;  // by part
    T* copies;

    int64_t count() const { return (end - begin) * conv.part_count(); }

    void run() const {
      const bool leaves_gaps = conv.leaves_gaps();
      parallel_for(count(), grain_of(conv.tile_size()), [=](int64_t first, int64_t stop) {
        for (int64_t i = first; i < stop; i++) {
          const int64_t p = i / (end - begin), t = begin + i % (end - begin);
          tiles[i] = place(conv.parts[p], t, copies + i * conv.tile_size());
          if (leaves_gaps && p == 0) each_run(t, [=](int64_t pixel, int64_t last) { clear_pixels(pixel, last); });
        }
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
    Tile place(const Part& part, int64_t t, T* copy) const {
      const View& v = conv.images;
      const AxisTaps &y = part.y, &x = part.x;
      const Cells cells = conv.cells(t);
      const int64_t rows = cells.rows, width = min_of(cells.width, x.outputs - cells.column);
      if (cells.row >= y.outputs || width <= 0) return {};
      const int64_t row = cells.row * y.stride, column = cells.column * x.stride + x.least();
      const int64_t columns = part.columns_seen(width), last = row + (rows - 1) * y.stride;
      const int64_t pixel =
          (cells.row * conv.y_step + y.begin) * conv.result.shape[3] + cells.column * conv.x_step + x.begin;
      const T* from = (const T*)v.data + image * v.strides[0] + group * conv.channels * v.strides[1];
      const T* ahead = from + (last + conv.bottom() + 1) * v.strides[2];
      ahead += t % conv.row_tiles * conv.weights.panels() * conv.part_ahead;
      auto at = [&](const T* data, const int64_t* offset, int64_t row_pitch, int64_t pixel_pitch) -> Tile {
        const int64_t pitch = x.stride * pixel_pitch, half = rows > 1 ? row_pitch - width * pitch : 0;
        return {data, offset + part.first_k, pitch, half, pixel, rows * width, ahead};
      };
      const bool inside =
          row + y.least() >= 0 && last + y.most() < v.shape[2] && column >= 0 && column + columns <= v.shape[3];
      if (inside && !aliases<T>(x.stride * v.strides[3])) {
        from += row * v.strides[2] + cells.column * x.stride * v.strides[3];
        return at(from, conv.offset, y.stride * v.strides[2], v.strides[3]);
      }
      for (int64_t i = 0; i < rows * y.count; i++) {
        const int64_t r = i / y.count, ky = i % y.count;
        T* to = copy + r * conv.window_size(part) + ky * conv.row_pitch(part);
        copy_row(part, from, row + r * y.stride + y.delta[ky], column, columns, to);
      }
      return at(copy, conv.offset + conv.depth(), conv.window_size(part), conv.pixel_pitch(part));
    }

    void copy_row(const Part& part, const T* from, int64_t row, int64_t column, int64_t columns, T* to) const {
      const View& v = conv.images;
      const PaddedRow<T> padded(row >= 0 && row < v.shape[2] ? v.shape[3] : 0, column, 1, columns);
      from += row * v.strides[2];
      if (conv.by_pixels()) return copy_pixels(from, padded, conv.pixel_pitch(part), to);
      for (int64_t c = 0; c < conv.channels; c++) {
        padded.copy(from + c * v.strides[1], v.strides[3], to + c * conv.channel_pitch(part));
      }
    }

    void copy_pixels(const T* from, const PaddedRow<T>& row, int64_t pitch, T* to) const {
      const int64_t channels = conv.channels, stride = conv.images.strides[3];
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
        for (int64_t p = 0; p < conv.part_count(); p++) {
          const Part& part = conv.parts[p];
          for (int64_t k = 0; k < conv.part_depth(part); k += kDepth) {
            multiply_block(part, tiles + p * (end - begin), q, k);
          }
        }
      }
      const int64_t line = group * conv.weights.lines;
      finish(line + conv.weights.begin(first), line + conv.weights.begin(stop));
    }

    void multiply_block(const Part& part, const Tile* tiles, int64_t q, int64_t k) const {
      const PackedWeights<T>& w = conv.weights;
      const int64_t steps = min_of(kDepth, conv.part_depth(part) - k), count = end - begin;
      const int64_t line = w.begin(q), lines = w.begin(q + 1) - line, number = group * w.panels() + q;
      const int64_t outputs = conv.result.shape[1];
      T* result = (T*)conv.result.data + image * conv.pixels() * outputs + group * w.lines + line;
      Panel<T> b = {w.data + number * w.panel_size() + (part.first_k + k) * w.pitch(), 1, w.pitch()};
      b.far = conv.asks_for_results(), b.past = conv.reach.past;
      const bool looks_ahead = conv.looks_ahead();
      for (int64_t i = 0; i < count; i++) {
        const Tile& t = tiles[i];
        if (t.pixels == 0) continue;
        if (looks_ahead) {
          b.next = t.ahead + q * conv.part_ahead + (part.first_k + k) * conv.step_ahead, b.next_step = conv.step_ahead;
        } else {
          b.fetch_next(b.data + steps * b.step, steps, i, count);
        }
        const Panel<T> a = {t.data, t.pitch, 0, t.at + k, t.half};
        sum_pixels(PanelKind::listed_rows, steps, t.pixels, lines, a, b, k > 0, result + t.pixel * outputs,
                   conv.x_step * outputs);
      }
    }

    // The epilogue of some lines, on as long runs of pixels as there are.
    void finish(int64_t line, int64_t stop_line) const {
      if (!conv.epilogue) return;
      auto finish = [=](int64_t first, int64_t stop) {
        finish_tile(conv.epilogue, conv.result, image, line, stop_line, first, stop);
      };
      if (conv.part_count() == 1) return finish(conv.first_cell(begin), conv.first_cell(end));
      for (int64_t t = begin; t < end; t++) each_run(t, finish);
    }

    // body(first, stop) for each run of the result's pixels that are tile t's in some part.
    template <class Body>
    void each_run(int64_t t, const Body& body) const {
      const int64_t height = conv.result.shape[2], width = conv.result.shape[3];
      const Cells cells = conv.cells(t);
      const int64_t x = cells.column * conv.x_step, x_end = min_of(width, x + cells.width * conv.x_step);
      const int64_t y = cells.row * conv.y_step, y_end = min_of(height, y + cells.rows * conv.y_step);
      for (int64_t i = y; i < y_end; i++) body(i * width + x, i * width + x_end);
    }

    // Clears the group's lines of pixels [first, stop) of the result.
    void clear_pixels(int64_t first, int64_t stop) const {
      const int64_t outputs = conv.result.shape[1], lines = conv.weights.lines;
      const int64_t some = lines == outputs ? stop - first : 1;  // whose lines are adjacent
      T* to = (T*)conv.result.data + (image * conv.pixels() + first) * outputs + group * lines;
      for (; first < stop; first += some, to += some * outputs) __builtin_memset(to, 0, some * lines * sizeof(T));
    }
  };

  // Of a unit: some for weights that stay in L2, else as many as there is room for.
  int64_t tiles_at_a_time() const {
    const int64_t bytes = tile_size() * int64_t(sizeof(T)), products = most_cells() * depth() * weights.lines;
    return max_of(kFewestTiles, weights.is_near() ? kFewestProducts / products : kWindowBytes / bytes);
  }

  // Units of all images and groups. One thread after another takes fewer units than threads, whose panels of weights
  // are shared then.
  void run() const {
    const int64_t threads = nl_num_threads(), all = images.shape[0] * groups();
    int64_t units = ceil_div(tiles(), tiles_at_a_time());
    if (all * units > 1) units = min_of(tiles(), ceil_div(ceil_div(all * units, threads) * threads, all));
    const int64_t most = ceil_div(tiles(), units) * part_count(), count = all * units;
    parallel_for(count, count >= threads ? 1 : count, [&](int64_t first, int64_t stop) {
      Tile* memory = (Tile*)nl_scratch(0, most * int64_t(sizeof(Tile) + tile_size() * sizeof(T)));
      for (int64_t i = first; i < stop; i++) {
        const int64_t number = i / units, u = i % units, begin = u * tiles() / units, end = (u + 1) * tiles() / units;
        Unit{*this, number / groups(), number % groups(), begin, end, memory, (T*)(memory + most)}.run();
      }
    });
  }
};

// The parts of a convolution, or of its gradient, and the place of each tap among the taps of all parts.
template <bool kGradient>
struct Parts {
  const Geometry& g;
  const int64_t ys = kGradient ? Residue::number(g.y) : 1, xs = kGradient ? Residue::number(g.x) : 1;

  // Memory of the parts, of the taps of their axes, and of `place`.
  int64_t bytes() const {
    return ys * xs * int64_t(sizeof(Part)) + (axis_numbers() + g.taps()) * int64_t(sizeof(int64_t));
  }
  int64_t axis_numbers() const { return 2 * (ys * g.y.kernel + xs * g.x.kernel); }
  Part* parts(char* memory) const { return (Part*)memory; }
  int64_t* place(char* memory) const { return (int64_t*)(parts(memory) + ys * xs) + axis_numbers(); }

  // Taps are numbered part by part, those that reach no position last.
  void list(char* memory, int64_t channels) const {
    int64_t *y_numbers = (int64_t*)(parts(memory) + ys * xs), *x_numbers = y_numbers + 2 * ys * g.y.kernel;
    int64_t *place = this->place(memory), placed = 0;
    for (int64_t t = 0; t < g.taps(); t++) place[t] = -1;
    for (int64_t p = 0; p < ys * xs; p++) {
      const AxisTaps y = axis_taps<kGradient>(g.y, p / xs, y_numbers + 2 * (p / xs) * g.y.kernel);
      const AxisTaps x = axis_taps<kGradient>(g.x, p % xs, x_numbers + 2 * (p % xs) * g.x.kernel);
      parts(memory)[p] = {y, x, placed * channels};
      for (int64_t t = 0; t < y.count * x.count; t++) {
        place[y.number[t / x.count] * g.x.kernel + x.number[t % x.count]] = placed++;
      }
    }
    for (int64_t t = 0; t < g.taps(); t++) {
      if (place[t] < 0) place[t] = placed++;
    }
  }
};

template <class T, bool kGradient>
bool convolve(const Call& call, const Geometry& g) {
  const int64_t channels = kGradient ? g.group_outputs() : g.group_channels(), depth = g.taps() * channels;
  PackedWeights<T> weights = {kGradient ? g.group_channels() : g.group_outputs(), depth, true, true};
  const Parts<kGradient> parts = {g};
  const int64_t bytes = weights.size(g.groups) * int64_t(sizeof(T)), scratch = call.kept ? 0 : bytes;
  char* memory = (char*)nl_scratch(2, scratch + parts.bytes() + 2 * depth * int64_t(sizeof(int64_t)));
  weights.data = (T*)memory;
  memory += scratch;
  parts.list(memory, channels);
  int64_t* offset = (int64_t*)(memory + parts.bytes());
  Taps<T> conv = {call.in[0], call.out[0], call.epilogue,       channels, parts.ys,
                  parts.xs,   weights,     parts.parts(memory), offset};
  if (!kGradient && !conv.by_pixels() && conv.tile_size() * int64_t(sizeof(T)) > kPlanesBytes) return false;
  if (call.kept) conv.weights.data = (T*)nl_keep(call.kept, bytes);
  conv.list_offsets();
  make_once(call.kept, [&] {
    if (!kGradient) return conv.weights.pack(call.in[1], g.groups);
    const int64_t* place = parts.place(memory);
    conv.weights.pack_input(call.in[1], g.groups, [=](int t) { return place[t]; });
  });
  conv.run();
  return true;
}

template <bool kGradient>
bool convolve(const Call& call, const Geometry& g) {
  return call.out[0].dtype == DType::f32 ? convolve<float, kGradient>(call, g) : convolve<double, kGradient>(call, g);
}

}  // namespace

bool conv2d_taps(const Call& call) {
  const Geometry g = conv2d_geometry(call);
  if (g.taps() == 1 || !channels_last(call.out[0]) || g.x.output < kFewestColumns) return false;
  return convolve<false>(call, g);
}

bool conv2d_taps_input(const Call& call) {
  return channels_last(call.out[0]) && convolve<true>(call, conv2d_input_geometry(call));
}

}  // namespace nl::NL_ISA
