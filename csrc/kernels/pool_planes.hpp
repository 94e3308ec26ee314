// pool_planes.hpp: pooling with vectors across planes: for windows of any ranges, few outputs, channels last.
//
// A group of planes, one to a lane, is transposed into a panel that holds a vector for every position. A window is then
// whatever vectors its rows and columns name, clipped to the plane, so padding needs no element. Groups of adjacent
// channels that lie last in memory are read where they are.
#pragma once
#include "interleave.hpp"
#include "pool.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kShortRow = 16;

// Windows of nearly equal size that cover all positions of an axis.
struct AdaptiveAxis {
  int64_t size, outputs;

  static Taps part(int64_t o, int64_t outputs, int64_t size) {
    return {o * size / outputs, ceil_div((o + 1) * size, outputs), 1};
  }
  Taps taps(int64_t o) const { return part(o, outputs, size); }
  Taps seen_by(int64_t i) const { return part(i, size, outputs); }
  int64_t extent(int64_t n) const { return ceil_div(n * size, outputs) + 1; }
  int64_t seen_extent(int64_t n) const { return ceil_div(n * outputs, size) + 1; }
};

// The way back along an axis: the outputs of a pooling are what is read, its positions what is made.
template <class A>
struct Backward {
  A axis;
  int64_t size, outputs;

  explicit Backward(const A& a) : axis(a), size(a.outputs), outputs(a.size) {}
  Taps taps(int64_t i) const { return axis.seen_by(i); }
  int64_t extent(int64_t n) const { return axis.seen_extent(n); }
};

// The vectors of a group's positions, with lanes side by side in memory, or each lane somewhere else.
template <class T>
struct Vectors {
  using V = typename Simd<T>::V;
  const T* base;
  int64_t row_stride, column_stride;

  V at(int64_t i, int64_t j) const { return load<V>(base + i * row_stride + j * column_stride); }
};

template <class T>
struct Lanes {
  using V = typename Simd<T>::V;
  const T* const* lanes;
  int64_t row_stride, column_stride;

  V at(int64_t i, int64_t j) const {
    V v;
    for (int l = 0; l < Simd<T>::kWidth; l++) v[l] = lanes[l][i * row_stride + j * column_stride];
    return v;
  }
};

constexpr int64_t kMostRead = 4096;  // vectors of a panel

// A rectangle of outputs, and the positions of the input that they read.
struct Tile {
  int64_t top, bottom, left, right;
  int64_t first_row, end_row, first_column, end_column;
  Taps* windows;  // of the rows, then of the columns: to look them up costs less than to divide

  // Writes a window down; with padding and dilation not the first window needs to begin first, and those that see
  // nothing may begin beyond the plane.
  static void read(Taps taps, Taps* window, int64_t& first, int64_t& end) {
    *window = taps;
    if (taps.begin >= taps.end) return;
    first = min_of(first, taps.begin);
    end = max_of(end, taps.end);
  }
  // Whether it is one output whose window is a piece of work by itself.
  bool is_long() const { return (end_row - first_row) * (end_column - first_column) > kMostRead; }
  Taps rows(int64_t oh) const { return windows[oh - top]; }
  Taps columns(int64_t ow) const { return windows[bottom - top + ow - left]; }
};

// body(i, j) for the positions of a window, in row-major order. Only long windows look for signals: it took short ones
// 1.1-1.3 times as long.
template <bool kLong = false, class F>
void for_taps(Taps rows, Taps columns, const F& body) {
  Polls polls;
  for (int64_t i = rows.begin; i < rows.end; i += rows.step) {
    for (int64_t j = columns.begin; j < columns.end; j += columns.step) body(i, j);
    if (kLong) polls.after(columns.end - columns.begin);
  }
}

// How outputs, of which there is one at least, are cut into tiles: of all columns where they fit, and so small that
// their panels stay in the L2 cache.
template <class A>
struct Tiles {
  A rows, columns;
  int64_t height, width;

  Tiles(const A& r, const A& c) : rows(r), columns(c), height(r.outputs), width(c.outputs) {
    while (height * width > 1 && rows.extent(height) * columns.extent(width) + height * width > kMostRead) {
      (height > 1 ? height : width) = ceil_div(height > 1 ? height : width, 2);
    }
  }
  int64_t across() const { return ceil_div(columns.outputs, width); }
  int64_t count() const { return ceil_div(rows.outputs, height) * across(); }

  // Tile i; `windows` has room for those of its rows and columns.
  Tile tile(int64_t i, Taps* windows) const {
    const int64_t top = i / across() * height, left = i % across() * width;
    const int64_t bottom = min_of(top + height, rows.outputs), right = min_of(left + width, columns.outputs);
    Tile t{top, bottom, left, right, rows.size, 0, columns.size, 0, windows};
    for (int64_t oh = top; oh < bottom; oh++) t.read(rows.taps(oh), windows++, t.first_row, t.end_row);
    for (int64_t ow = left; ow < right; ow++) t.read(columns.taps(ow), windows++, t.first_column, t.end_column);
    t.end_row = max_of(t.end_row, t.first_row), t.end_column = max_of(t.end_column, t.first_column);
    return t;
  }
};

// W planes, of which `count` exist; the last one fills the lanes of the others.
template <class T, int W = Simd<T>::kWidth>
struct Group {
  T* lanes[W];
  int64_t count;

