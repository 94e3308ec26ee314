"""Products of rows that an index names: which are made, and the bits and errors of what they replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backends.replay import run_oracle
from ir.programs import Tape, View

import neurlang as nl
from neurlang.ir.verify import verify
from neurlang.passes.gather import gather


def picked(t: Tape, m: int = 300, op: str = "index_select", axis: int = 0) -> View:
    """Rows of a leaf, or its columns."""
    x, index = t.leaf("f32", (50, 40)), t.leaf("i64", (m,))
    out = t.fresh("f32", (50, m) if axis else (m, 40))
    t.write(op, [x, index], [out], (axis,) if op == "index_select" else (1, axis, axis))
    return out


def product(t: Tape, rows: View, n: int = 32) -> None:
    t.keep(t.matmul(rows, t.leaf("f32", (rows.shape[-1], n))))


def ops(t: Tape) -> list[str]:
    graph = gather(t.graph())
    verify(graph)
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("op", ["index_select", "index_get"])
def test_rows_that_one_product_reads_are_not_copied(op: str) -> None:
    t = Tape()
    product(t, picked(t, op=op))
    assert ops(t) == ["index_matmul"]


def few_rows(t: Tape) -> None:
    product(t, picked(t, m=200))


def many_columns(t: Tape) -> None:
    product(t, picked(t), n=600)


def one_column(t: Tape) -> None:
    product(t, picked(t), n=1)


def columns(t: Tape) -> None:
    product(t, picked(t, m=300, axis=1))


def on_the_right(t: Tape) -> None:
    t.keep(t.matmul(t.leaf("f32", (300, 300)), picked(t)))


def seen(t: Tape) -> None:
    rows = picked(t)
    t.keep(rows)
    product(t, rows)


def read_twice(t: Tape) -> None:
    rows = picked(t)
    product(t, rows)
    product(t, rows)


def part(t: Tape) -> None:
    rows = picked(t, m=600)
    product(t, View(rows.slot, "f32", (300, 40), rows.strides))


def table_written_between(t: Tape) -> None:
    rows = picked(t)
    table = View(rows.slot - 2, "f32", (50, 40), (40, 1))
    t.write("neg", [table], [table])
    product(t, rows)


def effect_between(t: Tape) -> None:
    rows, other = picked(t), t.leaf("f32", (3,))
    t.write("neg", [other], [other])
    product(t, rows)


def check_between(t: Tape) -> None:
    rows = picked(t)
    t.keep(picked(t))
    product(t, rows)


@pytest.mark.parametrize(
    "case",
    [
        few_rows, many_columns, one_column, columns, on_the_right, seen, read_twice, part, table_written_between,
        effect_between, check_between,
    ],
)  # fmt: skip
def test_other_selections_stay(case: Callable[[Tape], None]) -> None:
    t = Tape()
    case(t)
    assert "index_matmul" not in ops(t)


def test_its_definition_is_that_of_what_it_replaces(rng: np.random.Generator) -> None:
    t = Tape()
    rows = picked(t)
    made = t.matmul(rows, t.leaf("f32", (40, 32)))
    t.keep(made)
    graph, leaves = t.graph(), t.leaves(rng)
    expected, got = (run_oracle(g, t, leaves)[made.slot] for g in (graph, gather(graph)))
    assert (expected == got).all() and expected.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(6))
def test_bits(seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    m, k, n, extent = (int(rng.integers(*bounds)) for bounds in ((256, 700), (1, 600), (2, 200), (1, 90)))
    table = rng.standard_normal((extent, 2 * k)).astype(dtype)
    table[rng.random(table.shape) < 0.001] = rng.choice([np.nan, np.inf, -0.0])
    x = nl.tensor(table)[:, :k] if seed % 2 else nl.tensor(np.ascontiguousarray(table[:, :k]))
    index = nl.tensor(rng.integers(-extent, extent, 2 * m))[::2]
    w = nl.tensor(rng.standard_normal((n, k)).astype(dtype)).T if seed % 3 else nl.tensor(rng.random((k, n), dtype))

    def f(index: Any, x: Any, w: Any) -> Any:
        made = (x[index] if seed % 2 else nl.index_select(x, 0, index)) @ w
        return nl.relu(made + 1) if seed % 4 < 2 else made

    expected = f(index, x, w).numpy()
    traced, frozen, kept = nl.trace(f), nl.trace(f).freeze(index, x, w), nl.trace(lambda i: f(i, x, w)).freeze(index)
    before = nl.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            nl.set_num_threads(threads)
            for got in (traced(index, x, w), frozen(index, x, w), kept(index), kept(index)):
                np.testing.assert_array_equal(got.numpy().view(np.uint8), expected.view(np.uint8))
    finally:
        nl.set_num_threads(before)
    assert any(node.op == "index_matmul" for step in traced.program.schedule.steps for node in [step.node])


def test_gradients_are_eager() -> None:
    rng = np.random.default_rng(0)
    x, w = (nl.tensor(rng.standard_normal(s).astype(np.float32)).requires_grad_() for s in ((30, 20), (20, 8)))
    index = nl.tensor(rng.integers(0, 30, 400))

    def f(x: Any, w: Any) -> Any:
        return nl.grad((x[index] @ w).square().sum(), (x, w))

    for got, expected in zip(nl.trace(f)(x, w), f(x, w), strict=True):
        np.testing.assert_array_equal(got.numpy(), expected.numpy())


@pytest.mark.parametrize("bad", [30, -31, 2**40])
def test_errors_name_what_was_called(bad: int) -> None:
    x, w = nl.ones(30, 20), nl.ones(20, 8)
    index = nl.zeros(300, dtype=nl.int64)
    index[299] = bad
    for f in (lambda i: x[i] @ w, lambda i: nl.index_select(x, 0, i) @ w):
        with pytest.raises(IndexError) as eager:
            f(index)
        with pytest.raises(IndexError) as traced:
            nl.trace(f)(index)
        assert str(traced.value).startswith(f"{eager.value} (recorded at {__file__}:")
