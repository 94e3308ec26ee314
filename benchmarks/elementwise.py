"""Elementary functions and activations: a read of each operand and a write, or bound by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SIZES = (1_000, 100_000, 10_000_000)
Form = Callable[..., Any]
Range = tuple[float, float]
POSITIVE, AROUND_ZERO, WIDE, INSIDE, ABOVE_ONE = (0.1, 4.0), (-4.0, 4.0), (-100.0, 100.0), (-0.99, 0.99), (1.0, 9.0)


def function(name: str, *arguments: Range) -> tuple[str, Form, Form, tuple[Range, ...]]:
    """One that has the same name everywhere."""
    return name, lambda lib, *x: getattr(lib, name)(*x), lambda lib, *x, **o: getattr(lib, name)(*x, **o), arguments


def activation(name: str, **options: Any) -> tuple[str, Form, None, tuple[Range, ...]]:
    title = " ".join([name, *map(str, options.values())])
    return title, lambda lib, x: getattr(lib.nn.functional, name)(x, **options), None, (AROUND_ZERO,)


# Name, in PyTorch's idiom, in NumPy's, which JAX shares (None where NumPy has no such function), and arguments.
FUNCTIONS: tuple[tuple[str, Form, Form | None, tuple[Range, ...]], ...] = (
    *(function(name, AROUND_ZERO) for name in ("abs", "sign", "square", "floor", "round", "trunc", "isnan")),
    *(function(name, AROUND_ZERO) for name in ("exp", "exp2", "expm1", "tanh", "sinh", "cosh", "atan", "asinh")),
    *(function(name, POSITIVE) for name in ("log", "log2", "log10", "log1p", "sqrt", "reciprocal")),
    *(function(name, WIDE) for name in ("sin", "cos", "tan")),
    *(function(name, INSIDE) for name in ("asin", "acos", "atanh")),
    function("acosh", ABOVE_ONE),
    *(function(name, AROUND_ZERO, AROUND_ZERO) for name in ("maximum", "atan2", "hypot", "remainder", "floor_divide")),
    function("pow", POSITIVE, AROUND_ZERO),
    ("add", lambda lib, x, y: x + y, lambda lib, x, y, **out: lib.add(x, y, **out), (WIDE, WIDE)),
    ("multiply", lambda lib, x, y: x * y, lambda lib, x, y, **out: lib.multiply(x, y, **out), (WIDE, WIDE)),
    ("divide", lambda lib, x, y: x / y, lambda lib, x, y, **out: lib.divide(x, y, **out), (WIDE, POSITIVE)),
    ("greater", lambda lib, x, y: x > y, lambda lib, x, y, **out: lib.greater(x, y, **out), (WIDE, WIDE)),
    ("where", lambda lib, x, y: lib.where(x > 0, x, y), None, (WIDE, WIDE)),
    ("lerp", lambda lib, x, y: lib.lerp(x, y, 0.25), None, (WIDE, WIDE)),
    ("power 1.5", lambda lib, x: x**1.5, lambda lib, x, **out: lib.power(x, np.float32(1.5), **out), (POSITIVE,)),
    ("clamp", lambda lib, x: lib.clip(x, -1, 1), lambda lib, x, **out: lib.clip(x, -1, 1, **out), (AROUND_ZERO,)),
    ("rsqrt", lambda lib, x: lib.rsqrt(x), None, (POSITIVE,)),
    ("erf", lambda lib, x: lib.erf(x), None, (AROUND_ZERO,)),
    ("erfc", lambda lib, x: lib.erfc(x), None, (AROUND_ZERO,)),
    ("erfinv", lambda lib, x: lib.erfinv(x), None, (INSIDE,)),
    ("sigmoid", lambda lib, x: lib.sigmoid(x), None, (AROUND_ZERO,)),
    activation("gelu"),
    activation("gelu", approximate="tanh"),
    *(activation(name) for name in ("silu", "mish", "softplus", "logsigmoid", "relu", "leaky_relu", "elu", "selu")),
    *(activation(name) for name in ("hardswish", "hardsigmoid", "hardtanh")),
)
IN_JAX: dict[str, Form] = {
    "where": lambda x, y: peers.jax.numpy.where(x > 0, x, y),
    "lerp": lambda x, y: x + 0.25 * (y - x),
    "rsqrt": lambda x: peers.jax.lax.rsqrt(x),
    "erf": lambda x: peers.jax.lax.erf(x),
    "erfc": lambda x: peers.jax.lax.erfc(x),
    "erfinv": lambda x: peers.jax.lax.erf_inv(x),
    "gelu": lambda x: peers.jax.nn.gelu(x, approximate=False),
    "gelu tanh": lambda x: peers.jax.nn.gelu(x, approximate=True),
    "logsigmoid": lambda x: peers.jax.nn.log_sigmoid(x),
    "hardswish": lambda x: peers.jax.nn.hard_swish(x),
    "hardsigmoid": lambda x: peers.jax.nn.hard_sigmoid(x),
    "hardtanh": lambda x: peers.jax.nn.hard_tanh(x),
}


def cases() -> Iterator[Case]:
    for name, form, by_array, ranges in FUNCTIONS:
        for n in SIZES:
            rng = np.random.default_rng(0)
            arrays = [rng.uniform(*limits, n).astype(np.float32) for limits in ranges]
            make = partial(contenders, name, form, by_array, arrays)
            yield Case(f"{name} of {n}", make, work=4.0 * n * (len(arrays) + 1), rate_unit="GB/s")


def contenders(name: str, form: Form, by_array: Form | None, arrays: list[np.ndarray]) -> dict[str, peers.Call]:
    if by_array is None:
        in_jax = IN_JAX.get(name) or (lambda x: getattr(peers.jax.nn, name)(x))
        return peers.contenders(form, *arrays, jax_form=in_jax)
    out = np.empty_like(by_array(np, *arrays))  # NumPy's own results would be fresh pages
    by_numpy, in_jax = (lambda *x: by_array(np, *x, out=out)), (lambda *x: by_array(peers.jax.numpy, *x))
    return peers.contenders(form, *arrays, numpy=by_numpy, jax_form=in_jax)
