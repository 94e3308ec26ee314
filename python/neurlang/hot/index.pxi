# index.pxi: x[…] and x[…] = v, NumPy's rules: basic indices give views, arrays of integers or booleans gather.

from cpython.slice cimport PySlice_AdjustIndices, PySlice_Unpack

cdef bint is_array_index(object k):
    return isinstance(k, (list, np.ndarray)) or (is_tensor(k) and
                                                  ((<Tensor>k).d.rank > 0 or dtype_id((<Tensor>k).d.dtype) == B8))


cdef int key_rank(object k):
    """How many axes one part of a key consumes."""
    if isinstance(k, np.ndarray) and k.dtype == np.bool_:
        return k.ndim
    if is_tensor(k) and dtype_id((<Tensor>k).d.dtype) == B8:
        return (<Tensor>k).d.rank
    if isinstance(k, list):
        a = np.asarray(k)
        return a.ndim if a.dtype == np.bool_ else 1
    return 1


cdef Tensor basic_index(Tensor x, object key, list arrays):
    """Applies integers, slices, None and an ellipsis; array parts stay as whole axes and are listed as (axis, array)."""
    cdef Part parts[MAX_PARTS]
    cdef int n = 0, axis = 0, count, used, dots
    if not isinstance(key, tuple):
        key = (key,)
    axes_used(x, key, &used, &dots)
    for k in <tuple>key:
        need_room(n + 1)
        if plain_part(x, axis, k, &parts[n]):
            axis += 1
        elif k is None:
            parts[n].count = INSERTED
        elif k is Ellipsis:
            n = whole_axes(x, parts, n, axis, x.d.rank - used)
            axis += x.d.rank - used
            continue
        elif is_array_index(k):
            arrays.append((result_axis(parts, n), k))
            count = key_rank(k)
            n = whole_axes(x, parts, n, axis, count)
            axis += count
            continue
        else:
            parts[n] = picked(x, axis, index_number(k))
            axis += 1
        n += 1
    return cut(x, parts, n)


cdef int axes_used(Tensor x, tuple key, int* used, int* dots) except -1:
    """How many axes the key names; it may not name more than there are."""
    used[0] = dots[0] = 0
    for k in key:
        if k is Ellipsis:
            dots[0] += 1
        elif type(k) is slice or type(k) is int:
            used[0] += 1
        elif k is not None:
            used[0] += key_rank(k)
    if dots[0] > 1:
        raise IndexError("an index can have only one ellipsis ('...')")
    if used[0] > x.d.rank:
        raise IndexError(f"too many indices: {used[0]} for the {describe(x)}")
    return 0


cdef int whole_axes(Tensor x, Part* parts, int n, int axis, int count) except -1:
    """Parts for `count` whole axes from the n-th part on; returns n + count."""
    cdef int i
    need_room(n + count)
    for i in range(count):
        parts[n + i] = Part(0, 1, x.d.shape[axis + i])
    return n + count


cdef inline int need_room(int n) except -1:
    return need_rank(MAX_RANK + 1) if n > MAX_PARTS else 0


cdef inline int result_axis(const Part* parts, int n) noexcept:
    """The place in the result of the next part's axis."""
    cdef int i, axis = 0
    for i in range(n):
        axis += parts[i].count != DROPPED
    return axis


cdef inline Part sliced(object k, int64_t n) except *:
    cdef Py_ssize_t start, stop, step, count
    PySlice_Unpack(k, &start, &stop, &step)
    count = PySlice_AdjustIndices(n, &start, &stop, step)
    return Part(start, step if count > 1 else 1, count)  # one element is no steps away from another


cdef inline Part picked(Tensor x, int axis, int64_t i) except *:
    cdef int64_t n = x.d.shape[axis]
    if not -n <= i < n:
        raise IndexError(f"index {i} is out of range for axis {axis} of the {describe(x)}")
    return Part(i + n if i < 0 else i, 1, DROPPED)


cdef inline bint plain_part(Tensor x, int axis, object k, Part* part) except -1:
    """Writes down what an integer or a slice takes of an axis; whether k is one."""
    if type(k) is slice:
        part[0] = sliced(k, x.d.shape[axis])
    elif type(k) is int:
        part[0] = picked(x, axis, clip_index(k))
    else:
        return False
    return True


cdef Tensor plain_index(Tensor x, object key):
    """The short way of integers and slices, one or a tuple for the first axes. None where the key has anything else."""
    cdef Part parts[MAX_RANK]
    cdef int n = 0
    if type(key) is not tuple:
        return cut(x, parts, 1) if x.d.rank > 0 and plain_part(x, 0, key, parts) else None
    if len(<tuple>key) > x.d.rank:
        return None
    for k in <tuple>key:
        if not plain_part(x, n, k, &parts[n]):
            return None
        n += 1
    return cut(x, parts, n)


