"""The shape rules for Python integers and symbolic sizes; csrc/base/shapes.hpp has the same for integers in C++.

A size is an int or an expression with `+ - * //` and `==` (a symbol is never 0, 1 or negative). A test holds both files
against each other, results and error texts, so they read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import ShapeError

Dim = Any
Shape = tuple[Dim, ...]

MAX_RANK = 8
MAX_ELEMENTS = (1 << 60) - 1  # so that the bytes of the widest dtype fit 64 bits
MAX_PADDED = 1 << 55  # of an image's planes with their padding
SPATIAL = ("height", "width")


# ---- common parts ----


def _fail(op: str, what: str) -> NoReturn:
    raise ShapeError(f"{op}: {what}")


def _text(shape: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _listed(shapes: Sequence[Sequence[Dim]]) -> str:
    """ "[2], [3] and [4]" """
    texts = [_text(s) for s in shapes]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _negative(n: Dim) -> bool:
    return isinstance(n, int) and n < 0


def _overflows(n: Dim) -> bool:
    """Whether a 64-bit integer cannot hold n."""
    return isinstance(n, int) and not -(1 << 63) <= n < 1 << 63


def _product(sizes: Sequence[Dim]) -> Dim | None:
    """The product of the sizes, or None as soon as a factor makes it overflow."""
    n: Dim = 1
    for size in sizes:
        n = n * size
        if _overflows(n):
            return None
    return n


def _elements(x: Sequence[Dim]) -> Dim:
    n: Dim = 1
    for size in x:
        n = n * size
    return n


def _check_size(op: str, x: Sequence[Dim]) -> Shape:
    """Zeros count as ones: strides are products of the sizes behind an axis, so those must fit too."""
    n = _product([1 if size == 0 else size for size in x])
    if n is None or (isinstance(n, int) and n > MAX_ELEMENTS):
        _fail(op, f"shape {_text(x)} has too many elements")
    return tuple(x)


def _check_rank(op: str, rank: int) -> None:
    if rank > MAX_RANK:
        _fail(op, f"{rank} axes are more than the {MAX_RANK} supported; reshape to fewer")


def _check_axes(op: str, name: str, x: Shape, rank: int) -> None:
    if len(x) != rank:
        _fail(op, f"{name} {_text(x)} has {len(x)} axes, expected {rank}")


def normalize_axis(op: str, axis: int, rank: int) -> int:
    """`axis` counted from the front; a 0-d tensor has the axes 0 and -1, as in PyTorch."""
    n = max(rank, 1)
    if not -n <= axis < n:
        _fail(op, f"axis {axis} is out of range for {rank} axes; use {-n} to {n - 1}")
    return axis % n


# ---- sources and elementwise rows ----


def checked(op: str, wanted: Sequence[Dim]) -> Shape:
    _check_rank(op, len(wanted))
    for i, size in enumerate(wanted):
        if _negative(size):
            _fail(op, f"size {size} of axis {i} in {_text(wanted)} is negative")
    return _check_size(op, wanted)


def broadcast(op: str, shapes: Sequence[Shape]) -> Shape:
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        lead = rank - len(shape)
        for i, size in enumerate(shape, lead):
            if size == 1 or size == result[i]:
                continue
            if result[i] != 1:
                _fail(op, f"shapes {_listed(shapes)} do not broadcast: axis {i - rank} has sizes {result[i]} and "
                          f"{size}; they must be equal or 1")
            result[i] = size
    return _check_size(op, result)


# ---- views ----


def reshape(op: str, x: Shape, wanted: Sequence[Dim]) -> Shape:
    """One size may be -1."""
    _check_rank(op, len(wanted))
    unknown = [i for i, size in enumerate(wanted) if size == -1]
    for i, size in enumerate(wanted):
        if (_negative(size) and size != -1) or i in unknown[1:]:
            reason = " is a second -1; only one can be inferred" if size == -1 else " is negative"
            _fail(op, f"shape {_text(wanted)} for {_text(x)}: axis {i}{reason}")
    known, total = _product([size for size in wanted if size != -1]), _elements(x)
    result = list(wanted)
    if unknown and known is not None and known != 0 and total % known == 0:
        result[unknown[0]] = total // known
    elif unknown or known != total:
        _fail(op, f"shape {_text(wanted)} does not fit {_text(x)}, which has {total} elements")
    return _check_size(op, result)


def reshape_strides(x: Shape, strides: Sequence[Dim], wanted: Shape) -> tuple[Dim, ...] | None:
    """The strides that give x the shape `wanted` without moving an element; None when there are none.

    Axes of x that lie evenly in memory are joined into groups; each group is then cut into the wanted sizes.
    """
    if _elements(x) == 0:
        return tuple(_elements([max(n, 1) for n in wanted[i + 1 :]]) for i in range(len(wanted)))
    result: list[Dim] = [1] * len(wanted)  # what no group reaches has extent 1
    to, step = len(wanted) - 1, 1
    have: Dim = 1  # elements of the current group
    for at in reversed(range(len(x))):
        if have == 1:
            step = strides[at]
        have = have * x[at]
        outer = next((i for i in reversed(range(at)) if x[i] != 1), None)
        if outer is not None and (have == 1 or strides[outer] == have * step):
            continue
        cut: Dim = 1  # elements of the group that are cut already
        while to >= 0 and (cut != have or wanted[to] == 1):
            result[to] = cut * step
            cut = cut * wanted[to]
            to -= 1
            if isinstance(cut, int) and isinstance(have, int) and cut > have:
                return None
        if cut != have:
            return None
        have = 1
    return tuple(result)


def expand(op: str, x: Shape, wanted: Sequence[Dim]) -> Shape:
    """-1 keeps a size."""
    _check_rank(op, len(wanted))
    where = f" in the expansion of {_text(x)} to {_text(wanted)}"
    lead = len(wanted) - len(x)
    if lead < 0:
        _fail(op, f"fewer axes{where}; give every axis a size or -1")
    result = []
    for i, size in enumerate(wanted):
        old = x[i - lead] if i >= lead else None
        result.append(old if size == -1 and old is not None else size)
        if _negative(result[i]):
            _fail(op, f"size {size} of new axis {i} is negative{where}")
        if old is not None and old != 1 and old != result[i]:
            _fail(op, f"axis {i} of size {old} cannot become {result[i]}{where}; only axes of size 1 can")
    return _check_size(op, result)


def permute(op: str, x: Shape, axes: Sequence[int]) -> Shape:
    if len(axes) != len(x):
        _fail(op, f"{_text(axes)} names {len(axes)} axes, but {_text(x)} has {len(x)}")
    order: list[int] = []
    for a in axes:
        axis = normalize_axis(op, a, len(x))
        if axis in order:
            _fail(op, f"axis {axis} is named twice in {_text(axes)}")
        order.append(axis)
    return tuple(x[axis] for axis in order)


def slice_span(op: str, extent: Dim, start: int, stop: int, step: int) -> tuple[int, int]:
    """(first element, count) of a slice by Python's rules."""
    if step == 0:
        _fail(op, "the step of a slice cannot be 0")
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    start, stop = (min(max(i + extent if i < 0 else i, low), high) for i in (start, stop))
    distance = stop - start if step > 0 else start - stop
    return start, (distance - 1) // abs(step) + 1 if distance > 0 else 0


