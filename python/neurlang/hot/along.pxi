# along.pxi: functions along one axis that keep its elements apart: scans.

cdef Tensor scan(int op, object x, object dim):
    """A scan row along `dim`, after the row's promotion."""
    cdef Tensor t = need_tensor(x, rows[op].name)
    cdef int kind = dtype_id(t.d.dtype), axis
    if specs[op].promote_int64 and kind < I64:
        kind = I64
    elif specs[op].promote_float and not is_float(kind):
        kind = default_float
    t = cast(t, kind)
    if t.d.rank == 0:
        return view_reshape(scan(op, with_axis(t), dim), (), "reshape")
    axis = axis_of(rows[op].name, dim, t.d.rank)
    return call(op, (t,), dims_of(&t.d), kind, (axis,), numel(t.d))


def cumsum(input, dim, *, dtype=None):
    """The sums of all elements up to each one along `dim`; integers and bools give int64.

    The order of the additions is fixed (see ARCHITECTURE.md, section 3).

    >>> neurlang.cumsum(neurlang.tensor([1, 2, 3]), 0).tolist()
    [1, 3, 6]
    """
    return scan(OP["cumsum"], input if dtype is None else need_tensor(input, "cumsum").to(dtype), dim)


def cumprod(input, dim, *, dtype=None):
    """The products of all elements up to each one along `dim`; integers and bools give int64.

    >>> neurlang.cumprod(neurlang.tensor([1, 2, 3]), 0).tolist()
    [1, 2, 6]
    """
    return scan(OP["cumprod"], input if dtype is None else need_tensor(input, "cumprod").to(dtype), dim)


def logcumsumexp(input, dim):
    """log Σ exp of all elements up to each one along `dim`, without overflow; integers give the default float dtype.

    >>> neurlang.logcumsumexp(neurlang.tensor([1000.0, 0.0, 0.0]), 0).tolist()
    [1000.0, 1000.0, 1000.0]
    """
    return scan(OP["logcumsumexp"], input, dim)


def _cummax(input, dim):
    return scan(OP["cummax"], input, dim)


def _cummin(input, dim):
    return scan(OP["cummin"], input, dim)
