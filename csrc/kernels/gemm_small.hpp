// gemm_small.hpp: products of so few elements that to pack them would cost more than it gains.
#pragma once
#include "gemm_pack.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kTiny = 1 << 13;       // multiplications: 20 x 20 x 20
constexpr int64_t kMostSmall = 1 << 21;  // 128 x 128 x 128
constexpr int64_t kLeastPart = 1 << 17;  // 51 x 51 x 51: less is not worth another thread, even one that is awake
constexpr int64_t kCall = 1 << 11;       // multiplications in the time that each product takes besides its own
constexpr int64_t kSmallRate = 64;       // bytes of products a nanosecond, at least: 16 of float32

// Rows that crowd each other out of L1 are better packed, unless they are tiny.
template <class T>
bool is_small(const Matrix<T>& a, int64_t products, int64_t k) {
  if (k > kDepth || products > kMostSmall) return false;
  return products <= kTiny || !aliases<T>(a.line_stride);
}

// A part of C, for one thread.
struct Part {
  int64_t row, rows, column, columns;
};

// Whether equal parts of the rows of C leave less to the largest one than parts of the vectors of its columns.
template <class T>
bool cut_rows(int64_t m, int64_t n, int64_t parts) {
  constexpr int64_t kPacking = 8;  // lines more, as in cuts into tiles
  const int64_t height = ceil_div(m, parts), width = whole_vectors<T>(ceil_div(n, parts));
  return (height + kPacking) * (whole_vectors<T>(n) + kPacking) <= (m + kPacking) * (width + kPacking);
}

// C in parts of its rows or of the vectors of its columns.
template <class T>
struct Parts {
  int64_t m, n;
  bool of_rows;
  int64_t count;

  Parts(int64_t rows, int64_t columns, int64_t most, bool by_rows)
      : m(rows), n(columns), of_rows(by_rows), count(min_of(most, by_rows ? rows : ceil_div(columns, kWidth<T>))) {}

  int64_t row(int64_t part) const { return part * m / count; }
  int64_t column(int64_t part) const { return min_of(n, part * ceil_div(n, kWidth<T>) / count * kWidth<T>); }

  Part part(int64_t i) const {
    if (of_rows) return {row(i), row(i + 1) - row(i), 0, n};
    return {0, m, column(i), column(i + 1) - column(i)};
  }
};

// A part of the first batch: rows of A where they lie times one panel of B after another, on the calling thread and its
// stack.
template <class T>
struct SmallProduct {
  Matrix<T> a, b;
  Output<T> c;
  int64_t k;

  void run(const Part& part) const {
    T packed[kDepth * kTileColumns<T>];
    const int64_t panels = row_panels(part.rows);
    for (int64_t done = 0, width; done < part.columns; done += width) {
      width = panel_width(min_of(kTileColumns<T>, part.columns - done));
      // Columns that do not fill their vectors are computed with some before them: neither packed nor set aside.
      const bool lie = b.in_place && c.columns.x_stride == 1 && width <= part.columns;
      const int64_t j = part.column + (lie ? min_of(done, part.columns - width) : done);
      const int count = int(min_of(width, part.column + part.columns - j)), pitch = int(whole_vectors<T>(width));
      const Panel<T> columns = b.fetch(&b, {0, 0, j, 0, count, int(k), int(width), pitch}, packed);
      for (int64_t p = 0, i = part.row, end; p < panels; p++, i = end) {
        end = part.row + row_panel_begin(part.rows, p + 1);
        multiply(i, end, columns, j, count, width);
      }
    }
  }

 private:
  // Of so many columns those that the next panel takes; of one vector and a bit the bit is a panel of its own.
  static int64_t panel_width(int64_t columns) {
    return columns <= kHalf<T> ? kHalf<T> : whole_vectors<T>(columns - kHalf<T>);
  }

  void multiply(int64_t i, int64_t end, const Panel<T>& columns, int64_t j, int count, int64_t width) const {
    const Panel<T> rows = {a.data + i * a.line_stride, a.line_stride, a.step};
    const auto kernel = micro_kernel(T(), int(end - i), int(width));
    const bool direct = count == width && c.columns.x_stride == 1;
    T block[kTileRows * kTileColumns<T>];
    T* to = c.data + i * c.row_stride + j * c.columns.x_stride;
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
