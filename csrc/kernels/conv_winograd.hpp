// conv_winograd.hpp: conv2d and conv2d_input in the numerics class of Winograd's transforms.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

void conv2d_winograd(const Call& call);
void conv2d_winograd_input(const Call& call);

}  // namespace nl::NL_ISA
