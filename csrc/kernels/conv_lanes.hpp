// conv_lanes.hpp: images staged with a vector of channels for every pixel, between zeros.
#pragma once
#include "conv_geometry.hpp"
#include "interleave.hpp"

namespace nl::NL_ISA {
namespace {

// Up to a vector of an image's channels, one to a lane; the last channel fills the lanes of those that do not exist.
template <class T>
struct LaneGroup {
  static constexpr int W = kWidth<T>;
  const View& from;
  T* channel[W];
  int64_t first, count;

  // Vector `group` of all channels.
  LaneGroup(const View& v, int64_t image, int64_t group)
      : LaneGroup(v, image, group * W, min_of(W, v.shape[1] - group * W)) {}

  LaneGroup(const View& v, int64_t image, int64_t begin, int64_t n) : from(v), first(begin), count(n) {
    for (int64_t l = 0; l < W; l++) {
      channel[l] = (T*)v.data + image * v.strides[0] + (first + min_of(l, count - 1)) * v.strides[1];
    }
  }

  // Where each lane has its element (y, 0).
  struct Row {
    T* lane[W];
  };
  Row row(int64_t y) const {
    Row r;
    for (int l = 0; l < W; l++) r.lane[l] = channel[l] + y * from.strides[2];
    return r;
  }

  // Rows [begin, stop): the pixels of all of them, numbered from 0, to the vectors at to(pixel). What lies `ahead` of
  // adjacent ones, if that is not 0, is brought into L2 meanwhile.
  template <class To>
  void read(int64_t begin, int64_t stop, const To& to, int64_t ahead = 0) const {
    const int64_t width = from.shape[3];
    if (from.strides[3] == 1 && from.strides[2] == width) {
      return interleave(row(begin).lane, (stop - begin) * width, to, ahead);
    }
    const bool adjacent = from.strides[1] == 1 && count == W;
    for (int64_t y = begin; y < stop; y++) {
      const Row pixels = row(y);
      const int64_t number = (y - begin) * width;
      if (from.strides[3] == 1) {
        interleave(pixels.lane, width, [=](int64_t x) { return to(number + x); }, ahead);
        continue;
      }
      for (int64_t x = 0; x < width; x++) {
        T* vector = to(number + x);
        const int64_t at = x * from.strides[3];
        if (adjacent) {
          store(vector, load<typename Simd<T>::V>(pixels.lane[0] + at));
        } else {
          for (int l = 0; l < W; l++) vector[l] = pixels.lane[l][at];
        }
      }
    }
  }
};

// What strips of results see of the images: rows [top + i * step, top + i * step + span) for row i of the results, with
// zeros around the image. Rows that the next strip sees too stay.
template <class T>
struct LaneStage {
  static constexpr int W = kWidth<T>;
  int64_t top, span, step;
  int64_t left, pitch;  // of a row: the column that it begins with, and how many it has
  int64_t filled = 0;   // rows
  T* data = nullptr;
  int64_t* place = nullptr;  // of the pixels of some rows

  int64_t rows(int64_t count) const { return (count - 1) * step + span; }
  int64_t size(int64_t count) const { return rows(count) * pitch * W; }

  // `pixels` has room for the numbers of the pixels that strips of `count` rows see.
  void use(T* memory, int64_t* pixels, int64_t count, int64_t width) {
    data = memory, place = pixels;
    for (int64_t i = 0; i < size(count); i++) data[i] = 0;
    for (int64_t y = 0, i = 0; y < rows(count); y++) {
      for (int64_t x = 0; x < width; x++) place[i++] = (y * pitch + x - left) * W;
    }
  }

  // For rows [begin, end) of the results; `goes_on` where the last strip ended at `begin`.
  void fill(const LaneGroup<T>& from, int64_t begin, int64_t end, bool goes_on) {
    const int64_t kept = goes_on ? max_of(0, span - step) : 0, count = rows(end - begin);
    __builtin_memmove(data, data + (filled - kept) * pitch * W, kept * pitch * W * sizeof(T));
    copy(from, top + begin * step + kept, count - kept, data + kept * pitch * W);
    filled = count;
  }

 private:
  void copy(const LaneGroup<T>& from, int64_t first, int64_t count, T* to) const {
    const int64_t begin = min_of(count, max_of(0, -first));
    const int64_t stop = max_of(begin, min_of(count, from.from.shape[2] - first));
    __builtin_memset(to, 0, begin * pitch * W * sizeof(T));
    __builtin_memset(to + stop * pitch * W, 0, (count - stop) * pitch * W * sizeof(T));
    to += begin * pitch * W;
    from.read(first + begin, first + stop, [=](int64_t pixel) { return to + place[pixel]; });
  }
};

// Bytes that a strip of rows takes: what stays in L1 with the results.
constexpr int64_t kStripBytes = 40 << 10;

// How many rows of `total`, each of which takes up to `bytes`, make a strip.
inline int64_t strip_rows(int64_t total, int64_t bytes) {
  const int64_t strips = ceil_div(total, max_of(1, kStripBytes / bytes));
  return max_of(1, ceil_div(total, max_of(1, strips)));
}

}  // namespace
}  // namespace nl::NL_ISA
