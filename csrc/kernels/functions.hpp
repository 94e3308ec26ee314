// functions.hpp: the functions of the op table that hand-written kernels call, by the type of their argument.
#pragma once
#include "exprs.gen.h"

namespace nl::NL_ISA {
namespace {

inline vf32 exp_of(vf32 x) { return nl_exp_f32(x); }
inline vf64 exp_of(vf64 x) { return nl_exp_f64(x); }
inline vf32 log_of(vf32 x) { return nl_log_f32(x); }
inline vf64 log_of(vf64 x) { return nl_log_f64(x); }
inline vf32 log1p_of(vf32 x) { return nl_log1p_f32(x); }
inline vf64 log1p_of(vf64 x) { return nl_log1p_f64(x); }
inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

// Squares of distances from a mean, without what its rounding added to them; infinite where both overflow.
template <class V>
inline V without_rounding(V squares, V added) {
  const V left = squares - added;
  return left != left ? squares : left < V{} ? V{} : left;
}

}  // namespace
}  // namespace nl::NL_ISA
