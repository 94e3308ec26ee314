"""Products and what follows along their rows: attention scores and their softmax, layers with residual and norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SCORES = ((12, 128, 64), (12, 512, 64), (12, 1024, 64), (12, 2048, 64), (1, 4096, 64))
LAYERS = ((8192, 64, 512), (1024, 768, 768), (1024, 3072, 768))
LOGITS = ((8192, 64, 1024), (128, 784, 10))


def cases() -> Iterator[Case]:
    for heads, n, depth in SCORES:
        calls = peers.contenders(
            scores, normal(heads, n, depth), normal(heads, n, depth, seed=1), jax_form=scores_in_jax
        )
        yield Case(f"softmax of scores, {heads} heads of {n} x {n}, depth {depth}", calls, atol=2e-6)
    for rows, depth, n in LAYERS:
        arrays = normal(rows, depth), normal(depth, n, seed=1), normal(n, seed=2), normal(rows, n, seed=3)
        calls = peers.contenders(layer, *arrays, jax_form=layer_in_jax)
        yield Case(f"layer norm of {rows} x {depth} x {n} + residual", calls, rtol=1e-3, atol=1e-4)
    for rows, depth, n in LOGITS:
        arrays = normal(rows, depth), normal(depth, n, seed=1), normal(n, seed=2)
        calls = peers.contenders(smooth_maximum, *arrays, jax_form=smooth_maximum_in_jax)
        yield Case(f"logsumexp of {rows} x {depth} x {n}", calls)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scores(lib: Any, q: Any, k: Any) -> Any:
    return lib.softmax(lib.matmul(q, k.swapaxes(-1, -2)) * 0.125, -1)


def layer(lib: Any, x: Any, w: Any, bias: Any, residual: Any) -> Any:
    return lib.nn.functional.layer_norm(lib.matmul(x, w) + bias + residual, (w.shape[-1],))


def smooth_maximum(lib: Any, x: Any, w: Any, bias: Any) -> Any:
    return lib.logsumexp(lib.matmul(x, w) + bias, -1)


def scores_in_jax(q: Any, k: Any) -> Any:
    return peers.jax.nn.softmax(q @ k.swapaxes(-1, -2) * 0.125, axis=-1)


def layer_in_jax(x: Any, w: Any, bias: Any, residual: Any) -> Any:
    y = x @ w + bias + residual
    y = y - y.mean(-1, keepdims=True)
    return y / peers.jax.numpy.sqrt((y * y).mean(-1, keepdims=True) + 1e-5)


def smooth_maximum_in_jax(x: Any, w: Any, bias: Any) -> Any:
    return peers.jax.nn.logsumexp(x @ w + bias, axis=-1)
