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
};

// A number of rows that are added up side by side; of less than a vector not all need to exist.
template <int R, bool kAll>
struct Together {
  static constexpr int kRows = R;
  static int64_t at(int64_t first, int r, int64_t rows) { return kAll || first + r < rows ? first + r : first; }
};

// Whether pieces are read and written where they lie, in whole vectors.
template <class T>
bool in_place(const Pieces<T>& from, const Pieces<T>& to, int64_t size, bool stream) {
  return from.step == 1 && to.step == 1 && !stream && size >= Simd<T>::kWidth;
}

// to[p][i] = f(from[p][i], i) for all pieces; f is what result_at(piece, i, count) gives for a block from element i on,
// or for as much as 2 kGrain where they are `plain`. All is passed by value, so that compilers know that stores change
// none of it: what is looked up for every piece costs as much as a short one.
template <class T, class ResultAt>
__attribute__((always_inline)) inline void map_pieces(Pieces<T> from, Pieces<T> to, int64_t pieces, int64_t size,
                                                      bool plain, bool stream, ResultAt result_at) {
  Polls polls;
  for (int64_t p = 0; plain && p < pieces; p++) {
    for (int64_t i = 0, count; i < size; i += count) {
      count = size - i < 2 * kGrain ? size - i : kGrain;
      map_vectors(from.data + p * from.stride + i, count, to.data + p * to.stride + i, result_at(p, i, count));
      polls.after(count);
    }
  }
  alignas(64) T buffer[kBlock];
  for (int64_t p = 0; !plain && p < pieces; p++) {
    for_blocks(size, [&](int64_t i, int64_t count) {
      map_block(from.in(p)(i, count, buffer), i, count, to.out(p, stream), result_at(p, i, count));
    });
    polls.after(size);
  }
}

// several(p, Together) for groups of short pieces, the p-th and those behind it, one(p) for others.
template <class T, class Several, class One>
void for_pieces(int64_t pieces, int64_t size, const Several& several, const One& one) {
  constexpr int W = Simd<T>::kWidth, kHalf = max_of(W / 2, 16 / (int)sizeof(T));
  int64_t p = 0;
  Polls polls;
  auto together = [&](auto count) {
    several(p, count);
    p += count.kRows;
    polls.after(count.kRows * size);
  };
  if (is_short<T>(size)) {
    while (p + W <= pieces) together(Together<W, true>());
    while (p + max_of(1, kHalf / 2) <= pieces) together(Together<kHalf, false>());
  }
  for (; p < pieces; p++) {
    one(p);
    polls.after(size);
  }
}

// T of every piece, where source(piece, i, count, buffer) gives elements as the sources of TreeRow do and
// term_at(piece) what is added up of them. `sums` has room for whole steps and kWidth more, `memory` for a group of
// short rows.
template <class T, class F, class TermAt>
void sum_pieces(int64_t pieces, int64_t size, const F& source, const TermAt& term_at, T* sums, T* memory) {
  using Tree = TreeRow<Sum<T>>;
  auto several = [&](int64_t p, auto count) {
    auto row_at = [&](int r) { return source(count.at(p, r, pieces), 0, size, memory + r * whole_steps(size)); };
    auto term_of_row = [&](int r) { return term_at(count.at(p, r, pieces)); };
    store(sums + p, Tree::template several<count.kRows>(row_at, size, term_of_row));
  };
  auto one = [&](int64_t p) {
    sums[p] = Tree::run([&](int64_t i, int64_t n, T* buffer) { return source(p, i, n, buffer); }, size, term_at(p));
  };
  for_pieces<T>(pieces, size, several, one);
}

// T of two terms of every piece, which is read once; pieces are readable.
template <class T, class AAt, class BAt>
void sum_pieces_by_both(Pieces<T> from, int64_t pieces, int64_t size, const AAt& a_at, const BAt& b_at, T* of_a,
                        T* of_b) {
  using Tree = TreeRow<Sum<T>>;
  auto several = [&](int64_t p, auto count) {
    auto at = [=](int r) { return count.at(p, r, pieces); };
    auto row_at = [=](int r) { return from.data + at(r) * from.stride; };
    const auto both = Tree::template both_of_blocks<count.kRows>(
        row_at, size, 0, [=](int r) { return a_at(at(r)); }, [=](int r) { return b_at(at(r)); });
    store(of_a + p, both.a), store(of_b + p, both.b);
  };
  auto one = [&](int64_t p) {
    const T* const row[] = {from.data + p * from.stride};
    const auto both =
        Tree::template both_of<1>(row, 0, size, [&](int) { return a_at(p); }, [&](int) { return b_at(p); });
    of_a[p] = both.a[0], of_b[p] = both.b[0];
  };
  for_pieces<T>(pieces, size, several, one);
}

