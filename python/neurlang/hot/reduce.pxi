# reduce.pxi: reductions over one axis, or over several: which ones a `dim` names, and what becomes of them.

cdef int own_axis(str op, Tensor x, object dim) except -1:
    """An axis that x has, counted from the front; a 0-d tensor has none, though 0 and -1 name it elsewhere."""
    if x.d.rank == 0:
        raise ShapeError(f"{op}: the {describe(x)} has no axis {dim}")
    return axis_of(op, dim, x.d.rank)


cdef int axes_of(str op, object dim, int rank) except -1:
    """The axes of a `dim` argument (None or empty: all), a bit for each."""
    cdef int mask = 0, axis
    if dim is None:
        return (1 << rank) - 1
    if type(dim) is int:
        return 1 << axis_of(op, dim, rank) if rank else axis_of(op, dim, 0)
    if not isinstance(dim, (tuple, list)):
        dim = (dim,)
    if not dim:
        return (1 << rank) - 1
    for a in dim:
        axis = axis_of(op, a, rank)
        if mask >> axis & 1:
            raise ShapeError(f"{op}: axis {axis} is named twice in dim={tuple(dim)}")
        mask |= 1 << axis
    return mask if rank else 0


cdef tuple axes_tuple(int axes, int rank):
    """The axes whose bits are set, in ascending order."""
    return tuple([axis for axis in range(rank) if axes >> axis & 1])


def _axes(str op, x, dim):
    """`axes_of` for the composites of ops/, in ascending order; a 0-d tensor has none."""
    cdef int rank = need_tensor(x, op).d.rank
    return axes_tuple(axes_of(op, dim, rank), rank)


cdef int need_elements(str op, Tensor x, int axes) except -1:
    """Refuses what nothing has, an extremum or its place, along an axis without elements."""
    cdef int axis
    for axis in range(x.d.rank - 1, -1, -1):
        if axes >> axis & 1 and x.d.shape[axis] == 0:
            raise ShapeError(f"{op}: axis {axis} of the {describe(x)} is empty, which has no {op}")
    return 0


cdef Tensor reduce_axis(int op, Tensor x, int64_t axis):
    """One axis, kept with extent 1."""
    cdef Operand operand
    cdef Tensor out = Tensor.__new__(Tensor)
    set_like(&out.d, &x.d)
    out.d.shape[axis] = 1
    set_contiguous_strides(out.d)
    out.d.dtype = x.d.dtype if specs[op].out_type[0] == ANY else as_dtype(specs[op].out_type[0])
    operand.tensor = &x.d
    run(op, &operand, 1, &out.d, 1, &axis, 1, numel(x.d))
    return with_node(op, out, (x,), (axis,)) if wants_grad(x) else out


cdef Tensor reduce_joined(int op, Tensor x, int axes):
    """Several axes, kept with extent 1, in any order: those that lie as one are one. It has no history."""
    cdef Tensor joined = alias(x), result
    cdef Dims shape = dims_of(&x.d)
    cdef int axis, rank = 0, to = 0
    for axis in range(x.d.rank):
        if (axis > 0 and axes >> axis & axes >> (axis - 1) & 1 and joined.d.shape[rank - 1] > 0 and x.d.shape[axis] > 0
                and x.d.strides[axis - 1] == x.d.shape[axis] * x.d.strides[axis]):
            joined.d.shape[rank - 1] *= x.d.shape[axis]
            joined.d.strides[rank - 1] = x.d.strides[axis]
        else:
            joined.d.shape[rank] = x.d.shape[axis]
            joined.d.strides[rank] = x.d.strides[axis]
            to |= (axes >> axis & 1) << rank
            rank += 1
        if axes >> axis & 1:
            shape.d[axis] = 1
    joined.d.rank = rank
    result = joined
    for axis in range(rank - 1, -1, -1):
        if to >> axis & 1:
            result = reduce_axis(op, result, axis)
    result.d.rank = x.d.rank
    memcpy(result.d.shape, shape.d, x.d.rank * sizeof(int64_t))
    set_contiguous_strides(result.d)
    return result


cdef Tensor reduce1(int op, object x, object dim, bint keepdim):
    """A reduction over `dim` (None: all): one axis at a time, the last first."""
    cdef Tensor given = need_tensor(x, rows[op].name), result
    cdef int t = dtype_id(given.d.dtype), axes, axis
    cdef bint at_once, in_any_order
    if specs[op].promote_int64 and t < I64:
        t = I64
    elif specs[op].promote_float and not is_float(t):
        t = default_float
    if not allowed(specs[op].over, t):
        raise DTypeError(f"{rows[op].name} is not defined for {describe(x)}")
    if (t == F16 or t == BF16) and rows[op].monoid in ("sum", "prod"):  # however many axes there are, rounded once
        return cast(reduce1(op, cast(given, F32), dim, keepdim), t)
    given = result = cast(given, t)
    axes = axes_of(rows[op].name, dim, given.d.rank)
    if given.d.rank == 0:
        return drop_axes(reduce_axis(op, with_axis(given), 0), 1)
    if rows[op].monoid in ("max", "min", "argmax", "argmin"):
        need_elements(rows[op].name, given, axes)
    # Of several axes a rule that looks at the result sees all at once: equal maxima share a gradient wherever they lie.
    at_once = specs[op].saves_out and wants_grad(given)
    if at_once:
        result = alias(given)
    in_any_order = axes & (axes - 1) and rows[op].monoid in ("max", "min", "any", "all")
    if in_any_order and current_tape() == NULL and (at_once or not wants_grad(given)):  # passes look at the axes
        result = reduce_joined(op, given, axes)
    else:
        for axis in range(given.d.rank - 1, -1, -1):
            if axes >> axis & 1:
                result = reduce_axis(op, result, axis)
    if at_once:
        result = with_node(op, result, (given,), axes_tuple(axes, given.d.rank))
    return result if keepdim else drop_axes(result, axes)


cdef Tensor reduce_in(object dtype, int op, object x, object dim, bint keepdim):
    """`reduce1` of an operand in, and with a result of, the dtype that is asked for."""
    return in_dtype(rows[op].name, reduce1(op, in_dtype(rows[op].name, x, dtype), dim, keepdim), dtype)


cdef Tensor in_dtype(str op, object x, object dtype):
    """x in another dtype, if one is asked for."""
    cdef Tensor t = need_tensor(x, op)
    return t if dtype is None else cast(t, dtype_arg(dtype, F32))


cdef Tensor drop_axes(Tensor x, int axes):
    """A fresh result without these axes, whose extents are 1."""
    cdef int64_t shape[MAX_RANK]
    cdef int i, rank = 0
    for i in range(x.d.rank):
        if not axes >> i & 1:
            shape[rank] = x.d.shape[i]
            rank += 1
    if x.node is not None:
        return view_reshape(x, tuple([shape[i] for i in range(rank)]), "reshape")
    x.d.rank = rank
    memcpy(x.d.shape, shape, rank * sizeof(int64_t))
    set_contiguous_strides(x.d)
    return x
