// gemm_int8.cpp: the row int_mm: products of int8 matrices summed in int32, exactly (modulo 2^32).
//
// Both operands are packed as groups along k in 32-bit lanes, which one instruction multiplies and adds: two 16-bit
// integers, or, where the processor can, four bytes.
#include "loops.hpp"
#include "shuffle.hpp"
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kRows = 6;                           // of a tile
constexpr int kVecs = NL_VEC_BYTES == 64 ? 4 : 2;  // of a tile's columns: what the registers hold
constexpr int kColumns = kVecs * W4;               // of a panel
constexpr int64_t kGroups = 512;                   // along k at a time: a panel of b stays in L2, a tile's rows in L1
using Bytes = typename VecOf<int8_t, NL_VEC_BYTES>::V;
using HalfBytes = typename VecOf<int8_t, NL_VEC_BYTES / 2>::V;
using Shorts = typename VecOf<int16_t, NL_VEC_BYTES>::V;

// Pairs of 16-bit integers.
struct Pairs {
  static constexpr int kSize = 2;

  // A row's group of bytes, and a vector of them.
  static int left(const int8_t* k) { return int((unsigned(k[0]) & 0xffff) | unsigned(k[1]) << 16); }
  static Shorts lefts(const int8_t* k) { return CONVERT(Shorts, load<HalfBytes>(k)); }
  static int right(const int8_t* k) { return left(k); }
  // The groups of a vector of columns, whose rows are `step` apart.
  static void rights(const int8_t* from, int64_t step, int* to) {
    // In two steps: gcc widens by four element by element.
    vi32 low = CONVERT(vi32, CONVERT(hi16, LOAD(qi8, from))),
         high = CONVERT(vi32, CONVERT(hi16, LOAD(qi8, from + step)));
    store(to, (low & 0xffff) | high << 16);
  }
  static vi32 add(vi32 sum, vi32 left, vi32 right) { return sum + vi32_pairs(left, right); }
  // What sums begin with.
  static vi32 first(vi32) { return vi32{}; }
};

#if NL_VEC_BYTES == 64
// Four bytes. The instruction takes those of the left side as unsigned: they are 128 more than they ought to be, so
// sums begin with -128 times that of the right side.
struct Quads {
  static constexpr int kSize = 4;

  static int right(const int8_t* k) {
    int group;
    __builtin_memcpy(&group, k, sizeof group);
    return group;
  }
  static int left(const int8_t* k) { return right(k) ^ int(0x80808080); }
  static Bytes lefts(const int8_t* k) { return load<Bytes>(k) ^ splat<Bytes>(int8_t(-128)); }
  static void rights(const int8_t* from, int64_t step, int* to) {
    using Words = typename VecOf<int16_t, sizeof(qi8)>::V;
    const auto low = zip<qi8>(LOAD(qi8, from), LOAD(qi8, from + step));
    const auto high = zip<qi8>(LOAD(qi8, from + 2 * step), LOAD(qi8, from + 3 * step));
    const auto first = zip((Words)low.low, (Words)high.low), second = zip((Words)low.high, (Words)high.high);
    const Words groups[] = {first.low, first.high, second.low, second.high};
    __builtin_memcpy(to, groups, sizeof groups);
  }
  static vi32 add(vi32 sum, vi32 left, vi32 right) { return vi32_add_dots(sum, left, right); }
  static vi32 first(vi32 total) { return -128 * total; }
};
#endif

template <class Group>
struct Int8Product {
  static constexpr int kSize = Group::kSize;
  static constexpr int kOnes = kSize == 4 ? 0x01010101 : 0x00010001;

  int64_t m, n, k, a_row, a_step, b_step, b_column;
  const int8_t *a, *b;
  int32_t* c;
  const Epilogue* epilogue;

  explicit Int8Product(const Call& call)
      : m(call.in[0].shape[0]),
        n(call.in[1].shape[1]),
        k(call.in[0].shape[1]),
        a_row(call.in[0].strides[0]),
        a_step(call.in[0].strides[1]),
        b_step(call.in[1].strides[0]),
        b_column(call.in[1].strides[1]),
        a((const int8_t*)call.in[0].data),
        b((const int8_t*)call.in[1].data),
        c((int32_t*)call.out[0].data),
        epilogue(call.epilogue) {}

