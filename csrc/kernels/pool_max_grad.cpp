// pool_max_grad.cpp: the way back of max pooling: each gradient is added at the index of its window's largest element.
#include "pool.hpp"
#include "row_group.hpp"

namespace nl::NL_ISA {
namespace {

// Adds `count` shares at their indices, or nowhere; returns the first whose index lies outside the plane, else `count`.
template <class T, class At>
__attribute__((always_inline)) inline int64_t scatter_line(const T* shares, int64_t share_step, const int64_t* places,
                                                           int64_t place_step, int64_t count, int64_t size, T* plane,
                                                           const At& at) {
  for (int64_t w = 0; w < count; w++) {
    const int64_t i = places[w * place_step];
    if ((uint64_t)i < (uint64_t)size) {
      plane[at(i)] += shares[w * share_step];
    } else if (i != kNowhere) {
      return w;
    }
  }
  return count;
}

// Adds each g at its index, in row-major order of g, or nowhere. False if an index lies outside the plane.
template <class T>
bool scatter_plane(const Planes<const T>& g, const Planes<const int64_t>& index, const Planes<T>& to, int64_t p,
                   int64_t* fault) {
  const bool flat = g.contiguous() && index.contiguous(), plain = flat && to.contiguous();
  const int64_t height = flat ? 1 : g.height, width = flat ? g.size() : g.width, size = to.size();
  const int64_t share_step = g.column_stride, place_step = index.column_stride;
  const int64_t across = to.width, row_stride = to.row_stride, column_stride = to.column_stride;
  const T* shares = g.plane(p);
  const int64_t* places = index.plane(p);
  T* plane = to.plane(p);
  Polls polls;
  for (int64_t h = 0; h < height; h++, shares += g.row_stride, places += index.row_stride) {
    for (int64_t w = 0, stop; w < width; w = stop, polls.after(min_of(width, kGrain))) {
      stop = min_of(width, w + kGrain);
      const T* const from = shares + w * share_step;
      const int64_t* const index_at = places + w * place_step;
      const int64_t done =
          plain ? scatter_line(from, 1, index_at, 1, stop - w, size, plane, [](int64_t i) { return i; })
                : scatter_line(from, share_step, index_at, place_step, stop - w, size, plane,
                               [=](int64_t i) { return i / across * row_stride + i % across * column_stride; });
      if (done == stop - w) continue;
      fault[0] = index_at[done * place_step], fault[1] = size, fault[2] = 2;
      return false;
    }
  }
  return true;
}

// Zeros in the planes from p on, in as many as stay in the L1 cache and lie side by side; returns the next one.
template <class T>
int64_t clear_some(const Planes<T>& to, int64_t p, int64_t end) {
  const int64_t most = to.dense() ? kGroupBytes / (int64_t)sizeof(T) / max_of(1, to.size()) : 1;
  const int64_t stop = min_of(end, p + max_of(1, most));
  if (stop == p + 1) {
    clear(to, to.plane(p));
  } else {
    __builtin_memset(to.plane(p), 0, (stop - p) * to.size() * sizeof(T));
  }
  return stop;
}

// Adds the one g of each of the planes [p, stop), contiguous ones, at its index; returns the first whose index is bad.
template <class T>
int64_t scatter_ones(const Planes<const T>& g, const Planes<const int64_t>& index, const Planes<T>& to, int64_t p,
                     int64_t stop) {
  const int64_t size = to.size();
  for (; p < stop; p++) {
    const int64_t i = *index.plane(p);
    if ((uint64_t)i >= (uint64_t)size) break;
    to.plane(p)[i] += *g.plane(p);
  }
  return p;
}

template <class T>
int backward(const Call& call) {
  Planes<const T> g(call.in[0]);
  Planes<const int64_t> index(call.in[1]);
  Planes<T> to(call.out[0]);
  const bool ones = g.size() == 1 && to.contiguous();
  int status = kOk;
  parallel_for(to.count, grain_of(to.size()), [&](int64_t begin, int64_t end) {
    int64_t fault[3], cleared = begin;
    for (int64_t p = begin; p < end;) {
      if (p == cleared) cleared = clear_some(to, p, end);
      if (ones) p = scatter_ones(g, index, to, p, cleared);
      if (p == cleared) continue;
      if (scatter_plane(g, index, to, p, fault)) {
        p++;
        continue;
      }
      // Of several bad planes any may be named: the first one to get here.
      int none = kOk;
      if (__atomic_compare_exchange_n(&status, &none, int(kIndexError), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        __builtin_memcpy(call.fault, fault, sizeof fault);
      }
      return;
    }
  });
  return status;
}

}  // namespace

int max_pool2d_grad(const Call& call) {
  return call.in[0].dtype == DType::f64 ? backward<double>(call) : backward<float>(call);
}

}  // namespace nl::NL_ISA
