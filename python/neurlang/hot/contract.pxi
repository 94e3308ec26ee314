# contract.pxi: products of matrices and convolutions: arguments checked, then `call`.

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


def _same_float(str op, *tensors):
    """`same_float` for the composites of ops/."""
    same_float(op, tensors)


cdef tuple pair(str op, str what, object value):
    """(height, width) from one number or two."""
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            value = (value[0], value[0])
        if len(value) != 2:
            raise ShapeError(f"{op}: {what} must be a number or a pair, got {value!r}")
        return integer(op, value[0]), integer(op, value[1])
    return (integer(op, value),) * 2


# ---- products ----

def matmul(input, other):
    """The matrix product of the last two axes; leading axes broadcast, vectors count as a row or a column.

    Each element is the `dot` of a row and a column: the order of its additions is fixed (see ARCHITECTURE.md, section 3).

    >>> neurlang.matmul(neurlang.ones(2, 3), neurlang.ones(3, 4)).shape
    (2, 4)
    """
    cdef Tensor x, y, out
    cdef Dims shape
    cdef int64_t rows = 1
    cdef int i
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
        for i in range(x.d.rank - 1):
            rows *= x.d.shape[i]
        out = matmul(view_reshape(x, (rows, x.d.shape[x.d.rank - 1]), "reshape"), y)
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


# ---- convolutions ----

cdef extern from "eager/mode.hpp" namespace "nl":
    int largest_tile "nl::conv_tile"()
    int switch_tile "nl::set_conv_tile"(int)


def conv_tile():
    """Results a way of the largest Winograd tile of convolutions that this thread calls."""
    return largest_tile()


def set_conv_tile(int tile):
    """Sets it from now on; returns what it was."""
    return switch_tile(tile)


cdef tuple conv_attrs(str op, object stride, object padding, object dilation, object groups):
    return (pair(op, "stride", stride) + pair(op, "padding", padding) + pair(op, "dilation", dilation)
            + (integer(op, groups), largest_tile()))


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """2-D cross-correlation of input [N, C, H, W] with weight [O, C/groups, kh, kw]; `padding="same"` or "valid" too.

    The result is [N, O, H', W'] with H' = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1; each element is
    a `dot` over the window (see ARCHITECTURE.md, section 3). "same" is for stride 1 and keeps the extents, an odd zero
    lying behind; "valid" is 0. A single image [C, H, W] gives [O, H', W']. ShapeError where channels, groups and bias
    do not fit, DTypeError where the operands do not share one float dtype.

    >>> neurlang.conv2d(neurlang.ones(1, 1, 3, 3), neurlang.ones(1, 1, 2, 2), stride=1, padding=1)[0, 0].tolist()
    [[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0], [2.0, 4.0, 4.0, 2.0], [1.0, 2.0, 2.0, 1.0]]
    """
    cdef Tensor x, w, out
    x, w = same_float("conv2d", (input, weight))
    if x.d.rank == 3:
        return conv2d(x.unsqueeze(0), w, bias, stride, padding, dilation, groups).squeeze(0)
    if isinstance(padding, str):
        x, padding = named_padding(padding, x, w, stride, dilation, groups)
    out = correlation(x, w, conv_attrs("conv2d", stride, padding, dilation, groups))
    return out if bias is None else map2(ADD_OP, out, channel_bias("conv2d", bias, out))


cdef Tensor correlation(Tensor x, Tensor w, tuple attrs):
    """The row itself."""
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    attributes(attrs, attr)
    shape = shape_conv2d("conv2d", dims_of(&x.d), dims_of(&w.d), attr)
    return call(OP["conv2d"], (x, w), shape, dtype_id(x.d.dtype), attrs, MUCH_WORK)


cdef tuple named_padding(str padding, Tensor x, Tensor w, object stride, object dilation, object groups):
    """x and the padding that a name means (see `padded`). What does not fit is said of x as it was given."""
    cdef int64_t attr[MAX_ATTRS]
    strides, dilations = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    convolutions.check_padding(F, "conv2d", padding, strides)
    kernel = shape_tuple(&w.d)[2:] if w.d.rank == 4 else (1, 1)
    enough = tuple(d * k for d, k in zip(dilations, kernel)) if padding == "same" else (0, 0)
    attributes(conv_attrs("conv2d", strides, enough, dilations, groups), attr)
    shape_conv2d("conv2d", dims_of(&x.d), dims_of(&w.d), attr)
    return convolutions.padded(F, "conv2d", x, padding, strides, dilations, kernel)


