"""The published accuracy of every float32 function of one argument, over all 2^32 arguments: minutes each."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from neurlang.ops import elementary as el
from neurlang.ops import scalar as s
from neurlang.ops.table import ROWS

from .compiled import LEVELS, VEC, Kernel, build, levels, text
from .test_scalar import UNARY

PROGRAM = Path(__file__).with_name("exhaustive.c")
WITH_GUESS = ("erfinv",)  # references that refine our own result


def error_over(name: str, level: str, stride: int) -> tuple[float, float]:
    """The largest error in ULP over every `stride`-th float32, and where it is."""
    kernel = Kernel([getattr(el, name)(s.arg(0, "f32"))], ("f32",))
    reference = f"{name}(x, guess)" if name in WITH_GUESS else f"{name}(x)"
    macros = f"#define K k_{name}\n#define REFERENCE(x, guess) {reference}\n"
    source = VEC.read_text() + text(name, kernel) + macros + PROGRAM.read_text()
    library = build(source, "-fno-builtin", "-w", "-lm", *LEVELS[level])
    library.worst.restype = ctypes.c_double
    at = ctypes.c_float()
    most = library.worst(ctypes.c_uint64(stride // 2), ctypes.c_uint64(stride), ctypes.byref(at))
    return most, at.value


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("name", UNARY)
def test_a_sample_of_all_floats(name: str, level: str) -> None:
    most, at = error_over(name, level, 9973)
    assert most <= ROWS[name].ulp, f"{name}({at!r}) is off by {most:.3f} ULP on {level}"


@pytest.mark.slow
@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("name", UNARY)
def test_all_floats(name: str, level: str, record_property: Callable[[str, object], None]) -> None:
    most, at = error_over(name, level, 1)
    record_property("ulp", f"{name} on {level}: {most:.3f} at {at!r}")
    assert most <= ROWS[name].ulp, f"{name}({at!r}) is off by {most:.3f} ULP on {level}"
