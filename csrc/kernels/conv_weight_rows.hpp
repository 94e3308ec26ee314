// conv_weight_rows.hpp: conv2d_weight of few weights over many pixels.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

// False, and nothing done, for the others.
bool conv2d_weight_rows(const Call& call);

}  // namespace nl::NL_ISA
