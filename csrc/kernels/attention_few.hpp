// attention_few.hpp: attention of a few queries, as in decoding: keys and values are read once, at memory speed.
//
// Vectors lie along the depth: a score is the sum of kDotLanes chains of fma, halved as lanes of T(n) are; a weighted
// value is one chain of fma over kFewRun keys. Keys and values are each read as one long stream: of kFewKeys at a time,
// half as fast from the L3 cache with blocks of 256.
#pragma once
#include "attention.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kFewQueries = 4;
constexpr int kFewKeys = 1024;  // scored before they are weighed
constexpr int kFewRun = 256;
constexpr int kDotLanes = 16;
constexpr int kAhead = 16;  // rows of values that are prefetched

constexpr int64_t whole_lanes(int64_t n) { return ceil_div(n, kDotLanes) * kDotLanes; }

// Memory for a few queries: the queries and the values found, row by row, the scores, and a block of keys or values.
template <class T>
struct FewWorkspace {
  T *query, *values, *scores, *rows;

  static int64_t size(const Attention<T>& a) {
    int64_t depth = whole_lanes(a.depth), width = whole_lanes(a.width);
    return kFewQueries * (depth + width + kFewKeys) + kFewRun * max_of(depth, width);
  }

  FewWorkspace(const Attention<T>& a, T* memory) {
    query = memory;
    values = query + kFewQueries * whole_lanes(a.depth);
    scores = values + kFewQueries * whole_lanes(a.width);
    rows = scores + kFewQueries * kFewKeys;
  }
};

// Rows whose elements fill whole lanes: in place, or copied and filled up with zeros.
template <class T>
Panel<T> whole_rows(const Heads<const T>& of, const T* from, int64_t count, int64_t width, T* buffer) {
  int64_t pitch = whole_lanes(width);
  if (of.step == 1 && pitch == width) return {from, of.row, 1};
  for (int64_t i = 0; i < count; i++) {
    gather_row(from + i * of.row, of.step, width, buffer + i * pitch);
    for (int64_t k = width; k < pitch; k++) buffer[i * pitch + k] = 0;
  }
  return {buffer, pitch, 1};
}

// The products of `query` with W rows of `keys` from `first` on, one in each lane; beyond `count` the last row repeats.
template <bool kWhole, class T>
typename Simd<T>::V dot_rows(const T* query, Panel<T> keys, int64_t first, int64_t count, int64_t depth) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>, kVecs = kDotLanes / W;
  V lanes[kVecs][W] = {};
  // Row by row, as they lie in memory: column by column they come 5 % slower from L3.
#pragma GCC unroll 16
  for (int r = 0; r < W; r++) {
    const T* row = keys.data + (kWhole ? first + r : min_of(first + r, count - 1)) * keys.line_stride;
    for (int64_t k = 0; k < depth; k += kDotLanes) {
      if (kWhole) __builtin_prefetch(row + k + kAhead * keys.line_stride);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; v++) {
        lanes[v][r] = multiply_add(load<V>(row + k + v * W), load<V>(query + k + v * W), lanes[v][r]);
      }
    }
  }
  V square[W];
#pragma GCC unroll 16
  for (int r = 0; r < W; r++) {
#pragma GCC unroll 4
    for (int half = kVecs / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
      for (int v = 0; v < half; v++) lanes[v][r] = lanes[v][r] + lanes[v + half][r];
    }
    square[r] = lanes[0][r];
  }
  transpose(square);
#pragma GCC unroll 4
  for (int half = W / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int r = 0; r < half; r++) square[r] = square[r] + square[r + half];
  }
  return square[0];
}

// The scores of `count` keys for every query; may write up to whole lanes.
template <class T>
void score_run(int queries, const T* query, Panel<T> keys, int64_t count, int64_t depth, T* scores) {
  constexpr int W = kWidth<T>;
  for (int64_t k = 0; k < count; k += W) {
    for (int c = 0; c < queries; c++) {
      const T* q = query + c * depth;
      auto products =
          k + W <= count ? dot_rows<true>(q, keys, k, count, depth) : dot_rows<false>(q, keys, k, count, depth);
      store(scores + c * kFewKeys + k, products);
    }
  }
}

// The sums over keys of scores[r][k] * rows[k][i], for R queries and N vectors, are added to values[r][i].
template <int R, int N, class T>
void add_chunk(const T* scores, Panel<T> rows, int64_t count, T* values, int64_t pitch) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>;
  V sum[R][N] = {};
  for (int64_t k = 0; k < count; k++) {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) {
      const T* at = rows.data + k * rows.line_stride + v * W;
      __builtin_prefetch(at + kAhead * rows.line_stride);
      V row = load<V>(at);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sum[r][v] = multiply_add(splat<V>(scores[r * kFewKeys + k]), row, sum[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) {
      T* at = values + r * pitch + v * W;
      store(at, load<V>(at) + sum[r][v]);
    }
  }
}

