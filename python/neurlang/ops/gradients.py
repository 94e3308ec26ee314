"""Gradient rules of the table's rows that take more than a line.

How a rule is called, and what the names of its parameters say, stands with `Row.grad` (row.py). Broadcasting is undone
by the walk back. Rules call differentiable functions of `F` only, so they can be differentiated again; `wanted(x)`
saves the work for operands that need no gradient.
"""

from __future__ import annotations

from math import inf, log, nan, pi, sqrt
from typing import Any

from . import attention as attend
from . import composite
from .expressions import GELU_CUBIC, INV_SQRT_2PI, SELU_ALPHA, SELU_SCALE, SQRT_2_OVER_PI


def wanted(x: Any) -> bool:
    """Whether a gradient of operand x will be used: never for numbers, perhaps for an operand without values."""
    return getattr(x, "requires_grad", not isinstance(x, (int, float)))


# ---- elementwise ----


def mul(F: Any, g: Any, x_: Any, y_: Any) -> tuple:
    return (g * y_ if wanted(x_) else None, g * x_ if wanted(y_) else None)


def div(F: Any, g: Any, x_: Any, y: Any) -> tuple:
    gx = g / y
    return gx, -gx * x_ / y if wanted(y) else None


def atan2(F: Any, g: Any, y: Any, x: Any) -> tuple:
    """0 where the squares vanish, at the origin and beside it, as in PyTorch."""
    square = x * x + y * y
    nothing = F.eq(square, 0)
    scaled = F.masked_fill(g / F.masked_fill(square, nothing, 1.0), nothing, 0.0)
    return scaled * x, -scaled * y


def hypot(F: Any, g: Any, x: Any, y: Any, out: Any) -> tuple:
    return g * (x / out), g * (y / out)


def pow(F: Any, g: Any, x: Any, y: Any, out: Any) -> tuple:
    gx = gy = None
    if isinstance(y, (int, float)):
        gx = _zeros(F, x, g) if y == 0 else g * (y * x ** (y - 1))
    elif wanted(x):
        gx = F.where(F.eq(y, 0), 0.0, g * (y * x ** (y - 1)))
    if isinstance(x, (int, float)):
        gy = g * F.where(F.logical_and(F.ge(y, 0), x == 0), 0.0, out * _log(x))
    elif wanted(y):
        gy = g * F.where(F.logical_and(F.ge(y, 0), F.eq(x, 0)), 0.0, out * F.log(x))
    return gx, gy


def _log(x: float) -> float:
    return log(x) if x > 0 else -inf if x == 0 else nan


def remainder(F: Any, g: Any, x_: Any, y: Any) -> tuple:
    return g, -g * F.floor(x_ / y) if wanted(y) else None


def fmod(F: Any, g: Any, x_: Any, y: Any) -> tuple:
    return g, -g * F.trunc(x_ / y) if wanted(y) else None


def maximum(F: Any, g: Any, x: Any, y: Any) -> tuple:
    return _winner(F, g, F.gt(x, y), F.eq(x, y))


def minimum(F: Any, g: Any, x: Any, y: Any) -> tuple:
    return _winner(F, g, F.lt(x, y), F.eq(x, y))


def _winner(F: Any, g: Any, first: Any, tie: Any) -> tuple:
    """The operand that was taken gets the gradient; a tie shares it equally."""
    half = F.where(tie, g * 0.5, 0.0)
    return F.where(first, g, half), F.where(F.logical_or(first, tie), half, g)


def where(F: Any, g: Any, condition: Any, _x: Any, _y: Any) -> tuple:
    return (
        None,
        F.where(condition, g, 0.0) if wanted(_x) else None,
        F.where(condition, 0.0, g) if wanted(_y) else None,
    )


def masked_fill(F: Any, g: Any, _x: Any, mask: Any, _value: Any) -> tuple:
    return F.masked_fill(g, mask, 0.0), None, F.where(mask, g, 0.0) if wanted(_value) else None


def clamp(F: Any, g: Any, x: Any, lo: Any, hi: Any) -> tuple:
    """A limit that is reached gives the gradient to x, as in PyTorch."""
    inside = F.logical_and(F.ge(x, lo), F.le(x, hi))
    return (
        F.where(inside, g, 0.0),
        F.where(F.lt(x, lo), g, 0.0) if wanted(lo) else None,
        F.where(F.gt(x, hi), g, 0.0) if wanted(hi) else None,
    )


