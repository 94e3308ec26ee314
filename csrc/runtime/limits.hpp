// limits.hpp: how many processors and how much memory this process may really use: affinity, cgroups, the machine.
#pragma once
#include <stdint.h>

#include <string>

namespace nl {

// `root` is where /proc and /sys are looked for; it ends with a slash.
int available_cpus(const std::string& root = "/");        // at least 1
int64_t total_memory(const std::string& root = "/");      // bytes of the machine, or of the cgroup when that is less
int64_t available_memory(const std::string& root = "/");  // bytes that can be touched before the kernel starts killing
int64_t resident_memory();                                // bytes of this process that lie in memory

}  // namespace nl
