// tree_columns.hpp: T(n) (tree.hpp) down columns.
#pragma once
#include "tree.hpp"

namespace nl::NL_ISA {
namespace {

// T(n) down columns: vectors lie across the reduced axis. A row of results is an array of kTile lanes. What is added up
// may be a function of the elements, term(vector, column), of rows that are not taken as adjacent.
//
// Rows that follow each other in memory are taken 32 at a time: such a group is one long row, in which every element
// has a lane of its own. Rows that lie apart, in tiles of columns that stay in the L1 cache, are taken lane by lane.
// Either way up to 16 rows are read side by side, as streams that hardware prefetches: twice as fast as row after row
// into 32 accumulators. Blocks of few rows stay in registers until they are halved.
template <class M>
struct TreeColumns {
  using In = typename M::In;
  using Lane = typename M::Lane;
  using V = typename Simd<Lane>::V;
  static constexpr int kWidth = Simd<Lane>::kWidth;
  static constexpr int kTile = 4096 / sizeof(Lane);
  static constexpr int kRows = kBlock / kLanes;  // rows in a lane of a full block
  static constexpr int kSide = kFewRows / kLanes;
  typedef In InV __attribute__((vector_size(kWidth * sizeof(In))));

  struct Shape {
    int64_t step, stride;  // from row to row, from column to column
    int columns;           // at least kWidth, unless the rows are adjacent

    bool adjacent() const { return stride == 1 && step == columns; }
  };

  // a = combine(a, b); runs over the padding too, which no one reads.
  static void merge(Lane* a, const Lane* b, int64_t columns) {
    for (int64_t c = 0; c < columns; c += kWidth) store(a + c, M::combine(load<V>(a + c), load<V>(b + c)));
  }

  struct Element {
    InV operator()(InV v, int) const { return v; }
  };

  // f(column) at vectors aligned in memory: of 16 streams that lie a power of two apart, lines needed twice would be
  // evicted in between. The first and the last vector are moved inside the columns instead, if there is room.
  template <class F>
  __attribute__((always_inline)) static void for_lines(const In* p, int columns, const F& f) {
    const int skew = columns < kWidth ? 0 : int((uint64_t)p / sizeof(In) % kWidth);
    for (int c = -skew; c < columns; c += kWidth) f(max_of(0, min_of(c, columns - kWidth)));
  }

  // Combines `rows` rows serially.
  template <class Term = Element>
  static void chain(const In* p, int64_t step, int rows, int columns, Lane* result, const Term& term = Term()) {
    for_lines(p, columns, [&](int at) {
      V lane = splat<V>(M::identity);
      if (rows == kRows) {
#pragma GCC unroll 16
        for (int i = 0; i < kRows; i++) lane = M::combine(lane, M::lift(term(load<InV>(p + i * step + at), at)));
      } else {
        for (int i = 0; i < rows; i++) lane = M::combine(lane, M::lift(term(load<InV>(p + i * step + at), at)));
      }
      store(result + at, lane);
    });
  }

  // result = combine(result, p) for n contiguous elements.
  static void add(const In* p, int64_t n, Lane* result) {
    int64_t i = 0;
    for (; i + kWidth <= n; i += kWidth) store(result + i, M::combine(load<V>(result + i), M::lift(load<InV>(p + i))));
    if (i == n) return;
    In rest[kWidth] = {};
    __builtin_memcpy(rest, p + i, (n - i) * sizeof(In));
    V last = M::combine(load<V>(result + i), M::lift(load<InV>(rest)));
    __builtin_memcpy(result + i, &last, (n - i) * sizeof(Lane));
  }

  // A block of `count` adjacent rows.
  static void group(const In* p, int columns, int count, Lane* result) {
    alignas(64) Lane lanes[kLanes * kTile + kWidth];
    int size = kLanes * columns, rows = count / kLanes;
    chain(p, size, rows, size, lanes);
    add(p + rows * size, count % kLanes * columns, lanes);
    for (int half = size / 2; half >= columns; half /= 2) merge(lanes, lanes + half, half);
    __builtin_memcpy(result, lanes, columns * sizeof(Lane));
  }

  // Lane `l` of a block of `count` rows: rows l, l + 32, … .
  template <class Term>
  static void lane(const In* p, Shape s, int l, int count, Lane* result, const Term& term) {
    int rows = (count - l + kLanes - 1) / kLanes;
    if (s.stride == 1) return chain(p + l * s.step, kLanes * s.step, rows, s.columns, result, term);
    In panel[kRows * kTile];
    for (int i = 0; i < rows; i++) {
      for (int c = 0; c < s.columns; c++) panel[i * kTile + c] = p[(l + i * kLanes) * s.step + c * s.stride];
    }
    chain(panel, kTile, rows, s.columns, result, term);
  }

