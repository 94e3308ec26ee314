"""Orientation: a product that is only read transposed is computed transposed, as bᵀaᵀ. Its bits are the same."""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Access, Graph, Node, Operand, Versions, contiguous_strides


def orient(graph: Graph) -> Graph:
    """Turns matmuls whose every reader walks down the columns; what follows then runs along memory, or on hot tiles."""
    versions = Versions(graph)
    nodes = list(graph.nodes)
    for number, node in enumerate(graph.nodes):
        if node.op != "matmul" or not _is_private(graph, versions, node):
            continue
        out = node.outs[0]
        readers = versions.readers.get(out.value, ())
        turned = {r: _turned_reader(nodes[r], out) for r in readers}
        if turned and all(n is not None for n in turned.values()):
            nodes[number] = _turned(node)
            for r, n in turned.items():
                nodes[r] = n or nodes[r]
    return graph.with_nodes(nodes)


def _is_private(graph: Graph, versions: Versions, node: Node) -> bool:
    """Whether only this graph's readers know how the result lies."""
    out = node.outs[0]
    storage = graph.storages[out.storage]
    once = versions.written_once(out.storage) and not storage.outside and out.whole(storage)
    return once and out.shape[-1] > 1 and out.shape[-2] > 1


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
    ins: list[Operand] = []
    for x in node.ins:
        if isinstance(x, Access) and x.storage == out.storage:
            turned = _turned_access(x, out.shape[-2], out.shape[-1])
            if turned is None:
                return None
            ins.append(turned)
        else:
            ins.append(x)
    return replace(node, ins=tuple(ins))


def _turned_access(x: Access, rows: int, columns: int) -> Access | None:
    """`x` over the transposed matrix, strides of rows and columns swapped; None unless it then ends in runs."""
    if x.offset >= 0:
        return None
    strides, down, across = [], 0, 0
    for extent, stride in zip(x.shape, x.strides, strict=True):
        if extent == 1 or stride % (rows * columns) == 0:
            strides.append(stride)
        elif stride % columns == 0:
            down += stride // columns * (extent - 1)
            strides.append(stride // columns)
        else:
            across += stride * (extent - 1)
            strides.append(stride * rows)
    inner = next((s for n, s in zip(reversed(x.shape), reversed(strides), strict=True) if n > 1), 0)
    fits = min(x.strides, default=0) >= 0 and down < rows and across < columns
    return replace(x, strides=tuple(strides)) if fits and inner == 1 else None
