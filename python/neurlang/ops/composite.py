"""Operations defined by others: pure functions over a namespace `F`, with PyTorch's names, arguments and defaults.

`F` is the module of eager functions, or, for the `define_*` functions, a graph builder with the same names.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any
Axes = int | Sequence[int] | None


def double_of_bits(bits: int) -> float:
    """The float that the 64 bits of a row's attribute stand for."""
    return struct.unpack("<d", struct.pack("<q", bits))[0]


# ---- definitions of the rows that have a native kernel; the kernel has exactly these bits ----


def define_softmax(F: Any, x: Tensor, axis: int) -> Tensor:
    e = F.exp(x - F.amax(x, axis, True))
    return e / F.sum(e, axis, True)


def define_log_softmax(F: Any, x: Tensor, axis: int) -> Tensor:
    shifted = x - F.amax(x, axis, True)
    return shifted - F.log(F.sum(F.exp(shifted), axis, True))


def define_layer_norm(F: Any, x: Tensor, weight: Tensor, bias: Tensor, eps_bits: int) -> Tensor:
    n = x.shape[1]
    eps = double_of_bits(eps_bits)
    centred = x - F.sum(x, 1, True) / n
    variance = F.sum(centred * centred, 1, True) / n
    return centred / F.sqrt(variance + eps) * weight + bias


# ---- PyTorch's special arguments in front of elementwise rows ----


