"""Copies that lie as their source does: which of them go, and that results stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ir.programs import Tape, View, permute

import neurlang as nl
from neurlang.ir.verify import verify
from neurlang.passes.coalesce import coalesce


def ops(t: Tape) -> list[str]:
    graph = coalesce(t.graph())
    verify(graph)
    return [node.op for node in graph.nodes]


def kept(t: Tape, x: View) -> View:
    t.keep(x)
    return x


def test_the_source_is_made_where_the_result_lies_and_read_there() -> None:
    t = Tape()
    y = t.map("exp", t.leaf("f32", (3, 5)))
    z = kept(t, t.map("copy", y))
    kept(t, t.map("sin", permute(y, (1, 0))))
    graph = coalesce(t.graph())
    verify(graph)
    assert [node.op for node in graph.nodes] == ["exp", "sin"]
    assert graph.nodes[0].outs[0].storage == z.slot
    assert next(graph.nodes[1].reads()).storage == z.slot


def test_of_two_copies_one_stays() -> None:
    t = Tape()
    y = t.map("exp", t.leaf("f32", (3, 5)))
    for _ in range(2):
        kept(t, t.map("copy", y))
    assert ops(t) == ["exp", "copy"]


def test_a_copy_of_a_copy_is_made_where_the_last_one_lies() -> None:
    t = Tape()
    z = kept(t, t.map("copy", t.map("copy", t.map("exp", t.leaf("f32", (3, 5))))))
    kept(t, t.map("sin", z))
    graph = coalesce(t.graph())
    verify(graph)
    assert [node.op for node in graph.nodes] == ["exp", "sin"]
    assert graph.nodes[0].outs[0].storage == next(graph.nodes[1].reads()).storage == z.slot


def test_the_gradient_of_rows_that_an_index_names() -> None:
    # Laid into zeros, copied twice on its way to `.grad`.
    x = nl.ones(3, 2, requires_grad=True)
    with nl.trace():
        (x[nl.tensor([0, 0])] * 0.5).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


def copies_of_leaf(t: Tape, y: View) -> None:
    kept(t, t.map("copy", t.leaf("f32", (3, 5))))


def turns(t: Tape, y: View) -> None:
    kept(t, t.map("copy", permute(y, (1, 0))))


def repeats(t: Tape, y: View) -> None:
    z = kept(t, t.fresh("f32", (4, 3, 5)))
    t.write("copy", [y], [z])


def takes_part(t: Tape, y: View) -> None:
    kept(t, t.map("copy", View(y.slot, "f32", (2, 5), y.strides)))


def sees_source(t: Tape, y: View) -> None:
    kept(t, t.map("copy", kept(t, y)))


def writes_source(t: Tape, y: View) -> None:
    kept(t, t.map("copy", y))
    t.write("neg", [y], [y])
    kept(t, t.map("sin", y))


def writes_result(t: Tape, y: View) -> None:
    z = kept(t, t.map("copy", y))
    t.write("neg", [z], [z])
    kept(t, t.map("sin", y))


@pytest.mark.parametrize(
    "case", [copies_of_leaf, turns, repeats, takes_part, sees_source, writes_source, writes_result]
)
def test_copies_that_differ_from_their_source_stay(case: Callable[[Tape, View], None]) -> None:
    t = Tape()
    case(t, t.map("exp", t.leaf("f32", (3, 5))))
    assert "copy" in ops(t)


def test_a_product_that_is_taken_transposed_is_written_once(rng: np.random.Generator) -> None:
    def f(a: Any, b: Any) -> Any:
        return (a @ b).T.contiguous()

    a, b = (nl.tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((37, 20), (20, 45)))
    traced = nl.trace(f)
    assert traced(a, b).numpy().tobytes() == f(a, b).numpy().tobytes()
    assert traced.kernels == ()
