// raise.cpp: the one place where a C++ exception becomes a Python one.
#include <Python.h>

#include "raise.hpp"

#include <new>
#include <stdexcept>

#include "errors.hpp"

namespace nl {
namespace {

// Raises neurlang.errors.NAME. If that cannot be had, the import's own exception is raised instead.
void raise_ours(const char* name, const char* message) {
  PyObject* module = PyImport_ImportModule("neurlang.errors");
  PyObject* type = module != nullptr ? PyObject_GetAttrString(module, name) : nullptr;
  if (type != nullptr) PyErr_SetString(type, message);
  Py_XDECREF(type);
  Py_XDECREF(module);
}

}  // namespace

void raise_python() {
  try {
    throw;
  } catch (const Interrupted&) {
    if (PyErr_Occurred() == nullptr)  // kept by a tensor that is read after the interrupt was handled
      raise_ours("TraceError", "a signal stopped the computation before this tensor was computed");
  } catch (const ShapeError& e) {
    raise_ours("ShapeError", e.what());
  } catch (const DTypeError& e) {
    raise_ours("DTypeError", e.what());
  } catch (const AliasError& e) {
    raise_ours("AliasError", e.what());
  } catch (const TraceError& e) {
    raise_ours("TraceError", e.what());
  } catch (const IndexError& e) {
    PyErr_SetString(PyExc_IndexError, e.what());
  } catch (const OutOfMemory& e) {
    PyErr_SetString(PyExc_MemoryError, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::invalid_argument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

}  // namespace nl
