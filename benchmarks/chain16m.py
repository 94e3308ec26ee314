"""The tanh-gelu chain on 16 M floats: fused, it is bound by memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

ELEMENTS = 16 << 20
FACTOR = math.sqrt(2.0 / math.pi)


def gelu(lib: Any, x: Any) -> Any:
    return 0.5 * x * (1.0 + lib.tanh(FACTOR * (x + 0.044715 * x * x * x)))


def cases() -> Iterator[Case]:
    x = np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    calls = peers.contenders(gelu, x, jax_form=lambda x: gelu(peers.jax.numpy, x))
    yield Case("tanh-gelu, written out, 16 M floats", calls, work=8.0 * ELEMENTS, rate_unit="GB/s", atol=1e-6)
    calls = peers.contenders(lambda lib, x: x * 2.0 + 1.0, x, jax_form=lambda x: x * 2.0 + 1.0)
    yield Case("x * 2 + 1, 16 M floats", calls, work=8.0 * ELEMENTS, rate_unit="GB/s", atol=1e-6)
