"""Seconds until the first compiled call has run, in a fresh process: with an empty cache and with a filled one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import peers
from .timing import Case

ROUNDS = 2
CACHES = ("NEURLANG_CACHE", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")


def cases() -> Iterator[Case]:
    libraries = ["neurlang"]
    libraries += ["torch.compile"] if peers.with_torch_compile else []
    libraries += ["JAX"] if peers.jax is not None else []
    for work in ("chain", "gpt"):
        for state in ("empty cache", "filled cache"):
            contenders = {name: contender(work, name, filled=state == "filled cache") for name in libraries}
            yield Case(f"{work}, {state}", contenders, self_timed=True, rounds=ROUNDS)


def contender(work: str, library: str, *, filled: bool) -> Callable[[], float]:
    def run() -> float:
        with tempfile.TemporaryDirectory() as cache:
            if filled:
                in_fresh_process(work, library, cache)
            return in_fresh_process(work, library, cache)

    return run


def in_fresh_process(work: str, library: str, cache: str) -> float:
    environment = {**os.environ, **dict.fromkeys(CACHES, cache)}
    command = [sys.executable, "-m", "benchmarks.compile_time", work, library]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def first_calls(work: str, library: str) -> float:
    """In the fresh process: what the first calls take beyond their later time, until a call needs nothing new."""
    without = {"neurlang": ("torch", "jax"), "torch.compile": ("jax",), "JAX": ("torch",)}
    peers.setup(int(os.environ.get("OMP_NUM_THREADS", "2")), without[library])
    call = step_of(work, library)
    seconds: list[float] = []
    while len(seconds) < 4 or seconds[-1] < 0.5 * seconds[-2]:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return sum(seconds) - len(seconds) * min(seconds)


def step_of(work: str, library: str) -> Callable[[], Any]:
    from . import chain40, gpt, models

    name = {"neurlang": "neurlang traced"}.get(library, library)
    if work == "gpt":
        return models.training(gpt.workload())[name]
    (case,) = chain40.cases()
    return case.contenders[name]


if __name__ == "__main__":
    print(first_calls(*sys.argv[1:]))
