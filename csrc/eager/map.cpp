// map.cpp: the elementwise driver: from strided, broadcast operands to calls of the generated contiguous kernels.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "ops.gen.hpp"
#include "tiles.hpp"
#include "widen.hpp"

namespace nl {
namespace {

constexpr int64_t kBlock = 512;       // elements gathered at a time when an operand is not contiguous
constexpr int64_t kGathered = 128;    // rows below are gathered too where the results are dense: a call costs more
constexpr int64_t kShortCopy = 2048;  // bytes of a row that is copied without a call

bool fits_block(const Nest& nest) { return nest.shape[nest.rank - 1] <= kBlock; }

bool all_direct(const Nest& nest) {
  for (int k = 0; k < nest.n_op; ++k)
    if (!nest.direct(k)) return false;
  return true;
}

// The index of the row that holds element `begin`, along all axes but the innermost.
void row_index(const Nest& nest, int64_t begin, int64_t* index) {
  const int last = nest.rank - 1;
  for (int64_t d = last - 1, i = begin / nest.shape[last]; d >= 0; i /= nest.shape[d--]) index[d] = i % nest.shape[d];
}

// Moves the index to the next row: step(axis, by) for every axis that it moves along. Counted along, because a division
// costs more than a short row.
template <class Step>
void next_row(const Nest& nest, int64_t* index, const Step& step) {
  for (int d = nest.rank - 2; d >= 0; --d) {
    const bool wraps = ++index[d] == nest.shape[d];
    step(d, wraps ? 1 - nest.shape[d] : 1);
    if (!wraps) return;
    index[d] = 0;
  }
}

// body(ptr, step, count, first) for the rows, or parts of rows, of the elements [begin, end).
template <class Body>
void for_rows(const Nest& nest, int64_t begin, int64_t end, const Body& body) {
  const int last = nest.rank - 1;
  const int64_t inner = nest.shape[last];
  char* ptr[kMaxOperands];
  char* row[kMaxOperands];  // where the row begins
  int64_t step[kMaxOperands], index[kMaxRank];
  row_index(nest, begin, index);
  for (int k = 0; k < nest.n_op; ++k) {
    step[k] = nest.strides[k][last];
    row[k] = nest.data[k] + locate(nest, k, begin - begin % inner);
  }
  for (int64_t at = begin % inner; begin < end; at = 0) {
    const int64_t count = std::min(inner - at, end - begin);
    for (int k = 0; k < nest.n_op; ++k) ptr[k] = row[k] + at * step[k];
    body(ptr, step, count, begin);
    begin += count;
    next_row(nest, index, [&](int d, int64_t by) {
      for (int k = 0; k < nest.n_op; ++k) row[k] += by * nest.strides[k][d];
    });
  }
}

void run_rows(const Nest& nest, int64_t begin, int64_t end) {
  for_rows(nest, begin, end, [&](char* const* ptr, const int64_t* step, int64_t count, int64_t first) {
    call_kernel(nest, ptr, step, count, first);
  });
}

template <typename T>
void fill_row(T* to, T value, int64_t count) {
  constexpr int64_t kPart = 64 / sizeof(T);
  T part[kPart];
  std::fill_n(part, kPart, value);
  int64_t i = 0;
  for (; i + kPart <= count; i += kPart) std::copy_n(part, kPart, to + i);
  if (i < count && i > 0) return void(std::copy_n(part, kPart, to + count - kPart));  // moved back
  for (; i < count; ++i) to[i] = value;
}

// A copy of rows of one element each: a kernel would fill a vector for every row.
template <typename T>
void fill_rows(const Nest& nest, int64_t begin, int64_t end) {
  for_rows(nest, begin, end, [](char* const* ptr, const int64_t*, int64_t count, int64_t) {
    fill_row(reinterpret_cast<T*>(ptr[0]), *reinterpret_cast<const T*>(ptr[1]), count);
  });
}

void run_fills(const Nest& nest, int64_t begin, int64_t end) {
  by_size(nest.item[0], [&](auto zero) { fill_rows<decltype(zero)>(nest, begin, end); });
}

// The same where every element is to be repeated a few times: a row is as many elements as lie beside each other.
template <typename T>
void repeat_elements(const Nest& nest, int64_t begin, int64_t end) {
  Nest outer = nest;
  --outer.rank;
  const int64_t times = nest.shape[outer.rank];
  for_rows(outer, begin, end, [=](char* const* ptr, const int64_t* step, int64_t count, int64_t) {
    for (int64_t i = 0; i < count; ++i) {
      T *to = reinterpret_cast<T*>(ptr[0] + i * step[0]), value = *reinterpret_cast<const T*>(ptr[1] + i * step[1]);
      for (int64_t j = 0; j < times; ++j) to[j] = value;
    }
  });
}

void run_repeats(const Nest& nest, int64_t begin, int64_t end) {
  by_size(nest.item[0], [&](auto zero) { repeat_elements<decltype(zero)>(nest, begin, end); });
}

// Copies in pieces of a fixed size, the last one moved back: a call of memcpy costs more than a short row.
template <int kPiece>
void copy_pieces(char* to, const char* from, int64_t bytes) {
  for (int64_t i = 0; i + kPiece < bytes; i += kPiece) std::memcpy(to + i, from + i, kPiece);
  std::memcpy(to + bytes - kPiece, from + bytes - kPiece, kPiece);
}

void copy_row(char* to, const char* from, int64_t bytes) {
  if (bytes >= 64) return copy_pieces<64>(to, from, bytes);
  if (bytes >= 16) return copy_pieces<16>(to, from, bytes);
  if (bytes >= 4) return copy_pieces<4>(to, from, bytes);
  std::memcpy(to, from, bytes);
}

// A copy of rows that are contiguous on both sides, whole ones.
void run_copies(const Nest& nest, int64_t begin, int64_t end) {
  Nest outer = nest;
  --outer.rank;
  const int64_t bytes = nest.shape[outer.rank] * nest.item[0];
  for_rows(outer, begin, end, [=](char* const* ptr, const int64_t* step, int64_t count, int64_t) {
    for (int64_t i = 0; i < count; ++i) copy_row(ptr[0] + i * step[0], ptr[1] + i * step[1], bytes);
  });
}

// to[i] = from[-i]
template <typename T>
void copy_reversed(T* to, const T* from, int64_t count) {
  int64_t i = 0;
  if constexpr (sizeof(T) == 4) {
    typedef T Four __attribute__((vector_size(16)));
    for (; i + 4 <= count; i += 4) {
      Four v;
      std::memcpy(&v, from - i - 3, 16);
      v = __builtin_shufflevector(v, v, 3, 2, 1, 0);
      std::memcpy(to + i, &v, 16);
    }
  }
  for (; i < count; ++i) to[i] = from[-i];
}

// Copies `count` elements in row-major order from `begin` between strided memory and a dense block.
template <typename T, bool kGather>
void move(const Nest& nest, int k, char* block, int64_t begin, int64_t count) {
  T* dense = reinterpret_cast<T*>(block);
  const int last = nest.rank - 1;
  const int64_t inner = nest.shape[last], *strides = nest.strides[k], stride = strides[last];
  char* row = nest.data[k] + locate(nest, k, begin - begin % inner);
  int64_t index[kMaxRank];
  row_index(nest, begin, index);
  for (int64_t at = begin % inner; count > 0; at = 0) {
    const int64_t run = std::min(inner - at, count);
    char* const first = row + at * stride;
    if (stride == 0 && kGather && run >= kShortRow) {
      fill_row(dense, *reinterpret_cast<T*>(first), run);
    } else if (stride == sizeof(T) && run * stride >= 16) {
      char* const there = reinterpret_cast<char*>(dense);
      kGather ? copy_row(there, first, run * sizeof(T)) : copy_row(first, there, run * sizeof(T));
    } else if (stride == -int64_t(sizeof(T)) && kGather) {
      copy_reversed(dense, reinterpret_cast<const T*>(first), run);
    } else {
      for (int64_t i = 0; i < run; ++i) {
        T* element = reinterpret_cast<T*>(first + i * stride);
        if (kGather)
          dense[i] = *element;
        else
          *element = dense[i];
      }
    }
    dense += run;
    count -= run;
    next_row(nest, index, [&](int d, int64_t by) { row += by * strides[d]; });
  }
}

// Whether operand k lies in memory in row-major order, without gaps.
bool is_dense(const Nest& nest, int k) {
  int64_t step = nest.item[k];
  for (int d = nest.rank - 1; d >= 0; step *= nest.shape[d--])
    if (nest.strides[k][d] != step) return false;
  return true;
}

bool has_dense_results(const Nest& nest) {
  for (int k = 0; k < nest.n_out; ++k)
    if (!is_dense(nest, k)) return false;
  return true;
}

template <bool kGather>
void move_block(const Nest& nest, int k, char* block, int64_t begin, int64_t count) {
  by_size(nest.item[k], [&](auto zero) { move<decltype(zero), kGather>(nest, k, block, begin, count); });
}

// A copy to a dense result.
void run_gathers(const Nest& nest, int64_t begin, int64_t end) {
  move_block<true>(nest, 1, nest.data[0] + begin * nest.item[0], begin, end - begin);
}

// Whether operand k is one element for every row.
bool is_column(const Nest& nest, int k) { return nest.rank > 1 && nest.strides[k][nest.rank - 1] == 0; }

// Gathers such an operand for `count` elements from a row's beginning on.
void spread_block(const Nest& nest, int k, char* block, int64_t begin, int64_t count) {
  const int outer = nest.rank - 1, axis = outer - 1;
  const int64_t times = nest.shape[outer], end = (begin + count) / times, *strides = nest.strides[k];
  for (int64_t row = begin / times; row < end;) {
    const int64_t rows = std::min(nest.shape[axis] - row % nest.shape[axis], end - row);
    const char* from = nest.data[k] + locate(nest.shape, strides, outer, row);
    nl_spread(block, from, strides[axis], nest.item[k], times, rows);
    block += rows * times * nest.item[k];
    row += rows;
  }
}

// Whether operand k is the same for all rows.
bool is_one_row(const Nest& nest, int k) {
  for (int d = 0; d < nest.rank - 1; ++d)
    if (nest.strides[k][d] != 0) return false;
  return nest.rank > 1;
}

void gather_block(const Nest& nest, int k, char* block, int64_t begin, int64_t count) {
  if (is_column(nest, k) && fits_block(nest)) return spread_block(nest, k, block, begin, count);
  move_block<true>(nest, k, block, begin, count);
}

// Blocks are as long as whole rows, if any fit: an operand of one row is gathered once.
void run_blocks(const Nest& nest, int64_t begin, int64_t end) {
  const int64_t inner = nest.shape[nest.rank - 1], whole = fits_block(nest) ? kBlock / inner * inner : kBlock;
  const int64_t start = begin;
  alignas(64) char blocks[kMaxOperands][kBlock * 8 + kSpreadBeyond];
  bool dense[kMaxOperands], once[kMaxOperands];
  char* ptr[kMaxOperands];
  int64_t step[kMaxOperands];
  for (int k = 0; k < nest.n_op; ++k) {
    dense[k] = is_dense(nest, k);
    once[k] = fits_block(nest) && is_one_row(nest, k);
    step[k] = nest.item[k];
  }
  for (; begin < end; begin += whole) {
    const int64_t count = std::min(whole, end - begin);
    for (int k = 0; k < nest.n_op; ++k) {
      ptr[k] = dense[k] ? nest.data[k] + begin * step[k] : blocks[k];
      if (!dense[k] && k >= nest.n_out && (begin == start || !once[k])) gather_block(nest, k, blocks[k], begin, count);
    }
    call_kernel(nest, ptr, step, count, begin);
    for (int k = 0; k < nest.n_out; ++k)
      if (!dense[k]) move_block<false>(nest, k, blocks[k], begin, count);
  }
}

// Blocks of rows, none of which threads share.
void run_row_blocks(const Nest& nest, int64_t begin, int64_t end) {
  const int64_t inner = nest.shape[nest.rank - 1];
  run_blocks(nest, begin * inner, end * inner);
}

bool is_fill(const Nest& nest, uint16_t op) {
  const int last = nest.rank - 1;
  return op == kCopy && nest.shape[last] > 1 && nest.strides[1][last] == 0 && nest.strides[0][last] == nest.item[0];
}

bool is_copy(const Nest& nest, uint16_t op) {
  const int last = nest.rank - 1;
  const bool contiguous = nest.strides[0][last] == nest.item[0] && nest.strides[1][last] == nest.item[0];
  const int64_t bytes = nest.shape[last] * nest.item[0];
  return op == kCopy && contiguous && nest.rank > 1 && bytes >= 4 && bytes <= kShortCopy;
}

template <void (*kRun)(const Nest&, int64_t, int64_t)>
void run_parallel(const Nest& nest, int64_t inside = 1) {
  nl_parallel_for(
      nest.size() / inside, std::max<int64_t>(nest.grain / inside, 1),
      [](void* ctx, int64_t b, int64_t e) { kRun(*static_cast<const Nest*>(ctx), b, e); }, const_cast<Nest*>(&nest));
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
  set_kernel(nest, call);
  nest.grain = kMapGrain * kCheap / std::max(kCheap, weight_of(call.op));
  if (!reads_index(call.op)) order_axes(nest);
  coalesce(nest);
  if (const int axis = tile_axis(nest, call.op == kCopy); axis >= 0) {
    run_tiles(nest, axis, call.op == kCopy);
    return kOk;
  }
  if (is_fill(nest, call.op)) {
    const int64_t times = nest.shape[nest.rank - 1];
    nest.rank > 1 && times < kShortRow ? run_parallel<run_repeats>(nest, times) : run_parallel<run_fills>(nest);
    return kOk;
  }
  if (is_copy(nest, call.op)) {
    run_parallel<run_copies>(nest, nest.shape[nest.rank - 1]);
    return kOk;
  }
  if (call.op == kCopy && !all_direct(nest) && is_dense(nest, 0)) {
    run_parallel<run_gathers>(nest);
    return kOk;
  }
  const int64_t shortest = has_dense_results(nest) ? kGathered : kShortRow;
  const bool rows = all_direct(nest) && (nest.rank == 1 || nest.shape[nest.rank - 1] >= shortest);
  if (rows)
    run_parallel<run_rows>(nest);
  else if (fits_block(nest))
    run_parallel<run_row_blocks>(nest, nest.shape[nest.rank - 1]);
  else
    run_parallel<run_blocks>(nest);
  return kOk;
}

}  // namespace nl
