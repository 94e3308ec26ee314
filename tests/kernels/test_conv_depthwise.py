"""Depthwise convolutions in programs, where images and results may have their channels last, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from .conv_programs import LAYOUTS, OPS, check
from .convolution import Geometry, pair, until_windows_fit

pytestmark = [pytest.mark.usefixtures("threads"), pytest.mark.parametrize("threads", [1, 2, 3, 8], indirect=True)]


def depthwise(
    images: tuple[int, int, int, int],
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> Geometry:
    return Geometry(images, images[1], kernel, stride, padding, dilation, groups=images[1])


@until_windows_fit
def random_layer(rng: np.random.Generator) -> Geometry:
    common, stride, size = rng.random() < 0.7, int(rng.choice([1, 2])), int(rng.choice([3, 3, 5, 7]))
    return depthwise(
        images=(int(rng.integers(1, 4)), int(rng.choice([1, 5, 16, 17, 24, 32, 40, 96])), *pair(rng, *range(1, 15))),
        kernel=(size, size) if common else pair(rng, 1, 2, 3, 5),
        stride=(stride, stride) if common else pair(rng, 1, 2, 3),
        padding=pair(rng, 0, 1, 1, 2, 4),
        dilation=(1, 1) if common else pair(rng, 1, 1, 2, 3),
    )


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", range(30))
def test_random_layers(rng: np.random.Generator, case: int, op: str) -> None:
    g, dtype = random_layer(rng), str(rng.choice(["f32", "f64"]))
    check(g, rng, LAYOUTS[0], negated=case % 2 == 0, special=case % 3 == 0, dtype=dtype, op=op)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("case", range(6))
def test_one_end_with_channels_last(rng: np.random.Generator, case: int, layout: str, op: str) -> None:
    g, dtype = random_layer(rng), str(rng.choice(["f32", "f64"]))
    check(g, rng, layout, negated=case % 2 == 0, dtype=dtype, op=op)


LAYERS = {
    "7x7 maps": depthwise((1, 192, 7, 7)),
    "stride 2 to 7x7 maps": depthwise((1, 144, 14, 14), stride=(2, 2)),
    "many images": depthwise((9, 32, 9, 13)),
    "channels that do not fill vectors": depthwise((2, 83, 10, 11), stride=(2, 2)),
    "7x7": depthwise((2, 33, 9, 31), (7, 7), padding=(3, 3)),
    "7x7, rows of two tiles": depthwise((1, 32, 8, 28), (7, 7), padding=(3, 2)),
    "5x5, stride 2": depthwise((2, 40, 15, 35), (5, 5), (2, 2), (2, 2)),
    "5x5, stride 2, rows of 28": depthwise((1, 40, 15, 55), (5, 5), (2, 2), (2, 2)),
    "7x7, stride 2, rows of 28": depthwise((1, 40, 15, 55), (7, 7), (2, 2), (3, 3)),
    "5x5, past the caches": depthwise((1, 16, 500, 530), (5, 5), padding=(2, 2)),
    "a kernel of two blocks of k": depthwise((1, 18, 20, 18), (17, 16), padding=(3, 2)),
    "past the caches": depthwise((1, 32, 370, 372)),
    "from memory": depthwise((1, 32, 363, 372), stride=(2, 2), padding=(0, 1)),
    "past the caches, stride 2": depthwise((1, 32, 361, 372), stride=(2, 2)),
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", LAYERS)
def test_common_layers(rng: np.random.Generator, name: str, op: str) -> None:
    check(LAYERS[name], rng, LAYOUTS[0], negated="past the caches" not in name, op=op)
