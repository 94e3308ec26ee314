// norm_grad.cpp: the gradients of layer_norm and rms_norm by their input, weight and bias, in one pass over the rows.
//
// With normal = (x - mean) / deviation and gn = g weight the input's gradient is (gn - mean(gn) - normal mean(gn
// normal)) / deviation; rms_norm leaves the means of x and gn out. The weight's is the sum of g normal over rows, the
// bias's that of g. Every operation is rounded as in the definition and all sums are T(n).
//
// Rows of one lane are taken a few at a time: their own sums first, then all results together, so that the lane's sums
// over rows are read and written once for all of them and nothing else is kept. (Rows one by one, with eight lanes'
// sums in turn, took twice the time: sums did not stay in L1.)
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

// Lanes r, r + 4, … of a block of rows are a unit of work, so that it leaves one lane, halved from eight.
constexpr int kUnits = 4, kUnitLanes = kLanes / kUnits;

template <class T, bool kCentred>
struct NormGrad {
  using V = typename Simd<T>::V;
  using Tree = TreeRow<Sum<T>>;
  static constexpr int W = Simd<T>::kWidth;
  static constexpr int kRows = W < 4 ? W : 4;     // of a lane taken together
  static constexpr int kSums = kCentred ? 2 : 1;  // over rows: the weight's, the bias's

  const View &g, &x, &out;
  const T* weight;  // contiguous, in whole steps
  int64_t n, pitch;
  T eps;
  bool stream;

  static Strided<T> row_of(const View& v, int64_t i) {
    return {(const T*)v.data + i * v.strides[0], v.strides[1], end_of<T>(v)};
  }

  // The row where whole steps of it may be read.
  const T* contiguous(const Strided<T>& row, T* buffer) const {
    if (row.stride == 1 && row.end - row.data >= whole_steps(n)) return row.data;
    gather_row(row.data, row.stride, n, buffer);
    for (int64_t k = n; k < whole_steps(n); k++) buffer[k] = 0;
    return buffer;
  }

  static V centred(V v, V mean) { return kCentred ? v - mean : v; }

  // Rows first, first + 32, …: their gradients; adds to the sums of their lane. Meanwhile the rows from `next` on are
  // asked for. `memory` has room for 2 R + 1 rows.
  template <int R>
  void rows(int64_t first, int64_t next, T* memory, T* sums) const {
    const T *in[R], *grad[R], *next_in[R], *next_grad[R];
    T *to[R], mean[R], inverse[R], mean_scaled[R], mean_product[R];
    for (int r = 0; r < R; r++) {
      in[r] = contiguous(row_of(x, first + r * kLanes), memory + 2 * r * pitch);
      grad[r] = contiguous(row_of(g, first + r * kLanes), memory + (2 * r + 1) * pitch);
      next_in[r] = row_of(x, next + r * kLanes).data, next_grad[r] = row_of(g, next + r * kLanes).data;
      to[r] = (T*)out.data + (first + r * kLanes) * out.strides[0];
    }
    auto means = [this, &in](T* to, auto&& term_at) __attribute__((always_inline)) {
      const auto sums = Tree::template long_ones<R>(in, 0, n, term_at);
      for (int r = 0; r < R; r++) to[r] = sums[r] / T(n);
    };
    for (T& m : mean) m = 0;
    if (kCentred) means(mean, [](int) { return typename Tree::Element(); });
    means(inverse, [&](int r) {
      return [m = splat<V>(mean[r])](V v, const T*, int64_t) {
        const V d = centred(v, m);
        return d * d;
      };
    });
    for (T& i : inverse) i = T(1) / square_root(i + eps);
    auto scaled = [w = weight](const T* by, int64_t k) { return load<V>(by + k) * load<V>(w + k); };
    auto scaled_at = [&](int r) { return [=, by = grad[r]](V, const T*, int64_t k) { return scaled(by, k); }; };
    if (kCentred) means(mean_scaled, scaled_at);
    means(mean_product, [&](int r) {
      return [=, by = grad[r], m = splat<V>(mean[r]), i = splat<V>(inverse[r])](V v, const T*, int64_t k) {
        return scaled(by, k) * (centred(v, m) * i);
      };
    });
    const bool strided = out.strides[1] != 1;
    T* line = memory + 2 * R * pitch;
    for (int64_t k = 0; k < n; k += W) {
      const V w = load<V>(weight + k);
      V weight_sum = load<V>(sums + k), bias_sum = kCentred ? load<V>(sums + pitch + k) : V{};
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        __builtin_prefetch(next_in[r] + k, 0, 2);
        __builtin_prefetch(next_grad[r] + k, 0, 2);
        const V by = load<V>(grad[r] + k), inv = splat<V>(inverse[r]);
        const V normal = centred(load<V>(in[r] + k), splat<V>(mean[r])) * inv;
        V v = by * w;
        if (kCentred) v = v - splat<V>(mean_scaled[r]);
        v = inv * (v - normal * splat<V>(mean_product[r]));
        weight_sum = weight_sum + by * normal;
        bias_sum = bias_sum + by;
        if (k + W <= n && !strided) {
          stream ? stream_store(to[r] + k, v) : store(to[r] + k, v);
        } else {
          store(line, v);
          for (int64_t l = 0; l < min_of(W, n - k); l++) to[r][(k + l) * out.strides[1]] = line[l];
        }
      }
      store(sums + k, weight_sum);
      if (kCentred) store(sums + pitch + k, bias_sum);
    }
  }

  static void add(T* a, const T* b, int64_t n) {
    for (int64_t k = 0; k < n; k += W) store(a + k, load<V>(a + k) + load<V>(b + k));
  }

  // Lanes unit, unit + 4, … of the rows [begin, end) of a block; their sums, halved, end in the first lane of `lanes`.
  void unit(int64_t begin, int64_t end, int unit, T* memory, T* lanes) const {
    const int64_t size = kSums * pitch;
    __builtin_memset(lanes, 0, kUnitLanes * size * sizeof(T));
    for (int j = 0; j < kUnitLanes; j++) {
      int64_t i = begin + unit + j * kUnits;
      auto row_after = [&](int64_t rows) {
        const int64_t next = i + rows * kLanes, other = begin + unit + (j + 1) * kUnits;
        return next + (kRows - 1) * kLanes < end ? next : other + (kRows - 1) * kLanes < end ? other : i;
      };
      for (; i + (kRows - 1) * kLanes < end; i += kRows * kLanes) {
        rows<kRows>(i, row_after(kRows), memory, lanes + j * size);
      }
      for (; i < end; i += kLanes) rows<1>(i, i, memory, lanes + j * size);
    }
    for (int half = kUnitLanes / 2; half > 0; half /= 2) add(lanes, lanes + half * size, half * size);
  }
};

