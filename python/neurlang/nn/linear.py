"""Layers that look at one sample at a time: identity, linear maps, embeddings, dropout, flattening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .._tensor import Tensor, dtype, empty
from . import init
from .module import Module
from .parameter import Parameter


class Identity(Module):
    """Returns its argument; takes and ignores any arguments of the layer it stands for.

    >>> neurlang.nn.Identity(3)(neurlang.tensor([1, 2])).tolist()
    [1, 2]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Linear(Module):
    """``y = x @ weight.T + bias`` over the last axis; the weight is [out_features, in_features].

    Input […, in_features], result […, out_features]; both parameters start evenly in ±1 / sqrt(in_features).

    >>> layer = neurlang.nn.Linear(3, 2)
    >>> layer(neurlang.zeros(5, 3)).shape, layer.weight.shape
    ((5, 2), (2, 3))
    """

    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: dtype | None = None
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in_features, dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(empty(out_features, dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew.

        >>> neurlang.nn.Linear(1, 2).reset_parameters()
        """
        init.fan_in_uniform_(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors, looked up by integer; the row `padding_idx` starts at zero and is never trained.

    Integers of any shape give […, embedding_dim]; one out of range is an IndexError. The other rows start normal.

    >>> table = neurlang.nn.Embedding(10, 4, padding_idx=0)
    >>> table(neurlang.tensor([[1, 2, 0]])).shape, table(neurlang.tensor(0)).tolist()
    ((1, 3, 4), [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: dtype | None = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx {padding_idx} is out of range for {num_embeddings} embeddings")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(empty(num_embeddings, embedding_dim, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the rows anew; the padding's is zero.

        >>> neurlang.nn.Embedding(10, 4).reset_parameters()
        """
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight.detach()[self.padding_idx])

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Dropout(Module):
    """While training, zeroes each element with probability `p` and scales the others by 1 / (1 - p).

    ValueError where p is not in [0, 1]. Srivastava et al. 2014.

    >>> layer = neurlang.nn.Dropout(0.75)
    >>> sorted(set(layer(neurlang.ones(1000)).tolist())), layer.eval()(neurlang.ones(2)).tolist()
    ([0.0, 4.0], [1.0, 1.0])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"the dropout probability must lie in [0, 1], got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """Joins the axes `start_dim` to `end_dim` into one.

    >>> neurlang.nn.Flatten()(neurlang.zeros(2, 3, 4)).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits the axis `dim` into several of the sizes `unflattened_size`, one of which may be -1.

    >>> neurlang.nn.Unflatten(1, (2, -1))(neurlang.zeros(3, 6)).shape
    (3, 2, 3)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
