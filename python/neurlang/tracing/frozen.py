"""Traced functions, and frozen ones: a compiled program as a callable with listed inputs."""

from __future__ import annotations

import functools
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
        self._last_call: tuple[list[Likeness], Any] | None = None  # what the tensors looked like, and where they stood
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors, layout = _flatten((args, kwargs))
        self._last_call = ([_likeness(t) for t in tensors], layout)
        return self._traced(*args, **kwargs)

    def freeze(self, *args: Any, **kwargs: Any) -> FrozenFunction:
        """A callable without Python inside: the tensors among the arguments are its inputs, all else is captured.

        Records the function once, with arguments that look like the given ones (like those of the last call when none
        are given) and have no values: what depends on a value cannot be frozen. Numbers, random seeds and every tensor
        that is not an argument keep what they have now.

        >>> double = neurlang.trace(lambda x: x * 2)
        >>> frozen = double.freeze(neurlang.zeros(2))
        >>> frozen(neurlang.tensor([1.0, 2.0])).tolist(), frozen.inputs
        ([2.0, 4.0], ('float32[2]',))
        """
        if args or kwargs:
            tensors, layout = _flatten((args, kwargs))
            return _freeze(self._tracer, self._fn, [_likeness(t) for t in tensors], layout)
        if self._last_call is None:
            raise TraceError("freeze needs example arguments, or a call before it")
        return _freeze(self._tracer, self._fn, *self._last_call)

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


Likeness = tuple[Any, tuple[int, ...], tuple[int, ...], bool]


def _likeness(x: Any) -> Likeness:
    """What a tensor looks like: dtype, shape, strides, whether it requires grad."""
    return x.dtype, x.shape, x.stride(), x.requires_grad


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


def _freeze(owner: trace, fn: Callable[..., Any], likenesses: list[Likeness], layout: Any) -> FrozenFunction:
    """Records fn once, compiles what it recorded, and binds the program."""
    if thread.open:
        raise TraceError("freeze cannot be called inside a trace")
    tape = thread.tape
    thread.open.append(owner)
    strict, owner.strict = owner.strict, True  # a cut would leave part of the function out of the program
    tape.open(True, False)
    try:
        inputs = tuple(tape.stand_in(*likeness) for likeness in likenesses)
        args, kwargs = _rebuild(layout, iter(inputs))
        results, result_layout = _flatten(fn(*args, **kwargs))
        tape.close()
        tape.seal()
        compiled = compiler().compile_tape(tape.records(), tape.slots(), tape.outputs(), owner.backend)
        frozen = _tensor.freeze_tape(tape, compiled.handle, inputs, tuple(results))
    finally:
        owner.strict = strict
        thread.open.remove(owner)
        tape.close()
        tape.drop("this tensor was recorded to freeze a program and never computed")
    return FrozenFunction(frozen, result_layout, frozen.input_descriptions, compiled)
