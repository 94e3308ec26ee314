"""Losses, as functions over `F` (see composite.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .statistics import Tensor, along_axis, in_float32, mean, need_axes


def _promoted(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss whose input and target, where they are different floats, become those that both promote to first."""

    @functools.wraps(loss)
    def computed(F: Any, input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if input.dtype.is_floating_point and target.dtype.is_floating_point:
            kind = F.promote_types(input.dtype, target.dtype)
            input, target = input.to(kind), target.to(kind)
        return loss(F, input, target, *args, **kwargs)

    return computed


def _reduced(F: Any, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return F.sum(losses)
    if reduction == "mean":
        return mean(F, losses)
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


@_promoted
@in_float32
def mse_loss(F: Any, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)², averaged ("mean"), added ("sum") or as it is ("none").

    >>> neurlang.mse_loss(neurlang.tensor([1.0, 2.0]), neurlang.tensor([1.0, 4.0])).item()
    2.0
    """
    return _reduced(F, F.square(input - target), reduction)


@_promoted
@in_float32
def l1_loss(F: Any, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|input - target|, averaged ("mean"), added ("sum") or as it is ("none").

    >>> neurlang.l1_loss(neurlang.tensor([1.0, 2.0]), neurlang.tensor([1.0, 4.0])).item()
    1.0
    """
    return _reduced(F, F.abs(input - target), reduction)


@_promoted
@in_float32
def smooth_l1_loss(F: Any, input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d²/(2 beta) where d = |input - target| is below beta, else d - beta/2; averaged, added or as it is ("none").

    Girshick 2015 (beta 1).

    >>> neurlang.smooth_l1_loss(neurlang.tensor([0.5, 3.0]), neurlang.zeros(2), reduction="none").tolist()
    [0.125, 2.5]
    """
    if beta == 0:
        return l1_loss(F, input, target, reduction)
    d = F.abs(input - target)
    return _reduced(F, F.where(F.lt(d, beta), F.square(d) * (0.5 / beta), d - 0.5 * beta), reduction)


@_promoted
@in_float32
def huber_loss(F: Any, input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d²/2 where d = |input - target| is below delta, else delta (d - delta/2); averaged, added or as it is ("none").

    Huber 1964.

    >>> neurlang.huber_loss(neurlang.tensor([1.0, 4.0]), neurlang.zeros(2), reduction="none", delta=2.0).tolist()
    [0.5, 6.0]
    """
    d = F.abs(input - target)
    return _reduced(F, F.where(F.lt(d, delta), F.square(d) * 0.5, (d - 0.5 * delta) * delta), reduction)


def _check_equal(F: Any, op: str, input: Tensor, target: Tensor) -> None:
    """Probabilities and targets of two shapes would broadcast to a loss that nobody meant."""
    if input.shape != target.shape:
        raise F.ShapeError(f"{op}: target of shape {list(target.shape)} but input of shape {list(input.shape)}")


_SMALLEST_LOG = -100.0  # PyTorch's limit, so that a probability of 0 costs much but not infinitely much
_SMALLEST = 3e-44  # its logarithm is below the limit, and float32 can still represent it


@_promoted
@in_float32
def binary_cross_entropy(
    F: Any, input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), logarithms limited to -100.

    Input and target of one shape (else ShapeError) hold probabilities; `weight` multiplies the elements' losses.

    >>> neurlang.binary_cross_entropy(neurlang.tensor([1.0, 0.0]), neurlang.ones(2), reduction="sum").item()
    100.0
    """

    _check_equal(F, "binary_cross_entropy", input, target)

    def limited_log(p: Tensor) -> Tensor:
        return F.maximum(F.log(F.maximum(p, _SMALLEST)), _SMALLEST_LOG)

    losses = -(target * limited_log(input) + (1 - target) * limited_log(1 - input))
    return _reduced(F, losses if weight is None else losses * weight, reduction)


@_promoted
@in_float32
def binary_cross_entropy_with_logits(
    F: Any,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow.

    `pos_weight` multiplies the losses of targets 1.

    >>> neurlang.binary_cross_entropy_with_logits(neurlang.tensor([-200.0, 200.0]), neurlang.ones(2)).item()
    100.0
    """
    _check_equal(F, "binary_cross_entropy_with_logits", input, target)
    factor = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    losses = (1 - target) * input - factor * F.logsigmoid(input)
    return _reduced(F, losses if weight is None else losses * weight, reduction)


@_promoted
@in_float32
def kl_div(F: Any, input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log target - input), input holding log probabilities; "batchmean" divides by the batch size.

    Kullback & Leibler 1951.

    >>> neurlang.kl_div(neurlang.tensor([[-2.0, -4.0]]), neurlang.tensor([[1.0, 0.0]]), reduction="batchmean").item()
    2.0
    """
    if log_target:
        losses = F.exp(target) * (target - input)
    else:
        zero = F.eq(target, 0)
        losses = F.where(zero, 0.0, target * (F.log(F.where(zero, 1.0, target)) - input))
    if reduction == "batchmean":
        return F.div(F.sum(losses), input.shape[0])
    return _reduced(F, losses, reduction)


@in_float32
def nll_loss(
    F: Any,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-input at the target class, input holding log probabilities [N, C, …] or [C].

    Target [N, …] or [] holds integers; positions of `ignore_index` do not count, another class out of range is an
    IndexError. "mean" divides by the sum of the targets' weights; `weight` has shape [C], else ShapeError.

    >>> neurlang.nll_loss(neurlang.tensor([[-1.0, -2.0], [-3.0, -4.0]]), neurlang.tensor([0, 1])).item()
    2.5
    """
    axis, target = _classes(F, "nll_loss", input, target, weight)
    ignore_index = F._integer("nll_loss: ignore_index", ignore_index)
    ignored = F.eq(target, ignore_index)
    place = F._class_index(target, input.shape[axis], axis, ignore_index)
    losses = F.where(ignored, 0.0, -F.gather(input, axis, place))
    return _class_loss(F, losses, target, axis, weight, ignore_index, reduction)


@_promoted
@in_float32
def cross_entropy(
    F: Any,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input) at the target class, or weighed by target probabilities when `target` holds floats.

    Input [N, C, …] or [C]; the target is [N, …] or [] of integers, or floats of input's shape. Positions of
    `ignore_index` do not count, another class out of range is an IndexError. "mean" divides by the sum of the targets'
    weights. `label_smoothing` spreads that share of every target evenly over the classes (Szegedy et al. 2016).

    >>> neurlang.cross_entropy(neurlang.tensor([[0.0, -200.0], [0.0, -200.0]]), neurlang.tensor([0, 1])).item()
    100.0
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    if target.dtype.is_floating_point:
        return _probability_loss(F, input, target, weight, reduction, label_smoothing)
    axis, target = _classes(F, "cross_entropy", input, target, weight)
    ignore_index = F._integer("cross_entropy: ignore_index", ignore_index)
    losses = F._cross_entropy(input, target, axis, ignore_index)[0]
    smoothed = (label_smoothing, F.log_softmax(input, axis)) if label_smoothing else None
    return _class_loss(F, losses, target, axis, weight, ignore_index, reduction, smoothed)


def _class_axis(F: Any, op: str, x: Tensor, weight: Tensor | None) -> int:
    """The axis of the classes; ShapeError where there is none, or no weight for each of them."""
    need_axes(F, op, x, 1)
    axis = 0 if x.ndim == 1 else 1
    classes = x.shape[axis]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise F.ShapeError(f"{op}: weight must have shape ({classes},), one for each class, got {list(weight.shape)}")
    return axis


def _classes(F: Any, op: str, x: Tensor, target: Tensor, weight: Tensor | None) -> tuple[int, Tensor]:
    """The axis of the classes, and the targets with that axis of extent 1."""
    axis = _class_axis(F, op, x, weight)
    expected = x.shape[:axis] + x.shape[axis + 1 :]
    if target.shape != expected:
        raise F.ShapeError(f"{op}: target of shape {list(target.shape)} for input {list(x.shape)}; "
                           f"expected {list(expected)}")
    return axis, target.unsqueeze(axis)


def _probability_loss(
    F: Any, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    axis = _class_axis(F, "cross_entropy", input, weight)
    if target.shape != input.shape:
        raise F.ShapeError(f"cross_entropy: probabilities of shape {list(target.shape)} for input {list(input.shape)}")
    if smoothing:
        target = target * (1 - smoothing) + smoothing / input.shape[axis]
    products = F.log_softmax(input, axis) * target
    losses = -F.sum(products if weight is None else products * along_axis(weight, input, axis), axis)
    if reduction == "mean":
        return F.div(F.sum(losses), max(losses.numel(), 1))
    return _reduced(F, losses, reduction)


def _class_loss(
    F: Any,
    losses: Tensor,
    target: Tensor,
    axis: int,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    smoothed: tuple[float, Tensor] | None = None,
) -> Tensor:
    """Ignored positions count neither above nor below the line; "mean" divides by the sum of the targets' weights.

    Losses, zeros where they are ignored, and targets keep the axis of the classes with extent 1. With `smoothed` that
    share of every loss is taken of all classes, of which the logarithms of the probabilities are given.
    """
    counted = F.ne(target, ignore_index)
    if weight is not None:
        picked = F.index_select(weight, 0, F.where(counted, target, 0).reshape(-1)).reshape(target.shape)
        counted = F.where(counted, picked, 0.0)
        losses = losses * counted
    if smoothed is not None:
        share, log_p = smoothed
        everywhere = log_p if weight is None else log_p * along_axis(weight, log_p, axis)
        spread = F.sum(everywhere, axis, True) * (-share / log_p.shape[axis])
        losses = F.where(F.eq(target, ignore_index), 0.0, losses * (1 - share) + spread)
    if reduction == "mean":
        return F.div(F.sum(losses), F.sum(counted))
    return _reduced(F, losses.squeeze(axis), reduction)
