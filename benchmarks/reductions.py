"""Reductions along one axis, several and all: bound by the memory that is read once, or by the way to the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

Axes = int | tuple[int, ...] | None
SQUARE, IMAGES = (4096, 4096), (32, 128, 56, 56)
PLACES: tuple[tuple[tuple[int, ...], Axes], ...] = (
    (SQUARE, 0), (SQUARE, 1), (SQUARE, None),
    ((1000, 1000), 0), ((1000, 1000), 1),
    ((64, 64), 0), ((64, 64), 1),
    ((100_000, 64), 0), ((64, 100_000), 1), ((100_000, 56), 1),
    ((32, 512, 256), 1), (IMAGES, (0, 2, 3)),
    ((512, 512), 0), ((64, 3136), 0), ((8, 50_176), 0), ((32, 7, 7, 32), 1), ((2, 256, 14, 14), 2),
    ((16,), 0),
)
FEW = ((SQUARE, 0), (SQUARE, 1), ((1000, 1000), 0), ((1000, 1000), 1))

Form = Callable[[Any, Any, Axes], Any]


def torch_or_ours(op: str) -> Form:
    return lambda lib, x, axes: getattr(lib, op)(x) if axes is None else getattr(lib, op)(x, axes)


def of_numpy(op: str) -> Form:
    return lambda lib, x, axes: getattr(lib, op)(x, axis=axes)


def variance(lib: Any, x: Any, axes: Axes) -> Any:
    return lib.var(x, axis=axes, ddof=1)


# What PyTorch and we call it, what NumPy and JAX call it, and where it is taken.
OPS: tuple[tuple[str, Form, Form, tuple[tuple[tuple[int, ...], Axes], ...]], ...] = (
    ("sum", torch_or_ours("sum"), of_numpy("sum"), PLACES),
    ("mean", torch_or_ours("mean"), of_numpy("mean"), FEW),
    ("amax", torch_or_ours("amax"), of_numpy("max"), (*FEW, ((8, 50_176), 0), ((2, 100_000), 0), ((2, 100_000), 1))),
    ("amin", torch_or_ours("amin"), of_numpy("min"), FEW[2:]),
    ("prod", torch_or_ours("prod"), of_numpy("prod"), FEW),
    ("argmax", torch_or_ours("argmax"), of_numpy("argmax"), (*FEW, ((20_000, 3), 1), ((2000, 30), 1))),
    ("any", torch_or_ours("any"), of_numpy("any"), FEW),
    ("all", torch_or_ours("all"), of_numpy("all"), FEW[2:]),
    ("var", torch_or_ours("var"), variance, (*FEW, ((64, 64), 1), (SQUARE, None), (IMAGES, (0, 2, 3)))),
    ("std", torch_or_ours("std"), lambda lib, x, axes: lib.std(x, axis=axes, ddof=1), FEW[2:]),
    ("norm", lambda lib, x, axes: lib.norm(x, 2, axes), lambda lib, x, axes: lib.linalg.norm(x, axis=axes), FEW),
    ("logsumexp", torch_or_ours("logsumexp"), lambda lib, x, axes: logsumexp(lib, x, axes), FEW),
)


def logsumexp(lib: Any, x: Any, axes: Axes) -> Any:
    largest = x.max(axis=axes, keepdims=True)
    return (lib.log(lib.exp(x - largest).sum(axis=axes, keepdims=True)) + largest).squeeze(axes)


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for op, form, by_array, places in OPS:
        for shape, axes in places:
            if op == "prod":
                x = rng.uniform(0.99, 1.01, shape).astype(np.float32)
            elif op in ("any", "all"):
                x = np.full(shape, op == "all", np.bool_)
            else:
                x = rng.standard_normal(shape, np.float32)
            yield case(op, form, by_array, x, axes)
    yield from scans(rng)
    yield from running(rng)


def case(op: str, form: Form, by_array: Form, x: np.ndarray, axes: Axes) -> Case:
    over = "" if x.ndim == 1 else f" over {'all' if axes is None else axes}"
    calls = peers.contenders(
        lambda lib, x: form(lib, x, axes), x, numpy=lambda x: by_array(np, x, axes),
        jax_form=lambda x: by_array(peers.jax.numpy, x, axes),
    )
    name = f"{op}{over} of {' x '.join(map(str, x.shape))}"
    return Case(name, calls, work=float(x.nbytes), rate_unit="GB/s", rtol=1e-3, atol=2e-2)


# ---- scans: one read and one write ----

SCANNED = (
    (SQUARE, 0), (SQUARE, 1), ((1000, 1000), 0), ((1000, 1000), 1), ((64, 64), 1), ((10_000_000,), 0),
    ((2, 256, 14, 14), 2), ((2, 256, 14, 14), 3), ((2000, 30), 1), ((20_000, 3), 0),
)


def scans(rng: np.random.Generator) -> Iterator[Case]:
    for op in ("cumsum", "cumprod", "logcumsumexp"):
        for shape, axis in SCANNED if op == "cumsum" else SCANNED[2:4]:
            x = rng.random(shape, np.float32)
            if op == "cumprod":
                x = 1 + (x - 0.5) * 1e-3
            calls = peers.contenders(
                lambda lib, x, op=op, axis=axis: getattr(lib, op)(x, axis), x,
                numpy=None if op == "logcumsumexp" else lambda x, op=op, axis=axis: getattr(np, op)(x, axis),
                jax_form=lambda x, op=op, axis=axis: by_jax(op, x, axis),
            )
            name = f"{op} along {axis} of {' x '.join(map(str, shape))}"
            yield Case(name, calls, work=2.0 * x.nbytes, rate_unit="GB/s", rtol=1e-2, atol=1e-2)


def running(rng: np.random.Generator) -> Iterator[Case]:
    """Largest elements up to each one; all but NumPy and JAX find their places too."""
    for shape, axis in SCANNED:
        x = rng.random(shape, np.float32)
        calls = peers.contenders(
            lambda lib, x, axis=axis: lib.cummax(x, axis)[0], x,
            numpy=lambda x, axis=axis: np.maximum.accumulate(x, axis),
            jax_form=lambda x, axis=axis: peers.jax.lax.cummax(x, axis),
        )
        name = f"cummax along {axis} of {' x '.join(map(str, shape))}"
        yield Case(name, calls, work=2.0 * x.nbytes, rate_unit="GB/s")


def by_jax(op: str, x: Any, axis: int) -> Any:
    if op == "logcumsumexp":
        return peers.jax.lax.cumlogsumexp(x, axis)
    return getattr(peers.jax.numpy, op)(x, axis)
