// gemm_matmul.cpp: the row matmul: batched products of strided matrices.
#include "gemm_kept.hpp"
#include "gemm_narrow.hpp"
#include "gemm_pack.hpp"
#include "gemm_small.hpp"
#include "gemm_stream.hpp"
#include "gemm_vector.hpp"
#include "gemm_widen.hpp"

namespace nl::NL_ISA {
namespace {

// c[b, i, j] = sum over k of a[b, i, k] * b[b, k, j]; the last two strides of an operand are those of rows and columns.
struct Product {
  int64_t m, n, k;
  int64_t a_row, a_step, b_step, b_column;
  Walk<2> batches;  // where the matrices of a and b begin
  const Call& call;

  explicit Product(const Call& c) : call(c) {
    const View &a = c.in[0], &b = c.in[1];
    int rows = a.rank - 2, columns = a.rank - 1;
    m = a.shape[rows], k = a.shape[columns], n = b.shape[columns];
    a_row = a.strides[rows], a_step = a.strides[columns];
    b_step = b.strides[rows], b_column = b.strides[columns];
    for (int d = 0; d < rows; d++) batches.add_axis(a.shape[d], {a.strides[d], b.strides[d]});
  }

  template <class T>
  const T* a() const {
    return (const T*)call.in[0].data;
  }
  template <class T>
  const T* b() const {
    return (const T*)call.in[1].data;
  }
  template <class T>
  T* c() const {
    return (T*)call.out[0].data;
  }

  bool makes() const { return call.prologues != nullptr; }

  template <class T>
  Matrix<T> matrix_a() const {
    return {a<T>(), m, a_row, a_step, &batches, 0, false, maker<T>(0, m, a_step == 1)};
  }
  // Its lines are columns.
  template <class T>
  Matrix<T> matrix_b() const {
    return {b<T>(), n, b_column, b_step, &batches, 1, false, maker<T>(1, n, b_column != 1)};
  }

 private:
  // `along`: lines lie along k.
  template <class T>
  Maker<T> maker(int side, int64_t lines, bool along) const {
    if (!makes() || !call.prologues[side].fn) return {};
    return {call.prologues + side, along ? lines : k, along ? k : lines, along};
  }
};

void finish_rectangle(const Product& p, int64_t batch, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const Epilogue* epilogue = p.call.epilogue;
  if (epilogue) epilogue->fn(epilogue->ctx, batch, i0, i1, j0, j1);
}

// ---- integers ---------------------------------------------------------------------------------------------------

// U is unsigned, where overflow wraps. A unit of work is kRowsAtOnce rows of one panel of columns, which is read where
// it lies or gathered once for all of them; kRows rows at a time keep their sums in registers.
template <class U>
struct IntegerProduct {
  using V = typename Simd<U>::V;
  static constexpr int kWidth = Simd<U>::kWidth, kVecs = 2, kColumns = kVecs * kWidth, kRows = 4;
  static constexpr int64_t kRowsAtOnce = 64;

  const Product& p;

  // Element (k, j) of the panel at data[k * step + j].
  struct Columns {
    const U* data;
    int64_t step;
    int count;
  };

  Columns columns(const U* b, int count) const {
    if (p.b_column == 1 && count == kColumns) return {b, p.b_step, count};
    U* panel = (U*)nl_scratch(0, p.k * kColumns * sizeof(U));
    for (int64_t k = 0; k < p.k; k++) {
      for (int j = 0; j < kColumns; j++) panel[k * kColumns + j] = j < count ? b[k * p.b_step + j * p.b_column] : U(0);
    }
    return {panel, kColumns, count};
  }

  template <int kCount>
  void rows(const U* a, const Columns& b, U* c) const {
    V sum[kCount][kVecs] = {};
    for (int64_t k = 0; k < p.k; k++) {
      for (int v = 0; v < kVecs; v++) {
        V column = load<V>(b.data + k * b.step + v * kWidth);
        for (int i = 0; i < kCount; i++) sum[i][v] += splat<V>(a[i * p.a_row + k * p.a_step]) * column;
      }
    }
    for (int i = 0; i < kCount; i++) __builtin_memcpy(c + i * p.n, sum[i], b.count * sizeof(U));
  }

