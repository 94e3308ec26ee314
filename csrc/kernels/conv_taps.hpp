// conv_taps.hpp: conv2d of several taps where the result has its channels last.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

// False, and nothing done, for the others.
bool conv2d_taps(const Call& call);

}  // namespace nl::NL_ISA
