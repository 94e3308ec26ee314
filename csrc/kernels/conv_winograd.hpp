// conv_winograd.hpp: the three convolutions in the numerics classes of Winograd's transforms; `tile`: see numerics.hpp.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

void conv2d_winograd(const Call& call, int tile);
void conv2d_winograd_input(const Call& call, int tile);
void conv2d_winograd_weight(const Call& call);

}  // namespace nl::NL_ISA
