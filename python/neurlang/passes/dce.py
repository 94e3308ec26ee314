"""Dead code: drops nodes whose results nobody can see. Memory that outlives the graph, and checks, are the roots."""

from __future__ import annotations

from ..ir.graph import Graph, Node, renumber


def dce(graph: Graph) -> Graph:
    """Walks backwards, keeping what writes memory that is still looked at."""
    wanted = {i for i, s in enumerate(graph.storages) if s.outside}
    leaves = {i for i, s in enumerate(graph.storages) if s.kind == "leaf"}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if not node.may_fail and not any(x.storage in wanted for x in node.outs):
            continue
        kept.append(node)
        for out in node.outs:
            if out.whole(graph.storages[out.storage]) and node.op != "empty":
                wanted.discard(out.storage)  # what was there before is overwritten entirely
        wanted.update(x.storage for x in node.reads())
        if node.may_fail:
            wanted |= leaves  # should it fail, what was written before it is seen
    return renumber(graph.with_nodes(reversed(kept)))