  void unit(int64_t batch, int64_t first_row, int64_t first_column) const {
    auto at = p.batches.seek(batch);
    const int64_t last_row = min_of(p.m, first_row + kRowsAtOnce), last_column = min_of(p.n, first_column + kColumns);
    const U* a = p.a<U>() + at.at[0];
    U* c = p.c<U>() + batch * p.m * p.n + first_column;
    Columns b = columns(p.b<U>() + at.at[1] + first_column * p.b_column, int(last_column - first_column));
    int64_t i = first_row;
    Polls polls;
    for (; i + kRows <= last_row; i += kRows) rows<kRows>(a + i * p.a_row, b, c + i * p.n), polls.after(kRows * p.k);
    for (; i < last_row; i++) rows<1>(a + i * p.a_row, b, c + i * p.n), polls.after(p.k);
    finish_rectangle(p, batch, first_row, last_row, first_column, last_column);
  }

  void run() const {
    const int64_t down = ceil_div(p.m, kRowsAtOnce), across = ceil_div(p.n, kColumns);
    const int64_t work = min_of(p.m, kRowsAtOnce) * p.k * kVecs;
    parallel_for(p.batches.total * down * across, grain_of(work), [=](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; u++) {
        unit(u / (down * across), u % down * kRowsAtOnce, u / down % across * kColumns);
      }
    });
  }
};

// ---- matrix times vector ----------------------------------------------------------------------------------------

// One side is a vector: the other is the matrix, of `outputs` lines, in memory elements of S.
template <class T, class S = T>
struct VectorProduct {
  static constexpr int64_t kMostMade = 128;  // outputs: a unit's share of a matrix that is made stays in L2

  const Product& p;
  bool row;                              // a is the vector
  int64_t outputs, tile, chunk, chunks;  // a unit of work is `tile` outputs over `chunk` of k

  explicit VectorProduct(const Product& product) : p(product), row(p.m == 1), outputs(row ? p.n : p.m), chunk(kBlock) {
    constexpr int64_t kLeast = 64, kMost = VectorSums<T, S>::kColumns;
    const int64_t threads = nl_num_threads(), share = outputs / (4 * threads) / kLeast * kLeast;
    // Rows across which vectors lie are read whole where k alone feeds all threads.
    const bool whole = (row ? p.b_column : p.a_row) == 1 && p.k >= 2 * threads * kBlock;
    tile = max_of(kLeast, min_of(whole ? outputs : share, p.makes() ? kMostMade : kMost));
    // Cut along k only where the outputs alone do not feed all threads.
    const int64_t items = p.batches.total * tiles(), most = items < 4 * threads ? 8 * threads : items;
    while (!p.makes() && chunk < p.k && (chunk * tile < kGrain || items * (p.k / chunk) > most)) chunk *= 2;
    chunks = max_of(1, ceil_div(p.k, chunk));
  }

  int64_t tiles() const { return ceil_div(outputs, tile); }

  void run() const {
    int64_t items = p.batches.total * outputs;
    T* parts = chunks == 1 ? p.c<T>() : (T*)nl_scratch(2, chunks * items * sizeof(T));
    auto units = [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; u++) {
        unit(u / chunks / tiles(), u / chunks % tiles() * tile, u % chunks, parts + u % chunks * items);
      }
    };
    parallel_for(p.batches.total * tiles() * chunks, grain_of(min_of(outputs, tile) * min_of(p.k, chunk)), units);
    if (chunks > 1) combine(parts, items);
  }

