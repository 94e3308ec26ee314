"""A training step of an MLP 784-512-512-10, batch 128, Adam, the loss read every step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import models
from .timing import Case

BATCH = 128


def workload() -> models.Workload:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 784)).astype(np.float32)
    return models.Workload(models.mlp, models.mlp_in_jax, x, rng.integers(0, 10, BATCH))


def cases() -> Iterator[Case]:
    yield Case("MLP training step", models.training(workload()), calls_compared=4, rtol=3e-3)
