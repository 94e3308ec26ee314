// gemm_kept.hpp: a right operand that is the same in every run of a program: its packed panels are kept between runs.
#pragma once
#include "gemm_pack.hpp"

namespace nl::NL_ISA {
namespace {

// [block of k][panel of columns], each as the micro-kernel reads it.
template <class T>
class KeptPanels {
 public:
  KeptPanels(const Matrix<T>& columns, int64_t k, Kept* kept)
      : panels(ceil_div(columns.lines, kTileColumns<T>)),
        data((T*)nl_keep(kept, panels * kTileColumns<T> * k * int64_t(sizeof(T)))) {
    make_once(kept, [&] {
      parallel_for(panels * ceil_div(k, kDepth), grain_of(kDepth * kTileColumns<T>), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) pack(columns, k, i / panels * kDepth, i % panels);
      });
    });
  }

  Operand<T> operand() const { return {fetch, this}; }

 private:
  int64_t panels;
  T* data;

  T* at(int64_t panel, int64_t k, int64_t depth) const {
    return data + k * panels * kTileColumns<T> + panel * depth * kTileColumns<T>;
  }

  void pack(const Matrix<T>& columns, int64_t k_end, int64_t k, int64_t panel) const {
    const int64_t line = panel * kTileColumns<T>, depth = min_of(kDepth, k_end - k);
    const int count = int(min_of(kTileColumns<T>, columns.lines - line));
    columns.fetch(&columns, {0, panel, line, k, count, int(depth), count, kTileColumns<T>}, at(panel, k, depth));
  }

  static Panel<T> fetch(const void* source, const Slice& slice, T*) {
    return {((const KeptPanels*)source)->at(slice.index, slice.k, slice.depth), 1, kTileColumns<T>};
  }
};

}  // namespace
}  // namespace nl::NL_ISA
