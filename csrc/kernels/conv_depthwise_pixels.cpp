// conv_depthwise_pixels.cpp: convolutions of single channels from pixels to pixels, where images and result have their
// channels last.
//
// A vector is some channels of a pixel, which every tap reads where it lies. A tile is some pixels of some rows, whose
// sums share what they read: it goes through the channels with a list of where each pixel begins, in the image or,
// beside it, in a row of zeros. A band of tiles is as many rows, and its epilogue follows while it is in L2.
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

// kListedPixels pixels, some of which may be the same; what they see is listed tap by tap.
template <class T, bool kFew>
void sum_listed(const T* const* at, const Channels<T>& channels, T* const* to, Polls& polls) {
  using V = typename Simd<T>::V;
  constexpr int N = kListedPixels;
  for (int64_t v = channels.begin; v < channels.stop; v++) {
    const int64_t c = channels.first(v), taps = channels.taps;
    const T* weight = channels.weight(v);
    V total[N];
    for (int64_t k = 0; k < taps;) {
      V sum[N] = {};
      const bool begins = k == 0;
      for (const int64_t stop = min_of(taps, k + kDepth); k < stop; k++) {
        const V w = load<V>(weight + k * kWidth<T>);
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
          sum[n] = multiply_add(w, load_channels<T, kFew>(at[k * N + n] + c, channels.count), sum[n]);
        }
      }
      for (int n = 0; n < N; n++) total[n] = begins ? sum[n] : total[n] + sum[n];
    }
    polls.after(N * taps * kWidth<T>);
    for (int n = 0; n < N; n++) kFew ? store_few<T>(total[n], channels.count, to[n] + c) : store(to[n] + c, total[n]);
  }
}

// Results of rows [first, stop). `at` has room for kListedPixels pointers a tap.
template <class T>
void sum_band_listed(const Seen<T>& seen, const Geometry& g, int64_t first, int64_t stop, const Channels<T>& channels,
                     const Results<T>& to, const T** at) {
  const bool few = channels.count < kWidth<T>;
  const int64_t columns = g.x.output;
  Polls polls;
  for (int64_t i = first; i < stop; i++) {
    for (int64_t begin = 0; begin < columns; begin += kListedPixels) {
      T* results[kListedPixels];
      for (int64_t n = 0; n < kListedPixels; n++) {
        const int64_t j = min_of(begin + n, columns - 1);
        results[n] = to.data + (i - first) * to.y_stride + j * to.x_stride;
        for (int64_t k = 0; k < g.taps(); k++) {
          const int64_t y = i * g.y.stride - g.y.pad + k / g.x.kernel * g.y.dilation;
          const int64_t x = j * g.x.stride - g.x.pad + k % g.x.kernel * g.x.dilation;
          at[k * kListedPixels + n] = seen.at(y, x);
        }
      }
      few ? sum_listed<T, true>(at, channels, results, polls) : sum_listed<T, false>(at, channels, results, polls);
    }
  }
}

// ---- all images ---------------------------------------------------------------------------------------------------

template <class T>
struct DepthwisePixels {
  const Call& call;
  Geometry g;
  Channels<T> channels;

  bool in_tiles(int64_t stride) const {
    auto fits = [=](const Axis& a) { return a.kernel == 3 && a.dilation == 1 && a.stride == stride; };
    return fits(g.y) && fits(g.x) && g.channels >= kWidth<T>;
  }
  bool is_far() const { return g.images * g.y.input * g.x.input * g.channels * int64_t(sizeof(T)) >= kStreamBytes; }
  bool streams() const {
    return !call.epilogue && g.channels >= kWidth<T> &&
           NL_ISA::streams<T>(call.out[0], g.channels, g.images * g.pixels());
  }

