// conv_depthwise_pixels.cpp: convolutions of single channels and their gradients by the input, from pixels to pixels,
// where images and result have their channels last.
//
// A vector is some channels of a pixel, which every tap reads where it lies. A tile is some pixels of some rows, whose
// sums share what they read: it goes through the channels with a list of where each pixel begins, in the image or,
// beside it, in a row of zeros. A band of tiles is as many rows, and its epilogue follows while it is in L2.
//
// Larger kernels have tiles of a single row, with one row of the weights in registers at a time.
//
// At stride 1 the gradient is the convolution of maps that are turned round to images that are, in the same order of
// taps. Of 3x3 taps at stride 2 a tile of maps, and the row and column behind it, gives images of twice its size.
#include "conv_depthwise.hpp"
#include "stream_store.hpp"

namespace nl::NL_ISA {
namespace {

// Rows and columns of a tile. 32 registers hold 16 sums, nine weights and a pixel; with 16 of them weights are read as
// they are used.
#if NL_VEC_BYTES == 64 || defined(__aarch64__)
constexpr int kBandRows = 4;
#else
constexpr int kBandRows = 2;
#endif
constexpr int kColumns = 4;
// Where images come from memory: narrow tiles read rows nearly as they lie, and bring what the next band reads into L2
// meanwhile, line by line. Tiles of four columns took up to 1.3 times as long at stride 2, with that or without; what
// is in L3 they read as fast, and share more of it.
constexpr int kFarColumns = 2;
constexpr int kListedPixels = 8;  // side by side, with any taps

// Pixels of an image; those beside it are zeros.
template <class T>
struct Seen {
  const T *data, *zeros;
  int64_t height, width, y_stride, x_stride;

  const T* at(int64_t y, int64_t x) const {
    const bool inside = uint64_t(y) < uint64_t(height) && uint64_t(x) < uint64_t(width);
    return inside ? data + y * y_stride + x * x_stride : zeros;
  }

  // Rows and columns from (y, x) on, row by row.
  void list(int64_t y, int64_t x, int64_t rows, int64_t columns, const T** to) const {
    const bool between = x >= 0 && x + columns <= width;
    for (int64_t i = y; i < y + rows; i++, to += columns) {
      if (between && i >= 0 && i < height) {
        const T* pixel = data + i * y_stride + x * x_stride;
        for (int64_t j = 0; j < columns; j++) to[j] = pixel + j * x_stride;
      } else {
        for (int64_t j = 0; j < columns; j++) to[j] = at(i, x + j);
      }
    }
  }
};

// Vectors [begin, stop) of the channels, with their weights, [vector][tap][lane]. The last vector ends with the last
// channel.
template <class T>
struct Channels {
  int64_t count, taps;
  const T* weights;
  int64_t begin, stop;

