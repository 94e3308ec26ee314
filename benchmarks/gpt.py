"""A training step of two GPTs, Adam, the loss read every step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from . import models
from .models import Size
from .timing import Case

SMALL, LARGE = Size(128, 4, 4, 64), Size(384, 6, 6, 256)
FUSED = Size(384, 6, 6, 256, fused=True)


def workload(size: Size = SMALL, batch: int = 12) -> models.Workload:
    tokens = np.random.default_rng(0).integers(0, models.VOCABULARY, (batch, size.context + 1))
    build, in_jax = partial(models.gpt, size), partial(models.gpt_in_jax, size)
    return models.Workload(build, in_jax, tokens[:, :-1].copy(), tokens[:, 1:].reshape(-1).copy())


def cases() -> Iterator[Case]:
    for size, batch in ((SMALL, 12), (LARGE, 4), (FUSED, 4)):
        name = f"width {size.width}, {size.layers} layers, {size.context} tokens, batch {batch}"
        name += ", attention in one call" if size.fused else ""
        yield Case(name, models.training(workload(size, batch)), calls_compared=4, rtol=3e-3)
