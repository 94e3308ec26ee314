"""Input gradients, and some convolutions, in programs, where images and maps may have their channels last."""

from __future__ import annotations

import numpy as np
import pytest

from .conv_programs import LAYOUTS, check
from .convolution import Geometry, pair, until_windows_fit

pytestmark = [pytest.mark.usefixtures("threads"), pytest.mark.parametrize("threads", [1, 2, 3, 8], indirect=True)]


@until_windows_fit
def random_layer(rng: np.random.Generator) -> Geometry:
    groups, one_tap = int(rng.choice([1, 1, 1, 3])), rng.random() < 0.3
    return Geometry(
        images=(int(rng.integers(1, 4)), groups * int(rng.choice([1, 3, 16, 20, 33, 70])), *pair(rng, *range(1, 35))),
        outputs=groups * int(rng.choice([1, 5, 16, 40])),
        kernel=(1, 1) if one_tap else pair(rng, 1, 2, 3, 3, 5),
        stride=pair(rng, 1, 1, 2, 2, 3),
        padding=(0, 0) if one_tap else pair(rng, 0, 1, 1, 2, 4),
        dilation=(1, 1) if one_tap else pair(rng, 1, 1, 2, 3),
        groups=groups,
        tile=int(rng.choice([1, 2])),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", range(12))
def test_random_layers(rng: np.random.Generator, case: int, layout: str) -> None:
    g, dtype = random_layer(rng), str(rng.choice(["f32", "f64"]))
    check(g, rng, layout, negated=case % 2 == 0, special=case % 3 == 0, dtype=dtype, op="conv2d_input")


LAYERS = {
    "several blocks of k": Geometry((1, 40, 9, 17), 300, (3, 3), (2, 2), (1, 1), tile=1),
    "one tap, several blocks of k": Geometry((2, 70, 9, 11), 530, (1, 1)),
    "one tap, stride 2": Geometry((2, 64, 15, 20), 96, (1, 1), (2, 2)),
    "positions that no tap reaches": Geometry((1, 16, 13, 17), 24, (2, 2), (3, 4)),
    "positions that no tap reaches, groups, parts of rows": Geometry((2, 32, 9, 67), 48, (1, 1), (2, 2), groups=2),
    "no position that a tap reaches, two rows at a time": Geometry((1, 16, 7, 1), 24, (1, 1), (1, 3), (0, 1)),
    "taps that reach no position": Geometry((2, 16, 3, 2), 4, (2, 3), (1, 2), (6, 7)),
    "stem": Geometry((1, 3, 40, 60), 16, (7, 7), (2, 2), (3, 3)),
    "weights beyond L2": Geometry((1, 256, 6, 30), 260, (3, 3), (2, 2), (1, 1), tile=1),
    "images to memory, one tap": Geometry((3, 32, 181, 183), 16, (1, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_common_layers(rng: np.random.Generator, name: str) -> None:
    check(LAYERS[name], rng, LAYOUTS[0], negated="blocks" in name, op="conv2d_input")


# Of what is read pixels lie 4 KiB apart, or almost.
CROWDED = {
    "one tap": ("conv2d", Geometry((2, 1024, 5, 7), 40, (1, 1))),
    "one tap, weights beyond L2": ("conv2d", Geometry((2, 1024, 9, 7), 140, (1, 1))),
    "several taps": ("conv2d", Geometry((1, 1024, 4, 40), 20, (1, 2), tile=1)),
    "several taps, almost": ("conv2d", Geometry((1, 1020, 4, 40), 20, (1, 2), tile=1)),
    "gradient of one tap": ("conv2d_input", Geometry((2, 40, 5, 7), 1024, (1, 1))),
    "gradient of one tap, stride 2": ("conv2d_input", Geometry((2, 40, 5, 31), 1024, (1, 1), (2, 2))),
    "gradient of several taps": ("conv2d_input", Geometry((1, 20, 6, 40), 1024, (2, 3), (1, 2), (0, 1))),
}


@pytest.mark.parametrize("name", CROWDED)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_pixels_that_crowd_each_other_out_of_the_cache(rng: np.random.Generator, name: str, dtype: str) -> None:
    op, g = CROWDED[name]
    check(g, rng, LAYOUTS[0], negated="stride" in name, dtype=dtype, op=op)
