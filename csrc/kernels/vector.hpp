// vector.hpp: the hardware vector of any element type, and how it is loaded, stored and masked.
#pragma once
#include <stdint.h>

#include "../simd/vec.h"

namespace nl::NL_ISA {
namespace {

constexpr int kLanes = 32;  // of T(n), see tree.hpp; no vector has more

// The hardware vector of T.
template <class T>
struct Simd {
  static constexpr int kBytes = NL_VEC_BYTES < kLanes * (int)sizeof(T) ? NL_VEC_BYTES : kLanes * (int)sizeof(T);
  static constexpr int kWidth = kBytes / (int)sizeof(T);
  typedef T V __attribute__((vector_size(kBytes)));
};

// n rounded up to whole vectors.
template <class T>
constexpr int64_t whole_vectors(int64_t n) {
  return (n + Simd<T>::kWidth - 1) / Simd<T>::kWidth * Simd<T>::kWidth;
}

// The vector of T of a given size.
template <class T, int kBytes>
struct VecOf {
  typedef T V __attribute__((vector_size(kBytes)));
};

// The signed integer of a given size; a comparison of vectors of T gives a vector of Mask<T>.
template <int kBytes>
struct IntOf;
template <>
struct IntOf<1> {
  using I = int8_t;
};
template <>
struct IntOf<2> {
  using I = int16_t;
};
template <>
struct IntOf<4> {
  using I = int32_t;
};
template <>
struct IntOf<8> {
  using I = int64_t;
};
template <class T>
using Mask = typename IntOf<sizeof(T)>::I;

template <class V, class T>
__attribute__((always_inline)) inline V splat(T x) {
  return x - V{};  // and not V{} + x, which loses the sign of -0
}

template <class V, class T>
__attribute__((always_inline)) inline V load(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
__attribute__((always_inline)) inline void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// At most a vector of elements, `count`, to and from memory that has no more: in pieces, for a call takes longer.
template <class V, class T>
__attribute__((always_inline)) inline void copy_first(const T* from, T* to, int count) {
  int done = 0;
#pragma GCC unroll 8
  for (int piece = sizeof(V) / sizeof(T); piece > 0; piece /= 2) {
    if ((count & piece) == 0) continue;
    __builtin_memcpy(to + done, from + done, piece * sizeof(T));
    done += piece;
  }
}

template <class V, class T>
__attribute__((always_inline)) inline V load_first(const T* p, int count) {
  V v = {};
  copy_first<V>(p, (T*)&v, count);
  return v;
}

template <class V, class T>
__attribute__((always_inline)) inline void store_first(T* p, V v, int count) {
  copy_first<V>((const T*)&v, p, count);
}

// What selects the first `count` lanes of a vector of T.
template <class T>
__attribute__((always_inline)) inline auto first_lanes(int count) {
  using Index = Mask<T>;
  using V = typename Simd<Index>::V;
  V index;
  for (int l = 0; l < Simd<Index>::kWidth; l++) index[l] = Index(l);
  return index < splat<V>(Index(count));
}

// A vector that stays in a register: gcc loads one anew for every instruction that can read memory.
template <class V>
NL_FN V in_register(V v) {
  KEEP(v);
  return v;
}

// Whether any lane of a mask is set.
template <class V>
bool any_lane(V mask) {
  int64_t words[sizeof(V) / 8], found = 0;
  store(words, mask);
  for (int64_t word : words) found |= word;
  return found != 0;
}

template <class T>
constexpr bool kIsFloat = T(0.5) != T(0);

// The bounds of an integer type.
template <class T>
constexpr T lowest() {
  return T(-1) > T(0) ? T(0) : T(1ull << (8 * sizeof(T) - 1));
}
template <class T>
constexpr T highest() {
  return T(~uint64_t(lowest<T>()));
}

}  // namespace
}  // namespace nl::NL_ISA
