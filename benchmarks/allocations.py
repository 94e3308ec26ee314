"""What replays allocate: a thousand MLP steps and frozen calls, the allocator's counter and resident memory beside."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import neurlang as nl
from neurlang import _tensor

from . import mlp, models
from .timing import Case

CALLS = 1000


def cases() -> Iterator[Case]:
    workload = mlp.workload()
    nl.manual_seed(0)
    model, x = workload.build(nl), nl.tensor(workload.x)
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    training = models.our_step(workload, weights, traced=True)
    yield case("MLP training step, recorded and replayed", "neurlang traced", training)
    with nl.no_grad():
        forward = nl.trace(lambda x: model(x))
        forward(x)
        frozen = forward.freeze()
        yield case("MLP forward pass, frozen", "neurlang frozen", lambda: frozen(x))


def case(name: str, contender: str, call: Callable[[], Any]) -> Case:
    for _ in range(10):
        call()
    requests, memory = _tensor.allocation_count(), resident()
    for _ in range(CALLS):
        call()
    notes = {
        f"requests for memory in {CALLS} calls, results included": _tensor.allocation_count() - requests,
        f"resident memory after {CALLS} calls": f"{resident() - memory:+d} bytes",
    }
    return Case(name, {contender: call}, notes=notes)


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
