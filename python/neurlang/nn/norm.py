"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .._tensor import Tensor, dtype, int64, ones, tensor, zeros
from . import init
from .module import Module
from .parameter import Parameter


class _Affine(Module):
    """A weight that starts at one and a bias that starts at zero, or neither."""

    weight: Parameter | None
    bias: Parameter | None

    def _add_affine(self, shape: tuple[int, ...], weight: bool, bias: bool, **factory: Any) -> None:
        self.register_parameter("weight", Parameter(ones(*shape, **factory)) if weight else None)
        self.register_parameter("bias", Parameter(zeros(*shape, **factory)) if bias else None)

    def reset_parameters(self) -> None:
        """Weight one and bias zero, as at the start.

        >>> neurlang.nn.LayerNorm(2).reset_parameters()
        """
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _BatchNorm(_Affine):
    """Normalises each channel over the batch while training, by running statistics afterwards."""

    ranks: tuple[int, ...]
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        factory = {"device": device, "dtype": dtype}
        self._add_affine((num_features,), affine, affine, **factory)
        self.register_buffer("running_mean", zeros(num_features, **factory) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features, **factory) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Running mean zero, variance one, no batches counted.

        >>> layer = neurlang.nn.BatchNorm1d(1)
        >>> y = layer(neurlang.tensor([[1.0], [3.0]]))
        >>> layer.reset_running_stats()
        >>> layer.running_mean.item(), layer.running_var.item()
        (0.0, 1.0)
        """
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1.0)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """The running statistics and the parameters as at the start.

        >>> neurlang.nn.BatchNorm1d(1).reset_parameters()
        """
        self.reset_running_stats()
        super().reset_parameters()

    def _update_factor(self) -> float | Tensor:
        """How much of the new statistics the running ones take; without a momentum they are plain averages."""
        if not (self.training and self.track_running_stats):
            return 0.0
        self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            return self.momentum
        return 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.ranks or input.shape[1] != self.num_features:
            ranks = " or ".join(f"{rank}-d" for rank in self.ranks)
            raise ValueError(
                f"{type(self).__name__} expects a {ranks} input with {self.num_features} channels on axis 1, "
                f"got shape {list(input.shape)}"
            )
        use_batch = self.training or self.running_mean is None
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_batch,
            self._update_factor(),
            self.eps,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L].

    By the batch's mean and variance while training, which also move the running ones by `momentum` (None: plain
    averages), afterwards by those. ValueError for other ranks, and in training for one value per channel.
    Ioffe & Szegedy 2015.

    >>> layer = neurlang.nn.BatchNorm1d(1, momentum=0.5, eps=0.0)
    >>> layer(neurlang.tensor([[1.0], [3.0]])).tolist(), layer.running_mean.tolist()
    ([[-1.0], [1.0]], [1.0])
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images [N, C, H, W].

    As `BatchNorm1d`, every channel over N, H and W. Ioffe & Szegedy 2015.

    >>> neurlang.nn.BatchNorm2d(3)(neurlang.zeros(2, 3, 4, 4)).shape
    (2, 3, 4, 4)
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of volumes [N, C, D, H, W].

    As `BatchNorm1d`, every channel over N, D, H and W. Ioffe & Szegedy 2015.

    >>> neurlang.nn.BatchNorm3d(3)(neurlang.zeros(2, 3, 4, 4, 4)).shape
    (2, 3, 4, 4, 4)
    """

    ranks = (5,)


class _OverLastAxes(_Affine):
    """Normalises each sample over its last axes, which have shape `normalized_shape`."""

    eps: float | None

    def _set_shape(
        self, normalized_shape: int | Sequence[int], eps: float | None, weight: bool, bias: bool, **factory: Any
    ) -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = weight
        self._add_affine(self.normalized_shape, weight, bias, **factory)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm(_OverLastAxes):
    """Normalises each sample over its last axes, which have shape `normalized_shape`.

    Ba, Kiros & Hinton 2016.

    >>> neurlang.nn.LayerNorm(2, eps=0.0)(neurlang.tensor([[1.0, 3.0], [8.0, 4.0]])).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: dtype | None = None,
    ) -> None:
        super().__init__()
        affine_bias = elementwise_affine and bias
        self._set_shape(normalized_shape, eps, elementwise_affine, affine_bias, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(_OverLastAxes):
    """Divides each sample by the root of its mean square over its last axes, which have shape `normalized_shape`.

    Zhang & Sennrich 2019.

    >>> neurlang.nn.RMSNorm(2, eps=0.0)(neurlang.tensor([[1.0, 7.0]])).tolist()
    [[0.20000000298023224, 1.399999976158142]]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: dtype | None = None,
    ) -> None:
        super().__init__()
        self._set_shape(normalized_shape, eps, elementwise_affine, False, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class GroupNorm(_Affine):
    """Normalises each sample over groups of channels.

    Input [N, num_channels, …]. Wu & He 2018.

    >>> neurlang.nn.GroupNorm(2, 4, eps=0.0)(neurlang.tensor([[1.0, 3.0, 8.0, 4.0]])).tolist()
    [[-1.0, 1.0, 1.0, -1.0]]
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: dtype | None = None,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"{num_channels} channels do not divide into {num_groups} groups")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self._add_affine((num_channels,), affine, affine, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
