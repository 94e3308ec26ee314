// reduce.hpp: how a reduction over one axis goes through any strided tensor, on all threads.
//
// Two ways through memory: along rows, when the reduced axis has the smallest stride, or down columns, with vectors
// across a kept axis, which of few rows need not fill a vector. Long reductions are split between threads at powers of
// two of blocks, which are whole subtrees of T(n) (tree.hpp), so no split shows in the bits.
#pragma once
#include "row_group.hpp"

namespace nl::NL_ISA {
namespace {

// The rows of a tensor, and where their results go: one for every position of a walk over both.
struct Rows {
  const char *in, *end;  // `end`: of readable memory
  char* out;
  int64_t n, step;
  const Walk<2>* kept;
};

// A reduction of one element type as a table, so that the drivers below know no types and are compiled once. A part is
// the result of some of the elements; `first` is the index of the first of them, for those who ask where one is.
struct Reducer {
  int64_t in_size, out_size, part_size;
  int width;  // columns that fill a vector
  int tile;   // most columns taken at a time

  // Rows [begin, end), each to its result.
  void (*rows)(const Rows& rows, int64_t begin, int64_t end);
  // n elements `step` apart, to a part.
  void (*row)(const char* in, int64_t step, int64_t n, const char* end, int64_t first, char* part);
  // n rows of columns `stride` apart, to a part for every column. Columns fill a vector, or rows are adjacent.
  void (*columns)(const char* in, int64_t step, int64_t stride, int64_t n, int columns, int64_t first, char* parts);
  // Up to kFewRows rows of adjacent columns, to results `stride` apart; null for who cannot.
  void (*few)(const char* in, int64_t step, int n, int columns, const char* end, char* out, int64_t stride);
  // a = combine(a, b), part by part, in whole vectors.
  void (*merge)(char* a, const char* b, int64_t count);
  void (*finish)(const char* parts, int64_t count, char* out, int64_t stride);
};

constexpr int64_t kTileBytes = 16384;  // room for the parts of a tile

// Reduces a group of short rows; false, and nothing done, where memory ends too early.
template <class K>
bool reduce_group(const Rows& r, const RowGroup<2, K::kWidth>& group) {
  using In = typename K::In;
  if (!group.readable(0, (const In*)r.in, (const In*)r.end, r.n)) return false;
  typename K::Out found[K::kWidth];
  K::several([&](int k) { return (const In*)r.in + group.at[0][k]; }, r.n, found);
  for (int k = 0; k < K::kWidth; k++) ((typename K::Out*)r.out)[group.at[1][k]] = found[k];
  return true;
}

// Reduces short rows of [begin, end), all as far apart, in groups; returns the first row that is left.
template <class K>
int64_t reduce_even_groups(const Rows& r, int64_t begin, int64_t end) {
  using In = typename K::In;
  constexpr int W = K::kWidth;
  const int64_t step = r.kept->stride[0][0], out_step = r.kept->stride[1][0];
  const In* in = (const In*)r.in + begin * step;
  auto* out = (typename K::Out*)r.out + begin * out_step;
  auto readable = [&] { return (const In*)r.end - (in + (step < 0 ? 0 : (W - 1) * step)) >= whole_steps(r.n); };
  for (; begin + W <= end && readable(); begin += W, in += W * step, out += W * out_step) {
    auto row_at = [=](int k) { return in + k * step; };
    if (out_step == 1) {
      K::several(row_at, r.n, out);
    } else {
      typename K::Out found[W];
      K::several(row_at, r.n, found);
      for (int k = 0; k < W; k++) out[k * out_step] = found[k];
    }
  }
  return begin;
}

// Reduces rows of [begin, end) of a few blocks each, all as far apart, in groups, half of which is from either half of
// them; returns the first row that is left.
template <class K>
int64_t reduce_middling(const Rows& r, int64_t begin, int64_t end) {
  using In = typename K::In;
  constexpr int kHalf = K::kWidth / 2;
  const int64_t step = r.kept->stride[0][0], out_step = r.kept->stride[1][0];
  const In* in = (const In*)r.in + begin * step;
  auto* out = (typename K::Out*)r.out + begin * out_step;
  int64_t half = (end - begin) / K::kWidth * kHalf;
  while (half > 0 && (const In*)r.end - (in + (step < 0 ? 0 : (2 * half - 1) * step)) < whole_steps(r.n)) half -= kHalf;
  for (int64_t i = 0; i < half; i += kHalf) {
    typename K::Part parts[K::kWidth];
    store(parts, K::middling(in + i * step, in + (i + half) * step, step, r.n));
    for (int k = 0; k < kHalf; k++) {
      out[(i + k) * out_step] = K::finish(parts[k]);
      out[(i + half + k) * out_step] = K::finish(parts[kHalf + k]);
    }
  }
  return begin + 2 * half;
}

// Reduces rows of [begin, end) two at a time, one of either half; returns the first row that is left.
template <class K>
int64_t reduce_twos(const Rows& r, int64_t begin, int64_t end) {
  using In = typename K::In;
  const int64_t half = (end - begin) / 2;
  const In* in = (const In*)r.in;
  auto* out = (typename K::Out*)r.out;
  auto a = r.kept->seek(begin), b = r.kept->seek(begin + half);
  for (int64_t i = 0; i < half; i++, r.kept->next(a), r.kept->next(b)) {
    const auto found = K::two(in + a.at[0], in + b.at[0], r.n, (const In*)r.end);
    out[a.at[1]] = K::finish(found.p[0]);
    out[b.at[1]] = K::finish(found.q[0]);
  }
  return begin + 2 * half;
}

// Results of parts, where they are adjacent a line of parts at a time: loops of a known length become vectors.
template <class K>
void finish_parts(const typename K::Part* parts, int64_t count, typename K::Out* out, int64_t stride) {
  constexpr int kLine = 64 / sizeof(typename K::Out);
  int64_t i = 0;
  for (; stride == 1 && i + kLine <= count; i += kLine) {
    typename K::Out found[kLine];
    for (int k = 0; k < kLine; k++) found[k] = K::finish(parts[i + k]);
    __builtin_memcpy(out + i, found, sizeof(found));
  }
  for (; i < count; i++) out[i * stride] = K::finish(parts[i]);
}

template <class K>
constexpr auto few_of() -> decltype(Reducer::few) {
  if constexpr (!K::kFew) return nullptr;
  return [](const char* in, int64_t step, int n, int columns, const char* end, char* out, int64_t stride) {
    using In = const typename K::In;
    if constexpr (K::kFew) K::few((In*)in, step, n, columns, (In*)end, (typename K::Out*)out, stride);
  };
}

// The table of a class K of static functions over its types In, Part and Out.
template <class K>
constexpr Reducer reducer_of() {
  using In = typename K::In;
  using Part = typename K::Part;
  using Out = typename K::Out;
  static_assert(K::kTile * sizeof(Part) <= kTileBytes);
  return {
      sizeof(In),
      sizeof(Out),
      sizeof(Part),
      K::kWidth,
      K::kTile,
      [](const Rows& r, int64_t begin, int64_t end) {
        int64_t i = begin;
        const bool in_groups = K::kSeveral && r.step == 1 && K::in_groups(r.n);
        if constexpr (K::kSeveral) {
          if (in_groups && r.kept->rank == 1) i = reduce_even_groups<K>(r, begin, end);
        }
        if constexpr (K::kSideBySide) {
          if (r.step == 1 && K::in_twos(r.n)) i = reduce_twos<K>(r, begin, end);
          if (r.step == 1 && K::is_middling(r.n) && r.kept->rank == 1) i = reduce_middling<K>(r, begin, end);
        }
        auto c = r.kept->seek(i);
        if constexpr (K::kSeveral) {
          auto reduce = [&](const auto& group) { return reduce_group<K>(r, group); };
          if (in_groups) i = for_groups<K::kWidth>(*r.kept, c, i, end, reduce);
        }
        for (; i < end; i++, r.kept->next(c)) {
          ((Out*)r.out)[c.at[1]] = K::finish(K::row((const In*)r.in + c.at[0], r.step, r.n, (const In*)r.end, 0));
        }
      },
      [](const char* in, int64_t step, int64_t n, const char* end, int64_t first, char* part) {
        *(Part*)part = K::row((const In*)in, step, n, (const In*)end, first);
      },
      [](const char* in, int64_t step, int64_t stride, int64_t n, int columns, int64_t first, char* parts) {
        K::columns((const In*)in, step, stride, n, columns, first, (Part*)parts);
      },
      few_of<K>(),
      [](char* a, const char* b, int64_t count) { K::merge((Part*)a, (const Part*)b, count); },
      [](const char* parts, int64_t count, char* out, int64_t stride) {
        finish_parts<K>((const Part*)parts, count, (Out*)out, stride);
      },
  };
}

// How the reduced axis is cut: into `count` chunks of `size` elements, a power of two of blocks.
struct Split {
  int64_t size, count;

