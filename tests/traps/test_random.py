"""Traps of random state: every run draws the next numbers, traced as eager, and leaves the generator alike."""

from __future__ import annotations

from typing import Any

import neurlang as nl
import neurlang.functional as F

from .harness import data, same


def test_random_numbers_go_on() -> None:
    # A frozen seed would give the same noise in every replay.
    def scenario(step: Any) -> Any:
        nl.manual_seed(7)
        results = []
        for _ in range(4):
            with step:
                y = nl.rand(3, 5) + nl.randn(5)
            results.append(y)
        return results, nl.rand(4)

    same(scenario, compiled=1, replayed=4, cut=0)


def test_seed_set_inside_the_block() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in (1, 2, 1):
            with step:
                nl.manual_seed(seed)
                y = nl.rand(6) * 2.0
            results.append(y)
        return results, nl.rand(2)

    same(scenario, compiled=1, replayed=3, cut=0)


def test_seed_set_between_blocks() -> None:
    def scenario(step: Any) -> Any:
        f, results = step(lambda: nl.rand(6) - 0.5), []
        for seed in (3, 3, 4):
            nl.manual_seed(seed)
            results += [f(), f()]
        return results

    same(scenario, compiled=1, replayed=6, cut=0)


def test_dropout_draws_anew_and_back_propagates_its_mask() -> None:
    def scenario(step: Any) -> Any:
        nl.manual_seed(11)
        x, results = data(8, 9).requires_grad_(), []
        for _ in range(4):
            x.grad = None
            with step:
                y = F.dropout(x, 0.4, training=True) * 2.0
                y.sum().backward()
            results.append((y, x.grad))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_dropout_rate_changes() -> None:
    def scenario(step: Any) -> Any:
        nl.manual_seed(5)
        x = data(40)
        f = step(lambda p: F.dropout(x, p, training=True))
        return [f(p) for p in (0.5, 0.1, 0.5, 0.9)]

    same(scenario, compiled=(1, 3), replayed=4, cut=0)


def test_drawing_eagerly_in_between() -> None:
    def scenario(step: Any) -> Any:
        nl.manual_seed(2)
        f, results = step(lambda: nl.rand(4)), []
        for k in range(4):
            results.append(f())
            if k % 2:
                results.append(nl.rand(3))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_random_numbers_that_nothing_uses_still_advance() -> None:
    # Dead code is removed from the program, not from the generator's state.
    def scenario(step: Any) -> Any:
        nl.manual_seed(4)
        results = []
        for _ in range(3):
            with step:
                nl.rand(10)
                y = nl.rand(2) + 1.0
            results.append(y)
        return results, nl.rand(2)

    same(scenario, compiled=1, replayed=3, cut=0)


def test_two_draws_are_two_draws() -> None:
    # Common-subexpression elimination must not make one of them.
    def scenario(step: Any) -> Any:
        nl.manual_seed(6)
        f = step(lambda: nl.rand(5) - nl.rand(5))
        return [f() for _ in range(3)]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_raise_after_a_draw() -> None:
    def scenario(step: Any) -> Any:
        nl.manual_seed(8)
        results = []
        for k in range(4):
            try:
                with step:
                    y = nl.rand(3)
                    if k == 1:
                        raise ValueError
            except ValueError:
                pass
            results.append(y)
        return results, nl.rand(1)

    same(scenario, compiled=1, replayed=3, cut=(0, 1))
