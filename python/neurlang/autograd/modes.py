"""Whether gradients are recorded: settings of a thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from threading import get_ident
from typing import Any

from .. import _tensor as F
from ..switch import Fn, Switch, during


class set_grad_enabled(Switch):
    """Turns the recording of gradients on or off for this thread: from now on, for a `with` block or a function.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> with neurlang.set_grad_enabled(False):
    ...     (x * 2).requires_grad
    False
    """

    _exchange = staticmethod(F.set_grad_enabled)

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)


class _Mode:
    """A fixed setting, for `with` blocks (which may nest, and which threads may share) and functions."""

    mode: bool

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        return self if fn is None else self(fn)

    def __init__(self) -> None:
        # By thread, what held before each block that is open; a threading.local takes longer to make than all the rest.
        self.before: defaultdict[int, list[bool]] = defaultdict(list)

    def __enter__(self) -> None:
        self.before[get_ident()].append(F.set_grad_enabled(self.mode))

    def __exit__(self, *error: object) -> None:
        F.set_grad_enabled(self.before[get_ident()].pop())

    def __call__(self, fn: Fn) -> Fn:
        return during(F.set_grad_enabled, self.mode, fn)


class no_grad(_Mode):
    """Records no gradients in the block or function.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> with neurlang.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """

    mode = False


class enable_grad(_Mode):
    """Records gradients in the block or function, also inside `no_grad`.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> with neurlang.no_grad(), neurlang.enable_grad():
    ...     (x * 2).requires_grad
    True
    """

    mode = True
