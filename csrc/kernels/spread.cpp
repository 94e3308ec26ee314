// spread.cpp: elements repeated along rows, for maps with an operand that is broadcast along the innermost axis.
#include "../simd/vec.h"
#include "dispatch.hpp"

namespace nl::NL_ISA {
namespace {

template <class T>
void spread_as(char* to, const char* from, int64_t step, int64_t bytes, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r, to += bytes, from += step) {
    T element;
    __builtin_memcpy(&element, from, sizeof element);
    const vu64 v = SPLAT(vu64, uint64_t(element) * (~uint64_t(0) / T(-1)));
    for (int64_t at = 0; at < bytes; at += NL_VEC_BYTES) STORE(vu64, to + at, v);
  }
}

}  // namespace

void spread(char* to, const char* from, int64_t step, int64_t size, int64_t times, int64_t rows) {
  switch (size) {
    case 1: return spread_as<uint8_t>(to, from, step, times, rows);
    case 2: return spread_as<uint16_t>(to, from, step, 2 * times, rows);
    case 4: return spread_as<uint32_t>(to, from, step, 4 * times, rows);
    default: return spread_as<uint64_t>(to, from, step, 8 * times, rows);
  }
}

}  // namespace nl::NL_ISA
