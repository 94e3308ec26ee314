"""Square matrix products in float32, small to large, and odd sizes beside their even neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SQUARE = (16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
ODD = (17, 33, 67, 68, 129, 130, 257, 258, 509, 510, 1021, 1022)


def cases() -> Iterator[Case]:
    for n in SQUARE + ODD:
        yield product(f"{n} x {n} x {n}", (n, n), (n, n))


def product(name: str, a: tuple[int, ...], b: tuple[int, ...], form: str = "NN", dtype: str = "float32") -> Case:
    """A product of matrices of these shapes; a T in `form` means that the operand lies transposed in memory."""
    rng = np.random.default_rng(0)
    x, y = (
        rng.standard_normal(transposed(shape) if side == "T" else shape).astype(dtype)
        for shape, side in zip((a, b), form, strict=True)
    )

    def multiply(lib: Any, x: Any, y: Any) -> Any:
        return (x.swapaxes(-1, -2) if form[0] == "T" else x) @ (y.swapaxes(-1, -2) if form[1] == "T" else y)

    in_jax = None if dtype == "float64" else lambda x, y: multiply(None, x, y)  # JAX has it in a mode of its own
    calls = peers.contenders(multiply, x, y, numpy=lambda x, y: multiply(np, x, y), jax_form=in_jax)
    calls.pop("torch.compile", None)  # calls the same library as torch
    return Case(name, calls, work=2.0 * np.prod(a) * b[-1], rate_unit="GFLOP/s", rtol=1e-3, atol=1e-3)


def transposed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])