def slice(op: str, x: Shape, axis: int, start: int, stop: int, step: int) -> Shape:
    return _with(x, axis, slice_span(op, x[axis], start, stop, step)[1])


def _with(x: Shape, axis: int, size: Dim) -> Shape:
    """x with one size replaced (a 0-d shape has none)."""
    return (*x[:axis], size, *x[axis + 1 :]) if x else x


# ---- rows with a rule of their own ----


def reduce(op: str, x: Shape, axis: int) -> Shape:
    """The axis stays, with extent 1."""
    return _with(x, axis, 1)


def matmul(op: str, a: Shape, b: Shape) -> Shape:
    operands = f"{_text(a)} @ {_text(b)}"
    if not a or not b:
        _fail(op, f"{operands}: operands need at least one axis; use * for a scalar")
    b_axis = max(len(b) - 2, 0)
    if a[-1] != b[b_axis]:
        _fail(op, f"{operands}: axis {len(a) - 1} of the first ({a[-1]}) and axis {b_axis} of the second ({b[b_axis]}) "
                  "must be equal; transpose an operand or check their order")
    batch = broadcast(op, [a[:-2], b[:-2]])
    return _check_size(op, (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())))


def cat(op: str, shapes: Sequence[Shape], axis: int) -> Shape:
    if not shapes:
        _fail(op, "no tensors given")
    first = shapes[0]
    joined = first[axis]
    overflow = False
    for x in shapes[1:]:
        if len(x) != len(first) or any(p != q for i, (p, q) in enumerate(zip(x, first, strict=True)) if i != axis):
            _fail(op, f"shape {_text(x)} does not join {_text(first)} along axis {axis}; "
                      f"all axes but {axis} must agree")
        joined = joined + x[axis]
        overflow |= _overflows(joined)
    if overflow:
        _fail(op, f"axis {axis} becomes too long")
    return _check_size(op, _with(first, axis, joined))


