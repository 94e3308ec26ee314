"""Random numbers against their formulas: uniform ones exactly, normal ones within a bound of Box and Muller's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from bounds import DEVIATIONS, assert_close, assert_share

import neurlang as nl
from neurlang.ops import expressions, to_numpy
from neurlang.ops import scalar as s

from .compiled import fma_of

N, SEED, DRAW = 200_000, 0x1234_5678_9ABC, 3


def words() -> tuple[np.ndarray, ...]:
    """Philox's four words of the elements of one draw (held to published numbers in test_scalar.py), as integers."""
    arrays = [np.arange(N), np.full(N, SEED), np.full(N, DRAW)]
    made = to_numpy.evaluate(expressions.philox(*(s.arg(i, "i64") for i in range(3))), arrays, np, fma_of("avx2"))
    return tuple(word.astype(np.int64) for word in made)


def drawn(draw: Any, dtype: nl.dtype) -> np.ndarray:
    nl.set_rng_state((SEED, DRAW))
    return np.asarray(draw(N, dtype=dtype).numpy())


def test_uniform_numbers_are_the_upper_bits_of_the_words() -> None:
    a, b, _, _ = words()
    np.testing.assert_array_equal(drawn(nl.rand, nl.float32), (a >> 8) / 2.0**24)
    np.testing.assert_array_equal(drawn(nl.rand, nl.float64), ((a >> 5) * 2**26 + (b >> 6)) / 2.0**53)


def test_a_permutation_is_the_order_of_uniform_numbers() -> None:
    a, b, _, _ = words()
    want = np.argsort((a >> 5) * 2**26 + (b >> 6), kind="stable")
    np.testing.assert_array_equal(drawn(nl.randperm, nl.int64), want)
    np.testing.assert_array_equal(drawn(nl.trace(nl.randperm), nl.int32), want)
    assert nl.randperm(0).shape == (0,) and nl.get_rng_state() == (SEED, DRAW + 2)


def test_permutations_are_equally_frequent() -> None:
    count, orders = 6000, list(itertools.permutations(range(4)))
    found = [tuple(nl.randperm(4).tolist()) for _ in range(count)]
    for order in orders:
        assert_share(np.array([p == order for p in found]), 1 / len(orders))


@pytest.mark.parametrize("dtype", [nl.float32, nl.float64])
def test_normal_numbers_are_box_and_mullers(dtype: nl.dtype) -> None:
    """u and half turns v have more bits than a float32, which rounds u; everything else is done in long doubles."""
    a, b, c, d = (word >> 8 for word in words())
    u = a / 2.0**24 + (b + 1) / 2.0**48
    v = c / 2.0**24 - 0.5
    if dtype is nl.float32:
        u = u.astype(np.float32)
    else:
        v = v + d / 2.0**48
    u, v = u.astype(np.longdouble), v.astype(np.longdouble)
    want = np.sqrt(-2 * np.log(u)) * np.sin(np.pi * v + np.longdouble(1.2246467991473532e-16) * v)
    want = want.astype(np.float64)
    assert_close(drawn(nl.randn, dtype), want, "normal numbers", scale=np.abs(want))


def test_moments_and_evenness() -> None:
    for dtype in (nl.float32, nl.float64):
        u, z = (drawn(draw, dtype).astype(float) for draw in (nl.rand, nl.randn))
        assert u.min() >= 0 and u.max() < 1
        for sample, mean, variance, fourth in ((u, 0.5, 1 / 12, 1 / 80), (z, 0.0, 1.0, 3.0)):
            moments = [sample.mean(), sample.var(), ((sample - sample.mean()) ** 4).mean()]
            spread = np.sqrt(np.array([variance, fourth - variance**2, 100 * fourth]) / N)
            assert (np.abs(np.array(moments) - [mean, variance, fourth]) < DEVIATIONS * spread).all()
        assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < DEVIATIONS / np.sqrt(N)
        counts = np.histogram(u, 64, (0, 1))[0]
        chi_square, freedom = ((counts - N / 64) ** 2).sum() / (N / 64), 63
        assert chi_square < freedom + DEVIATIONS * np.sqrt(2 * freedom)


@pytest.mark.parametrize("dtype", [nl.float16, nl.bfloat16, nl.float32, nl.float64])
def test_ones_are_as_frequent_as_is_said(dtype: nl.dtype) -> None:
    p = nl.tensor([0.0, 0.25, 1.0], dtype=dtype).expand(N, 3)
    for drawn in (nl.bernoulli(p), p.bernoulli(), nl.zeros(N, 3, dtype=nl.int64).bernoulli_(p)):
        assert ((drawn == 0) | (drawn == 1)).all()
        for column, share in enumerate(p[0].tolist()):
            assert_share((drawn[:, column] == 1).numpy(), share)
    assert nl.bernoulli(p).dtype is dtype
    assert_share(nl.zeros(N, dtype=dtype).bernoulli_(0.75).bool().numpy(), 0.75)


def test_probabilities_are_floats_between_0_and_1() -> None:
    with pytest.raises(nl.DTypeError, match="bernoulli"):
        nl.bernoulli(nl.tensor([0, 1]))
    for p in (-0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match="bernoulli"):
            nl.zeros(2).bernoulli_(p)
