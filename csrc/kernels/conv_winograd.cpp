// conv_winograd.cpp: 3x3 convolutions and their gradients by the input by Winograd's transforms: a tile of 2x2 results
// in 16 products a channel instead of 36, or in 25 at stride 2, where tiles of the gradient have 4x4; where larger
// tiles are asked for, 4x4 results in 36 instead of 144.
//
// Weights are transformed once, U = G g Gt, the inputs tile by tile, V = Bt d B. Each element of a tile is then a
// matrix product over the channels of its own, M = V U, and a tile of results is At M A. A block of tiles goes through
// all of it on one thread, its V and M in L2; tiles are broadcast against vectors of outputs, so that maps of any size
// fill the micro-kernel.
#include "conv_winograd.hpp"

#include "conv_geometry.hpp"
#include "conv_winograd_transforms.hpp"

namespace nl::NL_ISA {
namespace {

using V = Simd<float>::V;
constexpr int W = kWidth<float>;
constexpr int kTaps = 9;
constexpr int kLines = kPackedRows<float>;     // tiles in a panel of V, with what fills its vectors
constexpr int kOutputs = kTileColumns<float>;  // in a panel of U
constexpr int64_t kMostPanels = 8;             // in a block: M is 2 KiB a tile

// ---- weights ------------------------------------------------------------------------------------------------------

// U: [group][panel of outputs][element][channel][output of the panel].
template <class F>
struct TransformedWeights {
  static constexpr int kElements = F::kSide * F::kSide;
  int64_t groups, channels, outputs;  // of a group
  float* data = nullptr;

  int64_t panels() const { return ceil_div(outputs, kOutputs); }
  int64_t element_size() const { return channels * kOutputs + W; }  // W: elements written at once share no L1 set
  int64_t size() const { return groups * panels() * kElements * element_size(); }
  const float* panel(int64_t group, int64_t q) const {
    return data + (group * panels() + q) * kElements * element_size();
  }

  // gather(to, group, first channel, slice) writes the taps of some channels, [channel][tap][output], for the slice's
  // outputs.
  template <class Gather>
  void fill(const Gather& gather) const {
    constexpr int kChannels = 32;  // at a time: their taps stay in L1
    parallel_for(groups * panels() * ceil_div(channels, kChannels), 1, [&](int64_t begin, int64_t end) {
      float taps[kChannels * kTaps * kOutputs];
      for (int64_t i = begin; i < end; i++) {
        const int64_t c = i % ceil_div(channels, kChannels) * kChannels, p = i / ceil_div(channels, kChannels);
        const int64_t line = p % panels() * kOutputs;
        const int count = int(min_of(kOutputs, outputs - line)), n = int(min_of(kChannels, channels - c));
        gather(taps, p / panels(), c, {0, 0, line, 0, count, n * kTaps, 0, kOutputs});
        float* to = data + p * kElements * element_size() + c * kOutputs;
        for (int k = 0; k < n; k++) transform(taps + k * kTaps * kOutputs, to + k * kOutputs);
      }
    });
  }

  void transform(const float* taps, float* to) const {
    for (int v = 0; v < kOutputs; v += W) {
      V along[3][F::kSide], down[F::kSide];
      for (int i = 0; i < 3; i++) {
        const float* row = taps + 3 * i * kOutputs + v;
        F::spread_weights(load<V>(row), load<V>(row + kOutputs), load<V>(row + 2 * kOutputs), along[i]);
      }
      for (int j = 0; j < F::kSide; j++) {
        F::spread_weights(along[0][j], along[1][j], along[2][j], down);
        for (int i = 0; i < F::kSide; i++) store(to + (F::kSide * i + j) * element_size() + v, down[i]);
      }
    }
  }
};

// ---- one convolution ------------------------------------------------------------------------------------------------

template <class F>
struct Convolution {
  const View &images, &result;
  const Epilogue* epilogue;
  int64_t pad_y, pad_x;
  TransformedWeights<F> weights;

  int64_t tile_rows() const { return ceil_div(result.shape[2], F::kResults); }
  int64_t tile_columns() const { return ceil_div(result.shape[3], F::kResults); }
  int64_t tiles() const { return images.shape[0] * tile_rows() * tile_columns(); }

  // Whether inputs come as vectors of channels; their tiles then lie in V as rows of channels.
  bool by_pixels() const { return channels_last(images) && weights.channels % W == 0; }
  int64_t panel_size() const {
    return by_pixels() ? kTileRows * (weights.channels + W) : (weights.channels + 1) * kLines;
  }

