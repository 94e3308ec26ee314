// eager.hpp: one op on concrete operands: executed at once, or appended to the thread's open tape.
#pragma once
#include "../base/view.hpp"
#include "../runtime/float_mode.hpp"
#include "../runtime/storage.hpp"

namespace nl {

constexpr int kMaxOps = 1024;  // rows of the table and those registered at run time

// What a Tensor is, apart from Python: a strided window into a storage. Offsets and strides in elements.
struct TensorData {
  TensorData() {}  // clears no more than it must: one is made for every result and view
  Storage* storage = nullptr;
  int64_t offset;
  int64_t shape[kMaxRank];
  int64_t strides[kMaxRank];
  int32_t rank;
  DType dtype;
};

// An argument: a tensor, or (tensor == nullptr) a scalar whose bits hold a value of `dtype`.
struct Operand {
  const TensorData* tensor;
  uint64_t bits;
  DType dtype;
};

inline int64_t numel(const TensorData& t) {
  int64_t n = 1;
  for (int d = 0; d < t.rank; ++d) n *= t.shape[d];
  return n;
}

inline bool is_contiguous(const TensorData& t) {
  int64_t stride = 1;
  for (int d = t.rank - 1; d >= 0; --d) {
    if (t.shape[d] == 0) return true;
    if (t.shape[d] != 1 && t.strides[d] != stride) return false;
    stride *= t.shape[d];
  }
  return true;
}

inline void set_contiguous_strides(TensorData& t) {
  int64_t stride = 1;
  for (int d = t.rank - 1; d >= 0; --d) {
    t.strides[d] = stride;
    stride *= t.shape[d] > 1 ? t.shape[d] : 1;
  }
}

// The lowest and one past the highest element offset that `t` touches (lo == hi when it is empty).
void extent(const TensorData& t, int64_t* lo, int64_t* hi);
// Whether writing `a` may change what `b` reads, unless they are the very same elements in the same order.
bool overlaps_partially(const TensorData& a, const TensorData& b);
// Whether two indices of `t` may name the same element.
bool overlaps_itself(const TensorData& t);

// Runs or records. An output whose storage is null is created (row-major); any other is written in place.
void execute(uint16_t op, const Operand* in, int n_in, TensorData* out, int n_out, const int64_t* attr, int n_attr);

// Runs one op on raw views; throws on a failed check.
void run_call(const Call& call);

// The elementwise driver behind every map row (csrc/eager/map.cpp): broadcasting, strides, threads.
int run_map(const Call& call);
MapFn map_kernel(uint16_t op, DType key);
void set_map_kernel(uint16_t op, DType key, MapFn fn);  // for rows registered at run time

// The kernel on dense operands of n elements, without threads, under the default floating-point mode.
inline void run_dense(MapFn kernel, char* const* ptr, const int64_t* step, int64_t n) {
  const DefaultFloatMode mode;
  kernel(ptr, step, n, 0);
}

// The function that runs an op in a program's native step.
NativeFn native_function(uint16_t op);

}  // namespace nl
