// dispatch.hpp: the kernels of the instruction level in use, as the generated tables list them.
#pragma once
#include "../base/view.hpp"

using nl_map_row = nl::MapFn[nl::kDTypes];

// Indexed by op, then by compute dtype; null where a row has no such kernel.
const nl_map_row* nl_map_table();
// Indexed by op; null for rows without a hand-written kernel.
const nl::NativeFn* nl_native_table();
