# native.pxi: rows with hand-written kernels (contractions, windows, indices, composites): arguments checked, then `call`.

cdef tuple one_dtype(str op, tuple tensors, int over):
    """The tensors in their promoted dtype."""
    cdef int t = 0
    for x in tensors:
        t = larger(t, dtype_id(need_tensor(x, op).d.dtype))
    if not allowed(over, t):
        raise DTypeError(f"{op} is not defined for {DTYPES[t].name}; operands are "
                         + ", ".join(describe(x) for x in tensors))
    return tuple([cast(<Tensor>x, t) for x in tensors])


cdef tuple same_float(str op, tuple tensors):
    """The tensors, which must share one float dtype."""
    for x in tensors:
        if not is_float(dtype_id(need_tensor(x, op).d.dtype)) or (<Tensor>x).dtype is not (<Tensor>tensors[0]).dtype:
            raise DTypeError(f"{op}: operands must share one float dtype, got "
                             + ", ".join(describe(y) for y in tensors))
    return tensors


cdef tuple pair(object value, str what):
    """(height, width) from one number or two."""
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            value = (value[0], value[0])
        if len(value) != 2:
            raise ShapeError(f"{what} must be a number or a pair, got {value!r}")
        return clip_index(value[0]), clip_index(value[1])
    return (clip_index(value),) * 2


def matmul(input, other):
    """The matrix product of the last two axes; leading axes broadcast, vectors count as a row or a column.

    Each element is the `dot` of a row and a column: the order of its additions is fixed (see ARCHITECTURE.md, section 3).

    >>> neurlang.matmul(neurlang.ones(2, 3), neurlang.ones(3, 4)).shape
    (2, 4)
    """
    cdef Tensor x, y, out
    cdef Dims shape
    if are_matrices(input, other):
        return product(input, other, shape_matmul("matmul", dims_of(&(<Tensor>input).d), dims_of(&(<Tensor>other).d)))
    x, y = one_dtype("matmul", (input, other), OVER_NUMBER)
    if x.d.rank == 0 or y.d.rank == 0:
        raise ShapeError(f"matmul: operands need at least one axis, got {describe(x)} and {describe(y)}")
    if x.d.rank == 1 and y.d.rank == 1:
        return matmul(x.unsqueeze(0), y.unsqueeze(1)).reshape(())
    if x.d.rank == 1:
        return matmul(x.unsqueeze(0), y).squeeze(-2)
    if y.d.rank == 1:
        return matmul(x, y.unsqueeze(1)).squeeze(-1)
    shape = shape_matmul("matmul", dims_of(&x.d), dims_of(&y.d))
    if y.d.rank == 2 and x.d.rank > 2:
        # One wide product: the leading axes of x are more rows of it.
        out = matmul(view_reshape(x, (-1 if numel(x.d) else 0, x.d.shape[x.d.rank - 1]), "reshape"), y)
        return view_reshape(out, dims_tuple(&shape), "reshape")
    batch = dims_tuple(&shape)[:-2]
    x = view_expand(x, batch + shape_tuple(&x.d)[x.d.rank - 2:])
    y = view_expand(y, batch + shape_tuple(&y.d)[y.d.rank - 2:])
    return product(x, y, shape)


cdef inline bint are_matrices(object x, object y):
    """Whether both are matrices of one dtype that can be multiplied as it is."""
    if not is_tensor(x) or not is_tensor(y):
        return False
    return ((<Tensor>x).d.rank == 2 and (<Tensor>y).d.rank == 2 and dtype_id((<Tensor>x).d.dtype) != B8
            and dtype_id((<Tensor>x).d.dtype) == dtype_id((<Tensor>y).d.dtype))


cdef Tensor product(Tensor x, Tensor y, Dims shape):
    """The row itself, on operands of one dtype with equal leading axes."""
    cdef Operand ins[2]
    cdef Tensor out = Tensor.__new__(Tensor)
    set_shape(&out.d, &shape, dtype_id(x.d.dtype))
    ins[0].tensor, ins[1].tensor = &x.d, &y.d
    run(MATMUL_OP, ins, 2, &out.d, 1, NULL, 0, numel(x.d) * y.d.shape[y.d.rank - 1])
    return with_node(MATMUL_OP, out, (x, y), ()) if wants_grad(x) or wants_grad(y) else out


