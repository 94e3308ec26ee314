"""Compiled programs give the oracle's bits: random graphs, every kernel form at awkward sizes, any threads."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from ir.programs import Generator, Tape, View, narrow, permute

from neurlang.ir import loops
from neurlang.ir.kernel import BLOCK, KernelStep, NativeStep
from neurlang.passes import prologue

from .replay import compiled, difference, machine, run_oracle, run_program


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = machine().get_num_threads()
    yield
    machine().set_num_threads(before)


def check(tape: Tape, rng: np.random.Generator, threads: tuple[int, ...] = (1, 3)) -> list[KernelStep | NativeStep]:
    """Compares program and oracle; returns the steps."""
    graph, schedule, built = compiled(tape)
    leaves = tape.leaves(rng)
    expected = run_oracle(graph, tape, leaves)
    for n in threads:
        machine().set_num_threads(n)
        wrong = difference(tape, graph, expected, run_program(built, graph, tape, leaves))
        assert not wrong, f"{n} threads: {wrong}\n{graph}\n" + "\n".join(str(k.kernel) for k in schedule.kernels)
    return list(schedule.steps)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed: int, rng: np.random.Generator) -> None:
    check(Generator(seed).tape, rng)


@pytest.mark.parametrize("seed", range(100, 115))
def test_long_graphs_are_fused_in_windows(seed: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["neurlang.passes.fuse"], "WINDOW", 5)
    check(Generator(seed).tape, rng)


@pytest.mark.parametrize("seed", range(200, 240))
def test_random_graphs_with_prologues_of_any_size(
    seed: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prologue, "pays", lambda *args: True)
    check(Generator(seed, ops=18).tape, rng)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_many_random_graphs(first: int, rng: np.random.Generator) -> None:
    for seed in range(first, first + 100):
        check(Generator(seed, ops=18).tape, rng)


SIZES = [1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 100, 511, 512, 513, 1000, 1100, 4096, 4097, 9000]


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64", "b8", "u8"])
@pytest.mark.parametrize("n", SIZES)
def test_runs(n: int, dtype: str, rng: np.random.Generator) -> None:
    t = Tape()
    x, y = t.leaf(dtype, (n,)), t.leaf(dtype, (n,))
    chosen = t.map("where", t.map("lt", x, y), x, t.map("maximum", x, y))
    t.keep(t.map("to_float32", chosen))
    t.keep(chosen)
    assert len(check(t, rng)) == 1


@pytest.mark.parametrize("union", ["logical_or", "logical_and", "logical_xor"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
def test_comparisons_that_are_used_beside_their_union(dtype: str, union: str, rng: np.random.Generator) -> None:
    # gcc 12 without SSE4.1 took the union for one of the two wherever that was used
    for first, second in itertools.combinations(["lt", "gt", "eq", "le", "ge", "ne"], 2):
        t = Tape()
        x, y = (t.map("sign", t.leaf(dtype, (100,))) for _ in range(2))  # few values: many are equal
        a, b = t.map(first, x, y), t.map(second, x, y)
        t.keep(t.map("where", a, x, t.map("add", x, y)))
        t.keep(t.map("where", t.map(union, a, b), y, t.map("mul", x, x)))
        t.keep(t.map("where", b, t.map("mul", x, y), y))
        check(t, rng, threads=(1,))


ROWS = [(3, n) for n in SIZES] + [(rows, n) for rows in (1, 15, 16, 17, 50) for n in (2, 33, 64, 200, 600)]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(("rows", "n"), ROWS)
def test_rows(rows: int, n: int, dtype: str, rng: np.random.Generator) -> None:
    """Chained reductions, values kept between sweeps, row values read and written; rows in whole groups and not."""
    t = Tape()
    x, scale = t.leaf(dtype, (rows, n)), t.leaf(dtype, (rows, 1))
    y = t.composite("softmax", [t.map("mul", x, scale)], [1])
    total = t.reduce("sum", t.map("mul", y, x), 1)
    t.keep(t.map("sub", y, t.map("sqrt", t.map("abs", total))))
    t.keep(t.map("add", total, scale))
    t.keep(t.reduce("prod", t.map("cos", x), 1))
    steps = check(t, rng)
    assert n == 1 or len(steps) == 1


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("columns", [1, 5, 16, 33, 64, 130, 1100])
@pytest.mark.parametrize("n", [2, 31, 33, 512, 513, 1200])
def test_columns(n: int, columns: int, dtype: str, rng: np.random.Generator) -> None:
    """A reduction over an outer axis with its producers, its points stored, and maps of its results."""
    t = Tape()
    x, bias, old = t.leaf(dtype, (2, n, columns)), t.leaf(dtype, (columns,)), t.leaf(dtype, (2, 1, columns))
    y = t.map("tanh", t.map("add", x, bias))
    t.keep(y)
    total, largest = t.reduce("sum", y, 1), t.reduce("amax", y, 1)
    t.write("add", [old, t.map("mul", total, largest)], [old])
    check(t, rng)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 5, 7), (7, 5, 1), (2, 3, 2), (33, 70, 65), (128, 300, 40)])
def test_epilogues(m: int, k: int, n: int, rng: np.random.Generator) -> None:
    t = Tape()
    a, b, bias, rows = t.leaf("f32", (3, m, k)), t.leaf("f32", (3, k, n)), t.leaf("f32", (n,)), t.leaf("f32", (3, m, 1))
    y = t.matmul(a, b)
    h = t.map("gelu_tanh", t.map("add", y, bias))
    t.keep(t.map("mul", h, rows))
    steps = check(t, rng)
    assert [isinstance(s, NativeStep) and s.epilogue is not None for s in steps] == [True]


def test_convolutions_take_epilogues(rng: np.random.Generator) -> None:
    t = Tape()
    x, w, bias = t.leaf("f32", (2, 4, 9, 8)), t.leaf("f32", (6, 2, 3, 3)), t.leaf("f32", (6, 1, 1))
    y = t.fresh("f32", (2, 6, 5, 4))
    t.write("conv2d", [x, w], [y], [2, 2, 1, 1, 1, 1, 2, 2])
    t.keep(t.map("relu", t.map("add", y, bias)))
    assert len(check(t, rng)) == 1


def test_weight_updates_run_on_the_tiles_of_their_gradient(rng: np.random.Generator) -> None:
    """The gradient is only read transposed, so it is computed transposed, and never reaches another step."""
    t = Tape()
    x, g = t.leaf("f32", (50, 30)), t.leaf("f32", (50, 20))
    p, buf = t.leaf("f32", (20, 30)), t.leaf("f32", (20, 30))
    grad = permute(t.matmul(permute(x, (1, 0)), g), (1, 0))
    numbers = [t.scalar(v, "f32") for v in (0.1, 0.9, 0.0, 0.01)]
    t.write("sgd_momentum_", [p, grad, buf, *numbers], [p, buf])
    (step,) = check(t, rng)
    assert isinstance(step, NativeStep) and step.epilogue is not None and step.node.outs[0].shape == (20, 30)


VIEWS: list[Callable[[View], View]] = [
    lambda x: permute(x, (1, 0)),
    lambda x: narrow(x, 1, 20, -1, 21),
    lambda x: narrow(x, 0, 1, 2, 10),
    lambda x: permute(narrow(x, 0, 19, -3, 7), (1, 0)),
]


@pytest.mark.parametrize("number", range(len(VIEWS)))
@pytest.mark.parametrize("dtype", ["f32", "u8", "f64"])
def test_strided_operands_and_results(number: int, dtype: str, rng: np.random.Generator) -> None:
    t = Tape()
    x, y = (VIEWS[number](t.leaf(dtype, (21, 21))) for _ in range(2))
    t.write("maximum", [x, y], [y])
    t.keep(t.map("mul", x, y))
    check(t, rng)


def test_long_bodies_are_cut_into_segments(rng: np.random.Generator) -> None:
    t = Tape()
    x = t.leaf("f32", (3000,))
    y, z = x, t.map("neg", x)
    for _ in range(12):
        y = t.map("tanh", t.map("add", y, z))
        z = t.map("mul", z, y)
    t.write("copy", [y], [x])
    t.keep(z)
    (step,) = check(t, rng)
    assert loops.kernel_weight(step.kernel) > 2 * loops.SEGMENT


def test_rows_longer_than_the_row_buffer(rng: np.random.Generator) -> None:
    t = Tape()
    x = t.leaf("f64", (8, 20_000))
    t.keep(t.composite("log_softmax", [x], [1]))
    assert len(check(t, rng)) == 1


def test_streamed_outputs_at_any_alignment(rng: np.random.Generator) -> None:
    n = 5 << 20
    t = Tape()
    x = narrow(t.leaf("f32", (n + 8,)), 0, 3, 1, n)
    t.keep(t.map("neg", x))
    out = narrow(t.leaf("f32", (n + 8,)), 0, 5, 1, n)
    t.write("neg", [x], [out])
    (step,) = check(t, rng)
    assert [p.stream for p in step.kernel.params] == [False, True, True]


def test_equal_kernels_share_their_code(rng: np.random.Generator) -> None:
    t = Tape()
    x = t.leaf("f32", (700,))
    for n in (100, 200, 300):
        t.keep(t.map("exp", t.map("neg", narrow(x, 0, n, 1, n))))
    assert len(check(t, rng)) == 3
    assert compiled(t)[2].source.count("void k") == 1


def test_blocks_of_sums_are_not_split_over_threads(rng: np.random.Generator) -> None:
    t = Tape()
    x = t.leaf("f32", (64, 3 * BLOCK + 5))
    t.keep(t.reduce("sum", t.map("square", x), 1))
    check(t, rng, (1, 2, 3, 7))
