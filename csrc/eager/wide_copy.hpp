// wide_copy.hpp: memory for a view's elements in their wide dtype: dense copies of operands, and room for results.
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

 private:
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
