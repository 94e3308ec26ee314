// gemm_vector.hpp: matrix times vector, each element a sum in the order of T(K) with one fma a step (tree.hpp).
//
// Vectors lie along k where the matrix is contiguous there, and across outputs elsewhere. Long sums are cut between
// threads at powers of two of blocks, which are whole subtrees. A matrix of 16-bit floats is widened as it is read.
#pragma once
#include "gemm_stream.hpp"
#include "loops.hpp"
#include "microkernel.hpp"
#include "tree.hpp"

namespace nl::NL_ISA {
namespace {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// A vector of T from memory that holds T, or 16-bit floats.
template <class T>
NL_FN typename Simd<T>::V load_wide(const T* p) {
  return load<typename Simd<T>::V>(p);
}
NL_FN vf32 load_wide(const Float16* p) { return vf32_from_f16(LOAD(hu16, p)); }
NL_FN vf32 load_wide(const BFloat16* p) { return vf32_from_bf16(LOAD(hu16, p)); }

// Adds parts of `width` sums, whole vectors, in adjacent pairs, level by level, an odd one carried up: the one bits of
// `pushed` are the sizes of the complete subtrees on the stack.
template <class T>
struct PairSums {
  using V = typename Simd<T>::V;

  T* const stack;
  const int64_t width;
  int64_t pushed = 0;
  int depth = 0;

  // Elements of stack for that many parts.
  static int64_t stack_elements(int64_t parts, int64_t width) { return (65 - __builtin_clzll(parts)) * width; }

  // Where the next part is written before it is pushed.
  T* next() const { return stack + depth * width; }

  void push() {
    depth++;
    for (int64_t level = pushed++; level & 1; level >>= 1) fold();
  }

  // Adds the last part on the stack to the one before.
  void fold() {
    depth--;
    T *to = next() - width, *from = next();
    for (int64_t i = 0; i < width; i += kWidth<T>) store(to + i, load<V>(to + i) + load<V>(from + i));
  }

  const T* finish() {
    while (depth > 1) fold();
    return stack;
  }
};

// Sums of `depth` products: out[i] = sum over k of p[i * line_stride + k * step] * x[k], x contiguous. S is T or what
// is widened to it.
template <class T, class S>
struct VectorSums {
  static constexpr int W = kWidth<T>;
  static constexpr int kVecs = kLanes / W;
  static constexpr int kRows = kVecs <= 2 ? 4 : 2;                     // outputs side by side
  static constexpr int kSide = sizeof(S) == sizeof(T) ? 4 : kStreams;  // rows of a lane side by side
  static constexpr int64_t kColumns = 16384 / int(sizeof(T));  // across at most; shorter pieces are read more slowly
  static constexpr int kStretch = 4 * kLanes;                  // of one row that are read before the next
  using V = typename Simd<T>::V;
  using Tree = TreeRow<Sum<T>>;
  using Short = typename Tree::Short;

  const S* p;
  int64_t line_stride, step;
  const T* x;
  int64_t depth;
  const S* end = nullptr;  // of the rows that `run` reads

  // Vectors lie across outputs.
  bool across() const { return line_stride == 1 && step != 1; }

  void run(int64_t first, int64_t count, T* out) {
    const S* from = p + first * line_stride;
    if (across()) return columns(from, int(count), out);
    end = from + max_of(0, line_stride) * (count - 1) + depth;
    const int64_t apart = count / kRows;
    for (int64_t i = 0; i < apart; i++) rows<kRows>(from + i * line_stride, apart, out + i);
    for (int64_t i = kRows * apart; i < count; i++) rows<1>(from + i * line_stride, 0, out + i);
  }

  // R rows that lie `apart`: streams that hardware prefetches, each of which goes on with the next rows.
  template <int R>
  void rows(const S* from, int64_t apart, T* out) const {
    const S* row[R];
    for (int r = 0; r < R; r++) row[r] = from + r * apart * line_stride;
    Short total = row_sums<R>(row, 0, depth);
    for (int r = 0; r < R; r++) out[r * apart] = total[r];
  }

