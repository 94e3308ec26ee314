"""The three convolutions against their definitions, bit for bit: random geometry, layouts, groups, threads."""

from __future__ import annotations

import numpy as np
import pytest
from bounds import LARGE_TILES_GAIN, LARGE_TILES_GROWTH, assert_close

import neurlang as nl
from neurlang import _tensor
from neurlang.ir import definitions
from neurlang.ops.shapes import winograd_tile, winograd_tile_input, winograd_tile_weight

from .contraction import Array, assert_same_bits, fma, normal, tensor
from .convolution import TRANSFORMS, Geometry, forward, input_gradient, pair, until_windows_fit, weight_gradient
from .reduction import on_all_threads

pytestmark = [pytest.mark.usefixtures("threads"), pytest.mark.parametrize("threads", [1, 2, 3, 8], indirect=True)]


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


@until_windows_fit
def random_geometry(rng: np.random.Generator) -> Geometry:
    groups = int(rng.choice([1, 1, 1, 2, 3, 17]))
    channels = int(rng.choice([1, 1, 2, 3, 5, 16, 33])) if groups < 17 else 1
    outputs = int(rng.choice([1, 1, 2, 4, 15, 20])) if groups < 17 else 1
    return Geometry(
        images=(int(rng.integers(0, 4)), groups * channels, *pair(rng, *range(1, 14))),
        outputs=groups * outputs,
        kernel=pair(rng, 1, 1, 2, 3, 3, 4),
        stride=pair(rng, 1, 1, 2, 3),
        padding=pair(rng, 0, 0, 1, 2, 4),
        dilation=pair(rng, 1, 1, 2, 3),
        groups=groups,
    )


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
    "rows of half a vector": Geometry((2, 3, 9, 8), 20, (3, 3), padding=(1, 1)),
    "rows of two vectors and a half, several blocks of k": Geometry((1, 12, 6, 40), 17, (5, 5), padding=(2, 2)),
    "projection": Geometry((2, 64, 8, 8), 96, (1, 1), (2, 2)),
    "projection, small maps": Geometry((5, 300, 13, 14), 96, (1, 1), (2, 2)),
    "pointwise": Geometry((3, 40, 7, 7), 70, (1, 1)),
    "pointwise, small maps": Geometry((7, 520, 7, 7), 192, (1, 1), groups=2),
    "pointwise, small maps of one image": Geometry((1, 270, 5, 5), 100, (1, 1)),
    "one pixel": Geometry((1, 530, 1, 1), 800, (1, 1)),
    "small maps": Geometry((6, 48, 4, 4), 33, (3, 3), padding=(1, 1)),
    "depthwise": Geometry((2, 35, 9, 40), 35, (3, 3), padding=(1, 1), groups=35),
    "depthwise, stride 2": Geometry((2, 20, 12, 38), 20, (5, 5), (2, 2), (2, 2), groups=20),
    "depthwise, stride 2, long rows": Geometry((1, 9, 8, 181), 9, (3, 3), (2, 2), (1, 1), groups=9),
    "depthwise, stride 2, few channels": Geometry((2, 2, 9, 37), 2, (3, 3), (2, 2), (0, 1), groups=2),
    "depthwise, strips": Geometry((3, 18, 70, 40), 18, (3, 3), (3, 2), (1, 1), groups=18),
    "depthwise, small maps": Geometry((2, 37, 7, 7), 37, (3, 3), padding=(1, 1), groups=37),
    "depthwise, long kernel": Geometry((1, 3, 18, 20), 3, (17, 16), groups=3),
    "depthwise, 7x7": Geometry((1, 5, 11, 100), 5, (7, 7), padding=(3, 3), groups=5),
    "depthwise, long kernel and rows": Geometry((1, 3, 25, 70), 3, (17, 16), padding=(8, 8), groups=3),
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
    x, w = normal(rng, g.images, np.float32), tensor(normal(rng, g.weight, np.float32))
    expected = _tensor._conv2d(tensor(x), w, *g.attributes).numpy()
    assert_same_bits(_tensor._conv2d(with_channels_last(x), w, *g.attributes).numpy(), expected)


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


@until_windows_fit
def pixels_of_several_taps(rng: np.random.Generator) -> Geometry:
    """Rows of at least one tile, some of whose windows lie inside of the image and some of whose do not."""
    images = int(rng.integers(1, 3)), int(rng.choice([1, 3, 5, 16, 40])), int(rng.integers(2, 16))
    kernel = int(rng.choice([1, 2, 3, 3, 5, 7])), int(rng.choice([2, 3, 3, 5, 7]))
    return Geometry(
        images=(*images, int(rng.choice([9, 20, 41, 64, 90]))),
        outputs=int(rng.choice([16, 16, 32, 48, 80])),
        kernel=kernel if rng.random() < 0.5 else kernel[::-1],
        stride=pair(rng, 1, 1, 2, 3),
        padding=pair(rng, 0, 1, 1, 2, 3, 6),
        dilation=pair(rng, 1, 1, 2),
    )


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


# Images that are asked for before they are read, results that are asked for or written past the caches.
FROM_MEMORY = {
    "one tap": Geometry((9, 64, 56, 57), 128, (1, 1)),
    "several taps": Geometry((3, 17, 200, 212), 32, (3, 3), padding=(1, 1)),
    "several taps, stride 2": Geometry((3, 24, 200, 160), 16, (5, 5), (2, 2), (2, 2)),
    "depthwise": Geometry((4, 96, 113, 112), 96, (3, 3), padding=(1, 1), groups=96),
    "depthwise, stride 2": Geometry((3, 96, 133, 112), 96, (3, 3), (2, 2), (1, 1), groups=96),
}


