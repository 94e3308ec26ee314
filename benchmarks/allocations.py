"""What replays allocate: a thousand traced MLP steps, the allocator's counter and the resident memory beside them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import neurlang as nl
from neurlang import _tensor

from . import mlp, models
from .timing import Case

STEPS = 1000


def cases() -> Iterator[Case]:
    workload = mlp.workload()
    nl.manual_seed(0)
    weights = {name: value.detach().numpy().copy() for name, value in workload.build(nl).state_dict().items()}
    step = models.our_step(workload, weights, traced=True)
    for _ in range(10):
        step()
    allocations, memory = _tensor.allocation_count(), resident()
    for _ in range(STEPS):
        step()
    notes = {
        f"allocations in {STEPS} steps": _tensor.allocation_count() - allocations,
        f"resident memory after {STEPS} steps": f"{resident() - memory:+d} bytes",
    }
    yield Case("MLP training step, replayed", {"neurlang traced": step}, notes=notes)


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
