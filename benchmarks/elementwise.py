"""Latency of one eager operation on a few elements, where only the way to the kernel counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import neurlang as nl

from . import peers
from .timing import Case

SIZES = (4, 64, 1024)


def cases() -> Iterator[Case]:
    for n in SIZES:
        yield Case(f"add of {n} floats", additions(n))


def additions(n: int) -> dict[str, peers.Call]:
    """`a + b` with the operands at hand, so that nothing but the operation is timed."""
    x, y = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
    a, b = nl.tensor(x), nl.tensor(y)
    calls = {"neurlang": lambda: a + b, "NumPy": lambda: x + y}
    if peers.torch is not None:
        s, t = peers.torch.tensor(x), peers.torch.tensor(y)
        calls["torch"] = lambda: s + t
    if peers.jax is not None:
        u, v = peers.jax.numpy.asarray(x), peers.jax.numpy.asarray(y)
        calls["JAX"] = lambda: (u + v).block_until_ready()
    return calls
