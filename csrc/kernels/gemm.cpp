// gemm.cpp: cuts a contraction into tiles of C and runs each tile through all of k.
//
// A tile is computed by one thread from beginning to end: for each block of k it fetches the row panels of A once (they
// stay in L2) and the column panels of B one by one (each stays in L1 while it meets all of A). Tiles share nothing, so
// one fork and join is all the synchronisation, and a finished tile is still in cache for the epilogue. That A and B
// are packed once per tile instead of once per product costs 1-2 % at tiles of this size.
#include "gemm.hpp"

#include "loops.hpp"

namespace nl::NL_ISA {
namespace {

constexpr int64_t kPanelBytesOfA = 256 << 10;  // a quarter of a 1 MiB L2
constexpr int64_t kMaxColumns = 1024, kMaxWholeRow = 4096;
constexpr int64_t kMaxRowBlocks = 16;     // of kMaxRowPanels, that share a packed B
constexpr int64_t kHotBytes = 256 << 10;  // of C that are finished together, while they are in L2

template <class T>
constexpr int64_t kMaxRowPanels = kPanelBytesOfA / (kDepth * kPackedRows<T> * int64_t(sizeof(T)));

template <class T>
constexpr int64_t kMaxColumnPanels = kMaxWholeRow / kTileColumns<T>;

// Row panels that are finished together.
template <class T>
int64_t hot_row_panels(int64_t columns) {
  const int64_t panels = kHotBytes / (kTileRows * columns * int64_t(sizeof(T)));
  return max_of(1, min_of(panels, kMaxRowPanels<T>));
}

// Elements of the rows that a tile of so many row panels keeps outside of C.
template <class T>
int64_t own_elements(const Contraction<T>& job, int64_t row_panels) {
  const int64_t depth = job.k_end - job.k_begin;
  const int64_t kept = 0 < depth && depth <= kDepth ? min_of(row_panels, hot_row_panels<T>(job.n)) : row_panels;
  return min_of(job.m, kept * kTileRows) * job.n;
}

// How C is cut: `rows` x `columns` tiles of whole panels.
struct Cut {
  int64_t row_panels, column_panels;
  int64_t rows, columns;
};

// Of one batch. Few columns take as long as the narrowest tile.
template <class T>
int64_t products(const Contraction<T>& job) {
  return job.m * max_of(job.n, tile_width<T>(1)) * (job.k_end - job.k_begin);
}

// As many threads as the work is worth.
template <class T>
int64_t threads_for(const Contraction<T>& job) {
  return max_of(1, min_of(nl_num_threads(), job.batch * products(job) / kGrainProducts));
}

// The cut of least cost: the products of the largest tile, its share of packing counted as kPacking lines more, times
// the number of tiles that the busiest thread computes. Tried are cuts into a few tiles for each thread.
// An epilogue that finds rows in pieces reads them again, and what it joins to them as short strips, too short for the
// hardware's prefetching: kReadAgain products an element.
template <class T>
Cut plan(const Contraction<T>& job, int64_t threads) {
  constexpr int64_t kPacking = 8, kTilesEach = 4, kReadAgain = 16;
  const int64_t depth = max_of(1, job.k_end - job.k_begin);
  int64_t rows = row_panels(job.m), columns = ceil_div(job.n, kTileColumns<T>);
  int64_t fewest_rows = ceil_div(rows, kMaxRowBlocks * kMaxRowPanels<T>);
  const bool long_rows = job.of_rows && depth <= kDepth && job.n <= kMaxWholeRow;
  int64_t fewest_columns = long_rows ? 1 : ceil_div(job.n, kMaxColumns);
  Cut best = {rows, columns, fewest_rows, fewest_columns};
  if (threads == 1) return best;
  int64_t least = INT64_MAX;
  for (int64_t r = fewest_rows; r <= min_of(rows, fewest_rows + kTilesEach * threads); r++) {
    for (int64_t each = 1; each <= kTilesEach; each++) {
      int64_t c = min_of(columns, max_of(fewest_columns, ceil_div(threads * each, job.batch * r)));
      const int64_t height = job.a.numbered ? min_of(job.m, ceil_div(rows, r) * kTileRows) : ceil_div(job.m, r);
      const int64_t width = ceil_div(columns, c) * kTileColumns<T>;
      int64_t cost = ceil_div(job.batch * r * c, threads) * (height + kPacking) * (width + kPacking);
      if (job.finish && c > 1) cost += cost * kReadAgain / depth;
      if (cost < least) least = cost, best.rows = r, best.columns = c;
    }
  }
  if (!job.a.numbered) best.row_panels = ceil_div(rows, best.rows) * best.rows;
  return best;
}

// Where `count` columns of a row of C lie.
template <class T>
struct Columns {
  int count;
  bool direct;  // adjacent, and as many as are written at a time: that can be to C itself
  int64_t offset[kTileColumns<T>];

