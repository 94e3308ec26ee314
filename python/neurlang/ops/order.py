"""What follows from order: running extrema, medians, distinct elements, as functions over `F` (see composite.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .statistics import Tensor, along_axis


def cummax(F: Any, input: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """(values, indices) of the largest element up to each one along `dim`; of equals the last, a NaN is the largest.

    >>> values, indices = neurlang.cummax(neurlang.tensor([1, 3, 2]), 0)
    >>> values.tolist(), indices.tolist()
    ([1, 3, 3], [0, 1, 1])
    """
    return _running(F, "cummax", F._cummax, input, dim)


def cummin(F: Any, input: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """(values, indices) of the smallest element up to each one along `dim`; of equals the last, a NaN is the smallest.

    >>> values, indices = neurlang.cummin(neurlang.tensor([3, 1, 2]), 0)
    >>> values.tolist(), indices.tolist()
    ([3, 1, 1], [0, 1, 1])
    """
    return _running(F, "cummin", F._cummin, input, dim)


def _running(F: Any, op: str, scan: Callable[[Tensor, int], Tensor], x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """An element is its own running extremum where it equals it; the last such place is a running maximum too."""
    axis = F._axis(op, x, dim)
    if x.ndim == 0:
        return F.Extremes(F.clone(x), F.zeros((), dtype=F.int64))
    numbers = x.detach() if x.dtype != F.bool_ else x.to(F.uint8)
    best = scan(numbers, axis)
    own = F.logical_or(F.eq(numbers, best), F.isnan(numbers))
    place = along_axis(F.arange(x.shape[axis]), x, axis)
    indices = F._cummax(F.where(own, place, 0), axis)
    return F.Extremes(F.gather(x, axis, indices), indices)


def kthvalue(F: Any, input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """(values, indices) of the k-th smallest element along `dim`, k counted from 1; NaN is the largest.

    >>> values, indices = neurlang.kthvalue(neurlang.tensor([5, 1, 3]), 2)
    >>> values.item(), indices.item()
    (3, 2)
    """
    return _kth(F, "kthvalue", input, k, dim, keepdim, False)


def _kth(F: Any, op: str, input: Tensor, k: int | None, dim: int, keepdim: bool, nan_wins: bool) -> Any:
    """Number k of all along `dim`, or the middle one."""
    axis = F._axis(op, input, dim)
    extent = input.shape[axis] if input.ndim else 1
    if extent == 0:
        raise F.ShapeError(f"{op}: axis {axis} of the input is empty")
    if k is None:
        k = (extent + 1) // 2
    if not 1 <= k <= extent:
        raise F.ShapeError(f"{op}: k = {k} must be from 1 to {extent}, the extent of axis {axis}")
    if input.ndim == 0:
        return F.topk(input, 1)
    parts = F._kth(input, axis, k - 1, nan_wins)
    return F.Extremes(*(parts if keepdim else (part.squeeze(axis) for part in parts)))


def median(F: Any, input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) along `dim`; a NaN makes it NaN.

    >>> neurlang.median(neurlang.tensor([4, 1, 3, 2])).item()
    2
    """
    if dim is None:
        return _kth(F, "median", input.reshape(-1), None, 0, False, True)[0]
    return _kth(F, "median", input, None, dim, keepdim, True)


def unique(
    F: Any, input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """The distinct elements, ascending; NaNs are all distinct. How many depends on values, so inside a trace it cuts.

    With `return_inverse` also which of them each element of the input is, with `return_counts` how often each occurs.

    >>> values, counts = neurlang.unique(neurlang.tensor([3, 1, 3]), return_counts=True)
    >>> values.tolist(), counts.tolist()
    ([1, 3], [1, 2])
    """
    flat = input.detach().reshape(-1)
    n = flat.shape[0]
    ordered, places = F.sort(flat) if return_inverse else (F.msort(flat), None)
    changes = F.ne(ordered.narrow(0, min(1, n), max(n - 1, 0)), ordered.narrow(0, 0, max(n - 1, 0)))
    first = F.cat([F.ones(min(n, 1), dtype=F.bool_), changes], 0)
    starts = F.nonzero(first).reshape(-1)
    results = [F.index_select(ordered, 0, starts)]
    if return_inverse:
        numbers = F.cumsum(first, 0) - 1
        inverse = F._scatter_add(F.zeros(n, dtype=F.int64), places, numbers, 0)
        results.append(inverse.reshape(input.shape))
    if return_counts:
        ends = F.cat([starts.narrow(0, min(1, len(starts)), max(len(starts) - 1, 0)), F.full((min(n, 1),), n)], 0)
        results.append(ends - starts)
    return results[0] if len(results) == 1 else tuple(results)