def linear(input, weight, bias=None):
    """input @ weightᵀ + bias.

    Input […, in], weight [out, in], bias [out]; the result is […, out].

    >>> weight, bias = neurlang.tensor([[1.0, 2.0], [3.0, 4.0]]), neurlang.tensor([0.0, 10.0])
    >>> neurlang.linear(neurlang.tensor([1.0, 1.0]), weight, bias).tolist()
    [3.0, 17.0]
    """
    cdef Tensor w = need_tensor(weight, "linear")
    if w.d.rank > 2:
        raise ShapeError(f"linear: the weight must be a matrix, got {describe(w)}")
    out = matmul(input, reversed_axes(w))
    return out if bias is None else map2(ADD_OP, out, bias)


def int_mm(input, mat2):
    """The product of two int8 matrices as int32: exact, where `matmul` wraps around in int8 (torch._int_mm).

    DTypeError for other dtypes, ShapeError for other numbers of axes.

    >>> x = neurlang.full((1, 4), 100, dtype=neurlang.int8)
    >>> neurlang.int_mm(x, x.t())
    tensor([[40000]], dtype=neurlang.int32)
    """
    cdef Tensor x = need_tensor(input, "int_mm"), y = need_tensor(mat2, "int_mm")
    cdef Dims shape
    if dtype_id(x.d.dtype) != I8 or dtype_id(y.d.dtype) != I8:
        raise DTypeError(f"int_mm: operands must be int8, got {describe(x)} and {describe(y)}")
    if x.d.rank != 2 or y.d.rank != 2:
        raise ShapeError(f"int_mm: operands must be matrices, got {describe(x)} and {describe(y)}")
    shape = shape_matmul("int_mm", dims_of(&x.d), dims_of(&y.d))
    return call(OP["int_mm"], (x, y), shape, I32, (), numel(x.d) * y.d.shape[1])


cdef Tensor ranked_matmul(str op, object x, object y, int x_rank, int y_rank):
    """matmul of operands of just these ranks."""
    if need_tensor(x, op).d.rank != x_rank or need_tensor(y, op).d.rank != y_rank:
        raise ShapeError(f"{op}: operands must have {x_rank} and {y_rank} axes, got {describe(x)} and {describe(y)}")
    if x_rank == 3 and (<Tensor>x).d.shape[0] != (<Tensor>y).d.shape[0]:
        raise ShapeError(f"{op}: {describe(x)} and {describe(y)} are not batches of one size")
    return matmul(x, y)


def mm(input, mat2):
    """The product of two matrices.

    ShapeError for other numbers of axes.

    >>> neurlang.mm(neurlang.tensor([[1, 2], [3, 4]]), neurlang.tensor([[1, 0], [0, 2]])).tolist()
    [[1, 4], [3, 8]]
    """
    return ranked_matmul("mm", input, mat2, 2, 2)


def bmm(input, mat2):
    """The products of two equally long batches of matrices.

    [B, M, K] and [B, K, N] give [B, M, N]; ShapeError for other shapes.

    >>> neurlang.bmm(neurlang.ones(5, 2, 3), neurlang.ones(5, 3, 4)).shape
    (5, 2, 4)
    """
    return ranked_matmul("bmm", input, mat2, 3, 3)


def mv(input, vec):
    """The product of a matrix and a vector.

    ShapeError for other numbers of axes.

    >>> neurlang.mv(neurlang.tensor([[1, 2], [3, 4]]), neurlang.tensor([1, 10])).tolist()
    [21, 43]
    """
    return ranked_matmul("mv", input, vec, 2, 1)


def dot(input, tensor):
    """The sum of the products of two vectors' elements.

    ShapeError for other numbers of axes.

    >>> neurlang.dot(neurlang.tensor([1, 2]), neurlang.tensor([3, 4])).item()
    11
    """
    return ranked_matmul("dot", input, tensor, 1, 1)


