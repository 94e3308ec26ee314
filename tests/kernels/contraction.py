"""The definition of sums of products (ARCHITECTURE.md, section 3) in plain NumPy, and operands in random layouts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

import neurlang as nl
from neurlang import _tensor

FUSED = _tensor.isa() not in ("baseline", "generic")
Array = np.ndarray


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once on levels that have the instruction."""
    if not FUSED:
        return a * b + c
    return (_tensor.fma_f32 if c.dtype == np.float32 else _tensor.fma_f64)(a, b, c)


def dot(products: Iterable[tuple[Array, Array]], shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """k in blocks of 256, a block is a chain from +0, later blocks are added to the first in ascending order."""
    blocks: list[Array] = []
    for k, (a, b) in enumerate(products):
        if k % 256 == 0:
            blocks.append(np.zeros(shape, dtype))
        blocks[-1] = fma(a, b, blocks[-1])
    total = blocks[0] if blocks else np.zeros(shape, dtype)
    for block in blocks[1:]:
        total = total + block
    return total


def tree(products: list[tuple[Array, Array]], shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """T(K): 32 chains a block of 512, lanes halved, blocks combined in adjacent pairs, an odd one carried up."""
    parts = []
    for first in range(0, max(len(products), 1), 512):
        lanes = [np.zeros(shape, dtype) for _ in range(32)]
        for i, (a, b) in enumerate(products[first : first + 512]):
            lanes[i % 32] = fma(a, b, lanes[i % 32])
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [lanes[i] + lanes[i + half] for i in range(half)]
        parts += lanes
    while len(parts) > 1:
        parts = [sum(parts[i + 1 : i + 2], parts[i]) for i in range(0, len(parts), 2)]
    return parts[0]


def same(got: Array, want: Array) -> None:
    """Floats to the bit, NaN payloads apart; other numbers and their dtype."""
    if want.dtype.kind == "f":
        assert_same_bits(got, want)
    else:
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


def layout(rng: np.random.Generator, a: Array) -> Array:
    """The same values with other strides, or one line of them repeated (stride 0)."""
    kind = rng.choice(["plain", "permuted", "stepped", "reversed", "window", "repeated"])
    if kind == "permuted":
        axes = rng.permutation(a.ndim)
        return np.ascontiguousarray(a.transpose(axes)).transpose(np.argsort(axes))
    if kind == "reversed":
        axis = int(rng.integers(a.ndim))
        return np.flip(np.ascontiguousarray(np.flip(a, axis)), axis)
    if kind in ("stepped", "window"):
        step = 2 if kind == "stepped" else 1
        inner = tuple(slice(1, 1 + step * n, step) for n in a.shape)
        outer = np.full([step * n + 3 for n in a.shape], np.nan if a.dtype.kind == "f" else 99, a.dtype)
        outer[inner] = a
        return outer[inner]
    if kind == "repeated" and a.size:
        axis = int(rng.integers(a.ndim))
        return np.broadcast_to(a.take([0], axis), a.shape)
    return np.ascontiguousarray(a)


def normal(rng: np.random.Generator, shape: Iterable[int], dtype: type) -> Array:
    """Normal numbers in a random layout; now and then one that is special."""
    a = rng.standard_normal(tuple(shape)).astype(dtype)
    if a.size and rng.random() < 0.1:
        a.flat[rng.integers(a.size)] = rng.choice([np.inf, -np.inf, np.nan, -0.0, np.finfo(dtype).tiny / 8])
    return layout(rng, a)


def tensor(a: Array) -> nl.Tensor:
    """A tensor over the memory of `a`, whatever its strides."""
    return nl.from_numpy(a)


def assert_same_bits(got: Array, want: Array) -> None:
    """Equal in every bit, NaN payloads apart."""
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.array_equal(np.isnan(got), np.isnan(want))
    unequal = ~np.isnan(want) & ((got != want) | (np.signbit(got) != np.signbit(want)))
    assert not unequal.any(), f"{unequal.sum()} of {want.size} differ, first at {np.argwhere(unequal)[0]}"
