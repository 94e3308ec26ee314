"""Common subexpressions: a node that repeats another one's work reads the first result instead."""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Access, Graph, Node, Operand, Versions, renumber


def cse(graph: Graph) -> Graph:
    """Only for results that are written once and whole, so that the two storages stay equal for ever."""
    versions = Versions(graph)
    stands_for: dict[int, int] = {}  # dropped storage -> the storage that holds the same
    seen: dict[Node, Node] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node = replace(node, ins=tuple(_renamed(x, stands_for) for x in node.ins))
        if node.may_fail or node.op == "empty" or not all(map(versions.final, node.outs)):
            kept.append(node)
            continue
        key = replace(node, outs=tuple(replace(x, storage=-1, version=0) for x in node.outs))
        first = seen.setdefault(key, node)
        if first is node or any(graph.storages[x.storage].live for x in node.outs):
            kept.append(node)
        else:
            stands_for.update((x.storage, y.storage) for x, y in zip(node.outs, first.outs, strict=True))
    return renumber(graph.with_nodes(kept))


def _renamed(x: Operand, stands_for: dict[int, int]) -> Operand:
    if isinstance(x, Access) and x.storage in stands_for:
        return replace(x, storage=stands_for[x.storage])
    return x