cdef int64_t index_number(object k) except? -9223372036854775807:
    if isinstance(k, bool):
        raise IndexError("a bool is not an index here; use an array of booleans")
    try:
        return clip_index(k)
    except TypeError:
        raise IndexError(f"indices must be integers, slices, ellipsis, None or arrays of integers or booleans, "
                         f"not {type(k).__name__}") from None


cdef list index_tensors(Tensor x, list arrays):
    """(axis, int64 tensor) for every array part; booleans become the coordinates of their true elements."""
    cdef Tensor t
    result = []
    for axis, k in arrays:
        t = k if is_tensor(k) else tensor(np.asarray(k, dtype=None if len(k) else np.int64))
        if dtype_id(t.d.dtype) == B8:
            have = shape_tuple(&x.d)[axis:axis + t.d.rank]
            if shape_tuple(&t.d) != have:
                raise IndexError(f"a boolean index of shape {shape_tuple(&t.d)} does not match axes of shape {have}")
            if t.d.rank == 0:
                raise IndexError("a single boolean is not an index here; use an array of booleans")
            found = nonzero(t)
            for i in range(t.d.rank):
                result.append((axis + i, column_of(found, i)))
        elif is_float(dtype_id(t.d.dtype)):
            raise IndexError(f"an index array must hold integers or booleans, got {describe(t)}")
        else:
            result.append((axis, cast(t, I64)))
    return result


cdef Tensor column_of(Tensor matrix, int i):
    cdef Part parts[2]
    parts[0], parts[1] = Part(0, 1, matrix.d.shape[0]), Part(i, 1, DROPPED)
    return cut(matrix, parts, 2)


cdef tuple gather_plan(Tensor x, list indices):
    """Index tensors broadcast to one shape, their axes, and where the gathered axes land (NumPy's rule)."""
    if len(indices) == 1:
        axis, t = indices[0]
        return (t,), (axis,), axis
    tensors = broadcast_tensors(*[t for _, t in indices])
    axes = tuple([a for a, _ in indices])
    adjacent = axes == tuple(range(axes[0], axes[0] + len(axes)))
    return tuple(tensors), axes, axes[0] if adjacent else 0


cdef Dims gathered_shape(Tensor x, tuple axes, int position, Tensor index) except *:
    """The axes of x that are left, with those of the index at `position` of them."""
    cdef int64_t shape[2 * MAX_RANK]
    cdef int a, left = 0
    for a in range(x.d.rank):
        if a not in axes:
            shape[left if left < position else left + index.d.rank] = x.d.shape[a]
            left += 1
    for a in range(index.d.rank):
        shape[position + a] = index.d.shape[a]
    need_rank(left + index.d.rank)
    return shape_checked("index", shape, left + index.d.rank)


cdef bint is_places(Tensor key) noexcept:
    """Whether an index is an array of integers."""
    return key.d.rank > 0 and dtype_id(key.d.dtype) != B8 and not is_float(dtype_id(key.d.dtype))


cdef object get_item(Tensor x, object key):
    cdef list arrays
    cdef Tensor view = plain_index(x, key)
    if view is not None:
        return view
    if x.d.rank > 0 and is_tensor(key) and is_places(key):  # the usual array, which leaves nothing to cut
        return index_get(x, (cast(key, I64),), (0,), 0)
    if masks(key, x) and (<Tensor>key).d.rank > 1:
        one = axes_as_one(x, (<Tensor>key).d.rank)
        if one is not None:
            x, key = one, view_reshape(key, (-1,), "reshape")
    arrays = []
    x = basic_index(x, key, arrays)
    if not arrays:
        return x
    indices = index_tensors(x, arrays)
    tensors, axes, position = gather_plan(x, indices)
    return index_get(x, tensors, axes, position)


cdef Tensor axes_as_one(Tensor x, int n):
    """A view of x in which the first n axes are one: a single place names their elements. None where there is none."""
    cdef int64_t shape[MAX_RANK]
    cdef TensorData view
    cdef int a, rank = x.d.rank - n + 1
    shape[0] = 1
    for a in range(x.d.rank):
        if a < n:
            shape[0] *= x.d.shape[a]
        else:
            shape[a - n + 1] = x.d.shape[a]
    if not lay_out("index", x.d, shape, rank, view):
        return None
    return reshaped(x, shape, rank, "index")


