// conv_winograd_weight.cpp: weight gradients of 3x3 convolutions by Winograd's transforms: four pixels of the maps in
// 16 products a weight instead of 36, or in 25 at stride 2.
//
// Maps are transformed tile by tile, A g At, and the inputs that a tile sees, Bt x B. Each element of a tile is then a
// matrix product of its own, outputs by channels, whose k runs over the tiles of all images; Gt M G of these sums are
// the weights. A thread takes a row of elements: it combines two rows of a tile's inputs, or of its maps, as it packs
// them, so that all elements of a row share the sums down the columns. Both are staged before with a vector of
// channels, or of a panel's outputs, for every pixel.
#include "conv_lanes.hpp"
#include "conv_winograd.hpp"
#include "conv_winograd_transforms.hpp"

namespace nl::NL_ISA {
namespace {

using V = Simd<float>::V;
constexpr int W = kWidth<float>;

// Tiles are numbered through rows of tiles and images.
struct Tiles {
  int64_t images, rows, columns;  // of an image

  int64_t total() const { return images * rows * columns; }
};

// What rows of tiles see of an operand, the images or the maps: [vector of lines][row][pixel][lane], with zeros beyond
// the image. Its lines, channels or outputs, lie in panels of the micro-kernel.
struct Side {
  View from;
  const Tiles& tiles;
  bool rows;           // panels of rows of the product, not of columns
  int64_t lines;       // of a group of the convolution
  int64_t step, seen;  // pixels from one tile to the next, and that a tile sees
  int64_t top, left;   // of padding
  int64_t first = 0;   // row of tiles that is staged
  int64_t staged = 0;  // rows of pixels
  float* data = nullptr;
  int64_t* place = nullptr;  // of the pixels of a strip

  int64_t panels() const { return rows ? row_panels(lines) : ceil_div(lines, kTileColumns<float>); }
  int64_t begin(int64_t p) const { return rows ? row_panel_begin(lines, p) : min_of(lines, p * kTileColumns<float>); }
  int64_t pitch_of_k() const { return rows ? kPackedRows<float> : kTileColumns<float>; }

  // Vector `n` of all groups.
  int64_t vectors() const { return pitch_of_k() / W; }  // of a panel
  int64_t vectors_of_group() const { return panels() * vectors(); }
  int64_t panel(int64_t n) const { return n % vectors_of_group() / vectors(); }
  int64_t line(int64_t n) const { return begin(panel(n)) + n % vectors() * W; }
  int64_t count(int64_t n) const { return min_of(W, begin(panel(n) + 1) - line(n)); }

  int64_t width() const { return from.shape[3]; }
  int64_t pitch() const { return max_of((tiles.columns - 1) * step + seen, left + width()); }
  int64_t strip() const { return max_of(1, kStrip / max_of(1, width())); }
  int64_t place_count() const { return strip() * width(); }

  // The first row of pixels that a row of tiles sees; images do not share them.
  int64_t row(int64_t r) const { return (r - first) * step + (r / tiles.rows - first / tiles.rows) * (seen - step); }
  int64_t vector_size() const { return staged * pitch() * W; }
  const float* pixels(int64_t n, int64_t r, int64_t tile) const {
    return data + n * vector_size() + (row(r) * pitch() + tile * step) * W;
  }

  void cover(int64_t begin, int64_t end) {
    first = begin;
    staged = row(end - 1) + seen;
  }

  void list_places() const {
    for (int64_t i = 0; i < place_count(); i++) place[i] = (i / width() * pitch() + left + i % width()) * W;
  }

  // Stages the rows of tiles [r, end) of one image, vector `n`; what the last of them shares with the next row of tiles
  // only if that is staged by nobody.
  void stage(int64_t n, int64_t r, int64_t end, bool is_last) const {
    if (count(n) <= 0) return;
    const LaneGroup<float> lanes(from, r / tiles.rows, n / vectors_of_group() * lines + line(n), count(n));
    const int64_t height = from.shape[2], y = r % tiles.rows * step - top;
    const int64_t number = (end - r) * step + (is_last ? seen - step : 0);
    float* to = data + n * vector_size() + row(r) * pitch() * W;
    for (int64_t i = 0; i < number; i++) {
      const bool inside = y + i >= 0 && y + i < height;
      clear(to + i * pitch() * W, inside ? left : pitch());
      if (inside) clear(to + (i * pitch() + left + width()) * W, pitch() - left - width());
    }
    const int64_t stop = min_of(number, height - y);
    for (int64_t i = max_of(0, -y), next; i < stop; i = next) {
      next = min_of(stop, i + strip());
      float* rows = to + i * pitch() * W;
      lanes.read(y + i, y + next, [rows, this](int64_t pixel) { return rows + place[pixel]; });
    }
  }

