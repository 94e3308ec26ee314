// norm_grad.cpp: the gradients of layer_norm and rms_norm by their input, weight and bias, in one pass over the rows.
//
// With normal = (x - mean) / deviation and gn = g weight the input's gradient is (gn - mean(gn) - normal mean(gn
// normal)) / deviation; rms_norm leaves the means of x and gn out. The weight's is the sum of g normal over rows, the
// bias's that of g. Every operation is rounded as in the definition and all sums are T(n). A unit of work is a few
// lanes of one block of rows, whose sums stay in the caches; rows are read in runs of kGroup. Lanes and blocks are
// joined afterwards.
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

template <class T>
constexpr int64_t whole(int64_t n) {
  return whole_steps(n) + kLanes;
}

constexpr int kGroup = 8;  // lanes in a unit of work

template <class T, bool kCentred>
struct NormGrad {
  using V = typename Simd<T>::V;
  static constexpr int W = Simd<T>::kWidth;
  using Tree = TreeRow<Sum<T>>;

  const View &g, &x, &out;
  const T* weight;  // contiguous, in whole steps
  int64_t n;
  T eps;

  static Strided<T> row_of(const View& v, int64_t i) {
    return {(const T*)v.data + i * v.strides[0], v.strides[1], end_of<T>(v)};
  }

  // T(n) of term(k), the vector of elements k, k + 1, …; the terms are left in `terms`.
  template <class F>
  T sum(const F& term, T* terms) const {
    auto source = [&](int64_t i, int64_t count, T*) {
      for (int64_t k = i; k < i + count; k += W) store(terms + k, term(k));
      return (const T*)terms + i;
    };
    return Tree::run(source, n);
  }

  // The input's gradient of row i; adds to the sums of the other two. `memory` has room for five rows.
  void row(int64_t i, T* memory, T* weight_sum, T* bias_sum) const {
    const int64_t pitch = whole<T>(n);
    T *normal = memory, *scaled = memory + pitch, *products = memory + 2 * pitch;
    const T* in = contiguous(row_of(x, i), memory + 3 * pitch);
    const T* grad = contiguous(row_of(g, i), memory + 4 * pitch);
    prefetch(x, i + 1);
    prefetch(g, i + 1);
    T mean = kCentred ? sum([=](int64_t k) { return load<V>(in + k); }, products) / T(n) : T(0);
    auto centred = [=](int64_t k) { return kCentred ? load<V>(in + k) - splat<V>(mean) : load<V>(in + k); };
    T variance = sum([=](int64_t k) { return centred(k) * centred(k); }, products) / T(n);
    const T inverse = T(1) / square_root(variance + eps);
    auto scale = [=](int64_t k) {
      store(normal + k, centred(k) * splat<V>(inverse));
      return load<V>(grad + k) * load<V>(weight + k);
    };
    T mean_scaled = sum(scale, scaled) / T(n);
    T mean_product = sum([=](int64_t k) { return load<V>(scaled + k) * load<V>(normal + k); }, products) / T(n);
    T* to = out.strides[1] == 1 ? (T*)out.data + i * out.strides[0] : products;
    for (int64_t k = 0; k < n; k += W) {
      V v = load<V>(scaled + k);
      if (kCentred) v = v - splat<V>(mean_scaled);
      v = splat<V>(inverse) * (v - load<V>(normal + k) * splat<V>(mean_product));
      k + W <= n ? store(to + k, v) : (void)__builtin_memcpy(to + k, &v, (n - k) * sizeof(T));
      store(weight_sum + k, load<V>(weight_sum + k) + load<V>(grad + k) * load<V>(normal + k));
      if (kCentred) store(bias_sum + k, load<V>(bias_sum + k) + load<V>(grad + k));
    }
    for (int64_t k = 0; to == products && k < n; k++) ((T*)out.data)[i * out.strides[0] + k * out.strides[1]] = to[k];
  }

