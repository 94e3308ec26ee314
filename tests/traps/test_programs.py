"""Traps of programs: the shared cache, freezing, checks on data, over-long tapes."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neurlang as nl
import neurlang.functional as F
from neurlang import config

from .harness import assert_counts, bits, data, same


def test_a_new_trace_object_each_time() -> None:
    # Programs live in the process, not in the object: a trace made in the loop still replays.
    nl.reset_programs()
    counts = []
    for seed in range(4):
        step = nl.trace()
        with step:
            y = data(5, seed=seed) * 2.0 + 1.0
        assert bits(y.numpy()) == bits((data(5, seed=seed) * 2.0 + 1.0).numpy())
        counts.append((step.counts.compiled, step.counts.replayed))
    assert counts == [(1, 1), (0, 1), (0, 1), (0, 1)]


def test_reset_forgets_programs() -> None:
    step = nl.trace(lambda x: x - 1.0)
    nl.reset_programs()
    step(data(3))
    nl.reset_programs()
    step(data(3))
    step(data(3))
    assert_counts(step, compiled=2, replayed=3, cut=0)


def test_many_shapes() -> None:
    # Bounded by the cache, correct throughout; an old shape that was dropped is simply compiled again.
    nl.reset_programs()
    step = nl.trace(lambda x: x * 2.0 + 1.0)
    for n in [*range(1, 41), *range(1, 41)]:
        x = data(n)
        assert bits(step(x).numpy()) == bits((x * 2.0 + 1.0).numpy())
    assert_counts(step, compiled=40, replayed=80, cut=0)


def test_colliding_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The hash only finds candidates; here all tapes collide, and the words must tell them apart.
    monkeypatch.setattr(config, "TAPE_HASH_MASK", 0)

    def scenario(step: Any) -> Any:
        x = data(4, 4)
        functions = [lambda: x + 1.0, lambda: x - 1.0, lambda: x.sum(0), lambda: x.sum(1), lambda: x.t() * 2.0]
        return [step(f)() for f in functions * 3]

    same(scenario, compiled=5, replayed=15, cut=0)


def test_programs_that_are_evicted_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "PROGRAM_CACHE_BYTES", 1)

    def scenario(step: Any) -> Any:
        f = step(lambda x: (x * 2.0).sum())
        return [f(data(n)) for n in (3, 4, 4, 3, 4)]

    same(scenario, compiled=4, replayed=5, cut=0)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Everything runs op by op, with the reason; nothing else changes.
    monkeypatch.setenv("NEURLANG_CC", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("NEURLANG_CACHE", str(tmp_path / "cache"))

    def scenario(step: Any) -> Any:
        f = step(lambda x: (x.exp() + x.sum(0)).softmax(-1))
        return [f(data(6, 7, seed=seed)) for seed in range(3)]

    step = same(scenario, compiled=0, replayed=0, cut=0, interpreted=3)
    assert any("compiler" in line for line in step.why())


def test_over_long_tape_runs_op_by_op() -> None:
    def scenario(step: Any) -> Any:
        x = data(3)
        with step:
            for k in range(70_000):
                x = x * 0.5 if k % 2 else x + 1.0
        return x

    step = same(scenario, compiled=(0, 1), interpreted=(1, 2))
    assert any("65" in line for line in step.why())


def test_frozen_program() -> None:
    step = nl.trace(lambda x, w: (x @ w).tanh())
    x, w = data(3, 4), data(4, 5, seed=1)
    want = bits(step(x, w).numpy())
    program = step.freeze()
    assert bits(program(x, w).numpy()) == want
    x2 = data(3, 4, seed=2)
    assert bits(program(x2, w).numpy()) == bits((x2 @ w).tanh().numpy())
    assert bits(program(x, w).numpy()) == want
    assert len(program.inputs) == 2


def test_frozen_program_keeps_its_results_apart() -> None:
    step = nl.trace(lambda x: x * 2.0)
    step(data(4))
    program = step.freeze()
    results = [program(data(4, seed=seed)) for seed in range(3)]
    assert [bits(r.numpy()) for r in results] == [bits((data(4, seed=seed) * 2.0).numpy()) for seed in range(3)]


def less_exact(x: nl.Tensor, w: nl.Tensor) -> nl.Tensor:
    with nl.set_conv_precision("medium"):
        return nl.conv2d(x, w)


# Layers, the shapes of an input and of weights, and whether a program keeps them packed.
WEIGHTS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], bool]] = {
    "conv 1x1": (lambda x, w: nl.conv2d(x, w), (1, 5, 9, 9), (40, 5, 1, 1), True),
    "conv 3x3": (lambda x, w: nl.conv2d(x, w), (1, 5, 9, 9), (40, 5, 3, 3), True),
    "Winograd": (lambda x, w: nl.conv2d(x, w), (1, 32, 18, 18), (40, 32, 3, 3), True),
    "Winograd, large tiles": (lambda x, w: less_exact(x, w), (1, 32, 18, 18), (40, 32, 3, 3), True),
    "product": (lambda x, w: x @ w, (3, 70, 500), (500, 600), True),
    "product of weights within L2": (lambda x, w: x @ w, (1, 30, 50), (50, 90), False),
    "product of columns": (lambda x, w: x @ w, (70, 30), (30, 33), False),
    "linear": (lambda x, w: nl.linear(x, w), (40, 300), (70, 300), True),
    "one image's linear": (lambda x, w: nl.linear(x, w), (1, 300), (70, 300), False),
    "batch of weights": (lambda x, w: x @ w, (3, 50, 60), (3, 60, 70), False),
}


def bytes_held() -> int:
    gc.collect()
    stats = nl.memory_stats()
    return stats["in_use"] - stats["arenas"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_frozen_program_follows_captured_weights(name: str, dtype: str) -> None:
    # What was packed of weights is kept until they are written: in place, or by somebody they are lent to.
    layer, shape, weights, keeps = WEIGHTS[name]
    x, w = data(*shape, dtype=dtype), data(*weights, seed=1, dtype=dtype)
    nl.trace(lambda x: layer(x, w)).freeze(x)(x)  # arenas have their size now
    program = nl.trace(lambda x: layer(x, w)).freeze(x)
    before = bytes_held()
    program(x)
    assert (bytes_held() - before >= w.nbytes) == keeps

    def agrees() -> bool:
        return all(bits(program(x).numpy()) == bits(layer(x, w).numpy()) for _ in range(2))

    assert agrees()
    w.mul_(2.0)
    assert agrees()
    lent = w.numpy()
    lent[0] = 7.0
    assert agrees()
    lent[1] = 8.0
    assert agrees()
    del lent
    assert agrees()
    lent = w.numpy()
    lent[2] = 9.0
    del lent
    assert agrees()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("rows", [2, 8, 20, 64])
def test_frozen_products_of_16_bits(dtype: str, rows: int) -> None:
    # The operand is widened in slabs, which are not what a frozen program keeps packed.
    w = data(600, 700, seed=1).to(getattr(nl, dtype))
    x = data(rows, 600).to(getattr(nl, dtype))
    for layer in (lambda x: x @ w, lambda x: nl.linear(x[:, :300], w[:, :300])):
        program = nl.trace(layer).freeze(x)
        for _ in range(2):
            assert program(x).tolist() == layer(x).tolist()


def test_frozen_program_refuses_another_signature() -> None:
    step = nl.trace(lambda x: x * 2.0)
    step(data(4))
    program = step.freeze()
    for wrong in (data(5), data(4, dtype="float64"), data(8)[::2], data(2, 2)):
        with pytest.raises((nl.ShapeError, nl.DTypeError, nl.TraceError)):
            program(wrong)


def test_what_depends_on_an_input_s_value_cannot_be_frozen() -> None:
    step = nl.trace(lambda x: x * 2.0 if x[0] > 0 else x)
    step(data(4))
    with pytest.raises(nl.TraceError, match="strict"):
        step.freeze()


def test_frozen_inputs_are_apart_from_what_is_captured() -> None:
    base = data(10)
    step = nl.trace(lambda x, y: x + y * base[7:])
    program = step.freeze(base[:3], base[:3])  # one tensor twice, and a part of a captured one
    x, y = data(3, seed=1), data(3, seed=2)
    assert bits(program(x, y).numpy()) == bits((x + y * base[7:]).numpy())
    assert bits(program(base[3:6], base[4:7]).numpy()) == bits((base[3:6] + base[4:7] * base[7:]).numpy())


def test_frozen_program_writes_only_what_may_be_written() -> None:
    captured = data(3)
    program = nl.trace(lambda x, y: (x.add_(y), captured.mul_(2.0))).freeze(data(3), data(3))
    x, y, before = data(3, seed=1), data(3, seed=2), captured.numpy().copy()
    want, versions = (x + y).numpy().copy(), (x._version, captured._version)
    program(x, y)
    assert bits(x.numpy()) == bits(want) and bits(captured.numpy()) == bits(before * np.float32(2.0))
    assert x._version > versions[0] and captured._version > versions[1]
    constant = np.ones(3, np.float32)
    constant.flags.writeable = False
    long = data(5)
    for args in ((nl.from_numpy(constant), y), (long[:3], long[1:4]), (captured, y), (x, captured)):
        with pytest.raises(nl.AliasError):
            program(*args)
    assert (constant == 1).all()


def test_frozen_program_called_in_a_block() -> None:
    # It runs, so what it reads must be real: it cuts.
    frozen = nl.trace(lambda x: x * 2.0)
    frozen(data(4))
    program = frozen.freeze()

    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            with step:
                y = data(4, seed=seed) + 1.0
                z = program(y)
                w = z - 3.0
            results.append(w)
        return results

    same(scenario, cut=3)


def test_bad_index_comes_before_later_writes() -> None:
    # Checks and outside writes are ordered effects: nothing after the failed check has happened.
    def scenario(step: Any) -> Any:
        table, results = data(5, 3), []
        for index in (1, 4, 9, 0, -5):
            x = nl.zeros(3)
            try:
                with step:
                    y = F.embedding(nl.tensor([index, 0]), table) * 2.0
                    x.add_(1.0)
            except IndexError:
                results.append("IndexError")
                continue
            results.append((y, x))
        return results

    same(scenario, compiled=1, replayed=5)


def test_what_a_bad_index_lost_cannot_be_read() -> None:
    made: list[nl.Tensor] = []

    @nl.trace
    def step(x: nl.Tensor, index: nl.Tensor) -> None:
        y = x.index_select(0, index)
        made[:] = [y, y * 2.0 + 1.0]

    x = data(8)
    reads = [lambda t: t + 1.0, lambda t: -t, lambda t: t + x, lambda t: t.add_(1.0), nl.sum, nl.relu, nl.Tensor.tolist]
    for _ in range(3):
        with pytest.raises(IndexError):
            step(x, nl.tensor([0, 99, 0, 0, 0, 0, 0, 0]))
        for lost in made:
            for read in reads:
                with pytest.raises(IndexError, match="99"):
                    read(lost)


def test_writes_before_a_bad_index_have_happened() -> None:
    def scenario(step: Any) -> Any:
        table, results = data(5, 3), []
        for index in (1, 9, 2):
            x = nl.zeros(3)
            try:
                with step:
                    x.add_(1.0)
                    y = table[nl.tensor([index, 0])] + x
            except IndexError:
                y = "IndexError"
            results.append((x, y))
        return results

    same(scenario, compiled=1, replayed=(2, 3))


def test_not_computed_after_a_failed_check() -> None:
    step, table = nl.trace(), data(5, 3)
    with pytest.raises(IndexError), step:
        y = table[nl.tensor([7])] * 2.0
    with pytest.raises((IndexError, nl.TraceError)):
        y.numpy()


def test_same_ops_other_order_of_leaves() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda a, b: a - b * a)
        a, b = data(4), data(4, seed=1)
        return [f(a, b), f(b, a), f(a, b)]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_same_words_other_attributes() -> None:
    # Axes, keepdim, permutations and comparison kinds are in the key.
    def scenario(step: Any) -> Any:
        x = data(4, 4)
        functions = [
            lambda: x.sum(0),
            lambda: x.sum(1),
            lambda: x.sum(0, keepdim=True),
            lambda: x.amax(0),
            lambda: x.amin(0),
            lambda: x.t() + x,
            lambda: x + x,
            lambda: (x > 0) + 0,
            lambda: (x >= 0) + 0,
            lambda: x.softmax(0),
            lambda: x.softmax(1),
            lambda: x.permute(1, 0).sum(1),
        ]
        return [step(f)() for f in functions * 2]

    same(scenario, compiled=(11, 12), replayed=24, cut=0)


def test_interpret_backend_gives_the_same_bits() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x: (x.exp() + x.sum(0)).softmax(-1))
        return [f(data(6, 7, seed=seed)) for seed in range(3)]

    same(scenario, step=nl.trace(backend="interpret"), compiled=1, replayed=3, cut=0)


def test_a_backend_that_there_is_not_is_refused_at_once() -> None:
    for name in ("foo", "cstyle", "CPU"):
        with pytest.raises(ValueError, match="use one of cpu"):
            nl.trace(backend=name)


def test_the_same_decorated_object_as_block_and_decorator() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x: x * 2.0)
        results = []
        for seed in range(2):
            results.append(f(data(4, seed=seed)))
            with step:
                y = data(4, seed=seed) * 2.0
            results.append(y)
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_what_is_kept_is_named_by_line_although_another_segment_came_first() -> None:
    step = nl.trace()
    for n in (4, 4, 4, 3, 4, 3, 4, 3):  # as with a shorter last batch
        with step:
            kept = nl.ones(n) * 2.0
    assert kept.tolist() == [2.0] * 3
    (note,) = step.why()
    assert note.startswith(f"kept from {__file__}:") and note.endswith("1 tensor, 12 bytes")
