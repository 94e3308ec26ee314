"""NumPy references of the table's rows that take more than a line; `np` is passed in, as this folder imports nothing.

They compute in the dtype they are given: tests pass float64, the interpreter the real dtype (additions come in the
kernels' order, so its bits are theirs).
"""

from __future__ import annotations

import math
from typing import Any

from . import expressions, scalar, to_numpy
from .composite import double_of_bits

Array = Any

_RANGE = {"uint8": (0, 255)} | {f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}


# ---- elementwise ----


def cast(np: Any, x: Array, dtype: str) -> Array:
    """Integers wrap; floats are truncated and saturate, NaN gives 0. A bfloat16 is given as its bits."""
    if dtype == "bool":
        return x != 0
    if dtype == "bfloat16":
        return _bfloat16(np, x.astype(np.float64))
    if x.dtype.kind != "f" or dtype.startswith("float"):
        return x.astype(dtype)
    low, high = _RANGE[dtype]
    inside = (x > low) & (x < high)
    exact = np.where(inside, x, 0).astype(dtype)
    return np.where(inside, exact, np.where(x >= high, high, np.where(x <= low, low, 0)).astype(dtype))


def _bfloat16(np: Any, x: Array) -> Array:
    """The nearest multiples of their units in the last place, ties to even, as the upper halves of float32."""
    unit = np.maximum(np.frexp(x)[1] - 8, -133)
    nearest = np.where(np.isfinite(x), np.ldexp(np.rint(np.ldexp(x, -unit)), unit), x)
    return (nearest.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _integers(np: Any, divide: Any, x: Array, y: Array) -> Array:
    """An integer quotient or remainder, 0 where y is 0."""
    return np.where(y == 0, 0, divide(x, np.where(y == 0, 1, y)))


def floor_divide(np: Any, x: Array, y: Array) -> Array:
    return np.floor_divide(x, y) if x.dtype.kind == "f" else _integers(np, np.floor_divide, x, y)


def div_trunc(np: Any, x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.trunc(x / y)
    return _integers(np, lambda a, b: (a - np.fmod(a, b)) // b, x, y)


def remainder(np: Any, x: Array, y: Array) -> Array:
    return np.remainder(x, y) if x.dtype.kind == "f" else _integers(np, np.remainder, x, y)


def fmod(np: Any, x: Array, y: Array) -> Array:
    return np.fmod(x, y) if x.dtype.kind == "f" else _integers(np, np.fmod, x, y)


def power(np: Any, x: Array, y: Array) -> Array:
    """Integers wrap; a negative exponent gives the truncated reciprocal."""
    if x.dtype.kind == "f":
        return np.power(x, y)
    reciprocal = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)) if x.dtype.kind == "i" else x
    return np.where(y < 0, reciprocal, np.power(x, np.where(y < 0, 0, y)))


def left_shift(np: Any, x: Array, y: Array) -> Array:
    outside = (y < 0) | (y >= 8 * x.dtype.itemsize)
    return np.where(outside, 0, np.left_shift(x, np.where(outside, 0, y)))


def right_shift(np: Any, x: Array, y: Array) -> Array:
    outside = (y < 0) | (y >= 8 * x.dtype.itemsize)
    return np.where(outside, np.where(x < 0, -1, 0), np.right_shift(x, np.where(outside, 0, y)))


def erfinv(np: Any, x: Array) -> Array:
    """Newton's method on erf from a rational start."""

    def one(v: float) -> float:
        if abs(v) >= 1:
            return math.copysign(math.inf, v) if abs(v) == 1 else math.nan
        log_term = math.log1p(-v * v)
        half = 2 / (math.pi * 0.147) + log_term / 2
        y = math.copysign(math.sqrt(math.sqrt(half * half - log_term / 0.147) - half), v)
        for _ in range(4):
            y -= (math.erf(y) - v) * math.sqrt(math.pi) / 2 * math.exp(y * y)
        return y

    return np.vectorize(one, otypes=[float])(x)


def selu(np: Any, x: Array) -> Array:
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))


def silu_grad(np: Any, g: Array, x: Array) -> Array:
    y = 1 / (1 + np.exp(-x))
    return g * y * (1 + x * (1 - y))


