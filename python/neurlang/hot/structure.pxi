# structure.pxi: tensors in nested tuples, lists and dicts: what a traced function takes and returns.

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
    elif isinstance(value, (tuple, list)):
        for x in value:
            gather_leaves(x, found)
    elif isinstance(value, dict):
        for x in value.values():
            gather_leaves(x, found)
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
    if isinstance(value, (tuple, list)):
        made = [with_leaves(x, make) for x in value]
        if type(value) is list:
            return made
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    if isinstance(value, dict):
        return {k: with_leaves(x, make) for k, x in value.items()}
    return value
