"""Activation layers: each applies the function of the same name with the arguments it was made with."""

from __future__ import annotations

from .. import functional as F
from .._tensor import Tensor
from .module import Module


class _Activation(Module):
    """What activations share: their text shows the arguments."""

    def extra_repr(self) -> str:
        arguments = {name: value for name, value in vars(self).items() if name not in ("_kinds", "training")}
        return ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value is not False)


class ReLU(_Activation):
    """max(x, 0) (Nair & Hinton 2010).

    >>> neurlang.nn.ReLU()(neurlang.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class ReLU6(_Activation):
    """min(max(x, 0), 6).

    >>> neurlang.nn.ReLU6()(neurlang.tensor([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, self.inplace)


class LeakyReLU(_Activation):
    """x where x > 0, else negative_slope * x (Maas et al. 2013).

    >>> neurlang.nn.LeakyReLU(0.5)(neurlang.tensor([-2.0, 4.0])).tolist()
    [-1.0, 4.0]
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class ELU(_Activation):
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016).

    >>> neurlang.nn.ELU(2.0)(neurlang.tensor([-1000.0, 4.0])).tolist()
    [-2.0, 4.0]
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class SELU(_Activation):
    """The self-normalising scaled ELU λ (x where x > 0, else α (exp(x) - 1)); λ ≈ 1.0507, α ≈ 1.6733.

    Klambauer et al. 2017.

    >>> neurlang.nn.SELU()(neurlang.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class GELU(_Activation):
    """x times the normal distribution function at x, exact or by its tanh approximation (Hendrycks & Gimpel 2016).

    >>> neurlang.nn.GELU()(neurlang.tensor([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class SiLU(_Activation):
    """x * sigmoid(x) (Elfwing et al. 2018).

    >>> neurlang.nn.SiLU()(neurlang.tensor([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class Mish(_Activation):
    """x * tanh(softplus(x)) (Misra 2019).

    >>> neurlang.nn.Mish()(neurlang.tensor([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class Hardswish(_Activation):
    """x * relu6(x + 3) / 6 (Howard et al. 2019).

    >>> neurlang.nn.Hardswish()(neurlang.tensor([0.0, 3.0, 100.0])).tolist()
    [0.0, 3.0, 100.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Hardsigmoid(_Activation):
    """relu6(x + 3) / 6 (Howard et al. 2019).

    >>> neurlang.nn.Hardsigmoid()(neurlang.tensor([-3.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardtanh(_Activation):
    """x limited to [min_val, max_val].

    >>> neurlang.nn.Hardtanh(-2.0, 2.0)(neurlang.tensor([-3.0, 0.5])).tolist()
    [-2.0, 0.5]
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class Softplus(_Activation):
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold (Dugas et al. 2001).

    >>> neurlang.nn.Softplus()(neurlang.tensor([-200.0, 100.0])).tolist()
    [0.0, 100.0]
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)).

    >>> neurlang.nn.Sigmoid()(neurlang.tensor([0.0])).tolist()
    [0.5]
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class LogSigmoid(_Activation):
    """log(sigmoid(x)).

    >>> neurlang.nn.LogSigmoid()(neurlang.tensor([-100.0])).tolist()
    [-100.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Tanh(_Activation):
    """The hyperbolic tangent.

    >>> neurlang.nn.Tanh()(neurlang.tensor([0.0, 100.0])).tolist()
    [0.0, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softmax(_Activation):
    """exp(x) / sum(exp(x)) along `dim`.

    >>> neurlang.nn.Softmax(1)(neurlang.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(_Activation):
    """The logarithm of the softmax along `dim`.

    >>> neurlang.nn.LogSoftmax(0)(neurlang.tensor([0.0, -200.0])).tolist()
    [0.0, -200.0]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)
