# functions.pxi: functions with PyTorch's special arguments and overloads, and those that are methods too.

# ---- elementwise functions with PyTorch's special arguments ----

def div(x, y, *, rounding_mode=None):
    """x / y; integers give floats. rounding_mode "floor" or "trunc" rounds the quotient.

    >>> neurlang.div(neurlang.tensor([7, -7]), 2, rounding_mode="floor").tolist()
    [3, -4]
    """
    if rounding_mode is None:
        return map2(OP["div"], x, y)
    if rounding_mode not in ("floor", "trunc"):
        raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}")
    return map2(OP["floor_divide"] if rounding_mode == "floor" else OP["div_trunc"], x, y)


divide = true_divide = div


def tensor_pow(x, y):
    """x to the power y; the exponents 1, 2, 0.5 and -1 are the exact x, x*x, sqrt and reciprocal."""
    if is_tensor(x) and is_scalar(y) and (isinstance(y, int) or dtype_id((<Tensor>x).d.dtype) >= F32):
        if y == 2:
            return map1(OP["square"], x)
        if y == 1:
            return map1(OP["copy"], x)
        if dtype_id((<Tensor>x).d.dtype) >= F32:
            if y == 0.5:
                return map1(OP["sqrt"], x)
            if y == -1:
                return map1(OP["reciprocal"], x)
    return map2(OP["pow"], x, y)


cdef Tensor pow_into(Tensor x, object exponent):
    if is_scalar(exponent) and exponent == 2:
        return map_into(OP["square"], x, ())
    return map_into(OP["pow"], x, (exponent,))


def where(condition, x=None, y=None):
    """x where the condition holds, else y; with the condition alone, the coordinates where it holds."""
    if x is None and y is None:
        return nonzero(condition, as_tuple=True)
    return map3(OP["where"], condition, x, y)


def tensor_round(x, *, decimals=0):
    """The nearest integer (or multiple of 10^-decimals), ties to even."""
    if decimals == 0:
        return map1(OP["round"], x)
    scale = 10.0 ** decimals
    return map1(OP["round"], x * scale) / scale


def nan_to_num(x, nan=0.0, posinf=None, neginf=None):
    """x with NaN and the infinities replaced (by default 0 and the largest finite numbers)."""
    cdef dtype kind = need_tensor(x, "nan_to_num").dtype
    limit = float(np.finfo(kind.numpy).max)
    return mapn(OP["nan_to_num"], (x, nan, limit if posinf is None else posinf, -limit if neginf is None else neginf))


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
    cdef Tensor t = need_tensor(x, row).detach()
    if dim is None:
        return reduce1(OP[row], view_reshape(t, (-1 if numel(t.d) else 0,), "reshape"), 0, False)
    return reduce1(OP[row], t, dim, keepdim)


def tensor_max(x, dim=None, bint keepdim=False):
    """The maximum; (values, indices) along one axis; elementwise with a tensor."""
    return extremum("amax", "argmax", "maximum", x, dim, keepdim)


def tensor_min(x, dim=None, bint keepdim=False):
    """The minimum; (values, indices) along one axis; elementwise with a tensor."""
    return extremum("amin", "argmin", "minimum", x, dim, keepdim)


def argmax(x, dim=None, bint keepdim=False):
    """The index of the first maximum; a NaN counts as the maximum."""
    return arg_extremum("argmax", x, dim, keepdim)


def argmin(x, dim=None, bint keepdim=False):
    """The index of the first minimum; a NaN counts as the minimum."""
    return arg_extremum("argmin", x, dim, keepdim)


# ---- functions that are methods too ----

def clone(x):
    """A copy in its own memory; gradients flow through."""
    return need_tensor(x, "clone").clone()


def reshape(x, shape):
    """The same elements in row-major order in another shape."""
    return view_reshape(need_tensor(x, "reshape"), tuple(shape), "reshape")


def permute(x, dims):
    """The axes in another order."""
    return view_permute(need_tensor(x, "permute"), tuple(dims))


permute_dims = permute


def transpose(x, dim0, dim1):
    """Two axes exchanged."""
    return need_tensor(x, "transpose").transpose(dim0, dim1)


def matrix_transpose(x):
    """The last two axes exchanged."""
    return need_tensor(x, "matrix_transpose").mT


def flatten(x, start_dim=0, end_dim=-1):
    """Axes start_dim … end_dim merged into one."""
    return need_tensor(x, "flatten").flatten(start_dim, end_dim)


def squeeze(x, dim=None):
    """Without the axes of extent 1 (all, or those named)."""
    return need_tensor(x, "squeeze").squeeze(dim)


def unsqueeze(x, dim):
    """A new axis of extent 1."""
    return need_tensor(x, "unsqueeze").unsqueeze(dim)


expand_dims = unsqueeze


def broadcast_to(x, shape):
    """x expanded to a shape, a view."""
    return view_expand(need_tensor(x, "broadcast_to"), tuple(shape))


def flip(x, dims):
    """The order along the axes reversed, a view."""
    return need_tensor(x, "flip").flip(dims)


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
