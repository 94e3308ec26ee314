"""Traps of control flow: branches on data, reads, raises, nesting, generators, interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import neurlang as nl

from .harness import assert_counts, bits, data, same


def test_branch_on_data() -> None:
    # tinygrad freezes the branch that it met at capture.
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any) -> Any:
            y = x * 2.0
            return y + 1.0 if y.sum() > 0 else y - 1.0

        return [f(data(5, seed=seed)) for seed in (1, 2, 3, 4, 1, 5)]

    same(scenario, compiled=(2, 3), replayed=(8, 13), cut=6)


@pytest.mark.parametrize("read", [float, bool, int, repr, str, lambda t: t.item(), lambda t: t.tolist()])
def test_every_reader_cuts(read: Any) -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            with step:
                y = (data(4, seed=seed) * 2.0).sum()
                value = read(y)
                z = y * 3.0
            results.append((value, z))
        return results

    same(scenario, compiled=2, replayed=(4, 5), cut=3)


def test_a_cut_names_its_line_and_reason() -> None:
    step = nl.trace()
    with step:
        y = data(4) * 2.0
        y.sum().item()
    why = "\n".join(step.why())
    assert "item" in why
    assert "test_control.py" in why
    assert_counts(step, cut=1)


def test_reading_an_input_is_no_cut() -> None:
    # Nothing pending depends on it: the value is there already.
    def scenario(step: Any) -> Any:
        x, results = data(4), []
        for _ in range(3):
            with step:
                y = x * 2.0
                k = x[0].item()
                z = y + k
            results.append(z)
        return results

    same(scenario, cut=(0, 3))


def test_data_dependent_shapes_cut() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(4):
            x = data(30, seed=seed)
            with step:
                y = x * 2.0
                positive = y[y > 0]
                z = positive.sum()
            results.append((positive, z))
        return results

    same(scenario, cut=4)


def test_strict_refuses_a_cut() -> None:
    step = nl.trace(strict=True)
    with pytest.raises(nl.TraceError, match="item"), step:
        (data(4) * 2.0).sum().item()


def test_strict_accepts_a_block_without_a_cut() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x: (x * 2.0).sum())
        return [f(data(4, seed=seed)) for seed in range(3)]

    same(scenario, step=nl.trace(strict=True), compiled=1, replayed=3, cut=0)


class Refused(Exception):
    """What the traps raise."""


def test_raise_in_the_middle() -> None:
    # A raise is a cut: what was recorded has happened, in place writes, attributes and lists included.
    def scenario(step: Any) -> Any:
        x, seen, results = data(4), [], []
        for k in range(6):
            try:
                with step:
                    x.add_(1.0)
                    seen.append(x * float(k))
                    if k % 2:
                        raise Refused
                    x.mul_(0.5)
                    y = x.sum()
                results.append(y)
            except Refused:
                results.append("refused")
        return results, seen, x

    same(scenario, compiled=1, replayed=3, interpreted=(1, 3))


@pytest.mark.parametrize("position", range(5))
def test_raise_at_every_position(position: int) -> None:
    def scenario(step: Any) -> Any:
        x, w, results = data(3, 4), data(4, 4, seed=1), []

        def stop(at: int, now: bool) -> None:
            if now and at == position:
                raise Refused

        for k in range(4):
            y = None
            try:
                with step:
                    stop(0, k == 2)
                    y = x @ w
                    stop(1, k == 2)
                    x += y
                    stop(2, k == 2)
                    w[0] = x.sum(0)
                    stop(3, k == 2)
                    y = y * 2.0
                    stop(4, k == 2)
            except Refused:
                results.append("refused")
            results.append(y)
        return results, x, w

    same(scenario, compiled=1, replayed=3)


def test_shape_error_in_the_middle() -> None:
    def scenario(step: Any) -> Any:
        x, results = data(4), []
        for n in (4, 5, 4):
            try:
                with step:
                    x.add_(1.0)
                    y = x + data(n)
                results.append(y)
            except nl.ShapeError as error:
                results.append(str(error))
        return results, x

    same(scenario, compiled=1, replayed=2)


def test_keyboard_interrupt_drops_what_is_pending() -> None:
    # An interrupt may come anywhere, so nothing half-recorded runs; what it would have made cannot be read.
    step, x = nl.trace(), data(4)
    before, y = bits(x.numpy().copy()), None
    with pytest.raises(KeyboardInterrupt), step:
        y = x * 2.0
        x.add_(1.0)
        raise KeyboardInterrupt
    with pytest.raises(nl.TraceError):
        y.numpy()
    assert bits(x.numpy()) == before
    assert_counts(step, compiled=0, replayed=0)
    with step:
        z = x * 2.0
    assert bits(z.numpy()) == bits(x.numpy() * np.float32(2))


def test_early_return_and_break() -> None:
    def scenario(step: Any) -> Any:
        def inner(x: Any) -> Any:
            with step:
                y = x * 2.0
                return y + 1.0

        results = [inner(data(4, seed=seed)) for seed in range(3)]
        for seed in range(3):
            with step:
                z = data(4, seed=seed) - 1.0
                if seed == 1:
                    break
        return results, z

    same(scenario, compiled=2, replayed=5, cut=0)


def test_nested_blocks_are_one_tape() -> None:
    def scenario(step: Any) -> Any:
        inner = nl.trace() if isinstance(step, nl.trace) else step
        results = []
        for seed in range(4):
            x = data(5, seed=seed)
            with step:
                y = x * 2.0
                with inner:
                    z = y + 1.0
                w = z * y
            results.append((z, w))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_nested_in_itself() -> None:
    # A decorated function that calls itself: recursion is inlined from the first call on.
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any, depth: int) -> Any:
            return x * 2.0 if depth == 0 else f(x + 1.0, depth - 1) * x

        return [f(data(4), depth) for depth in (3, 3, 1, 3)]

    same(scenario, compiled=2, replayed=4, cut=0)


def test_raise_in_a_nested_block_that_the_outer_catches() -> None:
    def scenario(step: Any) -> Any:
        x, results = data(4), []
        for k in range(4):
            with step:
                x.add_(1.0)
                try:
                    with step:
                        x.mul_(0.5)
                        if k % 2:
                            raise Refused
                except Refused:
                    x.sub_(3.0)
                y = x * 2.0
            results.append(y)
        return results, x

    same(scenario, compiled=(1, 4), replayed=(2, 12))


@pytest.mark.parametrize("kind", ["generator", "async", "async generator"])
def test_generators_are_refused_at_decoration(kind: str) -> None:
    def generator(x: Any) -> Iterator[Any]:
        yield x

    async def coroutine(x: Any) -> Any:
        return x

    async def async_generator(x: Any) -> Any:
        yield x

    functions = {"generator": generator, "async": coroutine, "async generator": async_generator}
    with pytest.raises(nl.TraceError):
        nl.trace(functions[kind])


def test_generator_left_open() -> None:
    # Two generators hold a block each and end in the wrong order: the blocks close by cutting.
    def scenario(step: Any) -> Any:
        def running(x: Any, k: float) -> Iterator[Any]:
            with step:
                y = x * k
                yield y
                yield y + 1.0

        results = []
        for seed in range(3):
            a, b = running(data(4, seed=seed), 2.0), running(data(4, seed=seed), 3.0)
            first, second = next(a), next(b)
            third = next(a)
            a.close()
            fourth = next(b)
            b.close()
            results.append((first, second, third, fourth))
        return results

    same(scenario, compiled=(0, 3), replayed=(0, 6), interpreted=(3, 6))


def test_block_around_an_await() -> None:
    def scenario(step: Any) -> Any:
        async def work(seed: int) -> Any:
            with step:
                y = data(4, seed=seed) * 2.0
                await asyncio.sleep(0)
                return y + 1.0

        async def both() -> Any:
            return await asyncio.gather(work(0), work(1))

        return [tuple(asyncio.run(both())) for _ in range(2)]

    same(scenario)


def test_one_trace_around_the_whole_loop() -> None:
    # Every read cuts; from the second round on the loop's segments are replayed.
    def scenario(step: Any) -> Any:
        x, losses = data(8), []
        with step:
            for _ in range(6):
                x = x * 0.9 + 0.1
                losses.append(x.sum().item())
        return losses, x

    same(scenario, compiled=(1, 2), replayed=(4, 7), cut=6)


def test_equality_of_lists_of_tensors_reads() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            with step:
                x = data(3, seed=seed)
                y = x * 2.0
                results.append(bool((y == x + x).all()))
        return results

    same(scenario, cut=3)
