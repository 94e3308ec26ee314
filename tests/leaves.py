"""Leaves of the tests of autograd: float64 tensors that want gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import neurlang as nl


def leaf(values: Any, dtype: Any = nl.float64) -> nl.Tensor:
    return nl.tensor(np.asarray(values).tolist(), dtype=dtype, requires_grad=True)


def randn(rng: np.random.Generator, *shape: int) -> nl.Tensor:
    return nl.from_numpy(rng.standard_normal(shape)).requires_grad_()