  // The sums of R rows from k on stay in one register: parts written one by one could not be read as a vector at once.
  template <int R>
  __attribute__((noinline)) Short row_sums(const S* const* row, int64_t k, int64_t n) const {
    constexpr int kParts = 32;
    if (n > kParts * kBlock) {
      int64_t left = left_part(n);
      Short first = row_sums<R>(row, k, left);
      return first + row_sums<R>(row, k + left, n - left);
    }
    Short part[kParts];
    int parts = 0;
    do {
      part[parts++] = row_block<R>(row, k, int(min_of(kBlock, n)));
      k += kBlock, n -= kBlock;
    } while (n > 0);
    for (int span = 1; span < parts; span *= 2) {
      for (int i = 0; i + span < parts; i += 2 * span) part[i] += part[i + span];
    }
    return part[0];
  }

  template <int R>
  __attribute__((always_inline)) Short row_block(const S* const* row, int64_t k, int count) const {
    typename Tree::Lanes lanes[R];
    for (int r = 0; r < R; r++) lanes[r] = Tree::fresh();
    int done = 0;
    if (step == 1) {
      for (; done + kStretch <= count; done += kStretch) add_steps<R, kStretch>(lanes, row, k + done);
      for (; done + kLanes <= count; done += kLanes) add_steps<R, kLanes>(lanes, row, k + done);
      if (done < count) add_ending<R>(lanes, row, k + done, count - done);
      done = count;
    }
    for (int i = done; i < count; i += kLanes) add_gathered<R>(lanes, row, k + i, int(min_of(kLanes, count - i)));
    Short sums = {};
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) sums[r] = Tree::halve(lanes[r])[0];
    return sums;
  }

