# functions.pxi: functions with PyTorch's special arguments and overloads, and those that are methods too.

# ---- elementwise functions with PyTorch's special arguments ----

def div(input, other, *, rounding_mode=None):
    """input / other; integers give floats. rounding_mode "floor" or "trunc" rounds the quotient.

    >>> neurlang.div(neurlang.tensor([7, -7]), 2, rounding_mode="floor").tolist()
    [3, -4]
    """
    return map2(division(rounding_mode), input, other)


divide = true_divide = div


cdef int division(object rounding_mode) except -1:
    """The row that divides so."""
    if rounding_mode is None:
        return OP["div"]
    if rounding_mode not in ("floor", "trunc"):
        raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}")
    return OP["floor_divide"] if rounding_mode == "floor" else OP["div_trunc"]


cdef object scaled(object x, object other, object alpha):
    """`other` times the factor that add and sub take, in the dtype of their result."""
    if not is_tensor(other):
        return as_operand(other) * alpha
    return map2(OP["mul"], cast(<Tensor>other, (<dtype>result_type(x, other)).id), alpha)


def tensor_pow(input, exponent):
    """input to the power exponent; the exponents 1, 2, 0.5 and -1 are the exact input, input*input, sqrt and reciprocal.

    >>> neurlang.pow(neurlang.tensor([2.0, 3.0]), 2).tolist(), neurlang.pow(neurlang.tensor([4.0, 9.0]), 0.5).tolist()
    ([4.0, 9.0], [2.0, 3.0])
    """
    if is_tensor(input) and is_scalar(exponent) and dtype_id((<Tensor>input).d.dtype) != B8 \
            and (isinstance(exponent, int) or is_float(dtype_id((<Tensor>input).d.dtype))):
        if exponent == 2:
            return map1(OP["square"], input)
        if exponent == 1:
            return map1(COPY_OP, input)
        if is_float(dtype_id((<Tensor>input).d.dtype)):
            if exponent == 0.5:
                return map1(OP["sqrt"], input)
            if exponent == -1:
                return map1(OP["reciprocal"], input)
    return map2(OP["pow"], input, exponent)


cdef Tensor pow_into(Tensor x, object exponent):
    if is_scalar(exponent) and exponent == 2:
        return map_into(OP["square"], x, ())
    return map_into(OP["pow"], x, (exponent,))


