"""What the bits are: reductions and contractions in NumPy, word for word from their definitions.

Slow and plain. `fma(a, b, c)` is given from outside: fused on a level that has the instruction, a * b + c on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..ops.shapes import winograd_tile, winograd_tile_input, winograd_tile_weight
from .kernel import BLOCK, LANES

Array = Any
Fma = Callable[[Array, Array, Array], Array]
DOT_BLOCK = 256  # elements of k in one chain of fma


# ---- T(n) -------------------------------------------------------------------------------------------------------


def tree(step: Callable[[Array, int], Array], n: int, combine: Callable[[Array, Array], Array], zero: Array) -> Array:
    """T(n) over the leading axis: `step(lanes, i)` adds elements i … i + 31 (missing ones are neutral) to 32 lanes."""
    blocks = []
    for start in range(0, max(n, 1), BLOCK):
        lanes = np.stack([zero] * LANES)
        for i in range(start, min(start + BLOCK, n), LANES):
            lanes = step(lanes, i)
        half = LANES // 2
        while half:
            lanes = combine(lanes[:half], lanes[half : 2 * half])
            half //= 2
        blocks.append(lanes[0])
    while len(blocks) > 1:
        pairs = [combine(a, b) for a, b in zip(blocks[::2], blocks[1::2], strict=False)]
        blocks = pairs + blocks[len(blocks) - len(blocks) % 2 :]
    return blocks[0]


def _padded(x: Array, neutral: float) -> Array:
    """The leading axis filled up to whole steps of 32."""
    missing = -len(x) % LANES
    return np.concatenate([x, np.full((missing, *x.shape[1:]), neutral, x.dtype)])


def _tree_of(x: Array, combine: Callable[[Array, Array], Array], neutral: float) -> Array:
    padded = _padded(x, neutral)
    zero = np.full(x.shape[1:], neutral, x.dtype)
    return tree(lambda lanes, i: combine(lanes, padded[i : i + LANES]), len(x), combine, zero)


def tree_dot(a: Array, b: Array, fma: Fma) -> Array:
    """T(n) of products over the leading axis, with fma as the step of a lane."""
    a, b = np.broadcast_arrays(a, b)

    def step(lanes: Array, i: int) -> Array:
        x, y = a[i : i + LANES], b[i : i + LANES]
        return np.concatenate([fma(x, y, lanes[: len(x)]), lanes[len(x) :]])  # the last step may leave lanes out

    return tree(step, len(a), np.add, np.zeros(a.shape[1:], a.dtype))


# ---- reductions -------------------------------------------------------------------------------------------------


def maximum(a: Array, b: Array) -> Array:
    """-0 < +0; any NaN gives NaN."""
    return _extremum(a, b, np.maximum, lambda x, y: np.where(np.signbit(x), y, x))


def minimum(a: Array, b: Array) -> Array:
    return _extremum(a, b, np.minimum, lambda x, y: np.where(np.signbit(x), x, y))


def _extremum(
    a: Array, b: Array, plain: Callable[[Array, Array], Array], of_zeros: Callable[[Array, Array], Array]
) -> Array:
    if a.dtype.kind != "f":
        return plain(a, b)
    return np.where((a == 0) & (b == 0), of_zeros(a, b), plain(a, b))


def reduce(monoid: str, x: Array, axis: int) -> Array:
    """One reduction over one axis, which keeps extent 1."""
    lead = np.moveaxis(x, axis, 0)
    result = _REDUCE[monoid](lead)
    return np.moveaxis(np.asarray(result)[None], 0, axis)


def _sum(x: Array) -> Array:
    return _tree_of(x, np.add, 0) if x.dtype.kind == "f" else x.astype(np.int64).sum(0, dtype=np.int64)


def _prod(x: Array) -> Array:
    return _tree_of(x, np.multiply, 1) if x.dtype.kind == "f" else x.astype(np.int64).prod(0, dtype=np.int64)


def _lowest(dtype: Any) -> Any:
    """What a maximum of nothing is."""
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _highest(dtype: Any) -> Any:
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


def _fold(combine: Callable[[Array, Array], Array], nothing: Callable[[Any], Any]) -> Callable[[Array], Array]:
    def fold(x: Array) -> Array:
        result = np.full(x.shape[1:], nothing(x.dtype), x.dtype)
        for row in x:
            result = combine(result, row)
        return result

    return fold


def _arg(plain: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The first index of the extremum; a NaN counts as it."""

    def arg(x: Array) -> Array:
        if len(x) == 0:
            return np.zeros(x.shape[1:], np.int64)
        best = np.asarray(plain(x))
        if x.dtype.kind == "f":
            nan = np.isnan(x)
            best = np.where(nan.any(0), nan.argmax(0), best)
        return best.astype(np.int64)

    return arg