def hardtanh(F: Any, g: Any, x: Any, lo: Any, hi: Any) -> tuple:
    return F.where(F.logical_and(F.gt(x, lo), F.lt(x, hi)), g, 0.0), None, None


def lerp(F: Any, g: Any, x_: Any, y_: Any, weight: Any) -> tuple:
    return g * (1 - weight), g * weight, g * (y_ - x_) if wanted(weight) else None


def addcmul(F: Any, g: Any, _x: Any, a: Any, b: Any, value: Any) -> tuple:
    scaled = g * value
    return g, scaled * b, scaled * a, g * a * b if wanted(value) else None


def addcdiv(F: Any, g: Any, _x: Any, a: Any, b: Any, value: Any) -> tuple:
    ga = g * value / b
    return g, ga, -ga * a / b, g * a / b if wanted(value) else None


def nan_to_num(F: Any, g: Any, x: Any, _nan: Any, _posinf: Any, _neginf: Any) -> tuple:
    return F.where(F.isfinite(x), g, 0.0), None, None, None


# ---- activations ----


def gelu_grad(F: Any, gg: Any, g: Any, x: Any) -> tuple:
    """gelu'' = φ(x) (2 - x²)."""
    if not wanted(x):
        return F._gelu_grad(gg, x), None
    density = F.exp(x * x * -0.5) * INV_SQRT_2PI
    return F._gelu_grad(gg, x), gg * g * density * (2 - x * x)


def gelu_tanh_grad(F: Any, gg: Any, g: Any, x: Any) -> tuple:
    """With t = tanh(u(x)): gelu'' = (1 - t²) (u' + x u''/2 - x t u'²)."""
    if not wanted(x):
        return F._gelu_tanh_grad(gg, x), None
    square = x * x
    t = F.tanh(x * SQRT_2_OVER_PI * (square * GELU_CUBIC + 1))
    slope = (square * (3 * GELU_CUBIC) + 1) * SQRT_2_OVER_PI
    bend = x * (6 * GELU_CUBIC * SQRT_2_OVER_PI)
    curvature = (1 - t * t) * (slope + x * (bend * 0.5 - t * slope * slope))
    return F._gelu_tanh_grad(gg, x), gg * g * curvature


def silu_grad(F: Any, gg: Any, g: Any, x: Any) -> tuple:
    """silu'' = y (1 - y) (2 + x (1 - 2y)) with y = sigmoid(x)."""
    if not wanted(x):
        return F._silu_grad(gg, x), None
    y = F.sigmoid(x)
    return F._silu_grad(gg, x), gg * g * (y * (1 - y) * (2 + x * (1 - 2 * y)))


def relu_grad(F: Any, gg: Any, _g: Any, y: Any) -> tuple:
    return F._relu_grad(gg, y), None


def tanh_grad(F: Any, gg: Any, g: Any, y: Any) -> tuple:
    return F._tanh_grad(gg, y), gg * g * y * -2 if wanted(y) else None


def sigmoid_grad(F: Any, gg: Any, g: Any, y: Any) -> tuple:
    return F._sigmoid_grad(gg, y), gg * g * (1 - 2 * y) if wanted(y) else None


def softplus(F: Any, g: Any, x: Any, beta: Any, threshold: Any) -> tuple:
    z = x * beta
    return F.where(F.gt(z, threshold), g, g * F.sigmoid(z)), None, None


def mish(F: Any, g: Any, x: Any) -> tuple:
    t = F.tanh(F.softplus(x))
    return (g * (t + x * F.sigmoid(x) * (1 - t * t)),)


def leaky_relu(F: Any, g: Any, x: Any, slope: Any) -> tuple:
    return F.where(F.gt(x, 0), g, g * slope), None


def elu(F: Any, g: Any, x: Any, alpha: Any) -> tuple:
    return F.where(F.gt(x, 0), g, g * (alpha * F.exp(F.minimum(x, 0)))), None


def selu(F: Any, g: Any, x: Any) -> tuple:
    below = g * (F.exp(F.minimum(x, 0)) * (SELU_SCALE * SELU_ALPHA))
    return (F.where(F.gt(x, 0), g * SELU_SCALE, below),)


