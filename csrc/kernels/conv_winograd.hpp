// conv_winograd.hpp: the three convolutions in the numerics class of Winograd's transforms.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

void conv2d_winograd(const Call& call);
void conv2d_winograd_input(const Call& call);
void conv2d_winograd_weight(const Call& call);

}  // namespace nl::NL_ISA