cdef Tensor channel_bias(str op, object bias, Tensor out):
    cdef Tensor b = need_tensor(bias, op)
    if b.d.rank != 1 or b.d.shape[0] != out.d.shape[1]:
        raise ShapeError(f"{op}: the bias must have shape ({out.d.shape[1]},), got {describe(b)}")
    same_float(op, (out, b))
    return view_reshape(b, (out.d.shape[1], 1, 1), "reshape")


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The gradient of `conv2d` with respect to its input, as a layer: weight is [C, O/groups, kh, kw].

    The result's height is (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1. ShapeError where
    channels do not fit or output_padding is not smaller than stride or dilation.

    >>> neurlang.conv_transpose2d(neurlang.ones(1, 1, 2, 2), neurlang.ones(1, 1, 2, 2))[0, 0].tolist()
    [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    cdef Tensor x, w, out
    cdef str op = "conv_transpose2d"
    x, w = same_float(op, (input, weight))
    if x.d.rank == 3:
        return conv_transpose2d(x.unsqueeze(0), w, bias, stride, padding, output_padding, groups, dilation).squeeze(0)
    if x.d.rank != 4 or w.d.rank != 4 or x.d.shape[1] != w.d.shape[0]:
        raise ShapeError(f"{op}: {describe(x)} and weight {describe(w)} do not fit; "
                         "expected [N, C, H, W] and [C, O/groups, kh, kw]")
    s, p, d = pair(op, "stride", stride), pair(op, "padding", padding), pair(op, "dilation", dilation)
    extra = pair(op, "output_padding", output_padding)
    over = [0, 0]
    for i in range(2):
        if not 0 <= extra[i] < py.max(s[i], d[i]):
            raise ShapeError(f"{op}: output_padding {extra} must be smaller than stride {s} or dilation {d}")
        over[i] = extra[i] // s[i] if s[i] > 0 else 0
    if over != [0, 0]:  # rows and columns of zeros reach as far
        extra = extra[0] - over[0] * s[0], extra[1] - over[1] * s[1]
        x = places.pad(F, x, (0, over[1], 0, over[0]))
    size = [(x.d.shape[2 + i] - 1) * s[i] - 2 * p[i] + d[i] * (w.d.shape[2 + i] - 1) + extra[i] + 1 for i in range(2)]
    if size[0] < 1 or size[1] < 1:
        raise ShapeError(f"{op}: input {describe(x)}, weight {describe(w)}, stride {s}, padding {p} and "
                         f"dilation {d} leave no output")
    out = _conv2d_input(x, w, *conv_attrs(op, stride, padding, dilation, groups), size[0], size[1])
    return out if bias is None else map2(ADD_OP, out, channel_bias(op, bias, out))


# ---- rows by their own names, attributes flat: what gradient rules call ----

def _conv2d(x, w, *attrs):
    cdef int64_t attr[MAX_ATTRS]
    same_float("conv2d", (x, w))
    attributes_of("conv2d", attrs, attr)
    return correlation(x, w, attrs)


def _conv2d_input(g, w, *attrs):
    """The gradient of `conv2d` with respect to its input; attrs end in the input's height and width."""
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    same_float("conv2d_input", (g, w))
    attributes_of("conv2d_input", attrs, attr)
    shape = shape_conv2d_input("conv2d_input", dims_of(&(<Tensor>g).d), dims_of(&(<Tensor>w).d), attr)
    return call(OP["conv2d_input"], (g, w), shape, dtype_id((<Tensor>g).d.dtype), attrs, MUCH_WORK)


def _conv2d_weight(x, g, *attrs):
    """The gradient of `conv2d` with respect to its weight; attrs end in the kernel's height and width."""
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape
    same_float("conv2d_weight", (x, g))
    attributes_of("conv2d_weight", attrs, attr)
    shape = shape_conv2d_weight("conv2d_weight", dims_of(&(<Tensor>x).d), dims_of(&(<Tensor>g).d), attr)
    return call(OP["conv2d_weight"], (x, g), shape, dtype_id((<Tensor>x).d.dtype), attrs, MUCH_WORK)
