"""Cross entropy at classes, alone and with its gradient: classifiers, language models, segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = ((128, 10), (768, 65), (512, 1000), (512, 50257), (8, 21, 128, 128))


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        title = f"cross entropy of {' x '.join(map(str, shape))}"
        calls = peers.contenders(loss, x, target, jax_form=in_jax)
        yield Case(title, calls, work=float(x.nbytes), rate_unit="GB/s")
        calls = peers.gradients(loss, np.ones((), np.float32), x, target, jax_form=in_jax)
        yield Case(f"{title} and its gradient", calls, work=3.0 * x.nbytes, rate_unit="GB/s")


def loss(lib: Any, x: Any, target: Any) -> Any:
    return lib.nn.functional.cross_entropy(x, target)


def in_jax(x: Any, target: Any) -> Any:
    log_p = peers.jax.nn.log_softmax(x, 1)
    return -peers.jax.numpy.take_along_axis(log_p, peers.jax.numpy.expand_dims(target, 1), 1).mean()
