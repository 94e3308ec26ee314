// reshape.hpp: the elements of a tensor in another shape, without a copy where its strides allow.
#pragma once
#include "../base/shapes.hpp"
#include "eager.hpp"

namespace nl {

// Gives `v`, which is x otherwise, the wanted shape (one size may be -1). False where no strides lay it over x's
// elements. Shapes are written once: copies of a struct that was just written by elements wait for the stores.
inline bool lay_out(const char* op, const TensorData& x, const int64_t* wanted, int n, TensorData& v) {
  Dims old;
  old.rank = x.rank;
  for (int i = 0; i < x.rank; ++i) old.d[i] = x.shape[i];
  const Dims shape = shape_reshape(op, old, wanted, n);
  v.rank = shape.rank;
  for (int i = 0; i < shape.rank; ++i) v.shape[i] = shape.d[i];
  if (!is_contiguous(x)) return reshape_strides(old, x.strides, shape, v.strides);
  set_contiguous_strides(v);
  return true;
}

}  // namespace nl
