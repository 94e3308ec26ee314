# structure.pxi: tensors in nested tuples, lists and dicts: what a traced function takes and returns.

cdef extern from "Python.h":
    int Py_EnterRecursiveCall(const char* where) except *  # RecursionError: of what contains itself there is no end
    void Py_LeaveRecursiveCall()


cdef class Likeness:
    """What a tensor looks like: dtype, shape, strides, whether it requires grad; nothing of its memory."""
    cdef TensorData d
    cdef bint requires_grad

    def __init__(self, Tensor x):
        self.d = x.d
        self.d.storage = NULL
        self.requires_grad = wants_grad(x)


cdef inline bint is_leaf(object x):
    return is_tensor(x) or type(x) is Likeness


cdef int gather_leaves(object value, list found) except -1:
    if is_leaf(value):
        found.append(value)
    elif isinstance(value, (tuple, list, dict)):
        Py_EnterRecursiveCall(" while looking for tensors")
        try:
            for x in value.values() if isinstance(value, dict) else value:
                gather_leaves(x, found)
        finally:
            Py_LeaveRecursiveCall()
    return 0


def leaves(value):
    """The tensors of a structure, in order."""
    cdef list found = []
    gather_leaves(value, found)
    return found


def with_leaves(value, make):
    """The structure with make(x) in the place of every tensor, or of what stands for one, x."""
    if is_leaf(value):
        return make(value)
    if not isinstance(value, (tuple, list, dict)):
        return value
    Py_EnterRecursiveCall(" while looking for tensors")
    try:
        if isinstance(value, dict):
            return {k: with_leaves(x, make) for k, x in value.items()}
        made = [with_leaves(x, make) for x in value]
    finally:
        Py_LeaveRecursiveCall()
    if type(value) is list:
        return made
    return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
