// tree.hpp: T(n), the one order in which the n elements of a reduction are combined, at any vector width.
//
// Blocks of 512; in a block element i goes to lane i mod 32 and each lane combines serially from the identity; lanes
// are halved 32, 16, 8, 4, 2, 1; blocks are combined in adjacent pairs, level by level, an odd one carried up. The
// order depends on n only, so strides, threads and ISA levels give the same bits.
//
// How two are combined says a monoid (monoids.hpp). A lane that got no element holds the identity, which changes no
// bit: sums of elements start from +0, so no lane is ever -0.
#pragma once
#include "monoids.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kBlock = 512;
constexpr int kFewRows = 4 * kLanes;  // whose columns are halved in registers

// Where T(n) divides n elements in two, in each of some columns: the largest power of two of blocks below n. Who goes
// through long parts lets signals be seen.
inline int64_t left_part(int64_t n, int64_t columns = 1) {
  int64_t size = kBlock;
  while (2 * size < n) size *= 2;
  if (size * columns >= kGrain) nl_check_interrupt();
  return size;
}

// body(i, count) for the blocks of n elements, from the i-th on.
template <class F>
void for_blocks(int64_t n, const F& body) {
  for (int64_t i = 0; i < n; i += kBlock) {
    if (i % kGrain == kGrain - kBlock) nl_check_interrupt();
    body(i, min_of(kBlock, n - i));
  }
}

