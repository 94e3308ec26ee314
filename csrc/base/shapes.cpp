// shapes.cpp: the shape rules for integers.
#include "shapes.hpp"

#include <algorithm>

#include "checked.hpp"
#include "errors.hpp"

namespace nl {
namespace {

std::string number(int64_t n) { return std::to_string(n); }

[[noreturn]] void fail(const char* op, const std::string& what) { throw ShapeError(std::string(op) + ": " + what); }

std::string list(const int64_t* d, int n) {
  std::string s = "[";
  for (int i = 0; i < n; ++i) s += (i ? ", " : "") + number(d[i]);
  return s + "]";
}

std::string list(const Dims* shapes, int n) {
  std::string s;
  for (int i = 0; i < n; ++i) s += (i ? i + 1 == n ? " and " : ", " : "") + to_text(shapes[i]);
  return s;
}

// Zeros count as ones: strides are products of the extents behind an axis, so those must fit too.
void check_size(const char* op, const Dims& x) {
  Checked n = 1;
  for (int i = 0; i < x.rank; ++i) n = n * std::max<int64_t>(x.d[i], 1);
  if (n.exceeds(kMaxElements)) fail(op, "shape " + to_text(x) + " has too many elements");
}

void check_rank(const char* op, int rank) {
  if (rank > kMaxRank)
    fail(op, number(rank) + " axes are more than the " + number(kMaxRank) + " supported; reshape to fewer");
}

void check_axes(const char* op, const char* name, const Dims& x, int rank) {
  if (x.rank != rank)
    fail(op, std::string(name) + " " + to_text(x) + " has " + number(x.rank) + " axes, expected " + number(rank));
}

int64_t elements(const Dims& x) {
  int64_t n = 1;
  for (int i = 0; i < x.rank; ++i) n *= x.d[i];
  return n;
}

}  // namespace

std::string to_text(const Dims& x) { return list(x.d, x.rank); }

int normalize_axis(const char* op, int64_t axis, int rank) {
  const int64_t n = std::max(rank, 1);
  if (axis < -n || axis >= n)
    fail(op, "axis " + number(axis) + " is out of range for " + number(rank) + " axes; use " + number(-n) + " to " +
                 number(n - 1));
  return int(axis < 0 ? axis + n : axis);
}

// ---- sources and elementwise rows ----

Dims shape_checked(const char* op, const int64_t* wanted, int n) {
  check_rank(op, n);
  Dims r{n, {}};
  for (int i = 0; i < n; ++i) {
    if (wanted[i] < 0)
      fail(op, "size " + number(wanted[i]) + " of axis " + number(i) + " in " + list(wanted, n) + " is negative");
    r.d[i] = wanted[i];
  }
  check_size(op, r);
  return r;
}

Dims shape_broadcast(const char* op, const Dims* shapes, int n) {
  Dims r{0, {}};
  for (int k = 0; k < n; ++k) r.rank = std::max(r.rank, shapes[k].rank);
  std::fill_n(r.d, r.rank, 1);
  for (int k = 0; k < n; ++k) {
    const int lead = r.rank - shapes[k].rank;
    for (int i = 0; i < shapes[k].rank; ++i) {
      const int64_t extent = shapes[k].d[i];
      int64_t& result = r.d[lead + i];
      if (extent == 1 || extent == result) continue;
      if (result != 1)
        fail(op, "shapes " + list(shapes, n) + " do not broadcast: axis " + number(lead + i - r.rank) + " has sizes " +
                     number(result) + " and " + number(extent) + "; they must be equal or 1");
      result = extent;
    }
  }
  check_size(op, r);
  return r;
}

// ---- views ----

Dims shape_reshape(const char* op, const Dims& x, const int64_t* wanted, int n) {
  check_rank(op, n);
  Dims r{n, {}};
  Checked known = 1;
  int unknown = -1;
  for (int i = 0; i < n; ++i) {
    r.d[i] = wanted[i];
    if (wanted[i] < -1 || (wanted[i] == -1 && unknown >= 0))
      fail(op, "shape " + list(wanted, n) + " for " + to_text(x) + ": axis " + number(i) +
                   (wanted[i] == -1 ? " is a second -1; only one can be inferred" : " is negative"));
    if (wanted[i] == -1) {
      unknown = i;
    } else {
      known = known * wanted[i];
    }
  }
  const int64_t total = elements(x);
  if (unknown >= 0 && known.valid() && known.value() != 0 && total % known.value() == 0) {
    r.d[unknown] = total / known.value();
  } else if (unknown >= 0 || !known.valid() || known.value() != total) {
    fail(op, "shape " + list(wanted, n) + " does not fit " + to_text(x) + ", which has " + number(total) + " elements");
  }
  if (total == 0) check_size(op, r);  // else x's own size was checked
  return r;
}

// Axes of x that lie evenly in memory are joined into groups; each group is then cut into the wanted extents.
bool reshape_strides(const Dims& x, const int64_t* strides, const Dims& wanted, int64_t* result) {
  if (elements(x) == 0) {
    int64_t stride = 1;
    for (int i = wanted.rank - 1; i >= 0; --i) {
      result[i] = stride;
      stride *= std::max<int64_t>(wanted.d[i], 1);
    }
    return true;
  }
  int to = wanted.rank - 1;
  int64_t have = 1, cut = 1;  // elements of the current group, and how many of them are cut already
  int64_t step = 1;           // stride of the group's last axis
  for (int from = x.rank - 1; from >= 0; --from) {
    if (have == 1) step = strides[from];
    have *= x.d[from];
    int next = from - 1;
    while (next >= 0 && x.d[next] == 1) --next;
    const bool joins = next >= 0 && (have == 1 || strides[next] == have * step);
    if (joins) continue;
    while (to >= 0 && (cut < have || wanted.d[to] == 1)) {
      result[to] = cut * step;
      cut *= wanted.d[to--];
    }
    if (cut != have) return false;
    have = cut = 1;
  }
  while (to >= 0) result[to--] = 1;  // what is left has extent 1
  return true;
}

Dims shape_expand(const char* op, const Dims& x, const int64_t* wanted, int n) {
  check_rank(op, n);
  const auto shapes = [&] { return " in the expansion of " + to_text(x) + " to " + list(wanted, n); };
  if (n < x.rank) fail(op, "fewer axes" + shapes() + "; give every axis a size or -1");
  Dims r{n, {}};
  for (int i = 0; i < n; ++i) {
    const int k = i - (n - x.rank);
    r.d[i] = wanted[i] == -1 && k >= 0 ? x.d[k] : wanted[i];
    if (r.d[i] < 0) fail(op, "size " + number(wanted[i]) + " of new axis " + number(i) + " is negative" + shapes());
    if (k >= 0 && x.d[k] != 1 && x.d[k] != r.d[i])
      fail(op, "axis " + number(i) + " of size " + number(x.d[k]) + " cannot become " + number(r.d[i]) + shapes() +
                   "; only axes of size 1 can");
  }
  check_size(op, r);
  return r;
}

Dims shape_permute(const char* op, const Dims& x, const int64_t* axes, int n) {
  if (n != x.rank)
    fail(op, list(axes, n) + " names " + number(n) + " axes, but " + to_text(x) + " has " + number(x.rank));
  Dims r{n, {}};
  unsigned seen = 0;
  for (int i = 0; i < n; ++i) {
    const int axis = normalize_axis(op, axes[i], n);
    if (seen >> axis & 1) fail(op, "axis " + number(axis) + " is named twice in " + list(axes, n));
    seen |= 1u << axis;
    r.d[i] = x.d[axis];
  }
  return r;
}

Span slice_span(const char* op, int64_t extent, int64_t start, int64_t stop, int64_t step) {
  if (step == 0) fail(op, "the step of a slice cannot be 0");
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? extent : extent - 1;
  const auto clip = [&](int64_t i) { return std::clamp(i < 0 ? i + extent : i, low, high); };
  start = clip(start);
  stop = clip(stop);
  const int64_t distance = step > 0 ? stop - start : start - stop;
  if (distance <= 0) return {start, 0};
  const uint64_t stride = step > 0 ? uint64_t(step) : 0 - uint64_t(step);
  return {start, int64_t((uint64_t(distance) - 1) / stride) + 1};
}

Dims shape_slice(const char* op, const Dims& x, int axis, int64_t start, int64_t stop, int64_t step) {
  Dims r = x;
  r.d[axis] = slice_span(op, x.d[axis], start, stop, step).count;
  return r;
}

// ---- rows with a rule of their own ----

Dims shape_reduce(const char*, const Dims& x, int axis) {
  Dims r = x;
  r.d[axis] = 1;
  return r;
}

Dims shape_matmul(const char* op, const Dims& a, const Dims& b) {
  const auto operands = [&] { return to_text(a) + " @ " + to_text(b); };
  if (a.rank == 0 || b.rank == 0) fail(op, operands() + ": operands need at least one axis; use * for a scalar");
  const int64_t k = a.d[a.rank - 1];
  const int b_axis = std::max(b.rank - 2, 0);
  if (k != b.d[b_axis])
    fail(op, operands() + ": axis " + number(a.rank - 1) + " of the first (" + number(k) + ") and axis " +
                 number(b_axis) + " of the second (" + number(b.d[b_axis]) +
                 ") must be equal; transpose an operand or check their order");
  Dims batch[2] = {a, b};
  batch[0].rank = std::max(a.rank - 2, 0);
  batch[1].rank = std::max(b.rank - 2, 0);
  Dims r{0, {}};
  if (batch[0].rank + batch[1].rank > 0) r = shape_broadcast(op, batch, 2);
  if (a.rank > 1) r.d[r.rank++] = a.d[a.rank - 2];
  if (b.rank > 1) r.d[r.rank++] = b.d[b.rank - 1];
  check_size(op, r);
  return r;
}

Dims shape_cat(const char* op, const Dims* shapes, int n, int axis) {
  if (n == 0) fail(op, "no tensors given");
  Dims r = shapes[0];
  if (r.rank == 0) fail(op, "0-d tensors cannot be joined; stack them");
  Checked joined = r.d[axis];
  for (int k = 1; k < n; ++k) {
    const Dims& x = shapes[k];
    for (int i = 0; i < r.rank; ++i)
      if (x.rank != r.rank || (i != axis && x.d[i] != r.d[i]))
        fail(op, "shape " + to_text(x) + " does not join " + to_text(r) + " along axis " + number(axis) +
                     "; all axes but " + number(axis) + " must agree");
    joined = joined + x.d[axis];
  }
  if (!joined.valid()) fail(op, "axis " + number(axis) + " becomes too long");
  r.d[axis] = joined.value();
  check_size(op, r);
  return r;
}

Dims shape_pad(const char* op, const Dims& x, const int64_t* before_after, int n) {
  if (n != 2 * x.rank)
    fail(op, "padding " + list(before_after, n) + " needs two numbers for every axis of " + to_text(x));
  Dims r = x;
  for (int i = 0; i < x.rank; ++i) {
    const Checked extent = Checked(x.d[i]) + before_after[2 * i] + before_after[2 * i + 1];
    if (!extent.valid() || extent.value() < 0)
      fail(op, "padding " + list(before_after, n) + " leaves nothing of axis " + number(i) + " of " + to_text(x));
    r.d[i] = extent.value();
  }
  check_size(op, r);
  return r;
}

// ---- windows ----

namespace {

constexpr const char* kSpatial[2] = {"height", "width"};

struct Window {
  int64_t kernel, stride, padding, dilation;
};

// How many places the window has along an extent. `shapes()` describes the operands; texts are made on failure only.
template <class Text>
int64_t window_places(const char* op, int axis, int64_t extent, const Window& w, bool ceil, const Text& shapes) {
  const auto along = [&] { return std::string(" along the ") + kSpatial[axis] + " of " + shapes(); };
  if (w.stride <= 0) fail(op, "stride " + number(w.stride) + along() + " must be positive");
  if (w.dilation <= 0) fail(op, "dilation " + number(w.dilation) + along() + " must be positive");
  if (w.kernel <= 0) fail(op, "kernel size " + number(w.kernel) + along() + " must be positive");
  if (w.padding < 0) fail(op, "padding " + number(w.padding) + along() + " must not be negative");
  const Checked reach = Checked(w.dilation) * (w.kernel - 1) + 1;
  const Checked padded = Checked(2) * w.padding + extent;
  const Checked room = padded - reach;
  // With `ceil` a last, partial window counts if it starts inside the input or the padding before it, as in PyTorch.
  const bool hangs = ceil && room.valid() && room.value() < 0 && -room.value() < w.stride && extent + w.padding > 0;
  if (hangs && !padded.exceeds(kMaxElements)) return 1;
  if (padded.exceeds(kMaxElements) || !room.valid() || room.value() < 0)
    fail(op, "the window of " + (reach.valid() ? number(reach.value()) : "too many") + " elements does not fit into " +
                 (padded.valid() ? number(padded.value()) : "too many") + along());
  int64_t places = room.value() / w.stride + 1;
  if (ceil && room.value() % w.stride != 0 && places * w.stride < extent + w.padding) ++places;
  return places;
}

constexpr int64_t kMaxPadded = int64_t(1) << 55;  // elements of an image's planes with their padding

// Kernels copy planes with the padding around them and go a few places beyond: their counts must not overflow.
template <class Text>
void check_padded(const char* op, int64_t channels, const Dims& x, const int64_t* padding, const Text& shapes) {
  Checked n = std::max<int64_t>(channels, 1);
  for (int i = 0; i < 2; ++i) n = n * std::max<int64_t>(2 * padding[i] + x.d[2 + i], 1);  // each was checked
  if (n.exceeds(kMaxPadded)) fail(op, "the planes of " + shapes() + " have too many elements with their padding");
}

Window conv_window(const int64_t* attr, int axis, int64_t kernel) {
  return {kernel, attr[axis], attr[2 + axis], attr[4 + axis]};
}

template <class Text>
void check_groups(const char* op, int64_t channels, const Dims& w, int64_t groups, const Text& shapes) {
  if (groups <= 0) fail(op, "groups=" + number(groups) + " must be positive");
  if (w.d[0] % groups != 0 || channels % groups != 0)
    fail(op, "groups=" + number(groups) + " must divide the " + number(channels) + " input and the " + number(w.d[0]) +
                 " output channels (axes 1 and 0 of " + shapes() + ")");
  if (channels / groups != w.d[1])
    fail(op, shapes() + ": axis 1 of the weight must be input channels / groups = " + number(channels / groups) +
                 ", but it is " + number(w.d[1]));
}

// The result of conv2d for an image of [batch, channels, height, width] and a weight of shape w.
template <class Text>
Dims conv_result(const char* op, const Dims& x, const Dims& w, const int64_t* attr, const Text& shapes) {
  check_groups(op, x.d[1], w, attr[6], shapes);
  Dims r{4, {x.d[0], w.d[0], 0, 0}};
  for (int i = 0; i < 2; ++i)
    r.d[2 + i] = window_places(op, i, x.d[2 + i], conv_window(attr, i, w.d[2 + i]), false, shapes);
  for (int64_t channels : {x.d[1], w.d[0]}) check_padded(op, channels, x, attr + 2, shapes);
  check_size(op, r);
  return r;
}

template <class Text>
void check_gradient(const char* op, const Dims& g, const Dims& expected, const Text& shapes) {
  for (int i = 0; i < 4; ++i)
    if (g.d[i] != expected.d[i])
      fail(op, shapes() + ": axis " + number(i) + " of " + to_text(g) + " must be " + number(expected.d[i]) +
                   ", the size that the convolution gives");
}

}  // namespace

Dims shape_conv2d(const char* op, const Dims& x, const Dims& w, const int64_t* attr) {
  check_axes(op, "input", x, 4);
  check_axes(op, "weight", w, 4);
  return conv_result(op, x, w, attr, [&] { return "input " + to_text(x) + " and weight " + to_text(w); });
}

Dims shape_conv2d_input(const char* op, const Dims& g, const Dims& w, const int64_t* attr) {
  check_axes(op, "gradient", g, 4);
  check_axes(op, "weight", w, 4);
  const auto shapes = [&] { return "gradient " + to_text(g) + " and weight " + to_text(w); };
  const Checked channels = Checked(w.d[1]) * attr[6];
  if (!channels.valid()) fail(op, "groups=" + number(attr[6]) + " are too many for " + shapes());
  const int64_t wanted[4] = {g.d[0], channels.value(), attr[8], attr[9]};
  const Dims r = shape_checked(op, wanted, 4);
  check_gradient(op, g, conv_result(op, r, w, attr, shapes), shapes);
  return r;
}

Dims shape_conv2d_weight(const char* op, const Dims& x, const Dims& g, const int64_t* attr) {
  check_axes(op, "input", x, 4);
  check_axes(op, "gradient", g, 4);
  const auto shapes = [&] { return "input " + to_text(x) + " and gradient " + to_text(g); };
  if (attr[6] <= 0) fail(op, "groups=" + number(attr[6]) + " must be positive");
  const int64_t wanted[4] = {g.d[1], x.d[1] / attr[6], attr[8], attr[9]};
  const Dims r = shape_checked(op, wanted, 4);
  check_gradient(op, g, conv_result(op, x, r, attr, shapes), shapes);
  return r;
}

Dims shape_pool2d(const char* op, const Dims& x, const int64_t* attr) {
  check_axes(op, "input", x, 4);
  const auto shapes = [&] { return "input " + to_text(x); };
  Dims r = x;
  for (int i = 0; i < 2; ++i) {
    const Window w{attr[i], attr[2 + i], attr[4 + i], attr[6 + i]};
    r.d[2 + i] = window_places(op, i, x.d[2 + i], w, attr[8] != 0, shapes);
    if (w.padding > w.kernel / 2)  // a window could otherwise lie in the padding alone
      fail(op, "padding " + number(w.padding) + " along the " + kSpatial[i] + " may be at most half the kernel size " +
                   number(w.kernel));
  }
  check_padded(op, x.d[1], x, attr + 4, shapes);
  check_size(op, r);
  return r;
}

Dims shape_adaptive_pool2d(const char* op, const Dims& x, const int64_t* attr) {
  check_axes(op, "input", x, 4);
  for (int i = 0; i < 2; ++i)
    if (x.d[2 + i] == 0 && attr[i] != 0)
      fail(op, std::string("the ") + kSpatial[i] + " of input " + to_text(x) + " is 0: there is nothing to pool");
  const int64_t wanted[4] = {x.d[0], x.d[1], attr[0], attr[1]};
  return shape_checked(op, wanted, 4);
}

// ---- indices ----

Dims shape_gather(const char* op, const Dims& x, const Dims& index, int axis) {
  const auto shapes = [&] { return "input " + to_text(x) + " and index " + to_text(index); };
  if (std::max(x.rank, 1) != std::max(index.rank, 1)) fail(op, shapes() + " must have the same number of axes");
  for (int i = 0; i < std::min(x.rank, index.rank); ++i)
    if (i != axis && index.d[i] > x.d[i])
      fail(op, shapes() + ": axis " + number(i) + " of the index (" + number(index.d[i]) +
                   ") may not be longer than the input's (" + number(x.d[i]) + ")");
  return index;
}

Dims shape_scatter(const char* op, const Dims& x, const Dims& index, const Dims& src, int axis) {
  shape_gather(op, x, index, axis);
  const auto shapes = [&] { return "index " + to_text(index) + " and source " + to_text(src); };
  if (std::max(src.rank, 1) != std::max(index.rank, 1)) fail(op, shapes() + " must have the same number of axes");
  for (int i = 0; i < std::min(src.rank, index.rank); ++i)
    if (index.d[i] > src.d[i])
      fail(op, shapes() + ": axis " + number(i) + " of the index (" + number(index.d[i]) +
                   ") may not be longer than the source's (" + number(src.d[i]) + ")");
  return x;
}

Dims shape_index_select(const char* op, const Dims& x, const Dims& index, int axis) {
  if (index.rank != 1) fail(op, "the index must have one axis, got shape " + to_text(index));
  Dims r = x;
  if (x.rank > 0) r.d[axis] = index.d[0];
  if (x.rank == 0 && index.d[0] != 1) fail(op, "a 0-d input takes an index of one element, got " + to_text(index));
  check_size(op, r);
  return r;
}

Dims shape_index_add(const char* op, const Dims& x, const Dims& index, const Dims& src, int axis) {
  const Dims expected = shape_index_select(op, x, index, axis);
  if (src.rank != expected.rank || !std::equal(src.d, src.d + src.rank, expected.d))
    fail(op, "source " + to_text(src) + " must be " + to_text(expected) + " for input " + to_text(x) + " and " +
                 number(index.d[0]) + " indices along axis " + number(axis));
  return x;
}

}  // namespace nl
