"""Products that are added to something: layers with a bias, and beta C + alpha A B."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = (
    (64, 64, 64), (1, 768, 768), (16, 1024, 1024), (128, 512, 784), (197, 768, 768), (512, 512, 512), (1024, 3072, 768),
)  # M, N, K  # fmt: skip


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for m, n, k in SHAPES:
        a, b, w, c, bias = (
            rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (n, k), (m, n), (n,))
        )
        work = {"work": 2.0 * m * n * k, "rate_unit": "GFLOP/s", "rtol": 1e-3, "atol": 1e-3}
        name = f"{m} x {n} x {k}"
        calls = peers.contenders(linear, a, w, bias, numpy=written_out, jax_form=written_out)
        yield Case(f"linear with a bias, {name}", calls, **work)
        calls = peers.contenders(added, c, a, b, numpy=lambda c, a, b: c + a @ b, jax_form=lambda c, a, b: c + a @ b)
        yield Case(f"addmm, {name}", calls, **work)
        calls = peers.contenders(scaled, c, a, b, numpy=scaled_written_out, jax_form=scaled_written_out)
        yield Case(f"addmm with beta and alpha, {name}", calls, **work)


def linear(lib: Any, x: Any, w: Any, bias: Any) -> Any:
    return lib.nn.functional.linear(x, w, bias)


def written_out(x: Any, w: Any, bias: Any) -> Any:
    return x @ w.T + bias


def added(lib: Any, c: Any, a: Any, b: Any) -> Any:
    return lib.addmm(c, a, b)


def scaled(lib: Any, c: Any, a: Any, b: Any) -> Any:
    return lib.addmm(c, a, b, beta=0.5, alpha=2.0)


def scaled_written_out(c: Any, a: Any, b: Any) -> Any:
    return np.float32(0.5) * c + np.float32(2.0) * (a @ b)
