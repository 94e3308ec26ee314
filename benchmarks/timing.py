"""How contenders are timed: in blocks, in turn, with rests between, after their results were compared."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OURS = "neurlang"  # our contenders' names begin so; the others are peers
BLOCK_SECONDS = 0.15  # a block is long against a timer's noise and short against a change of the machine's speed
REST_SECONDS = 0.05  # a peer's idle threads spin for a while after its last call and would slow the next contender
ROUNDS = 9
SHORT = 20e-6  # calls shorter than this are timed by the block, longer ones one by one


@dataclass
class Case:
    """One thing to time: the contenders (or what makes them) do the same work and return a comparable result.

    With `self_timed` a call returns the seconds it measured itself (in another process, say); nothing is compared.
    `calls_compared` calls in a row are compared, so that training steps can be held to each other's losses. Times are
    divided by `per`, the number of equal operations in a call.
    """

    name: str
    contenders: dict[str, Callable[[], Any]] | Callable[[], dict[str, Callable[[], Any]]]
    rtol: float = 1e-4
    atol: float = 1e-5
    calls_compared: int = 1
    work: float = 0.0  # operations or bytes of one call; gives a rate
    rate_unit: str = ""
    self_timed: bool = False
    per: int = 1
    rounds: int = ROUNDS
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Timing:
    """Seconds per call."""

    median: float
    minimum: float
    samples: int


class Disagreement(Exception):
    """Two contenders gave different results, so their times say nothing."""


def measure(case: Case) -> dict[str, Timing]:
    """Compares the contenders' results, then times them."""
    calls = case.contenders() if callable(case.contenders) else case.contenders
    if case.self_timed:
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(case.rounds):
            for name, call in calls.items():
                samples[name].append(call())
        return summary(samples, case.per)
    compare(case, calls)
    return summary(alternate(case, calls), case.per)


def compare(case: Case, calls: dict[str, Callable[[], Any]]) -> None:
    """Holds every contender's results to the first one's; also warms all of them up."""
    reference: list[np.ndarray] | None = None
    for name, call in calls.items():
        results = [as_array(call()) for _ in range(case.calls_compared)]
        if reference is None:
            reference = results
        for want, got in zip(reference, results, strict=True):
            if not np.allclose(got, want, rtol=case.rtol, atol=case.atol, equal_nan=True):
                first, error = next(iter(calls)), np.abs(got - want).max()
                raise Disagreement(f"{case.name}: {name} disagrees with {first} by {error:.3g}")


def as_array(result: Any) -> np.ndarray:
    """The result as float64, several in a row; of tensors that want gradients, or that NumPy has no dtype for, too."""
    if isinstance(result, tuple):
        return np.concatenate([as_array(part).ravel() for part in result])
    if hasattr(result, "detach"):
        result = (result.double() if result.is_floating_point() else result).detach().numpy()
    return np.asarray(result, dtype=np.float64)


def alternate(case: Case, calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Times the contenders in turn, a block of calls each, beginning with another one each round."""
    lengths = {name: block_length(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in lengths}
    names = list(lengths)
    gc.collect()
    gc.disable()
    try:
        for turn in range(case.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                time.sleep(REST_SECONDS)
                samples[name].extend(block(calls[name], *lengths[name]))
    finally:
        gc.enable()
    return samples


def block_length(call: Callable[[], Any]) -> tuple[int, bool]:
    """How many calls make a block, and whether they are timed together."""
    seconds = min(timed(call) for _ in range(3))
    if seconds < SHORT:
        seconds = min(together(call, 200) for _ in range(3))
    return max(1, min(1_000_000, int(BLOCK_SECONDS / seconds))), seconds < SHORT


def block(call: Callable[[], Any], calls: int, short: bool) -> Iterator[float]:
    """Seconds per call: one mean for a block of short calls, a sample for each longer one; the first is not counted."""
    call()
    if short:
        yield together(call, calls)
    else:
        for _ in range(calls):
            yield timed(call)


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def together(call: Callable[[], Any], calls: int) -> float:
    repeat = range(calls)
    start = time.perf_counter()
    for _ in repeat:
        call()
    return (time.perf_counter() - start) / calls


def summary(samples: dict[str, list[float]], per: int) -> dict[str, Timing]:
    return {name: Timing(statistics.median(t) / per, min(t) / per, len(t)) for name, t in samples.items()}
