"""Random programs give the same bits eagerly, op by op from the tape, in the interpreter and compiled."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import neurlang as nl

from .programs import Generator, Program, shrink

FAST, SLOW, BATCH = 200, 2000, 50
Outcome = dict[str, Any]


class Stop(Exception):
    """Leaves a block by a raise: what was recorded then runs op by op."""


def inputs(program: Program, lib: Any) -> dict[str, Any]:
    values = {"nl": lib}
    exec("\n".join(program.setup), values)
    return values


def body(program: Program) -> Callable[..., Any]:
    """The traced part as a function of the inputs' namespace; only `results` outlive it."""
    text = "\n".join(f"    {line}" for line in program.body) or "    pass"
    arguments = ", ".join(line.split(" = ")[0] for line in program.setup)
    namespace: dict[str, Any] = {}
    exec(
        f"def body(nl, {arguments}):\n{text}\n    return ({''.join(f'{name}, ' for name in program.results)})",
        namespace,
    )
    function = namespace["body"]
    return lambda values: function(**{key: v for key, v in values.items() if key != "__builtins__"})


def outcome(program: Program, values: dict[str, Any], results: Any) -> Outcome:
    """The bits of all inputs (they may have been written) and results."""
    named = {line.split(" = ")[0]: values[line.split(" = ")[0]] for line in program.setup}
    named |= dict(zip(program.results, results, strict=True))
    return {name: bits(np.asarray(value.detach())) for name, value in named.items()}


def bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    array = np.array(array, order="C")
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    return str(array.dtype), array.shape, array.tobytes()


def run_eager(program: Program, lib: Any = nl) -> Outcome:
    values = inputs(program, lib)
    return outcome(program, values, body(program)(values))


def run_traced(program: Program, step: Any) -> Outcome:
    values = inputs(program, nl)
    return outcome(program, values, step(body(program))(values))


def run_op_by_op(program: Program) -> Outcome:
    values, results = inputs(program, nl), None
    step = nl.trace()
    try:
        with step:
            results = body(program)(values)
            raise Stop
    except Stop:
        assert step.counts.compiled == 0
    return outcome(program, values, results)


def disagreement(program: Program) -> str:
    """Which executor differs from eager, and in which names; empty when all agree."""
    want = run_eager(program)
    compiled = nl.trace()
    executors = {
        "run_tape": lambda: run_op_by_op(program),
        "interpret": lambda: run_traced(program, nl.trace(backend="interpret")),
        "compiled": lambda: run_traced(program, compiled),
        "replayed": lambda: run_traced(program, compiled),
    }
    for name, run in executors.items():
        got = run()
        if got != want:
            return f"{name} differs in {[key for key in want if got[key] != want[key]]}"
    return ""


def fails(program: Program) -> bool:
    """Whether a (shrunk) program still shows a disagreement; one that eager refuses does not count."""
    try:
        run_eager(program)
    except Exception:
        return False
    try:
        return bool(disagreement(program))
    except Exception:
        return True


def check(first: int, count: int) -> tuple[int, int]:
    """Runs `count` programs from seed `first` on; returns their operations and the kernels they became."""
    ops = kernels = 0
    for seed in range(first, first + count):
        program = agreed(Generator(seed, nl).make(), seed)
        step = nl.trace()
        run_traced(program, step)
        ops += program.ops
        kernels += len(step.program.schedule.steps)  # native ones included
    return ops, kernels


def agreed(program: Program, seed: int) -> Program:
    if fails(program):
        small = shrink(program, fails)
        pytest.fail(f"seed {seed}: {describe(small)}\n{small}")
    return program


def describe(program: Program) -> str:
    try:
        return disagreement(program)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("first", range(0, FAST, BATCH))
def test_all_executors_agree(first: int, request: pytest.FixtureRequest) -> None:
    ops, kernels = check(first + request.config.getoption("--seed") * SLOW, BATCH)
    assert kernels <= ops / 2, f"{kernels} kernels for {ops} operations: fusion has regressed"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FAST, SLOW, BATCH))
def test_all_executors_agree_on_many(first: int, request: pytest.FixtureRequest) -> None:
    ops, kernels = check(first + request.config.getoption("--seed") * SLOW, BATCH)
    assert kernels <= ops / 2, f"{kernels} kernels for {ops} operations: fusion has regressed"


def check_gradients(first: int) -> None:
    reached = 0
    for seed in range(first, first + BATCH):
        program = agreed(Generator(seed, nl, gradients=True).make(), seed)
        reached += sum(name.startswith("g") for name in program.results)
    assert reached >= BATCH, "too few gradients for a test of them"


@pytest.mark.parametrize("first", range(0, FAST // 2, BATCH))
def test_all_executors_agree_on_gradients(first: int, request: pytest.FixtureRequest) -> None:
    check_gradients(first + request.config.getoption("--seed") * SLOW)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FAST // 2, SLOW // 2, BATCH))
def test_all_executors_agree_on_many_gradients(first: int, request: pytest.FixtureRequest) -> None:
    check_gradients(first + request.config.getoption("--seed") * SLOW)


def test_programs_are_as_rich_as_promised() -> None:
    programs = [Generator(seed, nl).make() for seed in range(FAST)]
    assert sum(program.ops for program in programs) / FAST >= 12
    assert sum(program.writes_through_a_view for program in programs) / FAST >= 0.3
    assert sum(any("# view" in line for line in program.setup) for program in programs) / FAST >= 0.2


def test_eager_agrees_with_torch_on_integers(torch: Any) -> None:
    # Integer arithmetic is exact: an independent library must give the same bits if views and writes are right.
    compared = 0
    for seed in range(FAST):
        program = Generator(seed, nl, exact=True, reversed_views=False).make()
        try:
            theirs = run_eager(program, torch)
        except RuntimeError:  # torch refuses in-place operations whose operands overlap
            continue
        ours = run_eager(program)
        assert ours == theirs, f"seed {seed}: {[k for k in ours if ours[k] != theirs[k]]}\n{program}"
        compared += 1
    assert compared > FAST / 2


def test_a_wrong_executor_is_found_and_shrunk() -> None:
    # The harness itself: an executor that ignores writes through views must be caught by few lines.
    def broken(program: Program) -> bool:
        writes = [line for line in program.body if line.startswith("v") and "].mul_(" in line]
        return bool(writes) and valid(program)

    def valid(program: Program) -> bool:
        try:
            run_eager(program)
        except Exception:
            return False
        return True

    programs = (Generator(seed, nl).make() for seed in itertools.count())
    small = shrink(next(program for program in programs if broken(program)), broken)
    assert len(small.body) <= 4
    assert len(small.results) == 1