  Group(const Planes<T>& planes, int64_t first) : count(min_of(W, planes.count - first)) {
    for (int64_t l = 0; l < W; l++) lanes[l] = planes.plane(first + min_of(l, count - 1));
  }
  void shift(int64_t offset) {
    for (int l = 0; l < W; l++) lanes[l] += offset;
  }
};

// Whether the lanes of every group lie side by side.
template <class T>
bool channels_last(const Planes<const T>& x) {
  return x.channel_stride == 1 && x.channels % Simd<T>::kWidth == 0;
}

// Whether vectors go across the planes rather than along rows of `width` results: where these are short.
template <class T>
bool goes_across(const Planes<const T>& x, int64_t width) {
  return channels_last(x) || (width <= kShortRow && x.count >= Simd<T>::kWidth / 2);
}

// Transposes what a tile reads of a group's planes into a panel.
template <class T>
Vectors<T> fill(T* panel, const Planes<const T>& x, Group<const T> group, const Tile& t) {
  constexpr int W = Simd<T>::kWidth;
  const int64_t height = t.end_row - t.first_row, width = t.end_column - t.first_column;
  const Vectors<T> filled{panel - (t.first_row * width + t.first_column) * W, width * W, W};
  group.shift(t.first_row * x.row_stride + t.first_column * x.column_stride);
  if (width == x.width && x.contiguous()) {
    interleave(group.lanes, height * width, [=](int64_t j) { return panel + j * W; });
    return filled;
  }
  for (int64_t i = 0; i < height; i++, panel += width * W) {
    const Lanes<T> row{group.lanes, 0, x.column_stride};
    if (x.column_stride == 1) interleave(group.lanes, width, [=](int64_t j) { return panel + j * W; });
    for (int64_t j = 0; x.column_stride != 1 && j < width; j++) store(panel + j * W, row.at(0, j));
    group.shift(x.row_stride);
  }
  return filled;
}

// Results whose lanes are adjacent where they belong, from `pixel` on.
template <class T>
void finish_pixels(const Planes<T>& y, T* pixel, const Tile& t, const T* results) {
  for (int64_t i = t.top; i < t.bottom; i++, pixel += y.row_stride) {
    for (int64_t j = 0; j < t.right - t.left; j++, results += Simd<T>::kWidth) {
      store(pixel + j * y.column_stride, load<typename Simd<T>::V>(results));
    }
  }
}

// Hands the results of a tile, a vector for every output, to the planes of a group.
template <class T, class To>
void finish(const Planes<To>& y, int64_t first, const Tile& t, const T* results) {
  Group<To, Simd<T>::kWidth> group(y, first);
  const int64_t width = t.right - t.left;
  group.shift(t.top * y.row_stride + t.left * y.column_stride);
  if constexpr (__is_same(T, To)) {
    const bool adjacent = y.channel_stride == 1 && y.channels % Simd<T>::kWidth == 0;  // a group is of one image
    if (adjacent) return finish_pixels(y, group.lanes[0], t, results);
  }
  if (width == y.width && y.contiguous()) {
    return deinterleave(results, Simd<T>::kWidth, (t.bottom - t.top) * width, group.lanes, group.count, 1);
  }
  for (int64_t i = t.top; i < t.bottom; i++, results += width * Simd<T>::kWidth) {
    deinterleave(results, Simd<T>::kWidth, width, group.lanes, group.count, y.column_stride);
    group.shift(y.row_stride);
  }
}

// Pools all planes: outputs.tile(vectors, tile, first plane of the group, results) for every group and tile, where
// `results` has room for kResults vectors an output. What is read goes through a panel, changed by outputs.prepare,
// where it does not lie there ready or would not stay in the caches.
template <class T, class A, class Outputs>
void pool_planes(const Planes<const T>& x, const A& rows, const A& columns, const Outputs& outputs) {
  constexpr int W = Simd<T>::kWidth;
  if (rows.outputs * columns.outputs == 0) return;
  const Tiles<A> tiles(rows, columns);
  const int64_t count = tiles.count(), read = rows.extent(tiles.height) * columns.extent(tiles.width);
  const int64_t made = Outputs::kResults * tiles.height * tiles.width;
  const bool ready = !Outputs::kPrepares && channels_last(x);
  const bool panels = Outputs::kPrepares || (!ready && read <= 2 * kMostRead);
  parallel_for(ceil_div(x.count, W) * count, grain_of(2 * W * read), [&](int64_t begin, int64_t end) {
    T* results = (T*)nl_scratch(1, (made + (panels ? read : 0)) * W * sizeof(T));
    T* panel = results + made * W;
    Taps* windows = (Taps*)nl_scratch(2, (tiles.height + tiles.width) * sizeof(Taps));
    Tile t = tiles.tile(begin % count, windows);
    for (int64_t item = begin; item < end; item++) {
      const int64_t first = item / count * W;
      if (count > 1) t = tiles.tile(item % count, windows);
      const Group<const T> group(x, first);
      if (ready) {
        outputs.tile(Vectors<T>{group.lanes[0], x.row_stride, x.column_stride}, t, first, results);
      } else if (panels) {
        const Vectors<T> vectors = fill(panel, x, group, t);
        if constexpr (Outputs::kPrepares) outputs.prepare(panel, t);
        outputs.tile(vectors, t, first, results);
      } else if constexpr (!Outputs::kPrepares) {
        outputs.tile(Lanes<T>{group.lanes, x.row_stride, x.column_stride}, t, first, results);
      }
    }
  });
}

}  // namespace
}  // namespace nl::NL_ISA