def hardswish(F: Any, g: Any, x: Any) -> tuple:
    middle = g * (x * (1 / 3) + 0.5)
    return (F.where(F.le(x, -3), 0.0, F.where(F.lt(x, 3), middle, g)),)


def hardsigmoid(F: Any, g: Any, x: Any) -> tuple:
    inside = F.logical_and(F.gt(x, -3), F.lt(x, 3))
    return (F.where(inside, g * (1 / 6), 0.0),)


def erf(F: Any, g: Any, x: Any) -> tuple:
    return (g * (F.exp(-x * x) * (2 / sqrt(pi))),)


def erfc(F: Any, g: Any, x: Any) -> tuple:
    return (g * (F.exp(-x * x) * (-2 / sqrt(pi))),)


def erfinv(F: Any, g: Any, _x: Any, out: Any) -> tuple:
    return (g * (F.exp(out * out) * (sqrt(pi) / 2)),)


# ---- reductions, over an axis that stays with extent 1, or over several ----


def extremum(F: Any, g: Any, x: Any, out: Any, *axes: int) -> tuple:
    """Ties share the gradient equally, as in PyTorch."""
    ties = F.eq(x, out).to(g.dtype)
    return (g * (ties / F.sum(ties, axes, True)),)


def prod(F: Any, g: Any, x: Any, axis: int) -> tuple:
    """g times the product of the others, built without division so that zeros need no case."""
    if x.shape[axis] == 0:
        return (g * x,)

    def before(x: Any, axis: int) -> Any:
        return _one_before(F, F.cumprod(x, axis), axis)

    return (g * (before(x, axis) * _from_the_end(F, before, x, axis)),)


def _one_before(F: Any, products: Any, axis: int) -> Any:
    """One place further along the axis, a one in front: of running products, those of the elements before each."""
    return F.cat([F.ones_like(products.narrow(axis, 0, 1)), products.narrow(axis, 0, products.shape[axis] - 1)], axis)


def sum_square_deviations(F: Any, g: Any, x: Any, axis: int) -> tuple:
    return (g * 2 * (x - F.sum(x, axis, True) / x.shape[axis]),)


def deviations(F: Any, g: Any, x: Any, center: Any, outs: Any, axis: int) -> tuple:
    """That of the squares, with the mean over x as center: the distances from it add up to 0 whatever x is."""
    return g * 2 * (x - center), None


def softmax(F: Any, g: Any, _x: Any, out: Any, axis: int) -> tuple:
    return (F._softmax_grad(g, out, axis),)


def log_softmax(F: Any, g: Any, _x: Any, out: Any, axis: int) -> tuple:
    return (F._log_softmax_grad(g, out, axis),)


def cross_entropy(F: Any, g: Any, x: Any, target: Any, outs: Any, *attrs: int) -> tuple:
    """By a kernel of its own; one that is to be differentiated again is written out, with the statistics of x."""
    if F.is_grad_enabled():
        statistics = composite.define_cross_entropy(F, x, target, *attrs)[1:]
        return composite.define_cross_entropy_grad(F, g, x, target, *statistics, *attrs), None
    return F._cross_entropy_grad(g, x, target, *outs[1:], *attrs), None


def softmax_grad(F: Any, gg: Any, g: Any, y: Any, axis: int) -> tuple:
    by_y = gg * (g - F.sum(g * y, axis, True)) - g * F.sum(gg * y, axis, True) if wanted(y) else None
    return F._softmax_grad(gg, y, axis), by_y


def log_softmax_grad(F: Any, gg: Any, g: Any, y: Any, axis: int) -> tuple:
    p = F.exp(y)
    return gg - F.sum(gg * p, axis, True), -gg * p * F.sum(g, axis, True) if wanted(y) else None


def layer_norm(F: Any, g: Any, x: Any, weight: Any, _bias: Any, eps_bits: int) -> tuple:
    """By a kernel of its own; one that is to be differentiated again is written out."""
    if F.is_grad_enabled():
        gx, gw, gb = composite.define_layer_norm_grad(F, g, x, weight, eps_bits)
    else:
        gx, gw, gb = F._layer_norm_grad(g, x, weight, eps_bits)
    return gx, gw.reshape(-1), gb.reshape(-1)


def rms_norm(F: Any, g: Any, x: Any, weight: Any, eps_bits: int) -> tuple:
    if F.is_grad_enabled():
        gx, gw = composite.define_rms_norm_grad(F, g, x, weight, eps_bits)
    else:
        gx, gw = F._rms_norm_grad(g, x, weight, eps_bits)
    return gx, gw.reshape(-1)


