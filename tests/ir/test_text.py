"""Graphs and kernels print to text that parses back to the same object; wrong text says where it is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from neurlang import passes
from neurlang.ir.graph import Access, Const, Graph, Node, Scalar, Storage
from neurlang.ir.kernel import Axis, Kernel, Map, Param, Reduce, Store
from neurlang.ir.text import ParseError, parse_graph, parse_kernel, print_graph, print_kernel
from neurlang.ir.types import to_bits
from neurlang.ir.verify import VerifyError, verify_kernel

from .programs import Generator


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_and_kernels_survive(seed: int) -> None:
    graph = Generator(seed).tape.graph()
    assert _without_records(parse_graph(print_graph(graph))) == _without_records(graph)
    for step in passes.run(graph).kernels:
        assert parse_kernel(print_kernel(step.kernel)) == step.kernel


def _without_records(graph: Graph) -> tuple[object, ...]:
    return (graph.storages, graph.nodes)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -1e-45, 3.4e38, math.inf, -math.inf, math.nan])
def test_constants_keep_their_bits(value: float, dtype: str) -> None:
    out = Access(0, 1, dtype, (2, 3), (1, 2), 4)
    graph = Graph(
        (Storage("leaf", 48, True),), (Node("full", (Const(to_bits(value, dtype), dtype),), (out,), (7, -1)),)
    )
    assert parse_graph(print_graph(graph)) == graph


def test_a_graph_reads_as_expected() -> None:
    x = Access(0, 0, "f32", (4, 8), (1, 4), 2)
    y = Access(1, 1, "f32", (4, 8), (8, 1))
    graph = Graph(
        (Storage("leaf", 512, False), Storage("fresh", 128, True)), (Node("add", (x, Scalar(3, "f32")), (y,)),)
    )
    assert print_graph(graph) == (
        "graph {\n  s0: leaf 512 cpu\n  s1: fresh 128 cpu live\n"
        "  s1.1 f32[4, 8] = add(s0.0+o2 f32[4, 8; 1, 4], $3 f32)\n}\n"
    )


def test_a_kernel_reads_as_expected() -> None:
    kernel = Kernel(
        "k0",
        (Axis("i", 4), Axis("j", 8)),
        (Param("a", "in", "f32", (8, 1)), Param("c", "scalar", "f32"), Param("o", "out", "f32", (-1, 0), True)),
        (Map(("v",), "mul", ("a", "c")), Reduce("s", "sum", "v"), Store("o", "s")),
        1,
    )
    text = (
        "kernel k0 [i: 4, j: 8] reduce j {\n  in a: f32[i*8 + j]\n  scalar c: f32\n  out o: f32[i*-1] stream\n"
        "  v = mul(a, c)\n  s = sum { v : j }\n  o = s\n}\n"
    )
    assert print_kernel(kernel) == text
    assert parse_kernel(text) == kernel


def test_what_is_prepared_prints_and_parses() -> None:
    inner = Graph((Storage("leaf", 4, False),), ())
    out = Access(0, 1, "f32", (1,), (1,))
    graph = Graph(
        (Storage("leaf", 4, False),), (Node("neg", (Access(0, 0, "f32", (1,), (1,)),), (out,), (), (inner, inner)),)
    )
    assert parse_graph(print_graph(graph)) == graph
    kernel = Kernel(
        "k",
        (Axis("i", 8, "c"), Axis("j", 4)),
        (Param("c", "scalar", "i64"), Param("x", "in", "i64", (1, 0)), Param("a", "in", "f32", (4, 1), False, "x")),
        (),
    )
    assert "i: 8 <= c" in print_kernel(kernel) and parse_kernel(print_kernel(kernel)) == kernel
    verify_kernel(kernel)
    with pytest.raises(VerifyError):
        verify_kernel(replace(kernel, axes=(Axis("i", 8, "nobody"), Axis("j", 4))))


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("graph {\n  s0: tree 4 cpu\n}", 2, 7, "unknown kind"),
        ("graph {\n  s1: leaf 4 cpu\n}", 2, 3, "out of order"),
        ("graph {\n  s0: leaf 4 cpu\n  s0.1 f33[1] = neg(s0.0 f32[1])\n}", 3, 8, "unknown dtype"),
        ("graph {\n  s0: leaf 4 cpu\n  s0.1 f32[1] = neg(s0.0 f32[1]\n}", 4, 1, "expected ','"),
        ("graph {\n  s0: leaf 4 cpu ?\n}", 2, 18, "unexpected '?'"),
        ("graph {", 1, 8, "expected"),
        ("kernel k [i: 4] {\n  in a: f32[j]\n}", 2, 13, "no axis"),
        ("kernel k [i: 4] {\n  in a: f32[i]\n  b = a\n}", 4, 1, "not a parameter"),
    ],
)
def test_errors_have_positions(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(ParseError, match=reason) as info:
        (parse_graph if text.startswith("graph") else parse_kernel)(text)
    assert (info.value.line, info.value.column) == (line, column)
