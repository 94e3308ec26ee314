// conv_weight_rows.cpp: weight gradients of few weights, such as a stem's, from rows of the images where they lie.
//
// Maps come as vectors of outputs, one a pixel: transposed, or in place where their channels lie last. What the taps of
// a row see of the images, adjacent pixels, is broadcast against them, so that windows are never packed: with 16
// outputs each of their elements serves a single multiply-add. Threads take strips of whole blocks of k, whose sums are
// then added in order.
#include "conv_weight_rows.hpp"
#include "block_sums.hpp"
#include "conv_lanes.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kSums = kTileRows * kTileVecs;  // vectors of sums in registers
constexpr int64_t kMostSums = 1 << 13;        // a thread: where there are more, packing windows costs less

// Pixels of a block that follow each other: the first one's place in a staged row of images, and how many.
struct Segment {
  int64_t at, count;
};

// Adds up a block: kRows rows of kTaps adjacent elements each, times kVecs vectors of outputs.
template <class T>
struct BlockRows {
  const Segment* segments;
  int64_t count;
  const T* const* rows;  // of images
  int64_t step;          // elements from one pixel to the next
  const T* maps;
  int64_t pitch;  // of a pixel's maps
  T* to;
  const int64_t* place;  // in `to`, of each row's elements
};

template <class T, int kTaps, int kVecs, int kRows>
void add_rows(const BlockRows<T>& block) {
  using V = typename Simd<T>::V;
  V sum[kRows][kTaps][kVecs] = {};
  const T* row[kRows];
  for (int r = 0; r < kRows; r++) row[r] = block.rows[r];
  const T* maps = block.maps;
  const int64_t step = block.step, pitch = block.pitch;
  for (const Segment *s = block.segments, *end = s + block.count; s < end; s++) {
    int64_t at = s->at;
    for (int64_t n = s->count; n > 0; n--, at += step, maps += pitch) {
      V map[kVecs];
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; v++) map[v] = load<V>(maps + v * kWidth<T>);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 8
        for (int t = 0; t < kTaps; t++) {
          const V seen = splat<V>(row[r][at + t]);
#pragma GCC unroll 2
          for (int v = 0; v < kVecs; v++) sum[r][t][v] = multiply_add(seen, map[v], sum[r][t][v]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 8
    for (int t = 0; t < kTaps; t++) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; v++) store(block.to + block.place[r * kTaps + t] + v * kWidth<T>, sum[r][t][v]);
    }
  }
}

template <int kTaps, int kVecs>
constexpr int kMostRows = kSums / (kTaps * kVecs) > 0 ? kSums / (kTaps * kVecs) : 1;

template <class T>
using AddRows = void (*)(const BlockRows<T>&);

template <class T, int kTaps, int kVecs, int kRows = kMostRows<kTaps, kVecs>>
AddRows<T> of_rows(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return of_rows<T, kTaps, kVecs, kRows - 1>(rows);
  }
  return add_rows<T, kTaps, kVecs, kRows>;
}

// What a weight's rows of taps see: single channels of padded rows, or, where the images' channels lie last, as many
// elements of their pixels; then a row of taps sees several such runs.
template <class T>
struct WeightRows {
  static constexpr int W = kWidth<T>;
  const Call& call;
  Geometry g;
  bool by_pixels, maps_in_place;
  int64_t pitch, map_pitch;  // of a staged row, and of a pixel's maps
  int64_t blocks, strip;     // of k: in all, and that a thread takes at a time
  int64_t* place = nullptr;  // in the sums of a block, [channel][tap][output], of the elements of all runs

  explicit WeightRows(const Call& c) : call(c), g(conv2d_weight_geometry(c)) {
    const View &images = c.in[0], &maps = c.in[1];
    constexpr int64_t kLine = 64 / sizeof(T);
    by_pixels = images.strides[1] == 1 && images.strides[3] == g.channels;
    maps_in_place = maps.strides[1] == 1 && g.outputs % W == 0 && maps.strides[2] == g.x.output * maps.strides[3] &&
                    maps.strides[0] == g.y.output * maps.strides[2];
    pitch = (ceil_div(g.x.span() * pixel_size(), kLine) | 1) * kLine;
    map_pitch = maps_in_place ? maps.strides[3] : output_pitch();
    blocks = ceil_div(g.images * g.pixels(), kDepth);
    strip = choose_strip();
  }

  // Whether this is the better way: outputs fill vectors (with 8 of 16 lanes it took 0.9-1.3 times as long), threads
  // have blocks enough, and what they see stays in their caches.
  static bool suits(const Call& c) {
    const Geometry g = conv2d_weight_geometry(c);
    const int64_t taps = g.x.kernel, threads = nl_num_threads();
    if (g.groups != 1 || g.x.dilation != 1 || (taps != 3 && taps != 5 && taps != 7)) return false;
    if (g.images * g.pixels() < 4 * threads * kDepth || g.channels == 0 || g.outputs == 0) return false;
    const WeightRows w(c);
    const bool few = w.sum_size() <= kMostSums * threads && w.sum_bytes() <= kSumBytes;
    return few && 4 * g.outputs >= 3 * w.output_pitch() && w.bytes() <= 2 * kNearBytes;
  }

