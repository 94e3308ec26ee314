"""Gradients of the table's rows, of first and second order, against finite differences, and PyTorch's at kinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK, assert_close

import neurlang as nl
from neurlang.autograd import gradcheck, gradgradcheck
from neurlang.ops.row import Row

from .draws import MAPS, NUMBERS, REDUCTIONS, draw, function, ids, types_of


def leaf(a: np.ndarray) -> nl.Tensor:
    x = nl.from_numpy(a.copy())
    return x.requires_grad_() if a.dtype == np.float64 else x


def check_gradients(call: Callable[..., Any], inputs: list[nl.Tensor]) -> None:
    assert gradcheck(call, inputs, **GRADCHECK)
    assert gradgradcheck(call, inputs, **GRADCHECK)


@pytest.mark.parametrize("row", [r for r in MAPS if r.grad and "T->T" in f"{r.types[-4:]}"], ids=ids)
def test_map_gradients(row: Row, rng: np.random.Generator) -> None:
    arrays = [draw(rng, row, i, t, (2, 3) if i != 1 else (3,)) for i, t in enumerate(types_of(row, "f64"))]
    scalars = [i for i, name in enumerate(row.ins) if name in row.defaults or name in NUMBERS - {"weight"}]
    operands = [a.flat[0].item() if i in scalars else leaf(a) for i, a in enumerate(arrays)]
    tensors = [x for x in operands if isinstance(x, nl.Tensor)]

    def call(*given: Any) -> Any:
        left = list(given)
        return function(row)(*(x if i in scalars else left.pop(0) for i, x in enumerate(operands)))

    check_gradients(call, tensors)


REDUCED = [(row, dim) for row in REDUCTIONS if row.grad for dim in (0, 1, None)]


@pytest.mark.parametrize(("row", "dim"), REDUCED, ids=ids)
def test_reduction_gradients(row: Row, dim: Any, rng: np.random.Generator) -> None:
    x = draw(rng, row, 0, "f64", (3, 4))
    check_gradients(lambda x: getattr(nl, row.name)(x, dim), [leaf(x)])


def test_product_gradient_at_zeros(torch: Any) -> None:
    for values in ([2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [0.0] * 3, [1.5]):
        ours = nl.tensor(values, dtype=nl.float64, requires_grad=True)
        theirs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        nl.prod(ours).backward()
        torch.prod(theirs).backward()
        assert ours.grad.tolist() == theirs.grad.tolist()
        check_gradients(nl.prod, [nl.tensor(values, dtype=nl.float64, requires_grad=True)])


KERNEL_CALLS: dict[str, tuple[list[tuple[int, ...]], Callable[..., Any]]] = {
    "matmul": ([(2, 3), (3, 2)], nl.matmul),
    "batched matmul": ([(2, 1, 2, 3), (2, 3, 2)], nl.matmul),
    "conv2d": ([(1, 2, 4, 4), (4, 1, 2, 2)], lambda x, w: nl.conv2d(x, w, None, (2, 1), (1, 0), (1, 2), 2)),
    "conv_transpose2d": ([(1, 2, 3, 3), (2, 2, 2, 2)], lambda x, w: nl.conv_transpose2d(x, w, None, 2, 1, 1)),
    "max_pool2d": ([(1, 2, 4, 5)], lambda x: nl.max_pool2d(x, 2, 1, 1)),
    "avg_pool2d": ([(1, 2, 4, 5)], lambda x: nl.avg_pool2d(x, (2, 3), 2, 1, True, False)),
    "adaptive_max_pool2d": ([(1, 2, 5, 4)], lambda x: nl.adaptive_max_pool2d(x, (3, 2))),
    "adaptive_avg_pool2d": ([(1, 2, 5, 4)], lambda x: nl.adaptive_avg_pool2d(x, (3, 2))),
    "gather": ([(3, 4)], lambda x: nl.gather(x, 1, nl.tensor([[0, 0], [3, -1], [1, 2]]))),
    "scatter_add": ([(3, 4), (3, 2)], lambda x, y: nl.scatter_add(x, 1, nl.tensor([[0, 0], [3, -1], [1, 2]]), y)),
    "index_select": ([(3, 4)], lambda x: nl.index_select(x, 0, nl.tensor([2, 0, 2, -1]))),
    "index_add": ([(3, 4), (2, 4)], lambda x, y: nl.index_add(x, 0, nl.tensor([2, 2]), y)),
    "index_get": ([(3, 4, 2)], lambda x: x[nl.tensor([0, 2, 0]), :, nl.tensor([1, 0, 1])]),
    "index_put": ([(3, 4), (2, 4)], lambda x, y: put(x, nl.tensor([2, 0]), y)),
    "cumsum": ([(3, 4)], lambda x: nl.cumsum(x, 0)),
    "cumprod": ([(3, 4)], lambda x: nl.cumprod(x, 1)),
    "cumprod of zeros": ([(2, 5)], lambda x: nl.cumprod(x * nl.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), 1)),
    "logcumsumexp": ([(3, 4)], lambda x: nl.logcumsumexp(x, 1)),
    "cummax": ([(3, 4)], lambda x: nl.cummax(x, 1)[0]),
    "sum_square_deviations": ([(3, 4)], lambda x: nl._tensor._sum_square_deviations(x, 0)),
    "deviations": ([(3, 4)], lambda x: nl._tensor._deviations(x, x.sum(1, True) / 4, 1)[0]),
    "logsumexp": ([(3, 4)], lambda x: nl._tensor._logsumexp(x, 1)),
    "sum_squares": ([(3, 4)], lambda x: nl._tensor._sum_squares(x, 0)),
    "sort": ([(3, 4)], lambda x: nl.sort(x, 0, True)[0]),
    "msort": ([(5, 2)], nl.msort),
    "topk": ([(3, 4)], lambda x: nl.topk(x, 2)[0]),
    "kthvalue": ([(3, 4)], lambda x: nl.kthvalue(x, 2, 0)[0]),
    "median": ([(3, 5)], nl.median),
    "softmax": ([(3, 4)], lambda x: nl.softmax(x, 0)),
    "log_softmax": ([(3, 4)], lambda x: nl.log_softmax(x, 1)),
    "layer_norm": ([(3, 4), (4,), (4,)], lambda x, w, b: nl.layer_norm(x, (4,), w, b)),
    "cat": ([(2, 3), (2, 1)], lambda x, y: nl.cat([x, y, x], 1)),
}


def put(x: nl.Tensor, index: nl.Tensor, value: nl.Tensor) -> nl.Tensor:
    out = x.clone()
    out[index] = value
    return out


@pytest.mark.parametrize("name", KERNEL_CALLS)
def test_kernel_gradients(name: str, rng: np.random.Generator) -> None:
    shapes, call = KERNEL_CALLS[name]
    check_gradients(call, [leaf(rng.standard_normal(s)) for s in shapes])


KINKS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda T, x: T.relu(x),
    "abs": lambda T, x: T.abs(x),
    "clamp": lambda T, x: T.clamp(x, -1.0, 1.0),
    "clamp min": lambda T, x: T.clamp(x, min=0.0),
    "relu6": lambda T, x: T.nn.functional.relu6(x),
    "hardtanh": lambda T, x: T.nn.functional.hardtanh(x),
    "hardswish": lambda T, x: T.nn.functional.hardswish(x),
    "hardsigmoid": lambda T, x: T.nn.functional.hardsigmoid(x),
    "leaky_relu": lambda T, x: T.nn.functional.leaky_relu(x, 0.1),
    "elu": lambda T, x: T.nn.functional.elu(x),
    "amax": lambda T, x: T.amax(x, 0),
    "amin": lambda T, x: T.amin(x),
    "maximum": lambda T, x: T.maximum(x, T.zeros_like(x)),
    "minimum": lambda T, x: T.minimum(x, T.ones_like(x)),
    "pow": lambda T, x: T.pow(x, 3) + T.pow(x, 2.0) + T.pow(x, 1) + T.pow(x, 0),
    "norm": lambda T, x: T.norm(x * 0.0),
    "norm 0": lambda T, x: T.norm(x, 0) + x.sum(),
    "norm 1/2": lambda T, x: T.norm(x, 0.5) + T.norm(x * 0.0, 0.5),
    "norm -1": lambda T, x: T.norm(x, -1) + T.norm(x[2:], -1) + T.norm(x * 0.0, -2),
    "sign": lambda T, x: T.sign(x),
    "max": lambda T, x: T.max(x, 0)[0],
}


@pytest.mark.parametrize("name", KINKS)
def test_gradients_at_kinks_are_torchs(name: str, torch: Any) -> None:
    values = [0.0, -0.0, 1.0, -1.0, 6.0, 3.0, -3.0, 0.5, 6.0, -3.0]
    ours = nl.tensor(values, dtype=nl.float64, requires_grad=True)
    theirs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    KINKS[name](nl, ours).sum().backward()
    KINKS[name](torch, theirs).sum().backward()
    # PyTorch's hardsigmoid has 1/6 in float32 only.
    dtype = np.float32 if name == "hardsigmoid" else np.float64
    assert_close(ours.grad.numpy().astype(dtype), theirs.grad.numpy().astype(dtype), "elementwise")


def test_the_power_0_has_the_gradient_0(torch: Any) -> None:
    for lib in (nl, torch):
        x = lib.tensor([1.0, 0.0, -2.0], requires_grad=True)
        (x**0).sum().backward()
        assert x.grad.tolist() == [0.0, 0.0, 0.0]
