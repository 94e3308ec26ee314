"""The three convolutions against their definitions, bit for bit: random geometry, layouts, groups, threads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from bounds import LARGE_TILES_GAIN, LARGE_TILES_GROWTH, assert_close

import neurlang as nl
from neurlang import _tensor
from neurlang.ir import definitions
from neurlang.ops.shapes import winograd_tile, winograd_tile_input, winograd_tile_weight

from .contraction import Array, assert_same_bits, dot, fma, normal, tensor
from .reduction import on_all_threads

pytestmark = [pytest.mark.usefixtures("threads"), pytest.mark.parametrize("threads", [1, 2, 3, 8], indirect=True)]


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


def check(g: Geometry, rng: np.random.Generator, dtype: type, rows: str = "forward input weight") -> None:
    x, w, maps = normal(rng, g.images, dtype), normal(rng, g.weight, dtype), normal(rng, g.maps, dtype)
    with np.errstate(all="ignore"):
        if "forward" in rows:
            got = _tensor._conv2d(tensor(x), tensor(w), *g.attributes)
            assert_same_bits(got.numpy(), forward(g, x, w))
        if "input" in rows:
            got = _tensor._conv2d_input(tensor(maps), tensor(w), *g.attributes, *g.images[2:])
            assert_same_bits(got.numpy(), input_gradient(g, maps, w))
        if "weight" in rows:
            got = _tensor._conv2d_weight(tensor(x), tensor(maps), *g.attributes, *g.kernel)
            assert_same_bits(got.numpy(), weight_gradient(g, x, maps))


def random_geometry(rng: np.random.Generator) -> Geometry:
    def pair(choices: list[int]) -> tuple[int, int]:
        return int(rng.choice(choices)), int(rng.choice(choices))

    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3, 17]))
        channels = int(rng.choice([1, 1, 2, 3, 5, 16, 33])) if groups < 17 else 1
        outputs = int(rng.choice([1, 1, 2, 4, 15, 20])) if groups < 17 else 1
        g = Geometry(
            images=(int(rng.integers(0, 4)), groups * channels, int(rng.integers(1, 14)), int(rng.integers(1, 14))),
            outputs=groups * outputs,
            kernel=pair([1, 1, 2, 3, 3, 4]),
            stride=pair([1, 1, 2, 3]),
            padding=pair([0, 0, 1, 2, 4]),
            dilation=pair([1, 1, 2, 3]),
            groups=groups,
        )
        if min(g.maps[2:]) >= 1:
            return g


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", range(25))
def test_random_geometry(rng: np.random.Generator, dtype: type, case: int) -> None:
    check(random_geometry(rng), rng, dtype)


EMPTY = {
    "no channels": Geometry((2, 0, 5, 5), 3, (2, 2)),
    "no channels, one tap": Geometry((1, 0, 14, 14), 3, (1, 1), (2, 2)),
    "no channels, stride 2": Geometry((1, 0, 14, 14), 3, (3, 3), (2, 2)),
    "no outputs": Geometry((2, 2, 5, 5), 0, (2, 2)),
    "no outputs, stride 2": Geometry((2, 2, 5, 5), 0, (3, 3), (2, 2)),
    "no images": Geometry((0, 32, 9, 9), 32, (3, 3), padding=(1, 1)),
    "no rows": Geometry((1, 2, 0, 5), 3, (2, 2), padding=(1, 1)),
    "no columns": Geometry((1, 2, 5, 0), 3, (2, 2), padding=(1, 1)),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_nothing(rng: np.random.Generator, dtype: type, name: str) -> None:
    check(EMPTY[name], rng, dtype)


GEOMETRIES = {
    "first layer": Geometry((9, 1, 20, 20), 32, (3, 3), padding=(1, 1)),
    "second layer": Geometry((4, 32, 10, 10), 40, (3, 3), padding=(1, 1)),
    "stem": Geometry((1, 3, 40, 40), 16, (7, 7), (2, 2), (3, 3)),
    "projection": Geometry((2, 64, 8, 8), 96, (1, 1), (2, 2)),
    "projection, small maps": Geometry((2, 300, 13, 14), 96, (1, 1), (2, 2)),
    "pointwise": Geometry((3, 40, 7, 7), 70, (1, 1)),
    "pointwise, small maps": Geometry((2, 520, 7, 7), 192, (1, 1), groups=2),
    "small maps": Geometry((6, 48, 4, 4), 33, (3, 3), padding=(1, 1)),
    "depthwise": Geometry((2, 35, 9, 40), 35, (3, 3), padding=(1, 1), groups=35),
    "depthwise, stride 2": Geometry((2, 20, 12, 38), 20, (5, 5), (2, 2), (2, 2), groups=20),
    "depthwise, stride 2, long rows": Geometry((1, 9, 8, 181), 9, (3, 3), (2, 2), (1, 1), groups=9),
    "depthwise, stride 2, few channels": Geometry((2, 2, 9, 37), 2, (3, 3), (2, 2), (0, 1), groups=2),
    "depthwise, strips": Geometry((3, 18, 70, 40), 18, (3, 3), (3, 2), (1, 1), groups=18),
    "depthwise, small maps": Geometry((2, 37, 7, 7), 37, (3, 3), padding=(1, 1), groups=37),
    "depthwise, long kernel": Geometry((1, 3, 18, 20), 3, (17, 16), groups=3),
    "grouped": Geometry((2, 32, 7, 9), 32, (3, 3), padding=(1, 1), groups=8),
    "dilated": Geometry((2, 5, 15, 15), 6, (3, 3), (2, 1), (4, 2), (3, 2)),
    "full padding": Geometry((2, 6, 8, 9), 5, (3, 2), padding=(2, 1)),
    "stride beyond the kernel": Geometry((2, 4, 13, 13), 5, (2, 2), (5, 4), (1, 2)),
    "Winograd": Geometry((1, 64, 12, 14), 96, (3, 3), padding=(1, 1)),
    "Winograd, odd maps": Geometry((5, 33, 7, 9), 47, (3, 3), padding=(1, 1)),
    "Winograd, several blocks of k": Geometry((2, 300, 7, 7), 260, (3, 3), padding=(1, 1)),
    "Winograd, a row longer than a block": Geometry((1, 32, 2, 290), 32, (3, 3), padding=(1, 2)),
    "Winograd in groups": Geometry((2, 96, 9, 11), 128, (3, 3), padding=(2, 0), groups=2),
    "Winograd, stride 2": Geometry((1, 70, 24, 17), 64, (3, 3), (2, 2), (1, 1)),
    "Winograd, stride 2, odd maps": Geometry((3, 270, 17, 18), 35, (3, 3), (2, 2), (0, 2)),
    "Winograd, stride 2, gradient": Geometry((2, 34, 33, 31), 41, (3, 3), (2, 2), (1, 1)),
    "Winograd, stride 2, groups": Geometry((1, 128, 26, 72), 80, (3, 3), (2, 2), (1, 1), groups=2),
    "Winograd, blocks of tiles": Geometry((3, 16, 34, 26), 29, (3, 3), padding=(1, 2)),
    "Winograd, stride 2, blocks of tiles": Geometry((2, 66, 55, 43), 32, (3, 3), (2, 2), (1, 1)),
    "Winograd, large tiles": Geometry((1, 64, 12, 14), 96, (3, 3), padding=(1, 1), tile=4),
    "Winograd, large tiles, odd maps": Geometry((5, 33, 15, 13), 47, (3, 3), padding=(1, 1), tile=4),
    "Winograd, large tiles, several blocks of k": Geometry((2, 270, 11, 12), 34, (3, 3), padding=(1, 1), tile=4),
    "Winograd, large tiles, a long row": Geometry((1, 32, 4, 290), 32, (3, 3), padding=(1, 2), tile=4),
    "Winograd, large tiles in groups": Geometry((2, 96, 12, 18), 128, (3, 3), padding=(2, 0), groups=2, tile=4),
    "sums of products": Geometry((1, 64, 12, 14), 96, (3, 3), padding=(1, 1), tile=1),
    "padding beyond the image": Geometry((1, 3, 3, 2), 4, (2, 3), (1, 2), (6, 7)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_common_geometry(rng: np.random.Generator, name: str) -> None:
    check(GEOMETRIES[name], rng, np.float32)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_images_with_channels_last(rng: np.random.Generator, name: str) -> None:
    g = GEOMETRIES[name]
    x, w = tensor(normal(rng, g.images, np.float32)), tensor(normal(rng, g.weight, np.float32))
    last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    expected = _tensor._conv2d(x, w, *g.attributes).numpy()
    assert_same_bits(_tensor._conv2d(last, w, *g.attributes).numpy(), expected)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_gradients_with_channels_last(rng: np.random.Generator, name: str) -> None:
    g = GEOMETRIES[name]
    x, maps = normal(rng, g.images, np.float32), normal(rng, g.maps, np.float32)
    w, extents = tensor(normal(rng, g.weight, np.float32)), g.images[2:]
    by_weight = _tensor._conv2d_weight(tensor(x), tensor(maps), *g.attributes, *g.kernel).numpy()
    by_input = _tensor._conv2d_input(tensor(maps), w, *g.attributes, *extents).numpy()
    x, last = with_channels_last(x), with_channels_last(maps)
    assert_same_bits(_tensor._conv2d_weight(x, last, *g.attributes, *g.kernel).numpy(), by_weight)
    assert_same_bits(_tensor._conv2d_weight(x, tensor(maps), *g.attributes, *g.kernel).numpy(), by_weight)
    assert_same_bits(_tensor._conv2d_input(last, w, *g.attributes, *extents).numpy(), by_input)


def with_channels_last(x: Array) -> nl.Tensor:
    return tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)


def pixels_of_several_taps(rng: np.random.Generator) -> Geometry:
    """Rows of at least one tile, some of whose windows lie inside of the image and some of whose do not."""
    while True:
        kernel, stride, padding, dilation = (
            (int(rng.choice(choices)), int(rng.choice(choices)))
            for choices in ([1, 2, 3, 3, 5, 7], [1, 1, 2, 3], [0, 1, 1, 2, 3, 6], [1, 1, 2])
        )
        images = int(rng.integers(1, 3)), int(rng.choice([1, 3, 5, 16, 40])), int(rng.integers(2, 16))
        width, outputs = int(rng.choice([9, 20, 41, 64, 90])), int(rng.choice([16, 16, 32, 48, 80]))
        g = Geometry((*images, width), outputs, kernel, stride, padding, dilation)
        if min(g.maps[2:]) >= 1 and max(g.kernel) > 1:
            return g


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", range(12))
def test_several_taps_to_channels_last(rng: np.random.Generator, dtype: type, case: int) -> None:
    """From images with channels last or first; now and then a weight, which padding meets too, is infinite."""
    g = pixels_of_several_taps(rng)
    x, w = normal(rng, g.images, dtype), normal(rng, g.weight, dtype)
    if case % 4 == 0:
        w = np.where(rng.permutation(w.size).reshape(w.shape) == 0, dtype(np.inf), w)
    with np.errstate(all="ignore"):
        want, weight = forward(g, x, w).transpose(0, 2, 3, 1), tensor(w)

    def layer(x: nl.Tensor) -> nl.Tensor:
        return _tensor._conv2d(x, weight, *g.attributes).permute(0, 2, 3, 1).contiguous()

    pixels = tensor(x).permute(0, 2, 3, 1).contiguous()
    assert_same_bits(nl.trace(layer)(tensor(x)).numpy(), want)
    assert_same_bits(nl.trace(lambda x: layer(x.permute(0, 3, 1, 2))).freeze(pixels)(pixels).numpy(), want)


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if "Winograd" in name])
def test_the_interpreter_agrees(rng: np.random.Generator, name: str) -> None:
    g = GEOMETRIES[name]
    x, w, maps = (normal(rng, shape, np.float32) for shape in (g.images, g.weight, g.maps))
    with np.errstate(all="ignore"):
        got = _tensor._conv2d(tensor(x), tensor(w), *g.attributes)
        assert_same_bits(got.numpy(), definitions.conv2d(x, w, g.attributes, fma))
        got = _tensor._conv2d_input(tensor(maps), tensor(w), *g.attributes, *g.images[2:])
        assert_same_bits(got.numpy(), definitions.conv2d_input(maps, w, (*g.attributes, *g.images[2:]), fma))
        got = _tensor._conv2d_weight(tensor(x), tensor(maps), *g.attributes, *g.kernel)
        assert_same_bits(got.numpy(), definitions.conv2d_weight(x, maps, (*g.attributes, *g.kernel), fma))


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if "large tiles" in name])
def test_large_tiles_are_large(name: str) -> None:
    g = GEOMETRIES[name]
    channels, outputs = g.weight[1], g.outputs // g.groups
    assert winograd_tile("float32", channels, outputs, *g.maps[2:], g.kernel, g.attributes) == 4
    assert winograd_tile_input("float32", outputs, channels, *g.images[2:], g.kernel, g.attributes) == 4


@pytest.mark.parametrize("name", ["Winograd", "Winograd, stride 2"])
def test_winograds_error(rng: np.random.Generator, name: str) -> None:
    """Against float64, whose bits are those of sums of products."""
    g = GEOMETRIES[name]
    x, w, maps = (rng.standard_normal(shape).astype(np.float32) for shape in (g.images, g.weight, g.maps))
    rows = [
        (g.images[1], lambda x, w, maps: _tensor._conv2d(x, w, *g.attributes)),
        (g.outputs, lambda x, w, maps: _tensor._conv2d_input(maps, w, *g.attributes, *g.images[2:])),
        (np.prod(g.maps[2:]), lambda x, w, maps: _tensor._conv2d_weight(x, maps, *g.attributes, *g.kernel)),
    ]
    for n, row in rows:
        exact, size = (
            row(*(tensor(f(a.astype(np.float64))) for a in (x, w, maps))).numpy() for f in (np.array, np.abs)
        )
        assert_close(row(*map(tensor, (x, w, maps))).numpy(), exact, "winograd", n=int(n), scale=size.max())


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("name", ["Winograd, large tiles", "Winograd, large tiles, several blocks of k"])
def test_the_error_of_large_tiles(rng: np.random.Generator, name: str, scale: float) -> None:
    """Against float64: within the bound that the norms of the transforms give, and as large as the points promise."""
    g = GEOMETRIES[name]
    x, w, maps = (rng.standard_normal(shape).astype(np.float32) for shape in (g.images, g.weight, g.maps))
    small = (*g.attributes[:-1], 2)
    x, maps = x * np.float32(scale), maps * np.float32(scale)
    rows = [
        (x, 1, lambda x, w, attributes: _tensor._conv2d(x, w, *attributes)),
        (maps, 0, lambda maps, w, attributes: _tensor._conv2d_input(maps, w, *attributes, *g.images[2:])),
    ]
    for inputs, axis, row in rows:
        exact = row(tensor(inputs.astype(np.float64)), tensor(w.astype(np.float64)), g.attributes).numpy()
        got, other = (row(tensor(inputs), tensor(w), attributes).numpy() for attributes in (g.attributes, small))
        size = abs(inputs).max() * abs(w).sum((axis, 2, 3)).max()
        assert_close(got, exact, "winograd of 4x4 tiles", n=w.shape[axis], scale=size)
        errors = [np.sqrt(np.mean((y - exact) ** 2)) for y in (got, other)]
        assert 2 * errors[1] < errors[0] < LARGE_TILES_GROWTH * errors[1]


def test_the_norms_of_large_tiles() -> None:
    """The largest gain of 1-D transforms: over results k and taps r, the sum of |A_ki| |B_i| |G_ir| over elements i."""
    of_inputs, of_weights, of_elements, *_ = TRANSFORMS["large"]
    inputs, weights, elements = (np.array(f(np.eye(n))) for f, n in ((of_inputs, 6), (of_weights, 3), (of_elements, 6)))
    gains = abs(elements) @ (abs(inputs).sum(1)[:, None] * abs(weights))
    assert gains.max() ** 2 == pytest.approx(LARGE_TILES_GAIN, rel=1e-3)


def test_infinities_stay_in_their_tiles(rng: np.random.Generator) -> None:
    g = GEOMETRIES["Winograd"]
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (g.images, g.weight))
    x[0, 0, 5, 6] = np.inf
    got = _tensor._conv2d(tensor(x), tensor(w), *g.attributes).numpy()
    spoilt = ~np.isfinite(got).all((0, 1))
    assert spoilt[4:7, 5:8].all()
    spoilt[4:8, 4:8] = False  # the tiles of which any result sees it
    assert not spoilt.any()


def test_what_no_window_sees_has_no_gradient(rng: np.random.Generator) -> None:
    g = Geometry((1, 32, 32, 32), 32, (3, 3), (2, 2))  # maps of 15 x 15: the last row and column are not seen
    x, maps = (rng.standard_normal(shape).astype(np.float32) for shape in (g.images, g.maps))
    assert winograd_tile_weight("float32", 32, 32, 15, 15, g.kernel, g.attributes) == 2
    want = _tensor._conv2d_weight(tensor(x), tensor(maps), *g.attributes, *g.kernel).numpy()
    x[:, :, 31:], x[..., 31:] = np.inf, np.nan
    assert_same_bits(_tensor._conv2d_weight(tensor(x), tensor(maps), *g.attributes, *g.kernel).numpy(), want)
    assert_same_bits(weight_gradient(g, x, maps), want)
    assert_same_bits(definitions.conv2d_weight(x, maps, (*g.attributes, *g.kernel), fma), want)


def test_weight_gradients_of_many_tiles(rng: np.random.Generator) -> None:
    """Chunks that end within an image and a row of tiles, rows longer than a block, two groups; any threads."""
    g = Geometry((2, 440, 2, 600), 32, (3, 3), padding=(1, 1), groups=2)
    x, maps = (rng.standard_normal(shape).astype(np.float32) for shape in (g.images, g.maps))
    want = definitions.conv2d_weight(x, maps, (*g.attributes, *g.kernel), fma)
    for got in on_all_threads(lambda: _tensor._conv2d_weight(tensor(x), tensor(maps), *g.attributes, *g.kernel)):
        assert_same_bits(got, want)


def test_weight_gradients_of_wide_maps(rng: np.random.Generator) -> None:
    """Less memory than a row of tiles takes: chunks are rows nevertheless, in bands that end within an image."""
    for images in ((1, 32, 5, 2600), (2, 32, 80, 9)):
        g = Geometry(images, 32, (3, 3), padding=(1, 1))
        x, maps = (rng.standard_normal(shape).astype(np.float32) for shape in (g.images, g.maps))
        want = definitions.conv2d_weight(x, maps, (*g.attributes, *g.kernel), fma)
        for got in on_all_threads(
            lambda x=x, maps=maps, g=g: _tensor._conv2d_weight(tensor(x), tensor(maps), *g.attributes, *g.kernel)
        ):
            assert_same_bits(got, want)


WEIGHT_ROWS = {
    "stem": Geometry((2, 3, 81, 172), 16, (3, 3), (2, 2), (1, 1)),
    "7x7 stem": Geometry((1, 3, 110, 120), 40, (7, 7), (2, 2), (3, 3)),
    "small images": Geometry((40, 2, 9, 13), 19, (5, 5), (1, 1), (2, 2), (2, 1)),
    "sums in several rounds": Geometry((1, 14, 93, 90), 64, (1, 3), padding=(0, 1)),
    "rows longer than a block": Geometry((2, 4, 8, 1300), 33, (2, 3), (3, 2), (0, 2)),
}


@pytest.mark.parametrize("name", WEIGHT_ROWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weight_gradients_of_long_rows(rng: np.random.Generator, dtype: type, name: str) -> None:
    """Few weights and many pixels: strips that begin and end within rows and images, of any layout."""
    g = WEIGHT_ROWS[name]
    x, maps = normal(rng, g.images, dtype), normal(rng, g.maps, dtype)
    with np.errstate(all="ignore"):
        want = definitions.conv2d_weight(x, maps, (*g.attributes, *g.kernel), fma)
    for images in (tensor(x), with_channels_last(x)):
        for grads in (tensor(maps), with_channels_last(maps)):
            assert_same_bits(_tensor._conv2d_weight(images, grads, *g.attributes, *g.kernel).numpy(), want)


def test_images_are_staged_in_several_rounds(rng: np.random.Generator) -> None:
    # 5 images of 2 MiB: more than are staged at a time, and no number of them ends where a block of 256 pixels does.
    g = Geometry((5, 16, 181, 183), 2, (2, 2), stride=(30, 31))
    check(g, rng, np.float32, "forward weight")


def test_long_sums_of_small_weights(rng: np.random.Generator) -> None:
    # More than 4 blocks a thread of a small result: threads share the sum, not the result.
    check(Geometry((20, 2, 20, 20), 3, (2, 2)), rng, np.float32, "weight")


def test_gradients_reach_both_operands(rng: np.random.Generator) -> None:
    g = GEOMETRIES["dilated"]
    x, w = (tensor(rng.standard_normal(shape)).requires_grad_() for shape in (g.images, g.weight))
    maps = rng.standard_normal(g.maps)
    (nl.functional.conv2d(x, w, None, g.stride, g.padding, g.dilation, g.groups) * tensor(maps)).sum().backward()
    assert_same_bits(x.grad.numpy(), input_gradient(g, maps, w.detach().numpy()))
    assert_same_bits(w.grad.numpy(), weight_gradient(g, x.detach().numpy(), maps))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("stride", [4096, 2**20, 2**32, 2**62])
def test_a_stride_beyond_the_image_leaves_one_place(rng: np.random.Generator, stride: int, groups: int) -> None:
    x, w = (tensor(rng.standard_normal(s)).requires_grad_() for s in ((2, 4, 6, 5), (4, 4 // groups, 3, 2)))
    results = []
    for s in (stride, 9):
        y = nl.conv2d(x, w, stride=s, padding=1, groups=groups)
        back = nl.conv_transpose2d(y, w, stride=s, groups=groups)
        results.append([t.detach().numpy() for t in (y, back, *nl.grad((y * y).sum(), (x, w)))])
    assert results[0][0].shape == (2, 4, 1, 1)
    for got, want in zip(*results, strict=True):
        assert_same_bits(got, want)


@pytest.mark.parametrize("groups", [1, 16])
def test_strides_as_long_as_a_padding(rng: np.random.Generator, groups: int) -> None:
    """All residues but those of real positions are empty."""
    x, w = (tensor(rng.standard_normal(s)).requires_grad_() for s in ((1, 16, 4, 4), (16, 16 // groups, 3, 3)))
    y = nl.conv2d(x, w, stride=300, padding=300, groups=groups)
    assert y.shape == (1, 16, 2 + 1, 2 + 1)
    by_x, by_w = (t.numpy() for t in nl.grad(y.sum(), (x, w)))
    weights = w.detach().numpy()  # only the window in the middle sees the image: its first three rows and columns
    want = np.zeros((16, 4, 4))
    want[:, :3, :3] = weights.sum(0) if groups == 1 else weights[:, 0]
    assert_close(by_x[0], want, "dot", n=16, scale=abs(weights).sum())
    seen = x.detach().numpy()[0, :, :3, :3]
    np.testing.assert_array_equal(by_w, np.broadcast_to(seen, by_w.shape) if groups == 1 else seen[:, None])


@pytest.mark.parametrize("name", GEOMETRIES)
def test_epilogues_of_a_trace_see_finished_tiles(rng: np.random.Generator, name: str) -> None:
    g = GEOMETRIES[name]
    x, w, maps = (tensor(rng.standard_normal(shape).astype(np.float32)) for shape in (g.images, g.weight, g.maps))

    def layers() -> tuple[nl.Tensor, ...]:
        return (
            nl.relu(_tensor._conv2d(x, w, *g.attributes)) * 2,
            nl.relu(_tensor._conv2d_input(maps, w, *g.attributes, *g.images[2:])) * 3,
            nl.relu(_tensor._conv2d_weight(x, maps, *g.attributes, *g.kernel)) * 5,
        )

    traced = nl.trace(layers)
    for _ in range(3):
        for got, want in zip(traced(), layers(), strict=True):
            assert_same_bits(got.numpy(), want.numpy())
