// cross_entropy.cpp: the classes that targets name; -log softmax(x) at the target class over one axis, log sum exp(x -
// max) - (x[target] - max), and its gradient, exp((x - max) - log sum) g, less g at the target. Where the target is
// `ignored` the loss is zero, and so is g.
//
// Every operation is rounded as in the definition and the sum is T(n). Max and log sum of a row are results too, so
// that the gradient reads x once.
#include "indices.hpp"
#include "row_sums.hpp"

namespace nl::NL_ISA {
namespace {

// The targets of a call, as they are numbered along `axis`.
struct Targets {
  const View& view;
  int64_t classes, axis, ignored;

  bool valid(int64_t target) const { return target == ignored || (uint64_t)target < (uint64_t)classes; }

  // The class that a target names, or -1. It was checked, but somebody who shares the memory may have written it since.
  int64_t at(int64_t offset) const {
    const int64_t target = __atomic_load_n((const int64_t*)view.data + offset, __ATOMIC_RELAXED);
    return target != ignored && valid(target) ? target : -1;
  }

  // Whether `count` targets that lie `step` apart are.
  bool are_valid(const int64_t* target, int64_t step, int count) const {
    using V = typename Simd<int64_t>::V;
    using U = typename VecOf<uint64_t, sizeof(V)>::V;
    constexpr int W = Simd<int64_t>::kWidth;
    bool good = true;
    if (step != 1 || count < W) {
      for (int i = 0; i < count; i++) good &= valid(target[i * step]);
      return good;
    }
    V bad = {};
    for (int i = 0; i < count; i += W) {
      const V t = load<V>(target + min_of(i, count - W));
      bad |= (t != splat<V>(ignored)) & ((U)t >= splat<U>((uint64_t)classes));
    }
    return !any_lane(bad);
  }

  // Looks at all targets; the first bad one is what the fault names.
  Status check(int64_t* fault) const {
    const auto good = [this](int64_t, const int64_t* at, int64_t step, int count) {
      return are_valid(at, step, count);
    };
    if (for_parts(view, good)) return kOk;
    return first_fault(view, classes, axis, fault, [this](int64_t target) { return valid(target); });
  }
};

template <class T>
int losses(const Call& call) {
  using V = typename Simd<T>::V;
  using Lanes = typename Simd<Mask<T>>::V;
  constexpr int W = Simd<T>::kWidth;
  const View &x = call.in[0], &target = call.in[1], *out = call.out;
  const int axis = int(call.attr[0]);
  const int64_t step = x.strides[axis];
  const Targets targets{target, x.shape[axis], axis, call.attr[1]};
  if (targets.check(call.fault) != kOk) return kIndexError;
  const RowsOf<T, 5> rows{x, walk_without({&x, &target, &out[0], &out[1], &out[2]}, axis), x.shape[axis], step};
  row_sums<ExpSums<T>>(rows, [&](const RowGroup<5, W>& group, int count, const RowSums<T>& sums) {
    T elements[W] = {};  // of the target classes
    Mask<T> counts[W] = {};
    for (int r = 0; r < count; r++) {
      const int64_t place = targets.at(group.at[1][r]);
      counts[r] = place >= 0;
      if (place >= 0) elements[r] = rows.data[group.at[0][r] + place * step];
    }
    const V log_sums = log_of(sums.sum), losses = log_sums - (load<V>(elements) - sums.center);
    group.write(2, count, load<Lanes>(counts) != 0 ? losses : V{}, (T*)out[0].data);
    group.write(3, count, sums.center, (T*)out[1].data);
    group.write(4, count, log_sums, (T*)out[2].data);
  });
  return kOk;
}

// The views of a call of the gradient, in the order of a walk over them.
enum GradientView { kX, kOut, kGrad, kTarget, kMax, kLogSum, kGradientViews };

template <class T>
struct Gradient {
  using V = typename Simd<T>::V;
  using Lane = Mask<T>;
  using Lanes = typename Simd<Lane>::V;

  const View* const (&views)[kGradientViews];
  const Targets& targets;
  int64_t n, step[2];

  const T* at(GradientView v, int64_t offset) const { return (const T*)views[v]->data + offset; }

  // `here`: the lanes in which an element is that of the target class.
  static V of(V x, V max, V log_sum, V factor, Lanes here) {
    return exp_of((x - max) - log_sum) * factor - (here ? factor : V{});
  }

