# along.pxi: functions along one axis: scans, sums of squares, sorting, the first k, search.

cdef Tensor along(int op, Tensor t, object dim):
    """Runs a row whose result has t's shape and dtype along `dim`."""
    cdef int axis
    if t.d.rank == 0:
        return view_reshape(along(op, with_axis(t), dim), (), "reshape")
    axis = axis_of(rows[op].name, dim, t.d.rank)
    return call(op, (t,), dims_of(&t.d), dtype_id(t.d.dtype), (axis,), numel(t.d))


cdef Tensor scan(int op, object x, object dim):
    """A scan row along `dim`, after the row's promotion."""
    cdef Tensor t = need_tensor(x, rows[op].name)
    cdef int kind = dtype_id(t.d.dtype)
    if specs[op].promote_int64 and kind < I64:
        kind = I64
    elif specs[op].promote_float and not is_float(kind):
        kind = default_float
    return along(op, cast(t, kind), dim)


def cumsum(input, dim, *, dtype=None):
    """The sums of all elements up to each one along `dim`; integers and bools give int64.

    The order of the additions is fixed (see ARCHITECTURE.md, section 3).

    >>> neurlang.cumsum(neurlang.tensor([1, 2, 3]), 0).tolist()
    [1, 3, 6]
    """
    return in_dtype("cumsum", scan(OP["cumsum"], in_dtype("cumsum", input, dtype), dim), dtype)


def cumprod(input, dim, *, dtype=None):
    """The products of all elements up to each one along `dim`; integers and bools give int64.

    >>> neurlang.cumprod(neurlang.tensor([1, 2, 3]), 0).tolist()
    [1, 2, 6]
    """
    return in_dtype("cumprod", scan(OP["cumprod"], in_dtype("cumprod", input, dtype), dim), dtype)


def logcumsumexp(input, dim):
    """log Σ exp of all elements up to each one along `dim`, without overflow; integers give the default float dtype.

    >>> neurlang.logcumsumexp(neurlang.tensor([1000.0, 0.0, 0.0]), 0).tolist()
    [1000.0, 1000.0, 1000.0]
    """
    return scan(OP["logcumsumexp"], input, dim)


def _sum_squares(input, dim):
    return joined(OP["sum_squares"], input, dim)


def _sum_square_deviations(input, dim):
    return joined(OP["sum_square_deviations"], input, dim)


def _logsumexp(input, dim):
    return joined(OP["logsumexp"], input, dim)


cdef Tensor joined(int op, object input, object dim):
    """Runs a composite that reduces one axis, which stays with extent 1."""
    cdef Tensor x = one_float(rows[op].name, input)
    cdef int axis = own_axis(rows[op].name, x, dim)
    cdef Dims shape = dims_of(&x.d)
    shape = shape_reduce(OP_NAME[op], shape, axis)
    return call(op, (x,), shape, dtype_id(x.d.dtype), (axis,), numel(x.d))


# ---- sorting ----

cdef tuple with_places(int op, Tensor x, int axis, int64_t extent, tuple attrs):
    """Runs a row that gives elements and their places along `axis`, where `extent` of them are left."""
    cdef Tensor values, places
    cdef Operand ins[1]
    cdef TensorData outs[2]
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape = dims_of(&x.d)
    cdef Node node
    cdef int n_attr = attributes(attrs, attr)
    shape.d[axis] = extent
    set_shape(&outs[0], &shape, dtype_id(x.d.dtype))
    set_shape(&outs[1], &shape, I64)
    operand(&ins[0], x, 0)
    run(op, ins, 1, outs, 2, attr, n_attr, numel(x.d))
    values, places = wrap(&outs[0]), wrap(&outs[1])
    if grad_enabled() and wants_grad(x):
        node = row_node(op, (x,), attrs)
        attach(values, node)
        save_one(&node.saved[2], places, True)
    return values, places


