"""Products over any axes, each one batch of matrix products, as functions over `F` (see composite.py)."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from .places import listed

Tensor = Any
Labels = list[str]  # one for each axis; equal ones run together


def tensordot(F: Any, a: Tensor, b: Tensor, dims: int | Sequence[int | Sequence[int]] = 2) -> Tensor:
    """The sum of products over pairs of axes; the other axes of a come first, then those of b.

    `dims` is how many of the last axes of a meet the first ones of b, or two lists, of axes of a and of b. Each element
    is a *dot* in the order of the axes as listed. ShapeError for axes that do not exist or differ in size.

    >>> neurlang.tensordot(neurlang.ones(2, 3, 4), neurlang.ones(3, 4, 5)).shape
    (2, 5)
    >>> neurlang.tensordot(neurlang.ones(2, 3, 4), neurlang.ones(5, 3), ([1], [1])).shape
    (2, 4, 5)
    """
    given = f"tensordot: {list(a.shape)} and {list(b.shape)} over {dims}"
    if not isinstance(dims, Sequence):
        n = F._integer("tensordot", dims)
        if not 0 <= n <= min(a.ndim, b.ndim):
            raise F.ShapeError(f"{given}: there are not that many axes")
        dims = [list(range(a.ndim - n, a.ndim)), list(range(n))]
    if len(dims) != 2:
        raise F.ShapeError(f"{given}: a number or two lists of axes are needed")
    froms, tos = ([F._axis("tensordot", x, d) for d in listed(axes)] for x, axes in zip((a, b), dims, strict=True))
    if len(froms) != len(tos) or len(set(froms)) != len(froms) or len(set(tos)) != len(tos):
        raise F.ShapeError(f"{given}: both lists must name as many different axes")
    left, right = [f"a{d}" for d in range(a.ndim)], [f"b{d}" for d in range(b.ndim)]
    for i, j in zip(froms, tos, strict=True):
        if a.shape[i] != b.shape[j]:
            sizes = f"({a.shape[i]}) and axis {j} of the second ({b.shape[j]})"
            raise F.ShapeError(f"{given}: axis {i} of the first {sizes} differ in size")
        right[j] = left[i]
    kept = [label for label in left + right if (label in left) != (label in right)]
    return _product(F, a, left, b, right, kept, [left[i] for i in froms])[0]


def einsum(F: Any, equation: str, *operands: Tensor) -> Tensor:
    """The sum of products that `equation` says, as in "bik,bkj->bij" (Einstein's convention).

    A letter names an axis of every operand that has it, "..." the axes between that broadcast; letters behind the arrow
    are the axes of the result, all others are summed. Without an arrow the result has "..." and, in alphabetical order,
    what occurs once. A letter twice in one operand takes its diagonal; axes of size 1 broadcast. Operands are
    multiplied from left to right, and integers keep their dtype. ValueError for what is no equation, ShapeError for
    sizes that do not fit.

    >>> x = neurlang.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> neurlang.einsum("ii", x).item(), neurlang.einsum("ij,j->i", x, neurlang.ones(2)).tolist()
    (5.0, [3.0, 7.0])
    """
    if not isinstance(equation, str):
        raise TypeError(f"einsum: the equation must be a string, got {type(equation).__name__}")
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    inputs, output = _parse(F, equation, operands)
    sizes = _sizes(F, equation, inputs, operands)
    result, labels = _indexed_once(operands[0], inputs[0], sizes)
    result, labels = _summed(F, result, labels, {*output, *itertools.chain(*inputs[1:])})
    for i in range(1, len(operands)):
        x, named = _indexed_once(operands[i], inputs[i], sizes)
        wanted = {*output, *itertools.chain(*inputs[i + 1 :])}
        kept = [label for label in dict.fromkeys(labels + named) if label in wanted]
        result, labels = _product(F, result, labels, x, named, kept)
    return result.permute([labels.index(label) for label in output])


# ---- the text of an equation ----


def _parse(F: Any, equation: str, operands: Sequence[Tensor]) -> tuple[list[Labels], Labels]:
    """The labels of the axes of every operand and of the result; axes of "..." are numbered from the last one, 0."""
    text = equation.replace(" ", "")
    matched = re.fullmatch(r"((?:[A-Za-z]|\.\.\.|,)*)(?:->((?:[A-Za-z]|\.\.\.)*))?", text)
    if matched is None:
        raise ValueError(f'einsum: "{equation}" is no list of letters and "...", commas between and one "->" at most')
    terms, result = matched[1].split(","), matched[2]
    if len(terms) != len(operands):
        raise ValueError(f'einsum: "{equation}" names {len(terms)} operands, {len(operands)} are given')
    inputs = [_labels(F, equation, term, x) for term, x in zip(terms, operands, strict=True)]
    between = sorted({label for labels in inputs for label in labels if label.isdigit()}, key=int, reverse=True)
    if result is None:
        times = Counter(label for labels in inputs for label in labels)
        return inputs, between + sorted(label for label, n in times.items() if n == 1 and not label.isdigit())
    _need_one_ellipsis(equation, result)
    output = [label for part in _parts(result) for label in (between if part == "..." else [part])]
    for label in output:
        if output.count(label) > 1 or not any(label in labels for labels in inputs):
            raise ValueError(f'einsum: "{label}" of the result of "{equation}" must be there once, and in an operand')
    return inputs, output


def _parts(term: str) -> list[str]:
    return re.findall(r"[A-Za-z]|\.\.\.", term)


def _need_one_ellipsis(equation: str, term: str) -> None:
    if term.count("...") > 1:
        raise ValueError(f'einsum: "{term}" of "{equation}" has several "..."')


def _labels(F: Any, equation: str, term: str, x: Tensor) -> Labels:
    """A label for every axis of x."""
    _need_one_ellipsis(equation, term)
    parts = _parts(term)
    between = x.ndim - (len(parts) - ("..." in parts))
    if between < 0 or (between > 0 and "..." not in parts):
        raise F.ShapeError(f'einsum: "{term}" of "{equation}" does not fit the axes of shape {list(x.shape)}')
    numbers = [str(i) for i in reversed(range(between))]
    return [label for part in parts for label in (numbers if part == "..." else [part])]


def _sizes(F: Any, equation: str, inputs: Iterable[Labels], operands: Iterable[Tensor]) -> dict[str, int]:
    """How long every label runs: as all its axes that are not of size 1; in one operand they are equal."""
    sizes: dict[str, int] = {}
    for labels, x in zip(inputs, operands, strict=True):
        for label, size in zip(labels, x.shape, strict=True):
            first, known = x.shape[labels.index(label)], sizes.setdefault(label, size)
            if known == 1:
                sizes[label] = size
            if size != first or (known != 1 and size not in (1, known)):
                known = known if size == first else first
                name = f'"{label}"' if label.isalpha() else 'an axis of "..."'
                raise F.ShapeError(
                    f'einsum: {name} of "{equation}" is {known} long, but {size} in shape {list(x.shape)}'
                )
    return sizes


# ---- contracting ----


def _indexed_once(x: Tensor, labels: Labels, sizes: dict[str, int]) -> tuple[Tensor, Labels]:
    """Every label once: diagonals of repeated ones, without axes that broadcast, for nothing depends on them."""
    axes = [axis for axis, label in enumerate(labels) if x.shape[axis] == sizes[label]]
    x, labels = x.reshape([x.shape[axis] for axis in axes]), [labels[axis] for axis in axes]
    for label in [label for label, times in Counter(labels).items() for _ in range(times - 1)]:
        first = labels.index(label)
        second = labels.index(label, first + 1)
        x = x.diagonal(0, first, second)  # the last axis
        labels = [other for axis, other in enumerate(labels) if axis not in (first, second)] + [label]
    return x, labels


def _summed(F: Any, x: Tensor, labels: Labels, wanted: Collection[str]) -> tuple[Tensor, Labels]:
    """Summed over the axes whose labels are not wanted."""
    axes = [axis for axis, label in enumerate(labels) if label not in wanted]
    return (F.sum(x, axes, dtype=x.dtype) if axes else x), [label for label in labels if label in wanted]


def _product(
    F: Any, a: Tensor, left: Labels, b: Tensor, right: Labels, kept: Labels, order: Labels | None = None
) -> tuple[Tensor, Labels]:
    """The product of two operands, summed over what is not kept, in `order`: that of a's axes by default."""
    a, left = _summed(F, a, left, {*right, *kept})
    b, right = _summed(F, b, right, {*left, *kept})
    shared = [label for label in left if label in right]
    batch = [label for label in shared if label in kept]
    inner = order if order is not None else [label for label in shared if label not in kept]
    rows = [label for label in left if label not in shared]
    columns = [label for label in right if label not in shared]
    sizes = dict(zip(left + right, (*a.shape, *b.shape), strict=True))
    a = a.permute([left.index(label) for label in batch + rows + inner])
    b = b.permute([right.index(label) for label in batch + inner + columns])
    result = batch + rows + columns

    def count(labels: Labels) -> int:
        return math.prod(sizes[label] for label in labels)

    shape = [sizes[label] for label in result]
    if not inner:
        a = a.reshape([sizes[label] for label in batch + rows] + [1] * len(columns))
        return F.mul(a, b.reshape([sizes[x] for x in batch] + [1] * len(rows) + [sizes[x] for x in columns])), result
    many = [count(batch)] if batch else []
    a = a.reshape([*many, count(rows), count(inner)])
    b = b.reshape([*many, count(inner), count(columns)])
    return F.matmul(a, b).reshape(shape), result
