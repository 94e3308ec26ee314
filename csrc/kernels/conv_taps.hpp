// conv_taps.hpp: conv2d of several taps, and its gradient by the input, where the result has its channels last.
#pragma once
#include "../base/view.hpp"

namespace nl::NL_ISA {

// False, and nothing done, for the others. The gradient takes whatever taps, groups and layout of the maps.
bool conv2d_taps(const Call& call);
bool conv2d_taps_input(const Call& call);

}  // namespace nl::NL_ISA
