// dtype.hpp: the element types, their sizes and what they are computed in. Included by kernels: no C++ standard header.
#pragma once
#include <stdint.h>

#include "dtypes.gen.hpp"  // of ops/dtypes.py

namespace nl {

// The order is the promotion order: the larger of two wins (bool < ints < floats), with two exceptions in
// ops/dtypes.py, the list that this one is made from.
enum class DType : uint8_t { NL_DTYPES };
constexpr int kDTypes = NL_NUM_DTYPES;

// A dtype is a block of elements and its bytes, so that quantised formats fit the same field: bytes always come from
// `nbytes`, never from count * itemsize.
struct DTypeInfo {
  const char* name;     // "float32"
  const char* text;     // "f32", the spelling in printed graphs and kernels
  int32_t block;        // elements in a block
  int32_t block_bytes;  // bytes of a block
  uint8_t category;     // 0 bool, 1 integer, 2 floating point
  DType wide;           // in which it is computed with; itself unless it is narrow
};

constexpr DTypeInfo kDTypeInfo[kDTypes] = {NL_DTYPE_INFO};

static constexpr int64_t itemsize(DType t) { return kDTypeInfo[(int)t].block_bytes; }
static constexpr int64_t nbytes(DType t, int64_t count) {
  const DTypeInfo& d = kDTypeInfo[(int)t];
  return (count + d.block - 1) / d.block * d.block_bytes;
}
static constexpr bool is_float(DType t) { return kDTypeInfo[(int)t].category == 2; }

static constexpr DType wide(DType t) { return kDTypeInfo[(int)t].wide; }
static constexpr bool is_narrow(DType t) { return wide(t) != t; }

}  // namespace nl
