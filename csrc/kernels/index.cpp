// index.cpp: gather, scatter_add, index_select, index_add, index_get, index_put.
//
// All indices are checked before anything is written; what only reads by them does so on its way, into a result that is
// then never seen. Writes to one place happen in row-major order of the index: the work is split between threads along
// the other axes only.
#include "indices.hpp"
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

bool is_empty(const View& v) { return walk_without({&v}, -1).total == 0; }

// ---- what is done with the elements at a place: `there` is in the indexed tensor, `here` in the other one ----

// Copies `bytes` in pieces of a fixed size, the last one moved back: a call costs more than a short run.
template <int kPiece>
void copy_pieces(const char* from, char* to, int64_t bytes) {
  for (int64_t i = 0; i + kPiece < bytes; i += kPiece) __builtin_memcpy(to + i, from + i, kPiece);
  __builtin_memcpy(to + bytes - kPiece, from + bytes - kPiece, kPiece);
}

inline void copy_run(const char* from, char* to, int64_t bytes) {
  if (bytes > 512) {
    __builtin_memcpy(to, from, bytes);
  } else if (bytes >= 64) {
    copy_pieces<64>(from, to, bytes);
  } else if (bytes >= 16) {
    copy_pieces<16>(from, to, bytes);
  } else {
    copy_pieces<1>(from, to, bytes);
  }
}

template <class T>
struct Get {
  using Element = T;
  static constexpr bool kReads = true;
  static void one(const T* there, T* here) { *here = *there; }
  static void run(const T* there, int64_t there_step, T* here, int64_t here_step, int64_t n) {
    if (there_step == 1 && here_step == 1) return copy_run((const char*)there, (char*)here, n * sizeof(T));
    for (int64_t i = 0; i < n; i++) one(there + i * there_step, here + i * here_step);
  }
};

template <class T>
struct Put {
  using Element = T;
  static constexpr bool kReads = false;
  static void one(T* there, const T* here) { *there = *here; }
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
  static constexpr bool kReads = false;
  static void one(T* there, const T* here) { *there = Sum::of(*there, *here); }

  // Vectors of kBytes while they fit, then one of each smaller size at most.
  template <int kBytes>
  static void vectors(T* there, const T* here, int64_t n) {
    constexpr int kWidth = kBytes / sizeof(T);
    if constexpr (kWidth > 1) {
      using V = typename VecOf<T, kBytes>::V;
      int64_t i = 0;
      for (; i + kWidth <= n; i += kWidth) store(there + i, Sum::of(load<V>(there + i), load<V>(here + i)));
      vectors<kBytes / 2>(there + i, here + i, n - i);
    } else if (n > 0) {
      one(there, here);
    }
  }

  static void run(T* there, int64_t there_step, const T* here, int64_t here_step, int64_t n) {
    if (there_step == 1 && here_step == 1) return vectors<sizeof(typename Simd<T>::V)>(there, here, n);
    for (int64_t i = 0; i < n; i++) one(there + i * there_step, here + i * here_step);
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

// Does Op at there[places[i] + i * there_step] and here[i * here_step].
template <class Op, class A, class B>
void at_places(A* there, const int64_t* places, int64_t there_step, B* here, int64_t here_step, int64_t n) {
  if (there_step == 0 && here_step == 1) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < n; i++) Op::one(there + places[i], here + i);
    return;
  }
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; i++) Op::one(there + places[i] + i * there_step, here + i * here_step);
}

// ---- gather and scatter_add: an index for every element ----

constexpr int64_t kWritten = 256;  // columns that one thread takes at a time, at most
constexpr int64_t kAtOnce = 8192;  // elements, where they may be cut as one likes

// there[…, index[…, j, …], …] and here[…, j, …] for every element of the index: lines along the last axis, which is the
// indexed one or lies across it. `count` of them lie below each other.
struct Lines {
  enum { kThere, kIndex, kHere };

  Walk<3> outer;
  bool along;  // the indexed axis
  int64_t length, count = 1, extent, scale;
  int64_t step[3], next[3] = {};  // from one element of a line to the next, from one line to the next

  Lines(const View& there, const View& index, const View& here, int axis)
      : extent(there.shape[axis]), scale(there.strides[axis]) {
    for (int d = 0; d < index.rank; d++) {
      const int64_t stride[3] = {there.strides[d], index.strides[d], here.strides[d]};
      if (d != axis) outer.add_axis(index.shape[d], stride);
    }
    along = axis == index.rank - 1 || outer.rank == 0;
    length = index.shape[axis];
    step[kThere] = 0, step[kIndex] = index.strides[axis], step[kHere] = here.strides[axis];
    if (outer.rank == 0) return;
    const int inner = outer.rank - 1;
    count = outer.shape[inner];
    for (int k = 0; k < 3; k++) next[k] = outer.stride[k][inner];
    outer.remove_axis(inner);
    if (!along) turn();
  }