  // Units are bands of images, or parts of their channels where bands are few and vectors do not overlap.
  void run() const {
    const int64_t bands = ceil_div(g.y.output, kBandRows), vectors = channels.stop;
    const int64_t wanted = ceil_div(4 * nl_num_threads(), g.images * bands);
    const int64_t parts = g.channels % kWidth<T> == 0 ? min_of(vectors, wanted) : 1;
    const int64_t work = ceil_div(vectors, parts) * kWidth<T> * kBandRows * g.x.output * g.taps();
    parallel_for(g.images * bands * parts, grain_of(work), [=](int64_t begin, int64_t end) {
      const T** at = (const T**)nl_scratch(0, g.taps() * kListedPixels * int64_t(sizeof(T*)) + g.channels * sizeof(T));
      T* zeros = (T*)(at + g.taps() * kListedPixels);
      for (int64_t c = 0; c < g.channels; c++) zeros[c] = 0;
      for (int64_t u = begin; u < end; u++) {
        const int64_t part = u % parts, band = u / parts % bands, image = u / parts / bands;
        Channels<T> some = channels;
        some.begin = part * vectors / parts, some.stop = (part + 1) * vectors / parts;
        sum(image, band * g.y.output / bands, (band + 1) * g.y.output / bands, some, zeros, at);
      }
      if (streams()) stream_fence();
    });
  }

  // Rows [first, stop) of an image of the result.
  void sum(int64_t image, int64_t first, int64_t stop, const Channels<T>& some, const T* zeros, const T** at) const {
    const View &from = call.in[0], &out = call.out[0];
    const T* data = (const T*)from.data + image * from.strides[0];
    const Seen<T> seen = {data, zeros, g.y.input, g.x.input, from.strides[2], from.strides[3]};
    const T* ahead = is_far() ? data + ((stop - 1) * g.y.stride + 3 - g.y.pad) * from.strides[2] : nullptr;
    T* result = (T*)out.data + image * out.strides[0] + first * out.strides[2];
    const Results<T> to = {result, out.strides[2], out.strides[3], streams(), ahead};
    if (in_tiles(1)) {
      sum_band<T, 1>(seen, g, first, stop, some, to);
    } else if (in_tiles(2)) {
      sum_band<T, 2>(seen, g, first, stop, some, to);
    } else {
      sum_band_listed(seen, g, first, stop, some, to, at);
    }
    const int64_t begin = some.first(some.begin), end = some.first(some.stop - 1) + min_of(kWidth<T>, g.channels);
    finish_tile(call.epilogue, out, image, begin, end, first * g.x.output, stop * g.x.output);
  }
};

template <class T>
void forward(const Call& call, const Geometry& g) {
  constexpr int W = kWidth<T>;
  const int64_t taps = g.taps(), vectors = ceil_div(g.channels, W), bytes = vectors * taps * W * int64_t(sizeof(T));
  T* packed = (T*)(call.kept ? nl_keep(call.kept, bytes) : nl_scratch(2, bytes));
  const Channels<T> channels = {g.channels, taps, packed, 0, vectors};
  make_once(call.kept, [&] {
    const T* w = contiguous<T>(call.in[1]);
    const int count = int(min_of(W, g.channels));
    for (int64_t v = 0; v < vectors; v++) {
      const int64_t first = channels.first(v), readable = (g.channels - first - count + 1) * taps;
      const Slice slice = {0, 0, 0, 0, count, int(taps), 0, W};
      pack_transposed(w + first * taps, taps, readable, slice, packed + v * taps * W, [](int k) { return k; });
    }
  });
  DepthwisePixels<T>{call, g, channels}.run();
}

}  // namespace

bool conv2d_depthwise_pixels(const Call& call) {
  if (!channels_last(call.out[0]) || call.in[0].strides[1] != 1) return false;
  const Geometry g = geometry(call.in[0], call.in[1], call.out[0], call.attr);
  call.out[0].dtype == DType::f32 ? forward<float>(call, g) : forward<double>(call, g);
  return true;
}

}  // namespace nl::NL_ISA