  // Cuts only where the kept elements alone do not feed all threads; `width` elements are reduced side by side.
  Split(int64_t n, int64_t items, int64_t width) : size(kBlock) {
    while (size < n && (size * width < kGrain || items * (n / size) > 8 * nl_num_threads())) size *= 2;
    count = n > 0 ? ceil_div(n, size) : 1;
  }
};

// The parts of the chunks, as a matrix of s.count rows of `width` parts (padded to whole vectors).
struct Parts {
  const Reducer& r;
  int64_t chunks, width;
  char* data;

  Parts(const Reducer& reducer, const Split& s, int64_t items)
      : r(reducer),
        chunks(s.count),
        width(whole_steps(items)),
        data((char*)nl_scratch(0, chunks * width * r.part_size)) {}

  char* at(int64_t chunk, int64_t item) const { return data + (chunk * width + item) * r.part_size; }

  // Combines the rows in the order of T(n); row 0 is the result.
  void combine() const {
    for (int64_t span = 1; span < chunks; span *= 2) {
      for (int64_t c = 0; c + span < chunks; c += 2 * span) r.merge(at(c, 0), at(c + span, 0), width);
    }
  }
};

void reduce_rows(const Reducer& r, const Rows& rows) {
  const Walk<2>& kept = *rows.kept;
  Split s(rows.n, kept.total, 1);
  if (s.count == 1) {
    const int64_t work = rows.n <= 8 ? rows.n / 2 : rows.n;  // rows that become columns take half of the time
    parallel_for(kept.total, grain_of(work), [&](int64_t begin, int64_t end) { r.rows(rows, begin, end); });
    return;
  }
  Parts parts(r, s, kept.total);
  parallel_for(kept.total * s.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      int64_t item = i / s.count, chunk = i % s.count, first = chunk * s.size;
      const char* in = rows.in + (kept.seek(item).at[0] + first * rows.step) * r.in_size;
      r.row(in, rows.step, min_of(s.size, rows.n - first), rows.end, first, parts.at(chunk, item));
    }
  });
  parts.combine();
  for (int64_t i = 0; i < kept.total; i++) r.finish(parts.at(0, i), 1, rows.out + kept.seek(i).at[1] * r.out_size, 1);
}