def channel_affine(F: Any, g: Any, x_: Any, mean_: Any, scale: Any, _bias: Any) -> tuple:
    scaled = g * scale
    return scaled, -scaled if wanted(mean_) else None, g * (x_ - mean_) if wanted(scale) else None, g


def channel_norm(F: Any, g: Any, x: Any, weight: Any, _bias: Any, outs: Any, axis: int, eps_bits: int) -> tuple:
    """By a kernel of its own; one that is to be differentiated again is written out, with the statistics of x."""
    if F.is_grad_enabled():
        _, mean, variance = composite.define_channel_norm(F, x, weight, weight, axis, eps_bits)
        gx, gw, gb = composite.define_channel_norm_grad(F, g, x, weight, mean, variance, axis, eps_bits)
    else:
        gx, gw, gb = F._channel_norm_grad(g, x, weight, *outs[1:], axis, eps_bits)
    return gx, gw.squeeze(0), gb.squeeze(0)


def attention(F: Any, g: Any, query: Any, key: Any, value: Any, mask: Any, draw: Any, outs: Any, *attrs: int) -> tuple:
    """By a kernel of its own; one that is to be differentiated again is written out."""
    if F.is_grad_enabled():
        return *attend.gradients(F, g, query, key, value, mask, draw, *attrs), None, None
    return *F._attention_grad(g, query, key, value, mask, draw, *outs, *attrs), None, None


# ---- scans ----


def _from_the_end(F: Any, scan: Any, x: Any, axis: int) -> Any:
    backwards = (*[slice(None)] * axis, slice(None, None, -1))
    return scan(x[backwards], axis)[backwards]


def cumsum(F: Any, g: Any, _x: Any, axis: int) -> tuple:
    return (_from_the_end(F, F.cumsum, g, axis),)


def cumprod(F: Any, g: Any, x: Any, out: Any, axis: int) -> tuple:
    """The product before an element times h, where hₖ = gₖ + xₖ₊₁ hₖ₊₁: no division, so that zeros need no case.

    h takes log2(n) steps, each reaching twice as far (Blelloch 1990, 1.4).
    """
    n, step = x.shape[axis], 1
    if n == 0:
        return (g,)
    before = _one_before(F, out, axis)
    h, factor = g, F.cat([x.narrow(axis, 1, n - 1), F.zeros_like(x.narrow(axis, 0, 1))], axis)
    while step < n:
        near, far = (axis, 0, n - step), (axis, step, n - step)
        end = (axis, n - step, step)
        h = F.cat([h.narrow(*near) + factor.narrow(*near) * h.narrow(*far), h.narrow(*end)], axis)
        factor = F.cat([factor.narrow(*near) * factor.narrow(*far), factor.narrow(*end)], axis)
        step *= 2
    return (before * h,)


def logcumsumexp(F: Any, g: Any, x: Any, out: Any, axis: int) -> tuple:
    """Σᵢ gᵢ exp(x - outᵢ) over the later i, in logarithms; positive and negative gᵢ are summed apart."""
    out = F.where(F.isfinite(out), out, 0.0)  # of an infinity there is no gradient that is a number

    def part(share: Any) -> Any:
        some = F.gt(share, 0)
        logs = F.where(some, F.log(F.where(some, share, 1.0)) - out, -inf)
        summed = _from_the_end(F, F.logcumsumexp, logs, axis)
        none = F.eq(summed, -inf)
        return F.where(none, 0.0, F.exp(F.where(none, 0.0, summed) + x))

    return (part(g) - part(-g),)


# ---- sorting: the gradient goes back to the places ----


def sort(F: Any, g: Any, _x: Any, outs: Any, axis: int, *_rest: int) -> tuple:
    return (F._scatter_add(_zeros(F, _x, g), outs[1], g, axis),)


# ---- contractions ----


def matmul(F: Any, g: Any, a_: Any, b_: Any) -> tuple:
    return (
        F.matmul(g, F.transpose(b_, -1, -2)) if wanted(a_) else None,
        F.matmul(F.transpose(a_, -1, -2), g) if wanted(b_) else None,
    )


