// index.cpp: gather, scatter_add, index_select, index_add, index_get, index_put, nonzero.
//
// All indices are checked before anything is written. Writes to one place happen in row-major order of the index: the
// work is split between threads along the other axes only.
#include "indices.hpp"
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

bool is_empty(const View& v) { return walk_without({&v}, -1).total == 0; }

// ---- what is done with the elements at a place: `there` is in the indexed tensor, `here` in the other one ----

template <class T>
struct Get {
  using Element = T;
  static void one(const T* there, T* here) { *here = *there; }
  static void run(const T* there, int64_t there_step, T* here, int64_t here_step, int64_t n) {
    if (there_step == 1 && here_step == 1 && n > 1) {
      __builtin_memcpy(here, there, n * sizeof(T));
      return;
    }
    for (int64_t i = 0; i < n; i++) one(there + i * there_step, here + i * here_step);
  }
};

template <class T>
struct Put {
  using Element = T;
  static void run(T* there, int64_t there_step, const T* here, int64_t here_step, int64_t n) {
    Get<T>::run(here, here_step, there, there_step, n);
  }
};

struct Plus {
  template <class V>
  static V of(V a, V b) {
    return a + b;
  }
};

struct Or {  // how bools add
  template <class V>
  static V of(V a, V b) {
    return a | b;
  }
};

template <class T, class Sum>
struct Add {
  using Element = T;
  static void one(T* there, const T* here) { *there = Sum::of(*there, *here); }
  static void run(T* there, int64_t there_step, const T* here, int64_t here_step, int64_t n) {
    using V = typename Simd<T>::V;
    int64_t i = 0;
    if (there_step == 1 && here_step == 1) {
      for (; i + Simd<T>::kWidth <= n; i += Simd<T>::kWidth) {
        store(there + i, Sum::of(load<V>(there + i), load<V>(here + i)));
      }
    }
    for (; i < n; i++) one(there + i * there_step, here + i * here_step);
  }
};

// A type as a value.
template <class T>
struct Tag {
  using Type = T;
};

// Calls fn(Tag<Op<T>>) with a T as large as an element: to move it, only its size counts.
template <template <class> class Op, class F>
void by_size(DType dtype, const F& fn) {
  switch (itemsize(dtype)) {
    case 1: return fn(Tag<Op<uint8_t>>{});
    case 2: return fn(Tag<Op<int16_t>>{});
    case 4: return fn(Tag<Op<int32_t>>{});
    default: return fn(Tag<Op<int64_t>>{});
  }
}

// Calls fn(Tag<Add<…>>) with the addition of a dtype.
template <class F>
void by_addition(DType dtype, const F& fn) {
  switch (dtype) {
    case DType::b8: return fn(Tag<Add<uint8_t, Or>>{});
    case DType::u8: return fn(Tag<Add<uint8_t, Plus>>{});
    case DType::i32: return fn(Tag<Add<int32_t, Plus>>{});
    case DType::i64: return fn(Tag<Add<int64_t, Plus>>{});
    case DType::f32: return fn(Tag<Add<float, Plus>>{});
    case DType::f64: return fn(Tag<Add<double, Plus>>{});
    default: return;  // narrow dtypes come widened
  }
}

// ---- gather and scatter_add: an index for every element ----

constexpr int64_t kColumns = 256;  // that one thread takes at a time, but for lines along the indexed axis

// Does Op at there[…, index[…, j, …], …] and here[…, j, …] for every element of the index, in lines along the last
// axis. In a column, j ascends; where the last axis is the indexed one, it does so along the line.
template <class Op>
void along_axis(const View& there, const View& index, const View& here, int axis) {
  using T = typename Op::Element;
  if (is_empty(index)) return;
  const int last = index.rank - 1;
  const bool along_line = axis == last;
  Walk<3> outer;
  for (int d = 0; d < last; d++) {
    if (d != axis) outer.add_axis(index.shape[d], {there.strides[d], index.strides[d], here.strides[d]});
  }
  const int64_t length = index.shape[last], lines = along_line ? 1 : index.shape[axis], extent = there.shape[axis];
  const int64_t there_step = along_line ? 0 : there.strides[last], scale = there.strides[axis];
  const int64_t widest = along_line ? length : kColumns, tiles = ceil_div(length, widest);
  parallel_for(outer.total * tiles, grain_of(lines * min_of(length, widest)), [=, &outer](int64_t begin, int64_t end) {
    Polls polls;
    for (int64_t item = begin; item < end; item++) {
      auto c = outer.seek(item / tiles);
      int64_t first = item % tiles * widest, stop = min_of(first + widest, length);
      for (int64_t j = 0; j < lines; j++) {
        T* to = (T*)there.data + c.at[0];
        T* from = (T*)here.data + c.at[2] + j * here.strides[axis];
        const int64_t* at = (const int64_t*)index.data + c.at[1] + j * index.strides[axis];
        for (int64_t k = first, next; k < stop; k = next) {
          next = min_of(k + kGrain, stop);
          polls.after(next - k);
          for (; k < next; k++) {
            int64_t place = place_of(at + k * index.strides[last], extent) * scale;
            Op::one(to + place + k * there_step, from + k * here.strides[last]);
          }
        }
      }
    }
  });
}