cdef tuple conv_attrs(object stride, object padding, object dilation, object groups):
    return pair(stride, "stride") + pair(padding, "padding") + pair(dilation, "dilation") + (clip_index(groups),)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """2-D cross-correlation of input [N, C, H, W] with weight [O, C/groups, kh, kw]; `padding="same"` or "valid" too.

    The result is [N, O, H', W'] with H' = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1; each element is
    a `dot` over the window (see ARCHITECTURE.md, section 3). A single image [C, H, W] gives [O, H', W']. ShapeError
    where channels, groups and bias do not fit, DTypeError where the operands do not share one float dtype.

    >>> neurlang.conv2d(neurlang.ones(1, 1, 3, 3), neurlang.ones(1, 1, 2, 2), stride=1, padding=1)[0, 0].tolist()
    [[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0], [2.0, 4.0, 4.0, 2.0], [1.0, 2.0, 2.0, 1.0]]
    """
    cdef Tensor x, w, out
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    x, w = same_float("conv2d", (input, weight))
    if isinstance(padding, str):
        padding = named_padding(padding, w, pair(stride, "stride"), pair(dilation, "dilation"))
    if x.d.rank == 3:
        return conv2d(x.unsqueeze(0), w, bias, stride, padding, dilation, groups).squeeze(0)
    attrs = conv_attrs(stride, padding, dilation, groups)
    attributes(attrs, attr)
    shape = shape_conv2d("conv2d", dims_of(&x.d), dims_of(&w.d), attr)
    out = call(OP["conv2d"], (x, w), shape, dtype_id(x.d.dtype), attrs, MUCH_WORK)
    return out if bias is None else map2(ADD_OP, out, channel_bias("conv2d", bias, w.d.shape[0]))


cdef tuple named_padding(str padding, Tensor w, tuple stride, tuple dilation):
    if padding == "valid":
        return 0, 0
    if padding != "same" or stride != (1, 1):
        raise ShapeError(f"conv2d: padding={padding!r} with stride {stride}; 'same' needs stride 1, else give numbers")
    spans = [dilation[i] * (w.d.shape[2 + i] - 1) for i in range(2)]
    if spans[0] % 2 or spans[1] % 2:
        raise ShapeError("conv2d: padding='same' needs odd kernel spans; pad the input instead")
    return spans[0] // 2, spans[1] // 2


