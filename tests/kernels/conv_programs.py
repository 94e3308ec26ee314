"""Convolutions in programs, where images and maps may have their channels last, held to the definitions."""

from __future__ import annotations

import numpy as np
from backends.replay import build, difference, run_oracle, run_program

from neurlang import passes
from neurlang.ir.types import DTYPES

from .convolution import Geometry, record

OPS = ("conv2d", "conv2d_input")
LAYOUTS = ("last to last", "first to last", "last to first")  # of what is read and of the result


def check(
    g: Geometry,
    rng: np.random.Generator,
    layout: str,
    negated: bool,
    special: bool = False,
    dtype: str = "f32",
    op: str = "conv2d",
) -> None:
    """Against the definition; `special` numbers are infinite, NaN and zeros of either sign."""
    t = record(g, dtype, layout, negated, op)
    graph, leaves = t.graph(), t.leaves(rng)
    for leaf in leaves.values():
        numbers = leaf.view(DTYPES[dtype].numpy)
        if special:
            chosen = rng.random(numbers.size) < 0.1
            numbers[chosen] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.0], chosen.sum())
    with np.errstate(all="ignore"):
        expected = run_oracle(graph, t, leaves)
    assert not difference(t, graph, expected, run_program(build(passes.run(graph)), graph, t, leaves))
