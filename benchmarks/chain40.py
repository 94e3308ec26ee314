"""A chain of 40 operations on 64 x 256: fused, it is bound by the call and the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case


def chain(lib: Any, x: Any) -> Any:
    y = x
    for k in range(10):
        y = lib.tanh(y * 1.01 + 0.1 * k) - x
    return y


def cases() -> Iterator[Case]:
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    calls = peers.contenders(chain, x, numpy=lambda x: chain(np, x), jax_form=lambda x: chain(peers.jax.numpy, x))
    yield Case("40 operations on 64 x 256", calls, atol=1e-4)
