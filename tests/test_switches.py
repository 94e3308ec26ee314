"""What turns the recording of gradients off and on: nested, as decorators, of generators, thread by thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from leaves import leaf

import neurlang as nl


def test_switches_nest_and_decorate() -> None:
    x = leaf([1.0])
    switch = nl.no_grad()
    with switch:
        with nl.enable_grad():
            assert (x * 2).requires_grad
        with switch:
            pass
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @nl.no_grad()
    def double(t: nl.Tensor, depth: int = 2) -> nl.Tensor:
        """Doubles."""
        return double(t, depth - 1) if depth else t * 2

    @nl.no_grad
    def triple(t: nl.Tensor) -> nl.Tensor:
        return t * 3

    assert double.__doc__ == "Doubles."
    assert not double(x).requires_grad and not triple(x).requires_grad
    assert (x * 2).requires_grad
    with nl.set_grad_enabled(False):
        assert not nl.is_grad_enabled()
    assert nl.is_grad_enabled()
    nl.set_grad_enabled(False)
    assert not nl.is_grad_enabled()
    nl.set_grad_enabled(True)

    @nl.set_grad_enabled(False)
    def half(t: nl.Tensor) -> nl.Tensor:
        """Halves."""
        return t / 2

    assert nl.is_grad_enabled() and half.__doc__ == "Halves."
    assert not half(x).requires_grad and (x * 2).requires_grad


@pytest.mark.parametrize("switch", [nl.no_grad, nl.no_grad(), lambda fn: nl.set_grad_enabled(False)(fn)])
def test_switches_hold_while_a_generator_runs(switch: Any) -> None:
    closed = []

    @switch
    def numbers() -> Iterator[tuple[Any, bool]]:
        """What comes in, and whether gradients are recorded."""
        given = None
        try:
            while given != "end":
                try:
                    given = yield given, nl.is_grad_enabled()
                except KeyError as error:
                    given = error.args[0]
        finally:
            closed.append(nl.is_grad_enabled())
        return "done"

    running, left = numbers(), numbers()
    assert next(running) == next(left) == (None, False) and nl.is_grad_enabled()
    assert running.send(1) == (1, False) and nl.is_grad_enabled()
    assert running.throw(KeyError(2)) == (2, False) and nl.is_grad_enabled()
    with pytest.raises(StopIteration, match="done"):
        running.send("end")
    left.close()
    assert closed == [False, False] and nl.is_grad_enabled()
    assert numbers.__doc__.startswith("What comes in")


def test_switches_belong_to_their_thread() -> None:
    seen = []
    with nl.no_grad():
        thread = threading.Thread(target=lambda: seen.append(nl.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]