  void rows(const Walk<kGradientViews>& kept) const {
    const View &x = *views[kX], &out = *views[kOut];
    const bool stream = step[1] == 1 && streams<T>(out, n, kept.total);
    parallel_for(kept.total, grain_of(4 * n), [=, &kept, &x, &out, end = end_of<T>(x)](int64_t begin, int64_t stop) {
      auto c = kept.seek(begin);
      for (int64_t i = begin; i < stop; i++, kept.next(c)) {
        const int64_t place = targets.at(c.at[kTarget]);
        const T factor = place < 0 ? T(0) : *at(kGrad, c.at[kGrad]);
        row(Strided<T>{(const T*)x.data + c.at[kX], step[0], end},
            RowOut<T>{(T*)out.data + c.at[kOut], step[1], stream}, place, splat<V>(*at(kMax, c.at[kMax])),
            splat<V>(*at(kLogSum, c.at[kLogSum])), splat<V>(factor));
      }
      if (stream) stream_fence();
    });
  }

  void row(const Strided<T>& x, RowOut<T> out, int64_t place, V max, V log_sum, V factor) const {
    alignas(64) T buffer[kBlock];
    Lanes lane;
    for (int l = 0; l < Simd<T>::kWidth; l++) lane[l] = Lane(l);
    for_blocks(n, [&](int64_t i, int64_t count) {
      const Lanes at = splat<Lanes>(Lane(place >= i && place < i + count ? place - i : -1));
      map_block(x(i, count, buffer), i, count, out,
                [=](V v, int64_t k) { return of(v, max, log_sum, factor, lane + splat<Lanes>(Lane(k)) == at); });
    });
  }

  // Columns lie along axis `d` of the walk, in tiles.
  void columns(const Walk<kGradientViews>& kept, int d) const {
    constexpr int kTile = TreeColumns<Sum<T>>::kTile;
    for_tiles<T>(kept, d, n, 4, [&](const auto& place_in, int64_t first, int width) {
      T factor[kTile], max[kTile], log_sum[kTile];
      Lane place[kTile];
      auto offset = [&](GradientView v) { return place_in[v] + first * kept.stride[v][d]; };
      auto read = [&](GradientView v, T* to) { gather_row(at(v, offset(v)), kept.stride[v][d], width, to); };
      read(kGrad, factor), read(kMax, max), read(kLogSum, log_sum);
      for (int k = 0; k < width; k++) {
        place[k] = Lane(targets.at(offset(kTarget) + k * kept.stride[kTarget][d]));
        if (place[k] < 0) factor[k] = T(0);
      }
      const T* from = at(kX, offset(kX));
      T* to = (T*)views[kOut]->data + offset(kOut);
      Polls polls;
      for (int64_t r = 0; r < n; r++) {
        polls.after(width);
        for_vectors<T>(width, [&](int k) {
          const Lanes here = load<Lanes>(place + k) == splat<Lanes>(Lane(r));
          store(to + r * step[1] + k,
                of(load<V>(from + r * step[0] + k), load<V>(max + k), load<V>(log_sum + k), load<V>(factor + k), here));
        });
      }
    });
  }
};

template <class T>
int gradient(const Call& call) {
  const View *in = call.in, &x = in[1], &out = call.out[0];
  const int axis = int(call.attr[0]);
  const Targets targets{in[2], x.shape[axis], axis, call.attr[1]};
  if (targets.check(call.fault) != kOk) return kIndexError;
  const View* const views[] = {&x, &out, &in[0], &in[2], &in[3], &in[4]};
  const Walk<kGradientViews> kept = walk_without(views, axis);
  const Gradient<T> all{views, targets, x.shape[axis], {x.strides[axis], out.strides[axis]}};
  const bool small = int64_t(Mask<T>(all.n)) == all.n;  // a lane holds the number of a class
  const int d = column_axis(kept, x.strides[axis], [&](int d) { return small && is_tiled<T>(kept, d, 2); });
  d < 0 ? all.rows(kept) : all.columns(kept, d);
  return kOk;
}

}  // namespace

int class_index(const Call& call) {
  const View &target = call.in[0], &out = call.out[0];
  const Targets targets{target, call.attr[0], call.attr[1], call.attr[2]};
  if (targets.check(call.fault) != kOk) return kIndexError;
  const Walk<2> all = walk_without({&target, &out}, -1);
  parallel_for(all.total, kGrain, [&](int64_t begin, int64_t end) {
    auto c = all.seek(begin);
    for (int64_t i = begin; i < end; i++, all.next(c)) ((int64_t*)out.data)[c.at[1]] = max_of(targets.at(c.at[0]), 0);
  });
  return kOk;
}

int cross_entropy(const Call& call) {
  return call.in[0].dtype == DType::f64 ? losses<double>(call) : losses<float>(call);
}

int cross_entropy_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? gradient<double>(call) : gradient<float>(call);
}

}  // namespace nl::NL_ISA
