// conv_depthwise.cpp: convolutions of single channels and their gradients by the input, straight from the image: one
// product per tap and pixel is too little to pay for packing.
//
// A vector is a run of pixels of one output row. Taps read shifted runs of the rows where they lie; lanes that fall
// beside the image are masked, and rows above and below it are a row of zeros. Copying planes between zeros instead
// took twice as long: loads that span two recent stores wait for both.
#include "conv_depthwise.hpp"

namespace nl::NL_ISA {
namespace {

// Taps in rows and columns: output (i, j) is dot over (u, v) of weight[u, v] * in[i * y_stride + dy[u], j * x_stride +
// dx[v]], which is zero outside of the image.
template <class T>
struct Taps {
  int64_t rows, columns;
  const int64_t *dy, *dx;
  const T* weight;
  int64_t y_stride, x_stride;

  int64_t least(const int64_t* d, int64_t n) const {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found = min_of(found, d[i]);
    return found;
  }
  int64_t most(const int64_t* d, int64_t n) const {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found = max_of(found, d[i]);
    return found;
  }
};

// One channel of an image, and the memory around it that may be read.
template <class T>
struct Plane {
  const T* data;
  int64_t height, width, y_stride, x_stride;
  Memory<T> memory;
};

// Where the rows of planes of equal shape can be read from column `begin` to `end`: in place, in a copy, or in a row of
// zeros.
template <class T>
struct RowTable {
  int64_t first, count, begin, end;
  const T** rows = nullptr;
  T* zeros = nullptr;

  RowTable(const Taps<T>& taps, int64_t out_rows, int64_t out_columns) {
    constexpr int W = kWidth<T>;
    first = taps.least(taps.dy, taps.rows);
    count = (out_rows - 1) * taps.y_stride + taps.most(taps.dy, taps.rows) - first + 1;
    begin = taps.least(taps.dx, taps.columns);
    end = (max_of(0, out_columns - W) + W) * taps.x_stride + taps.most(taps.dx, taps.columns);
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
  }

  // Finds the rows of a plane; the result is indexed by their number.
  const T* const* fill(const Plane<T>& plane) const {
    T* copies = zeros + row_size();
    for (int64_t r = 0; r < count; r++) {
      const int64_t y = first + r;
      const T* row = plane.data + y * plane.y_stride;
      if (y < 0 || y >= plane.height) {
        rows[r] = zeros - begin;
      } else if (plane.x_stride == 1 && row + begin >= plane.memory.begin && row + end <= plane.memory.end) {
        rows[r] = row;
      } else {
        gather_row(row, plane.x_stride, min_of(plane.width, end), copies - begin);
        rows[r] = copies - begin;
        copies += row_size();
      }
    }
    return rows - first;
  }
};

// Sums at `rows` x `columns` pixels. The stride of x and the size of the kernel, kSize x kSize, are known, or 0.
template <class T, int kStride, int kSize>
struct PlaneSums {
  using V = typename Simd<T>::V;
  using Lanes = typename Simd<Mask<T>>::V;
  static constexpr int W = kWidth<T>;
  static constexpr int kVecs = 4;   // side by side: one load of a weight serves four products, and four chains overlap
  static constexpr int kRows = 32;  // that a strip goes through: its masks serve all of them, and lines stay in L1

  const Taps<T>& taps;
  const T* const* table;
  int64_t width;  // of the image
  int64_t rows, columns;
  T* to;

  int64_t stride() const { return kStride > 0 ? kStride : taps.x_stride; }

  void run() const {
    for (int64_t i = 0; i < rows; i += kRows) run_rows(i, min_of(rows, i + kRows));
  }