  void run() const;
};

// Some panels of tiles, numbered through rows and images; they need not begin or end with a row.
template <class F>
struct Block {
  static constexpr int kElements = TransformedWeights<F>::kElements, kResults = F::kResults;
  static constexpr int64_t kFewestPanels = kElements > 25 ? 2 : 4;  // it reads all of U; V of more leaves L2 too far
  const Convolution<F>& conv;
  int64_t group;
  int64_t first, stop, panels;  // tiles, and the panels that they make
  float* v;  // [element][panel][channel][tile], where a store may run into the next channel's tiles, or by pixels
             // [element][panel][tile][channel], where a vector more spreads tiles over the sets of L1

  int64_t channels() const { return conv.weights.channels; }
  int64_t element_size() const { return panels * conv.panel_size() + W; }
  int64_t panel_begin(int64_t p) const { return p * (stop - first) / panels; }  // counted from `first`

  // Of M, [element][tile][output]; a vector more keeps elements from falling on each other's lines of L1.
  int64_t product_size() const { return (stop - first) * kOutputs + W; }

  static int64_t bytes(const Convolution<F>& conv, int64_t panels) {
    return kElements * (panels * conv.panel_size() + W) * int64_t(sizeof(float));
  }

  // Panel p of an element of V from channel k on.
  Panel<float> tiles(int e, int64_t p, int64_t k) const {
    const float* panel = v + e * element_size() + p * conv.panel_size();
    if (conv.by_pixels()) return {panel + k, channels() + W, 1};
    return {panel + k * kLines, 1, kLines};
  }

  void run() const {
    const int64_t work = kElements * kLines * channels();
    parallel_for(panels, grain_of(work), [=](int64_t begin, int64_t end) {
      conv.by_pixels() ? transform_pixels(begin, end) : transform_inputs(begin, end);
    });
    parallel_for(conv.weights.panels(), 1, [=](int64_t begin, int64_t end) {
      float* m = (float*)nl_scratch(1, kElements * product_size() * sizeof(float));
      for (int64_t q = begin; q < end; q++) {
        multiply(q, m);
        channels_last(conv.result) ? put_pixels(q, m) : put_results(q, m);
        if (!channels_last(conv.result)) finish(q, q + 1);
      }
      if (channels_last(conv.result)) finish(begin, end);  // long runs of channels
    });
  }

  void transform_inputs(int64_t begin, int64_t end) const;  // of panels [begin, end)

  // The same from pixels whose channels are adjacent.
  void transform_pixels(int64_t begin, int64_t end) const {
    float* zeros = (float*)nl_scratch(1, channels() * int64_t(sizeof(float)));
    __builtin_memset(zeros, 0, channels() * sizeof(float));
    for (int64_t p = begin; p < end; p++) {
      float* to = v + p * conv.panel_size();
      for (int64_t t = panel_begin(p); t < panel_begin(p + 1); t++, to += channels() + W) {
        const float* pixels[F::kInputs][F::kInputs];
        find_pixels(first + t, zeros, pixels);
        for (int64_t c = 0; c < channels(); c += W) transform_vector(pixels, c, to + c);
      }
    }
  }

  // The first of the group's channels in each pixel that a tile sees, or zeros.
  void find_pixels(int64_t tile, const float* zeros, const float* (&pixels)[F::kInputs][F::kInputs]) const {
    const View& from = conv.images;
    const int64_t row = tile / conv.tile_columns(), image = row / conv.tile_rows();
    const int64_t top = row % conv.tile_rows() * F::kStep - conv.pad_y;
    const int64_t left = tile % conv.tile_columns() * F::kStep - conv.pad_x;
    const float* data = (const float*)from.data + image * from.strides[0] + group * channels();
    for (int64_t i = 0; i < F::kInputs; i++) {
      for (int64_t j = 0; j < F::kInputs; j++) {
        const int64_t y = top + i, x = left + j;
        const bool inside = y >= 0 && y < from.shape[2] && x >= 0 && x < from.shape[3];
        pixels[i][j] = inside ? data + y * from.strides[2] + x * from.strides[3] : zeros;
      }
    }
  }

