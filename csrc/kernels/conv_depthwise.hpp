// conv_depthwise.hpp: the three rows where every channel is a group of its own.
#pragma once
#include "conv_geometry.hpp"

namespace nl::NL_ISA {

// False where the general kernels are better.
bool conv2d_depthwise(const Call& call);
bool conv2d_depthwise_input(const Call& call);

// From pixels to pixels, where the channels of both are adjacent; false where those of the images are not.
bool conv2d_depthwise_pixels(const Call& call);
bool conv2d_depthwise_pixels_input(const Call& call);

// With channels across the vectors.
void conv2d_depthwise_weight(const Call& call);
void conv2d_depthwise_lanes(const Call& call);
void conv2d_depthwise_lanes_input(const Call& call);

}  // namespace nl::NL_ISA