  int64_t first(int64_t v) const { return max_of(0, min_of(v * kWidth<T>, count - kWidth<T>)); }
  const T* weight(int64_t v) const { return weights + v * taps * kWidth<T>; }
};

// Pixels of the result.
template <class T>
struct Results {
  T* data;
  int64_t y_stride, x_stride;
  bool stream;     // past the caches
  const T* ahead;  // what the next band reads where images come from memory, else null
};

// ---- 3x3 ----------------------------------------------------------------------------------------------------------

template <class T>
using Tile = void (*)(const T* const* at, const Channels<T>&, const Results<T>&);

// kRows x kCount pixels; what they see is listed row by row.
template <class T, int kStride, int kRows, int kCount, bool kFar>
void sum_tile(const T* const* at, const Channels<T>& shared_channels, const Results<T>& shared_results) {
  using V = typename Simd<T>::V;
  constexpr int kSeenRows = (kRows - 1) * kStride + 3, kSeen = (kCount - 1) * kStride + 3;
  constexpr int kLines = kFar ? kRows * kCount * kStride * kStride : 0;  // that no tile of the band before saw
  const Channels<T> channels = shared_channels;  // stores could change anything that is not local
  const Results<T> to = shared_results;
  for (int64_t v = channels.begin; v < channels.stop; v++) {
    const int64_t c = channels.first(v);
    V weight[9], sum[kRows][kCount] = {};
#pragma GCC unroll 9
    for (int t = 0; t < 9; t++) weight[t] = load<V>(channels.weight(v) + t * kWidth<T>);
#pragma GCC unroll 9
    for (int y = 0; y < kSeenRows; y++) {
#pragma GCC unroll 9
      for (int x = 0; x < kSeen; x++) {
        const int number = y * kSeen + x;
        const V seen = load<V>(at[number] + c);
        if (number < kLines) __builtin_prefetch(to.ahead + (v * kLines + number) * kWidth<T>, 0, 2);
#pragma GCC unroll 9
        for (int t = 0; t < 9; t++) {
          const int i = y - t / 3, j = x - t % 3;
          if (i < 0 || j < 0 || i % kStride != 0 || j % kStride != 0) continue;
          if (i / kStride >= kRows || j / kStride >= kCount) continue;
          V& result = sum[i / kStride][j / kStride];
          result = multiply_add(weight[t], seen, result);
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; i++) {
#pragma GCC unroll 4
      for (int j = 0; j < kCount; j++) {
        T* result = to.data + i * to.y_stride + j * to.x_stride + c;
        to.stream ? stream_store(result, sum[i][j]) : store(result, sum[i][j]);
      }
    }
  }
}

template <class T, int kStride, int kRows, bool kFar, int kCount = kFar ? kFarColumns : kColumns>
Tile<T> by_columns(int64_t columns) {
  if constexpr (kCount > 1) {
    if (columns < kCount) return by_columns<T, kStride, kRows, kFar, kCount - 1>(columns);
  }
  return sum_tile<T, kStride, kRows, kCount, kFar>;
}

template <class T, int kStride, int kRows = kBandRows>
Tile<T> tile_of(int64_t rows, int64_t columns, bool far) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of<T, kStride, kRows - 1>(rows, columns, far);
  }
  return far ? by_columns<T, kStride, kRows, true>(columns) : by_columns<T, kStride, kRows, false>(columns);
}

// Results of rows [first, stop).
template <class T, int kStride>
void sum_band(const Seen<T>& seen, const Geometry& g, int64_t first, int64_t stop, const Channels<T>& channels,
              const Results<T>& to) {
  constexpr int kMostRows = (kBandRows - 1) * kStride + 3, kMost = (kColumns - 1) * kStride + 3;
  const T* at[kMostRows * kMost];
  const int64_t tiles = ceil_div(g.x.output, to.ahead ? kFarColumns : kColumns), rows = stop - first;
  Polls polls;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t begin = i * g.x.output / tiles, count = (i + 1) * g.x.output / tiles - begin;
    const int64_t y = first * kStride - g.y.pad, x = begin * kStride - g.x.pad;
    seen.list(y, x, (rows - 1) * kStride + 3, (count - 1) * kStride + 3, at);
    Results<T> results = to;
    results.data += begin * to.x_stride;
    if (to.ahead) results.ahead += begin * rows * kStride * kStride * g.channels;
    tile_of<T, kStride>(rows, count, to.ahead)(at, channels, results);
    polls.after(rows * count * (channels.stop - channels.begin) * kWidth<T> * g.taps());
  }
}

// ---- 5x5 and 7x7 --------------------------------------------------------------------------------------------------

// Pixels of a tile, all of one row: their sums, a row of weights and a pixel lie in registers.
#if NL_VEC_BYTES == 64 || defined(__aarch64__)
constexpr int kRowPixels = 14;
#else
constexpr int kRowPixels = 7;
#endif
constexpr int kLargest = 7;  // kernel

// What kCount pixels of a row see is listed row by row.
template <class T, int kStride, int kSize, int kCount>
void sum_row(const T* const* at, const Channels<T>& shared_channels, const Results<T>& shared_results) {
  using V = typename Simd<T>::V;
  constexpr int kSeen = (kCount - 1) * kStride + kSize;
  const Channels<T> channels = shared_channels;  // stores could change anything that is not local
  const Results<T> to = shared_results;
  for (int64_t v = channels.begin; v < channels.stop; v++) {
    const int64_t c = channels.first(v);
    const T* weights = channels.weight(v);
    const T* const* row = at;
    V sum[kCount] = {};
#pragma GCC unroll 1
    for (int y = 0; y < kSize; y++, row += kSeen, weights += kSize * kWidth<T>) {
      V weight[kSize];
#pragma GCC unroll 7
      for (int t = 0; t < kSize; t++) weight[t] = load<V>(weights + t * kWidth<T>);
#pragma GCC unroll 33
      for (int x = 0; x < kSeen; x++) {
        const V seen = load<V>(row[x] + c);
#pragma GCC unroll 7
        for (int t = 0; t < kSize; t++) {
          const int j = x - t;
          if (j < 0 || j % kStride != 0 || j / kStride >= kCount) continue;
          sum[j / kStride] = multiply_add(weight[t], seen, sum[j / kStride]);
        }
      }
    }
#pragma GCC unroll 14
    for (int j = 0; j < kCount; j++) {
      T* result = to.data + j * to.x_stride + c;
      to.stream ? stream_store(result, sum[j]) : store(result, sum[j]);
    }
  }
}

template <class T>
struct RowTile {
  Tile<T> sum;
  int64_t pixels;
};

// The tile that computes the fewest pixels of a row of `width` twice.
template <class T, int kStride, int kSize>
RowTile<T> row_tile(int64_t width) {
  auto computed = [=](int64_t pixels) { return ceil_div(width, pixels) * pixels; };
  if (width >= kRowPixels && computed(kRowPixels) <= computed(7)) {
    return {sum_row<T, kStride, kSize, kRowPixels>, kRowPixels};
  }
  if (width >= 7) return {sum_row<T, kStride, kSize, 7>, 7};
  if (width >= 4) return {sum_row<T, kStride, kSize, 4>, 4};
  return {sum_row<T, kStride, kSize, 1>, 1};
}

template <class T>
RowTile<T> row_tile_of(const Axis& x) {
  if (x.stride == 1) return x.kernel == 5 ? row_tile<T, 1, 5>(x.output) : row_tile<T, 1, 7>(x.output);
  return x.kernel == 5 ? row_tile<T, 2, 5>(x.output) : row_tile<T, 2, 7>(x.output);
}

// Results of rows [first, stop); the last tile of a row ends where it does.
template <class T>
void sum_band_by_rows(const Seen<T>& seen, const Geometry& g, int64_t first, int64_t stop, const Channels<T>& channels,
                      const Results<T>& to) {
  const T* at[kLargest * ((kRowPixels - 1) * 2 + kLargest)];
  const RowTile<T> tile = row_tile_of<T>(g.x);
  const int64_t size = g.x.kernel, columns = (tile.pixels - 1) * g.x.stride + size;
  Polls polls;
  for (int64_t i = first; i < stop; i++) {
    for (int64_t j = 0; j < g.x.output; j += tile.pixels) {
      const int64_t begin = min_of(j, g.x.output - tile.pixels);
      seen.list(i * g.y.stride - g.y.pad, begin * g.x.stride - g.x.pad, size, columns, at);
      Results<T> results = to;
      results.data += (i - first) * to.y_stride + begin * to.x_stride;
      tile.sum(at, channels, results);
      polls.after(tile.pixels * (channels.stop - channels.begin) * kWidth<T> * g.taps());
    }
  }
}

// ---- the gradient of 3x3 at stride 2 and padding 1 ----------------------------------------------------------------

// kRows x kCount pixels of the maps and those behind them, listed row by row, to height x width pixels of the images:
// all twice as many, or one less. Even rows and columns see tap 1, odd ones tap 0 of the next pixel and tap 2.
template <class T, int kRows, int kCount>
void spread_tile(const T* const* at, const Channels<T>& shared_channels, const Results<T>& shared_results,
                 int64_t height, int64_t width) {
  using V = typename Simd<T>::V;
  const Channels<T> channels = shared_channels;
  const Results<T> to = shared_results;
  for (int64_t v = channels.begin; v < channels.stop; v++) {
    const int64_t c = channels.first(v);
    V weight[9], seen[kRows + 1][kCount + 1];
#pragma GCC unroll 9
    for (int t = 0; t < 9; t++) weight[t] = load<V>(channels.weight(v) + t * kWidth<T>);
#pragma GCC unroll 3
    for (int y = 0; y <= kRows; y++) {
#pragma GCC unroll 5
      for (int x = 0; x <= kCount; x++) seen[y][x] = load<V>(at[y * (kCount + 1) + x] + c);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 2 * kRows; i++) {
#pragma GCC unroll 8
      for (int j = 0; j < 2 * kCount; j++) {
        V sum = {};
#pragma GCC unroll 9
        for (int t = 0; t < 9; t++) {
          const int y = i + 1 - t / 3, x = j + 1 - t % 3;
          if (y % 2 == 0 && x % 2 == 0) sum = multiply_add(weight[t], seen[y / 2][x / 2], sum);
        }
        if (i >= height || j >= width) continue;
        T* result = to.data + i * to.y_stride + j * to.x_stride + c;
        to.stream ? stream_store(result, sum) : store(result, sum);
      }
    }
  }
}

template <class T>
using SpreadTile = void (*)(const T* const* at, const Channels<T>&, const Results<T>&, int64_t height, int64_t width);

template <class T, int kRows, int kCount = kColumns>
SpreadTile<T> spread_tile_of(int64_t columns) {
  if constexpr (kCount > 1) {
    if (columns < kCount) return spread_tile_of<T, kRows, kCount - 1>(columns);
  }
  return spread_tile<T, kRows, kCount>;
}

// Images' rows [first, stop), of `width` pixels, the first one even; at most two rows of the maps.
template <class T>
void spread_band(const Seen<T>& seen, int64_t first, int64_t stop, int64_t width, const Channels<T>& channels,
                 const Results<T>& to) {
  const T* at[3 * (kColumns + 1)];
  const int64_t columns = ceil_div(width, 2), tiles = ceil_div(columns, kColumns), rows = ceil_div(stop - first, 2);
  Polls polls;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t begin = i * columns / tiles, count = (i + 1) * columns / tiles - begin;
    seen.list(first / 2, begin, rows + 1, count + 1, at);
    Results<T> results = to;
    results.data += 2 * begin * to.x_stride;
    const auto tile = rows == 1 ? spread_tile_of<T, 1>(count) : spread_tile_of<T, 2>(count);
    tile(at, channels, results, stop - first, width - 2 * begin);
    polls.after(9 * rows * count * (channels.stop - channels.begin) * kWidth<T>);
  }
}

