"""What a trace costs per operation when it is recorded again and matched: a chain of small operations, replayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

OPERATIONS = 200


def chain(x: Any, y: Any) -> Any:
    for _ in range(OPERATIONS // 2):
        x = (x + y) * y
    return x


def cases() -> Iterator[Case]:
    x, y = np.full((2, 4), 0.5, np.float32)
    calls = peers.contenders(lambda lib, x, y: chain(x, y), x, y, numpy=chain, jax_form=chain)
    yield Case(f"one of {OPERATIONS} operations on 4 floats", calls, per=OPERATIONS)
