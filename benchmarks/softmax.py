"""Softmax over rows: three passes when done op by op, one read and one write at best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = ((4096, 4096), (64, 32000), (3072, 64))


def cases() -> Iterator[Case]:
    for shape in SHAPES:
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        calls = peers.contenders(softmax, x, numpy=by_numpy, jax_form=lambda x: peers.jax.nn.softmax(x, axis=-1))
        yield Case(f"softmax of {shape[0]} x {shape[1]}", calls, work=8.0 * x.size, rate_unit="GB/s", atol=1e-7)


def softmax(lib: Any, x: Any) -> Any:
    return lib.softmax(x, -1)


def by_numpy(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
