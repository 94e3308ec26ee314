"""A training step that is replayed again and again: nothing is compiled, allocated or kept."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import neurlang as nl
from neurlang import _tensor
from neurlang.compile import Compiled

NOISE = 256 << 10  # bytes by which the interpreter's own memory comes and goes


def training_step() -> tuple[Callable[[], float], nl.trace]:
    """A convolution, a norm, a pooling, a product and Adam; the loss is read."""
    nn = nl.nn
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(288, 10)
    )
    optimizer, step = nl.optim.Adam(model.parameters(), lr=1e-3), nl.trace()
    x, target = nl.randn(16, 1, 14, 14), nl.arange(16) % 10

    def run() -> float:
        with step:
            loss = nn.functional.cross_entropy(model(x), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    return run, step


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_replays_request_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []
    replay = Compiled.run

    def counted(self: Compiled, tape: object) -> None:
        before = _tensor.allocation_count()
        replay(self, tape)
        requests.append(_tensor.allocation_count() - before)

    monkeypatch.setattr(Compiled, "run", counted)
    run, step = training_step()
    before_any = _tensor.allocation_count()
    for _ in range(60):
        run()
    assert _tensor.allocation_count() > before_any  # the counter is alive: making programs requests memory
    assert requests[10:] == [0] * 50
    assert step.counts.compiled == 2  # the first step also makes the optimiser's state


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer keeps freed memory for a while")
def test_a_thousand_steps_keep_nothing() -> None:
    run, step = training_step()
    losses = [run() for _ in range(200)]
    gc.collect()
    before = resident()
    losses[:] = [run() for _ in range(1000)][-1:]
    gc.collect()
    assert resident() - before < NOISE
    assert np.isfinite(losses).all()
    assert (step.counts.compiled, step.counts.cut) == (2, 0)
