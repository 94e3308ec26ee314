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

    def __enter__(self) -> None:
        if not self.before:
            self.before.append(self._exchange(self.value))

    def __exit__(self, *error: object) -> None:
        self._exchange(self.before.pop())
