"""Folding: simplifications that are exact for every input. Run-time scalars are operands: nothing here sees them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..ir.graph import Access, Const, Graph, Node, Operand, Scalar, Versions, renumber
from ..ir.types import array_of, row_exprs, to_bits
from ..ops import scalar as s
from ..ops import to_numpy
from ..ops.dtypes import wide


def fold(graph: Graph) -> Graph:
    """One walk in node order: simplifies each node, then lets its readers look through it."""
    return _Fold(graph).run()


class _Fold:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.versions = Versions(graph)
        self.scalars: dict[int, Scalar | Const] = {}  # storage -> the one value that fills it
        self.copies: dict[int, Access] = {}  # storage -> what it is a copy of

    def run(self) -> Graph:
        nodes = []
        for node in self.graph.nodes:
            node = simplify(replace(node, ins=tuple(self._through(node, x) for x in node.ins)))
            self._learn(node)
            nodes.append(node)
        return renumber(self.graph.with_nodes(nodes))

    def _through(self, node: Node, x: Operand) -> Operand:
        """What the operand really is, looking through fills and copies."""
        if not isinstance(x, Access):
            return x
        if node.kind == "map" and x.storage in self.scalars:
            return self.scalars[x.storage]
        if x.storage in self.copies:
            return self._source(x, self.copies[x.storage])
        return x

    def _source(self, x: Access, source: Access) -> Access:
        if source.whole(self.graph.storages[source.storage]):
            return replace(
                x, storage=source.storage, version=source.version
            )  # any view of the copy is one of the source
        if x.offset < 0 and x.contiguous and x.shape == source.shape:
            return source
        return x

    def _learn(self, node: Node) -> None:
        if node.kind != "map" or len(node.outs) != 1 or not self.versions.final(node.outs[0]):
            return
        out = node.outs[0].storage
        if node.op == "full" and isinstance(node.ins[0], (Scalar, Const)):
            self.scalars[out] = node.ins[0]
        elif node.op == "copy":
            self._learn_copy(node)

    def _learn_copy(self, node: Node) -> None:
        """A copy stands for its source when that has the result's shape and is not written again."""
        x, out = node.ins[0], node.outs[0]
        if isinstance(x, Access) and x.shape == out.shape and self.versions.last[x.storage] == x.version:
            self.copies[out.storage] = x


def simplify(node: Node) -> Node:
    """The node, or a simpler one with the same result for every input, NaN and -0 included."""
    if node.kind != "map" or len(node.outs) != 1:
        return node
    constants = [x for x in node.ins if isinstance(x, Const)]
    if constants and node.op != "full" and len(constants) == len(node.ins):
        return _evaluated(node, constants)
    rule = _IDENTITIES.get(node.op)
    second = node.ins[1] if rule else None
    return rule(node, second.value) if rule and isinstance(second, Const) else node


def _evaluated(node: Node, constants: list[Const]) -> Node:
    made = row_exprs(node.op, tuple(x.dtype for x in node.ins))
    if any(e.op in ("fma", "index") for e in s.nodes(made)):
        return node  # fma rounds once or twice, which is the machine's to say
    result = to_numpy.evaluate(made, [array_of(x.bits, x.dtype) for x in constants], np, _no_fma)[0]
    bits = int.from_bytes(result.tobytes(), "little")
    return replace(node, op="full", ins=(Const(bits, node.outs[0].dtype),))


def _no_fma(*_: object) -> object:
    raise AssertionError("expressions with fma are not folded")


def _copy(node: Node) -> Node:
    return replace(node, op="copy", ins=node.ins[:1], attrs=())


def _mul(node: Node, y: float) -> Node:
    return _copy(node) if y == 1 else node


def _div(node: Node, y: float) -> Node:
    """Dividing by a power of two is multiplying by its inverse: both round the same exact quotient."""
    if y == 1:
        return _copy(node)
    small = {"f32": 2.0**126, "f64": 2.0**1022}[wide(node.ins[1].dtype)]
    if math.isfinite(y) and abs(math.frexp(y)[0]) == 0.5 and 1 / small <= abs(y) <= small:
        return replace(node, op="mul", ins=(node.ins[0], Const(to_bits(1 / y, node.ins[1].dtype), node.ins[1].dtype)))
    return node


def _add(node: Node, y: float) -> Node:
    """x + 0 is no identity: it turns -0 into +0."""
    return _copy(node) if y == 0 and (isinstance(y, int) or math.copysign(1, y) < 0) else node


def _sub(node: Node, y: float) -> Node:
    return _copy(node) if y == 0 and (isinstance(y, int) or math.copysign(1, y) > 0) else node


_IDENTITIES: dict[str, Callable[[Node, float], Node]] = {"mul": _mul, "div": _div, "add": _add, "sub": _sub}
