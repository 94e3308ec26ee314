"""What follows from order: running extrema, as functions over `F` (see composite.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tensor = Any


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
    place = F.arange(x.shape[axis]).reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    indices = F._cummax(F.where(own, place, 0), axis)
    return F.Extremes(F.gather(x, axis, indices), indices)