  // Outputs [first, first + tile) of one batch, over one chunk of k.
  void unit(int64_t batch, int64_t first, int64_t c, T* part) const {
    auto at = p.batches.seek(batch);
    int64_t k = c * chunk, depth = min_of(chunk, p.k - k), count = min_of(tile, outputs - first);
    const int64_t a = at.at[0] + k * p.a_step, b = at.at[1] + k * p.b_step;
    const S* matrix = row ? p.b<S>() + b : p.a<S>() + a;
    const T* vector = row ? p.a<T>() + a : p.b<T>() + b;
    VectorSums<T, S> sums = {matrix, row ? p.b_column : p.a_row, row ? p.b_step : p.a_step, vector, depth};
    sums.p += first * sums.line_stride;
    int64_t x_step = row ? p.a_step : p.b_step;
    if constexpr (sizeof(S) == sizeof(T)) {
      if (p.makes()) x_step = make(batch, first, count, k, sums, x_step);
    }
    if (x_step != 1) {
      T* x = (T*)nl_scratch(0, depth * sizeof(T));
      gather_row(sums.x, x_step, depth, x);
      sums.x = x;
    }
    sums.run(0, count, part + batch * outputs + first);
    if (chunks == 1) finish(batch, first, first + count);
  }

  // Makes a unit's share of what does not lie in memory. Returns the vector's step.
  int64_t make(int64_t batch, int64_t first, int64_t count, int64_t k, VectorSums<T, S>& sums, int64_t x_step) const {
    const Matrix<T> a = p.matrix_a<T>(), b = p.matrix_b<T>();
    const Matrix<T>&matrix = row ? b : a, &vector = row ? a : b;
    T *x = (T*)nl_scratch(3, (count + 1) * (sums.depth + kWidth<T>)*sizeof(T)), *lines = x + sums.depth;
    if (matrix.maker.prologue) {
      const Panel<T> at = matrix.make(batch, first, count, k, sums.depth, lines);
      sums.p = at.data, sums.line_stride = at.line_stride, sums.step = at.step;
    }
    if (!vector.maker.prologue) return x_step;
    const Panel<T> at = vector.make(batch, 0, 1, k, sums.depth, x);
    sums.x = at.data;
    return at.step;
  }

  // Chunks are subtrees of equal size: their sums are combined in adjacent pairs like blocks.
  void combine(T* parts, int64_t items) const {
    using V = typename Simd<T>::V;
    parallel_for(items, kGrain / chunks, [=](int64_t begin, int64_t end) {
      for (int64_t span = 1; span < chunks; span *= 2) {
        for (int64_t c = 0; c + span < chunks; c += 2 * span) {
          T *to = parts + c * items, *from = to + span * items;
          int64_t i = begin;
          for (; i + kWidth<T> <= end; i += kWidth<T>) store(to + i, load<V>(to + i) + load<V>(from + i));
          for (; i < end; i++) to[i] += from[i];
        }
      }
      __builtin_memcpy(p.c<T>() + begin, parts + begin, (end - begin) * sizeof(T));
    });
    for (int64_t batch = 0; batch < p.batches.total; batch++) finish(batch, 0, outputs);
  }

  void finish(int64_t batch, int64_t begin, int64_t end) const {
    row ? finish_rectangle(p, batch, 0, 1, begin, end) : finish_rectangle(p, batch, begin, end, 0, 1);
  }
};

// ---- matrix times matrix ----------------------------------------------------------------------------------------

// How the contraction's C maps to the product's: batches stacked as rows, or transposed.
struct Mapping {
  const Product& p;
  bool stacked, swapped;

  static void finish(const void* owner, int64_t batch, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    const Mapping& map = *(const Mapping*)owner;
    if (map.swapped) return finish_rectangle(map.p, batch, j0, j1, i0, i1);
    // Rows that are needed whole are numbered through all batches.
    if (!map.stacked || map.p.call.epilogue->of_rows) return finish_rectangle(map.p, batch, i0, i1, j0, j1);
    each_row(map.p.m, i0, i1,
             [&](int64_t b, int64_t begin, int64_t end) { finish_rectangle(map.p, b, begin, end, j0, j1); });
  }

  static void take(const void* owner, int64_t i0, int64_t i1, const void* rows) {
    const Epilogue& epilogue = *((const Mapping*)owner)->p.call.epilogue;
    epilogue.take(epilogue.ctx, i0, i1, rows);
  }
};

