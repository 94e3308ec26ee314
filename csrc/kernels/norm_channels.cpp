// norm_channels.cpp: batch norm and group norm of x [N, G, D, S], and their gradients: (x - mean) / sqrt(var + eps)
// weight + bias, where mean and var are taken over S and one of the axes N (batch norm) and D (group norm).
//
// A group is what shares a mean: pieces of S elements along that axis. Sums over a group are T(S) of every piece, then
// T of these; every operation is rounded as in the definition. A group that fits the L2 cache is read from memory once.
#include "functions.hpp"
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

// Where the elements of a group lie in one [N, G, D, S] view.
template <class T>
struct Pieces {
  T* data;
  int64_t stride, step;  // from piece to piece, from element to element
  const T* end;

  Strided<T> in(int64_t piece) const { return {data + piece * stride, step, end}; }
  // Whether whole steps of all pieces may be read where they are.
  bool readable(int64_t pieces, int64_t size) const {
    return step == 1 && stride >= 0 && end - (data + (pieces - 1) * stride) >= whole_steps(size);
  }
  // Memory would idle while a piece is computed, so those of the next group are asked for meanwhile.
  void prefetch(int64_t piece, int64_t size) const {
    if (step != 1) return;
    for (int64_t k = 0; k < size; k += 64 / sizeof(T)) __builtin_prefetch(data + piece * stride + k, 0, 2);
  }
  RowOut<T> out(int64_t piece, bool stream) const { return {data + piece * stride, step, stream}; }
};

// An element for every piece of a group.
template <class T>
struct OfPieces {
  const T* data;
  int64_t stride;

  T operator[](int64_t piece) const { return data[piece * stride]; }
};

// The groups of a call.
struct Groups {
  int axis;  // of the pieces: 0 or 2
  int64_t batch, outer, inner, size;

  Groups(const Call& call, const View& x)
      : axis(int(call.attr[0])), batch(x.shape[0]), outer(x.shape[1]), inner(x.shape[2]), size(x.shape[3]) {}

  int64_t count() const { return axis == 0 ? outer * inner : batch * outer; }
  int64_t pieces() const { return axis == 0 ? batch : inner; }
  // A group's element of a [1, G, D, 1] or [N, G, 1, 1] view.
  template <class T>
  T& statistic(const View& v, int64_t group) const {
    const int64_t *s = v.strides, split = axis == 0 ? inner : outer;
    return ((T*)v.data)[group / split * s[axis == 0 ? 1 : 0] + group % split * s[axis == 0 ? 2 : 1]];
  }

  template <class T>
  Pieces<T> of(const View& v, int64_t group) const {
    const int64_t* s = v.strides;
    const int64_t first =
        axis == 0 ? group / inner * s[1] + group % inner * s[2] : group / outer * s[0] + group % outer * s[1];
    return {(T*)v.data + first, s[axis], s[3], end_of<T>(v)};
  }

  // The group's part of a [G, D, 1] view.
  template <class T>
  OfPieces<T> channels(const View& v, int64_t group) const {
    if (axis == 0) return {(const T*)v.data + group / inner * v.strides[0] + group % inner * v.strides[1], 0};
    return {(const T*)v.data + group % outer * v.strides[0], v.strides[1]};
  }

  // The same of memory that holds `pitch` elements, one an image, for every channel.
  template <class T>
  T* kept(T* memory, int64_t pitch, int64_t group, int64_t* step) const {
    *step = axis == 0 ? 1 : pitch;
    return memory + (axis == 0 ? group * pitch : group % outer * inner * pitch + group / outer);
  }
};

// A number of rows that are added up side by side.
template <int R>
struct Together {
  static constexpr int kRows = R;
};

// Whether pieces are read and written where they lie, in whole vectors.
template <class T>
bool in_place(const Pieces<T>& from, const Pieces<T>& to, int64_t size, bool stream) {
  return from.step == 1 && to.step == 1 && !stream && size >= Simd<T>::kWidth;
}

