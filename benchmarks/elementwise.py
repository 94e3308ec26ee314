"""Elementary functions and activations: one read and one write of memory, or bound by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SIZES = (1_000, 100_000, 10_000_000)
Form = Callable[..., Any]
POSITIVE, AROUND_ZERO, WIDE = (0.1, 4.0), (-4.0, 4.0), (-100.0, 100.0)
# Name, in PyTorch's idiom, in NumPy's, which JAX shares (None where NumPy has no such function), and arguments.
FUNCTIONS: tuple[tuple[str, Form, Form | None, tuple[float, float]], ...] = (
    ("exp", lambda lib, x: lib.exp(x), lambda lib, x, **out: lib.exp(x, **out), AROUND_ZERO),
    ("log", lambda lib, x: lib.log(x), lambda lib, x, **out: lib.log(x, **out), POSITIVE),
    ("tanh", lambda lib, x: lib.tanh(x), lambda lib, x, **out: lib.tanh(x, **out), AROUND_ZERO),
    ("sin", lambda lib, x: lib.sin(x), lambda lib, x, **out: lib.sin(x, **out), WIDE),
    ("sqrt", lambda lib, x: lib.sqrt(x), lambda lib, x, **out: lib.sqrt(x, **out), POSITIVE),
    ("power 1.5", lambda lib, x: x**1.5, lambda lib, x, **out: lib.power(x, np.float32(1.5), **out), POSITIVE),
    ("clamp", lambda lib, x: lib.clip(x, -1, 1), lambda lib, x, **out: lib.clip(x, -1, 1, **out), AROUND_ZERO),
    ("erf", lambda lib, x: lib.erf(x), None, AROUND_ZERO),
    ("sigmoid", lambda lib, x: lib.sigmoid(x), None, AROUND_ZERO),
    ("gelu", lambda lib, x: lib.nn.functional.gelu(x), None, AROUND_ZERO),
    ("silu", lambda lib, x: lib.nn.functional.silu(x), None, AROUND_ZERO),
    ("softplus", lambda lib, x: lib.nn.functional.softplus(x), None, AROUND_ZERO),
)
IN_JAX: dict[str, Form] = {
    "erf": lambda x: peers.jax.lax.erf(x),
    "sigmoid": lambda x: peers.jax.nn.sigmoid(x),
    "gelu": lambda x: peers.jax.nn.gelu(x, approximate=False),
    "silu": lambda x: peers.jax.nn.silu(x),
    "softplus": lambda x: peers.jax.nn.softplus(x),
}


def cases() -> Iterator[Case]:
    for name, form, by_array, (low, high) in FUNCTIONS:
        for n in SIZES:
            x = np.random.default_rng(0).uniform(low, high, n).astype(np.float32)
            out = np.empty_like(x)  # NumPy's own results would be fresh pages
            by_numpy = None if by_array is None else lambda x, f=by_array, out=out: f(np, x, out=out)
            in_jax = IN_JAX.get(name) or (lambda x, f=by_array: f(peers.jax.numpy, x))
            calls = peers.contenders(form, x, numpy=by_numpy, jax_form=in_jax)
            yield Case(f"{name} of {n}", calls, work=8.0 * n, rate_unit="GB/s")