cdef Tensor index_get(Tensor x, tuple tensors, tuple axes, int position):
    """x gathered at int64 tensors (of one shape) along `axes`; the gathered axes land at `position`."""
    cdef Dims shape = gathered_shape(x, axes, position, tensors[0])
    cdef tuple attrs = (len(axes),) + axes + (position,)
    return call(OP["index_get"], (x,) + tensors, shape, dtype_id(x.d.dtype), attrs, numel(x.d))


cdef Tensor index_put_(Tensor x, tuple tensors, tuple axes, int position, object value, bint accumulate):
    """Writes (or adds) `value` into x at int64 tensors along `axes`, in row-major order of the indices."""
    cdef Dims shape = gathered_shape(x, axes, position, tensors[0])
    v = value if is_tensor(value) else full((), value, dtype=x.dtype)
    v = view_expand(cast(v, dtype_id(x.d.dtype)), dims_tuple(&shape))
    call_into(OP["index_put"], x, (v,) + tensors, (len(axes),) + axes + (position, accumulate))
    return x


cdef int set_item(Tensor x, object key, object value) except -1:
    cdef list arrays = []
    cdef Tensor v
    if not is_tensor(value) and not is_scalar(value):
        value = tensor(value)
    if masks(key, x) and (is_scalar(value) or (<Tensor>value).d.rank == 0):
        shape = shape_tuple(&(<Tensor>key).d) + (1,) * (x.d.rank - (<Tensor>key).d.rank)
        map_into(OP["masked_fill"], x, (view_reshape(key, shape, "reshape"), value))
        return 0
    v = basic_index(x, key, arrays)
    if arrays:
        tensors, axes, position = gather_plan(v, index_tensors(v, arrays))
        index_put_(v, tensors, axes, position, value, False)
        return 0
    if is_tensor(value):
        shape = shape_tuple(&(<Tensor>value).d)
        while len(shape) > v.d.rank and shape[0] == 1:  # NumPy drops leading ones when assigning
            shape = shape[1:]
        value = view_reshape(<Tensor>value, shape, "reshape")
    copy_into(v, value)
    return 0


cdef bint masks(object key, Tensor x) except -1:
    """Whether the key is a tensor of bools for each element, or each slice, of x."""
    cdef int i, rank
    if not is_tensor(key) or dtype_id((<Tensor>key).d.dtype) != B8:
        return False
    rank = (<Tensor>key).d.rank
    return 0 < rank <= x.d.rank and py.all([(<Tensor>key).d.shape[i] == x.d.shape[i] for i in range(rank)])


def nonzero(input, *, bint as_tuple=False):
    """The coordinates of the non-zero elements, int64 of shape [count, input.ndim], in row-major order.

    Its shape depends on values, so inside a trace it cuts.

    >>> neurlang.nonzero(neurlang.tensor([0, 3, 0, 5])).tolist()
    [[1], [3]]
    """
    cdef Tensor t = need_tensor(input, "nonzero"), mask, out
    cdef Operand ins[1]
    cdef TensorData d
    cdef Dims shape
    cdef Tape* tape
    readable(t, "nonzero: the shape of the result depends on values")
    tape = current_tape()
    set_current_tape(NULL)
    try:
        mask = t if dtype_id(t.d.dtype) == B8 else cast(t.detach(), B8)
        count = 0 if numel(t.d) == 0 else int(reduce1(OP["sum"], mask, None, False).item())
        shape = dims_from((count, t.d.rank), "nonzero")
        set_shape(&d, &shape, I64)
        operand(&ins[0], mask, B8)
        run(OP["nonzero"], ins, 1, &d, 1, NULL, 0, numel(mask.d))
    finally:
        set_current_tape(tape)
    out = wrap(&d)
    return unbind(out, 1) if as_tuple else out


def broadcast_tensors(*tensors):
    """Views of the tensors, all expanded to their common shape.

    >>> [x.shape for x in neurlang.broadcast_tensors(neurlang.zeros(3, 1), neurlang.zeros(2))]
    [(3, 2), (3, 2)]
    """
    cdef list parts = [need_tensor(t, "broadcast_tensors") for t in tensors]
    cdef Dims shapes[MAX_OPERANDS]
    cdef Dims shape
    cdef int i
    if len(parts) > MAX_OPERANDS:
        raise ShapeError(f"broadcast_tensors: at most {MAX_OPERANDS} tensors, got {len(parts)}")
    for i in range(len(parts)):
        shapes[i] = dims_of(&(<Tensor>parts[i]).d)
    shape = shape_broadcast("broadcast_tensors", shapes, len(parts))
    return tuple([view_expand(p, dims_tuple(&shape)) for p in parts])
