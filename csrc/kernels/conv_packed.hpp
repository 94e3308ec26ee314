// conv_packed.hpp: the weights of a convolution as an operand of products, packed once for all of them.
#pragma once
#include "conv_geometry.hpp"
#include "stream_store.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kFinishedPanels = 4;  // of weights, behind which an epilogue runs

// The weights of all groups as an operand. Those of one tap that are used once are a matrix, fetched like any other;
// others are packed first: [group][panel][k][pitch]. Panels are of rows, or of columns where the product is turned; a
// product may be of the k from `first_k` on.
template <class T>
struct PackedWeights {
  int64_t lines, depth;  // of a group
  bool turned, packs;
  T* data = nullptr;
  Walk<2> groups = {};
  Matrix<T> matrix = {};
  int64_t first_k = 0;

  int64_t pitch() const { return turned ? kTileColumns<T> : kPackedRows<T>; }
  int64_t panels() const { return turned ? ceil_div(lines, pitch()) : row_panels(lines); }
  int64_t begin(int64_t p) const { return turned ? min_of(p * pitch(), lines) : row_panel_begin(lines, p); }
  int64_t panel_size() const { return depth * pitch(); }
  int64_t size(int64_t groups) const { return packs ? groups * panels() * panel_size() : 0; }
  // Whether those of a group stay in L2.
  bool is_near() const { return size(1) * int64_t(sizeof(T)) <= kNearBytes; }

  // Reads weights that lie in memory, line by line or k by k; for this weight stays where it is.
  void lie(const T* w, int64_t count, int64_t line_stride, int64_t step) {
    groups.push_axis(count, {lines * depth, lines * depth});
    matrix = {w, lines, line_stride, step, nullptr, 0, false};
  }

  Operand<T> operand() {
    if (packs) return {fetch, this, nullptr, turned ? lying : nullptr, !turned};
    matrix.batches = &groups;
    return {matrix.fetch, &matrix};
  }

  static Panel<T> fetch(const void* source, const Slice& slice, T*) {
    const PackedWeights& w = *(const PackedWeights*)source;
    T* panel = w.data + (slice.batch * w.panels() + slice.index) * w.panel_size();
    return {panel + (w.first_k + slice.k) * w.pitch(), 1, w.pitch()};
  }

  static Panel<T> lying(const void* source, const Slice& slice) { return fetch(source, slice, nullptr); }

  // Packs what conv2d takes: of each line channels, then taps. k runs over taps, then channels.
  void pack(const View& weight, int64_t groups) const {
    const int64_t taps = weight.shape[2] * weight.shape[3], channels = weight.shape[1];
    const T* w = contiguous<T>(weight);
    fill(groups, [=](T* to, const Slice& slice) {
      const T* from = w + (slice.batch * lines + slice.line) * depth;
      pack_transposed(from, depth, depth, slice, to, [=](int i) { return i % taps * channels + i / taps; });
    });
  }

  // Packs what conv2d_input takes: of each output lines, then taps. k runs over taps, tap t being number place(t), then
  // outputs.
  template <class Place>
  void pack_input(const View& weight, int64_t groups, const Place& place) const {
    const int64_t taps = weight.shape[2] * weight.shape[3], outputs = weight.shape[0] / groups;
    const T *w = contiguous<T>(weight), *end = w + weight.shape[0] * lines * taps;
    fill(groups, [=](T* to, const Slice& slice) {
      const T* from = w + (slice.batch * outputs * lines + slice.line) * taps;
      if (taps == 1) return pack_adjacent(from, lines, lines - slice.line, slice, to);  // k by k as it lies
      Slice kernel = slice;
      kernel.depth = int(taps);
      for (int64_t o = 0; o < outputs; o++, from += lines * taps) {
        const int64_t readable = end - from - (slice.count - 1) * taps;
        pack_transposed(from, taps, readable, kernel, to, [=](int t) { return place(t) * outputs + o; });
      }
    });
  }
  void pack_input(const View& weight, int64_t groups) const {
    pack_input(weight, groups, [](int t) { return t; });
  }

  // Panels written by pack(to, group, slice) on all threads; the slice says which lines.
  template <class Pack>
  void fill(int64_t count, const Pack& pack) const {
    parallel_for(count * panels(), grain_of(panel_size()), [&](int64_t first, int64_t stop) {
      for (int64_t i = first; i < stop; i++) {
        int64_t p = i % panels();
        Slice slice = {i / panels(), p, begin(p), 0, int(begin(p + 1) - begin(p)), int(depth), 0, int(pitch())};
        pack(data + i * panel_size(), slice);
      }
    });
  }
};

// How sums reach results whose channels lie last.
struct Reach {
  bool far;   // they lie in memory, and are asked for meanwhile
  bool past;  // they do, and are written past the caches: whole vectors, to which nothing is added
};

template <class T>
Reach reach(const PackedWeights<T>& weights, const View& result, const Epilogue* epilogue) {
  const int64_t elements = result.shape[0] * result.shape[1] * result.shape[2] * result.shape[3];
  const bool far = elements * int64_t(sizeof(T)) >= kFarBytes, whole = weights.lines % kWidth<T> == 0;
  const bool past = far && whole && !epilogue && weights.depth <= kDepth && is_aligned<T>(result);
  return {far && !past, past};
}

// Sums of `rows` pixels and `lines` of weights to results whose channels lie last, `pitch` elements a pixel.
template <class T>
void sum_pixels(PanelKind kind, int64_t steps, int64_t rows, int64_t lines, const Panel<T>& a, const Panel<T>& b,
                bool add, T* to, int64_t pitch) {
  constexpr int kColumns = kTileColumns<T>;
  const auto kernel = micro_kernel(T(), int(rows), int(lines), kind);
  if (fills_tile<T>(lines)) return kernel(steps, a, b, to, pitch, add ? to : nullptr, pitch);
  T part[2 * kTileRows * kColumns];
  for (int64_t i = 0; add && i < rows; i++) copy_line(to + i * pitch, lines, part + i * kColumns);
  kernel(steps, a, b, part, kColumns, add ? part : nullptr, kColumns);
  for (int64_t i = 0; i < rows; i++) copy_line(part + i * kColumns, lines, to + i * pitch);
}

}  // namespace
}  // namespace nl::NL_ISA