  void run() const {
    int64_t panels = ceil_div(n, kColumns),
            parts = min_of(ceil_div(4 * nl_num_threads(), panels), ceil_div(m, 8 * kRows));
    int64_t rows = ceil_div(ceil_div(m, parts), kRows) * kRows;
    auto units = [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; u++) {
        int64_t i = u / panels * rows, j = u % panels * kColumns;
        if (i < m) panel(i, min_of(i + rows, m), j, min_of(n - j, kColumns));
      }
    };
    parallel_for(panels * parts, grain_of(rows * kColumns * max_of(k / 4, 1)), units);
  }

  // Rows [begin, end) of `count` columns from j on.
  void panel(int64_t begin, int64_t end, int64_t j, int64_t count) const {
    auto* right = (int*)nl_scratch(0, kGroups * kColumns * sizeof(int));
    auto* left = (int*)nl_scratch(1, kRows * kGroups * sizeof(int));
    for (int64_t k0 = 0; k0 == 0 || k0 < k; k0 += kSize * kGroups) {
      if (k0 > 0) nl_check_interrupt();
      int64_t depth = min_of(k - k0, kSize * kGroups), groups = ceil_div(depth, kSize);
      vi32 first[kVecs];
      pack_right(k0, depth, j, count, right, first);
      for (int64_t i = begin; i < end; i += kRows) {
        int64_t rows = min_of(end - i, kRows);
        for (int64_t r = 0; r < rows; r++) pack_left(a + (i + r) * a_row + k0 * a_step, depth, left + r * kGroups);
        tile(left, right, groups, first, rows, count, c + i * n + j, k0 > 0);
      }
    }
    if (epilogue != nullptr) epilogue->fn(epilogue->ctx, 0, begin, end, j, j + count);
  }

  // A group of `depth` elements at most; those beyond are zeros.
  static void gather(const int8_t* from, int64_t step, int64_t depth, int8_t (&to)[kSize]) {
    for (int i = 0; i < kSize; i++) to[i] = i < depth ? from[i * step] : int8_t(0);
  }

  // One row of a, `depth` elements.
  void pack_left(const int8_t* from, int64_t depth, int* to) const {
    int64_t g = 0;
    if (a_step == 1) {
      for (; kSize * (g + W4) <= depth; g += W4) store(to + g, Group::lefts(from + kSize * g));
    }
    for (; kSize * g < depth; g++) {
      int8_t group[kSize];
      gather(from + kSize * g * a_step, a_step, depth - kSize * g, group);
      to[g] = Group::left(group);
    }
  }

  // `depth` rows of b from k0 on, and what the sums of its columns begin with; columns beyond `count` are zeros.
  void pack_right(int64_t k0, int64_t depth, int64_t j, int64_t count, int* to, vi32* first) const {
    const int8_t* from = b + k0 * b_step + j * b_column;
    vi32 total[kVecs] = {};
    for (int64_t d = 0; d < depth; d += kSize, from += kSize * b_step, to += kColumns) {
      int64_t q = 0;
      if (b_column == 1 && d + kSize <= depth) {
        for (; q + W4 <= count; q += W4) Group::rights(from + q, b_step, to + q);
      }
      for (; q < count; q++) to[q] = group_of(from + q * b_column, depth - d);
      for (; q < kColumns; q++) to[q] = 0;
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) total[v] = Group::add(total[v], SPLAT(vi32, kOnes), LOAD(vi32, to + v * W4));
    }
    for (int v = 0; v < kVecs; v++) first[v] = Group::first(total[v]);
  }

  // A column's group.
  int group_of(const int8_t* from, int64_t depth) const {
    if (b_step == 1 && depth >= kSize) return Group::right(from);
    int8_t group[kSize];
    gather(from, b_step, depth, group);
    return Group::right(group);
  }

  // kRows rows of a panel; those beyond `rows` compute what nobody reads.
  void tile(const int* left, const int* right, int64_t groups, const vi32* first, int64_t rows, int64_t count,
            int32_t* to, bool add) const {
    vi32 sum[kRows][kVecs];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) sum[r][v] = first[v];
    }
    for (int64_t g = 0; g < groups; g++) {
      vi32 column[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) column[v] = LOAD(vi32, right + g * kColumns + v * W4);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        vi32 row = SPLAT(vi32, left[r * kGroups + g]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; v++) sum[r][v] = Group::add(sum[r][v], row, column[v]);
      }
    }
    int32_t made[kRows][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) store(made[r] + v * W4, sum[r][v]);
    }
    for (int64_t r = 0; r < rows; r++, to += n) {
      int64_t j = 0;
      for (; j + W4 <= count; j += W4) {
        vi32 found = LOAD(vi32, made[r] + j);
        store(to + j, add ? LOAD(vi32, to + j) + found : found);
      }
      for (; j < count; j++) to[j] = made[r][j] + (add ? to[j] : 0);
    }
  }
};

}  // namespace

int int_mm(const Call& call) {
  if (call.out[0].shape[0] * call.out[0].shape[1] == 0) return kOk;
#if NL_VEC_BYTES == 64
  if (nl_has_byte_dots()) {
    Int8Product<Quads>(call).run();
    return kOk;
  }
#endif
  Int8Product<Pairs>(call).run();
  return kOk;
}

}  // namespace nl::NL_ISA
