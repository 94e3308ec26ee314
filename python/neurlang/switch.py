"""Settings of a thread that are made from now on, or for a `with` block or a function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Fn = TypeVar("Fn", bound=Callable[..., Any])


class Switch:
    """Made by creating one; leaving a `with` block of it brings back what held before.

    As the decorator of a function it holds in each call of that, and no longer where it was created.
    """

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

    def __call__(self, fn: Fn) -> Fn:
        if not self.entered:
            self.__exit__()
            self.entered = True

        @functools.wraps(fn)
        def switched(*args: Any, **kwargs: Any) -> Any:
            before = self._exchange(self.value)  # not in `self`, because threads may call the function at once
            try:
                return fn(*args, **kwargs)
            finally:
                self._exchange(before)

        return switched  # type: ignore[return-value]
