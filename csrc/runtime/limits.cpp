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

// Calls visit(directory) for the process's cgroups that govern `controller`, and for all their parents. Version 2 has
// one group for all controllers, version 1 a hierarchy for each.
template <class Visit>
void each_cgroup(const std::string& root, const std::string& controller, const Visit& visit) {
  const File file(root + "proc/self/cgroup");
  char line[4096];
  while (file.f != nullptr && std::fgets(line, sizeof line, file.f) != nullptr) {  // number:controllers:path
    const std::string text(line), all = text.substr(0, text.find_last_not_of("\n/") + 1);
    const size_t first = all.find(':'), second = all.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + all.substr(first + 1, second - first - 1) + ",";
    const bool unified = names == ",,";
    if (!unified && names.find("," + controller + ",") == std::string::npos) continue;
    const std::string top = root + "sys/fs/cgroup" + (unified ? "" : "/" + controller);
    for (std::string path = all.substr(second + 1);; path.resize(path.rfind('/'))) {
      visit(top + path);
      if (path.find('/') == std::string::npos) break;
    }
  }
}

// Processors that a cgroup's bandwidth limit amounts to, rounded up.
int64_t cpus_of(const std::string& directory) {
  const File file(directory + "/cpu.max");
  long long quota = 0, period = 0;
  if (file.f == nullptr) {
    quota = number(directory + "/cpu.cfs_quota_us", 0), period = number(directory + "/cpu.cfs_period_us", 0);
  } else if (std::fscanf(file.f, "%lld %lld", &quota, &period) != 2) {
    return kUnlimited;
  }
  return quota > 0 && period > 0 ? std::max<int64_t>((quota + period - 1) / period, 1) : kUnlimited;
}

// A cgroup's limit in bytes.
int64_t limit_of(const std::string& directory) {
  return number(directory + "/memory.max", number(directory + "/memory.limit_in_bytes", kUnlimited));
}

// Bytes a cgroup may still take; clean file pages count as free.
int64_t memory_of(const std::string& directory) {
  const int64_t limit = limit_of(directory);
  if (limit == kUnlimited) return kUnlimited;
  const std::string stat = directory + "/memory.stat";
  const int64_t used = number(directory + "/memory.current", number(directory + "/memory.usage_in_bytes", 0));
  const int64_t files = field(stat, "total_inactive_file ", field(stat, "inactive_file ", 0));
  return std::max<int64_t>(limit - used + files, 0);
}

}  // namespace

int available_cpus(const std::string& root) {
  cpu_set_t set;
  int64_t n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
  each_cgroup(root, "cpu", [&](const std::string& directory) { n = std::min(n, cpus_of(directory)); });
  return int(std::max<int64_t>(n, 1));
}

int64_t total_memory(const std::string& root) {
  int64_t bytes = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  each_cgroup(root, "memory", [&](const std::string& directory) { bytes = std::min(bytes, limit_of(directory)); });
  return bytes;
}

int64_t available_memory(const std::string& root) {
  const int64_t kilobytes = field(root + "proc/meminfo", "MemAvailable:", INT64_MAX >> 12);
  int64_t bytes = (kilobytes + field(root + "proc/meminfo", "SwapFree:", 0)) << 10;
  each_cgroup(root, "memory", [&](const std::string& directory) { bytes = std::min(bytes, memory_of(directory)); });
  return bytes;
}

int64_t resident_memory() {
  const File file("/proc/self/statm");
  long long total, resident;
  if (file.f == nullptr || std::fscanf(file.f, "%lld %lld", &total, &resident) != 2) return 0;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace nl
