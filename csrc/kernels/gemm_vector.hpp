// gemm_vector.hpp: matrix times vector, each element a sum in the order of T(K) with one fma a step (tree.hpp).
//
// Vectors lie along k where the matrix is contiguous there, and across outputs elsewhere. Long sums are cut between
// threads at powers of two of blocks, which are whole subtrees.
#pragma once
#include "loops.hpp"
#include "microkernel.hpp"
#include "tree.hpp"

namespace nl::NL_ISA {
namespace {

// Adds parts of `count` <= kMax sums in adjacent pairs, level by level, an odd one carried up: the one bits of `pushed`
// are the sizes of the complete subtrees on the stack. Works on whole vectors: what follows a part does not matter.
template <class T, int kMax>
struct PairSums {
  using V = typename Simd<T>::V;

  const int count;
  int64_t pushed = 0;
  T stack[48][kMax];

  explicit PairSums(int n) : count(n) {}

  void push(const T* part) {
    int depth = __builtin_popcountll(pushed);
    for (int i = 0; i < count; i += kWidth<T>) store(stack[depth] + i, load<V>(part + i));
    for (int64_t level = pushed++; level & 1; level >>= 1) fold(--depth);
  }

  // stack[depth] += stack[depth + 1], the later one on the right.
  void fold(int depth) {
    for (int i = 0; i < count; i += kWidth<T>) {
      store(stack[depth] + i, load<V>(stack[depth] + i) + load<V>(stack[depth + 1] + i));
    }
  }

  const T* finish() {
    for (int depth = __builtin_popcountll(pushed) - 1; depth > 0;) fold(--depth);
    return stack[0];
  }
};

// Sums of `depth` products: out[i] = sum over k of p[i * line_stride + k * step] * x[k], x contiguous.
template <class T>
struct VectorSums {
  static constexpr int W = kWidth<T>;
  static constexpr int kVecs = kLanes / W;
  static constexpr int kRows = kVecs <= 2 ? 4 : 2;        // rows side by side, to hide the latency of fma
  static constexpr int kColumns = 2048 / int(sizeof(T));  // long pieces of rows: 26 GB/s from memory, 20 with 512 bytes
  static constexpr int kAcross = 8;                       // vectors of columns side by side
  using V = typename Simd<T>::V;
  using Tree = TreeRow<Sum<T>>;

  const T* p;
  int64_t line_stride, step;
  const T* x;
  int64_t depth;

  bool across() const { return line_stride == 1 && step != 1; }

  void run(int64_t first, int64_t count, T* out) const {
    int width = across() ? kColumns : kRows;
    for (int64_t i = 0; i < count; i += width) {
      int n = int(min_of(width, count - i));
      const T* from = p + (first + i) * line_stride;
      if (across()) {
        columns(from, n, out + i);
      } else if (n == 1) {
        rows<1>(from, n, out + i);
      } else {
        rows<kRows>(from, n, out + i);
      }
    }
  }

  template <int R>
  void rows(const T* from, int count, T* out) const {
    const T* row[R];
    for (int r = 0; r < R; r++) row[r] = from + min_of(r, count - 1) * line_stride;
    PairSums<T, W> sums(R);
    for (int64_t k = 0; k < depth || k == 0; k += kBlock) {
      T part[W];
      row_block<R>(row, k, int(min_of(kBlock, depth - k)), part);
      sums.push(part);
    }
    const T* total = sums.finish();
    for (int r = 0; r < count; r++) out[r] = total[r];
  }

  template <int R>
  void row_block(const T* const* row, int64_t k, int count, T* part) const {
    typename Tree::Lanes lanes[R];
    for (int r = 0; r < R; r++) lanes[r] = Tree::fresh();
    int done = step == 1 ? count / kLanes * kLanes : 0;
    for (int i = 0; i < done; i += kLanes) {
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) add(lanes[r], row[r] + k + i, x + k + i);
    }
    for (int i = done; i < count; i += kLanes) add_gathered<R>(lanes, row, k + i, int(min_of(kLanes, count - i)));
    for (int r = 0; r < R; r++) part[r] = Tree::halve(lanes[r])[0];
  }

  static void add(typename Tree::Lanes& lanes, const T* a, const T* b) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; v++) lanes.v[v] = multiply_add(load<V>(a + v * W), load<V>(b + v * W), lanes.v[v]);
  }

  // A step of `count` elements that are not contiguous or not a full 32; lanes that get none add 0 * 0.
  template <int R>
  void add_gathered(typename Tree::Lanes* lanes, const T* const* row, int64_t k, int count) const {
    T a[kLanes] = {}, b[kLanes] = {};
    for (int i = 0; i < count; i++) b[i] = x[k + i];
    for (int r = 0; r < R; r++) {
      for (int i = 0; i < count; i++) a[i] = row[r][(k + i) * step];
      add(lanes[r], a, b);
    }
  }

  void columns(const T* from, int count, T* out) const {
    PairSums<T, kColumns> sums(count);
    T lanes[kLanes][kColumns];
    for (int64_t k = 0; k < depth || k == 0; k += kBlock) {
      column_block(from, count, k, int(min_of(kBlock, depth - k)), lanes);
      sums.push(lanes[0]);
    }
    const T* total = sums.finish();
    for (int i = 0; i < count; i++) out[i] = total[i];
  }

  void column_block(const T* from, int count, int64_t k, int rows, T (*lanes)[kColumns]) const {
    for (int lane = 0; lane < kLanes; lane++) {
      const T* row = from + (k + lane) * step;
      const T* factor = x + k + lane;
      int i = 0, steps = max_of(0, rows - lane + kLanes - 1) / kLanes;
      for (; i + kAcross * W <= count; i += kAcross * W) chain<kAcross>(row + i, factor, steps, lanes[lane] + i);
      for (; i + W <= count; i += W) chain<1>(row + i, factor, steps, lanes[lane] + i);
      for (; i < count; i++) lanes[lane][i] = chain_of_one(row + i, factor, steps);
    }
    for (int h = kLanes / 2; h > 0; h /= 2) {
      for (int l = 0; l < h; l++) {
        for (int i = 0; i < count; i += W) store(lanes[l] + i, load<V>(lanes[l] + i) + load<V>(lanes[l + h] + i));
      }
    }
  }

  // One lane of N vectors of columns: rows kLanes apart. Hardware does not foresee that order, so the rows of the next
  // lane are prefetched.
  template <int N>
  void chain(const T* row, const T* factor, int steps, T* lane) const {
    V sum[N] = {};
    for (int s = 0; s < steps; s++, row += kLanes * step) {
      V f = splat<V>(factor[s * kLanes]);
#pragma GCC unroll 16
      for (int v = 0; v < N; v++) {
        __builtin_prefetch(row + step + v * W);
        sum[v] = multiply_add(load<V>(row + v * W), f, sum[v]);
      }
    }
    for (int v = 0; v < N; v++) store(lane + v * W, sum[v]);
  }

  T chain_of_one(const T* row, const T* factor, int steps) const {
    V sum = {};
    for (int s = 0; s < steps; s++)
      sum = multiply_add(splat<V>(row[s * kLanes * step]), splat<V>(factor[s * kLanes]), sum);
    return sum[0];
  }
};

}  // namespace
}  // namespace nl::NL_ISA