  void transform_vector(const float* const (&pixels)[F::kInputs][F::kInputs], int64_t c, float* to) const {
    V along[F::kInputs][F::kSide];
#pragma GCC unroll 6
    for (int i = 0; i < F::kInputs; i++) {
      V x[F::kInputs];
#pragma GCC unroll 6
      for (int j = 0; j < F::kInputs; j++) x[j] = load<V>(pixels[i][j] + c);
      F::spread(x, along[i]);
    }
    spread_down(along, to);
  }

  // Ends the transform of a vector of tiles, or of channels, whose rows have been spread.
  __attribute__((always_inline)) void spread_down(const V (&along)[F::kInputs][F::kSide], float* to) const {
    const int64_t size = element_size();
#pragma GCC unroll 6
    for (int j = 0; j < F::kSide; j++) {
      V x[F::kInputs], down[F::kSide];
#pragma GCC unroll 6
      for (int i = 0; i < F::kInputs; i++) x[i] = along[i][j];
      F::spread(x, down);
#pragma GCC unroll 6
      for (int i = 0; i < F::kSide; i++) store(to + (F::kSide * i + j) * size, down[i]);
    }
  }

  void multiply(int64_t q, float* m) const {
    const float* u = conv.weights.panel(group, q);
    const int outputs = int(min_of(kOutputs, conv.weights.outputs - q * kOutputs));
    const PanelKind kind = conv.by_pixels() ? PanelKind::strided_with_next : PanelKind::with_next;
    for (int64_t k = 0; k < channels(); k += kDepth) {
      const int64_t depth = min_of(kDepth, channels() - k);
      for (int e = 0; e < kElements; e++) {
        Panel<float> b = {u + e * conv.weights.element_size() + k * kOutputs, 1, kOutputs};
        const bool last = e == kElements - 1 && k + kDepth < channels();
        const float* next = last ? u + (k + kDepth) * kOutputs : b.data + conv.weights.element_size();
        for (int64_t p = 0; p < panels; p++) {
          const Panel<float> a = tiles(e, p, k);
          float* to = m + e * product_size() + panel_begin(p) * kOutputs;
          b.fetch_next(next, depth, p, panels);
          const int rows = int(panel_begin(p + 1) - panel_begin(p));
          micro_kernel(float(), rows, outputs, kind)(depth, a, b, to, kOutputs, k > 0 ? to : nullptr, kOutputs);
        }
      }
    }
  }

  void put_results(int64_t q, const float* m) const {
    const int64_t line = q * kOutputs, count = min_of(kOutputs, conv.weights.outputs - line);
    each_row(conv.tile_columns(), first, stop, [&](int64_t r, int64_t begin, int64_t end) {
      const int64_t image = r / conv.tile_rows(), y = r % conv.tile_rows() * kResults;
      const View& out = conv.result;
      const int64_t plane = out.shape[2] * out.shape[3], height = min_of(kResults, out.shape[2] - y);
      for (int64_t o = 0; o < count; o += W) {
        const int64_t channel = image * out.shape[1] + group * conv.weights.outputs + line + o;
        float* to = (float*)out.data + channel * plane + y * out.shape[3];
        for (int64_t t = begin; t < end; t += W / kResults) {
          const int64_t tile = r * conv.tile_columns() + t - first, tiles = min_of(W / kResults, end - t);
          put_tiles(m + tile * kOutputs + o, tiles, min_of(W, count - o), height,
                    min_of(kResults * tiles, out.shape[3] - kResults * t), plane, out.shape[3], to + kResults * t);
        }
      }
    });
  }

  // Up to W / kResults tiles of up to W outputs: height x width pixels of each.
  void put_tiles(const float* m, int64_t tiles, int64_t outputs, int64_t height, int64_t width, int64_t plane,
                 int64_t pitch, float* to) const {
    V rows[kResults][W];
#pragma GCC unroll 8
    for (int t = 0; t < W / kResults; t++) {
      V results[kResults][kResults];
      collect(m + min_of(t, tiles - 1) * kOutputs, results);
#pragma GCC unroll 4
      for (int i = 0; i < kResults; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < kResults; j++) rows[i][kResults * t + j] = results[i][j];
      }
    }
    for (int y = 0; y < height; y++, to += pitch) {
      transpose(rows[y]);
      for (int o = 0; o < outputs; o++) store_few(rows[y][o], width, to + o * plane);
    }
  }

