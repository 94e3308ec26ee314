"""Graph: what a tape means, as memory SSA: nodes read and write strided accesses of versions of storages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..ops.table import ROWS
from .types import Dim, dtype_name, from_bits, nbytes

Value = tuple[int, int]  # (storage, version)


@dataclass(frozen=True, slots=True)
class Storage:
    """A piece of memory: a `leaf` exists before the graph runs, a `fresh` one is made by it; `live` ones outlast it."""

    kind: str
    nbytes: int
    live: bool
    device: str = "cpu"

    @property
    def outside(self) -> bool:
        """Whether the memory is visible to others: the planner may neither drop nor move it."""
        return self.live or self.kind == "leaf"


@dataclass(frozen=True, slots=True)
class Access:
    """A strided window into one version of a storage; strides in elements, the offset a run-time number or none."""

    storage: int
    version: int
    dtype: str
    shape: tuple[Dim, ...]
    strides: tuple[int, ...]
    offset: int = -1  # number of a run-time offset (in elements), -1: starts at element 0

    @property
    def value(self) -> Value:
        return (self.storage, self.version)

    @property
    def numel(self) -> int:
        return count(self.shape)

    @property
    def contiguous(self) -> bool:
        return self.strides == contiguous_strides(self.shape) or self.numel == 0

    @property
    def channels_last(self) -> bool:
        """Whether it is images of several pixels whose channels are adjacent, as in csrc/kernels/conv_geometry.hpp."""
        return len(self.shape) == 4 and self.strides[1] == 1 and self.shape[2] * self.shape[3] > 1

    def turned(self, rows: int, columns: int) -> Access | None:
        """The same elements of matrices that lie transposed; None where it is no walk over their rows and columns."""
        if self.offset >= 0:
            return None
        strides, down, across = [], 0, 0
        for extent, stride in zip(self.shape, self.strides, strict=True):
            if extent == 1 or stride % (rows * columns) == 0:
                strides.append(stride)
            elif stride % columns == 0:
                down += stride // columns * (extent - 1)
                strides.append(stride // columns)
            else:
                across += stride * (extent - 1)
                strides.append(stride * rows)
        fits = min(self.strides, default=0) >= 0 and down < rows and across < columns
        return replace(self, strides=tuple(strides)) if fits else None

    def whole(self, storage: Storage) -> bool:
        """Whether the access covers its storage exactly, in row-major order."""
        return self.offset < 0 and self.contiguous and nbytes(self.dtype, self.numel) == storage.nbytes


@dataclass(frozen=True, slots=True)
class Scalar:
    """A run-time scalar operand: cell number `index` holds a value of `dtype`."""

    index: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Const:
    """A scalar known when compiling; kept as bits so that equality is exact."""

    bits: int
    dtype: str

    @property
    def value(self) -> float | int:
        return from_bits(self.bits, self.dtype)


Operand = Access | Scalar | Const


@dataclass(frozen=True, slots=True)
class Node:
    """One op. Writing an access makes the next version of its storage."""

    op: str
    ins: tuple[Operand, ...]
    outs: tuple[Access, ...]
    attrs: tuple[int, ...] = ()
    regions: tuple[Graph, ...] = ()  # sub-graphs that the op runs (loops, branches); no row has any yet
    record: int = field(default=-1, compare=False)  # the tape record it came from, for error messages
    checked: str = field(default="", compare=False)  # the op whose checks it makes, for the same, where not its own

    @property
    def kind(self) -> str:
        return ROWS[self.op].kind

    def reads(self) -> Iterator[Access]:
        """The tensor operands."""
        return (x for x in self.ins if isinstance(x, Access))

    def map_accesses(self, change: Callable[[Access], Access]) -> Node:
        """The node with every access changed."""
        ins = tuple(change(x) if isinstance(x, Access) else x for x in self.ins)
        return replace(self, ins=ins, outs=tuple(map(change, self.outs)))

    @property
    def may_fail(self) -> bool:
        """Whether running it checks values (indices): an ordered effect."""
        return ROWS[self.op].checks


@dataclass(frozen=True, slots=True)
class Graph:
    """Storages and nodes; the nodes' order is an order in which they may run."""

    storages: tuple[Storage, ...]
    nodes: tuple[Node, ...]

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        return replace(self, nodes=tuple(nodes))

    def __str__(self) -> str:
        from .text import print_graph

        return print_graph(self)


