"""Element types as the compiler sees them, and what a row makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..ops import dtypes, scalar, to_numpy
from ..ops.dtypes import DTYPES, from_bits, to_bits
from ..ops.scalar import E
from ..ops.table import ROWS

__all__ = ["DTYPES", "from_bits", "to_bits"]

Dim = int  # an extent; a dim expression takes its place once shapes may be symbolic


def nbytes(dtype: str, count: int) -> int:
    """The bytes of `count` elements."""
    info = DTYPES[dtype]
    return -(-count // info.block) * info.itemsize


def dtype_name(text: str) -> str:
    """The compiler's spelling of a dtype's printed name (`bool` and `b8` are the same)."""
    return "b8" if text == "bool" else text


def array_of(bits: int, dtype: str) -> Any:
    """The value that `bits` mean, as NumPy holds it."""
    info = DTYPES[dtype]
    return np.frombuffer(bits.to_bytes(info.itemsize, "little"), info.numpy)[0]


def widened(x: Any, dtype: str) -> Any:
    """An array of a narrow dtype in the dtype in which it is computed with; others as they are."""
    return _converted(x, dtype, dtypes.wide(dtype))


def narrowed(x: Any, dtype: str) -> Any:
    """An array of the wide dtype rounded to a narrow one."""
    return _converted(x, dtypes.wide(dtype), dtype)


def _converted(x: Any, source: str, target: str) -> Any:
    made = scalar.convert(scalar.arg(0, source), target)
    return to_numpy.evaluate([made], [x], np, lambda a, b, c: a * b + c)[0]


def row_dtypes(op: str, ins: Sequence[str]) -> tuple[str, ...]:
    """The dtypes of an op's outputs, from its row's signature and the dtypes of its inputs."""
    given, made = ROWS[op].types.split("->")
    typed = [d for letter, d in zip(given.split(","), ins, strict=False) if letter == "T"] if given else []
    compute = next((d for d in typed if DTYPES[d].wide), typed[0] if typed else "f32")  # numbers beside it may be wide
    return tuple(compute if letter == "T" else letter for letter in made.split(","))


@cache
def row_exprs(op: str, dtypes: tuple[str, ...]) -> tuple[E, ...]:
    """A map row's expressions over operands of these dtypes."""
    return expressions(op, [scalar.arg(i, d) for i, d in enumerate(dtypes)])


def expressions(op: str, operands: Sequence[E]) -> tuple[E, ...]:
    """A map row's expressions over the given ones."""
    row = ROWS[op]
    assert row.expr is not None, f"{op} is no map"
    return scalar.computed(row.expr, operands, row.direct)
