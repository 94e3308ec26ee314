// gemm_int8.cpp: the row int_mm: products of int8 matrices summed in int32, exactly (modulo 2^32).
//
// Both operands are packed as pairs along k, two 16-bit integers in a 32-bit lane, which one instruction multiplies and
// adds: twice as many products an instruction as float32 has.
#include "loops.hpp"
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kRows = 6;                           // of a tile
constexpr int kVecs = NL_VEC_BYTES == 64 ? 4 : 2;  // of a tile's columns: what the registers hold
constexpr int kColumns = kVecs * W4;               // of a panel
constexpr int64_t kPairs = 512;                    // along k at a time: a panel of b stays in L2, a tile's rows in L1
using Pairs = typename VecOf<int16_t, NL_VEC_BYTES>::V;  // a register of pairs
using Bytes = typename VecOf<int8_t, NL_VEC_BYTES / 2>::V;

inline int pair(int low, int high) { return int((unsigned(low) & 0xffff) | unsigned(high) << 16); }

struct Int8Product {
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
    auto units = [=, this](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; u++) {
        int64_t i = u / panels * rows, j = u % panels * kColumns;
        if (i < m) panel(i, min_of(i + rows, m), j, min_of(n - j, kColumns));
      }
    };
    parallel_for(panels * parts, grain_of(rows * kColumns * max_of(k / 4, 1)), units);
  }

  // Rows [begin, end) of `count` columns from j on.
  void panel(int64_t begin, int64_t end, int64_t j, int64_t count) const {
    auto* right = (int*)nl_scratch(0, kPairs * kColumns * sizeof(int));
    auto* left = (int*)nl_scratch(1, kRows * kPairs * sizeof(int));
    for (int64_t k0 = 0; k0 == 0 || k0 < k; k0 += 2 * kPairs) {
      if (k0 > 0) nl_check_interrupt();
      int64_t depth = min_of(k - k0, 2 * kPairs), pairs = (depth + 1) / 2;
      pack_right(k0, depth, j, count, right);
      for (int64_t i = begin; i < end; i += kRows) {
        int64_t rows = min_of(end - i, kRows);
        for (int64_t r = 0; r < rows; r++) pack_left(a + (i + r) * a_row + k0 * a_step, depth, left + r * kPairs);
        tile(left, right, pairs, rows, count, c + i * n + j, k0 > 0);
      }
    }
    if (epilogue != nullptr) epilogue->fn(epilogue->ctx, 0, begin, end, j, j + count);
  }

  // One row of a, `depth` elements.
  void pack_left(const int8_t* from, int64_t depth, int* to) const {
    int64_t p = 0;
    if (a_step == 1) {
      for (; 2 * (p + W4) <= depth; p += W4) store(to + p, CONVERT(Pairs, load<Bytes>(from + 2 * p)));
    }
    for (; 2 * p < depth; p++) {
      to[p] = pair(from[2 * p * a_step], 2 * p + 1 < depth ? from[(2 * p + 1) * a_step] : 0);
    }
  }

  // `depth` rows of b from k0 on; columns beyond `count` are zeros.
  void pack_right(int64_t k0, int64_t depth, int64_t j, int64_t count, int* to) const {
    const int8_t* from = b + k0 * b_step + j * b_column;
    for (int64_t p = 0; 2 * p < depth; p++, from += 2 * b_step) {
      const int8_t* next = 2 * p + 1 < depth ? from + b_step : nullptr;
      int64_t q = 0;
      if (b_column == 1 && next != nullptr) {
        for (; q + W4 <= count; q += W4) {
          vi32 low = CONVERT(vi32, LOAD(qi8, from + q)), high = CONVERT(vi32, LOAD(qi8, next + q));
          store(to + p * kColumns + q, (low & 0xffff) | high << 16);
        }
      }
      for (; q < count; q++) {
        to[p * kColumns + q] = pair(from[q * b_column], next != nullptr ? next[q * b_column] : 0);
      }
      for (; q < kColumns; q++) to[p * kColumns + q] = 0;
    }
  }

  // kRows rows of a panel; those beyond `rows` compute what nobody reads.
  void tile(const int* left, const int* right, int64_t pairs, int64_t rows, int64_t count, int32_t* to,
            bool add) const {
    vi32 sum[kRows][kVecs] = {};
    for (int64_t p = 0; p < pairs; p++) {
      vi32 column[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) column[v] = LOAD(vi32, right + p * kColumns + v * W4);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        vi32 row = SPLAT(vi32, left[r * kPairs + p]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; v++) sum[r][v] += vi32_pairs(row, column[v]);
      }
    }
    int32_t made[kRows][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) store(made[r] + v * W4, sum[r][v]);
    }
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t j = 0; j < count; j++) to[r * n + j] = made[r][j] + (add ? to[r * n + j] : 0);
    }
  }
};

}  // namespace

int int_mm(const Call& call) {
  if (call.out[0].shape[0] * call.out[0].shape[1] > 0) Int8Product(call).run();
  return kOk;
}

}  // namespace nl::NL_ISA
