# _tensor.pyx: the hot door: Tensor, the eager call, the walk back and the tape. Its parts, one subject a file: hot/.
# cython: language_level=3, cdivision=True
# cython: embedsignature=True, freethreading_compatible=False
# distutils: language = c++

cimport cython
cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject, PyTypeObject
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

import builtins as py  # rows named sum, max, abs … shadow the builtins in this module
import sys
from collections import namedtuple
from math import ceil as math_ceil
from math import isfinite as math_isfinite

import numpy as np

from .errors import AliasError, DTypeError, ShapeError, TraceError
from .ops import composite, convolutions, dtypes, fingerprint, order, places, statistics, table

cnp.import_array()

cdef object ABSENT = object()  # the default of an argument that may be anything
cdef object sys_getframe = sys._getframe
F = sys.modules[__name__]  # the namespace in which gradient rules and composites find every op by name

include "hot/cpp.pxi"
include "hot/dtype.pxi"

if fingerprint.fingerprint() != kTableFingerprint.decode():
    raise ImportError("the op table (python/neurlang/ops) was edited after the extension module was built; run `make build`")


@cython.freelist(256)
cdef class Tensor:
    """An n-dimensional array of one dtype: a strided window into a storage that views share.

    Made by `neurlang.tensor`, `zeros`, `rand`, `from_numpy` …; names and defaults are PyTorch's.

    >>> x = neurlang.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """
    cdef TensorData d
    cdef bint leaf_grad  # a leaf that asked for its gradient
    cdef Node node
    cdef int node_output
    cdef object grad_
    cdef Tensor base       # what this is a view of, while gradients are recorded
    cdef uint32_t writes   # in-place writes through any alias, on the base
    cdef uint32_t base_writes
    cdef object __weakref__

    # Binary ufuncs of NumPy scalars leave the operation to us.
    __array_priority__ = 1000
    __array_ufunc__ = None

    def __init__(self, *args, **kwargs):
        if self.d.storage == NULL:
            raise TypeError("Tensor cannot be constructed directly; use neurlang.tensor, zeros, empty or from_numpy")

    def __dealloc__(self):
        if self.d.storage != NULL:
            self.d.storage.release()

    include "hot/methods.pxi"
    include "hot/view_methods.pxi"
    include "hot/function_methods.pxi"
    include "methods.gen.pxi"


include "hot/node.pxi"
include "hot/call.pxi"
include "hot/reduce.pxi"
include "hot/inplace.pxi"
include "functions.gen.pxi"
include "hot/view.pxi"
include "hot/index.pxi"
include "hot/create.pxi"
include "hot/contract.pxi"
include "hot/window.pxi"
include "hot/gather.pxi"
include "hot/composite.pxi"
include "hot/along.pxi"
include "hot/functions.pxi"
include "hot/structure.pxi"
include "hot/backward.pxi"
include "hot/tape.pxi"

# Public names that must not shadow builtins or types in this file.
F.max, F.min, F.is_tensor, F.pow, F.round = tensor_max, tensor_min, is_tensor_public, tensor_pow, tensor_round
F.numel = tensor_numel

cdef extern from "bind/bind.hpp":
    void nl_bind_into(PyObject* module) except *

nl_bind_into(<PyObject*>F)

# What the package calls here and users do not.
INTERNAL = {
    "Block", "Cut", "Frozen", "Geometry", "Library", "Likeness", "Loan", "Node", "Permutation", "Program",
    "ProgramHandle", "Reshaping", "Stale", "TapeRecorder", "Walk", "adopt_row", "conv_tile", "drawn", "fma_f32",
    "fma_f64", "freeze_tape", "index_get", "index_put_", "is_tensor_public", "leaves", "load_library",
    "native_address", "next_draw", "python_node", "rebuild", "result_of", "set_conv_tile", "set_hooks", "simd_header",
    "sum_to", "take_gradient", "tensor_max", "tensor_min", "tensor_numel", "tensor_pow", "tensor_round",
    "undo_expansion", "use_blas", "user_line", "with_leaves",
}
# What `from neurlang._tensor import *` means: the functions and types of this file, without its imports.
F.__all__ = [name for name, value in vars(F).items()
             if not name.startswith("_") and getattr(value, "__module__", __name__) == __name__
             and not isinstance(value, type(F)) and name not in {"F", "np", "py", "INTERNAL", *INTERNAL}]
