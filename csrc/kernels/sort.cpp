// sort.cpp: sort, sort_values and argsort along any axis.
#include "sort_short.hpp"

namespace nl::NL_ISA {
namespace {

// ---- any axis ----

// A cache line of rows whose elements lie apart, of values alone: brought together, sorted, and brought back. Row by
// row every element would take a line of its own, of which many share a place in the caches. Rows side by side move as
// squares of vectors.
template <class T>
struct RowsApart {
  static constexpr int64_t kTogether = 64 / sizeof(T);
  static constexpr int kWidth = Simd<T>::kWidth;
  static constexpr bool kSquares = sizeof(T) >= 4;

  SortRow<T> rows[kTogether];
  int64_t size, n;
  T* room;  // kTogether rows of n

  void run() {
    const bool apart = rows[0].in_step != 1;
    if (apart) gather();
    for (int64_t l = 0; l < size; l++) {
      T* row = room + l * n;
      sort_row(SortRow<T>{apart ? row : rows[l].in, 1, row, 1, nullptr, 0, n, n, rows[l].descending}, false);
    }
    scatter();
  }

  template <class P>
  bool side_by_side(P SortRow<T>::* data) const {
    for (int64_t l = 1; l < size; l++) {
      if (rows[l].*data != rows[0].*data + l) return false;
    }
    return kSquares && size == kTogether;
  }

  // Calls fn(first row, rows of the room from there on) for every square's rows.
  template <class F>
  void by_squares(const F& fn) const {
    for (int64_t first = 0; first < size; first += kWidth) {
      T* lanes[kWidth];
      for (int l = 0; l < kWidth; l++) lanes[l] = room + (first + l) * n;
      fn(rows[first], lanes);
    }
  }

  void gather() const {
    const int64_t step = rows[0].in_step;
    if constexpr (kSquares) {
      if (side_by_side(&SortRow<T>::in)) {
        return by_squares([=](const SortRow<T>& r, T** lanes) { deinterleave(r.in, step, n, lanes, kWidth, 1); });
      }
    }
    for (int64_t i = 0; i < n; i++) {
      for (int64_t l = 0; l < size; l++) room[l * n + i] = rows[l].in[i * step];
    }
  }

  void scatter() const {
    const int64_t step = rows[0].values_step;
    if constexpr (kSquares) {
      if (side_by_side(&SortRow<T>::values)) {
        return by_squares([=](const SortRow<T>& r, T** lanes) {
          interleave((const T* const*)lanes, n, [=](int64_t i) { return r.values + i * step; });
        });
      }
    }
    for (int64_t i = 0; i < n; i++) {
      for (int64_t l = 0; l < size; l++) rows[l].values[i * step] = room[l * n + i];
    }
  }
};

template <class T, class RowAt>
void sort_apart(int64_t count, int64_t n, const RowAt& row_at) {
  constexpr int64_t kTogether = RowsApart<T>::kTogether;
  parallel_for(ceil_div(count, kTogether), grain_of(4 * n * kTogether), [&](int64_t begin, int64_t end) {
    RowsApart<T> group;
    group.n = n, group.room = (T*)nl_scratch(1, kTogether * n * sizeof(T));
    for (int64_t g = begin; g < end; g++) {
      group.size = min_of(kTogether, count - g * kTogether);
      for (int64_t l = 0; l < group.size; l++) group.rows[l] = row_at(g * kTogether + l);
      group.run();
    }
  });
}

template <class T>
void sort_along(const View& x, const View* values, const View* places, int axis, bool descending) {
  Walk<3> kept;
  for (int d = 0; d < x.rank; d++) {
    if (d == axis) continue;
    kept.add_axis(x.shape[d], {x.strides[d], values ? values->strides[d] : 0, places ? places->strides[d] : 0});
  }
  int64_t n = x.shape[axis], values_step = values ? values->strides[axis] : 0;
  int64_t places_step = places ? places->strides[axis] : 0;
  if (n == 0 || kept.total == 0) return;
  auto row_of = [&](const Walk<3>::Cursor& c) {
    return SortRow<T>{(const T*)x.data + c.at[0],
                      x.strides[axis],
                      values ? (T*)values->data + c.at[1] : nullptr,
                      values_step,
                      places ? (int64_t*)places->data + c.at[2] : nullptr,
                      places_step,
                      n,
                      n,
                      descending};
  };
  auto row_at = [&](int64_t i) { return row_of(kept.seek(i)); };
  if (is_short_sort(n, kept.total)) return sort_short_rows<T>(kept, n, row_of);
  if (n >= kLongRow && kept.total < 2 * nl_num_threads()) {
    for (int64_t i = 0; i < kept.total; i++) sort_row(row_at(i), true);
    return;
  }
  if (!places && (x.strides[axis] != 1 || values_step != 1) && n <= kLongRow) {
    return sort_apart<T>(kept.total, n, row_at);
  }
  parallel_for(kept.total, grain_of(4 * n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) sort_row(row_at(i), false);
  });
}

int sort_call(const Call& call, const View* values, const View* places) {
  by_element(call.in[0].dtype, [&](auto zero) {
    sort_along<decltype(zero)>(call.in[0], values, places, int(call.attr[0]), call.attr[1] != 0);
  });
  return kOk;
}

}  // namespace

int sort(const Call& call) { return sort_call(call, &call.out[0], &call.out[1]); }
int sort_values(const Call& call) { return sort_call(call, &call.out[0], nullptr); }
int argsort(const Call& call) { return sort_call(call, nullptr, &call.out[0]); }

}  // namespace nl::NL_ISA
