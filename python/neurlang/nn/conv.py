"""Convolution layers over series [N, C, L], images [N, C, H, W] and volumes [N, C, D, H, W]."""

from __future__ import annotations

from typing import Any

from .. import _tensor
from .. import functional as F
from .._tensor import Tensor, dtype, empty
from ..ops.convolutions import Size, check_padding, sizes_of
from . import init
from .module import Module
from .parameter import Parameter


class _Conv(Module):
    """Arguments, parameters and text that both directions share."""

    axes: int
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        groups: int,
        bias: bool,
        transposed: bool,
        **factory: Any,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not divide into {groups} groups")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.groups = groups
        channels = (in_channels, out_channels // groups) if transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(empty(*channels, *self.kernel_size, **factory))
        self.register_parameter("bias", Parameter(empty(out_channels, **factory)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, evenly from ±1 / sqrt(fan_in).

        >>> neurlang.nn.Conv2d(3, 8, 3).reset_parameters()
        """
        init.fan_in_uniform_(self.weight, self.bias)

    def _sizes(self, name: str, value: Size) -> tuple[int, ...]:
        """An argument that may be given once for all axes."""
        return sizes_of(_tensor, type(self).__name__, name, value, self.axes)

    def extra_repr(self) -> str:
        named = {name: getattr(self, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")}
        return ", ".join([f"{self.in_channels}, {self.out_channels}", *(f"{k}={v}" for k, v in named.items())])


class _Forward(_Conv):
    """The layers of convolutions; `axes` and `convolve` say which."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: dtype | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode {padding_mode!r} is not supported; use 'zeros'")
        super().__init__(in_channels, out_channels, kernel_size, groups, bias, False, device=device, dtype=dtype)
        self.stride = self._sizes("stride", stride)
        check_padding(_tensor, type(self).__name__, padding, self.stride)
        self.padding = padding if isinstance(padding, str) else self._sizes("padding", padding)
        self.dilation = self._sizes("dilation", dilation)

    def forward(self, input: Tensor) -> Tensor:
        function = getattr(F, f"conv{self.axes}d")
        result: Tensor = function(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return result


class Conv1d(_Forward):
    """Convolution over series; the weight is [out_channels, in_channels / groups, k].

    [N, in_channels, L] to [N, out_channels, L'], L' as in `functional.conv1d`; `padding` may be "same".
    ValueError where the channels do not divide into `groups`.

    >>> neurlang.nn.Conv1d(3, 8, kernel_size=5, stride=2)(neurlang.zeros(1, 3, 21)).shape
    (1, 8, 9)
    """

    axes = 1


class Conv2d(_Forward):
    """Two-dimensional convolution; the weight is [out_channels, in_channels / groups, kh, kw].

    Images [N, in_channels, H, W] to [N, out_channels, H', W'], H' as in `functional.conv2d`; `padding` may be "same".
    ValueError where the channels do not divide into `groups`.

    >>> layer = neurlang.nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
    >>> layer(neurlang.zeros(1, 3, 32, 32)).shape, layer.weight.shape
    ((1, 8, 16, 16), (8, 3, 3, 3))
    """

    axes = 2


class Conv3d(_Forward):
    """Convolution over volumes; the weight is [out_channels, in_channels / groups, kd, kh, kw].

    [N, in_channels, D, H, W] to [N, out_channels, D', H', W'], extents as in `functional.conv3d`; `padding` may be
    "same". ValueError where the channels do not divide into `groups`.

    >>> neurlang.nn.Conv3d(2, 4, kernel_size=3, padding=1)(neurlang.zeros(1, 2, 5, 6, 7)).shape
    (1, 4, 5, 6, 7)
    """

    axes = 3


class _Transposed(_Conv):
    """The layers of transposed convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: dtype | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode {padding_mode!r} is not supported; use 'zeros'")
        super().__init__(in_channels, out_channels, kernel_size, groups, bias, True, device=device, dtype=dtype)
        self.stride = self._sizes("stride", stride)
        self.padding = self._sizes("padding", padding)
        self.output_padding = self._sizes("output_padding", output_padding)
        self.dilation = self._sizes("dilation", dilation)

    def forward(self, input: Tensor) -> Tensor:
        function = getattr(F, f"conv_transpose{self.axes}d")
        result: Tensor = function(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
        return result


class ConvTranspose1d(_Transposed):
    """The transpose of a convolution over series; the weight is [in_channels, out_channels / groups, k].

    [N, in_channels, L] to [N, out_channels, L'], L' as in `functional.conv_transpose1d`.
    ValueError where the channels do not divide into `groups`.

    >>> neurlang.nn.ConvTranspose1d(8, 3, kernel_size=4, stride=2, padding=1)(neurlang.zeros(1, 8, 16)).shape
    (1, 3, 32)
    """

    axes = 1


class ConvTranspose2d(_Transposed):
    """The transpose of a convolution; the weight is [in_channels, out_channels / groups, kh, kw].

    Images [N, in_channels, H, W] to [N, out_channels, H', W'], H' as in `functional.conv_transpose2d`.
    ValueError where the channels do not divide into `groups`.

    >>> layer = neurlang.nn.ConvTranspose2d(8, 3, kernel_size=4, stride=2, padding=1)
    >>> layer(neurlang.zeros(1, 8, 16, 16)).shape, layer.weight.shape
    ((1, 3, 32, 32), (8, 3, 4, 4))
    """

    axes = 2


class ConvTranspose3d(_Transposed):
    """The transpose of a convolution over volumes; the weight is [in_channels, out_channels / groups, kd, kh, kw].

    [N, in_channels, D, H, W] to [N, out_channels, D', H', W'], extents as in `functional.conv_transpose3d`.
    ValueError where the channels do not divide into `groups`.

    >>> neurlang.nn.ConvTranspose3d(4, 2, kernel_size=2, stride=2)(neurlang.zeros(1, 4, 3, 4, 5)).shape
    (1, 2, 6, 8, 10)
    """

    axes = 3
