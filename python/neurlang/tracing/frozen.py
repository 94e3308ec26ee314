"""Traced functions, and frozen ones: a compiled program as a callable with listed inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _tensor
from ..errors import TraceError
from .recording import compiler, thread

if TYPE_CHECKING:
    from ..compile import Compiled
    from .trace import trace


class TracedFunction:
    """A function whose calls are traced; has everything the trace has, and `freeze`."""

    def __init__(self, tracer: trace, fn: Callable[..., Any]) -> None:
        self._tracer = tracer
        self._fn = fn
        self._last_call: Any = None  # its arguments, a Likeness in the place of each tensor
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            self._last_call = _tensor.with_leaves((args, kwargs), _tensor.Likeness)
        except (TypeError, RecursionError):  # a structure that cannot be built again: `freeze` asks for arguments
            self._last_call = None
        with self._tracer:
            return self._fn(*args, **kwargs)

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
        example = _tensor.with_leaves((args, kwargs), _tensor.Likeness) if args or kwargs else self._last_call
        if example is None:
            raise TraceError("freeze needs example arguments, or a call before it")
        return _freeze(self._tracer, self._fn, example)

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
        results = iter(self._frozen.run(tuple(_tensor.leaves((args, kwargs)))))
        return _tensor.with_leaves(self._result_layout, lambda _: next(results))


def _freeze(owner: trace, fn: Callable[..., Any], example: Any) -> FrozenFunction:
    """Records fn once with arguments like the example's, compiles what it recorded, and binds the program."""
    if thread.open:
        raise TraceError("freeze cannot be called inside a trace")
    tape = thread.tape
    thread.open.append(owner)
    strict, owner.strict = owner.strict, True  # a cut would leave part of the function out of the program
    tape.open(True, False)
    try:
        args, kwargs = _tensor.with_leaves(example, tape.stand_in)
        inputs = tuple(_tensor.leaves((args, kwargs)))
        made = fn(*args, **kwargs)
        results, result_layout = _tensor.leaves(made), _tensor.with_leaves(made, _tensor.Likeness)
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
