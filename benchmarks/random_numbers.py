"""Uniform and normal random numbers: no memory is read, so the generator is all that counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import neurlang as nl

from . import peers
from .timing import Case

SIZES = (1000, 10_000, 1_000_000)


def cases() -> Iterator[Case]:
    draw = np.random.default_rng(0)
    for n in SIZES:
        for name, by_numpy in (("rand", draw.random), ("randn", draw.standard_normal)):
            calls: dict[str, peers.Call] = {
                "neurlang": lambda name=name, n=n: getattr(nl, name)(n),
                "NumPy": lambda by_numpy=by_numpy, n=n: by_numpy(n, np.float32),
            }
            if peers.torch is not None:
                calls["torch"] = lambda name=name, n=n: getattr(peers.torch, name)(n)
            # Everyone draws other numbers: only their count is compared.
            yield Case(f"{name} of {n}", calls, atol=1e3, work=float(n), rate_unit="G/s")
