// conv_pixels.cpp: convolutions of one tap from pixels to pixels, where images and result have their channels last, and
// their gradients by the input at stride 1, which go from pixels of the maps to those of the images.
//
// A product of matrices as they lie: pixels, rows of channels, times panels of weights. A unit is some panels of pixels
// that meet all weights, or a part of these where there are few pixels. Weights that stay in L2 meet two panels at a
// time (four: up to a quarter slower with 16 to 24 channels, the same with more; one: 5 % slower): what a unit reads
// and writes is adjacent then, and the pixels of the next one come into L2 meanwhile. Others come from memory while
// those before them meet all pixels.
#include "conv_pixels.hpp"

#include "conv_packed.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kNearPanels = 2, kFarPanels = 8;

template <class T>
struct Pixels {
  const View &images, &result;
  const Epilogue* epilogue;
  Grid grid;  // of the pixels of all images
  PackedWeights<T> weights;
  Reach reach = NL_ISA::reach(weights, result, epilogue);

  int64_t depth() const { return weights.depth; }
  int64_t count() const { return images.shape[0] * grid.ys * grid.xs; }
  int64_t row_panels() const { return NL_ISA::row_panels(count()); }
  int64_t row(int64_t p) const { return row_panel_begin(count(), p); }

  bool is_even() const {
    return grid.y_stride == grid.xs * grid.x_stride &&
           (images.shape[0] == 1 || grid.plane_stride == grid.ys * grid.y_stride);
  }
  // Whether pixels are evenly spaced, and do not crowd the same sets of L1; else they are copied, a unit at a time.
  bool in_place() const { return is_even() && !aliases<T>(grid.x_stride); }
  int64_t copy_pitch() const { return depth() + kWidth<T>; }  // spreads pixels over the sets of L1

  // Row panels [p0, p1) and panels [q0, q1) of the weights.
  struct Unit {
    const Pixels& conv;
    int64_t p0, p1, q0, q1;
    bool goes_on;  // the next unit follows on this thread
    const T* data;
    int64_t pitch;  // of pixels
    const T* ahead = nullptr;
    int64_t ahead_step = 0, ahead_panels = 0;  // of pixels, the last ones, whose kernels fetch what lies ahead
    int64_t begin[kFarPanels + 1] = {};        // of each panel of pixels, and where the last one ends

    void run() {
      for (int64_t p = p0; p <= p1; p++) begin[p - p0] = conv.row(p);
      if (conv.is_even() && goes_on) look_ahead();
      for (int64_t q = q0; q < q1; q += kFinishedPanels) {
        if (q > q0) nl_check_interrupt();
        const int64_t stop = min_of(q + kFinishedPanels, q1);
        for (int64_t i = q; i < stop; i++) {
          for (int64_t k = 0; k < conv.depth(); k += kDepth) multiply(i, k);
        }
        finish_tiles(conv.epilogue, conv.result, 0, conv.weights.begin(q), conv.weights.begin(stop), begin[0],
                     begin[p1 - p0]);
      }
    }

    // The next unit's pixels lie behind this one's. Where weights come from beyond L2, most kernels fetch those.
    void look_ahead() {
      constexpr int64_t kLine = 64 / sizeof(T);
      const int64_t stride = conv.grid.x_stride, panels = p1 - p0, steps = (q1 - q0) * conv.depth();
      const int64_t own = (begin[panels] - begin[0]) * stride;
      ahead = (const T*)conv.images.data + begin[panels] * stride;
      ahead_panels = conv.weights.is_near() ? panels : min_of(panels - 1, ceil_div(own, steps * kLine));
      if (ahead_panels > 0) ahead_step = ceil_div(own, steps * ahead_panels);
    }

    void multiply(int64_t q, int64_t k) {
      const PackedWeights<T>& w = conv.weights;
      const int64_t steps = min_of(kDepth, conv.depth() - k), outputs = conv.result.shape[1];
      const int64_t line = w.begin(q), lines = w.begin(q + 1) - line;
      Panel<T> b = {w.data + q * w.panel_size() + k * w.pitch(), 1, w.pitch()};
      b.far = conv.reach.far, b.past = conv.reach.past;
      const int64_t panels = p1 - p0, others = panels - ahead_panels;
      for (int64_t p = 0; p < panels; p++) {
        const int64_t first = begin[p], rows = begin[p + 1] - first;
        const Panel<T> a = {data + (first - begin[0]) * pitch + k, pitch, 1};
        if (p < others) {
          b.fetch_next(b.data + steps * b.step, steps, p, others);
        } else {
          b.next = ahead, b.next_step = ahead_step, ahead += steps * ahead_step;
        }
        sum_pixels(PanelKind::strided_with_next, steps, rows, lines, a, b, k > 0,
                   (T*)conv.result.data + first * outputs + line, outputs);
      }
    }
  };

