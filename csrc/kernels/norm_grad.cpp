// norm_grad.cpp: the gradients of layer_norm and rms_norm by their input, weight and bias, in one pass over the rows.
//
// With normal = (x - mean - rest) / deviation and gn = g weight the input's gradient is (gn - mean(gn) - normal mean(gn
// normal)) / deviation; rms_norm leaves the means of x and gn out. The weight's is the sum of g normal over rows, the
// bias's that of g. Every operation is rounded as in the definition and all sums are T(n).
//
// Rows of one lane are taken two at a time: their own sums first, then all results together, so that the lane's sums
// over rows are read and written once for both and nothing else is kept. (Rows one by one, with eight lanes' sums in
// turn, took twice the time: sums did not stay in L1; nor do four rows that lie a multiple of 4 KiB apart.)
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

// Lanes r, r + 4, … of a block of rows are a unit of work, so that it leaves one lane, halved from eight.
constexpr int kUnits = 4, kUnitLanes = kLanes / kUnits;

// The least power of two that is n at least, or `most`.
int64_t power_of_two(int64_t n, int64_t most) {
  int64_t power = 1;
  while (power < n && power < most) power *= 2;
  return power;
}

template <class T, bool kCentred>
struct NormGrad {
  using V = typename Simd<T>::V;
  using Tree = TreeRow<Sum<T>>;
  static constexpr int W = Simd<T>::kWidth;
  static constexpr int kRows = 2;                 // of a lane taken together
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

  static V centred(V v, V mean, V rest) { return kCentred ? v - mean - rest : v; }

  // What the gradients of a row take from sums over it.
  struct Means {
    V mean, rest, inverse, scaled, product;
  };

  // Those of R rows.
  template <int R>
  __attribute__((always_inline)) void means(const T* const (&in)[R], const T* const (&grad)[R], Means (&all)[R]) const {
    T mean[R] = {}, rest[R] = {}, variance[R], inverse[R], scaled[R] = {}, product[R];
    auto divide = [this](auto sums, T* to) {
      for (int r = 0; r < R; r++) to[r] = sums[r] / T(n);
    };
    auto times_weight = [w = weight](const T* by, int64_t k) { return load<V>(by + k) * load<V>(w + k); };
    if constexpr (kCentred) {
      const auto sums = Tree::template both_of<R>(
          in, 0, n, [](int) { return typename Tree::Element(); },
          [=](int r) { return [=, by = grad[r]](V, const T*, int64_t k) { return times_weight(by, k); }; });
      divide(sums.a, mean), divide(sums.b, scaled);
    }
    auto square_at = [&](int r) {
      return [m = splat<V>(mean[r])](V v, const T*, int64_t) {
        const V d = kCentred ? v - m : v;
        return d * d;
      };
    };
    if constexpr (kCentred) {
      auto distance_at = [&](int r) { return [m = splat<V>(mean[r])](V v, const T*, int64_t) { return v - m; }; };
      const auto sums = Tree::template both_of<R>(in, 0, n, distance_at, square_at);
      divide(sums.a, rest), divide(sums.b, variance);
      for (int r = 0; r < R; r++) variance[r] = without_rounding(variance[r], rest[r] * rest[r]);
    } else {
      divide(Tree::template long_ones<R>(in, 0, n, square_at), variance);
    }
    for (int r = 0; r < R; r++) inverse[r] = T(1) / square_root(variance[r] + eps);
    auto product_at = [&](int r) {
      return [=, by = grad[r], m = splat<V>(mean[r]), b = splat<V>(rest[r]), i = splat<V>(inverse[r])](
                 V v, const T*, int64_t k) { return times_weight(by, k) * (centred(v, m, b) * i); };
    };
    divide(Tree::template long_ones<R>(in, 0, n, product_at), product);
    for (int r = 0; r < R; r++) {
      all[r] = {splat<V>(mean[r]), splat<V>(rest[r]), splat<V>(inverse[r]), splat<V>(scaled[r]), splat<V>(product[r])};
    }
  }