  // The results of a tile for a vector of outputs, from its elements.
  __attribute__((always_inline)) void collect(const float* from, V (&results)[kResults][kResults]) const {
    V along[kResults][F::kSide];
#pragma GCC unroll 6
    for (int i = 0; i < F::kSide; i++) {
      V row[F::kSide], sums[kResults];
#pragma GCC unroll 6
      for (int j = 0; j < F::kSide; j++) row[j] = load<V>(from + (F::kSide * i + j) * product_size());
      F::collect(row, sums);
#pragma GCC unroll 4
      for (int j = 0; j < kResults; j++) along[j][i] = sums[j];
    }
#pragma GCC unroll 4
    for (int j = 0; j < kResults; j++) {
      V sums[kResults];
      F::collect(along[j], sums);
#pragma GCC unroll 4
      for (int i = 0; i < kResults; i++) results[i][j] = sums[i];
    }
  }

  // Results of a panel of outputs where these lie last.
  void put_pixels(int64_t q, const float* m) const {
    const View& out = conv.result;
    const int64_t line = q * kOutputs, count = min_of(kOutputs, conv.weights.outputs - line);
    const int64_t height = out.shape[2], width = out.shape[3], outputs = out.shape[1];
    each_row(conv.tile_columns(), first, stop, [&](int64_t r, int64_t begin, int64_t end) {
      const int64_t image = r / conv.tile_rows(), y = r % conv.tile_rows() * kResults;
      for (int64_t t = begin; t < end; t++) {
        const float* from = m + (r * conv.tile_columns() + t - first) * kOutputs;
        const int64_t x = t * kResults, rows = min_of(kResults, height - y), columns = min_of(kResults, width - x);
        float* pixel =
            (float*)out.data + ((image * height + y) * width + x) * outputs + group * conv.weights.outputs + line;
        for (int64_t o = 0; o < count; o += W) {
          V results[kResults][kResults];
          collect(from + o, results);
          for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < columns; j++) {
              store_few(results[i][j], min_of(W, count - o), pixel + (i * width + j) * outputs + o);
            }
          }
        }
      }
    });
  }

  // The epilogue of some panels of outputs, on as long runs of pixels as there are.
  void finish(int64_t q, int64_t q_end) const {
    if (!conv.epilogue) return;
    const int64_t line = group * conv.weights.outputs + q * kOutputs;
    const int64_t end_line = group * conv.weights.outputs + min_of(q_end * kOutputs, conv.weights.outputs);
    const int64_t width = conv.result.shape[3], height = conv.result.shape[2];
    each_row(conv.tile_columns(), first, stop, [&](int64_t r, int64_t begin, int64_t end) {
      auto finish = [&](int64_t from, int64_t to) {
        finish_tile(conv.epilogue, conv.result, r / conv.tile_rows(), line, end_line, from, to);
      };
      const int64_t y = r % conv.tile_rows() * kResults, y_end = min_of(y + kResults, height);
      const int64_t x = min_of(kResults * end, width);
      if (begin == 0 && x == width) return finish(y * width, y_end * width);
      for (int64_t i = y; i < y_end; i++) finish(i * width + kResults * begin, i * width + x);
    });
  }
};

// Rows of a channel that some tiles see, copied with zeros around them, and the runs of tiles that see them.
template <class F>
class Inputs {
 public:
  // Of the tiles from `first` to `stop`: whole rows where they lie in several, else what they see.
  Inputs(const Block<F>& b, int64_t first, int64_t stop) : block(b) {
    const int64_t columns = b.conv.tile_columns();
    const int64_t rows = (stop - 1) / columns - first / columns + 1;
    begin = rows == 1 ? first % columns : 0;
    width = F::kStep * (rows == 1 ? stop - first : columns) + kShared;
    pitch = (ceil_div(width, W) + F::kStep) * W;  // vectors of a run's last tiles read more than they need
    lines = (float*)nl_scratch(1, F::kInputs * rows * pitch * int64_t(sizeof(float)));
    each_row(columns, first, stop, [&](int64_t r, int64_t from, int64_t to) { add(r, from, to); });
  }

  // Transforms channel `c` of the block's group.
  void transform(int64_t c) const {
    const View& from = block.conv.images;
    const float* data = (const float*)from.data + (block.group * block.channels() + c) * from.strides[1];
    const PaddedRow<float> padded = row_of_inputs();
    for (int i = 0; i < row_count; i++) padded.copy_existing(data + rows[i].from, from.strides[3], rows[i].to);
    constexpr bool kJoins = F::kSide > 5;  // smaller tiles' vectors cost less than the copies
    for (int i = 0, next; i < run_count; i = next) {
      next = i + 1;
      while (kJoins && next < run_count && !runs[next].begins) next++;
      float* to = runs[i].to + c * kLines;
      next == i + 1 ? transform(runs[i].lines, runs[i].lines + F::kStep, pitch, runs[i].count, to)
                    : transform_joined(runs + i, next - i, to);
    }
  }

