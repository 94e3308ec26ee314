"""The accuracy of layer norm and its gradient: rows far from 0, constant and long ones."""

from __future__ import annotations

import numpy as np
import pytest
from bounds import assert_close

import neurlang.nn.functional as F

from .contraction import Array, tensor

EPS = 1e-5
WIDER = {np.float32: np.float64, np.float64: np.longdouble}


def exactly(x: Array, g: Array) -> tuple[Array, Array, Array]:
    """The normalised rows, the gradient by x, and the standard deviations, in a wider dtype."""
    exact, g = (x - x[:, :1]).astype(WIDER[x.dtype.type]), g.astype(WIDER[x.dtype.type])  # near numbers differ exactly
    centred = exact - exact.mean(1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(1, keepdims=True) + EPS)
    normal = centred / deviation
    rest = g - g.mean(1, keepdims=True) - normal * (g * normal).mean(1, keepdims=True)
    return normal, rest / deviation, deviation


def both_ways(x: Array, g: Array) -> tuple[Array, Array]:
    t = tensor(x).requires_grad_()
    y = F.layer_norm(t, (x.shape[1],), eps=EPS)
    y.backward(tensor(g))
    return y.detach().numpy(), t.grad.numpy()


@pytest.mark.parametrize("dtype", WIDER)
@pytest.mark.parametrize("deviation", [1.0, 0.25])
@pytest.mark.parametrize("rows, length", [(5, 10), (40, 130), (5, 1000), (5, 3000), (1, 1_000_000)])
def test_rows_far_from_zero(rng: np.random.Generator, dtype: type, deviation: float, rows: int, length: int) -> None:
    x = (rng.standard_normal((rows, length)) * deviation + 1e6).astype(dtype)
    g = rng.standard_normal(x.shape).astype(dtype)
    want, gradient, deviations = exactly(x, g)
    got, by_x = both_ways(x, g)
    assert_close(got, want, "norms", scale=1 + abs(want))
    assert_close(by_x, gradient, "norms", scale=(1 + abs(g)) / deviations)


@pytest.mark.parametrize("dtype", WIDER)
@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, 1234567.8, -1e12, 1e30])
def test_constant_rows_are_zero(dtype: type, value: float) -> None:
    """The mean of a constant is rounded too."""
    for length in (3, 10, 100, 4130, 1_000_030):
        x = np.full((20 if length < 1000 else 1, length), value, dtype)
        y, gradient = both_ways(x, np.ones_like(x))
        assert not y.any() and np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1e26, 1e30, 1e36])
def test_rows_whose_variance_overflows_are_zero(rng: np.random.Generator, scale: float) -> None:
    for length in (10, 100, 1000):
        x = (rng.standard_normal((20, length)) * scale).astype(np.float32)
        y, gradient = both_ways(x, np.ones_like(x))
        assert not y.any() and not gradient.any()


@pytest.mark.parametrize("dtype", WIDER)
def test_rows_of_one_element_are_the_bias(rng: np.random.Generator, dtype: type) -> None:
    x, weight, bias = (tensor((rng.standard_normal(s) * 1e6).astype(dtype)) for s in ((40, 1), (1,), (1,)))
    assert (F.layer_norm(x, (1,), weight, bias) == bias).all()
