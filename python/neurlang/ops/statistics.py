"""Sums in other words: means, variances and norms, as functions over `F` (see composite.py)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any
Axes = int | Sequence[int] | None


def need_axes(F: Any, op: str, x: Tensor, least: int) -> None:
    if x.ndim < least:
        raise F.ShapeError(f"{op}: at least {least} axes are needed, got shape {list(x.shape)}")


def count_over(x: Tensor, axes: Sequence[int]) -> int:
    """How many elements a reduction over some axes joins."""
    return math.prod(x.shape[d] for d in axes)


def along_axis(row: Tensor, like: Tensor, axis: int) -> Tensor:
    """A tensor of one axis, shaped to broadcast along an axis of another."""
    return row.reshape([-1 if d == axis else 1 for d in range(like.ndim)])


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that computes with 16-bit floats in float32; its result, the first of several, is rounded once."""

    def widened(x: Any) -> Any:
        kind = getattr(x, "dtype", None)
        return x.float() if kind is not None and kind.is_floating_point and kind.itemsize == 2 else x

    @functools.wraps(function)
    def computed(F: Any, *args: Any, **kwargs: Any) -> Any:
        first: Any = args[0] if args else next(iter(kwargs.values()), None)
        if widened(first) is first:
            return function(F, *args, **kwargs)
        made = function(F, *map(widened, args), **{name: widened(x) for name, x in kwargs.items()})
        return (made[0].to(first.dtype), *made[1:]) if isinstance(made, tuple) else made.to(first.dtype)

    return computed


