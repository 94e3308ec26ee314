// indices.hpp: operands of indices: their check, and where they lead.
#pragma once
#include "loops.hpp"

namespace nl::NL_ISA {
namespace {

// An index along an axis of some extent, counted from the end when negative; valid if unsigned below the extent.
inline int64_t from_start(int64_t index, int64_t extent) { return index < 0 ? index + extent : index; }
inline bool valid(int64_t index, int64_t extent) { return (uint64_t)from_start(index, extent) < (uint64_t)extent; }

// Where a checked index leads. It is read once more, and somebody who shares the memory may have written it since.
inline int64_t place_of(const int64_t* checked, int64_t extent) {
  int64_t index = __atomic_load_n(checked, __ATOMIC_RELAXED);
  return valid(index, extent) ? from_start(index, extent) : 0;
}

// Calls fn(i, offset) for the elements of a view, in row-major order.
template <class F>
void for_each(const View& v, const F& fn) {
  Walk<1> rows = walk_without({&v}, -1);
  if (rows.total == 0) return;
  int64_t n = 1, step = 0;
  if (rows.rank > 0) {
    n = rows.shape[rows.rank - 1], step = rows.stride[0][rows.rank - 1];
    rows.remove_axis(rows.rank - 1);
  }
  Polls polls;
  auto c = rows.seek(0);
  for (int64_t r = 0; r < rows.total; r++, rows.next(c)) {
    for (int64_t first = 0; first < n; first += kGrain) {
      const int64_t stop = min_of(n, first + kGrain);
      polls.after(stop - first);
      for (int64_t j = first; j < stop; j++) fn(r * n + j, c.at[0] + j * step);
    }
  }
}

// Checks all elements of `index`; the first bad one is what the fault names.
inline Status check(const View& index, int64_t extent, int64_t axis, int64_t* fault) {
  const int64_t* at = (const int64_t*)index.data;
  bool good = true;
  for_each(index, [&](int64_t, int64_t offset) { good &= valid(at[offset], extent); });
  if (good) return kOk;
  for_each(index, [&](int64_t, int64_t offset) {
    if (good || valid(at[offset], extent)) return;
    good = true;  // found; the others are not looked at
    fault[0] = at[offset], fault[1] = extent, fault[2] = axis;
  });
  return kIndexError;
}

}  // namespace
}  // namespace nl::NL_ISA