// ---- index_get and index_put: k index tensors of one shape name points, each a slice of the axes that are left ----

struct Point {
  int64_t there, here;
};

struct Points {
  Point* data;
  int64_t count;
  Walk<2> before, after;                           // the axes left, before and after the index axes of `here`
  int64_t run = 1, there_step = 0, here_step = 0;  // the innermost of them
};

struct Indices {
  const View* views;
  const int64_t* axes;
  int count;

  bool has(int d) const {
    for (int k = 0; k < count; k++) {
      if (axes[k] == d) return true;
    }
    return false;
  }
};

Status check(const View& there, const Indices& indices, int64_t* fault) {
  for (int k = 0; k < indices.count; k++) {
    int64_t axis = indices.axes[k];
    if (Status status = check(indices.views[k], there.shape[axis], axis, fault)) return status;
  }
  return kOk;
}

Points points_of(const View& there, const View& here, const Indices& indices, int position) {
  Points p;
  const View& shape = indices.views[0];
  int d_here = 0;
  for (int d = 0; d < there.rank; d++) {
    if (indices.has(d)) continue;
    if (d_here == position) d_here += shape.rank;
    Walk<2>& walk = d_here < position ? p.before : p.after;
    walk.add_axis(there.shape[d], {there.strides[d], here.strides[d_here++]});
  }
  if (p.after.rank > 0) {
    int inner = p.after.rank - 1;
    p.run = p.after.shape[inner], p.there_step = p.after.stride[0][inner], p.here_step = p.after.stride[1][inner];
    p.after.remove_axis(inner);
  }
  View places = shape;  // of the points in `here`
  p.count = 1;
  for (int d = 0; d < shape.rank; d++) places.strides[d] = here.strides[position + d], p.count *= shape.shape[d];
  p.data = (Point*)nl_scratch(0, p.count * sizeof(Point));
  for_each(places, [&](int64_t i, int64_t offset) { p.data[i] = {0, offset}; });
  for (int k = 0; k < indices.count; k++) {
    const int64_t* index = (const int64_t*)indices.views[k].data;
    int64_t extent = there.shape[indices.axes[k]], stride = there.strides[indices.axes[k]];
    for_each(indices.views[k],
             [&](int64_t i, int64_t offset) { p.data[i].there += place_of(index + offset, extent) * stride; });
  }
  return p;
}

// Does Op at the slices of points [first, last), on elements [begin, end) of their innermost axis.
template <class Op, class T>
void visit(const Points& p, T* there, T* here, int64_t first, int64_t last, int64_t begin, int64_t end) {
  there += begin * p.there_step, here += begin * p.here_step;
  Polls polls;
  auto c = p.after.seek(0);
  for (int64_t i = first; i < last; i++) {
    for (int64_t k = 0; k < p.after.total; k++) {
      polls.after(end - begin);
      Op::run(there + p.data[i].there + c.at[0], p.there_step, here + p.data[i].here + c.at[1], p.here_step,
              end - begin);
      if (p.after.total > 1) p.after.next(c);  // from the last slice back to the first
    }
  }
}

// Reading: any split is as good as another.
template <class Op>
void get_points(const Points& p, const View& x, const View& out) {
  using T = typename Op::Element;
  parallel_for(p.before.total * p.count, grain_of(p.after.total * p.run), [=, &p](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      int64_t outer = i / p.count, first = i % p.count, last = min_of(p.count, first + end - i);
      auto c = p.before.seek(outer);
      visit<Op>(p, (T*)x.data + c.at[0], (T*)out.data + c.at[1], first, last, 0, p.run);
      i += last - first;
    }
  });
}

