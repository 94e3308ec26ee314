"""Expansion: composites become the primitives that define them where fusion can join them to others. The bits stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..ir.graph import Access, Const, Graph, Node, Operand, Storage, contiguous_strides, count, renumber
from ..ir.kernel import is_shallow
from ..ir.types import DTYPES, nbytes, row_dtypes, to_bits
from ..ops.dtypes import wide
from ..ops.table import ROWS


def expand(graph: Graph) -> Graph:
    """Replaces composites of one result, with reductions along the innermost axis, beside loops over their elements.

    So it does behind products that are soon done, whose rows the loop then takes from L2.

    Others keep their kernel: alone it is as fast as a generated one, and nobody waits for a compiler.
    """
    storages = list(graph.storages)
    loops = [node for node in graph.nodes if node.kind in ("map", "reduce") or _expands(node)]
    made = {x.storage for node in (*loops, *filter(is_shallow, graph.nodes)) for x in node.outs}
    used = {x.storage for node in loops for x in node.reads()}
    nodes: list[Node] = []
    for node in graph.nodes:
        if _expands(node) and (node.outs[0].storage in used or any(x.storage in made for x in _elements(node))):
            nodes += _Builder(storages, node).nodes
        else:
            nodes.append(node)
    return renumber(replace(graph, storages=tuple(storages), nodes=tuple(nodes)))


def _elements(node: Node) -> list[Access]:
    """The operands of as many elements as the first, whose rows it takes."""
    first = next(node.reads())
    return [x for x in node.reads() if x.numel == first.numel]


def _expands(node: Node) -> bool:
    """Whether the pass can write a node down as primitives."""
    if node.kind != "composite" or node.may_fail or len(node.outs) > 1 or node.outs[0].numel == 0:
        return False
    x = next(iter(node.reads()))
    axis = node.attrs[0] if "axis" in ROWS[node.op].attrs else -1
    return x.shape[axis] > 1 and count(x.shape[axis % len(x.shape) + 1 :]) == 1


class Symbol:
    """A tensor of a definition that is being expanded: an operand and the builder it belongs to."""

    def __init__(self, builder: _Builder, operand: Access) -> None:
        self.builder, self.operand = builder, operand

    @property
    def shape(self) -> tuple[int, ...]:
        return self.operand.shape

    def __add__(self, other: Any) -> Symbol:
        return self.builder.map("add", self, other)

    def __sub__(self, other: Any) -> Symbol:
        return self.builder.map("sub", self, other)

    def __mul__(self, other: Any) -> Symbol:
        return self.builder.map("mul", self, other)

    def __truediv__(self, other: Any) -> Symbol:
        return self.builder.map("div", self, other)


class _Builder:
    """The namespace `F` of a definition: every op appends a node."""

    def __init__(self, storages: list[Storage], node: Node) -> None:
        self.storages, self.node = storages, node
        self.nodes: list[Node] = []
        define = ROWS[node.op].define
        assert define is not None
        result = define(self, *(self.widened(x) for x in node.reads()), *node.attrs)
        self.converted(result, node.outs[0].dtype)
        self.storages.pop()
        self.nodes[-1] = replace(self.nodes[-1], outs=node.outs)  # the last op makes the composite's own result

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        row = ROWS[name]
        if row.kind == "reduce":
            return lambda x, axis, keepdim: self.append(name, (x.operand,), _kept(x.shape, axis), (axis,))
        return lambda *args: self.map(name, *args)

    def widened(self, x: Access) -> Symbol:
        return self.converted(Symbol(self, x), wide(x.dtype))

    def converted(self, x: Symbol, dtype: str) -> Symbol:
        """x in another dtype; x itself when it is already."""
        return x if x.operand.dtype == dtype else self.map(f"to_{DTYPES[dtype].name}", x)

    def map(self, op: str, *args: Any) -> Symbol:
        tensors = [a.operand for a in args if isinstance(a, Symbol)]
        dtype = tensors[0].dtype
        operands = tuple(a.operand if isinstance(a, Symbol) else Const(to_bits(a, dtype), dtype) for a in args)
        return self.append(op, operands, _broadcast([x.shape for x in tensors]), ())

    def append(self, op: str, operands: tuple[Operand, ...], shape: tuple[int, ...], attrs: tuple[int, ...]) -> Symbol:
        dtype = row_dtypes(op, [x.dtype for x in operands])[0]
        out = Access(len(self.storages), 1, dtype, shape, contiguous_strides(shape))
        self.storages.append(Storage("fresh", nbytes(dtype, count(shape)), False))
        self.nodes.append(Node(op, operands, (out,), attrs, record=self.node.record))
        return Symbol(self, out)


def _kept(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    axis %= len(shape)
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(max(extents) if 0 not in extents else 0 for extents in zip(*padded, strict=True))
