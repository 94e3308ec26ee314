"""The arena plan: how long every intermediate lives and where it lies, so that those alive together never overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..ir.graph import Access, Operand
from ..ir.kernel import KernelStep, Memory, Param, Schedule, touched

ALIGNMENT = 64
MANY = 2000  # buffers: beyond, orders that compare all with all take too long
STREAM_BYTES = 16 << 20  # half of a usual last-level cache: a larger output is not there any more when it is read

Lifetimes = dict[int, tuple[int, int]]


def plan(schedule: Schedule) -> Schedule:
    """Places every intermediate, and marks the outputs that are better written around the cache."""
    lives = lifetimes(schedule)
    sizes = {i: -(-schedule.storages[i].nbytes // ALIGNMENT) * ALIGNMENT for i in lives}
    offsets = min(_plans(lives, sizes), key=lambda found: _peak(found, sizes))
    memory = Memory(
        offsets,
        sizes,
        lives,
        _peak(offsets, sizes),
        _lower_bound(lives, sizes),
        sum(_intermediates(schedule).values()),
    )
    return _streamed(replace(schedule, memory=memory))


def lifetimes(schedule: Schedule) -> Lifetimes:
    """For every storage in the arena the first and the last step that touches it."""
    found: Lifetimes = {}
    for number, step in enumerate(schedule.steps):
        for x, _ in touched(step):
            home = schedule.home.get(x.storage, x.storage)
            if not schedule.storages[home].outside:
                found[home] = (found.get(home, (number, number))[0], number)
    return found


def _intermediates(schedule: Schedule) -> dict[int, int]:
    """The bytes of every intermediate that reaches memory."""
    seen = {x.storage for step in schedule.steps for x, _ in touched(step)}
    return {i: schedule.storages[i].nbytes for i in seen if not schedule.storages[i].outside}


def _by_size(lives: Lifetimes, sizes: dict[int, int]) -> list[int]:
    return sorted(lives, key=lambda i: (-sizes[i], lives[i]))


def _by_area(lives: Lifetimes, sizes: dict[int, int]) -> list[int]:
    return sorted(lives, key=lambda i: (-sizes[i] * (lives[i][1] - lives[i][0] + 1), lives[i]))


_ORDERS: tuple[Callable[[Lifetimes, dict[int, int]], list[int]], ...] = (_by_size, _by_area)


def place(
    lives: Lifetimes, sizes: dict[int, int], order: Callable[[Lifetimes, dict[int, int]], list[int]]
) -> dict[int, int]:
    """Greedy: each buffer goes into the smallest gap, between buffers that live at the same time, that holds it."""
    offsets: dict[int, int] = {}
    for i in order(lives, sizes):
        first, last = lives[i]
        busy = sorted((offsets[j], sizes[j]) for j in offsets if lives[j][0] <= last and first <= lives[j][1])
        offsets[i] = _best_gap(busy, sizes[i])
    return offsets


def place_as_they_come(lives: Lifetimes, sizes: dict[int, int]) -> dict[int, int]:
    """The same in the order in which buffers begin: only those that still live are in the way."""
    offsets: dict[int, int] = {}
    alive: list[int] = []
    for i in sorted(lives, key=lambda i: (lives[i][0], -sizes[i])):
        alive = [j for j in alive if lives[j][1] >= lives[i][0]]
        offsets[i] = _best_gap(sorted((offsets[j], sizes[j]) for j in alive), sizes[i])
        alive.append(i)
    return offsets


def _plans(lives: Lifetimes, sizes: dict[int, int]) -> Iterator[dict[int, int]]:
    yield place_as_they_come(lives, sizes)
    if len(lives) <= MANY:
        yield from (place(lives, sizes, order) for order in _ORDERS)


def _best_gap(busy: list[tuple[int, int]], size: int) -> int:
    best, room, top = -1, -1, 0
    for offset, length in busy:
        gap = offset - top
        if gap >= size and (best < 0 or gap < room):
            best, room = top, gap
        top = max(top, offset + length)
    return top if best < 0 else best


def _peak(offsets: dict[int, int], sizes: dict[int, int]) -> int:
    return max((offsets[i] + sizes[i] for i in offsets), default=0)


def _lower_bound(lives: Lifetimes, sizes: dict[int, int]) -> int:
    """The most bytes alive at one step: no plan can do with less."""
    changes: dict[int, int] = {}
    for i, (first, last) in lives.items():
        changes[first] = changes.get(first, 0) + sizes[i]
        changes[last + 1] = changes.get(last + 1, 0) - sizes[i]
    most = alive = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


# ---- streaming --------------------------------------------------------------------------------------------------


def _streamed(schedule: Schedule) -> Schedule:
    """A large output that no later step reads is written around the cache: no line is fetched to be overwritten."""
    read_later: set[int] = set()
    steps = []
    for step in reversed(schedule.steps):
        if isinstance(step, KernelStep):
            step = _stream_outputs(step, schedule, read_later)
        elif step.epilogue is not None and not step.ends_in_tiles:
            step = replace(step, epilogue=_stream_outputs(step.epilogue, schedule, read_later))
        steps.append(step)
        read_later.update(schedule.home.get(x.storage, x.storage) for x, write in touched(step) if not write)
    return replace(schedule, steps=tuple(reversed(steps)))


def _stream_outputs(step: KernelStep, schedule: Schedule, read_later: set[int]) -> KernelStep:
    def is_streamed(p: Param, x: Operand) -> bool:
        if p.kind != "out" or not isinstance(x, Access):
            return False
        home = schedule.home.get(x.storage, x.storage)
        return schedule.storages[x.storage].nbytes >= STREAM_BYTES and home not in read_later

    pairs = zip(step.kernel.params, step.operands, strict=True)
    params = tuple(replace(p, stream=is_streamed(p, x)) for p, x in pairs)
    return replace(step, kernel=replace(step.kernel, params=params)) if params != step.kernel.params else step
