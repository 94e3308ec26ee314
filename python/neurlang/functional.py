"""Functions with PyTorch's names and arguments: composites bound to eager tensors, rows with special arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from . import _tensor as F
from ._tensor import (
    Tensor,
    avg_pool2d,
    conv2d,
    conv_transpose2d,
    gelu,
    layer_norm,
    linear,
    log_softmax,
    logsigmoid,
    max_pool2d,
    rms_norm,
    sigmoid,
    softmax,
    softplus,
    tanh,
)
from .autograd import no_grad
from .errors import DTypeError
from .ops import attention, composite, contractions, convolutions, losses, order, places, pooling, statistics

Fn = TypeVar("Fn", bound=Callable[..., Tensor])

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "addmm",
    "allclose",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "count_nonzero",
    "cross_entropy",
    "dropout",
    "dropout2d",
    "einsum",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hstack",
    "huber_loss",
    "interpolate",
    "isclose",
    "kl_div",
    "kthvalue",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "masked_select",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mean",
    "median",
    "mish",
    "movedim",
    "mse_loss",
    "nll_loss",
    "norm",
    "normalize",
    "one_hot",
    "outer",
    "pad",
    "pixel_shuffle",
    "relu",
    "relu6",
    "repeat_interleave",
    "rms_norm",
    "roll",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "std",
    "tanh",
    "tensordot",
    "tile",
    "tril",
    "triu",
    "unique",
    "unique_consecutive",
    "var",
    "vstack",
]


def _bind(define: Callable[..., Any]) -> Callable[..., Any]:
    """The composite as a function of eager tensors: its namespace argument is filled in."""

    signature = inspect.signature(define)
    parameters = list(signature.parameters.values())[1:]

    @functools.wraps(define)
    def function(*args: Any, **kwargs: Any) -> Any:
        try:
            return define(F, *args, **kwargs)
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            _check_tensors(define.__name__, parameters, args, kwargs)
            if (said := F._said_of(define.__name__, error)) is error:
                raise
            raise said from error

    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def _check_tensors(
    op: str, parameters: Sequence[inspect.Parameter], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Names the argument that had to be a tensor. It is asked once a call has failed, so that calls need no checks."""
    given = {**dict(zip((p.name for p in parameters), args, strict=False)), **kwargs}
    for i, p in enumerate(parameters):
        several = args[i] if len(args) == i + 1 and isinstance(args[i], (list, tuple)) else args[i:]
        for value in several if p.kind is p.VAR_POSITIONAL else [given.get(p.name, p.default)]:
            fits = isinstance(value, Tensor) or value is p.empty or (value is None and p.annotation == "Tensor | None")
            if p.annotation in ("Tensor", "Tensor | None") and not fits:
                raise DTypeError(f"{op}: {p.name} must be a Tensor, got {type(value).__name__}") from None


# ---- statistics, scans, shapes ----

mean = _bind(statistics.mean)
var = _bind(statistics.var)
std = _bind(statistics.std)
norm = _bind(statistics.norm)
normalize = _bind(statistics.normalize)
logsumexp = _bind(statistics.logsumexp)
kthvalue = _bind(order.kthvalue)
median = _bind(order.median)
unique = _bind(order.unique)
unique_consecutive = _bind(order.unique_consecutive)
tril = _bind(places.tril)
triu = _bind(places.triu)
one_hot = _bind(places.one_hot)
repeat_interleave = _bind(places.repeat_interleave)
pad = _bind(places.pad)
interpolate = _bind(places.interpolate)
pixel_shuffle = _bind(places.pixel_shuffle)
tile = _bind(places.tile)
roll = _bind(places.roll)
movedim = _bind(places.movedim)
hstack = _bind(places.hstack)
vstack = _bind(places.vstack)
masked_select = _bind(places.masked_select)

# ---- products, comparisons of whole tensors ----

outer = _bind(composite.outer)
addmm = _bind(composite.addmm)
tensordot = _bind(contractions.tensordot)
einsum = _bind(contractions.einsum)
isclose = _bind(composite.isclose)
allclose = _bind(composite.allclose)
count_nonzero = _bind(composite.count_nonzero)

# ---- losses ----

cross_entropy = _bind(losses.cross_entropy)
nll_loss = _bind(losses.nll_loss)
binary_cross_entropy = _bind(losses.binary_cross_entropy)
binary_cross_entropy_with_logits = _bind(losses.binary_cross_entropy_with_logits)
kl_div = _bind(losses.kl_div)
mse_loss = _bind(losses.mse_loss)
l1_loss = _bind(losses.l1_loss)
smooth_l1_loss = _bind(losses.smooth_l1_loss)
huber_loss = _bind(losses.huber_loss)