// to[p][i] = f(from[p][i], i) for all pieces; f is what result_at(piece, i, count) gives for a block from element i on,
// or for as much as 2 kGrain where they are `plain`.
template <class T, class ResultAt>
void map_pieces(const Pieces<T>& from, const Pieces<T>& to, int64_t pieces, int64_t size, bool plain, bool stream,
                const ResultAt& result_at) {
  alignas(64) T buffer[kBlock];
  Polls polls;
  for (int64_t p = 0; p < pieces; p++) {
    if (plain) {
      for (int64_t i = 0, count; i < size; i += count) {
        count = size - i < 2 * kGrain ? size - i : kGrain;
        map_vectors(from.data + p * from.stride + i, count, to.data + p * to.stride + i, result_at(p, i, count));
        polls.after(count);
      }
      continue;
    }
    for_blocks(size, [&](int64_t i, int64_t count) {
      map_block(from.in(p)(i, count, buffer), i, count, to.out(p, stream), result_at(p, i, count));
    });
    polls.after(size);
  }
}

// T of the sums of all pieces, where source(piece, i, count, buffer) gives elements as the sources of TreeRow do and
// term_at(piece) what is added up of them. The sums are left in `sums`, which has room for whole steps and kWidth more.
// `memory` has room for a group of short rows.
template <class T, class F, class TermAt>
T sum_of(int64_t pieces, int64_t size, const F& source, const TermAt& term_at, T* sums, T* memory) {
  constexpr int W = Simd<T>::kWidth, kHalf = max_of(W / 2, 16 / (int)sizeof(T));
  int64_t p = 0;
  Polls polls;
  auto together = [&](auto count) {
    constexpr int R = decltype(count)::kRows;
    auto row_at = [&](int r) { return source(p + r < pieces ? p + r : p, 0, size, memory + r * whole_steps(size)); };
    auto term_of_row = [&](int r) { return term_at(p + r < pieces ? p + r : p); };
    store(sums + p, TreeRow<Sum<T>>::template several<R>(row_at, size, term_of_row));
    p += R;
    polls.after(R * size);
  };
  if (is_short<T>(size)) {
    while (p + W <= pieces) together(Together<W>());
    while (p + max_of(1, kHalf / 2) <= pieces) together(Together<kHalf>());
  }
  for (; p < pieces; p++) {
    auto piece = [&](int64_t i, int64_t n, T* buffer) { return source(p, i, n, buffer); };
    sums[p] = TreeRow<Sum<T>>::run(piece, size, term_at(p));
    polls.after(size);
  }
  return TreeRow<Sum<T>>::run(Strided<T>{sums, 1, sums + whole_steps(pieces)}, pieces);
}

// What is added up where a source gives the terms themselves.
template <class T>
auto themselves(int64_t) {
  return typename TreeRow<Sum<T>>::Element();
}

template <class T>
int64_t room_for_sums(int64_t pieces) {
  return whole_steps(pieces) + Simd<T>::kWidth;
}

constexpr int64_t kAhead = 32 << 10;  // elements of the largest group that is asked for ahead

template <class T>
int forward(const Call& call) {
  using V = typename Simd<T>::V;
  const View &x = call.in[0], &weight = call.in[1], &bias = call.in[2], &y = call.out[0];
  const Groups groups(call, x);
  const int64_t pieces = groups.pieces(), size = groups.size;
  const T n = T(pieces * size), eps = T(double_of(call.attr[1]));
  const bool stream = y.strides[3] == 1 && streams<T>(y, size, groups.count() * pieces);
  const int64_t ahead = pieces * size <= kAhead ? size : 0;
  parallel_for(groups.count(), grain_of(2 * pieces * size), [&](int64_t begin, int64_t stop) {
    T* sums = (T*)nl_scratch(1, room_for_sums<T>(pieces) * sizeof(T));
    T* memory = (T*)nl_scratch(2, kGroupBytes);
    for (int64_t g = begin; g < stop; g++) {
      const Pieces<T> from = groups.of<T>(x, g), to = groups.of<T>(y, g), next = groups.of<T>(x, g + 1);
      const bool readable = from.readable(pieces, size);
      auto elements = [&](int64_t p, int64_t i, int64_t count, T* room) {
        return readable ? from.data + p * from.stride + i : from.in(p)(i, count, room);
      };
      const T mean = sum_of(pieces, size, elements, themselves<T>, sums, memory) / n;
      auto square_at = [=](int64_t) {
        return [=, m = splat<V>(mean)](V v, const T*, int64_t) { return (v - m) * (v - m); };
      };
      const T variance = sum_of(pieces, size, elements, square_at, sums, memory) / n;
      const T inverse = T(1) / square_root(variance + eps);
      const OfPieces<T> weights = groups.channels<T>(weight, g), biases = groups.channels<T>(bias, g);
      map_pieces(from, to, pieces, size, in_place(from, to, size, stream), stream, [&](int64_t p, int64_t i, int64_t) {
        if (i == 0) next.prefetch(p, ahead);
        return [=, m = splat<V>(mean), scale = splat<V>(inverse * weights[p]), shift = splat<V>(biases[p])](
                   V v, int64_t) { return (v - m) * scale + shift; };
      });
      groups.statistic<T>(call.out[1], g) = mean;
      groups.statistic<T>(call.out[2], g) = variance;
    }
    if (stream) stream_fence();
  });
  return kOk;
}

