"""Reductions against their definitions, bit for bit: every op, dtype and layout, lengths around the tree's edges."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl

from .contraction import Array, assert_same_bits, same, tensor
from .reduction import largest, numbers, on_all_threads, shape_around, tree

FLOATS = [np.float32, np.float64]
INTEGERS = [np.bool_, np.uint8, np.int32, np.int64]
LENGTHS = [0, 1, 2, 7, 31, 32, 33, 64, 100, 511, 512, 513, 1024, 1500, 2600]
CASES = range(6)


def check(name: str, x: Array, axis: int, want: Array) -> None:
    for got in on_all_threads(lambda: getattr(nl, name)(tensor(x), axis, keepdim=True)):
        same(got, want)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_sum_and_prod_of_floats(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    with np.errstate(all="ignore"):
        check("sum", x, axis, tree(x, axis))
        check("prod", x, axis, tree(x, axis, np.multiply, 1))


@pytest.mark.parametrize("length", [513, 544, 1000, 1536, 2047, 3136, 4095])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_rows_of_some_blocks_go_side_by_side(rng: np.random.Generator, dtype: type, length: int) -> None:
    for rows in (15, 16, 47, 130):
        pitch = length + int(rng.integers(40))
        whole = numbers(rng, (rows, pitch), dtype)
        for x in (whole[:, :length], whole[::-1, pitch - length :], whole[::3, :length]):
            with np.errstate(all="ignore"):
                want = x.sum(1, np.int64, keepdims=True) if dtype is np.int32 else tree(x, 1)
            check("sum", x, 1, want)
            check("amax", x, 1, x.max(1, keepdims=True) if dtype is np.int32 else largest(x, 1))


@pytest.mark.parametrize("length", [0, 1, 31, 33, 513, 1500])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_squares_and_norms(rng: np.random.Generator, dtype: type, length: int) -> None:
    for _ in range(4):
        shape, axis = shape_around(rng, length)
        x = numbers(rng, shape, dtype)
        with np.errstate(all="ignore"):
            want = tree(x * x, axis)
        for got in on_all_threads(lambda x=x, a=axis: nl._tensor._sum_squares(tensor(x), a)):
            assert_same_bits(got, want)
    x = rng.standard_normal((3, length, 5)).astype(dtype)
    with np.errstate(all="ignore"):
        want = tree(tree(tree(x * x, 2), 1), 0).reshape(())
    assert_close(nl.norm(tensor(x)).numpy(), np.sqrt(want), "elementwise")


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("case", CASES)
def test_sum_and_prod_of_integers_are_exact(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    check("sum", x, axis, np.sum(x, axis, np.int64, keepdims=True))
    check("prod", x, axis, np.prod(x, axis, np.int64, keepdims=True))  # wraps alike


@pytest.mark.parametrize("length", LENGTHS[1:])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_extrema_of_floats(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    check("amax", x, axis, largest(x, axis))
    check("amin", x, axis, -largest(-x, axis))


@pytest.mark.parametrize("length", LENGTHS[1:])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_extrema_of_integers(rng: np.random.Generator, dtype: type, length: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    check("amax", x, axis, np.max(x, axis, keepdims=True))
    check("amin", x, axis, np.min(x, axis, keepdims=True))


@pytest.mark.parametrize("length", LENGTHS[1:])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("case", CASES)
def test_first_index_of_the_extremum(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    # NumPy's rule too: the first of equal ones (-0 equals +0), and the first NaN before every number.
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    check("argmax", x, axis, np.argmax(x, axis, keepdims=True))
    check("argmin", x, axis, np.argmin(x, axis, keepdims=True))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_any_and_all(rng: np.random.Generator, dtype: type, length: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    check("any", x, axis, np.any(x, axis, keepdims=True))
    check("all", x, axis, np.all(x, axis, keepdims=True))


@pytest.mark.parametrize("value", [-0.0, np.nan, np.inf, 1e-45])
@pytest.mark.parametrize("length", [1, 5, 40, 600])
def test_one_special_element_anywhere(value: float, length: int) -> None:
    for position in {0, length // 3, length - 1}:
        x = np.full((3, length), -1.0, np.float32)
        x[:, position] = value
        for layout in (x, np.asfortranarray(x)):
            check("amax", layout, 1, np.full((3, 1), value, np.float32))
            check("argmax", layout, 1, np.full((3, 1), position, np.int64))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("length", [1, 2, 7, 8, 15, 16, 17, 31, 49, 64, 100, 256, 300])
def test_extrema_of_short_rows(rng: np.random.Generator, dtype: type, length: int) -> None:
    """Most groups of rows have nothing special, some a NaN, infinities of both signs, or a zero as the extremum."""
    x = rng.standard_normal((200, length)).astype(dtype)
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
        some = rng.integers(0, 200, 3)
        x[some, rng.integers(0, length, 3)] = value
    x[40:42], x[80:82] = -np.abs(x[40:42]), np.abs(x[80:82])
    x[np.ix_([40, 41, 80, 81], [0, length - 1])] = [[0.0, -0.0], [-0.0, 0.0]] * 2
    x[120], x[121] = np.negative(np.nan), -np.inf
    for rows in (x, x[::-1], np.ascontiguousarray(x.reshape(20, 10, length).transpose(1, 0, 2))):
        check("amax", rows, rows.ndim - 1, largest(rows, rows.ndim - 1))
        check("amin", rows, rows.ndim - 1, -largest(-rows, rows.ndim - 1))


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 40])
def test_short_rows(rng: np.random.Generator, dtype: type, length: int) -> None:
    """As one, apart, backwards, in two axes, and too few for a vector."""
    x = np.asarray(numbers(rng, (150, length), dtype), order="C")
    apart = np.zeros((150, 2 * length + 1), dtype)[:, 1 : length + 1]
    apart[:] = x
    for rows in (x, apart, x[::-1], x[:5], np.ascontiguousarray(x.reshape(15, 10, length).transpose(1, 0, 2))):
        last = rows.ndim - 1
        with np.errstate(all="ignore"):
            if dtype in FLOATS:
                check("sum", rows, last, tree(rows, last))
                check("prod", rows, last, tree(rows, last, np.multiply, 1))
                check("amax", rows, last, largest(rows, last))
                check("amin", rows, last, -largest(-rows, last))
            else:
                check("sum", rows, last, np.sum(rows, last, np.int64, keepdims=True))
                check("prod", rows, last, np.prod(rows, last, np.int64, keepdims=True))
                check("amax", rows, last, np.max(rows, last, keepdims=True))
                check("amin", rows, last, np.min(rows, last, keepdims=True))
        check("any", rows, last, np.any(rows, last, keepdims=True))
        check("all", rows, last, np.all(rows, last, keepdims=True))


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("length", [2, 3, 4, 7, 8, 9, 15, 16, 17, 30, 48, 63, 64, 65])
def test_places_in_short_rows(rng: np.random.Generator, dtype: type, length: int) -> None:
    """Rows full of equals, zeros of both signs, NaNs and the least of numbers; as one, apart, or backwards."""
    low = 0 if dtype is np.uint8 else np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else -np.inf
    x = rng.choice(np.array([0, 1, 2, low], dtype), (150, length))
    if np.issubdtype(dtype, np.floating):
        x = np.where(rng.random(x.shape) < 0.1, rng.choice(np.array([np.nan, -0.0], dtype), x.shape), x)
    x[::7] = low
    wide = np.repeat(x, 2, 0)[::2], np.ascontiguousarray(x.reshape(15, 10, length).transpose(1, 0, 2))
    for rows in (x, x[::-1], x[:5], *wide):
        last = rows.ndim - 1
        check("argmax", rows, last, np.argmax(rows, last, keepdims=True))
        check("argmin", rows, last, np.argmin(rows, last, keepdims=True))


@pytest.mark.parametrize("case", CASES)
def test_extrema_over_several_axes(rng: np.random.Generator, case: int) -> None:
    """Axes that lie as one, and those that do not, in any layout; an empty axis has no extremum wherever it stands."""
    shape = tuple(int(n) for n in rng.integers(1, 9, 4))
    axes = tuple(sorted(int(d) for d in rng.choice(4, rng.integers(2, 5), replace=False)))
    x = numbers(rng, shape, [np.float32, np.int32][case % 2])
    want = {"amax": x, "amin": x, "any": x != 0, "all": x != 0}
    for axis in reversed(axes):
        want["amax"], want["amin"] = largest(want["amax"], axis), -largest(-want["amin"], axis)
        want["any"], want["all"] = want["any"].any(axis, keepdims=True), want["all"].all(axis, keepdims=True)
    for op, wanted in want.items():
        for got in on_all_threads(lambda op=op: getattr(nl, op)(tensor(x), axes, True)):
            assert_same_bits(got, wanted)
        kept = getattr(nl, op)(tensor(x), axes)
        assert kept.shape == tuple(n for d, n in enumerate(shape) if d not in axes)
        assert_same_bits(kept.numpy().reshape(-1), wanted.reshape(-1))
    nothing = nl.zeros(*(0 if d == axes[0] else n for d, n in enumerate(shape)))
    for amax in (nl.amax, nl.trace(nl.amax)):
        with pytest.raises(nl.ShapeError, match=re.escape(f"axis {axes[0]} of the float32{[*nothing.shape]} is empty")):
            amax(nothing, axes)


@pytest.mark.parametrize("op", ["argmax", "argmin", "amax", "amin"])
def test_nothing_that_has_no_extremum_is_described_as_it_is_given(op: str) -> None:
    for shape, axis in ((2, 0), 1), ((0, 3), 0):
        with pytest.raises(nl.ShapeError, match=re.escape(f"{op}: axis {axis} of the float32{[*shape]} is empty")):
            getattr(nl, op)(nl.zeros(shape))


def test_long_vectors_are_split_between_threads_at_subtrees(rng: np.random.Generator) -> None:
    for n in (100_000, 262_144, 262_145, 1_000_003):
        x = rng.standard_normal(n).astype(np.float32)
        check("sum", x, 0, tree(x, 0))
        check("sum", x[::-1], 0, tree(x[::-1], 0))
        x[n // 2 + 1 :: 1000] = 5.0
        check("argmax", x, 0, np.argmax(x, 0, keepdims=True))


@pytest.mark.parametrize("dtype", [*FLOATS, np.int32])
@pytest.mark.parametrize(("rows", "length"), [(7, 1024), (6, 4096), (5, 8192), (9, 12_544), (3, 40_000), (2, 270_000)])
def test_long_rows_are_read_two_at_a_time(rng: np.random.Generator, dtype: type, rows: int, length: int) -> None:
    x = numbers(rng, (rows, length), dtype)
    with np.errstate(all="ignore"):
        if dtype is np.int32:
            check("sum", x, 1, np.sum(x, 1, np.int64, keepdims=True))
        else:
            check("sum", x, 1, tree(x, 1))
            check("prod", x, 1, tree(x, 1, np.multiply, 1))
            check("amin", x, 1, -largest(-x, 1))
    check("any", x[:, ::-1], 1, np.any(x[:, ::-1], 1, keepdims=True))


@pytest.mark.parametrize("columns", [1, 3, 10, 64, 257, 1500])
def test_long_columns_are_split_too(rng: np.random.Generator, columns: int) -> None:
    x = rng.standard_normal((120_000 // columns + 1000, columns)).astype(np.float32)
    check("sum", x, 0, tree(x, 0))
    check("amax", x, 0, np.max(x, 0, keepdims=True))
    check("argmin", x, 0, np.argmin(x, 0, keepdims=True))
    window = x[:, : max(columns - 1, 1)]  # rows that are not adjacent
    check("sum", window, 0, tree(window, 0))


@pytest.mark.parametrize("length", [*range(1, 35), 63, 65, 96, 127, 128, 129, 400, 512])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_columns_of_few_rows(rng: np.random.Generator, dtype: type, length: int) -> None:
    """Rows of one block, adjacent, in a window and backwards, of columns from one to several tiles."""
    columns = int(rng.choice([1, 2, 3, 7, 14, 16, 17, 100, 1030]))
    whole = numbers(rng, (3, length, columns + 3), dtype)
    for x in (np.ascontiguousarray(whole[:, :, 3:]), whole[:, :, 1:-2], whole[:, ::-1, :columns], whole[..., ::2]):
        with np.errstate(all="ignore"):
            of_integers = np.issubdtype(dtype, np.integer)
            check("sum", x, 1, x.sum(1, np.int64, keepdims=True) if of_integers else tree(x, 1))
        check("amax", x, 1, x.max(1, keepdims=True) if of_integers else largest(x, 1))
        check("any", x, 1, (x != 0).any(1, keepdims=True))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 16, 33, 100])
def test_extrema_down_few_rows(rng: np.random.Generator, dtype: type, length: int) -> None:
    """Zeros of both signs as extrema; then a NaN, and infinities of both signs, in a few of the columns."""
    zeros, columns = rng.choice([0.0, -0.0], (length, 2000)), 2000
    x = np.where(rng.random(zeros.shape) < 0.5, zeros, -rng.random(zeros.shape)).astype(dtype)
    for place, value in ((0, 1.0), (1, np.nan), (3, np.inf), (length // 2, -np.inf), (length - 1, -np.nan)):
        x[place % length, rng.integers(0, columns, 3)] = value
        for rows in (x, np.flip(x, 0), x[:, 3:], x[:, :1999:2]):
            check("amax", rows, 0, largest(rows, 0))
            check("amin", -rows, 0, -largest(rows, 0))


def test_a_sum_is_as_accurate_as_its_tree_is_deep(rng: np.random.Generator) -> None:
    for n in (1000, 1_000_000):
        x = rng.standard_normal(n).astype(np.float32) * np.float32(1e3)
        exact, size = math.fsum(x.astype(float)), math.fsum(abs(x.astype(float)))
        assert_close(nl.sum(tensor(x), 0).numpy(), exact, "sum", n=n, scale=size)


def test_several_axes_are_several_reductions_last_axis_first(rng: np.random.Generator) -> None:
    x = numbers(rng, (4, 37, 5, 70), np.float32)
    with np.errstate(all="ignore"):
        want = tree(tree(tree(x, 3), 1), 0)
    assert_same_bits(nl.sum(tensor(x), (0, 1, 3), keepdim=True).numpy(), want)


def test_nothing_is_read_beyond_the_last_row() -> None:
    # Vector loads may run over the end of a row, but only inside the tensor: what follows must not count.
    for length in (1, 5, 28, 31, 33, 47):
        memory = np.full(3 * length + 64, np.inf, np.float32)
        x = memory[: 3 * length].reshape(3, length)
        x[:] = 1
        check("sum", x, 1, np.full((3, 1), length, np.float32))
        check("amax", x, 1, np.ones((3, 1), np.float32))
        check("all", x, 1, np.ones((3, 1), np.bool_))
