// attention.hpp: what attention's forward and backward kernels share: where operands lie, and panels of queries.
//
// The queries that share keys are rows of one matrix: all groups of a head, one after another. A panel holds a few of
// them as columns, so that vectors lie across queries: the softmax needs no sum across lanes, and keys and values are
// read where they are, element by element, as the left operands of the micro-kernel.
//
// The bits: scores are one chain of fma over the depth. Keys come in blocks of kKeys, in ascending order, each with the
// largest score so far as its shift; within a block four chains add the weights, one chain of fma each weighted value.
// Nothing depends on the batch, the threads, or which queries share a panel.
#pragma once
#include "functions.hpp"
#include "gemm.hpp"
#include "loops.hpp"
#include "ops.gen.hpp"
#include "shuffle.hpp"

namespace nl::NL_ISA {

extern const MapFn map_table[kNumOps][kDTypes];

namespace {

constexpr int kKeys = 168;  // in a block: whole micro-tiles at every level (12 x 14, 28 x 6), 21 KiB of scores
constexpr int kChains = 4;  // of the sum of weights

inline vf32 larger(vf32 a, vf32 b) { return vf32_max(a, b); }
inline vf64 larger(vf64 a, vf64 b) { return vf64_max(a, b); }

template <class T>
constexpr T kInfinity = T(__builtin_inf());

template <class T>
using IndexV = typename Simd<Mask<T>>::V;

// An operand [N, H, (G,) rows, width].
template <class T>
struct Heads {
  T* data;
  int64_t batch, head, group, row, step;

  explicit Heads(const View& v)
      : data((T*)v.data),
        batch(v.strides[0]),
        head(v.strides[1]),
        group(v.rank == 5 ? v.strides[2] : 0),
        row(v.strides[v.rank - 2]),
        step(v.strides[v.rank - 1]) {}

  T* at(int64_t n, int64_t h, int64_t g = 0, int64_t i = 0) const {
    return data + n * batch + h * head + g * group + i * row;
  }
};

// What dropout takes: weight (n, h, g, l, s) stays, times `factor`, where element i of a draw of the row `uniform` is
// at least `chance`; i is its row-major index.
template <class T>
struct Dropout {
  int64_t seed, draw;
  T chance, factor;

  Dropout(const View& numbers, int64_t chance_bits) : seed(0), draw(0) {
    const double p = double_of(chance_bits);
    chance = T(p), factor = p < 1 ? T(1 / (1 - p)) : T(0);
    if (numbers.rank == 1) {
      const int64_t* at = (const int64_t*)numbers.data;
      seed = at[0], draw = at[numbers.strides[0]];
    }
  }

  bool drops() const { return chance > 0; }

  // Elements [first, first + count) of the draw.
  void numbers(int64_t first, int64_t count, T* to) const {
    T low = 0, high = 1;
    char* const operands[] = {(char*)to, (char*)&seed, (char*)&draw, (char*)&low, (char*)&high};
    const int64_t steps[] = {sizeof(T), 0, 0, 0, 0};
    map_table[kUniform][int(sizeof(T) == 4 ? DType::f32 : DType::f64)](operands, steps, count, first);
  }
};

// query [N, H, G, L, depth], key [N, H, S, depth], value [N, H, S, width]; the mask [N, H, G, L, S] is added to the
// scores, or a number where there is none.
template <class T>
struct Attention {
  Heads<const T> query, key, value;
  const View* mask;
  Dropout<T> dropout;
  int64_t batch, heads, group, queries, keys, depth, width;
  T scale;
  bool causal;

  // `in`: query, key, value, mask, draw; `attr`: causal, the bits of the scale and of dropout's chance.
  Attention(const View* in, const int64_t* attr)
      : query(in[0]),
        key(in[1]),
        value(in[2]),
        mask(in[3].rank == 0 ? nullptr : &in[3]),
        dropout(in[4], attr[2]),
        batch(in[0].shape[0]),
        heads(in[0].shape[1]),
        group(in[0].shape[2]),
        queries(in[0].shape[3]),
        keys(in[1].shape[2]),
        depth(in[0].shape[4]),
        width(in[2].shape[3]),
        scale(T(double_of(attr[1]))),
        causal(attr[0] != 0) {}

  int64_t rows() const { return group * queries; }  // that share keys
};

// Rows [first, first + count) of one head's queries, as columns.
template <class T>
struct Columns {
  const Attention<T>& a;
  int64_t n, h, first;
  int count;