// ---- any taps -----------------------------------------------------------------------------------------------------

// Loads and stores of a vector, of which only the first `count` elements exist where channels are few.
template <class T, bool kFew>
typename Simd<T>::V load_channels(const T* from, int64_t count) {
  using V = typename Simd<T>::V;
  if constexpr (!kFew) return load<V>(from);
  T part[kWidth<T>] = {};
  copy_few(from, count, part);
  return load<V>(part);
}

// What kListedPixels pixels, some of which may be the same, see by some taps: pointers tap by tap, and which taps.
template <class T>
struct Listed {
  const T** at;
  int64_t* number;
  int64_t taps;
};

template <class T, bool kFew>
void sum_listed(const Listed<T>& seen, const Channels<T>& channels, T* const* to, Polls& polls) {
  using V = typename Simd<T>::V;
  constexpr int N = kListedPixels;
  for (int64_t v = channels.begin; v < channels.stop; v++) {
    const int64_t c = channels.first(v);
    const T* weight = channels.weight(v);
    V total[N] = {};
    for (int64_t k = 0; k < seen.taps;) {
      V sum[N] = {};
      const bool begins = k == 0;
      for (const int64_t stop = min_of(seen.taps, k + kDepth); k < stop; k++) {
        const V w = load<V>(weight + seen.number[k] * kWidth<T>);
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
          sum[n] = multiply_add(w, load_channels<T, kFew>(seen.at[k * N + n] + c, channels.count), sum[n]);
        }
      }
      for (int n = 0; n < N; n++) total[n] = begins ? sum[n] : total[n] + sum[n];
    }
    polls.after(N * seen.taps * kWidth<T>);
    for (int n = 0; n < N; n++) kFew ? store_few<T>(total[n], channels.count, to[n] + c) : store(to[n] + c, total[n]);
  }
}

