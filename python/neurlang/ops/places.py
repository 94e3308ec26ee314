"""What goes where: triangles, repetition, padding, resizing, as functions over `F` (see composite.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .statistics import Axes, Tensor, need_axes


def lower_triangle(F: Any, rows: int, columns: int, diagonal: int) -> Tensor:
    """Where column <= row + diagonal."""
    return F.le(F.arange(columns), F.arange(diagonal, rows + diagonal).unsqueeze(1))


def zero_of(F: Any, x: Tensor) -> int | bool:
    """The number 0 that does not promote x."""
    return False if x.dtype == F.bool_ else 0


def tril(F: Any, input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero where column > row + diagonal, in the last two axes; ShapeError for fewer.

    >>> neurlang.tril(neurlang.tensor([[1, 2], [3, 4]])).tolist()
    [[1, 0], [3, 4]]
    """
    need_axes(F, "tril", input, 2)
    return F.where(lower_triangle(F, input.shape[-2], input.shape[-1], diagonal), input, zero_of(F, input))


def triu(F: Any, input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero where column < row + diagonal, in the last two axes; ShapeError for fewer.

    >>> neurlang.triu(neurlang.tensor([[1, 2], [3, 4]]), 1).tolist()
    [[0, 2], [0, 0]]
    """
    need_axes(F, "triu", input, 2)
    return F.where(lower_triangle(F, input.shape[-2], input.shape[-1], diagonal - 1), zero_of(F, input), input)


def one_hot(F: Any, tensor: Tensor, num_classes: int = -1) -> Tensor:
    """[…] to int64 […, num_classes] with a 1 at the class; -1 reads the largest class, so inside a trace it cuts.

    >>> neurlang.one_hot(neurlang.tensor([2, 0]), 3).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    count = F._integer("one_hot: num_classes", num_classes)
    classes = F.arange(int(F.amax(tensor).item()) + 1 if count < 0 else count)
    ignored = 0 if classes.shape[0] else -(1 << 63)  # counts as class 0, which it is where there is one
    return F.eq(F._class_index(tensor, classes.shape[0], tensor.ndim, ignored).unsqueeze(-1), classes).to(F.int64)


def _fresh(F: Any, made: Tensor, input: Tensor) -> Tensor:
    """What was made of the input; a copy where it is a view."""
    return F._copy(made) if F.shares_memory(made, input) else made


def repeat(F: Any, input: Tensor, sizes: Sequence[int]) -> Tensor:
    """input laid out `sizes` times along each axis; leading sizes add axes."""
    if len(sizes) < input.ndim:
        raise F.ShapeError(f"repeat: {list(sizes)} has fewer sizes than the shape {list(input.shape)}")
    shape = (*[1] * (len(sizes) - input.ndim), *input.shape)
    spread = input.reshape([n for extent in shape for n in (1, extent)])
    stretched = spread.expand([n for size, extent in zip(sizes, shape, strict=True) for n in (size, extent)])
    return _fresh(F, stretched.reshape([size * extent for size, extent in zip(sizes, shape, strict=True)]), input)


def repeat_interleave(F: Any, input: Tensor, repeats: Any, dim: int | None = None) -> Tensor:
    """Every element (slice along `dim`) `repeats` times in a row; without `dim`, of the flattened tensor.

    A tensor of integers says for each of them how often; that is read, so inside a trace it cuts.

    >>> neurlang.repeat_interleave(neurlang.tensor([1, 2]), 2).tolist()
    [1, 1, 2, 2]
    >>> neurlang.repeat_interleave(neurlang.tensor([1, 2]), neurlang.tensor([0, 3])).tolist()
    [2, 2, 2]
    """
    if dim is None:
        input, dim = input.reshape(-1), 0
    axis = F._axis("repeat_interleave", input, dim)
    if F.is_tensor(repeats):
        return F.index_select(input, axis, _repeated(F, repeats.expand(input.shape[axis])))
    if repeats < 0:
        raise F.ShapeError(f"repeat_interleave: repeats must not be negative, got {repeats}")
    head, n, tail = input.shape[:axis], input.shape[axis], input.shape[axis + 1 :]
    spread = input.unsqueeze(axis + 1).expand(*head, n, repeats, *tail)
    return _fresh(F, spread.reshape(*head, n * repeats, *tail), input)


def _repeated(F: Any, repeats: Tensor) -> Tensor:
    """The places 0, 1, …, each as often as is said."""
    if bool(F.any(F.lt(repeats, 0))):
        raise F.ShapeError(f"repeat_interleave: repeats must not be negative, got {repeats.tolist()}")
    return F.searchsorted(F.cumsum(repeats, 0), F.arange(int(F.sum(repeats).item())), right=True)


def tile(F: Any, input: Tensor, dims: Sequence[int]) -> Tensor:
    """input laid out `dims` times along its last axes.

    >>> neurlang.tile(neurlang.tensor([1, 2]), (2,))
    tensor([1, 2, 1, 2])
    """
    return repeat(F, input, (*[1] * (input.ndim - len(dims)), *dims))


def listed(value: Any) -> list[Any]:
    """One value, or several, as a list."""
    return list(value) if isinstance(value, (tuple, list)) else [value]


def roll(F: Any, input: Tensor, shifts: int | Sequence[int], dims: Axes = None) -> Tensor:
    """input moved by `shifts` along `dims`, what leaves at the end coming in at the front; without dims, flattened.

    >>> neurlang.roll(neurlang.tensor([1, 2, 3]), 1)
    tensor([3, 1, 2])
    """
    if dims is None:
        return roll(F, input.reshape(-1), shifts, 0).reshape(input.shape)
    moves, axes = listed(shifts), listed(dims)
    if len(moves) != len(axes):
        raise F.ShapeError(f"roll: {len(moves)} shifts for {len(axes)} axes")
    rolled = input
    for shift, dim in zip(moves, axes, strict=True):
        axis = F._axis("roll", input, dim)
        n = input.shape[axis] if input.ndim else 0
        cut = -F._integer("roll", shift) % n if n else 0
        if cut:
            rolled = F.cat([rolled.narrow(axis, cut, n - cut), rolled.narrow(axis, 0, cut)], axis)
    return _fresh(F, rolled, input)


def movedim(F: Any, input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes `source` moved to the places `destination`, the others in their order; a view.

    >>> neurlang.movedim(neurlang.zeros(2, 3, 4), 0, -1).shape
    (3, 4, 2)
    """
    froms, tos = ([F._axis("movedim", input, d) for d in listed(axes)] for axes in (source, destination))
    if len(froms) != len(tos) or len(set(froms)) != len(froms) or len(set(tos)) != len(tos):
        raise F.ShapeError(f"movedim: axes {source} cannot go to {destination}; both must name as many different axes")
    order = [d for d in range(input.ndim) if d not in froms]
    for to, axis in sorted(zip(tos, froms, strict=True)):
        order.insert(to, axis)
    return input.permute(order)


def hstack(F: Any, tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along their second axis (vectors along their only one).

    >>> neurlang.hstack([neurlang.zeros(2, 1), neurlang.zeros(2, 3)]).shape
    (2, 4)
    """
    parts = [t if t.ndim else t.reshape(1) for t in tensors]
    return F.cat(parts, min(1, parts[0].ndim - 1) if parts else 0)


def vstack(F: Any, tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along their first axis; vectors are rows.

    >>> neurlang.vstack([neurlang.zeros(3), neurlang.zeros(2, 3)]).shape
    (3, 3)
    """
    return F.cat([t if t.ndim > 1 else t.reshape(1, -1) for t in tensors], 0)


def masked_select(F: Any, input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask holds, in row-major order; how many depends on values, so inside a trace it cuts.

    >>> neurlang.masked_select(neurlang.tensor([1, 2, 3]), neurlang.tensor([True, False, True]))
    tensor([1, 3])
    """
    if mask.dtype != F.bool_:
        raise F.DTypeError(f"masked_select: the mask must hold bools, got {mask.dtype}")
    x, mask = F.broadcast_tensors(input, mask)
    return x.reshape(-1)[mask.reshape(-1)]


def pad(F: Any, input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`pad` holds (before, after) for the last axis, then the one before it, …; negative numbers crop.

    Modes: "constant", "reflect", "replicate", "circular" (which repeats what is not cropped); ValueError for others.
    ShapeError where `pad` does not fit the axes or their extents.

    >>> neurlang.pad(neurlang.tensor([[1, 2, 3]]), (1, 2)).tolist()
    [[0, 1, 2, 3, 0, 0]]
    >>> neurlang.pad(neurlang.tensor([[1, 2, 3]]), (1, 2), mode="reflect").tolist()
    [[2, 1, 2, 3, 2, 1]]
    """
    if not isinstance(pad, (list, tuple)) or not all(isinstance(n, int) for n in pad):
        raise F.DTypeError(f"pad: expected a list of integers, got {pad!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise F.ShapeError(f"pad: {list(pad)} must hold two numbers for each of at most {input.ndim} axes")
    sides = [(0, 0)] * (input.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    for axis, (n, (before, after)) in enumerate(zip(input.shape, sides, strict=True)):
        if min(before, after, before + after) < -n:
            raise F.ShapeError(f"pad: ({before}, {after}) crops more than axis {axis} of extent {n} has")
    if mode == "constant":
        return _pad_constant(F, input, sides, 0 if value is None else value)
    if mode not in _PLACES:
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    for axis, (before, after) in enumerate(sides):
        if before or after:
            n = input.shape[axis]
            place, most = _PLACES[mode]
            if max(before, after) > most(n):
                raise F.ShapeError(f"pad: ({before}, {after}) is too much along axis {axis} of extent {n} ({mode})")
            if mode == "circular" and min(before, after) < 0:  # what is cropped does not come round
                input, before, after = _cropped(F, input, axis, before, after)
                n = input.shape[axis]
            input = F.index_select(input, axis, place(F, F.arange(-before, n + after), n))
    return input


def _cropped(F: Any, x: Tensor, axis: int, before: int, after: int) -> tuple[Tensor, int, int]:
    """What negative numbers leave of an axis, and what is to be added to it."""
    n, first = x.shape[axis], max(-before, 0)
    left = n - first - max(-after, 0)
    if left <= 0 and max(before, after) > 0:
        raise F.ShapeError(f"pad: ({before}, {after}) leaves nothing to repeat of axis {axis} of extent {n}")
    return x.narrow(axis, first, left), max(before, 0), max(after, 0)


def _reflected(F: Any, i: Tensor, n: int) -> Tensor:
    return (n - 1) - F.abs((n - 1) - F.abs(i))


# mode -> where a place beyond the edge lies inside, and how far beyond an extent's edges it may be.
_PLACES: dict[str, tuple[Callable[[Any, Tensor, int], Tensor], Callable[[int], float]]] = {
    "reflect": (_reflected, lambda n: n - 1),
    "replicate": (lambda F, i, n: F.clamp(i, 0, n - 1), lambda n: math.inf if n else 0),
    "circular": (lambda F, i, n: F.remainder(i, n), lambda n: n),
}


def _pad_constant(F: Any, x: Tensor, sides: Sequence[tuple[int, int]], value: float) -> Tensor:
    shape = [n + before + after for n, (before, after) in zip(x.shape, sides, strict=True)]
    cropped = [(max(-before, 0), max(-after, 0)) for before, after in sides]
    inner = [(before, n - before - after) for n, (before, after) in zip(x.shape, cropped, strict=True)]

    def window(y: Tensor, at_input: bool) -> Tensor:
        """The part of the input that is kept, or its place in the output."""
        for axis, ((start, length), (before, _)) in enumerate(zip(inner, sides, strict=True)):
            y = y.narrow(axis, start if at_input else max(before, 0), length)
        return y

    out = F.full(tuple(shape), value, dtype=x.dtype)
    window(out, False).copy_(window(x.detach(), True))
    input_shape = x.shape

    def rule(F: Any, g: Tensor) -> tuple:
        region = window(g, False)
        if region.shape == input_shape:
            return (region,)
        return (_pad_constant(F, region, cropped, 0),)

    if F.is_grad_enabled() and x.requires_grad:
        F.python_node("pad", rule, (x,), (out,))  # one rule instead of the copies' own
    return out


def interpolate(
    F: Any,
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
) -> Tensor:
    """[N, C, …] resized to `size`, or by `scale_factor`; each output i takes the input floor(i n / size).

    ValueError for another mode than "nearest", and where not just one of the two is given.

    >>> neurlang.interpolate(neurlang.tensor([[[1, 2]]]), scale_factor=2).tolist()
    [[[1, 1, 2, 2]]]
    """
    if mode != "nearest":
        raise ValueError(f"interpolate: mode must be 'nearest', got {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give size or scale_factor, and not both")
    given: Any = size if size is not None else scale_factor
    per_axis = list(given) if isinstance(given, (list, tuple)) else [given] * (input.ndim - 2)
    if len(per_axis) != input.ndim - 2 or not all(0 < wanted < math.inf for wanted in per_axis):
        raise ValueError(f"interpolate: {per_axis} does not give a positive extent for each axis but two of "
                         f"an input of shape {list(input.shape)}")
    for axis, wanted in enumerate(per_axis, 2):
        n = input.shape[axis]
        if size is not None:
            input = _nearest(F, input, axis, wanted, n / wanted)
        else:
            input = _nearest(F, input, axis, math.floor(n * wanted), 1 / wanted)
    return input


def _nearest(F: Any, x: Tensor, axis: int, extent: int, scale: float) -> Tensor:
    """One axis resized: output i takes input floor(i * scale)."""
    n = x.shape[axis]
    if n and extent % n == 0 and scale == n / extent:
        return repeat_interleave(F, x, extent // n, axis)
    places = F.floor(F.arange(extent, dtype=F.float64) * scale).to(F.int64)
    return F.index_select(x, axis, F.clamp(places, max=n - 1))


def pixel_shuffle(F: Any, input: Tensor, upscale_factor: int) -> Tensor:
    """[…, C r², H, W] to […, C, H r, W r].

    ShapeError where the channels are no multiple of r². Shi et al. 2016.

    >>> neurlang.pixel_shuffle(neurlang.arange(4).reshape(4, 1, 1), 2).tolist()
    [[[0, 1], [2, 3]]]
    """
    need_axes(F, "pixel_shuffle", input, 3)
    *lead, channels, h, w = input.shape
    r = upscale_factor
    if r < 1 or channels % (r * r):
        raise F.ShapeError(f"pixel_shuffle: {channels} channels are no multiple of {r}²")
    n = len(lead)
    split = input.reshape(*lead, channels // (r * r), r, r, h, w)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return _fresh(F, split.permute(*order).reshape(*lead, channels // (r * r), h * r, w * r), input)