  int64_t group(int c) const { return (first + c) / a.queries; }
  int64_t query(int c) const { return (first + c) % a.queries; }
  int pitch() const { return int(whole_vectors<T>(count)); }

  // Where each column's row of an operand of the queries' shape begins.
  template <class U>
  void lines(const Heads<U>& of, int64_t offset, U** line) const {
    for (int c = 0; c < count; c++) line[c] = of.at(n, h, group(c), query(c)) + offset;
  }

  // The keys that some column sees.
  int64_t seen() const {
    if (!a.causal) return a.keys;
    bool wraps = group(0) != group(count - 1);
    return min_of(a.keys, wraps ? a.queries : query(count - 1) + 1);
  }
};

// to[k * pitch + c] = from[c][k * step] * scale for k < depth, zeros in columns from `count` to the pitch.
template <class T>
void load_columns(const T* const* from, int count, int64_t step, int64_t depth, T scale, T* to, int pitch) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>;
  if (step != 1 || depth < W) {
    for (int64_t k = 0; k < depth; k++) {
      for (int c = 0; c < pitch; c++) to[k * pitch + c] = c < count ? from[c][k * step] * scale : T(0);
    }
    return;
  }
  for (int c = 0; c < pitch; c += W) {
    for (int64_t at = 0; at < depth; at += W) {
      int64_t k = min_of(at, depth - W);  // the last square overlaps the one before
      V square[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) square[r] = c + r < count ? load<V>(from[c + r] + k) * scale : V{};
      transpose(square);
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) store(to + (k + r) * pitch + c, square[r]);
    }
  }
}

// to[c][k * step] = from[k * pitch + c] * factor[c].
template <class T>
void store_columns(const T* from, int pitch, const T* factor, int count, int64_t depth, int64_t step, T* const* to) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>;
  if (step != 1 || depth < W) {
    for (int64_t k = 0; k < depth; k++) {
      for (int c = 0; c < count; c++) to[c][k * step] = from[k * pitch + c] * factor[c];
    }
    return;
  }
  for (int c = 0; c < count; c += W) {
    V factors = load<V>(factor + c);
    for (int64_t at = 0; at < depth; at += W) {
      int64_t k = min_of(at, depth - W);
      V square[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) square[r] = load<V>(from + (k + r) * pitch + c) * factors;
      transpose(square);
      for (int r = 0; r < W && c + r < count; r++) store(to[c + r] + k, square[r]);
    }
  }
}

// `count` rows of `width` elements in memory that suits the micro-kernel: in place, or copied to `buffer`. Rows that
// lie a multiple of 2 KiB apart would push each other out of the L1 cache.
template <class T>
Panel<T> dense_rows(const T* from, int64_t row, int64_t step, int64_t count, int64_t width, T* buffer) {
  if (step == 1 && (row == width || row * sizeof(T) % 2048 != 0)) return {from, row, 1};
  for (int64_t i = 0; i < count; i++) gather_row(from + i * row, step, width, buffer + i * width);
  return {buffer, width, 1};
}

template <class T>
Panel<T> transposed(Panel<T> a) {
  return {a.data, a.step, a.line_stride};
}

// c[i * c_row + j] = (or +=, when `accumulate`) the sum over k < depth of a(i, k) * b[k * b_row + j], for i < rows and
// j < columns, a multiple of a vector.
template <class T>
void multiply(int64_t rows, int64_t columns, int64_t depth, Panel<T> a, const T* b, int64_t b_row, T* c, int64_t c_row,
              bool accumulate) {
  for (int64_t j = 0; j < columns; j += kTileColumns<T>) {
    const int width = int(min_of(kTileColumns<T>, columns - j));
    for (int64_t p = 0; p < row_panels(rows); p++) {
      int64_t i = row_panel_begin(rows, p), height = row_panel_begin(rows, p + 1) - i;
      T* to = c + i * c_row + j;
      micro_kernel(T(), int(height), width, kind_of(a))(depth, {a.data + i * a.line_stride, a.line_stride, a.step},
                                                        {b + j, 1, b_row}, to, c_row, accumulate ? to : nullptr, c_row);
    }
  }
}

// A panel's result over the keys so far: per column the largest score, the sum of the weights, and the weighted values
// [width, pitch].
template <class T>
struct State {
  using V = typename Simd<T>::V;

  int pitch;
  T *largest, *sum, *values;

