# gather.pxi: elements gathered from and scattered to places that tensors name: arguments checked, then `call`.

cdef tuple indexed(str op, object x, object dim, object index):
    """(tensor, axis, int64 index) with dtypes checked and at least one axis each."""
    cdef Tensor t = with_axis(need_tensor(x, op)), i = with_axis(need_tensor(index, op))
    if is_float(dtype_id(i.d.dtype)) or dtype_id(i.d.dtype) == B8:
        raise DTypeError(f"{op}: the index must hold integers, got {describe(i)}")
    return t, axis_of(op, dim, t.d.rank), cast(i, I64)


def gather(input, dim, index):
    """out[i][j][k] = input[index[i][j][k]][j][k] (for dim 0); index has input's number of axes.

    The result has index's shape. IndexError where an index is out of range, DTypeError where it holds no integers.

    >>> neurlang.gather(neurlang.tensor([[1, 2], [3, 4]]), 1, neurlang.tensor([[1], [0]])).tolist()
    [[2], [3]]
    """
    cdef Tensor t, i
    cdef Dims shape
    t, axis, i = indexed("gather", input, dim, index)
    shape = shape_gather("gather", dims_of(&t.d), dims_of(&i.d), axis)
    picked = call(OP["gather"], (t, i), shape, dtype_id(t.d.dtype), (axis,), numel(i.d))
    return picked if (<Tensor>index).d.rank else view_reshape(picked, (), "reshape")


cdef int scatter_add_into(Tensor x, object dim, object index, object src) except -1:
    cdef Tensor i, s = with_axis(need_tensor(src, "scatter_add_"))
    cdef int d
    x, axis, i = indexed("scatter_add_", x, dim, index)
    shape_scatter("scatter_add_", dims_of(&x.d), dims_of(&i.d), dims_of(&s.d), axis)
    if s.dtype is not x.dtype:
        raise DTypeError(f"scatter_add_: self {describe(x)} and src {describe(s)} must share one dtype")
    for d in range(i.d.rank):
        s = cut_axis(s, d, 0, 1, i.d.shape[d]) if s.d.shape[d] != i.d.shape[d] else s
    return call_into(OP["scatter_add"], x, (i, s), (axis,))


def scatter_add(input, dim, index, src):
    """A copy of input with src added at the places that index names along `dim`, in row-major order of the index.

    Index and src have input's number of axes; both tensors share one dtype. An index out of range raises IndexError.

    >>> index, src = neurlang.tensor([0, 2, 0]), neurlang.tensor([1, 2, 4])
    >>> neurlang.scatter_add(neurlang.tensor([0, 0, 0]), 0, index, src).tolist()
    [5, 0, 2]
    """
    out = need_tensor(input, "scatter_add").clone()
    scatter_add_into(out, dim, index, src)
    return out


def index_select(input, dim, index):
    """The slices of input along `dim` named by a 1-D index.

    Negative indices count from the end; one out of range raises IndexError.

    >>> neurlang.index_select(neurlang.tensor([[1, 2, 3], [4, 5, 6]]), 1, neurlang.tensor([2, 0])).tolist()
    [[3, 1], [6, 4]]
    """
    cdef Tensor t, i
    t, axis, i = indexed("index_select", input, dim, index)
    shape = shape_index_select("index_select", dims_of(&t.d), dims_of(&i.d), axis)
    picked = call(OP["index_select"], (t, i), shape, dtype_id(t.d.dtype), (axis,), numel(t.d))
    return picked if (<Tensor>input).d.rank else view_reshape(picked, (), "reshape")


cdef int index_add_into(Tensor x, object dim, object index, object source, object alpha) except -1:
    cdef Tensor i, s = with_axis(need_tensor(source, "index_add_"))
    s = s if alpha == 1 else map2(OP["mul"], s, alpha)
    x, axis, i = indexed("index_add_", x, dim, index)
    shape_index_add("index_add_", dims_of(&x.d), dims_of(&i.d), dims_of(&s.d), axis)
    if s.dtype is not x.dtype:
        raise DTypeError(f"index_add_: self {describe(x)} and source {describe(s)} must share one dtype")
    return call_into(OP["index_add"], x, (i, s), (axis,))


def index_add(input, dim, index, source, *, alpha=1):
    """A copy of input with source's slices, times alpha, added to the slices that a 1-D index names, in ascending order.

    An index out of range raises IndexError.

    >>> x, rows = neurlang.zeros(2, 2), neurlang.ones(3, 2)
    >>> neurlang.index_add(x, 0, neurlang.tensor([1, 1, 0]), rows).tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """
    out = need_tensor(input, "index_add").clone()
    index_add_into(out, dim, index, source, alpha)
    return out


# ---- rows by their own names, attributes flat: what gradient rules call ----

def _gather(x, index, axis):
    return gather(x, axis, index)


def _scatter_add(x, index, src, axis):
    scatter_add_into(x, axis, index, src)
    return x


def _index_select(x, index, axis):
    return index_select(x, axis, index)


def _index_add(x, index, src, axis):
    index_add_into(x, axis, index, src, 1)
    return x


def _index_get(x, *rest):
    tensors, axes, position = split_indices("index_get", need_tensor(x, "index_get"), rest)
    return index_get(x, tensors, axes, position)


def _index_put(x, value, *rest):
    tensors, axes, position = split_indices("index_put", need_tensor(x, "index_put"), rest[:-1])
    return index_put_(x, tensors, axes, position, value, rest[-1])


cdef tuple split_indices(str op, Tensor x, tuple rest):
    """k index tensors of one shape, the axes that they name, and where these land: what `rest` holds, k in between."""
    cdef int k = py.sum([is_tensor(t) for t in rest])
    cdef tuple tensors = rest[:k], axes = rest[k + 1:-1]
    cdef Tensor index
    if k == 0 or rest[k:k + 1] != (k,) or len(axes) != k or list(axes) != sorted(set(axes)):
        raise ShapeError(f"{op}: expected index tensors, how many, an axis for each in ascending order, and a place")
    if axes[0] < 0 or axes[-1] >= x.d.rank or not 0 <= rest[-1] <= x.d.rank - k:
        raise ShapeError(f"{op}: axes {list(axes)} and place {rest[-1]} are not of a {describe(x)}")
    for t in tensors:
        index = need_tensor(t, op)
        if dtype_id(index.d.dtype) != I64 or not same_shape(&index.d, &(<Tensor>tensors[0]).d):
            raise ShapeError(f"{op}: index tensors must be int64 of one shape, got {describe(index)}")
    return tensors, axes, rest[-1]