def pad(op: str, x: Shape, before_after: Sequence[int]) -> Shape:
    """Two numbers for every axis."""
    if len(before_after) != 2 * len(x):
        _fail(op, f"padding {_text(before_after)} needs two numbers for every axis of {_text(x)}")
    result = []
    for i, size in enumerate(x):
        part = size + before_after[2 * i]
        extent = part + before_after[2 * i + 1]
        if _overflows(part) or _overflows(extent) or _negative(extent):
            _fail(op, f"padding {_text(before_after)} leaves nothing of axis {i} of {_text(x)}")
        result.append(extent)
    return _check_size(op, result)


# ---- windows ----


def _places(
    op: str, axis: int, extent: Dim, kernel: int, stride: int, padding: int, dilation: int, ceil: bool, shapes: str
) -> Dim:
    """How many places the window has along an extent."""
    along = f" along the {SPATIAL[axis]} of {shapes}"
    for name, value in (("stride", stride), ("dilation", dilation), ("kernel size", kernel)):
        if value <= 0:
            _fail(op, f"{name} {value}{along} must be positive")
    if padding < 0:
        _fail(op, f"padding {padding}{along} must not be negative")
    reach, padded = dilation * (kernel - 1) + 1, 2 * padding + extent
    room = padded - reach
    # With `ceil` a last, partial window counts if it starts inside the input or the padding before it, as in PyTorch.
    hangs = ceil and isinstance(room, int) and -stride < room < 0 and extent + padding > 0
    if hangs and padded <= MAX_ELEMENTS and not _overflows(reach):
        return 1
    if (isinstance(padded, int) and padded > MAX_ELEMENTS) or _overflows(reach) or _negative(room):
        _fail(op, f"the window of {'too many' if _overflows(reach) else reach} elements does not fit into "
                  f"{'too many' if _overflows(padded) else padded}{along}")
    places = room // stride + 1
    return places + 1 if ceil and room % stride != 0 and places * stride < extent + padding else places


def _check_padded(op: str, channels: Dim, x: Shape, padding: Sequence[int], shapes: str) -> None:
    """Kernels copy planes with the padding around them and go a few places beyond: their counts must not overflow."""
    sizes = [channels, *(2 * pad + extent for extent, pad in zip(x[2:], padding, strict=True))]
    n = _product([1 if size == 0 else size for size in sizes])
    if n is None or (isinstance(n, int) and n > MAX_PADDED):
        _fail(op, f"the planes of {shapes} have too many elements with their padding")


def _check_groups(op: str, channels: Dim, w: Shape, groups: int, shapes: str) -> None:
    if groups <= 0:
        _fail(op, f"groups={groups} must be positive")
    if w[0] % groups != 0 or channels % groups != 0:
        _fail(op, f"groups={groups} must divide the {channels} input and the {w[0]} output channels "
                  f"(axes 1 and 0 of {shapes})")
    if channels // groups != w[1]:
        _fail(op, f"{shapes}: axis 1 of the weight must be input channels / groups = {channels // groups}, "
                  f"but it is {w[1]}")


