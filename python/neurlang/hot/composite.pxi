# composite.pxi: composites with native kernels, norms and attention among them: arguments checked, then `call`.

cdef Tensor one_float(str op, object x, object dtype=None):
    """x in the dtype that is asked for, or else as it is; integers become the default float dtype."""
    cdef Tensor t = _in_float(op, x, dtype)
    return cast(t, default_float) if not is_float(dtype_id(t.d.dtype)) else t


def _in_float(str op, x, dtype):
    """x in another dtype, if one is asked for, which must be a float."""
    if dtype is not None and not is_float(dtype_arg(dtype, F32)):
        raise DTypeError(f"{op}: dtype must be a float, got {dtype!r}")
    return in_dtype(op, x, dtype)


def softmax(input, dim, dtype=None):
    """exp(input - max) / sum(exp(input - max)) along `dim`; integers become the default float dtype.

    With `dtype`, a float, the input is converted first.

    >>> neurlang.softmax(neurlang.zeros(4), 0).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return along(OP["softmax"], one_float("softmax", input, dtype), dim)


def log_softmax(input, dim, dtype=None):
    """(input - max) - log(sum(exp(input - max))) along `dim`; integers become the default float dtype.

    With `dtype`, a float, the input is converted first.

    >>> neurlang.log_softmax(neurlang.tensor([0.0, -200.0]), 0).tolist()
    [0.0, -200.0]
    """
    return along(OP["log_softmax"], one_float("log_softmax", input, dtype), dim)


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


def _class_index(target, classes, axis, ignored):
    """The targets, 0 where they are `ignored`; IndexError where another one is no class."""
    cdef Tensor t = need_tensor(target, "class_index")
    if is_float(dtype_id(t.d.dtype)) or dtype_id(t.d.dtype) == B8:
        raise DTypeError(f"class_index: classes must be integers, got {describe(t)}")
    t = cast(t, I64)
    return call(OP["class_index"], (t,), dims_of(&t.d), I64, (classes, axis, ignored), numel(t.d))


def _cross_entropy(input, target, axis, ignored):
    """The losses, the largest inputs and log Σ exp(input - max), all of target's shape: input's but for 1 class."""
    cdef Tensor x = one_float("cross_entropy", input), t
    axis = own_axis("cross_entropy", x, axis)
    x, axis, t = indexed("cross_entropy", x, axis, target)
    shape = need_classes("cross_entropy", x, axis, (t,))
    return call_several(OP["cross_entropy"], (x, t), (shape,) * 3, dtype_id(x.d.dtype), (axis, ignored), numel(x.d))


def _cross_entropy_grad(grad, input, target, largest, log_sum, axis, ignored):
    cdef Tensor x = input, t
    same_float("cross_entropy_grad", (grad, x, largest, log_sum))
    axis = own_axis("cross_entropy_grad", x, axis)
    x, axis, t = indexed("cross_entropy_grad", x, axis, target)
    need_classes("cross_entropy_grad", x, axis, (grad, t, largest, log_sum))
    return call(OP["cross_entropy_grad"], (grad, x, t, largest, log_sum), dims_of(&x.d), dtype_id(x.d.dtype),
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


cdef tuple norm_operands(str op, tuple operands):
    """Rows and vectors of one float dtype; 16-bit rows beside a vector of float32 are widened, as in PyTorch."""
    cdef Tensor x = operands[0], v
    cdef bint wide = False
    if dtype_id(x.d.dtype) in (F16, BF16):
        for v in operands[1:]:
            wide = wide or dtype_id(v.d.dtype) == F32
    if wide:
        operands = tuple([cast(v, F32) if dtype_id(v.d.dtype) == dtype_id(x.d.dtype) else v for v in operands])
    return same_float(op, operands)


cdef Tensor normalized_like(Tensor x, Tensor rows):
    """A norm's rows in the shape of x, rounded to its dtype where it is of 16 bits."""
    cdef int kind = dtype_id(x.d.dtype)
    return view_reshape(cast(rows, kind) if is_float(kind) else rows, shape_tuple(&x.d), "reshape")


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last len(normalized_shape) axes.

    Mean and variance (divided by n) are of those axes; weight and bias have shape `normalized_shape`, else ShapeError.
    Beside one of float32 an input of 16 bits is widened, and the result rounded to it.
    Ba, Kiros & Hinton 2016.

    >>> neurlang.layer_norm(neurlang.tensor([[1.0, 3.0], [8.0, 4.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """
    cdef Tensor x, w, b, out
    x, shape = as_rows("layer_norm", input, normalized_shape)
    w, b = affine("layer_norm", "weight", weight, shape, x, 1), affine("layer_norm", "bias", bias, shape, x, 0)
    x, w, b = norm_operands("layer_norm", (x, w, b))
    bits = <int64_t>scalar_bits(float(eps), F64)
    out = call(OP["layer_norm"], (x, w, b), dims_of(&x.d), dtype_id(x.d.dtype), (bits,), numel(x.d))
    return normalized_like(input, out)


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """x / sqrt(mean(x²) + eps) * weight over the last len(normalized_shape) axes.

    The weight has shape `normalized_shape`, else ShapeError; eps is the dtype's rounding step unless given. Beside a
    weight of float32 an input of 16 bits is widened, and the result rounded to it.
    Zhang & Sennrich 2019.

    >>> neurlang.rms_norm(neurlang.tensor([[3.0, 4.0, 0.0, 0.0]]), 4, eps=0.0).tolist()
    [[1.2000000476837158, 1.600000023841858, 0.0, 0.0]]
    """
    cdef Tensor x, w, out
    x, shape = as_rows("rms_norm", input, normalized_shape)
    x, w = norm_operands("rms_norm", (x, affine("rms_norm", "weight", weight, shape, x, 1)))
    if eps is None:
        eps = 2.0 ** -52 if dtype_id(x.d.dtype) == F64 else 2.0 ** -23
    bits = <int64_t>scalar_bits(float(eps), F64)
    out = call(OP["rms_norm"], (x, w), dims_of(&x.d), dtype_id(x.d.dtype), (bits,), numel(x.d))
    return normalized_like(input, out)


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


def _deviations(input, center, dim):
    """Sums along an axis, which stays with extent 1, of the squares of x - center, and of x - center."""
    cdef Tensor x = need_tensor(input, "deviations")
    cdef int axis = own_axis("deviations", x, dim)
    same_float("deviations", (x, center))
    shape = shape_tuple(&x.d)
    shape = shape[:axis] + (1,) + shape[axis + 1:]
    if center.shape != shape:
        raise ShapeError(f"deviations: the centers must be of shape {list(shape)}, got {describe(center)}")
    return call_several(OP["deviations"], (x, center), (shape, shape), dtype_id(x.d.dtype), (axis,), numel(x.d))


def _channel_affine(input, mean, scale, bias):
    check_letters("batch_norm", (input, mean, scale, bias), (b"NCS", b"C1", b"C1", b"C1"))
    cdef Tensor x = input
    return call(OP["channel_affine"], (x, mean, scale, bias), dims_of(&x.d), dtype_id(x.d.dtype), (), numel(x.d))


def _channel_norm(input, weight, bias, axis, eps_bits):
    """Rows of [N, G, D, S] normalised over S and N (axis 0) or D (axis 2), and the means and variances."""
    check_letters("channel_norm", (input, weight, bias), (b"NGDS", b"GD1", b"GD1"))
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
    norm_axis("channel_norm_grad", axis)
    cdef bytes statistics = b"1GD1" if axis == 0 else b"NG11"
    check_letters("channel_norm_grad", (grad, input, weight, mean, var),
                  (b"NGDS", b"NGDS", b"GD1", statistics, statistics))
    cdef Tensor x = input
    shape = shape_tuple(&x.d)
    vector = (1,) + shape[1:3] + (1,)
    return call_several(OP["channel_norm_grad"], (grad, x, weight, mean, var), (shape, vector, vector),
                        dtype_id(x.d.dtype), (axis, eps_bits), numel(x.d))


# ---- attention: query [N, H, G, L, d], key [N, H, S, d], value [N, H, S, e], mask [N, H, G, L, S] or a number;
# draw: the seed and the number of the draw that dropout takes, or a number ----

cdef int check_letters(str op, tuple operands, tuple shapes) except -1:
    """Raises unless all are tensors of one float dtype, and equal letters of their shapes stand for equal sizes."""
    cdef int64_t size[128]
    cdef Tensor x
    cdef int d, rank
    cdef const char* letters
    same_float(op, operands)
    for d in range(128):
        size[d] = -1
    size[<int>b"1"] = 1
    for i in range(len(operands)):
        x, rank, letters = operands[i], len(shapes[i]), shapes[i]
        for d in range(rank):
            if x.d.rank != rank or size[<int>letters[d]] not in (-1, x.d.shape[d]):
                raise ShapeError(f"{op}: shapes do not fit: " + ", ".join([describe(y) for y in operands]))
            size[<int>letters[d]] = x.d.shape[d]
    return 0


cdef int check_draw(str op, object draw) except -1:
    if is_tensor(draw) and (dtype_id((<Tensor>draw).d.dtype) != I64 or shape_tuple(&(<Tensor>draw).d) != (2,)):
        raise ShapeError(f"{op}: the draw must be two int64 numbers, got {describe(draw)}")
    return 0


def _attention(query, key, value, mask, draw, causal, scale_bits, dropout_bits):
    operands = (query, key, value, mask, draw)
    check_letters("attention", operands[:4 if is_tensor(mask) else 3], (b"NHGLd", b"NHSd", b"NHSe", b"NHGLS"))
    check_draw("attention", draw)
    cdef tuple shape = query.shape[:4]
    return call_several(OP["attention"], operands, (shape + (value.shape[3],), shape), dtype_id((<Tensor>query).d.dtype),
                        (causal, scale_bits, dropout_bits), MUCH_WORK)[0]


def _attention_grad(grad, query, key, value, mask, draw, out, logsumexp, causal, scale_bits, dropout_bits):
    operands = (grad, query, key, value, mask, draw, out, logsumexp)
    check_letters("attention_grad", (grad, query, key, value, out, logsumexp) + ((mask,) if is_tensor(mask) else ()),
                  (b"NHGLe", b"NHGLd", b"NHSd", b"NHSe", b"NHGLe", b"NHGL", b"NHGLS"))
    check_draw("attention_grad", draw)
    return call_several(OP["attention_grad"], operands, (query.shape, key.shape, value.shape),
                        dtype_id((<Tensor>query).d.dtype), (causal, scale_bits, dropout_bits), MUCH_WORK)
