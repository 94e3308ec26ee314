"""Pooling forward and backward: bound by memory, one read of the input and one write of the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import neurlang as nl

from . import peers
from .timing import Case

STEM, MIDDLE, HEAD = (16, 64, 112, 112), (16, 128, 28, 28), (16, 2048, 7, 7)
Form = Callable[[Any, Any], Any]
# Name, shape, what is done in PyTorch's idiom, (window, stride, padding) for JAX and ONNX if they can, which operator.
POOLS: tuple[tuple[str, tuple[int, ...], Form, tuple[int, int, int] | None, str], ...] = (
    ("max 3x3 stride 2", STEM, lambda F, x: F.max_pool2d(x, 3, 2, 1), (3, 2, 1), "MaxPool"),
    ("max 2x2", STEM, lambda F, x: F.max_pool2d(x, 2), (2, 2, 0), "MaxPool"),
    ("max 2x2", MIDDLE, lambda F, x: F.max_pool2d(x, 2), (2, 2, 0), "MaxPool"),
    ("max 5x5 stride 1", (1, 128, 20, 20), lambda F, x: F.max_pool2d(x, 5, 1, 2), (5, 1, 2), "MaxPool"),
    ("max 2x2", (1, 16, 28, 28), lambda F, x: F.max_pool2d(x, 2), (2, 2, 0), "MaxPool"),
    ("average 3x3 stride 2", STEM, lambda F, x: F.avg_pool2d(x, 3, 2, 1), (3, 2, 1), "AveragePool"),
    ("average 2x2", STEM, lambda F, x: F.avg_pool2d(x, 2), (2, 2, 0), "AveragePool"),
    ("average 2x2", MIDDLE, lambda F, x: F.avg_pool2d(x, 2), (2, 2, 0), "AveragePool"),
    ("global average", HEAD, lambda F, x: F.adaptive_avg_pool2d(x, 1), (7, 1, 0), "AveragePool"),
    ("global average", (16, 64, 56, 56), lambda F, x: F.adaptive_avg_pool2d(x, 1), (56, 1, 0), "AveragePool"),
    ("global maximum", HEAD, lambda F, x: F.adaptive_max_pool2d(x, 1), (7, 1, 0), "MaxPool"),
    ("global maximum", STEM, lambda F, x: F.adaptive_max_pool2d(x, 1), (112, 1, 0), "MaxPool"),
    ("adaptive average to 7x7", (16, 256, 32, 32), lambda F, x: F.adaptive_avg_pool2d(x, 7), None, ""),
    ("adaptive maximum to 7x7", (16, 256, 32, 32), lambda F, x: F.adaptive_max_pool2d(x, 7), None, ""),
)


def cases() -> Iterator[Case]:
    for name, shape, form, window, operator in POOLS:
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        g = np.random.default_rng(1).standard_normal(form(nl.nn.functional, nl.tensor(x)).shape).astype(np.float32)
        label = f"{name} of {' x '.join(map(str, shape))}"
        jax_form = None if window is None else in_jax(*window, operator)
        calls = peers.contenders(lambda lib, x, form=form: form(lib.nn.functional, x), x, jax_form=jax_form)
        if window is not None:
            calls |= peers.onnx_calls(in_onnx(x, *window, operator), x)
        yield Case(label, calls, work=float(x.nbytes + g.nbytes), rate_unit="GB/s")
        back = backwards(x, g, form, jax_form)
        yield Case(f"{label}, way back", back, work=float(x.nbytes + g.nbytes), rate_unit="GB/s", atol=1e-4)
    x = np.random.default_rng(0).standard_normal(STEM).astype(np.float32)
    for window in ((3, 2, 1), (2, 2, 0), (112, 112, 0)):
        calls = peers.contenders(with_indices(*window), x)
        name = f"max {window[0]}x{window[0]} stride {window[1]} with indices of {' x '.join(map(str, STEM))}"
        yield Case(name, calls, work=float(x.nbytes), rate_unit="GB/s")


def with_indices(kernel: int, stride: int, pad: int) -> Form:
    return lambda lib, x: lib.nn.functional.max_pool2d(x, kernel, stride, pad, return_indices=True)


def in_onnx(x: np.ndarray, kernel: int, stride: int, pad: int, operator: str) -> bytes:
    options = {"count_include_pad": 1} if operator == "AveragePool" else {}
    return peers.onnx_model(operator, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, **options)


def in_jax(kernel: int, stride: int, pad: int, operator: str) -> Callable[[Any], Any]:
    def pool(x: Any) -> Any:
        lax, largest = peers.jax.lax, operator == "MaxPool"
        start, combine = (-np.inf, lax.max) if largest else (0.0, lax.add)
        sides = ((0, 0), (0, 0), (pad, pad), (pad, pad))
        y = lax.reduce_window(x, start, combine, (1, 1, kernel, kernel), (1, 1, stride, stride), sides)
        return y if largest else y / (kernel * kernel)

    return pool


def backwards(x: np.ndarray, g: np.ndarray, form: Form, jax_form: Callable[..., Any] | None) -> dict[str, peers.Call]:
    """The way back alone: what goes forward is done once, by XLA as far as it is needed."""
    calls = {"neurlang": backward(nl, nl.tensor(x), nl.tensor(g), form)}
    if peers.torch is not None:
        calls["torch"] = backward(peers.torch, peers.torch.tensor(x), peers.torch.tensor(g), form)
    if peers.jax is not None and jax_form is not None:
        calls["JAX"] = peers.jax_call(lambda x, g: peers.jax.vjp(jax_form, x)[1](g)[0], x, g)
    return calls


def backward(lib: Any, x: Any, g: Any, form: Form) -> peers.Call:
    leaf = x.requires_grad_()
    y = form(lib.nn.functional, leaf)

    def run() -> Any:
        leaf.grad = None
        y.backward(g, retain_graph=True)
        return leaf.grad

    return run
