"""Scalar expressions computed with NumPy, which is passed in: the bits of the compiled code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from . import dtypes
from .scalar import FLOATS, SIZE, E, nodes

Fma = Callable[[Any, Any, Any], Any]


def evaluate(outputs: Sequence[E], arrays: Sequence[Any], np: Any, fma: Fma, shape: tuple[int, ...] = ()) -> list[Any]:
    """The outputs as NumPy arrays with the bits of the compiled code.

    `fma` is fused for the levels that have it, a * b + c for the baseline. The arrays are broadcast; `shape` is the
    index space that index() counts.
    """
    whole = np.broadcast_shapes(shape, *(np.shape(a) for a in arrays))
    values: dict[E, Any] = {}
    with np.errstate(all="ignore"):
        for e in nodes(outputs):
            if e.op == "arg":
                result = arrays[e.value]
            elif e.op == "const":
                result = dtypes.to_bits(e.value, e.dtype) if e.dtype == "bf16" else e.value
            elif e.op == "index":
                result = np.arange(math.prod(whole)).reshape(whole)
            else:
                result = _numpy_value(e, [values[a] for a in e.args], np, fma)
            values[e] = np.asarray(result, _numpy_type(e.dtype, np))
    results = (values[e] for e in outputs)
    return [r if r.shape == whole else np.broadcast_to(r, whole) for r in results]


def _numpy_type(dtype: str, np: Any) -> Any:
    return np.dtype(dtypes.DTYPES[dtype].numpy if dtype in dtypes.DTYPES else f"u{SIZE[dtype]}")


_UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "not": "invert", "shl": "left_shift", "shr": "right_shift", "lt": "less", "le": "less_equal", "eq": "equal",
    "ne": "not_equal", "select": "where", "sqrt": "sqrt", "fmod": "fmod",
}  # fmt: skip


def _numpy_value(e: E, a: list[Any], np: Any, fma: Fma) -> Any:
    match e.op:
        case "neg":
            return np.negative(a[0]) if e.dtype in FLOATS else 0 - a[0]
        case "div":
            return a[0] / a[1] if e.dtype in FLOATS else _truncated_quotient(*a)
        case "fma":
            return fma(*a)
        case "ldexp":
            return np.ldexp(a[0], a[1].astype(np.int32))
        case "max":
            return np.where(a[0] > a[1], *a)
        case "min":
            return np.where(a[0] < a[1], *a)
        case "maximum":
            return np.where(a[0] == a[1], np.where(np.signbit(a[0]), a[1], a[0]), np.maximum(*a))
        case "minimum":
            return np.where(a[0] == a[1], np.where(np.signbit(a[0]), a[0], a[1]), np.minimum(*a))
        case "rare":
            return np.where(a[0], a[2], a[1])
        case "bitcast":
            return a[0].view(_numpy_type(e.dtype, np))
        case "convert":
            return _numpy_convert(a[0], e.args[0].dtype, e.dtype, np)
        case "table":
            return np.array(e.value, _numpy_type(e.dtype, np))[a[0]]
        case "mulhi":
            return (a[0].astype(np.uint64) * a[1]) >> np.uint64(32)
        case "low_product":
            return (a[0] & np.uint64(0xFFFFFFFF)) * (a[1] & np.uint64(0xFFFFFFFF))
        case _:
            return getattr(np, _UFUNCS[e.op])(*a)


def _numpy_convert(x: Any, source: str, target: str, np: Any) -> Any:
    """A conversion; bfloat16 is the upper half of a float32, as integers."""
    if source == "bf16":
        return (x.astype(np.uint32) << 16).view(np.float32)
    if target != "bf16":
        return x.astype(_numpy_type(target, np))
    bits = np.asarray(x, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, nearest).astype(np.uint16)


def _truncated_quotient(a: Any, b: Any) -> Any:
    down = a // b
    return down + ((a - down * b != 0) & ((a < 0) ^ (b < 0)))
