"""Traps of liveness: which results exist after a block decides what a program must write."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import neurlang as nl

from .harness import data, same


def kept(step: Any) -> list[str]:
    """What `why()` says lives on after the block."""
    return [line for line in step.why() if line.startswith("kept from")]


def test_another_live_set() -> None:
    # The same tape, but now a former intermediate lives: the first program does not write it.
    def scenario(step: Any) -> Any:
        history, results = [], []

        @step
        def f(x: Any, keep: bool) -> Any:
            h = x * 2.0 + 1.0
            if keep:
                history.append(h)
            return h.tanh() * 3.0

        for k in range(7):
            results.append(f(data(6, seed=k), k % 3 == 1))
        return results, history

    same(scenario, compiled=(1, 2), replayed=7, cut=0)


def test_a_superset_of_the_live_set_serves() -> None:
    # The program made for more outputs may serve fewer; the count bounds it, the bits decide.
    def scenario(step: Any) -> Any:
        results = []
        for keep in (True, False, False, True):
            with step:
                h = data(6) * 2.0
                y = h + 1.0
                if not keep:
                    h = None
            results.append((h, y))
        return results

    same(scenario, compiled=(1, 2), replayed=4, cut=0)


def test_names_bound_in_the_block_live() -> None:
    def scenario(step: Any) -> Any:
        for seed in range(3):
            with step:
                a = data(5, seed=seed) + 1.0
                b = a * 2.0
                c = b.sum()
        return a, b, c

    step = same(scenario, compiled=1, replayed=3, cut=0)
    assert len(kept(step)) == 3


def test_deleted_names_do_not_live() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            with step:
                a = data(5, seed=seed) + 1.0
                b = a * 2.0
                del a
                c = b.sum()
                del b
            results.append(c)
        return results

    step = same(scenario, compiled=1, replayed=3, cut=0)
    assert len(kept(step)) == 1


def test_a_view_keeps_its_storage_alive() -> None:
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any) -> Any:
            return (x * 2.0)[1:, ::2]

        return [f(data(4, 6, seed=seed)) for seed in range(3)]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_a_reference_cycle_keeps_a_tensor_alive() -> None:
    # A superfluous output at worst, never a wrong one; the collector's timing must not matter.
    class Node:
        def __init__(self, value: Any) -> None:
            self.value, self.me = value, self

    def scenario(step: Any) -> Any:
        results = []
        for seed in range(4):
            with step:
                node = Node(data(5, seed=seed) * 2.0)
                y = node.value + 1.0
                del node
                if seed == 2:
                    gc.collect()
            results.append(y)
        return results

    same(scenario, compiled=(1, 2), replayed=4, cut=0)


def test_a_weak_reference_does_not_keep_a_tensor_alive() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            with step:
                h = data(5, seed=seed) * 2.0
                ghost = weakref.ref(h)
                y = h + 1.0
                del h
            results.append((y, ghost() is None))
        return results

    same(scenario, compiled=1, replayed=3, cut=0)


def test_only_a_write_lives() -> None:
    def scenario(step: Any) -> Any:
        x = data(5)
        for _ in range(3):
            with step:
                x.copy_((x * 2.0).tanh())
        return x

    same(scenario, compiled=1, replayed=3, cut=0)


def test_nothing_lives() -> None:
    def scenario(step: Any) -> Any:
        x = data(5)
        for _ in range(3):
            with step:
                (x * 2.0).sum()
        return x

    same(scenario, compiled=(0, 1), replayed=(0, 4), cut=0)


def test_result_of_an_earlier_block_dies_in_this_one() -> None:
    # A dead leaf's buffer may be reused, but only after its last reader.
    def scenario(step: Any) -> Any:
        y = data(50)
        for _ in range(5):
            with step:
                z = y * 2.0 - 1.0
                y = z.sin() + y
                del z
        return y

    same(scenario, compiled=1, replayed=5, cut=0)


def test_empty_tensors_live_too() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x: (x * 2.0, x.sum(), x.sum(0)))
        return [f(nl.zeros(0, 3)), f(nl.zeros(0, 3)), f(nl.zeros(3, 0)), f(nl.zeros(0, 3))]

    same(scenario, compiled=2, replayed=4, cut=0)
