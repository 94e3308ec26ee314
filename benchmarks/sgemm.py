"""Matrix products in float32: square, transposed, skinny and batched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SQUARE = (64, 128, 256, 512, 1024, 2048)
SKINNY = ((1, 4096, 4096), (8, 4096, 4096), (4096, 16, 4096))  # M, N, K
BATCHED = ((96, 64, 64, 64), (48, 64, 64, 32))  # batch, M, N, K


def cases() -> Iterator[Case]:
    for n in SQUARE:
        yield product(f"{n} x {n} x {n}", (n, n), (n, n))
    yield product("128 x 512 x 784, second transposed", (128, 784), (512, 784), transpose=True)
    for m, n, k in SKINNY:
        yield product(f"{m} x {n} x {k}", (m, k), (k, n))
    for batch, m, n, k in BATCHED:
        yield product(f"{batch} of {m} x {n} x {k}", (batch, m, k), (batch, k, n))


def product(name: str, a: tuple[int, ...], b: tuple[int, ...], *, transpose: bool = False) -> Case:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in (a, b))
    result = a[:-1] + ((b[0],) if transpose else (b[-1],))
    flops = 2.0 * np.prod(result) * a[-1]

    def form(lib: Any, x: Any, y: Any) -> Any:
        return x @ (y.T if transpose else y)

    calls = peers.contenders(form, x, y, numpy=lambda x, y: form(np, x, y), jax_form=lambda x, y: form(None, x, y))
    calls.pop("torch.compile", None)  # calls the same library as torch
    return Case(name, calls, work=flops, rate_unit="GFLOP/s", rtol=1e-3, atol=1e-3)
