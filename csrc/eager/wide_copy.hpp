// wide_copy.hpp: memory for a view's elements in their wide dtype: dense copies of operands, what prologues make of
// them, and room for results.
#pragma once
#include <algorithm>

#include "../runtime/alloc.hpp"
#include "widen.hpp"

namespace nl {

class WideCopy {
 public:
  WideCopy() = default;
  WideCopy(const WideCopy&) = delete;
  WideCopy& operator=(const WideCopy&) = delete;
  ~WideCopy() {
    if (view_.data != nullptr) nl_free(view_.data, bytes_);
  }

  // Row-major, without contents.
  const View& like(const View& v) {
    int order[kMaxRank];
    for (int d = 0; d < v.rank; ++d) order[d] = d;
    return allocate(v, order);
  }

  // The elements of v, in the order of v's memory; those that several indices name are held once.
  const View& of(const View& v) {
    const View once = without_repeats(v, v.rank);
    int order[kMaxRank];
    for (int d = 0; d < v.rank; ++d) order[d] = d;
    std::stable_sort(order, order + v.rank,
                     [&](int a, int b) { return std::abs(v.strides[a]) > std::abs(v.strides[b]); });
    convert(once, allocate(once, order));
    return repeated(v);
  }

  // Row-major matrices, the last two axes of v; those that several indices name are held once.
  const View& matrices_of(const View& v) {
    const View once = without_repeats(v, v.rank - 2);
    convert(once, like(once));
    return repeated(v);
  }

  // The matrices of v, which a prologue makes, as they would lie.
  const View& made(const View& v, const Prologue& prologue) {
    const View once = without_repeats(v, v.rank - 2);
    const int r = v.rank - 2, c = v.rank - 1;
    const bool turned = v.strides[c] != 1;
    int order[kMaxRank];
    for (int d = 0; d < v.rank; ++d) order[d] = d;
    if (turned) std::swap(order[r], order[c]);
    allocate(once, order);
    const Making making = {once, view_.data, prologue, v.shape[turned ? c : r], v.shape[turned ? r : c]};
    int64_t matrices = 1;
    for (int d = 0; d < r; ++d) matrices *= once.shape[d];
    nl_parallel_for(matrices * making.rows, std::max<int64_t>(1, 4096 / std::max<int64_t>(making.columns, 1)),
                    Making::run, (void*)&making);
    return repeated(v);
  }

 private:
  // Rows of matrices that are made, one matrix behind another.
  struct Making {
    const View& matrices;
    char* to;
    const Prologue& prologue;
    int64_t rows, columns;

    static void run(void* ctx, int64_t begin, int64_t end) {
      const auto& m = *static_cast<const Making*>(ctx);
      const View& v = m.matrices;
      for (int64_t row = begin; row < end; ++row) {
        const int64_t from = locate(v.shape, v.strides, v.rank - 2, row / m.rows), i = row % m.rows;
        m.prologue.fn(m.prologue.ctx, from / (m.rows * m.columns), i, i + 1, 0, m.columns,
                      m.to + row * m.columns * itemsize(v.dtype), m.columns);
      }
    }
  };

  static bool repeats(const View& v, int d) { return v.strides[d] == 0 && v.shape[d] > 1; }

  // v with one index where many of the first `axes` axes name the same elements.
  static View without_repeats(View v, int axes) {
    for (int d = 0; d < axes; ++d)
      if (repeats(v, d)) v.shape[d] = 1;
    return v;
  }

  // The copy, once made, with v's shape.
  const View& repeated(const View& v) {
    for (int d = 0; d < v.rank; ++d) {
      if (view_.shape[d] == v.shape[d]) continue;
      view_.shape[d] = v.shape[d];
      view_.strides[d] = 0;
    }
    return view_;
  }

  // `order`: the axes, the innermost one last.
  const View& allocate(const View& v, const int* order) {
    view_ = v;
    view_.data = nullptr;
    view_.dtype = wide(v.dtype);
    int64_t count = 1;
    for (int i = v.rank - 1; i >= 0; --i) {
      view_.strides[order[i]] = count;
      count *= v.shape[order[i]];
    }
    bytes_ = std::max<int64_t>(nbytes(view_.dtype, count), 1);
    view_.data = static_cast<char*>(nl_alloc(bytes_));
    return view_;
  }

  View view_{};
  int64_t bytes_ = 0;
};

}  // namespace nl