  void run_rows(int64_t i, int64_t stop) const {
    const int64_t begin = taps.least(taps.dx, taps.columns), end = taps.most(taps.dx, taps.columns);
    // Of N vectors from column j on, whether every tap sees the image only.
    auto inside = [=](int64_t j, int64_t n) {
      return j * stride() + begin >= 0 && j + n * W <= columns && (j + n * W - 1) * stride() + end < width;
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
          const T* row = local.table[i * kernel.y_stride + kernel.dy[u]];
          kernel.template add_row<N, kMasked, 1>(row, u, sum, none, none);
        }
        local.template put<N>(sum, local.to + i * local.columns + j, end);
      }
    } else {
      for (; i < stop; i++) {
        V sum[N];
        sums<N, kMasked>(i, j, sum);
        put<N>(sum, to + i * columns + j, end);
      }
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
    int64_t y_stride;

    Kernel(const PlaneSums& p, int64_t j) : y_stride(p.taps.y_stride) {
      for (int k = 0; k < K * K; k++) weight[k] = splat<V>(p.taps.weight[k]);
      for (int k = 0; k < K; k++) {
        dy[k] = p.taps.dy[k], dx[k] = p.taps.dx[k] + j * kStride;
        inside[k] = p.inside(dx[k]);
      }
    }

    // Whether the next output row reads the same rows but one.
    bool rolls() const { return kSize == 3 && y_stride == 1 && dy[1] == dy[0] + 1 && dy[2] == dy[0] + 2; }

    // Adds an input row to kRows output rows: to `first` with row u of the weight, to the others with the rows before.
    template <int N, bool kMasked, int kRows>
    __attribute__((always_inline)) void add_row(const T* row, int u, V (&first)[N], V (&second)[N],
                                                V (&third)[N]) const {
#pragma GCC unroll 3
      for (int v = 0; v < K; v++) {
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
          V x = read(row + dx[v] + n * W * kStride, kStride);
          if (kMasked) x = inside[v] ? x : V{};
          first[n] = multiply_add(weight[u * K + v], x, first[n]);
          if constexpr (kRows > 1) second[n] = multiply_add(weight[(u - 1) * K + v], x, second[n]);
          if constexpr (kRows > 2) third[n] = multiply_add(weight[(u - 2) * K + v], x, third[n]);
        }
      }
    }
  };

  // A strip of three rows of taps, each input row read once for the three output rows that it reaches.
  template <int N, bool kMasked>
  void roll(const Kernel& given, int64_t i, int64_t stop, int64_t j) const {
    const Kernel kernel = given;
    const PlaneSums local = *this;
    const T* end = to + rows * columns;
    const T* const* row = local.table + i + kernel.dy[0];
    V sum[N] = {}, next[N] = {};
    kernel.template add_row<N, kMasked, 1>(*row++, 0, sum, next, next);
    kernel.template add_row<N, kMasked, 2>(*row++, 1, sum, next, next);
    for (; i < stop; i++) {
      V fresh[N] = {};
      kernel.template add_row<N, kMasked, 3>(*row++, 2, sum, next, fresh);
      local.template put<N>(sum, local.to + i * local.columns + j, end);
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) sum[n] = next[n], next[n] = fresh[n];
    }
  }

  template <int N, bool kMasked>
  void sums(int64_t i, int64_t j, V (&total)[N]) const {
    V block[N] = {};
    int64_t k = 0;
    for (int64_t u = 0; u < taps.rows; u++) {
      const T* row = table[i * taps.y_stride + taps.dy[u]];
      for (int64_t v = 0; v < taps.columns; v++, k++) {
        if (k > 0 && k % kDepth == 0) end_block<N>(k, block, total);
        const V w = splat<V>(taps.weight[k]);
        const int64_t dx = taps.dx[v] + j * taps.x_stride;
        const Lanes mask = inside(dx);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
          V x = read(row + dx + n * W * taps.x_stride, taps.x_stride);
          block[n] = multiply_add(w, kMasked ? (mask ? x : V{}) : x, block[n]);
        }
      }
    }
    end_block<N>(k <= kDepth ? kDepth : k, block, total);
  }

  template <int N>
  static void end_block(int64_t k, V (&block)[N], V (&total)[N]) {
    for (int n = 0; n < N; n++) total[n] = k == kDepth ? block[n] : total[n] + block[n], block[n] = V{};
  }

  static V read(const T* from, int64_t stride) {
    if constexpr (kStride == 1) return load<V>(from);
    if constexpr (kStride == 2) return even(load<V>(from), load<V>(from + W));
    V v;
    for (int l = 0; l < W; l++) v[l] = from[l * stride];
    return v;
  }

  // Which lanes of a vector that begins at column x lie in the image.
  Lanes inside(int64_t x) const {
    Lanes at;
    for (int l = 0; l < W; l++) at[l] = l;
    at = at * Mask<T>(stride()) + Mask<T>(x);
    return (at >= 0) & (at < Mask<T>(width));
  }
};

