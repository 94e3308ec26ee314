"""Convolutions of one and three axes by those of two, as functions over `F` (see composite.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .places import pad
from .statistics import Tensor, in_float32

Size = int | Sequence[int]


def conv1d(
    F: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of input [N, C, L] (or [C, L]) with weight [O, C/groups, k]; `padding="same"` or "valid" too.

    The result is [N, O, L'] with L' = floor((L + 2 padding - dilation (k - 1) - 1) / stride) + 1: `conv2d` of images of
    height 1. ShapeError where channels, groups and bias do not fit, DTypeError for other than one float dtype.

    >>> neurlang.conv1d(neurlang.tensor([[[1.0, 2.0, 4.0]]]), neurlang.tensor([[[-1.0, 1.0]]])).tolist()
    [[[1.0, 2.0]]]
    """
    _check(F, "conv1d", input, weight, 1)
    (s,), (d,) = sizes_of(F, "conv1d", "stride", stride, 1), sizes_of(F, "conv1d", "dilation", dilation, 1)
    x, (p,) = padded(F, "conv1d", input, padding, (s,), (d,), weight.shape[2:])
    y = F.conv2d(x.unsqueeze(-2), weight.unsqueeze(-2), bias, (1, s), (0, p), (1, d), groups)
    return y.squeeze(-2)


