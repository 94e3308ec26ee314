// dispatch.hpp: the kernels of the instruction level in use, as the generated tables list them.
#pragma once
#include "../base/view.hpp"

using nl_map_row = nl::MapFn[nl::kDTypes];

// Indexed by op, then by compute dtype; null where a row has no such kernel.
const nl_map_row* nl_map_table();
// Indexed by op; null for rows without a hand-written kernel.
const nl::NativeFn* nl_native_table();
// Writes `times` copies of an element of `size` bytes for each of the rows, whose elements lie `step` bytes apart. What
// lies behind is overwritten, up to a vector.
void nl_spread(char* to, const char* from, int64_t step, int64_t size, int64_t times, int64_t rows);
constexpr int64_t kSpreadBeyond = 64;  // bytes of the widest vector
