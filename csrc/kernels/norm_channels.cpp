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

// The groups of a call, which follow each other along the two axes that a group does not go along.
struct Groups {
  struct Place {
    int64_t number, first, second;
  };

  // A view of all axes, or a [1, G, D, 1] or [N, G, 1, 1] one, looked at once for all groups.
  template <class T>
  struct Part {
    Pieces<T> pieces;  // of group 0
    int64_t first, second;

    Pieces<T> operator()(const Place& group) const {
      Pieces<T> its = pieces;
      its.data += group.first * first + group.second * second;
      return its;
    }
  };

  int axis;  // of the pieces: 0 or 2
  int64_t batch, outer, inner, size;

  Groups(const Call& call, const View& x)
      : axis(int(call.attr[0])), batch(x.shape[0]), outer(x.shape[1]), inner(x.shape[2]), size(x.shape[3]) {}

  int64_t count() const { return axis == 0 ? outer * inner : batch * outer; }
  int64_t pieces() const { return axis == 0 ? batch : inner; }
  int64_t rows() const { return axis == 0 ? inner : outer; }  // groups along the second of the two axes
  Place place(int64_t number) const { return {number, number / rows(), number % rows()}; }
  Place behind(const Place& group) const {
    const bool last = group.second + 1 == rows();
    return {group.number + 1, group.first + last, last ? 0 : group.second + 1};
  }

  template <class T>
  Part<T> part(const View& v) const {
    const int64_t* s = v.strides;
    return {{(T*)v.data, s[axis], s[3], end_of<T>(v)}, s[axis == 0], s[1 + (axis == 0)]};
  }

  // The group's part of a [G, D, 1] view.
  template <class T>
  OfPieces<T> channels(const View& v, const Place& group) const {
    const int64_t* s = v.strides;
    if (axis == 0) return {(const T*)v.data + group.first * s[0] + group.second * s[1], 0};
    return {(const T*)v.data + group.second * s[0], s[1]};
  }
};

// A number of rows that are added up side by side; of less than a vector not all need to exist.
template <int R, bool kAll>
struct Together {
  static constexpr int kRows = R;
  static int64_t at(int64_t first, int r, int64_t rows) { return kAll || first + r < rows ? first + r : first; }
};

// How many pieces are read and written where they lie, in whole vectors, as one run: all where they follow each other
// in every view, or one by one; none where they cannot.
template <class T, class... Views>
int64_t in_a_run(int64_t pieces, int64_t size, bool stream, const Views&... views) {
  if (stream || size < Simd<T>::kWidth || !((views.step == 1) && ...)) return 0;
  return ((views.stride == size) && ...) && pieces * size <= kGrain ? pieces : 1;
}

// What a result takes of its piece, in every lane.
template <class T, int K>
struct Factors {
  using V = typename Simd<T>::V;
  V v[K];

  // These in the first `count` lanes, others in those behind them.
  Factors before(const Factors& others, int64_t count) const {
    const auto mine = first_lanes<T>(int(count));
    Factors joined;
    for (int k = 0; k < K; k++) joined.v[k] = mine ? v[k] : others.v[k];
    return joined;
  }
};

// out[i] = f(factors, in[i], i) for `pieces` of `size` elements, a vector at least, that follow each other: whole
// vectors, of which some have elements of two pieces.
template <class T, class FactorsOf, class F>
__attribute__((noinline)) void map_run(const T* in, T* out, int64_t pieces, int64_t size, FactorsOf factors_of, F f) {
  using V = typename Simd<T>::V;
  constexpr int W = Simd<T>::kWidth;
  int64_t i = 0;
  auto factors = factors_of(0);
  for (int64_t p = 0; p < pieces; p++) {
    const int64_t stop = (p + 1) * size;
    for (; i + W <= stop; i += W) store(out + i, f(factors, load<V>(in + i), i));
    if (p + 1 == pieces) break;
    const auto next = factors_of(p + 1);
    if (i < stop) {
      store(out + i, f(factors.before(next, stop - i), load<V>(in + i), i));
      i += W;
    }
    factors = next;
  }
  const int64_t last = pieces * size - W;  // moved back: `out` is not `in`
  if (i < last + W) store(out + last, f(factors, load<V>(in + last), last));
}