def conv2d(F: Any, g: Any, x_: Any, w_: Any, *geometry: int) -> tuple:
    return (
        F._conv2d_input(g, w_, *geometry, *x_.shape[2:]) if wanted(x_) else None,
        F._conv2d_weight(x_, g, *geometry, *w_.shape[2:]) if wanted(w_) else None,
    )


def conv2d_input(F: Any, gx: Any, g_: Any, w_: Any, *geometry: int) -> tuple:
    windows = geometry[:8]
    return (
        F._conv2d(gx, w_, *windows) if wanted(g_) else None,
        F._conv2d_weight(gx, g_, *windows, *w_.shape[2:]) if wanted(w_) else None,
    )


def conv2d_weight(F: Any, gw: Any, x_: Any, g_: Any, *geometry: int) -> tuple:
    windows = geometry[:8]
    return (
        F._conv2d_input(g_, gw, *windows, *x_.shape[2:]) if wanted(x_) else None,
        F._conv2d(x_, gw, *windows) if wanted(g_) else None,
    )


# ---- windows ----


def max_pool2d(F: Any, g: Any, _x: Any, outs: Any, *_geometry: int) -> tuple:
    return (F._max_pool2d_grad(g, outs[1], *_x.shape[2:]),)


def max_pool2d_grad(F: Any, gg: Any, _g: Any, index: Any, h: int, w: int) -> tuple:
    n, c, oh, ow = _g.shape
    planes = F.cat([gg.reshape(n, c, h * w), F.zeros((n, c, 1), dtype=gg.dtype)], 2)  # -1: the window saw nothing
    picked = F._gather(planes, index.reshape(n, c, oh * ow), 2)
    return picked.reshape(n, c, oh, ow), None


def avg_pool2d(F: Any, g: Any, _x: Any, *geometry: int) -> tuple:
    return (F._avg_pool2d_grad(g, *geometry, *_x.shape[2:]),)


def avg_pool2d_grad(F: Any, gg: Any, _g: Any, *geometry: int) -> tuple:
    return (F._avg_pool2d(gg, *geometry[:-2]),)


def adaptive_avg_pool2d(F: Any, g: Any, _x: Any, *_size: int) -> tuple:
    return (F._adaptive_avg_pool2d_grad(g, *_x.shape[2:]),)


def adaptive_avg_pool2d_grad(F: Any, gg: Any, _g: Any, *_size: int) -> tuple:
    return (F._adaptive_avg_pool2d(gg, *_g.shape[2:]),)


# ---- indices ----


def _zeros(F: Any, like: Any, g: Any) -> Any:
    return F.zeros(like.shape, dtype=g.dtype)


def gather(F: Any, g: Any, _x: Any, index: Any, axis: int) -> tuple:
    return F._scatter_add(_zeros(F, _x, g), index, g, axis), None


def scatter_add(F: Any, g: Any, _x: Any, index: Any, _src: Any, axis: int) -> tuple:
    return g, None, F._gather(g, index, axis)


def index_select(F: Any, g: Any, _x: Any, index: Any, axis: int) -> tuple:
    return F._index_add(_zeros(F, _x, g), index, g, axis), None


def index_add(F: Any, g: Any, _x: Any, index: Any, _src: Any, axis: int) -> tuple:
    return g, None, F._index_select(g, index, axis)


def index_get(F: Any, g: Any, _x: Any, index: Any, *rest: Any) -> tuple:
    """`rest`: more indices, then k, the axes and the position."""
    indices, attrs = _split_indices(index, rest)
    return F._index_put(_zeros(F, _x, g), g, *indices, *attrs, 1), *(None for _ in indices)


def index_put(F: Any, g: Any, _x: Any, _value: Any, index: Any, *rest: Any) -> tuple:
    """What was overwritten has no gradient; values written to one place all get the place's, as in PyTorch."""
    indices, (*attrs, accumulate) = _split_indices(index, rest)
    picked = F._index_get(g, *indices, *attrs)
    if not accumulate:
        g = F._index_put(g.clone(), F.zeros(_value.shape, dtype=g.dtype), *indices, *attrs, 0)
    return g, picked, *(None for _ in indices)


def _split_indices(index: Any, rest: tuple) -> tuple[list, tuple]:
    """The index tensors, and the attributes that follow them."""
    n = sum(not isinstance(a, int) for a in rest)
    return [index, *rest[:n]], rest[n:]
