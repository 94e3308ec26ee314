"""Coalescing: memory that only the graph sees, and that is copied as it lies into a result, is that result's memory."""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Access, Graph, Node, Versions, renumber


def coalesce(graph: Graph) -> Graph:
    """Drops copies of what lies as their result does; the layout of images, or of a product, may have made it so."""
    versions = Versions(graph)
    result: dict[int, int] = {}  # of a storage whose place it takes
    nodes = []
    for node in graph.nodes:
        source = _source(graph, versions, node)
        if source is None or source.storage in result:
            nodes.append(node)
        else:
            result[source.storage] = node.outs[0].storage
    if not result:
        return graph
    moved = (n.map_accesses(lambda x: replace(x, storage=_place(result, x.storage))) for n in nodes)
    return renumber(graph.with_nodes(moved))


def _place(result: dict[int, int], storage: int) -> int:
    """Where the storage lies: a result may itself have been copied into another one."""
    while storage in result:
        storage = result[storage]
    return storage


def _source(graph: Graph, versions: Versions, node: Node) -> Access | None:
    """What the node copies whole, if from then on it and the result stay the same, and nobody outside would see it."""
    x, out = (node.ins[0], node.outs[0]) if node.op == "copy" else (None, None)
    if not isinstance(x, Access) or out is None:
        return None
    source, result = graph.storages[x.storage], graph.storages[out.storage]
    private = source.kind == "fresh" and not source.live and source.device == result.device
    final = versions.last[x.storage] == x.version and versions.final(out)
    alike = (x.shape, x.dtype) == (out.shape, out.dtype) and x.whole(source)
    return x if private and final and alike else None
