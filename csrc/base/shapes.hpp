// shapes.hpp: the shape rules for integers, which everything concrete uses; ops/shapes.py has them for symbols.
// Every rule throws ShapeError naming the call, the shapes and the axis, before anything is allocated.
#pragma once
#include <string>

#include "view.hpp"

namespace nl {

struct Dims {
  int32_t rank;
  int64_t d[kMaxRank];
};

// No shape has more elements, so that the bytes of the widest dtype fit an int64.
constexpr int64_t kMaxElements = (int64_t(1) << 60) - 1;

std::string to_text(const Dims& x);  // "[2, 3]"

// `axis` counted from the front; a 0-d tensor has the axes 0 and -1, as in PyTorch.
int normalize_axis(const char* op, int64_t axis, int rank);

// ---- sources and elementwise rows ----

Dims shape_checked(const char* op, const int64_t* wanted, int n);
Dims shape_broadcast(const char* op, const Dims* shapes, int n);

// ---- views ----

Dims shape_reshape(const char* op, const Dims& x, const int64_t* wanted, int n);  // one extent may be -1
// The strides that give `x` the shape `wanted` without moving an element; false when there are none.
bool reshape_strides(const Dims& x, const int64_t* strides, const Dims& wanted, int64_t* result);
Dims shape_expand(const char* op, const Dims& x, const int64_t* wanted, int n);  // -1 keeps an extent
Dims shape_permute(const char* op, const Dims& x, const int64_t* axes, int n);

struct Span {
  int64_t start, count;  // elements start, start + step, …
};
Span slice_span(const char* op, int64_t extent, int64_t start, int64_t stop, int64_t step);  // Python's slice rules
Dims shape_slice(const char* op, const Dims& x, int axis, int64_t start, int64_t stop, int64_t step);

// ---- rows with a rule of their own ----

Dims shape_reduce(const char* op, const Dims& x, int axis);  // the axis stays, with extent 1
Dims shape_matmul(const char* op, const Dims& a, const Dims& b);
Dims shape_cat(const char* op, const Dims* shapes, int n, int axis);
Dims shape_pad(const char* op, const Dims& x, const int64_t* before_after, int n);  // n: two numbers an axis

// attr as in the table: [sh, sw, ph, pw, dh, dw, groups], then [H, W] or [kh, kw].
Dims shape_conv2d(const char* op, const Dims& x, const Dims& w, const int64_t* attr);
Dims shape_conv2d_input(const char* op, const Dims& g, const Dims& w, const int64_t* attr);
Dims shape_conv2d_weight(const char* op, const Dims& x, const Dims& g, const int64_t* attr);
// attr: [kh, kw, sh, sw, ph, pw, dh, dw, ceil].
Dims shape_pool2d(const char* op, const Dims& x, const int64_t* attr);
Dims shape_adaptive_pool2d(const char* op, const Dims& x, const int64_t* attr);  // attr: [OH, OW]

Dims shape_gather(const char* op, const Dims& x, const Dims& index, int axis);
Dims shape_scatter(const char* op, const Dims& x, const Dims& index, const Dims& src, int axis);
Dims shape_index_select(const char* op, const Dims& x, const Dims& index, int axis);
Dims shape_index_add(const char* op, const Dims& x, const Dims& index, const Dims& src, int axis);

}  // namespace nl