// to[p][i] = f(factors_of(p), from[p][i], i) for all pieces; f is what result_at(piece, i) gives for elements from i
// on. As many pieces are `together` as in_a_run says. All is passed by value, so that compilers know that stores change
// none of it: what is looked up for every piece costs as much as a short one.
template <class T, class FactorsOf, class ResultAt>
__attribute__((always_inline)) inline void map_pieces(Pieces<T> from, Pieces<T> to, int64_t pieces, int64_t size,
                                                      int64_t together, bool stream, FactorsOf factors_of,
                                                      ResultAt result_at) {
  if (together > 1) return map_run(from.data, to.data, pieces, size, factors_of, result_at(0, 0, pieces * size));
  Polls polls;
  for (int64_t p = 0; together && p < pieces; p++) {
    for (int64_t i = 0, count; i < size; i += count) {
      count = size - i < 2 * kGrain ? size - i : kGrain;
      map_vectors(
          from.data + p * from.stride + i, count, to.data + p * to.stride + i,
          [f = result_at(p, i, count), factors = factors_of(p)](auto v, int64_t k) { return f(factors, v, k); });
      polls.after(count);
    }
  }
  alignas(64) T buffer[kBlock];
  for (int64_t p = 0; !together && p < pieces; p++) {
    for_blocks(size, [&](int64_t i, int64_t count) {
      const auto f = result_at(p, i, count);
      map_block(from.in(p)(i, count, buffer), i, count, to.out(p, stream),
                [=, factors = factors_of(p)](auto v, int64_t k) { return f(factors, v, k); });
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
  const View &weight = call.in[1], &bias = call.in[2];
  const Groups groups(call, call.in[0]);
  const auto x = groups.part<T>(call.in[0]), y = groups.part<T>(call.out[0]);
  const auto means = groups.part<T>(call.out[1]), variances = groups.part<T>(call.out[2]);
  const int64_t pieces = groups.pieces(), size = groups.size;
  const T n = T(pieces * size), eps = T(double_of(call.attr[1]));
  const bool stream = y.pieces.step == 1 && streams<T>(call.out[0], size, groups.count() * pieces);
  parallel_for(groups.count(), grain_of(2 * pieces * size), [&](int64_t begin, int64_t stop) {
    T* sums = (T*)nl_scratch(1, room_for_sums<T>(pieces) * sizeof(T));
    T* memory = (T*)nl_scratch(2, kGroupBytes);
    for (auto g = groups.place(begin); g.number < stop; g = groups.behind(g)) {
      const Pieces<T> from = x(g), to = y(g);
      const NextGroup<T> next(x(groups.behind(g)), pieces, size);
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
      auto scale_and_shift = [=](int64_t p) {
        return Factors<T, 2>{{splat<V>(inverse * weights[p]), splat<V>(biases[p])}};
      };
      auto result_at = [=](int64_t p, int64_t i, int64_t) {
        return [=, m = splat<V>(mean), ahead = next.from(p, i, from.data)](const Factors<T, 2>& of, V v, int64_t k) {
          __builtin_prefetch(ahead + k, 0, 2);
          return (v - m) * of.v[0] + of.v[1];
        };
      };
      const int64_t together = in_a_run<T>(pieces, size, stream, from, to);
      map_pieces(from, to, pieces, size, together, stream, scale_and_shift, result_at);
      *means(g).data = mean;
      *variances(g).data = variance;
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
  using Part = Groups::Part<T>;
  using Place = Groups::Place;

  const Call& call;
  const Groups groups;
  const Part g, x, out, means, variances;
  const int64_t pieces, size, channels;
  const T n, eps;
  const bool stream;
  T *of_grad, *of_product;  // s1 and s2, [N, G D]; not of a batch norm, whose groups are channels

  explicit Gradients(const Call& c)
      : call(c),
        groups(c, c.in[1]),
        g(groups.part<T>(c.in[0])),
        x(groups.part<T>(c.in[1])),
        out(groups.part<T>(c.out[0])),
        means(groups.part<T>(c.in[3])),
        variances(groups.part<T>(c.in[4])),
        pieces(groups.pieces()),
        size(groups.size),
        channels(groups.outer * groups.inner),
        n(T(pieces * size)),
        eps(T(double_of(c.attr[1]))),
        stream(out.pieces.step == 1 && streams<T>(c.out[0], size, groups.count() * pieces, 2)) {
    const int64_t kept = groups.axis == 0 ? 0 : groups.batch * channels;
    of_grad = (T*)nl_scratch(0, 2 * kept * sizeof(T));
    of_product = of_grad + kept;
  }

  void run() const {
    parallel_for(groups.count(), grain_of(3 * pieces * size), [&](int64_t begin, int64_t stop) {
      T* sums = (T*)nl_scratch(1, 2 * room_for_sums<T>(pieces) * sizeof(T));
      T* memory = (T*)nl_scratch(2, kGroupBytes);
      for (auto at = groups.place(begin); at.number < stop; at = groups.behind(at)) group(at, sums, memory);
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

  void group(const Place& at, T* sums, T* memory) const {
    const Pieces<T> from = x(at), by = g(at);
    const T mean = *means(at).data, inverse = T(1) / square_root(*variances(at).data + eps);
    const V m = splat<V>(mean), scale = splat<V>(inverse);
    alignas(64) T room[2][kBlock];
    const bool readable = by.readable(pieces, size);
    auto gradient = [&](int64_t p, int64_t i, int64_t count, T* buffer) {
      return readable ? by.data + p * by.stride + i : by.in(p)(i, count, buffer);
    };
    auto times_normal_at = [=](int64_t p) {
      return [=, in = from.in(p).data](V v, const T*, int64_t i) { return v * ((load<V>(in + i) - m) * scale); };
    };
    auto product = [&](int64_t p, int64_t i, int64_t count, T* buffer) {
      const T *in = from.in(p)(i, count, room[0]), *g_in = by.in(p)(i, count, room[1]);
      for (int64_t k = 0; k < count; k += Simd<T>::kWidth) {
        store(buffer + k, load<V>(g_in + k) * ((load<V>(in + k) - m) * scale));
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
    const T mean_gradient = weighted_mean(at, sums, of_grad, call.out[2]);
    const T mean_product = weighted_mean(at, products, of_product, call.out[1]);
    by_input(at, from, by, mean, inverse, mean_gradient, mean_product);
  }

  // The mean over a group of sums over its pieces times weights, which they become. The sums themselves are kept, or
  // the sum of those of a batch norm is the result of its channel.
  T weighted_mean(const Place& at, T* sums, T* kept, const View& result) const {
    const OfPieces<T> weights = groups.channels<T>(call.in[2], at);
    if (groups.axis == 0) {
      ((T*)result.data)[at.number] = total(sums, pieces);
    } else {
      __builtin_memcpy(kept + at.number * pieces, sums, pieces * sizeof(T));
    }
    constexpr int W = Simd<T>::kWidth;
    int64_t p = 0;
    for (; weights.stride == 1 && p + W <= pieces; p += W)
      store(sums + p, load<V>(weights.data + p) * load<V>(sums + p));
    for (; p < pieces; p++) sums[p] = weights[p] * sums[p];
    return total(sums, pieces) / n;
  }

  void by_input(const Place& at, const Pieces<T>& from, const Pieces<T>& by, T mean, T inverse, T mean_gradient,
                T mean_product) const {
    const OfPieces<T> weights = groups.channels<T>(call.in[2], at);
    const Pieces<T> to = out(at);
    const Place behind = groups.behind(at);
    const NextGroup<T> next(x(behind), pieces, size);
    const NextGroup<T> next_by(g(behind), pieces, size);
    const NextGroup<T> next_to(out(behind), pieces, size);
    const int64_t together = in_a_run<T>(pieces, size, stream, from, by, to);
    alignas(64) T memory[kBlock];
    auto weight_of = [=](int64_t p) { return Factors<T, 1>{{splat<V>(weights[p])}}; };
    auto result_at = [=, room = memory](int64_t p, int64_t i, int64_t count) {
      const T* in = together ? from.data + p * from.stride + i : from.in(p)(i, count, room);
      return [=, ahead = next.from(p, i, in), by_ahead = next_by.from(p, i, in),
              to_ahead = stream ? in : next_to.from(p, i, in)](const Factors<T, 1>& of, V v, int64_t k) {
        __builtin_prefetch(ahead + k, 0, 2);
        __builtin_prefetch(by_ahead + k, 0, 2);
        __builtin_prefetch(to_ahead + k, 0, 2);
        const V normal = (load<V>(in + k) - splat<V>(mean)) * splat<V>(inverse);
        return (v * of.v[0] - splat<V>(mean_gradient) - normal * splat<V>(mean_product)) * splat<V>(inverse);
      };
    };
    map_pieces(by, to, pieces, size, together, stream, weight_of, result_at);
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
    for (int64_t row = begin, count; row < stop; row += count) {
      const int64_t n = row / channels, c = row % channels;
      count = min_of(min_of(stop - row, channels - c), max_of(1, kGrain / max_of(size, 1)));
      const Pieces<T> from{(T*)x.data + n * x.strides[0] + c * x.strides[1], x.strides[1], x.strides[2], end};
      const Pieces<T> to{(T*)y.data + n * y.strides[0] + c * y.strides[1], y.strides[1], y.strides[2], nullptr};
      auto affine = [=, in = call.in](int64_t p) {
        auto of = [=](int k) { return splat<V>(((const T*)in[k].data)[(c + p) * in[k].strides[0]]); };
        return Factors<T, 3>{{of(1), of(2), of(3)}};
      };
      auto result_at = [](int64_t, int64_t, int64_t) {
        return [](const Factors<T, 3>& of, V v, int64_t) { return (v - of.v[0]) * of.v[1] + of.v[2]; };
      };
      map_pieces(from, to, count, size, in_a_run<T>(count, size, stream, from, to), stream, affine, result_at);
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
