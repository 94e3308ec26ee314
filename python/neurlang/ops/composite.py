"""Operations defined by others: pure functions over a namespace `F`, with PyTorch's names, arguments and defaults.

`F` is the module of eager functions, or, for the `define_*` functions, a graph builder with the same names. More of
them stand in statistics.py, losses.py, places.py, order.py, contractions.py, convolutions.py, pooling.py and
attention.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from .places import zero_of
from .statistics import Axes, Tensor, in_float32, mean, need_axes, without_rounding


def double_of_bits(bits: int) -> float:
    """The float that the 64 bits of a row's attribute stand for."""
    return struct.unpack("<d", struct.pack("<q", bits))[0]


def bits_of_double(value: float) -> int:
    """The attribute, a signed integer, that stands for a float."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


# ---- definitions of the rows that have a native kernel; the kernel has exactly these bits ----


def define_softmax(F: Any, x: Tensor, axis: int) -> Tensor:
    e = F.exp(x - F.amax(x, axis, True))
    return e / F.sum(e, axis, True)


def define_log_softmax(F: Any, x: Tensor, axis: int) -> Tensor:
    shifted = x - F.amax(x, axis, True)
    return shifted - F.log(F.sum(F.exp(shifted), axis, True))


def define_sum_squares(F: Any, x: Tensor, axis: int) -> Tensor:
    return F.sum(F.square(x), axis, True)


def define_sum_square_deviations(F: Any, x: Tensor, axis: int) -> Tensor:
    n = x.shape[axis]
    centred = x - F.sum(x, axis, True) / n
    rest = F.sum(centred, axis, True)  # what the rounding of the mean left
    return without_rounding(F, F.sum(centred * centred, axis, True), rest * (rest / n))


def define_deviations(F: Any, x: Tensor, center: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    centred = x - center
    return F.sum(centred * centred, axis, True), F.sum(centred, axis, True)


def define_logsumexp(F: Any, x: Tensor, axis: int) -> Tensor:
    shift = F.nan_to_num(F.amax(x, axis, True), 0.0, 0.0, 0.0)  # nothing is taken from an infinity
    return F.log(F.sum(F.exp(x - shift), axis, True)) + shift


def define_softmax_grad(F: Any, g: Tensor, y: Tensor, axis: int) -> Tensor:
    return y * (g - F.sum(g * y, axis, True))


def define_log_softmax_grad(F: Any, g: Tensor, y: Tensor, axis: int) -> Tensor:
    return g - F.exp(y) * F.sum(g, axis, True)


def define_cross_entropy(
    F: Any, x: Tensor, target: Tensor, axis: int, ignored: int
) -> tuple[Tensor, Tensor, Tensor]:
    """-log softmax(x) at the target, the largest x and log Σ exp(x - max); the axis stays with extent 1."""
    largest = F.amax(x, axis, True)
    shifted = x - largest
    log_sum = F.log(F.sum(F.exp(shifted), axis, True))
    nobody = F.eq(target, ignored)
    at_target = F._gather(shifted, F.masked_fill(target, nobody, 0), axis)
    return F.masked_fill(log_sum - at_target, nobody, 0), largest, log_sum


def define_cross_entropy_grad(
    F: Any, g: Tensor, x: Tensor, target: Tensor, largest: Tensor, log_sum: Tensor, axis: int, ignored: int
) -> Tensor:
    nobody = F.eq(target, ignored)
    factor = F.masked_fill(g, nobody, 0)
    everywhere = F.exp(x - largest - log_sum) * factor
    return F._scatter_add(everywhere, F.masked_fill(target, nobody, 0), -factor, axis)


def _normal_rows(F: Any, x: Tensor, eps_bits: int) -> tuple[Tensor, Tensor]:
    """The rows of x at mean 0 and variance 1, and by what they were multiplied."""
    n = x.shape[1]
    centred = x - F.sum(x, 1, True) / n
    rest = F.sum(centred, 1, True) / n  # what the rounding of the mean left
    variance = without_rounding(F, F.sum(centred * centred, 1, True) / n, rest * rest)
    inverse = F.div(1.0, F.sqrt(variance + double_of_bits(eps_bits)))
    return (centred - rest) * inverse, inverse


def define_layer_norm(F: Any, x: Tensor, weight: Tensor, bias: Tensor, eps_bits: int) -> Tensor:
    return _normal_rows(F, x, eps_bits)[0] * weight + bias


def define_rms_norm(F: Any, x: Tensor, weight: Tensor, eps_bits: int) -> Tensor:
    return x / F.sqrt(F.sum(x * x, 1, True) / x.shape[1] + double_of_bits(eps_bits)) * weight


def define_layer_norm_grad(F: Any, g: Tensor, x: Tensor, weight: Tensor, eps_bits: int) -> tuple[Tensor, ...]:
    n, scaled = x.shape[1], g * weight
    normal, inverse = _normal_rows(F, x, eps_bits)
    across = scaled - F.sum(scaled, 1, True) / n - normal * (F.sum(scaled * normal, 1, True) / n)
    return inverse * across, F.sum(g * normal, 0, True), F.sum(g, 0, True)


def define_rms_norm_grad(F: Any, g: Tensor, x: Tensor, weight: Tensor, eps_bits: int) -> tuple[Tensor, ...]:
    n = x.shape[1]
    inverse = F.div(1.0, F.sqrt(F.sum(x * x, 1, True) / n + double_of_bits(eps_bits)))
    normal, scaled = x * inverse, g * weight
    return inverse * (scaled - normal * (F.sum(scaled * normal, 1, True) / n)), F.sum(g * normal, 0, True)


def define_channel_norm(
    F: Any, x: Tensor, weight: Tensor, bias: Tensor, axis: int, eps_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, G, D, S] by the mean and variance over S and one other axis; weight and bias [G, D, 1]."""
    n = x.shape[3] * x.shape[axis]
    average = F.sum(F.sum(x, 3, True), axis, True) / n
    centred = x - average
    variance = F.sum(F.sum(centred * centred, 3, True), axis, True) / n
    inverse = F.div(1.0, F.sqrt(variance + double_of_bits(eps_bits)))
    return centred * (inverse * weight) + bias, average, variance