def conv_transpose1d(
    F: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """The gradient of `conv1d` with respect to its input, as a layer: weight is [C, O/groups, k].

    [N, C, L] (or [C, L]) gives [N, O, (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1]. ShapeError
    where channels do not fit or output_padding is not smaller than stride or dilation.

    >>> neurlang.conv_transpose1d(neurlang.tensor([[[1.0, 2.0]]]), neurlang.tensor([[[1.0, 3.0]]]), stride=2).tolist()
    [[[1.0, 3.0, 2.0, 6.0]]]
    """
    name = "conv_transpose1d"
    _check(F, name, input, weight, 1)
    (s,), (p,) = sizes_of(F, name, "stride", stride, 1), sizes_of(F, name, "padding", padding, 1)
    (d,), (extra,) = sizes_of(F, name, "dilation", dilation, 1), sizes_of(F, name, "output_padding", output_padding, 1)
    x, w = input.unsqueeze(-2), weight.unsqueeze(-2)
    return F.conv_transpose2d(x, w, bias, (1, s), (0, p), (0, extra), groups, (1, d)).squeeze(-2)


def conv3d(
    F: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of input [N, C, D, H, W] (or [C, D, H, W]) with weight [O, C/groups, kd, kh, kw].

    The result is [N, O, D', H', W'], extents as in `conv2d`, which computes it: the taps along the depth are channels
    of images, (channel, tap) with the tap fastest. `padding="same"` or "valid" too. ShapeError where channels, groups
    and bias do not fit, DTypeError for other than one float dtype.

    >>> neurlang.conv3d(neurlang.ones(1, 1, 2, 2, 2), neurlang.ones(1, 1, 2, 2, 1)).tolist()
    [[[[[4.0, 4.0]]]]]
    """
    if input.ndim == 4:
        return conv3d(F, input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    _check(F, "conv3d", input, weight, 3)
    strides, dilations = sizes_of(F, "conv3d", "stride", stride, 3), sizes_of(F, "conv3d", "dilation", dilation, 3)
    x, (around, *plane) = padded(F, "conv3d", input, padding, strides, dilations, weight.shape[2:])
    kernel = weight.shape[2]
    span = dilations[0] * (kernel - 1)
    if around < 0:
        raise F.ShapeError(f"conv3d: padding {padding} must not be negative")
    x = pad(F, x, (0, 0, 0, 0, around, around)) if around else x
    if strides[0] < 1 or dilations[0] < 1 or kernel < 1 or x.shape[2] <= span:
        raise F.ShapeError(f"conv3d: a depth of {x.shape[2]} with padding, kernel {kernel}, stride {strides[0]} and "
                           f"dilation {dilations[0]} leave no output")
    rows = (x.shape[2] - span - 1) // strides[0] + 1
    reach = (rows - 1) * strides[0] + 1
    taps = [x[:, :, u * dilations[0] : u * dilations[0] + reach : strides[0]] for u in range(kernel)]
    images = F.permute(F.stack(taps, 2), (0, 3, 1, 2, 4, 5))
    images = images.reshape(x.shape[0] * rows, x.shape[1] * kernel, *x.shape[3:])
    y = F.conv2d(images, _flat(weight), bias, strides[1:], plane, dilations[1:], groups)
    return F.transpose(y.reshape(x.shape[0], rows, *y.shape[1:]), 1, 2).contiguous()


@in_float32
def conv_transpose3d(
    F: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """The gradient of `conv3d` with respect to its input, as a layer: weight is [C, O/groups, kd, kh, kw].

    [N, C, D, H, W] (or without N) gives [N, O, D', H', W'], extents as in `conv_transpose2d`, which computes every tap
    along the depth; taps are then added in ascending order. ShapeError where channels do not fit or output_padding is
    not smaller than stride or dilation.

    >>> neurlang.conv_transpose3d(neurlang.ones(1, 1, 2, 1, 1), neurlang.ones(1, 1, 2, 1, 1)).flatten().tolist()
    [1.0, 2.0, 1.0]
    """
    name = "conv_transpose3d"
    if input.ndim == 4:
        batch = input.unsqueeze(0)
        options = stride, padding, output_padding, groups, dilation
        return conv_transpose3d(F, batch, weight, bias, *options).squeeze(0)
    _check(F, name, input, weight, 3)
    s, p = sizes_of(F, name, "stride", stride, 3), sizes_of(F, name, "padding", padding, 3)
    d, extra = sizes_of(F, name, "dilation", dilation, 3), sizes_of(F, name, "output_padding", output_padding, 3)
    if not 0 <= extra[0] < max(s[0], d[0]):
        raise F.ShapeError(f"{name}: output_padding {extra} must be smaller than stride {s} or dilation {d}")
    rows, kernel = input.shape[2], weight.shape[2]
    total = (rows - 1) * s[0] + d[0] * (kernel - 1) + 1 + extra[0]
    if s[0] < 1 or d[0] < 1 or p[0] < 0 or kernel < 1 or total <= 2 * p[0]:
        raise F.ShapeError(f"{name}: a depth of {rows}, kernel {kernel}, stride {s[0]}, padding {p[0]} and dilation "
                           f"{d[0]} leave no output")
    images = F.transpose(input, 1, 2).reshape(input.shape[0] * rows, input.shape[1], *input.shape[3:])
    y = F.conv_transpose2d(images, _flat(weight), None, s[1:], p[1:], extra[1:], groups, d[1:])
    parts = y.reshape(input.shape[0], rows, weight.shape[1] * groups, kernel, *y.shape[2:])
    out = _added_along_depth(F, parts, s[0], d[0], p[0], total)
    if bias is None:
        return out
    if bias.shape != (out.shape[1],):
        raise F.ShapeError(f"{name}: the bias must have shape [{out.shape[1]}], got {list(bias.shape)}")
    if bias.dtype != out.dtype:
        raise F.DTypeError(f"{name}: operands must share one float dtype, got {out.dtype} and a bias of {bias.dtype}")
    return out + bias.reshape(-1, 1, 1, 1)


def _added_along_depth(F: Any, parts: Tensor, stride: int, dilation: int, padding: int, total: int) -> Tensor:
    """[N, D, O, tap, H, W] as [N, O, D', H, W]: every tap's rows where they belong among `total`, added in order."""
    out: Tensor | None = None
    for u in range(parts.shape[3]):
        part = F.transpose(parts[:, :, :, u], 1, 2).unsqueeze(3)
        rows = part.shape[2] * stride
        part = pad(F, part, (0, 0, 0, 0, 0, stride - 1)).reshape(*part.shape[:2], rows, *part.shape[4:])
        part = pad(F, part, (0, 0, 0, 0, u * dilation, total - u * dilation - rows))
        out = part if out is None else out + part
    assert out is not None
    return out[:, :, padding : total - padding].contiguous()


def padded(
    F: Any,
    op: str,
    input: Tensor,
    padding: Size | str,
    stride: Sequence[int],
    dilation: Sequence[int],
    kernel: Sequence[int],
) -> tuple[Tensor, tuple[Any, ...]]:
    """The input and its padding in numbers; of an odd number of zeros that a name means the input has the last."""
    axes = len(kernel)
    if not isinstance(padding, str):
        return input, sizes_of(F, op, "padding", padding, axes)
    check_padding(F, op, padding, stride)
    if padding == "valid":
        return input, (0,) * axes
    spans = [max(d * (k - 1), 0) for d, k in zip(dilation, kernel, strict=True)]
    if any(span % 2 for span in spans):
        input = pad(F, input, [zeros for span in reversed(spans) for zeros in (0, span % 2)])
    return input, tuple(span // 2 for span in spans)


def check_padding(F: Any, op: str, padding: Any, stride: Sequence[int]) -> None:
    """Whether a padding given by name can be had."""
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ValueError(f"{op}: padding must be numbers, 'same' or 'valid', got {padding!r}")
    if padding == "same" and any(s != 1 for s in stride):
        raise F.ShapeError(f"{op}: padding='same' needs stride 1, got {tuple(stride)}; give the padding in numbers")


def _flat(weight: Tensor) -> Tensor:
    """A weight of images: (channel, tap along the depth) in place of channels."""
    return weight.reshape(weight.shape[0], weight.shape[1] * weight.shape[2], *weight.shape[3:])


def _check(F: Any, op: str, x: Tensor, w: Tensor, axes: int) -> None:
    """Dtypes and the numbers of axes; channels are conv2d's business."""
    F._same_float(op, x, w)
    if x.ndim not in (axes + 1, axes + 2) or w.ndim != axes + 2:
        names = ", ".join("DHW"[-axes:] if axes > 1 else "L")
        raise F.ShapeError(f"{op}: expected input [N, C, {names}] and a weight of {axes + 2} axes, "
                           f"got {list(x.shape)} and {list(w.shape)}")


def sizes_of(F: Any, op: str, name: str, value: Any, axes: int) -> tuple[Any, ...]:
    """An argument that may be given once for all axes."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(sizes) == 1:
        sizes *= axes
    if len(sizes) != axes:
        raise F.ShapeError(f"{op}: {name} must be a number or {axes} of them, got {value!r}")
    return sizes
