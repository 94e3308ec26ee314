"""Eager maps, copies and random numbers have the same bits for any number of threads (kernels: tests/kernels)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kernels.reduction import on_all_threads

import neurlang as nl
from neurlang.ops.dtypes import WIDE, wide
from neurlang.ops.row import Row

from .draws import MAPS, draw, function, ids, types_of
from .test_narrow import NARROW, bits

SHAPE = (277, 283)  # more elements than one thread takes of the cheapest map, in rows that end within vectors
LAYOUTS: dict[str, Callable[[nl.Tensor], nl.Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t().contiguous().t(),
    "of two rows": lambda x: x[:2].contiguous().expand(139, 2, x.shape[1]).reshape(278, -1)[1:],
    "every other": lambda x: nl.stack([x, x], 2)[..., 0],
}
TYPED = [(row, t) for row in MAPS for t in row.dtypes if t in WIDE or t in NARROW]


def operand(rng: np.random.Generator, row: Row, i: int, dtype: str) -> nl.Tensor:
    x = nl.tensor(draw(rng, row, i, wide(dtype), SHAPE))
    return x.to(NARROW[dtype]) if dtype in NARROW else x


def assert_same_on_all_threads(compute: Callable[[], nl.Tensor]) -> None:
    one, *others = on_all_threads(lambda: bits(compute()))
    assert all((x == one).all() for x in others)


@pytest.mark.parametrize("case", TYPED, ids=ids)
def test_maps(case: tuple[Row, str], rng: np.random.Generator) -> None:
    row, dtype = case
    operands = [operand(rng, row, i, t) for i, t in enumerate(types_of(row, dtype))]
    names = list(LAYOUTS)
    for first in range(len(names) if operands else 1):
        laid = [LAYOUTS[names[(first + i) % len(names)]](x) for i, x in enumerate(operands)]
        assert_same_on_all_threads(lambda laid=laid: function(row)(*laid))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("to", [nl.float64, nl.float16, nl.bfloat16, nl.int32, nl.int8, nl.bool])
def test_conversions(to: nl.dtype, layout: str, rng: np.random.Generator) -> None:
    x = LAYOUTS[layout](nl.tensor((rng.standard_normal(SHAPE) * 100).astype(np.float32)))
    assert_same_on_all_threads(lambda: x.to(to))


DRAWS: dict[str, Callable[[], nl.Tensor]] = {
    "rand": lambda: nl.rand(SHAPE),
    "rand, float64": lambda: nl.rand(SHAPE, dtype=nl.float64),
    "randn": lambda: nl.randn(SHAPE),
    "randn, float64": lambda: nl.randn(SHAPE, dtype=nl.float64),
    "randint": lambda: nl.randint(0, 1000, SHAPE),
    "randperm": lambda: nl.randperm(100_003),
    "dropout": lambda: nl.nn.functional.dropout(nl.ones(SHAPE), 0.3),
    "uniform_ of a view": lambda: nl.zeros(SHAPE).t()[1:, ::2].uniform_(-1, 1),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers(name: str) -> None:
    def compute() -> nl.Tensor:
        nl.manual_seed(11)
        return DRAWS[name]()

    assert_same_on_all_threads(compute)
