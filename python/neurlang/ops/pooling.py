"""Pooling over one and three axes by pooling over two, as functions over `F` (see composite.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .convolutions import Size, sizes_of
from .statistics import Tensor, in_float32, mean

Sizes = int | None | Sequence[int | None]
Parts = tuple[Tensor, Tensor]


def max_pool1d(
    F: Any,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | Parts:
    """The maximum of each window of [N, C, L] (or [C, L]); with `return_indices` also its place.

    `stride` left out is the kernel's size; padding counts as -∞ and may be half the kernel at most (else ShapeError).
    The first of equals wins, a NaN beats every number.

    >>> neurlang.max_pool1d(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]]), 2).tolist()
    [[3.0, 4.0]]
    """
    k, s, p, d = _windows(F, "max_pool1d", input, 1, kernel_size, stride, padding, dilation)
    return _in_a_row(F.max_pool2d, input, (1, *k), (1, *s), (0, *p), (1, *d), ceil_mode, return_indices)


def max_pool3d(
    F: Any,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | Parts:
    """The maximum of each window of [N, C, D, H, W] (or without N); with `return_indices` also its flat place in D×H×W.

    Other arguments as in `max_pool2d`: the largest of every slice, then the largest of these.

    >>> neurlang.max_pool3d(neurlang.arange(8.0).reshape(1, 2, 2, 2), 2, return_indices=True)[1].item()
    7
    """
    k, s, p, d = _windows(F, "max_pool3d", input, 3, kernel_size, stride, padding, dilation)

    def of_slices(x: Tensor) -> Any:
        return F.max_pool2d(x, k[1:], s[1:], p[1:], d[1:], ceil_mode, return_indices)

    def along_depth(x: Tensor) -> Any:
        return F.max_pool2d(x, (k[0], 1), (s[0], 1), (p[0], 0), (d[0], 1), ceil_mode, return_indices)

    return _largest_in_depth(F, input, of_slices, along_depth, return_indices)


def avg_pool1d(
    F: Any,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of [N, C, L] (or [C, L]).

    `stride` left out is the kernel's size; padding counts as zeros, which `count_include_pad=False` leaves out of the
    divisor, and may be half the kernel at most (else ShapeError).

    >>> neurlang.avg_pool1d(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]]), 2).tolist()
    [[2.0, 3.0]]
    """
    k, s, p, _ = _windows(F, "avg_pool1d", input, 1, kernel_size, stride, padding, 1)
    return _in_a_row(F.avg_pool2d, input, (1, *k), (1, *s), (0, *p), ceil_mode, count_include_pad)


