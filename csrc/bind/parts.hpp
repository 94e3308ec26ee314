// parts.hpp: the parts of the cold door, one file each.
#pragma once
#include <pybind11/pybind11.h>

namespace nl {

void bind_program(pybind11::module_& m);
void bind_runtime(pybind11::module_& m);
void bind_shapes(pybind11::module_& m);

}  // namespace nl
