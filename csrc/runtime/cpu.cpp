// cpu.cpp: asks the processor, and the system about the registers it saves, which levels can run.
#include "cpu.hpp"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#include "levels.gen.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace nl {
namespace {

// One function `supports_LEVEL` for every level in the list.
#if defined(__x86_64__)

struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(uint32_t leaf, uint32_t subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

constexpr bool all(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

// Whether the operating system saves all the register parts in `mask` when it switches threads.
bool system_saves(uint32_t mask) {
  if (!all(Cpuid(1, 0).ecx, bit_OSXSAVE)) return false;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return all(low, mask);
}

bool supports_baseline() { return true; }

bool supports_avx2() {
  constexpr uint32_t kYmm = 0x6;
  return all(Cpuid(1, 0).ecx, bit_AVX | bit_FMA | bit_F16C) && all(Cpuid(7, 0).ebx, bit_AVX2) && system_saves(kYmm);
}

bool supports_avx512() {
  constexpr uint32_t kZmm = 0xE6;
  constexpr uint32_t kFeatures = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  return supports_avx2() && all(Cpuid(7, 0).ebx, kFeatures) && system_saves(kZmm);
}

bool has_byte_dots() { return supports_avx512() && all(Cpuid(7, 0).ecx, bit_AVX512VNNI); }

#elif defined(__aarch64__)

bool has_byte_dots() { return false; }
bool supports_neon() { return true; }  // part of every 64-bit ARM processor

#else

bool has_byte_dots() { return false; }
bool supports_generic() { return true; }

#endif

struct Level {
  const char* name;
  bool (*supported)();
};

#define NL_LEVEL(name) {#name, supports_##name},
constexpr Level kLevels[] = {NL_LEVELS(NL_LEVEL)};
#undef NL_LEVEL
constexpr int kNumLevels = sizeof(kLevels) / sizeof(kLevels[0]);

std::string joined(const std::vector<std::string>& names) {
  std::string s;
  for (const std::string& name : names) s += (s.empty() ? "" : ", ") + name;
  return s;
}

int choose_level() {
  const char* text = std::getenv("NEURLANG_ISA");
  const std::string forced = text != nullptr ? text : "";
  for (int i = kNumLevels - 1; i >= 0; --i)
    if ((forced.empty() || forced == kLevels[i].name) && kLevels[i].supported()) return i;
  throw std::invalid_argument("NEURLANG_ISA=" + forced + " is not an instruction level of this machine; " +
                              "use one of " + joined(isa_supported()) + ", or unset it");
}

}  // namespace

int isa_level() {
  static const int level = choose_level();
  return level;
}

const char* isa_name(int level) { return kLevels[level].name; }

std::vector<std::string> isa_supported() {
  std::vector<std::string> names;
  for (const Level& level : kLevels)
    if (level.supported()) names.push_back(level.name);
  return names;
}

}  // namespace nl

extern "C" int nl_has_byte_dots(void) {
  static const bool has = nl::has_byte_dots();
  return has;
}
