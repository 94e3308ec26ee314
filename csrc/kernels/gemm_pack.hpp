// gemm_pack.hpp: panels of strided matrices: read in place where that is as fast, else packed k by k, or made.
#pragma once
#include "gemm.hpp"
#include "loops.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

// Packs lines that are contiguous in k and begin at line_of(i), element k into row row_of(k) of the buffer. Lanes past
// the last line repeat it. `readable` is how many elements may be read from the beginning of each line, depth at least.
template <class T, class LineOf, class RowOf>
void pack_lines_of(const LineOf& line_of, int64_t readable, const Slice& slice, T* buffer, const RowOf& row_of) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>;
  if (readable < W) {
    for (int k = 0; k < slice.depth; k++) {
      for (int i = 0; i < slice.count; i++) buffer[row_of(k) * slice.pitch + i] = line_of(i)[k];
    }
    return;
  }
  for (int group = 0; group < slice.count; group += W) {
    const T* line[W];
    for (int r = 0; r < W; r++) line[r] = line_of(min_of(group + r, slice.count - 1));
    for (int at = 0; at < slice.depth; at += W) {
      int k = int(min_of(at, max_of(0, slice.depth - W)));  // the last square overlaps the one before
      V square[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) square[r] = load<V>(line[r] + k);
      transpose(square);
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) {
        if (k + r < slice.depth) store(buffer + row_of(k + r) * slice.pitch + group, square[r]);
      }
    }
  }
}

// Of lines that lie evenly apart.
template <class T, class RowOf>
void pack_transposed(const T* from, int64_t line_stride, int64_t readable, const Slice& slice, T* buffer,
                     const RowOf& row_of) {
  pack_lines_of([=](int64_t i) { return from + i * line_stride; }, readable, slice, buffer, row_of);
}

// The same in the order of k.
template <class T>
void pack_transposed(const T* from, int64_t line_stride, const Slice& slice, T* buffer) {
  pack_transposed(from, line_stride, slice.depth, slice, buffer, [](int k) { return k; });
}

// Copies fewer elements than a vector has: pieces of equal size that overlap, because a call of memcpy costs more.
template <class T>
NL_FN void copy_few(const T* from, int64_t n, T* to) {
  auto ends = [=](auto piece) {
    constexpr int kSize = sizeof(piece) / sizeof(T);
    auto first = load<decltype(piece)>(from), last = load<decltype(piece)>(from + n - kSize);
    store(to, first), store(to + n - kSize, last);
  };
  if constexpr (kWidth<T> > 8) {
    if (n >= 8) return ends(typename VecOf<T, 8 * sizeof(T)>::V());
  }
  if constexpr (kWidth<T> > 4) {
    if (n >= 4) return ends(typename VecOf<T, 4 * sizeof(T)>::V());
  }
  if constexpr (kWidth<T> > 2) {
    if (n >= 2) return ends(typename VecOf<T, 2 * sizeof(T)>::V());
  }
  if (n == 1) *to = *from;
}

// Copies elements in whole vectors, and what is left.
template <class T>
NL_FN void copy_line(const T* from, int64_t count, T* to) {
  int64_t i = 0;
  for (; i + kWidth<T> <= count; i += kWidth<T>) store(to + i, load<typename Simd<T>::V>(from + i));
  copy_few(from + i, count - i, to + i);
}

// Copies kVecs vectors of each k. The instructions of a k are so few that the loads of dozens are under way at once:
// lines of memory that follow each other as k does lie too far apart for the hardware's prefetching.
template <class T, int kVecs>
void copy_strip(const T* from, int64_t step, int64_t depth, T* to, int64_t pitch) {
  constexpr int W = kWidth<T>;
  for (int64_t k = 0; k < depth; k++, from += step, to += pitch) {
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; v++) store(to + v * W, load<typename Simd<T>::V>(from + v * W));
  }
}

// Packs adjacent lines. `readable` >= count lines exist from the first one on, so that whole vectors can be copied.
template <class T>
void pack_adjacent(const T* from, int64_t step, int64_t readable, const Slice& slice, T* buffer) {
  constexpr int W = kWidth<T>;
  int i = 0;
  for (; i + W < slice.count && i + 2 * W <= readable; i += 2 * W)
    copy_strip<T, 2>(from + i, step, slice.depth, buffer + i, slice.pitch);
  for (; i < slice.count && i + W <= readable; i += W)
    copy_strip<T, 1>(from + i, step, slice.depth, buffer + i, slice.pitch);
  if (i >= slice.count) return;
  for (int64_t k = 0; k < slice.depth; k++)
    copy_few(from + k * step + i, slice.count - i, buffer + k * slice.pitch + i);
}

template <class T>
void pack_strided(const T* from, int64_t line_stride, int64_t step, const Slice& slice, T* buffer) {
  for (int k = 0; k < slice.depth; k++) {
    for (int i = 0; i < slice.count; i++) buffer[k * slice.pitch + i] = from[i * line_stride + k * step];
  }
}

