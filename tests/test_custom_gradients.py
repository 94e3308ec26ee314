"""`autograd.Function`: gradients that users write, their contexts and the mistakes that are reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK, assert_close
from leaves import leaf, randn

import neurlang as nl
from neurlang import autograd
from neurlang.autograd import gradcheck, gradgradcheck


class Exp(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
        y = nl.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
        (y,) = ctx.saved_tensors
        return grad * y


class TwoOfThree(autograd.Function):
    """Several arguments (one no tensor) and several results (one without gradient)."""

    @staticmethod
    def forward(ctx: Any, x: nl.Tensor, y: nl.Tensor, power: int) -> tuple[nl.Tensor, nl.Tensor, nl.Tensor]:
        ctx.save_for_backward(x, y)
        ctx.power = power
        index = nl.argmax(x)
        ctx.mark_non_differentiable(index)
        return x * y, index, x**power

    @staticmethod
    def backward(ctx: Any, g: nl.Tensor, _: Any, h: nl.Tensor) -> tuple[nl.Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gx = g * y + h * ctx.power * x ** (ctx.power - 1)
        return gx, g * x if ctx.needs_input_grad[1] else None, None


def test_custom_function(rng: np.random.Generator) -> None:
    x, y = randn(rng, 3), randn(rng, 3)
    assert gradcheck(Exp.apply, x, **GRADCHECK) and gradgradcheck(Exp.apply, x, **GRADCHECK)
    _, index, cube = TwoOfThree.apply(x, y, 3)
    assert not index.requires_grad and index.item() == int(np.argmax(x.detach().numpy()))
    (gradient,) = nl.grad(cube.sum(), x)  # product's is zeros
    assert_close(gradient.numpy(), (3 * x * x).detach().numpy(), "elementwise")

    def both(x: nl.Tensor, y: nl.Tensor) -> tuple[nl.Tensor, nl.Tensor]:
        product, _, cube = TwoOfThree.apply(x, y, 3)
        return product, cube

    assert gradcheck(both, (x, y), **GRADCHECK) and gradgradcheck(both, (x, y), **GRADCHECK)
    assert gradcheck(lambda x: both(x, y.detach()), x, **GRADCHECK)


def test_custom_function_without_gradients_runs_forward_only() -> None:
    assert not Exp.apply(nl.ones(2)).requires_grad
    with nl.no_grad():
        assert not Exp.apply(leaf([1.0])).requires_grad


def test_custom_function_may_return_or_overwrite_its_argument() -> None:
    class Same(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
            return grad * 3

    class Double_(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
            return grad * 2

    x = leaf([1.0])
    y = Same.apply(x)
    assert y is not x and x.is_leaf
    h = x * 5
    assert Double_.apply(h) is h
    (y + h).backward()
    assert x.grad.item() == 13.0


def test_custom_function_mistakes_are_reported() -> None:
    class Wrong(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor, y: nl.Tensor) -> nl.Tensor:
            ctx.save_for_backward(x)
            return x * y

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
            return grad * ctx.saved_tensors[0]

    x = leaf([1.0])
    with pytest.raises(RuntimeError, match="1 gradients for 2 arguments"):
        Wrong.apply(x, x * 2).backward()
    h = x * 1
    y = Wrong.apply(h, x)
    h.add_(1.0)
    with pytest.raises(RuntimeError, match="modified in place"):
        y.backward()


def test_unmaterialised_gradients() -> None:
    seen = []

    class Pair(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> tuple[nl.Tensor, nl.Tensor]:
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx: Any, a: Any, b: Any) -> Any:
            seen.append((a, b))
            return b * 2

    x = leaf([1.0])
    Pair.apply(x)[1].backward()
    assert seen[0][0] is None and x.grad.item() == 2.0


def test_a_rule_may_walk_back_itself_or_stop_the_walk() -> None:
    class Square(autograd.Function):
        stops = True

        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> list[nl.Tensor]:
            if Square.stops:
                raise KeyboardInterrupt
            again = ctx.saved_tensors[0].detach().requires_grad_()
            with nl.enable_grad():
                (again * again).backward(grad)
            return [again.grad]

    x = leaf([1.0, 2.0])
    h = x * 3
    y = (Square.apply(h) + h).sum()
    with pytest.raises(KeyboardInterrupt):
        y.backward(retain_graph=True)
    assert x.grad is None
    Square.stops = False
    y.backward(retain_graph=True)  # as if nothing had been before
    assert x.grad.tolist() == [21.0, 39.0]
    y.backward()
    assert x.grad.tolist() == [42.0, 78.0]
