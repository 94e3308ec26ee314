"""`autograd.Function`: gradients that users write, their contexts and the mistakes that are reported."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
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


def test_saved_results_do_not_keep_themselves(rng: np.random.Generator) -> None:
    gc.collect()
    gc.disable()  # only reference counts may free them
    try:
        y = Exp.apply(randn(rng, 3))
        result, node = weakref.ref(y), weakref.ref(y.grad_fn)
        del y
        assert result() is None and node() is None
    finally:
        gc.enable()


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


def test_what_a_function_overwrites(torch: Any) -> None:
    for lib in (nl, torch):

        class Double_(lib.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.mark_dirty(x)
                return x.mul_(2)

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                return grad * 2

        x = lib.tensor([1.0, 2.0, 3.0], requires_grad=True)
        h = x * 1
        Double_.apply(h[1:])  # what was before flows into what is now, through the view
        h.sum().backward()
        assert h.tolist() == [1.0, 4.0, 6.0] and x.grad.tolist() == [1.0, 2.0, 2.0]
        for leaf_or_view in (x, x[1:]):
            with pytest.raises(RuntimeError, match="leaf"):
                Double_.apply(leaf_or_view)


def test_what_a_function_overwrites_it_returns(torch: Any) -> None:
    for lib in (nl, torch):

        class Lost(lib.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.mark_dirty(x)
                return x.mul_(2) * 1

        with pytest.raises(RuntimeError, match="return"):
            Lost.apply(lib.ones(2, requires_grad=True) * 1)


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


def returns(gradients: Callable[[nl.Tensor], Any]) -> type[autograd.Function]:
    class Scaled(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> Any:
            return gradients(grad)

    return Scaled


NO_GRADIENTS: dict[str, tuple[Callable[[nl.Tensor], Any], type[Exception], str]] = {
    "number": (lambda g: 2.0, nl.DTypeError, "argument 0 must be a float32[2, 3] or None, got float 2.0"),
    "too many": (lambda g: (g, g), RuntimeError, "2 gradients for 1 arguments"),
    "none": (lambda g: (), RuntimeError, "0 gradients for 1 arguments"),
    "other sizes": (lambda g: nl.ones(2, 4), nl.ShapeError, "float32[2, 3] or None, got float32[2, 4]"),
    "as many elements": (lambda g: g.T, nl.ShapeError, "float32[2, 3] or None, got float32[3, 2]"),
    "fewer axes": (lambda g: g.reshape(6), nl.ShapeError, "float32[2, 3] or None, got float32[6]"),
    "too few": (lambda g: g[:1], nl.ShapeError, "float32[2, 3] or None, got float32[1, 3]"),
}


@pytest.mark.parametrize("name", NO_GRADIENTS)
def test_what_is_no_gradient_is_named_with_its_function(name: str) -> None:
    gradients, error, text = NO_GRADIENTS[name]
    x = leaf([[1.0, 2.0, 3.0]] * 2, nl.float32)
    with pytest.raises(error, match="^Scaled backward: .*" + re.escape(text)):
        returns(gradients).apply(x).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "bool"])
def test_a_gradient_is_rounded_to_its_arguments_dtype(dtype: str, torch: Any) -> None:
    for lib in (nl, torch):
        kind = getattr(lib, dtype)

        class Mask(lib.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            def backward(ctx: Any, grad: Any, kind: Any = kind) -> Any:
                return (grad > 1).to(kind)

        x = lib.tensor([1.0, 2.0], requires_grad=True)
        h = x * 3
        (Mask.apply(h) * lib.tensor([1.0, 5.0]) + h).sum().backward()
        assert x.grad.dtype == lib.float32 and x.grad.tolist() == [3.0, 6.0]


def test_broadcasting_of_a_gradient_is_undone() -> None:
    x = leaf([[1.0], [2.0]])
    returns(lambda g: g.expand(5, 2, 3) * 1).apply(x).sum().backward()
    assert x.grad.tolist() == [[15.0], [15.0]]


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