  // The lanes l, l + kApart, … of a vector of columns, halved; a lane has up to kMost rows. Lanes beyond the count hold
  // the identity and are left out.
  template <int kApart, int kMost, class Term>
  __attribute__((always_inline)) static V lanes_of_vector(const In* p, int64_t step, int l, int count,
                                                          const Term& term) {
    if constexpr (kApart < kLanes) {
      const V a = lanes_of_vector<2 * kApart, kMost>(p, step, l, count, term);
      if (l + kApart >= count) return a;
      return M::combine(a, lanes_of_vector<2 * kApart, kMost>(p, step, l + kApart, count, term));
    } else {
      V lane = M::combine(splat<V>(M::identity), M::lift(term(p + l * step)));
      if constexpr (kMost > 1) {
        for (int i = l + kLanes; i < count; i += kLanes) lane = M::combine(lane, M::lift(term(p + i * step)));
      }
      return lane;
    }
  }

  // The same of all columns, for blocks of few rows: nothing is kept between the halvings.
  template <int kApart, int kMost, class Term>
  __attribute__((noinline)) static void few_rows(const In* p, Shape s, int l, int count, Lane* result,
                                                 const Term& term) {
    for_lines(p, s.columns, [&](int at) {
      auto term_at = [&](const In* q) { return term(load<InV>(q), at); };
      store(result + at, lanes_of_vector<kApart, kMost>(p + at, s.step, l, count, term_at));
    });
  }

  // The same of a vector of columns.
  __attribute__((always_inline)) static V vector_of_few(const In* p, int64_t step, int n) {
    const auto element = [](const In* q) { return load<InV>(q); };
    if (n <= kLanes) return lanes_of_vector<1, 1>(p, step, 0, n, element);
    return lanes_of_vector<1, kSide>(p, step, 0, n, element);
  }

  // Results of columns by the plain form, as `few` gives them. False where a sum is a NaN: they may be wrong.
  template <class F>
  __attribute__((always_inline)) static bool plainly(const In* p, int64_t step, int n, int columns, const F& finish) {
    using Plain = typename M::Plain;
    using Bits = typename Simd<Mask<In>>::V;
    InV sums = {};
    for_lines(p, columns, [&](int at) {
      InV best = load<InV>(p + at), sum = best;
      Bits signs = (Bits)best;
      for (int i = 1; i < n; i++) {
        const InV next = in_register(load<InV>(p + i * step + at));
        best = Plain::combine(best, next), sum = sum + next, signs = Plain::signs(signs, (Bits)next);
      }
      sums = sums + sum;
      finish(at, min_of(columns, kWidth), Plain::with_sign(best, signs));
    });
    return !any_lane(sums != sums);
  }

  // T(n) of 1 to kFewRows rows, of any number of columns: finish(first, count, results) gets a vector of them at a
  // time, possibly twice. `end` is where readable memory ends; it is asked for by columns that do not fill a vector.
  template <class F>
  __attribute__((always_inline)) static void few(const In* p, int64_t step, int n, int columns, const In* end,
                                                 const F& finish) {
    In copy[kFewRows * kWidth];
    if (columns < kWidth && end - (p + max_of(0, (n - 1) * step)) < kWidth) {
      __builtin_memset(copy, 0, n * kWidth * sizeof(In));
      for (int i = 0; i < n; i++) __builtin_memcpy(copy + i * kWidth, p + i * step, columns * sizeof(In));
      p = copy, step = kWidth;
    }
    if constexpr (TreeRow<M>::kPlain) {
      if (plainly(p, step, n, columns, finish)) return;
    }
    for_lines(p, columns,
              [&](int at) { finish(at, min_of(columns, kWidth), M::results(vector_of_few(p + at, step, n))); });
  }

  // Lane `l` after halving to `lanes` lanes.
  template <class Term>
  __attribute__((noinline)) static void halve(const In* p, Shape s, int l, int lanes, int count, Lane* result,
                                              const Term& term) {
    if (s.stride == 1 && count > 0) {
      if (count <= kLanes) return few_rows<1, 1>(p, s, l, count, result, term);
      if (count <= kFewRows && lanes == kSide) return few_rows<kSide, kSide>(p, s, l, count, result, term);
    }
    if (lanes == kLanes) return lane(p, s, l, count, result, term);
    halve(p, s, l, 2 * lanes, count, result, term);
    if (l + lanes >= count) return;
    alignas(64) Lane other[kTile];
    halve(p, s, l + lanes, 2 * lanes, count, other, term);
    merge(result, other, s.columns);
  }

  // T(n) of n rows.
  __attribute__((noinline)) static void run(const In* p, Shape s, int64_t n, Lane* result) {
    if (!s.adjacent()) return of_terms(p, s, n, result, Element());
    if (n <= kBlock) return group(p, s.columns, int(n), result);
    int64_t left = left_part(n, s.columns);
    alignas(64) Lane other[kTile];
    run(p, s, left, result);
    run(p + left * s.step, s, n - left, other);
    merge(result, other, s.columns);
  }

  template <class Term>
  static void of_terms(const In* p, Shape s, int64_t n, Lane* result, const Term& term) {
    if (n <= kBlock) return halve(p, s, 0, 1, int(n), result, term);
    int64_t left = left_part(n, s.columns);
    alignas(64) Lane other[kTile];
    of_terms(p, s, left, result, term);
    of_terms(p + left * s.step, s, n - left, other, term);
    merge(result, other, s.columns);
  }
};

}  // namespace
}  // namespace nl::NL_ISA
