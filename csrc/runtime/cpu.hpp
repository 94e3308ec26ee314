// cpu.hpp: which instruction levels this machine has, and the one that the kernels use.
#pragma once
#include <string>
#include <vector>

namespace nl {

// The position of the level in use in NL_LEVELS (CMakeLists.txt): the highest that processor and system support, or the
// one that the environment variable NEURLANG_ISA names. Throws std::invalid_argument when that one cannot be used.
int isa_level();
const char* isa_name(int level);
// The levels that can be forced here, lowest first.
std::vector<std::string> isa_supported();

}  // namespace nl
