// map.cpp: the elementwise driver: from strided, broadcast operands to calls of the generated contiguous kernels.
#include <algorithm>
#include <atomic>

#include "../kernels/dispatch.hpp"
#include "eager.hpp"
#include "ops.gen.hpp"

namespace nl {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a thread takes at least: below, waking a thread costs more
constexpr int64_t kBlock = 512;      // elements gathered at a time when an operand is not contiguous
constexpr int64_t kShortRow = 16;    // rows shorter than this are gathered into blocks rather than called one by one

// All operands over one index space, outputs first; strides in bytes.
struct Nest {
  int n_op = 0, n_out = 0, rank = 0;
  int64_t shape[kMaxRank];
  int64_t strides[kMaxOperands][kMaxRank];
  char* data[kMaxOperands];
  int64_t item[kMaxOperands];
  MapFn kernel;

  int64_t size() const {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= shape[d];
    return n;
  }
};

void add_operand(Nest& nest, const View& v) {
  const int k = nest.n_op++;
  nest.data[k] = v.data;
  nest.item[k] = itemsize(v.dtype);
  const int lead = nest.rank - v.rank;
  for (int d = 0; d < nest.rank; ++d) {
    const bool broadcast = d < lead || v.shape[d - lead] == 1;
    nest.strides[k][d] = broadcast ? 0 : v.strides[d - lead] * nest.item[k];
  }
}

void swap_axes(Nest& nest, int a, int b) {
  std::swap(nest.shape[a], nest.shape[b]);
  for (int k = 0; k < nest.n_op; ++k) std::swap(nest.strides[k][a], nest.strides[k][b]);
}

// Walks memory in the output's order; kernels that read the element's index need the row-major order kept.
void order_axes(Nest& nest) {
  for (int i = 1; i < nest.rank; ++i)
    for (int j = i; j > 0 && std::abs(nest.strides[0][j - 1]) < std::abs(nest.strides[0][j]); --j)
      swap_axes(nest, j - 1, j);
}

bool mergeable(const Nest& nest, int outer, int inner) {
  for (int k = 0; k < nest.n_op; ++k)
    if (nest.strides[k][outer] != nest.strides[k][inner] * nest.shape[inner]) return false;
  return true;
}

void coalesce(Nest& nest) {
  int top = -1;  // last axis kept
  for (int d = 0; d < nest.rank; ++d) {
    if (nest.shape[d] == 1) continue;
    if (top >= 0 && mergeable(nest, top, d)) {
      nest.shape[top] *= nest.shape[d];
      for (int k = 0; k < nest.n_op; ++k) nest.strides[k][top] = nest.strides[k][d];
      continue;
    }
    ++top;
    nest.shape[top] = nest.shape[d];
    for (int k = 0; k < nest.n_op; ++k) nest.strides[k][top] = nest.strides[k][d];
  }
  nest.rank = top + 1;
  if (nest.rank == 0) {
    nest.rank = 1;
    nest.shape[0] = 1;
    for (int k = 0; k < nest.n_op; ++k) nest.strides[k][0] = k < nest.n_out ? nest.item[k] : 0;
  }
}

// Whether the kernels can walk the innermost axis directly.
bool inner_direct(const Nest& nest) {
  const int last = nest.rank - 1;
  for (int k = 0; k < nest.n_op; ++k) {
    const int64_t step = nest.strides[k][last];
    if (step != nest.item[k] && (step != 0 || k < nest.n_out)) return false;
  }
  return true;
}

// Byte offset of the element with row-major index `linear`.
int64_t locate(const Nest& nest, int k, int64_t linear) {
  int64_t at = 0;
  for (int d = nest.rank - 1; d >= 0; --d) {
    at += linear % nest.shape[d] * nest.strides[k][d];
    linear /= nest.shape[d];
  }
  return at;
}

void run_rows(const Nest& nest, int64_t begin, int64_t end) {
  const int64_t inner = nest.shape[nest.rank - 1];
  char* ptr[kMaxOperands];
  int64_t step[kMaxOperands];
  for (int k = 0; k < nest.n_op; ++k) step[k] = nest.strides[k][nest.rank - 1];
  while (begin < end) {
    const int64_t count = std::min(inner - begin % inner, end - begin);
    for (int k = 0; k < nest.n_op; ++k) ptr[k] = nest.data[k] + locate(nest, k, begin);
    nest.kernel(ptr, step, count, begin);
    begin += count;
  }
}

// Copies `count` elements in row-major order from `begin` between strided memory and a dense block.
template <typename T, bool kGather>
void move(const Nest& nest, int k, char* block, int64_t begin, int64_t count) {
  T* dense = reinterpret_cast<T*>(block);
  const int last = nest.rank - 1;
  const int64_t inner = nest.shape[last], stride = nest.strides[k][last];
  while (count > 0) {
    const int64_t run = std::min(inner - begin % inner, count);
    char* at = nest.data[k] + locate(nest, k, begin);
    for (int64_t i = 0; i < run; ++i) {
      T* element = reinterpret_cast<T*>(at + i * stride);
      if (kGather)
        dense[i] = *element;
      else
        *element = dense[i];
    }
    dense += run;
    begin += run;
    count -= run;
  }
}

template <bool kGather>
void move_block(const Nest& nest, int k, char* block, int64_t begin, int64_t count) {
  switch (nest.item[k]) {
    case 1: return move<uint8_t, kGather>(nest, k, block, begin, count);
    case 4: return move<uint32_t, kGather>(nest, k, block, begin, count);
    default: return move<uint64_t, kGather>(nest, k, block, begin, count);
  }
}

void run_blocks(const Nest& nest, int64_t begin, int64_t end) {
  alignas(64) char blocks[kMaxOperands][kBlock * 8];
  char* ptr[kMaxOperands];
  int64_t step[kMaxOperands];
  for (int k = 0; k < nest.n_op; ++k) {
    ptr[k] = blocks[k];
    step[k] = nest.item[k];
  }
  for (; begin < end; begin += kBlock) {
    const int64_t count = std::min(kBlock, end - begin);
    for (int k = nest.n_out; k < nest.n_op; ++k) move_block<true>(nest, k, blocks[k], begin, count);
    nest.kernel(ptr, step, count, begin);
    for (int k = 0; k < nest.n_out; ++k) move_block<false>(nest, k, blocks[k], begin, count);
  }
}

template <void (*kRun)(const Nest&, int64_t, int64_t)>
void run_parallel(const Nest& nest) {
  nl_parallel_for(
      nest.size(), kGrain, [](void* ctx, int64_t b, int64_t e) { kRun(*static_cast<const Nest*>(ctx), b, e); },
      const_cast<Nest*>(&nest));
}

// Of rows registered at run time. Threads that hold no lock read here while another one registers.
std::atomic<MapFn> registered[kMaxOps - kNumOps][kDTypes];

}  // namespace

MapFn map_kernel(uint16_t op, DType key) {
  if (op < kNumOps) return nl_map_table()[op][(int)key];
  return registered[op - kNumOps][(int)key].load(std::memory_order_acquire);
}

void set_map_kernel(uint16_t op, DType key, MapFn fn) {
  registered[op - kNumOps][(int)key].store(fn, std::memory_order_release);
}

int run_map(const Call& call) {
  Nest nest;
  nest.n_out = call.n_out;
  nest.rank = call.out[0].rank;
  std::copy_n(call.out[0].shape, nest.rank, nest.shape);
  for (int k = 0; k < call.n_out; ++k) add_operand(nest, call.out[k]);
  for (int k = 0; k < call.n_in; ++k) add_operand(nest, call.in[k]);
  if (nest.size() == 0) return kOk;
  nest.kernel = map_kernel(call.op, key_dtype(call));
  if (!reads_index(call.op)) order_axes(nest);
  coalesce(nest);
  const bool rows = inner_direct(nest) && (nest.rank == 1 || nest.shape[nest.rank - 1] >= kShortRow);
  rows ? run_parallel<run_rows>(nest) : run_parallel<run_blocks>(nest);
  return kOk;
}

}  // namespace nl
