"""Every pass keeps the meaning of random graphs, bit for bit, and what the verifier demands; text is golden."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from backends.replay import difference, run_oracle
from ir.programs import Generator, Tape, expand, permute

from neurlang import passes
from neurlang.ir.graph import Graph
from neurlang.ir.kernel import KernelStep, Schedule
from neurlang.ir.verify import verify

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("seed", range(80))
def test_every_pass_keeps_the_bits(seed: int, rng: np.random.Generator) -> None:
    tape = Generator(seed, ops=18).tape
    graph = tape.graph()
    leaves = tape.leaves(rng)
    expected = run_oracle(graph, tape, leaves)

    def after(name: str, made: Graph | Schedule) -> None:
        verify(made)
        if isinstance(made, Graph):
            wrong = difference(tape, graph, expected, run_oracle(made, tape, leaves))
            assert not wrong, f"{name}: {wrong}\n{made}"

    passes.run(graph, after=after)


def test_kernels_are_at_most_half_the_ops() -> None:
    ops = steps = 0
    for seed in range(100):
        graph = Generator(seed).tape.graph()
        ops += sum(n.op != "empty" for n in graph.nodes)
        steps += len(passes.run(graph).steps)
    assert steps <= ops / 2


def text(tape: Tape) -> str:
    """The graph before and after the passes over graphs, and the steps."""
    graph = tape.graph()
    graphs = [graph]
    schedule = passes.run(graph, after=lambda _, made: graphs.append(made) if isinstance(made, Graph) else None)
    parts = [f"-- recorded\n{graph}", f"-- optimised\n{graphs[-1]}"]
    for number, step in enumerate(schedule.steps):
        title = "generated" if isinstance(step, KernelStep) else f"native {step.node.op}"
        kernels = [step] if isinstance(step, KernelStep) else step.kernels
        parts.append(f"-- step {number}: {title}\n" + "\n".join(str(k.kernel) for k in kernels))
    memory = schedule.memory
    assert memory is not None
    parts.append(f"-- arena: {memory.peak_bytes} bytes, lower bound {memory.lower_bound}, places {memory.offsets}\n")
    return "\n".join(parts)


def chain() -> Tape:
    t = Tape()
    x = t.leaf("f32", (64, 256))
    y = t.map("mul", t.map("tanh", t.map("mul", x, t.scalar(0.8, "f32"))), x)
    t.keep(t.map("add", y, t.leaf("f32", (256,))))
    return t


def softmax_rows() -> Tape:
    t = Tape()
    x, mask = t.leaf("f32", (4, 8, 8)), t.leaf("b8", (8, 8))
    scores = t.map("masked_fill", t.map("mul", x, t.scalar(0.5, "f32")), mask, t.scalar(float("-inf"), "f32"))
    t.keep(t.composite("softmax", [scores], [2]))
    return t


def norm_and_its_gradients() -> Tape:
    t = Tape()
    x, g, w, b = t.leaf("f32", (32, 64)), t.leaf("f32", (32, 64)), t.leaf("f32", (64,)), t.leaf("f32", (64,))
    t.keep(t.composite("layer_norm", [x, w, b], [int(np.float64(1e-5).view(np.int64))]))
    product = t.map("mul", g, x)
    t.keep(t.reduce("sum", product, 0))
    t.keep(t.reduce("sum", t.map("mul", product, w), 1))
    return t


def linear_layer() -> Tape:
    t = Tape()
    x, w, b, g = t.leaf("f32", (128, 48)), t.leaf("f32", (32, 48)), t.leaf("f32", (32,)), t.leaf("f32", (128, 32))
    y = t.map("relu", t.map("add", t.matmul(x, permute(w, (1, 0))), expand(b, (128, 32))))
    t.keep(y)
    down = t.map("relu_grad", g, y)
    lr, decay = t.scalar(0.1, "f32"), t.scalar(0.0, "f32")
    t.write("sgd_", [w, permute(t.matmul(permute(x, (1, 0)), down), (1, 0)), lr, decay], [w])
    total = t.reduce("sum", down, 0)
    t.write("sgd_", [b, total, lr, decay], [b])
    return t


@pytest.mark.parametrize("make", [chain, softmax_rows, norm_and_its_gradients, linear_layer], ids=lambda f: f.__name__)
def test_golden(make: object) -> None:
    """NL_UPDATE_GOLDEN=1 writes the files anew; the difference is then to be read, not only committed."""
    path = GOLDEN / f"{make.__name__}.txt"
    if os.environ.get("NL_UPDATE_GOLDEN"):
        path.write_text(text(make()))
    assert text(make()) == path.read_text()
