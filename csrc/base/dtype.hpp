// dtype.hpp: the element types, their sizes and the promotion order. Included by kernels: no C++ standard header.
#pragma once
#include <stdint.h>

namespace nl {

// The order is the promotion order: the larger of two wins (bool < ints < floats).
enum class DType : uint8_t { b8 = 0, u8 = 1, i32 = 2, i64 = 3, f32 = 4, f64 = 5 };
constexpr int kDTypes = 6;

// A dtype is a block of elements and its bytes, so that quantised formats fit the same field: bytes always come from
// `nbytes`, never from count * itemsize.
struct DTypeInfo {
  const char* name;     // "float32"
  const char* text;     // "f32", the spelling in printed graphs and kernels
  int32_t block;        // elements in a block
  int32_t block_bytes;  // bytes of a block
  uint8_t category;     // 0 bool, 1 integer, 2 floating point
};

constexpr DTypeInfo kDTypeInfo[kDTypes] = {
    {"bool", "b8", 1, 1, 0},   {"uint8", "u8", 1, 1, 1},    {"int32", "i32", 1, 4, 1},
    {"int64", "i64", 1, 8, 1}, {"float32", "f32", 1, 4, 2}, {"float64", "f64", 1, 8, 2},
};

static constexpr int64_t itemsize(DType t) { return kDTypeInfo[(int)t].block_bytes; }
static constexpr int64_t nbytes(DType t, int64_t count) {
  const DTypeInfo& d = kDTypeInfo[(int)t];
  return (count + d.block - 1) / d.block * d.block_bytes;
}
static constexpr bool is_float(DType t) { return kDTypeInfo[(int)t].category == 2; }

}  // namespace nl