// The taps of every y_step-th row and x_step-th column of the result.
struct Steps {
  int64_t y_step, x_step, kernel_width;
  const AxisTaps *y, *x;
};

// Results of rows [first, stop). `listed` has room for all taps.
template <class T>
void sum_band_listed(const Seen<T>& seen, const Steps& steps, int64_t first, int64_t stop, const Channels<T>& channels,
                     const Results<T>& to, Listed<T> listed) {
  const bool few = channels.count < kWidth<T>;
  Polls polls;
  for (int64_t i = first; i < stop; i++) {
    const AxisTaps& y = steps.y[i % steps.y_step];
    for (int64_t p = 0; p < steps.x_step; p++) {
      const AxisTaps& x = steps.x[p];
      listed.taps = y.count * x.count;
      for (int64_t begin = 0; begin < x.outputs; begin += kListedPixels) {
        T* results[kListedPixels];
        for (int64_t n = 0; n < kListedPixels; n++) {
          const int64_t j = min_of(begin + n, x.outputs - 1);
          results[n] = to.data + (i - first) * to.y_stride + (x.begin + j * steps.x_step) * to.x_stride;
          for (int64_t k = 0; k < listed.taps; k++) {
            const int64_t u = k / x.count, v = k % x.count;
            const T* pixel = seen.at(i / steps.y_step * y.stride + y.delta[u], j * x.stride + x.delta[v]);
            listed.at[k * kListedPixels + n] = pixel;
            listed.number[k] = y.number[u] * steps.kernel_width + x.number[v];
          }
        }
        few ? sum_listed<T, true>(listed, channels, results, polls)
            : sum_listed<T, false>(listed, channels, results, polls);
      }
    }
  }
}

