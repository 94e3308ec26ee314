// numerics.hpp: which numerics class a row's bits follow, where it has several; ops/shapes.py has the same for Python.
// A class is a function of the logical shape without the batch: a row alone and in a batch have the same bits.
#pragma once
#include "dtype.hpp"

namespace nl {

// Of Winograd's transforms for tiles of 2x2 results: 16 products a tile, 25 at stride 2, instead of 9 a result. Whether
// a kernel, with these attributes of the table, has them, and results of height x width fill tiles so well that at most
// four fifths of the products are left. Fewer tiles than 16, and fewer channels than each class asks for, do not pay
// for the transforms (measured).
constexpr bool has_winograd_tiles(int64_t height, int64_t width, const int64_t* kernel, const int64_t* attr) {
  if (attr[0] < 1 || attr[0] > 2) return false;
  for (int i = 0; i < 2; i++) {
    if (kernel[i] != 3 || attr[i] != attr[0] || attr[2 + i] > 2 || attr[4 + i] != 1) return false;
  }
  const int64_t tiles = ((height + 1) / 2) * ((width + 1) / 2), products = attr[0] == 1 ? 16 : 25;
  return tiles >= 16 && 9 * height * width * 4 >= products * tiles * 5;
}

// Whether a convolution of `channels` to `outputs` (of one group), with results of height x width, is computed by
// Winograd's transforms.
constexpr bool is_winograd(DType dtype, int64_t channels, int64_t outputs, int64_t height, int64_t width,
                           const int64_t* kernel, const int64_t* attr) {
  return dtype == DType::f32 && channels >= 32 && outputs >= 32 && has_winograd_tiles(height, width, kernel, attr);
}

// Whether conv2d_input is, from `outputs` to `channels` of height x width: at stride 1 as the convolution that it is,
// at stride 2, with padding 1, in tiles of 4x4 results, 25 products instead of 36.
constexpr bool is_winograd_input(DType dtype, int64_t outputs, int64_t channels, int64_t height, int64_t width,
                                 const int64_t* kernel, const int64_t* attr) {
  const bool halves = attr[0] == 2 && attr[2] == 1 && attr[3] == 1;
  if (attr[0] == 2) height = (height + 1) / 2, width = (width + 1) / 2;
  return (attr[0] == 1 || halves) && is_winograd(dtype, outputs, channels, height, width, kernel, attr);
}

// Whether conv2d_weight is, whose maps are of height x width.
constexpr bool is_winograd_weight(DType dtype, int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                  const int64_t* kernel, const int64_t* attr) {
  const int64_t fewest = attr[0] == 1 ? 16 : 32;
  const bool fits = dtype == DType::f32 && channels >= fewest && outputs >= fewest;
  return fits && has_winograd_tiles(height, width, kernel, attr);
}

}  // namespace nl
