// gemm_widen.hpp: matrices of 16-bit floats that are widened where they are packed.
#pragma once
#include "gemm_vector.hpp"

namespace nl::NL_ISA {
namespace {

// An operand of 16-bit floats as a prologue of its product. It is told of as if it lay densely, in the order of its
// memory, and widens the part that is asked for.
class Widened {
 public:
  // The operand as the product sees it; the prologue, with no `fn` where there is nothing to widen.
  View view;
  Prologue prologue = {};

  void see(const View& v) {
    from = view = v;
    if (!is_narrow(v.dtype)) return;
    view.dtype = DType::f32;
    prologue = {v.dtype == DType::f16 ? make<Float16> : make<BFloat16>, this};
    const int r = v.rank - 2, c = v.rank - 1;
    // A product over one k has matrices of one line, whose strides need not tell which way it lies.
    const bool turned = v.shape[r] > 1 && v.shape[c] > 1 && distance(v.strides[c]) > distance(v.strides[r]);
    rows = turned ? c : r, columns = turned ? r : c;
    view.strides[columns] = 1;
    view.strides[rows] = v.shape[columns];
    int64_t size = v.shape[r] * v.shape[c];
    for (int d = r - 1; d >= 0; d--) {
      if (v.strides[d] == 0) continue;  // one matrix for all
      view.strides[d] = size;
      size *= v.shape[d];
    }
  }

 private:
  View from;
  int rows, columns;  // the axes that go down and along memory

  static int64_t distance(int64_t stride) { return stride < 0 ? -stride : stride; }

  int64_t matrix(int64_t b) const {
    int64_t at = 0;
    for (int d = from.rank - 3; d >= 0; d--) {
      if (from.strides[d] == 0) continue;
      at += b % from.shape[d] * from.strides[d];
      b /= from.shape[d];
    }
    return at;
  }

  template <class S>
  static void make(void* ctx, int64_t b, int64_t i0, int64_t i1, int64_t j0, int64_t j1, void* to, int64_t pitch) {
    const Widened& w = *(const Widened*)ctx;
    const int64_t down = w.from.strides[w.rows], along = w.from.strides[w.columns];
    const S* row = (const S*)w.from.data + w.matrix(b) + i0 * down + j0 * along;
    float* wide = (float*)to;
    for (int64_t i = i0; i < i1; i++, row += down, wide += pitch) widen(row, along, j1 - j0, wide);
  }

  template <class S>
  NL_FN void widen(const S* from, int64_t step, int64_t count, float* to) {
    constexpr int W = kWidth<float>;
    int64_t j = 0;
    for (; step == 1 && j + W <= count; j += W) store(to + j, load_wide(from + j));
    for (; j < count; j += W) {
      const int64_t some = min_of(W, count - j);
      S lanes[W] = {};
      for (int64_t l = 0; l < some; l++) lanes[l] = from[(j + l) * step];
      float wide[W];
      store(wide, load_wide((const S*)lanes));
      __builtin_memcpy(to + j, wide, some * sizeof(float));
    }
  }
};

}  // namespace
}  // namespace nl::NL_ISA
