// transpose.hpp: a tile whose columns lie together in memory, as rows of a dense block or of the result.
#pragma once
#include <cstdint>
#include <cstring>

namespace nl {

// Two vectors' elements, chosen by position; 16 bytes are what every level has.
template <class V>
V load_vector(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
void store_vector(void* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

// The square of `Square<T>::kSize` columns from `from` on: to[r * pitch + c] = from[c * stride + r].
template <class T>
struct Square {
  static constexpr int64_t kSize = 1;
  static void transpose(const T* from, int64_t, T* to, int64_t) { *to = *from; }
};

template <>
struct Square<uint32_t> {
  static constexpr int64_t kSize = 4;
  using V = uint32_t __attribute__((vector_size(16)));

  static void transpose(const uint32_t* from, int64_t stride, uint32_t* to, int64_t pitch) {
    const V a = load_vector<V>(from), b = load_vector<V>(from + stride);
    const V c = load_vector<V>(from + 2 * stride), d = load_vector<V>(from + 3 * stride);
    const V ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const V cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    store_vector(to, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
    store_vector(to + pitch, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
    store_vector(to + 2 * pitch, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
    store_vector(to + 3 * pitch, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
  }
};

template <>
struct Square<uint64_t> {
  static constexpr int64_t kSize = 2;
  using V = uint64_t __attribute__((vector_size(16)));

  static void transpose(const uint64_t* from, int64_t stride, uint64_t* to, int64_t pitch) {
    const V a = load_vector<V>(from), b = load_vector<V>(from + stride);
    store_vector(to, __builtin_shufflevector(a, b, 0, 2));
    store_vector(to + pitch, __builtin_shufflevector(a, b, 1, 3));
  }
};

// to[r * pitch + c] = from[c * stride + r * row_stride], all in elements.
template <class T>
void transpose(const T* from, int64_t stride, int64_t row_stride, int64_t rows, int64_t columns, T* to, int64_t pitch) {
  constexpr int64_t S = Square<T>::kSize;
  const int64_t whole_rows = row_stride == 1 ? rows - rows % S : 0, whole_columns = columns - columns % S;
  for (int64_t c = 0; c < whole_columns; c += S)
    for (int64_t r = 0; r < whole_rows; r += S)
      Square<T>::transpose(from + c * stride + r, stride, to + r * pitch + c, pitch);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; ++r)
      to[r * pitch + c] = from[c * stride + r * row_stride];
}

}  // namespace nl