def _conv_result(op: str, x: Shape, w: Shape, attr: Sequence[int], shapes: str) -> Shape:
    """The result of conv2d for an image of [batch, channels, height, width] and a weight of shape w."""
    _check_groups(op, x[1], w, attr[6], shapes)
    size = [_places(op, i, x[2 + i], w[2 + i], attr[i], attr[2 + i], attr[4 + i], False, shapes) for i in range(2)]
    for channels in (x[1], w[0]):
        _check_padded(op, channels, x, attr[2:4], shapes)
    return _check_size(op, (x[0], w[0], *size))


def _check_gradient(op: str, g: Shape, expected: Shape, shapes: str) -> None:
    for i in range(4):
        if g[i] != expected[i]:
            _fail(op, f"{shapes}: axis {i} of {_text(g)} must be {expected[i]}, the size that the convolution gives")


def has_winograd_tiles(height: int, width: int, kernel: Sequence[int], attr: Sequence[int]) -> bool:
    """Whether a convolution has and may have Winograd's transforms, and fills their tiles: csrc/base/numerics.hpp."""
    if not 1 <= attr[0] <= 2 or attr[7] < 2:
        return False
    if any(kernel[i] != 3 or attr[i] != attr[0] or attr[2 + i] > 2 or attr[4 + i] != 1 for i in range(2)):
        return False
    tiles, products = ((height + 1) // 2) * ((width + 1) // 2), 16 if attr[0] == 1 else 25
    return tiles >= 16 and 9 * height * width * 4 >= products * tiles * 5


def has_large_winograd_tiles(channels: int, outputs: int, height: int, width: int, attr: Sequence[int]) -> bool:
    """Whether it is to have tiles of 4x4 results, and fills them: csrc/base/numerics.hpp."""
    parts = 4 if channels >= 128 and outputs >= 128 else 3
    tiles, small = ((height + 3) // 4) * ((width + 3) // 4), ((height + 1) // 2) * ((width + 1) // 2)
    return attr[7] >= 4 and attr[0] == 1 and tiles >= 9 and 36 * tiles * parts <= 16 * small * (parts - 1)


def winograd_tile(
    dtype: str, channels: int, outputs: int, height: int, width: int, kernel: Sequence[int], attr: Sequence[int]
) -> int:
    """The results a way of a convolution's Winograd tiles, 1 where it has none: csrc/base/numerics.hpp."""
    fewest = 32 if attr[0] == 1 else 64
    fits = dtype == "float32" and channels >= fewest and outputs >= 32
    if not fits or not has_winograd_tiles(height, width, kernel, attr):
        return 1
    return 4 if has_large_winograd_tiles(channels, outputs, height, width, attr) else 2


def winograd_tile_input(
    dtype: str, outputs: int, channels: int, height: int, width: int, kernel: Sequence[int], attr: Sequence[int]
) -> int:
    """Those of an input gradient of height x width: csrc/base/numerics.hpp."""
    if attr[0] == 1:
        return winograd_tile(dtype, outputs, channels, height, width, kernel, attr)
    fits = dtype == "float32" and channels >= 32 and outputs >= 32 and attr[2] == attr[3] == 1
    return 2 if fits and has_winograd_tiles((height + 1) // 2, (width + 1) // 2, kernel, attr) else 1


def winograd_tile_weight(
    dtype: str, channels: int, outputs: int, height: int, width: int, kernel: Sequence[int], attr: Sequence[int]
) -> int:
    """Those of a weight gradient's maps, of height x width: csrc/base/numerics.hpp."""
    fewest = 16 if attr[0] == 1 else 32
    fits = dtype == "float32" and channels >= fewest and outputs >= fewest
    return 2 if fits and has_winograd_tiles(height, width, kernel, attr) else 1


def conv2d(op: str, x: Shape, w: Shape, attr: Sequence[int]) -> Shape:
    _check_axes(op, "input", x, 4)
    _check_axes(op, "weight", w, 4)
    return _conv_result(op, x, w, attr, f"input {_text(x)} and weight {_text(w)}")


def conv2d_input(op: str, g: Shape, w: Shape, attr: Sequence[int]) -> Shape:
    _check_axes(op, "gradient", g, 4)
    _check_axes(op, "weight", w, 4)
    shapes = f"gradient {_text(g)} and weight {_text(w)}"
    channels = w[1] * attr[6]
    if _overflows(channels):
        _fail(op, f"groups={attr[6]} are too many for {shapes}")
    result = checked(op, (g[0], channels, *attr[8:10]))
    _check_gradient(op, g, _conv_result(op, result, w, attr, shapes), shapes)
    return result


def conv2d_weight(op: str, x: Shape, g: Shape, attr: Sequence[int]) -> Shape:
    _check_axes(op, "input", x, 4)
    _check_axes(op, "gradient", g, 4)
    shapes = f"input {_text(x)} and gradient {_text(g)}"
    if attr[6] <= 0:
        _fail(op, f"groups={attr[6]} must be positive")
    result = checked(op, (g[1], x[1] // attr[6], *attr[8:10]))
    _check_gradient(op, g, _conv_result(op, x, result, attr, shapes), shapes)
    return result


def pool2d(op: str, x: Shape, attr: Sequence[int]) -> Shape:
    _check_axes(op, "input", x, 4)
    size = []
    for i in range(2):
        kernel, stride, padding, dilation = attr[i], attr[2 + i], attr[4 + i], attr[6 + i]
        size.append(_places(op, i, x[2 + i], kernel, stride, padding, dilation, attr[8] != 0, f"input {_text(x)}"))
        if padding > kernel // 2:  # a window could otherwise lie in the padding alone
            _fail(op, f"padding {padding} along the {SPATIAL[i]} may be at most half the kernel size {kernel}")
    _check_padded(op, x[1], x, attr[4:6], f"input {_text(x)}")
    return _check_size(op, (*x[:2], *size))


def adaptive_pool2d(op: str, x: Shape, attr: Sequence[int]) -> Shape:
    _check_axes(op, "input", x, 4)
    for i in range(2):
        if x[2 + i] == 0 and attr[i] != 0:
            _fail(op, f"the {SPATIAL[i]} of input {_text(x)} is 0: there is nothing to pool")
    return checked(op, (*x[:2], *attr))


# ---- indices ----


def _check_index(op: str, index: Shape, other: Shape, name: str, shapes: str, skipped: int | None) -> None:
    if max(len(other), 1) != max(len(index), 1):
        _fail(op, f"{shapes} must have the same number of axes")
    for i, (n, bound) in enumerate(zip(index, other, strict=False)):
        if i != skipped and isinstance(n, int) and isinstance(bound, int) and n > bound:
            _fail(op, f"{shapes}: axis {i} of the index ({n}) may not be longer than the {name}'s ({bound})")


def gather(op: str, x: Shape, index: Shape, axis: int) -> Shape:
    _check_index(op, index, x, "input", f"input {_text(x)} and index {_text(index)}", axis)
    return index


def scatter(op: str, x: Shape, index: Shape, src: Shape, axis: int) -> Shape:
    gather(op, x, index, axis)
    _check_index(op, index, src, "source", f"index {_text(index)} and source {_text(src)}", None)
    return x


def index_select(op: str, x: Shape, index: Shape, axis: int) -> Shape:
    if len(index) != 1:
        _fail(op, f"the index must have one axis, got shape {_text(index)}")
    if not x and index[0] != 1:
        _fail(op, f"a 0-d input takes an index of one element, got {_text(index)}")
    return _check_size(op, _with(x, axis, index[0]))


def index_add(op: str, x: Shape, index: Shape, src: Shape, axis: int) -> Shape:
    expected = index_select(op, x, index, axis)
    if src != expected:
        _fail(op, f"source {_text(src)} must be {_text(expected)} for input {_text(x)} and {index[0]} indices "
                  f"along axis {axis}")
    return x
