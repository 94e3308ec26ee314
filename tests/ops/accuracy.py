"""Measures the published accuracy: `python -m ops.accuracy` in tests/ writes docs/accuracy.md (about half an hour).

The float32 functions of one argument are run over all 2^32 arguments; everything else over random ones.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurlang.ops import scalar as s
from neurlang.ops.row import Row
from neurlang.ops.table import ROWS, TABLE

from .compiled import LEVELS, NUMPY, ROOT, VEC, Kernel, build, levels, text

PROGRAM = Path(__file__).with_name("accuracy.c")
PAGE = ROOT / "docs" / "accuracy.md"
DRAWN = {"f32": 1 << 28, "f64": 1 << 25}  # random arguments, or pairs
ALL = 1 << 32
TYPES = {"f32": ("float", "double", 23, -126, 127), "f64": ("double", "long double", 52, -1022, 1023)}
REFERENCES = {"erfinv": "erfinv(x, guess)"} | dict.fromkeys(
    ("sigmoid", "rsqrt", "silu", "logsigmoid", "mish", "selu"), "{name}(x)"
)


def published(row: Row) -> bool:
    """Rows of floats whose bound is one in ULP alone, and not that of a single rounding."""
    plain = row.kind == "map" and row.out_types == ("T",) and set(row.in_types) == {"T"} and not row.inplace
    return plain and "f32" in row.dtypes and row.ulp > 0.5 and not row.slack and row.binding != "internal"


FUNCTIONS = tuple(row.name for row in TABLE if published(row) and len(row.ins) == 1)
PAIRS = tuple(row.name for row in TABLE if published(row) and len(row.ins) == 2 and not row.defaults)


@dataclass(frozen=True)
class Worst:
    """The largest error in ULP and where it is."""

    ulp: float
    at: tuple[float, ...]


def distinct(wanted: Sequence[str]) -> list[str]:
    """Of the levels one of each set of bits: all levels with fma have the same."""
    with_fma = [level for level in wanted if level != "baseline"]
    return [*with_fma[-1:], *(["baseline"] if "baseline" in wanted else [])]


def kernel(name: str, dtype: str, level: str) -> Any:
    """The function as the eager and traced kernels of a level compute it."""
    row = ROWS[name]
    assert row.expr is not None
    outputs = [row.expr(*(s.arg(i, dtype) for i in range(len(row.ins))))]
    source = VEC.read_text() + text(name, Kernel(outputs, (dtype,) * len(row.ins)))
    return build(source, "-std=c11", *LEVELS[level])[f"k_{name}"]


@functools.cache
def program(name: str, dtype: str) -> ctypes.CDLL:
    """accuracy.c for one function."""
    (t, wide, digits, smallest, largest), operands = TYPES[dtype], len(ROWS[name].ins)
    call = REFERENCES.get(name, "OF2({name}, x, y)" if operands == 2 else "OF({name}, x)").format(name=name)
    macros = f"#define T {t}\n#define WIDE {wide}\n#define DIGITS {digits}\n#define SMALLEST {smallest}\n" \
             f"#define LARGEST {largest}\n#define REFERENCE(x, y, guess) {call}\n"
    library = build(macros + PROGRAM.read_text(), "-O3", "-march=native", "-fopenmp-simd", "-w", "-lm")
    library.error_at.restype = ctypes.c_double
    return library


def error_at(name: str, dtype: str, level: str, at: Sequence[float]) -> float:
    """The error in ULP for these arguments."""
    arguments = np.zeros(2, NUMPY[dtype])
    arguments[: len(at)] = at
    return program(name, dtype).error_at(ctypes.c_void_p(arguments.ctypes.data), len(at), kernel(name, dtype, level))


def measure(name: str, dtype: str, on: Sequence[str], *, stride: int = 1, draws: int = 0) -> dict[str, Worst]:
    """The worst arguments on each level: of every `stride`-th float32, or of `draws` random arguments."""
    operands = len(ROWS[name].ins)
    functions = [kernel(name, dtype, level) for level in on]
    kernels = (ctypes.c_void_p * len(on))(*(ctypes.cast(k, ctypes.c_void_p).value for k in functions))
    most = np.full(len(on), 0.5)
    at = np.full((len(on), 2), np.nan, NUMPY[dtype])
    first, end = (0, draws) if draws else (stride // 2, ALL)
    program(name, dtype).search(
        *map(ctypes.c_uint64, (first, stride, end)), int(draws > 0), operands, kernels, len(on),
        ctypes.c_void_p(most.ctypes.data), ctypes.c_void_p(at.ctypes.data),
    )  # fmt: skip
    return {level: Worst(float(m), tuple(map(float, a[:operands]))) for level, m, a in zip(on, most, at, strict=True)}


# ---- the page ----

HEAD = """\
# Accuracy of the elementary functions

The largest error of each function against the exact value, in units in the last place of the exact result, and the
argument at which it occurs (`nan` where no result tried is off by more than 0.5: correctly rounded). *Bound* is what
the table of operations promises (`ops/table.py`); tests hold every level to it. AVX2, AVX-512 and NEON give the same
bits; the baseline level has no fused multiply-add and bits of its own. Subnormal numbers and the sign of zero are kept.

Of float16 and bfloat16 a function is that of float32, rounded: its error is 0.501 at most, for every one of the 65,536
arguments (`tests/ops/test_narrow.py`). Functions with parameters are not listed, nor those whose bound has an absolute
part too because their terms cancel (gelu, hardswish).

`make accuracy` writes this page.
"""
SECTIONS = (
    ("float32, every one of the 2^32 arguments", "f32", FUNCTIONS, 0),
    ("float32, 2^28 random pairs of arguments", "f32", PAIRS, DRAWN["f32"]),
    ("float64, 2^25 random arguments or pairs", "f64", FUNCTIONS + PAIRS, DRAWN["f64"]),
)
COLUMNS = "| function | bound | error | at | error without fma | at |\n|---|---|---|---|---|---|\n"


def page(on: Sequence[str]) -> Iterator[str]:
    yield HEAD
    for title, dtype, names, draws in SECTIONS:
        yield f"\n## {title}\n\n{COLUMNS}"
        for name in names:
            print(title, name, file=sys.stderr, flush=True)
            worst = measure(name, dtype, on, draws=draws)
            cells = [cell for level in on for cell in (f"{worst[level].ulp:.4f}", arguments(worst[level]))]
            yield f"| {name} | {ROWS[name].accuracy(dtype):g} | {' | '.join(cells)} |\n"


def arguments(worst: Worst) -> str:
    return ", ".join(x.hex() for x in worst.at)


def read_page() -> dict[tuple[str, str], dict[str, Worst]]:
    """What the page says, by function and dtype, by level: "fma" or "baseline"; "bound" has no place."""
    found: dict[tuple[str, str], dict[str, Worst]] = {}
    dtype = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            dtype = "f32" if "float32" in line else "f64"
        elif re.match(r"\| \w+ \| [\d.]+ \|", line):
            name, bound, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            pairs = zip(cells[::2], cells[1::2], strict=True)
            worst = [Worst(float(ulp), tuple(map(float.fromhex, at.split(", ")))) for ulp, at in pairs]
            found[name, dtype] = {"fma": worst[0], "baseline": worst[1], "bound": Worst(float(bound), ())}
    return found


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("".join(page(distinct(levels()))))
