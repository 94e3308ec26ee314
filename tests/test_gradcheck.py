"""`gradcheck` and `gradgradcheck`: they find wrong gradients and say what they need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK
from leaves import leaf, randn

import neurlang as nl
from neurlang import autograd
from neurlang.autograd import GradcheckError, gradcheck, gradgradcheck


class Square(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
        ctx.save_for_backward(x)
        return x * x


class Wrong(Square):
    @staticmethod
    def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
        return grad * 2  # forgets x


class WrongSecond(Square):
    @staticmethod
    def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
        return grad * 2 * ctx.saved_tensors[0].detach()  # right, but constant


def test_gradcheck_finds_wrong_gradients(rng: np.random.Generator) -> None:
    x = randn(rng, 3)
    assert not gradcheck(Wrong.apply, x, raise_exception=False)
    with pytest.raises(GradcheckError, match="input 0"):
        gradcheck(Wrong.apply, x)
    assert gradcheck(WrongSecond.apply, x, **GRADCHECK)
    assert not gradgradcheck(WrongSecond.apply, x, raise_exception=False)


def test_gradcheck_wants_float64_leaves() -> None:
    with pytest.raises(ValueError, match="float64"):
        gradcheck(nl.exp, leaf([1.0], nl.float32))
    with pytest.raises(ValueError, match="requires grad"):
        gradcheck(nl.exp, nl.ones(1, dtype=nl.float64))


def test_gradcheck_respects_layout(rng: np.random.Generator) -> None:
    base = nl.from_numpy(rng.standard_normal((3, 4)))
    for view in (base.t(), base[::2, ::-1], base[1]):
        assert gradcheck(lambda x: (x * x).sum(0), view.detach().requires_grad_(), **GRADCHECK)