  // `n` columns from `first` on, for who writes `width`.
  void find(const Grid& grid, int64_t first, int n, int width) {
    bool adjacent = grid.x_stride == 1 && first % grid.xs + n <= grid.xs;
    count = n;
    direct = adjacent && n == width;
    offsets_of(grid, first, direct ? 1 : n, offset);
  }

  int width() const { return tile_width<T>(count); }

  void get(const T* row, T* block) const {
    for (int i = 0; i < count; i++) block[i] = row[offset[i]];
  }
  void put(const T* block, T* row) const {
    for (int i = 0; i < count; i++) row[offset[i]] = block[i];
  }
};

// Rows this far apart fall into so few sets of L2 that those of a tile crowd each other out. 4 KiB apart they do not
// yet: there sums set aside cost more than they save.
template <class T>
bool crowds(int64_t row_stride) {
  return row_stride * int64_t(sizeof(T)) % 8192 == 0;
}

// One tile of C: row panels [p0, p1) and column panels [q0, q1).
template <class T>
struct Tile {
  const Contraction<T>& job;
  const Cut& cut;
  int64_t batch, p0, p1, q0, q1;
  T* packed_a;
  T* packed_b;
  T* blocks;            // sums of columns that are not direct, or until the last k of those that crowd L2
  Columns<T>* columns;  // of each column panel
  T* own;               // instead of C, of rows from `own_row` on that are taken there, in L2
  int64_t own_row;

  static constexpr int64_t kPanelA = kDepth * kPackedRows<T>;
  static constexpr int64_t kPanelB = kDepth * kTileColumns<T>;

  int64_t row(int64_t p) const { return p * job.m / cut.row_panels; }
  int64_t column(int64_t q) const { return min_of(q * kTileColumns<T>, job.n); }
  T* row_of_c(int64_t i) const {
    return own ? own + (i - own_row) * job.c.row_stride
               : job.c.data + batch * job.c.batch_stride + i * job.c.row_stride;
  }
  T* row_of_block(int64_t q, int64_t i) const {
    return blocks + ((q - q0) * (row(p1) - row(p0)) + i - row(p0)) * kTileColumns<T>;
  }

  static int64_t scratch_elements(int64_t m, int64_t row_panels, int64_t column_panels) {
    int64_t rows = min_of(m, row_panels * kTileRows);
    return min_of(row_panels, kMaxRowPanels<T>) * kPanelA + column_panels * (kPanelB + rows * kTileColumns<T>);
  }

  void run() {
    own_row = row(p0);
    for (int64_t q = q0; q < q1; q++) {
      const int count = int(column(q + 1) - column(q));
      columns[q - q0].find(job.c.columns, column(q), count, tile_width<T>(count));
    }
    if (job.k_begin == job.k_end && !job.add) clear();
    if (job.add) each_block(p0, p1, [](const Columns<T>& c, T* row, T* block) { c.get(row, block); });
    for (int64_t k = job.k_begin; k < job.k_end; k += kDepth) {
      if (k > job.k_begin) nl_check_interrupt();
      add_block(k, int(min_of(kDepth, job.k_end - k)));
    }
    if (job.k_begin == job.k_end) finish(p0, p1);
  }

