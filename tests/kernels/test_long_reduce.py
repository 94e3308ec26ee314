"""Sums, means, products and variances of ten million numbers, and of a hundred, that are hard to add: their errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl

from .contraction import Array, tensor

LENGTHS = [10**7, pytest.param(10**8, marks=pytest.mark.slow)]
# A sum that adds one after another loses the tiny ones to the first, or is wrong by a constant's every rounding.
NUMBERS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "of both signs": lambda rng, n: rng.standard_normal(n),
    "huge, alternating": lambda rng, n: np.tile([1e30, -1e30], n // 2),
    "nearly so": lambda rng, n: np.tile([1e30, -1e30], n // 2) * (1 + 0.01 * rng.random(n)),
    "huge in random order": lambda rng, n: rng.permutation(np.tile([1e30, -1e30, 1.0, 1.0], n // 4)),
    "tiny beside one": lambda rng, n: np.r_[1.0, rng.random(n - 1) * 1e-8],
    "subnormal in 32 bits": lambda rng, n: np.full(n, 3e-42),
    "constant": lambda rng, n: np.full(n, 0.1),
}


def hard(name: str, n: int, dtype: type, rng: np.random.Generator) -> tuple[Array, Array]:
    """The numbers, and what they are exactly (sums in long doubles are as good as exact beside our bounds)."""
    x = NUMBERS[name](rng, n).astype(dtype)
    return x, x.astype(np.longdouble)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NUMBERS)
def test_sums_and_means(name: str, dtype: type, n: int, rng: np.random.Generator) -> None:
    x, exact = hard(name, n, dtype, rng)
    total, size = exact.sum(), abs(exact).sum()
    assert_close(nl.sum(tensor(x)).numpy(), total, "sum", n=n, scale=size)
    assert_close(nl.mean(tensor(x)).numpy(), total / n, "sum", n=n, scale=size / n)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NUMBERS)
def test_products_of_vectors(name: str, dtype: type, n: int, rng: np.random.Generator) -> None:
    x, exact = hard(name, n, dtype, rng)
    y = rng.random(n).astype(dtype)
    terms = exact * y
    assert_close(nl.dot(tensor(x), tensor(y)).numpy(), terms.sum(), "sum", n=n, scale=abs(terms).sum())


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_variances(mean: float, dtype: type, n: int, rng: np.random.Generator) -> None:
    x = (rng.standard_normal(n) + mean).astype(dtype)
    assert_close(nl.var(tensor(x)).numpy(), x.astype(np.longdouble).var(ddof=1), "variance", n=n)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e18, 3e-42])
def test_what_is_constant_does_not_vary(value: float, dtype: type, n: int) -> None:
    # The mean's last place is wrong; what is left of its square is far below that of the numbers' last place.
    x = np.full(n, value, dtype)
    found = nl.var(tensor(x), unbiased=False).numpy()
    assert_close(found, np.zeros(()), "elementwise", scale=float(np.spacing(abs(x[0]))) ** 2)


def test_the_variance_of_large_numbers_that_are_near(rng: np.random.Generator) -> None:
    x = (3e21 + rng.standard_normal(10**6) * 1e15).astype(np.float32)
    assert_close(nl.var(tensor(x)).numpy(), x.astype(np.longdouble).var(ddof=1), "variance", n=x.size)


@pytest.mark.parametrize("scale", [1e26, 1e30, 1e36])
def test_a_variance_that_overflows_is_infinite(scale: float, rng: np.random.Generator) -> None:
    x = (rng.standard_normal((20, 100)) * scale).astype(np.float32)
    assert (nl.var(tensor(x), 1).numpy() == np.inf).all() and nl.var(tensor(x)).item() == np.inf
