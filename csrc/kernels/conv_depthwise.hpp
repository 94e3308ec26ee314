// conv_depthwise.hpp: conv2d and conv2d_input where every channel is a group of its own.
#pragma once
#include "conv_geometry.hpp"

namespace nl::NL_ISA {

void conv2d_depthwise(const Call& call);
void conv2d_depthwise_input(const Call& call);

}  // namespace nl::NL_ISA
