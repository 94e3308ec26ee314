// bind.hpp: the cold door: everything that Python decides with but that is not called per op.
#pragma once
#include <Python.h>

// Adds Program, Library, threads, memory and CPU facts, the shape rules and exact fma to `module`, the extension module
// that Cython is initialising. On failure a Python exception is set.
extern "C" void nl_bind_into(PyObject* module);
