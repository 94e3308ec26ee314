"""Convolution layers over images [N, C, H, W]."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .._tensor import Tensor, dtype, empty
from . import init
from .module import Module
from .parameter import Parameter

Size = int | tuple[int, int]


def pair(size: Size) -> tuple[int, int]:
    """An argument that may be given once for both axes."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class _Conv(Module):
    """Arguments, parameters and text that both directions share."""

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
        self.kernel_size = pair(kernel_size)
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

    def extra_repr(self) -> str:
        named = {name: getattr(self, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")}
        return ", ".join([f"{self.in_channels}, {self.out_channels}", *(f"{k}={v}" for k, v in named.items())])


class Conv2d(_Conv):
    """Two-dimensional convolution; the weight is [out_channels, in_channels / groups, kh, kw].

    Images [N, in_channels, H, W] to [N, out_channels, H', W'], H' as in `functional.conv2d`; `padding` may be "same".
    ValueError where the channels do not divide into `groups`.

    >>> layer = neurlang.nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
    >>> layer(neurlang.zeros(1, 3, 32, 32)).shape, layer.weight.shape
    ((1, 8, 16, 16), (8, 3, 3, 3))
    """

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
        self.stride = pair(stride)
        self.padding = padding if isinstance(padding, str) else pair(padding)
        self.dilation = pair(dilation)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Conv):
    """The transpose of a convolution; the weight is [in_channels, out_channels / groups, kh, kw].

    Images [N, in_channels, H, W] to [N, out_channels, H', W'], H' as in `functional.conv_transpose2d`.

    >>> layer = neurlang.nn.ConvTranspose2d(8, 3, kernel_size=4, stride=2, padding=1)
    >>> layer(neurlang.zeros(1, 8, 16, 16)).shape, layer.weight.shape
    ((1, 3, 32, 32), (8, 3, 4, 4))
    """

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
        self.stride = pair(stride)
        self.padding = pair(padding)
        self.output_padding = pair(output_padding)
        self.dilation = pair(dilation)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
