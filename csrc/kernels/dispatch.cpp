// dispatch.cpp: chooses the tables of one level; compiled once, unlike the kernels around it.
#include "dispatch.hpp"

#include "../runtime/cpu.hpp"
#include "levels.gen.hpp"
#include "ops.gen.hpp"

#define NL_DECLARE(level)                                                                           \
  namespace nl::level {                                                                             \
  extern const MapFn map_table[kNumOps][kDTypes];                                                   \
  extern const NativeFn native_table[kNumOps];                                                      \
  void spread(char* to, const char* from, int64_t step, int64_t size, int64_t times, int64_t rows); \
  }
NL_LEVELS(NL_DECLARE)
#undef NL_DECLARE

namespace {

struct Tables {
  const nl_map_row* map;
  const nl::NativeFn* native;
  void (*spread)(char*, const char*, int64_t, int64_t, int64_t, int64_t);
};

#define NL_TABLES(level) {nl::level::map_table, nl::level::native_table, nl::level::spread},
constexpr Tables kTables[] = {NL_LEVELS(NL_TABLES)};
#undef NL_TABLES

const Tables& tables() {
  static const Tables& chosen = kTables[nl::isa_level()];
  return chosen;
}

}  // namespace

const nl_map_row* nl_map_table() { return tables().map; }
const nl::NativeFn* nl_native_table() { return tables().native; }

void nl_spread(char* to, const char* from, int64_t step, int64_t size, int64_t times, int64_t rows) {
  tables().spread(to, from, step, size, times, rows);
}