// ---- all images ---------------------------------------------------------------------------------------------------

enum class Sums { stride1, stride2, rows, spread, listed };

// Pixels of `images`, by these axes, to those of `result`.
template <class T>
struct DepthwisePixels {
  const Call& call;
  const View &images, &result;
  bool turned;  // both are, against the operands
  Sums sums;
  Geometry g;  // of these sums
  Channels<T> channels;
  Steps steps;

  int64_t count() const { return images.shape[0]; }
  int64_t height() const { return result.shape[2]; }
  int64_t width() const { return result.shape[3]; }
  bool is_far() const {
    const int64_t pixels = count() * images.shape[2] * images.shape[3];
    return (sums == Sums::stride1 || sums == Sums::stride2) &&
           pixels * channels.count * int64_t(sizeof(T)) >= kStreamBytes;
  }
  bool streams() const {
    return !call.epilogue && channels.count >= kWidth<T> &&
           NL_ISA::streams<T>(call.out[0], channels.count, count() * height() * width());
  }

  // A band begins with a multiple of `step` rows.
  int64_t band_begin(int64_t band, int64_t bands) const {
    const int64_t step = sums == Sums::spread ? 2 : 1;
    return min_of(height(), band * ceil_div(height(), step) / bands * step);
  }

  // Units are bands of images, or parts of their channels where bands are few and vectors do not overlap.
  void run() const {
    const int64_t bands = ceil_div(height(), kBandRows), vectors = channels.stop, taps = channels.taps;
    const int64_t wanted = ceil_div(4 * nl_num_threads(), count() * bands);
    const int64_t parts = channels.count % kWidth<T> == 0 ? min_of(vectors, wanted) : 1;
    const int64_t work = ceil_div(vectors, parts) * kWidth<T> * kBandRows * width() * taps;
    parallel_for(count() * bands * parts, grain_of(work), [=](int64_t begin, int64_t end) {
      const int64_t numbers = taps * (kListedPixels + 1) * int64_t(sizeof(int64_t));
      int64_t* number = (int64_t*)nl_scratch(0, numbers + channels.count * sizeof(T));
      const T** at = (const T**)(number + taps);
      T* zeros = (T*)(at + taps * kListedPixels);
      for (int64_t c = 0; c < channels.count; c++) zeros[c] = 0;
      for (int64_t u = begin; u < end; u++) {
        const int64_t part = u % parts, band = u / parts % bands, image = u / parts / bands;
        Channels<T> some = channels;
        some.begin = part * vectors / parts, some.stop = (part + 1) * vectors / parts;
        sum(image, band_begin(band, bands), band_begin(band + 1, bands), some, zeros, {at, number, 0});
      }
      if (streams()) stream_fence();
    });
  }