def clamp(F: Any, input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """input limited to [min, max]; either may be left out.

    ValueError where neither is given.

    >>> neurlang.clamp(neurlang.tensor([-2, 1, 5]), min=0, max=3).tolist()
    [0, 1, 3]
    """
    if min is None and max is None:
        raise ValueError("clamp: give min, max, or both")
    if not input.dtype.is_floating_point:
        lower = input if min is None else F.maximum(input, min)
        return lower if max is None else F.minimum(lower, max)
    return F._clamp(input, -math.inf if min is None else min, math.inf if max is None else max)


def gelu(F: Any, input: Tensor, approximate: str = "none") -> Tensor:
    """x Φ(x), Φ the normal distribution; `approximate="tanh"` takes x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).

    Hendrycks & Gimpel 2016.

    >>> neurlang.gelu(neurlang.tensor([-100.0, 0.0, 100.0])).tolist()
    [-0.0, 0.0, 100.0]
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return F._gelu_tanh(input) if approximate == "tanh" else F._gelu(input)


# ---- statistics ----


def _axes(x: Tensor, dim: Axes) -> list[int]:
    """The axes that `dim` names (None or empty: all), counted from the front."""
    if dim is None or (not isinstance(dim, int) and not dim):
        return list(range(x.ndim))
    return [d % x.ndim if x.ndim else 0 for d in ([dim] if isinstance(dim, int) else dim)]


def _need_axes(F: Any, op: str, x: Tensor, least: int) -> None:
    if x.ndim < least:
        raise F.ShapeError(f"{op}: at least {least} axes are needed, got shape {list(x.shape)}")


def _count(x: Tensor, dim: Axes) -> int:
    """How many elements a reduction over `dim` joins."""
    return math.prod(x.shape[d] for d in _axes(x, dim)) if x.ndim else 1


def mean(F: Any, input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The sum over `dim` (None: all axes) divided by the number of elements; integers give the default float dtype.

    >>> x = neurlang.tensor([[1, 2], [3, 6]])
    >>> neurlang.mean(x).item(), neurlang.mean(x, 0).tolist()
    (3.0, [2.0, 4.0])
    """
    return F.div(F.sum(input, dim, keepdim), _count(input, dim))


def var(
    F: Any,
    input: Tensor,
    dim: Axes = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Σ (x - mean)² / (n - correction) over `dim` (None: all axes); `unbiased` is a correction of 1. Two passes.

    >>> x = neurlang.tensor([1.0, 5.0])
    >>> neurlang.var(x).item(), neurlang.var(x, unbiased=False).item()
    (8.0, 4.0)
    """
    if isinstance(dim, bool):  # PyTorch's var(x, unbiased)
        unbiased, dim = dim, None
    centred = input - mean(F, input, dim, True)
    free = _count(input, dim) - (int(unbiased) if correction is None else correction)
    return F.div(F.sum(F.square(centred), dim, keepdim), max(free, 0))


def std(
    F: Any,
    input: Tensor,
    dim: Axes = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The square root of `var` over `dim` (None: all axes).

    >>> neurlang.std(neurlang.tensor([1.0, 2.0, 3.0])).item()
    1.0
    """
    return F.sqrt(var(F, input, dim, unbiased, keepdim, correction=correction))


def logsumexp(F: Any, input: Tensor, dim: Axes, keepdim: bool = False) -> Tensor:
    """log Σ exp x over `dim`, without overflow; -inf over no elements.

    >>> neurlang.logsumexp(neurlang.tensor([1000.0, 0.0]), 0).item()
    1000.0
    """
    shift: Any = 0.0
    if _count(input, dim):  # no elements have no largest one; the logarithm of their sum is -inf
        largest = F.amax(input.detach(), dim, True)
        shift = F.where(F.isfinite(largest), largest, 0.0)
    result = F.log(F.sum(F.exp(input - shift), dim, True)) + shift
    return result if keepdim else result.squeeze(tuple(_axes(input, dim)))


def norm(F: Any, input: Tensor, p: Any = 2, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The vector p-norm (Σ |x|^p)^(1/p) over `dim` (None: all axes); its gradient at 0 is 0.

    p may be "fro" (2), ±∞ (the largest, the smallest |x|) and 0 (how many are not zero).

    >>> x = neurlang.tensor([3.0, -4.0])
    >>> neurlang.norm(x).item(), neurlang.norm(x, 1).item(), neurlang.norm(x, neurlang.inf).item()
    (5.0, 7.0, 4.0)
    """
    size = F.abs(input)
    if p in (2, "fro"):
        return _root(F, F.sum(F.square(input), dim, keepdim), 2)
    if p == math.inf:
        return F.amax(size, dim, keepdim)
    if p == -math.inf:
        return F.amin(size, dim, keepdim)
    if p == 0:
        return F.sum(F.ne(input, 0), dim, keepdim).to(input.dtype)
    if p == 1:
        return F.sum(size, dim, keepdim)
    return _root(F, F.sum(F.pow(size, p), dim, keepdim), p)


def _root(F: Any, x: Tensor, p: float) -> Tensor:
    """x^(1/p) whose gradient at 0 is 0 instead of infinite."""
    zero = F.eq(x, 0)
    return F.where(zero, 0.0, F.pow(F.where(zero, 1.0, x), 1 / p))


def normalize(F: Any, input: Tensor, p: float = 2.0, dim: Axes = 1, eps: float = 1e-12) -> Tensor:
    """input / max(‖input‖ₚ, eps), the p-norm taken along `dim`.

    >>> neurlang.normalize(neurlang.tensor([[2.0, 0.0], [0.0, -4.0]])).tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    """
    return input / F.maximum(norm(F, input, p, dim, True), eps)


# ---- scans ----


def _scan(op: str, combine: Callable[[Tensor, Tensor], Tensor], F: Any, x: Tensor, dim: int) -> Tensor:
    """Inclusive prefix results in log2(n) steps, each doubling the distance that a value has reached."""
    dim = F._axis(op, x, dim)
    x = F._copy(x) if x.dtype.is_floating_point else x.to(F.int64)
    n, step = x.shape[dim] if x.ndim else 1, 1
    while step < n:
        head, tail, before = x.narrow(dim, 0, step), x.narrow(dim, step, n - step), x.narrow(dim, 0, n - step)
        x = F.cat([head, combine(before, tail)], dim)
        step *= 2
    return x


def cumsum(F: Any, input: Tensor, dim: int) -> Tensor:
    """The sums of all elements up to each one along `dim`; integers give int64.

    Hillis & Steele 1986: log2(n) steps, each adding what lies 1, 2, 4, … places before.

    >>> neurlang.cumsum(neurlang.tensor([1, 2, 3]), 0).tolist()
    [1, 3, 6]
    """
    return _scan("cumsum", F.add, F, input, dim)


def cumprod(F: Any, input: Tensor, dim: int) -> Tensor:
    """The products of all elements up to each one along `dim`; integers give int64.

    >>> neurlang.cumprod(neurlang.tensor([1, 2, 3]), 0).tolist()
    [1, 2, 6]
    """
    return _scan("cumprod", F.mul, F, input, dim)


# ---- normalisation ----


def batch_norm(
    F: Any,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(output, new running mean, new running variance): channels (axis 1) scaled to mean 0 and variance 1.

    In training the batch's own statistics are used and move the running ones, the variance by its unbiased estimate.
    """
    if not training:
        return _normalized(F, input, _channel(input, running_mean), _channel(input, running_var), weight, bias, eps), \
            running_mean, running_var
    axes = [d for d in range(input.ndim) if d != 1]
    n = _count(input, axes)
    if n == 1:
        raise ValueError(f"batch_norm: training needs more than one value per channel, got shape {list(input.shape)}")
    batch_mean = mean(F, input, axes, True)
    batch_var = F.div(F.sum(F.square(input - batch_mean), axes, True), n)
    output = _normalized(F, input, batch_mean, batch_var, weight, bias, eps)
    if running_mean is not None:
        running_mean = running_mean + momentum * (batch_mean.detach().reshape(-1) - running_mean)
    if running_var is not None:
        unbiased = batch_var.detach().reshape(-1) * (n / (n - 1))
        running_var = running_var + momentum * (unbiased - running_var)
    return output, running_mean, running_var


def _channel(like: Tensor, values: Tensor | None) -> Tensor:
    """A vector over the channels, shaped so that it broadcasts against [N, C, …]."""
    if values is None:
        raise ValueError("batch_norm: evaluation needs running statistics")
    return values.reshape(1, -1, *[1] * (like.ndim - 2))


def _normalized(
    F: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """(x - mean) / √(var + eps) weight + bias, the channel's factor joined first."""
    scale = F.rsqrt(var + eps)
    if weight is not None:
        scale = scale * _channel(x, weight)
    output = (x - mean) * scale
    return output if bias is None else output + _channel(x, bias)


def group_norm(
    F: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """The channels of each group scaled to mean 0 and variance 1 per image, then each channel by weight and bias.

    Input [N, C, …], weight and bias [C]; ValueError where C does not split into `num_groups`. Wu & He 2018.

    >>> neurlang.group_norm(neurlang.tensor([[1.0, 3.0, 8.0, 4.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0, 1.0, -1.0]]
    """
    _need_axes(F, "group_norm", input, 2)
    channels = input.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"group_norm: {channels} channels do not split into {num_groups} groups")
    grouped = input.reshape(input.shape[0] * num_groups, -1)
    centred = grouped - mean(F, grouped, 1, True)
    scaled = centred * F.rsqrt(mean(F, F.square(centred), 1, True) + eps)
    output = scaled.reshape(input.shape)
    if weight is not None:
        output = output * _channel(input, weight)
    return output if bias is None else output + _channel(input, bias)


# ---- losses ----


def _reduced(F: Any, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return F.sum(losses)
    if reduction == "mean":
        return mean(F, losses)
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def mse_loss(F: Any, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)², averaged ("mean"), added ("sum") or as it is ("none").

    >>> neurlang.mse_loss(neurlang.tensor([1.0, 2.0]), neurlang.tensor([1.0, 4.0])).item()
    2.0
    """
    return _reduced(F, F.square(input - target), reduction)


def l1_loss(F: Any, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|input - target|, averaged ("mean"), added ("sum") or as it is ("none").

    >>> neurlang.l1_loss(neurlang.tensor([1.0, 2.0]), neurlang.tensor([1.0, 4.0])).item()
    1.0
    """
    return _reduced(F, F.abs(input - target), reduction)


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


def kl_div(F: Any, input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log target - input), input holding log probabilities; "batchmean" divides by the batch size.

    Kullback & Leibler 1951.

    >>> neurlang.kl_div(neurlang.tensor([[-2.0, -4.0]]), neurlang.tensor([[1.0, 0.0]]), reduction="batchmean").item()
    2.0
    """
    if log_target:
        losses = F.exp(target) * (target - input)
    else:
        positive = F.gt(target, 0)
        losses = F.where(positive, target * (F.log(F.where(positive, target, 1.0)) - input), 0.0)
    if reduction == "batchmean":
        return F.div(F.sum(losses), input.shape[0])
    return _reduced(F, losses, reduction)


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
    _need_axes(F, "nll_loss", input, 1)
    _check_classes(F, "nll_loss", weight, input.shape[_class_axis(input)])
    return _class_loss(F, "nll_loss", input, target, weight, ignore_index, reduction, 0.0)


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
    _need_axes(F, "cross_entropy", input, 1)
    axis = _class_axis(input)
    _check_classes(F, "cross_entropy", weight, input.shape[axis])
    log_p = F.log_softmax(input, axis)
    if target.dtype.is_floating_point:
        return _probability_loss(F, log_p, target, weight, reduction, label_smoothing)
    return _class_loss(F, "cross_entropy", log_p, target, weight, ignore_index, reduction, label_smoothing)


def _class_axis(x: Tensor) -> int:
    return 0 if x.ndim == 1 else 1


def _check_classes(F: Any, op: str, weight: Tensor | None, classes: int) -> None:
    if weight is not None and tuple(weight.shape) != (classes,):
        raise F.ShapeError(f"{op}: weight must have shape ({classes},), one for each class, got {list(weight.shape)}")


def _along(weight: Tensor, like: Tensor, axis: int) -> Tensor:
    """Weights of classes, shaped to broadcast along the class axis."""
    return weight.reshape([-1 if d == axis else 1 for d in range(like.ndim)])


def _probability_loss(
    F: Any, log_p: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    axis = _class_axis(log_p)
    if target.shape != log_p.shape:
        raise ValueError(f"cross_entropy: probabilities of shape {list(target.shape)} for input {list(log_p.shape)}")
    if smoothing:
        target = target * (1 - smoothing) + smoothing / log_p.shape[axis]
    products = log_p * target if weight is None else log_p * target * _along(weight, log_p, axis)
    losses = -F.sum(products, axis)
    if reduction == "mean":
        return F.div(F.sum(losses), max(_count(losses, None), 1))
    return _reduced(F, losses, reduction)


def _class_loss(
    F: Any,
    op: str,
    log_p: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    smoothing: float,
) -> Tensor:
    """Ignored positions count neither above nor below the line; "mean" divides by the sum of the targets' weights."""
    axis = _class_axis(log_p)
    expected = log_p.shape[:axis] + log_p.shape[axis + 1 :]
    if target.shape != expected:
        raise F.ShapeError(f"{op}: target of shape {list(target.shape)} for input {list(log_p.shape)}; "
                           f"expected {list(expected)}")
    ignored = F.eq(target, ignore_index)
    # A negative class must not count from the end: it is sent out of range, where gather refuses it.
    place = F.where(ignored, 0, F.where(F.lt(target, 0), log_p.shape[axis], target))
    losses = -F.gather(log_p, axis, place.unsqueeze(axis)).squeeze(axis)
    weights = None if weight is None else F.index_select(weight, 0, place.reshape(-1)).reshape(place.shape)
    if weights is not None:
        losses = losses * weights
    if smoothing:
        everywhere = log_p if weight is None else log_p * _along(weight, log_p, axis)
        spread = F.sum(everywhere, axis) * (-smoothing / log_p.shape[axis])
        losses = losses * (1 - smoothing) + spread
    losses = F.where(ignored, 0.0, losses)
    if reduction != "mean":
        return _reduced(F, losses, reduction)
    counted = F.logical_not(ignored) if weights is None else F.where(ignored, 0.0, weights)
    return F.div(F.sum(losses), F.sum(counted))


# ---- layers ----


def linear(F: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weightᵀ + bias.

    Input […, in], weight [out, in], bias [out]; the result is […, out].

    >>> weight, bias = neurlang.tensor([[1.0, 2.0], [3.0, 4.0]]), neurlang.tensor([0.0, 10.0])
    >>> neurlang.linear(neurlang.tensor([1.0, 1.0]), weight, bias).tolist()
    [3.0, 17.0]
    """
    output = F.matmul(input, weight.t())
    return output if bias is None else output + bias


def embedding(F: Any, input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` that `input` names; the row `padding_idx` gets no gradient.

    Weight [n, d] and integers of any shape give […, d]; an integer out of range is an IndexError.

    >>> neurlang.embedding(neurlang.tensor([2, 0]), neurlang.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).tolist()
    [[5.0, 6.0], [1.0, 2.0]]
    """
    rows = F.index_select(weight, 0, input.reshape(-1))
    if padding_idx is not None:
        padding = F.eq(input.reshape(-1, 1), padding_idx % weight.shape[0])
        rows = F.where(padding, rows.detach(), rows)
    return rows.reshape(*input.shape, weight.shape[1])


def dropout(F: Any, input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """In training, zeros with probability p, the rest scaled by 1 / (1 - p)."""
    return _dropout(F, input, input.shape, p, training)


def dropout2d(F: Any, input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels of [N, C, H, W]."""
    return _dropout(F, input, (*input.shape[:2], *[1] * (input.ndim - 2)), p, training)


def _dropout(F: Any, x: Tensor, mask_shape: Sequence[int], p: float, training: bool) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return x
    keep = F.ge(F.rand(*mask_shape), p)
    return F.where(keep, x * (1 / (1 - p) if p < 1 else 0.0), 0.0)


def scaled_dot_product_attention(
    F: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value; a boolean mask keeps where it holds, `is_causal` keeps the past.

    Query […, L, d], key […, S, d], value […, S, e] give […, L, e]; the scale is 1/√d unless given; a float mask is
    added to the scores. ValueError where both mask and `is_causal` are given. Vaswani et al. 2017.

    >>> q, v = neurlang.zeros(2, 4), neurlang.tensor([[2.0], [4.0]])
    >>> neurlang.scaled_dot_product_attention(q, q, v, is_causal=True).tolist()
    [[2.0], [3.0]]
    """
    if is_causal and attn_mask is not None:
        raise ValueError("scaled_dot_product_attention: give attn_mask or is_causal, not both")
    for operand in (query, key, value):
        _need_axes(F, "scaled_dot_product_attention", operand, 2)
    factor = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    scores = F.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        attn_mask = _lower_triangle(F, query.shape[-2], key.shape[-2], 0)
    if attn_mask is not None and attn_mask.dtype == F.bool_:
        scores = F.masked_fill(scores, F.logical_not(attn_mask), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return F.matmul(dropout(F, F.softmax(scores, -1), dropout_p), value)


# ---- shapes and places ----


def _lower_triangle(F: Any, rows: int, columns: int, diagonal: int) -> Tensor:
    """Where column <= row + diagonal."""
    return F.le(F.arange(columns), F.arange(diagonal, rows + diagonal).unsqueeze(1))


def _zero(F: Any, x: Tensor) -> int | bool:
    """The number 0 that does not promote x."""
    return False if x.dtype == F.bool_ else 0


def tril(F: Any, input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero where column > row + diagonal, in the last two axes; ShapeError for fewer.

    >>> neurlang.tril(neurlang.tensor([[1, 2], [3, 4]])).tolist()
    [[1, 0], [3, 4]]
    """
    _need_axes(F, "tril", input, 2)
    return F.where(_lower_triangle(F, input.shape[-2], input.shape[-1], diagonal), input, _zero(F, input))


def triu(F: Any, input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero where column < row + diagonal, in the last two axes; ShapeError for fewer.

    >>> neurlang.triu(neurlang.tensor([[1, 2], [3, 4]]), 1).tolist()
    [[0, 2], [0, 0]]
    """
    _need_axes(F, "triu", input, 2)
    return F.where(_lower_triangle(F, input.shape[-2], input.shape[-1], diagonal - 1), _zero(F, input), input)


def one_hot(F: Any, tensor: Tensor, num_classes: int = -1) -> Tensor:
    """[…] to int64 […, num_classes] with a 1 at the class; -1 reads the largest class, so inside a trace it cuts.

    >>> neurlang.one_hot(neurlang.tensor([2, 0]), 3).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    classes = F.arange(int(F.amax(tensor).item()) + 1 if num_classes < 0 else num_classes)
    # Looked up, a class out of range is an IndexError; a negative one must not count from the end.
    place = F.where(F.lt(tensor, 0), classes.shape[0], tensor).reshape(-1)
    found = F.index_select(classes, 0, place).reshape(*tensor.shape, 1)
    return F.eq(found, classes).to(F.int64)


def repeat(F: Any, input: Tensor, sizes: Sequence[int]) -> Tensor:
    """input laid out `sizes` times along each axis; leading sizes add axes."""
    if len(sizes) < input.ndim:
        raise F.ShapeError(f"repeat: {list(sizes)} has fewer sizes than the shape {list(input.shape)}")
    shape = (*[1] * (len(sizes) - input.ndim), *input.shape)
    spread = input.reshape([n for extent in shape for n in (1, extent)])
    stretched = spread.expand([n for size, extent in zip(sizes, shape, strict=True) for n in (size, extent)])
    return stretched.reshape([size * extent for size, extent in zip(sizes, shape, strict=True)])


def repeat_interleave(F: Any, input: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Every element (slice along `dim`) `repeats` times in a row; without `dim`, of the flattened tensor.

    >>> neurlang.repeat_interleave(neurlang.tensor([1, 2]), 2).tolist()
    [1, 1, 2, 2]
    """
    if dim is None:
        input, dim = input.reshape(-1), 0
    if repeats < 0:
        raise F.ShapeError(f"repeat_interleave: repeats must not be negative, got {repeats}")
    axis = F._axis("repeat_interleave", input, dim)
    head, n, tail = input.shape[:axis], input.shape[axis], input.shape[axis + 1 :]
    return input.unsqueeze(axis + 1).expand(*head, n, repeats, *tail).reshape(*head, n * repeats, *tail)


def tile(F: Any, input: Tensor, dims: Sequence[int]) -> Tensor:
    """input laid out `dims` times along its last axes.

    >>> neurlang.tile(neurlang.tensor([1, 2]), (2,))
    tensor([1, 2, 1, 2])
    """
    return repeat(F, input, (*[1] * (input.ndim - len(dims)), *dims))


def roll(F: Any, input: Tensor, shifts: int | Sequence[int], dims: Axes = None) -> Tensor:
    """input moved by `shifts` along `dims`, what leaves at the end coming in at the front; without dims, flattened.

    >>> neurlang.roll(neurlang.tensor([1, 2, 3]), 1)
    tensor([3, 1, 2])
    """
    if dims is None:
        return roll(F, input.reshape(-1), shifts, 0).reshape(input.shape)
    moves, axes = ([v] if isinstance(v, int) else list(v) for v in (shifts, dims))
    if len(moves) != len(axes):
        raise F.ShapeError(f"roll: {len(moves)} shifts for {len(axes)} axes")
    for shift, dim in zip(moves, axes, strict=True):
        axis = F._axis("roll", input, dim)
        n = input.shape[axis] if input.ndim else 0
        cut = -shift % n if n else 0
        if cut:
            input = F.cat([input.narrow(axis, cut, n - cut), input.narrow(axis, 0, cut)], axis)
    return F._copy(input)


def movedim(F: Any, input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes `source` moved to the places `destination`, the others in their order; a view.

    >>> neurlang.movedim(neurlang.zeros(2, 3, 4), 0, -1).shape
    (3, 4, 2)
    """
    froms, tos = ([v] if isinstance(v, int) else list(v) for v in (source, destination))
    froms, tos = ([F._axis("movedim", input, d) for d in axes] for axes in (froms, tos))
    if len(froms) != len(tos) or len(set(froms)) != len(froms) or len(set(tos)) != len(tos):
        raise F.ShapeError(f"movedim: axes {source} cannot go to {destination}; both must name as many different axes")
    order = [d for d in range(input.ndim) if d not in froms]
    for to, axis in sorted(zip(tos, froms, strict=True)):
        order.insert(to, axis)
    return input.permute(order)


def hstack(F: Any, tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along their second axis (vectors along their only one).

    >>> neurlang.hstack([neurlang.zeros(2, 1), neurlang.zeros(2, 3)]).shape
    (2, 4)
    """
    parts = [t if t.ndim else t.reshape(1) for t in tensors]
    return F.cat(parts, min(1, parts[0].ndim - 1) if parts else 0)


def vstack(F: Any, tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along their first axis; vectors are rows.

    >>> neurlang.vstack([neurlang.zeros(3), neurlang.zeros(2, 3)]).shape
    (3, 3)
    """
    return F.cat([t if t.ndim > 1 else t.reshape(1, -1) for t in tensors], 0)


def masked_select(F: Any, input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask holds, in row-major order; how many depends on values, so inside a trace it cuts.

    >>> neurlang.masked_select(neurlang.tensor([1, 2, 3]), neurlang.tensor([True, False, True]))
    tensor([1, 3])
    """
    if mask.dtype != F.bool_:
        raise F.DTypeError(f"masked_select: the mask must hold bools, got {mask.dtype}")
    x, mask = F.broadcast_tensors(input, mask)
    return x.reshape(-1)[mask.reshape(-1)]


# ---- products ----


def outer(F: Any, input: Tensor, vec2: Tensor) -> Tensor:
    """All products of an element of one vector and an element of another.

    >>> neurlang.outer(neurlang.tensor([1, 2]), neurlang.tensor([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    if input.ndim != 1 or vec2.ndim != 1:
        raise F.ShapeError(f"outer: expected two vectors, got shapes {list(input.shape)} and {list(vec2.shape)}")
    return F.mul(input.unsqueeze(1), vec2)


def addmm(F: Any, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta input + alpha (mat1 @ mat2).

    >>> neurlang.addmm(neurlang.ones(2), neurlang.ones(3, 4), neurlang.ones(4, 2))[0]
    tensor([5., 5.])
    """
    product = F.mm(mat1, mat2)
    if tuple(F.broadcast_tensors(input, product)[0].shape) != tuple(product.shape):
        raise F.ShapeError(f"addmm: shape {list(input.shape)} does not broadcast to the product {list(product.shape)}")
    return F.add(input if beta == 1 else input * beta, product, alpha=alpha)


# ---- comparisons of whole tensors ----


def isclose(
    F: Any, input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Where |input - other| <= atol + rtol |other|, or the two are equal.

    >>> neurlang.isclose(neurlang.tensor([1.0, 2.0]), neurlang.tensor([1.0, 2.1]))
    tensor([ True, False])
    """
    if input.dtype != other.dtype:
        raise F.DTypeError(f"isclose: {input.dtype} and {other.dtype} differ")
    near = F.le(F.abs(input - other), atol + rtol * F.abs(other))
    close = F.logical_or(F.eq(input, other), F.logical_and(near, F.isfinite(other)))
    return F.logical_or(close, F.logical_and(F.isnan(input), F.isnan(other))) if equal_nan else close


def allclose(
    F: Any, input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether `isclose` holds everywhere; reading that cuts a trace.

    >>> neurlang.allclose(neurlang.ones(2), neurlang.ones(2) + 1e-7)
    True
    """
    return bool(F.all(isclose(F, input, other, rtol, atol, equal_nan)))


def count_nonzero(F: Any, input: Tensor, dim: Axes = None) -> Tensor:
    """How many elements over `dim` (None: all axes) are not zero.

    >>> neurlang.count_nonzero(neurlang.tensor([0, 3, 4]))
    tensor(2)
    """
    return F.sum(F.ne(input, _zero(F, input)), dim)


def pad(F: Any, input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`pad` holds (before, after) for the last axis, then the one before it, …; negative numbers crop.

    Modes: "constant", "reflect", "replicate", "circular"; ValueError for others. ShapeError where `pad` does not fit
    the axes or their extents.

    >>> neurlang.pad(neurlang.tensor([[1, 2, 3]]), (1, 2)).tolist()
    [[0, 1, 2, 3, 0, 0]]
    >>> neurlang.pad(neurlang.tensor([[1, 2, 3]]), (1, 2), mode="reflect").tolist()
    [[2, 1, 2, 3, 2, 1]]
    """
    if not isinstance(pad, (list, tuple)) or not all(isinstance(n, int) for n in pad):
        raise F.DTypeError(f"pad: expected a list of integers, got {pad!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise F.ShapeError(f"pad: {list(pad)} must hold two numbers for each of at most {input.ndim} axes")
    sides = [(0, 0)] * (input.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    if mode == "constant":
        return _pad_constant(F, input, sides, 0 if value is None else value)
    if mode not in _PLACES:
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    for axis, (before, after) in enumerate(sides):
        if before or after:
            n = input.shape[axis]
            place, most = _PLACES[mode]
            if max(before, after) > most(n):
                raise F.ShapeError(f"pad: ({before}, {after}) is too much along axis {axis} of extent {n} ({mode})")
            input = F.index_select(input, axis, place(F, F.arange(-before, n + after), n))
    return input


def _reflected(F: Any, i: Tensor, n: int) -> Tensor:
    return (n - 1) - F.abs((n - 1) - F.abs(i))


# mode -> where a place beyond the edge lies inside, and how far beyond an extent's edges it may be.
_PLACES: dict[str, tuple[Callable[[Any, Tensor, int], Tensor], Callable[[int], float]]] = {
    "reflect": (_reflected, lambda n: n - 1),
    "replicate": (lambda F, i, n: F.clamp(i, 0, n - 1), lambda n: math.inf if n else 0),
    "circular": (lambda F, i, n: F.remainder(i, n), lambda n: n),
}


def _pad_constant(F: Any, x: Tensor, sides: Sequence[tuple[int, int]], value: float) -> Tensor:
    shape = [n + before + after for n, (before, after) in zip(x.shape, sides, strict=True)]
    if any(n < 0 for n in shape):
        raise F.ShapeError(f"pad: {list(sides)} crops more than the shape {list(x.shape)} has")
    cropped = [(max(-before, 0), max(-after, 0)) for before, after in sides]
    inner = [(before, n - before - after) for n, (before, after) in zip(x.shape, cropped, strict=True)]

    def window(y: Tensor, at_input: bool) -> Tensor:
        """The part of the input that is kept, or its place in the output."""
        for axis, ((start, length), (before, _)) in enumerate(zip(inner, sides, strict=True)):
            y = y.narrow(axis, start if at_input else max(before, 0), length)
        return y

    out = F.full(tuple(shape), value, dtype=x.dtype)
    window(out, False).copy_(window(x.detach(), True))
    input_shape = x.shape

    def rule(F: Any, g: Tensor) -> tuple:
        region = window(g, False)
        if region.shape == input_shape:
            return (region,)
        return (_pad_constant(F, region, cropped, 0),)

    if F.is_grad_enabled() and x.requires_grad:
        F.python_node("pad", rule, (x,), (out,))  # one rule instead of the copies' own
    return out


def interpolate(
    F: Any,
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
) -> Tensor:
    """[N, C, …] resized to `size`, or by `scale_factor`; each output i takes the input floor(i n / size).

    ValueError for another mode than "nearest", and where not just one of the two is given.

    >>> neurlang.interpolate(neurlang.tensor([[[1, 2]]]), scale_factor=2).tolist()
    [[[1, 1, 2, 2]]]
    """
    if mode != "nearest":
        raise ValueError(f"interpolate: mode must be 'nearest', got {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give size or scale_factor, and not both")
    given: Any = size if size is not None else scale_factor
    per_axis = list(given) if isinstance(given, (list, tuple)) else [given] * (input.ndim - 2)
    if len(per_axis) != input.ndim - 2 or not all(0 < wanted < math.inf for wanted in per_axis):
        raise ValueError(f"interpolate: {per_axis} does not give a positive extent for each axis but two of "
                         f"an input of shape {list(input.shape)}")
    for axis, wanted in enumerate(per_axis, 2):
        n = input.shape[axis]
        if size is not None:
            input = _nearest(F, input, axis, wanted, n / wanted)
        else:
            input = _nearest(F, input, axis, math.floor(n * wanted), 1 / wanted)
    return input


def _nearest(F: Any, x: Tensor, axis: int, extent: int, scale: float) -> Tensor:
    """One axis resized: output i takes input floor(i * scale)."""
    n = x.shape[axis]
    if n and extent % n == 0 and scale == n / extent:
        return repeat_interleave(F, x, extent // n, axis)
    places = F.floor(F.arange(extent, dtype=F.float64) * scale).to(F.int64)
    return F.index_select(x, axis, F.clamp(places, max=n - 1))


def pixel_shuffle(F: Any, input: Tensor, upscale_factor: int) -> Tensor:
    """[…, C r², H, W] to […, C, H r, W r].

    ShapeError where the channels are no multiple of r². Shi et al. 2016.

    >>> neurlang.pixel_shuffle(neurlang.arange(4).reshape(4, 1, 1), 2).tolist()
    [[[0, 1], [2, 3]]]
    """
    _need_axes(F, "pixel_shuffle", input, 3)
    *lead, channels, h, w = input.shape
    r = upscale_factor
    if r < 1 or channels % (r * r):
        raise F.ShapeError(f"pixel_shuffle: {channels} channels are no multiple of {r}²")
    n = len(lead)
    split = input.reshape(*lead, channels // (r * r), r, r, h, w)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return split.permute(*order).reshape(*lead, channels // (r * r), h * r, w * r)