cdef Tensor channel_bias(str op, object bias, int64_t channels):
    cdef Tensor b = need_tensor(bias, op)
    if b.d.rank != 1 or b.d.shape[0] != channels:
        raise ShapeError(f"{op}: the bias must have shape ({channels},), got {describe(b)}")
    return view_reshape(b, (channels, 1, 1), "reshape")


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The gradient of `conv2d` with respect to its input, as a layer: weight is [C, O/groups, kh, kw].

    The result's height is (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1. ShapeError where
    channels do not fit or output_padding is not smaller than stride or dilation.

    >>> neurlang.conv_transpose2d(neurlang.ones(1, 1, 2, 2), neurlang.ones(1, 1, 2, 2))[0, 0].tolist()
    [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    cdef Tensor x, w, out
    x, w = same_float("conv_transpose2d", (input, weight))
    if x.d.rank == 3:
        return conv_transpose2d(x.unsqueeze(0), w, bias, stride, padding, output_padding, groups, dilation).squeeze(0)
    if x.d.rank != 4 or w.d.rank != 4 or x.d.shape[1] != w.d.shape[0]:
        raise ShapeError(f"conv_transpose2d: {describe(x)} and weight {describe(w)} do not fit; "
                         "expected [N, C, H, W] and [C, O/groups, kh, kw]")
    s, p, d, extra = (pair(stride, "stride"), pair(padding, "padding"), pair(dilation, "dilation"),
                      pair(output_padding, "output_padding"))
    for i in range(2):
        if not 0 <= extra[i] < py.max(s[i], d[i]):
            raise ShapeError(f"conv_transpose2d: output_padding {extra} must be smaller than stride {s} or dilation {d}")
    size = [(x.d.shape[2 + i] - 1) * s[i] - 2 * p[i] + d[i] * (w.d.shape[2 + i] - 1) + extra[i] + 1 for i in range(2)]
    out = _conv2d_input(x, w, *conv_attrs(stride, padding, dilation, groups), size[0], size[1])
    return out if bias is None else map2(ADD_OP, out, channel_bias("conv_transpose2d", bias, out.d.shape[1]))


# ---- rows by their own names, attributes flat: what gradient rules call ----

def _conv2d(x, w, sh, sw, ph, pw, dh, dw, groups):
    return conv2d(x, w, None, (sh, sw), (ph, pw), (dh, dw), groups)


def _conv2d_input(g, w, *attrs):
    """The gradient of `conv2d` with respect to its input; attrs end in the input's height and width."""
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    same_float("conv2d_input", (g, w))
    attributes(attrs, attr)
    shape = shape_conv2d_input("conv2d_input", dims_of(&(<Tensor>g).d), dims_of(&(<Tensor>w).d), attr)
    return call(OP["conv2d_input"], (g, w), shape, dtype_id((<Tensor>g).d.dtype), attrs, MUCH_WORK)


def _conv2d_weight(x, g, *attrs):
    """The gradient of `conv2d` with respect to its weight; attrs end in the kernel's height and width."""
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    same_float("conv2d_weight", (x, g))
    attributes(attrs, attr)
    shape = shape_conv2d_weight("conv2d_weight", dims_of(&(<Tensor>x).d), dims_of(&(<Tensor>g).d), attr)
    return call(OP["conv2d_weight"], (x, g), shape, dtype_id((<Tensor>x).d.dtype), attrs, MUCH_WORK)


def _max_pool2d_grad(g, index, height, width):
    return plane_gradient("max_pool2d_grad", (g, index), (), height, width)


def _avg_pool2d(x, kh, kw, sh, sw, ph, pw, ceil_mode, count_include_pad, divisor):
    return avg_pool2d(x, (kh, kw), (sh, sw), (ph, pw), ceil_mode, count_include_pad, divisor or None)


def _avg_pool2d_grad(g, *attrs):
    return plane_gradient("avg_pool2d_grad", (g,), attrs[:-2], attrs[-2], attrs[-1])


def _adaptive_avg_pool2d(input, height, width):
    cdef Dims shape
    cdef Tensor x = as_images("adaptive_avg_pool2d", input)
    size = adaptive_size("adaptive_avg_pool2d", x, height, width, &shape)
    return call(OP["adaptive_avg_pool2d"], (x,), shape, dtype_id(x.d.dtype), size, numel(x.d))


def _adaptive_max_pool2d(input, height, width):
    cdef Dims shape
    cdef Tensor x = as_images("adaptive_max_pool2d", input)
    size = adaptive_size("adaptive_max_pool2d", x, height, width, &shape)
    if x.d.shape[2] * x.d.shape[3] > 0x7fffffff:
        raise ShapeError(f"adaptive_max_pool2d: planes of more than 2^31 elements are not supported, got {describe(x)}")
    return call_several(OP["adaptive_max_pool2d"], (x,), (dims_tuple(&shape),) * 2, dtype_id(x.d.dtype), size, numel(x.d))


cdef tuple adaptive_size(str op, Tensor x, object height, object width, Dims* shape):
    """The two sizes as numbers, and the result's shape."""
    cdef int64_t attr[MAX_ATTRS]
    size = integer(op, height), integer(op, width)
    attributes(size, attr)
    shape[0] = shape_adaptive_pool2d(PyUnicode_AsUTF8(op), dims_of(&x.d), attr)
    return size


def _adaptive_avg_pool2d_grad(g, height, width):
    return plane_gradient("adaptive_avg_pool2d_grad", (g,), (), height, width)


cdef Tensor plane_gradient(str name, tuple operands, tuple attrs, object height, object width):
    """Runs the row `name`, the gradient of a pooling, back to planes of height × width."""
    cdef Tensor g = operands[0]
    shape = dims_from(shape_tuple(&g.d)[:2] + (height, width), name)
    return call(OP[name], operands, shape, dtype_id(g.d.dtype), attrs + (height, width), numel(g.d))


def _gather(x, index, axis):
    return gather(x, axis, index)


def _scatter_add(x, index, src, axis):
    scatter_add_into(x, axis, index, src)
    return x


def _index_select(x, index, axis):
    return index_select(x, axis, index)


def _index_add(x, index, src, axis):
    index_add_into(x, axis, index, src)
    return x


def _index_get(x, *rest):
    tensors, attrs = split_indices(rest)
    return index_get(x, tensors, list(attrs[1:1 + attrs[0]]), attrs[1 + attrs[0]])


def _index_put(x, value, *rest):
    tensors, attrs = split_indices(rest)
    return index_put_(x, tensors, list(attrs[1:1 + attrs[0]]), attrs[1 + attrs[0]], value, attrs[2 + attrs[0]])


cdef tuple split_indices(tuple rest):
    """Index tensors, and the attributes (k, axes …, position, …) behind them."""
    n = py.sum([is_tensor(x) for x in rest])
    return list(rest[:n]), rest[n:]


# ---- pooling ----

cdef Tensor as_images(str op, object input):
    cdef Tensor x = need_tensor(input, op)
    same_float(op, (x,))
    if x.d.rank != 4:
        raise ShapeError(f"{op}: expected [N, C, H, W] or [C, H, W], got {describe(x)}")
    return x


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, bint ceil_mode=False, bint return_indices=False):
    """The maximum of each window; with `return_indices` also its flat place in the H×W plane.

    Input [N, C, H, W] or [C, H, W]; `stride` left out is the kernel's size; padding counts as -∞. The first of equals
    wins, a NaN beats every number.

    >>> x = neurlang.arange(16.0).reshape(1, 1, 4, 4)
    >>> neurlang.max_pool2d(x, 2)[0, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    >>> neurlang.max_pool2d(x, 2, return_indices=True)[1][0, 0].tolist()
    [[5, 7], [13, 15]]
    """
    cdef Tensor x
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    if is_tensor(input) and (<Tensor>input).d.rank == 3:
        parts = max_pool2d(input.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode, True)
        return tuple([p.squeeze(0) for p in parts]) if return_indices else parts[0].squeeze(0)
    x = as_images("max_pool2d", input)
    kernel = pair(kernel_size, "kernel_size")
    attrs = kernel + (kernel if stride is None else pair(stride, "stride")) + pair(padding, "padding") + pair(
        dilation, "dilation") + (<int64_t>ceil_mode,)
    attributes(attrs, attr)
    shape = shape_pool2d("max_pool2d", dims_of(&x.d), attr)
    if not (return_indices or (grad_enabled() and wants_grad(x))):
        return call(OP["max_pool2d_values"], (x,), shape, dtype_id(x.d.dtype), attrs, numel(x.d))
    values, indices = call_several(OP["max_pool2d"], (x,), (dims_tuple(&shape),) * 2, dtype_id(x.d.dtype), attrs, numel(x.d))
    return (values, indices) if return_indices else values


