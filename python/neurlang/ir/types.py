"""Element types as the compiler sees them: sizes, NumPy names, and values as bits."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ..ops import scalar
from ..ops.scalar import E
from ..ops.table import ROWS

Dim = int  # an extent; a dim expression takes its place once shapes may be symbolic


@dataclass(frozen=True, slots=True)
class DTypeInfo:
    """One element type: a block of elements and its bytes, so that quantised formats fit the same fields."""

    itemsize: int  # bytes of a block
    numpy: str
    pack: str  # the struct format of one element
    floating: bool
    block: int = 1  # elements of a block


DTYPES: dict[str, DTypeInfo] = {
    "b8": DTypeInfo(1, "bool", "B", False),
    "u8": DTypeInfo(1, "uint8", "B", False),
    "i32": DTypeInfo(4, "int32", "i", False),
    "i64": DTypeInfo(8, "int64", "q", False),
    "f32": DTypeInfo(4, "float32", "f", True),
    "f64": DTypeInfo(8, "float64", "d", True),
}


def nbytes(dtype: str, count: int) -> int:
    """The bytes of `count` elements."""
    info = DTYPES[dtype]
    return -(-count // info.block) * info.itemsize


def dtype_name(text: str) -> str:
    """The compiler's spelling of a dtype's printed name (`bool` and `b8` are the same)."""
    return "b8" if text == "bool" else text


def to_bits(value: float | int | bool, dtype: str) -> int:
    """The bits of `value` in `dtype`, so that -0.0 and NaN compare as what they are."""
    info = DTYPES[dtype]
    number = float(value) if info.floating else int(value)
    return int.from_bytes(struct.pack("<" + info.pack, number), "little")


def from_bits(bits: int, dtype: str) -> float | int:
    """The number that `bits` mean in `dtype`."""
    info = DTYPES[dtype]
    low = bits & ((1 << 8 * info.itemsize) - 1)
    return struct.unpack("<" + info.pack, low.to_bytes(info.itemsize, "little"))[0]


def row_dtypes(op: str, ins: Sequence[str]) -> tuple[str, ...]:
    """The dtypes of an op's outputs, from its row's signature and the dtypes of its inputs."""
    given, made = ROWS[op].types.split("->")
    compute = (
        next((d for letter, d in zip(given.split(","), ins, strict=True) if letter == "T"), "f32") if given else "f32"
    )
    return tuple(compute if letter == "T" else letter for letter in made.split(","))


@cache
def row_exprs(op: str, dtypes: tuple[str, ...]) -> tuple[E, ...]:
    """A map row's expressions over operands of these dtypes."""
    return expressions(op, [scalar.arg(i, d) for i, d in enumerate(dtypes)])


def expressions(op: str, operands: Sequence[E]) -> tuple[E, ...]:
    """A map row's expressions over the given ones."""
    expr = ROWS[op].expr
    assert expr is not None, f"{op} is no map"
    made = expr(*operands)
    return made if isinstance(made, tuple) else (made,)
