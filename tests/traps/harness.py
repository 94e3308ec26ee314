"""The trap harness: a scenario run eagerly and traced, all results compared bit for bit, the trace's counts held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import neurlang as nl

Expected = int | tuple[int, int]  # an exact count, or inclusive bounds


class Eager:
    """Stands in for a trace: a decorator and a context manager too, but everything is computed at once."""

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return fn

    def __enter__(self) -> Eager:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


Scenario = Callable[[Any], Any]


def snapshot(value: Any) -> Any:
    """A comparable copy of a nest of results: tensors become (dtype, shape, strides, bits)."""
    if isinstance(value, nl.Tensor):
        return ("tensor", str(value.dtype), tuple(value.shape), tuple(value.stride()), bits(value.detach().numpy()))
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.shape, bits(value))
    if isinstance(value, (list, tuple)):
        return tuple(snapshot(item) for item in value)
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, float):
        return ("float", bits(np.float64(value)))
    return (type(value).__name__, str(value))


def bits(array: Any) -> bytes:
    """The array's bytes with every NaN made the same one: NaN payloads are not promised."""
    array = np.array(array, order="C")
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    return array.tobytes()


def difference(eager: Any, traced: Any, path: str = "result") -> str:
    """Where two snapshots first differ, and by how much."""
    if type(eager) is not type(traced):
        return f"{path}: eager {eager}, traced {traced}"
    if isinstance(eager, dict):
        places = [(f"{path}[{key!r}]", eager[key], traced.get(key)) for key in eager]
    elif isinstance(eager, tuple) and eager[:1] == ("tensor",) and eager[:4] == traced[:4]:
        dtype = eager[1].rsplit(".")[-1]
        a, b = (np.frombuffer(bits, dtype) for bits in (eager[4], traced[4]))
        (n,) = np.flatnonzero(a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}"))[:1]
        return f"{path}: {eager[1:4]}: element {n}: eager {a[n]!r}, traced {b[n]!r}"
    elif isinstance(eager, tuple) and len(eager) == len(traced):
        places = [(f"{path}[{n}]", a, b) for n, (a, b) in enumerate(zip(eager, traced, strict=True))]
    else:
        places = []
    for place, a, b in places:
        if a != b:
            return difference(a, b, place)
    return f"{path}: eager {eager}, traced {traced}"


def assert_counts(step: Any, **expected: Expected) -> None:
    """Holds each named count of the trace to its exact value or its bounds.

    `compiled`: programs made; `replayed`: segments that a program ran, a new one's first run included; `cut`: reads
    that ended a segment; `interpreted`: segments run op by op.
    """
    for name, want in expected.items():
        low, high = want if isinstance(want, tuple) else (want, want)
        got = getattr(step.counts, name)
        assert low <= got <= high, f"{name}: {got}, expected {want}; counts {step.counts}; why: {step.why()}"


def same(scenario: Scenario, *, step: Any = None, **expected: Expected) -> Any:
    """Runs `scenario(step)` eagerly and traced, asserts equal bits and the counts, and returns the trace.

    The scenario makes its own inputs, so both runs start from equal ones.
    """
    eager = snapshot(scenario(Eager()))
    nl.reset_programs()
    step = nl.trace() if step is None else step
    traced = snapshot(scenario(step))
    assert traced == eager, difference(eager, traced)
    assert_counts(step, **expected)
    return step


def data(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """A tensor of reproducible values that are exactly the same for every run of a scenario."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return nl.tensor((values * 4).astype(dtype))