// Rows are read in place where they meet too few columns to pay for packing.
template <class T>
bool rows_in_place(const Matrix<T>& a, int64_t n) {
  return !a.maker.prologue && n <= 8 * kTileColumns<T> && !aliases<T>(a.line_stride);
}

// Columns must be adjacent; packing pays when they meet several panels of rows and would not stay near. A tall tile
// spends so long on a line of B that it may come from L2 each time; a low one wants it from L1, where rows may crowd
// each other out.
template <class T>
bool columns_in_place(const Matrix<T>& b, int64_t m, int64_t k) {
  constexpr bool kTall = kTileRows > 8;
  const int64_t bytes = min_of(k, kDepth) * b.lines * int64_t(sizeof(T));
  const bool stay = kTall ? bytes <= kNearBytes : bytes <= 48 << 10 && !aliases<T>(b.step);
  return !b.maker.prologue && b.line_stride == 1 && (m <= kTileRows || stay);
}

// Whether a matrix lies in memory rather than in L2, with lines enough to share among threads.
template <class T>
bool is_large(const Matrix<T>& matrix, int64_t k) {
  constexpr int64_t kLeastBytes = 1 << 20;
  return matrix.lines >= kStreamColumns<T> && k * matrix.lines * int64_t(sizeof(T)) >= kLeastBytes;
}

// A few rows times a large matrix.
template <class T>
bool streams(const Matrix<T>& a, const Matrix<T>& b, int64_t k) {
  return a.lines <= StreamedProduct<T>::kMaxLines && b.line_stride == 1 && is_large(b, k);
}

template <class T>
void stream(const Matrix<T>& a, const Matrix<T>& b, const Output<T>& c, int64_t batch, const Mapping& map) {
  constexpr int64_t kAlign = 2 * kWidth<T>;
  int64_t share = ceil_div(ceil_div(b.lines, 2 * nl_num_threads()), kAlign) * kAlign;
  int64_t width = min_of(share, kStreamColumns<T>), pieces = ceil_div(b.lines, width);
  parallel_for(batch * pieces, 1, [&](int64_t begin, int64_t end) {
    T* scratch = (T*)nl_scratch(1, StreamedProduct<T>::scratch_elements(a.lines) * sizeof(T));
    for (int64_t u = begin; u < end; u++) {
      int64_t at = u / pieces, first = u % pieces * width, count = min_of(width, b.lines - first);
      T* to = c.data + at * c.batch_stride;
      StreamedProduct<T> product = {a.lines, map.p.k, a.line_stride, a.step,
                                    b.step,  to,      c.row_stride,  c.columns.x_stride};
      product.run(a.batch(at), b.batch(at), first, int(count), scratch);
      if (map.p.call.epilogue) map.finish(&map, at, 0, a.lines, first, first + count);
    }
  });
}

// A large matrix that is contiguous in k times a few columns.
template <class T>
bool streams_lines(const Matrix<T>& a, const Matrix<T>& b, int64_t k) {
  return b.lines <= kTileColumns<T> && a.step == 1 && is_large(a, k);
}