  // Row panels [begin, end) have met all of k.
  void finish(int64_t begin, int64_t end) const {
    each_block(begin, end, [](const Columns<T>& c, T* row, T* block) { c.put(block, row); });
    if (own) return job.take(job.owner, batch * job.m + row(begin), batch * job.m + row(end), row_of_c(row(begin)));
    if (job.finish) job.finish(job.owner, batch, row(begin), row(end), column(q0), column(q1));
  }

  // move(columns, row of C, row of the block) for every row of these row panels in every panel that is not direct.
  template <class Move>
  void each_block(int64_t begin, int64_t end, const Move& move) const {
    for (int64_t q = q0; q < q1; q++) {
      const Columns<T>& c = columns[q - q0];
      for (int64_t i = row(begin); !c.direct && i < row(end); i++) move(c, row_of_c(i), row_of_block(q, i));
    }
  }

  // A sum over no k is +0.
  void clear() const {
    for (int64_t q = q0; q < q1; q++) {
      const Columns<T>& c = columns[q - q0];
      for (int64_t i = row(p0); i < row(p1); i++) {
        T* to = c.direct ? row_of_c(i) + c.offset[0] : row_of_block(q, i);
        for (int j = 0; j < c.count; j++) to[j] = 0;
      }
    }
  }

  void add_block(int64_t k, int depth) {
    Panel<T> rows[kMaxRowPanels<T>], panel[kMaxColumnPanels<T>];
    const bool last = k + depth == job.k_end;
    const int64_t most = last && job.of_rows ? hot_row_panels<T>(column(q1) - column(q0)) : kMaxRowPanels<T>;
    for (int64_t p = p0, stop; p < p1; p = stop) {
      stop = min_of(p + most, p1);
      if (k == job.k_begin && last) own_row = row(p);
      if (p > p0) nl_check_interrupt();
      for (int64_t i = p; i < stop; i++) rows[i - p] = fetch_rows(i, k, depth, packed_a + (i - p) * kPanelA);
      for (int64_t q = q0; q < q1; q++) {
        // B is packed while it meets the first rows, and kept where there are more.
        if (p == p0) panel[q - q0] = fetch_columns(q, k, depth, packed_b + (stop < p1 ? (q - q0) * kPanelB : 0));
        for (int64_t i = p; i < stop; i++) {
          Panel<T> b = panel[q - q0];
          if (p == p0) expect_columns(q + 1, k, i - p, stop - p), fetch_next_columns(q + 1, k, i - p, b);
          if (q + 1 == q1 && !b.next) fetch_next_rows(i, p, stop, k, b);
          multiply(i, rows[i - p], q, b, k, depth);
        }
      }
      if (last) finish(p, stop);
    }
  }

  Panel<T> fetch_rows(int64_t p, int64_t k, int depth, T* buffer) const {
    int count = int(row(p + 1) - row(p));
    return job.a.fetch(job.a.source, {batch, p, row(p), k, count, depth, count, kPackedRows<T>}, buffer);
  }

  // Panel q, which comes next; after the last one the first of the next k, or nothing.
  Slice next_columns(int64_t q, int64_t k) const {
    if (q == q1) q = q0, k += kDepth;
    const int count = int(column(q + 1) - column(q));
    return {batch, q, column(q), k, count, int(max_of(0, min_of(kDepth, job.k_end - k))), count, 0};
  }

  // Says part i of n of the next panel.
  void expect_columns(int64_t q, int64_t k, int64_t i, int64_t n) const {
    if (job.b.expect == nullptr) return;
    Slice slice = next_columns(q, k);
    const int64_t begin = i * slice.depth / n, end = (i + 1) * slice.depth / n;
    slice.k += begin, slice.depth = int(end - begin);
    if (slice.depth > 0) job.b.expect(job.b.source, slice);
  }

