"""The CPU as a device: loads the compiled kernels and binds a schedule's steps to them as one program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ...ir import loops
from ...ir.graph import Access, Const, Node, Operand, Scalar
from ...ir.kernel import Kernel, KernelStep, NativeStep, Schedule, Step, finished_matrix
from ...ir.types import DTYPES
from .. import cstyle
from .compile import compile_files
from .render import Source, render

VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64, "neon": 16, "generic": 16}
GRAIN_NANOSECONDS = 8_000  # of work that a thread takes at least: below, waking it costs more than it brings


class Machine(Protocol):
    """What the extension module offers to a backend."""

    Program: Any
    load_library: Callable[[bytes], Any]
    native_address: Callable[[int], int]
    isa: Callable[[], str]
    simd_header: Callable[[], str]


@dataclass(frozen=True)
class Built:
    """A program and what it was made from."""

    program: Any
    source: str
    nbytes: int


def build(schedule: Schedule, op_numbers: dict[str, int], machine: Machine, version: str) -> Built:
    """Compiles (or finds in the cache) a schedule's kernels and makes the program."""
    level = machine.isa()
    source = render(schedule, machine.simd_header(), VECTOR_BYTES[level])
    elfs = compile_files(source.files, level, version) if source.files else []
    libraries = [machine.load_library(elf) for elf in elfs]
    binder = _Binder(schedule, source, libraries, op_numbers, machine, VECTOR_BYTES[level])
    steps = [binder.step(step) for step in schedule.steps]
    arena = schedule.memory.peak_bytes if schedule.memory is not None else 0
    program = machine.Program(len(schedule.storages), arena, binder.constants, steps)
    for library in libraries:
        program.keep(library)
    return Built(program, source.text, sum(map(len, elfs)) + 512 * len(steps))


@dataclass(frozen=True)
class RowKernel:
    """The eager kernel of a row that was registered at run time; `library` keeps its code alive."""

    address: int
    library: Any


def build_row(op: str, dtypes: tuple[str, ...], machine: Machine, version: str) -> RowKernel:
    """Compiles the elementwise kernel of one row for operands of these dtypes."""
    text = "\n".join([machine.simd_header(), cstyle.PRELUDE, cstyle.render_row(op, dtypes, "row")])
    library = machine.load_library(compile_files((text,), machine.isa(), version)[0])
    return RowKernel(library.symbol("row"), library)


class _Binder:
    """Turns steps into what Program takes: addresses, references, integers."""

    def __init__(
        self,
        schedule: Schedule,
        source: Source,
        libraries: list[Any],
        op_numbers: dict[str, int],
        machine: Machine,
        vector_bytes: int,
    ) -> None:
        self.schedule, self.source, self.libraries = schedule, source, libraries
        self.op_numbers, self.machine, self.vector_bytes = op_numbers, machine, vector_bytes
        self.constants: list[bytes] = []

    def step(self, step: Step) -> dict[str, Any]:
        if isinstance(step, KernelStep):
            units, size = loops.work(step.kernel)
            made = {
                "kind": "generated",
                "range": units,
                "grain": self._grain(step.kernel, size),
                "record": _record(step.nodes),
            }
            return made | self._call(step)
        node = step.node
        return {
            "kind": "native",
            "address": self.machine.native_address(self.op_numbers[node.op]),
            "op": self.op_numbers[node.op],
            "asked": self.op_numbers[node.checked or node.op],
            "ins": [self._view(x) for x in node.ins],
            "outs": [self._view(x) for x in node.outs],
            "attrs": list(node.attrs),
            "record": node.record,
            "epilogue": None if step.epilogue is None else self._epilogue(step, step.epilogue),
            "prologues": [{"input": step.input_of(p)} | self._call(p) for p in step.prologues],
        }

    def _epilogue(self, step: NativeStep, epilogue: KernelStep) -> dict[str, Any]:
        call = self._call(epilogue)
        if epilogue.tile is not None:
            return call
        rows, columns = finished_matrix(step.node)
        units, size = loops.work(epilogue.kernel)
        matrices = step.node.outs[0].numel // (rows * columns)
        each = units // (matrices * rows)
        grain = max(1, self._grain(epilogue.kernel, size) // each)
        return call | {"rows": (matrices, rows, columns, each, grain, self._taken(step, epilogue))}

    def _taken(self, step: NativeStep, epilogue: KernelStep) -> int:
        """The epilogue's operand that is the contraction's result, where nobody else looks at that; else -1."""
        memory, result = self.schedule.memory, step.node.outs[0].storage
        shared = result in self.schedule.home or result in self.schedule.home.values()
        many = len(epilogue.operands) > self.machine.Program.MAX_TAKEN
        if memory is None or shared or many or result not in memory.lifetimes:
            return -1
        first, last = memory.lifetimes[result]
        found = [n for n, x in enumerate(epilogue.operands) if isinstance(x, Access) and x.storage == result]
        return found[0] if first == last and len(found) == 1 and epilogue.kernel.params[found[0]].kind == "in" else -1

    def _call(self, step: KernelStep) -> dict[str, Any]:
        file, symbol = self.source.find(step)
        in_memory = step.operands[:-1] if step.tile is not None and step.tile.made else step.operands
        return {
            "address": self.libraries[file].symbol(symbol),
            "refs": [self._ref(x) for x in in_memory],
            "ints": cstyle.integers(step.kernel),
        }

    def _lanes(self, kernel: Kernel) -> int:
        return self.vector_bytes // (8 if loops.is_wide(kernel) else 4)

    def _grain(self, kernel: Kernel, size: int) -> int:
        """Units of work for one thread: an element costs its memory traffic and its operations, a vector at a time."""
        traffic = sum(DTYPES[p.dtype].itemsize for p in kernel.params if p.kind != "scalar")
        element = (0.05 * traffic + 0.15 * loops.kernel_weight(kernel)) / self._lanes(kernel)
        return max(1, round(GRAIN_NANOSECONDS / (element * max(size, 1))))

    def _view(self, x: Operand) -> tuple[Any, ...]:
        if isinstance(x, Access):
            return (self._ref(x), x.shape, x.strides, x.dtype)
        return (self._ref(x), (), (), x.dtype)

    def _ref(self, x: Operand) -> tuple[str, int, int, int, int]:
        if isinstance(x, Scalar):
            return ("scalar", x.index, 0, -1, DTYPES[x.dtype].itemsize)
        if isinstance(x, Const):
            self.constants.append(x.bits.to_bytes(8, "little"))
            return ("const", len(self.constants) - 1, 0, -1, DTYPES[x.dtype].itemsize)
        size = DTYPES[x.dtype].itemsize
        home = self.schedule.home.get(x.storage, x.storage)
        if self.schedule.storages[home].outside:
            return ("slot", home, 0, x.offset, size)
        assert self.schedule.memory is not None
        return ("arena", 0, self.schedule.memory.offsets.get(home, 0), x.offset, size)


def _record(nodes: tuple[Node, ...]) -> int:
    return min((n.record for n in nodes), default=-1)