// Reads kLines lines of A side by side from beginning to end, in place: more would crowd each other out of L1 where
// they lie a power of two apart. B is packed once.
template <class T>
void stream_lines(const Matrix<T>& a, const Matrix<T>& b, const Output<T>& c, int64_t batch, const Mapping& map) {
  constexpr int kLines = 8 < kTileRows ? 8 : kTileRows;
  int64_t k = map.p.k, groups = ceil_div(a.lines, kLines), pitch = whole_vectors<T>(b.lines);
  T* packed = (T*)nl_scratch(0, k * pitch * sizeof(T));
  for (int64_t at = 0; at < batch; at++) {
    auto pack = [&](int64_t begin, int64_t end) {
      for (int64_t d = begin * kDepth; d < min_of(end * kDepth, k); d += kDepth) {
        Slice slice = {at, 0, 0, d, int(b.lines), int(min_of(kDepth, k - d)), int(pitch), int(pitch)};
        b.fetch(&b, slice, packed + d * pitch);
      }
    };
    parallel_for(ceil_div(k, kDepth), 4, pack);
    parallel_for(groups, max_of(1, grain_of(kLines * k)), [&](int64_t begin, int64_t end) {
      T sums[kLines * kTileColumns<T>];
      for (int64_t g = begin; g < end; g++) {
        int64_t first = g * kLines, count = min_of(kLines, a.lines - first);
        for (int64_t d = 0; d < k; d += kDepth) {
          Panel<T> lines = {a.batch(at) + first * a.line_stride + d, a.line_stride, 1};
          micro_kernel(T(), int(count), int(b.lines))(min_of(kDepth, k - d), lines, {packed + d * pitch, 1, pitch},
                                                      sums, kTileColumns<T>, d > 0 ? sums : nullptr, kTileColumns<T>);
        }
        for (int64_t i = 0; i < count; i++) {
          T* to = c.data + at * c.batch_stride + (first + i) * c.row_stride;
          for (int64_t j = 0; j < b.lines; j++) to[j * c.columns.x_stride] = sums[i * kTileColumns<T> + j];
        }
        if (map.p.call.epilogue) map.finish(&map, at, first, first + count, 0, b.lines);
      }
    });
  }
}

// Whether C^T = B^T A^T is the better way to see a product.
template <class T>
bool turns(const Matrix<T>& a, const Matrix<T>& b, int64_t k) {
  return is_narrow(b, a, k) || (a.lines <= kWidth<T> && b.lines > a.lines && b.step == 1 && b.line_stride != 1) ||
         streams(b, a, k) || streams_lines(b, a, k);
}

// In tiles, by packed panels where those pay.
template <class T>
void contract_blocks(Matrix<T> a, Matrix<T> b, const Output<T>& c, int64_t batch, const Mapping& map) {
  const Product& p = map.p;
  const Epilogue* epilogue = p.call.epilogue;
  a.in_place = rows_in_place(a, b.lines);
  b.in_place = columns_in_place(b, a.lines, p.k);
  const bool transposed = a.line_stride == 1 && !a.maker.prologue;
  const Operand<T> rows = {a.fetch, &a, nullptr, transposed ? a.lying : nullptr}, columns = {b.fetch, &b, b.expect};
  const auto finish = epilogue ? map.finish : nullptr;
  Contraction<T> job = {batch, a.lines, b.lines, 0, p.k, false, rows, columns, c, finish, &map};
  job.of_rows = epilogue && epilogue->of_rows && !map.swapped;
  if (job.of_rows && epilogue->take) job.take = map.take;
  if (!p.call.kept || batch > 1 || map.swapped || b.in_place) return contract(job);
  const KeptPanels<T> kept(b, p.k, p.call.kept);
  job.b = kept.operand();
  contract(job);
}

// Each batch on one thread, or in parts where there are few.
template <class T>
void multiply_small(const Matrix<T>& a, Matrix<T> b, const Output<T>& c, int64_t batches, int64_t products,
                    const Mapping& map) {
  b.in_place = columns_in_place(b, a.lines, map.p.k);
  const int64_t work = batches * (products + kCall), time = work * int64_t(sizeof(T)) / kSmallRate;
  const int64_t worth = work / kLeastPart, most = worth > 1 ? min_of(worth, nl_threads_at_hand(time)) : 1;
  const bool whole = map.p.call.epilogue && map.p.call.epilogue->of_rows;  // rows, unless C is transposed
  const int64_t each = max_of(1, most / batches);
  const Parts<T> parts(a.lines, b.lines, each, whole ? !map.swapped : cut_rows<T>(a.lines, b.lines, each));
  const int64_t share = most > 1 ? ceil_div(batches * parts.count, most) : batches;
  const int64_t grain = max_of(1, min_of(share, kGrainProducts / products));
  parallel_for(batches * parts.count, grain, [&](int64_t begin, int64_t end) {
    int64_t batch = begin / parts.count, i = begin % parts.count;
    auto at = map.p.batches.seek(batch);
    SmallProduct<T> product = {a, b, c, map.p.k};
    Part part = parts.part(i);
    for (int64_t u = begin; u < end; u++) {
      product.a.data = a.data + at.at[a.side], product.b.data = b.data + at.at[b.side];
      product.c.data = c.data + batch * c.batch_stride;
      product.run(part);
      if (map.p.call.epilogue)
        map.finish(&map, batch, part.row, part.row + part.rows, part.column, part.column + part.columns);
      if (++i == parts.count) i = 0, batch++, map.p.batches.next(at);
      if (parts.count > 1) part = parts.part(i);
    }
  });
}