// What makes matrices that do not lie in memory, and how they would: one behind another, `rows` of `columns` elements.
template <class T>
struct Maker {
  const Prologue* prologue;  // null for what lies in memory
  int64_t rows, columns;
  bool along;  // the product's lines are rows, not columns; strides do not tell where one of them has one element

  // The part that begins at an element of this number.
  void make(int64_t first, int64_t height, int64_t width, T* to, int64_t pitch) const {
    const int64_t row = first / columns, j = first % columns;
    each_row(rows, row, row + height, [&](int64_t matrix, int64_t begin, int64_t end) {
      prologue->fn(prologue->ctx, matrix, begin, end, j, j + width, to, pitch);
      to += (end - begin) * pitch;
    });
  }
};

// Whole lines of memory this far apart fall into the same sets of L1, which holds 12 of them, or 8; closer ones do not.
template <class T>
bool aliases(int64_t stride) {
  const int64_t bytes = (stride < 0 ? -stride : stride) * int64_t(sizeof(T)), rest = bytes % 4096;
  return bytes > 4096 - 64 && (rest < 64 || rest > 4096 - 64);
}

// `lines` x k elements, and their panels.
template <class T>
struct Matrix {
  const T* data;
  int64_t lines, line_stride, step;
  const Walk<2>* batches;  // where each batch begins, in its operand number `side`
  int side;
  bool in_place;
  Maker<T> maker = {};

  // Where the matrix of a batch begins, and a slice, counted in elements.
  int64_t offset(int64_t number) const { return number == 0 ? 0 : batches->seek(number).at[side]; }
  int64_t offset(const Slice& slice) const { return offset(slice.batch) + slice.line * line_stride + slice.k * step; }

  const T* batch(int64_t number) const { return data + offset(number); }
  const T* at(const Slice& slice) const { return data + offset(slice); }

  // Makes `count` lines from `first` on at k in [k, k + depth), as they would lie; where they do now. The buffer has
  // `count` times depth + kWidth elements: lines of a power of two would share sets of L1.
  Panel<T> make(int64_t number, int64_t first, int64_t count, int64_t k, int64_t depth, T* buffer) const {
    const int64_t from = offset(number) + first * line_stride + k * step, pitch = depth + kWidth<T>;
    if (!maker.along) {
      maker.make(from, depth, count, buffer, count);
      return {buffer, 1, count};
    }
    maker.make(from, count, depth, buffer, pitch);
    return {buffer, pitch, 1};
  }

  // A packed panel. Lines along k are made as many at a time as are transposed in registers: they stay in L1.
  Panel<T> make_panel(const Slice& slice, T* buffer) const {
    if (!maker.along) {
      maker.make(offset(slice), slice.depth, slice.count, buffer, slice.pitch);
      return {buffer, 1, slice.pitch};
    }
    T made[kWidth<T> * (kDepth + kWidth<T>)];
    for (int first = 0; first < slice.count; first += kWidth<T>) {
      Slice part = slice;
      part.count = int(min_of(kWidth<T>, slice.count - first));
      const Panel<T> lines = make(slice.batch, slice.line + first, part.count, slice.k, slice.depth, made);
      pack_transposed(lines.data, lines.line_stride, part, buffer + first);
    }
    return {buffer, 1, slice.pitch};
  }

  // Brings what will be packed into L2.
  static void expect(const void* source, const Slice& slice) {
    const Matrix& m = *(const Matrix*)source;
    if (m.in_place || m.maker.prologue) return;
    constexpr int kLine = 64 / int(sizeof(T));
    const bool adjacent = m.line_stride == 1;
    const int64_t runs = adjacent ? slice.depth : slice.count, length = adjacent ? slice.count : slice.depth;
    const T* from = m.at(slice);
    for (int64_t r = 0; r < runs; r++, from += adjacent ? m.step : m.line_stride) {
      for (int64_t i = 0; i < length; i += kLine) __builtin_prefetch(from + i, 0, 2);
    }
  }

  static Panel<T> lying(const void* source, const Slice& slice) {
    const Matrix& m = *(const Matrix*)source;
    return {m.at(slice), m.line_stride, m.step};
  }

  static Panel<T> fetch(const void* source, const Slice& slice, T* buffer) {
    const Matrix& m = *(const Matrix*)source;
    if (m.maker.prologue) return m.make_panel(slice, buffer);
    const T* from = m.at(slice);
    int64_t readable = m.lines - slice.line;
    if (m.in_place && readable >= slice.reach) return lying(source, slice);
    if (m.line_stride == 1) {
      pack_adjacent(from, m.step, readable, slice, buffer);
    } else if (m.step == 1) {
      pack_transposed(from, m.line_stride, slice, buffer);
    } else {
      pack_strided(from, m.line_stride, m.step, slice, buffer);
    }
    return {buffer, 1, slice.pitch};
  }
};

}  // namespace
}  // namespace nl::NL_ISA
