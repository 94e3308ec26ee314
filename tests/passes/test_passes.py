"""What each pass does, and what it must leave alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ir.programs import Tape, View, expand, narrow, permute, reshape

from neurlang import passes
from neurlang.ir.graph import Access, Const, Graph, Node, Storage
from neurlang.ir.kernel import KernelStep, NativeStep, Schedule, touched
from neurlang.ir.types import to_bits
from neurlang.ir.verify import VerifyError, verify
from neurlang.passes.cse import cse
from neurlang.passes.dce import dce
from neurlang.passes.expand import expand as expand_composites
from neurlang.passes.fold import fold, simplify
from neurlang.passes.fuse import fuse
from neurlang.passes.orient import orient
from neurlang.passes.plan import lifetimes, place, place_as_they_come
from neurlang.passes.reuse import reuse


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def fused(schedule: Schedule) -> list[list[str]]:
    """The ops of every step."""
    found = []
    for step in schedule.steps:
        if isinstance(step, KernelStep):
            found.append([n.op for n in step.nodes])
        else:
            before = [n.op for p in step.prologues for n in p.nodes]
            found.append([*before, step.node.op, *([n.op for n in step.epilogue.nodes] if step.epilogue else [])])
    return found


# ---- fold -------------------------------------------------------------------------------------------------------


def node(op: str, value: float, dtype: str = "f32") -> Node:
    x, out = Access(0, 0, dtype, (4,), (1,)), Access(1, 1, dtype, (4,), (1,))
    return Node(op, (x, Const(to_bits(value, dtype), dtype)), (out,))


@pytest.mark.parametrize(
    ("op", "value", "made"),
    [
        ("mul", 1.0, "copy"), ("div", 1.0, "copy"), ("sub", 0.0, "copy"), ("add", -0.0, "copy"), ("div", 8.0, "mul"),
        ("div", -0.25, "mul"), ("mul", 2.0, "mul"), ("add", 0.0, "add"), ("sub", -0.0, "sub"), ("div", 3.0, "div"),
        ("mul", 0.0, "mul"), ("div", 2.0**127, "div"), ("div", 0.0, "div"), ("div", np.inf, "div"),
    ],
)  # fmt: skip
def test_identities_are_exact_for_every_input(op: str, value: float, made: str) -> None:
    before, after = node(op, value), simplify(node(op, value))
    assert after.op == made
    bits = np.concatenate(
        [np.arange(0, 2**32, 65521, np.uint32), np.array([0, 2**31, 1, 0x7F800000, 0x007FFFFF], np.uint32)]
    )
    x = bits.view(np.float32)
    functions = {"mul": np.multiply, "div": np.divide, "add": np.add, "sub": np.subtract, "copy": lambda a, b: a}
    with np.errstate(all="ignore"):
        a = functions[before.op](x, np.float32(value))
        b = functions[after.op](x, np.float32(after.ins[1].value if len(after.ins) > 1 else 0))
    assert ((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all()


def test_fills_become_scalars_and_copies_vanish() -> None:
    t = Tape()
    x = t.leaf("f32", (3, 4))
    filled = t.fresh("f32", (3, 4))
    t.write("full", [t.scalar(2.0, "f32")], [filled])
    twice = t.map("copy", t.map("mul", x, filled))
    t.keep(t.map("neg", permute(twice, (1, 0))))
    assert ops(dce(fold(t.graph()))) == ["mul", "neg"]


def test_a_copy_of_what_changes_stays() -> None:
    t = Tape()
    x = t.leaf("f32", (3, 4))
    old = t.map("copy", x)
    t.write("add", [x, t.scalar(1.0, "f32")], [x])
    t.keep(t.map("neg", old))
    assert ops(dce(fold(t.graph()))) == ["copy", "add", "neg"]


# ---- cse, dce ---------------------------------------------------------------------------------------------------


def test_equal_work_is_done_once() -> None:
    t = Tape()
    x = t.leaf("f32", (5,))
    t.keep(t.map("add", t.map("exp", x), t.map("exp", x)))
    assert ops(cse(t.graph())) == ["exp", "add"]


@pytest.mark.parametrize("between", ["write", "live", "written_result"])
def test_equal_text_is_not_equal_work(between: str) -> None:
    t = Tape()
    x = t.leaf("f32", (5,))
    a = t.map("exp", x)
    if between == "write":
        t.write("neg", [x], [x])
    b = t.map("exp", x)
    if between == "live":
        t.keep(a)
        t.keep(b)
    if between == "written_result":
        t.write("neg", [b], [b])
    t.keep(t.map("add", a, b))
    assert ops(cse(t.graph())).count("exp") == 2


def test_dead_code_goes_and_effects_stay() -> None:
    t = Tape()
    x, index = t.leaf("f32", (4, 3)), t.leaf("i64", (4, 1))
    t.map("exp", x)
    t.write("neg", [x], [x])
    t.write("gather", [x, index], [t.fresh("f32", (4, 1))], [1])
    t.write("exp", [index], [t.fresh("f32", (4, 1))])
    assert ops(dce(t.graph())) == ["neg", "gather"]


def test_what_a_failing_check_would_show_is_not_dead() -> None:
    t = Tape()
    x, index = t.leaf("f32", (4, 3)), t.leaf("i64", (4, 1))
    t.write("neg", [x], [x])
    t.write("gather", [x, index], [t.fresh("f32", (4, 1))], [1])
    t.write("full", [t.scalar(0, "f32")], [x])
    assert ops(dce(t.graph())) == ["neg", "gather", "full"]
    t = Tape()
    x = t.leaf("f32", (4, 3))
    t.write("neg", [x], [x])
    t.write("full", [t.scalar(0, "f32")], [x])
    assert ops(dce(t.graph())) == ["full"]


# ---- expand, orient ---------------------------------------------------------------------------------------------


def test_composites_over_the_last_axis_expand_beside_loops() -> None:
    primitives = ["amax", "sub", "exp", "sum", "div"]
    for before, after, axis in itertools.product((False, True), (False, True), (0, 1)):
        t = Tape()
        x = t.leaf("f32", (4, 6))
        y = t.composite("softmax", [t.map("neg", x) if before else x], [axis])
        t.keep(t.map("neg", y) if after else y)
        expands = axis == 1 and (before or after)
        want = ["neg"] * before + (primitives if expands else ["softmax"]) + ["neg"] * after
        assert ops(expand_composites(t.graph())) == want


def test_composites_expand_beside_each_other_and_beside_reductions() -> None:
    t = Tape()
    x = t.composite("softmax", [t.leaf("f32", (4, 6))], [1])
    t.keep(t.composite("softmax", [x], [1]))
    assert ops(expand_composites(t.graph())) == ["amax", "sub", "exp", "sum", "div"] * 2
    t = Tape()
    t.keep(t.reduce("sum", t.composite("softmax", [t.leaf("f32", (4, 6))], [1]), 0))
    assert ops(expand_composites(t.graph())) == ["amax", "sub", "exp", "sum", "div", "sum"]


def test_composites_of_what_is_no_loop_keep_their_kernel() -> None:
    t = Tape()
    a, b, weight = t.leaf("f32", (4, 600)), t.leaf("f32", (600, 6)), t.map("neg", t.leaf("f32", (6,)))
    y = t.composite("rms_norm", [t.matmul(a, b), weight], [0])
    t.keep(t.matmul(y, t.leaf("f32", (6, 6))))
    assert ops(expand_composites(t.graph())) == ["neg", "matmul", "rms_norm", "matmul"]


def test_composites_expand_behind_large_shallow_products() -> None:
    for rows, made in ((4, ["softmax"]), (1000, ["amax", "sub", "exp", "sum", "div"])):
        t = Tape()
        t.keep(t.composite("softmax", [t.matmul(t.leaf("f32", (rows, 64)), t.leaf("f32", (64, 80)))], [1]))
        assert ops(expand_composites(t.graph())) == ["matmul", *made]


def test_a_product_that_is_turned_reads_a_turned_product() -> None:
    t = Tape()
    a, b, other = t.leaf("f32", (7, 5)), t.leaf("f32", (5, 9)), t.leaf("f32", (7, 6))
    inner = t.matmul(a, b)
    outer = t.matmul(permute(inner, (1, 0)), other)
    t.keep(t.map("exp", permute(outer, (1, 0))))
    made = orient(t.graph())
    assert all(x.contiguous for node in made.nodes for x in node.outs)
    first, second, _ = made.nodes
    assert first.outs[0].shape == (9, 7) and second.outs[0].shape == (6, 9)
    read = next(x for x in second.reads() if x.storage == first.outs[0].storage)
    assert (read.shape, read.strides) == ((7, 9), (1, 7))


def test_products_read_transposed_are_computed_transposed() -> None:
    t = Tape()
    a, b, other = t.leaf("f32", (7, 5)), t.leaf("f32", (5, 9)), t.leaf("f32", (9, 7))
    t.keep(t.map("add", permute(t.matmul(a, b), (1, 0)), other))
    assert [n.outs[0].shape for n in orient(t.graph()).nodes] == [(9, 7), (9, 7)]
    y = t.matmul(a, b)
    t.keep(t.map("add", permute(y, (1, 0)), other))
    t.keep(t.map("neg", y))  # this reader wants it as it is
    assert [n.outs[0].shape for n in orient(t.graph()).nodes if n.op == "matmul"] == [(9, 7), (7, 9)]


# ---- fuse -------------------------------------------------------------------------------------------------------


def test_reshapes_and_broadcasts_do_not_hinder() -> None:
    t = Tape()
    x, b = t.leaf("f32", (6, 4, 8)), t.leaf("f32", (8,))
    y = t.map("exp", t.map("add", x, b))
    t.keep(t.map("neg", reshape(y, (24, 8))))
    assert fused(fuse(t.graph())) == [["add", "exp", "neg"]]


def test_a_node_between_keeps_two_apart() -> None:
    t = Tape()
    x = t.leaf("f32", (8, 8))
    y = t.map("exp", x)
    z = t.matmul(y, y)
    t.keep(t.map("add", y, z))
    assert fused(fuse(t.graph())) == [["exp"], ["matmul", "add"]]


def test_writes_through_another_view_are_not_fused() -> None:
    t = Tape()
    x = t.leaf("f32", (8, 8))
    y = t.map("exp", permute(x, (1, 0)))
    t.write("neg", [y], [x])  # element by element this would overwrite what is still to be read
    assert fused(fuse(t.graph())) == [["exp"], ["neg"]]
    t = Tape()
    x = t.leaf("f32", (8, 8))
    t.write("neg", [t.map("exp", x)], [x])
    assert fused(fuse(t.graph())) == [["exp", "neg"]]


def test_results_over_an_outer_axis_are_not_used_in_the_same_sweep() -> None:
    t = Tape()
    x = t.leaf("f32", (32, 16))
    t.keep(t.map("sub", x, t.reduce("sum", t.map("exp", x), 0)))
    assert fused(fuse(t.graph())) == [["exp", "sum"], ["sub"]]
    t = Tape()
    x = t.leaf("f32", (32, 16))
    t.keep(t.map("sub", x, t.reduce("sum", t.map("exp", x), 1)))
    assert fused(fuse(t.graph())) == [["exp", "sum", "sub"]]


def test_what_goes_through_results_in_another_order_is_not_fused() -> None:
    t = Tape()
    x, w = t.leaf("f32", (4, 3, 5)), t.leaf("f32", (4, 5))
    t.keep(t.map("mul", reshape(t.reduce("sum", x, 1), (4, 5)), w))
    t.keep(t.map("copy", permute(w, (1, 0))))  # reads w too, and what it writes lies as the products do
    assert fused(fuse(t.graph())) == [["sum", "mul"], ["copy"]]


def test_long_single_sums_stay_native() -> None:
    t = Tape()
    x = t.leaf("f32", (1, 1 << 20))
    t.keep(t.reduce("sum", t.map("square", x), 1))
    assert fused(fuse(t.graph())) == [["square"], ["sum"]]


def softmax_of(t: Tape, y: View, axis: int = -1) -> None:
    y = t.map("exp", t.map("sub", y, t.reduce("amax", y, axis % len(y.shape))))
    t.keep(t.map("div", y, t.reduce("sum", y, axis % len(y.shape))))


SOFTMAX = ["amax", "sub", "exp", "sum", "div"]


@pytest.mark.parametrize("depth", [64, 1000])
def test_a_reduction_of_rows_ends_a_product(depth: int) -> None:
    t = Tape()
    bias, residual = t.leaf("f32", (32,)), t.leaf("f32", (3, 20, 32))
    y = t.matmul(t.leaf("f32", (3, 20, depth)), t.leaf("f32", (3, depth, 32)))
    softmax_of(t, t.map("add", t.map("add", y, bias), residual))
    assert fused(fuse(t.graph())) == [["matmul", "add", "add", *SOFTMAX]]


def test_rows_of_the_loop_may_be_parts_of_the_rows_of_the_product() -> None:
    t = Tape()
    y = t.matmul(t.leaf("f32", (20, 8)), t.leaf("f32", (8, 32)))
    softmax_of(t, reshape(y, (20, 4, 8)))
    assert fused(fuse(t.graph())) == [["matmul", *SOFTMAX]]


def test_reductions_that_are_not_of_rows_stay_apart() -> None:
    t = Tape()
    softmax_of(t, t.matmul(t.leaf("f32", (20, 8)), t.leaf("f32", (8, 32))), 0)
    assert all(isinstance(s, KernelStep) or s.epilogue is None for s in fuse(t.graph()).steps)
    t = Tape()
    y = t.matmul(t.leaf("f32", (4, 8, 8)), t.leaf("f32", (4, 8, 32)))
    softmax_of(t, reshape(y, (4, 256)))
    assert fused(fuse(t.graph())) == [["matmul"], SOFTMAX]


def test_a_reduction_alone_ends_only_large_shallow_products() -> None:
    for rows, depth, together in ((2048, 64, True), (20, 64, False), (2048, 1000, False)):
        t = Tape()
        t.keep(t.reduce("amax", t.matmul(t.leaf("f32", (rows, depth)), t.leaf("f32", (depth, 32))), 1))
        made = [["matmul", "amax"]] if together else [["matmul"], ["amax"]]
        assert fused(fuse(t.graph())) == made


def test_an_epilogue_does_not_overwrite_the_operands() -> None:
    t = Tape()
    x, w = t.leaf("f32", (8, 8)), t.leaf("f32", (8, 8))
    t.write("add", [x, t.matmul(x, w)], [x])
    assert fused(fuse(t.graph())) == [["matmul"], ["add"]]


def test_a_check_stays_between_outside_writes() -> None:
    t = Tape()
    p, x, index = t.leaf("f32", (4, 1)), t.leaf("f32", (4, 3)), t.leaf("i64", (4, 1))
    t.write("neg", [p], [p])
    t.write("gather", [x, index], [t.fresh("f32", (4, 1), live=True)], [1])
    t.write("exp", [p], [p])
    assert fused(fuse(t.graph())) == [["neg"], ["gather"], ["exp"]]


def test_overlapping_views_of_one_storage_are_not_fused() -> None:
    t = Tape()
    x = t.leaf("f32", (20,))
    y = t.map("exp", narrow(x, 0, 0, 1, 10))
    t.write("neg", [y], [narrow(x, 0, 5, 1, 10)])
    assert fused(fuse(t.graph())) == [["exp"], ["neg"]]


# ---- reuse, plan ------------------------------------------------------------------------------------------------


def test_a_result_takes_over_a_dying_operand() -> None:
    t = Tape()
    a, b = t.leaf("f32", (64, 64)), t.leaf("f32", (64, 64))
    y = t.matmul(a, b)
    z = t.map("exp", y)
    t.keep(t.matmul(z, z))
    schedule = reuse(fuse(t.graph()))
    assert fused(schedule) == [["matmul", "exp"], ["matmul"]]
    assert schedule.home == {z.slot: y.slot}
    assert passes.run(t.graph()).memory.peak_bytes == 64 * 64 * 4


def test_a_contraction_runs_in_the_memory_of_the_result_made_on_its_tiles() -> None:
    t = Tape()
    a, b = t.leaf("f32", (64, 64)), t.leaf("f32", (64, 64))
    y = t.matmul(a, b)
    z = t.map("exp", y)
    t.keep(z)
    assert reuse(fuse(t.graph())).home == {y.slot: z.slot}
    assert passes.run(t.graph()).memory.peak_bytes == 0


@pytest.mark.parametrize("other", ["live", "read later", "of another type", "a leaf"])
def test_a_contraction_keeps_its_memory_where(other: str) -> None:
    t = Tape()
    a, b = t.leaf("f32", (64, 64)), t.leaf("f32", (64, 64))
    y = t.matmul(a, b)
    if other == "a leaf":
        t.write("exp", [y], [t.leaf("f32", (64, 64))])
    else:
        t.keep(t.map("lt", y, y) if other == "of another type" else t.map("exp", y))
    if other == "live":
        t.keep(y)
    if other == "read later":
        t.keep(t.matmul(y, a))
    assert reuse(fuse(t.graph())).home == {}


def test_a_transposed_operand_is_not_taken_over() -> None:
    t = Tape()
    a, b = t.leaf("f32", (64, 64)), t.leaf("f32", (64, 64))
    y = t.matmul(a, b)
    z = t.map("exp", t.map("add", y, permute(y, (1, 0))))
    t.keep(t.matmul(z, z))
    assert reuse(fuse(t.graph())).home == {}


def test_the_verifier_sees_overlaps() -> None:
    t = Tape()
    a = t.leaf("f32", (64, 64))
    y = t.matmul(a, a)
    z = t.matmul(y, a)
    t.keep(t.matmul(z, y))
    schedule = passes.run(t.graph())
    verify(schedule)
    memory = schedule.memory
    assert memory is not None and memory.peak_bytes == memory.lower_bound == 2 * 64 * 64 * 4
    memory.offsets[z.slot] = memory.offsets[y.slot] + 64
    with pytest.raises(VerifyError, match="lie over each other"):
        verify(schedule)


def test_plans_are_disjoint_and_near_the_bound(rng: np.random.Generator) -> None:
    worst = 0.0
    for _ in range(30):
        lives = {}
        for i in range(60):
            first = int(rng.integers(0, 80))
            lives[i] = (first, first + int(rng.integers(0, 15)))
        sizes = {i: int(rng.integers(1, 500)) * 64 for i in lives}
        by_size = place(lives, sizes, lambda lives, sizes: sorted(lives, key=sizes.__getitem__, reverse=True))
        for offsets in (by_size, place_as_they_come(lives, sizes)):
            assert set(offsets) == set(lives)
            for i in lives:
                for j in range(i):
                    apart = lives[i][1] < lives[j][0] or lives[j][1] < lives[i][0]
                    assert apart or offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
        bound = max(sum(sizes[i] for i in lives if lives[i][0] <= t <= lives[i][1]) for t in range(100))
        worst = max(worst, max(by_size[i] + sizes[i] for i in lives) / bound)
    assert worst < 1.35


def test_lifetimes_span_first_to_last_touch() -> None:
    schedule = Schedule(
        (Storage("leaf", 64, True), Storage("fresh", 64, False)),
        tuple(
            NativeStep(Node("matmul", ins, outs))
            for ins, outs in [
                ((), (Access(1, 1, "f32", (4, 4), (4, 1)),)),
                ((Access(0, 0, "f32", (4, 4), (4, 1)),), (Access(0, 1, "f32", (4, 4), (4, 1)),)),
                ((Access(1, 1, "f32", (4, 4), (4, 1)),), ()),
            ]
        ),
    )
    assert lifetimes(schedule) == {1: (0, 2)}
    assert [len(touched(s)) for s in schedule.steps] == [1, 2, 1]


def test_large_outputs_are_streamed_unless_read_next() -> None:
    t = Tape()
    x = t.leaf("f32", (2048, 2560))
    y = t.map("exp", x)
    t.keep(y)
    streams = lambda s: [p.stream for k in s.kernels for p in k.kernel.params if p.kind == "out"]  # noqa: E731
    assert streams(passes.run(t.graph())) == [True]
    t.keep(t.reduce("argmax", expand(y, (1, 2048, 2560)), 1))
    assert streams(passes.run(t.graph())) == [False]
