"""Scans against S(n) in plain loops, bit for bit, and against PyTorch: shapes, layouts, dtypes, threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl
from neurlang.ir.interpret import apply

from .contraction import Array, assert_same_bits, fma, tensor
from .reduction import numbers, on_all_threads, shape_around

LENGTHS = [0, 1, 2, 15, 16, 63, 64, 65, 100, 129, 1000]
FLOATS = [np.float32, np.float64]


def scanned(x: Array, axis: int, combine: Callable[[Array, Array], Array], identity: float) -> Array:
    """Blocks of 64, serial inside; a block's results continue from the last one before it."""
    rows = np.moveaxis(x, axis, 0)
    results: list[Array] = []
    before = np.full(rows.shape[1:], identity, x.dtype)
    for first in range(0, len(rows), 64):
        total = np.full(rows.shape[1:], identity, x.dtype)
        for row in rows[first : first + 64]:
            total = combine(total, row)
            results.append(combine(before, total))
        before = results[-1]
    stacked = np.stack(results) if results else np.empty(rows.shape, x.dtype)
    return np.moveaxis(stacked, 0, axis)


SCANS: dict[str, tuple[Callable[..., nl.Tensor], Callable[[Array, Array], Array], float]] = {
    "cumsum": (nl.cumsum, np.add, 0),
    "cumprod": (nl.cumprod, np.multiply, 1),
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", SCANS)
def test_bits_are_the_definitions(rng: np.random.Generator, op: str, dtype: type, length: int) -> None:
    scan, combine, identity = SCANS[op]
    for _ in range(3):
        shape, axis = shape_around(rng, length)
        x = numbers(rng, shape, dtype)
        with np.errstate(all="ignore"):
            want = scanned(x, axis, combine, identity)
        for got in on_all_threads(lambda x=x, axis=axis: scan(tensor(x), axis)):
            assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int64])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 11, 14, 15, 16, 17, 28, 32, 48, 63, 64])
def test_many_short_rows(rng: np.random.Generator, dtype: type, length: int) -> None:
    """Rows that lie as one, with gaps or backwards, are read and written past their ends; what lies there stays."""
    for count in (1, 5, 33, 131):
        x = rng.choice([1.5, -0.0, np.inf, np.nan, 1e-40], (count, length)) * rng.standard_normal((count, length))
        x = (x if dtype is not np.int64 else rng.integers(-9, 9, (count, length))).astype(dtype)
        for rows in (x, x[::-1], np.repeat(x, 2, 0)[::2], np.repeat(x, 2, 1)[:, ::2], np.asfortranarray(x)):
            for scan, combine, identity in SCANS.values():
                with np.errstate(all="ignore"):
                    want = scanned(rows, 1, combine, identity)
                for got in on_all_threads(lambda scan=scan, rows=rows: scan(tensor(rows), 1)):
                    assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 7, 14, 15, 16, 17, 28, 50, 64, 65, 130, 1040])
def test_few_columns(rng: np.random.Generator, dtype: type, columns: int) -> None:
    """Fewer than a vector, some vectors, and a last one that overlaps the one before; of rows adjacent and not."""
    for count, length in ((1, 2), (40, 7), (3, 64), (2, 150)):
        x = numbers(rng, (count, length, columns), dtype)
        wide = np.repeat(x, 2, 2)
        dense = np.ascontiguousarray(x)
        for lying in (x, dense, wide[:, :, ::2], wide[:, :, :columns], x[:, ::-1], dense.transpose(1, 0, 2)):
            axis = 0 if lying.shape[0] == length and lying.shape[1] == count else 1
            for op in SCANS:
                scan, combine, identity = SCANS[op]
                with np.errstate(all="ignore"):
                    want = scanned(lying, axis, combine, identity)
                for got in on_all_threads(lambda scan=scan, lying=lying, axis=axis: scan(tensor(lying), axis)):
                    assert_same_bits(got, want)


