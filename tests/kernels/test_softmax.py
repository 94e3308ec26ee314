"""softmax, log_softmax and layer_norm: the bits of their definitions, and the accuracy of softmax on hard rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl
import neurlang.nn.functional as F

from .contraction import Array, assert_same_bits, tensor
from .reduction import largest, numbers, on_all_threads, shape_around, tree

FLOATS = [np.float32, np.float64]
LENGTHS = [1, 2, 7, 10, 31, 32, 33, 64, 100, 511, 513, 1100, 1500, 20_000]


def spelled_out(x: Array, axis: int) -> tuple[Array, Array]:
    """softmax and log_softmax from the definition; exp and log are the elementwise kernels'."""
    difference = x - largest(x, axis)
    e = nl.exp(tensor(difference)).numpy()
    total = tree(e, axis)
    return e / total, difference - nl.log(tensor(total)).numpy()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", range(6))
def test_bits_are_the_definitions(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    with np.errstate(all="ignore"):
        softmax, log_softmax = spelled_out(x, axis)
    for got in on_all_threads(lambda: nl.softmax(tensor(x), axis)):
        assert_same_bits(got, softmax)
    for got in on_all_threads(lambda: nl.log_softmax(tensor(x), axis)):
        assert_same_bits(got, log_softmax)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_too_long_to_keep_their_exponentials(rng: np.random.Generator, dtype: type) -> None:
    x = rng.standard_normal((2, 140_001)).astype(dtype)
    softmax, log_softmax = spelled_out(x, 1)
    assert_same_bits(nl.softmax(tensor(x), 1).numpy(), softmax)
    assert_same_bits(nl.log_softmax(tensor(x), 1).numpy(), log_softmax)


def hard_rows() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "huge": rng.choice([-1e4, 1e4], (3, 777)),
        "equal": np.full((2, 1000), 3.25),
        "masked": np.where(rng.random((4, 300)) < 0.7, -np.inf, rng.standard_normal((4, 300))),
        "wide": rng.standard_normal((2, 100_000)) * 30,
        "steep": np.arange(500.0)[None] * 7,
        "one": np.array([[-5.0]]),
    }


@pytest.mark.parametrize("name", hard_rows())
def test_hard_rows_stay_accurate(name: str) -> None:
    x = hard_rows()[name].astype(np.float32)
    difference = x.astype(np.float64) - x.max(1, keepdims=True)
    e = np.exp(difference)
    want = e / e.sum(1, keepdims=True)
    got = nl.softmax(tensor(x), 1).numpy()
    bound = 8 * 2.0**-24 * (1 + np.log2(x.shape[1]) / 8)
    normal = want > 1e-30
    # What x - max loses when it is rounded, exp makes a relative error of that size.
    assert np.all(abs(got - want)[normal] <= (bound + 2.0**-24 * abs(difference[normal])) * want[normal])
    assert np.all(abs(got.astype(np.float64).sum(1) - 1) <= bound)
    log_want = difference - np.log(e.sum(1, keepdims=True))
    scale = abs(x[np.isfinite(x)]).max() + 1
    assert_close(nl.log_softmax(tensor(x), 1).numpy(), log_want, "log_softmax", n=x.shape[1], scale=scale)


def test_a_row_of_minus_infinity_is_nan_as_in_pytorch(torch: Any) -> None:
    x = np.full((2, 9), -np.inf, np.float32)
    x[1, 3] = 0
    for name in ("softmax", "log_softmax"):
        got = getattr(nl, name)(tensor(x), 1).numpy()
        np.testing.assert_array_equal(got, getattr(torch, name)(torch.from_numpy(x), 1).numpy())


def test_large_outputs_bypass_the_caches_unseen(rng: np.random.Generator) -> None:
    # From 16 MiB on, aligned rows are written with streaming stores; the same rows alone are not.
    x = rng.standard_normal((4100, 1024)).astype(np.float32)
    w, b = (rng.standard_normal(1024).astype(np.float32) for _ in range(2))
    functions = [
        lambda t: nl.softmax(t, 1),
        lambda t: nl.log_softmax(t, 1),
        lambda t: F.layer_norm(t, (1024,), tensor(w), tensor(b)),
    ]
    for function in functions:
        for whole in on_all_threads(lambda function=function: function(tensor(x))):
            for begin in range(0, 4100, 1000):
                assert_same_bits(function(tensor(x[begin : begin + 1000])).numpy(), whole[begin : begin + 1000])


@pytest.mark.parametrize("length", [1, 3, 10, 31, 32, 40, 512, 513, 1100])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_layer_norm_bits_are_the_definitions(rng: np.random.Generator, dtype: type, length: int, eps: float) -> None:
    x = numbers(rng, (int(rng.integers(1, 9)), length), dtype)
    weight, bias = (numbers(rng, (length,), dtype) for _ in range(2))
    with np.errstate(all="ignore"):
        centred = x - tree(x, 1) / dtype(length)
        rest = tree(centred, 1) / dtype(length)
        squares = tree(centred * centred, 1) / dtype(length)
        left = squares - rest * rest
        variance = np.where(np.isnan(left), squares, np.maximum(left, dtype(0)))
        want = (centred - rest) * (dtype(1) / np.sqrt(variance + dtype(eps))) * weight + bias
    for got in on_all_threads(lambda: F.layer_norm(tensor(x), (length,), tensor(weight), tensor(bias), eps)):
        assert_same_bits(got, want)


def test_empty_rows() -> None:
    for shape in [(0, 5), (5, 0), (0, 0)]:
        assert nl.softmax(nl.zeros(shape), 1).shape == shape
        assert nl.log_softmax(nl.zeros(shape), 1).shape == shape
