// monoids.hpp: what reductions combine by: sum (of squares), prod, max, min, any, all.
//
// A monoid has the types In, Lane (what is combined) and Out, its `identity`, `lift` (a vector of In to one of Lane),
// `combine` (two vectors of Lane), `finish` (a Lane to an Out) and `results` (the same of vectors).
#pragma once
#include "vector.hpp"

namespace nl::NL_ISA {
namespace {

// What sums and products are taken in: integers wrap in 64 bits, unsigned because signed overflow is undefined.
template <class T, bool = kIsFloat<T>>
struct Total {
  using Lane = uint64_t;
  using Out = int64_t;
};
template <class T>
struct Total<T, true> {
  using Lane = T;
  using Out = T;
};

template <class T>
struct Sum {
  using In = T;
  using Lane = typename Total<T>::Lane;
  using Out = typename Total<T>::Out;
  static constexpr Lane identity = 0;

  template <class V>
  static auto lift(V v) {
    return __builtin_convertvector(v, typename Simd<Lane>::V);
  }
  template <class V>
  static V combine(V a, V b) {
    return a + b;
  }
  static Out finish(Lane lane) { return Out(lane); }
  template <class V>
  static auto results(V lanes) {
    return __builtin_convertvector(lanes, typename VecOf<Out, sizeof(V)>::V);
  }
};

// A sum of squares, each rounded before it is added.
template <class T>
struct SumSquares : Sum<T> {
  template <class V>
  static auto lift(V v) {
    auto lane = Sum<T>::lift(v);
    return lane * lane;
  }
};

template <class T>
struct Prod : Sum<T> {
  static constexpr typename Total<T>::Lane identity = 1;

  template <class V>
  static V combine(V a, V b) {
    return a * b;
  }
};

// Numbers as integers that compare in the same order: -0 < +0, and a NaN is the largest or, for kNan < 0, the smallest.
// So the longest chain of a maximum is one instruction a vector.
template <class T, int kNan>
struct Ordered {
  using Key = T;
  template <class V>
  static V key(V v) {
    return v;
  }
  static T value(T key) { return key; }
  template <class V>
  static V values(V keys) {
    return keys;
  }
};

template <class T, class I, int kNan>
struct OrderedFloat {
  using Key = I;
  static constexpr I kMagnitude = highest<I>();

  template <class V>
  static auto key(V v) {
    using K = typename VecOf<I, sizeof(V)>::V;
    K bits = (K)v, order = bits ^ ((bits >> (8 * sizeof(I) - 1)) & kMagnitude);  // negative: reversed
    return v != v ? splat<K>(kNan > 0 ? highest<I>() : lowest<I>()) : order;
  }
  static T value(I key) {
    I bits = key < 0 ? key ^ kMagnitude : key;
    T value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
  template <class V>
  static auto values(V keys) {
    return (typename VecOf<T, sizeof(V)>::V)(keys ^ ((keys >> (8 * sizeof(I) - 1)) & kMagnitude));
  }
};

template <int kNan>
struct Ordered<float, kNan> : OrderedFloat<float, int32_t, kNan> {};
template <int kNan>
struct Ordered<double, kNan> : OrderedFloat<double, int64_t, kNan> {};

// The larger or smaller of floats none of which is a NaN: one operation instead of five; the sign of a zero by itself.
template <class T, bool kLarger>
struct PlainExtreme {
  using In = T;
  using Lane = T;
  using Bits = Mask<T>;

  template <class V>
  static V combine(V a, V b) {
    return (kLarger ? a > b : a < b) ? a : b;
  }

  // Which sign a zero gets, as integers: a largest one is -0 where all elements are negative or -0.
  template <class I>
  static I signs(I a, I b) {
    return kLarger ? a & b : a | b;
  }
  template <class V, class I>
  static V with_sign(V best, I signs) {
    return best == T(0) ? (V)(signs & lowest<Bits>()) : best;
  }
};

// The larger; -0 < +0, any NaN wins.
template <class T>
struct Max {
  using In = T;
  using Plain = PlainExtreme<T, true>;
  using Out = T;
  using Order = Ordered<T, 1>;
  using Lane = typename Order::Key;
  static constexpr Lane identity = lowest<Lane>();

  template <class V>
  static auto lift(V v) {
    return Order::key(v);
  }
  template <class V>
  static V combine(V a, V b) {
    return a > b ? a : b;
  }
  static T finish(Lane lane) { return Order::value(lane); }
  template <class V>
  static auto results(V lanes) {
    return Order::values(lanes);
  }
};

// The smaller; -0 < +0, any NaN wins.
template <class T>
struct Min {
  using In = T;
  using Plain = PlainExtreme<T, false>;
  using Out = T;
  using Order = Ordered<T, -1>;
  using Lane = typename Order::Key;
  static constexpr Lane identity = highest<Lane>();

  template <class V>
  static auto lift(V v) {
    return Order::key(v);
  }
  template <class V>
  static V combine(V a, V b) {
    return a < b ? a : b;
  }
  static T finish(Lane lane) { return Order::value(lane); }
  template <class V>
  static auto results(V lanes) {
    return Order::values(lanes);
  }
};

// Whether a monoid is an extremum: what is taken twice changes nothing.
template <class M, class = void>
constexpr bool kIsExtreme = false;
template <class M>
constexpr bool kIsExtreme<M, decltype(void((typename M::Plain*)nullptr))> = true;

// Whether some element is not zero. Lanes are masks.
template <class T>
struct Any {
  using In = T;
  using Lane = Mask<T>;
  using Out = uint8_t;
  static constexpr Lane identity = 0;

  template <class V>
  static auto lift(V v) {
    const auto some = v != T(0);
    if constexpr (NL_VEC_BYTES > 16) return some;
    return in_register(some);  // gcc 12 without SSE4.1 ends on what it would make of masks of doubles
  }
  template <class V>
  static V combine(V a, V b) {
    return a | b;
  }
  static Out finish(Lane lane) { return lane != 0; }
  template <class V>
  static auto results(V lanes) {
    return __builtin_convertvector(lanes, typename VecOf<Out, sizeof(V) / sizeof(Lane)>::V) & Out(1);
  }
};

template <class T>
struct All : Any<T> {
  static constexpr Mask<T> identity = -1;

  template <class V>
  static V combine(V a, V b) {
    return a & b;
  }
};

}  // namespace
}  // namespace nl::NL_ISA
