# window.pxi: pooling: arguments checked, then `call`.

cdef Tensor as_images(str op, object input):
    cdef Tensor x = need_tensor(input, op)
    same_float(op, (x,))
    if x.d.rank != 4:
        raise ShapeError(f"{op}: expected [N, C, H, W] or [C, H, W], got {describe(x)}")
    return x


cdef tuple windows(str op, object kernel_size, object stride, object padding):
    """Kernel, stride (left out, it is the kernel's size) and padding as attributes."""
    kernel = pair(op, "kernel_size", kernel_size)
    return kernel + (kernel if stride is None else pair(op, "stride", stride)) + pair(op, "padding", padding)


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, bint ceil_mode=False, bint return_indices=False):
    """The maximum of each window; with `return_indices` also its flat place in the H×W plane.

    Input [N, C, H, W] or [C, H, W]; `stride` left out is the kernel's size; padding counts as -∞. The first of equals
    wins, a NaN beats every number. A dilated window that sees only padding has the place -1 and no gradient.

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
        made = max_pool2d(input.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return (made[0].squeeze(0), made[1].squeeze(0)) if return_indices else made.squeeze(0)
    x = as_images("max_pool2d", input)
    attrs = windows("max_pool2d", kernel_size, stride, padding) + pair("max_pool2d", "dilation", dilation)
    attrs += (<int64_t>ceil_mode,)
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
    attrs = windows("avg_pool2d", kernel_size, stride, padding)
    if divisor_override is not None and divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    attributes(attrs + (1, 1, <int64_t>ceil_mode), attr)
    shape = shape_pool2d("avg_pool2d", dims_of(&x.d), attr)
    attrs += (<int64_t>ceil_mode, <int64_t>count_include_pad, clip_index(divisor_override or 0))
    return call(OP["avg_pool2d"], (x,), shape, dtype_id(x.d.dtype), attrs, numel(x.d))


# ---- rows by their own names, attributes flat: what gradient rules call ----

def _max_pool2d_grad(g, index, height, width):
    cdef Tensor maps = as_images("max_pool2d_grad", g), places = need_tensor(index, "max_pool2d_grad")
    if not same_shape(&maps.d, &places.d) or dtype_id(places.d.dtype) != I64:
        raise ShapeError(f"max_pool2d_grad: {describe(maps)} and places {describe(places)} do not fit")
    return plane_gradient("max_pool2d_grad", (maps, places), (), planes_of("max_pool2d_grad", maps, height, width))


def _avg_pool2d(x, kh, kw, sh, sw, ph, pw, ceil_mode, count_include_pad, divisor):
    return avg_pool2d(x, (kh, kw), (sh, sw), (ph, pw), ceil_mode, count_include_pad, divisor or None)


def _avg_pool2d_grad(g, *attrs):
    cdef Tensor maps = as_images("avg_pool2d_grad", g)
    cdef int64_t attr[MAX_ATTRS]
    cdef Dims shape, expected
    attributes_of("avg_pool2d_grad", attrs, attr)
    shape = planes_of("avg_pool2d_grad", maps, attrs[-2], attrs[-1])
    attributes(attrs[:6] + (1, 1, attrs[6]), attr)
    expected = shape_pool2d("avg_pool2d_grad", shape, attr)
    if shape_tuple(&maps.d) != dims_tuple(&expected):
        raise ShapeError(f"avg_pool2d_grad: {describe(maps)} must have shape {list(dims_tuple(&expected))}")
    return plane_gradient("avg_pool2d_grad", (maps,), attrs[:-2], shape)


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
    cdef Tensor maps = as_images("adaptive_avg_pool2d_grad", g)
    cdef Dims shape = planes_of("adaptive_avg_pool2d_grad", maps, height, width)
    shape_adaptive_pool2d("adaptive_avg_pool2d_grad", shape, maps.d.shape + 2)
    return plane_gradient("adaptive_avg_pool2d_grad", (maps,), (), shape)


cdef Dims planes_of(str op, Tensor g, object height, object width) except *:
    """The images of height × width of which g is a pooling's result, or that result's gradient."""
    return dims_from(shape_tuple(&g.d)[:2] + (height, width), op)


cdef Tensor plane_gradient(str name, tuple operands, tuple attrs, Dims shape):
    """Runs the row `name`, the gradient of a pooling, back to images of this shape."""
    cdef Tensor g = operands[0]
    return call(OP[name], operands, shape, dtype_id(g.d.dtype), attrs + (shape.d[2], shape.d[3]), numel(g.d))