@pytest.mark.parametrize("name", FROM_MEMORY)
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_from_memory_are_as_alone(rng: np.random.Generator, dtype: type, gradient: bool, name: str) -> None:
    """The gradient goes from maps to images."""
    g = FROM_MEMORY[name]
    shapes = (g.maps if gradient else g.images, g.weight)
    x, w = (tensor(rng.standard_normal(shape).astype(dtype)) for shape in shapes)

    def layer(pixels: nl.Tensor) -> nl.Tensor:
        x = pixels.permute(0, 3, 1, 2)
        if gradient:
            out = _tensor._conv2d_input(x, w, *g.attributes, *g.images[2:])
        else:
            out = _tensor._conv2d(x, w, *g.attributes)
        return out.permute(0, 2, 3, 1).contiguous()

    pixels = x.permute(0, 2, 3, 1).contiguous()
    got = nl.trace(layer)(pixels).numpy()
    for i in range(len(got)):
        assert_same_bits(got[i : i + 1], layer(pixels[i : i + 1]).numpy())


# Large enough to be written past the caches, in single precision.
LARGE_RESULTS = {
    "one tap": Geometry((1, 3, 192, 201), 48, (1, 1)),
    "several taps": Geometry((1, 2, 200, 194), 48, (3, 3), padding=(1, 1)),
    "few outputs": Geometry((7, 1, 127, 124), 16, (2, 3)),
    "outputs that do not fill vectors": Geometry((3, 2, 130, 123), 36, (1, 1)),
    "groups that do not fill vectors": Geometry((1, 4, 197, 189), 48, (1, 3), groups=2),
    "several blocks of k": Geometry((1, 257, 85, 84), 240, (1, 1)),
}


@pytest.mark.parametrize("name", LARGE_RESULTS)
def test_large_results_with_channels_last(rng: np.random.Generator, name: str) -> None:
    """Against those with channels first."""
    g = LARGE_RESULTS[name]
    x, w = tensor(normal(rng, g.images, np.float32)), tensor(normal(rng, g.weight, np.float32))
    pixels, want = x.permute(0, 2, 3, 1).contiguous(), _tensor._conv2d(x, w, *g.attributes)

    def layer(x: nl.Tensor) -> nl.Tensor:
        return _tensor._conv2d(x.permute(0, 3, 1, 2), w, *g.attributes).permute(0, 2, 3, 1).contiguous()

    assert_same_bits(nl.trace(layer).freeze(pixels)(pixels).numpy(), want.numpy().transpose(0, 2, 3, 1))


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


# Few weights and many pixels: strips that begin and end within rows and images. Channels of their own.
WEIGHTS = {
    "stem": Geometry((2, 3, 81, 172), 16, (3, 3), (2, 2), (1, 1)),
    "7x7 stem": Geometry((1, 3, 110, 120), 40, (7, 7), (2, 2), (3, 3)),
    "small images": Geometry((40, 2, 9, 13), 19, (5, 5), (1, 1), (2, 2), (2, 1)),
    "sums in several rounds": Geometry((1, 14, 93, 90), 64, (1, 3), padding=(0, 1)),
    "one tap, blocks of several images": Geometry((7, 48, 9, 11), 500, (1, 1)),
    "one tap, rows apart": Geometry((3, 48, 17, 41), 64, (1, 1), (2, 2)),
    "rows longer than a block": Geometry((2, 4, 8, 1300), 33, (2, 3), (3, 2), (0, 2)),
    "depthwise, blocks of several images": Geometry((17, 40, 7, 7), 40, (3, 3), padding=(1, 1), groups=40),
    "depthwise, stride 2": Geometry((3, 24, 15, 18), 24, (3, 3), (2, 2), (1, 1), groups=24),
    "depthwise, strips of several blocks": Geometry((2, 18, 61, 50), 18, (3, 3), padding=(2, 0), groups=18),
    "depthwise, rows longer than a block": Geometry((2, 33, 4, 600), 33, (3, 3), (1, 2), (1, 1), groups=33),
    "depthwise, strides that differ": Geometry((2, 19, 31, 33), 19, (5, 5), (1, 2), (3, 1), (2, 1), groups=19),
    "depthwise, rows of taps apart": Geometry((2, 17, 21, 16), 17, (3, 3), (3, 1), (2, 2), (2, 1), groups=17),
    "depthwise, sums in several rounds": Geometry((1, 64, 82, 83), 64, (17, 16), groups=64),
    "depthwise, padding beyond the image": Geometry((3, 16, 3, 2), 16, (3, 3), padding=(6, 7), groups=16),
    "depthwise, one place": Geometry((300, 16, 3, 3), 16, (3, 3), groups=16),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weight_gradients_of_any_layout(rng: np.random.Generator, dtype: type, name: str) -> None:
    g = WEIGHTS[name]
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


@pytest.mark.parametrize("width", [3, 40])
@pytest.mark.parametrize("dilation", [1, 2**30])
def test_rows_that_no_tap_sees_take_no_memory(rng: np.random.Generator, width: int, dilation: int) -> None:
    x, w = (tensor(rng.standard_normal(shape)) for shape in ((1, 2, 4, width), (3, 2, 2, 1)))
    far, near = (nl.conv2d(x, w, stride=(s, 1), padding=(s, 0), dilation=(min(s, dilation), 1)) for s in (2**30, 9))
    assert far.shape[2] == 3 - (dilation > 1)
    assert_same_bits(far.numpy(), near.numpy())


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