def define_channel_affine(F: Any, x: Tensor, mean: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return (x - mean) * scale + bias


def define_channel_norm_grad(
    F: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, axis: int, eps_bits: int
) -> tuple[Tensor, ...]:
    n = x.shape[3] * x.shape[axis]
    inverse = F.div(1.0, F.sqrt(variance + double_of_bits(eps_bits)))
    normal = (x - mean) * inverse
    of_g, of_product = F.sum(g, 3, True), F.sum(g * normal, 3, True)
    rest = g * weight - F.sum(of_g * weight, axis, True) / n - normal * (F.sum(of_product * weight, axis, True) / n)
    return rest * inverse, F.sum(of_product, 0, True), F.sum(of_g, 0, True)


# ---- PyTorch's special arguments in front of elementwise rows ----


def clamp(F: Any, input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """input limited to [min, max]; either may be left out.

    ValueError where neither is given.

    >>> neurlang.clamp(neurlang.tensor([-2, 1, 5]), min=0, max=3).tolist()
    [0, 1, 3]
    """
    if min is None and max is None:
        raise ValueError("clamp: give min, max, or both")
    if not input.dtype.is_floating_point and (min is None or max is None or input.dtype == F.bool_):
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


# ---- normalisation ----


@in_float32
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
    need_axes(F, "batch_norm", input, 2)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: evaluation needs running statistics")
        return _normalized(F, input, running_mean, running_var, weight, bias, eps), running_mean, running_var
    channels = input.shape[1]
    n = input.numel() // max(channels, 1)
    if n == 1:
        raise ValueError(f"batch_norm: training needs more than one value per channel, got shape {list(input.shape)}")
    if input.ndim == 2:
        batch_mean = mean(F, input, 0, True)
        batch_var = F.div(F.sum(F.square(input - batch_mean), 0, True), n)
        output = _normalized(F, input, batch_mean.squeeze(0), batch_var.squeeze(0), weight, bias, eps)
    else:
        x = input.reshape(input.shape[0], channels, 1, math.prod(input.shape[2:]))
        output, batch_mean, batch_var = _by_channels(F, x, weight, bias, 0, eps)
    if running_mean is not None:
        running_mean = running_mean + momentum * (batch_mean.detach().reshape(-1) - running_mean)
    if running_var is not None:
        unbiased = batch_var.detach().reshape(-1) * (n / (n - 1))
        running_var = running_var + momentum * (unbiased - running_var)
    return output.reshape(input.shape), running_mean, running_var


def _by_channels(
    F: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, axis: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The row channel_norm of x [N, G, D, S], where weight and bias [G D] may be left out."""
    shape = (*x.shape[1:3], 1)
    weight = F.ones(shape, dtype=x.dtype) if weight is None else weight.reshape(shape)
    bias = F.zeros(shape, dtype=x.dtype) if bias is None else bias.reshape(shape)
    made: tuple[Tensor, Tensor, Tensor] = F._channel_norm(x, weight, bias, axis, bits_of_double(eps))
    return made


def _normalized(
    F: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """(x - mean) / √(var + eps) weight + bias by vectors over the channels, whose factors are joined first."""
    scale = F.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight.reshape(-1)
    if bias is None:
        bias = F.zeros(scale.shape, dtype=scale.dtype)
    rows = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    return F._channel_affine(rows, mean.unsqueeze(1), scale.unsqueeze(1), bias.unsqueeze(1)).reshape(x.shape)


@in_float32
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
    need_axes(F, "group_norm", input, 2)
    channels = input.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"group_norm: {channels} channels do not split into {num_groups} groups")
    x = input.reshape(input.shape[0], num_groups, channels // num_groups, math.prod(input.shape[2:]))
    return _by_channels(F, x, weight, bias, 2, eps)[0].reshape(input.shape)


# ---- layers ----


def embedding(F: Any, input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` that `input` names; the row `padding_idx` gets no gradient.

    Weight [n, d] and integers of any shape give […, d]; an integer out of range is an IndexError, a `padding_idx` out
    of range a ValueError.

    >>> neurlang.embedding(neurlang.tensor([2, 0]), neurlang.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).tolist()
    [[5.0, 6.0], [1.0, 2.0]]
    """
    if weight.ndim != 2:
        raise F.ShapeError(f"embedding: weight must have two axes, got the shape {list(weight.shape)}")
    rows = F.index_select(weight, 0, input.reshape(-1))
    if padding_idx is not None:
        n, padding_idx = weight.shape[0], F._integer("embedding: padding_idx", padding_idx)
        if not -n <= padding_idx < n:
            raise ValueError(f"embedding: padding_idx {padding_idx} is out of range for {n} rows")
        from_start, index = padding_idx % n, input.reshape(-1, 1)
        padding = F.logical_or(F.eq(index, from_start), F.eq(index, from_start - n))  # both name this row
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
    """beta input + alpha (mat1 @ mat2); with beta 0 the values of input, NaN too, do not count.

    [M, K] and [K, N] give [M, N], to which input must broadcast: ShapeError otherwise. DTypeError where integers meet
    a beta or alpha that is none.

    >>> neurlang.addmm(neurlang.ones(2), neurlang.ones(3, 4), neurlang.ones(4, 2))[0]
    tensor([5., 5.])
    """
    product = F.mm(mat1, mat2)
    if tuple(F.broadcast_tensors(input, product)[0].shape) != tuple(product.shape):
        raise F.ShapeError(f"addmm: shape {list(input.shape)} does not broadcast to the product {list(product.shape)}")
    if not (product.dtype.is_floating_point or (float(beta).is_integer() and float(alpha).is_integer())):
        raise F.DTypeError(f"addmm: matrices of {product.dtype} take integers for beta and alpha, got {beta}, {alpha}")
    if beta == 0:
        return F.where(F.zeros((), dtype=F.bool_), input, product if alpha == 1 else product * alpha)
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
    if input.dtype == F.bool_:
        return F.eq(input, other)
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
    return F.sum(F.ne(input, zero_of(F, input)), F._axes("count_nonzero", input, dim))