// Writing: a thread takes all points, in order, on some columns.
template <class Op>
void put_points(const Points& p, const View& x, const View& value) {
  using T = typename Op::Element;
  int64_t tile = min_of(kColumns, max_of(16, p.run / nl_num_threads())), tiles = ceil_div(p.run, tile);
  parallel_for(p.before.total * tiles, grain_of(p.count * p.after.total * tile), [=, &p](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      auto c = p.before.seek(i / tiles);
      int64_t first = i % tiles * tile;
      visit<Op>(p, (T*)x.data + c.at[0], (T*)value.data + c.at[1], 0, p.count, first, min_of(first + tile, p.run));
    }
  });
}

Status get(const View& x, const Indices& indices, const View& out, int position, int64_t* fault) {
  if (Status status = check(x, indices, fault)) return status;
  if (is_empty(out)) return kOk;  // there may be many points, each of which is nothing
  Points p = points_of(x, out, indices, position);
  by_size<Get>(x.dtype, [&](auto op) { get_points<typename decltype(op)::Type>(p, x, out); });
  return kOk;
}

Status put(const View& x, const Indices& indices, const View& value, int position, bool accumulate, int64_t* fault) {
  if (Status status = check(x, indices, fault)) return status;
  if (is_empty(value)) return kOk;
  Points p = points_of(x, value, indices, position);
  auto run = [&](auto op) { put_points<typename decltype(op)::Type>(p, x, value); };
  accumulate ? by_addition(x.dtype, run) : by_size<Put>(x.dtype, run);
  return kOk;
}

}  // namespace

int gather(const Call& call) {
  const View &x = call.in[0], &index = call.in[1], &out = call.out[0];
  int axis = int(call.attr[0]);
  if (Status status = check(index, x.shape[axis], axis, call.fault)) return status;
  by_size<Get>(x.dtype, [&](auto op) { along_axis<typename decltype(op)::Type>(x, index, out, axis); });
  return kOk;
}

int scatter_add(const Call& call) {
  const View &x = call.out[0], &index = call.in[1], &src = call.in[2];
  int axis = int(call.attr[0]);
  if (Status status = check(index, x.shape[axis], axis, call.fault)) return status;
  by_addition(x.dtype, [&](auto op) { along_axis<typename decltype(op)::Type>(x, index, src, axis); });
  return kOk;
}

int index_select(const Call& call) {
  Indices indices{&call.in[1], &call.attr[0], 1};
  return get(call.in[0], indices, call.out[0], int(call.attr[0]), call.fault);
}

int index_add(const Call& call) {
  Indices indices{&call.in[1], &call.attr[0], 1};
  return put(call.out[0], indices, call.in[2], int(call.attr[0]), true, call.fault);
}

int index_get(const Call& call) {
  int k = int(call.attr[0]);
  Indices indices{&call.in[1], &call.attr[1], k};
  return get(call.in[0], indices, call.out[0], int(call.attr[1 + k]), call.fault);
}

int index_put(const Call& call) {
  int k = int(call.attr[0]);
  Indices indices{&call.in[2], &call.attr[1], k};
  return put(call.out[0], indices, call.in[1], int(call.attr[1 + k]), call.attr[2 + k] != 0, call.fault);
}

// Writes as many rows as the output has: the count was taken before, and the mask may be shared memory.
int nonzero(const Call& call) {
  const View &mask = call.in[0], &out = call.out[0];
  Walk<1> rows;
  for (int d = 0; d < mask.rank - 1; d++) rows.push_axis(mask.shape[d], {mask.strides[d]});
  int last = mask.rank - 1;
  int64_t n = last < 0 ? 1 : mask.shape[last], step = last < 0 ? 0 : mask.strides[last], row = 0;
  Polls polls;
  auto c = rows.seek(0);
  for (int64_t i = 0; i < rows.total && row < out.shape[0]; i++, rows.next(c)) {
    for (int64_t j = 0; j < n && row < out.shape[0]; j++) {
      polls.after(1);
      if (!mask.data[c.at[0] + j * step]) continue;
      int64_t* to = (int64_t*)out.data + row++ * out.strides[0];
      for (int d = 0; d < last; d++) to[d * out.strides[1]] = c.index[d];
      if (last >= 0) to[last * out.strides[1]] = j;
    }
  }
  return kOk;
}

}  // namespace nl::NL_ISA
