"""Checks that a graph, a kernel or a schedule is what it must be; the tests run it after every pass."""

from __future__ import annotations

from ..ops.table import ROWS
from .graph import Access, Graph, Node
from .kernel import Kernel, KernelStep, Map, NativeStep, Reduce, Schedule, Store, touched
from .types import DTYPES, row_dtypes

ALIGNMENT = 64


class VerifyError(AssertionError):
    """A pass made something impossible."""


def verify(made: Graph | Schedule) -> None:
    """Raises VerifyError when a rule of the representation is broken."""
    if isinstance(made, Graph):
        verify_graph(made)
    else:
        verify_schedule(made)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise VerifyError(message)


# ---- graphs -----------------------------------------------------------------------------------------------------


def verify_graph(graph: Graph) -> None:
    """Known ops, right dtypes, accesses inside their storages, versions that follow each other in node order, and a
    writer for all that outlives the graph."""
    versions = [0] * len(graph.storages)
    for number, node in enumerate(graph.nodes):
        where = f"node {number} ({node.op})"
        _require(node.op in ROWS, f"{where}: no such op")
        for x in node.reads():
            _check_access(graph, x, where)
            _require(
                x.version == versions[x.storage],
                f"{where}: reads s{x.storage}.{x.version}, current is {versions[x.storage]}",
            )
            _require(
                x.version > 0 or graph.storages[x.storage].kind == "leaf",
                f"{where}: reads s{x.storage} before it is written",
            )
        for x in node.outs:
            _check_access(graph, x, where)
            versions[x.storage] += 1
            _require(
                x.version == versions[x.storage],
                f"{where}: writes s{x.storage}.{x.version} instead of {versions[x.storage]}",
            )
        if node.kind == "map":
            _check_map(node, where)
        for region in node.regions:
            verify_graph(region)
    for number, storage in enumerate(graph.storages):
        made = storage.kind == "leaf" or not storage.live or versions[number] > 0
        _require(made, f"s{number} outlives the graph, but nothing writes it")


def _check_access(graph: Graph, x: Access, where: str) -> None:
    _require(0 <= x.storage < len(graph.storages), f"{where}: no storage s{x.storage}")
    _require(x.dtype in DTYPES and len(x.shape) == len(x.strides), f"{where}: malformed access {x}")
    if x.numel == 0:
        return
    low = sum(min(0, (n - 1) * s) for n, s in zip(x.shape, x.strides, strict=True))
    high = sum(max(0, (n - 1) * s) for n, s in zip(x.shape, x.strides, strict=True))
    size = graph.storages[x.storage].nbytes // DTYPES[x.dtype].itemsize
    inside = low >= 0 and high < size if x.offset < 0 else high - low < size
    _require(inside, f"{where}: {x} reaches outside of its storage of {size} elements")


def _check_map(node: Node, where: str) -> None:
    shape = node.outs[0].shape
    _require(all(x.shape == shape for x in node.outs), f"{where}: outputs of different shapes")
    for x in node.reads():
        lead = len(shape) - len(x.shape)
        fits = lead >= 0 and all(n in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True))
        _require(fits, f"{where}: {x.shape} does not broadcast to {shape}")
    for x in node.outs:
        single = all(s != 0 or n == 1 for n, s in zip(x.shape, x.strides, strict=True)) or x.numel == 0
        _require(single, f"{where}: writes an element twice")
    made = row_dtypes(node.op, [x.dtype for x in node.ins])
    _require(made == tuple(x.dtype for x in node.outs), f"{where}: dtypes {made} expected")


# ---- kernels ----------------------------------------------------------------------------------------------------


