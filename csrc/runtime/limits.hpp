// limits.hpp: how many processors and how much memory this process may really use: affinity, cgroups, the machine.
#pragma once
#include <stdint.h>

namespace nl {

int available_cpus();        // at least 1
int64_t total_memory();      // bytes of the machine, or of the cgroup when that is less
int64_t available_memory();  // bytes that can still be touched before the kernel starts killing
int64_t resident_memory();   // bytes of this process that lie in memory

}  // namespace nl
