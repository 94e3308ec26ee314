"""Rows by kind, arguments for them drawn from their domains, and what their references and bounds say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from neurlang import _tensor
from neurlang.ops.dtypes import DTYPES, WIDE
from neurlang.ops.row import Row
from neurlang.ops.table import TABLE

NUMPY: dict[str, Any] = {text: np.dtype(info.numpy).type for text, info in DTYPES.items()}
TEXT = {np.dtype(kind): text for text, kind in NUMPY.items()}

MAPS = [row for row in TABLE if row.kind == "map" and row.numpy is not None and row.name != "to_bfloat16"]
REDUCTIONS = [row for row in TABLE if row.kind == "reduce"]
NUMBERS = {"weight", "min_val", "max_val", "nan", "posinf", "neginf"}  # operands that PyTorch takes as numbers only


def wide_dtypes(row: Row) -> list[str]:
    """What `T` may be apart from narrow dtypes, whose results are those of the wide ones (test_narrow.py)."""
    return [t for t in row.dtypes if t in WIDE]


def draw(rng: np.random.Generator, row: Row, operand: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of one operand."""
    low, high = row.interval(operand)
    if dtype == "b8":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype in ("f32", "f64"):
        return rng.uniform(low, high, shape).astype(NUMPY[dtype])
    low = max(low, 0) if dtype == "u8" else low
    return rng.integers(math.ceil(low), max(math.floor(high), math.ceil(low)) + 1, shape).astype(NUMPY[dtype])


def widened(x: np.ndarray) -> np.ndarray:
    """Floats as float64; integers and bools as they are."""
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def reference(row: Row, arrays: list[np.ndarray], *attrs: int) -> Any:
    """The row's reference in float64 or exact integers."""
    with np.errstate(all="ignore"):
        if row.name == "div_trunc":  # truncates the rounded quotient, which float64 would round elsewhere
            return row.numpy(np, *arrays)
        return row.numpy(np, *(widened(a) for a in arrays), *attrs)


def tolerance(row: Row, dtype: Any, expected: np.ndarray) -> np.ndarray:
    """The error that the row's bound allows; in float64 the reference has about as much of its own."""
    if np.dtype(dtype).kind != "f":
        return np.zeros(np.shape(expected))
    info = np.finfo(dtype)
    bound = info.eps * (row.ulp * np.abs(expected) + row.slack) + info.smallest_subnormal
    return bound if dtype == np.float32 else 2 * bound + 2 * info.eps * np.abs(expected)


def function(row: Row) -> Callable[..., Any]:
    """The row's eager function (a hand-written one takes the place of the internal one)."""
    return getattr(_tensor, row.function, None) or getattr(_tensor, row.name)


def types_of(row: Row, dtype: str) -> list[str]:
    return [dtype if t == "T" else t for t in row.in_types]


def ids(value: Any) -> str | None:
    return f"{value[0].name}-{value[1]}" if isinstance(value, tuple) else getattr(value, "name", None)
