"""What follows from order: medians, distinct elements, as functions over `F` (see composite.py)."""

from __future__ import annotations

from typing import Any

from .statistics import Tensor


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

    `keepdim` keeps the axes that are joined with extent 1.

    >>> neurlang.median(neurlang.tensor([4, 1, 3, 2])).item()
    2
    """
    if dim is None:
        middle = _kth(F, "median", input.reshape(-1), None, 0, False, True)[0]
        return middle.reshape([1] * input.ndim) if keepdim else middle
    return _kth(F, "median", input, None, dim, keepdim, True)


def unique(
    F: Any,
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements, ascending; NaNs are all distinct. How many depends on values, so inside a trace it cuts.

    With `dim` the distinct slices along it, in the order of their first elements that differ. With `return_inverse`
    also which of them each element (or slice) of the input is, with `return_counts` how often each occurs.

    >>> values, counts = neurlang.unique(neurlang.tensor([3, 1, 3]), return_counts=True)
    >>> values.tolist(), counts.tolist()
    ([1, 3], [1, 2])
    >>> neurlang.unique(neurlang.tensor([[2, 0], [1, 9], [2, 0]]), dim=0).tolist()
    [[1, 9], [2, 0]]
    """
    _need_bools(F, "unique", sorted=sorted, return_inverse=return_inverse, return_counts=return_counts)
    x, shape = _listed(F, "unique", input, dim)
    if dim is None:
        ordered, places = F.sort(x) if return_inverse else (F.msort(x), None)
    else:
        places = F.argsort(_ranks_of_slices(F, x), 0)
        ordered = F.index_select(x, 0, places)
    return _runs(F, ordered, places, shape, return_inverse, return_counts, dim)


def unique_consecutive(
    F: Any, input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements (with `dim` the slices along it) without those that equal the one before; otherwise like `unique`.

    >>> values, counts = neurlang.unique_consecutive(neurlang.tensor([3, 3, 1, 3]), return_counts=True)
    >>> values.tolist(), counts.tolist()
    ([3, 1, 3], [2, 1, 1])
    """
    _need_bools(F, "unique_consecutive", return_inverse=return_inverse, return_counts=return_counts)
    x, shape = _listed(F, "unique_consecutive", input, dim)
    return _runs(F, x, None, shape, return_inverse, return_counts, dim)


def _need_bools(F: Any, op: str, **flags: Any) -> None:
    """What stands before `dim` must not swallow an axis."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise F.DTypeError(f"{op}: {name} must be a bool, got {value!r}; an axis is given as dim=")


def _listed(F: Any, op: str, input: Tensor, dim: int | None) -> tuple[Tensor, tuple[int, ...]]:
    """What is looked for duplicates, along the first axis, and the shape in which it is numbered."""
    x = input.detach()
    if dim is None:
        return x.reshape(-1), x.shape
    x = x.movedim(F._axis(op, x, dim), 0) if x.ndim else x.reshape(1)
    if x.shape[0] and 0 in x.shape:
        raise F.ShapeError(f"{op}: slices along axis {dim} of the input {tuple(input.shape)} have no elements")
    return x, x.shape[:1]


def _runs(
    F: Any,
    ordered: Tensor,
    places: Tensor | None,
    shape: tuple[int, ...],
    return_inverse: bool,
    return_counts: bool,
    dim: int | None,
) -> Any:
    """One of each run of equals along the first axis; `places` are where they were before they came into order."""
    n = ordered.shape[0]
    changes = F.ne(ordered[1:], ordered[:-1])
    if ordered.ndim > 1:
        changes = F.any(changes.flatten(1), 1)
    first = F.cat([F.ones(min(n, 1), dtype=F.bool_), changes], 0)
    starts = F.nonzero(first).reshape(-1)
    found = F.index_select(ordered, 0, starts)
    results = [found if dim is None or ordered.ndim == 1 else found.movedim(0, dim)]
    if return_inverse:
        numbers = F.cumsum(first, 0) - 1
        if places is not None:
            numbers = F._scatter_add(F.zeros(n, dtype=F.int64), places, numbers, 0)
        results.append(numbers.reshape(shape))
    if return_counts:
        ends = F.cat([starts[1:], F.full((min(n, 1),), n)], 0)
        results.append(ends - starts)
    return results[0] if len(results) == 1 else tuple(results)


def _ranks_of_slices(F: Any, x: Tensor) -> Tensor:
    """Numbers that order x's slices along the first axis as their first elements that differ do."""
    ranks = _ranks(F, (x.flatten(1) if x.ndim > 1 else x[:, None]).T)
    while len(ranks) > 1:  # two positions become one, which the second decides where the first is equal
        even = len(ranks) // 2 * 2
        ranks = _ranks(F, F.cat([ranks[:even:2] * x.shape[0] + ranks[1:even:2], ranks[even:]], 0))
    return ranks.reshape(-1)


def _ranks(F: Any, rows: Tensor) -> Tensor:
    """For every element how many distinct ones of its row are below it."""
    ordered, places = F.sort(rows, 1)
    numbers = F.cumsum(F.ne(ordered[:, 1:], ordered[:, :-1]), 1)
    numbers = F.cat([F.zeros(len(rows), 1, dtype=F.int64), numbers], 1)
    return F._scatter_add(F.zeros(*rows.shape, dtype=F.int64), places, numbers, 1)
