"""How a kernel's loops are walked: units of work, segments of long bodies, what is kept between sweeps over a row.

Decisions that every backend with vectors and caches shares; the bits do not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import prod

from ..ops import scalar as s
from .kernel import LANES, Arg, Kernel, Map, Param, Reduce, Store
from .types import row_exprs

CHUNK = 4096  # elements of a long run that are one unit of work
SEGMENT = 80  # operations of one loop body: a processor then overlaps several vectors, where one long chain would wait
SEGMENT_BLOCK = 512  # elements that go from one segment to the next through L1
LEAST_COLUMNS, MOST_COLUMNS = 64, 512  # that one unit of work reduces together: in long runs, with lanes in L2
GROUP, GROUP_ELEMENTS = 16, 2048  # rows that go through a sweep together: in L1 they stay until the next one
ROW_BUFFER_BYTES = 64 << 10  # of values kept between sweeps over a row
CHEAP = 4  # a value of at most so many operations is computed again rather than kept


# ---- size and cost ----------------------------------------------------------------------------------------------


@cache
def weight(op: str, dtypes: tuple[str, ...]) -> int:
    """How many operations an elementwise op takes."""
    return s.weight(row_exprs(op, dtypes))


def map_weight(kernel: Kernel, m: Map) -> int:
    return weight(m.op, arg_dtypes(kernel, m.args))


def arg_dtypes(kernel: Kernel, args: Iterable[Arg]) -> tuple[str, ...]:
    return tuple(kernel.dtypes[a] if isinstance(a, str) else a.dtype for a in args)


def kernel_weight(kernel: Kernel) -> int:
    """Operations per point."""
    return sum(map_weight(kernel, m) for m in kernel.body if isinstance(m, Map)) + 1


def is_wide(kernel: Kernel) -> bool:
    """Whether the kernel touches 64-bit values and so runs half as many lanes."""
    if any(p.dtype in ("f64", "i64") for p in kernel.params):
        return True
    maps = (m for m in kernel.body if isinstance(m, Map))
    return any(s.is_wide(row_exprs(m.op, arg_dtypes(kernel, m.args))) for m in maps)


def run_mode(p: Param, axis: int) -> str:
    """How an operand's elements lie along an axis: a `run`, `one` for all, or `apart`."""
    if p.kind == "scalar" or p.strides[axis] == 0:
        return "one"
    return "run" if p.strides[axis] == 1 else "apart"


# ---- units of work ----------------------------------------------------------------------------------------------


def chunk(kernel: Kernel) -> int:
    """Elements of a run in one unit of work: fewer when each takes long, so that there is something to share."""
    return CHUNK if kernel_weight(kernel) < SEGMENT else CHUNK // 4


def columns(kernel: Kernel) -> int:
    """How many columns a reduction down columns takes at a time: an eighth of a row, so that there is some to share."""
    size = LEAST_COLUMNS
    while size < MOST_COLUMNS and 8 * size < kernel.axes[-1].extent:
        size *= 2
    return size


def work(kernel: Kernel) -> tuple[int, int]:
    """How many units of work a kernel has and how many elements are in one."""
    extents = list(kernel.extents)
    inner = extents.pop()
    if kernel.reduce == len(extents):
        return prod(extents), inner
    if kernel.reduce >= 0:
        depth = extents.pop(kernel.reduce)
        size = columns(kernel)
        return prod(extents) * -(-inner // size), depth * min(size, inner)
    size = chunk(kernel)
    return prod(extents) * -(-inner // size), min(inner, size)


# ---- what goes from one loop to the next ------------------------------------------------------------------------


def segments(kernel: Kernel) -> list[list[str]]:
    """A long map as several loops: for each but the last the values that later ones need.

    Stores come last, as they may overwrite operands.
    """
    maps = [m for m in kernel.body if isinstance(m, Map)]
    weights = [map_weight(kernel, m) for m in maps]
    count = -(-sum(weights) // SEGMENT)
    if kernel.reduce >= 0 or count < 2:
        return []
    ends: list[int] = []
    done = 0
    for k, w in enumerate(weights):
        done += w
        if done * count >= sum(weights) * (len(ends) + 1):
            ends.append(k + 1)
    stored = {x.value for x in kernel.body if isinstance(x, Store)}
    found, begin = [], 0
    for end in ends[:-1]:
        later = {a for m in maps[end:] for a in m.args} | stored
        found.append([name for m in maps[begin:end] for name in m.names if name in later])
        begin = end
    return found


def row_capacity(kernel: Kernel) -> int:
    """Elements of a row buffer: the row's length rounded up to a power of two, so that like rows share code."""
    return max(LANES, 1 << (kernel.axes[-1].extent - 1).bit_length())


def row_group(kernel: Kernel) -> int:
    """Rows that go through one sweep before the next begins."""
    return max(1, min(GROUP, GROUP_ELEMENTS // row_capacity(kernel)))


def kept_between_sweeps(kernel: Kernel) -> list[str]:
    """Point values that a later sweep over the row needs and that are dear, as far as they fit into L1."""
    maps = {name: m for m in kernel.body if isinstance(m, Map) for name in m.names}
    phases = kernel.phases
    kept: list[str] = []
    stores = [x for x in kernel.body if isinstance(x, Store) and x.param in kernel.store_phases]
    later = [(x.value, kernel.store_phases[x.param]) for x in stores]
    later += [(r.arg, phases[r.arg]) for r in kernel.body if isinstance(r, Reduce)]
    room = ROW_BUFFER_BYTES // (row_capacity(kernel) * row_group(kernel))
    seen: set[tuple[str, int]] = set()
    while later:
        name, sweep = later.pop()
        if name not in maps or name not in kernel.point_names or (name, sweep) in seen:
            continue
        seen.add((name, sweep))
        if phases[name] < sweep and _cost(kernel, maps, name) > CHEAP:
            size = s.SIZE[kernel.dtypes[name]]
            if name not in kept and size <= room:
                kept.append(name)
                room -= size
            if name in kept:
                later.append((name, phases[name]))
                continue
        later += [(a, sweep) for a in maps[name].args if isinstance(a, str)]
    return kept


def _cost(kernel: Kernel, maps: dict[str, Map], name: str) -> int:
    """Operations to compute a point value from memory and row values; beyond `CHEAP` it does not matter how many."""
    if name not in maps or name not in kernel.point_names:
        return 0
    own = map_weight(kernel, maps[name])
    if own > CHEAP:
        return own
    return own + sum(_cost(kernel, maps, a) for a in maps[name].args if isinstance(a, str))