  void turn() {
    swap(length, count);
    for (int k = 0; k < 3; k++) swap(step[k], next[k]);
  }

  static void swap(int64_t& a, int64_t& b) {
    const int64_t c = a;
    a = b, b = c;
  }
};

// Does Op on columns [first, stop) of lines [top, bottom); whether all indices are good. Those of several lines are
// looked at together where they lie as one, or are the same ones.
template <class Op, class T = typename Op::Element>
bool on_lines(const Lines& l, T* there, const int64_t* index, T* here, int64_t top, int64_t bottom, int64_t first,
              int64_t stop, Polls& polls) {
  int64_t places[kPlaces];
  bool good = true;
  for (int64_t k = first; k < stop; k += kPlaces) {
    const int64_t count = min_of(kPlaces, stop - k), next_index = l.next[l.kIndex];
    const bool as_one = next_index == count && l.step[l.kIndex] == 1, same = next_index == 0;
    const int64_t together = same ? kPlaces : as_one ? kPlaces / count : 1;
    for (int64_t j = top; j < bottom; j += together) {
      const int64_t lines = min_of(together, bottom - j);
      polls.after(lines * count);
      if (!same || j == top) {
        good &= find_places(index + j * next_index + k * l.step[l.kIndex], l.step[l.kIndex],
                            int(same ? count : lines * count), l.extent, l.scale, places);
      }
      for (int64_t i = 0; i < lines; i++) {
        at_places<Op>(there + (j + i) * l.next[l.kThere] + k * l.step[l.kThere], places + (same ? 0 : i * count),
                      l.step[l.kThere], here + (j + i) * l.next[l.kHere] + k * l.step[l.kHere], l.step[l.kHere], count);
      }
    }
  }
  return good;
}

// Does Op at all of the lines. What is written to one place comes in the index's order: whole lines along the indexed
// axis, whole columns across it.
template <class Op>
bool along_axis(const View& there, const View& index, const View& here, int axis) {
  using T = typename Op::Element;
  if (is_empty(index)) return true;
  if (there.shape[axis] == 0) return false;
  const Lines l(there, index, here, axis);
  const int64_t share = ceil_div(l.length, ceil_div(nl_num_threads(), l.outer.total));
  const int64_t width = Op::kReads ? min_of(l.length, kAtOnce)
                        : l.along  ? l.length
                                   : min_of(max_of(share, 16), kWritten);
  const int64_t height = Op::kReads || l.along ? min_of(l.count, max_of(1, kAtOnce / width)) : l.count;
  const int64_t columns = ceil_div(l.length, width), tiles = columns * ceil_div(l.count, height);
  bool good = true;
  parallel_for(l.outer.total * tiles, grain_of(4 * width * height), [&](int64_t begin, int64_t end) {
    Polls polls;
    bool fine = true;
    auto c = l.outer.seek(begin / tiles);
    int64_t tile = begin % tiles;
    for (int64_t item = begin; item < end; item++) {
      const int64_t first = tile % columns * width, top = tile / columns * height;
      fine &= on_lines<Op>(l, (T*)there.data + c.at[0], (const int64_t*)index.data + c.at[1], (T*)here.data + c.at[2],
                           top, min_of(top + height, l.count), first, min_of(first + width, l.length), polls);
      if (++tile == tiles) tile = 0, l.outer.next(c);
    }
    if (!fine) __atomic_store_n(&good, false, __ATOMIC_RELAXED);
  });
  return good;
}

// The same index for every line along the last axis.
View on_every_line(const View& index, const View& lines) {
  View all = lines;
  all.data = index.data;
  for (int d = 0; d < lines.rank - 1; d++) all.strides[d] = 0;
  all.strides[lines.rank - 1] = index.strides[0];
  return all;
}

// ---- index_get and index_put: k index tensors of one shape name points, each a slice of the axes that are left ----

