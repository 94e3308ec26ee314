// conv_depthwise_weight.cpp: weight gradients of convolutions of single channels: sums over the pixels of all images,
// for vectors of channels and every tap.
//
// Pixels whose channels are adjacent are read where they lie, others are transposed into vectors of channels, one a
// pixel, strip by strip. A table says where each pixel that a window sees lies, or, beside the image, zeros do. Threads
// share vectors of channels and blocks of k, whose sums are then added in order.
#include "block_sums.hpp"
#include "conv_depthwise.hpp"
#include "conv_lanes.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kStagedBytes = 256 << 10;  // a strip, in L2
constexpr int64_t kUnits = 8;                // a thread, at least

// Pixels of a block that follow each other in a row of the maps.
template <class T>
struct Segment {
  const T* const* seen;  // in the table: what the first tap sees at the first pixel
  const T* map;
  int64_t count;
};

// A block of k, for a vector of channels.
template <class T>
struct Block {
  const Segment<T>*begin, *end;
  int64_t row_step, pixel_step;  // in the table: from a tap to the one below, and to what it sees of the next pixel
  int64_t map_pitch;
  int64_t seen_at, map_at;  // of the vector in a pixel
  T* to;                    // [tap][lane]
};

// 3x3 taps, adjacent in a row, of pixels kStride apart. What two pixels both see stays in registers, if there are 32.
// With kAhead the next vector of channels is brought into L2 meanwhile. Inlined, the loop would have its addresses in
// memory.
template <class T, int kStride, bool kAhead>
__attribute__((noinline)) void add_square(const Block<T>& block) {
  using V = typename Simd<T>::V;
  constexpr int kShared = NL_VEC_BYTES == 64 ? 3 - kStride : 0;
  V sum[9] = {};
  const int64_t row = block.row_step, pitch = block.map_pitch, at = block.seen_at;
  for (const Segment<T>* s = block.begin; s < block.end; s++) {
    const T* const* seen = s->seen;
    const T* map = s->map + block.map_at;
    V x[3][3];
    for (int u = 0; u < 3; u++) {
      for (int v = 0; v < kShared; v++) x[u][v + kStride] = load<V>(seen[u * row + v] + at);
    }
    for (int64_t n = s->count; n > 0; n--, seen += kStride, map += pitch) {
      const V gradient = load<V>(map);
      if constexpr (kAhead) {
        __builtin_prefetch(map + kWidth<T>, 0, 2);
        for (int u = 3 - kStride; u < 3; u++) {
          for (int v = 3 - kStride; v < 3; v++) __builtin_prefetch(seen[u * row + v] + at + kWidth<T>, 0, 2);
        }
      }
#pragma GCC unroll 3
      for (int u = 0; u < 3; u++) {
#pragma GCC unroll 3
        for (int v = 0; v < 3; v++) {
          x[u][v] = v < kShared ? x[u][v + kStride] : load<V>(seen[u * row + v] + at);
          sum[u * 3 + v] = multiply_add(gradient, x[u][v], sum[u * 3 + v]);
        }
      }
    }
  }
#pragma GCC unroll 9
  for (int t = 0; t < 9; t++) store(block.to + t * kWidth<T>, sum[t]);
}

// N taps of any kernel, which see the table at `offset`.
template <class T, int N>
__attribute__((noinline)) void add_taps(const Block<T>& block, const int64_t* offset, T* to) {
  using V = typename Simd<T>::V;
  V sum[N] = {};
  int64_t tap[N];
  for (int t = 0; t < N; t++) tap[t] = offset[t];
  const int64_t step = block.pixel_step, pitch = block.map_pitch, at = block.seen_at;
  for (const Segment<T>* s = block.begin; s < block.end; s++) {
    const T* const* seen = s->seen;
    const T* map = s->map + block.map_at;
    for (int64_t n = s->count; n > 0; n--, seen += step, map += pitch) {
      const V gradient = load<V>(map);
#pragma GCC unroll 9
      for (int t = 0; t < N; t++) sum[t] = multiply_add(gradient, load<V>(seen[tap[t]] + at), sum[t]);
    }
  }
#pragma GCC unroll 9
  for (int t = 0; t < N; t++) store(to + t * kWidth<T>, sum[t]);
}