// T of the sums of all pieces.
template <class T>
T total(const T* sums, int64_t pieces) {
  using Tree = TreeRow<Sum<T>>;
  if (pieces <= kBlock) return Tree::block(sums, pieces)[0];
  return Tree::run(Strided<T>{sums, 1, sums + whole_steps(pieces)}, pieces);
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

// Memory would idle while a group is computed, so the next one is asked for meanwhile, vector by vector, unless it is
// too large.
template <class T>
struct NextGroup {
  static constexpr int64_t kMost = 32 << 10;  // elements
  Pieces<T> next;
  bool asked;

  NextGroup(const Pieces<T>& group, int64_t pieces, int64_t size)
      : next(group), asked(group.step == 1 && pieces * size <= kMost) {}
  // Where to ask while element i of a piece is at hand, at `here`.
  const T* from(int64_t piece, int64_t i, const T* here) const {
    return asked ? next.data + piece * next.stride + i : here;
  }
};

template <class T>
int forward(const Call& call) {
  using V = typename Simd<T>::V;
  const View &x = call.in[0], &weight = call.in[1], &bias = call.in[2], &y = call.out[0];
  const Groups groups(call, x);
  const int64_t pieces = groups.pieces(), size = groups.size;
  const T n = T(pieces * size), eps = T(double_of(call.attr[1]));
  const bool stream = y.strides[3] == 1 && streams<T>(y, size, groups.count() * pieces);
  parallel_for(groups.count(), grain_of(2 * pieces * size), [&](int64_t begin, int64_t stop) {
    T* sums = (T*)nl_scratch(1, room_for_sums<T>(pieces) * sizeof(T));
    T* memory = (T*)nl_scratch(2, kGroupBytes);
    for (int64_t g = begin; g < stop; g++) {
      const Pieces<T> from = groups.of<T>(x, g), to = groups.of<T>(y, g);
      const NextGroup<T> next(groups.of<T>(x, g + 1), pieces, size);
      const bool readable = from.readable(pieces, size);
      auto elements = [&](int64_t p, int64_t i, int64_t count, T* room) {
        return readable ? from.data + p * from.stride + i : from.in(p)(i, count, room);
      };
      sum_pieces(pieces, size, elements, themselves<T>, sums, memory);
      const T mean = total(sums, pieces) / n;
      auto square_at = [=](int64_t) {
        return [=, m = splat<V>(mean)](V v, const T*, int64_t) { return (v - m) * (v - m); };
      };
      sum_pieces(pieces, size, elements, square_at, sums, memory);
      const T variance = total(sums, pieces) / n;
      const T inverse = T(1) / square_root(variance + eps);
      const OfPieces<T> weights = groups.channels<T>(weight, g), biases = groups.channels<T>(bias, g);
      map_pieces(from, to, pieces, size, in_place(from, to, size, stream), stream, [=](int64_t p, int64_t i, int64_t) {
        return [=, m = splat<V>(mean), scale = splat<V>(inverse * weights[p]), shift = splat<V>(biases[p]),
                ahead = next.from(p, i, from.data)](V v, int64_t k) {
          __builtin_prefetch(ahead + k, 0, 2);
          return (v - m) * scale + shift;
        };
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
  const int64_t pieces, size, channels;
  const T n, eps;
  const bool stream;
  T *of_grad, *of_product;  // s1 and s2, [N, G D]; not of a batch norm, whose groups are channels

  explicit Gradients(const Call& c)
      : call(c),
        groups(c, c.in[1]),
        pieces(groups.pieces()),
        size(groups.size),
        channels(groups.outer * groups.inner),
        n(T(pieces * size)),
        eps(T(double_of(c.attr[1]))),
        stream(c.out[0].strides[3] == 1 && streams<T>(c.out[0], size, groups.count() * pieces, 2)) {
    const int64_t kept = groups.axis == 0 ? 0 : groups.batch * channels;
    of_grad = (T*)nl_scratch(0, 2 * kept * sizeof(T));
    of_product = of_grad + kept;
  }

  void run() const {
    parallel_for(groups.count(), grain_of(3 * pieces * size), [&](int64_t begin, int64_t stop) {
      T* sums = (T*)nl_scratch(1, 2 * room_for_sums<T>(pieces) * sizeof(T));
      T* memory = (T*)nl_scratch(2, kGroupBytes);
      for (int64_t g = begin; g < stop; g++) group(g, sums, memory);
      if (stream) stream_fence();
    });
    if (groups.axis == 0) return;
    over_images(of_product, (T*)call.out[1].data);
    over_images(of_grad, (T*)call.out[2].data);
  }

  void over_images(const T* s, T* results) const {
    Walk<1> columns;
    columns.push_axis(channels, {1});
    using Tree = TreeColumns<Sum<T>>;
    for_tiles<T>(columns, 0, groups.batch, 1, [=](const auto&, int64_t first, int width) {
      alignas(64) T sums[Tree::kTile];
      Tree::run(s + first, {channels, 1, width}, groups.batch, sums);
      __builtin_memcpy(results + first, sums, width * sizeof(T));
    });
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
    T* products = sums + room_for_sums<T>(pieces);
    if (readable && from.readable(pieces, size)) {
      sum_pieces_by_both(by, pieces, size, themselves<T>, times_normal_at, sums, products);
    } else {
      sum_pieces(pieces, size, gradient, themselves<T>, sums, memory);
      sum_pieces(pieces, size, product, themselves<T>, products, memory);
    }
    const V mean_gradient = weighted_mean(g, sums, of_grad, call.out[2]);
    const V mean_product = weighted_mean(g, products, of_product, call.out[1]);
    by_input(g, from, by, mean, inverse, mean_gradient, mean_product);
  }

  // The mean over a group of sums over its pieces times weights, which they become. The sums themselves are kept, or
  // the sum of those of a batch norm is the result of its channel.
  V weighted_mean(int64_t g, T* sums, T* kept, const View& result) const {
    const OfPieces<T> weights = groups.channels<T>(call.in[2], g);
    if (groups.axis == 0) {
      ((T*)result.data)[g] = total(sums, pieces);
    } else {
      __builtin_memcpy(kept + g * pieces, sums, pieces * sizeof(T));
    }
    constexpr int W = Simd<T>::kWidth;
    int64_t p = 0;
    for (; weights.stride == 1 && p + W <= pieces; p += W)
      store(sums + p, load<V>(weights.data + p) * load<V>(sums + p));
    for (; p < pieces; p++) sums[p] = weights[p] * sums[p];
    return splat<V>(total(sums, pieces) / n);
  }

  void by_input(int64_t g, const Pieces<T>& from, const Pieces<T>& by, V mean, V inverse, V mean_gradient,
                V mean_product) const {
    const OfPieces<T> weights = groups.channels<T>(call.in[2], g);
    const Pieces<T> to = groups.of<T>(call.out[0], g);
    const NextGroup<T> next(groups.of<T>(call.in[1], g + 1), pieces, size);
    const NextGroup<T> next_by(groups.of<T>(call.in[0], g + 1), pieces, size);
    const NextGroup<T> next_to(groups.of<T>(call.out[0], g + 1), pieces, size);
    const bool plain = from.step == 1 && in_place(by, to, size, stream);
    alignas(64) T memory[kBlock];
    map_pieces(by, to, pieces, size, plain, stream, [=, room = memory](int64_t p, int64_t i, int64_t count) {
      const T* in = plain ? from.data + p * from.stride + i : from.in(p)(i, count, room);
      return [=, w = splat<V>(weights[p]), ahead = next.from(p, i, in), by_ahead = next_by.from(p, i, in),
              to_ahead = stream ? in : next_to.from(p, i, in)](V v, int64_t k) {
        __builtin_prefetch(ahead + k, 0, 2);
        __builtin_prefetch(by_ahead + k, 0, 2);
        __builtin_prefetch(to_ahead + k, 0, 2);
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