 private:
  static constexpr int64_t kStrip = 1024;  // pixels

  static void clear(float* to, int64_t pixels) {
    for (int64_t i = 0; i < pixels; i++) store(to + i * W, V{});
  }
};

// How one row of a transformed tile comes from the rows of the tile: from row `first`, with or without `second`.
enum class Term { only, sum, difference };
struct Row {
  Term term;
  int first, second;

  friend constexpr Row operator+(Row a, Row b) { return {Term::sum, a.first, b.first}; }
  friend constexpr Row operator-(Row a, Row b) { return {Term::difference, a.first, b.first}; }
};

// Of the inputs, and of the maps.
template <class F>
constexpr Row input_row(int i) {
  Row rows[F::kInputs] = {}, elements[F::kSide] = {};
  for (int j = 0; j < F::kInputs; j++) rows[j] = {Term::only, j, j};
  F::spread(rows, elements);
  return elements[i];
}
template <class F>
constexpr Row map_row(int i) {
  Row elements[F::kSide] = {};
  F::spread_maps(Row{Term::only, 0, 0}, Row{Term::only, 1, 1}, elements);
  return elements[i];
}

template <Term kTerm>
NL_FN V combined(const float* first, const float* second) {
  if constexpr (kTerm == Term::only) return load<V>(first);
  if constexpr (kTerm == Term::sum) return load<V>(first) + load<V>(second);
  return load<V>(first) - load<V>(second);
}

// A row of elements of `count` tiles side by side, a vector of lines.
template <class F, Term kTerm>
void spread_inputs(const float* first, const float* second, int64_t count, float* to, int64_t k_step,
                   int64_t element_size) {
  constexpr int kShared = F::kInputs - F::kStep;
  V x[F::kInputs];
#pragma GCC unroll 5
  for (int i = 0; i < kShared; i++) x[i] = combined<kTerm>(first + i * W, second + i * W);
  for (int64_t t = 0; t < count; t++, first += F::kStep * W, second += F::kStep * W, to += k_step) {
    V elements[F::kSide];
#pragma GCC unroll 5
    for (int i = kShared; i < F::kInputs; i++) x[i] = combined<kTerm>(first + i * W, second + i * W);
    F::spread(x, elements);
#pragma GCC unroll 5
    for (int j = 0; j < F::kSide; j++) store(to + j * element_size, elements[j]);
#pragma GCC unroll 5
    for (int i = 0; i < kShared; i++) x[i] = x[i + F::kStep];
  }
}

template <class F, Term kTerm>
void spread_maps(const float* first, const float* second, int64_t count, float* to, int64_t k_step,
                 int64_t element_size) {
  for (int64_t t = 0; t < count; t++, first += 2 * W, second += 2 * W, to += k_step) {
    V elements[F::kSide];
    F::spread_maps(combined<kTerm>(first, second), combined<kTerm>(first + W, second + W), elements);
#pragma GCC unroll 5
    for (int j = 0; j < F::kSide; j++) store(to + j * element_size, elements[j]);
  }
}

using Spread = void (*)(const float* first, const float* second, int64_t count, float* to, int64_t k_step,
                        int64_t element_size);

template <class F>
Spread inputs_spread(Term term) {
  if (term == Term::only) return spread_inputs<F, Term::only>;
  return term == Term::sum ? spread_inputs<F, Term::sum> : spread_inputs<F, Term::difference>;
}

template <class F>
Spread maps_spread(Term term) {
  if (term == Term::only) return spread_maps<F, Term::only>;
  return term == Term::sum ? spread_maps<F, Term::sum> : spread_maps<F, Term::difference>;
}

// The sums of a tile's elements, `size` apart, to those of its taps, `pitch` apart: a vector of channels.
template <class F>
void collect(const float* m, int64_t size, float* to, int64_t pitch) {
  V along[F::kSide][3];
#pragma GCC unroll 5
  for (int i = 0; i < F::kSide; i++) {
    V row[F::kSide];
#pragma GCC unroll 5
    for (int j = 0; j < F::kSide; j++) row[j] = load<V>(m + (i * F::kSide + j) * size);
    F::collect_taps(row, along[i]);
  }
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) {
    V column[F::kSide], taps[3];
#pragma GCC unroll 5
    for (int i = 0; i < F::kSide; i++) column[i] = along[i][j];
    F::collect_taps(column, taps);
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) store(to + (3 * i + j) * pitch, taps[i]);
  }
}