_REDUCE: dict[str, Callable[[Array], Array]] = {
    "sum": _sum,
    "prod": _prod,
    "max": _fold(maximum, _lowest),
    "min": _fold(minimum, _highest),
    "argmax": _arg(lambda x: x.argmax(0)),
    "argmin": _arg(lambda x: x.argmin(0)),
    "any": lambda x: (x != 0).any(0),
    "all": lambda x: (x != 0).all(0),
}


# ---- contractions -----------------------------------------------------------------------------------------------


def dot(pairs: Iterator[tuple[Array, Array]], shape: tuple[int, ...], dtype: Any, fma: Fma) -> Array:
    """Chains of 256 fma from +0; the results of the chains are added in order."""
    total, chain, length = None, np.zeros(shape, dtype), 0
    for a, b in pairs:
        if length == DOT_BLOCK:
            total = chain if total is None else total + chain
            chain, length = np.zeros(shape, dtype), 0
        chain, length = fma(a, b, chain), length + 1
    return chain if total is None else total + chain


def matmul(a: Array, b: Array, attrs: Sequence[int], fma: Fma) -> Array:
    """[..., M, K] x [..., K, N]: `dot`, but T(K) when M or N is 1; integers exactly."""
    rows, columns, depth = a.shape[-2], b.shape[-1], a.shape[-1]
    if a.dtype.kind != "f":
        return np.matmul(a, b)
    if rows == 1 or columns == 1:
        left, right = np.moveaxis(a, -1, 0)[..., None], np.moveaxis(b, -2, 0)[..., None, :]
        return tree_dot(left, right, fma)
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), rows, columns)
    return dot(((a[..., :, k, None], b[..., None, k, :]) for k in range(depth)), shape, a.dtype, fma)


def index_matmul(index: Array, a: Array, b: Array, attrs: Sequence[int], fma: Fma) -> Array:
    """The product of the rows that `index` names."""
    return matmul(np.take(a, index, 0), b, attrs, fma)


