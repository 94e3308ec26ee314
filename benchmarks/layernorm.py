"""Layer norm over rows with weight and bias, RMS norm with a weight, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = ((8192, 1024), (4096, 768), (768, 128))
EPS = 1e-5


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for rows, n in SHAPES:
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((rows, n), (n,), (n,))]
        calls = peers.contenders(layer_norm, *arrays, numpy=written_out, jax_form=written_out)
        yield Case(f"layer norm of {rows} x {n}", calls, work=8.0 * rows * n, rate_unit="GB/s", rtol=1e-3, atol=1e-4)
        seed = rng.standard_normal((rows, n)).astype(np.float32)
        calls = peers.gradients(layer_norm, seed, *arrays, jax_form=written_out)
        yield Case(f"layer norm of {rows} x {n} and its gradients", calls, work=20.0 * rows * n, rate_unit="GB/s",
                   rtol=1e-3, atol=1e-3)  # fmt: skip
        calls = peers.gradients(rms_norm, seed, *arrays[:2], jax_form=rms_written_out)
        yield Case(f"RMS norm of {rows} x {n} and its gradients", calls, work=20.0 * rows * n, rate_unit="GB/s",
                   rtol=1e-3, atol=1e-3)  # fmt: skip


def rms_norm(lib: Any, x: Any, weight: Any) -> Any:
    return lib.nn.functional.rms_norm(x, weight.shape, weight, EPS)


def rms_written_out(x: Any, weight: Any) -> Any:
    return x / ((x * x).mean(-1, keepdims=True) + EPS) ** 0.5 * weight


def layer_norm(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
    return lib.nn.functional.layer_norm(x, weight.shape, weight, bias, EPS)


def written_out(x: Any, weight: Any, bias: Any) -> Any:
    d = x - x.mean(-1, keepdims=True)
    return d / ((d * d).mean(-1, keepdims=True) + EPS) ** 0.5 * weight + bias
