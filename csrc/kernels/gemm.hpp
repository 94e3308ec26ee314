// gemm.hpp: blocked matrix products over operands that fetch their own panels; what matmul and convolutions share.
//
// The bits are those of *dot*: k ascending in blocks of kDepth, a block is one FMA chain from +0, blocks are added in
// ascending order. Tiles, panels and threads do not show in them.
#pragma once
#include "../base/view.hpp"
#include "microkernel.hpp"

namespace nl::NL_ISA {

constexpr int kDepth = 256;
constexpr int64_t kGrainProducts = 3 << 17;  // fewer products than these (3-7 us) are not worth waking another thread

// Elements from one k to the next in a packed panel of A: whole vectors of rows.
template <class T>
constexpr int kPackedRows = (kTileRows + kWidth<T> - 1) / kWidth<T> * kWidth<T>;

// The part of an operand that one panel holds: lines [line, line + count) at k in [k, k + depth). `index` is the
// panel's number, `reach` how many lines the kernel will read (vectors may run past the last column), and `pitch` the
// distance of two k if the panel has to be packed: whole vectors, for packers store these.
struct Slice {
  int64_t batch, index, line, k;
  int count, depth, reach, pitch;
};

// The prologue hooks: an operand gives a panel where it lies, or gathers or makes it in `buffer` (pitch * depth
// elements).
template <class T>
struct Operand {
  Panel<T> (*fetch)(const void* source, const Slice& slice, T* buffer);
  const void* source;
  // Called some time before a slice is fetched, so that it is read from memory meanwhile; null for nothing to do.
  void (*expect)(const void* source, const Slice& slice) = nullptr;
  // Where the slice lies, of an operand whose lines are adjacent: kernels bring it into L2 before it is fetched, a
  // cache line of each k. No hardware follows as many streams as there are k: 1.2-1.6 times as fast from memory.
  Panel<T> (*lying)(const void* source, const Slice& slice) = nullptr;
  // Of an A that was packed before: its panels are those of row_panels, and not as many as share out evenly.
  bool numbered = false;
};

// The points of `planes` x `ys` x `xs`, numbered with x fastest, and their distances in memory.
struct Grid {
  int64_t ys, xs;
  int64_t plane_stride, y_stride, x_stride;
};

// The offsets of points [first, first + count).
NL_FN void offsets_of(const Grid& grid, int64_t first, int count, int64_t* to) {
  if (count == 0) return;  // of extents that may be 0
  int64_t x = first % grid.xs, y = first / grid.xs % grid.ys, plane = first / grid.xs / grid.ys;
  for (int i = 0; i < count; i++) {
    to[i] = plane * grid.plane_stride + y * grid.y_stride + x * grid.x_stride;
    if (++x < grid.xs) continue;
    x = 0;
    if (++y == grid.ys) y = 0, plane++;
  }
}

// Where C lies.
template <class T>
struct Output {
  T* data;
  int64_t batch_stride, row_stride;
  Grid columns;
};

// C[batch, m, n] = A[batch, m, k] * B[batch, k, n] for k in [k_begin, k_end), k_begin a multiple of kDepth. With `add`
// it is added to C, which holds the sum of the blocks before. Uses the slots 0 and 1 of nl_scratch.
template <class T>
struct Contraction {
  int64_t batch, m, n, k_begin, k_end;
  bool add;
  Operand<T> a, b;
  Output<T> c;
  // The epilogue hook: called on each rectangle of C as soon as it is complete; null for none.
  void (*finish)(const void* owner, int64_t batch, int64_t i0, int64_t i1, int64_t j0, int64_t j1);
  const void* owner;
  // It wants rectangles that span all columns; `take`, if not null, gets them where they were computed, and C is left.
  bool of_rows = false;
  void (*take)(const void* owner, int64_t i0, int64_t i1, const void* rows) = nullptr;
};

void contract(const Contraction<float>& job);
void contract(const Contraction<double>& job);

// Panels of A: as few as possible, of nearly equal height, so that no kernel runs at a small one.
static constexpr int64_t row_panels(int64_t m) { return (m + kTileRows - 1) / kTileRows; }
static constexpr int64_t row_panel_begin(int64_t m, int64_t panel) { return panel * m / row_panels(m); }

}  // namespace nl::NL_ISA
