"""Elementary functions and activations: one read and one write of memory, or bound by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SIZES = (1_000, 100_000, 10_000_000)
Form = Callable[..., Any]
# Name, in PyTorch's idiom, in NumPy's, which JAX shares; None where NumPy has no such function.
FUNCTIONS: tuple[tuple[str, Form, Form | None], ...] = (
    ("exp", lambda lib, x: lib.exp(x), lambda np, x: np.exp(x)),
    ("log", lambda lib, x: lib.log(x), lambda np, x: np.log(x)),
    ("tanh", lambda lib, x: lib.tanh(x), lambda np, x: np.tanh(x)),
    ("sin", lambda lib, x: lib.sin(x), lambda np, x: np.sin(x)),
    ("sqrt", lambda lib, x: lib.sqrt(x), lambda np, x: np.sqrt(x)),
    ("power 1.5", lambda lib, x: x**1.5, lambda np, x: x**1.5),
    ("erf", lambda lib, x: lib.erf(x), None),
    ("sigmoid", lambda lib, x: lib.sigmoid(x), None),
    ("gelu", lambda lib, x: lib.nn.functional.gelu(x), None),
    ("silu", lambda lib, x: lib.nn.functional.silu(x), None),
    ("softplus", lambda lib, x: lib.nn.functional.softplus(x), None),
)
IN_JAX: dict[str, Form] = {
    "erf": lambda x: peers.jax.lax.erf(x),
    "sigmoid": lambda x: peers.jax.nn.sigmoid(x),
    "gelu": lambda x: peers.jax.nn.gelu(x, approximate=False),
    "silu": lambda x: peers.jax.nn.silu(x),
    "softplus": lambda x: peers.jax.nn.softplus(x),
}


def cases() -> Iterator[Case]:
    for name, form, by_array in FUNCTIONS:
        for n in SIZES:
            x = np.random.default_rng(0).uniform(0.1, 4, n).astype(np.float32)
            by_numpy = None if by_array is None else lambda x, f=by_array: f(np, x)
            in_jax = IN_JAX.get(name) or (lambda x, f=by_array: f(peers.jax.numpy, x))
            calls = peers.contenders(form, x, numpy=by_numpy, jax_form=in_jax)
            yield Case(f"{name} of {n}", calls, work=8.0 * n, rate_unit="GB/s")
