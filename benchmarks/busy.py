"""A training step of a GPT beside a process that keeps one processor busy: how much slower than undisturbed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import gpt, models, timing
from .timing import Case

STEPS = 15  # of each contender, first undisturbed, then beside the neighbour
LEFT_OUT = ("torch.compile", "JAX")  # the question is about the threads of eager and traced programs


def cases() -> Iterator[Case]:
    calls = {name: call for name, call in models.training(gpt.workload()).items() if name not in LEFT_OUT}
    slowdowns = {name: slowdown(call) for name, call in calls.items()}
    yield Case("GPT training step, slowed by a neighbour (1 s: not at all)", slowdowns, self_timed=True, rounds=5)


def slowdown(step: timing.Call) -> Callable[[], float]:
    """The median time of a step beside the neighbour over that of one undisturbed."""

    def measured() -> float:
        alone = median(step)
        with neighbour():
            return median(step) / alone

    return measured


def median(step: timing.Call) -> float:
    step()
    times = sorted(timing.timed(step) for _ in range(STEPS))
    return times[STEPS // 2]


@contextmanager
def neighbour() -> Iterator[None]:
    """Another process that computes without end on our processors."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
