"""The one list of element types: C++, Cython, the compiler and the file formats take theirs from here.

Standard library only: the build loads this file by path.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Info:
    """One element type: a block of elements and its bytes, so that quantised formats fit the same fields.

    Those with a `wide` dtype are narrow: arithmetic widens them and rounds its results once.
    """

    text: str  # the spelling in tables, graphs and kernels
    name: str
    kind: str  # bool | integer | float
    itemsize: int  # bytes of a block
    c: str  # the C type that holds one
    numpy: str  # the NumPy type that holds one; bfloat16 has none of its own and is held as its bits
    wide: str = ""  # of a narrow type: the dtype in which it is computed with
    block: int = 1  # elements of a block

    @property
    def floating(self) -> bool:
        return self.kind == "float"

    @property
    def signed(self) -> bool:
        return self.text[0] == "i"


# In the order of promotion: of two dtypes the later one holds both, but for u8 with i8 (i16) and f16 with bf16 (f32).
DTYPES: dict[str, Info] = {
    d.text: d
    for d in (
        Info("b8", "bool", "bool", 1, "unsigned char", "bool"),
        Info("u8", "uint8", "integer", 1, "unsigned char", "uint8"),
        Info("i8", "int8", "integer", 1, "signed char", "int8", "i32"),
        Info("i16", "int16", "integer", 2, "short", "int16", "i32"),
        Info("i32", "int32", "integer", 4, "int", "int32"),
        Info("i64", "int64", "integer", 8, "i64", "int64"),
        Info("f16", "float16", "float", 2, "unsigned short", "float16", "f32"),
        Info("bf16", "bfloat16", "float", 2, "unsigned short", "uint16", "f32"),
        Info("f32", "float32", "float", 4, "float", "float32"),
        Info("f64", "float64", "float", 8, "double", "float64"),
    )
}
WIDE = tuple(d.text for d in DTYPES.values() if not d.wide)

# Significant bits, exponent of the smallest subnormal, exponent of the first power of two that is too large.
_PRECISION = {"f16": (11, -24, 16), "bf16": (8, -133, 128), "f32": (24, -149, 128)}


def wide(text: str) -> str:
    """The dtype in which `text` is computed with."""
    return DTYPES[text].wide or text


def rounded(value: float, text: str) -> float:
    """The float of dtype `text` nearest to `value`, ties to even."""
    if text == "f64" or value == 0 or not math.isfinite(value):
        return float(value)
    digits, least, limit = _PRECISION[text]
    quantum = max(math.frexp(value)[1] - digits, least)
    result = math.ldexp(round(math.ldexp(value, -quantum)), quantum) if quantum > -1000 else 0.0
    if abs(result) >= 2.0**limit:
        result = math.inf
    return math.copysign(result, value)


def to_bits(value: float | int | bool, text: str) -> int:
    """The bits of `value`, which is rounded, in dtype `text`, so that -0.0 and NaN compare as what they are."""
    info = DTYPES[text]
    if not info.floating:
        return int(value) & ((1 << 8 * info.itemsize) - 1)
    value = rounded(value, text)
    if text == "bf16":
        return _packed("<f", value) >> 16
    return _packed({"f16": "<e", "f32": "<f", "f64": "<d"}[text], value)


def from_bits(bits: int, text: str) -> float | int:
    """The number that `bits` mean in dtype `text`."""
    info = DTYPES[text]
    low = bits & ((1 << 8 * info.itemsize) - 1)
    if info.floating:
        code, size = {"f16": ("<e", 2), "bf16": ("<f", 4), "f32": ("<f", 4), "f64": ("<d", 8)}[text]
        return struct.unpack(code, (low << 16 if text == "bf16" else low).to_bytes(size, "little"))[0]
    return low - (1 << 8 * info.itemsize) if info.signed and low >> (8 * info.itemsize - 1) else low


def _packed(code: str, value: float) -> int:
    return int.from_bytes(struct.pack(code, value), "little")