template <class T>
void plane_sums(const Taps<T>& taps, const T* const* table, int64_t width, int64_t rows, int64_t columns, T* to) {
  const bool three = taps.rows == 3 && taps.columns == 3;
  if (taps.x_stride == 1) {
    three ? PlaneSums<T, 1, 3>{taps, table, width, rows, columns, to}.run()
          : PlaneSums<T, 1, 0>{taps, table, width, rows, columns, to}.run();
  } else if (taps.x_stride == 2) {
    three ? PlaneSums<T, 2, 3>{taps, table, width, rows, columns, to}.run()
          : PlaneSums<T, 2, 0>{taps, table, width, rows, columns, to}.run();
  } else {
    PlaneSums<T, 0, 0>{taps, table, width, rows, columns, to}.run();
  }
}

// Puts together rows of `width` of which part b holds every stride-th element from b on; parts are `size` apart.
template <class T>
void merge_columns(const T* parts, int64_t size, int64_t stride, int64_t rows, int64_t width, T* to, int64_t y_stride) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>;
  for (int64_t i = 0; i < rows; i++, to += y_stride) {
    int64_t done = 0;
    if (stride == 2) {
      const T *evens = parts + i * ceil_div(width, 2), *odds = parts + size + i * (width / 2);
      for (; done + 2 * W <= width; done += 2 * W) {
        Zipped<V> zipped = zip(load<V>(evens + done / 2), load<V>(odds + done / 2));
        store(to + done, zipped.low);
        store(to + done + W, zipped.high);
      }
    }
    for (int64_t b = 0; b < min_of(stride, width); b++) {
      const T* row = parts + b * size + i * ceil_div(width - b, stride);
      for (int64_t x = done + b, j = done / stride; x < width; x += stride, j++) to[x] = row[j];
    }
  }
}

// The planes of a call, numbered (image, channel).
template <class T>
struct Planes {
  const Call& call;
  Memory<T> memory;
  int64_t channels, size;

  explicit Planes(const Call& c) : call(c), memory(c.in[0]) {
    channels = call.out[0].shape[1];
    size = call.out[0].shape[2] * call.out[0].shape[3];
  }

  T* out(int64_t i) const { return (T*)call.out[0].data + i * size; }
  Plane<T> in(int64_t i) const {
    const View& v = call.in[0];
    const T* data = (const T*)v.data + i / channels * v.strides[0] + i % channels * v.strides[1];
    return {data, v.shape[2], v.shape[3], v.strides[2], v.strides[3], memory};
  }
  const T* weight(int64_t i) const { return (const T*)call.in[1].data + i % channels * call.in[1].strides[0]; }
  void finish(int64_t i) const {
    const int64_t c = i % channels;
    if (call.epilogue) call.epilogue->fn(call.epilogue->ctx, i / channels, c, c + 1, 0, size);
  }
};

// The taps of an axis that are of use, and what they read at output 0.
struct AxisTaps {
  int64_t count, stride, outputs;
  int64_t *number, *delta;

  // Of the convolution; `memory` has room for two numbers a tap.
  AxisTaps(const Axis& a, int64_t* memory) : count(a.kernel), stride(a.stride), outputs(a.output), number(memory) {
    delta = number + a.kernel;
    for (int64_t k = 0; k < count; k++) number[k] = k, delta[k] = k * a.dilation - a.pad;
  }

  // Of its gradient at the positions of a residue.
  AxisTaps(const Residue& r, int64_t* memory) : count(0), stride(1), outputs(r.count), number(memory) {
    const Axis& a = r.axis;
    delta = number + a.kernel;
    for (int64_t k = 0; k < a.kernel; k++) {
      if (!r.reached_by(k)) continue;
      number[count] = k;
      delta[count++] = (r.begin + a.pad - k * a.dilation) / a.stride;
    }
  }
};

// Sums over the taps of both axes in scratch memory of one thread.
template <class T>
struct Correlation {
  AxisTaps y, x;
  T* weight;
  Taps<T> taps;
  RowTable<T> rows;

  template <class Y, class X>
  Correlation(const Geometry& g, const Y& ys, const X& xs, char* memory)
      : y(ys, (int64_t*)memory),
        x(xs, (int64_t*)memory + 2 * g.y.kernel),
        weight((T*)((int64_t*)memory + 2 * (g.y.kernel + g.x.kernel))),
        taps{y.count, x.count, y.delta, x.delta, weight, y.stride, x.stride},
        rows(taps, y.outputs, x.outputs) {
    rows.use(memory + head(g));
  }

