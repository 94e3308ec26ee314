"""From a tape to a program: the passes, then a backend. The only file that knows both.

The extension module lies on a floor above; it is handed in once, by `connect`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import passes
from .backends import cpu
from .ir.graph import Graph, from_tape
from .ir.interpret import interpret
from .ir.kernel import KernelStep, Memory, Schedule, touched
from .ir.types import dtype_name
from .lines import Line, line_text
from .ops.row import Row
from .ops.table import ROWS

VERSION = "0.1.0"  # part of the key of everything in the cache on disk
MAX_NOTES = 8  # lines that `why()` names

_machine: Any = None


def connect(machine: Any) -> None:
    """Hands in the extension module: programs, libraries, the processor's level, exact fma."""
    global _machine
    _machine = machine


@dataclass(frozen=True)
class Compiled:
    """A compiled tape: what runs, and everything one may want to look at."""

    captured: Graph  # as recorded
    graph: Graph  # after the passes over graphs
    schedule: Schedule
    source: str
    outputs: bytes  # a byte per slot: 1 where the program makes a fresh slot that outlives it
    nbytes: int
    handle: Any
    runner: Callable[[Any], None]

    @property
    def kernels(self) -> tuple[KernelStep, ...]:
        """The generated kernels: their text, operands and the nodes fused into them."""
        return self.schedule.kernels

    @property
    def memory(self) -> Memory:
        """The arena: peak bytes, lower bound, who lies where and when."""
        return self.schedule.memory or Memory()

    @property
    def inputs(self) -> tuple[int, ...]:
        """The slots of the storages from outside that the program reads or writes."""
        used = {x.storage for node in self.captured.nodes for x in (*node.reads(), *node.outs)}
        return tuple(i for i, s in enumerate(self.captured.storages) if s.kind == "leaf" and i in used)

    def made_before(self, step: int) -> list[int]:
        """The fresh slots that are finished when this step of the program begins."""
        unfinished = {x.storage for late in self.schedule.steps[max(step, 0) :] for x, write in touched(late) if write}
        return [i for i, made in enumerate(self.outputs) if made and i not in unfinished]

    def notes(self, lines: Sequence[Line]) -> list[str]:
        """What outlives the block and therefore needs memory, for `why()`: which lines made it, the largest first."""
        made = {x.storage: node.record for node in self.captured.nodes for x in node.outs}
        sizes: dict[str, list[int]] = {}
        for i, s in enumerate(self.captured.storages):
            if s.kind == "fresh" and s.live:
                record = made.get(i, -1)
                place = line_text(lines[record] if 0 <= record < len(lines) else None)
                sizes.setdefault(place, []).append(s.nbytes)
        kept = [
            f"kept from {place}: {len(n)} tensor{'s'[: len(n) != 1]}, {sum(n):,} bytes"
            for place, n in sorted(sizes.items(), key=lambda item: -sum(item[1]))
        ]
        rest = len(kept) - MAX_NOTES
        return [*kept[:MAX_NOTES], *([f"kept from {rest} more lines"] if rest > 0 else [])]

    def run(self, tape: Any) -> None:
        """Executes on the memory of a tape that matches."""
        self.runner(tape)


def compile_tape(records: Sequence[Any], slots: Sequence[Any], outputs: bytes, backend: str = "cpu") -> Compiled:
    """Compiles a tape; `outputs` says which fresh slots must be made."""
    live = [(kind, nbytes, bool(outputs[i]), device) for i, (kind, nbytes, _, device) in enumerate(slots)]
    captured = from_tape(records, live)
    graphs = [captured]
    schedule = passes.run(captured, after=lambda _, made: graphs.append(made) if isinstance(made, Graph) else None)
    if backend == "interpret":
        return _interpreted(captured, graphs[-1], schedule, outputs)
    built = importlib.import_module(f"{__package__}.backends.{backend}").build(
        schedule, _op_numbers(), _machine, VERSION
    )
    handle = None if built.program is None else _machine.ProgramHandle(built.program, outputs)
    runner = _run_op_by_op if handle is None else (lambda tape: tape.replay(handle))
    return Compiled(captured, graphs[-1], schedule, built.source, outputs, built.nbytes, handle, runner)


def _run_op_by_op(tape: Any) -> None:
    """What a backend that makes no programs leaves to do."""
    tape.run()


_row_kernels: dict[tuple[str, str], cpu.RowKernel] = {}  # eager code calls them for as long as the process lives


def compile_row(row: Row, dtype: str) -> int:
    """The address of the eager kernel (a MapFn) of a row registered at run time, `T` being `dtype`."""
    dtype = dtype_name(dtype)
    key = (row.name, dtype)
    if key not in _row_kernels:
        dtypes = tuple(dtype if t == "T" else t for t in row.in_types)
        _row_kernels[key] = cpu.build_row(row.name, dtypes, _machine, VERSION)
    return _row_kernels[key].address


def _op_numbers() -> dict[str, int]:
    """A row's place in the table is its number."""
    return {name: number for number, name in enumerate(ROWS)}


def _interpreted(captured: Graph, graph: Graph, schedule: Schedule, outputs: bytes) -> Compiled:
    """Runs the recorded graph with the oracle, on the tape's own memory."""

    def run(tape: Any) -> None:
        memory = tape.memory(outputs)
        leaves = {i: x for i, x in enumerate(memory) if captured.storages[i].kind == "leaf"}
        results = interpret(captured, leaves, tape.offsets(), tape.scalar_values(), fma())
        for i, array in enumerate(memory):
            if outputs[i]:
                array[...] = results[i]
        tape.finish()

    return Compiled(captured, graph, schedule, str(captured), outputs, len(str(captured)), None, run)


def fma() -> Callable[[Any, Any, Any], Any]:
    """The machine's fma on arrays: fused where its level has the instruction."""
    if _machine.isa() == "baseline":
        return lambda a, b, c: a * b + c
    return lambda a, b, c: (_machine.fma_f32 if a.dtype == np.float32 else _machine.fma_f64)(a, b, c)
