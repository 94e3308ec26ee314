"""The gradients of softmax, log_softmax, layer_norm and rms_norm: the bits of their definitions, in any layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK, assert_close

import neurlang as nl
from neurlang import _tensor
from neurlang.autograd import gradcheck, gradgradcheck
from neurlang.ir.interpret import apply
from neurlang.nn import functional as F
from neurlang.ops.composite import bits_of_double as bits_of

from .contraction import Array, assert_same_bits, fma, tensor
from .reduction import numbers, on_all_threads, shape_around

FLOATS = [np.float32, np.float64]
LENGTHS = [1, 2, 7, 31, 32, 33, 64, 100, 511, 513, 1100, 1500]
SHAPES = [(1, 1), (3, 5), (31, 64), (33, 100), (70, 33), (511, 20), (1100, 70), (2, 700), (40, 1025)]


def from_definition(op: str, operands: list[Array], *attrs: int) -> list[Array]:
    with np.errstate(all="ignore"):
        return list(apply(op, operands, attrs, fma, ()))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", range(4))
def test_softmax_gradients(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    g, y = numbers(rng, shape, dtype), numbers(rng, shape, dtype)
    for op, call in (("softmax_grad", _tensor._softmax_grad), ("log_softmax_grad", _tensor._log_softmax_grad)):
        (want,) = from_definition(op, [g, y], axis)
        for got in on_all_threads(lambda call=call: call(tensor(g), tensor(y), axis)):
            assert_same_bits(got, want)


@pytest.mark.parametrize("shape", [(600, 40), (1100, 130), (2, 700, 96)], ids=str)
def test_tall_columns(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """More rows than a block: softmax and its gradient down columns."""
    x, g = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    axis = len(shape) - 2
    for op in ("softmax", "log_softmax"):
        want = from_definition(op, [x], axis)[0]
        for got in on_all_threads(lambda op=op: getattr(nl, op)(tensor(x), axis)):
            assert_same_bits(got, want)
        (by_x,) = from_definition(f"{op}_grad", [g, want], axis)
        for got in on_all_threads(lambda op=op, y=want: getattr(_tensor, f"_{op}_grad")(tensor(g), tensor(y), axis)):
            assert_same_bits(got, by_x)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_norms(rng: np.random.Generator, dtype: type, shape: tuple[int, int], eps: float) -> None:
    g, x = numbers(rng, shape, dtype), numbers(rng, shape, dtype)
    weight = numbers(rng, shape[1:], dtype)
    (want,) = from_definition("rms_norm", [x, weight], bits_of(eps))
    for got in on_all_threads(lambda: F.rms_norm(tensor(x), shape[1:], tensor(weight), eps)):
        assert_same_bits(got, want)
    for op, call in (("layer_norm_grad", _tensor._layer_norm_grad), ("rms_norm_grad", _tensor._rms_norm_grad)):
        wanted = from_definition(op, [g, x, weight], bits_of(eps))
        for i, want in enumerate(wanted):
            for got in on_all_threads(
                lambda call=call, i=i: call(tensor(g), tensor(x), tensor(weight), bits_of(eps))[i]
            ):
                assert_same_bits(got, want)


def test_rms_norm_against_torch(rng: np.random.Generator, torch: Any) -> None:
    x, weight = rng.standard_normal((5, 6, 7)), rng.standard_normal((6, 7))
    for eps in (None, 0.1):
        want = torch.nn.functional.rms_norm(torch.tensor(x), (6, 7), torch.tensor(weight), eps).numpy()
        assert_close(F.rms_norm(tensor(x), (6, 7), tensor(weight), eps).numpy(), want, "layer_norm", n=42)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_gradients_of_both_orders(rng: np.random.Generator, rows: int) -> None:
    x, w, b = (nl.from_numpy(rng.standard_normal(s)).requires_grad_() for s in ((rows, 4), (4,), (4,)))
    calls = [
        (lambda x, w, b: F.layer_norm(x, (4,), w, b), [x, w, b]),
        (lambda x, w: F.rms_norm(x, (4,), w), [x, w]),
        (lambda x: nl.softmax(x, 0), [x]),
        (lambda x: nl.log_softmax(x, 1), [x]),
        (lambda x: F.group_norm(x.reshape(rows, 2, 2), 1), [x]),
    ]
    for call, inputs in calls[:2] if rows == 0 else calls:
        assert gradcheck(call, inputs, **GRADCHECK)
        assert gradgradcheck(call, inputs, **GRADCHECK)


def test_large_offsets_do_not_spoil_the_gradient(rng: np.random.Generator) -> None:
    x = (rng.standard_normal((3, 1000)) + 1000).astype(np.float32)
    g = rng.standard_normal((3, 1000)).astype(np.float32)
    ones = np.ones(1000)
    got = _tensor._layer_norm_grad(tensor(g), tensor(x), tensor(ones.astype(np.float32)), bits_of(0.0))[0].numpy()
    want = from_definition("layer_norm_grad", [g.astype(np.float64), x.astype(np.float64), ones], bits_of(0.0))[0]
    assert_close(got, want, "rounding of a large mean", scale=1000)
