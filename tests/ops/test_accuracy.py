"""The published accuracy holds: docs/accuracy.md beside what the functions do, on samples and (slow) on all floats."""

from __future__ import annotations

import math

import pytest

from neurlang.ops.table import ROWS

from . import accuracy
from .accuracy import FUNCTIONS, PAIRS, Worst
from .compiled import levels

PAGE = accuracy.read_page()
CASES = [(name, dtype) for name in FUNCTIONS + PAIRS for dtype in ("f32", "f64")]


def said(name: str, dtype: str, level: str) -> Worst:
    return PAGE[name, dtype]["baseline" if level == "baseline" else "fma"]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_page_names_every_function_and_keeps_to_the_table(name: str, dtype: str) -> None:
    bound = ROWS[name].accuracy(dtype)
    assert PAGE[name, dtype]["bound"].ulp == bound
    assert all(worst.ulp <= bound for worst in PAGE[name, dtype].values())


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_worst_arguments_err_as_published(name: str, dtype: str) -> None:
    for level in levels():
        worst = said(name, dtype, level)
        if any(map(math.isnan, worst.at)):
            continue  # everything is correctly rounded
        assert accuracy.error_at(name, dtype, level, worst.at) == pytest.approx(worst.ulp, abs=1e-3), level


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_samples_err_no_more_than_published(name: str, dtype: str) -> None:
    sample = {"stride": 9973} if (dtype, name in FUNCTIONS) == ("f32", True) else {"draws": 1 << 18}
    for level, worst in accuracy.measure(name, dtype, levels(), **sample).items():
        most = said(name, dtype, level).ulp if dtype == "f32" and name in FUNCTIONS else ROWS[name].accuracy(dtype)
        assert worst.ulp <= most + 1e-3, f"{name}{worst.at} is off by {worst.ulp:.3f} ULP on {level}"


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_floats(name: str) -> None:
    for level, worst in accuracy.measure(name, "f32", levels()).items():
        assert worst.ulp <= said(name, "f32", level).ulp + 1e-3, f"{name}{worst.at} on {level}"