# ---- pooling ----

max_pool1d = _bind(pooling.max_pool1d)
max_pool3d = _bind(pooling.max_pool3d)
avg_pool1d = _bind(pooling.avg_pool1d)
avg_pool3d = _bind(pooling.avg_pool3d)
adaptive_avg_pool1d = _bind(pooling.adaptive_avg_pool1d)
adaptive_avg_pool2d = _bind(pooling.adaptive_avg_pool2d)
adaptive_avg_pool3d = _bind(pooling.adaptive_avg_pool3d)
adaptive_max_pool1d = _bind(pooling.adaptive_max_pool1d)
adaptive_max_pool2d = _bind(pooling.adaptive_max_pool2d)
adaptive_max_pool3d = _bind(pooling.adaptive_max_pool3d)

# ---- layers ----

conv1d = _bind(convolutions.conv1d)
conv3d = _bind(convolutions.conv3d)
conv_transpose1d = _bind(convolutions.conv_transpose1d)
conv_transpose3d = _bind(convolutions.conv_transpose3d)
embedding = _bind(composite.embedding)
group_norm = _bind(composite.group_norm)
scaled_dot_product_attention = _bind(attention.scaled_dot_product_attention)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, zeros with probability p, the rest scaled by 1 / (1 - p).

    `inplace` overwrites the input; ValueError where p is not in [0, 1]. Srivastava et al. 2014.

    >>> x = neurlang.ones(1000)
    >>> sorted(set(neurlang.dropout(x, 0.75).tolist()))
    [0.0, 4.0]
    >>> neurlang.dropout(x, 0.75, training=False) is x
    True
    """
    return _apply(_dropout, input, inplace, p, training)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of [N, C, H, W].

    Tompson et al. 2015.

    >>> y = neurlang.dropout2d(neurlang.ones(1, 8, 2, 2))
    >>> bool((y == y[:, :, :1, :1]).all())
    True
    """
    return _apply(_dropout2d, input, inplace, p, training)


_dropout = _bind(composite.dropout)
_dropout2d = _bind(composite.dropout2d)


def _apply(function: Callable[..., Tensor], input: Tensor, inplace: bool, *args: Any) -> Tensor:
    """function(input, …), which overwrites the input if wanted; a gradient rule may still need what it held."""
    if not inplace:
        return function(input, *args)
    if not isinstance(input, Tensor):
        raise DTypeError(f"{function.__name__}: input must be a Tensor, got {type(input).__name__}")
    kept = input.clone() if input.requires_grad and F.is_grad_enabled() else input
    return input.copy_(function(kept, *args))


_batch_norm = _bind(composite.batch_norm)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Channels (axis 1) scaled: (x - mean) / sqrt(var + eps) * weight + bias, by the batch's statistics or the
    running ones.

    In training mean and variance (divided by n) are the batch's, and the running ones move to them in place by
    `momentum`, the variance to its unbiased estimate. Else the running ones are used. ValueError where they are missing
    then, and where a batch to train on has one value per channel. Input [N, C, …], the others [C].
    Ioffe & Szegedy 2015.

    >>> x, mean, var = neurlang.tensor([[1.0], [3.0]]), neurlang.zeros(1), neurlang.ones(1)
    >>> neurlang.batch_norm(x, mean, var, training=True, momentum=0.5, eps=0.0).tolist()
    [[-1.0], [1.0]]
    >>> mean.tolist(), var.tolist()
    ([1.0], [1.5])
    """
    output, new_mean, new_var = _batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if training:
        with no_grad():
            for statistic, moved in ((running_mean, new_mean), (running_var, new_var)):
                if statistic is not None:
                    statistic.copy_(moved)
    return output


# ---- activations that may overwrite their input ----


def _as_row(function: Fn) -> Fn:
    """Gives the function the text of its row."""
    _, _, text = getattr(F, function.__name__).__doc__.partition("\n\n")
    summary, *rest = text.split("\n\n")
    function.__doc__ = "\n\n".join([f"{summary} `inplace` overwrites the input.", *rest])
    return function


@_as_row
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    return input.relu_() if inplace else F.relu(input)


@_as_row
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(F.relu6, input, inplace)


@_as_row
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _apply(F.leaky_relu, input, inplace, negative_slope)


@_as_row
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return _apply(F.elu, input, inplace, alpha)


@_as_row
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(F.selu, input, inplace)


@_as_row
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(F.silu, input, inplace)


@_as_row
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(F.mish, input, inplace)


@_as_row
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(F.hardswish, input, inplace)


@_as_row
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(F.hardsigmoid, input, inplace)


@_as_row
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    return _apply(F.hardtanh, input, inplace, min_val, max_val)
