// numerics.hpp: which numerics class a row's bits follow, where it has several; ops/shapes.py has the same for Python.
// A class is a function of the call's attributes and its logical shape without the batch: a row alone and in a batch
// have the same bits.
#pragma once
#include "dtype.hpp"

namespace nl {

// Of Winograd's transforms for tiles of 2x2 results: 16 products a tile, 25 at stride 2, instead of 9 a result. Whether
// a kernel, with these attributes of the table, has them and may have them, and results of height x width fill tiles so
// well that at most four fifths of the products are left. Fewer tiles than 16, and fewer channels than each class asks
// for, do not pay for the transforms (measured).
static constexpr bool has_winograd_tiles(int64_t height, int64_t width, const int64_t* kernel, const int64_t* attr) {
  if (attr[0] < 1 || attr[0] > 2 || attr[7] < 2) return false;
  for (int i = 0; i < 2; i++) {
    if (kernel[i] != 3 || attr[i] != attr[0] || attr[2 + i] > 2 || attr[4 + i] != 1) return false;
  }
  const int64_t tiles = ((height + 1) / 2) * ((width + 1) / 2), products = attr[0] == 1 ? 16 : 25;
  return tiles >= 16 && 9 * height * width * 4 >= products * tiles * 5;
}

// Of those for tiles of 4x4 at stride 1, with 36 products, where they are asked for: whether they leave at most two
// thirds of the products of tiles of 2x2, with many channels three quarters. Fewer than 9 tiles are slower (7x7 maps:
// 1.2 times and more), and so are few channels on 14x14.
static constexpr bool has_large_winograd_tiles(int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                               const int64_t* attr) {
  const int64_t parts = channels >= 128 && outputs >= 128 ? 4 : 3;
  const int64_t tiles = ((height + 3) / 4) * ((width + 3) / 4), small = ((height + 1) / 2) * ((width + 1) / 2);
  return attr[7] >= 4 && attr[0] == 1 && tiles >= 9 && 36 * tiles * parts <= 16 * small * (parts - 1);
}

// The results a way of the tiles in which a convolution of `channels` to `outputs` (of one group), with results of
// height x width, is computed by Winograd's transforms: 2 or 4; 1 where each result is a sum of products. From 32 to 64
// channels at stride 2 those took 1.4 times as long for 16 images of 160 x 160, 1.0 for one; from 64 they gain.
static constexpr int winograd_tile(DType dtype, int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                   const int64_t* kernel, const int64_t* attr) {
  const int64_t fewest = attr[0] == 1 ? 32 : 64;
  const bool fits = dtype == DType::f32 && channels >= fewest && outputs >= 32;
  if (!fits || !has_winograd_tiles(height, width, kernel, attr)) return 1;
  return has_large_winograd_tiles(channels, outputs, height, width, attr) ? 4 : 2;
}

// Those of conv2d_input, from `outputs` to `channels` of height x width: at stride 1 as of the convolution that it is,
// at stride 2, with padding 1, 2 (tiles of 4x4 results and of 2x2 maps, 25 products instead of 36).
static constexpr int winograd_tile_input(DType dtype, int64_t outputs, int64_t channels, int64_t height, int64_t width,
                                         const int64_t* kernel, const int64_t* attr) {
  if (attr[0] == 1) return winograd_tile(dtype, outputs, channels, height, width, kernel, attr);
  const bool fits = dtype == DType::f32 && channels >= 32 && outputs >= 32 && attr[2] == 1 && attr[3] == 1;
  return fits && has_winograd_tiles((height + 1) / 2, (width + 1) / 2, kernel, attr) ? 2 : 1;
}

// Those of the maps of conv2d_weight, of height x width.
static constexpr int winograd_tile_weight(DType dtype, int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                          const int64_t* kernel, const int64_t* attr) {
  const int64_t fewest = attr[0] == 1 ? 16 : 32;
  const bool fits = dtype == DType::f32 && channels >= fewest && outputs >= fewest;
  return fits && has_winograd_tiles(height, width, kernel, attr) ? 2 : 1;
}

}  // namespace nl
