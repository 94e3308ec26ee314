// numerics.hpp: which numerics class a row's bits follow, where it has several; ops/shapes.py has the same for Python.
// A class is a function of the logical shape without the batch: a row alone and in a batch have the same bits.
#pragma once
#include "dtype.hpp"

namespace nl {

// Whether a convolution of `channels` to `outputs` (of one group), with results of height x width, is computed by
// Winograd's F(2x2, 3x3): where its fewer products are worth the transforms. `attr` as in the table.
constexpr bool is_winograd(DType dtype, int64_t channels, int64_t outputs, int64_t height, int64_t width,
                           const int64_t* kernel, const int64_t* attr) {
  if (dtype != DType::f32 || channels < 32 || outputs < 32) return false;
  for (int i = 0; i < 2; i++) {
    if (kernel[i] != 3 || attr[i] != 1 || attr[2 + i] > 2 || attr[4 + i] != 1) return false;
  }
  const int64_t tiles = ((height + 1) / 2) * ((width + 1) / 2);
  return tiles >= 16 && 3 * height * width >= 8 * tiles;
}

}  // namespace nl