  void copy(int64_t begin, int64_t stop, T* to) const {
    for (int64_t i = begin; i < stop; i++, to += copy_pitch()) {
      int64_t offset[1];
      offsets_of(grid, i, 1, offset);
      copy_line((const T*)images.data + *offset, depth(), to);
    }
  }

  // Blocks of pixels for all threads; where they are fewer, threads share the weights too.
  void run() const {
    const int64_t threads = nl_num_threads(), all = row_panels(), lines = weights.panels();
    int64_t blocks = ceil_div(all, weights.is_near() ? kNearPanels : kFarPanels);
    if (blocks > 1) blocks = min_of(all, ceil_div(blocks, threads) * threads);
    const int64_t parts = blocks >= threads ? 1 : min_of(lines, threads / gcd(threads, blocks));
    const int64_t most = ceil_div(all, blocks) * kTileRows;
    parallel_for(blocks * parts, 1, [&](int64_t begin, int64_t end) {
      T* copies = in_place() ? nullptr : (T*)nl_scratch(0, most * copy_pitch() * int64_t(sizeof(T)));
      for (int64_t u = begin; u < end; u++) {
        const int64_t b = u / parts, part = u % parts, p0 = b * all / blocks, p1 = (b + 1) * all / blocks;
        const int64_t pitch = in_place() ? grid.x_stride : copy_pitch();
        const T* data = in_place() ? (const T*)images.data + row(p0) * pitch : copies;
        if (!in_place()) copy(row(p0), row(p1), copies);
        Unit{*this, p0, p1, part * lines / parts, (part + 1) * lines / parts, u + 1 < end, data, pitch}.run();
      }
      if (reach.past) stream_fence();
    });
  }
};

// From the channels of the first operand's pixels in `grid`, `depth` of each, to `lines`; pack(weights) fills these.
template <class T, class Pack>
void convolve(const Call& call, const Grid& grid, int64_t lines, int64_t depth, const Pack& pack) {
  PackedWeights<T> weights = {lines, depth, true, true};
  const int64_t bytes = weights.size(1) * int64_t(sizeof(T));
  weights.data = (T*)(call.kept ? nl_keep(call.kept, bytes) : nl_scratch(2, bytes));
  make_once(call.kept, [&] { pack(weights); });
  Pixels<T>{call.in[0], call.out[0], call.epilogue, grid, weights}.run();
}

template <class T>
void forward(const Call& call, const Geometry& g) {
  const View& v = call.in[0];
  const Grid grid = {g.y.output, g.x.output, v.strides[0], v.strides[2] * g.y.stride, v.strides[3] * g.x.stride};
  convolve<T>(call, grid, g.outputs, g.channels, [&](const PackedWeights<T>& w) { w.pack(call.in[1], 1); });
}

template <class T>
void input_gradient(const Call& call, const Geometry& g) {
  const View& v = call.in[0];
  const Grid grid = {g.y.output, g.x.output, v.strides[0], v.strides[2], v.strides[3]};
  convolve<T>(call, grid, g.channels, g.outputs, [&](const PackedWeights<T>& w) { w.pack_input(call.in[1], 1); });
}

bool has_one_tap(const Geometry& g) { return g.taps() == 1 && g.groups == 1 && g.y.pad == 0 && g.x.pad == 0; }

bool between_pixels(const Call& call) { return channels_last(call.in[0]) && channels_last(call.out[0]); }

}  // namespace

bool conv2d_pixels(const Call& call) {
  const Geometry g = conv2d_geometry(call);
  if (!has_one_tap(g) || !between_pixels(call)) return false;
  call.out[0].dtype == DType::f32 ? forward<float>(call, g) : forward<double>(call, g);
  return true;
}

bool conv2d_pixels_input(const Call& call) {
  const Geometry g = conv2d_input_geometry(call);
  if (!has_one_tap(g) || g.y.stride > 1 || g.x.stride > 1 || !between_pixels(call)) return false;
  call.out[0].dtype == DType::f32 ? input_gradient<float>(call, g) : input_gradient<double>(call, g);
  return true;
}

}  // namespace nl::NL_ISA
