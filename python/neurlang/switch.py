"""Settings of a thread that are made from now on, or for a `with` block or a function."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Fn = TypeVar("Fn", bound=Callable[..., Any])


class _Blocks(threading.local):
    """Of one thread: how many are open, and what held before each, or before the switch was made there."""

    def __init__(self) -> None:
        self.open = 0
        self.before: list[Any] = []


class Switch:
    """Made by creating one; leaving a `with` block of it brings back what held before.

    As the decorator of a function it holds in each call of that, and no longer where it was created.
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

        @functools.wraps(fn)
        def switched(*args: Any, **kwargs: Any) -> Any:
            before = self._exchange(self.value)  # not in `self`, because threads may call the function at once
            try:
                return fn(*args, **kwargs)
            finally:
                self._exchange(before)

        return switched  # type: ignore[return-value]