def gelu_grad(np: Any, g: Array, x: Array) -> Array:
    cdf = 0.5 * np.vectorize(math.erfc, otypes=[float])(-x * math.sqrt(0.5))
    return g * (cdf + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


def gelu_tanh(np: Any, x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_tanh_grad(np: Any, g: Array, x: Array) -> Array:
    k = math.sqrt(2 / math.pi)
    t = np.tanh(k * (x + 0.044715 * x**3))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x))


# ---- contractions ----


def _padded(np: Any, x: Array, ph: int, pw: int, fill: float = 0.0) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)


def _tap(x: Array, top: int, left: int, step: tuple[int, int], size: tuple[int, int]) -> Array:
    """The elements of every plane that one place of a moving window meets."""
    rows = slice(top, top + step[0] * (size[0] - 1) + 1, step[0])
    return x[:, :, rows, left : left + step[1] * (size[1] - 1) + 1 : step[1]]


def _conv_extent(n: int, k: int, stride: int, pad: int, dilation: int) -> int:
    return (n + 2 * pad - dilation * (k - 1) - 1) // stride + 1


def conv2d(
    np: Any, x: Array, w: Array, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, groups: int, _tile: int
) -> Array:
    (n, _, h, width), (o, c, kh, kw) = x.shape, w.shape
    size = _conv_extent(h, kh, sh, ph, dh), _conv_extent(width, kw, sw, pw, dw)
    padded = _padded(np, x, ph, pw)
    out = np.zeros((n, groups, o // groups, *size), x.dtype)
    for i, j in np.ndindex(kh, kw):
        tap = _tap(padded, i * dh, j * dw, (sh, sw), size).reshape(n, groups, c, *size)
        out += np.einsum("ngchw,goc->ngohw", tap, w[:, :, i, j].reshape(groups, o // groups, c))
    return out.reshape(n, o, *size)


def conv2d_input(
    np: Any, g: Array, w: Array, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, groups: int, _tile: int,
    h: int, width: int,
) -> Array:
    (n, o, *size), (_, c, kh, kw) = g.shape, w.shape
    padded = np.zeros((n, groups * c, h + 2 * ph, width + 2 * pw), g.dtype)
    split = g.reshape(n, groups, o // groups, *size)
    for i, j in np.ndindex(kh, kw):
        part = np.einsum("ngohw,goc->ngchw", split, w[:, :, i, j].reshape(groups, o // groups, c))
        _tap(padded, i * dh, j * dw, (sh, sw), tuple(size))[...] += part.reshape(n, groups * c, *size)
    return padded[:, :, ph : ph + h, pw : pw + width]


def conv2d_weight(
    np: Any, x: Array, g: Array, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, groups: int, _tile: int,
    kh: int, kw: int,
) -> Array:
    (n, channels, _, _), (_, o, *size) = x.shape, g.shape
    padded = _padded(np, x, ph, pw)
    split = g.reshape(n, groups, o // groups, *size)
    out = np.empty((o, channels // groups, kh, kw), x.dtype)
    for i, j in np.ndindex(kh, kw):
        tap = _tap(padded, i * dh, j * dw, (sh, sw), tuple(size)).reshape(n, groups, channels // groups, *size)
        out[:, :, i, j] = np.einsum("ngchw,ngohw->goc", tap, split).reshape(o, channels // groups)
    return out


# ---- scans ----

SCAN_BLOCK = 64


def _scan(np: Any, combine: Any, identity: Any, x: Array, axis: int) -> Array:
    """S(n): serial in blocks of 64, each of which continues from the last result of the one before."""
    rows = np.moveaxis(x, axis, 0)
    out = np.empty_like(rows)
    carry = np.full(rows.shape[1:], identity, x.dtype)
    for i, row in enumerate(rows):
        if i % SCAN_BLOCK == 0:
            inside, carry = np.full_like(carry, identity), out[i - 1] if i else carry
        inside = combine(inside, row)
        out[i] = combine(carry, inside)
    return np.moveaxis(out, 0, axis)


def cumsum(np: Any, x: Array, axis: int) -> Array:
    return _scan(np, np.add, 0, x, axis)


def cumprod(np: Any, x: Array, axis: int) -> Array:
    return _scan(np, np.multiply, 1, x, axis)


def cummax(np: Any, x: Array, axis: int) -> tuple[Array, Array]:
    return _running(np, lambda a, b: a >= b, x, axis)


def cummin(np: Any, x: Array, axis: int) -> tuple[Array, Array]:
    return _running(np, lambda a, b: a <= b, x, axis)


def _running(np: Any, wins: Any, x: Array, axis: int) -> tuple[Array, Array]:
    """The last element up to each one that beats or equals all before it, and its place; a NaN beats all numbers."""
    rows = np.moveaxis(x, axis, 0)
    places = np.zeros(rows.shape, np.int64)
    best, place = rows[0] if len(rows) else None, 0
    for i, row in enumerate(rows):
        take = wins(row, best) | (row != row)
        best, place = np.where(take, row, best), np.where(take, i, place)
        places[i] = place
    places = np.moveaxis(places, 0, axis)
    return np.take_along_axis(x, places, axis), places


def logcumsumexp(np: Any, x: Array, axis: int) -> Array:
    def combine(a: Array, b: Array) -> Array:
        large, small = np.where(a > b, a, b), np.where(a > b, b, a)
        return large + np.log1p(np.exp(np.where(a == b, 0, small - large)))

    return _scan(np, combine, -np.inf, x, axis)


# ---- sorting ----


def sort(np: Any, x: Array, axis: int, descending: int) -> tuple[Array, Array]:
    """Stable, -0 before +0, NaN last; descending, the order reversed, but equal elements as they were."""
    signs = np.signbit(x) & (x == 0) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    rank = np.unique(x, return_inverse=True)[1].reshape(x.shape) * 2 + ~signs  # a NaN is the largest
    places = np.argsort(-rank if descending else rank, axis, kind="stable")
    return np.take_along_axis(x, places, axis), places


def topk(np: Any, x: Array, axis: int, k: int, descending: int) -> tuple[Array, Array]:
    values, places = sort(np, x, axis, descending)
    return np.take(values, range(k), axis), np.take(places, range(k), axis)


def kth(np: Any, x: Array, axis: int, k: int, nan_wins: int) -> tuple[Array, Array]:
    values, places = sort(np, x, axis, 0)
    value, place = np.take(values, [k], axis), np.take(places, [k], axis)
    if nan_wins and x.dtype.kind == "f":
        unknown = np.isnan(x)
        found = unknown.any(axis, keepdims=True)
        value = np.where(found, x.dtype.type(np.nan), value)
        place = np.where(found, unknown.argmax(axis, keepdims=True), place)
    return value, place


def searchsorted(np: Any, sequence: Array, x: Array, right: int) -> Array:
    rows = zip(sequence.reshape(-1, sequence.shape[-1]), x.reshape(-1, x.shape[-1]), strict=True)
    found = [np.searchsorted(row, numbers, "right" if right else "left") for row, numbers in rows]
    return np.array(found, np.int64).reshape(x.shape)


# ---- windows ----


def pool_extent(n: int, k: int, stride: int, pad: int, dilation: int, ceil_mode: int) -> int:
    """Windows along one axis; with ceil_mode the last one may hang over, if it starts inside the input or padding."""
    span = n + 2 * pad - dilation * (k - 1) - 1
    count = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= n + pad else count


def max_pool2d(
    np: Any, x: Array, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, ceil_mode: int
) -> tuple[Array, Array]:
    h, w = x.shape[2:]

    def taps(n: int, k: int, stride: int, pad: int, dilation: int) -> list[list[int]]:
        """What every window along an axis sees."""
        starts = (o * stride - pad for o in range(pool_extent(n, k, stride, pad, dilation, ceil_mode)))
        return [[p for t in range(k) if 0 <= (p := start + t * dilation) < n] for start in starts]

    return _largest(np, x, taps(h, kh, sh, ph, dh), taps(w, kw, sw, pw, dw))


def adaptive_max_pool2d(np: Any, x: Array, oh: int, ow: int) -> tuple[Array, Array]:
    h, w = x.shape[2:]
    return _largest(np, x, [range(*s) for s in _spans(h, oh)], [range(*s) for s in _spans(w, ow)])


def _largest(np: Any, x: Array, rows: list, columns: list) -> tuple[Array, Array]:
    """The largest element of every window and its place: the first of equals, but a NaN beats every number.

    Of a window that sees nothing they are -inf and -1.
    """
    best = np.full((*x.shape[:2], len(rows), len(columns)), -np.inf, x.dtype)
    where = np.full(best.shape, -1, np.int64)
    for oh, ow in np.ndindex(len(rows), len(columns)):
        at = (slice(None), slice(None), oh, ow)
        for y in rows[oh]:
            for z in columns[ow]:
                value = x[:, :, y, z]
                wins = (value > best[at]) | (np.isnan(value) & ~np.isnan(best[at])) | (where[at] < 0)
                best[at] = np.where(wins, value, best[at])
                where[at] = np.where(wins, y * x.shape[3] + z, where[at])
    return best, where


def max_pool2d_grad(np: Any, g: Array, index: Array, h: int, w: int) -> Array:
    n, c = g.shape[:2]
    out = np.zeros((n, c, h * w), g.dtype)
    for a, b in np.ndindex(n, c):
        seen = index[a, b] >= 0  # a window that sees nothing has the place -1
        np.add.at(out[a, b], index[a, b][seen], g[a, b][seen])
    return out.reshape(n, c, h, w)


def _avg_windows(h: int, w: int, size: tuple[int, int], geometry: tuple[int, ...]) -> list:
    """(output row, output column, row span, column span, divisor) of every window, in row-major order."""
    kh, kw, sh, sw, ph, pw, _, include_pad, override = geometry
    windows = []
    for oh in range(size[0]):
        for ow in range(size[1]):
            top, left = oh * sh - ph, ow * sw - pw
            bottom, right = min(top + kh, h + ph), min(left + kw, w + pw)
            area = (bottom - top) * (right - left)
            top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, h), min(right, w)
            inside = (bottom - top) * (right - left)
            windows.append((oh, ow, (top, bottom), (left, right), override or (area if include_pad else inside)))
    return windows


def _avg_size(h: int, w: int, geometry: tuple[int, ...]) -> tuple[int, int]:
    kh, kw, sh, sw, ph, pw, ceil_mode = geometry[:7]
    return pool_extent(h, kh, sh, ph, 1, ceil_mode), pool_extent(w, kw, sw, pw, 1, ceil_mode)


def _window_means(np: Any, x: Array, size: tuple[int, int], windows: list) -> Array:
    out = np.zeros((*x.shape[:2], *size), x.dtype)
    for oh, ow, rows, columns, divisor in windows:
        for i in range(*rows):
            for j in range(*columns):
                out[:, :, oh, ow] += x[:, :, i, j]
        out[:, :, oh, ow] /= x.dtype.type(divisor)
    return out


def _spread_means(np: Any, g: Array, h: int, w: int, windows: list) -> Array:
    out = np.zeros((*g.shape[:2], h, w), g.dtype)
    for oh, ow, rows, columns, divisor in windows:
        share = g[:, :, oh, ow] / g.dtype.type(divisor)
        out[:, :, slice(*rows), slice(*columns)] += share[:, :, None, None]
    return out


def avg_pool2d(np: Any, x: Array, *geometry: int) -> Array:
    h, w = x.shape[2:]
    size = _avg_size(h, w, geometry)
    return _window_means(np, x, size, _avg_windows(h, w, size, geometry))


def avg_pool2d_grad(np: Any, g: Array, *geometry: int) -> Array:
    h, w = geometry[-2:]
    return _spread_means(np, g, h, w, _avg_windows(h, w, g.shape[2:], geometry[:-2]))


def _spans(n: int, k: int) -> list[tuple[int, int]]:
    """k nearly equal windows that cover n positions."""
    return [(i * n // k, -((-(i + 1) * n) // k)) for i in range(k)]


def _adaptive_windows(h: int, w: int, size: tuple[int, int]) -> list:
    return [
        (oh, ow, rows, columns, (rows[1] - rows[0]) * (columns[1] - columns[0]))
        for oh, rows in enumerate(_spans(h, size[0]))
        for ow, columns in enumerate(_spans(w, size[1]))
    ]


def adaptive_avg_pool2d(np: Any, x: Array, oh: int, ow: int) -> Array:
    h, w = x.shape[2:]
    return _window_means(np, x, (oh, ow), _adaptive_windows(h, w, (oh, ow)))


def adaptive_avg_pool2d_grad(np: Any, g: Array, h: int, w: int) -> Array:
    return _spread_means(np, g, h, w, _adaptive_windows(h, w, g.shape[2:]))


# ---- indices ----


def _places(np: Any, shape: tuple[int, ...], index: Array, axis: int) -> tuple[Array, ...]:
    """Where along every axis each element of `index` points to."""
    places = list(np.indices(index.shape))
    places[axis] = np.where(index < 0, index + shape[axis], index)
    return tuple(places)


def gather(np: Any, x: Array, index: Array, axis: int) -> Array:
    return x[_places(np, x.shape, index, axis)]


def scatter_add(np: Any, x: Array, index: Array, src: Array, axis: int) -> Array:
    out = x.copy()
    np.add.at(out, _places(np, x.shape, index, axis), src[tuple(slice(n) for n in index.shape)])
    return out


def index_add(np: Any, x: Array, index: Array, src: Array, axis: int) -> Array:
    out = x.copy()
    np.add.at(out, (slice(None),) * axis + (index,), src)
    return out


def _split(rest: tuple) -> tuple[list, tuple[int, ...], int, tuple]:
    n = next(i for i, a in enumerate(rest) if isinstance(a, int))
    k = rest[n]
    return list(rest[:n]), rest[n + 1 : n + 1 + k], rest[n + 1 + k], rest[n + 2 + k :]


def _to_front(np: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """A view of x with the indexed axes first."""
    return np.moveaxis(x, axes, range(len(axes)))


def index_get(np: Any, x: Array, *rest: Any) -> Array:
    indices, axes, position, _ = _split(rest)
    picked = _to_front(np, x, axes)[tuple(indices)]
    rank = indices[0].ndim
    return np.moveaxis(picked, range(rank), range(position, position + rank))


def index_put(np: Any, x: Array, value: Array, *rest: Any) -> Array:
    indices, axes, position, (accumulate,) = _split(rest)
    out = x.copy()
    rank = indices[0].ndim
    target = _to_front(np, out, axes)
    source = np.moveaxis(value, range(position, position + rank), range(rank))
    for at in np.ndindex(indices[0].shape):
        place = tuple(i[at] for i in indices)
        target[place] = target[place] + source[at] if accumulate else source[at]
    return out


# ---- composites ----


def softmax(np: Any, x: Array, axis: int) -> Array:
    e = np.exp(x - np.max(x, axis, keepdims=True))
    return e / np.sum(e, axis, keepdims=True)


def logsumexp(np: Any, x: Array, axis: int) -> Array:
    largest = x.max(axis, keepdims=True)
    return np.log(np.exp(x - largest).sum(axis, keepdims=True)) + largest


def log_softmax(np: Any, x: Array, axis: int) -> Array:
    shifted = x - np.max(x, axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis, keepdims=True))


def cross_entropy(np: Any, x: Array, target: Array, axis: int, ignored: int) -> tuple[Array, Array, Array]:
    largest = np.max(x, axis, keepdims=True)
    log_sum = np.log(np.sum(np.exp(x - largest), axis, keepdims=True))
    at_target = np.take_along_axis(x, np.where(target == ignored, 0, target), axis)
    return np.where(target == ignored, 0, log_sum - (at_target - largest)), largest, log_sum


def cross_entropy_grad(
    np: Any, g: Array, x: Array, target: Array, largest: Array, log_sum: Array, axis: int, ignored: int
) -> Array:
    classes = np.arange(x.shape[axis]).reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    return np.where(target == ignored, 0, g) * (np.exp(x - largest - log_sum) - (classes == target))


def softmax_grad(np: Any, g: Array, y: Array, axis: int) -> Array:
    return y * (g - np.sum(g * y, axis, keepdims=True))


def log_softmax_grad(np: Any, g: Array, y: Array, axis: int) -> Array:
    return g - np.exp(y) * np.sum(g, axis, keepdims=True)


def layer_norm(np: Any, x: Array, weight: Array, bias: Array, eps_bits: int) -> Array:
    eps = double_of_bits(eps_bits)
    centred = x - np.mean(x, 1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, 1, keepdims=True) + eps) * weight + bias


def layer_norm_grad(np: Any, g: Array, x: Array, weight: Array, eps_bits: int) -> tuple[Array, Array, Array]:
    centred = x - np.mean(x, 1, keepdims=True)
    inverse = 1 / np.sqrt(np.mean(centred * centred, 1, keepdims=True) + double_of_bits(eps_bits))
    normal, scaled = centred * inverse, g * weight
    rest = scaled - np.mean(scaled, 1, keepdims=True) - normal * np.mean(scaled * normal, 1, keepdims=True)
    return inverse * rest, np.sum(g * normal, 0, keepdims=True), np.sum(g, 0, keepdims=True)


def channel_norm(np: Any, x: Array, weight: Array, bias: Array, axis: int, eps_bits: int) -> tuple[Array, ...]:
    mean, var = x.mean((axis, 3), keepdims=True), x.var((axis, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + double_of_bits(eps_bits)) * weight + bias, mean, var


def channel_norm_grad(
    np: Any, g: Array, x: Array, weight: Array, mean: Array, var: Array, axis: int, eps_bits: int
) -> tuple[Array, Array, Array]:
    deviation = np.sqrt(var + double_of_bits(eps_bits))
    normal, scaled, over = (x - mean) / deviation, g * weight, (axis, 3)
    means = scaled.mean(over, keepdims=True), (scaled * normal).mean(over, keepdims=True)
    sums = (g * normal).sum((0, 3), keepdims=True), g.sum((0, 3), keepdims=True)
    return (scaled - means[0] - normal * means[1]) / deviation, *sums


def rms_norm(np: Any, x: Array, weight: Array, eps_bits: int) -> Array:
    return x / np.sqrt(np.mean(x * x, 1, keepdims=True) + double_of_bits(eps_bits)) * weight


def rms_norm_grad(np: Any, g: Array, x: Array, weight: Array, eps_bits: int) -> tuple[Array, Array]:
    inverse = 1 / np.sqrt(np.mean(x * x, 1, keepdims=True) + double_of_bits(eps_bits))
    normal, scaled = x * inverse, g * weight
    by_x = inverse * (scaled - normal * np.mean(scaled * normal, 1, keepdims=True))
    return by_x, np.sum(g * normal, 0, keepdims=True)


def attention(
    np: Any, query: Array, key: Array, value: Array, mask: Array, draw: Array, causal: int, scale_bits: int,
    dropout_bits: int,
) -> tuple[Array, Array]:
    weights, logsumexp = _attention_weights(np, query, key, mask, causal, scale_bits)
    weights = weights * _dropout_factors(np, weights, draw, double_of_bits(dropout_bits))
    return weights @ value[:, :, None], logsumexp


def attention_grad(
    np: Any, grad: Array, query: Array, key: Array, value: Array, mask: Array, draw: Array, out: Array,
    logsumexp: Array, causal: int, scale_bits: int, dropout_bits: int,
) -> tuple[Array, Array, Array]:
    weights, _ = _attention_weights(np, query, key, mask, causal, scale_bits)
    factors = _dropout_factors(np, weights, draw, double_of_bits(dropout_bits))
    by_weight = grad @ np.swapaxes(value, -1, -2)[:, :, None] * factors
    mean = np.sum(grad * out, -1, keepdims=True)
    by_score = np.asarray(weights * (by_weight - mean) * double_of_bits(scale_bits), grad.dtype)
    return (
        by_score @ key[:, :, None],
        np.sum(np.swapaxes(by_score, -1, -2) @ query, 2),
        np.sum(np.swapaxes(weights * factors, -1, -2) @ grad, 2),
    )


def _dropout_factors(np: Any, weights: Array, draw: Array, chance: float) -> Any:
    if chance == 0:
        return 1
    text = "f32" if weights.dtype == np.float32 else "f64"
    uniform = expressions.uniform(
        scalar.arg(0, "i64"), scalar.arg(1, "i64"), scalar.const(0, text), scalar.const(1, text)
    )
    (drawn,) = to_numpy.evaluate([uniform], list(draw), np, lambda a, b, c: a * b + c, weights.shape)
    stays = np.asarray(1 / (1 - chance) if chance < 1 else 0, weights.dtype)
    return np.where(drawn >= np.asarray(chance, weights.dtype), stays, 0)


def _attention_weights(
    np: Any, query: Array, key: Array, mask: Array, causal: int, scale_bits: int
) -> tuple[Array, Array]:
    """The softmax of the scores, zeros where no key is seen, and the logarithms of its sums."""
    scaled = query * np.asarray(double_of_bits(scale_bits), query.dtype)
    scores = scaled @ np.swapaxes(key, -1, -2)[:, :, None] + mask
    if causal:
        scores = np.where(np.tri(scores.shape[-2], scores.shape[-1], dtype=bool), scores, -np.inf)
    largest = np.max(scores, -1, keepdims=True, initial=-np.inf)
    shift = np.where(largest == -np.inf, 0, largest)
    weights = np.exp(scores - shift)
    total = np.sum(weights, -1, keepdims=True)
    with np.errstate(divide="ignore"):
        logsumexp = (np.log(total) + shift)[..., 0]
    return np.asarray(weights / np.where(total == 0, 1, total), query.dtype), np.asarray(logsumexp, query.dtype)