cdef int sortable(str op, Tensor x, int axis) except -1:
    """A place shares a word with a key."""
    if x.d.rank > 0 and x.d.shape[axis] >= 2 ** 32 - 1:
        raise ShapeError(f"{op}: axis {axis} of the {describe(x)} is too long")
    return 0


cdef running(str op, object input, object dim):
    """The extremum up to each element along `dim`, and its place."""
    cdef Tensor x = need_tensor(input, op)
    cdef int axis = axis_of(op, dim, x.d.rank)
    if x.d.rank == 0:
        return Extremes(x.clone(), zeros((), dtype=int64))
    sortable(op, x, axis)
    return Extremes(*with_places(OP[op], x, axis, x.d.shape[axis], (axis,)))


def cummax(input, dim):
    """(values, indices) of the largest element up to each one along `dim`; of equals the last, a NaN is the largest.

    >>> values, indices = neurlang.cummax(neurlang.tensor([1, 3, 2]), 0)
    >>> values.tolist(), indices.tolist()
    ([1, 3, 3], [0, 1, 1])
    """
    return running("cummax", input, dim)


def cummin(input, dim):
    """(values, indices) of the smallest element up to each one along `dim`; of equals the last, a NaN is the smallest.

    >>> values, indices = neurlang.cummin(neurlang.tensor([3, 1, 2]), 0)
    >>> values.tolist(), indices.tolist()
    ([3, 1, 1], [0, 1, 1])
    """
    return running("cummin", input, dim)


def sort(input, dim=-1, descending=False, *, stable=False):
    """(values, indices): the elements in order along `dim`, and where they were.

    Equal elements keep their order, whether `stable` is asked for or not. -0 comes before +0, NaN last; descending,
    the other way round.

    >>> values, indices = neurlang.sort(neurlang.tensor([3, 1, 2]))
    >>> values.tolist(), indices.tolist()
    ([1, 2, 3], [1, 2, 0])
    """
    cdef Tensor x = need_tensor(input, "sort")
    cdef int axis = axis_of("sort", dim, x.d.rank)
    if x.d.rank == 0:
        return Extremes(x.clone(), zeros((), dtype=int64))
    sortable("sort", x, axis)
    return Extremes(*with_places(OP["sort"], x, axis, x.d.shape[axis], (axis, 1 if descending else 0)))


def argsort(input, dim=-1, descending=False, stable=False):
    """Where the elements in order along `dim` were; see `sort`.

    >>> neurlang.argsort(neurlang.tensor([3, 1, 2]), descending=True).tolist()
    [0, 2, 1]
    """
    cdef Tensor x = need_tensor(input, "argsort")
    cdef int axis = axis_of("argsort", dim, x.d.rank)
    if x.d.rank == 0:
        return zeros((), dtype=int64)
    sortable("argsort", x, axis)
    return call(OP["argsort"], (x.detach(),), dims_of(&x.d), I64, (axis, 1 if descending else 0), numel(x.d))


def msort(input):
    """The elements in order along the first axis, without their places: several times as fast as `sort`.

    >>> neurlang.msort(neurlang.tensor([[3, 1], [1, 2]])).tolist()
    [[1, 1], [3, 2]]
    """
    cdef Tensor x = need_tensor(input, "msort")
    if x.d.rank == 0 or (grad_enabled() and wants_grad(x)):
        return sort(x, 0)[0]
    return call(OP["sort_values"], (x,), dims_of(&x.d), dtype_id(x.d.dtype), (0, 0), numel(x.d))


