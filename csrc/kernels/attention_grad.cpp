// attention_grad.cpp: attention's gradients by query, key and value, with the weights computed again block by block.
//
// With p the weights, m dropout's factors and D = sum(grad * out): ds = p * (grad valueT * m - D); the gradients are
// ds key scale for the query, dsT query scale for the key, (p m)T grad for the value. A thread takes whole heads:
// blocks of queries in ascending order, for each the blocks of keys that it sees, so every sum is a chain of fma for
// each block, added in ascending order.
#include "attention.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kQueries = 128;  // in a block; its weights and their gradients stay in the L2 cache

// Memory of one head. Columns of a panel lie [depth or width, pitch], panel after panel; rows are whole vectors.
template <class T>
struct GradWorkspace {
  T *query, *grad, *query_grad;  // columns
  T *query_rows, *grad_rows;     // rows
  T *weights, *by_score;         // [kKeys, kQueries]
  T *scores, *products;          // of one panel
  T* factors;                    // of dropout, of one panel
  T *keys, *values;              // dense copies of a block
  T *key_sum, *value_sum;        // [S, …], where the results do not consist of whole vectors
  T *shifts, *means;

  static int64_t size(const Attention<T>& a) { return GradWorkspace(a, nullptr).taken; }

  GradWorkspace(const Attention<T>& a, T* memory) : start(memory) {
    int64_t depth = whole_vectors<T>(a.depth), width = whole_vectors<T>(a.width);
    int64_t panel = max_of(kKeys, a.width) * kTileColumns<T>;
    query = take(a.depth * kQueries), grad = take(a.width * kQueries), query_grad = take(a.depth * kQueries);
    query_rows = take(depth * kQueries), grad_rows = take(width * kQueries);
    weights = take(kKeys * kQueries), by_score = take(kKeys * kQueries);
    scores = take(panel), products = take(panel);
    factors = take(a.dropout.drops() ? panel : 0);
    keys = take(kKeys * a.depth), values = take(kKeys * a.width);
    key_sum = take(depth == a.depth ? 0 : a.keys * depth), value_sum = take(width == a.width ? 0 : a.keys * width);
    shifts = take(kQueries), means = take(kQueries);
  }

 private:
  T* start;  // null while only the size is asked for
  int64_t taken = 0;

  T* take(int64_t n) {
    taken += n;
    return start ? start + taken - n : nullptr;
  }
};

// to[r * pitch + i] = from[r][i * step] * factor, zeros up to the pitch.
template <class T>
void load_rows(const T* const* from, int count, int64_t step, int64_t n, T factor, T* to, int64_t pitch) {
  for (int r = 0; r < count; r++) {
    for (int64_t i = 0; i < n; i++) to[r * pitch + i] = from[r][i * step] * factor;
    for (int64_t i = n; i < pitch; i++) to[r * pitch + i] = 0;
  }
}

template <class T>
struct Backward {
  using V = typename Simd<T>::V;
  static constexpr int kColumns = kTileColumns<T>;
  static_assert(kQueries % kColumns == 0);

  Attention<T> a;
  Heads<const T> grad, out, logsumexp;
  Heads<T> query_grad, key_grad, value_grad;

  // One panel of a block's queries: what later products read, and of each column D and the shift of its scores.
  void load_panel(const Columns<T>& columns, int64_t at, const GradWorkspace<T>& w) const {
    const T* line[kColumns];
    const int count = columns.count, pitch = columns.pitch();
    const int64_t depth = whole_vectors<T>(a.depth), width = whole_vectors<T>(a.width);
    columns.lines(a.query, 0, line);
    load_columns(line, count, a.query.step, a.depth, a.scale, w.query + at * a.depth, pitch);
    load_rows(line, count, a.query.step, a.depth, a.scale, w.query_rows + at * depth, depth);
    columns.lines(grad, 0, line);
    load_columns(line, count, grad.step, a.width, T(1), w.grad + at * a.width, pitch);
    load_rows(line, count, grad.step, a.width, T(1), w.grad_rows + at * width, width);
    columns.lines(out, 0, line);
    load_columns(line, count, out.step, a.width, T(1), w.products, pitch);
    for (int c = 0; c < pitch; c += kWidth<T>) {
      V mean = {};
      for (int64_t i = 0; i < a.width; i++) {
        const T* g = w.grad + at * a.width + i * pitch + c;
        mean = multiply_add(load<V>(g), load<V>(w.products + i * pitch + c), mean);
      }
      store(w.means + at + c, mean);
    }
    columns.lines(logsumexp, 0, line);
    for (int c = 0; c < pitch; c++) {  // a query that sees no key has only scores of -infinity
      T log = c < count ? *line[c] : T(0);
      w.shifts[at + c] = log == -kInfinity<T> ? T(0) : log;
    }
    __builtin_memset(w.query_grad + at * a.depth, 0, a.depth * pitch * sizeof(T));
  }

