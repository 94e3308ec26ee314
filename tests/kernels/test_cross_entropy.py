"""cross_entropy's row and its gradient: the bits of their definitions, in any layout, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from bounds import GRADCHECK, assert_close

import neurlang as nl
from neurlang import _tensor
from neurlang.autograd import gradcheck, gradgradcheck
from neurlang.ir.interpret import apply
from neurlang.nn import functional as F

from .contraction import Array, assert_same_bits, fma, tensor
from .reduction import numbers, on_all_threads

IGNORED = -100
# Short rows in whole groups and not, rows longer than a block; classes down narrow and wide columns; nothing.
SHAPES = [
    (1, 1),
    (5, 10),
    (40, 10),
    (33, 65),
    (20, 3, 6),
    (3, 513),
    (2, 3000),
    (7,),
    (3, 21, 40, 33),
    (2, 5, 7),
    (2, 700, 300),
    (0, 4),
    (3, 5, 0),
]


def operands(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> tuple[list[Array], int]:
    """Numbers, gradients and targets, some of them ignored, and the axis of the classes."""
    axis = 0 if len(shape) == 1 else 1
    kept = tuple(1 if d == axis else n for d, n in enumerate(shape))
    target = rng.integers(0, shape[axis], kept)
    target[rng.random(kept) < 0.2] = IGNORED
    return [numbers(rng, kept, dtype), numbers(rng, shape, dtype), target], axis


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [False, True])
def test_bits(rng: np.random.Generator, dtype: type, shape: tuple[int, ...], turned: bool) -> None:
    (g, x, target), axis = operands(rng, shape, dtype)
    if turned:  # a layout in which other axes are contiguous
        g, x, target = (np.ascontiguousarray(a.T).T for a in (g, x, target))
    attrs = (axis, IGNORED)
    with np.errstate(all="ignore"):
        want = list(apply("cross_entropy", [x, target], attrs, fma, ()))
        backward = [g, x, target, *want[1:]]
        want += list(apply("cross_entropy_grad", backward, attrs, fma, ()))
    forward = lambda: _tensor._cross_entropy(tensor(x), tensor(target), *attrs)  # noqa: E731
    gradient = lambda: _tensor._cross_entropy_grad(*map(tensor, backward), *attrs)  # noqa: E731
    for k in range(4):
        for got in on_all_threads(lambda k=k: forward()[k] if k < 3 else gradient()):
            assert_same_bits(got, want[k])


@pytest.mark.parametrize("bad", [3, -1, -101, 2**40])
@pytest.mark.parametrize(("places", "place"), [(4, 2), (19, 0), (19, 9), (19, 18), (100_000, 50_000)])
def test_targets_out_of_range_are_named(places: int, place: int, bad: int) -> None:
    x, target, pairs = nl.zeros(places, 3), nl.zeros(places, dtype=nl.int64), nl.zeros(places, 2, dtype=nl.int64)
    target[place] = pairs[place, 1] = bad
    for call in (
        lambda: F.cross_entropy(x, target),
        lambda: F.cross_entropy(x, pairs[:, 1]),
        nl.trace(lambda: F.cross_entropy(x, target)),
    ):
        with pytest.raises(IndexError, match=f"index {bad} is out of range for axis 1 of size 3"):
            call().item()
    assert_close(F.cross_entropy(x, target, ignore_index=bad).numpy(), np.log(3), "log_softmax", n=3, scale=np.log(3))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients(rng: np.random.Generator, reduction: str, weighted: bool, smoothing: float) -> None:
    target = nl.tensor([[0, 3], [IGNORED, 1], [2, 2]])
    weight = tensor(rng.random(4) + 0.5) if weighted else None

    def loss(x: nl.Tensor) -> nl.Tensor:
        return F.cross_entropy(x, target, weight, reduction=reduction, label_smoothing=smoothing)

    x = nl.tensor(rng.standard_normal((3, 4, 2)), requires_grad=True)
    assert gradcheck(loss, (x,), **GRADCHECK)
    assert gradgradcheck(loss, (x,), **GRADCHECK)


def test_an_ignored_target_takes_no_weight() -> None:
    x, weight = nl.zeros(2, 3), nl.tensor([float("inf"), 1.0, 1.0])
    for target, want in (([-100, 1], np.log(3)), ([-100, -100], 0.0)):
        loss = nl.functional.cross_entropy(x, nl.tensor(target), weight, reduction="sum")
        assert_close(loss.numpy(), np.float64(want), "log_softmax", n=3)


def test_the_rows_check_what_they_are_given() -> None:
    x, target, one = nl.zeros(2, 3), nl.zeros(2, 1, dtype=nl.int64), nl.ones(2, 1)
    for axis in (2, 10**8, -5):
        with pytest.raises(nl.ShapeError):
            _tensor._cross_entropy(x, target, axis, -100)
        with pytest.raises(nl.ShapeError):
            _tensor._cross_entropy_grad(one, x, target, one, one, axis, -100)
    for wrong in (target.float(), target.bool()):
        with pytest.raises(nl.DTypeError, match="must hold integers"):
            _tensor._cross_entropy(x, wrong, 1, -100)
        with pytest.raises(nl.DTypeError, match="must hold integers"):
            _tensor._cross_entropy_grad(one, x, wrong, one, one, 1, -100)
    want = _tensor._cross_entropy_grad(one, x, target, one, one, 1, -100).numpy()
    np.testing.assert_array_equal(_tensor._cross_entropy_grad(one, x, target.int(), one, one, 1, -100).numpy(), want)
