"""Settings of a thread that are made from now on, or for a `with` block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Switch:
    """Made by creating one; leaving a `with` block of it brings back what held before."""

    _exchange: Callable[[Any], Any]  # sets a value, returns the one before

    def __init__(self, value: Any) -> None:
        self.value = value
        self.before = [self._exchange(value)]
        self.entered = False

    def __enter__(self) -> None:
        before = self._exchange(self.value)
        if self.entered:
            self.before.append(before)
        self.entered = True  # the first block brings back what held before it was made

    def __exit__(self, *error: object) -> None:
        self._exchange(self.before.pop())
