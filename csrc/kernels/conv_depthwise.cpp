// conv_depthwise.cpp: convolutions of single channels, and their gradients by the input at stride 1, straight from the
// image: one product per tap and pixel is too little to pay for packing.
//
// A vector is a run of pixels of one output row. Taps read shifted runs of the rows where they lie; lanes that fall
// beside the image are masked, and rows above and below it are a row of zeros. Copying planes between zeros instead
// took twice as long: loads that span two recent stores wait for both. Short rows, and strides but for kernels of 3x3
// at stride 2, go through conv_depthwise_lanes.cpp where there are channels to fill half a vector; results with their
// channels last through conv_depthwise_pixels.cpp.
#include "conv_depthwise.hpp"

namespace nl::NL_ISA {
namespace {

// Taps in rows and columns: output (i, j) is dot over (u, v) of weight[u, v] * in[i * stride + dy[u], j * stride +
// dx[v]], which is zero outside of the image.
struct Taps {
  int64_t rows, columns, stride;
  const int64_t *dy, *dx;

  static int64_t least(const int64_t* d, int64_t n) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found = min_of(found, d[i]);
    return found;
  }
  static int64_t most(const int64_t* d, int64_t n) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found = max_of(found, d[i]);
    return found;
  }
  int64_t top() const { return least(dy, rows); }
  int64_t bottom() const { return most(dy, rows); }
  int64_t left() const { return least(dx, columns); }
  int64_t right() const { return most(dx, columns); }
};

// One channel of an image.
template <class T>
struct Plane {
  const T* data;
  int64_t height, width, y_stride, x_stride;
};

// Where the rows of planes of equal shape can be read from column `begin` to `end`: in place, in a copy, or in a row of
// zeros.
template <class T>
struct RowTable {
  int64_t first, count, begin, end;
  Memory<T> memory;  // around the planes
  const T** rows = nullptr;
  T* zeros = nullptr;

  RowTable(const Taps& taps, int64_t out_rows, int64_t out_columns, const View& planes) : memory(planes) {
    first = taps.top(), count = (out_rows - 1) * taps.stride + taps.bottom() - first + 1;
    begin = taps.left(), end = max_of(out_columns, kWidth<T>) * taps.stride + taps.right();
  }

  int64_t row_size() const { return end - begin; }
  int64_t bytes(int64_t height) const {
    return count * int64_t(sizeof(T*)) + (height + 1) * row_size() * int64_t(sizeof(T));
  }

  // `memory` has room for bytes().
  void use(void* memory) {
    rows = (const T**)memory;
    zeros = (T*)(rows + count);
    for (int64_t i = 0; i < row_size(); i++) zeros[i] = 0;
    for (int64_t r = 0; r < count; r++) rows[r] = zeros - begin;
  }

  // Finds the rows of a plane; the result is indexed by their number.
  const T* const* fill(const Plane<T>& plane) const {
    const int64_t stop = min_of(plane.height, first + count);
    const T *top = plane.data + begin, *bottom = plane.data + (plane.height - 1) * plane.y_stride + end;
    if (plane.x_stride == 1 && plane.y_stride >= 0 && top >= memory.begin && bottom <= memory.end) {
      for (int64_t y = max_of(0, first); y < stop; y++) rows[y - first] = plane.data + y * plane.y_stride;
      return rows - first;
    }
    T* copies = zeros + row_size();
    for (int64_t y = max_of(0, first); y < stop; y++, copies += row_size()) {
      gather_row(plane.data + y * plane.y_stride, plane.x_stride, min_of(plane.width, end), copies - begin);
      rows[y - first] = copies - begin;
    }
    return rows - first;
  }
};

// Sums at `rows` x `columns` pixels. The size of the kernel, kSize x kSize, is known, or 0; a stride goes with adjacent
// taps.
template <class T, int kStride, int kSize>
struct PlaneSums {
  using V = typename Simd<T>::V;
  using Lanes = typename Simd<Mask<T>>::V;
  static constexpr int W = kWidth<T>;
  static constexpr int kVecs = 4;   // side by side: one load of a weight serves four products, and four chains overlap
  static constexpr int kRows = 32;  // that a strip goes through: its masks serve all of them, and lines stay in L1