// The gradients: with normal = (x - mean) inverse, s1 and s2 the sums of g and g normal over S, that of x is (g weight
// - sum(weight s1) / n - normal sum(weight s2) / n) inverse, those of weight and bias are the sums of s2 and s1 over N.
template <class T>
struct Gradients {
  using V = typename Simd<T>::V;

  const Call& call;
  const Groups groups;
  const int64_t pieces, size, channels, pitch;
  const T n, eps;
  const bool stream;
  T *of_grad, *of_product;  // s1 and s2, every channel's side by side, `pitch` apart

  explicit Gradients(const Call& c)
      : call(c),
        groups(c, c.in[1]),
        pieces(groups.pieces()),
        size(groups.size),
        channels(groups.outer * groups.inner),
        pitch(whole_steps(groups.batch)),
        n(T(pieces * size)),
        eps(T(double_of(c.attr[1]))),
        stream(c.out[0].strides[3] == 1 && streams<T>(c.out[0], size, groups.count() * pieces)) {
    of_grad = (T*)nl_scratch(0, 2 * channels * pitch * sizeof(T));
    of_product = of_grad + channels * pitch;
  }

  void run() const {
    parallel_for(groups.count(), grain_of(3 * pieces * size), [&](int64_t begin, int64_t stop) {
      T* sums = (T*)nl_scratch(1, 2 * room_for_sums<T>(pieces) * sizeof(T));
      T* memory = (T*)nl_scratch(2, kGroupBytes);
      for (int64_t g = begin; g < stop; g++) group(g, sums, memory);
      if (stream) stream_fence();
    });
    parallel_for(channels, grain_of(16 * groups.batch), [&](int64_t begin, int64_t stop) {
      over_images(of_product, begin, stop, (T*)call.out[1].data);
      over_images(of_grad, begin, stop, (T*)call.out[2].data);
    });
  }

  void over_images(const T* s, int64_t c, int64_t stop, T* results) const {
    constexpr int W = Simd<T>::kWidth;
    for (; groups.batch <= kBlock && c + W <= stop; c += W) {
      store(results + c, TreeRow<Sum<T>>::several([=](int r) { return s + (c + r) * pitch; }, groups.batch));
    }
    for (; c < stop; c++) {
      const Strided<T> images{s + c * pitch, 1, s + (c + 1) * pitch};
      results[c] = TreeRow<Sum<T>>::run(images, groups.batch);
    }
  }

  void group(int64_t g, T* sums, T* memory) const {
    const Pieces<T> from = groups.of<T>(call.in[1], g), by = groups.of<T>(call.in[0], g);
    const V mean = splat<V>(groups.statistic<T>(call.in[3], g));
    const V inverse = splat<V>(T(1) / square_root(groups.statistic<T>(call.in[4], g) + eps));
    alignas(64) T room[2][kBlock];
    const bool readable = by.readable(pieces, size);
    auto gradient = [&](int64_t p, int64_t i, int64_t count, T* buffer) {
      return readable ? by.data + p * by.stride + i : by.in(p)(i, count, buffer);
    };
    auto times_normal_at = [=](int64_t p) {
      return [=, in = from.in(p).data](V v, const T*, int64_t i) { return v * ((load<V>(in + i) - mean) * inverse); };
    };
    auto product = [&](int64_t p, int64_t i, int64_t count, T* buffer) {
      const T *in = from.in(p)(i, count, room[0]), *g_in = by.in(p)(i, count, room[1]);
      for (int64_t k = 0; k < count; k += Simd<T>::kWidth) {
        store(buffer + k, load<V>(g_in + k) * ((load<V>(in + k) - mean) * inverse));
      }
      return (const T*)buffer;
    };
    const V mean_gradient = weighted_mean(g, gradient, themselves<T>, of_grad, sums, memory);
    const V mean_product = from.readable(pieces, size)
                               ? weighted_mean(g, gradient, times_normal_at, of_product, sums, memory)
                               : weighted_mean(g, product, themselves<T>, of_product, sums, memory);
    by_input(g, from, by, mean, inverse, mean_gradient, mean_product);
  }

