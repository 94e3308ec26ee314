"""Rows of a few elements: broadcasting, windows, joins, reversals: what a row costs beside what its memory does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = ((64, 28, 28), (8, 64, 28, 28), (1000, 7), (256, 100), (500, 20))


def dense(lib: Any, x: Any) -> Any:
    """NumPy's views copied to rows; JAX has none, its arrays are new."""
    return lib.ascontiguousarray(x) if lib is np else x


# By name: what PyTorch and we compute of an image, a line along its last axis and a column; what NumPy and JAX do.
Form = Callable[[Any, Any, Any, Any], Any]
OPS: dict[str, tuple[Form, Form]] = {
    "x + line": (lambda lib, x, line, column: x + line, lambda lib, x, line, column: x + line),
    "x * column": (lambda lib, x, line, column: x * column, lambda lib, x, line, column: x * column),
    "window": (lambda lib, x, line, column: x[..., 1:-1] * 1, lambda lib, x, line, column: x[..., 1:-1] * 1),
    "transposed": (
        lambda lib, x, line, column: x.transpose(-1, -2).contiguous(),
        lambda lib, x, *_: dense(lib, x.swapaxes(-1, -2)),
    ),
    "cat": (lambda lib, x, line, column: lib.cat([x, x], -1), lambda lib, x, *_: lib.concatenate([x, x], -1)),
    "flip": (
        lambda lib, x, line, column: lib.flip(x, (-1,)),
        lambda lib, x, *_: dense(lib, lib.flip(x, -1)),
    ),
    "roll": (lambda lib, x, line, column: lib.roll(x, 3, -1), lambda lib, x, *_: lib.roll(x, 3, -1)),
    "tril": (lambda lib, x, line, column: lib.tril(x), lambda lib, x, *_: lib.tril(x)),
}


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        arrays = [rng.standard_normal(s).astype(np.float32) for s in (shape, shape[-1:], (shape[-2], 1))]
        for name, (form, of_numpy) in OPS.items():
            yield case(f"{name} of {' x '.join(map(str, shape))}", arrays, form, of_numpy)


def case(name: str, arrays: list[np.ndarray], form: Form, of_numpy: Form) -> Case:
    jnp = None if peers.jax is None else peers.jax.numpy
    calls = peers.contenders(
        form, *arrays, numpy=lambda *a: of_numpy(np, *a),
        jax_form=None if jnp is None else lambda *a: of_numpy(jnp, *a),
    )
    return Case(name, calls, work=2.0 * arrays[0].nbytes, rate_unit="GB/s", rounds=5)
