# functions.pxi: functions with PyTorch's special arguments and overloads, and those that are methods too.

# ---- elementwise functions with PyTorch's special arguments ----

def div(input, other, *, rounding_mode=None):
    """input / other; integers give floats. rounding_mode "floor" or "trunc" rounds the quotient.

    >>> neurlang.div(neurlang.tensor([7, -7]), 2, rounding_mode="floor").tolist()
    [3, -4]
    """
    if rounding_mode is None:
        return map2(OP["div"], input, other)
    if rounding_mode not in ("floor", "trunc"):
        raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}")
    return map2(OP["floor_divide"] if rounding_mode == "floor" else OP["div_trunc"], input, other)


divide = true_divide = div


def tensor_pow(input, exponent):
    """input to the power exponent; the exponents 1, 2, 0.5 and -1 are the exact input, input*input, sqrt and reciprocal."""
    if is_tensor(input) and is_scalar(exponent) and (isinstance(exponent, int) or dtype_id((<Tensor>input).d.dtype) >= F32):
        if exponent == 2:
            return map1(OP["square"], input)
        if exponent == 1:
            return map1(OP["copy"], input)
        if dtype_id((<Tensor>input).d.dtype) >= F32:
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
    """input where the condition holds, else other; with the condition alone, the coordinates where it holds."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return map3(OP["where"], condition, input, other)


def tensor_round(input, *, decimals=0):
    """The nearest integer (or multiple of 10^-decimals), ties to even."""
    if decimals == 0:
        return map1(OP["round"], input)
    scale = 10.0 ** decimals
    return map1(OP["round"], input * scale) / scale


def nan_to_num(input, nan=0.0, posinf=None, neginf=None):
    """input with NaN and the infinities replaced (by default 0 and the largest finite numbers)."""
    cdef dtype kind = need_tensor(input, "nan_to_num").dtype
    if not kind.is_floating_point:
        return clone(input)
    limit = float(np.finfo(kind.numpy).max)
    return mapn(OP["nan_to_num"], (input, nan, limit if posinf is None else posinf, -limit if neginf is None else neginf))


# ---- maxima and minima with PyTorch's overloads ----

cdef object extremum(str reduce_row, str arg_row, str map_row, object x, object dim, bint keepdim):
    if dim is None:
        return reduce1(OP[reduce_row], x, None, False)
    if is_tensor(dim):
        return map2(OP[map_row], x, dim)
    # The values are gathered so that, as in PyTorch, the gradient goes to the element that was chosen, ties or not.
    indices = arg_extremum(arg_row, x, dim, True)
    values = gather(x, dim, indices)
    return Extremes(values, indices) if keepdim else Extremes(values.squeeze(dim), indices.squeeze(dim))


cdef Tensor arg_extremum(str row, object x, object dim, bint keepdim):
    cdef Tensor t = need_tensor(x, row).detach(), index
    if dim is None:
        index = reduce1(OP[row], view_reshape(t, (-1 if numel(t.d) else 0,), "reshape"), 0, False)
        return view_reshape(index, (1,) * t.d.rank, "reshape") if keepdim else index
    return reduce1(OP[row], t, dim, keepdim)


def tensor_max(input, dim=None, bint keepdim=False):
    """The maximum; (values, indices) along one axis; elementwise with a tensor."""
    return extremum("amax", "argmax", "maximum", input, dim, keepdim)


def tensor_min(input, dim=None, bint keepdim=False):
    """The minimum; (values, indices) along one axis; elementwise with a tensor."""
    return extremum("amin", "argmin", "minimum", input, dim, keepdim)


def argmax(input, dim=None, bint keepdim=False):
    """The index of the first maximum; a NaN counts as the maximum."""
    return arg_extremum("argmax", input, dim, keepdim)


def argmin(input, dim=None, bint keepdim=False):
    """The index of the first minimum; a NaN counts as the minimum."""
    return arg_extremum("argmin", input, dim, keepdim)


# ---- functions that are methods too ----

def clone(input):
    """A copy in its own memory; gradients flow through."""
    return need_tensor(input, "clone").clone()


def reshape(input, shape):
    """The same elements in row-major order in another shape."""
    return view_reshape(need_tensor(input, "reshape"), tuple(shape), "reshape")


def permute(input, dims):
    """The axes in another order."""
    return view_permute(need_tensor(input, "permute"), tuple(dims))


permute_dims = permute


def transpose(input, dim0, dim1):
    """Two axes exchanged."""
    return need_tensor(input, "transpose").transpose(dim0, dim1)


def matrix_transpose(x):
    """The last two axes exchanged."""
    return need_tensor(x, "matrix_transpose").mT


def flatten(input, start_dim=0, end_dim=-1):
    """Axes start_dim … end_dim merged into one."""
    return need_tensor(input, "flatten").flatten(start_dim, end_dim)


def squeeze(input, dim=None):
    """Without the axes of extent 1 (all, or those named)."""
    return need_tensor(input, "squeeze").squeeze(dim)


def unsqueeze(input, dim):
    """A new axis of extent 1."""
    return need_tensor(input, "unsqueeze").unsqueeze(dim)


expand_dims = unsqueeze


def broadcast_to(input, shape):
    """input expanded to a shape, a view."""
    return view_expand(need_tensor(input, "broadcast_to"), tuple(shape))


def flip(input, dims):
    """The order along the axes reversed, a view."""
    return need_tensor(input, "flip").flip(dims)


def is_tensor_public(x):
    """Whether x is a Tensor."""
    return is_tensor(x)


def shares_memory(a, b):
    """Whether two tensors look at the same storage."""
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
    if t == F32:
        return (<const float*>at)[0]
    return (<const double*>at)[0]


cdef object bits_to_number(uint64_t bits, int t):
    return read_number(<const char*>&bits, t)


cdef str format_tensor(Tensor x):
    """PyTorch's look: dtype named unless it is a default, requires_grad or the gradient's origin appended."""
    cdef int t = dtype_id(x.d.dtype)
    cdef str extra = ""
    body = np.array2string(to_numpy(x), separator=", ", prefix="tensor(", precision=4, threshold=1000)
    if t not in (default_float, I64, B8):
        extra += f", dtype={DTYPES[t]!r}"
    if numel(x.d) == 0 and x.d.rank != 1:
        extra += f", size={shape_tuple(&x.d)}"
    if x.node is not None:
        extra += f", grad_fn={x.node!r}"
    elif x.leaf_grad:
        extra += ", requires_grad=True"
    return f"tensor({body}{extra})"


def rebuild(array, bint requires_grad):
    """The tensor that `copy` and pickling protocols restore."""
    return tensor(array, requires_grad=requires_grad)


Extremes = namedtuple("Extremes", "values indices")