constexpr int64_t whole_steps(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// n elements `stride` apart, handed out in contiguous blocks. Whole steps of a block may be read: what lies beyond the
// count is never used, but must be memory, so a block that would end beyond `end` is copied.
template <class T>
struct Strided {
  const T* data;
  int64_t stride;
  const T* end;

  const T* operator()(int64_t i, int64_t count, T* buffer) const {
    const T* p = data + i * stride;
    if (stride == 1 && end - p >= whole_steps(count)) return p;
    for (int64_t k = 0; k < count; k++) buffer[k] = p[k * stride];
    return buffer;
  }

  // The same for who reads whole vectors inside the count, unless that is shorter than one.
  const T* vectors(int64_t i, int64_t count, T* buffer) const {
    return stride == 1 && count >= Simd<T>::kWidth ? data + i : (*this)(i, count, buffer);
  }
};

// T(n) along a row: vectors lie along the reduced axis. A source gives the elements: source(i, count, buffer) returns
// where `count` <= 512 elements from the i-th on lie, contiguous, in whole steps; it may use the buffer of a block.
// What is added up may be a function of them, term(vector, p, i) of those at p, the i-th on.
template <class M>
struct TreeRow {
  using In = typename M::In;
  using Lane = typename M::Lane;
  using V = typename Simd<Lane>::V;
  static constexpr int kWidth = Simd<Lane>::kWidth;
  static constexpr int kVecs = kLanes / kWidth;
  typedef In InV __attribute__((vector_size(kWidth * sizeof(In))));
  using Short = typename VecOf<Lane, 16>::V;                              // a partial result, in lane 0
  static constexpr bool kSeveral = sizeof(Lane) >= 4;                     // whether several rows may be halved at once
  static constexpr bool kPlain = kSeveral && kIsExtreme<M>;               // a form that serves most short rows
  static constexpr int kColumns = kSeveral && sizeof(InV) >= 16 ? 8 : 0;  // most elements of rows that become columns

  struct Lanes {
    V v[kVecs];
  };

  static Lanes fresh() {
    Lanes lanes;
    for (int i = 0; i < kVecs; i++) lanes.v[i] = splat<V>(M::identity);
    return lanes;
  }

  struct Element {
    InV operator()(InV v, const In*, int64_t) const { return v; }
  };

  template <class Term>
  static void step(Lanes& lanes, const In* p, int64_t at, const Term& term) {
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; i++) {
      const In* q = p + i * kWidth;
      lanes.v[i] = M::combine(lanes.v[i], M::lift(term(load<InV>(q), q, at + i * kWidth)));
    }
  }

  // The last step of a block of rows of n elements: how many there are, and which lanes they fill.
  struct Rest {
    int count;
    typename Simd<Mask<Lane>>::V exists[kVecs];

    explicit Rest(int64_t n) : count(int(n % kLanes)) {
      for (int i = 0; i < kVecs; i++) {
        const int left = count - i * kWidth;
        exists[i] = first_lanes<Lane>(left < 0 ? 0 : left > kWidth ? kWidth : left);
      }
    }
  };

  // The last step of a block; reads 32 elements. Compilers mask its loads, and masked loads train no prefetcher: to
  // prefetch here makes rows of 28 five times faster.
  template <class Term>
  static void last_step(Lanes& lanes, const In* p, const Rest& rest, int64_t at, const Term& term) {
    __builtin_prefetch(p + kBlock);
#pragma GCC unroll 16
    for (int i = 0; i < kVecs; i++) {
      const In* q = p + i * kWidth;
      V next = M::combine(lanes.v[i], M::lift(term(load<InV>(q), q, at + i * kWidth)));
      lanes.v[i] = rest.exists[i] ? next : lanes.v[i];
    }
  }

  // The lanes of a block halved to one vector.
  static V one_vector(Lanes lanes) {
#pragma GCC unroll 16
    for (int h = kVecs / 2; h > 0; h /= 2) {
#pragma GCC unroll 16
      for (int i = 0; i < h; i++) lanes.v[i] = M::combine(lanes.v[i], lanes.v[i + h]);
    }
    return lanes.v[0];
  }

  static Short halve(const Lanes& lanes) { return fold(narrow<16>(one_vector(lanes))); }

  // Halves a vector until `bytes` are left.
  template <int bytes, class W>
  static auto narrow(W v) {
    if constexpr (sizeof(W) <= bytes) {
      return v;
    } else {
      typename VecOf<Lane, sizeof(W) / 2>::V half[2];
      __builtin_memcpy(half, &v, sizeof v);
      return narrow<bytes>(M::combine(half[0], half[1]));
    }
  }

  // Halves R vectors, a power of two up to kWidth: the result of vector r in lane r. One after another would wait for
  // its halvings; here a halving joins two vectors to one. Lanes that meet are always those of T(n); where they meet is
  // chosen so that only 128 bits as a whole, or elements inside them, move: half of what other shuffles cost.
  template <int R, class W>
  static auto halve_several(W (&rows)[R]) {
    constexpr int kInQuad = 16 / sizeof(Lane);
    if constexpr (R == 1) {
      return fold(narrow<16>(rows[0]));
    } else if constexpr (sizeof(W) > 16 && R * sizeof(Lane) < sizeof(W)) {
      typename VecOf<Lane, sizeof(W) / 2>::V halves[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) halves[r] = narrow<sizeof(W) / 2>(rows[r]);
      return halve_several<R>(halves);
    } else if constexpr (R < kInQuad) {
      return fold_once(joined(zip_quads(rows[0], rows[1])));
    } else if constexpr (kInQuad == 2) {
      return joined(zip_pairs(to_quads(rows, 0), to_quads(rows, 1)));
    } else {
      const W a = joined(zip_quads(to_quads(rows, 0), to_quads(rows, 1)));
      const W b = joined(zip_quads(to_quads(rows, 2), to_quads(rows, 3)));
      return joined(zip_pairs(a, b));
    }
  }

  template <class W>
  static W joined(const Zipped<W>& halves) {
    return M::combine(halves.low, halves.high);
  }

  // Rows j, j + L, … halved to 128 bits each, side by side; L lanes have 128 bits.
  template <class W, int R>
  static W to_quads(const W (&rows)[R], int j) {
    constexpr int L = 16 / sizeof(Lane);
    if constexpr (sizeof(W) == 16) return rows[j];
    if constexpr (sizeof(W) == 32) return joined(part_quads(rows[j], rows[j + L]));
    if constexpr (sizeof(W) == 64) {
      return joined(
          part_quads(joined(part_halves(rows[j], rows[j + L])), joined(part_halves(rows[j + 2 * L], rows[j + 3 * L]))));
    }
  }

  // Halves the lanes of the last 16 bytes once.
  static Short fold_once(Short v) {
    typedef char Bytes __attribute__((vector_size(16)));
    const Bytes b = (Bytes)v;
    return M::combine(v, (Short)__builtin_shufflevector(b, b, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  }

  // Halves the lanes of the last 16 bytes; lane 0 is the result.
  static Short fold(Short v) {
    typedef char Bytes __attribute__((vector_size(16)));
    v = fold_once(v);
    Bytes b = (Bytes)v;
    if constexpr (sizeof(Lane) <= 4) {
      b = (Bytes)v;
      v = M::combine(v, (Short)__builtin_shufflevector(b, b, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    }
    if constexpr (sizeof(Lane) == 1) {
      b = (Bytes)v;
      v = M::combine(v, (Short)__builtin_shufflevector(b, b, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
      b = (Bytes)v;
      v = M::combine(v, (Short)__builtin_shufflevector(b, b, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    }
    return v;
  }

  // The lanes of one block of `count` <= 512 contiguous elements, the `at`-th on.
  template <class Term = Element>
  static Lanes steps(const In* p, int64_t count, int64_t at = 0, const Term& term = Term()) {
    return steps(p, count, Rest(count), at, term);
  }
  template <class Term>
  static Lanes steps(const In* p, int64_t count, const Rest& rest, int64_t at, const Term& term) {
    Lanes lanes = fresh();
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) step(lanes, p + i, at + i, term);
    if (rest.count) last_step(lanes, p + i, rest, at + i, term);
    return lanes;
  }

  static Short block(const In* p, int64_t count) { return halve(steps(p, count)); }

  // T(n) of R rows of n <= 512 contiguous elements in whole steps, the result of row r in lane r.
  template <int R = kWidth, class RowAt, class TermAt>
  static auto several(const RowAt& row_at, int64_t n, const TermAt& term_at) {
    const Rest rest(n);
    V rows[R];
    for (int r = 0; r < R; r++) rows[r] = one_vector(steps(row_at(r), n, rest, 0, term_at(r)));
    return halve_several<R>(rows);
  }

  template <class RowAt>
  static V several(const RowAt& row_at, int64_t n) {
    if constexpr (kColumns > 0) {
      if (n <= kColumns / 2) return of_columns<kColumns / 2>(row_at, n);
      if (n <= kColumns) return of_columns<kColumns>(row_at, n);
    }
    if constexpr (kPlain) {
      InV found;
      if (plainly(row_at, n, found) && !(kIsFloat<In> && any_lane(found == In(0)))) return M::lift(found);
    }
    return several(row_at, n, [](int) { return Element(); });
  }

  // The same of rows of up to kCount elements, whose lanes of T(n) are vectors across the rows.
  template <int kCount, class RowAt>
  static V of_columns(const RowAt& row_at, int64_t n) {
    InV columns[kCount];
    load_columns(row_at, columns);
    V lanes[kCount];
#pragma GCC unroll 8
    for (int k = 0; k < kCount; k++) lanes[k] = M::combine(splat<V>(M::identity), M::lift(columns[k]));
#pragma GCC unroll 4
    for (int h = kCount / 2; h > 0; h /= 2) {
#pragma GCC unroll 4
      for (int k = 0; k < h; k++) {
        if (k + h < n) lanes[k] = M::combine(lanes[k], lanes[k + h]);
      }
    }
    return lanes[0];
  }

  // By the plain form: in lane r the result of row r, a zero of either sign. Nothing (false) of less than a vector's
  // elements, and where a sum is a NaN: where an element is one, or there are infinities of both signs.
  template <class RowAt>
  static bool plainly(const RowAt& row_at, int64_t n, InV& found) {
    if (n < kWidth) return false;
    InV rows[kWidth], sums = {};
#pragma GCC unroll 16
    for (int r = 0; r < kWidth; r++) {
      const In* row = row_at(r);
      InV best = load<InV>(row + n - kWidth), sum = best;  // what is taken twice changes nothing
      for (int64_t k = 0; k + kWidth <= n; k += kWidth) {
        const InV next = in_register(load<InV>(row + k));
        best = M::Plain::combine(best, next);
        if (kIsFloat<In>) sum = sum + next;
      }
      rows[r] = best, sums = sums + sum;
    }
    found = TreeRow<typename M::Plain>::template halve_several<kWidth>(rows);
    return !any_lane(sums != sums);
  }

  // An element, which asks for what lies some elements behind it.
  struct Asking {
    int64_t ahead;

    InV operator()(InV v, const In* p, int64_t) const {
      __builtin_prefetch(p + ahead);
      return v;
    }
  };

  // How far behind each of several short rows memory is asked for: a group, and 16 KiB at least, for short ones are
  // done before it is there (rows of 56 took 1.6 times as long from L3).
  static int64_t ahead(int64_t n) { return max_of(kWidth * n, (16 << 10) / (int64_t)sizeof(In)); }

  // With every vector: asked for all at once, rows would wait for it. Hardware follows the loads of a plain form.
  template <class RowAt>
  static V several_asking(const RowAt& row_at, int64_t n) {
    if (kPlain || n <= kColumns) return several(row_at, n);
    return several(row_at, n, [n](int) { return Asking{ahead(n)}; });
  }

  // T(n) of terms of R rows of any length, in whole steps; the result of row r in lane r.
  template <int R, class TermAt>
  static auto long_ones(const In* const (&row)[R], int64_t begin, int64_t n, const TermAt& term_at)
      -> decltype(halve_several<R>(*(V (*)[R]) nullptr)) {
    if (n > kBlock) {
      const int64_t left = left_part(n, R);
      const auto first = long_ones<R>(row, begin, left, term_at);
      return M::combine(first, long_ones<R>(row, begin + left, n - left, term_at));
    }
    V rows[R];
    for (int r = 0; r < R; r++) rows[r] = one_vector(steps(row[r] + begin, n, begin, term_at(r)));
    return halve_several<R>(rows);
  }

  // Two results, of one reading of the elements by two terms.
  template <class Result>
  struct Both {
    Result a, b;
  };

  // The lanes of a block by two terms, halved to a vector each.
  template <class A, class B>
  __attribute__((always_inline)) static Both<V> both_steps(const In* p, int64_t count, const Rest& rest, int64_t at,
                                                           const A& a, const B& b) {
    Lanes of_a = fresh(), of_b = fresh();
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) step(of_a, p + i, at + i, a), step(of_b, p + i, at + i, b);
    if (rest.count) last_step(of_a, p + i, rest, at + i, a), last_step(of_b, p + i, rest, at + i, b);
    return {one_vector(of_a), one_vector(of_b)};
  }

  // T(n) of both terms of R rows of n <= 512 contiguous elements in whole steps, the `at`-th of theirs on; the results
  // of row r in lane r.
  template <int R, class RowAt, class AAt, class BAt>
  __attribute__((always_inline)) static auto both_of_blocks(const RowAt& row_at, int64_t n, int64_t at, const AAt& a_at,
                                                            const BAt& b_at) {
    const Rest rest(n);
    V of_a[R], of_b[R];
    for (int r = 0; r < R; r++) {
      const Both<V> both = both_steps(row_at(r), n, rest, at, a_at(r), b_at(r));
      of_a[r] = both.a, of_b[r] = both.b;
    }
    const auto a = halve_several<R>(of_a), b = halve_several<R>(of_b);
    return Both<decltype(halve_several<R>(of_a))>{a, b};
  }

  // The same of rows of any length.
  template <int R, class AAt, class BAt>
  static auto both_of(const In* const (&row)[R], int64_t begin, int64_t n, const AAt& a_at, const BAt& b_at)
      -> Both<decltype(halve_several<R>(*(V (*)[R]) nullptr))> {
    if (n <= kBlock) return both_of_blocks<R>([&](int r) { return row[r] + begin; }, n, begin, a_at, b_at);
    const int64_t left = left_part(n, R);
    const auto first = both_of<R>(row, begin, left, a_at, b_at);
    const auto second = both_of<R>(row, begin + left, n - left, a_at, b_at);
    return {M::combine(first.a, second.a), M::combine(first.b, second.b)};
  }

  // The same of the elements that a source gives.
  template <class Source, class A, class B>
  __attribute__((noinline)) static Both<Short> both(const Source& source, int64_t begin, int64_t n, const A& a,
                                                    const B& b) {
    if (n <= kBlock) {
      alignas(64) In buffer[kBlock];
      const Both<V> lanes = both_steps(source(begin, n, buffer), n, Rest(n), begin, a, b);
      return {fold(narrow<16>(lanes.a)), fold(narrow<16>(lanes.b))};
    }
    const int64_t left = left_part(n);
    const Both<Short> first = both(source, begin, left, a, b), second = both(source, begin + left, n - left, a, b);
    return {M::combine(first.a, second.a), M::combine(first.b, second.b)};
  }

  // The lanes of two full blocks, read side by side.
  static void two_blocks(const In* p, const In* q, V& of_p, V& of_q) {
    Lanes a = fresh(), b = fresh();
    for (int i = 0; i < kBlock; i += kLanes) {
      step(a, p + i, i, Element());
      step(b, q + i, i, Element());
    }
    of_p = one_vector(a), of_q = one_vector(b);
  }

  struct Pair {
    Short p, q;
  };

  // A stretch is a power of two of full blocks.
  static constexpr int kHalf = max_of(kWidth / 2, 1), kMostBlocks = 512;
  static bool has_stretches(int64_t n) { return kSeveral && n >= kHalf * kBlock; }
  static bool is_stretch(int64_t n) { return has_stretches(n) && n <= kMostBlocks * kBlock && (n & (n - 1)) == 0; }

  // T(n) of two stretches: two streams that hardware prefetches, and no branches that depend on where a block lies in
  // the tree. One block after another, each halved alone, took 1.15 times as long from memory, from L3 1.5 times.
  __attribute__((noinline)) static Pair stretches(const In* p, const In* q, int64_t n) {
    const int blocks = int(n / kBlock);
    alignas(64) Lane of_p[kMostBlocks + 2 * kWidth], of_q[kMostBlocks + 2 * kWidth];
    int b = 0;
    do {
      V rows[kWidth];
      for (int i = 0; i < kHalf; i++) two_blocks(p + i * kBlock, q + i * kBlock, rows[i], rows[i + kHalf]);
      const V both = halve_several<kWidth>(rows);
      __builtin_memcpy(of_p + b, &both, kHalf * sizeof(Lane));
      __builtin_memcpy(of_q + b, (const Lane*)&both + kHalf, kHalf * sizeof(Lane));
      b += kHalf, p += kHalf * kBlock, q += kHalf * kBlock;
    } while (b < blocks);
    return {in_pairs(of_p, blocks), in_pairs(of_q, blocks)};
  }

  // Combines `count`, a power of two, in adjacent pairs, level by level; writes up to 2 kWidth behind them.
  static Short in_pairs(Lane* parts, int count) {
    for (; count > 1; count /= 2) {
      for (int i = 0; i < count / 2; i += kWidth) {
        const V a = load<V>(parts + 2 * i), b = load<V>(parts + 2 * i + kWidth);
        store(parts + i, M::combine(even(a, b), odd(a, b)));
      }
    }
    return load<Short>(parts);
  }

  // Rows of some blocks, too few for a stretch, are taken kWidth at a time, as two streams of rows that follow each
  // other; their blocks are halved across the rows.
  static bool is_middling(int64_t n) { return kSeveral && n > kBlock && n < kHalf * kBlock; }

  // T(n) of such rows, in whole steps: of row p + i * step in lane i, of q + i * step in lane kHalf + i.
  __attribute__((noinline)) static V middling(const In* p, const In* q, int64_t step, int64_t n) {
    V blocks[kHalf][kWidth], found[kHalf];
    const int full = int(n / kBlock), count = int(ceil_div(n, kBlock));
    const Rest rest(n);
    for (int i = 0; i < kHalf; i++, p += step, q += step) {
      for (int b = 0; b < full; b++) two_blocks(p + b * kBlock, q + b * kBlock, blocks[b][i], blocks[b][i + kHalf]);
      if (full == count) continue;
      const int64_t at = full * kBlock;
      blocks[full][i] = one_vector(steps(p + at, n - at, rest, 0, Element()));
      blocks[full][i + kHalf] = one_vector(steps(q + at, n - at, rest, 0, Element()));
    }
    for (int b = 0; b < count; b++) found[b] = halve_several<kWidth>(blocks[b]);
    for (int span = 1; span < count; span *= 2) {
      for (int b = 0; b + span < count; b += 2 * span) found[b] = M::combine(found[b], found[b + span]);
    }
    return found[0];
  }

  // T(n) of two rows of contiguous elements, side by side where they have stretches.
  static Pair two(const In* p, const In* q, int64_t n, const In* end) {
    if constexpr (kSeveral) {
      if (is_stretch(n)) return stretches(p, q, n);
    }
    if (n <= kBlock) return {tree(Strided<In>{p, 1, end}, 0, n), tree(Strided<In>{q, 1, end}, 0, n)};
    const int64_t left = left_part(n, 2);
    const Pair a = two(p, q, left, end), b = two(p + left, q + left, n - left, end);
    return {M::combine(a.p, b.p), M::combine(a.q, b.q)};
  }

  template <class Source, class Term = Element>
  __attribute__((noinline)) static Short tree(const Source& source, int64_t begin, int64_t n,
                                              const Term& term = Term()) {
    if constexpr (kSeveral && __is_same(Source, Strided<In>) && __is_same(Term, Element)) {
      if (source.stride == 1 && n % 2 == 0 && is_stretch(n / 2)) {
        const In* p = source.data + begin;
        const Pair halves = stretches(p, p + n / 2, n / 2);
        return M::combine(halves.p, halves.q);
      }
    }
    if (n <= kBlock) {
      alignas(64) In buffer[kBlock];
      return halve(steps(source(begin, n, buffer), n, begin, term));
    }
    int64_t left = left_part(n);
    Short first = tree(source, begin, left, term);
    return M::combine(first, tree(source, begin + left, n - left, term));
  }

  template <class Source, class Term = Element>
  static Lane run(const Source& source, int64_t n, const Term& term = Term()) {
    return tree(source, 0, n, term)[0];
  }
};

}  // namespace
}  // namespace nl::NL_ISA
