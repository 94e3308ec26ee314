"""Maps and copies of operands whose axes lie in another order than the result's."""

from __future__ import annotations

import numpy as np
import pytest

import neurlang as nl


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bool"])
@pytest.mark.parametrize("case", range(12))
def test_maps_of_permuted_operands(case: int, dtype: str, rng: np.random.Generator) -> None:
    """Tiles of memory that runs along another axis, whole and cut off, beside operands that do not."""
    rank = int(rng.integers(2, 5))
    shape = [int(n) for n in rng.integers(1, (300, 60, 20)[rank - 2], rank)]
    order, other = rng.permutation(rank), rng.permutation(rank)
    arrays = [(rng.standard_normal([shape[d] for d in o]) * 50).astype(dtype) for o in (order, other)]
    a, b = (x.transpose(np.argsort(o)) for x, o in zip(arrays, (order, other), strict=True))
    x, y = (nl.from_numpy(m).permute(*np.argsort(o).tolist()) for m, o in zip(arrays, (order, other), strict=True))
    np.testing.assert_array_equal(x.clone().contiguous().numpy(), a)
    np.testing.assert_array_equal((x == y).numpy(), a == b)
    np.testing.assert_array_equal(nl.where(y > x, x, y[..., :1]).numpy(), np.where(b > a, a, b[..., :1]))
    np.testing.assert_array_equal(x.to(nl.int32).numpy(), a.astype(np.int32))
    np.testing.assert_array_equal(nl.empty(shape, dtype=x.dtype).copy_(x).numpy(), a)


@pytest.mark.parametrize("dtype", ("int8", "float16", "float32", "float64"))
@pytest.mark.parametrize("shape, axes", (
    ((300, 20), (1, 0)), ((17, 1030), (1, 0)), ((513, 256), (1, 0)), ((4, 19, 33), (0, 2, 1)), ((3, 5, 40), (2, 1, 0)),
))  # fmt: skip
def test_maps_whose_operands_lie_alike(
    shape: tuple[int, ...], axes: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    """Several transposed operands, beside a column, and added to part of a tensor."""
    a, b = (rng.integers(-50, 50, shape).astype(dtype) for _ in range(2))
    x, y = (nl.from_numpy(m).permute(*axes) for m in (a, b))
    turned, other = a.transpose(axes), b.transpose(axes)
    np.testing.assert_array_equal((x - y).numpy(), turned - other)
    np.testing.assert_array_equal((x < y).numpy(), turned < other)
    np.testing.assert_array_equal(nl.where(x > y, x, y[:, :1]).numpy(), np.where(turned > other, turned, other[:, :1]))
    wider = nl.zeros(*turned.shape[:-1], turned.shape[-1] + 3, dtype=x.dtype)
    wider[..., 1:-2] += x + y
    np.testing.assert_array_equal(wider.numpy()[..., 1:-2], turned + other)


@pytest.mark.parametrize("dtype", ("int8", "float16", "float32", "float64"))
@pytest.mark.parametrize("shape", (
    (700, 7), (61, 100), (9, 127), (3, 128), (3, 300), (5, 511), (4, 513), (3, 1022), (5, 1024), (8, 64, 49),
    (5, 3, 2, 30), (2000, 20), (1, 15),
))  # fmt: skip
def test_operands_that_are_columns(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    """One element for each row, of some axes or of all, beside rows and beside one row for all."""
    a = rng.integers(-50, 50, shape).astype(dtype)
    x = nl.from_numpy(a)
    for axes in range(1, len(shape)):
        c = rng.integers(-50, 50, (*shape[axes - 1 : -1], 1)).astype(dtype)
        column = nl.from_numpy(c)
        np.testing.assert_array_equal((x - column).numpy(), a - c)
        np.testing.assert_array_equal((column - x[..., 1:]).numpy(), c - a[..., 1:])
        np.testing.assert_array_equal((column - x[..., ::2]).numpy(), c - a[..., ::2])
        np.testing.assert_array_equal((column + x.reshape(-1, shape[-1])[0]).numpy(), c + a.reshape(-1, shape[-1])[0])


@pytest.mark.parametrize("dtype", ("int8", "float16", "float32", "float64"))
@pytest.mark.parametrize("shape, axes", (
    ((3, 28, 28), (0, 2, 1)), ((5, 7, 7), (0, 2, 1)), ((4, 3), (1, 0)), ((2, 2100), (1, 0)), ((2100, 17), (1, 0)),
    ((33, 1030), (1, 0)), ((256, 40), (1, 0)), ((5, 256), (1, 0)), ((40, 9, 256), (2, 1, 0)),
    ((2, 5, 6, 19), (0, 2, 3, 1)), ((2, 6, 19, 5), (0, 3, 1, 2)),
))  # fmt: skip
def test_copies_that_transpose(
    shape: tuple[int, ...], axes: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    a = rng.integers(-100, 100, shape).astype(dtype)
    expected = np.ascontiguousarray(a.transpose(axes))
    turned = nl.from_numpy(a).permute(*axes)
    np.testing.assert_array_equal(turned.contiguous().numpy(), expected)
    wider = nl.zeros(*expected.shape[:-1], expected.shape[-1] + 3, dtype=turned.dtype)
    wider[..., 1:-2].copy_(turned)
    np.testing.assert_array_equal(wider.numpy()[..., 1:-2], expected)
    assert not wider.numpy()[..., :1].any() and not wider.numpy()[..., -2:].any()


def test_random_numbers_of_permuted_operands_go_by_the_index() -> None:
    x = nl.ones(70, 1300)
    nl.manual_seed(3)
    want = nl.nn.functional.dropout(x, 0.5)
    nl.manual_seed(3)
    assert nl.nn.functional.dropout(nl.ones(1300, 70).t(), 0.5).tolist() == want.tolist()
