"""What errors say: the call that the user made, not one inside of it, and what was given, not what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import neurlang as nl
from neurlang.nn import functional as F

INTS, FLOATS, IMAGE = nl.zeros(2, 4, 9, dtype=nl.int64), nl.zeros(2, 4, 9), nl.zeros(1, 2, 6, 6)
FILTERS = nl.zeros(3, 4, 3)

Refusal = tuple[Callable[[], Any], type[Exception], str]
REFUSALS: dict[str, Refusal] = {
    "conv1d of integers": (lambda: F.conv1d(INTS, FILTERS), nl.DTypeError, r"conv1d: operands .*int64\[2, 4, 9\]"),
    "conv1d's channels": (lambda: F.conv1d(FLOATS[:, 1:], FILTERS), nl.ShapeError, "conv1d: "),
    "conv1d's bias": (lambda: F.conv1d(FLOATS, FILTERS, nl.zeros(2)), nl.ShapeError, r"conv1d: the bias .*\(3,\)"),
    "conv_transpose3d of integers": (
        lambda: F.conv_transpose3d(INTS[None, :1], FILTERS[None, :1]), nl.DTypeError, "conv_transpose3d: operands"),
    "avg_pool1d of integers": (lambda: F.avg_pool1d(INTS, 2), nl.DTypeError, r"avg_pool1d: .*int64\[2, 4, 9\]"),
    "adaptive_avg_pool2d of integers": (
        lambda: F.adaptive_avg_pool2d(INTS, 1), nl.DTypeError, r"adaptive_avg_pool2d: .*int64\[2, 4, 9\]"),
    "max_pool3d's windows": (lambda: F.max_pool3d(IMAGE, 7), nl.ShapeError, "max_pool3d: "),
    "no stride": (lambda: F.avg_pool2d(IMAGE, 2, stride=()), nl.ShapeError, "avg_pool2d: stride must be .* pair"),
    "three sizes": (lambda: F.max_pool2d(IMAGE, (2, 2, 2)), nl.ShapeError, "max_pool2d: kernel_size must be"),
    "half a pixel": (lambda: F.max_pool2d(IMAGE, 2, dilation=1.5), nl.DTypeError, "max_pool2d: expected an integer"),
    "half a step": (lambda: F.conv2d(IMAGE, IMAGE, stride=1.5), nl.DTypeError, "conv2d: expected an integer, got 1.5"),
    "padding of transposed": (
        lambda: F.conv_transpose2d(IMAGE, IMAGE[0, :, None], padding=(1, 2, 3)), nl.ShapeError,
        "conv_transpose2d: padding"),
    "max of nothing": (lambda: nl.zeros(0).max(), nl.ShapeError, "max: axis 0 .* empty, which has no max$"),
    "min along nothing": (lambda: nl.min(nl.zeros(2, 0), 1), nl.ShapeError, "min: axis 1 .* empty, which has no min$"),
    "sorter": (
        lambda: nl.searchsorted(nl.zeros(2), nl.zeros(1), sorter=nl.tensor([0, 7])), IndexError,
        "searchsorted: index 7 .* of size 2"),
    "nll_loss class": (
        lambda: F.nll_loss(nl.zeros(2, 3), nl.tensor([0, -5])), IndexError, "nll_loss: index -5 .* axis 1 of size 3"),
    "nll_loss class of maps": (
        lambda: F.nll_loss(nl.zeros(1, 3, 2), nl.tensor([[0, 3]])), IndexError, "nll_loss: index 3 .* of size 3"),
    "nll_loss of floats": (lambda: F.nll_loss(nl.zeros(2, 3), nl.zeros(2)), nl.DTypeError, "nll_loss: .*integers"),
    "one_hot": (lambda: F.one_hot(nl.tensor([0, -1]), 3), IndexError, "one_hot: index -1 .* axis 1 of size 3"),
    "embedding": (lambda: F.embedding(nl.tensor([4]), nl.zeros(3, 2)), IndexError, "embedding: index 4 .* of size 3"),
    "reduction": (lambda: F.l1_loss(nl.zeros(2), nl.zeros(2), "max"), ValueError, "l1_loss: reduction must be"),
    "padding_idx": (lambda: F.embedding(INTS, nl.zeros(3, 2), 9), ValueError, "padding_idx 9 is out of range for 3"),
    "padding_idx from the end": (lambda: F.embedding(INTS, nl.zeros(3, 2), -4), ValueError, "padding_idx -4"),
    "padding_idx of nothing": (lambda: F.embedding(INTS[:0], nl.zeros(0, 2), 0), ValueError, "padding_idx 0"),
    "padding_idx of half a row": (lambda: F.embedding(INTS, nl.zeros(3, 2), 0.5), nl.DTypeError, "padding_idx"),
    "integer mean": (lambda: nl.mean(FLOATS, dtype=nl.int64), nl.DTypeError, "mean: dtype must be a float"),
    "integer mean of a tensor": (lambda: FLOATS.mean(0, dtype=nl.int32), nl.DTypeError, "mean: dtype must be a float"),
    "integer norm": (lambda: nl.norm(FLOATS, dtype=nl.int64), nl.DTypeError, "norm: dtype must be a float"),
    "integer softmax": (lambda: nl.softmax(FLOATS, 0, nl.int64), nl.DTypeError, "softmax: dtype must be a float"),
    "bool log_softmax": (lambda: FLOATS.log_softmax(0, nl.bool), nl.DTypeError, "log_softmax: dtype must be a float"),
    "unique along": (lambda: nl.unique(FLOATS, 0), nl.DTypeError, "unique: sorted must be a bool, got 0"),
    "unique method": (lambda: FLOATS.unique(True, 1), nl.DTypeError, "unique: return_inverse must be a bool, got 1"),
    "unique_consecutive along": (
        lambda: nl.unique_consecutive(FLOATS, 0), nl.DTypeError, "unique_consecutive: return_inverse"),
    "threads by half": (lambda: nl.set_num_threads(2.5), nl.DTypeError, "set_num_threads: .* integer, got 2.5"),
    "threads by name": (lambda: nl.set_num_threads("a"), nl.DTypeError, "set_num_threads: .* integer, got 'a'"),
    "too many threads": (lambda: nl.set_num_threads(2**70), ValueError, "set_num_threads: .* from 1 to 1024"),
    "layer_norm beside float64": (
        lambda: F.layer_norm(FLOATS.half(), 9, nl.ones(9, dtype=nl.float64)), nl.DTypeError, "layer_norm: operands"),
    "pad that crops all": (
        lambda: F.pad(FLOATS, (-9, 3), "circular"), nl.ShapeError, "leaves nothing to repeat of axis 2"),
    **{
        f"pad that crops more than all, {mode}": (
            lambda mode=mode: F.pad(FLOATS, (-10, 3), mode), nl.ShapeError, "crops more than axis 2")
        for mode in ("constant", "reflect", "replicate", "circular")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_the_call_is_named(name: str) -> None:
    call, error, text = REFUSALS[name]
    with pytest.raises(error, match=text) as raised:
        call()
    assert type(raised.value) is error


def test_threads_are_counted_by_any_integer() -> None:
    before = nl.get_num_threads()
    try:
        nl.set_num_threads(np.int64(3))
        assert nl.get_num_threads() == 3
    finally:
        nl.set_num_threads(before)


class Alarm(ValueError):
    """An error that a user defines."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def test_errors_of_others_pass_as_they_are() -> None:
    class Shift:
        def __index__(self) -> int:
            raise Alarm("no number", 7)

    with pytest.raises(Alarm, match=r"^no number$") as raised:
        nl.roll(FLOATS, Shift())
    assert raised.value.code == 7
    with pytest.raises(Alarm):
        nl.set_num_threads(Shift())


def test_a_trace_names_the_class_and_the_line() -> None:
    @nl.trace
    def loss(target: nl.Tensor) -> nl.Tensor:
        return F.nll_loss(nl.zeros(2, 3), target)

    for _ in range(2):
        assert loss(nl.tensor([0, 2])).item() == 0
    with pytest.raises(IndexError, match=r"index -5 .* for axis 1 of size 3 \(recorded at .*test_messages"):
        loss(nl.tensor([0, -5])).item()


def test_an_error_of_the_recorded_past_is_not_renamed() -> None:
    with pytest.raises(IndexError, match=r"^index_select: index 5 "), nl.trace():
        nl.index_select(nl.zeros(3), 0, nl.tensor([5]))
        nl.masked_select(nl.zeros(3), nl.zeros(3) > 0)  # a composite that cuts