  // Kernel `i` with a panel fetches cache lines `i` of the next one.
  void fetch_next_columns(int64_t q, int64_t k, int64_t i, Panel<T>& panel) const {
    constexpr int64_t kLine = 64 / sizeof(T);
    if (job.b.lying == nullptr || i * kLine >= kTileColumns<T>) return;
    const Slice slice = next_columns(q, k);
    if (slice.depth == 0) return;
    const Panel<T> next = job.b.lying(job.b.source, slice);
    panel.next = next.data + i * kLine, panel.next_step = next.step;
    panel.far = job.batch * job.m * job.n * int64_t(sizeof(T)) >= kFarBytes;
  }

  // After the last columns row panel `i` of [p, stop) is not needed any more: its kernel fetches what takes its place,
  // of the panels behind these, or of the first ones at the next k.
  void fetch_next_rows(int64_t i, int64_t p, int64_t stop, int64_t k, Panel<T>& panel) const {
    const int64_t next = (stop < p1 ? stop : p0) + i - p;
    if (stop == p1) k += kDepth;
    if (job.a.lying == nullptr || next >= p1 || k >= job.k_end) return;
    const int count = int(row(next + 1) - row(next)), depth = int(min_of(kDepth, job.k_end - k));
    const Panel<T> rows = job.a.lying(job.a.source, {batch, next, row(next), k, count, depth, count, 0});
    panel.next = rows.data, panel.next_step = rows.step;
  }

  Panel<T> fetch_columns(int64_t q, int64_t k, int depth, T* buffer) const {
    const Columns<T>& c = columns[q - q0];
    const int width = c.width(), pitch = int(whole_vectors<T>(width));
    return job.b.fetch(job.b.source, {batch, q, column(q), k, c.count, depth, width, pitch}, buffer);
  }

  void multiply(int64_t p, const Panel<T>& a, int64_t q, const Panel<T>& b, int64_t k, int depth) const {
    const Columns<T>& c = columns[q - q0];
    const bool first = k == job.k_begin, last = k + depth == job.k_end,
               aside = !c.direct || crowds<T>(job.c.row_stride);
    T *in_c = row_of_c(row(p)) + c.offset[0], *in_block = row_of_block(q, row(p));
    const bool to_block = aside && !(c.direct && last), from_block = aside && !(c.direct && first);
    const T* before = first && !job.add ? nullptr : from_block ? in_block : in_c;
    PanelKind kind = kind_of(a);
    if (b.next) kind = kind == PanelKind::packed ? PanelKind::with_next : PanelKind::strided_with_next;
    auto kernel = micro_kernel(T(), int(row(p + 1) - row(p)), c.count, kind);
    kernel(depth, a, b, to_block ? in_block : in_c, to_block ? kTileColumns<T> : job.c.row_stride, before,
           from_block ? kTileColumns<T> : job.c.row_stride);
  }
};

template <class T>
void run_tiles(const Contraction<T>& job, int64_t threads) {
  const Cut cut = plan(job, threads);
  int64_t per_batch = cut.rows * cut.columns;
  const int64_t grain = max_of(1, kGrainProducts / max_of(1, ceil_div(products(job), per_batch)));
  int64_t row_panels = ceil_div(cut.row_panels, cut.rows);
  int64_t column_panels = ceil_div(cut.column_panels, cut.columns);
  const bool takes = job.take && cut.columns == 1;
  const int64_t shared = Tile<T>::scratch_elements(job.m, row_panels, column_panels),
                own = takes ? own_elements(job, row_panels) : 0;
  auto range = [&](int64_t begin, int64_t end) {
    T* packed_a = (T*)nl_scratch(1, (shared + own) * sizeof(T));
    T* packed_b = packed_a + min_of(row_panels, kMaxRowPanels<T>) * Tile<T>::kPanelA;
    T* blocks = packed_b + column_panels * Tile<T>::kPanelB;
    Columns<T> columns[kMaxColumnPanels<T>];
    for (int64_t t = begin; t < end; t++) {
      int64_t r = t % per_batch / cut.columns, c = t % cut.columns;
      int64_t p0 = r * cut.row_panels / cut.rows, p1 = (r + 1) * cut.row_panels / cut.rows;
      int64_t q0 = c * cut.column_panels / cut.columns, q1 = (c + 1) * cut.column_panels / cut.columns;
      T* const taken = takes ? packed_a + shared : nullptr;
      Tile<T>{job, cut, t / per_batch, p0, p1, q0, q1, packed_a, packed_b, blocks, columns, taken, 0}.run();
    }
  };
  parallel_for(job.batch * per_batch, grain, range);
}

// ---- a small C over a long k: threads compute blocks of k, which are then added in order ----------------------------

constexpr int64_t kMaxBlockOutput = 1 << 13;  // a thread: where there is more, tiles cost less than sums of blocks

template <class T>
bool splits_k(const Contraction<T>& job, int64_t threads) {
  return threads > 1 && job.batch == 1 && job.m * job.n <= kMaxBlockOutput * threads &&
         job.k_end - job.k_begin >= 4 * threads * kDepth;
}

template <class T>
struct BlockSums {
  const Contraction<T>& job;
  T* sums;  // [block][row][column]