def count(shape: Iterable[int]) -> int:
    """The number of elements of a shape."""
    n = 1
    for extent in shape:
        n *= extent
    return n


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides as the runtime computes them."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def from_tape(records: Sequence[Any], slots: Sequence[Any]) -> Graph:
    """Builds the graph of a tape: records (op, ins, outs, attrs) over slots (kind, nbytes, live, device)."""
    storages = tuple(Storage(kind, nbytes, bool(live), device) for kind, nbytes, live, device in slots)
    versions = [0] * len(storages)
    nodes = []
    for number, (op, ins, outs, attrs) in enumerate(records):
        reads = tuple(_operand(x, versions) for x in ins)
        writes = []
        for out in outs:
            versions[out[1]] += 1
            writes.append(_operand(out, versions))
        nodes.append(Node(op, reads, tuple(writes), tuple(attrs), record=number))
    return Graph(storages, tuple(nodes))


def _operand(words: Any, versions: list[int]) -> Any:
    if words[0] == "s":
        return Scalar(words[1], dtype_name(words[2]))
    _, slot, dtype, offset, shape, strides = words
    return Access(slot, versions[slot], dtype_name(dtype), tuple(shape), tuple(strides), offset)


def predecessors(graph: Graph) -> list[set[int]]:
    """For every node the nodes that must run before it.

    A reader of version v runs after its writer and before the writer of v + 1; writers of one storage run in order.
    Checks and writes to leaves are effects: they keep their order relative to each other's kind, so that when a check
    fails exactly the outside writes recorded before it have happened.
    """
    writer: dict[Value, int] = {}
    readers: dict[Value, list[int]] = {}
    before: list[set[int]] = []
    last_check = -1
    outside_writes: list[int] = []
    for number, node in enumerate(graph.nodes):
        needs: set[int] = set()
        for read in node.reads():
            if read.value in writer:
                needs.add(writer[read.value])
            readers.setdefault(read.value, []).append(number)
        for out in node.outs:
            old = (out.storage, out.version - 1)
            needs.update(readers.get(old, ()))
            if old in writer:
                needs.add(writer[old])
            writer[out.value] = number
        writes_outside = any(graph.storages[out.storage].kind == "leaf" for out in node.outs)
        if last_check >= 0 and (node.may_fail or writes_outside):
            needs.add(last_check)
        if node.may_fail:
            needs.update(outside_writes)
            last_check, outside_writes = number, []
        if writes_outside:
            outside_writes.append(number)
        needs.discard(number)
        before.append(needs)
    return before


class Versions:
    """Who writes and reads each version of each storage of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.storages = graph.storages
        self.writer: dict[Value, int] = {}
        self.readers: dict[Value, list[int]] = {}
        self.last = [0] * len(graph.storages)
        for number, node in enumerate(graph.nodes):
            for read in node.reads():
                self.readers.setdefault(read.value, []).append(number)
            for out in node.outs:
                self.writer[out.value] = number
                self.last[out.storage] = max(self.last[out.storage], out.version)

    def final(self, out: Access) -> bool:
        """Whether a write makes all that the graph's own storage ever holds."""
        storage = self.storages[out.storage]
        return storage.kind == "fresh" and self.last[out.storage] == 1 and out.whole(storage)

    def private(self, out: Access) -> bool:
        """Whether a write is final, and nobody but the graph's readers sees it or knows how it lies."""
        return self.final(out) and not self.storages[out.storage].live


def renumber(graph: Graph) -> Graph:
    """The same graph with versions counted anew in node order, after nodes were removed or replaced."""
    versions = [0] * len(graph.storages)
    nodes = []
    for node in graph.nodes:
        ins = tuple(_at(x, versions) if isinstance(x, Access) else x for x in node.ins)
        outs = []
        for out in node.outs:
            versions[out.storage] += 1
            outs.append(_at(out, versions))
        nodes.append(replace(node, ins=ins, outs=tuple(outs)))
    return graph.with_nodes(nodes)


def _at(access: Access, versions: list[int]) -> Access:
    version = versions[access.storage]
    return access if access.version == version else replace(access, version=version)
