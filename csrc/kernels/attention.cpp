// attention.cpp: softmax(query keyT scale + mask) value, in one pass over the keys that keeps no scores.
//
// Panels of queries run through the keys block by block (attention.hpp). A head with few queries is divided by keys
// instead, into parts of kPart keys that are joined in ascending order: decoding reads the keys at memory speed.
#include "attention_few.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int kPart = 1024;  // keys in a part, where a head has at most kPartRows queries
constexpr int kPartRows = 32;
constexpr int64_t kPartsAtOnce = 4096;  // parts that are kept before they are joined

// Memory of one panel's pass over keys.
template <class T>
struct Workspace {
  T *query, *scores, *mask, *factors, *keys, *values;

  static int64_t size(const Attention<T>& a, int pitch) {
    return a.depth * pitch + 3 * kKeys * pitch + kKeys * (a.depth + a.width);
  }

  Workspace(const Attention<T>& a, int pitch, T* memory) {
    query = memory;
    scores = query + a.depth * pitch;
    mask = scores + kKeys * pitch;
    factors = mask + kKeys * pitch;
    keys = factors + kKeys * pitch;
    values = keys + kKeys * a.depth;
  }
};

// Scores become weights; vectors of four keys are taken side by side.
template <class T>
void weigh(const State<T>& state, int64_t count, int64_t width, T* scores) {
  using V = typename Simd<T>::V;
  const int pitch = state.pitch;
  for (int c = 0; c < pitch; c += kWidth<T>) {
    V high[kChains];
    for (int r = 0; r < kChains; r++) high[r] = load<V>(state.largest + c);
    int64_t k = 0;
    for (; k + kChains <= count; k += kChains) {
#pragma GCC unroll 4
      for (int r = 0; r < kChains; r++) high[r] = larger(load<V>(scores + (k + r) * pitch + c), high[r]);
    }
    for (; k < count; k++) high[0] = larger(load<V>(scores + k * pitch + c), high[0]);
    V shift = state.raise(c, larger(larger(high[0], high[1]), larger(high[2], high[3])), width);
    V sum[kChains] = {};
    for (k = 0; k + kChains <= count; k += kChains) {
#pragma GCC unroll 4
      for (int r = 0; r < kChains; r++) {
        T* at = scores + (k + r) * pitch + c;
        V weight = exp_of(load<V>(at) - shift);
        store(at, weight);
        sum[r] = sum[r] + weight;
      }
    }
    for (; k < count; k++) {
      T* at = scores + k * pitch + c;
      V weight = exp_of(load<V>(at) - shift);
      store(at, weight);
      sum[0] = sum[0] + weight;
    }
    store(state.sum + c, load<V>(state.sum + c) + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
  }
}

// Drops weights of `count` keys from the first one on.
template <class T>
void drop(const Columns<T>& columns, int64_t first, int64_t count, const Workspace<T>& w) {
  using V = typename Simd<T>::V;
  draw_factors(columns, first, count, w.factors, w.mask);
  for (int64_t i = 0; i < count * columns.pitch(); i += kWidth<T>) {
    store(w.scores + i, load<V>(w.scores + i) * load<V>(w.factors + i));
  }
}

// Takes keys [begin, end) into the state.
template <class T>
void attend(const Columns<T>& columns, int64_t begin, int64_t end, const Workspace<T>& w, const State<T>& state) {
  const Attention<T>& a = columns.a;
  const int pitch = state.pitch;
  const T *key = a.key.at(columns.n, columns.h), *value = a.value.at(columns.n, columns.h);
  for (int64_t k = begin; k < end; k += kKeys) {
    int64_t count = min_of(kKeys, end - k);
    Panel<T> keys = dense_rows(key + k * a.key.row, a.key.row, a.key.step, count, a.depth, w.keys);
    multiply(count, pitch, a.depth, keys, w.query, pitch, w.scores, pitch, false);
    if (a.mask) add_mask(columns, k, count, w.scores, w.mask);
    if (a.causal) hide_future(columns, k, count, w.scores);
    weigh(state, count, a.width, w.scores);
    if (a.dropout.drops()) drop(columns, k, count, w);
    Panel<T> values = dense_rows(value + k * a.value.row, a.value.row, a.value.step, count, a.width, w.values);
    multiply(a.width, pitch, count, transposed(values), w.scores, pitch, state.values, pitch, true);
  }
}

template <class T>
struct Forward {
  using V = typename Simd<T>::V;

  Attention<T> a;
  Heads<T> out;
  T* logsumexp;  // [N, H, G, L], dense

  // Divides by the sums; a query that sees no key gets zeros.
  void finish(const Columns<T>& columns, const State<T>& state) const {
    alignas(64) T factor[kTileColumns<T>], logs[kTileColumns<T>];
    for (int c = 0; c < state.pitch; c += kWidth<T>) {
      V sum = load<V>(state.sum + c), largest = load<V>(state.largest + c);
      store(factor + c, sum == T(0) ? V{} : T(1) / sum);
      store(logs + c, largest == -kInfinity<T> && sum == T(0) ? largest : largest + log_of(sum));
    }
    T* line[kTileColumns<T>];
    columns.lines(out, 0, line);
    store_columns(state.values, state.pitch, factor, columns.count, a.width, out.step, line);
    T* logs_of = logsumexp + (columns.n * a.heads + columns.h) * a.rows() + columns.first;
    __builtin_memcpy(logs_of, logs, columns.count * sizeof(T));
  }

  void load_queries(const Columns<T>& columns, const Workspace<T>& w) const {
    const T* line[kTileColumns<T>];
    columns.lines(a.query, 0, line);
    load_columns(line, columns.count, a.query.step, a.depth, a.scale, w.query, columns.pitch());
  }

  // Panel `panel` of a head over keys [part * part_keys, …): taken into a state in `memory`.
  void part(const Columns<T>& columns, int64_t begin, int64_t end, const State<T>& state, T* memory) const {
    state.clear(a.width);
    end = min_of(end, columns.seen());
    if (a.rows() <= kFewQueries && !a.dropout.drops())
      return attend_few(columns, begin, end, FewWorkspace<T>(a, memory), state);
    Workspace<T> w(a, columns.pitch(), memory);
    load_queries(columns, w);
    attend(columns, begin, end, w, state);
  }

  void run() const {
    const int64_t rows = a.rows(), width = kTileColumns<T>, panels = ceil_div(rows, width);
    const int64_t parts = rows <= kPartRows ? max_of(1, ceil_div(a.keys, kPart)) : 1;
    const int64_t state_size = State<T>::size(a, width), total = a.batch * a.heads * panels;
    const int64_t work = ceil_div(a.keys, parts) * (a.depth + a.width) * ceil_div(min_of(rows, width), 8);
    auto columns_of = [=](int64_t i) {
      int64_t head = i / panels, first = i % panels * width;
      return Columns<T>{a, head / a.heads, head % a.heads, first, int(min_of(width, rows - first))};
    };
    for (int64_t first = 0, step = max_of(1, kPartsAtOnce / parts); first < total; first += step) {
      const int64_t count = min_of(step, total - first);
      T* states = parts == 1 ? nullptr : (T*)nl_scratch(0, count * parts * state_size * sizeof(T));
      parallel_for(count * parts, grain_of(work), [&](int64_t begin, int64_t end) {
        int64_t size = max_of(Workspace<T>::size(a, width), FewWorkspace<T>::size(a));
        T* memory = (T*)nl_scratch(1, (state_size + size) * sizeof(T));
        for (int64_t i = begin; i < end; i++) {
          Columns<T> columns = columns_of(first + i / parts);
          State<T> state(columns.pitch(), states ? states + i * state_size : memory);
          int64_t from = i % parts * kPart;
          part(columns, from, parts == 1 ? a.keys : from + kPart, state, memory + state_size);
          if (parts == 1) finish(columns, state);
        }
      });
      for (int64_t i = 0; parts > 1 && i < count; i++) {
        Columns<T> columns = columns_of(first + i);
        State<T> state(columns.pitch(), states + i * parts * state_size);
        for (int64_t p = 1; p < parts; p++) {
          state.join(State<T>(columns.pitch(), states + (i * parts + p) * state_size), a.width);
        }
        finish(columns, state);
      }
    }
  }
};

template <class T>
int run(const Call& call) {
  if (call.out[1].shape[0] == 0) return kOk;
  Attention<T> a(call.in, call.attr);
  Forward<T>{a, Heads<T>(call.out[0]), (T*)call.out[1].data}.run();
  return kOk;
}

}  // namespace

int attention(const Call& call) { return call.in[0].dtype == DType::f64 ? run<double>(call) : run<float>(call); }

}  // namespace nl::NL_ISA
