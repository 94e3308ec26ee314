"""What the three convolutions mean (ARCHITECTURE.md, section 3) in plain NumPy, and graphs of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps

import numpy as np
from ir.programs import Tape, View

from neurlang.ops.shapes import winograd_tile, winograd_tile_input, winograd_tile_weight

from .contraction import Array, dot, fma


@dataclass
class Geometry:
    """A convolution of `images` [n, groups * channels, height, width] with windows of size `kernel`."""

    images: tuple[int, int, int, int]
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    tile: int = 2  # the largest of Winograd's that is allowed

    @property
    def maps(self) -> tuple[int, int, int, int]:
        sizes = zip(self.images[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        y, x = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
        return self.images[0], self.outputs, y, x

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return self.outputs, self.images[1] // self.groups, *self.kernel

    @property
    def attributes(self) -> tuple[int, ...]:
        return *self.stride, *self.padding, *self.dilation, self.groups, self.tile


def pair(rng: np.random.Generator, *choices: int) -> tuple[int, int]:
    """Two independent ones of the choices."""
    return int(rng.choice(choices)), int(rng.choice(choices))


def until_windows_fit(draw: Callable[[np.random.Generator], Geometry]) -> Callable[[np.random.Generator], Geometry]:
    """Draws again and again, until there is a window that lies within the padded images."""

    @wraps(draw)
    def fitting(rng: np.random.Generator) -> Geometry:
        return next(g for g in iter(lambda: draw(rng), None) if min(g.maps[2:]) >= 1)

    return fitting


def padded(g: Geometry, x: Array) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in g.padding)))


def window(g: Geometry, x: Array, v: int, u: int) -> Array:
    """What tap (v, u) sees at every output pixel of padded images."""
    y0, x0 = v * g.dilation[0], u * g.dilation[1]
    rows, columns = g.maps[2:]
    return x[:, :, y0 : y0 + rows * g.stride[0] : g.stride[0], x0 : x0 + columns * g.stride[1] : g.stride[1]]


def group_slice(g: Geometry, channels: int, group: int) -> slice:
    size = channels // g.groups
    return slice(group * size, (group + 1) * size)


def forward(g: Geometry, x: Array, w: Array) -> Array:
    """k runs over kernel row, kernel column, channel of the group."""
    tile = winograd_tile(x.dtype.name, w.shape[1], g.outputs // g.groups, *g.maps[2:], g.kernel, g.attributes)
    if tile > 1:
        return winograd(x, w, "large" if tile == 4 else f"stride {g.stride[0]}", g.padding, g.groups, g.maps[2:])
    x, out = padded(g, x), np.empty(g.maps, x.dtype)
    for group in range(g.groups):
        inputs, outputs = group_slice(g, x.shape[1], group), group_slice(g, g.outputs, group)
        products = (
            (window(g, x[:, inputs], v, u)[:, c, None], w[None, outputs, c, v, u, None, None])
            for v, u in np.ndindex(g.kernel)
            for c in range(w.shape[1])
        )
        out[:, outputs] = dot(products, out[:, outputs].shape, x.dtype)
    return out


def input_gradient(g: Geometry, maps: Array, w: Array) -> Array:
    """At each position k runs over the taps that meet a window there, then output channels; maps are zero outside."""
    tile = winograd_tile_input(
        maps.dtype.name, g.outputs // g.groups, w.shape[1], *g.images[2:], g.kernel, g.attributes
    )
    if tile > 1:
        turned = np.flip(w, (2, 3)).reshape(g.groups, -1, *w.shape[1:]).swapaxes(1, 2).reshape(g.images[1], -1, 3, 3)
        if g.stride == (2, 2):
            return winograd(maps, turned, "gradient, stride 2", (0, 0), g.groups, g.images[2:])
        form = "large" if tile == 4 else "stride 1"
        return winograd(maps, turned, form, (2 - g.padding[0], 2 - g.padding[1]), g.groups, g.images[2:])
    out = np.empty(g.images, maps.dtype)
    for y, x in np.ndindex(g.images[2:]):
        taps = []
        for v, u in np.ndindex(g.kernel):
            at = (y + g.padding[0] - v * g.dilation[0], x + g.padding[1] - u * g.dilation[1])
            if at[0] % g.stride[0] == 0 and at[1] % g.stride[1] == 0:
                taps.append((v, u, at[0] // g.stride[0], at[1] // g.stride[1]))
        for group in range(g.groups):
            inputs, outputs = group_slice(g, g.images[1], group), group_slice(g, g.outputs, group)
            products = (
                (_pixel(maps[:, outputs], i, j)[:, o, None], w[None, outputs][:, o, :, v, u])
                for v, u, i, j in taps
                for o in range(g.outputs // g.groups)
            )
            out[:, inputs, y, x] = dot(products, out[:, inputs, y, x].shape, maps.dtype)
    return out


def _pixel(maps: Array, i: int, j: int) -> Array:
    inside = 0 <= i < maps.shape[2] and 0 <= j < maps.shape[3]
    return maps[:, :, i, j] if inside else np.zeros(maps.shape[:2], maps.dtype)


def large_inputs(x: Array) -> list[Array]:
    """Of the points 0, ±2/3, ±3/2 and infinity."""
    near = [plus(-9 / 4, x[i], x[i + 2]) for i in (2, 1)]
    far = [plus(-4 / 9, x[i], x[i + 2]) for i in (2, 1)]
    ends = [plus(-97 / 36, x[i + 2], x[i] + x[i + 4]) for i in (0, 1)]
    pairs = [plus(sign * p, odds, evens) for p, (evens, odds) in ((2 / 3, near), (3 / 2, far)) for sign in (1, -1)]
    return [ends[0], *pairs, ends[1]]


def large_weights(g: Array) -> list[Array]:
    near, far = (plus(3 / 2, g[i], np.float32(2 / 3) * g[2 - i]) for i in (0, 2))
    scale = np.float32(18 / 65)
    return [g[0], (near + g[1]) * -scale, (near - g[1]) * -scale, (far + g[1]) * scale, (far - g[1]) * scale, g[2]]


def large_elements(m: Array) -> list[Array]:
    near, far, near_odds, far_odds = m[1] + m[2], m[3] + m[4], m[1] - m[2], m[3] - m[4]
    return [
        plus(2 / 3, far, plus(3 / 2, near, m[0])),
        near_odds + far_odds,
        plus(3 / 2, far, np.float32(2 / 3) * near),
        plus(9 / 4, far_odds, plus(4 / 9, near_odds, m[5])),
    ]


def plus(factor: float, x: Array, y: Array) -> Array:
    return fma(x.dtype.type(factor), x, y)


# Winograd's transforms of inputs, weights and elements, term by term in the order of their additions, or as functions;
# the inputs from one tile to the next, and that a tile sees, and its results.
TRANSFORMS = {
    "large": (large_inputs, large_weights, large_elements, 4, 6, 4),
    "stride 1": ("+0-2 +1+2 +2-1 +1-3", "+0 +0+2+1 +0+2-1 +2", "+0+1+2 +1-2-3", 2, 4, 2),
    "stride 2": ("+0-2 +2 +2-4 +1 +3", "+0 +0+2 +2 +1 +1", "+0+1+3 +1-2+4", 4, 5, 2),
    "gradient, stride 2": ("+0-1 +1 +2-1 +0 +1", "+0 +0+2 +2 +1 +1", "+3 +0+1 +4 +1+2", 2, 3, 4),
}
HALVED = ("+0+2+1", "+0+2-1")


def transformed(terms: str | Callable[[Array], list[Array]], grid: Array) -> Array:
    """Along the rows of the last two axes, then down the columns."""
    for axis in (-1, -2):
        numbers = np.moveaxis(grid, axis, 0)
        of_row = terms(numbers) if callable(terms) else [combined(term, numbers) for term in terms.split()]
        grid = np.stack(of_row, axis)
    return grid


def combined(term: str, numbers: Array) -> Array:
    (_, first), *others = re.findall("([+-])([0-4])", term)
    total = numbers[int(first)]
    for sign, i in others:
        total = total + numbers[int(i)] if sign == "+" else total - numbers[int(i)]
    return total * total.dtype.type(0.5) if term in HALVED else total


def winograd(x: Array, w: Array, form: str, padding: tuple[int, int], groups: int, size: Sequence[int]) -> Array:
    """Every tile of results from the inputs that it sees, with zeros beyond the image."""
    of_inputs, of_weights, of_elements, step, seen, own = TRANSFORMS[form]
    (py, px), (o, c) = padding, w.shape[:2]
    x = np.pad(x, ((0, 0), (0, 0), (py, py + step), (px, px + step)))
    weights, out = transformed(of_weights, w), np.empty((len(x), o, size[0] + 3, size[1] + 3), x.dtype)
    for i, j in np.ndindex((size[0] - 1) // own + 1, (size[1] - 1) // own + 1):
        inputs = transformed(of_inputs, x[:, :, step * i : step * i + seen, step * j : step * j + seen])
        for group in range(groups):
            outputs = slice(group * (o // groups), (group + 1) * (o // groups))
            products = ((inputs[:, None, group * c + k], weights[None, outputs, k]) for k in range(c))
            elements = dot(products, (len(x), o // groups, *weights.shape[2:]), x.dtype)
            out[:, outputs, own * i : own * i + own, own * j : own * j + own] = transformed(of_elements, elements)
    return out[:, :, : size[0], : size[1]]


# Of the weight gradient's maps, and of its sums of elements.
WEIGHT_TRANSFORMS = {
    1: ("+0 +0+1 +0-1 +1", lambda m: (m[0] + (m[1] + m[2]) / 2, (m[1] - m[2]) / 2, (m[1] + m[2]) / 2 - m[3])),
    2: ("+0 +0+1 +1 +0 +1", lambda m: (m[0] + m[1], m[3] + m[4], m[1] - m[2])),
}


def winograd_weight(g: Geometry, x: Array, maps: Array) -> Array:
    """k runs over the tiles of 2x2 pixels of the maps; images and maps are transformed down the columns first."""
    (n, _, rows, columns), (py, px), stride = maps.shape, g.padding, g.stride[0]
    step, seen, (of_maps, collected) = 2 * stride, 3 + stride, WEIGHT_TRANSFORMS[stride]
    x = x[:, :, : (rows - 1) * stride + 3 - py, : (columns - 1) * stride + 3 - px]  # the last window ends here
    x = np.pad(x, ((0, 0), (0, 0), (py, py + step), (px, px + step))).swapaxes(2, 3)
    maps, out = np.pad(maps, ((0, 0), (0, 0), (0, 1), (0, 1))).swapaxes(2, 3), np.empty(g.weight, x.dtype)
    for group in range(g.groups):
        inputs, outputs = group_slice(g, x.shape[1], group), group_slice(g, g.outputs, group)
        products = (
            (
                transformed(of_maps, maps[k, outputs, None, 2 * j : 2 * j + 2, 2 * i : 2 * i + 2]),
                transformed(
                    TRANSFORMS[f"stride {stride}"][0],
                    x[k, inputs, step * j : step * j + seen, step * i : step * i + seen],
                ),
            )
            for k, i, j in np.ndindex(n, (rows + 1) // 2, (columns + 1) // 2)
        )
        sums = dot(products, (*out[outputs].shape[:2], seen, seen), x.dtype).swapaxes(2, 3)
        along = np.stack(collected(np.moveaxis(sums, -1, 0)), -1)
        out[outputs] = np.stack(collected(np.moveaxis(along, -2, 0)), -2)
    return out


def weight_gradient(g: Geometry, x: Array, maps: Array) -> Array:
    """k runs over image, output row, output column."""
    if winograd_tile_weight(x.dtype.name, g.weight[1], g.outputs // g.groups, *g.maps[2:], g.kernel, g.attributes) > 1:
        return winograd_weight(g, x, maps)
    x, out = padded(g, x), np.empty(g.weight, x.dtype)
    for v, u in np.ndindex(g.kernel):
        seen = window(g, x, v, u)
        for group in range(g.groups):
            inputs, outputs = group_slice(g, x.shape[1], group), group_slice(g, g.outputs, group)
            products = (
                (maps[n, outputs, i, j, None], seen[n, None, inputs, i, j])
                for n, i, j in np.ndindex(g.maps[0], *g.maps[2:])
            )
            out[outputs, :, v, u] = dot(products, out[outputs, :, v, u].shape, x.dtype)
    return out


# ---- graphs ----


def record(g: Geometry, dtype: str, layout: str, negated: bool, op: str = "conv2d") -> Tape:
    """Between images whose channels lie first or last; a negation behind it is an epilogue, on every element once."""
    t, forward = Tape(), op == "conv2d"
    seen, made = (g.images, g.maps) if forward else (g.maps, g.images)
    x, w = t.leaf(dtype, seen), t.leaf(dtype, g.weight)
    out = t.fresh(dtype, made, live=not negated)
    x, out = (last(v) if lies == "last" else v for v, lies in zip((x, out), layout.split(" to "), strict=True))
    t.write(op, [x, w], [out], g.attributes if forward else (*g.attributes, *g.images[2:]))
    if negated:
        t.write("neg", [out], [replace(out, slot=t.fresh(dtype, made, live=True).slot)])
    return t


def last(x: View) -> View:
    """Images with their channels last; those of a single pixel are so anyway."""
    _, c, h, w = x.shape
    return replace(x, strides=(h * w * c, 1, w * c, c)) if h * w > 1 else x
