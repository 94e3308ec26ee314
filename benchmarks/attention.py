"""Attention: causal prefill, grouped-query heads, one query against many keys, masks, dropout, forward and backward."""

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
MASKED = (8, 12, 256, 64)  # items, heads, length, depth


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
    yield from masked_cases()
    yield from dropped_cases()


def masked_cases() -> Iterator[Case]:
    """A mask of padding, as BERT has it, and a bias of positions, as T5 has it."""
    items, heads, n, depth = MASKED
    arrays = operands(heads, heads, n, n, depth, items)
    rng = np.random.default_rng(1)
    seen = np.arange(n) < rng.integers(n // 2, n + 1, (items, 1, 1, 1))
    bias = rng.standard_normal((1, heads, n, n)).astype(np.float32)
    name = f"{items} x {named(heads, heads, n, depth)}"
    work = 4.0 * items * heads * n * n * depth
    for what, mask in (("a mask of padding", seen), ("a bias of positions", bias)):
        calls = peers.contenders(with_mask, *arrays, mask, jax_form=masked_in_jax)
        yield Case(f"{name}, {what}", calls, work=work, rate_unit="GFLOP/s", rtol=1e-3, atol=1e-4)
    one = [arrays[0][:, :, :1].copy(), *arrays[1:], seen]
    calls = peers.contenders(with_mask, *one, jax_form=masked_in_jax)
    yield Case(f"one query of {name}, a mask of padding", calls, work=8.0 * arrays[1].size, rate_unit="GB/s",
               rtol=1e-3, atol=1e-4)  # fmt: skip
    calls = peers.gradients(with_mask, np.ones_like(arrays[0]), *arrays, seen, jax_form=masked_in_jax)
    yield Case(f"forward and backward of {name}, a mask of padding", calls, work=3.5 * work, rate_unit="GFLOP/s",
               rtol=1e-3, atol=1e-3)  # fmt: skip
    calls = peers.gradients(with_mask, np.ones_like(arrays[0]), *arrays, bias, jax_form=masked_in_jax)
    yield Case(f"forward and backward of {name}, a bias that is learned", calls, work=3.5 * work, rate_unit="GFLOP/s",
               rtol=1e-3, atol=1e-2)  # fmt: skip


def dropped_cases() -> Iterator[Case]:
    """Everyone drops other weights: of equal scores, and values of 1, results are near 1 nevertheless."""
    heads, shared, n, depth = TRAINED
    arrays = operands(heads, shared, n, n, depth)
    arrays[0][:], arrays[2][:] = 0.0, 1.0
    work = 4.0 * heads * n * n * depth
    calls = peers.contenders(dropped, *arrays)
    yield Case(f"{named(*TRAINED)}, dropout", calls, work=work, rate_unit="GFLOP/s", atol=0.2)
    arrays[1][:] = 0.0
    calls = peers.gradients(dropped, np.ones_like(arrays[0]), *arrays)
    yield Case(f"forward and backward of {named(*TRAINED)}, dropout", calls, work=3.5 * work, rate_unit="GFLOP/s",
               atol=0.2)  # fmt: skip


def named(heads: int, shared: int, n: int, depth: int) -> str:
    return f"{heads} heads{f' over {shared}' if shared != heads else ''}, {n} keys of {depth}"


def operands(heads: int, shared: int, queries: int, keys: int, depth: int, items: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = ((heads, queries), (shared, keys), (shared, keys))
    return [rng.standard_normal((items, *size, depth)).astype(np.float32) for size in sizes]


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


def with_mask(lib: Any, q: Any, k: Any, v: Any, mask: Any) -> Any:
    return lib.nn.functional.scaled_dot_product_attention(q, k, v, mask)


def masked_in_jax(q: Any, k: Any, v: Any, mask: Any) -> Any:
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    added = {"mask": mask} if mask.dtype == bool else {"bias": mask}
    return peers.jax.nn.dot_product_attention(q, k, v, **added).swapaxes(1, 2)


def dropped(lib: Any, q: Any, k: Any, v: Any) -> Any:
    return lib.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1)