@in_float32
def avg_pool3d(
    F: Any,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of [N, C, D, H, W] (or without N).

    Arguments as in `avg_pool2d`: the mean of every slice (its sum where `divisor_override` is given), then of these.

    >>> neurlang.avg_pool3d(neurlang.arange(8.0).reshape(1, 2, 2, 2), 2).item()
    3.5
    """
    k, s, p, _ = _windows(F, "avg_pool3d", input, 3, kernel_size, stride, padding, 1)
    rest = ceil_mode, count_include_pad
    x = _batched(input, 3)
    slices = F.avg_pool2d(_slices(x), k[1:], s[1:], p[1:], *rest, None if divisor_override is None else 1)
    y = F.avg_pool2d(_columns(slices, x), (k[0], 1), (s[0], 1), (p[0], 0), *rest, divisor_override)
    return y.reshape(*input.shape[:-3], y.shape[2], *slices.shape[2:])


# ---- windows chosen so that the result has a given size ----


def adaptive_avg_pool1d(F: Any, input: Tensor, output_size: Sizes) -> Tensor:
    """Means over output_size windows that cover [N, C, L] (or [C, L]), as in `adaptive_avg_pool2d`.

    >>> neurlang.adaptive_avg_pool1d(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]]), 2).tolist()
    [[2.0, 3.0]]
    """
    (size,) = _adaptive(F, "adaptive_avg_pool1d", input, output_size, 1)
    return _in_a_row(partial(adaptive_avg_pool2d, F), input, (1, size))


def adaptive_avg_pool2d(F: Any, input: Tensor, output_size: Sizes) -> Tensor:
    """Means over a grid of output_size windows that cover the image [N, C, H, W] or [C, H, W].

    Window i of n over an extent h goes from floor(i h / n) to ceil((i + 1) h / n); a None keeps the extent. ShapeError
    for other ranks. One window is the mean of the plane.

    >>> neurlang.adaptive_avg_pool2d(neurlang.arange(16.0).reshape(1, 1, 4, 4), (2, 1))[0, 0].tolist()
    [[3.5], [11.5]]
    """
    size = _adaptive(F, "adaptive_avg_pool2d", input, output_size, 2)
    height, width = input.shape[-2:]
    if size == (1, 1) and height * width > 0:
        return mean(F, input.reshape(*input.shape[:-2], height * width), -1).reshape(*input.shape[:-2], 1, 1)
    y = F._adaptive_avg_pool2d(_batched(input, 2), *size)
    return y.reshape(*input.shape[:-2], *size)


@in_float32
def adaptive_avg_pool3d(F: Any, input: Tensor, output_size: Sizes) -> Tensor:
    """Means over a grid of output_size windows that cover [N, C, D, H, W] (or without N): of slices, then of these.

    >>> neurlang.adaptive_avg_pool3d(neurlang.arange(8.0).reshape(1, 2, 2, 2), (2, 1, 1)).flatten().tolist()
    [1.5, 5.5]
    """
    depth, *plane = _adaptive(F, "adaptive_avg_pool3d", input, output_size, 3)
    x = _batched(input, 3)
    slices = adaptive_avg_pool2d(F, _slices(x), plane)
    return adaptive_avg_pool2d(F, _columns(slices, x), (depth, None)).reshape(*input.shape[:-3], depth, *plane)


def adaptive_max_pool1d(F: Any, input: Tensor, output_size: Sizes, return_indices: bool = False) -> Tensor | Parts:
    """The largest elements of output_size windows that cover [N, C, L] (or [C, L]); with `return_indices` their places.

    >>> neurlang.adaptive_max_pool1d(neurlang.tensor([[1.0, 3.0, 2.0, 4.0]]), 2).tolist()
    [[3.0, 4.0]]
    """
    (size,) = _adaptive(F, "adaptive_max_pool1d", input, output_size, 1)
    return _in_a_row(partial(adaptive_max_pool2d, F), input, (1, size), return_indices)


def adaptive_max_pool2d(F: Any, input: Tensor, output_size: Sizes, return_indices: bool = False) -> Tensor | Parts:
    """The largest elements of a grid of output_size windows; with `return_indices` also their flat places in the plane.

    Input [N, C, H, W] or [C, H, W]; the windows are those of `adaptive_avg_pool2d`. The first of equals wins, a NaN
    beats every number.

    >>> neurlang.adaptive_max_pool2d(neurlang.arange(16.0).reshape(1, 1, 4, 4), (2, 1))[0, 0].tolist()
    [[7.0], [15.0]]
    """
    size = _adaptive(F, "adaptive_max_pool2d", input, output_size, 2)
    height, width = input.shape[-2:]
    if size == (1, 1) and height * width > 0:
        made: Tensor | Parts = F.max_pool2d(input, (height, width), return_indices=return_indices)
        return made
    shape = (*input.shape[:-2], *size)
    values, indices = F._adaptive_max_pool2d(_batched(input, 2), *size)
    return (values.reshape(shape), indices.reshape(shape)) if return_indices else values.reshape(shape)


def adaptive_max_pool3d(F: Any, input: Tensor, output_size: Sizes, return_indices: bool = False) -> Tensor | Parts:
    """The largest elements of a grid of output_size windows that cover [N, C, D, H, W] (or without N).

    With `return_indices` also their flat places in D×H×W.

    >>> neurlang.adaptive_max_pool3d(neurlang.arange(8.0).reshape(1, 2, 2, 2), (2, 1, 1)).flatten().tolist()
    [3.0, 7.0]
    """
    size = _adaptive(F, "adaptive_max_pool3d", input, output_size, 3)

    def of_slices(x: Tensor) -> Any:
        return adaptive_max_pool2d(F, x, size[1:], return_indices)

    def along_depth(x: Tensor) -> Any:
        return adaptive_max_pool2d(F, x, (size[0], None), return_indices)

    return _largest_in_depth(F, input, of_slices, along_depth, return_indices)


# ---- how one and three axes become two ----


def _windows(
    F: Any, op: str, x: Tensor, axes: int, kernel: Size, stride: Size | None, padding: Size, dilation: Size
) -> list[tuple[int, ...]]:
    """Kernel, stride, padding and dilation of every axis; what they may be is the two-dimensional rows' business."""
    _check(F, op, x, axes)
    given = {"kernel_size": kernel, "stride": kernel if stride is None else stride, "padding": padding,
             "dilation": dilation}  # fmt: skip
    return [sizes_of(F, op, name, value, axes) for name, value in given.items()]


