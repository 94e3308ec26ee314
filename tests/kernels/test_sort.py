"""Sorting, the first k, search and what is made of them against NumPy and PyTorch: shapes, layouts, dtypes, threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import neurlang as nl
from neurlang.ops.table import ROWS

from .contraction import Array, same, tensor
from .reduction import numbers, on_all_threads, shape_around

DTYPES = [np.float32, np.float64, np.bool_, np.uint8, np.int32, np.int64]
LENGTHS = [0, 1, 2, 7, 16, 31, 32, 33, 64, 100, 129, 300, 513, 2000]


def in_order(x: Array, axis: int, descending: bool) -> Array:
    """The places of the stable order, in which -0 comes before +0 and NaN last, or all of it the other way round."""
    if x.dtype.kind == "f":
        rank = np.where(np.isnan(x), np.inf, x).astype(np.float64)
        keys = [np.signbit(x) & (x == 0), np.isnan(x)]
        keys = [~keys[0], rank, keys[1]]
    else:
        keys = [x.astype(np.int64)]
    sign = -1 if descending else 1
    return np.lexsort([sign * key.astype(key.dtype if key.dtype.kind == "f" else np.int64) for key in keys], axis)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sort(rng: np.random.Generator, dtype: type, length: int) -> None:
    for descending in (False, True):
        shape, axis = shape_around(rng, length)
        x = numbers(rng, shape, dtype)
        places = in_order(x, axis, descending)
        values = np.take_along_axis(x, places, axis)
        for got in on_all_threads(lambda x=x, a=axis, d=descending: nl.sort(tensor(x), a, d)[0]):
            same(got, values)
        for got in on_all_threads(lambda x=x, a=axis, d=descending: nl.sort(tensor(x), a, d)[1]):
            np.testing.assert_array_equal(got, places)
        np.testing.assert_array_equal(nl.argsort(tensor(x), axis, descending).numpy(), places)
        if not descending:
            got = nl.msort(tensor(np.moveaxis(x, axis, 0)))
            same(got.numpy(), np.moveaxis(values, axis, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_rows_side_by_side(rng: np.random.Generator, dtype: type) -> None:
    """Rows whose elements lie apart are brought together as squares of vectors, a cache line of rows at a time."""
    for n, rows in [(33, 16), (47, 70), (64, 8), (300, 33), (40, 3)]:
        x = numbers(rng, (n, rows), dtype)
        values = np.take_along_axis(x, in_order(x, 0, False), 0)
        for lying in (x, np.ascontiguousarray(x.T).T, np.repeat(x, 2, 1)[:, ::2], x[:, ::-1].copy()[:, ::-1]):
            for got in on_all_threads(lambda lying=lying: nl.msort(tensor(lying))):
                same(got, values)


def long_rows(rng: np.random.Generator, dtype: type, n: int) -> Iterator[Array]:
    """Random, with few values, in order already, the other way round, with all the same, and with a hostile middle."""
    if np.issubdtype(dtype, np.floating):
        yield rng.standard_normal(n).astype(dtype)
        yield (1 + rng.random(n) * 1e-9).astype(dtype)
    else:
        info = np.iinfo(dtype)
        yield rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)
        yield rng.integers(0, 5, n).astype(dtype)
    yield np.arange(n).astype(dtype)
    yield np.arange(n)[::-1].astype(dtype)
    yield np.ones(n, dtype)
    yield np.abs(np.arange(n) - n // 2).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32, np.int64])
def test_long_rows(rng: np.random.Generator, dtype: type) -> None:
    for x in long_rows(rng, dtype, 70_000):
        want = np.argsort(x, kind="stable")
        for got in on_all_threads(lambda x=x: nl.argsort(tensor(x))):
            np.testing.assert_array_equal(got, want)
        for got in on_all_threads(lambda x=x: nl.msort(tensor(x))):
            np.testing.assert_array_equal(got, x[want])


def test_keys_that_differ_in_few_of_64_bits(rng: np.random.Generator) -> None:
    # The upper 32 bits that differ are sorted first: here all are alike, alike in long runs, or differ at the ends.
    n = 20_000
    for x in (
        rng.integers(0, 1000, n),
        rng.integers(0, 7, n) << 60,
        (rng.integers(0, 4, n) << 40) + rng.integers(0, 1000, n),
        np.where(rng.random(n) < 0.1, rng.integers(-(2**63), 2**63 - 1, n), rng.integers(0, 50, n)),
    ):
        values, places = nl.sort(tensor(x))
        want = np.argsort(x, kind="stable")
        np.testing.assert_array_equal(places.numpy(), want)
        np.testing.assert_array_equal(values.numpy(), x[want])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 5, 20, 32, 33, 100, 700, 5000])
def test_topk(rng: np.random.Generator, dtype: type, length: int) -> None:
    for k in {0, 1, min(length, 3), length // 2, length}:
        for largest in (False, True):
            shape, axis = shape_around(rng, length)
            x = numbers(rng, shape, dtype)
            places = np.take(in_order(x, axis, largest), range(k), axis)
            for got in on_all_threads(lambda x=x, k=k, a=axis, la=largest: nl.topk(tensor(x), k, a, la)[1]):
                np.testing.assert_array_equal(got, places)
            same(nl.topk(tensor(x), k, axis, largest)[0].numpy(), np.take_along_axis(x, places, axis))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [2, 9, 32, 33, 64, 100, 300])
def test_few_of_many_rows(rng: np.random.Generator, dtype: type, length: int) -> None:
    """Rows as one, side by side, and apart, with few distinct numbers; some full of the last one in order."""
    some = np.asarray(numbers(rng, (5,), dtype))
    for shape, axis in (((37, length), 1), ((length, 37), 0), ((3, length, 17), 1)):
        x = rng.choice(some, shape) if rng.random() < 0.5 else np.ascontiguousarray(numbers(rng, shape, dtype))
        x[0] = x[0].flat[0]
        for rows in (x, np.repeat(x, 2, -1)[..., ::2], x[..., ::-1]):
            for largest in (False, True):
                order = in_order(rows, axis, largest)
                for k in {1, 2, min(5, length), min(8, length), min(9, length)}:
                    places = np.take(order, range(k), axis)
                    got = nl.topk(tensor(rows), k, axis, largest)
                    np.testing.assert_array_equal(got[1].numpy(), places)
                    same(got[0].numpy(), np.take_along_axis(rows, places, axis))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32, np.int64])
def test_one_of_long_rows(rng: np.random.Generator, dtype: type) -> None:
    for x in (*long_rows(rng, dtype, 70_000), numbers(rng, (5000,), dtype)):
        places = in_order(x, 0, False)
        for k in {1, 2, len(x) // 7, len(x) // 2, len(x) - 1, len(x), *(int(k) for k in rng.integers(1, len(x), 3))}:
            for got in on_all_threads(lambda x=x, k=k: nl.kthvalue(tensor(x), k)[1]):
                assert got == places[k - 1]
            same(nl.kthvalue(tensor(x), k)[0].numpy(), x[places[k - 1]])


def places_sampled(n: int) -> Array:
    """Where csrc/kernels/select_one.cpp looks for its sample."""
    state, places = n, []
    for _ in range(2048):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        places.append((state >> 32) * n >> 32)
    return np.unique(places)


@pytest.mark.parametrize("odd", [-1e6, 1e6])
def test_one_of_a_row_whose_sample_is_odd(odd: float) -> None:
    n = 20_000
    for low in (np.arange(n), np.arange(n) % 3, np.zeros(n)):
        x = low.astype(np.float32)
        x[places_sampled(n)] = odd
        want = np.argsort(x, kind="stable")
        for k in (1, 2, 1500, 2500, n // 2, n - 2500, n - 1500, n - 1, n):
            value, place = nl.kthvalue(tensor(x), k)
            assert (value.item(), place.item()) == (x[want[k - 1]], want[k - 1])


def test_one_of_many_rows(rng: np.random.Generator) -> None:
    for shape, axis in (((3, 9000, 2), 1), ((5, 9000), 1), ((9000, 5), 0), ((2, 300, 4), 1), ((0, 5), 1)):
        x = numbers(rng, shape, np.float32)
        places = np.take(in_order(x, axis, False), 40 % shape[axis], axis)
        for got in on_all_threads(lambda x=x, a=axis: nl.kthvalue(tensor(x), 40 % x.shape[a] + 1, a)[1]):
            np.testing.assert_array_equal(got, places)


@pytest.mark.parametrize("k", [1, 10, 1000, 50_000, 99_999])
def test_topk_of_long_rows(rng: np.random.Generator, k: int) -> None:
    for x in long_rows(rng, np.float32, 100_000):
        want = np.argsort(-x, kind="stable")[:k]
        for got in on_all_threads(lambda x=x: nl.topk(tensor(x), k)[1]):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", range(10))
def test_searchsorted(rng: np.random.Generator, dtype: type, case: int) -> None:
    shape = tuple(int(n) for n in rng.integers(0, 5, rng.integers(0, 3)))
    m, n = int(rng.choice([0, 1, 2, 30, 500])), int(rng.integers(0, 60))
    table, x = np.sort(numbers(rng, (*shape, m), dtype), -1), numbers(rng, (*shape, n), dtype)
    for right in (False, True):
        side = "right" if right else "left"
        want = np.empty(x.shape, np.int64)
        for at in np.ndindex(shape):
            want[at] = np.searchsorted(table[at], x[at], side)
        for got in on_all_threads(lambda r=right: nl.searchsorted(tensor(table), tensor(x), right=r)):
            np.testing.assert_array_equal(got, want)
        row = table[(0,) * len(shape)] if 0 not in shape else np.sort(numbers(rng, (m,), dtype))
        np.testing.assert_array_equal(
            nl.bucketize(tensor(x), tensor(row), right=right).numpy(), np.searchsorted(row, x, side)
        )


def test_searchsorted_promotes_and_takes_numbers() -> None:
    table = nl.tensor([1, 3, 5])
    assert nl.searchsorted(table, 3).item() == 1 and nl.searchsorted(table, 3, side="right").item() == 2
    assert nl.searchsorted(table, nl.tensor([2.5, 5.5])).tolist() == [1, 3]
    assert nl.searchsorted(table, nl.tensor([2]), out_int32=True).dtype == nl.int32
    with pytest.raises(ValueError, match="side"):
        nl.searchsorted(table, 3, side="middle")
    with pytest.raises(nl.ShapeError, match="searchsorted"):
        nl.searchsorted(nl.zeros(2, 3), nl.zeros(3, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_unique(rng: np.random.Generator, dtype: type) -> None:
    for shape in [(0,), (1,), (7,), (40, 50), ()]:
        x = rng.integers(0, 2 if dtype is np.bool_ else 40, shape).astype(dtype)
        values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        got = nl.unique(tensor(x), return_inverse=True, return_counts=True)
        for ours, want in zip(got, (values, inverse.reshape(x.shape), counts), strict=True):
            np.testing.assert_array_equal(ours.numpy(), want)
        same(nl.unique(tensor(x)).numpy(), values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unique_slices_are_numpys(rng: np.random.Generator, dtype: type) -> None:
    for *shape, dim in [(40, 3, 0), (3, 40, 1), (30, 2, 2, 0), (2, 3, 50, -1), (7, 1, 0), (9, 0), (0, 3, 0)]:
        x = rng.integers(0, 2, shape).astype(dtype)
        values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True, axis=dim)
        got = nl.unique(tensor(x), return_inverse=True, return_counts=True, dim=dim)
        for ours, want in zip(got, (values, inverse.reshape(-1), counts), strict=True):
            np.testing.assert_array_equal(ours.numpy(), want)
        same(tensor(x).unique(dim=dim).numpy(), values)


def test_unique_of_nan_and_zeros_is_torchs(torch: Any) -> None:
    x = np.array([[0.0, np.nan], [-0.0, 1.0], [0.0, 1.0], [0.0, np.nan]], np.float32)
    for of, dims in (("unique", (None,)), ("unique_consecutive", (None, 0, 1))):
        for dim in dims:
            got = getattr(nl, of)(tensor(x), return_counts=True, dim=dim)
            want = getattr(torch, of)(torch.from_numpy(x), return_counts=True, dim=dim)
            np.testing.assert_array_equal(got[0].numpy(), want[0].numpy())
            np.testing.assert_array_equal(got[1].numpy(), want[1].numpy())
    slices, counts = nl.unique(tensor(x), return_counts=True, dim=0)  # PyTorch's, compared with NaN, are in no order
    np.testing.assert_array_equal(slices.numpy(), [[0, 1], [0, np.nan], [0, np.nan]])
    assert counts.tolist() == [2, 1, 1]


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
def test_unique_consecutive_is_torchs(rng: np.random.Generator, torch: Any, dim: int | None) -> None:
    for shape in ((12, 3), (2, 30), (1, 1), (0, 2) if dim in (None, 0) else (2, 0)):
        x = rng.integers(0, 2, shape).astype(np.int64)
        got = nl.unique_consecutive(tensor(x), True, True, dim)
        want = torch.unique_consecutive(torch.from_numpy(x), True, True, dim)
        for ours, theirs in zip(got, want, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert nl.tensor([2, 2, 1]).unique_consecutive().tolist() == [2, 1]


def test_slices_without_elements_are_refused() -> None:
    for of in (nl.unique, nl.unique_consecutive):
        with pytest.raises(nl.ShapeError, match="no elements"):
            of(nl.zeros(3, 0), dim=0)
        with pytest.raises(nl.ShapeError, match=of.__name__):
            of(nl.zeros(3, 2), dim=2)


def test_searchsorted_through_a_sorter(rng: np.random.Generator) -> None:
    for shape in ((9,), (4, 9)):
        table, x = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32), rng.random((4, 5)) * 40
        order = nl.argsort(tensor(table), -1)
        want = nl.searchsorted(nl.sort(tensor(table), -1)[0], tensor(x.astype(np.float32)))
        got = nl.searchsorted(tensor(table), tensor(x.astype(np.float32)), sorter=order)
        np.testing.assert_array_equal(got.numpy(), want.numpy())
    for wrong in (nl.zeros(9), nl.zeros(8, dtype=nl.int64), 3):
        with pytest.raises(nl.ShapeError, match="sorter"):
            nl.searchsorted(nl.zeros(9), nl.zeros(2), sorter=wrong)


def test_kthvalue_and_median_are_torchs(rng: np.random.Generator, torch: Any) -> None:
    for dtype in (np.float32, np.int64):
        x = rng.permutation(60).reshape(3, 4, 5).astype(dtype)
        theirs = torch.from_numpy(x)
        for dim in (0, 1, -1):
            for keepdim in (False, True):
                for k in range(1, x.shape[dim] + 1):
                    for ours, want in zip(
                        nl.kthvalue(tensor(x), k, dim, keepdim), theirs.kthvalue(k, dim, keepdim), strict=True
                    ):
                        np.testing.assert_array_equal(ours.numpy(), want.numpy())
                for ours, want in zip(nl.median(tensor(x), dim, keepdim), theirs.median(dim, keepdim), strict=True):
                    np.testing.assert_array_equal(ours.numpy(), want.numpy())
        assert nl.median(tensor(x)).item() == theirs.median().item()
    x = np.array([[1.0, np.nan, 0.0], [3.0, 1.0, 2.0]])
    values, places = nl.median(tensor(x), 1)
    np.testing.assert_array_equal(values.numpy(), [np.nan, 2.0])
    assert places.tolist() == torch.from_numpy(x).median(1).indices.tolist()
    assert np.isnan(nl.median(tensor(x)).item())


@pytest.mark.parametrize("n", [1, 5, 40, 600, 40_000, 300_000])
def test_a_nan_anywhere_is_the_median(rng: np.random.Generator, n: int) -> None:
    for rows, dtype in ((3, np.float32), (1, np.float64)):
        x = rng.standard_normal((rows, n)).astype(dtype)
        for where in (None, 0, n // 2, n - 1):
            if where is not None:
                x[0, where] = x[0, n - 1] = -np.nan
            values, places = nl.median(tensor(x), 1)
            best, at = ROWS["kth"].numpy(np, x, 1, (n - 1) // 2, 1)
            np.testing.assert_array_equal(values.numpy(), best[:, 0])
            np.testing.assert_array_equal(places.numpy(), at[:, 0])
            x[0, :] = rng.standard_normal(n)


@pytest.mark.parametrize("n", [3_000, 400_000])
def test_places_lie_in_a_row_that_is_written_meanwhile(rng: np.random.Generator, n: int) -> None:
    memory, others = np.zeros(n), [rng.standard_normal(n), rng.standard_normal(n) + 5.0]
    x, done = tensor(memory), threading.Event()

    def write() -> None:
        while not done.is_set():
            for other in others:
                memory[:] = other

    writer = threading.Thread(target=write)
    writer.start()
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for place in (nl.kthvalue(x, n // 2)[1], nl.median(x, 0)[1], nl.argmax(x)):
                assert 0 <= place.item() < n
    finally:
        done.set()
        writer.join()


def test_0d_and_bad_arguments() -> None:
    x = nl.tensor(3.0)
    assert nl.sort(x)[0].item() == 3.0 and nl.sort(x)[1].item() == 0 and nl.argsort(x, 0).shape == ()
    assert nl.topk(x, 1)[0].shape == () and nl.topk(x, 0)[0].shape == (0,) and nl.kthvalue(x, 1)[0].item() == 3.0
    for call in (
        lambda: nl.topk(nl.zeros(3), 4),
        lambda: nl.topk(nl.zeros(3), -1),
        lambda: nl.kthvalue(nl.zeros(3), 0),
        lambda: nl.sort(nl.zeros(3), 1),
        lambda: nl.median(nl.zeros(0)),
        lambda: nl.argsort(nl.zeros(3), -2),
    ):
        with pytest.raises(nl.ShapeError):
            call()


def test_traced() -> None:
    x = nl.tensor(np.random.default_rng(0).standard_normal((5, 40)))

    @nl.trace
    def both(x: nl.Tensor) -> Any:
        values, places = nl.sort(x * 2, 1, True)
        return values, places, nl.topk(x, 3)[0], nl.cumsum(x, 1), nl.unique(nl.floor(x))

    for _ in range(3):
        got = both(x)
    assert both.counts.replayed >= 3
    want = np.sort(x.numpy() * 2, 1)[:, ::-1]
    np.testing.assert_array_equal(got[0].numpy(), want)
    np.testing.assert_array_equal(got[1].numpy(), np.argsort(-x.numpy(), 1, kind="stable"))
    np.testing.assert_array_equal(got[2].numpy(), want[:, :3] / 2)
    np.testing.assert_array_equal(got[3].numpy(), nl.cumsum(x, 1).numpy())
    np.testing.assert_array_equal(got[4].numpy(), np.unique(np.floor(x.numpy())))