template <class T>
struct DepthwiseWeights {
  static constexpr int W = kWidth<T>;
  const Call& call;
  Geometry g;
  bool seen_in_place, maps_in_place;
  int64_t vectors, blocks, strip, parts;  // a unit takes one of `parts` of the vectors, and `strip` blocks
  int64_t* offset = nullptr;              // in the table, of each tap

  explicit DepthwiseWeights(const Call& c) : call(c), g(conv2d_weight_geometry(c)) {
    seen_in_place = c.in[0].strides[1] == 1 && g.channels >= W;
    maps_in_place = c.in[1].strides[1] == 1 && g.channels >= W;
    vectors = ceil_div(g.channels, W);
    blocks = max_of(1, ceil_div(pixels(), kDepth));
    const int64_t wanted = kUnits * nl_num_threads();
    strip = 1;
    if (!seen_in_place || !maps_in_place) {
      const int64_t most = min_of(blocks, blocks * vectors / wanted);
      while (2 * strip <= most && Room(*this, 2 * strip).staged() <= kStagedBytes) strip *= 2;
    }
    parts = min_of(vectors, ceil_div(wanted, ceil_div(blocks, strip)));
  }

  int64_t pixels() const { return g.images * g.pixels(); }
  int64_t size() const { return vectors * g.taps() * W; }  // of the sums, [vector][tap][lane]
  // Of a vector; the last one ends with the last channel.
  int64_t first_channel(int64_t v) const { return max_of(0, min_of(v * W, g.channels - W)); }

  // How many rows of an image a row of the maps sees, from the first one to the last.
  int64_t span() const { return (g.y.kernel - 1) * g.y.dilation + 1; }

  // What the strips of a thread take.
  struct Room {
    int64_t rows, listed;       // of the maps, and of the table
    int64_t seen, maps, zeros;  // elements

    Room(const DepthwiseWeights& conv, int64_t strip) {
      const Geometry& g = conv.g;
      rows = min_of(ceil_div(strip * kDepth, g.x.output) + 1, g.images * g.y.output);
      const int64_t pieces = min_of(rows / g.y.output + 2, g.images);
      listed = rows * g.y.stride + pieces * max_of(0, conv.span() - g.y.stride);
      seen = conv.seen_in_place ? 0 : min_of(listed, pieces * g.y.input) * g.x.input * W;
      maps = conv.maps_in_place ? 0 : rows * g.x.output * W;
      zeros = whole_vectors<T>(max_of(W, g.channels));
    }
    int64_t staged() const { return (seen + maps) * int64_t(sizeof(T)); }
  };

  // Rows of the maps of one image, and the rows of the image that they see.
  struct Piece {
    int64_t image, first, count;
    int64_t top, begin, stop;  // of what they see: where it begins, and what exists of it
  };

  // What has been listed so far.
  struct Listed {
    const T** row;
    Segment<T>* segment;
    const Segment<T>** block;
  };

  // Some rows of the maps, and what a thread has listed and staged for them.
  struct Strip {
    const DepthwiseWeights& conv;
    T *seen, *maps, *zeros;
    const T** table;
    Segment<T>* segments;
    const Segment<T>** block;     // where each begins in `segments`
    int64_t first = 0, stop = 0;  // rows of the maps, counted through all images

    static int64_t bytes(const DepthwiseWeights& conv) {
      const Room room(conv, conv.strip);
      const int64_t lines = room.listed * conv.g.x.span() + conv.strip + 1;
      return (room.seen + room.maps + room.zeros) * sizeof(T) + lines * sizeof(T*) +
             (room.rows + conv.strip) * sizeof(Segment<T>);
    }

    Strip(const DepthwiseWeights& c, T* memory) : conv(c) {
      const Room room(conv, conv.strip);
      seen = memory, maps = seen + room.seen, zeros = maps + room.maps;
      table = (const T**)(zeros + room.zeros);
      block = (const Segment<T>**)(table + room.listed * conv.g.x.span());
      segments = (Segment<T>*)(block + conv.strip + 1);
      for (int64_t i = 0; i < room.zeros; i++) zeros[i] = 0;
    }