def avg_pool2d(input, kernel_size, stride=None, padding=0, bint ceil_mode=False, bint count_include_pad=True,
               divisor_override=None):
    """The mean of each window.

    Input [N, C, H, W] or [C, H, W]; `stride` left out is the kernel's size. Padding counts as zeros, which
    `count_include_pad=False` leaves out of the divisor; `divisor_override` replaces it.

    >>> neurlang.avg_pool2d(neurlang.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    cdef Tensor x
    cdef int64_t attr[MAX_ATTRS]
    if is_tensor(input) and (<Tensor>input).d.rank == 3:
        return avg_pool2d(input.unsqueeze(0), kernel_size, stride, padding, ceil_mode, count_include_pad,
                          divisor_override).squeeze(0)
    x = as_images("avg_pool2d", input)
    kernel = pair(kernel_size, "kernel_size")
    if divisor_override is not None and divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    attrs = kernel + (kernel if stride is None else pair(stride, "stride")) + pair(padding, "padding")
    attributes(attrs + (1, 1, <int64_t>ceil_mode), attr)
    shape = shape_pool2d("avg_pool2d", dims_of(&x.d), attr)
    attrs += (<int64_t>ceil_mode, <int64_t>count_include_pad, clip_index(divisor_override or 0))
    return call(OP["avg_pool2d"], (x,), shape, dtype_id(x.d.dtype), attrs, numel(x.d))


# ---- gather and scatter ----

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


cdef int index_add_into(Tensor x, object dim, object index, object source) except -1:
    cdef Tensor i, s = with_axis(need_tensor(source, "index_add_"))
    x, axis, i = indexed("index_add_", x, dim, index)
    shape_index_add("index_add_", dims_of(&x.d), dims_of(&i.d), dims_of(&s.d), axis)
    if s.dtype is not x.dtype:
        raise DTypeError(f"index_add_: self {describe(x)} and source {describe(s)} must share one dtype")
    return call_into(OP["index_add"], x, (i, s), (axis,))


def index_add(input, dim, index, source):
    """A copy of input with source's slices added to the slices that a 1-D index names, in ascending order.

    An index out of range raises IndexError.

    >>> x, rows = neurlang.zeros(2, 2), neurlang.ones(3, 2)
    >>> neurlang.index_add(x, 0, neurlang.tensor([1, 1, 0]), rows).tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """
    out = need_tensor(input, "index_add").clone()
    index_add_into(out, dim, index, source)
    return out


# ---- composites with native kernels ----

cdef Tensor along(str op, object x, object dim):
    cdef Tensor t = one_float(op, x)
    cdef int axis
    if t.d.rank == 0:
        return view_reshape(along(op, with_axis(t), dim), (), "reshape")
    axis = axis_of(op, dim, t.d.rank)
    return call(OP[op], (t,), dims_of(&t.d), dtype_id(t.d.dtype), (axis,), numel(t.d))


cdef Tensor one_float(str op, object x):
    cdef Tensor t = need_tensor(x, op)
    return cast(t, default_float) if not is_float(dtype_id(t.d.dtype)) else t


def softmax(input, dim):
    """exp(input - max) / sum(exp(input - max)) along `dim`; integers become the default float dtype.

    >>> neurlang.softmax(neurlang.zeros(4), 0).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return along("softmax", input, dim)


