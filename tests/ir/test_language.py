"""Functions written by hand mean what their text says, run on every executor, and complain with positions."""

from __future__ import annotations

import numpy as np
import pytest
from bounds import assert_close

from neurlang import passes
from neurlang.ir import definitions
from neurlang.ir.graph import Graph
from neurlang.ir.interpret import interpret
from neurlang.ir.kernel import NativeStep
from neurlang.ir.language import parse_function
from neurlang.ir.reader import ParseError
from neurlang.ir.verify import verify
from neurlang.tracing import compiler

LINEAR = """
fn linear<B, I, O>(x: [B, I; f32], w: [O, I; f32], b: [O; f32]) -> [B, O; f32] {
    return [n, o] -> max(dot { x[n, i] * w[o, i] : i } + b[o], 0.0);   // a layer with its relu
}
"""

SOFTMAX = """
fn softmax<R, N>(x: [R, N; f64], scale: f64) -> [R, N; f64] {
    let e = [r, j] -> exp(x[r, j] * scale - max { x[r, k] * scale : k });
    return [r, j] -> e[r, j] / sum { e[r, k] : k };
}
"""

ATTENTION = """
fn scores<H, T, D>(q: [H, T, D; f32], k: [H, T, D; f32], gain: [H; f32]) -> [T, H, T; f32] {
    return [t, h, s] -> dot { gain[h] * q[h, t, d] * k[h, s, d] : d };
}
"""


def run(graph: Graph, *leaves: np.ndarray) -> np.ndarray:
    verify(graph)
    memory = {k: np.ascontiguousarray(x).reshape(-1).view(np.uint8).copy() for k, x in enumerate(leaves)}
    results = interpret(graph, memory, [], [], compiler().fma())
    (live,) = (k for k, s in enumerate(graph.storages) if s.live)
    return results[live].view(leaves[0].dtype)


def test_linear_is_matmul_bias_relu(rng: np.random.Generator) -> None:
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((5, 300), (7, 300), (7,)))
    graph = parse_function(LINEAR).graph({"B": 5, "I": 300, "O": 7})
    expected = np.maximum(definitions.matmul(x, w.T, (), compiler().fma()) + b, np.float32(0))
    assert np.array_equal(run(graph, x, w, b), expected.ravel())
    (step,) = passes.run(graph).steps
    assert isinstance(step, NativeStep) and step.epilogue is not None


def test_softmax_by_hand(rng: np.random.Generator) -> None:
    x, scale = rng.standard_normal((4, 600)), np.array(1.5)
    graph = parse_function(SOFTMAX).graph({"R": 4, "N": 600})
    e = np.exp(x * scale - (x * scale).max(1, keepdims=True))
    assert_close(run(graph, x, scale), (e / e.sum(1, keepdims=True)).ravel(), "softmax", n=600)
    assert len(passes.run(graph).steps) == 1


def test_dot_with_shared_indices_and_an_expression(rng: np.random.Generator) -> None:
    q, k, gain = (rng.standard_normal(s).astype(np.float32) for s in ((3, 5, 8), (3, 5, 8), (3,)))
    graph = parse_function(ATTENTION).graph({"H": 3, "T": 5, "D": 8})
    expected = definitions.matmul(gain[:, None, None] * q, k.transpose(0, 2, 1), (), compiler().fma())
    assert np.array_equal(run(graph, q, k, gain), expected.transpose(1, 0, 2).ravel())


def test_diagonals_and_absent_indices(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 4)).astype(np.float32)
    trace = parse_function("fn f<N>(x: [N, N; f32]) -> [; f32] { return [] -> sum { x[i, i] : i }; }")
    assert np.array_equal(run(trace.graph({"N": 4}), x), definitions.reduce("sum", np.diag(x).copy(), 0))
    times = parse_function("fn f<N>(x: [N, N; f32]) -> [N; f32] { return [i] -> sum { x[i, i] + 0 * x[k, k] : k }; }")
    expected = definitions.reduce("sum", np.repeat(np.diag(x)[:, None], 4, 1), 1)[:, 0]
    assert np.array_equal(run(times.graph({"N": 4}), x), expected)


HEAD = "fn f<N, M>(x: [N, M; f32], y: [M; f32], z: [N; f64], m: [N; b8], s: f32) -> [N; f32] { return "


@pytest.mark.parametrize(
    ("body", "at", "reason"),
    [
        ("[i] -> q[i]", "q", "no tensor"),
        ("[i] -> x[i]", "x", "1 indices"),
        ("[i] -> x[i, j]", "x", "'j' is not known"),
        ("[i] -> y[i]", "y", "runs over N, but M"),
        ("[i] -> sum { x[i, k] : j }", "x[", "'k' is not known"),
        ("[i] -> sum { s : j }", "sum", "runs over is not known"),
        ("[i] -> sum { x[i, i] : i }", "sum", "in use"),
        ("[i] -> z[i]", "[i]", "declared is"),
        ("[i, j] -> x[i, j]", "[i", "declared is"),
        ("[i] -> sum { x[i, j] : j } + z[i]", "+ z", "convert one"),
        ("[i] -> nosuch(s)", "nosuch", "no elementwise op"),
        ("[i] -> exp(s, s)", "exp", "takes 1"),
        ("[i] -> 1 + 2", "+ 2", "no number"),
        ("[i] -> exp(m[i])", "exp", "not defined on b8"),
        ("[i] -> dot { x[i, j] + y[j] : j }", "dot", "product"),
        ("[i] -> dot { x[i, j] * s : j }", "dot", "both factors"),
        ("[i, i] -> s", "[i", "stands twice"),
        ("[i] -> x[i j]", "j]", "expected ','"),
        ("[i] -> s s", "s;", "expected ';'"),
    ],
)
def test_errors_have_positions(body: str, at: str, reason: str) -> None:
    text = f"{HEAD}{body}; }}"
    with pytest.raises(ParseError, match=reason) as info:
        parse_function(text)
    assert info.value.line == 1
    assert info.value.column == len(HEAD) + f"{body};".index(at) + 1
