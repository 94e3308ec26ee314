"""Pooling and resampling layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import functional as F
from .._tensor import Tensor
from ..ops.convolutions import Size
from ..ops.pooling import Sizes
from .module import Module


class _Pool(Module):
    """Pools by windows of one size; subclasses name the function and its further arguments."""

    function: Callable[..., Any]

    def __init__(self, kernel_size: Size, stride: Size | None, padding: Size, **options: Any) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self._names = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, input: Tensor) -> Any:
        options = {name: getattr(self, name) for name in self._names}
        return type(self).function(input, self.kernel_size, self.stride, self.padding, **options)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool(_Pool):
    dilation: Size

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(
            kernel_size, stride, padding, dilation=dilation, return_indices=return_indices, ceil_mode=ceil_mode
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dilation={self.dilation}"


class MaxPool1d(_MaxPool):
    """The largest element of each window of [N, C, L].

    Arguments as in `functional.max_pool1d`.

    >>> neurlang.nn.MaxPool1d(2)(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """

    function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest element of each window of images [N, C, H, W].

    Arguments as in `functional.max_pool2d`.

    >>> neurlang.nn.MaxPool2d(2)(neurlang.arange(16.0).reshape(1, 1, 4, 4))[0, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """

    function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """The largest element of each window of [N, C, D, H, W].

    Arguments as in `functional.max_pool3d`.

    >>> neurlang.nn.MaxPool3d(2)(neurlang.arange(8.0).reshape(1, 1, 2, 2, 2)).item()
    7.0
    """

    function = staticmethod(F.max_pool3d)


class AvgPool1d(_Pool):
    """The average of each window of [N, C, L].

    Arguments as in `functional.avg_pool1d`.

    >>> neurlang.nn.AvgPool1d(2)(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]])).tolist()
    [[2.0, 3.0]]
    """

    function = staticmethod(F.avg_pool1d)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        options = {"count_include_pad": count_include_pad, "divisor_override": divisor_override}
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, **options)


class AvgPool2d(_AvgPool):
    """The average of each window of images [N, C, H, W].

    Arguments as in `functional.avg_pool2d`.

    >>> neurlang.nn.AvgPool2d(2)(neurlang.arange(16.0).reshape(1, 1, 4, 4))[0, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """

    function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    """The average of each window of [N, C, D, H, W].

    Arguments as in `functional.avg_pool3d`.

    >>> neurlang.nn.AvgPool3d(2)(neurlang.arange(8.0).reshape(1, 1, 2, 2, 2)).item()
    3.5
    """

    function = staticmethod(F.avg_pool3d)


class _AdaptivePool(Module):
    """Pools over windows chosen so that the result has `output_size`."""

    function: Callable[..., Any]

    def __init__(self, output_size: Sizes) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Any:
        return type(self).function(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePool):
    """Averages over windows of [N, C, L] chosen so that the result has `output_size`.

    >>> neurlang.nn.AdaptiveAvgPool1d(2)(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]])).tolist()
    [[2.0, 3.0]]
    """

    function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptivePool):
    """Averages over windows of [N, C, H, W] chosen so that the result has `output_size`.

    >>> neurlang.nn.AdaptiveAvgPool2d(1)(neurlang.arange(16.0).reshape(1, 1, 4, 4)).item()
    7.5
    """

    function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptivePool):
    """Averages over windows of [N, C, D, H, W] chosen so that the result has `output_size`.

    >>> neurlang.nn.AdaptiveAvgPool3d(1)(neurlang.arange(8.0).reshape(1, 1, 2, 2, 2)).item()
    3.5
    """

    function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPool(_AdaptivePool):
    """The largest elements of such windows, and their places if wanted."""

    def __init__(self, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return type(self).function(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest elements of windows of [N, C, L] chosen so that the result has `output_size`.

    Arguments as in `functional.adaptive_max_pool1d`.

    >>> neurlang.nn.AdaptiveMaxPool1d(2)(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """

    function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest elements of windows of [N, C, H, W] chosen so that the result has `output_size`.

    Arguments as in `functional.adaptive_max_pool2d`.

    >>> neurlang.nn.AdaptiveMaxPool2d(1)(neurlang.arange(16.0).reshape(1, 1, 4, 4)).item()
    15.0
    """

    function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest elements of windows of [N, C, D, H, W] chosen so that the result has `output_size`.

    Arguments as in `functional.adaptive_max_pool3d`.

    >>> neurlang.nn.AdaptiveMaxPool3d(1)(neurlang.arange(8.0).reshape(1, 1, 2, 2, 2)).item()
    7.0
    """

    function = staticmethod(F.adaptive_max_pool3d)


class Upsample(Module):
    """Enlarges images by repeating the nearest pixel.

    Give `size` or `scale_factor`; `mode` can only be "nearest".

    >>> neurlang.nn.Upsample(scale_factor=2)(neurlang.tensor([[[[1.0, 2.0]]]]))[0, 0].tolist()
    [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """

    def __init__(
        self, size: Size | None = None, scale_factor: float | tuple[float, float] | None = None, mode: str = "nearest"
    ) -> None:
        super().__init__()
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode)

    def extra_repr(self) -> str:
        given = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{given}, mode={self.mode!r}"


class PixelShuffle(Module):
    """Images [N, C r², H, W] to [N, C, H r, W r].

    ShapeError where the channels are no multiple of r². Shi et al. 2016.

    >>> neurlang.nn.PixelShuffle(2)(neurlang.arange(4).reshape(1, 4, 1, 1)).tolist()
    [[[[0, 1], [2, 3]]]]
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"
