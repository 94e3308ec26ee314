// conv_direct.hpp: conv2d, and conv2d_input of stride 1, in the order of *dot*, where that beats products of all
// images.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

// False, and nothing done, for the other shapes: one tap on maps that fill vectors or with channels last, and the
// gradient of strides.
bool conv2d_direct(const Call& call);
bool conv2d_direct_input(const Call& call);

}  // namespace nl::NL_ISA