// How many tiles columns are cut into: of at most r.tile each, and one for every thread where nothing else is shared.
int64_t tiles_of(const Reducer& r, int64_t n, int64_t columns, int64_t others) {
  const int64_t fewest = ceil_div(columns, r.tile);
  if (n > kBlock) return fewest;
  const int64_t shares = min_of(ceil_div(nl_num_threads(), max_of(others, 1)), n * columns / kGrain);
  return max_of(fewest, min_of(shares, columns / (2 * r.width)));
}

// Columns lie along axis `d` of what is kept, in tiles of nearly equal width.
void reduce_columns(const Reducer& r, const Rows& rows, Walk<2> kept, int d) {
  const int64_t columns = kept.shape[d], stride = kept.stride[0][d], out_stride = kept.stride[1][d];
  kept.remove_axis(d);
  const int64_t tiles = tiles_of(r, rows.n, columns, kept.total);
  Split s(rows.n, kept.total * tiles, columns / tiles);
  Parts parts(r, s, s.count == 1 ? 0 : kept.total * columns);
  int64_t grain = grain_of(min_of(s.size, rows.n) * (columns / tiles));
  parallel_for(kept.total * tiles * s.count, grain, [&](int64_t begin, int64_t end) {
    alignas(64) char result[kTileBytes];
    for (int64_t i = begin; i < end; i++) {
      int64_t chunk = i % s.count, first = chunk * s.size, outer = i / s.count / tiles, tile = i / s.count % tiles;
      int64_t column = tile * columns / tiles, width = (tile + 1) * columns / tiles - column;
      auto c = kept.seek(outer);
      const char* in = rows.in + (c.at[0] + column * stride + first * rows.step) * r.in_size;
      r.columns(in, rows.step, stride, min_of(s.size, rows.n - first), int(width), first, result);
      char* out = rows.out + (c.at[1] + column * out_stride) * r.out_size;
      if (s.count == 1) {
        r.finish(result, width, out, out_stride);
      } else {
        __builtin_memcpy(parts.at(chunk, outer * columns + column), result, width * r.part_size);
      }
    }
  });
  if (s.count == 1) return;
  parts.combine();
  for (int64_t i = 0; i < kept.total; i++) {
    r.finish(parts.at(0, i * columns), columns, rows.out + kept.seek(i).at[1] * r.out_size, out_stride);
  }
}

