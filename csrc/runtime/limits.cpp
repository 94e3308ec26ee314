// limits.cpp: reads /proc and the cgroup files; none of it is hot.
#include "limits.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

namespace nl {
namespace {

constexpr int64_t kUnlimited = INT64_MAX;

struct File {
  FILE* f;
  explicit File(const std::string& path) : f(std::fopen(path.c_str(), "re")) {}
  ~File() {
    if (f != nullptr) std::fclose(f);
  }
};

// The number behind `key` at the start of a line ("MemTotal:" in /proc/meminfo), or `missing`.
int64_t field(const std::string& path, const char* key, int64_t missing) {
  const File file(path);
  char line[256];
  while (file.f != nullptr && std::fgets(line, sizeof line, file.f) != nullptr) {
    long long value;
    if (std::strncmp(line, key, std::strlen(key)) == 0 && std::sscanf(line + std::strlen(key), "%lld", &value) == 1)
      return value;
  }
  return missing;
}

// The number in a file that holds just one; "max" and a missing file mean `missing`.
int64_t number(const std::string& path, int64_t missing) { return field(path, "", missing); }

// Calls visit(directory) for the process's cgroup and all its parents, of version 2.
template <class Visit>
void each_cgroup(const Visit& visit) {
  const File file("/proc/self/cgroup");
  char line[4096];
  while (file.f != nullptr && std::fgets(line, sizeof line, file.f) != nullptr) {
    if (std::strncmp(line, "0::/", 4) != 0) continue;
    std::string path(line + 3);
    while (!path.empty() && (path.back() == '\n' || path.back() == '/')) path.pop_back();
    for (;; path.resize(path.rfind('/'))) {
      visit("/sys/fs/cgroup" + path);
      if (path.empty()) return;
    }
  }
}

int64_t cpus_of(int64_t quota, int64_t period) {
  return quota > 0 && period > 0 ? std::max<int64_t>((quota + period - 1) / period, 1) : kUnlimited;
}

// Processors that the cgroup's bandwidth limit amounts to, rounded up.
int64_t cpus_of(const std::string& directory) {
  const File file(directory + "/cpu.max");
  long long quota, period;
  if (file.f == nullptr || std::fscanf(file.f, "%lld %lld", &quota, &period) != 2) return kUnlimited;
  return cpus_of(quota, period);
}

// The same of version 1, as a container sees its own group.
int64_t cpus_of_version_1() {
  const std::string directory = "/sys/fs/cgroup/cpu";
  return cpus_of(number(directory + "/cpu.cfs_quota_us", 0), number(directory + "/cpu.cfs_period_us", 0));
}

// Bytes the cgroup may still take; clean file pages count as free.
int64_t memory_of(const std::string& directory) {
  const int64_t limit = number(directory + "/memory.max", kUnlimited);
  if (limit == kUnlimited) return kUnlimited;
  const int64_t used = number(directory + "/memory.current", 0);
  return std::max<int64_t>(limit - used + field(directory + "/memory.stat", "inactive_file ", 0), 0);
}

}  // namespace

int available_cpus() {
  cpu_set_t set;
  int64_t n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
  each_cgroup([&](const std::string& directory) { n = std::min(n, cpus_of(directory)); });
  n = std::min(n, cpus_of_version_1());
  return int(std::max<int64_t>(n, 1));
}

int64_t total_memory() {
  int64_t bytes = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  each_cgroup(
      [&](const std::string& directory) { bytes = std::min(bytes, number(directory + "/memory.max", kUnlimited)); });
  return bytes;
}

int64_t available_memory() {
  const int64_t kilobytes = field("/proc/meminfo", "MemAvailable:", INT64_MAX >> 12);
  int64_t bytes = (kilobytes + field("/proc/meminfo", "SwapFree:", 0)) << 10;
  each_cgroup([&](const std::string& directory) { bytes = std::min(bytes, memory_of(directory)); });
  return bytes;
}

int64_t resident_memory() {
  const File file("/proc/self/statm");
  long long total, resident;
  if (file.f == nullptr || std::fscanf(file.f, "%lld %lld", &total, &resident) != 2) return 0;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace nl
