// conv_depthwise_lanes.cpp: convolutions of single channels and their gradients with the channels across the vectors:
// where rows are short or apart by a stride.
//
// Strips of rows are transposed into vectors of channels, one a pixel, so that whatever a tap reads is a whole vector.
#include "conv_depthwise.hpp"
#include "conv_lanes.hpp"

namespace nl::NL_ISA {
namespace {

struct Tap {
  int64_t dy, dx;  // what it reads at row and column 0
  int64_t weight;  // its number
  int64_t at;      // where that is staged
};

// Results that see the same taps: every y_step-th row and x_step-th column of all.
struct Part {
  int64_t rows, columns, y_begin, x_begin;
  const Tap* taps;
  int64_t count;
};

template <class T>
struct LaneSums {
  using V = typename Simd<T>::V;
  static constexpr int W = kWidth<T>;
  static constexpr int kPixels = 8;  // side by side: a load of a weight serves them all

  const Call& call;
  const T* weights;
  int64_t taps;            // of a channel
  int64_t y_step, x_step;  // of the results of a part
  int64_t x_stride;        // of what they read
  Part* parts = nullptr;
  int64_t rows = 0;  // of the largest part
  LaneStage<T> stage = {};

  int64_t height() const { return call.out[0].shape[2]; }
  int64_t width() const { return call.out[0].shape[3]; }
  int64_t groups() const { return ceil_div(call.out[0].shape[1], W); }

  // The part of results that see the taps of `y` and `x`, listed from `to` on.
  Tap* add(Part& part, const AxisTaps& y, const AxisTaps& x, int64_t kernel_width, Tap* to) {
    part = {y.outputs, x.outputs, y.begin, x.begin, to, y.count * x.count};
    for (int64_t u = 0; u < y.count; u++) {
      for (int64_t v = 0; v < x.count; v++)
        *to++ = {y.delta[u], x.delta[v], y.number[u] * kernel_width + x.number[v], 0};
    }
    x_stride = x.stride, stage.step = y.stride;
    rows = max_of(rows, part.rows);
    return to;
  }

  // Finds what all parts read by the `listed` taps, and where it will be.
  void lay_out(Tap* tap, int64_t listed) {
    int64_t bottom = listed > 0 ? tap->dy : 0, right = call.in[0].shape[3];
    stage.top = bottom, stage.left = 0;
    for (int64_t t = 0; t < listed; t++) {
      stage.top = min_of(stage.top, tap[t].dy), bottom = max_of(bottom, tap[t].dy);
      stage.left = min_of(stage.left, tap[t].dx);
    }
    for (int64_t p = 0; p < y_step * x_step; p++) {
      for (int64_t t = 0; t < parts[p].count; t++) {
        right = max_of(right, (parts[p].columns - 1) * x_stride + parts[p].taps[t].dx + 1);
      }
    }
    stage.span = bottom - stage.top + 1, stage.pitch = right - stage.left;
    for (int64_t t = 0; t < listed; t++) {
      tap[t].at = ((tap[t].dy - stage.top) * stage.pitch + tap[t].dx - stage.left) * W;
    }
  }

  // Units are strips of rows of an image's vector of channels.
  void run() const {
    const int64_t results = y_step * width() * W;  // of a row of all parts
    const int64_t each = strip_rows(rows, (stage.step * stage.pitch * W + results) * int64_t(sizeof(T)));
    const int64_t strips = ceil_div(rows, each), images = call.out[0].shape[0];
    const int64_t pixels = stage.rows(each) * call.in[0].shape[3];
    const int64_t size = (stage.size(each) + each * results + taps * W) * int64_t(sizeof(T));
    parallel_for(groups() * images * strips, grain_of(each * results * taps), [=](int64_t begin, int64_t end) {
      T* sums = (T*)nl_scratch(0, size + pixels * int64_t(sizeof(int64_t)));
      T* weight = sums + each * results;
      LaneStage<T> seen = stage;
      seen.use(weight + taps * W, (int64_t*)((char*)sums + size), each, call.in[0].shape[3]);
      for (int64_t u = begin; u < end; u++) {
        const int64_t strip = u % strips, image = u / strips % images, group = u / strips / images;
        const int64_t first = strip * each, stop = min_of(rows, first + each);
        const LaneGroup<T> from(call.in[0], image, group);
        if (u == begin || u % (strips * images) == 0) fill(from, weight);
        seen.fill(from, first, stop, u > begin && strip > 0);
        for (int64_t p = 0; p < y_step * x_step; p++) {
          run(parts[p], seen.data, weight, first, min_of(stop, parts[p].rows), sums);
        }
        put(sums, image, group, first * y_step, min_of(height(), stop * y_step));
      }
    });
  }

