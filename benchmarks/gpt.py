"""A training step of a GPT of width 128, 4 layers, 64 tokens, batch 12, Adam, the loss read every step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import models
from .timing import Case

BATCH = 12


def workload() -> models.Workload:
    tokens = np.random.default_rng(0).integers(0, models.VOCABULARY, (BATCH, models.CONTEXT + 1))
    return models.Workload(models.gpt, models.gpt_in_jax, tokens[:, :-1].copy(), tokens[:, 1:].reshape(-1).copy())


def cases() -> Iterator[Case]:
    yield Case("GPT training step", models.training(workload()), calls_compared=4, rtol=3e-3)