  // The mean over a group of terms times weights; the sums of the pieces' terms are left in their place of `all_kept`.
  template <class F, class TermAt>
  V weighted_mean(int64_t g, const F& source, const TermAt& term_at, T* all_kept, T* sums, T* memory) const {
    const OfPieces<T> weights = groups.channels<T>(call.in[2], g);
    T* weighted = sums + room_for_sums<T>(pieces);
    int64_t step;
    T* kept = groups.kept(all_kept, pitch, g, &step);
    sum_of(pieces, size, source, term_at, sums, memory);
    for (int64_t p = 0; p < pieces; p++) kept[p * step] = sums[p], weighted[p] = weights[p] * sums[p];
    const Strided<T> all{weighted, 1, weighted + whole_steps(pieces)};
    return splat<V>(TreeRow<Sum<T>>::run(all, pieces) / n);
  }

  void by_input(int64_t g, const Pieces<T>& from, const Pieces<T>& by, V mean, V inverse, V mean_gradient,
                V mean_product) const {
    const OfPieces<T> weights = groups.channels<T>(call.in[2], g);
    const Pieces<T> to = groups.of<T>(call.out[0], g);
    const Pieces<T> next = groups.of<T>(call.in[1], g + 1), next_by = groups.of<T>(call.in[0], g + 1);
    const int64_t ahead = pieces * size <= kAhead ? size : 0;
    const bool plain = from.step == 1 && in_place(by, to, size, stream);
    alignas(64) T room[kBlock];
    map_pieces(by, to, pieces, size, plain, stream, [&](int64_t p, int64_t i, int64_t count) {
      if (i == 0) next.prefetch(p, ahead), next_by.prefetch(p, ahead);
      const T* in = plain ? from.data + p * from.stride + i : from.in(p)(i, count, room);
      return [=, w = splat<V>(weights[p])](V v, int64_t k) {
        const V normal = (load<V>(in + k) - mean) * inverse;
        return (v * w - mean_gradient - normal * mean_product) * inverse;
      };
    });
  }
};

template <class T>
int backward(const Call& call) {
  Gradients<T>(call).run();
  return kOk;
}

// (x - mean) scale + bias of x [N, C, S] by vectors [C, 1].
template <class T>
int by_channel(const Call& call) {
  using V = typename Simd<T>::V;
  const View &x = call.in[0], &y = call.out[0];
  const int64_t channels = x.shape[1], size = x.shape[2], rows = x.shape[0] * channels;
  const bool stream = y.strides[2] == 1 && streams<T>(y, size, rows);
  const T* end = end_of<T>(x);
  parallel_for(rows, grain_of(size), [&](int64_t begin, int64_t stop) {
    int64_t n = begin / channels, c = begin % channels;
    for (int64_t row = begin; row < stop; row++) {
      auto of = [&](int k) { return splat<V>(((const T*)call.in[k].data)[c * call.in[k].strides[0]]); };
      const V mean = of(1), scale = of(2), bias = of(3);
      const Pieces<T> from{(T*)x.data + n * x.strides[0] + c * x.strides[1], 0, x.strides[2], end};
      const Pieces<T> to{(T*)y.data + n * y.strides[0] + c * y.strides[1], 0, y.strides[2], nullptr};
      map_pieces(from, to, 1, size, in_place(from, to, size, stream), stream,
                 [=](int64_t, int64_t, int64_t) { return [=](V v, int64_t) { return (v - mean) * scale + bias; }; });
      if (++c == channels) c = 0, n++;
    }
    if (stream) stream_fence();
  });
  return kOk;
}

}  // namespace

int channel_affine(const Call& call) {
  return call.in[0].dtype == DType::f64 ? by_channel<double>(call) : by_channel<float>(call);
}

int channel_norm(const Call& call) {
  return call.in[0].dtype == DType::f64 ? forward<double>(call) : forward<float>(call);
}

int channel_norm_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? backward<double>(call) : backward<float>(call);
}

}  // namespace nl::NL_ISA
