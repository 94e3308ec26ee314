// bind_shapes.cpp: the shape rules for Python, so that a test can hold them against ops/shapes.py.
#include <pybind11/stl.h>

#include "../base/numerics.hpp"
#include "../base/shapes.hpp"
#include "parts.hpp"

namespace py = pybind11;

namespace nl {
namespace {

using Ints = std::vector<int64_t>;

Dims dims(const Ints& shape) { return shape_checked("shape", shape.data(), int(shape.size())); }

std::vector<Dims> dims(const std::vector<Ints>& shapes) {
  std::vector<Dims> result;
  for (const Ints& s : shapes) result.push_back(dims(s));
  return result;
}

py::tuple tuple(const int64_t* d, int n) {
  py::tuple t(n);
  for (int i = 0; i < n; ++i) t[i] = d[i];
  return t;
}
py::tuple tuple(const Dims& x) { return tuple(x.d, x.rank); }

py::object strides_of_reshape(const Ints& shape, const Ints& strides, const Ints& wanted) {
  if (strides.size() != shape.size()) throw py::value_error("shape and strides differ in length");
  int64_t result[kMaxRank];
  const Dims to = dims(wanted);
  if (!reshape_strides(dims(shape), strides.data(), to, result)) return py::none();
  return tuple(result, to.rank);
}

int axis_of(const char* op, const Ints& x, int64_t axis) { return normalize_axis(op, axis, int(x.size())); }

// A rule over one shape and a list of numbers.
template <Dims (*rule)(const char*, const Dims&, const int64_t*, int)>
py::tuple with_list(const char* op, const Ints& x, const Ints& numbers) {
  return tuple(rule(op, dims(x), numbers.data(), int(numbers.size())));
}

// A rule over one or two shapes and attributes, of which it reads `n`.
template <int n, Dims (*rule)(const char*, const Dims&, const int64_t*)>
py::tuple with_attr(const char* op, const Ints& x, const Ints& attr) {
  if (attr.size() != n) throw py::value_error("wrong number of attributes");
  return tuple(rule(op, dims(x), attr.data()));
}
template <int n, Dims (*rule)(const char*, const Dims&, const Dims&, const int64_t*)>
py::tuple with_attr(const char* op, const Ints& x, const Ints& y, const Ints& attr) {
  if (attr.size() != n) throw py::value_error("wrong number of attributes");
  return tuple(rule(op, dims(x), dims(y), attr.data()));
}

void bind_elementwise(py::module_& m) {
  m.def("normalize_axis", &normalize_axis);
  m.def("checked",
        [](const char* op, const Ints& wanted) { return tuple(shape_checked(op, wanted.data(), int(wanted.size()))); });
  m.def("broadcast", [](const char* op, const std::vector<Ints>& shapes) {
    const std::vector<Dims> d = dims(shapes);
    return tuple(shape_broadcast(op, d.data(), int(d.size())));
  });
}

void bind_views(py::module_& m) {
  m.def("reshape", &with_list<shape_reshape>);
  m.def("expand", &with_list<shape_expand>);
  m.def("permute", &with_list<shape_permute>);
  m.def("reshape_strides", &strides_of_reshape);
  m.def("slice", [](const char* op, const Ints& x, int64_t axis, int64_t start, int64_t stop, int64_t step) {
    return tuple(shape_slice(op, dims(x), axis_of(op, x, axis), start, stop, step));
  });
  m.def("slice_span", [](const char* op, int64_t extent, int64_t start, int64_t stop, int64_t step) {
    const Span s = slice_span(op, extent, start, stop, step);
    return py::make_tuple(s.start, s.count);
  });
}

template <int (*kTile)(DType, int64_t, int64_t, int64_t, int64_t, const int64_t*, const int64_t*)>
int tile_of(const std::string& dtype, int64_t channels, int64_t outputs, int64_t height, int64_t width,
            const Ints& kernel, const Ints& attr) {
  if (kernel.size() != 2 || attr.size() < 8) throw py::value_error("wrong number of sizes");
  int d = 0;
  while (d < kDTypes && dtype != kDTypeInfo[d].name) d++;
  return kTile(DType(d), channels, outputs, height, width, kernel.data(), attr.data());
}

void bind_rows(py::module_& m) {
  m.def("winograd_tile", &tile_of<winograd_tile>);
  m.def("winograd_tile_input", &tile_of<winograd_tile_input>);
  m.def("winograd_tile_weight", &tile_of<winograd_tile_weight>);
  m.def("reduce", [](const char* op, const Ints& x, int64_t axis) {
    return tuple(shape_reduce(op, dims(x), axis_of(op, x, axis)));
  });
  m.def("matmul",
        [](const char* op, const Ints& a, const Ints& b) { return tuple(shape_matmul(op, dims(a), dims(b))); });
  m.def("cat", [](const char* op, const std::vector<Ints>& shapes, int64_t axis) {
    const std::vector<Dims> d = dims(shapes);
    return tuple(shape_cat(op, d.data(), int(d.size()), shapes.empty() ? 0 : axis_of(op, shapes[0], axis)));
  });
  m.def("pad", &with_list<shape_pad>);
  m.def("conv2d", &with_attr<8, shape_conv2d>);
  m.def("conv2d_input", &with_attr<10, shape_conv2d_input>);
  m.def("conv2d_weight", &with_attr<10, shape_conv2d_weight>);
  m.def("pool2d", &with_attr<9, shape_pool2d>);
  m.def("adaptive_pool2d", &with_attr<2, shape_adaptive_pool2d>);
}

void bind_indexing(py::module_& m) {
  m.def("gather", [](const char* op, const Ints& x, const Ints& index, int64_t axis) {
    return tuple(shape_gather(op, dims(x), dims(index), axis_of(op, x, axis)));
  });
  m.def("scatter", [](const char* op, const Ints& x, const Ints& index, const Ints& src, int64_t axis) {
    return tuple(shape_scatter(op, dims(x), dims(index), dims(src), axis_of(op, x, axis)));
  });
  m.def("index_select", [](const char* op, const Ints& x, const Ints& index, int64_t axis) {
    return tuple(shape_index_select(op, dims(x), dims(index), axis_of(op, x, axis)));
  });
  m.def("index_add", [](const char* op, const Ints& x, const Ints& index, const Ints& src, int64_t axis) {
    return tuple(shape_index_add(op, dims(x), dims(index), dims(src), axis_of(op, x, axis)));
  });
}

}  // namespace

void bind_shapes(py::module_& parent) {
  py::module_ m = parent.def_submodule("shape_rules", "The shape rules of csrc/base/shapes.hpp; axes are normalised.");
  bind_elementwise(m);
  bind_views(m);
  bind_rows(m);
  bind_indexing(m);
}

}  // namespace nl