def mean(F: Any, input: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over `dim` (None: all axes) divided by the number of elements; integers give the default float dtype.

    With `dtype`, a float, the input is converted first.

    >>> x = neurlang.tensor([[1, 2], [3, 6]])
    >>> neurlang.mean(x).item(), neurlang.mean(x, 0).tolist()
    (3.0, [2.0, 4.0])
    """
    return _mean(F, F._in_float("mean", input, dtype), F._axes("mean", input, dim), keepdim)


@in_float32
def _mean(F: Any, input: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    return F.div(F.sum(input, axes, keepdim), count_over(input, axes))


def var(
    F: Any,
    input: Tensor,
    dim: Axes = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Σ (x - mean)² / (n - correction) over `dim` (None: all axes); `unbiased` is a correction of 1.

    The mean is taken first, and what its rounding adds is taken away (Chan, Golub & LeVeque 1983).

    >>> x = neurlang.tensor([1.0, 5.0])
    >>> neurlang.var(x).item(), neurlang.var(x, unbiased=False).item()
    (8.0, 4.0)
    """
    return _var(F, input, "var", dim, unbiased, keepdim, correction)


@in_float32
def _var(F: Any, input: Tensor, op: str, dim: Axes, unbiased: bool, keepdim: bool, correction: float | None) -> Tensor:
    if isinstance(dim, bool):  # PyTorch's var(x, unbiased)
        unbiased, dim = dim, None
    axes = F._axes(op, input, dim)
    free = count_over(input, axes) - (int(unbiased) if correction is None else correction)
    return F.div(_square_deviations(F, input, axes, keepdim), max(free, 0))


_LONG = 1 << 16  # elements of a row that is shared out among threads where there are few
_JOINED = 1 << 12  # elements that axes are joined up to


def _square_deviations(F: Any, x: Tensor, named: Sequence[int], keepdim: bool) -> Tensor:
    """Σ (x - mean)² over the named axes without what the rounding of the mean adds."""
    n = count_over(x, named)
    rows, axes = _with_long_rows(x, named)
    *others, last = axes or [0]
    if x.ndim == 0 or not x.dtype.is_floating_point or (rows.shape[last] > _LONG and x.numel() < 8 * rows.shape[last]):
        centred = rows - _mean(F, rows, axes, True)
        result = _corrected(F, _sum_squares(F, centred, axes, True), F.sum(centred, axes, True), n)
    elif others:
        center = _mean(F, rows, axes, True).expand([1 if d == last else size for d, size in enumerate(rows.shape)])
        squares, rest = (F.sum(part, others, True) for part in F._deviations(rows, center, last))
        result = _corrected(F, squares, rest, n)
    else:
        result = F._sum_square_deviations(rows, last)
    kept = ((d, 1 if d in named else size) for d, size in enumerate(x.shape))
    return result.reshape([size for d, size in kept if keepdim or d not in named])


def _corrected(F: Any, squares: Tensor, rest: Tensor, n: int) -> Tensor:
    """Σ (x - mean)² where x - mean, which is rounded, adds up to `rest`."""
    return without_rounding(F, squares, rest * F.div(rest, n))


def without_rounding(F: Any, squares: Tensor, added: Tensor) -> Tensor:
    """Squares of distances from a mean, without what its rounding added to them; infinite where both overflow."""
    left = squares - added
    return F.where(F.ne(left, left), squares, F.maximum(left, 0.0))


def _with_long_rows(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, list[int]]:
    """x with adjacent ones of some axes as one, of up to _JOINED elements, and which axes these are then."""
    sizes: list[int] = []
    named: list[bool] = []
    for d in reversed(range(x.ndim)):
        if d in axes and named and named[-1] and sizes[-1] * x.shape[d] <= _JOINED:
            sizes[-1] *= x.shape[d]
        else:
            sizes.append(x.shape[d])
            named.append(d in axes)
    return x.reshape(sizes[::-1]), [d for d, is_named in enumerate(named[::-1]) if is_named]


def _sum_squares(F: Any, x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """Σ x² over some axes, the last one first; the squares are never written."""
    if not x.dtype.is_floating_point or x.ndim == 0:
        return F.sum(F.square(x), axes, keepdim)
    *rest, last = axes
    result = F._sum_squares(x, last)
    if rest:
        result = F.sum(result, rest, True)
    return result if keepdim else result.squeeze(axes)


@in_float32
def std(
    F: Any,
    input: Tensor,
    dim: Axes = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The square root of `var` over `dim` (None: all axes); its gradient at 0 is 0.

    >>> neurlang.std(neurlang.tensor([1.0, 2.0, 3.0])).item()
    1.0
    """
    return _power(F, _var(F, input, "std", dim, unbiased, keepdim, correction), 0.5)


@in_float32
def logsumexp(F: Any, input: Tensor, dim: Axes, keepdim: bool = False) -> Tensor:
    """log Σ exp x over `dim`, without overflow; -inf over no elements.

    >>> neurlang.logsumexp(neurlang.tensor([1000.0, 0.0]), 0).item()
    1000.0
    """
    axes = F._axes("logsumexp", input, dim)
    if input.ndim == 0:
        return logsumexp(F, input.reshape(1), 0)
    if not count_over(input, axes):  # no elements have no largest one
        result = F.log(F.sum(F.exp(input), axes, True))
        return result if keepdim else result.squeeze(axes)
    result = input if input.dtype.is_floating_point else input.to(F.get_default_dtype())
    for axis in reversed(axes):
        result = F._logsumexp(result, axis)
    return result if keepdim else result.squeeze(axes)


def norm(F: Any, input: Tensor, p: Any = 2, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The vector p-norm (Σ |x|^p)^(1/p) over `dim` (None: all axes); its gradient at 0 is 0.

    p may be "fro" or None (2), ±∞ (the largest, the smallest |x|) and 0 (how many are not zero). Powers are not scaled:
    the norm is infinite or 0 where their sum leaves the dtype's range. With `dtype`, a float, the input is converted
    first.

    >>> x = neurlang.tensor([3.0, -4.0])
    >>> neurlang.norm(x).item(), neurlang.norm(x, 1).item(), neurlang.norm(x, neurlang.inf).item()
    (5.0, 7.0, 4.0)
    """
    return _norm(F, F._in_float("norm", input, dtype), p, F._axes("norm", input, dim), keepdim)


@in_float32
def _norm(F: Any, input: Tensor, p: Any, axes: Sequence[int], keepdim: bool) -> Tensor:
    if p in (None, 2, "fro"):
        return _power(F, _sum_squares(F, input, axes, keepdim), 0.5)
    if isinstance(p, str):
        raise ValueError(f"norm: p must be a number or 'fro', got {p!r}")
    size = F.abs(input)
    if p == math.inf:
        return F.amax(size, axes, keepdim)
    if p == -math.inf:
        return F.amin(size, axes, keepdim)
    if p == 0:
        return F.sum(F.where(F.eq(input, 0), size, 1), axes, keepdim)
    if p == 1:
        return F.sum(size, axes, keepdim)
    powers = F.pow(size, p) if p > 1 else _power(F, size, p)
    return _power(F, F.sum(powers, axes, keepdim), 1 / p)


def _power(F: Any, x: Tensor, p: float) -> Tensor:
    """x^p whose gradient at 0 is 0 instead of infinite."""
    zero = F.eq(x, 0)
    return F.where(zero, 0.0 if p > 0 else math.inf, F.pow(F.where(zero, 1.0, x), p))


@in_float32
def normalize(F: Any, input: Tensor, p: float = 2.0, dim: Axes = 1, eps: float = 1e-12) -> Tensor:
    """input / max(‖input‖ₚ, eps), the p-norm taken along `dim`.

    >>> neurlang.normalize(neurlang.tensor([[2.0, 0.0], [0.0, -4.0]])).tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    """
    return input / F.maximum(_norm(F, input, p, F._axes("normalize", input, dim), True), eps)
