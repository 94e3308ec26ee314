"""Scalars of any size, with the edges of each dtype among them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from neurlang.ops import scalar as s

from .compiled import NUMPY

FLOATS = ("f32", "f64")
INTEGERS = ("u8", "i32", "i64")
EDGES = (
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1e-40, -1e-40, 1e-310, 88.7, -103.9, 709.7, -745.0, 1e5, 1e9,
    -1e30, 1e300, -1e300, 2.0**23, 2.0**31, 2.0**52, 2.0**63, math.inf, -math.inf, math.nan,
)  # fmt: skip


def edges(dtype: str) -> Any:
    with np.errstate(over="ignore", under="ignore"):
        return np.array(EDGES).astype(NUMPY[dtype])


def any_bits(rng: np.random.Generator, dtype: str, n: int) -> Any:
    """Values whose bits are uniformly random: all exponents, subnormal numbers, NaN (quiet: Python quiets them)."""
    drawn = np.frombuffer(rng.bytes(n * s.SIZE[dtype]), NUMPY[dtype])
    return np.where(np.isnan(drawn), NUMPY[dtype](math.nan), drawn) if dtype in FLOATS else drawn


def floats(rng: np.random.Generator, dtype: str, n: int) -> Any:
    moderate = rng.standard_normal(n) * np.exp(rng.uniform(-12, 8, n))
    return np.concatenate([any_bits(rng, dtype, n), moderate.astype(NUMPY[dtype]), edges(dtype)])


def integers(rng: np.random.Generator, dtype: str, n: int) -> Any:
    info = np.iinfo(NUMPY[dtype])
    ends = [v for v in (info.min, info.min + 1, -2, -1, 0, 1, 2, info.max - 1, info.max) if info.min <= v <= info.max]
    small = rng.integers(max(info.min, -40), 40, n)
    return np.concatenate([any_bits(rng, dtype, n), small, ends]).astype(NUMPY[dtype])


def values(rng: np.random.Generator, dtype: str, n: int) -> Any:
    if dtype == "b8":
        return rng.random(2 * n) < 0.5
    return floats(rng, dtype, n) if dtype in FLOATS else integers(rng, dtype, n)


def operands(rng: np.random.Generator, dtypes: tuple[str, ...], n: int = 500) -> list[Any]:
    """Arrays of one length; every pair of edges meets."""
    drawn = [rng.permutation(values(rng, t, n)) for t in dtypes]
    length = min(map(len, drawn))
    drawn = [d[:length] for d in drawn]
    if all(t in FLOATS for t in dtypes):
        pairs = np.array(list(itertools.product(range(len(EDGES)), repeat=len(dtypes)))).T
        drawn = [np.concatenate([d, edges(t)[p]]) for d, t, p in zip(drawn, dtypes, pairs, strict=True)]
    return drawn