  int64_t pixel_size() const { return by_pixels ? g.channels : 1; }
  int64_t planes() const { return by_pixels ? 1 : g.channels; }
  int64_t runs() const { return g.channels * g.y.kernel; }
  int64_t lines() const { return g.channels * g.taps(); }
  int64_t output_pitch() const { return whole_vectors<T>(g.outputs); }
  int64_t sum_size() const { return lines() * output_pitch(); }
  int64_t sum_bytes() const { return sum_size() * int64_t(sizeof(T)); }

  // As many blocks as stay in L2, and their sums, whole rows if these are not fewer: the rest of a row is staged for
  // nothing.
  int64_t choose_strip() const {
    const int64_t width = g.x.output, even = width / gcd(width, kDepth);
    const int64_t row = g.y.stride * planes() * pitch + (maps_in_place ? 0 : width * map_pitch);
    const int64_t fitting = kNearBytes / int64_t(sizeof(T)) * width / (row * kDepth);
    const int64_t most = max_of(min_of(fitting, blocks / (4 * nl_num_threads())), ceil_div(width, kDepth));
    const int64_t kept = max_of(1, min_of(most, kSumBytes / max_of(1, sum_bytes())));
    return kept >= even ? kept / even * even : kept;
  }

  // ---- the strip of a thread ----

  int64_t strip_rows() const { return ceil_div(strip * kDepth, g.x.output) + 1; }  // of maps, at most
  int64_t seen() const { return (g.y.kernel - 1) * g.y.dilation + 1; }
  // Where the images' rows for row `r` of the maps begin, both counted through all images; `first` begins the strip.
  int64_t staged_row(int64_t r, int64_t first) const {
    return (r - first) * g.y.stride + (r / g.y.output - first / g.y.output) * max_of(0, seen() - g.y.stride);
  }
  int64_t plane_size() const {
    const int64_t rows = strip_rows(), parts = rows / g.y.output + 2;
    return (rows * g.y.stride + parts * max_of(0, seen() - g.y.stride)) * pitch;
  }
  int64_t staged_size() const { return planes() * plane_size(); }
  int64_t map_size() const { return maps_in_place ? 0 : strip_rows() * g.x.output * map_pitch; }
  int64_t bytes() const { return (staged_size() + map_size()) * int64_t(sizeof(T)); }

  struct Strip {
    const WeightRows& conv;
    T *staged, *maps;
    int64_t first;  // row of the maps

    // Rows [first, stop) of the maps, image by image.
    void fill(int64_t stop) const {
      const int64_t height = conv.g.y.output;
      each_row(height, first, stop, [&](int64_t image, int64_t begin, int64_t end) {
        const int64_t r = image * height + begin;
        conv.by_pixels ? stage_pixels(r, end - begin) : stage_planes(r, end - begin);
        if (!conv.maps_in_place) turn_maps(r, end - begin);
      });
    }

    void stage_planes(int64_t r, int64_t count) const {
      const View& v = conv.call.in[0];
      const Axis& x = conv.g.x;
      const PaddedRow<T> padded(x.input, -x.pad, 1, x.span());
      for (int64_t c = 0; c < conv.g.channels; c++) stage(r, count, padded, c * v.strides[1], v.strides[3], c);
    }

    void stage_pixels(int64_t r, int64_t count) const {
      const Axis& x = conv.g.x;
      const int64_t n = conv.g.channels;
      stage(r, count, PaddedRow<T>(x.input * n, -x.pad * n, 1, x.span() * n), 0, 1, 0);
    }

    void stage(int64_t r, int64_t count, const PaddedRow<T>& padded, int64_t at, int64_t stride, int64_t plane) const {
      const View& v = conv.call.in[0];
      const Axis& y = conv.g.y;
      const T* image = (const T*)v.data + r / y.output * v.strides[0] + at;
      const int64_t top = r % y.output * y.stride - y.pad;
      T* to = staged + plane * conv.plane_size() + conv.staged_row(r, first) * conv.pitch;
      for (int64_t i = 0; i < (count - 1) * y.stride + conv.seen(); i++, to += conv.pitch) {
        const int64_t row = top + i;
        row >= 0 && row < y.input ? padded.copy(image + row * v.strides[2], stride, to) : padded.clear(to);
      }
    }

    void turn_maps(int64_t r, int64_t count) const {
      const int64_t height = conv.g.y.output, n = conv.g.outputs;
      T* to = maps + (r - first) * conv.g.x.output * conv.map_pitch;
      for (int64_t o = 0; o < n; o += W, to += W) {
        const LaneGroup<T> lanes(conv.call.in[1], r / height, o, min_of(W, n - o));
        lanes.read(r % height, r % height + count, [=, p = conv.map_pitch](int64_t pixel) { return to + pixel * p; });
      }
    }