  // Weights and gradients by the scores of one panel and `count` keys from the first one on.
  void score(const Columns<T>& columns, int64_t at, int64_t first, int64_t count, Panel<T> keys, Panel<T> values,
             const GradWorkspace<T>& w) const {
    const int pitch = columns.pitch();
    multiply(count, pitch, a.depth, keys, w.query + at * a.depth, pitch, w.scores, pitch, false);
    if (a.mask) add_mask(columns, first, count, w.scores, w.products);
    if (a.causal) hide_future(columns, first, count, w.scores);
    const bool drops = a.dropout.drops();
    if (drops) draw_factors(columns, first, count, w.factors, w.products);
    multiply(count, pitch, a.width, values, w.grad + at * a.width, pitch, w.products, pitch, false);
    for (int c = 0; c < pitch; c += kWidth<T>) {
      V shift = load<V>(w.shifts + at + c), mean = load<V>(w.means + at + c);
#pragma GCC unroll 4
      for (int64_t k = 0; k < count; k++) {
        V weight = exp_of(load<V>(w.scores + k * pitch + c) - shift), by_weight = load<V>(w.products + k * pitch + c);
        V factor = drops ? load<V>(w.factors + k * pitch + c) : splat<V>(T(1));
        store(w.weights + k * kQueries + at + c, weight * factor);
        store(w.by_score + k * kQueries + at + c, weight * (by_weight * factor - mean));
      }
    }
    multiply(a.depth, pitch, count, transposed(keys), w.by_score + at, kQueries, w.query_grad + at * a.depth, pitch,
             true);
  }

  void store_panel(const Columns<T>& columns, int64_t at, const GradWorkspace<T>& w) const {
    T *line[kColumns], factor[kColumns];
    columns.lines(query_grad, 0, line);
    for (T& f : factor) f = a.scale;
    store_columns(w.query_grad + at * a.depth, columns.pitch(), factor, columns.count, a.depth, query_grad.step, line);
  }

  // Queries [first, first + count) of a head, and all keys that they see.
  void block(int64_t n, int64_t h, int64_t first, int count, const GradWorkspace<T>& w, T* key_sum,
             T* value_sum) const {
    const int64_t depth = whole_vectors<T>(a.depth), width = whole_vectors<T>(a.width);
    auto for_panels = [&](const auto& body) {
      for (int64_t at = 0; at < count; at += kColumns) {
        body(Columns<T>{a, n, h, first + at, int(min_of(kColumns, count - at))}, at);
      }
    };
    for_panels([&](const Columns<T>& columns, int64_t at) { load_panel(columns, at, w); });
    const int64_t seen = Columns<T>{a, n, h, first, count}.seen();
    for (int64_t k = 0; k < seen; k += kKeys) {
      const int64_t keys_in = min_of(kKeys, seen - k);
      Panel<T> keys = dense_rows(a.key.at(n, h) + k * a.key.row, a.key.row, a.key.step, keys_in, a.depth, w.keys);
      Panel<T> values =
          dense_rows(a.value.at(n, h) + k * a.value.row, a.value.row, a.value.step, keys_in, a.width, w.values);
      for_panels([&](const Columns<T>& columns, int64_t at) { score(columns, at, k, keys_in, keys, values, w); });
      Panel<T> by_score{w.by_score, kQueries, 1}, weights{w.weights, kQueries, 1};
      multiply(keys_in, depth, count, by_score, w.query_rows, depth, key_sum + k * depth, depth, true);
      multiply(keys_in, width, count, weights, w.grad_rows, width, value_sum + k * width, width, true);
    }
    for_panels([&](const Columns<T>& columns, int64_t at) { store_panel(columns, at, w); });
  }

  // Sums over the queries begin at zero and are made in place where the result consists of whole vectors.
  T* begin_sum(const Heads<T>& result, int64_t n, int64_t h, int64_t width, T* sum) const {
    int64_t pitch = whole_vectors<T>(width);
    T* at = pitch == width ? result.at(n, h) : sum;
    __builtin_memset(at, 0, a.keys * pitch * sizeof(T));
    return at;
  }

  void end_sum(const Heads<T>& result, int64_t n, int64_t h, int64_t width, const T* sum) const {
    int64_t pitch = whole_vectors<T>(width);
    if (pitch == width) return;
    for (int64_t k = 0; k < a.keys; k++) {
      __builtin_memcpy(result.at(n, h) + k * width, sum + k * pitch, width * sizeof(T));
    }
  }

  void run() const {
    const int64_t rows = a.rows();
    parallel_for(a.batch * a.heads, grain_of(rows * a.keys), [&](int64_t begin, int64_t end) {
      GradWorkspace<T> w(a, (T*)nl_scratch(1, GradWorkspace<T>::size(a) * sizeof(T)));
      for (int64_t i = begin; i < end; i++) {
        int64_t n = i / a.heads, h = i % a.heads;
        T* key_sum = begin_sum(key_grad, n, h, a.depth, w.key_sum);
        T* value_sum = begin_sum(value_grad, n, h, a.width, w.value_sum);
        for (int64_t first = 0; first < rows; first += kQueries) {
          if (first > 0) nl_check_interrupt();
          block(n, h, first, int(min_of(kQueries, rows - first)), w, key_sum, value_sum);
        }
        end_sum(key_grad, n, h, a.depth, key_sum);
        end_sum(value_grad, n, h, a.width, value_sum);
      }
    });
  }
};

// [N, H, G, L] as rows of one element.
View with_unit_axis(View v) {
  v.shape[v.rank] = v.strides[v.rank] = 1;
  v.rank++;
  return v;
}

template <class T>
int run(const Call& call) {
  const View* in = call.in;
  Attention<T> a(in + 1, call.attr);
  Heads<const T> grad(in[0]), out(in[6]), logsumexp(with_unit_axis(in[7]));
  Backward<T>{a, grad, out, logsumexp, Heads<T>(call.out[0]), Heads<T>(call.out[1]), Heads<T>(call.out[2])}.run();
  return kOk;
}

}  // namespace

int attention_grad(const Call& call) { return call.in[0].dtype == DType::f64 ? run<double>(call) : run<float>(call); }

}  // namespace nl::NL_ISA
