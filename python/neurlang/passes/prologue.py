"""Prologues: which operands of products are made where they are packed, and so never in memory."""

from __future__ import annotations

from collections.abc import Iterable

from ..ir import loops
from ..ir.graph import Access, Node

LEAST = 1 << 16  # elements: fewer stay in cache on their way through memory
CHEAP = 16  # operations an element of what is made several times
SHORT = 16  # elements of a run: shorter ones, as of scales of small groups, cost more than memory


def pays(node: Node, side: int, maps: Iterable[Node], run: int) -> bool:
    """Whether a matmul gains when maps, in loops over runs, make its left (0) or right (1) operand part by part.

    A right operand is made once for few rows and some times for many: of int8 weights 4096 x 4096, with zeros and
    scales, a product with up to 8 rows takes 0.3-0.5 of the time, with 64 0.7, with 256 0.95. A left one is made for
    every tile of columns: beside 64 to 256 columns casts and scales take 0.8-0.97 of the time, beside others up to 2.
    Nor does it pay where an operand is made for each of several batches, or where the right one has few columns beside
    many rows, which then have kernels of their own (1.3-1.8 times as long).
    """
    a, b = node.reads()
    (m, k), n = a.shape[-2:], b.shape[-1]
    if k * (n if side else m) < LEAST or run < SHORT:
        return False
    cheap = sum(loops.weight(x.op, tuple(y.dtype for y in x.ins)) for x in maps) <= CHEAP
    if side == 0:
        return cheap and m >= 256 and 64 <= n <= 256 and not any(_repeats(a))
    if n <= 32 and m > n:
        return False
    stacked = m > 1 and a.contiguous and all(_repeats(b))  # then one matrix meets the rows of all batches at once
    return (m <= 64 or cheap) and (stacked or m >= 64 or not any(_repeats(b)))


def _repeats(x: Access) -> list[bool]:
    """Of every axis of batches with several whether they share a matrix."""
    return [stride == 0 for extent, stride in zip(x.shape[:-2], x.strides[:-2], strict=True) if extent > 1]


def matrix(x: Access) -> tuple[int, int] | None:
    """Rows and columns of an operand's matrices as they lie in memory, when they are dense and of the wide floats."""
    (rows, columns), (down, across) = x.shape[-2:], x.strides[-2:]
    if x.numel == 0 or x.dtype not in ("f32", "f64") or x.offset >= 0:
        return None
    if any(stride % (rows * columns) for stride in x.strides[:-2]):
        return None
    if across == 1:
        return (rows, columns) if down == columns else None
    return (columns, rows) if (down, across) == (1, rows) else None
