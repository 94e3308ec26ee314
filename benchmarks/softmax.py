"""Softmax and log-softmax over rows and down columns, and their gradients: one read and one write at best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = ((8192, 1024, -1), (4096, 4096, -1), (64, 32000, -1), (3072, 64, -1), (8192, 1024, 0), (3072, 64, 0))
GRADIENTS = ((8192, 1024, -1), (64, 32000, -1), (3072, 64, -1), (8192, 1024, 0))
MAPS = ((32, 64, 7, 7, 2), (8, 64, 28, 28, 0), (8, 64, 28, 28, 2))  # few rows, of columns that may not fill a vector


def cases() -> Iterator[Case]:
    for rows, n, axis in SHAPES:
        for name in ("softmax", "log_softmax"):
            form, form_in_jax = along(name, axis), in_jax(name, axis)
            by_hand = by_numpy if name == "softmax" and axis == -1 else None
            calls = peers.contenders(form, normal(rows, n), numpy=by_hand, jax_form=form_in_jax)
            title = f"{name} of {rows} x {n}, axis {axis}"
            yield Case(title, calls, work=8.0 * rows * n, rate_unit="GB/s", atol=2e-6)
    for *shape, axis in MAPS:
        for name in ("softmax", "log_softmax"):
            calls = peers.contenders(along(name, axis), normal(*shape), jax_form=in_jax(name, axis))
            title = f"{name} of {' x '.join(map(str, shape))}, axis {axis}"
            yield Case(title, calls, work=8.0 * np.prod(shape), rate_unit="GB/s", atol=2e-6)
    for rows, n, axis in GRADIENTS:
        for name in ("softmax", "log_softmax"):
            form, form_in_jax = along(name, axis), in_jax(name, axis)
            calls = peers.gradients(form, normal(rows, n, seed=1), normal(rows, n), jax_form=form_in_jax)
            title = f"{name} of {rows} x {n}, axis {axis}, and its gradient"
            yield Case(title, calls, work=20.0 * rows * n, rate_unit="GB/s", rtol=1e-3, atol=1e-4)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def along(name: str, axis: int) -> Callable[..., Any]:
    return lambda lib, x: getattr(lib, name)(x, axis)


def in_jax(name: str, axis: int) -> Callable[..., Any]:
    return lambda x: getattr(peers.jax.nn, name)(x, axis=axis)


def by_numpy(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
