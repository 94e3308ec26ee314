"""Settings of a thread that are made from now on, or for a `with` block or a function."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

Fn = TypeVar("Fn", bound=Callable[..., Any])


def during(exchange: Callable[[Any], Any], value: Any, fn: Fn) -> Fn:
    """The function with a setting at `value` while it runs; what a generator yields is used under the caller's own."""
    if inspect.isgeneratorfunction(fn):
        return _during_steps(exchange, value, fn)

    @functools.wraps(fn)
    def function(*args: Any, **kwargs: Any) -> Any:
        before = exchange(value)  # kept nowhere else, because threads may call the function at once
        try:
            return fn(*args, **kwargs)
        finally:
            exchange(before)

    return function  # type: ignore[return-value]


def _during_steps(exchange: Callable[[Any], Any], value: Any, fn: Fn) -> Fn:
    @functools.wraps(fn)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = fn(*args, **kwargs)
        send, throw = during(exchange, value, body.send), during(exchange, value, body.throw)
        step, given = send, None
        while True:
            try:
                made = step(given)
            except StopIteration as end:
                return end.value
            try:
                step, given = send, (yield made)
            except BaseException as error:
                step, given = throw, error

    return generator  # type: ignore[return-value]


class _Blocks(threading.local):
    """Of one thread: how many are open, and what held before each, or before the switch was made there."""

    def __init__(self) -> None:
        self.open = 0
        self.before: list[Any] = []


class Switch:
    """Made by creating one; leaving a `with` block of it brings back what held before.

    As the decorator of a function it holds while that runs, and no longer where it was created.
    """

    _exchange: Callable[[Any], Any]  # sets a value, returns the one before

    def __init__(self, value: Any) -> None:
        self.value = value
        self.blocks = _Blocks()
        self.blocks.before.append(self._exchange(value))

    def __enter__(self) -> None:
        before, blocks = self._exchange(self.value), self.blocks
        if len(blocks.before) == blocks.open:
            blocks.before.append(before)
        blocks.open += 1

    def __exit__(self, *error: object) -> None:
        self.blocks.open -= 1
        self._exchange(self.blocks.before.pop())

    def __call__(self, fn: Fn) -> Fn:
        if len(self.blocks.before) > self.blocks.open:
            self._exchange(self.blocks.before.pop())
        return during(self._exchange, self.value, fn)