template <int R, class T>
void add_values(const T* scores, Panel<T> rows, int64_t count, int64_t width, T* values) {
  constexpr int W = kWidth<T>;
  const int64_t pitch = whole_lanes(width);
  int64_t i = 0;
  for (; i + 4 * W <= pitch; i += 4 * W) {
    add_chunk<R, 4>(scores, {rows.data + i, rows.line_stride, 1}, count, values + i, pitch);
  }
  for (; i < pitch; i += W) add_chunk<R, 1>(scores, {rows.data + i, rows.line_stride, 1}, count, values + i, pitch);
}

template <class T>
void add_values(int rows_of, const T* scores, Panel<T> rows, int64_t count, int64_t width, T* values) {
  if (rows_of == 1) return add_values<1>(scores, rows, count, width, values);
  if (rows_of == 2) return add_values<2>(scores, rows, count, width, values);
  if (rows_of == 3) return add_values<3>(scores, rows, count, width, values);
  add_values<4>(scores, rows, count, width, values);
}

// One query's place in a state, and what it needs of the geometry.
template <class T>
struct FewQuery {
  const Columns<T>& columns;
  int c;

  // Adds the mask to the scores of `count` keys from the first one on, and hides what comes after the query.
  void mask(int64_t first, int64_t count, T* scores) const {
    const Attention<T>& a = columns.a;
    if (a.mask) {
      Heads<const T> mask(*a.mask);
      const T* line = mask.at(columns.n, columns.h, columns.group(c), columns.query(c)) + first * mask.step;
      for (int64_t k = 0; k < count; k++) scores[k] += line[k * mask.step];
    }
    if (a.causal) {
      for (int64_t k = max_of(0, columns.query(c) + 1 - first); k < count; k++) scores[k] = -kInfinity<T>;
    }
  }
};

// Scores of one query become weights; returns by what its earlier sums are to be multiplied.
template <class T>
T weigh_few(int64_t count, T* scores, T* largest, T* sum) {
  using V = typename Simd<T>::V;
  constexpr int W = kWidth<T>, kVecs = kDotLanes / W;
  for (int64_t k = count; k < whole_lanes(count); k++) scores[k] = -kInfinity<T>;
  V high = splat<V>(*largest);
  for (int64_t k = 0; k < count; k += W) high = larger(load<V>(scores + k), high);
  T top = *largest;
  for (int l = 0; l < W; l++) top = high[l] > top ? high[l] : top;
  T shift = top == -kInfinity<T> ? T(0) : top;
  T factor = exp_of(splat<V>(*largest - shift))[0];
  V lanes[kVecs] = {};
  for (int64_t k = 0; k < count; k += kDotLanes) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; v++) {
      V weight = exp_of(load<V>(scores + k + v * W) - splat<V>(shift));
      store(scores + k + v * W, weight);
      lanes[v] = lanes[v] + weight;
    }
  }
  alignas(64) T lane[kDotLanes];
  for (int v = 0; v < kVecs; v++) store(lane + v * W, lanes[v]);
  for (int half = kDotLanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; l++) lane[l] += lane[l + half];
  }
  *largest = top;
  *sum = *sum * factor + lane[0];
  return factor;
}

// Takes keys [begin, end) into the state.
template <class T>
void attend_few(const Columns<T>& columns, int64_t begin, int64_t end, const FewWorkspace<T>& w,
                const State<T>& state) {
  const Attention<T>& a = columns.a;
  const int64_t depth = whole_lanes(a.depth), width = whole_lanes(a.width);
  const T* line[kFewQueries];
  columns.lines(a.query, 0, line);
  for (int c = 0; c < columns.count; c++) {
    for (int64_t k = 0; k < depth; k++)
      w.query[c * depth + k] = k < a.depth ? line[c][k * a.query.step] * a.scale : T(0);
  }
  __builtin_memset(w.values, 0, columns.count * width * sizeof(T));
  const T *key = a.key.at(columns.n, columns.h), *value = a.value.at(columns.n, columns.h);
  for (int64_t first = begin; first < end; first += kFewKeys) {
    const int64_t count = min_of(kFewKeys, end - first);
    for (int64_t k = 0; k < count; k += kFewRun) {
      int64_t run = min_of(kFewRun, count - k);
      Panel<T> keys = whole_rows(a.key, key + (first + k) * a.key.row, run, a.depth, w.rows);
      score_run(columns.count, w.query, keys, run, depth, w.scores + k);
    }
    for (int c = 0; c < columns.count; c++) {
      T* scores = w.scores + c * kFewKeys;
      FewQuery<T>{columns, c}.mask(first, count, scores);
      T factor = weigh_few(count, scores, state.largest + c, state.sum + c);
      for (int64_t i = 0; i < width; i++) w.values[c * width + i] *= factor;
    }
    for (int64_t k = 0; k < count; k += kFewRun) {
      int64_t run = min_of(kFewRun, count - k);
      Panel<T> values = whole_rows(a.value, value + (first + k) * a.value.row, run, a.width, w.rows);
      add_values(columns.count, w.scores + k, values, run, a.width, w.values);
    }
  }
  for (int c = 0; c < columns.count; c++) {
    for (int64_t i = 0; i < a.width; i++) state.values[i * state.pitch + c] = w.values[c * width + i];
  }
}

}  // namespace
}  // namespace nl::NL_ISA
