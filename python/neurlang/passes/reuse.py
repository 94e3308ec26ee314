"""In-place reuse: a kernel's result takes over the memory of an operand that dies there.

A result that outlives the program and is made on tiles of a contraction gives its memory to the contraction instead.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Access
from ..ir.kernel import Kernel, KernelStep, NativeStep, Param, Schedule, Step, touched


def reuse(schedule: Schedule) -> Schedule:
    """Gives results the home of a dying operand that is read at the very elements where the result is written."""
    last_use: dict[int, int] = {}
    first_use: dict[int, int] = {}
    for number, step in enumerate(schedule.steps):
        for x, _ in touched(step):
            last_use[x.storage] = number
            first_use.setdefault(x.storage, number)
    begun, done = _by_step(schedule, first_use), _by_step(schedule, last_use)
    home: dict[int, int] = {}
    for number, step in enumerate(schedule.steps):
        dying = {i for i in done.get(number, ()) if first_use[i] < number or i in _finished(step)}
        dying = {i for i in dying if not schedule.storages[i].outside}
        for result, operand in _takeovers(schedule, step, begun.get(number, set()), dying):
            if schedule.storages[result].outside:
                home[operand] = result
            else:
                home[result] = home.get(operand, operand)
    return replace(schedule, home=home)


def _by_step(schedule: Schedule, use: dict[int, int]) -> dict[int, set[int]]:
    """For every step the fresh storages that have their (first or last) use there."""
    found: dict[int, set[int]] = {}
    for storage, number in use.items():
        if schedule.storages[storage].kind == "fresh":
            found.setdefault(number, set()).add(storage)
    return found


def _finished(step: Step) -> set[int]:
    """The contraction's result under an epilogue: it is finished, part by part, before the epilogue overwrites it."""
    if isinstance(step, NativeStep) and step.epilogue is not None:
        return {x.storage for x in step.node.outs}
    return set()


def _takeovers(schedule: Schedule, step: Step, fresh: set[int], dying: set[int]) -> list[tuple[int, int]]:
    kernel_step = step if isinstance(step, KernelStep) else step.epilogue
    if kernel_step is None:
        return []
    params = list(zip(kernel_step.kernel.params, kernel_step.operands, strict=True))
    uses: dict[int, int] = {}
    for x, _ in touched(step):
        uses[x.storage] = uses.get(x.storage, 0) + 1
    found: list[tuple[int, int]] = []
    taken: set[int] = set()
    for out, result in params:
        if (
            out.kind != "out"
            or not isinstance(result, Access)
            or result.storage not in fresh
            or uses[result.storage] > 1
        ):
            continue
        for p, operand in params:
            if not isinstance(operand, Access) or operand.storage not in dying - taken or p.kind != "in":
                continue
            if schedule.storages[result.storage].outside and not _gives(step, operand):
                continue
            if _same_elements(schedule, kernel_step.kernel, (out, result), (p, operand)) and _is_only_use(
                step, operand
            ):
                found.append((result.storage, operand.storage))
                taken.add(operand.storage)
                break
    return found


def _gives(step: Step, operand: Access) -> bool:
    """Whether a result may have the contraction use its memory. Whole rows come from a buffer, so as to stay in L2."""
    return operand.storage in _finished(step) and isinstance(step, NativeStep) and step.ends_in_tiles


def _is_only_use(step: Step, operand: Access) -> bool:
    """Read by one access (and, under an epilogue, written by the contraction)."""
    reads = [x for x, write in touched(step) if x.storage == operand.storage and not write]
    return len(reads) == 1


def _same_elements(
    schedule: Schedule, kernel: Kernel, out: tuple[Param, Access], operand: tuple[Param, Access]
) -> bool:
    """Whether result and operand lie alike, and the operand is read for the last time before the result is written."""
    (p, result), (q, source) = out, operand
    same = p.strides == q.strides and p.dtype == q.dtype and result.offset == source.offset == -1
    equal_bytes = schedule.storages[result.storage].nbytes == schedule.storages[source.storage].nbytes
    in_time = kernel.reduce < 0 or kernel.store_phases.get(p.name) == kernel.last_sweep
    return same and equal_bytes and in_time