  const Taps& taps;
  const T* weight;
  const T* const* table;
  int64_t width;  // of the image
  int64_t rows, columns;
  T* to;

  void run() const {
    Polls polls;
    for (int64_t i = 0; i < rows; i += kRows) {
      run_rows(i, min_of(rows, i + kRows));
      polls.after(kRows * ceil_div(columns, W) * taps.rows * taps.columns);
    }
  }

  void run_rows(int64_t i, int64_t stop) const {
    const int64_t begin = taps.left(), end = taps.right();
    // Of N vectors from column j on, whether every tap sees the image only.
    auto inside = [=](int64_t j, int64_t n) {
      return j * kStride + begin >= 0 && j + n * W <= columns && (j + n * W - 1) * kStride + end < width;
    };
    for (int64_t j = 0; j < columns;) {
      if (inside(j, kVecs)) {
        strip<kVecs, false>(i, stop, j);
        j += kVecs * W;
      } else if (inside(j, 2)) {
        strip<2, false>(i, stop, j);
        j += 2 * W;
      } else {
        const int64_t at = max_of(0, min_of(j, columns - W));  // the last vector ends where the row does
        inside(at, 1) ? strip<1, false>(i, stop, at) : strip<1, true>(i, stop, at);
        j = at + W;
      }
    }
  }

  // N vectors from column j on, in rows [i, stop).
  template <int N, bool kMasked>
  void strip(int64_t i, int64_t stop, int64_t j) const {
    const PlaneSums local = *this;  // stores could change anything that is not local
    const T* end = to + rows * columns;
    if constexpr (kSize > 0) {
      const Kernel kernel(*this, j);
      if (kernel.rolls()) return roll<N, kMasked>(kernel, i, stop, j);
      for (; i < stop; i++) {
        V sum[N] = {}, none[N];
#pragma GCC unroll 3
        for (int u = 0; u < kSize; u++) {
          kernel.template add_row<N, kMasked, 1>(local.table[i * kStride + kernel.dy[u]], u, sum, none, none);
        }
        local.template put<N>(sum, local.to + i * local.columns + j, end);
      }
    } else {
      Polls polls;
      constexpr int kTogether = kVecs / N;  // rows, for that many chains
      for (; i + kTogether <= stop; i += kTogether) {
        sum_rows<N, kMasked, kTogether>(i, j, end);
        polls.after(kTogether * taps.rows * taps.columns);
      }
      for (; i < stop; i++) sum_rows<N, kMasked, 1>(i, j, end);
    }
  }