    // Sums of the pixels [k, stop), one block.
    void add(int64_t k, int64_t stop, T* to) const {
      const int64_t width = conv.g.x.output, step = conv.g.x.stride * conv.pixel_size();
      Segment segments[kDepth];
      BlockRows<T> block = {segments, 0, nullptr, step, nullptr, conv.map_pitch, nullptr, nullptr};
      each_row(width, k, stop, [&](int64_t r, int64_t begin, int64_t end) {
        segments[block.count++] = {conv.staged_row(r, first) * conv.pitch + begin * step, end - begin};
      });
      const T* from = conv.maps_in_place ? (const T*)conv.call.in[1].data + k * conv.map_pitch
                                         : maps + (k - first * width) * conv.map_pitch;
      for (int64_t o = 0, vecs; o < conv.output_pitch(); o += vecs * W) {
        vecs = min_of(2, (conv.output_pitch() - o) / W);
        block.maps = from + o, block.to = to + o;
        switch (conv.g.x.kernel) {
          case 3: vecs = add_runs<3>(vecs, block); break;
          case 5: vecs = add_runs<5>(vecs, block); break;
          default: vecs = add_runs<7>(vecs, block); break;
        }
      }
    }

    // All runs, with up to `vecs` vectors of outputs; returns how many.
    template <int kTaps>
    int64_t add_runs(int64_t vecs, BlockRows<T>& block) const {
      constexpr int kVecs = 2 * kTaps <= kSums ? 2 : 1;
      const int64_t all = conv.runs(), v = min_of(vecs, kVecs);
      const int64_t parts = ceil_div(all, v == 1 ? kMostRows<kTaps, 1> : kMostRows<kTaps, kVecs>);
      const T* rows[kMostRows<kTaps, 1>];
      block.rows = rows;
      for (int64_t p = 0; p < parts; p++) {
        const int64_t begin = p * all / parts, end = (p + 1) * all / parts;
        for (int64_t i = begin; i < end; i++) rows[i - begin] = staged + conv.offset(i);
        block.place = conv.place + begin * kTaps;
        (v == 1 ? of_rows<T, kTaps, 1>(end - begin) : of_rows<T, kTaps, kVecs>(end - begin))(block);
      }
      return v;
    }
  };

  // Of a run in the staged rows.
  int64_t offset(int64_t run) const {
    const int64_t n = by_pixels ? g.channels : g.y.kernel, row = (by_pixels ? run / n : run % n) * g.y.dilation * pitch;
    return by_pixels ? row + run % n * g.x.kernel : row + run / n * plane_size();
  }

  // Of the elements of all runs, run by run.
  void list_places() const {
    const int64_t n = g.x.kernel, channels = pixel_size(), of_row = n * channels;
    for (int64_t i = 0; i < lines(); i++) {
      const int64_t tap = i % of_row / channels, channel = by_pixels ? i % channels : i / g.taps();
      const int64_t row = by_pixels ? i / of_row : i / n % g.y.kernel;
      place[i] = (channel * g.taps() + row * n + tap) * output_pitch();
    }
  }

  void run() {
    const int64_t threads = nl_num_threads(), strips = max_of(1, kSumBytes / (sum_bytes() * strip) / threads) * threads;
    const BlockSums<T> sums(blocks, sum_size(), strips * strip, lines());
    place = sums.numbers;
    list_places();
    sums.run([&](int64_t first, int64_t count) {
      parallel_for(ceil_div(count, strip), 1, [=](int64_t begin, int64_t end) {
        T* staged = (T*)nl_scratch(0, bytes());
        for (int64_t i = begin * strip; i < min_of(count, end * strip); i += strip) {
          run_strip(staged, first + i, first + min_of(count, i + strip), sums.of_blocks + i * sums.size);
        }
      });
    });
    put(sums.total);
  }

  // Blocks [begin, end).
  void run_strip(T* staged, int64_t begin, int64_t end, T* to) const {
    const int64_t k = begin * kDepth, stop = min_of(end * kDepth, g.images * g.pixels());
    const Strip rows = {*this, staged, staged + staged_size(), k / g.x.output};
    rows.fill(ceil_div(stop, g.x.output));
    for (int64_t b = begin; b < end; b++, to += sum_size()) {
      nl_check_interrupt();
      rows.add(b * kDepth, min_of(stop, (b + 1) * kDepth), to);
    }
  }

  void put(const T* total) const {
    const int64_t n = lines();
    parallel_for(output_pitch() / W, grain_of(n * W), [=](int64_t begin, int64_t end) {
      T* buffer = (T*)nl_scratch(0, (n + 1) * W * sizeof(T));
      for (int64_t o = begin * W; o < min_of(g.outputs, end * W); o += W) {
        turn(total + o, output_pitch(), n, min_of(W, g.outputs - o), buffer, (T*)call.out[0].data + o * n);
      }
      if (call.epilogue) call.epilogue->fn(call.epilogue->ctx, 0, begin * W, min_of(g.outputs, end * W), 0, n);
    });
  }
};

template <class T>
bool weight_gradient(const Call& call) {
  if (!WeightRows<T>::suits(call)) return false;
  WeightRows<T>(call).run();
  return true;
}

}  // namespace

bool conv2d_weight_rows(const Call& call) {
  return call.out[0].dtype == DType::f32 ? weight_gradient<float>(call) : weight_gradient<double>(call);
}

}  // namespace nl::NL_ISA