  // The weights of a group's channels, [tap][lane].
  void fill(const LaneGroup<T>& group, T* to) const {
    const T* from = weights + group.first * taps;
    const int64_t readable = (call.in[1].shape[0] - group.first - group.count + 1) * taps;
    pack_transposed(from, taps, readable, {0, 0, 0, 0, int(group.count), int(taps), 0, W}, to, [](int k) { return k; });
  }

  // Rows [first, stop) of a part, into all results of the strip that begins with row `first`.
  void run(const Part& part, const T* seen, const T* weight, int64_t first, int64_t stop, T* to) const {
    const int64_t pieces = ceil_div(part.columns, kPixels);
    for (int64_t i = 0; i < pieces; i++) {
      const int64_t begin = i * part.columns / pieces, count = (i + 1) * part.columns / pieces - begin;
      T* sums = to + (part.y_begin * width() + part.x_begin + begin * x_step) * W;
      columns<kPixels>(count)(*this, part, seen + begin * x_stride * W, weight, stop - first, sums);
    }
  }

  using Columns = void (*)(const LaneSums&, const Part&, const T*, const T*, int64_t, T*);
  template <int N>
  static Columns columns(int64_t count) {
    if constexpr (N > 1) {
      if (count < N) return columns<N - 1>(count);
    }
    return columns_of<N>;
  }

  // N columns of some rows.
  template <int N>
  static void columns_of(const LaneSums& conv, const Part& part, const T* seen, const T* weight, int64_t rows, T* to) {
    const int64_t x_stride = conv.x_stride * W, x_step = conv.x_step * W;
    const int64_t y_stride = conv.stage.step * conv.stage.pitch * W, y_step = conv.y_step * conv.width() * W;
    const Tap* taps = part.taps;
    const int64_t count = part.count;
    for (int64_t i = 0; i < rows; i++, seen += y_stride, to += y_step) {
      int64_t t = 0;
      do {
        V sum[N] = {};
        const int64_t begin = t, stop = min_of(count, t + kDepth);
        for (; t < stop; t++) {
          const V w = load<V>(weight + taps[t].weight * W);
          const T* from = seen + taps[t].at;
#pragma GCC unroll 8
          for (int n = 0; n < N; n++) sum[n] = multiply_add(w, load<V>(from + n * x_stride), sum[n]);
        }
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) store(to + n * x_step, begin > 0 ? load<V>(to + n * x_step) + sum[n] : sum[n]);
      } while (t < count);
    }
  }

  // Rows [begin, stop) of the results to their planes.
  void put(const T* sums, int64_t image, int64_t group, int64_t begin, int64_t stop) const {
    const LaneGroup<T> to(call.out[0], image, group);
    deinterleave(sums, kWidth<T>, (stop - begin) * width(), to.row(begin).lane, to.count, 1);
    if (!call.epilogue) return;
    const int64_t c = to.first;
    call.epilogue->fn(call.epilogue->ctx, image, c, c + to.count, begin * width(), stop * width());
  }
};

// Of a convolution, or of its gradient: positions of equal residue see the same taps.
template <class T, bool kGradient>
void correlate(const Call& call, const Geometry& g) {
  const T* weights = contiguous<T>(call.in[1]);
  const int64_t ys = kGradient ? Residue::number(g.y) : 1, xs = kGradient ? Residue::number(g.x) : 1;
  const int64_t numbers = 2 * (g.y.kernel + g.x.kernel);
  Part* parts =
      (Part*)nl_scratch(2, ys * xs * sizeof(Part) + g.taps() * sizeof(Tap) + numbers * int64_t(sizeof(int64_t)));
  Tap *taps = (Tap*)(parts + ys * xs), *next = taps;
  int64_t *y_numbers = (int64_t*)(taps + g.taps()), *x_numbers = y_numbers + 2 * g.y.kernel;
  LaneSums<T> sums = {call, weights, g.taps(), ys, xs, 0, parts};
  for (int64_t p = 0; p < ys * xs; p++) {
    if constexpr (kGradient) {
      const AxisTaps y(Residue(g.y, p / xs), y_numbers), x(Residue(g.x, p % xs), x_numbers);
      next = sums.add(parts[p], y, x, g.x.kernel, next);
    } else {
      next = sums.add(parts[p], AxisTaps(g.y, y_numbers), AxisTaps(g.x, x_numbers), g.x.kernel, next);
    }
  }
  sums.lay_out(taps, next - taps);
  sums.run();
}

}  // namespace

void conv2d_depthwise_lanes(const Call& call) {
  const Geometry g = conv2d_geometry(call);
  call.out[0].dtype == DType::f32 ? correlate<float, false>(call, g) : correlate<double, false>(call, g);
}

void conv2d_depthwise_lanes_input(const Call& call) {
  const Geometry g = conv2d_input_geometry(call);
  call.out[0].dtype == DType::f32 ? correlate<float, true>(call, g) : correlate<double, true>(call, g);
}

}  // namespace nl::NL_ISA