def where(condition, input=None, other=None):
    """input where the condition holds, else other; with the condition alone, the coordinates where it holds.

    >>> x = neurlang.tensor([1, -2, 3])
    >>> neurlang.where(x > 0, x, 0).tolist(), neurlang.where(x > 0)
    ([1, 0, 3], (tensor([0, 2]),))
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return map3(OP["where"], condition, input, other)


def tensor_round(input, *, decimals=0):
    """The nearest integer (or multiple of 10^-decimals), ties to even.

    >>> neurlang.round(neurlang.tensor([0.5, 1.5, 2.25])).tolist()
    [0.0, 2.0, 2.0]
    """
    if decimals == 0:
        return map1(OP["round"], input)
    scale = 10.0 ** decimals
    return map1(OP["round"], input * scale) / scale


def nan_to_num(input, nan=0.0, posinf=None, neginf=None):
    """input with NaN and the infinities replaced (by default 0 and the largest finite numbers).

    >>> neurlang.nan_to_num(neurlang.tensor([1.0, neurlang.nan, neurlang.inf]), posinf=9.0).tolist()
    [1.0, 0.0, 9.0]
    """
    cdef dtype kind = need_tensor(input, "nan_to_num").dtype
    if not kind.is_floating_point:
        return clone(input)
    limit = float(finfo(kind).max)
    return mapn(OP["nan_to_num"], (input, nan, limit if posinf is None else posinf, -limit if neginf is None else neginf))


# ---- maxima and minima with PyTorch's overloads ----

cdef object extremum(str op, str reduce_row, str arg_row, str map_row, object x, object dim, bint keepdim, object other):
    cdef Tensor t
    if is_tensor(dim) and other is None:
        dim, other = None, dim
    if other is not None:
        if dim is not None or keepdim:
            raise TypeError(f"{op}: another tensor is given, so there is no axis to go along or to keep")
        return map2(OP[map_row], x, need_tensor(other, op))
    t = need_tensor(x, op)
    need_elements(op, t, axes_of(op, dim, t.d.rank))
    if dim is None:
        return reduce1(OP[reduce_row], t, None, keepdim)
    # The values are gathered so that, as in PyTorch, the gradient goes to the element that was chosen, ties or not.
    indices = arg_extremum(op, arg_row, x, dim, True)
    values = gather(x, dim, indices)
    return Extremes(values, indices) if keepdim else Extremes(values.squeeze(dim), indices.squeeze(dim))


cdef Tensor arg_extremum(str op, str row, object x, object dim, bint keepdim):
    """The places of extrema along one axis, or (None) of the extremum of all elements."""
    cdef Tensor t = need_tensor(x, op), index
    if dim is not None:
        return reduce1(OP[row], t, axis_of(op, dim, t.d.rank), keepdim)
    need_elements(op, t, (1 << t.d.rank) - 1)
    index = reduce1(OP[row], view_reshape(t.detach(), (-1,), "reshape"), 0, False)
    return view_reshape(index, (1,) * t.d.rank, "reshape") if keepdim else index


def tensor_max(input, dim=None, bint keepdim=False, *, other=None):
    """The maximum; (values, indices) along one axis; elementwise with a tensor.

    Along one axis the first of equal maxima is chosen and gets the gradient; a NaN counts as the maximum.

    >>> neurlang.max(neurlang.tensor([[1, 5], [7, 3]])).item()
    7
    >>> values, indices = neurlang.max(neurlang.tensor([[1, 5], [7, 3]]), 1)
    >>> values.tolist(), indices.tolist()
    ([5, 7], [1, 0])
    >>> neurlang.max(neurlang.tensor([1, 5]), neurlang.tensor([2, 4])).tolist()
    [2, 5]
    """
    return extremum("max", "amax", "argmax", "maximum", input, dim, keepdim, other)


def tensor_min(input, dim=None, bint keepdim=False, *, other=None):
    """The minimum; (values, indices) along one axis; elementwise with a tensor.

    Along one axis the first of equal minima is chosen and gets the gradient; a NaN counts as the minimum.

    >>> neurlang.min(neurlang.tensor([[1, 5], [7, 3]])).item()
    1
    >>> values, indices = neurlang.min(neurlang.tensor([[1, 5], [7, 3]]), 1)
    >>> values.tolist(), indices.tolist()
    ([1, 3], [0, 1])
    """
    return extremum("min", "amin", "argmin", "minimum", input, dim, keepdim, other)


def argmax(input, dim=None, bint keepdim=False):
    """The index of the first maximum; a NaN counts as the maximum.

    int64; along `dim`, or of the flattened tensor.

    >>> x = neurlang.tensor([[1, 5], [7, 3]])
    >>> neurlang.argmax(x).item(), neurlang.argmax(x, 1).tolist()
    (2, [1, 0])
    """
    return arg_extremum("argmax", "argmax", input, dim, keepdim)


def argmin(input, dim=None, bint keepdim=False):
    """The index of the first minimum; a NaN counts as the minimum.

    int64; along `dim`, or of the flattened tensor.

    >>> x = neurlang.tensor([[1, 5], [7, 3]])
    >>> neurlang.argmin(x).item(), neurlang.argmin(x, 1).tolist()
    (0, [0, 1])
    """
    return arg_extremum("argmin", "argmin", input, dim, keepdim)


# ---- functions that are methods too ----

def clone(input):
    """A copy in its own memory; gradients flow through.

    >>> x = neurlang.zeros(2)
    >>> neurlang.shares_memory(neurlang.clone(x), x)
    False
    """
    return need_tensor(input, "clone").clone()


def reshape(input, shape):
    """The same elements in row-major order in another shape.

    One size may be -1. A view where the strides allow it, else a copy; ShapeError where the numbers of elements differ.

    >>> neurlang.reshape(neurlang.arange(6), (2, -1)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return view_reshape(need_tensor(input, "reshape"), tuple(shape), "reshape")


def permute(input, dims):
    """The axes in another order, a view; ShapeError where one is missing.

    >>> neurlang.permute(neurlang.zeros(2, 3, 4), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return view_permute(need_tensor(input, "permute"), tuple(dims))


permute_dims = permute


def transpose(input, dim0, dim1):
    """Two axes exchanged, a view.

    >>> neurlang.transpose(neurlang.tensor([[1, 2], [3, 4]]), 0, 1).tolist()
    [[1, 3], [2, 4]]
    """
    return need_tensor(input, "transpose").transpose(dim0, dim1)


def matrix_transpose(x):
    """The last two axes exchanged, a view; ShapeError for fewer.

    >>> neurlang.matrix_transpose(neurlang.zeros(2, 3, 4)).shape
    (2, 4, 3)
    """
    return need_tensor(x, "matrix_transpose").mT


def flatten(input, start_dim=0, end_dim=-1):
    """Axes start_dim … end_dim merged into one; a view where the strides allow it.

    >>> neurlang.flatten(neurlang.zeros(2, 3, 4), 1).shape
    (2, 12)
    """
    return need_tensor(input, "flatten").flatten(start_dim, end_dim)


def squeeze(input, dim=None):
    """Without the axes of extent 1 (all, or those named).

    >>> neurlang.squeeze(neurlang.zeros(1, 3, 1)).shape, neurlang.squeeze(neurlang.zeros(1, 3, 1), 0).shape
    ((3,), (3, 1))
    """
    return need_tensor(input, "squeeze").squeeze(dim)


def unsqueeze(input, dim):
    """A new axis of extent 1 at `dim`.

    >>> neurlang.unsqueeze(neurlang.zeros(3), 0).shape, neurlang.unsqueeze(neurlang.zeros(3), -1).shape
    ((1, 3), (3, 1))
    """
    return need_tensor(input, "unsqueeze").unsqueeze(dim)


expand_dims = unsqueeze
swapaxes = swapdims = transpose


def t(input):
    """The transpose of a matrix (a vector is its own), a view.

    >>> neurlang.t(neurlang.zeros(2, 3)).shape
    (3, 2)
    """
    return need_tensor(input, "t").t()


def narrow(input, dim, start, length):
    """`length` elements from `start` along one axis, a view.

    >>> neurlang.narrow(neurlang.arange(5), 0, 1, 3)
    tensor([1, 2, 3])
    """
    return need_tensor(input, "narrow").narrow(dim, start, length)


def select(input, dim, index):
    """One slice along `dim`, without that axis, a view.

    >>> neurlang.select(neurlang.tensor([[1, 2], [3, 4]]), 1, 0)
    tensor([1, 3])
    """
    return need_tensor(input, "select").select(dim, index)


def ravel(input):
    """The elements in row-major order along one axis.

    >>> neurlang.ravel(neurlang.tensor([[1, 2], [3, 4]]))
    tensor([1, 2, 3, 4])
    """
    return need_tensor(input, "ravel").flatten()


def unflatten(input, dim, sizes):
    """One axis split into several; one size may be -1.

    >>> neurlang.unflatten(neurlang.zeros(2, 6), 1, (3, -1)).shape
    (2, 3, 2)
    """
    return need_tensor(input, "unflatten").unflatten(dim, sizes)


def tensor_numel(input):
    """The number of elements.

    >>> neurlang.numel(neurlang.zeros(2, 3))
    6
    """
    return need_tensor(input, "numel").numel()


def is_floating_point(input):
    """Whether the dtype is a float.

    >>> neurlang.is_floating_point(neurlang.arange(3))
    False
    """
    return need_tensor(input, "is_floating_point").is_floating_point()


def broadcast_to(input, shape):
    """input expanded to a shape, a view; ShapeError where it does not broadcast.

    >>> neurlang.broadcast_to(neurlang.tensor([1, 2]), (2, 2)).tolist()
    [[1, 2], [1, 2]]
    """
    return view_expand(need_tensor(input, "broadcast_to"), tuple(shape))


def diagonal(input, offset=0, dim1=0, dim2=1):
    """The elements whose place along `dim2` is that along `dim1` plus `offset`, as the last axis; a view.

    ShapeError where the two are one axis.

    >>> neurlang.diagonal(neurlang.tensor([[1, 2, 3], [4, 5, 6]]), 1).tolist()
    [2, 6]
    """
    return need_tensor(input, "diagonal").diagonal(offset, dim1, dim2)


def flip(input, dims):
    """A copy with the order along the axes reversed; `input[::-1]` is the view.

    >>> neurlang.flip(neurlang.tensor([[1, 2], [3, 4]]), (0,)).tolist()
    [[3, 4], [1, 2]]
    """
    return need_tensor(input, "flip").flip(dims)


def is_tensor_public(x):
    """Whether x is a Tensor.

    >>> neurlang.is_tensor(neurlang.zeros(2)), neurlang.is_tensor([0.0, 0.0])
    (True, False)
    """
    return is_tensor(x)


def shares_memory(a, b):
    """Whether two tensors look at the same storage.

    >>> x = neurlang.zeros(4)
    >>> neurlang.shares_memory(x, x[1:]), neurlang.shares_memory(x, x + 0)
    (True, False)
    """
    return need_tensor(a, "shares_memory").d.storage == need_tensor(b, "shares_memory").d.storage


# ---- numbers and text ----

cdef object read_number(const char* at, int t):
    if t == B8:
        return at[0] != 0
    if t == U8:
        return (<const uint8_t*>at)[0]
    if t == I32:
        return (<const int32_t*>at)[0]
    if t == I64:
        return (<const int64_t*>at)[0]
    if t == I8:
        return (<const int8_t*>at)[0]
    if t == I16:
        return (<const int16_t*>at)[0]
    if t == F16 or t == BF16:
        return dtypes.from_bits((<const uint16_t*>at)[0], DTYPES[t].text)
    if t == F32:
        return (<const float*>at)[0]
    return (<const double*>at)[0]


cdef object bits_to_number(uint64_t bits, int t):
    return read_number(<const char*>&bits, t)


cdef object values_of(Tensor x):
    """The tensor's own memory as an array; a copy in float32 where NumPy does not have the dtype."""
    if dtype_id(x.d.dtype) != BF16:
        return to_numpy(x)
    bits = numpy_over(x, np.dtype(np.uint16)).astype(np.uint32)
    return np.left_shift(bits, 16, out=bits).view(np.float32)


cdef str format_tensor(Tensor x):
    """PyTorch's look: dtype named unless it is a default, requires_grad or the gradient's origin appended."""
    cdef int t = dtype_id(x.d.dtype)
    cdef str extra = ""
    body = np.array2string(values_of(x), separator=", ", prefix="tensor(", precision=4, threshold=1000)
    if t not in (default_float, I64, B8):
        extra += f", dtype={DTYPES[t]!r}"
    if numel(x.d) == 0 and x.d.rank != 1:
        extra += f", size={shape_tuple(&x.d)}"
    if x.node is not None:
        extra += f", grad_fn={x.node!r}"
    elif x.leaf_grad:
        extra += ", requires_grad=True"
    return f"tensor({body}{extra})"


cdef Tensor copied(Tensor x, Tensor memory):
    """A leaf of x's class over other memory: what `copy` means by a copy."""
    cdef Tensor result = memory if type(x) is Tensor else type(x)._wrap(memory)
    result.leaf_grad = wants_grad(x)
    return result


def rebuild(array, bint requires_grad, dtype=None):
    """The tensor that `copy` and pickling protocols restore."""
    return tensor(array, dtype=dtype, requires_grad=requires_grad)


Extremes = namedtuple("Extremes", "values indices")