  // Rows [first, stop) of an image of the result.
  void sum(int64_t image, int64_t first, int64_t stop, const Channels<T>& some, const T* zeros,
           const Listed<T>& listed) const {
    const T* data = (const T*)images.data + image * images.strides[0];
    const Seen<T> seen = {data, zeros, images.shape[2], images.shape[3], images.strides[2], images.strides[3]};
    T* to = (T*)result.data + image * result.strides[0] + first * result.strides[2];
    const Results<T> results = {to, result.strides[2], result.strides[3], streams(), ahead(data, first, stop)};
    switch (sums) {
      case Sums::stride1: sum_band<T, 1>(seen, g, first, stop, some, results); break;
      case Sums::stride2: sum_band<T, 2>(seen, g, first, stop, some, results); break;
      case Sums::rows: sum_band_by_rows(seen, g, first, stop, some, results); break;
      case Sums::spread: spread_band(seen, first, stop, width(), some, results); break;
      case Sums::listed: sum_band_listed(seen, steps, first, stop, some, results, listed); break;
    }
    const int64_t begin = some.first(some.begin), end = some.first(some.stop - 1) + min_of(kWidth<T>, some.count);
    const int64_t top = turned ? height() - stop : first, bottom = turned ? height() - first : stop;
    finish_tile(call.epilogue, call.out[0], image, begin, end, top * width(), bottom * width());
  }

  // Where the rows begin in memory that the next band reads and this one does not.
  const T* ahead(const T* image, int64_t first, int64_t stop) const {
    if (!is_far()) return nullptr;
    const int64_t row = (stop - 1) * g.y.stride + 3 - g.y.pad, rows = (stop - first) * g.y.stride;
    if (!turned) return image + row * images.strides[2];
    return image + (row + rows - 1) * images.strides[2] + (images.shape[3] - 1) * images.strides[3];
  }
};

// Images whose rows and columns go the other way.
template <class T>
View turned_round(View v) {
  for (int d = 2; d < 4; d++) {
    v.data += (v.shape[d] - 1) * v.strides[d] * int64_t(sizeof(T));
    v.strides[d] = -v.strides[d];
  }
  return v;
}

// The weights of all channels, [vector][tap][lane].
template <class T>
Channels<T> pack_channels(const Call& call, int64_t count, int64_t taps, T* packed) {
  constexpr int W = kWidth<T>;
  const Channels<T> channels = {count, taps, packed, 0, ceil_div(count, W)};
  make_once(call.kept, [&] {
    const T* w = contiguous<T>(call.in[1]);
    const int few = int(min_of(W, count));
    for (int64_t v = 0; v < channels.stop; v++) {
      const int64_t first = channels.first(v), readable = (count - first - few + 1) * taps;
      const Slice slice = {0, 0, 0, 0, few, int(taps), 0, W};
      pack_transposed(w + first * taps, taps, readable, slice, packed + v * taps * W, [](int k) { return k; });
    }
  });
  return channels;
}

