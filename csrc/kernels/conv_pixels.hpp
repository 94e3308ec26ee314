// conv_pixels.hpp: conv2d of one tap, and its gradient by the input at stride 1, where images and result have their
// channels last.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

// False, and nothing done, for the others.
bool conv2d_pixels(const Call& call);
bool conv2d_pixels_input(const Call& call);

}  // namespace nl::NL_ISA
