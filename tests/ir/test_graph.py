"""Graphs from tapes: versions, the order of nodes that touch the same memory, effects; what the verifier refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neurlang.ir.graph import Graph, predecessors, renumber
from neurlang.ir.verify import VerifyError, verify_graph

from .programs import Generator, Tape, narrow, permute


def tape() -> Tape:
    """x += 1 between two reads of x, through a view the second time."""
    t = Tape()
    x = t.leaf("f32", (4, 6))
    before = t.map("exp", x)
    t.write("add", [x, t.scalar(1, "f32")], [x])
    t.keep(before)
    t.keep(t.map("neg", permute(narrow(x, 1, 1, 2, 2), (1, 0))))
    return t


def test_a_write_makes_a_version() -> None:
    graph = tape().graph()
    exp, add, neg = graph.nodes
    assert [x.value for x in exp.reads()] == [(0, 0)]
    assert [x.value for x in add.outs] == [(0, 1)]
    assert [x.value for x in neg.reads()] == [(0, 1)]
    assert next(neg.reads()).offset == 0  # a view: its start is a run-time offset
    verify_graph(graph)


def test_reads_run_before_the_next_write() -> None:
    assert predecessors(tape().graph()) == [set(), {0}, {1}]


def test_checks_and_outside_writes_keep_their_order() -> None:
    t = Tape()
    x, index, p, q = t.leaf("f32", (4, 3)), t.leaf("i64", (4, 1)), t.leaf("f32", (5,)), t.leaf("f32", (5,))
    t.write("add", [p, t.scalar(1, "f32")], [p])
    picked = t.fresh("f32", (4, 1), live=True)
    t.write("gather", [x, index], [picked], [1])
    t.write("add", [q, t.scalar(1, "f32")], [q])
    inside = t.map("exp", x)
    t.keep(inside)
    t.write("gather", [x, index], [t.fresh("f32", (4, 1), live=True)], [1])
    # The second check waits for the first and for the write between them; work inside waits for nothing.
    assert predecessors(t.graph()) == [set(), {0}, {1}, set(), {1, 2}]


def test_versions_are_counted_anew() -> None:
    graph = tape().graph()
    without = renumber(graph.with_nodes(graph.nodes[::2]))
    assert [x.value for n in without.nodes for x in n.reads()] == [(0, 0), (0, 0)]


def broken(graph: Graph) -> list[Graph]:
    """The graph with one rule broken each."""
    exp, add, neg = graph.nodes
    x = exp.ins[0]

    def with_node(number: int, node: object) -> Graph:
        return graph.with_nodes([node if k == number else n for k, n in enumerate(graph.nodes)])

    return [
        with_node(0, replace(exp, op="no_such_op")),
        with_node(0, replace(exp, ins=(replace(x, version=1),))),
        with_node(0, replace(exp, ins=(replace(x, shape=(4, 7)),))),
        with_node(0, replace(exp, ins=(replace(x, strides=(7, 1)),))),
        with_node(0, replace(exp, ins=(replace(x, strides=(-6, 1)),))),
        with_node(0, replace(exp, ins=(replace(x, storage=9),))),
        with_node(0, replace(exp, ins=(replace(x, dtype="f64"),))),
        with_node(1, replace(add, outs=(replace(add.outs[0], strides=(0, 1)),))),
        with_node(1, replace(add, outs=(replace(add.outs[0], version=3),))),
        with_node(0, replace(exp, ins=(replace(exp.outs[0], version=0),))),
        graph.with_nodes([exp, neg, add]),
    ]


@pytest.mark.parametrize("number", range(11))
def test_the_verifier_refuses(number: int) -> None:
    with pytest.raises(VerifyError):
        verify_graph(broken(tape().graph())[number])


@pytest.mark.parametrize("seed", range(40))
def test_random_tapes_are_sound(seed: int) -> None:
    graph = Generator(seed).tape.graph()
    verify_graph(graph)
    order = predecessors(graph)
    assert all(p < n for n, preds in enumerate(order) for p in preds)
