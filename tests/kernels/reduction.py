"""The definition of reductions (ARCHITECTURE.md, section 3) in plain NumPy, and operands full of special values."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import neurlang as nl

from .contraction import Array, layout

THREADS = [1, 2, 3, 8]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40]


def tree(x: Array, axis: int, combine: Callable[[Array, Array], Array] = np.add, identity: float = 0) -> Array:
    """T(n): blocks of 512, element i in lane i % 32, lanes halved, blocks in adjacent pairs, an odd one carried up."""
    rows = np.moveaxis(x, axis, 0)
    parts = []
    for first in range(0, max(len(rows), 1), 512):
        lanes = [np.full(rows.shape[1:], identity, x.dtype) for _ in range(32)]
        for i, row in enumerate(rows[first : first + 512]):
            lanes[i % 32] = combine(lanes[i % 32], row)
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [combine(lanes[i], lanes[i + half]) for i in range(half)]
        parts += lanes
    while len(parts) > 1:
        pairs = [combine(parts[i], parts[i + 1]) for i in range(0, len(parts) - 1, 2)]
        parts = pairs + parts[len(pairs) * 2 :]
    return np.expand_dims(parts[0], axis)


def larger(a: Array, b: Array) -> Array:
    """The larger element; -0 < +0, a NaN wins."""
    wins = (b > a) | ((a == b) & np.signbit(a)) | np.isnan(b)
    return np.where(np.isnan(a) | ~wins, a, b)


def largest(x: Array, axis: int) -> Array:
    rows = np.moveaxis(x, axis, 0)
    best = rows[0]
    for row in rows[1:]:
        best = larger(best, row)
    return np.expand_dims(best, axis)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Array:
    """Numbers of any size in a random layout; floats now and then with many special ones, or with few."""
    if dtype is np.bool_:
        return layout(rng, rng.random(shape) < rng.choice([0.02, 0.5, 0.98]))
    if not issubclass(dtype, np.floating):
        low = 0 if dtype is np.uint8 else -100
        return layout(rng, rng.integers(low, 256, shape).astype(dtype))
    x = rng.standard_normal(shape) * np.exp(rng.choice([0.0, 5.0]) * rng.standard_normal(shape))
    if rng.random() < 0.4:
        special = rng.choice(SPECIAL[: rng.choice([2, 6])], shape)
        x = np.where(rng.random(shape) < rng.choice([0.01, 0.6, 1.0]), special, x)
    return layout(rng, x.astype(dtype))


def shape_around(rng: np.random.Generator, axis_extent: int) -> tuple[tuple[int, ...], int]:
    """A shape of up to four axes, one of which has the given extent, and which one that is."""
    others = [int(n) for n in rng.choice([1, 2, 3, 5, 10, 16, 33, 70], rng.integers(0, 4))]
    while np.prod(others) * max(axis_extent, 1) > 60_000:
        others[int(np.argmax(others))] //= 2
    axis = int(rng.integers(len(others) + 1))
    return (*others[:axis], axis_extent, *others[axis:]), axis


def on_all_threads(compute: Callable[[], nl.Tensor | Array]) -> Iterator[Array]:
    """The result of `compute` with each number of threads."""
    before = nl.get_num_threads()
    try:
        for count in THREADS:
            nl.set_num_threads(count)
            yield np.asarray(compute())
    finally:
        nl.set_num_threads(before)