def _check(F: Any, op: str, x: Tensor, axes: int) -> None:
    F._same_float(op, x)
    if x.ndim not in (axes + 1, axes + 2):
        names = ", ".join("DHW"[-axes:]) if axes > 1 else "L"
        raise F.ShapeError(f"{op}: expected [N, C, {names}] or [C, {names}], got shape {list(x.shape)}")


def _adaptive(F: Any, op: str, x: Tensor, output_size: Sizes, axes: int) -> tuple[int, ...]:
    """The sizes wanted; a None keeps the input's."""
    _check(F, op, x, axes)
    given = sizes_of(F, op, "output_size", output_size, axes)
    sizes = (n if size is None else F._integer(op, size) for size, n in zip(given, x.shape[-axes:], strict=True))
    return tuple(sizes)


def _batched(x: Tensor, axes: int) -> Tensor:
    return x.unsqueeze(0) if x.ndim == axes + 1 else x


def _in_a_row(pool: Callable[..., Any], x: Tensor, *args: Any) -> Any:
    """Pools images of height 1."""
    made = pool(x.unsqueeze(-2), *args)
    return tuple(part.squeeze(-2) for part in made) if isinstance(made, tuple) else made.squeeze(-2)


def _slices(x: Tensor) -> Tensor:
    """[N, C, D, H, W] as [N, C D, H, W]."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


def _columns(slices: Tensor, x: Tensor) -> Tensor:
    """Pooled slices as [N, C, D, H' W'], to be pooled along the depth."""
    return slices.reshape(*x.shape[:3], slices.shape[2] * slices.shape[3])


def _largest_in_depth(
    F: Any, input: Tensor, of_slices: Callable[..., Any], along_depth: Callable[..., Any], return_indices: bool
) -> Tensor | Parts:
    """The largest of every slice, then the largest of these; of the places both parts are needed."""
    x = _batched(input, 3)
    if not return_indices:
        best = of_slices(_slices(x))
        largest = along_depth(_columns(best, x))
        return largest.reshape(*input.shape[:-3], largest.shape[2], *best.shape[2:])
    best, inside = of_slices(_slices(x))
    largest, place = along_depth(_columns(best, x))
    shape = (*input.shape[:-3], largest.shape[2], *best.shape[2:])
    flat = place.reshape(*place.shape[:2], place.shape[2] * place.shape[3])
    nowhere = F.full((*x.shape[:2], 1), -1, dtype=F.int64)  # behind the others: what windows that see nothing name
    of_all_slices = inside.reshape(*x.shape[:2], x.shape[2] * best.shape[2] * best.shape[3])
    chosen = F.gather(F.cat([of_all_slices, nowhere], 2), 2, flat)
    slice_of = F.floor_divide(flat, best.shape[2] * best.shape[3])
    places = F.where(F.lt(chosen, 0), -1, slice_of * (x.shape[3] * x.shape[4]) + chosen)
    return largest.reshape(shape), places.reshape(shape)