// Where a row of elements is packed: [panel][element][tile][line], panels and elements of these sizes.
struct Packed {
  float* data;
  int64_t panel_size, element_size;
};

// Images without the last rows and columns that no window sees: tiles of maps of odd extents do, and would multiply an
// infinity there by zero.
View seen_by_windows(View images, const Geometry& g) {
  images.shape[2] = min_of(images.shape[2], g.y.span() - g.y.pad);
  images.shape[3] = min_of(images.shape[3], g.x.span() - g.x.pad);
  return images;
}

template <class F>
struct WeightGradient {
  static constexpr int kSide = F::kSide, kElements = kSide * kSide, kTaps = 9;
  const Call& call;
  Geometry g;
  Tiles tiles;
  Side images, maps;
  float* sums = nullptr;  // what follows the staged pixels

  explicit WeightGradient(const Call& c)
      : call(c),
        g(conv2d_weight_geometry(c)),
        tiles{g.images, ceil_div(g.y.output, 2), ceil_div(g.x.output, 2)},
        images{seen_by_windows(c.in[0], g), tiles, false, g.group_channels(), F::kStep, F::kInputs, g.y.pad, g.x.pad},
        maps{c.in[1], tiles, true, g.group_outputs(), 2, 2, 0, 0} {}

  void run() { tiles.total() <= kDepth ? run_block() : run_blocks(); }

  // ---- staging ----

  int64_t vectors_of(const Side& side) const { return g.groups * side.panels() * side.vectors(); }

  // Of `rows` rows of tiles, wherever they begin.
  int64_t staged_size(const Side& side, int64_t rows) const {
    const int64_t images = min_of(tiles.images, rows / tiles.rows + 2);
    return vectors_of(side) * (rows * side.step + images * (side.seen - side.step)) * side.pitch() * W;
  }

  // Takes memory for `rows` rows of tiles and for sums of `size`.
  void reserve(int64_t rows, int64_t size) {
    const int64_t of_images = staged_size(images, rows), of_maps = staged_size(maps, rows);
    const int64_t bytes = (of_images + of_maps + size) * int64_t(sizeof(float));
    images.data = (float*)nl_scratch(2, bytes + (images.place_count() + maps.place_count()) * int64_t(sizeof(int64_t)));
    maps.data = images.data + of_images;
    sums = maps.data + of_maps;
    images.place = (int64_t*)((char*)images.data + bytes);
    maps.place = images.place + images.place_count();
    images.list_places(), maps.list_places();
  }