def topk(input, k, dim=-1, largest=True, sorted=True):
    """(values, indices) of the k largest elements along `dim`, the largest first, or of the k smallest.

    Of equal elements the first ones are taken; a NaN is larger than all numbers. The result is in order, whether
    `sorted` is asked for or not. ShapeError where there are fewer than k.

    >>> values, indices = neurlang.topk(neurlang.tensor([1, 5, 3]), 2)
    >>> values.tolist(), indices.tolist()
    ([5, 3], [1, 2])
    """
    cdef Tensor x = need_tensor(input, "topk")
    cdef int axis = axis_of("topk", dim, x.d.rank)
    cdef int64_t count = integer("topk", k)
    if x.d.rank == 0:
        values, indices = topk(with_axis(x), k, 0, largest)
        return Extremes(values.reshape(()) if count else values, indices.reshape(()) if count else indices)
    if not 0 <= count <= x.d.shape[axis]:
        raise ShapeError(f"topk: k = {k} must be from 0 to {x.d.shape[axis]}, the extent of axis {axis} of the {describe(x)}")
    sortable("topk", x, axis)
    return Extremes(*with_places(OP["topk"], x, axis, count, (axis, count, 1 if largest else 0)))


def _kth(input, int dim, k, nan_wins):
    """The element that is number k, from 0, in order along an axis, which stays with extent 1, and its place; where NaNs
    win, the first one if there is any."""
    cdef Tensor x = need_tensor(input, "kthvalue")
    cdef int axis = own_axis("kthvalue", x, dim)
    sortable("kthvalue", x, axis)
    if not 0 <= k < x.d.shape[axis]:
        raise ShapeError(f"kthvalue: there is no element number {k} along axis {axis} of the {describe(x)}")
    return with_places(OP["kth"], x, axis, 1, (axis, k, 1 if nan_wins else 0))


def searchsorted(sorted_sequence, input, *, out_int32=False, right=False, side=None, sorter=None):
    """Where each number of `input` belongs in a sorted sequence, so that it stays sorted: before its equals.

    `right` (or side="right"): after them. The sequence has one axis, or the leading axes of `input`, each row being
    searched for the numbers of its own. int64 (int32 if asked for), of input's shape; input may be a number. With
    `sorter`, int64 of the sequence's shape, the sequence is in no order: it is read in that of these places.

    >>> neurlang.searchsorted(neurlang.tensor([1, 3, 5]), neurlang.tensor([3, 4, 9])).tolist()
    [1, 2, 3]
    """
    cdef Tensor table = need_tensor(sorted_sequence, "searchsorted"), x, out
    if side not in (None, "left", "right") or (side == "left" and right):
        raise ValueError(f"searchsorted: side must be 'left' or 'right' and agree with right={right}, got {side!r}")
    x = input if is_tensor(input) else tensor(input, dtype=table.dtype if isinstance(input, int) else None)
    if table.d.rank == 0 or (table.d.rank > 1 and shape_tuple(&table.d)[:-1] != shape_tuple(&x.d)[:-1]):
        raise ShapeError(f"searchsorted: the sequence must have one axis or the leading axes of the input; got "
                         f"{describe(table)} and {describe(x)}")
    if sorter is not None:
        if not is_tensor(sorter) or sorter.dtype is not int64 or sorter.shape != table.shape:
            raise ShapeError(f"searchsorted: sorter must be an int64 tensor of the sequence's shape, got "
                             f"{describe(sorter) if is_tensor(sorter) else type(sorter).__name__} beside {describe(table)}")
        try:
            table = gather(table.detach(), -1, sorter)
        except IndexError as error:
            raise _said_of("searchsorted", error) from None
    table, x = one_dtype("searchsorted", (table.detach(), x.detach()), OVER_ALL)
    shape = shape_tuple(&x.d)
    if table.d.rank == 1:
        x = view_reshape(x, (-1,) if numel(x.d) else (0,), "reshape")
    out = call(OP["searchsorted"], (table, x), dims_of(&x.d), I64, (1 if right or side == "right" else 0,), numel(x.d))
    out = view_reshape(out, shape, "reshape")
    return out.to(int32) if out_int32 else out


def bucketize(input, boundaries, *, out_int32=False, right=False):
    """Between which of some sorted boundaries each number of `input` lies: how many are below it; see `searchsorted`.

    >>> neurlang.bucketize(neurlang.tensor([0, 3, 9]), neurlang.tensor([1, 3, 5])).tolist()
    [0, 1, 3]
    """
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