def log_softmax(input, dim):
    """(input - max) - log(sum(exp(input - max))) along `dim`; integers become the default float dtype.

    >>> neurlang.log_softmax(neurlang.tensor([0.0, -200.0]), 0).tolist()
    [0.0, -200.0]
    """
    return along("log_softmax", input, dim)


cdef Tensor gradient_along(str op, object grad, object output, object dim):
    """A gradient along one axis from a result of the same shape."""
    cdef Tensor g, y
    g, y = same_float(op, (grad, output))
    if not same_shape(&g.d, &y.d):
        raise ShapeError(f"{op}: {describe(g)} is no gradient of a {describe(y)}")
    return call(OP[op], (g, y), dims_of(&y.d), dtype_id(y.d.dtype), (own_axis(op, y, dim),), numel(y.d))


def _softmax_grad(grad, output, dim):
    return gradient_along("softmax_grad", grad, output, dim)


def _log_softmax_grad(grad, output, dim):
    return gradient_along("log_softmax_grad", grad, output, dim)


def _cross_entropy(input, target, axis, ignored):
    """The losses, the largest inputs and log Σ exp(input - max), all of target's shape: input's but for 1 class."""
    cdef Tensor x = one_float("cross_entropy", input), t = cast(need_tensor(target, "cross_entropy"), I64)
    shape = need_classes("cross_entropy", x, axis, (t,))
    return call_several(OP["cross_entropy"], (x, t), (shape,) * 3, dtype_id(x.d.dtype), (axis, ignored), numel(x.d))


def _cross_entropy_grad(grad, input, target, largest, log_sum, axis, ignored):
    cdef Tensor x = input
    same_float("cross_entropy_grad", (grad, x, largest, log_sum))
    need_classes("cross_entropy_grad", x, axis, (grad, target, largest, log_sum))
    return call(OP["cross_entropy_grad"], (grad, x, target, largest, log_sum), dims_of(&x.d), dtype_id(x.d.dtype),
                (axis, ignored), numel(x.d))


cdef tuple need_classes(str op, Tensor x, int axis, tuple others):
    """The shape of x but for one class along the axis, which the others must have."""
    cdef Tensor y
    shape = shape_tuple(&x.d)
    one = shape[:axis] + (1,) + shape[axis + 1:]
    for y in others:
        if shape_tuple(&y.d) != one:
            raise ShapeError(f"{op}: expected shape {list(one)} beside {describe(x)}, got {describe(y)}")
    return one


