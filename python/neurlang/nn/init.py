"""Initialisers: fill a tensor in place, with PyTorch's distributions and names."""

from __future__ import annotations

import math

from .._tensor import Tensor
from ..autograd import no_grad


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fills with numbers drawn evenly from [a, b).

    >>> x = neurlang.nn.init.uniform_(neurlang.empty(100), 2, 4)
    >>> bool((x >= 2).all()), bool((x < 4).all())
    (True, True)
    """
    return tensor.uniform_(a, b)


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fills with normally distributed numbers.

    >>> neurlang.nn.init.normal_(neurlang.empty(2), 5, 0).tolist()
    [5.0, 5.0]
    """
    return tensor.normal_(mean, std)


@no_grad()
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fills with normally distributed numbers from [a, b] only, by inverting the distribution function.

    >>> x = neurlang.nn.init.trunc_normal_(neurlang.empty(1000), a=-1, b=0.5)
    >>> bool((x >= -1).all()), bool((x <= 0.5).all())
    (True, True)
    """
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2.0))) for bound in (a, b))
    tensor.uniform_(low, high).erfinv_().mul_(std * math.sqrt(2.0)).add_(mean)
    return tensor.clamp_(a, b)


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fills with one value.

    >>> neurlang.nn.init.constant_(neurlang.empty(2), 7).tolist()
    [7.0, 7.0]
    """
    return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fills with ones.

    >>> neurlang.nn.init.ones_(neurlang.empty(2)).tolist()
    [1.0, 1.0]
    """
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fills with zeros.

    >>> neurlang.nn.init.zeros_(neurlang.empty(2)).tolist()
    [0.0, 0.0]
    """
    return constant_(tensor, 0.0)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a layer followed by `nonlinearity`.

    1 for linear, conv2d and sigmoid, 5/3 for tanh, √2 for relu, 3/4 for selu, √(2 / (1 + slope²)) for leaky_relu.
    ValueError for others.

    >>> neurlang.nn.init.calculate_gain("leaky_relu", 1.0)
    1.0
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1.0 + slope**2))
    gains = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity not in gains:
        raise ValueError(f"no gain is known for {nonlinearity!r}; known: leaky_relu, {', '.join(gains)}")
    return gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """The numbers of inputs and outputs of one unit of a weight [out, in, *window].

    ValueError for fewer than two axes.

    >>> neurlang.nn.init.fans(neurlang.empty(8, 3, 5, 5))
    (75, 200)
    """
    if tensor.ndim < 2:
        raise ValueError(f"a weight of shape {list(tensor.shape)} has no fan-in and fan-out; it needs two axes or more")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return fans(tensor)[mode == "fan_out"]


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Even in ±bound, bound = gain * sqrt(3 / fan); `mode` says which fan. He et al. 2015.

    >>> x = neurlang.nn.init.kaiming_uniform_(neurlang.empty(8, 6), nonlinearity="relu")
    >>> bool((x.abs() <= 1).all())
    True
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / max(_fan(tensor, mode), 1))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with std = gain / sqrt(fan); `mode` says which fan. He et al. 2015.

    >>> x = neurlang.nn.init.kaiming_normal_(neurlang.empty(100, 200), nonlinearity="relu")
    >>> round(float(x.std()), 2)
    0.1
    """
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(max(_fan(tensor, mode), 1)))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Even in ±bound, bound = gain * sqrt(6 / (fan_in + fan_out)). Glorot & Bengio 2010.

    >>> x = neurlang.nn.init.xavier_uniform_(neurlang.empty(4, 2))
    >>> bool((x.abs() <= 1).all())
    True
    """
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with std = gain * sqrt(2 / (fan_in + fan_out)). Glorot & Bengio 2010.

    >>> x = neurlang.nn.init.xavier_normal_(neurlang.empty(100, 100))
    >>> round(float(x.std()), 2)
    0.1
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))))


def fan_in_uniform_(weight: Tensor, bias: Tensor | None) -> None:
    """The default of linear and convolution layers: weight and bias even in ±1 / sqrt(fan_in).

    >>> weight = neurlang.empty(8, 4)
    >>> neurlang.nn.init.fan_in_uniform_(weight, None)
    >>> bool((weight.abs() <= 0.5).all())
    True
    """
    bound = 1.0 / math.sqrt(max(fans(weight)[0], 1))
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)