template <class T>
void multiply_matrices(const Product& p) {
  Matrix<T> a = p.matrix_a<T>(), b = p.matrix_b<T>();
  Output<T> c = {p.c<T>(), p.m * p.n, p.n, {1, p.n, 0, 0, 1}};
  Mapping map = {p, false, false};
  int64_t batch = p.batches.total;
  if (p.batches.rank == 1 && p.batches.stride[1][0] == 0 && p.batches.stride[0][0] == p.m * p.a_row) {
    map.stacked = true;
    a.lines *= batch;
    batch = 1;
  } else if (!p.makes() && turns(a, b, p.k)) {
    // C^T = B^T A^T reads a matrix that is contiguous in k without packing it where it meets a few rows, and one whose
    // lines are adjacent in the order of memory where it meets a few columns.
    map.swapped = true;
    Matrix<T> t = a;
    a = b, b = t;
    c.row_stride = 1;
    c.columns = {1, p.m, 0, 0, p.n};
  }
  if (!p.makes() && is_narrow(a, b, p.k)) {
    return multiply_narrow(a, b, c, batch, p.k, [&](int64_t at, int64_t begin, int64_t end) {
      if (p.call.epilogue) map.finish(&map, at, begin, end, 0, b.lines);
    });
  }
  if (!p.makes() && streams(a, b, p.k)) return stream(a, b, c, batch, map);
  if (!p.makes() && streams_lines(a, b, p.k)) return stream_lines(a, b, c, batch, map);
  const int64_t products = a.lines * b.lines * max_of(1, p.k);
  if (!p.makes() && is_small(a, products, p.k)) return multiply_small(a, b, c, batch, products, map);
  contract_blocks(a, b, c, batch, map);
}

template <class T>
void multiply_floats(const Product& p) {
  if (p.batches.total == 0 || p.m == 0 || p.n == 0) return;
  if (p.m > 1 && p.n > 1) return multiply_matrices<T>(p);
  if constexpr (sizeof(T) == sizeof(float)) {
    const DType stored = p.call.in[p.m == 1].dtype;
    if (stored == DType::bf16) return VectorProduct<T, BFloat16>(p).run();
    if (stored == DType::f16) return VectorProduct<T, Float16>(p).run();
  }
  VectorProduct<T>(p).run();
}

// Of 16-bit floats, which are widened as they are packed.
void multiply_widened(const Call& call) {
  Widened operands[2];
  View in[2];
  Prologue prologues[2];
  for (int i = 0; i < 2; i++) {
    operands[i].see(call.in[i]);
    in[i] = operands[i].view, prologues[i] = operands[i].prologue;
  }
  Call wide = call;
  wide.in = in;
  wide.prologues = prologues;
  multiply_floats<float>(Product(wide));
}

}  // namespace

int matmul(const Call& call) {
  Product p(call);
  switch (call.out[0].dtype) {
    case DType::u8: IntegerProduct<uint8_t>{p}.run(); break;
    case DType::i32: IntegerProduct<uint32_t>{p}.run(); break;
    case DType::i64: IntegerProduct<uint64_t>{p}.run(); break;
    case DType::f32:
      if (p.m > 1 && p.n > 1 && (is_narrow(call.in[0].dtype) || is_narrow(call.in[1].dtype))) {
        multiply_widened(call);
      } else {
        multiply_floats<float>(p);
      }
      break;
    case DType::f64: multiply_floats<double>(p); break;
    default: break;  // promotion leaves no bool product, narrow integers come widened
  }
  return kOk;
}

}  // namespace nl::NL_ISA