def verify_kernel(kernel: Kernel) -> None:
    """Names are assigned once and before use, every output is stored once, reductions reduce points or loads."""
    known = {p.name: p for p in kernel.params}
    _require(len(known) == len(kernel.params), f"{kernel.name}: two parameters of one name")
    names = {p.name for p in kernel.params if p.kind != "out"}
    stored = set()
    for s in kernel.body:
        used = s.args if isinstance(s, Map) else (s.arg,) if isinstance(s, Reduce) else (s.value,)
        for a in used:
            _require(not isinstance(a, str) or a in names, f"{kernel.name}: {a} is used before it is known")
        if isinstance(s, Store):
            _require(known[s.param].kind in ("out", "inout"), f"{kernel.name}: stores to {s.param}")
            _require(s.param not in stored, f"{kernel.name}: {s.param} is stored twice")
            _require(
                kernel.dtypes[s.value] == known[s.param].dtype, f"{kernel.name}: {s.param} is stored in another dtype"
            )
            stored.add(s.param)
            continue
        for name in s.names if isinstance(s, Map) else (s.name,):
            _require(name not in names, f"{kernel.name}: {name} is assigned twice")
            names.add(name)
    _require(
        stored == {p.name for p in kernel.params if p.kind in ("out", "inout")},
        f"{kernel.name}: an output is not stored",
    )
    for name in [a.length for a in kernel.axes] + [p.via for p in kernel.params]:
        _require(not name or name in known, f"{kernel.name}: no operand is called {name}")
    for p in kernel.params:
        _require(
            p.kind == "scalar" or len(p.strides) == len(kernel.axes),
            f"{kernel.name}: {p.name} has strides of another rank",
        )


# ---- schedules --------------------------------------------------------------------------------------------------


def verify_schedule(schedule: Schedule) -> None:
    """Kernels are sound, memory is written before it is read, and no two live buffers share bytes."""
    for step in schedule.kernels:
        verify_kernel(step.kernel)
        _require(len(step.operands) == len(step.kernel.params), f"{step.kernel.name}: operands do not match parameters")
    for native in (step for step in schedule.steps if isinstance(step, NativeStep)):
        for p in native.prologues:
            _check_prologue(native, p)
    _check_written(schedule)
    if schedule.memory is not None:
        _check_plan(schedule)


def _check_prologue(step: NativeStep, prologue: KernelStep) -> None:
    """Its one result is its last operand, of which the native kernel reads each element, and nobody else any."""
    name, kinds = prologue.kernel.name, [p.kind for p in prologue.kernel.params]
    made = prologue.operands[-1]
    _require(kinds.count("out") == 1 and kinds[-1] == "out", f"{name}: a prologue has one result, the last parameter")
    _require("inout" not in kinds and prologue.kernel.reduce < 0, f"{name}: a prologue is no plain map")
    _require(prologue.tile is not None and prologue.tile.made, f"{name}: a prologue is called for rectangles")
    reads = [x for x in step.node.reads() if isinstance(made, Access) and x.value == made.value]
    _require(len(reads) == 1, f"{name} makes no operand of {step.node.op}")


def _check_written(schedule: Schedule) -> None:
    written = {i for i, s in enumerate(schedule.storages) if s.kind == "leaf"}
    for number, step in enumerate(schedule.steps):
        reads = [x for x, write in touched(step) if not write]
        if isinstance(step, NativeStep):  # an in-place row or an epilogue reads what the step itself wrote
            written.update(x.storage for x in step.node.outs)
        for x in reads:
            _require(
                x.storage in written or x.numel == 0, f"step {number} reads s{x.storage}, which nothing has written"
            )
        written.update(x.storage for x, write in touched(step) if write)


def _check_plan(schedule: Schedule) -> None:
    """An independent look at the plan: who is alive when, from the steps alone, and whether bytes are disjoint."""
    memory = schedule.memory
    assert memory is not None
    alive: dict[int, tuple[int, int]] = {}
    for number, step in enumerate(schedule.steps):
        for x, _ in touched(step):
            home = schedule.home.get(x.storage, x.storage)
            if not schedule.storages[home].outside:
                alive[home] = (alive.get(home, (number, number))[0], number)
    for home, (first, last) in alive.items():
        _require(home in memory.offsets, f"s{home} has no place in the arena")
        offset, size = memory.offsets[home], schedule.storages[home].nbytes
        _require(offset % ALIGNMENT == 0, f"s{home} is not aligned")
        _require(offset + size <= memory.peak_bytes, f"s{home} reaches beyond the arena")
        for other, (begin, end) in alive.items():
            if other >= home or begin > last or end < first:
                continue
            start, length = memory.offsets[other], schedule.storages[other].nbytes
            apart = start + length <= offset or offset + size <= start
            _require(
                apart, f"s{home} and s{other} lie over each other during steps {max(first, begin)} to {min(last, end)}"
            )
