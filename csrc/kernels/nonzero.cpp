// nonzero.cpp: the coordinates of the elements of a mask that hold, one row each.
//
// Threads share parts of the mask and look at them twice: how many hold in each says where the rows of the next begin.
// (The caller has counted all of them before, to make the result.)
#include "loops.hpp"
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kPart = 1024;  // elements, whose places stay near

// A mask as rows of `n` elements that lie `step` apart.
struct MaskRows {
  const char* data;
  Walk<1> outer;
  int64_t n = 1, step = 1;

  explicit MaskRows(const View& mask) : data(mask.data), outer(walk_without({&mask}, -1)) {
    if (outer.rank == 0) return;
    const int inner = outer.rank - 1;
    n = outer.shape[inner], step = outer.stride[0][inner];
    outer.remove_axis(inner);
  }

  int64_t parts() const { return ceil_div(outer.total * n, kPart); }

  // body(at, count, number) for the runs of elements in a part, from the one of a row-major `number` on.
  template <class F>
  void each_run(int64_t part, const F& body) const {
    const int64_t begin = part * kPart, stop = min_of(begin + kPart, outer.total * n);
    auto c = outer.seek(begin / n);
    each_row(n, begin, stop, [&](int64_t row, int64_t first, int64_t last) {
      body(data + c.at[0] + first * step, last - first, row * n + first);
      outer.next(c);
    });
  }
};

// How many of n <= kPart elements hold.
int64_t count_of(const char* mask, int64_t step, int64_t n) {
  using V = typename Simd<int8_t>::V;
  constexpr int kWidth = Simd<int8_t>::kWidth;
  static_assert(kPart / kWidth <= 127, "a lane counts a part");
  int64_t count = 0, i = 0;
  if (step == 1 && n >= kWidth) {
    V held = {};
    for (; i + kWidth <= n; i += kWidth) held -= load<V>((const int8_t*)mask + i) != 0;
    for (int l = 0; l < kWidth; l++) count += held[l];
  }
  for (; i < n; i++) count += mask[i * step] != 0;
  return count;
}

// The numbers of those of n elements that hold, counted from `first`; returns how many. Every one is written and stays
// if it holds: a jump that is guessed wrong costs more.
int64_t numbers_of(const char* mask, int64_t step, int64_t n, int64_t first, int64_t* found) {
  constexpr int64_t kWord = 8;
  int64_t count = 0, i = 0;
  if (step == 1) {
    for (; i + kWord <= n; i += kWord) {
      uint64_t word;
      __builtin_memcpy(&word, mask + i, sizeof word);
      if (word == 0) continue;
      for (int64_t j = i; j < i + kWord; j++) found[count] = first + j, count += mask[j] != 0;
    }
  }
  for (; i < n; i++) found[count] = first + i, count += mask[i * step] != 0;
  return count;
}

// Where coordinates go: the axes of the mask, the last one apart.
struct Coordinates {
  const View& out;
  Walk<1> outer;
  int64_t n;

  Coordinates(const View& mask, const View& out) : out(out), n(mask.rank > 0 ? mask.shape[mask.rank - 1] : 1) {
    for (int d = 0; d < mask.rank - 1; d++) outer.push_axis(mask.shape[d], {0});
  }

  // Writes those of ascending numbers into the rows from `row` on.
  void write(const int64_t* numbers, int64_t count, int64_t row) const {
    if (count == 0 || out.shape[1] == 0) return;
    const int last = outer.rank;
    const int64_t step = out.strides[1];
    int64_t* to = (int64_t*)out.data + row * out.strides[0];
    if (last == 0) {
      for (int64_t i = 0; i < count; i++) to[i * out.strides[0]] = numbers[i];
      return;
    }
    int64_t begin = numbers[0] / n * n;
    auto c = outer.seek(numbers[0] / n);
    for (int64_t i = 0; i < count; i++, to += out.strides[0]) {
      for (; numbers[i] >= begin + n; begin += n) outer.next(c);
      for (int d = 0; d < last; d++) to[d * step] = c.index[d];
      to[last * step] = numbers[i] - begin;
    }
  }
};

}  // namespace

// The result has as many rows as held when they were counted before. The mask may be shared memory, which somebody
// writes: what holds too much since gets no row, and rows that are left name some element.
int nonzero(const Call& call) {
  const View &mask = call.in[0], &out = call.out[0];
  const MaskRows rows(mask);
  const Coordinates coordinates(mask, out);
  const int64_t parts = rows.parts();
  int64_t* const begins = (int64_t*)nl_scratch(0, (parts + 1) * int64_t(sizeof(int64_t)));
  parallel_for(parts, grain_of(kPart), [&](int64_t first, int64_t last) {
    Polls polls;
    for (int64_t part = first; part < last; part++) {
      polls.after(kPart);
      int64_t count = 0;
      rows.each_run(part, [&](const char* at, int64_t n, int64_t) { count += count_of(at, rows.step, n); });
      begins[part + 1] = count;
    }
  });
  begins[0] = 0;
  for (int64_t part = 0; part < parts; part++) begins[part + 1] = min_of(begins[part] + begins[part + 1], out.shape[0]);
  if (parts > 0) begins[parts] = out.shape[0];
  parallel_for(parts, grain_of(kPart), [&](int64_t first, int64_t last) {
    Polls polls;
    int64_t found[kPart];
    for (int64_t part = first; part < last; part++) {
      polls.after(kPart);
      const int64_t row = begins[part], count = begins[part + 1] - row, some = part * kPart;
      int64_t held = 0;
      rows.each_run(part, [&](const char* at, int64_t n, int64_t number) {
        held += numbers_of(at, rows.step, n, number, found + held);
      });
      coordinates.write(found, min_of(held, count), row);
      for (; held < count; held++) coordinates.write(&some, 1, row + held);
    }
  });
  return kOk;
}

}  // namespace nl::NL_ISA