// The axis of adjacent columns that few rows are taken across, or -1. More rows than lanes are as many streams: not out
// of a cache, nor where they share sets of L1.
int axis_of_few(const Reducer& r, const Rows& rows) {
  if (!r.few || rows.n <= 0 || rows.n > kFewRows) return -1;
  const Walk<2>& kept = *rows.kept;
  const bool crowded = rows.n > kLanes && rows.step * r.in_size % 1024 == 0;
  return column_axis(kept, rows.step, [&](int d) {
    const bool cached = rows.n <= kLanes || (!crowded && rows.n * kept.shape[d] <= 2 * kGrain);
    return kept.stride[0][d] == 1 && kept.shape[d] > 1 && cached;
  });
}

// The same of few rows: every tile's results are written at once.
void reduce_few(const Reducer& r, const Rows& rows, Walk<2> kept, int d) {
  const int64_t columns = kept.shape[d], out_stride = kept.stride[1][d];
  kept.remove_axis(d);
  const int64_t tiles = tiles_of(r, rows.n, columns, kept.total);
  parallel_for(kept.total * tiles, grain_of(rows.n * (columns / tiles)), [&](int64_t begin, int64_t end) {
    auto c = kept.seek(begin / tiles);
    each_row(tiles, begin, end, [&](int64_t, int64_t first, int64_t stop) {
      for (int64_t tile = first; tile < stop; tile++) {
        const int64_t column = tile * columns / tiles, width = (tile + 1) * columns / tiles - column;
        r.few(rows.in + (c.at[0] + column) * r.in_size, rows.step, int(rows.n), int(width), rows.end,
              rows.out + (c.at[1] + column * out_stride) * r.out_size, out_stride);
      }
      kept.next(c);
    });
  });
}

int reduce(const Call& call, const Reducer& r) {
  const View &x = call.in[0], &out = call.out[0];
  int axis = int(call.attr[0]);
  Walk<2> kept = walk_without({&x, &out}, axis);
  Rows rows{x.data, memory_end(x), out.data, x.shape[axis], x.strides[axis], &kept};
  if (const int d = axis_of_few(r, rows); d >= 0) return reduce_few(r, rows, kept, d), kOk;
  // One column fills a vector, or one of a group of 32 adjacent rows does.
  auto fills_a_vector = [&](int d) {
    const bool adjacent = kept.stride[0][d] == 1 && rows.step == kept.shape[d] && rows.n >= kLanes;
    return kept.shape[d] >= r.width || adjacent;
  };
  int d = column_axis(kept, rows.n == 1 ? INT64_MAX : rows.step, fills_a_vector);
  d < 0 ? reduce_rows(r, rows) : reduce_columns(r, rows, kept, d);
  return kOk;
}

// Runs the reduction R<T> of the operand's element type.
template <template <class> class R>
int reduce_by_dtype(const Call& call) {
  static constexpr Reducer bytes = reducer_of<R<uint8_t>>(), ints = reducer_of<R<int32_t>>(),
                           longs = reducer_of<R<int64_t>>(), floats = reducer_of<R<float>>(),
                           doubles = reducer_of<R<double>>();
  switch (call.in[0].dtype) {  // narrow dtypes come widened
    case DType::i32: return reduce(call, ints);
    case DType::i64: return reduce(call, longs);
    case DType::f32: return reduce(call, floats);
    case DType::f64: return reduce(call, doubles);
    default: return reduce(call, bytes);
  }
}

}  // namespace
}  // namespace nl::NL_ISA