def conv2d(x: Array, w: Array, attrs: Sequence[int], fma: Fma) -> Array:
    """k runs over kh, kw, channel within the group; padding contributes zeros. Some shapes are Winograd's."""
    sh, sw, ph, pw, dh, dw, groups, _ = attrs
    n, _, height, width = x.shape
    o, c, kh, kw = w.shape
    oh, ow = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    tile = winograd_tile(x.dtype.name, c, o // groups, oh, ow, (kh, kw), attrs)
    if tile > 1:
        by = _TRANSFORMS[sh] if tile == 2 else _large_transforms(fma)
        return winograd(x, w, by, (ph, pw), (oh, ow), groups, fma)
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))).reshape(n, groups, c, height + 2 * ph, width + 2 * pw)
    kernels = w.reshape(groups, o // groups, c, kh, kw)

    def pairs() -> Iterator[tuple[Array, Array]]:
        for r in range(kh):
            for q in range(kw):
                patch = padded[..., r * dh : r * dh + sh * (oh - 1) + 1 : sh, q * dw : q * dw + sw * (ow - 1) + 1 : sw]
                for k in range(c):
                    yield kernels[None, :, :, k, r, q, None, None], patch[:, :, k, None]

    return dot(pairs(), (n, groups, o // groups, oh, ow), x.dtype, fma).reshape(n, o, oh, ow)


def conv2d_input(g: Array, w: Array, attrs: Sequence[int], fma: Fma) -> Array:
    """k runs over kh, kw, output channel; a tap that falls between strides is skipped, one beyond the edge is zero.

    A shape of Winograd's class is a convolution with every kernel turned around, channels and outputs exchanged.
    """
    sh, sw, ph, pw, dh, dw, groups, _, height, width = attrs
    n, o, oh, ow = g.shape
    c, kh, kw = w.shape[1:]
    tile = winograd_tile_input(g.dtype.name, o // groups, c, height, width, (kh, kw), attrs)
    if tile > 1:
        by = _GRADIENT_TRANSFORMS if sh == 2 else _TRANSFORMS[1] if tile == 2 else _large_transforms(fma)
        padding = (2 - ph) // sh, (2 - pw) // sw
        turned = w.reshape(groups, o // groups, c, kh, kw).swapaxes(1, 2)[..., ::-1, ::-1]
        return winograd(g, turned.reshape(groups * c, -1, kh, kw), by, padding, (height, width), groups, fma)
    out = np.zeros((n, groups * c, height, width), g.dtype)
    grads, kernels = g.reshape(n, groups, o // groups, oh, ow), w.reshape(groups, o // groups, c, kh, kw)
    for y in range(height):
        for x in range(width):
            taps = [
                (r, q, (y + ph - r * dh) // sh, (x + pw - q * dw) // sw)
                for r in range(kh)
                for q in range(kw)
                if (y + ph - r * dh) % sh == 0 and (x + pw - q * dw) % sw == 0
            ]
            out[:, :, y, x] = dot(_input_pairs(grads, kernels, taps), (n, groups, c), g.dtype, fma).reshape(n, -1)
    return out


def _input_pairs(g: Array, w: Array, taps: list[tuple[int, int, int, int]]) -> Iterator[tuple[Array, Array]]:
    n, groups, o, oh, ow = g.shape
    for r, q, y, x in taps:
        inside = 0 <= y < oh and 0 <= x < ow
        for k in range(o):
            value = g[:, :, k, y, x] if inside else np.zeros((n, groups), g.dtype)
            yield value[:, :, None], w[None, :, k, :, r, q]


def conv2d_weight(x: Array, g: Array, attrs: Sequence[int], fma: Fma) -> Array:
    """k runs over image, output row, output column. Some shapes are Winograd's."""
    sh, sw, ph, pw, dh, dw, groups, _, kh, kw = attrs
    n, channels, height, width = x.shape
    o, oh, ow = g.shape[1:]
    c = channels // groups
    if winograd_tile_weight(x.dtype.name, c, o // groups, oh, ow, (kh, kw), attrs) > 1:
        return winograd_weight(x, g, sh, (ph, pw), groups, fma)
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))).reshape(n, groups, c, height + 2 * ph, width + 2 * pw)
    grads = g.reshape(n, groups, o // groups, oh, ow)
    rows, columns = np.arange(kh) * dh, np.arange(kw) * dw

    def pairs() -> Iterator[tuple[Array, Array]]:
        for i in range(n):
            for y in range(oh):
                for q in range(ow):
                    patch = padded[i][:, :, (y * sh + rows)[:, None], (q * sw + columns)[None, :]]
                    yield grads[i, :, :, y, q, None, None, None], patch[:, None]

    return dot(pairs(), (groups, o // groups, c, kh, kw), x.dtype, fma).reshape(o, c, kh, kw)


# ---- Winograd ---------------------------------------------------------------------------------------------------


class Transforms(NamedTuple):
    """Transforms for tiles of results x results, which see seen x seen inputs, `step` apart."""

    results: int
    seen: int
    step: int
    spread_inputs: Callable[..., tuple]
    spread_weights: Callable[..., tuple]
    collect: Callable[..., tuple]


def winograd(
    x: Array, w: Array, by: Transforms, padding: tuple[int, int], size: tuple[int, int], groups: int, fma: Fma
) -> Array:
    """Results of this size of a 3x3 kernel, by tiles; beyond the image there are zeros.

    A tile's inputs and the weights are transformed to as many elements, each of which is a `dot` over the channels of
    its own.
    """
    (n, _), (o, c), own = x.shape[:2], w.shape[:2], by.results
    th, tw = ((extent + own - 1) // own for extent in size)
    inputs = _both_ways(by.spread_inputs, _tiles(x, by.seen, by.step, padding, (th, tw)))
    weights = _both_ways(by.spread_weights, [[w[:, :, i, j] for j in range(3)] for i in range(3)])
    side = range(len(weights))

    def products(i: int, j: int) -> Array:
        left = weights[i][j].reshape(groups, o // groups, c, 1, 1)
        right = inputs[i][j].reshape(n, groups, c, th, tw)
        pairs = ((left[None, :, :, k], right[:, :, k, None]) for k in range(c))
        return dot(pairs, (n, groups, o // groups, th, tw), x.dtype, fma)

    results = _both_ways(by.collect, [[products(i, j) for j in side] for i in side])
    out = np.empty((n, o, own * th, own * tw), x.dtype)
    for i in range(own):
        for j in range(own):
            out[:, :, i::own, j::own] = results[i][j].reshape(n, o, th, tw)
    return out[:, :, : size[0], : size[1]]


def winograd_weight(x: Array, g: Array, stride: int, padding: tuple[int, int], groups: int, fma: Fma) -> Array:
    """The gradient by a 3x3 kernel: each element of the tiles is a `dot` whose k runs over image, row, column of tiles.

    Images and maps are transformed down the columns first, sums along the rows. What no window sees counts as zeros.
    """
    height, width = ((extent - 1) * stride + 3 - p for extent, p in zip(g.shape[2:], padding, strict=True))
    x = x[:, :, :height, :width]
    n, c, o = len(x), x.shape[1] // groups, g.shape[1] // groups
    count = (g.shape[2] + 1) // 2, (g.shape[3] + 1) // 2
    spread_inputs, (spread_maps, collect) = _TRANSFORMS[stride].spread_inputs, _WEIGHT_TRANSFORMS[stride]
    side = 3 + stride
    inputs = _turned(_both_ways(spread_inputs, _turned(_tiles(x, side, 2 * stride, padding, count))))
    maps = _turned(_both_ways(spread_maps, _turned(_tiles(g, 2, 2, (0, 0), count))))

    def sums(i: int, j: int) -> Array:
        left = maps[i][j].reshape(n, groups, o, 1, *count)
        right = inputs[i][j].reshape(n, groups, 1, c, *count)
        pairs = ((left[k, ..., y, q], right[k, ..., y, q]) for k, y, q in np.ndindex(n, *count))
        return dot(pairs, (groups, o, c), x.dtype, fma)

    taps = _both_ways(collect, [[sums(i, j) for j in range(side)] for i in range(side)])
    return np.stack([tap for row in taps for tap in row], -1).reshape(groups * o, c, 3, 3)


def _tiles(x: Array, side: int, step: int, padding: tuple[int, int], count: tuple[int, int]) -> list[list[Array]]:
    """What each of count[0] x count[1] tiles sees, `step` apart: side x side arrays of one element of all tiles."""
    (ph, pw), (th, tw) = padding, count
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph + step), (pw, pw + step)))
    return [[x[:, :, i:, j:][:, :, ::step, ::step][:, :, :th, :tw] for j in range(side)] for i in range(side)]


def _turned(grid: Sequence[Sequence[Array]]) -> list[Sequence[Array]]:
    return list(zip(*grid, strict=True))


def _both_ways(transform: Callable[..., tuple], grid: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
    """The transform of every row, then of every column of what that gave."""
    rows = [transform(*row) for row in grid]
    return _turned([transform(*column) for column in _turned(rows)])


# Of convolutions, by stride.
_TRANSFORMS: dict[int, Transforms] = {
    1: Transforms(
        2, 4, 2,
        lambda a, b, c, d: (a - c, b + c, c - b, b - d),
        lambda a, b, c: (a, ((a + c) + b) * a.dtype.type(0.5), ((a + c) - b) * a.dtype.type(0.5), c),
        lambda a, b, c, d: ((a + b) + c, (b - c) - d),
    ),
    2: Transforms(
        2, 5, 4,
        lambda a, b, c, d, e: (a - c, c, c - e, b, d),
        lambda a, b, c: (a, a + c, c, b, b),
        lambda a, b, c, d, e: ((a + b) + d, (b - c) + e),
    ),
}  # fmt: skip
# Of the gradient by the input at stride 2, with the kernel turned around.
_GRADIENT_TRANSFORMS = Transforms(
    4, 3, 2,
    lambda a, b, c: (a - b, b, c - b, a, b),
    _TRANSFORMS[2].spread_weights,
    lambda a, b, c, d, e: (d, a + b, e, b + c),
)  # fmt: skip


def _large_transforms(fma: Fma) -> Transforms:
    """Of tiles of 4x4 results at stride 1; its points are 0, ±2/3, ±3/2 and infinity."""

    def pair(point: float, square: float, a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
        odds, evens = _plus(fma, -square, a, c), _plus(fma, -square, b, d)
        return _plus(fma, point, odds, evens), _plus(fma, -point, odds, evens)

    def spread_inputs(a: Array, b: Array, c: Array, d: Array, e: Array, f: Array) -> tuple[Array, ...]:
        first, last = _plus(fma, -97 / 36, c, a + e), _plus(fma, -97 / 36, d, b + f)
        return first, *pair(2 / 3, 9 / 4, b, c, d, e), *pair(3 / 2, 4 / 9, b, c, d, e), last

    def spread_weights(a: Array, b: Array, c: Array) -> tuple[Array, ...]:
        two_thirds, scale = a.dtype.type(2 / 3), a.dtype.type(18 / 65)
        near, far = _plus(fma, 3 / 2, a, two_thirds * c), _plus(fma, 3 / 2, c, two_thirds * a)
        return a, (near + b) * -scale, (near - b) * -scale, (far + b) * scale, (far - b) * scale, c

    def collect(a: Array, b: Array, c: Array, d: Array, e: Array, f: Array) -> tuple[Array, ...]:
        near, far = b + c, d + e
        third = _plus(fma, 3 / 2, far, near.dtype.type(2 / 3) * near)
        last = _plus(fma, 9 / 4, d - e, _plus(fma, 4 / 9, b - c, f))
        return _plus(fma, 2 / 3, far, _plus(fma, 3 / 2, near, a)), (b - c) + (d - e), third, last

    return Transforms(4, 6, 4, spread_inputs, spread_weights, collect)


def _plus(fma: Fma, factor: float, x: Array, y: Array) -> Array:
    """factor x + y, the factor rounded to their dtype."""
    return fma(x.dtype.type(factor), x, y)


# Of maps and of elements' sums.
_WEIGHT_TRANSFORMS: dict[int, tuple[Callable[..., tuple], Callable[..., tuple]]] = {
    1: (
        lambda a, b: (a, a + b, a - b, b),
        lambda a, b, c, d: (
            a + (b + c) * a.dtype.type(0.5),
            (b - c) * a.dtype.type(0.5),
            (b + c) * a.dtype.type(0.5) - d,
        ),
    ),
    2: (lambda a, b: (a, a + b, b, a, b), lambda a, b, c, d, e: (a + b, d + e, b - c)),
}


CONTRACTIONS: dict[str, Callable[..., Array]] = {
    "matmul": matmul,
    "index_matmul": index_matmul,
    "conv2d": conv2d,
    "conv2d_input": conv2d_input,
    "conv2d_weight": conv2d_weight,
}
