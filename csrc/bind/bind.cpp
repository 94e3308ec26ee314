// bind.cpp: puts the parts of the cold door into the module that Cython made.
#include "bind.hpp"

#include <exception>

#include "../base/raise.hpp"
#include "parts.hpp"

namespace py = pybind11;

namespace {

void translate(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const py::builtin_exception&) {
    throw;  // pybind11's own
  } catch (const py::error_already_set&) {
    throw;
  } catch (...) {
    nl::raise_python();
  }
}

void bind_all(py::module_& m) {
  py::register_local_exception_translator(translate);
  nl::bind_runtime(m);
  nl::bind_shapes(m);
  nl::bind_program(m);
}

}  // namespace

extern "C" void nl_bind_into(PyObject* module) {
  py::detail::get_internals();  // usually done by PYBIND11_MODULE, which Cython takes the place of
  auto m = py::reinterpret_borrow<py::module_>(module);
  try {
    bind_all(m);
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (...) {
    nl::raise_python();
  }
}