    template <class F>
    void for_pieces(const F& body) const {
      const Axis& y = conv.g.y;
      each_row(y.output, first, stop, [&](int64_t image, int64_t row, int64_t end) {
        const int64_t top = row * y.stride - y.pad, bottom = top + (end - row - 1) * y.stride + conv.span();
        const int64_t begin = min_of(max_of(0, top), y.input);
        body(Piece{image, row, end - row, top, begin, max_of(begin, min_of(y.input, bottom))});
      });
    }

    // Lists what pixels [k, end) of the maps see, block by block.
    void list(int64_t k, int64_t end) {
      first = k / conv.g.x.output, stop = ceil_div(end, conv.g.x.output);
      const T *image = seen, *map = maps;
      Listed to = {table, segments, block};
      for_pieces([&](const Piece& p) {
        const T* const* rows = to.row;
        to.row = list_rows(p, image, to.row);
        list_segments(p, k, end, rows, map, to);
        if (!conv.seen_in_place) image += (p.stop - p.begin) * conv.g.x.input * W;
        if (!conv.maps_in_place) map += p.count * conv.g.x.output * W;
      });
      while (to.block <= block + conv.strip) *to.block++ = to.segment;
    }

    // The rows of an image that a piece sees; those that exist may be staged.
    const T** list_rows(const Piece& p, const T* staged, const T** to) const {
      const Axis &y = conv.g.y, &x = conv.g.x;
      const View& v = conv.call.in[0];
      const T* image = (const T*)v.data + p.image * v.strides[0];
      for (int64_t i = p.top; i < p.top + (p.count - 1) * y.stride + conv.span(); i++, to += x.span()) {
        if (i < p.begin || i >= p.stop) {
          for (int64_t q = 0; q < x.span(); q++) to[q] = zeros;
        } else if (conv.seen_in_place) {
          list_row(image + i * v.strides[2], v.strides[3], to);
        } else {
          list_row(staged + (i - p.begin) * x.input * W, W, to);
        }
      }
      return to;
    }

    void list_row(const T* data, int64_t stride, const T** to) const {
      const Axis& x = conv.g.x;
      const PaddedRow<T> padded(x.input, -x.pad, 1, x.span());
      for (int64_t q = 0; q < padded.first; q++) to[q] = zeros;
      for (int64_t q = padded.first; q < padded.stop; q++) to[q] = data + (q - x.pad) * stride;
      for (int64_t q = padded.stop; q < x.span(); q++) to[q] = zeros;
    }

    // The pixels of a piece's maps that are among [k, end), and the table's rows for them; a segment ends with a block.
    void list_segments(const Piece& p, int64_t k, int64_t end, const T* const* rows, const T* staged,
                       Listed& to) const {
      const Axis &y = conv.g.y, &x = conv.g.x;
      const View& v = conv.call.in[1];
      const T* maps = conv.maps_in_place ? (const T*)v.data + p.image * v.strides[0] + p.first * v.strides[2] : staged;
      const int64_t pitch = conv.maps_in_place ? v.strides[2] : x.output * W;
      for (int64_t i = 0; i < p.count; i++, maps += pitch, rows += y.stride * x.span()) {
        const int64_t begin = (p.image * y.output + p.first + i) * x.output, stop = min_of(end, begin + x.output);
        each_row(kDepth, max_of(k, begin), stop, [&](int64_t block, int64_t from, int64_t next) {
          if (from == 0) *to.block++ = to.segment;
          const int64_t pixel = block * kDepth + from - begin;
          *to.segment++ = {rows + pixel * x.stride, maps + pixel * conv.map_pitch(), next - from};
        });
      }
    }

    // Brings a vector of channels of what is listed to where it is listed, and the next one into L2.
    void stage(int64_t v) const {
      const View &images = conv.call.in[0], &grads = conv.call.in[1];
      const int64_t c = conv.first_channel(v), count = min_of(W, conv.g.channels);
      T *image = seen, *map = maps;
      for_pieces([&](const Piece& p) {
        if (!conv.seen_in_place) image = read({images, p.image, c, count}, p.begin, p.stop, image);
        if (!conv.maps_in_place) map = read({grads, p.image, c, count}, p.first, p.first + p.count, map);
      });
    }

    static T* read(const LaneGroup<T>& lanes, int64_t begin, int64_t stop, T* to) {
      lanes.read(begin, stop, [=](int64_t pixel) { return to + pixel * W; }, W * lanes.from.strides[1]);
      return to + (stop - begin) * lanes.from.shape[3] * W;
    }
  };