  // Rows first, first + 32, …: their gradients; adds to the sums of their lane. Meanwhile the rows from `next` on are
  // asked for. `memory` has room for 2 R rows.
  template <int R>
  void rows(int64_t first, int64_t next, T* memory, T* sums) const {
    const T *in[R], *grad[R], *next_in[R], *next_grad[R];
    T* to[R];
    Means of[R];
#pragma GCC unroll 2
    for (int r = 0; r < R; r++) {
      in[r] = contiguous(row_of(x, first + r * kLanes), memory + 2 * r * pitch);
      grad[r] = contiguous(row_of(g, first + r * kLanes), memory + (2 * r + 1) * pitch);
      next_in[r] = row_of(x, next + r * kLanes).data, next_grad[r] = row_of(g, next + r * kLanes).data;
      to[r] = (T*)out.data + (first + r * kLanes) * out.strides[0];
    }
    means<R>(in, grad, of);
    T* bias_sums = sums + pitch;
    auto results = [&, weight = weight](int64_t k, V(&v)[R]) __attribute__((always_inline)) {
      const V w = load<V>(weight + k);
      V weight_sum = load<V>(sums + k), bias_sum = kCentred ? load<V>(bias_sums + k) : V{};
#pragma GCC unroll 2
      for (int r = 0; r < R; r++) {
        __builtin_prefetch(next_in[r] + k, 0, 2);
        __builtin_prefetch(next_grad[r] + k, 0, 2);
        const V by = load<V>(grad[r] + k), normal = centred(load<V>(in[r] + k), of[r].mean, of[r].rest) * of[r].inverse;
        const V scaled = kCentred ? by * w - of[r].scaled : by * w;
        v[r] = of[r].inverse * (scaled - normal * of[r].product);
        weight_sum = weight_sum + by * normal;
        bias_sum = bias_sum + by;
      }
      store(sums + k, weight_sum);
      if (kCentred) store(bias_sums + k, bias_sum);
    };
    const int64_t step = out.strides[1], whole = step == 1 ? n - n % W : 0;
    int64_t k = 0;
    while (k < whole) {
      for (const int64_t stop = min_of(whole, k + kGrain); k < stop; k += W) {
        V v[R];
        results(k, v);
#pragma GCC unroll 2
        for (int r = 0; r < R; r++) stream ? stream_store(to[r] + k, v[r]) : store(to[r] + k, v[r]);
      }
      if (k < whole) nl_check_interrupt();
    }
    Polls polls;
    for (; k < n; k += W) {
      V v[R];
      results(k, v);
      for (int r = 0; r < R; r++) {
        for (int64_t l = 0; l < min_of(W, n - k); l++) to[r][(k + l) * step] = v[r][l];
      }
      polls.after(R * W);
    }
  }

  static void add(T* a, const T* b, int64_t n) {
    for (int64_t k = 0; k < n; k += W) store(a + k, load<V>(a + k) + load<V>(b + k));
  }

  // Lanes unit, unit + 4, … of the rows [begin, end) of a block, of which there are no more than `count`; their sums,
  // halved, end in the first lane of `lanes`.
  void unit(int64_t begin, int64_t end, int unit, int64_t count, T* memory, T* lanes) const {
    const int64_t size = kSums * pitch;
    __builtin_memset(lanes, 0, count * size * sizeof(T));
    for (int64_t j = 0; j < count; j++) {
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
    for (int64_t half = count / 2; half > 0; half /= 2) add(lanes, lanes + half * size, half * size);
  }
};

// Joins what the units of all blocks left, [block, unit, pitch] of `sums`, for elements [begin, end).
template <class T>
void join(T* sums, int64_t blocks, int64_t units, int64_t step, int64_t begin, int64_t end) {
  Polls polls;
  auto add = [&](int64_t to, int64_t from) {
    NormGrad<T, true>::add(sums + to * step + begin, sums + from * step + begin, end - begin);
    polls.after(end - begin);
  };
  for (int64_t b = 0; b < blocks; b++) {
    for (int64_t half = units / 2; half > 0; half /= 2) {
      for (int64_t l = 0; l < half; l++) add(b * units + l, b * units + l + half);
    }
  }
  for (int64_t span = 1; span < blocks; span *= 2) {
    for (int64_t b = 0; b + span < blocks; b += 2 * span) add(b * units, (b + span) * units);
  }
}

template <class T, bool kCentred>
int run(const Call& call) {
  using Grad = NormGrad<T, kCentred>;
  const View &g = call.in[0], &x = call.in[1], &weight = call.in[2], &out = call.out[0];
  const int64_t rows = x.shape[0], n = x.shape[1], pitch = whole_steps(n), blocks = max_of(1, ceil_div(rows, kBlock));
  if (n == 0) return kOk;
  const T eps = T(double_of(call.attr[0]));
  const int64_t size = Grad::kSums * pitch, units = power_of_two(rows, kUnits);
  const int64_t unit_rows = ceil_div(min_of(rows, kBlock), kUnits), lanes_used = power_of_two(unit_rows, kUnitLanes);
  const int64_t together = rows > (Grad::kRows - 1) * kLanes ? Grad::kRows : 1;
  T* shared = (T*)nl_scratch(0, (pitch + units * blocks * size) * sizeof(T));
  T* sums = shared + pitch;
  gather_row((const T*)weight.data, weight.strides[0], n, shared);
  __builtin_memset(shared + n, 0, (pitch - n) * sizeof(T));
  const bool stream = out.strides[1] == 1 && streams<T>(out, n, rows, 2);
  const Grad grad{g, x, out, shared, n, pitch, eps, stream};
  parallel_for(blocks * units, grain_of(8 * n * unit_rows), [&](int64_t begin, int64_t end) {
    T* memory = (T*)nl_scratch(1, 2 * together * pitch * sizeof(T));
    T* lanes = (T*)nl_scratch(2, lanes_used * size * sizeof(T));
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i / units * kBlock;
      grad.unit(first, min_of(rows, first + kBlock), int(i % units), lanes_used, memory, lanes);
      __builtin_memcpy(sums + i * size, lanes, size * sizeof(T));
    }
    if (stream) stream_fence();
  });
  const int64_t chunk = whole_steps(ceil_div(n, 2 * nl_num_threads()));
  parallel_for(Grad::kSums * ceil_div(n, chunk), grain_of(chunk * blocks * units), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t s = i % Grad::kSums, first = i / Grad::kSums * chunk, last = min_of(n, first + chunk);
      T* part = sums + s * pitch;
      join(part, blocks, units, size, first, last);
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