  // Of the numbers of the taps and the weight.
  static int64_t head(const Geometry& g) {
    return 2 * (g.y.kernel + g.x.kernel) * int64_t(sizeof(int64_t)) + ceil_div(g.taps(), 8) * 64;
  }
  // More than the rows or columns that the taps of an axis reach from all their outputs.
  static int64_t reach(const Axis& a) {
    const int64_t outputs = max_of(kWidth<T>, max_of(a.output, ceil_div(a.input, a.stride)));
    return (outputs + 1) * a.stride + a.kernel * a.dilation + a.pad;
  }
  static int64_t bytes(const Geometry& g, int64_t height) {
    return head(g) + ceil_div(reach(g.y) * 8 + (height + 1) * reach(g.x) * int64_t(sizeof(T)), 64) * 64;
  }

  void run(const Planes<T>& planes, int64_t i, T* to) const {
    if (y.outputs == 0 || x.outputs == 0) return;
    const T* w = planes.weight(i);
    const int64_t* strides = planes.call.in[1].strides;
    T* copy = weight;
    for (int64_t u = 0; u < y.count; u++) {
      for (int64_t v = 0; v < x.count; v++) *copy++ = w[y.number[u] * strides[2] + x.number[v] * strides[3]];
    }
    plane_sums(taps, rows.fill(planes.in(i)), planes.call.in[0].shape[3], y.outputs, x.outputs, to);
  }
};

template <class T>
void forward(const Call& call, const Geometry& g) {
  const Planes<T> planes(call);
  parallel_for(g.images * g.channels, grain_of(g.taps() * g.pixels()), [&](int64_t begin, int64_t end) {
    const Correlation<T> sums(g, g.y, g.x, (char*)nl_scratch(0, Correlation<T>::bytes(g, g.y.input)));
    for (int64_t i = begin; i < end; i++) {
      sums.run(planes, i, planes.out(i));
      planes.finish(i);
    }
  });
}

// Positions of equal residue see the same taps; each residue is dense until the columns are merged.
template <class T>
void input_gradient(const Call& call, const Geometry& g) {
  const Planes<T> planes(call);
  const int64_t ys = g.y.stride, xs = g.x.stride, width = g.x.input;
  const int64_t part = ceil_div(g.y.input, ys) * ceil_div(width, xs);
  const int64_t size = Correlation<T>::bytes(g, g.y.output) + ceil_div(sizeof(Correlation<T>), 64) * 64;
  parallel_for(g.images * g.channels, grain_of(g.taps() * g.pixels()), [&](int64_t begin, int64_t end) {
    char* memory = (char*)nl_scratch(0, ys * xs * size);
    T* parts = (T*)nl_scratch(1, xs * part * sizeof(T));
    auto sums = [=](int64_t r) { return (Correlation<T>*)(memory + r * size); };
    for (int64_t r = 0; r < ys * xs; r++) {
      *sums(r) = Correlation<T>(g, Residue(g.y, r / xs), Residue(g.x, r % xs), (char*)(sums(r) + 1));
    }
    for (int64_t i = begin; i < end; i++) {
      for (int64_t r = 0; r < ys * xs; r++) {
        sums(r)->run(planes, i, ys * xs == 1 ? planes.out(i) : parts + Residue(g.x, r % xs).begin * part);
        if (ys * xs == 1 || (r + 1) % xs != 0) continue;
        const Residue y(g.y, r / xs);
        merge_columns(parts, part, xs, y.count, width, planes.out(i) + y.begin * width, ys * width);
      }
      planes.finish(i);
    }
  });
}

}  // namespace

void conv2d_depthwise(const Call& call) {
  const Geometry g = geometry(call.in[0], call.in[1], call.out[0], call.attr);
  call.out[0].dtype == DType::f32 ? forward<float>(call, g) : forward<double>(call, g);
}

void conv2d_depthwise_input(const Call& call) {
  const Geometry g = geometry(call.out[0], call.in[1], call.in[0], call.attr);
  call.out[0].dtype == DType::f32 ? input_gradient<float>(call, g) : input_gradient<double>(call, g);
}

}  // namespace nl::NL_ISA