@pytest.mark.parametrize("shape", [(200_001,), (2, 150_000), (5000, 33), (3, 70_000, 2)])
@pytest.mark.parametrize("op", SCANS)
def test_long_axes_are_shared_between_threads(rng: np.random.Generator, op: str, shape: tuple[int, ...]) -> None:
    scan, combine, identity = SCANS[op]
    axis = int(np.argmax(shape))
    x = rng.uniform(0.9, 1.1, shape).astype(np.float32)
    want = scanned(x, axis, combine, identity)
    for got in on_all_threads(lambda: scan(tensor(x), axis)):
        assert_same_bits(got, want)


def test_results_larger_than_the_cache(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2100, 2048)).astype(np.float32)
    for axis in (0, 1):
        assert_same_bits(nl.cumsum(tensor(x), axis).numpy(), scanned(x, axis, np.add, 0))
    uneven = np.ones((1, 4_200_003), np.float32)
    assert_same_bits(nl.cumsum(tensor(uneven), 0).numpy(), uneven)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.int64])
def test_integers_become_int64_and_wrap(rng: np.random.Generator, dtype: type) -> None:
    shape, axis = shape_around(rng, 90)
    x = numbers(rng, shape, dtype)
    wide = x.astype(np.int64)
    for got, want in (
        (nl.cumsum(tensor(x), axis), np.cumsum(wide, axis)),
        (nl.cumprod(tensor(x), axis), np.cumprod(wide, axis)),
    ):
        assert got.dtype == nl.int64
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_are_nearer_than_serial_ones(rng: np.random.Generator, dtype: type) -> None:
    x = rng.random(1 << 17).astype(dtype)
    exact = np.cumsum(x.astype(np.longdouble))
    ours = nl.cumsum(tensor(x), 0).numpy()
    assert np.abs(ours - exact).max() <= np.abs(np.cumsum(x) - exact).max()
    assert_close(ours, exact, "scan", n=len(x), scale=exact[-1])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_logcumsumexp(rng: np.random.Generator, dtype: type, scale: float) -> None:
    for length in (1, 40, 64, 700):
        shape, axis = shape_around(rng, length)
        x = (rng.standard_normal(shape) * scale).astype(dtype)
        x[rng.random(shape) < 0.05] = -np.inf
        want = np.logaddexp.accumulate(x.astype(np.longdouble), axis)
        results = list(on_all_threads(lambda x=x, axis=axis: nl.logcumsumexp(tensor(x), axis)))
        with np.errstate(invalid="ignore"):
            (defined,) = apply("logcumsumexp", [x], (axis,), fma, ())
        for got in results:
            assert_same_bits(got, defined)
        assert_close(results[0], want, "scan of logarithms", scale=np.where(np.isfinite(want), np.abs(want) + 1, 0))


def test_logcumsumexp_of_special_values() -> None:
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, -inf, 1, inf, 2], [inf, -inf, inf, 0, nan], [nan, 0, inf, -inf, 1]])
    want = np.array([[-inf, -inf, 1, inf, inf], [inf, inf, inf, inf, nan], [nan] * 5])
    np.testing.assert_array_equal(nl.logcumsumexp(tensor(x), 1).numpy(), want)


RUNNING: dict[str, tuple[Callable[..., Any], Callable[[Array, Array], Array]]] = {
    "cummax": (nl.cummax, np.greater_equal),
    "cummin": (nl.cummin, np.less_equal),
}


