// gemm_small.hpp: products of so few elements that to cut and to pack them would cost more than it gains.
#pragma once
#include "gemm_pack.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kTiny = 1 << 13;                  // multiplications: 20 x 20 x 20
constexpr int64_t kMostSmall = 2 * kGrainProducts;  // 92 x 92 x 92: beyond, a second thread pays

// Rows that crowd each other out of L1 are better packed, unless they are tiny.
template <class T>
bool is_small(const Matrix<T>& a, int64_t products, int64_t k) {
  if (k > kDepth || products > kMostSmall) return false;
  return products <= kTiny || !aliases<T>(a.line_stride);
}

// One batch: rows of A where they lie times one panel of B after another, on the calling thread and its stack.
template <class T>
struct SmallProduct {
  const Matrix<T>& a;
  const Matrix<T>& b;
  const Output<T>& c;
  int64_t k, batch;

  void run() const {
    T packed[kDepth * kTileColumns<T>];
    const T* const lines = a.batch(batch);
    for (int64_t done = 0, width; done < b.lines; done += width) {
      width = panel_width(min_of(kTileColumns<T>, b.lines - done));
      // Columns that do not fill their vectors are computed with some before them: neither packed nor set aside.
      const bool lie = b.in_place && c.columns.x_stride == 1 && width <= b.lines;
      const int64_t j = lie ? min_of(done, b.lines - width) : done;
      const int count = int(min_of(width, b.lines - j)), pitch = int(whole_vectors<T>(width));
      const Panel<T> columns = b.fetch(&b, {batch, 0, j, 0, count, int(k), int(width), pitch}, packed);
      for (int64_t p = 0; p < row_panels(a.lines); p++) {
        multiply(lines, row_panel_begin(a.lines, p), row_panel_begin(a.lines, p + 1), columns, j, count, width);
      }
    }
  }

 private:
  // Of so many columns those that the next panel takes; of one vector and a bit the bit is a panel of its own.
  static int64_t panel_width(int64_t columns) {
    return columns <= kHalf<T> ? kHalf<T> : whole_vectors<T>(columns - kHalf<T>);
  }

  void multiply(const T* lines, int64_t i, int64_t end, const Panel<T>& columns, int64_t j, int count,
                int64_t width) const {
    const Panel<T> rows = {lines + i * a.line_stride, a.line_stride, a.step};
    const auto kernel = micro_kernel(T(), int(end - i), int(width));
    const bool direct = count == width && c.columns.x_stride == 1;
    T block[kTileRows * kTileColumns<T>];
    T* to = c.data + batch * c.batch_stride + i * c.row_stride + j * c.columns.x_stride;
    kernel(k, rows, columns, direct ? to : block, direct ? c.row_stride : width, nullptr, 0);
    for (const T* sums = block; !direct && i < end; i++, sums += width, to += c.row_stride) {
      if (c.columns.x_stride == 1) {
        copy_line(sums, count, to);
      } else {
        for (int l = 0; l < count; l++) to[l * c.columns.x_stride] = sums[l];
      }
    }
  }
};

}  // namespace
}  // namespace nl::NL_ISA
