"""Kernels of rows registered at run time: the eager interface, every map row and dtype, against the oracle."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from backends.replay import machine
from neurlang.backends import cstyle
from neurlang.backends.cpu.compile import compile_files
from neurlang.ir.interpret import apply
from neurlang.ir.types import DTYPES, narrowed, widened
from neurlang.ops.table import ROWS
from neurlang.tracing import compiler

CASES = [
    (name, t, tuple(t if x == "T" else x for x in row.in_types))
    for name, row in ROWS.items()
    if row.kind == "map"
    for t in row.dtypes
]


@pytest.fixture(scope="module")
def library() -> object:
    functions = [cstyle.render_row(name, dtypes, f"f{n}") for n, (name, _, dtypes) in enumerate(CASES)]
    text = "\n".join([machine().simd_header(), cstyle.PRELUDE, *functions])
    return machine().load_library(compile_files((text,), machine().isa(), compiler().VERSION)[0])


def operand(rng: np.random.Generator, dtype: str, n: int) -> np.ndarray:
    x = rng.standard_normal(n) * 3
    made = {"b8": x > 0, "u8": np.abs(x) * 9}.get(dtype, x)
    if dtype == "bf16":
        return narrowed(x, dtype)
    return np.ascontiguousarray(np.asarray(made).astype(DTYPES[dtype].numpy))


@pytest.mark.parametrize("n", [1, 7, 16, 37])
def test_every_row(n: int, library: object, rng: np.random.Generator) -> None:
    for number, (name, _, dtypes) in enumerate(CASES):
        spread = [rng.random() < 0.3 for _ in dtypes]
        ins = [operand(rng, d, 1 if one else n) for d, one in zip(dtypes, spread, strict=True)]
        expected = apply(
            name, [x[0] if one else x for x, one in zip(ins, spread, strict=True)], (), compiler().fma(), (n,)
        )
        outs = [np.zeros(n, x.dtype) for x in expected]
        steps = [x.itemsize for x in outs] + [0 if one else x.itemsize for x, one in zip(ins, spread, strict=True)]
        call(library.symbol(f"f{number}"), [*outs, *ins], steps, n)
        for got, want in zip(outs, expected, strict=True):
            numbers = [widened(x, "bf16") if x.dtype == np.uint16 else x for x in (got, want)]
            same = (got == want) | (np.isnan(numbers[0]) & np.isnan(numbers[1]))
            assert same.all(), f"{name}{dtypes}, {n} elements, steps {steps}"


def call(address: int, arrays: list[np.ndarray], steps: list[int], n: int) -> None:
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
    pointers = (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays))
    function(pointers, (ctypes.c_int64 * len(steps))(*steps), n, 0)
