"""The backward engine, against hand-derived gradients, finite differences and PyTorch where it is installed."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK, assert_agrees, assert_close
from leaves import leaf, randn

import neurlang as nl
from neurlang import autograd
from neurlang.autograd import gradcheck, gradgradcheck

# ---- accumulation ----


def test_gradients_add_up_over_paths_and_calls() -> None:
    x = leaf([1.0, 2.0])
    (x * x + 3 * x).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    (x * x).sum().backward()
    assert x.grad.tolist() == [7.0, 11.0]


def test_a_node_is_visited_once_after_all_its_gradients() -> None:
    calls = []

    class Probe(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
            calls.append(grad.tolist())
            return grad * 2

    x = leaf([1.0])
    y = Probe.apply(x)
    z = y
    for _ in range(5):  # paths of several lengths from the result back to y
        z = z + y * z
    (z * y).backward()
    assert len(calls) == 1
    assert_close(x.grad.numpy(), [2 * calls[0][0]], "elementwise")


def test_deep_graphs_need_no_recursion() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1.0
    del y
    gc.collect()


def test_accumulation_into_an_existing_grad_is_in_place() -> None:
    x = leaf([1.0])
    (x * 2).backward()
    held = x.grad
    (x * 3).backward()
    assert held is x.grad
    assert held.tolist() == [5.0]


def test_leaves_do_not_share_the_memory_of_their_gradients() -> None:
    a, b, given = leaf([1.0, 2.0]), leaf([3.0, 4.0]), nl.tensor([10.0, 20.0], dtype=nl.float64)
    (a + b.reshape(2)).backward(given)
    a.grad.mul_(0.0)
    assert b.grad.tolist() == [10.0, 20.0]
    assert given.tolist() == [10.0, 20.0]
    x = leaf([1.0, 2.0, 3.0])
    x.sum().backward()
    x.grad[0] = 5.0  # not a view of one expanded element
    assert x.grad.tolist() == [5.0, 1.0, 1.0]


def test_gradients_of_broadcast_operands_have_the_operand_s_shape(rng: np.random.Generator) -> None:
    for shape in ((), (1,), (3,), (1, 3), (2, 1), (4, 1, 1), (4, 2, 3)):
        x, y = randn(rng, *shape), randn(rng, 4, 2, 3)
        (x * y).sum().backward()
        assert x.grad.shape == shape
        expanded = np.broadcast_to(x.detach().numpy(), (4, 2, 3))
        assert np.array_equal(y.grad.numpy(), expanded)
        lead = 3 - len(shape)
        axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1)
        total = y.detach().numpy().sum(axis=axes, keepdims=True).reshape(shape)
        assert_close(x.grad.numpy(), total, "sum", n=24, scale=abs(y.detach().numpy()).sum())


def test_mixed_dtypes_give_each_leaf_its_own() -> None:
    a, b = leaf([1.0, 2.0], nl.float32), leaf([3.0, 4.0], nl.float64)
    (a * b).sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (nl.float32, nl.float64)
    assert a.grad.tolist() == [3.0, 4.0]


def test_a_first_gradient_is_kept_where_nobody_else_sees_it() -> None:
    """`.grad` may be the tensor that arrived, but never memory that something else can reach."""
    x, y = nl.ones(3, requires_grad=True), nl.ones(3, requires_grad=True)
    seed = nl.tensor([1.0, 2.0, 3.0])
    (x + y).backward(seed)  # one gradient for both leaves, and the caller's
    assert not any(nl.shares_memory(a, b) for a, b in [(x.grad, y.grad), (x.grad, seed), (y.grad, seed)])
    seen = []

    class Peek(nl.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
            seen.append(grad * 2)
            return seen[-1]

    z = nl.ones(3, requires_grad=True)
    (Peek.apply(z) * 3).sum().backward()
    assert not nl.shares_memory(z.grad, seen[0])
    w = nl.ones(2, 3, requires_grad=True)
    w.sum().backward()  # arrives as an expanded view of one element
    w.grad.add_(nl.arange(6.0).reshape(2, 3))
    assert w.grad.tolist() == [[1, 2, 3], [4, 5, 6]]


# ---- what may be asked ----


def test_grad_returns_without_accumulating() -> None:
    x, y = leaf([2.0]), leaf([3.0])
    gx, gy = nl.grad(x * x * y, (x, y))
    assert (gx.item(), gy.item()) == (12.0, 4.0)
    assert x.grad is None and y.grad is None


def test_grad_of_intermediate_results() -> None:
    x = leaf([2.0])
    h = x * x
    y = h * h
    gh, gx = nl.grad(y, (h, x), retain_graph=True)
    assert (gh.item(), gx.item()) == (8.0, 32.0)
    assert nl.grad(y, h)[0].item() == 8.0
    assert nl.grad(h, x)[0].item() == 4.0  # the part below h was not used up
    assert nl.grad(h, h)[0].item() == 1.0


def test_grad_visits_only_what_leads_to_the_inputs() -> None:
    visited = []

    class Probe(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor, name: str) -> nl.Tensor:
            ctx.name = name
            return x * 1

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> tuple[nl.Tensor, None]:
            visited.append(ctx.name)
            return grad, None

    x, y = leaf([1.0]), leaf([1.0])
    z = Probe.apply(x, "x") * Probe.apply(y, "y")
    nl.grad(z, x)
    assert visited == ["x"]


def test_an_input_that_is_named_twice_gets_its_gradient_once(torch: Any) -> None:
    for lib in (nl, torch):
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        (x * x).sum().backward(inputs=[x, x])
        assert x.grad.tolist() == [2.0, 4.0]


def test_errors_name_the_call() -> None:
    x, constant = leaf([1.0, 2.0]), nl.ones(1)
    for name, call in ("backward", lambda y, g: y.backward(g)), ("grad", lambda y, g: nl.grad(y, x, g)):
        for y, g, text in (x, None, "a gradient"), (x, constant, "the gradient"), (constant, None, "the tensor"):
            with pytest.raises(RuntimeError, match=f"^{name}: {text}"):
                call(y, g)


def test_unused_inputs() -> None:
    x, y = leaf([1.0]), leaf([1.0])
    assert nl.grad(x * 2, (x, y), allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="allow_unused"):
        nl.grad(x * 2, (x, y))
    with pytest.raises(RuntimeError, match="does not require grad"):
        nl.grad(x * 2, nl.ones(1))


def affine(x: nl.Tensor, scale: nl.Tensor) -> nl.Tensor:
    nothing = nl.zeros(1, 1, dtype=nl.float64)
    return nl._tensor._channel_affine(x, nothing, scale, nothing)


READ_FOR_OTHERS: dict[str, Callable[[nl.Tensor, nl.Tensor], nl.Tensor]] = {
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "remainder": lambda x, y: x % y,
    "fmod": lambda x, y: x.fmod(y),
    "lerp": lambda x, y: nl.zeros_like(y).lerp(x, y),
    "channel_affine": lambda x, y: affine(x.reshape(1, 1, 9), y.reshape(9)[:1].reshape(1, 1)),
    "matmul": lambda x, y: x @ y,
    "matmul, the other way round": lambda x, y: y @ x,
    "conv2d": nl.conv2d,
    "conv2d by the weight": lambda x, y: nl.conv2d(y, x),
    "conv_transpose2d": nl.conv_transpose2d,
}


@pytest.mark.parametrize("name", READ_FOR_OTHERS)
def test_an_operand_is_kept_where_another_wants_a_gradient(name: str) -> None:
    found = []
    for wanted in (False, True):
        memory, start = np.arange(9.0).reshape(1, 1, 3, 3), leaf(np.ones((1, 1, 3, 3)))
        kept, x = weakref.ref(memory), nl.from_numpy(memory).add_(start)
        y = nl.full((1, 1, 3, 3), 2.5, dtype=nl.float64, requires_grad=wanted)
        result = READ_FOR_OTHERS[name](x, y)
        del memory, x
        gc.collect()
        assert (kept() is not None) == wanted
        result.sum().backward()
        found.append(start.grad.tolist())
    assert found[0] == found[1]


def test_several_roots_and_weights() -> None:
    x = leaf([1.0, 2.0])
    y = x * x
    (g,) = nl.grad((y, y.sum()), x, (nl.tensor([1.0, 10.0], dtype=nl.float64), None))
    assert g.tolist() == [4.0, 44.0]
    autograd.backward([x.sum(), (2 * x).sum()])
    assert x.grad.tolist() == [3.0, 3.0]


def test_backward_to_chosen_inputs() -> None:
    x, y = leaf([2.0]), leaf([3.0])
    autograd.backward(x * y, inputs=[x])
    assert x.grad.item() == 3.0 and y.grad is None


def test_errors_name_the_reason() -> None:
    x = leaf([1.0, 2.0])
    for inputs, reason in (([], "empty"), ([x, nl.ones(2)], "input 1 does not require grad")):
        with pytest.raises(RuntimeError, match=f"backward: .*{reason}"):
            x.sum().backward(inputs=inputs)
        with pytest.raises(RuntimeError, match=f"grad: .*{reason}"):
            nl.grad(x.sum(), inputs)
    with pytest.raises(RuntimeError, match="2 gradients are given for 1 tensors"):
        autograd.backward(x * 2, [x.detach(), x.detach()])
    with pytest.raises(RuntimeError, match="shape"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="shape"):
        (x * 2).backward(nl.ones(3, dtype=nl.float64))
    with pytest.raises(RuntimeError, match="does not require grad"):
        nl.ones(1).backward()
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()


def test_retain_graph() -> None:
    x = leaf([3.0])
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12.0


def test_a_failing_rule_restores_the_grad_mode() -> None:
    class Fails(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: nl.Tensor) -> nl.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, grad: nl.Tensor) -> nl.Tensor:
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        Fails.apply(leaf(1.0)).backward()
    assert nl.is_grad_enabled()


# ---- in place ----


def test_in_place_history() -> None:
    x = leaf([1.0, 2.0, 3.0])
    y = x * x
    y.mul_(3.0)
    y.add_(x)
    (y * y).sum().backward()
    expected = [2 * (3 * v * v + v) * (6 * v + 1) for v in (1.0, 2.0, 3.0)]
    assert x.grad.tolist() == expected


def test_writes_through_views_reach_the_base() -> None:
    x = leaf([1.0, 2.0, 3.0, 4.0])
    y = x * 1
    y[1:3].mul_(10.0)
    v = y.view(2, 2)
    y[0] = 7.0
    (v * v).sum().backward()
    assert x.grad.tolist() == [0.0, 400.0, 600.0, 8.0]


IN_PLACE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "exp": (lambda y: y.exp_(), lambda y: y.exp()),
    "log": (lambda y: y.abs_().add_(1).log_(), lambda y: (y.abs() + 1).log()),
    "clamp": (lambda y: y.clamp_(-0.5, 0.5), lambda y: y.clamp(-0.5, 0.5)),
    "square": (lambda y: y.pow_(2), lambda y: y * y),
    "itself": (lambda y: y.mul_(y), lambda y: y * y),
    "a view": (lambda y: y[:2].sin_(), lambda y: y[:2].sin()),
    "its rows": (lambda y: y.mul_(y[:1]), lambda y: y * y[:1]),
    "across": (lambda y: y.mul_(y.t()), lambda y: y * y.t()),
    "another": (lambda y: y.atan2_(y.detach() + 2), lambda y: y.atan2(y.detach() + 2)),
    "without": (lambda y: y.detach().clone().mul_(y), lambda y: y.detach() * y),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_is_overwritten_is_kept_for_its_own_gradient(name: str, rng: np.random.Generator, torch: Any) -> None:
    values = rng.standard_normal((3, 3))
    x = nl.tensor(values, requires_grad=True)
    theirs = torch.tensor(values, requires_grad=True)
    for lib, leaf_, form in ((nl, x, IN_PLACE[name][0]), (torch, theirs, IN_PLACE[name][1])):
        y = form(leaf_ * lib.ones(3, 3, dtype=lib.float64))
        (y * y).sum().backward()
    assert_agrees(x.grad.numpy(), theirs.grad.numpy())


def test_a_saved_tensor_that_was_overwritten_is_an_error() -> None:
    x = leaf([1.0, 2.0])
    h = x * 1
    y = h * h
    h.add_(1.0)
    with pytest.raises(RuntimeError, match="modified in place"):
        y.sum().backward()


def test_leaves_cannot_be_written_while_recording() -> None:
    x = leaf([1.0])
    with pytest.raises(RuntimeError, match="in place"):
        x.add_(1.0)
    with nl.no_grad():
        x.add_(1.0)
    assert x.tolist() == [2.0] and x.requires_grad


@pytest.mark.parametrize("write", ["fill_(5.0)", "zero_()", "copy_(c)", "uniform_()", "__setitem__(..., c)"])
def test_what_a_constant_overwrites_gets_the_gradient_0(write: str, torch: Any) -> None:
    for lib in (nl, torch):
        x = lib.ones(3, requires_grad=True)
        y = x * 2
        eval(f"y.{write}", {"y": y, "c": lib.zeros(3)})
        assert y.requires_grad
        (y * 3).sum().backward()
        assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("write", [lambda v: v.fill_(5.0), lambda v: v.mul_(2), lambda v: v.__setitem__(0, 3.0)])
def test_a_view_of_a_leaf_cannot_be_written(write: Any, torch: Any) -> None:
    for lib in (nl, torch):
        x = lib.ones(3, requires_grad=True)
        for view in (x[1:], x.view(3, 1), x.split(2)[0]):
            with pytest.raises(RuntimeError, match=r"leaf|view"):
                write(view)
        with lib.no_grad():
            write(x[1:])
        assert x.is_leaf and x.tolist() != [1.0, 1.0, 1.0]


def test_a_leaf_that_is_a_view_keeps_its_gradient() -> None:
    w = nl.ones(2, 3)
    x = w.t().requires_grad_()
    first, rest = x[0], x.split(1)[1]
    w.mul_(2)  # the views' history is the leaf's, not its memory's
    (first.sum() + rest.sum() * 2).backward()
    assert x.grad.tolist() == [[1, 1], [2, 2], [0, 0]]


# ---- threads, detached results ----


def test_threads_may_differentiate_one_graph_at_once() -> None:
    x = leaf(np.linspace(0.0, 1.0, 50))
    y = (x * x).sum()
    results: list[list[float]] = []

    def work() -> None:
        for _ in range(50):
            results.append(nl.grad(y, x, retain_graph=True)[0].tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 200 and all(r == (2 * x).tolist() for r in results)


def test_detach_stops_the_gradient() -> None:
    x = leaf([2.0])
    (x * x.detach()).backward()
    assert x.grad.item() == 2.0


# ---- higher order ----


def test_second_and_third_order() -> None:
    x = leaf([2.0])
    (g1,) = nl.grad(x**4, x, create_graph=True)
    (g2,) = nl.grad(g1, x, create_graph=True)
    (g3,) = nl.grad(g2, x)
    assert [g.item() for g in (g1, g2, g3)] == [32.0, 48.0, 48.0]
    assert not g3.requires_grad


def test_gradient_penalty(rng: np.random.Generator) -> None:
    """A gradient of a norm of a gradient, through layers, against finite differences."""
    w1, w2, x = randn(rng, 3, 4), randn(rng, 4, 1), randn(rng, 5, 3)

    def penalty(w1: nl.Tensor, w2: nl.Tensor) -> nl.Tensor:
        with nl.enable_grad():
            y = (nl.tanh(x @ w1) @ w2).sum()
            (g,) = nl.grad(y, x, create_graph=True)
        return ((g * g).sum(1).sqrt() - 1).square().mean()

    assert gradcheck(penalty, (w1, w2), **GRADCHECK)


def test_create_graph_accumulates_differentiable_gradients() -> None:
    x = leaf([2.0])
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad
    assert nl.grad(x.grad, x)[0].item() == 12.0


# ---- windows that overlap ----


WINDOWS = [((2,), (0,), 0), ((2, 3), (1, 1), 1), ((3, 2), (-1, 2), 2), ((2, 2), (2, 1), 0), ((0, 2), (1, 1), 0)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("transposed", [False, True])
def test_strided_windows_add_the_gradients_of_what_they_show_twice(
    window: tuple[Any, ...], transposed: bool, rng: np.random.Generator, torch: Any
) -> None:
    values, weights = rng.standard_normal((2, 4)), rng.standard_normal(window[0])
    grads = []
    for lib in (nl, torch):
        x = lib.tensor(values)
        x = (x.t() if transposed else x).requires_grad_()
        if lib is nl or min(window[1]) >= 0:
            y = x.as_strided(*window)
            (y * y * lib.tensor(weights)).sum().backward()
        else:  # PyTorch has no negative strides
            ((x.as_strided((3, 2), (1, 2), 0).flip(0)) ** 2 * lib.tensor(weights)).sum().backward()
        grads.append(x.grad.numpy())
    assert_close(grads[0], grads[1], "chain of ops", n=4, scale=np.abs(grads[1]).max() + 1)


def test_strided_windows_that_overlap_pass_gradcheck() -> None:
    x = nl.rand(7, dtype=nl.float64, requires_grad=True)
    assert gradcheck(lambda x: x.as_strided((3, 3), (2, 1)).square(), (x,))
    assert gradgradcheck(lambda x: x.as_strided((3, 3), (2, 1)) ** 3, (x,))


# ---- lifetime ----


def test_backward_frees_what_was_saved() -> None:
    x = leaf(np.ones(4))
    h = nl.exp(x)
    watched = weakref.ref(h)
    y = (h * h).sum()
    del h
    y.backward()
    gc.collect()
    assert watched() is None


def test_results_do_not_keep_themselves_alive() -> None:
    y = nl.exp(leaf(np.ones(4)))
    watched = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert watched() is None  # by counting alone: no cycle through the node
    finally:
        gc.enable()


# ---- against PyTorch: random programs ----


def unary(lib: Any) -> list[Callable[[Any], Any]]:
    return [
        lambda x: x * x,
        lambda x: lib.tanh(x),
        lambda x: lib.exp(x * 0.1),
        lambda x: x[:, 1:],
        lambda x: x.t(),
        lambda x: x.sum(1, keepdim=True) * x,
        lambda x: lib.cat([x, x * 2], 0),
        lambda x: x.flatten().reshape(x.shape[1], x.shape[0]),
        lambda x: (x * 1).add_(x),
        lambda x: lib.where(x > 0, x, x * 0.5),
        lambda x: x @ x.transpose(0, 1) * 0.1,
        lambda x: x.max(dim=1, keepdim=True).values + x,
        lambda x: x / (x * x + 1),
        lambda x: x.softmax(-1),
        lambda x: x.split([1, x.shape[0] - 1])[1],
    ]


@pytest.mark.parametrize("number", range(40))
def test_random_programs_agree_with_torch(number: int, rng: np.random.Generator, torch: Any) -> None:
    values = rng.standard_normal((5, 6))
    steps = rng.integers(0, len(unary(nl)), 12)
    results = []
    for lib in (nl, torch):
        x = lib.from_numpy(values.copy()).requires_grad_()
        pool = [x]
        for step in steps:
            y = lib.tanh(unary(lib)[step](pool[-1]))  # keeps a dozen steps from overflowing
            pool.append(y if min(y.shape) > 1 and max(y.shape) < 60 else pool[-1] * 0.5)
        total = sum((p * p).mean() for p in pool)
        (g,) = lib.autograd.grad(total, x, create_graph=True)
        (h,) = lib.autograd.grad((g * g).sum(), x)
        results.append((total.detach().numpy(), g.detach().numpy(), h.numpy()))
    for ours, theirs in zip(*results, strict=True):
        assert_agrees(ours, theirs, n=len(steps))