  static int64_t size(const Attention<T>& a, int pitch) { return (a.width + 2) * pitch; }

  State(int pitch, T* memory) : pitch(pitch), largest(memory), sum(memory + pitch), values(memory + 2 * pitch) {}

  void clear(int64_t width) const {
    for (int c = 0; c < pitch; c++) largest[c] = -kInfinity<T>, sum[c] = 0;
    __builtin_memset(values, 0, width * pitch * sizeof(T));
  }

  // Moves to a new largest score of one vector of columns; returns the shift of its scores: 0 while there is none.
  V raise(int c, V high, int64_t width) const {
    V before = load<V>(largest + c), shift = high == -kInfinity<T> ? V{} : high;
    if (!ANY(high > before)) return shift;
    V factor = exp_of(before - shift);
    store(largest + c, high);
    store(sum + c, load<V>(sum + c) * factor);
    for (int64_t i = 0; i < width; i++) {
      T* at = values + i * pitch + c;
      store(at, load<V>(at) * factor);
    }
    return shift;
  }

  // Adds what was found over later keys.
  void join(const State& later, int64_t width) const {
    for (int c = 0; c < pitch; c += kWidth<T>) {
      V shift = raise(c, larger(load<V>(later.largest + c), load<V>(largest + c)), width);
      V factor = exp_of(load<V>(later.largest + c) - shift);
      store(sum + c, multiply_add(load<V>(later.sum + c), factor, load<V>(sum + c)));
      for (int64_t i = 0; i < width; i++) {
        T* at = values + i * pitch + c;
        store(at, multiply_add(load<V>(later.values + i * pitch + c), factor, load<V>(at)));
      }
    }
  }
};

// Adds the mask to scores[k * pitch + c] of `count` keys from the first one on; `buffer` has room for as many.
template <class T>
void add_mask(const Columns<T>& columns, int64_t first, int64_t count, T* scores, T* buffer) {
  using V = typename Simd<T>::V;
  Heads<const T> mask(*columns.a.mask);
  const T* line[kTileColumns<T>];
  columns.lines(mask, first * mask.step, line);
  int pitch = columns.pitch();
  load_columns(line, columns.count, mask.step, count, T(1), buffer, pitch);
  for (int64_t i = 0; i < count * pitch; i += kWidth<T>) store(scores + i, load<V>(scores + i) + load<V>(buffer + i));
}

// Writes by what factor dropout multiplies each of the weights of `count` keys from the first one on; `buffer` has room
// for as many.
template <class T>
void draw_factors(const Columns<T>& columns, int64_t first, int64_t count, T* factors, T* buffer) {
  using V = typename Simd<T>::V;
  const Attention<T>& a = columns.a;
  const T* line[kTileColumns<T>];
  for (int c = 0; c < columns.count; c++) {
    int64_t row = ((columns.n * a.heads + columns.h) * a.group + columns.group(c)) * a.queries + columns.query(c);
    a.dropout.numbers(row * a.keys + first, count, buffer + c * count);
    line[c] = buffer + c * count;
  }
  const int pitch = columns.pitch();
  load_columns(line, columns.count, 1, count, T(1), factors, pitch);
  for (int64_t i = 0; i < count * pitch; i += kWidth<T>) {
    V stays = splat<V>(a.dropout.factor), u = load<V>(factors + i);
    store(factors + i, u < splat<V>(a.dropout.chance) ? V{} : stays);
  }
}

// Sets the scores of keys that come after a column's query to -infinity.
template <class T>
void hide_future(const Columns<T>& columns, int64_t first, int64_t count, T* scores) {
  using V = typename Simd<T>::V;
  using I = Mask<T>;
  int pitch = columns.pitch();
  alignas(64) I last[kTileColumns<T>];
  I earliest = I(columns.query(0));
  for (int c = 0; c < pitch; c++) {
    last[c] = I(columns.query(int(min_of(c, columns.count - 1))));
    earliest = last[c] < earliest ? last[c] : earliest;
  }
  for (int64_t k = max_of(0, earliest + 1 - first); k < count; k++) {
    for (int c = 0; c < pitch; c += kWidth<T>) {
      T* at = scores + k * pitch + c;
      store(at, load<IndexV<T>>(last + c) < splat<IndexV<T>>(I(first + k)) ? splat<V>(-kInfinity<T>) : load<V>(at));
    }
  }
}

}  // namespace
}  // namespace nl::NL_ISA