cdef tuple as_rows(str op, object input, object normalized_shape):
    """The input as a matrix whose rows are its last axes, those of `normalized_shape`; and that shape as a tuple."""
    cdef Tensor x = one_float(op, input)
    cdef int64_t n = 1
    normalized_shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    shape = shape_tuple(&x.d)
    if not normalized_shape or shape[len(shape) - len(normalized_shape):] != normalized_shape:
        raise ShapeError(f"{op}: the last axes of the {describe(x)} must be {normalized_shape}")
    for s in normalized_shape:
        n *= s
    return view_reshape(x, (numel(x.d) // n if n else 0, n), "reshape"), normalized_shape


cdef Tensor affine(str op, str what, object p, tuple shape, Tensor rows_of, double missing):
    """A weight or bias as a vector, of `missing` where there is none."""
    cdef Tensor t
    if p is None:
        return full((rows_of.d.shape[1],), missing, dtype=DTYPES[dtype_id(rows_of.d.dtype)])
    t = need_tensor(p, op)
    if shape_tuple(&t.d) != shape:
        raise ShapeError(f"{op}: {what} must have shape {shape}, got {describe(t)}")
    return view_reshape(t, (rows_of.d.shape[1],), "reshape")


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last len(normalized_shape) axes.

    Mean and variance (divided by n) are of those axes; weight and bias have shape `normalized_shape`, else ShapeError.
    Ba, Kiros & Hinton 2016.

    >>> neurlang.layer_norm(neurlang.tensor([[1.0, 3.0], [8.0, 4.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """
    cdef Tensor x, w, b, out
    x, shape = as_rows("layer_norm", input, normalized_shape)
    w, b = affine("layer_norm", "weight", weight, shape, x, 1), affine("layer_norm", "bias", bias, shape, x, 0)
    x, w, b = same_float("layer_norm", (x, w, b))
    bits = <int64_t>scalar_bits(float(eps), F64)
    out = call(OP["layer_norm"], (x, w, b), dims_of(&x.d), dtype_id(x.d.dtype), (bits,), numel(x.d))
    return view_reshape(out, shape_tuple(&(<Tensor>input).d), "reshape")


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """x / sqrt(mean(x²) + eps) * weight over the last len(normalized_shape) axes.

    The weight has shape `normalized_shape`, else ShapeError; eps is the dtype's rounding step unless given.
    Zhang & Sennrich 2019.

    >>> neurlang.rms_norm(neurlang.tensor([[3.0, 4.0, 0.0, 0.0]]), 4, eps=0.0).tolist()
    [[1.2000000476837158, 1.600000023841858, 0.0, 0.0]]
    """
    cdef Tensor x, w, out
    x, shape = as_rows("rms_norm", input, normalized_shape)
    x, w = same_float("rms_norm", (x, affine("rms_norm", "weight", weight, shape, x, 1)))
    if eps is None:
        eps = 2.0 ** -52 if dtype_id(x.d.dtype) == F64 else 2.0 ** -23
    bits = <int64_t>scalar_bits(float(eps), F64)
    out = call(OP["rms_norm"], (x, w), dims_of(&x.d), dtype_id(x.d.dtype), (bits,), numel(x.d))
    return view_reshape(out, shape_tuple(&(<Tensor>input).d), "reshape")


def _layer_norm_grad(grad, input, weight, eps_bits):
    return norm_gradients("layer_norm_grad", (grad, input, weight), 2, eps_bits)


def _rms_norm_grad(grad, input, weight, eps_bits):
    return norm_gradients("rms_norm_grad", (grad, input, weight), 1, eps_bits)


cdef tuple norm_gradients(str op, tuple operands, int vectors, object eps_bits):
    """The gradients of a norm over the rows of a matrix: by the matrix, and by vectors as matrices of one row."""
    check_letters(op, operands, (b"MN", b"MN", b"N"))
    cdef Tensor x = operands[1]
    cdef tuple shapes = (shape_tuple(&x.d),) + ((1, x.d.shape[1]),) * vectors
    return call_several(OP[op], operands, shapes, dtype_id(x.d.dtype), (eps_bits,), numel(x.d))


def _channel_affine(input, mean, scale, bias):
    check_letters("batch_norm", (input, mean, scale, bias), (b"NCS", b"CO", b"CO", b"CO"))
    cdef Tensor x = input
    return call(OP["channel_affine"], (x, mean, scale, bias), dims_of(&x.d), dtype_id(x.d.dtype), (), numel(x.d))


def _channel_norm(input, weight, bias, axis, eps_bits):
    """Rows of [N, G, D, S] normalised over S and N (axis 0) or D (axis 2), and the means and variances."""
    check_letters("channel_norm", (input, weight, bias), (b"NGDS", b"GDO", b"GDO"))
    cdef Tensor x = input
    norm_axis("channel_norm", axis)
    shape = shape_tuple(&x.d)
    statistics = (1,) + shape[1:3] + (1,) if axis == 0 else shape[:2] + (1, 1)
    return call_several(OP["channel_norm"], (x, weight, bias), (shape, statistics, statistics), dtype_id(x.d.dtype),
                        (axis, eps_bits), numel(x.d))


cdef int norm_axis(str op, object axis) except -1:
    if axis not in (0, 2):
        raise ShapeError(f"{op}: sums run over axis 0 or 2 besides the last one, got {axis}")
    return 0


def _channel_norm_grad(grad, input, weight, mean, var, axis, eps_bits):
    check_letters("channel_norm_grad", (grad, input, weight), (b"NGDS", b"NGDS", b"GDO"))
    cdef Tensor x = input
    norm_axis("channel_norm_grad", axis)
    shape = shape_tuple(&x.d)
    vector = (1,) + shape[1:3] + (1,)
    return call_several(OP["channel_norm_grad"], (grad, x, weight, mean, var), (shape, vector, vector),
                        dtype_id(x.d.dtype), (axis, eps_bits), numel(x.d))


# ---- attention: query [N, H, G, L, d], key [N, H, S, d], value [N, H, S, e], mask [N, H, G, L, S] or a number;
# draw: the seed and the number of the draw that dropout takes, or a number ----

cdef int check_letters(str op, tuple operands, tuple shapes) except -1:
    """Raises unless the tensors share a float dtype and equal letters of their shapes stand for equal sizes."""
    cdef int64_t size[128]
    cdef Tensor x
    cdef int d, rank
    cdef const char* letters
    same_float(op, tuple([y for y in operands if is_tensor(y)]))
    for d in range(128):
        size[d] = -1
    for i in range(len(operands)):
        if not is_tensor(operands[i]):
            continue
        x, rank, letters = operands[i], len(shapes[i]), shapes[i]
        for d in range(rank):
            if x.d.rank != rank or size[<int>letters[d]] not in (-1, x.d.shape[d]):
                raise ShapeError(f"{op}: shapes do not fit: " + ", ".join([describe(y) for y in operands if is_tensor(y)]))
            size[<int>letters[d]] = x.d.shape[d]
    return 0


cdef int check_draw(str op, object draw) except -1:
    if is_tensor(draw) and (dtype_id((<Tensor>draw).d.dtype) != I64 or shape_tuple(&(<Tensor>draw).d) != (2,)):
        raise ShapeError(f"{op}: the draw must be two int64 numbers, got {describe(draw)}")
    return 0


def _attention(query, key, value, mask, draw, causal, scale_bits, dropout_bits):
    operands = (query, key, value, mask, draw)
    check_letters("attention", operands[:4], (b"NHGLd", b"NHSd", b"NHSe", b"NHGLS"))
    check_draw("attention", draw)
    cdef tuple shape = query.shape[:4]
    return call_several(OP["attention"], operands, (shape + (value.shape[3],), shape), dtype_id((<Tensor>query).d.dtype),
                        (causal, scale_bits, dropout_bits), MUCH_WORK)[0]


def _attention_grad(grad, query, key, value, mask, draw, out, logsumexp, causal, scale_bits, dropout_bits):
    operands = (grad, query, key, value, mask, draw, out, logsumexp)
    check_letters("attention_grad", operands[:5] + operands[6:],
                  (b"NHGLe", b"NHGLd", b"NHSd", b"NHSe", b"NHGLS", b"NHGLe", b"NHGL"))
    check_draw("attention_grad", draw)
    return call_several(OP["attention_grad"], operands, (query.shape, key.shape, value.shape),
                        dtype_id((<Tensor>query).d.dtype), (causal, scale_bits, dropout_bits), MUCH_WORK)