def running(x: Array, axis: int, wins: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
    """The extremum so far and its place: of equals the last, of NaNs too, which beat all numbers."""
    rows = np.moveaxis(x, axis, 0)
    values, places = rows.copy(), np.zeros(rows.shape, np.int64)
    for i in range(1, len(rows)):
        takes = wins(rows[i], values[i - 1]) | (rows[i] != rows[i])
        values[i], places[i] = np.where(takes, rows[i], values[i - 1]), np.where(takes, i, places[i - 1])
    return np.moveaxis(values, 0, axis), np.moveaxis(places, 0, axis)


def check_running(x: Array, axis: int) -> None:
    for scan, wins in RUNNING.values():
        values, places = running(x, axis, wins)
        for k, want in enumerate((values, places)):
            for got in on_all_threads(lambda k=k, scan=scan: scan(tensor(x), axis)[k]):
                assert got.dtype == want.dtype
                assert_same_bits(got, want)


RUNNING_DTYPES = [np.float32, np.float64, np.uint8, np.int32, np.int64, np.bool_]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", RUNNING_DTYPES)
def test_running_extrema(rng: np.random.Generator, dtype: type, length: int) -> None:
    for _ in range(3):
        shape, axis = shape_around(rng, length)
        check_running(numbers(rng, shape, dtype), axis)


@pytest.mark.parametrize("dtype", RUNNING_DTYPES)
@pytest.mark.parametrize("columns", [1, 2, 3, 7, 8, 15, 16, 17, 31, 64, 65, 130])
def test_running_extrema_of_any_number_of_columns(rng: np.random.Generator, dtype: type, columns: int) -> None:
    """What lies behind columns that fill no vector stays, of rows adjacent and not; and as many rows as columns."""
    for count, length in ((1, 2), (40, 7), (3, 70)):
        x = numbers(rng, (count, length, columns), dtype)
        for lying in (np.ascontiguousarray(x), np.repeat(x, 2, 2)[:, :, ::2], x[:, ::-1], x[:, :, ::-1]):
            check_running(lying, 1)
            check_running(lying.transpose(0, 2, 1), 2)
            check_running(lying, 2)


@pytest.mark.parametrize("shape", [(100_001,), (3, 40_000), (37, 3000), (16, 2049), (60_000, 2)])
def test_running_extrema_of_few_rows_are_found_in_parts(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """Extrema that come late, early, and NaNs somewhere."""
    axis = int(np.argmax(shape))
    ramp = np.indices(shape)[axis] / shape[axis] - 0.5
    steps = np.round(rng.standard_normal(shape) + 4 * ramp)
    for x in (ramp, -ramp, steps, np.full(shape, -np.inf), np.full(shape, np.inf)):
        few = x.astype(np.float32)
        check_running(few, axis)
        few[rng.random(shape) < 1e-4] = np.nan
        check_running(few, axis)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32, np.int64, np.bool_])
def test_running_extrema_are_torchs(rng: np.random.Generator, dtype: type, torch: Any) -> None:
    for length in (1, 7, 100):
        shape, axis = shape_around(rng, length)
        x = rng.integers(0, 2 if dtype is np.bool_ else 9, shape).astype(dtype)
        if np.issubdtype(dtype, np.floating):
            x[rng.random(shape) < 0.02] = np.nan
            x[rng.random(shape) < 0.1] *= -1  # zeros of both signs
        for name in ("cummax", "cummin"):
            values, indices = getattr(nl, name)(tensor(x), axis)
            theirs = getattr(torch, name)(torch.from_numpy(x), axis)
            np.testing.assert_array_equal(indices.numpy(), theirs.indices.numpy())
            np.testing.assert_array_equal(values.numpy(), theirs.values.numpy())
            assert values.numpy().dtype == x.dtype


def test_0d_and_bad_axes() -> None:
    x = nl.tensor(3.0)
    assert nl.cumsum(x, 0).item() == nl.cumprod(x, -1).item() == nl.logcumsumexp(x, 0).item() == 3.0
    values, indices = nl.cummax(x, 0)
    assert (values.item(), indices.item(), values.shape) == (3.0, 0, ())
    for call in (nl.cumsum, nl.cumprod, nl.logcumsumexp, nl.cummax, nl.cummin):
        with pytest.raises(nl.ShapeError, match="axis 2"):
            call(nl.zeros(2, 3), 2)