// Joins what the units of all blocks left, [block, unit, pitch] of `sums`, for elements [begin, end).
template <class T>
void join(T* sums, int64_t blocks, int64_t step, int64_t begin, int64_t end) {
  auto add = [=](int64_t to, int64_t from) {
    NormGrad<T, true>::add(sums + to * step + begin, sums + from * step + begin, end - begin);
  };
  for (int64_t b = 0; b < blocks; b++) {
    for (int half = kUnits / 2; half > 0; half /= 2) {
      for (int l = 0; l < half; l++) add(b * kUnits + l, b * kUnits + l + half);
    }
  }
  for (int64_t span = 1; span < blocks; span *= 2) {
    for (int64_t b = 0; b + span < blocks; b += 2 * span) add(b * kUnits, (b + span) * kUnits);
  }
}

template <class T, bool kCentred>
int run(const Call& call) {
  using Grad = NormGrad<T, kCentred>;
  const View &g = call.in[0], &x = call.in[1], &weight = call.in[2], &out = call.out[0];
  const int64_t rows = x.shape[0], n = x.shape[1], pitch = whole_steps(n), blocks = max_of(1, ceil_div(rows, kBlock));
  if (n == 0) return kOk;
  const T eps = T(double_of(call.attr[0]));
  const int64_t size = Grad::kSums * pitch;
  T* shared = (T*)nl_scratch(0, (pitch + kUnits * blocks * size) * sizeof(T));
  T* sums = shared + pitch;
  gather_row((const T*)weight.data, weight.strides[0], n, shared);
  __builtin_memset(shared + n, 0, (pitch - n) * sizeof(T));
  const bool stream = out.strides[1] == 1 && streams<T>(out, n, rows);
  const Grad grad{g, x, out, shared, n, pitch, eps, stream};
  const int64_t unit_rows = ceil_div(min_of(rows, kBlock), kUnits);
  parallel_for(blocks * kUnits, grain_of(8 * n * unit_rows), [&](int64_t begin, int64_t end) {
    T* memory = (T*)nl_scratch(1, (2 * Grad::kRows + 1) * pitch * sizeof(T));
    T* lanes = (T*)nl_scratch(2, kUnitLanes * size * sizeof(T));
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i / kUnits * kBlock;
      grad.unit(first, min_of(rows, first + kBlock), int(i % kUnits), memory, lanes);
      __builtin_memcpy(sums + i * size, lanes, size * sizeof(T));
    }
    if (stream) stream_fence();
  });
  const int64_t chunk = whole_steps(ceil_div(n, 2 * nl_num_threads()));
  parallel_for(Grad::kSums * ceil_div(n, chunk), grain_of(chunk * blocks * kUnits), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t s = i % Grad::kSums, first = i / Grad::kSums * chunk, last = min_of(n, first + chunk);
      T* part = sums + s * pitch;
      join(part, blocks, size, first, last);
      T* to = (T*)call.out[1 + s].data;
      for (int64_t k = first; k < last; k++) to[k * call.out[1 + s].strides[1]] = part[k];
    }
  });
  return kOk;
}

}  // namespace

int layer_norm_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? run<double, true>(call) : run<float, true>(call);
}

int rms_norm_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? run<double, false>(call) : run<float, false>(call);
}

}  // namespace nl::NL_ISA