 private:
  struct Row {
    int64_t from;
    float* to;
  };
  struct Run {
    const float* lines;  // the first input of its first tile
    int64_t count;       // of tiles, all in one panel
    bool begins;         // the panel
    float* to;           // in V, for element 0 and channel 0
  };
  static constexpr int kShared = F::kInputs - F::kStep;  // inputs of two tiles side by side
  static constexpr int64_t kMostTiles = kMostPanels * kTileRows;

  const Block<F>& block;
  int64_t begin, width, pitch;  // first tile of a line, its inputs, and how far apart lines are
  float* lines;
  int64_t line_count = 0;
  int row_count = 0, run_count = 0;
  Row rows[F::kInputs * kMostTiles];
  Run runs[kMostTiles];

  PaddedRow<float> row_of_inputs() const {
    return PaddedRow<float>(block.conv.images.shape[3], F::kStep * begin - block.conv.pad_x, 1, width);
  }

  // The tiles [first, stop) of row `r`, which shares lines with the row before.
  void add(int64_t r, int64_t first, int64_t stop) {
    const int64_t tile_rows = block.conv.tile_rows(), columns = block.conv.tile_columns();
    const int64_t y = r % tile_rows * F::kStep - block.conv.pad_y;
    const bool shares = line_count > 0 && r % tile_rows > 0;
    for (int64_t i = shares ? kShared : 0; i < F::kInputs; i++) add_line(r / tile_rows, y + i);
    for (int64_t x = first, next; x < stop; x = next) {
      const int64_t tile = r * columns + x - block.first;
      int64_t p = tile * block.panels / (block.stop - block.first);
      while (block.panel_begin(p + 1) <= tile) p++;
      next = min_of(stop, x + block.panel_begin(p + 1) - tile);
      float* to = block.v + p * block.conv.panel_size() + tile - block.panel_begin(p);
      const float* from = lines + (line_count - F::kInputs) * pitch + F::kStep * (x - begin);
      runs[run_count++] = {from, next - x, tile == block.panel_begin(p), to};
    }
  }

  void add_line(int64_t image, int64_t y) {
    const View& from = block.conv.images;
    float* to = lines + line_count++ * pitch;
    row_of_inputs().clear(to);
    if (y >= 0 && y < from.shape[2]) rows[row_count++] = {image * from.strides[0] + y * from.strides[2], to};
  }

  // A panel of several runs: their inputs side by side, and those of the tiles that follow. What lies behind the last
  // of them is of no use to anybody.
  void transform_joined(const Run* runs, int n, float* to) const {
    constexpr int kPitch = F::kStep * kLines + W;
    alignas(64) float own[F::kInputs * kPitch], next[F::kInputs * kPitch];
    int64_t tiles = 0;
    for (int r = 0; r < n; tiles += runs[r++].count) {
      for (int i = 0; i < F::kInputs; i++) {
        const float* from = runs[r].lines + i * pitch;
        const int64_t at = i * kPitch + F::kStep * tiles;
        for (int64_t k = 0; k < F::kStep * runs[r].count; k += W) {
          store(own + at + k, load<V>(from + k));
          store(next + at + k, load<V>(from + F::kStep + k));
        }
      }
    }
    transform(own, next, kPitch, tiles, to);
  }

  // `next`: the inputs of the tiles that follow.
  void transform(const float* from, const float* next, int64_t step, int64_t count, float* to) const {
    for (int64_t t = 0; t < count; t += W, from += F::kStep * W, next += F::kStep * W, to += W) {
      V along[F::kInputs][F::kSide];
#pragma GCC unroll 6
      for (int i = 0; i < F::kInputs; i++) {
        V x[F::kInputs];
        F::columns(from + i * step, next + i * step, x);
        F::spread(x, along[i]);
      }
      block.spread_down(along, to);
    }
  }
};

template <class F>
void Block<F>::transform_inputs(int64_t begin, int64_t end) const {
  const Inputs<F> inputs(*this, first + panel_begin(begin), first + panel_begin(end));
  for (int64_t c = 0; c < channels(); c++) inputs.transform(c);
}

