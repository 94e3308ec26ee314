"""A training step of a CNN conv32-conv64-pool-fc128 on 28 x 28, batch 64, Adam, the loss read every step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import models
from .timing import Case

BATCH = 64


def workload() -> models.Workload:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 1, 28, 28)).astype(np.float32)
    return models.Workload(models.cnn, models.cnn_in_jax, x, rng.integers(0, 10, BATCH), images=True)


def cases() -> Iterator[Case]:
    yield Case("CNN training step", models.training(workload()), calls_compared=4, rtol=3e-3)
