// tiles.hpp: elementwise calls with an input that is contiguous along another axis than the output. Its tiles are
// transposed into blocks, so that lines of both memories are used whole.
#pragma once
#include "nest.hpp"
#include "transpose.hpp"
#include "widen.hpp"

namespace nl {

constexpr int64_t kTileRows = 16;  // a line of 4-byte elements
constexpr int64_t kTileColumns = 128;

struct Tiles {
  const Nest& nest;
  int axis;                 // along which a tile has its rows
  Nest corners;             // the space of the tiles: `axis` in steps of kTileRows, the innermost axis whole
  int64_t index[kMaxRank];  // row-major strides of the nest, in elements

  Tiles(const Nest& nest, int axis) : nest(nest), axis(axis), corners(nest) {
    corners.shape[axis] = (nest.shape[axis] - 1) / kTileRows + 1;
    corners.shape[nest.rank - 1] = 1;
    for (int k = 0; k < nest.n_op; ++k) corners.strides[k][axis] *= kTileRows;
    int64_t step = 1;
    for (int d = nest.rank - 1; d >= 0; --d) {
      index[d] = step;
      step *= nest.shape[d];
    }
  }

  template <class T>
  void stage(int k, const char* from, int64_t rows, int64_t columns, char* block) const {
    const int64_t size = sizeof(T);
    transpose(reinterpret_cast<const T*>(from), nest.strides[k][nest.rank - 1] / size, nest.strides[k][axis] / size,
              rows, columns, reinterpret_cast<T*>(block), kTileColumns);
  }

  void stage(int k, const char* from, int64_t rows, int64_t columns, char* block) const {
    by_size(nest.item[k], [&](auto zero) { stage<decltype(zero)>(k, from, rows, columns, block); });
  }

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
      for (int64_t c = 0; c < nest.shape[last]; c += kTileColumns) {
        const int64_t columns = std::min(kTileColumns, nest.shape[last] - c);
        for (int k = 0; k < nest.n_op; ++k)
          if (!nest.direct(k)) stage(k, base[k] + c * nest.strides[k][last], rows, columns, blocks[k]);
        for (int64_t r = 0; r < rows; ++r) {
          for (int k = 0; k < nest.n_op; ++k)
            ptr[k] = (nest.direct(k) ? base[k] + c * step[k] : blocks[k]) + r * row_step[k];
          call_kernel(nest, ptr, step, columns, at + r * index[axis] + c);
        }
      }
    }
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
    return locate(corners.shape, steps, nest.rank, tile);
  }
};

// The axis along which an input is contiguous that the kernels cannot walk directly; -1 where tiles gain nothing.
inline int tile_axis(const Nest& nest) {
  if (nest.shape[nest.rank - 1] < kShortRow) return -1;
  for (int k = 0; k < nest.n_op; ++k) {
    if (nest.direct(k)) continue;
    if (k < nest.n_out) return -1;
    for (int d = nest.rank - 2; d >= 0; --d)
      if (nest.strides[k][d] == nest.item[k]) return d;
  }
  return -1;
}

inline void run_tiles(const Nest& nest, int axis) {
  Tiles tiles(nest, axis);
  nl_parallel_for(
      tiles.corners.size(), std::max<int64_t>(1, nest.grain / (kTileRows * nest.shape[nest.rank - 1])),
      [](void* ctx, int64_t b, int64_t e) { static_cast<const Tiles*>(ctx)->run(b, e); }, &tiles);
}

}  // namespace nl