  void run(int64_t threads) {
    int64_t blocks = ceil_div(job.k_end - job.k_begin, kDepth), round = 8 * threads;
    sums = (T*)nl_scratch(0, (round * job.m * job.n + kWidth<T>)*sizeof(T));
    for (int64_t first = 0; first < blocks; first += round) {
      int64_t count = min_of(round, blocks - first);
      parallel_for(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) compute(first + i, sums + i * job.m * job.n);
      });
      const int64_t vectors = ceil_div(job.n, kWidth<T>);
      parallel_for(vectors, grain_of(kWidth<T> * job.m * count), [&](int64_t begin, int64_t end) {
        for (int64_t v = begin; v < end; v++) add_columns(v * kWidth<T>, count, job.add || first > 0);
      });
    }
    if (job.finish) job.finish(job.owner, 0, 0, job.m, 0, job.n);
  }

  void compute(int64_t block, T* to) const {
    const int64_t begin = job.k_begin + block * kDepth, end = min_of(begin + kDepth, job.k_end);
    const Output<T> out = {to, 0, job.n, {1, job.n, 0, 0, 1}};
    run_tiles(Contraction<T>{1, job.m, job.n, begin, end, false, job.a, job.b, out, nullptr, nullptr}, 1);
  }

  // A vector of columns; what it reads behind the end of the last block is not used.
  void add_columns(int64_t first, int64_t count, bool add) const {
    using V = typename Simd<T>::V;
    Columns<T> columns;
    columns.find(job.c.columns, first, int(min_of(kWidth<T>, job.n - first)), kWidth<T>);
    const T* from = sums + first;
    T* row = job.c.data;
    for (int64_t i = 0; i < job.m; i++, from += job.n, row += job.c.row_stride) {
      T block[kWidth<T>] = {};
      T* to = columns.direct ? row + columns.offset[0] : block;
      if (add && !columns.direct) columns.get(row, block);
      V sum = add ? load<V>(to) + load<V>(from) : load<V>(from);
      for (int64_t b = 1; b < count; b++) sum += load<V>(from + b * job.m * job.n);
      store(to, sum);
      if (!columns.direct) columns.put(block, row);
    }
  }
};

template <class T>
void run(const Contraction<T>& job) {
  if (job.batch == 0 || job.m == 0 || job.n == 0) return;
  int64_t threads = threads_for(job);
  if (splits_k(job, threads))
    BlockSums<T>{job, nullptr}.run(threads);
  else
    run_tiles(job, threads);
}

}  // namespace

void contract(const Contraction<float>& job) { run(job); }
void contract(const Contraction<double>& job) { run(job); }

}  // namespace nl::NL_ISA
