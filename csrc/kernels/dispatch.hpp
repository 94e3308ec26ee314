// dispatch.hpp: the kernels of the instruction level in use, as the generated tables list them.
#pragma once
#include "../base/view.hpp"

// Indexed by op, then by compute dtype; null where a row has no such kernel.
const nl::MapFn (*nl_map_table())[nl::kDTypes];
// Indexed by op; null for rows without a hand-written kernel.
const nl::NativeFn* nl_native_table();