  int64_t map_pitch() const { return maps_in_place ? call.in[1].strides[3] : W; }

  // Sums of block `b` of a strip, for a vector of channels; `ahead` where the next one follows.
  void add(const Strip& rows, int64_t b, int64_t v, bool ahead, T* to) const {
    const int64_t c = first_channel(v), row_step = g.y.dilation * g.x.span();
    const Block<T> block = {rows.block[b],         rows.block[b + 1],     row_step, g.x.stride, map_pitch(),
                            seen_in_place ? c : 0, maps_in_place ? c : 0, to};
    const bool square = g.y.kernel == 3 && g.x.kernel == 3 && g.x.dilation == 1;
    if (square && g.x.stride == 1) return ahead ? add_square<T, 1, true>(block) : add_square<T, 1, false>(block);
    if (square && g.x.stride == 2) return ahead ? add_square<T, 2, true>(block) : add_square<T, 2, false>(block);
    int64_t t = 0;
    for (; t + 9 <= g.taps(); t += 9) add_taps<T, 9>(block, offset + t, to + t * W);
    for (; t + 3 <= g.taps(); t += 3) add_taps<T, 3>(block, offset + t, to + t * W);
    for (; t < g.taps(); t++) add_taps<T, 1>(block, offset + t, to + t * W);
  }

  void run() {
    const int64_t most =
        max_of(kSumBytes / (size() * int64_t(sizeof(T))), ceil_div(kUnits * nl_num_threads(), vectors));
    const BlockSums<T> sums(blocks, size(), ceil_div(most, strip) * strip, g.taps());
    offset = sums.numbers;
    offsets_of({g.y.kernel, g.x.kernel, 0, g.y.dilation * g.x.span(), g.x.dilation}, 0, int(g.taps()), offset);
    sums.run([&](int64_t first, int64_t count) {
      const int64_t work = strip * kDepth * g.taps() * vectors / parts * W;
      parallel_for(ceil_div(count, strip) * parts, grain_of(work), [=](int64_t begin, int64_t end) {
        Strip rows(*this, (T*)nl_scratch(0, Strip::bytes(*this)));
        for (int64_t u = begin; u < end; u++) {
          const int64_t at = u / parts * strip, part = u % parts;
          run_strip(rows, first + at, min_of(first + count, first + at + strip), part * vectors / parts,
                    (part + 1) * vectors / parts, sums.of_blocks + at * size());
        }
      });
    });
    put(sums.total);
  }

  // Blocks [begin, end) of vectors [v, stop).
  void run_strip(Strip& rows, int64_t begin, int64_t end, int64_t v, int64_t stop, T* to) const {
    Polls polls;
    rows.list(begin * kDepth, min_of(end * kDepth, pixels()));
    const bool in_place = seen_in_place && maps_in_place;
    for (; v < stop; v++) {
      if (!in_place) rows.stage(v);
      for (int64_t b = 0; b < end - begin; b++) {
        add(rows, b, v, in_place && v + 1 < stop, to + b * size() + v * g.taps() * W);
        polls.after(kDepth * g.taps() * W);
      }
    }
  }

  void put(const T* total) const {
    const int64_t taps = g.taps();
    parallel_for(vectors, grain_of(taps * W), [=](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; v++) {
        const int64_t c = v * W, count = min_of(W, g.channels - c), skipped = c - first_channel(v);
        T* lane[W];
        for (int64_t l = 0; l < count; l++) lane[l] = (T*)call.out[0].data + (c + l) * taps;
        deinterleave(total + v * taps * W + skipped, W, taps, lane, count, 1);
      }
      if (call.epilogue) {
        call.epilogue->fn(call.epilogue->ctx, 0, begin * W, min_of(g.channels, end * W), 0, taps);
      }
    });
  }
};

}  // namespace

void conv2d_depthwise_weight(const Call& call) {
  if (call.out[0].shape[1] == 0 || call.out[0].shape[0] == 0) return;
  call.out[0].dtype == DType::f32 ? DepthwiseWeights<float>(call).run() : DepthwiseWeights<double>(call).run();
}

}  // namespace nl::NL_ISA
