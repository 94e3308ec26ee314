"""Attention: causal prefill, grouped-query heads, one query against many keys, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

PREFILL = (
    (12, 12, 256, 64),
    (12, 12, 1024, 64),
    (12, 12, 4096, 64),
    (32, 8, 1024, 128),
)  # heads, of keys, length, depth
DECODE = ((12, 12, 1024, 64), (12, 12, 8192, 64), (32, 8, 1024, 128), (32, 8, 8192, 128))
TRAINED = (12, 12, 1024, 64)


def cases() -> Iterator[Case]:
    for heads, shared, n, depth in PREFILL:
        calls = peers.contenders(attention(True), *operands(heads, shared, n, n, depth), jax_form=in_jax(True))
        yield Case(f"prefill of {named(heads, shared, n, depth)}", calls, work=2.0 * heads * n * n * depth,
                   rate_unit="GFLOP/s", rtol=1e-3, atol=1e-4)  # fmt: skip
    for heads, shared, n, depth in DECODE:
        calls = peers.contenders(attention(False), *operands(heads, shared, 1, n, depth), jax_form=in_jax(False))
        yield Case(f"one query of {named(heads, shared, n, depth)}", calls, work=8.0 * shared * n * depth,
                   rate_unit="GB/s", rtol=1e-3, atol=1e-4)  # fmt: skip
    heads, shared, n, depth = TRAINED
    arrays = operands(heads, shared, n, n, depth)
    calls = peers.gradients(attention(True), np.ones_like(arrays[0]), *arrays, jax_form=in_jax(True))
    yield Case(f"forward and backward of {named(*TRAINED)}", calls, work=7.0 * heads * n * n * depth,
               rate_unit="GFLOP/s", rtol=1e-3, atol=1e-3)  # fmt: skip


def named(heads: int, shared: int, n: int, depth: int) -> str:
    return f"{heads} heads{f' over {shared}' if shared != heads else ''}, {n} keys of {depth}"


def operands(heads: int, shared: int, queries: int, keys: int, depth: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = ((heads, queries), (shared, keys), (shared, keys))
    return [rng.standard_normal((1, *size, depth)).astype(np.float32) for size in sizes]


def attention(causal: bool) -> Callable[..., Any]:
    def form(lib: Any, q: Any, k: Any, v: Any) -> Any:
        grouped = q.shape[1] != k.shape[1]
        return lib.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)

    return form


def in_jax(causal: bool) -> Callable[..., Any]:
    def form(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        return peers.jax.nn.dot_product_attention(q, k, v, is_causal=causal).swapaxes(1, 2)

    return form
