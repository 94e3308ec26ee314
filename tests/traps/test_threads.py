"""Traps of threads: a tape belongs to its thread, programs are shared by all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import neurlang as nl

from .harness import assert_counts, bits, data


def in_thread(fn: Callable[[], Any]) -> Any:
    """Runs `fn` on another thread and gives its result or raises what it raised."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result(timeout=60)


def test_two_threads_trace_at_once() -> None:
    nl.reset_programs()
    step = nl.trace(lambda x, k: ((x * k).tanh() + x).sum(1))
    inputs = [data(17, 33, seed=seed) for seed in range(4)]
    want = [[bits(((x * float(k)).tanh() + x).sum(1).numpy()) for k in range(30)] for x in inputs]
    barrier = threading.Barrier(4)

    def work(n: int) -> list[bytes]:
        barrier.wait()
        return [bits(step(inputs[n], float(k)).numpy()) for k in range(30)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == want
    # Several threads may meet the new tape before the first has compiled it, but not more than there are.
    assert_counts(step, compiled=(1, 4), replayed=120, cut=0)


def test_a_block_sees_nothing_of_another_threads_ops() -> None:
    step = nl.trace()
    with step:
        y = data(4) * 2.0
        other = in_thread(lambda: bits((data(4) * 3.0).numpy()))
        z = y + 1.0
    assert other == bits(data(4).numpy() * np.float32(3))
    assert bits(z.numpy()) == bits(data(4).numpy() * np.float32(2) + np.float32(1))
    assert_counts(step, compiled=1, cut=0)


def test_reading_a_pending_tensor_on_another_thread() -> None:
    step = nl.trace()
    with step:
        y = data(4) * 2.0
        with pytest.raises(nl.TraceError, match="thread"):
            in_thread(y.numpy)
    assert bits(y.numpy()) == bits(data(4).numpy() * np.float32(2))
    assert in_thread(lambda: bits(y.numpy())) == bits(y.numpy())


def test_using_a_pending_tensor_on_another_thread() -> None:
    step = nl.trace()
    with step:
        y = data(4) * 2.0
        with pytest.raises(nl.TraceError, match="thread"):
            in_thread(lambda: y + 1.0)
    assert_counts(step, compiled=1, cut=0)


def test_exit_on_another_thread() -> None:
    # A generator may be finalised on any thread.
    step = nl.trace()

    def open_block() -> Iterator[Any]:
        with step:
            yield data(4) * 2.0

    generator = open_block()
    next(generator)
    with pytest.raises(nl.TraceError, match="thread"):
        in_thread(generator.close)
    step.__exit__(None, None, None)  # it is still open here, where it was entered


def test_a_thread_that_ends_inside_a_block() -> None:
    # Its tape goes with it; the next thread starts clean.
    step = nl.trace()
    blocks: list[Any] = []

    def leave_open() -> None:
        blocks.append(step.__enter__())
        data(4) * 2.0  # recorded, and lost with the thread

    thread = threading.Thread(target=leave_open)
    thread.start()
    thread.join(60)
    assert in_thread(lambda: (data(4) + 1.0).tolist()) == (data(4) + 1.0).tolist()


def test_programs_are_shared_by_threads() -> None:
    nl.reset_programs()
    step = nl.trace(lambda x: x * 2.0 + 1.0)
    first = bits(step(data(9)).numpy())
    for _ in range(3):
        assert in_thread(lambda: bits(step(data(9)).numpy())) == first
    assert_counts(step, compiled=1, replayed=4, cut=0)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    x, w = data(257, 130), data(130, 65, seed=1)
    before = nl.get_num_threads()

    def run() -> list[bytes]:
        step = nl.trace(lambda x, w: ((x @ w).softmax(-1), x.sum(0), x.exp().sum(1), x.sum()))
        return [bits(result.numpy()) for _ in range(2) for result in step(x, w)]

    try:
        nl.set_num_threads(1)
        want = run()
        nl.set_num_threads(threads)
        assert run() == want
    finally:
        nl.set_num_threads(before)


@pytest.mark.parametrize("switch", [nl.no_grad(), nl.enable_grad()])
def test_threads_that_share_a_switch_leave_it_as_they_came(switch: Any) -> None:
    inside, left = threading.Event(), threading.Event()

    def other() -> bool:
        nl.set_grad_enabled(False)
        with switch:
            inside.set()
            assert left.wait(60)
        return nl.is_grad_enabled()

    with ThreadPoolExecutor(1) as pool:
        with switch:
            found = pool.submit(other)
            assert inside.wait(60)
        assert nl.is_grad_enabled()
        left.set()
        assert not found.result(60)
