// deviations.cpp: the sums of (x - center)^2 and of x - center along one axis, where every row has a center of its own.
// A row is read once; every operation is rounded, all sums are T(n).
#include "rows.hpp"

namespace nl::NL_ISA {
namespace {

template <class T>
struct Deviations {
  using V = typename Simd<T>::V;
  using Tree = TreeRow<Sum<T>>;
  using Columns = TreeColumns<Sum<T>>;
  static constexpr int W = Simd<T>::kWidth;
  static constexpr int kTogether = 2;  // long rows

  const View& x;
  int64_t n, step;
  Walk<4> kept;
  const T *data, *end, *centers;
  T *squares, *distances;

  Deviations(const Call& call, int axis)
      : x(call.in[0]),
        n(x.shape[axis]),
        step(x.strides[axis]),
        kept(walk_without({&x, &call.in[1], &call.out[0], &call.out[1]}, axis)),
        data((const T*)x.data),
        end(end_of<T>(x)),
        centers((const T*)call.in[1].data),
        squares((T*)call.out[0].data),
        distances((T*)call.out[1].data) {}

  void run() const {
    const int d = column_axis(kept, step, [&](int d) { return is_tiled<T>(kept, d, 1); });
    d < 0 ? along_rows() : down_columns(d);
  }

  void along_rows() const {
    parallel_for(kept.total, grain_of(2 * n), [=](int64_t begin, int64_t stop) {
      auto c = kept.seek(begin);
      auto together = [=](const auto& group) {
        if (!group.readable(0, data, end, n)) return false;
        rows(group);
        return true;
      };
      int64_t i = begin;
      if (step == 1) {
        i = is_short<T>(n) ? for_groups<W>(kept, c, i, stop, together)
                           : for_groups<kTogether>(kept, c, i, stop, together);
      }
      for (; i < stop; i++, kept.next(c)) row(c.at);
    });
  }

  // Rows of contiguous elements in whole steps.
  template <int R>
  void rows(const RowGroup<4, R>& group) const {
    const T* in[R];
    T center[R];
    for (int r = 0; r < R; r++) in[r] = data + group.at[0][r], center[r] = centers[group.at[1][r]];
    const int64_t ahead = R == W ? Tree::ahead(n) : R * n;
    const auto sums = Tree::template both_of<R>(
        in, 0, n,
        [=, &center](int r) {
          return [=, m = splat<V>(center[r])](V v, const T* p, int64_t) {
            __builtin_prefetch(p + ahead, 0, 2);
            return v - m;
          };
        },
        [&](int r) { return square(splat<V>(center[r])); });
    for (int r = 0; r < R; r++) {
      distances[group.at[3][r]] = sums.a[r], squares[group.at[2][r]] = sums.b[r];
    }
  }

  static auto square(V center) {
    return [=](V v, const T*, int64_t) {
      const V distance = v - center;
      return distance * distance;
    };
  }

  // Any row.
  void row(const int64_t (&at)[4]) const {
    const Strided<T> elements{data + at[0], step, end};
    const V center = splat<V>(centers[at[1]]);
    const auto sums = Tree::both(elements, 0, n, [=](V v, const T*, int64_t) { return v - center; }, square(center));
    distances[at[3]] = sums.a[0], squares[at[2]] = sums.b[0];
  }

  // Where columns lie along axis `d` of what is kept, in tiles.
  void down_columns(int d) const {
    const auto& stride = kept.stride;
    for_tiles<T>(kept, d, n, 2, [=](const auto& place, int64_t first, int width) {
      alignas(64) T center[Columns::kTile], of_squares[Columns::kTile], of_distances[Columns::kTile];
      T* lanes = (T*)nl_scratch(1, 2 * kLanes * whole_vectors<T>(width) * sizeof(T));
      for (int k = 0; k < width; k++) center[k] = centers[place[1] + (first + k) * stride[1][d]];
      columns(data + place[0] + first, n, width, center, lanes, of_squares, of_distances);
      for (int k = 0; k < width; k++) {
        squares[place[2] + (first + k) * stride[2][d]] = of_squares[k];
        distances[place[3] + (first + k) * stride[3][d]] = of_distances[k];
      }
    });
  }

  void columns(const T* from, int64_t count, int width, const T* center, T* lanes, T* of_squares,
               T* of_distances) const {
    if (count <= kBlock) return block(from, count, width, center, lanes, of_squares, of_distances);
    const int64_t left = left_part(count, width);
    alignas(64) T more_squares[Columns::kTile], more_distances[Columns::kTile];
    columns(from, left, width, center, lanes, of_squares, of_distances);
    columns(from + left * step, count - left, width, center, lanes, more_squares, more_distances);
    Columns::merge(of_squares, more_squares, width);
    Columns::merge(of_distances, more_distances, width);
  }

  // A block of rows. Lanes come in the order of memory, and each takes up to 16 rows side by side.
  void block(const T* from, int64_t count, int width, const T* center, T* lanes, T* of_squares, T* of_distances) const {
    const int64_t pitch = whole_vectors<T>(width);
    const int64_t used = max_of(1, min_of(count, kLanes));  // of no rows one lane is cleared
    T* const more = lanes + kLanes * pitch;
    for (int64_t l = 0; l < used; l++) {
      for_vectors<T>(width, [&](int c) {
        const V m = load<V>(center + c);
        V square = {}, sum = {};
        for (int64_t i = l; i < count; i += kLanes) {
          const V distance = load<V>(from + i * step + c) - m;
          square = square + distance * distance, sum = sum + distance;
        }
        store(lanes + l * pitch + c, square), store(more + l * pitch + c, sum);
      });
    }
    for (int64_t half = kLanes / 2, live = used; half > 0; live = min_of(live, half), half /= 2) {
      for (int64_t l = 0; l + half < live; l++) {
        Columns::merge(lanes + l * pitch, lanes + (l + half) * pitch, width);
        Columns::merge(more + l * pitch, more + (l + half) * pitch, width);
      }
    }
    __builtin_memcpy(of_squares, lanes, width * sizeof(T));
    __builtin_memcpy(of_distances, more, width * sizeof(T));
  }
};

}  // namespace

int deviations(const Call& call) {
  const int axis = int(call.attr[0]);
  call.in[0].dtype == DType::f64 ? Deviations<double>(call, axis).run() : Deviations<float>(call, axis).run();
  return kOk;
}

}  // namespace nl::NL_ISA
