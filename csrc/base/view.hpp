// view.hpp: what a kernel sees: strided views of raw memory, and the one call every op is executed by.
// Included by kernels: no C++ standard header, no function that is not constexpr or static.
#pragma once
#include <stdint.h>

#include "dtype.hpp"

namespace nl {

constexpr int kMaxRank = 8;
constexpr int kMaxOperands = 12;  // inputs plus outputs of one call
constexpr int kMaxAttrs = 16;

// A strided view; strides are in elements and may be zero or negative. `data` is the element at index (0, …, 0).
struct View {
  char* data;
  int64_t shape[kMaxRank];
  int64_t strides[kMaxRank];
  int32_t rank;
  DType dtype;
};

// Called on a rectangle of a contraction's output that is complete and still in cache:
// batch `b`, rows [i0, i1), columns [j0, j1) of the last two output axes (for a convolution: i = output channel,
// j = flattened pixel, or the other way round where channels lie last). Several threads call it at once on disjoint
// rectangles, which cover the output.
struct Epilogue {
  void (*fn)(void* ctx, int64_t b, int64_t i0, int64_t i1, int64_t j0, int64_t j1);
  void* ctx;
  // For epilogues that need whole rows, numbered through all batches: null, or takes rows [i0, i1) that lie at `rows`,
  // as they would in the output, which nobody else reads.
  void (*take)(void* ctx, int64_t i0, int64_t i1, const void* rows);
  bool of_rows;  // it needs them: rectangles had better span all columns
};

// Makes part of an operand that does not lie in memory, as it would lie there: of matrix `b`, rows [i0, i1) and columns
// [j0, j1), to rows of `to` that are `pitch` elements apart. Several threads call it at once, any number of times.
struct Prologue {
  void (*fn)(void* ctx, int64_t b, int64_t i0, int64_t i1, int64_t j0, int64_t j1, void* to, int64_t pitch);
  void* ctx;
};

// What a program keeps for one of its steps between runs: memory for what the kernel makes of operands that stay as
// they are, and whether it has been made.
struct Kept {
  char* data;
  int64_t bytes;
  bool ready;
};

// One op executed on concrete operands. All sizes, dtypes and axes have been checked by the shape rules before; a
// kernel checks only what depends on values (an index), before it writes anything but a result that an error discards.
struct Call {
  const View* in;
  const View* out;           // outputs are written through `data`; an in-place op's output aliases an input exactly
  const int64_t* attr;       // static attributes in the row's order
  int64_t* fault;            // three numbers that explain a failure (kernel-specific: value, bound, axis)
  const Epilogue* epilogue;  // null, or what to run on finished tiles (contractions only)
  uint16_t op;
  uint8_t n_in, n_out, n_attr;
  Kept* kept = nullptr;  // where all operands but the first are the same as in the runs before; not of a part of them
  // Null, or what makes each input, with a null `fn` for those that lie in memory. Only of a matmul of floats, and of
  // matrices that are dense, their rows or columns adjacent.
  const Prologue* prologues = nullptr;
};

// What a native kernel returns.
enum Status : int { kOk = 0, kIndexError = 1 };
using NativeFn = int (*)(const Call&);

// An elementwise kernel over `n` elements. ptr: outputs then inputs; step: bytes from one element to the next,
// either the item size or 0 (a broadcast operand). `first` is the row-major index of the first element, which
// random and arange rows read.
using MapFn = void (*)(char* const* ptr, const int64_t* step, int64_t n, int64_t first);

}  // namespace nl

// The services of csrc/runtime that kernels use; plain C so that no inline function is shared between ISA levels.
extern "C" {
// Runs fn(ctx, begin, end) over [0, n) in chunks of at least `grain`, on the caller and the pool. The split never
// shows in the result. Runs serially when n <= grain, when one thread is set, or inside another parallel_for.
void nl_parallel_for(int64_t n, int64_t grain, void (*fn)(void* ctx, int64_t begin, int64_t end), void* ctx);
int nl_num_threads(void);

// The threads that a loop of some microseconds, about so many nanoseconds on one thread, may use: all where they are
// awake and free. To wake one takes its caller 10 us on a virtual machine, which pays where such loops follow each
// other.
int nl_threads_at_hand(int64_t nanoseconds);
// Whether the processor sums products of bytes in 512-bit registers (AVX512-VNNI).
int nl_has_byte_dots(void);
// For loop bodies that may take longer than some milliseconds an item: called now and then, it throws when the
// computation is to stop (Ctrl-C).
void nl_check_interrupt(void);
// The calling thread's scratch block `slot` (0..3), at least `bytes` long, 64-byte aligned, grown and kept;
// its content is lost when the same thread asks for the same slot again. Throws out-of-memory before any write.
void* nl_scratch(int slot, int64_t bytes);
// The memory of `kept`, at least `bytes` long and 64-byte aligned; if it was shorter its content is lost.
void* nl_keep(nl::Kept* kept, int64_t bytes);
}
