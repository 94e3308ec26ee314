// indices.hpp: operands of indices: their check, and where they lead.
#pragma once
#include "loops.hpp"
#include "vector.hpp"

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

constexpr int kPlaces = 512;  // that are found at a time

// Where indices lead; `bad` is set where one leads nowhere, which is then taken for 0.
template <class V>
NL_FN V places_of(V index, V extent, V& bad) {
  using U = typename VecOf<uint64_t, sizeof(V)>::V;
  const V place = index + (index < 0 ? extent : V{}), wrong = (U)place >= (U)extent;
  bad |= wrong;
  return place & ~wrong;
}

// The same of `count` indices that lie `step` apart, as offsets of places `scale` apart; whether all of them are good.
inline bool find_places(const int64_t* index, int64_t step, int count, int64_t extent, int64_t scale, int64_t* places) {
  using V = typename Simd<int64_t>::V;
  constexpr int kWidth = Simd<int64_t>::kWidth;
  if (step != 1 || count < kWidth) {
    bool good = true;
    for (int i = 0; i < count; i++) {
      const int64_t at = __atomic_load_n(index + i * step, __ATOMIC_RELAXED), place = from_start(at, extent);
      const bool fine = valid(at, extent);
      good &= fine;
      places[i] = fine ? place * scale : 0;
    }
    return good;
  }
  const V all = splat<V>(extent);
  V bad = {};
  auto vectors = [&](auto scaled) {
    for (int i = 0; i < count; i += kWidth) {
      const int at = int(min_of(i, count - kWidth));
      store(places + at, scaled(places_of(load<V>(index + at), all, bad)));
    }
  };
  scale == 1 ? vectors([](V place) { return place; }) : vectors([=](V place) { return place * scale; });
  return !any_lane(bad);
}

// body(i, at, step, count) for parts of a view of indices: elements from number i on, in row-major order, `step` apart.
// Threads share the parts. Whether all calls returned true.
template <class F>
bool for_parts(const View& index, const F& body) {
  Walk<1> rows = walk_without({&index}, -1);
  int64_t n = 1, step = 0;
  if (rows.rank > 0) {
    n = rows.shape[rows.rank - 1], step = rows.stride[0][rows.rank - 1];
    rows.remove_axis(rows.rank - 1);
  }
  const int64_t parts = ceil_div(n, kPlaces);
  bool good = true;
  parallel_for(rows.total * parts, grain_of(min_of(n, kPlaces)), [&](int64_t begin, int64_t end) {
    auto c = rows.seek(begin / max_of(parts, 1));
    bool fine = true;
    each_row(parts, begin, end, [&](int64_t row, int64_t first, int64_t last) {
      for (int64_t i = first * kPlaces; i < min_of(last * kPlaces, n); i += kPlaces) {
        fine &= body(row * n + i, (const int64_t*)index.data + c.at[0] + i * step, step, int(min_of(kPlaces, n - i)));
      }
      rows.next(c);
    });
    if (!fine) __atomic_store_n(&good, false, __ATOMIC_RELAXED);
  });
  return good;
}

// Names the first element of `index` that is not `good` as the fault.
template <class F>
Status first_fault(const View& index, int64_t extent, int64_t axis, int64_t* fault, const F& good) {
  const Walk<1> elements = walk_without({&index}, -1);
  Polls polls;
  auto c = elements.seek(0);
  for (int64_t i = 0; i < elements.total; i++, elements.next(c)) {
    polls.after(1);
    const int64_t at = ((const int64_t*)index.data)[c.at[0]];
    if (good(at)) continue;
    fault[0] = at, fault[1] = extent, fault[2] = axis;
    return kIndexError;
  }
  return kOk;
}

inline Status first_fault(const View& index, int64_t extent, int64_t axis, int64_t* fault) {
  return first_fault(index, extent, axis, fault, [=](int64_t at) { return valid(at, extent); });
}

// Checks all elements of `index`; the first bad one is what the fault names.
inline Status check(const View& index, int64_t extent, int64_t axis, int64_t* fault) {
  const bool good = for_parts(index, [=](int64_t, const int64_t* at, int64_t step, int count) {
    int64_t places[kPlaces];
    return find_places(at, step, count, extent, 1, places);
  });
  return good ? kOk : first_fault(index, extent, axis, fault);
}

}  // namespace
}  // namespace nl::NL_ISA