// What taps that are next to each other do in tiles.
template <class T>
Sums sums_of(const Geometry& g, bool gradient) {
  auto fits = [&](int64_t size, int64_t stride) {
    auto axis = [=](const Axis& a) { return a.kernel == size && a.dilation == 1 && a.stride == stride; };
    return axis(g.y) && axis(g.x) && g.channels >= kWidth<T>;
  };
  if (fits(3, 1)) return Sums::stride1;
  if (fits(5, 1) || fits(7, 1)) return Sums::rows;
  if (!gradient && (fits(5, 2) || fits(7, 2))) return Sums::rows;
  if (!fits(3, 2)) return Sums::listed;
  if (!gradient) return Sums::stride2;
  return g.y.pad == 1 && g.x.pad == 1 ? Sums::spread : Sums::listed;
}

// Of a convolution, or of its gradient.
template <class T, bool kGradient>
void convolve(const Call& call, const Geometry& g) {
  const Sums sums = sums_of<T>(g, kGradient);
  const int64_t ys = kGradient ? Residue::number(g.y) : 1, xs = kGradient ? Residue::number(g.x) : 1;
  const int64_t bytes = ceil_div(g.channels, kWidth<T>) * g.taps() * kWidth<T> * int64_t(sizeof(T));
  const int64_t numbers = 2 * (ys * g.y.kernel + xs * g.x.kernel) * int64_t(sizeof(int64_t));
  char* memory = (char*)nl_scratch(2, (call.kept ? 0 : bytes) + (ys + xs) * int64_t(sizeof(AxisTaps)) + numbers);
  AxisTaps* y = (AxisTaps*)(call.kept ? memory : memory + bytes);
  AxisTaps* x = y + ys;
  int64_t *y_memory = (int64_t*)(x + xs), *x_memory = y_memory + 2 * ys * g.y.kernel;
  for (int64_t r = 0; r < ys; r++, y_memory += 2 * g.y.kernel) y[r] = axis_taps<kGradient>(g.y, r, y_memory);
  for (int64_t r = 0; r < xs; r++, x_memory += 2 * g.x.kernel) x[r] = axis_taps<kGradient>(g.x, r, x_memory);
  T* packed = (T*)(call.kept ? nl_keep(call.kept, bytes) : memory);
  const Channels<T> channels = pack_channels<T>(call, g.channels, g.taps(), packed);
  const Steps steps = {ys, xs, g.x.kernel, y, x};
  if (kGradient && (sums == Sums::stride1 || sums == Sums::rows)) {
    auto seen = [](const Axis& a) -> Axis { return {a.output, a.kernel, a.input, 1, a.kernel - 1 - a.pad, 1}; };
    const Geometry turned = {g.images, g.channels, g.outputs, g.groups, seen(g.y), seen(g.x)};
    const View images = turned_round<T>(call.in[0]), result = turned_round<T>(call.out[0]);
    return DepthwisePixels<T>{call, images, result, true, sums, turned, channels, steps}.run();
  }
  DepthwisePixels<T>{call, call.in[0], call.out[0], false, sums, g, channels, steps}.run();
}

template <bool kGradient>
bool convolve(const Call& call, const Geometry& g) {
  if (!channels_last(call.out[0]) || call.in[0].strides[1] != 1) return false;
  call.out[0].dtype == DType::f32 ? convolve<float, kGradient>(call, g) : convolve<double, kGradient>(call, g);
  return true;
}

}  // namespace

bool conv2d_depthwise_pixels(const Call& call) { return convolve<false>(call, conv2d_geometry(call)); }

bool conv2d_depthwise_pixels_input(const Call& call) { return convolve<true>(call, conv2d_input_geometry(call)); }

}  // namespace nl::NL_ISA
