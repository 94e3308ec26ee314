"""Orientation: a product that is only read transposed is computed transposed, as bᵀaᵀ. Its bits are the same."""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Access, Graph, Node, Versions, contiguous_strides


def orient(graph: Graph) -> Graph:
    """Turns matmuls whose every reader walks down the columns; what follows then runs along memory, or on hot tiles."""
    versions = Versions(graph)
    nodes = list(graph.nodes)
    for number, node in enumerate(graph.nodes):
        out = node.outs[0]
        if node.op != "matmul" or min(out.shape[-2:]) < 2 or not versions.private(out):
            continue
        readers = versions.readers.get(out.value, ())
        turned = {r: _turned_reader(nodes[r], out) for r in readers}
        if turned and all(n is not None for n in turned.values()):
            nodes[number] = _turned(nodes[number])  # whose operands may be turned already
            for r, n in turned.items():
                nodes[r] = n or nodes[r]
    return graph.with_nodes(nodes)


def _turned(node: Node) -> Node:
    a, b = (_swapped(x) for x in node.reads())
    out = node.outs[0]
    shape = (*out.shape[:-2], out.shape[-1], out.shape[-2])
    return replace(node, ins=(b, a), outs=(replace(out, shape=shape, strides=contiguous_strides(shape)),))


def _swapped(x: Access) -> Access:
    shape, strides = list(x.shape), list(x.strides)
    shape[-2:], strides[-2:] = shape[:-3:-1], strides[:-3:-1]
    return replace(x, shape=tuple(shape), strides=tuple(strides))


def _turned_reader(node: Node, out: Access) -> Node | None:
    """The reader with its accesses of the result rewritten, or None when one of them gains nothing."""
    found = {x: x.turned(*out.shape[-2:]) for x in node.reads() if x.storage == out.storage}
    if not all(x is not None and _ends_in_runs(x) for x in found.values()):
        return None
    return node.map_accesses(lambda x: found.get(x) or x)


def _ends_in_runs(x: Access) -> bool:
    return next((s for n, s in zip(reversed(x.shape), reversed(x.strides), strict=True) if n > 1), 0) == 1
