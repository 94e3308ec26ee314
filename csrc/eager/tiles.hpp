// tiles.hpp: elementwise calls with an input that is contiguous along another axis than the output. Its tiles are
// transposed into blocks, those of copies straight to their place, so that lines of both memories are used whole.
#pragma once
#include "nest.hpp"
#include "transpose.hpp"
#include "widen.hpp"

namespace nl {

constexpr int64_t kTileRows = 16;                 // a line of 4-byte elements
constexpr int64_t kTileColumns = 128;             // of a block
constexpr int64_t kTileWidth = 8 * kTileColumns;  // of a tile: threads share longer lines
constexpr int64_t kShortTile = 4;                 // rows and columns that are worth it in a copy
constexpr int64_t kCrowded = 1024;                // rows a multiple of it apart crowd each other out of L1

struct Tiles {
  const Nest& nest;
  int axis;                 // along which a tile has its rows
  Nest corners;             // the space of the tiles: `axis` in steps of kTileRows, the innermost one of kTileWidth
  int64_t index[kMaxRank];  // row-major strides of the nest, in elements

  Tiles(const Nest& nest, int axis) : nest(nest), axis(axis), corners(nest) {
    corners.shape[axis] = (nest.shape[axis] - 1) / kTileRows + 1;
    corners.shape[nest.rank - 1] = (nest.shape[nest.rank - 1] - 1) / kTileWidth + 1;
    for (int k = 0; k < nest.n_op; ++k) {
      corners.strides[k][axis] *= kTileRows;
      corners.strides[k][nest.rank - 1] *= kTileWidth;
    }
    int64_t step = 1;
    for (int d = nest.rank - 1; d >= 0; --d) {
      index[d] = step;
      step *= nest.shape[d];
    }
  }

  // A part of operand k, to rows that lie `pitch` bytes apart.
  void stage(int k, const char* from, int64_t rows, int64_t columns, char* to, int64_t pitch) const {
    const int64_t size = nest.item[k], stride = nest.strides[k][nest.rank - 1] / size;
    by_size(size, [&](auto zero) {
      using T = decltype(zero);
      transpose(reinterpret_cast<const T*>(from), stride, nest.strides[k][axis] / size, rows, columns,
                reinterpret_cast<T*>(to), pitch / size);
    });
  }

  // A copy goes where it belongs at once where the lines that a square of it ends in stay in L1, or are written once.
  void copy(int64_t begin, int64_t end) const {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile / corners_behind() % corners.shape[axis] * kTileRows;
      const int64_t rows = std::min(kTileRows, nest.shape[axis] - first);
      stage(1, nest.data[1] + locate(corners, 1, tile), rows, width(tile), nest.data[0] + locate(corners, 0, tile),
            nest.strides[0][axis]);
    }
  }

  bool copies_at_once() const { return nest.shape[nest.rank - 1] < kShortRow || nest.strides[0][axis] % kCrowded != 0; }

  void run(int64_t begin, int64_t end) const {
    alignas(64) char blocks[kMaxOperands][kTileRows * kTileColumns * 8];
    const int last = nest.rank - 1;
    char *base[kMaxOperands], *ptr[kMaxOperands];
    int64_t step[kMaxOperands], row_step[kMaxOperands];
    for (int k = 0; k < nest.n_op; ++k) {
      step[k] = nest.direct(k) ? nest.strides[k][last] : nest.item[k];
      row_step[k] = nest.direct(k) ? nest.strides[k][axis] : kTileColumns * nest.item[k];
    }
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile / corners_behind() % corners.shape[axis] * kTileRows;
      const int64_t rows = std::min(kTileRows, nest.shape[axis] - first), at = first_index(tile);
      for (int k = 0; k < nest.n_op; ++k) base[k] = nest.data[k] + locate(corners, k, tile);
      for (int64_t c = 0; c < width(tile); c += kTileColumns) {
        const int64_t columns = std::min(kTileColumns, width(tile) - c);
        for (int k = 0; k < nest.n_op; ++k)
          if (!nest.direct(k)) stage(k, base[k] + c * nest.strides[k][last], rows, columns, blocks[k], row_step[k]);
        for (int64_t r = 0; r < rows; ++r) {
          for (int k = 0; k < nest.n_op; ++k)
            ptr[k] = (nest.direct(k) ? base[k] + c * step[k] : blocks[k]) + r * row_step[k];
          call_kernel(nest, ptr, step, columns, at + r * index[axis] + c);
        }
      }
    }
  }

  // The columns of a tile.
  int64_t width(int64_t tile) const {
    const int last = nest.rank - 1;
    return std::min(kTileWidth, nest.shape[last] - tile % corners.shape[last] * kTileWidth);
  }

  // Tiles of the axes inside of `axis`.
  int64_t corners_behind() const {
    int64_t n = 1;
    for (int d = axis + 1; d < corners.rank; ++d) n *= corners.shape[d];
    return n;
  }

  // The row-major index of a tile's first element.
  int64_t first_index(int64_t tile) const {
    int64_t steps[kMaxRank];
    std::copy_n(index, nest.rank, steps);
    steps[axis] *= kTileRows;
    steps[nest.rank - 1] *= kTileWidth;
    return locate(corners.shape, steps, nest.rank, tile);
  }
};

// The axis along which an input is contiguous that the kernels cannot walk directly; -1 where tiles gain nothing.
inline int tile_axis(const Nest& nest, bool is_copy) {
  const int64_t least = is_copy ? kShortTile : kShortRow, columns = nest.shape[nest.rank - 1];
  if (columns < least) return -1;
  for (int k = 0; k < nest.n_op; ++k) {
    if (nest.direct(k)) continue;
    if (k < nest.n_out) return -1;
    for (int d = nest.rank - 2; d >= 0; --d)
      if (nest.strides[k][d] == nest.item[k]) return columns >= kShortRow || nest.shape[d] >= kShortTile ? d : -1;
  }
  return -1;
}

inline void run_tiles(const Nest& nest, int axis, bool is_copy) {
  Tiles tiles(nest, axis);
  const auto compute = [](void* ctx, int64_t b, int64_t e) { static_cast<const Tiles*>(ctx)->run(b, e); };
  const auto copy = [](void* ctx, int64_t b, int64_t e) { static_cast<const Tiles*>(ctx)->copy(b, e); };
  const int64_t grain =
      std::max<int64_t>(1, nest.grain / (kTileRows * std::min(kTileWidth, nest.shape[nest.rank - 1])));
  nl_parallel_for(tiles.corners.size(), grain, is_copy && tiles.copies_at_once() ? +copy : +compute, &tiles);
}

}  // namespace nl