  template <int N>
  __attribute__((always_inline)) void put(const V (&sum)[N], T* row, const T* end) const {
    if (row + N * W <= end) {  // what is too much in a narrow row is overwritten by the rows behind
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) store(row + v * W, sum[v]);
    } else {
      T part[W];
      store(part, sum[0]);
      copy_few(part, columns, row);
    }
  }

  // All that a kernel of known size needs in a strip, in registers.
  struct Kernel {
    static constexpr int K = kSize > 0 ? kSize : 1;
    V weight[K * K];
    int64_t dy[K], dx[K];
    Lanes inside[K];

    Kernel(const PlaneSums& p, int64_t j) {
      for (int k = 0; k < K * K; k++) weight[k] = splat<V>(p.weight[k]);
      for (int k = 0; k < K; k++) {
        dy[k] = p.taps.dy[k], dx[k] = p.taps.dx[k] + j * kStride;
        inside[k] = p.inside(dx[k]);
      }
    }

    // Whether output rows share the rows that they read.
    bool rolls() const { return kSize == 3 && dy[1] == dy[0] + 1 && dy[2] == dy[0] + 2; }

    // What the taps see of a row, for the vector of outputs whose first reads `from` with tap 0.
    __attribute__((always_inline)) void read(const T* from, V (&x)[K]) const {
      if constexpr (kStride == 1) {
#pragma GCC unroll 3
        for (int v = 0; v < K; v++) x[v] = load<V>(from + dx[v] - dx[0]);
      } else {
        const V low = load<V>(from), high = load<V>(from + W);
        x[0] = even(low, high), x[1] = odd(low, high), x[2] = next_lanes(x[0], splat<V>(from[2 * W]));
      }
    }

    // Adds an input row to kRows output rows: to `first` with row u of the weight, to the others, which follow it, with
    // rows before.
    template <int N, bool kMasked, int kRows>
    __attribute__((always_inline)) void add_row(const T* row, int u, V (&first)[N], V (&second)[N],
                                                V (&third)[N]) const {
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) {
        V x[K];
        read(row + dx[0] + n * W * kStride, x);
#pragma GCC unroll 3
        for (int v = 0; v < K; v++) {
          if (kMasked) x[v] = (V)((Lanes)x[v] & inside[v]);
          first[n] = multiply_add(weight[u * K + v], x[v], first[n]);
          if constexpr (kRows > 1) second[n] = multiply_add(weight[(u - kStride) * K + v], x[v], second[n]);
          if constexpr (kRows > 2) third[n] = multiply_add(weight[(u - 2) * K + v], x[v], third[n]);
        }
      }
    }
  };

  // A strip of three rows of taps, each input row read once for the output rows that it reaches: three, or at stride 2
  // two and one in turn.
  template <int N, bool kMasked>
  void roll(const Kernel& given, int64_t i, int64_t stop, int64_t j) const {
    const Kernel kernel = given;
    const PlaneSums local = *this;
    const T* end = to + rows * columns;
    const T* const* row = local.table + i * kStride + kernel.dy[0];
    V sum[N] = {}, next[N] = {};
    kernel.template add_row<N, kMasked, 1>(*row++, 0, sum, next, next);
    if constexpr (kStride == 1) kernel.template add_row<N, kMasked, 2>(*row++, 1, sum, next, next);
    for (; i < stop; i++) {
      V fresh[N] = {};
      if constexpr (kStride == 1) {
        kernel.template add_row<N, kMasked, 3>(*row++, 2, sum, next, fresh);
      } else {
        kernel.template add_row<N, kMasked, 1>(*row++, 1, sum, next, next);
        kernel.template add_row<N, kMasked, 2>(*row++, 2, sum, next, next);
      }
      local.template put<N>(sum, local.to + i * local.columns + j, end);
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) sum[n] = next[n], next[n] = fresh[n];
    }
  }

  // N vectors from column j on, of R rows from row i on.
  template <int N, bool kMasked, int R>
  void sum_rows(int64_t i, int64_t j, const T* end) const {
    V block[R][N] = {}, total[R][N];
    int64_t k = 0;
    for (int64_t u = 0; u < taps.rows; u++) {
      const T* row[R];
      for (int r = 0; r < R; r++) row[r] = table[(i + r) * kStride + taps.dy[u]];
      for (int64_t v = 0; v < taps.columns; v++, k++) {
        if (k > 0 && k % kDepth == 0) end_block(k, block, total);
        const V w = splat<V>(weight[k]);
        const int64_t dx = taps.dx[v] + j;
        const Lanes mask = inside(dx);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
          for (int n = 0; n < N; n++) {
            const V x = load<V>(row[r] + dx + n * W);
            block[r][n] = multiply_add(w, kMasked ? (V)((Lanes)x & mask) : x, block[r][n]);
          }
        }
      }
    }
    end_block(k <= kDepth ? kDepth : k, block, total);
    for (int r = 0; r < R; r++) put<N>(total[r], to + (i + r) * columns + j, end);
  }

  template <int N, int R>
  static void end_block(int64_t k, V (&block)[R][N], V (&total)[R][N]) {
    for (int r = 0; r < R; r++) {
      for (int n = 0; n < N; n++) {
        total[r][n] = k == kDepth ? block[r][n] : total[r][n] + block[r][n];
        block[r][n] = V{};
      }
    }
  }

  // Which lanes of a vector that begins at column x lie in the image.
  Lanes inside(int64_t x) const {
    Lanes at;
    for (int l = 0; l < W; l++) at[l] = l;
    at = at * kStride + Mask<T>(x);
    return (at >= 0) & (at < Mask<T>(width));
  }
};

