"""Which operands of products are made where they are packed."""

from __future__ import annotations

import pytest
from ir.programs import Tape, permute, reshape

from neurlang import passes
from neurlang.ir.kernel import NativeStep, Tile


def prologues(t: Tape) -> list[list[str]]:
    """For each native step the ops of its prologues."""
    steps = passes.run(t.graph()).steps
    return [[n.op for p in s.prologues for n in p.nodes] for s in steps if isinstance(s, NativeStep)]


@pytest.mark.parametrize(
    ("m", "k", "n", "op", "made"),
    [
        (1, 300, 300, "mul", True), (64, 300, 300, "exp", True), (4000, 300, 300, "mul", True),
        (4000, 300, 300, "exp", False),  # made anew for every tile of rows
        (1, 100, 100, "mul", False),  # stays in cache on its way
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_right_operands(m: int, k: int, n: int, op: str, made: bool, turned: bool) -> None:
    t = Tape()
    x, w, scale = (
        t.leaf("f32", (m, k)),
        t.leaf("i8", (n, k) if turned else (k, n)),
        t.leaf("f32", (n if turned else k, 1)),
    )
    d = t.map("to_float32", w)
    d = t.map("mul", d, scale) if op == "mul" else t.map("exp", d)
    t.keep(t.matmul(x, permute(d, (1, 0)) if turned else d))
    assert prologues(t) == [["to_float32", op] if made else []]


@pytest.mark.parametrize(
    ("m", "n", "made"), [(500, 100, True), (500, 32, False), (500, 1000, False), (100, 100, False)]
)
def test_left_operands(m: int, n: int, made: bool) -> None:
    t = Tape()
    x, w = t.leaf("f16", (m, 1000)), t.leaf("f32", (1000, n))
    t.keep(t.matmul(t.map("to_float32", x), w))
    assert prologues(t) == [["to_float32"] if made else []]


def test_one_matrix_for_vectors_of_a_batch_is_made_once() -> None:
    for m, made in (1, False), (2, True):
        t = Tape()
        x, w = t.leaf("f32", (8, m, 300)), t.leaf("i8", (300, 300))
        t.keep(t.matmul(x, t.map("to_float32", w)))
        assert prologues(t) == [["to_float32"] if made else []]


def test_a_prologue_beside_an_epilogue_has_the_axes_of_its_matrices() -> None:
    t = Tape()
    x, w, scale = t.leaf("f32", (3, 40, 256)), t.leaf("i8", (3, 256, 8, 64)), t.leaf("f32", (3, 256, 8, 1))
    d = t.map("mul", t.map("to_float32", w), scale)
    t.keep(t.map("relu", t.matmul(x, reshape(d, (3, 256, 512)))))
    (step,) = passes.run(t.graph()).steps
    assert isinstance(step, NativeStep) and step.epilogue is not None
    (prologue,) = step.prologues
    assert prologue.kernel.extents == (3, 256, 8, 64) and prologue.tile == Tile(1, 2, made=True)
    assert step.epilogue.tile == Tile() and step.input_of(prologue) == 1
