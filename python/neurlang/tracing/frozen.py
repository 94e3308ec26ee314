"""Traced functions, and frozen ones: a compiled program as a callable with listed inputs."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import _tensor
from ..errors import TraceError
from .recording import compiler, thread

if TYPE_CHECKING:
    from ..compile import Compiled
    from .trace import trace


class TracedFunction:
    """A function whose calls are traced; has everything the trace has, and `freeze`."""

    def __init__(self, tracer: trace, fn: Callable[..., Any], traced: Callable[..., Any]) -> None:
        self._tracer = tracer
        self._fn = fn
        self._traced = traced
        self._last_call: tuple[list[Any], Any] | None = None  # weak references to the tensors, and where they go
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors, layout = _flatten((args, kwargs))
        self._last_call = ([weakref.ref(t) for t in tensors], layout)
        return self._traced(*args, **kwargs)

    def freeze(self, *args: Any, **kwargs: Any) -> FrozenFunction:
        """A callable without Python inside: the tensors among the arguments are its inputs, all else is captured.

        Records the function once with example arguments (those of the last call when none are given; they must still be
        alive). Numbers, random seeds and every tensor that is not an argument keep what they have now.
        """
        if not args and not kwargs:
            if self._last_call is None:
                raise TraceError("freeze needs example arguments, or a call before it")
            tensors = [r() for r in self._last_call[0]]
            if any(t is None for t in tensors):
                raise TraceError("the arguments of the last call are gone; give freeze example arguments")
            args, kwargs = _rebuild(self._last_call[1], iter(tensors))
        return _freeze(self._tracer, self._fn, args, kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._tracer, name)


class FrozenFunction:
    """A compiled program as a function of its listed `inputs`; raises when their dtypes, shapes or strides differ."""

    def __init__(self, frozen: Any, result_layout: Any, inputs: tuple[str, ...], compiled: Compiled) -> None:
        self._frozen = frozen
        self._result_layout = result_layout
        self.inputs = inputs
        self.program = compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors, _ = _flatten((args, kwargs))
        return _rebuild(self._result_layout, iter(self._frozen.run(tuple(tensors))))


@dataclass(frozen=True)
class _Hole:
    """Where a tensor stood in a flattened structure."""


def _flatten(value: Any) -> tuple[list[Any], Any]:
    """The tensors of nested tuples, lists and dicts in order, and the structure with holes in their places."""
    tensors: list[Any] = []

    def walk(v: Any) -> Any:
        if isinstance(v, _tensor.Tensor):
            tensors.append(v)
            return _Hole()
        if isinstance(v, tuple) and hasattr(v, "_fields"):
            return type(v)(*[walk(x) for x in v])
        if isinstance(v, (tuple, list)):
            return type(v)([walk(x) for x in v])
        if isinstance(v, dict):
            return {k: walk(x) for k, x in v.items()}
        return v

    return tensors, walk(value)


def _rebuild(layout: Any, tensors: Any) -> Any:
    """The structure with its holes filled in order."""
    if isinstance(layout, _Hole):
        return next(tensors)
    if isinstance(layout, tuple) and hasattr(layout, "_fields"):
        return type(layout)(*[_rebuild(x, tensors) for x in layout])
    if isinstance(layout, (tuple, list)):
        return type(layout)([_rebuild(x, tensors) for x in layout])
    if isinstance(layout, dict):
        return {k: _rebuild(x, tensors) for k, x in layout.items()}
    return layout


def _freeze(owner: trace, fn: Callable[..., Any], args: Any, kwargs: Any) -> FrozenFunction:
    """Records fn once, compiles what it recorded, and binds the program."""
    if thread.open:
        raise TraceError("freeze cannot be called inside a trace")
    inputs, _ = _flatten((args, kwargs))
    tape = thread.tape
    thread.open.append(owner)
    strict, owner.strict = owner.strict, True  # a cut would leave part of the function out of the program
    tape.open(True, False)
    try:
        result = fn(*args, **kwargs)
        results, layout = _flatten(result)
        tape.close()
        tape.seal()
        compiled = compiler().compile_tape(tape.records(), tape.slots(), tape.outputs(), owner.backend)
        frozen = _tensor.freeze_tape(tape, compiled.handle, tuple(inputs), tuple(results))
    finally:
        owner.strict = strict
        thread.open.remove(owner)
        tape.close()
        tape.drop("this tensor was recorded to freeze a program and never computed")
    return FrozenFunction(frozen, layout, frozen.input_descriptions, compiled)