  void prefetch(const View& v, int64_t i) const {
    const T* row = row_of(v, i).data;
    for (int64_t k = 0; k < n; k += 64 / sizeof(T)) __builtin_prefetch(row + k, 0, 2);
  }

  // The row where whole steps of it may be read.
  const T* contiguous(const Strided<T>& row, T* buffer) const {
    if (row.stride == 1 && row.end - row.data >= whole_steps(n)) return row.data;
    gather_row(row.data, row.stride, n, buffer);
    for (int64_t k = n; k < whole_steps(n); k++) buffer[k] = 0;
    return buffer;
  }
};

// Joins the lanes of blocks of `rows` rows, [block, lane, n] of `sums`, for elements [begin, end).
template <class T>
void join(T* sums, int64_t rows, int64_t pitch, int64_t begin, int64_t end) {
  using V = typename Simd<T>::V;
  auto add = [=](int64_t to, int64_t from) {
    T *a = sums + to * pitch, *b = sums + from * pitch;
    for (int64_t k = begin; k < end; k += Simd<T>::kWidth) store(a + k, load<V>(a + k) + load<V>(b + k));
  };
  const int64_t blocks = ceil_div(rows, kBlock);
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t lanes = min_of(kLanes, rows - block * kBlock);  // the others hold nothing
    for (int half = kLanes / 2; half > 0; half /= 2) {
      for (int l = 0; l < half && l + half < lanes; l++) add(block * kLanes + l, block * kLanes + l + half);
    }
  }
  for (int64_t span = 1; span < blocks; span *= 2) {
    for (int64_t b = 0; b + span < blocks; b += 2 * span) add(b * kLanes, (b + span) * kLanes);
  }
}

template <class T, bool kCentred>
int run(const Call& call) {
  const View &g = call.in[0], &x = call.in[1], &weight = call.in[2];
  const int64_t rows = x.shape[0], n = x.shape[1], pitch = whole<T>(n), blocks = max_of(1, ceil_div(rows, kBlock));
  if (n == 0) return kOk;
  constexpr int kSums = kCentred ? 2 : 1;
  double eps;
  __builtin_memcpy(&eps, &call.attr[0], sizeof eps);
  T* shared = (T*)nl_scratch(0, (1 + kSums * blocks * kLanes) * pitch * sizeof(T));
  T* sums = shared + pitch;
  gather_row((const T*)weight.data, weight.strides[0], n, shared);
  const NormGrad<T, kCentred> grad{g, x, call.out[0], shared, n, T(eps)};
  const int64_t unit_rows = ceil_div(min_of(rows, kBlock) * kGroup, kLanes);
  parallel_for(blocks * kLanes / kGroup, grain_of(8 * n * unit_rows), [&](int64_t begin, int64_t end) {
    T* memory = (T*)nl_scratch(1, 5 * pitch * sizeof(T));
    for (int64_t i = begin; i < end; i++) {
      T *weight_sum = sums + i * kGroup * pitch, *bias_sum = weight_sum + blocks * kLanes * pitch;
      __builtin_memset(weight_sum, 0, kGroup * pitch * sizeof(T));
      if (kCentred) __builtin_memset(bias_sum, 0, kGroup * pitch * sizeof(T));
      const int64_t lane = i * kGroup % kLanes, first = i * kGroup / kLanes * kBlock;
      for (int64_t r = first + lane; r < min_of(rows, first + kBlock); r += kLanes) {
        for (int64_t l = 0; l < min_of(kGroup, rows - r); l++) {
          grad.row(r + l, memory, weight_sum + l * pitch, bias_sum + l * pitch);
        }
      }
    }
  });
  const int64_t chunk = whole_steps(ceil_div(n, 2 * nl_num_threads()));
  parallel_for(kSums * ceil_div(n, chunk), grain_of(chunk * blocks * kLanes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t s = i % kSums, first = i / kSums * chunk, last = min_of(n, first + chunk);
      T* part = sums + s * blocks * kLanes * pitch;
      join(part, rows, pitch, first, last);
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