  // What the tiles [begin, end) see, in units of a vector of lines and some rows of tiles of an image.
  void stage(int64_t begin, int64_t end) {
    constexpr int64_t kRows = 16;
    const int64_t first = begin / tiles.columns, stop = ceil_div(end, tiles.columns), image = first / tiles.rows;
    images.cover(first, stop), maps.cover(first, stop);
    const int64_t bands = ceil_div(tiles.rows, kRows), places = (ceil_div(stop, tiles.rows) - image) * bands;
    const int64_t of_images = vectors_of(images), all = of_images + vectors_of(maps);
    parallel_for(all * places, grain_of(kRows * images.step * images.pitch() * W), [=](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) {
        const int64_t n = i / places, at = (image + i % places / bands) * tiles.rows, band = i % bands * kRows;
        const int64_t r = max_of(first, at + band), last = min_of(stop, at + tiles.rows);
        const int64_t r_end = min_of(last, at + band + kRows);
        if (r >= r_end) continue;
        n < of_images ? images.stage(n, r, r_end, r_end == last) : maps.stage(n - of_images, r, r_end, r_end == last);
      }
    });
  }

  // ---- a long k: a thread adds up a row of elements, block by block -------------------------------------------------

  int64_t channel_pitch() const { return whole_vectors<float>(g.group_channels()); }
  // A vector more keeps elements off each other's lines of L1.
  int64_t sum_size() const { return g.group_outputs() * channel_pitch() + W; }

  void run_blocks() {
    const int64_t total = tiles.total(), rows = tiles.images * tiles.rows;
    const int64_t seen =
        ceil_div(kDepth, tiles.columns) * (images.step * images.pitch() * g.channels + 2 * maps.pitch() * g.outputs);
    // A row of tiles at least: what is staged is whole rows, which shorter chunks would stage again and again.
    const int64_t least = ceil_div(tiles.columns, kDepth);
    const int64_t chunk = max_of(least, kStageBytes / (seen * int64_t(sizeof(float)))) * kDepth;
    reserve(min_of(rows, ceil_div(chunk, tiles.columns) + 1), g.groups * kElements * sum_size());
    for (int64_t k = 0; k < total; k += chunk) add(k, min_of(total, k + chunk));
    put();
  }

  // The tiles [begin, end), `begin` a multiple of kDepth. Rows of elements that do not come out even between threads
  // are cut into parts of the outputs, which pack the images once more.
  void add(int64_t begin, int64_t end) {
    stage(begin, end);
    const int64_t threads = nl_num_threads(), rows = g.groups * kSide, rest = rows % threads, whole = rows - rest;
    const int64_t parts = rest == 0 ? 1 : min_of(maps.panels(), threads / gcd(rest, threads));
    parallel_for(whole + rest * parts, 1, [=](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) {
        const int64_t row = i < whole ? i : whole + (i - whole) / parts;
        const int64_t part = i < whole ? 0 : (i - whole) % parts, n = i < whole ? 1 : parts;
        add_row(row / kSide, row % kSide, part * maps.panels() / n, (part + 1) * maps.panels() / n, begin, end);
      }
    });
  }

  // Panels [p0, p1) of the outputs.
  void add_row(int64_t group, int64_t row, int64_t p0, int64_t p1, int64_t begin, int64_t end) const {
    const int64_t n0 = group * images.vectors_of_group(), n1 = group * maps.vectors_of_group();
    Packed b = of_block(images), a = of_block(maps);
    b.data = (float*)nl_scratch(0, kSide * (a.element_size + b.element_size) * sizeof(float));
    a.data = b.data + kSide * b.element_size;
    for (int64_t k = begin; k < end; k += kDepth) {
      nl_check_interrupt();
      const int64_t stop = min_of(end, k + kDepth);
      for (int64_t n = 0; n < images.vectors_of_group(); n++) pack_images(n0 + n, row, k, stop, b);
      for (int64_t n = p0 * maps.vectors(); n < p1 * maps.vectors(); n++) pack_maps(n1 + n, row, k, stop, a);
      for (int j = 0; j < kSide; j++, a.data += a.element_size, b.data += b.element_size) {
        multiply(stop - k, a, p0, p1, b, sums + ((group * kSide + row) * kSide + j) * sum_size(), k > 0);
      }
      a.data -= kSide * a.element_size, b.data -= kSide * b.element_size;
    }
  }

  // A vector more: elements written at once share no set of L1.
  static Packed of_block(const Side& side) {
    const int64_t panel_size = kDepth * side.pitch_of_k();
    return {nullptr, panel_size, side.panels() * panel_size + W};
  }

  void multiply(int64_t depth, const Packed& a, int64_t p0, int64_t p1, const Packed& b, float* to, bool add) const {
    const int64_t pitch = channel_pitch();
    for (int64_t q = 0; q < images.panels(); q++) {
      for (int64_t p = p0; p < p1; p++) {
        float* c = to + maps.begin(p) * pitch + images.begin(q);
        multiply(depth, p, a.data + p * a.panel_size, q, b.data + q * b.panel_size, c, pitch, add ? c : nullptr);
      }
    }
  }

  // Panel p of the outputs with panel q of the channels.
  void multiply(int64_t depth, int64_t p, const float* a, int64_t q, const float* b, float* to, int64_t pitch,
                const float* before) const {
    const Panel<float> left = {a, 1, maps.pitch_of_k()}, right = {b, 1, images.pitch_of_k()};
    const int outputs = int(maps.begin(p + 1) - maps.begin(p)), channels = int(images.begin(q + 1) - images.begin(q));
    const auto kernel = micro_kernel(float(), outputs, channels, PanelKind::packed);
    kernel(depth, left, right, to, pitch, before, pitch);
  }

  void put() const {
    const int64_t channels = g.group_channels();
    parallel_for(g.outputs, grain_of(kElements * channels), [=](int64_t begin, int64_t end) {
      float* taps = (float*)nl_scratch(0, (2 * kTaps * channel_pitch() + W) * sizeof(float));
      for (int64_t o = begin; o < end; o++) {
        const float* from =
            sums + o / g.group_outputs() * kElements * sum_size() + o % g.group_outputs() * channel_pitch();
        for (int64_t c = 0; c < channels; c += W) collect<F>(from + c, sum_size(), taps + c, channel_pitch());
        put_taps(taps, channel_pitch(), channels, o, 0);
      }
      if (call.epilogue) call.epilogue->fn(call.epilogue->ctx, 0, begin, end, 0, channels * kTaps);
    });
  }

  // Taps of `count` channels from `channel` on; a copy of them follows.
  void put_taps(float* taps, int64_t pitch, int64_t count, int64_t output, int64_t channel) const {
    turn(taps, pitch, kTaps, count, taps + kTaps * pitch,
         (float*)call.out[0].data + (output * g.group_channels() + channel) * kTaps);
  }

  // ---- one block of k: threads pack all elements, then finish panels of the result ----

  // All elements of a panel lie one after another.
  int64_t element_size(const Side& side) const { return tiles.total() * side.pitch_of_k(); }
  int64_t packed_size(const Side& side) const { return side.panels() * kElements * element_size(side); }
  Packed of_row(const Side& side, float* data, int64_t group, int64_t row) const {
    const int64_t size = element_size(side);
    return {data + group * packed_size(side) + row * kSide * size, kElements * size, size};
  }

  void run_block() {
    const int64_t k = tiles.total(), of_images = vectors_of(images), all = of_images + vectors_of(maps);
    reserve(tiles.images * tiles.rows, g.groups * (packed_size(images) + packed_size(maps)));
    float *b = sums, *a = b + g.groups * packed_size(images);
    if (k > 0) stage(0, k);
    parallel_for(all * kSide, grain_of(kSide * k * W), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t n = i / kSide, row = i % kSide;
        if (n < of_images) {
          pack_images(n, row, 0, k, of_row(images, b, n / images.vectors_of_group(), row));
        } else {
          pack_maps(n - of_images, row, 0, k, of_row(maps, a, (n - of_images) / maps.vectors_of_group(), row));
        }
      }
    });
    const int64_t panels = images.panels() * maps.panels(), work = kElements * kTileRows * kTileColumns<float>;
    parallel_for(g.groups * panels, grain_of(work * (k + 1) / W), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) finish(b, a, i / panels, i % maps.panels(), i % panels / maps.panels());
    });
    if (call.epilogue) call.epilogue->fn(call.epilogue->ctx, 0, 0, g.outputs, 0, g.group_channels() * kTaps);
  }

  // Panel p of the outputs with panel q of the channels.
  void finish(float* b, float* a, int64_t group, int64_t p, int64_t q) const {
    constexpr int kPitch = kTileColumns<float>, kSize = kTileRows * kPitch + W;
    float m[kElements * kSize], taps[2 * kTaps * kPitch + W];
    const Packed right = of_row(images, b, group, 0), left = of_row(maps, a, group, 0);
    for (int e = 0; e < kElements; e++) {
      multiply(tiles.total(), p, left.data + p * left.panel_size + e * left.element_size, q,
               right.data + q * right.panel_size + e * right.element_size, m + e * kSize, kPitch, nullptr);
    }
    const int64_t line = maps.begin(p), count = images.begin(q + 1) - images.begin(q);
    for (int64_t o = line; o < maps.begin(p + 1); o++) {
      for (int64_t c = 0; c < count; c += W) collect<F>(m + (o - line) * kPitch + c, kSize, taps + c, kPitch);
      put_taps(taps, kPitch, count, group * g.group_outputs() + o, images.begin(q));
    }
  }

  // ---- row `row` of the elements of the tiles [k, stop), vector `n` of all groups ----

  void pack_images(int64_t n, int64_t row, int64_t k, int64_t stop, const Packed& to) const {
    pack(images, inputs_spread<F>(input_row<F>(row).term), input_row<F>(row), n, k, stop, to);
  }
  void pack_maps(int64_t n, int64_t row, int64_t k, int64_t stop, const Packed& to) const {
    pack(maps, maps_spread<F>(map_row<F>(row).term), map_row<F>(row), n, k, stop, to);
  }

  void pack(const Side& side, Spread spread, Row row, int64_t n, int64_t k, int64_t stop, const Packed& to) const {
    if (side.count(n) <= 0) return;
    const int64_t pitch = side.pitch() * W, step = side.pitch_of_k();
    float* lanes = to.data + side.panel(n) * to.panel_size + n % side.vectors() * W;
    each_row(tiles.columns, k, stop, [&](int64_t r, int64_t begin, int64_t end) {
      const float* seen = side.pixels(n, r, begin);
      float* first = lanes + (r * tiles.columns + begin - k) * step;
      spread(seen + row.first * pitch, seen + row.second * pitch, end - begin, first, step, to.element_size);
    });
  }
};

}  // namespace

void conv2d_winograd_weight(const Call& call) {
  call.attr[0] == 1 ? WeightGradient<Stride1>(call).run() : WeightGradient<Stride2>(call).run();
}

}  // namespace nl::NL_ISA