  template <int R, int kCount>
  __attribute__((always_inline)) void add_steps(typename Tree::Lanes* lanes, const S* const* row, int64_t k) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 16
      for (int i = 0; i < kCount; i += kLanes) {
        add(lanes[r], row[r] + k + i, x + k + i);
      }
    }
  }

  static void add(typename Tree::Lanes& lanes, const S* a, const T* b) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; v++) lanes.v[v] = multiply_add(load_wide(a + v * W), load<V>(b + v * W), lanes.v[v]);
  }

  // Fewer than 32 elements: whole vectors, then a part of one. The other lanes get nothing: one that is -0, of a
  // product too small to be told from it, would become +0 by adding 0 * 0.
  template <int R>
  __attribute__((always_inline)) void add_ending(typename Tree::Lanes* lanes, const S* const* row, int64_t k,
                                                 int count) const {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; v++) {
      const int64_t at = k + v * W;
      const int left = count - v * W;
      if (left <= 0) return;
      if (left < W) {
        const auto mine = first_lanes<T>(left);
        const V b = load_first<V>(x + at, left);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
          const V next = multiply_add(ending(row[r] + at, left), b, lanes[r].v[v]);
          lanes[r].v[v] = mine ? next : lanes[r].v[v];
        }
        return;
      }
      const V b = load<V>(x + at);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) lanes[r].v[v] = multiply_add(load_wide(row[r] + at), b, lanes[r].v[v]);
    }
  }

  // A vector of which `count` elements are there: all of it is read where that can be, for pieces are waited for.
  V ending(const S* a, int count) const {
    if (a + W <= end) return load_wide(a);
    S rest[W] = {};
    copy_first<V>(a, rest, count);
    return load_wide((const S*)rest);
  }

  // A step of `count` elements that are not contiguous; the other lanes get nothing.
  template <int R>
  __attribute__((always_inline)) void add_gathered(typename Tree::Lanes* lanes, const S* const* row, int64_t k,
                                                   int count) const {
    S a[kLanes] = {};
    T b[kLanes] = {};
    for (int i = 0; i < count; i++) b[i] = x[k + i];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      for (int i = 0; i < count; i++) a[i] = row[r][(k + i) * step];
      const typename Tree::Lanes before = lanes[r];
      add(lanes[r], a, b);
      for (int v = 0; v < kVecs; v++) {
        lanes[r].v[v] = first_lanes<T>(count - v * W) ? lanes[r].v[v] : before.v[v];
      }
    }
  }

  // Where rows of columns lie, `step` apart, `width` >= W of which count.
  struct Rows {
    const S* data;
    int64_t step;
    int width;
  };

  void columns(const S* from, int count, T* out) const {
    const int64_t blocks = max_of(1, ceil_div(depth, kBlock)), pitch = whole_vectors<T>(count);
    const int64_t narrow = kBlock * W, lanes = kLanes * pitch;
    T* const scratch = (T*)nl_scratch(1, (narrow + lanes + PairSums<T>::stack_elements(blocks, pitch)) * sizeof(T));
    PairSums<T> sums = {scratch + narrow + lanes, pitch};
    for (int64_t k = 0; k < blocks * kBlock; k += kBlock) {
      const int stop = int(min_of(kBlock, depth - k));
      Rows rows = {from + k * step, step, count};
      if (count < W) rows = filled(rows, stop, (S*)scratch);
      add_block(rows, x + k, stop, scratch + narrow, pitch);
      for (int64_t i = 0; i < pitch; i += W) store(sums.next() + i, halved<1>(scratch + narrow + i, pitch));
      sums.push();
    }
    const T* total = sums.finish();
    for (int j = 0; j < count; j++) out[j] = total[sum_of_column<T>(j, int(max_of(count, W)))];
  }

  // A copy of rows shorter than a vector; what else its lanes hold is not used.
  static Rows filled(const Rows& rows, int count, S* buffer) {
    int k = 0;
    for (; rows.step > 0 && k * rows.step + W <= (count - 1) * rows.step + rows.width; k++) {
      __builtin_memcpy(buffer + k * W, rows.data + k * rows.step, W * sizeof(S));
    }
    for (; k < count; k++) {
      for (int j = 0; j < W; j++) buffer[k * W + j] = j < rows.width ? rows.data[k * rows.step + j] : S{};
    }
    return {buffer, W, W};
  }

  // The sums of a block's lanes, `pitch` apart. Of a lane's rows k, k + 32, … kSide are read side by side, then those
  // of the next lane: streams that hardware prefetches, each of 32 rows that follow each other.
  static void add_block(const Rows& rows, const T* factor, int stop, T* lanes, int64_t pitch) {
    for (int first = 0; first < max_of(stop, 1); first += kSide * kLanes) {
      for (int k = first; k < first + kLanes; k++, lanes += pitch) add_lane(rows, factor, k, stop, first > 0, lanes);
      lanes -= kLanes * pitch;
    }
  }

  // Rows k, k + 32, … below `stop`, kSide at most.
  static void add_lane(const Rows& rows, const T* factor, int k, int stop, bool add, T* sums) {
    if (k + (kSide - 1) * kLanes < stop) return add_rows<kSide>(rows, factor, k, add, sums);
    for (; k < stop; k += kLanes, add = true) add_rows<1>(rows, factor, k, add, sums);
    for (int i = 0; !add && i < rows.width; i += W) store(sums + i, V{});
  }

  // The sum of every kStep-th lane.
  template <int kStep>
  static __attribute__((always_inline)) V halved(const T* lanes, int64_t pitch) {
    if constexpr (kStep == kLanes) {
      return load<V>(lanes);
    } else {
      return halved<2 * kStep>(lanes, pitch) + halved<2 * kStep>(lanes + kStep * pitch, pitch);
    }
  }

  // Adds R rows, or begins with them. A last vector that is not whole lies further in front and is summed by itself.
  template <int R>
  static void add_rows(const Rows& rows, const T* factor, int k, bool add, T* sums) {
    V f[R];
    const S* row[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      f[r] = splat<V>(factor[k + r * kLanes]);
      row[r] = rows.data + (k + r * kLanes) * rows.step;
    }
    int i = 0;
    for (; i + 2 * W <= rows.width; i += 2 * W) add_vectors<R, 2>(row, i, f, add, sums + i);
    for (; i < rows.width; i += W) add_vectors<R, 1>(row, int(min_of(i, rows.width - W)), f, add, sums + i);
  }

  template <int R, int N>
  static __attribute__((always_inline)) void add_vectors(const S* const* row, int at, const V* factor, bool add,
                                                         T* sums) {
    V sum[N];
    for (int v = 0; v < N; v++) sum[v] = add ? load<V>(sums + v * W) : V{};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
      for (int v = 0; v < N; v++) sum[v] = multiply_add(factor[r], load_wide(row[r] + at + v * W), sum[v]);
    }
    for (int v = 0; v < N; v++) store(sums + v * W, sum[v]);
  }
};

}  // namespace
}  // namespace nl::NL_ISA