// Blocks of as many panels as the cache takes, each on one thread; where that would keep some threads waiting for
// others, all threads share the work of each block.
template <class F>
void Convolution<F>::run() const {
  const int64_t total = tiles(), all = row_panels(total), threads = nl_num_threads();
  if (total == 0) return;
  const int64_t fitting = kNearBytes / Block<F>::bytes(*this, 1);
  const int64_t most = max_of(Block<F>::kFewestPanels, min_of(fitting, kMostPanels));
  const int64_t fewest = ceil_div(all, most), even = min_of(all, ceil_div(fewest, threads) * threads);
  const int64_t apart = ceil_div(weights.groups * even, threads) * ceil_div(all, even) * weights.panels();
  const int64_t together = weights.groups * all * ceil_div(weights.panels(), threads);
  const bool shares = weights.groups * fewest > 1 ? apart * 8 > together * 9 : apart >= together;
  const int64_t blocks = shares ? fewest : even;
  const int64_t count = weights.groups * blocks, size = Block<F>::bytes(*this, ceil_div(all, blocks));
  parallel_for(count, shares ? count : 1, [&](int64_t begin, int64_t end) {
    float* v = (float*)nl_scratch(0, size + W * int64_t(sizeof(float)));
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i % blocks, p = b * all / blocks, p_end = (b + 1) * all / blocks;
      Block<F>{*this, i / blocks, row_panel_begin(total, p), row_panel_begin(total, p_end), p_end - p, v}.run();
    }
  });
}

// The weights transformed, whose taps `pack` lays out.
template <class F, class Pack>
TransformedWeights<F> transformed(const Call& call, TransformedWeights<F> weights, const Pack& pack) {
  const int64_t bytes = weights.size() * int64_t(sizeof(float));
  weights.data = (float*)(call.kept ? nl_keep(call.kept, bytes) : nl_scratch(2, bytes));
  make_once(call.kept, [&] {
    const float* w = contiguous<float>(call.in[1]);
    weights.fill([=](float* to, int64_t group, int64_t map, const Slice& slice) { pack(w, to, group, map, slice); });
  });
  return weights;
}

template <class F>
void forward(const Call& call) {
  const Geometry g = conv2d_geometry(call);
  const int64_t line_size = g.group_channels() * kTaps;
  auto pack = [=](const float* w, float* to, int64_t group, int64_t channel, const Slice& slice) {
    const float* from = w + (group * g.group_outputs() + slice.line) * line_size + channel * kTaps;
    pack_transposed(from, line_size, slice, to);
  };
  const auto weights = transformed<F>(call, {g.groups, g.group_channels(), g.group_outputs()}, pack);
  Convolution<F>{call.in[0], call.out[0], call.epilogue, g.y.pad, g.x.pad, weights}.run();
}

// The windows see maps, padded to what their taps reach, and the taps in reverse.
template <class F>
void input_gradient(const Call& call) {
  const Geometry g = conv2d_input_geometry(call);
  const int64_t map_size = g.group_channels() * kTaps;
  auto pack = [=](const float* w, float* to, int64_t group, int64_t map, const Slice& slice) {
    const float* end = w + g.outputs * map_size;
    Slice taps = slice;
    taps.depth = kTaps;
    for (int64_t i = 0; i < slice.depth; i += kTaps, to += kTaps * kOutputs) {
      const float* from = w + (group * g.group_outputs() + map + i / kTaps) * map_size + slice.line * kTaps;
      pack_transposed(from, kTaps, end - from - (slice.count - 1) * kTaps, taps, to,
                      [](int t) { return kTaps - 1 - t; });
    }
  };
  const auto weights = transformed<F>(call, {g.groups, g.group_outputs(), g.group_channels()}, pack);
  const int64_t pad_y = (2 - g.y.pad) / g.y.stride, pad_x = (2 - g.x.pad) / g.x.stride;
  Convolution<F>{call.in[0], call.out[0], call.epilogue, pad_y, pad_x, weights}.run();
}

}  // namespace

void conv2d_winograd(const Call& call, int tile) {
  if (tile == LargeTiles::kResults) return forward<LargeTiles>(call);
  call.attr[0] == 1 ? forward<Stride1>(call) : forward<Stride2>(call);
}

void conv2d_winograd_input(const Call& call, int tile) {
  if (tile == LargeTiles::kResults) return input_gradient<LargeTiles>(call);
  call.attr[0] == 1 ? input_gradient<Stride1>(call) : input_gradient<Gradient2>(call);
}

}  // namespace nl::NL_ISA