struct Points {
  int64_t* there;  // where each leads
  Walk<1> here;
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

// Whether all indices are good; only then is `p` whole.
bool find_points(const View& there, const View& here, const Indices& indices, int position, Points& p) {
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
  for (int d = 0; d < shape.rank; d++) p.here.add_axis(shape.shape[d], {here.strides[position + d]});
  p.there = (int64_t*)nl_scratch(0, p.here.total * sizeof(int64_t));
  bool good = true;
  for (int k = 0; k < indices.count; k++) {
    const int64_t extent = there.shape[indices.axes[k]], stride = there.strides[indices.axes[k]];
    good &= for_parts(indices.views[k], [=, &p](int64_t i, const int64_t* at, int64_t step, int count) {
      if (k == 0) return find_places(at, step, count, extent, stride, p.there + i);
      int64_t places[kPlaces];
      const bool fine = find_places(at, step, count, extent, stride, places);
      for (int j = 0; j < count; j++) p.there[i + j] += places[j];
      return fine;
    });
  }
  return good;
}

Status first_fault(const View& there, const Indices& indices, int64_t* fault) {
  for (int k = 0; k < indices.count; k++) {
    int64_t axis = indices.axes[k];
    if (Status status = first_fault(indices.views[k], there.shape[axis], axis, fault)) return status;
  }
  return kOk;
}

// Does Op at the slices of points [first, last), on elements [begin, end) of their innermost axis.
template <class Op, class T>
void visit(const Points& p, T* there, T* here, int64_t first, int64_t last, int64_t begin, int64_t end) {
  there += begin * p.there_step, here += begin * p.here_step;
  Polls polls;
  auto at = p.here.seek(first);
  if (p.after.total * p.run == 1 && p.here.rank <= 1) {
    const int64_t step = p.here.rank == 0 ? 0 : p.here.stride[0][0];
    for (int64_t next; first < last; first = next) {
      next = min_of(first + kGrain, last);
      polls.after(next - first);
      at_places<Op>(there, p.there + first, 0, here + first * step, step, next - first);
    }
    return;
  }
  if (p.after.total == 1) {
    for (int64_t i = first; i < last; i++, p.here.next(at)) {
      polls.after(end - begin);
      Op::run(there + p.there[i], p.there_step, here + at.at[0], p.here_step, end - begin);
    }
    return;
  }
  auto c = p.after.seek(0);
  for (int64_t i = first; i < last; i++, p.here.next(at)) {
    for (int64_t k = 0; k < p.after.total; k++) {
      polls.after(end - begin);
      Op::run(there + p.there[i] + c.at[0], p.there_step, here + at.at[0] + c.at[1], p.here_step, end - begin);
      p.after.next(c);  // from the last slice back to the first
    }
  }
}

// Reading: any split is as good as another.
template <class Op>
void get_points(const Points& p, const View& x, const View& out) {
  using T = typename Op::Element;
  const int64_t count = p.here.total;
  parallel_for(p.before.total * count, grain_of(p.after.total * p.run), [=, &p](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      int64_t outer = i / count, first = i % count, last = min_of(count, first + end - i);
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
  const int64_t count = p.here.total;
  const int64_t share = ceil_div(p.run, ceil_div(nl_num_threads(), p.before.total));
  const int64_t tile = min_of(max_of(share, 16), kWritten), tiles = ceil_div(p.run, tile);
  parallel_for(p.before.total * tiles, grain_of(count * p.after.total * tile), [=, &p](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      auto c = p.before.seek(i / tiles);
      int64_t first = i % tiles * tile;
      visit<Op>(p, (T*)x.data + c.at[0], (T*)value.data + c.at[1], 0, count, first, min_of(first + tile, p.run));
    }
  });
}

// Whether one index with one axis names elements of the last axis.
bool is_last_axis(const View& x, const Indices& indices, int position) {
  return indices.count == 1 && indices.views[0].rank == 1 && indices.axes[0] == x.rank - 1 && position == x.rank - 1;
}

Status get(const View& x, const Indices& indices, const View& out, int position, int64_t* fault) {
  if (is_empty(out)) {  // there may be many points, each of which is nothing
    return first_fault(x, indices, fault);
  }
  bool good;
  if (is_last_axis(x, indices, position)) {
    const View all = on_every_line(indices.views[0], out);
    by_size<Get>(x.dtype, [&](auto op) { good = along_axis<typename decltype(op)::Type>(x, all, out, position); });
  } else {
    Points p;
    good = find_points(x, out, indices, position, p);
    if (good) by_size<Get>(x.dtype, [&](auto op) { get_points<typename decltype(op)::Type>(p, x, out); });
  }
  return good ? kOk : first_fault(x, indices, fault);
}

Status put(const View& x, const Indices& indices, const View& value, int position, bool accumulate, int64_t* fault) {
  if (is_empty(value)) return first_fault(x, indices, fault);
  auto run = [&](const auto& write) { accumulate ? by_addition(x.dtype, write) : by_size<Put>(x.dtype, write); };
  if (is_last_axis(x, indices, position)) {
    if (Status status = check(indices.views[0], x.shape[position], position, fault)) return status;
    const View all = on_every_line(indices.views[0], value);
    run([&](auto op) { along_axis<typename decltype(op)::Type>(x, all, value, position); });
    return kOk;
  }
  Points p;
  if (!find_points(x, value, indices, position, p)) return first_fault(x, indices, fault);
  run([&](auto op) { put_points<typename decltype(op)::Type>(p, x, value); });
  return kOk;
}

}  // namespace

int gather(const Call& call) {
  const View &x = call.in[0], &index = call.in[1], &out = call.out[0];
  int axis = int(call.attr[0]);
  bool good;
  by_size<Get>(x.dtype, [&](auto op) { good = along_axis<typename decltype(op)::Type>(x, index, out, axis); });
  return good ? kOk : first_fault(index, x.shape[axis], axis, call.fault);
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

}  // namespace nl::NL_ISA