// Every plane of the results from the plane of the first operand, by the taps of either axis.
template <class T>
void correlate(const Call& call, const AxisTaps& y, const AxisTaps& x) {
  const View &from = call.in[0], &out = call.out[0];
  const T* weights = contiguous<T>(call.in[1]);
  const Taps taps = {y.count, x.count, x.stride, y.delta, x.delta};
  const RowTable<T> shape(taps, y.outputs, x.outputs, from);
  const int64_t channels = out.shape[1], size = y.outputs * x.outputs, kernel = taps.rows * taps.columns;
  parallel_for(out.shape[0] * channels, grain_of(kernel * size), [=, &from, &out, &call](int64_t begin, int64_t end) {
    RowTable<T> table = shape;
    table.use(nl_scratch(0, table.bytes(from.shape[2])));
    for (int64_t i = begin; i < end; i++) {
      const int64_t image = i / channels, c = i % channels;
      const T* data = (const T*)from.data + image * from.strides[0] + c * from.strides[1];
      const T* const* rows = table.fill({data, from.shape[2], from.shape[3], from.strides[2], from.strides[3]});
      T* to = (T*)out.data + i * size;
      const T* weight = weights + c * kernel;
      const int64_t width = from.shape[3];
      if (taps.stride == 2) {
        PlaneSums<T, 2, 3>{taps, weight, rows, width, y.outputs, x.outputs, to}.run();
      } else if (taps.rows == 3 && taps.columns == 3) {
        PlaneSums<T, 1, 3>{taps, weight, rows, width, y.outputs, x.outputs, to}.run();
      } else {
        PlaneSums<T, 1, 0>{taps, weight, rows, width, y.outputs, x.outputs, to}.run();
      }
      if (call.epilogue) call.epilogue->fn(call.epilogue->ctx, image, c, c + 1, 0, size);
    }
  });
}

// Whether vectors go across the channels: where these fill them, and rows do not or are not adjacent.
template <class T>
bool goes_across(const Geometry& g, int64_t columns, bool in_rows) {
  return g.channels >= kWidth<T> / 2 && (!in_rows || columns < kWidth<T> * 3 / 4);
}

// Strides at which rows are read as they lie.
bool is_dense(const Axis& a) { return a.stride == 1; }
bool is_split(const Axis& a) { return a.stride == 2 && a.kernel == 3 && a.dilation == 1; }

int64_t* memory_of_taps(const Geometry& g) {
  return (int64_t*)nl_scratch(2, 2 * (g.y.kernel + g.x.kernel) * int64_t(sizeof(int64_t)));
}

template <class T>
bool forward(const Call& call) {
  if (channels_last(call.out[0])) return conv2d_depthwise_pixels(call);
  const Geometry g = conv2d_geometry(call);
  const bool in_rows = (is_dense(g.y) && is_dense(g.x)) || (is_split(g.y) && is_split(g.x));
  if (goes_across<T>(g, g.x.output, in_rows && !channels_last(call.in[0]))) {
    return conv2d_depthwise_lanes(call), true;
  }
  if (!in_rows) return false;
  int64_t* memory = memory_of_taps(g);
  correlate<T>(call, AxisTaps(g.y, memory), AxisTaps(g.x, memory + 2 * g.y.kernel));
  return true;
}

template <class T>
bool input_gradient(const Call& call) {
  if (channels_last(call.out[0])) return conv2d_depthwise_pixels_input(call);
  const Geometry g = conv2d_input_geometry(call);
  const bool in_rows = is_dense(g.y) && is_dense(g.x);
  if (goes_across<T>(g, g.x.input, in_rows)) return conv2d_depthwise_lanes_input(call), true;
  if (!in_rows) return false;
  int64_t* memory = memory_of_taps(g);
  correlate<T>(call, AxisTaps(Residue(g.y, 0), memory), AxisTaps(Residue(g.x, 0), memory + 2 * g.y.kernel));
  return true;
}

}  // namespace

bool conv2d_depthwise(const Call& call) {
  return call.out[0].dtype == DType::f32 ? forward<float>(call) : forward<double>(call);
}

bool conv2d_depthwise_input(const Call& call) {
  return call.out[0].dtype == DType::f32 ? input_gradient<float>(call) : input_gradient<double>(call);
}

}  // namespace nl::NL_ISA
