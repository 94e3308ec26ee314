// row_group.hpp: short rows taken a vector's width at a time, one to a lane, because each alone would wait for its
// halvings (TreeRow::several).
#pragma once
#include "loops.hpp"
#include "tree.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kGroupBytes = 16 << 10;  // of a group of short rows: they stay in the L1 cache

// Whether rows of n elements are one block each and so short that a group of them has no more bytes.
template <class T>
constexpr bool is_short(int64_t n) {
  return n > 0 && n <= kBlock && Simd<T>::kWidth * whole_steps(n) * sizeof(T) <= kGroupBytes;
}

// Where W rows lie in K views.
template <int K, int W>
struct RowGroup {
  int64_t at[K][W];

  // Whether whole steps of n elements may be read of all rows of view k.
  template <class T>
  bool readable(int k, const T* data, const T* end, int64_t n) const {
    int64_t furthest = at[k][0];
    for (int r = 1; r < W; r++) furthest = max_of(furthest, at[k][r]);
    return end - (data + furthest) >= whole_steps(n);
  }

  // Writes the first `count` lanes to where the rows lie in view k: as a vector if they follow each other.
  template <class V, class T>
  void write(int k, int count, V lanes, T* data) const {
    int64_t astray = count - W;
    for (int r = 0; r < W && count == W; r++) astray |= at[k][r] - at[k][0] - r;
    if (astray == 0) return store(data + at[k][0], lanes);
    for (int r = 0; r < count; r++) data[at[k][r]] = lanes[r];
  }
};

// body(group) for groups of the rows [begin, stop) of a walk, of which the cursor is at the first, while it returns
// true; returns the row that it came to, and leaves the cursor there.
template <int W, int K, class F>
int64_t for_groups(const Walk<K>& rows, typename Walk<K>::Cursor& c, int64_t begin, int64_t stop, const F& body) {
  for (; begin + W <= stop; begin += W) {
    const auto start = c;
    RowGroup<K, W> group;
    if (rows.rank == 1) {  // all as far apart: to count along takes longer than to add up a short row
      for (int k = 0; k < K; k++) {
        for (int r = 0; r < W; r++) group.at[k][r] = c.at[k] + r * rows.stride[k][0];
        c.at[k] += W * rows.stride[k][0];
      }
      c.index[0] += W;
    }
    for (int r = 0; rows.rank != 1 && r < W; r++, rows.next(c)) {
      for (int k = 0; k < K; k++) group.at[k][r] = c.at[k];
    }
    if (body(group)) continue;
    c = start;
    break;
  }
  return begin;
}

}  // namespace
}  // namespace nl::NL_ISA
