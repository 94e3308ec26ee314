"""trace(): record what a block would compute, then match, compile and replay it (ARCHITECTURE.md, section 6)."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, TracebackType
from typing import Any, TypeVar

from . import _tensor, config
from .compile import Compiled, compile_row, compile_tape, connect
from .errors import TraceError

Fn = TypeVar("Fn", bound=Callable[..., Any])
Line = tuple[CodeType, int] | None


@dataclass
class Counts:
    """How often a trace compiled a program, replayed one, was cut, and ran a segment op by op."""

    compiled: int = 0
    replayed: int = 0
    cut: int = 0
    interpreted: int = 0


@dataclass
class Segment:
    """One recorded sequence of operations: how often it was met, its programs, and where its operations stand."""

    key: bytes
    met: int = 0
    programs: list[Compiled] = field(default_factory=list)
    failure: str = ""
    lines: list[Line] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return len(self.key) + sum(p.nbytes for p in self.programs)


class Programs:
    """All segments of the process, the least recently used first, bounded in bytes."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[int, str], list[Segment]] = OrderedDict()
        self._lock = threading.RLock()

    def find(self, tape: Any, digest: int, backend: str) -> Segment:
        """The segment with exactly this tape; the hash only finds the bucket, the words decide."""
        with self._lock:
            bucket = self._buckets.setdefault((digest & config.TAPE_HASH_MASK, backend), [])
            self._buckets.move_to_end((digest & config.TAPE_HASH_MASK, backend))
            for segment in bucket:
                if tape.matches(segment.key):
                    return segment
            bucket.append(Segment(tape.key()))
            return bucket[-1]

    def trim(self) -> None:
        """Forgets the least recently used beyond `config.PROGRAM_CACHE_BYTES`."""
        with self._lock:
            sizes = {place: sum(s.nbytes for s in bucket) for place, bucket in self._buckets.items()}
            total = sum(sizes.values())
            for place, size in sizes.items():
                if total <= config.PROGRAM_CACHE_BYTES or len(self._buckets) == 1:
                    break
                total -= size
                del self._buckets[place]

    def clear(self) -> None:
        with self._lock:
            self._buckets.clear()


_programs = Programs()


def reset_programs() -> None:
    """Forgets every compiled program of the process (the on-disk cache stays)."""
    _programs.clear()


class _Thread(threading.local):
    """What is open on this thread: the traces in the order they were entered, and their one tape."""

    def __init__(self) -> None:
        self.open: list[trace] = []
        self.tape: Any = _tensor.TapeRecorder()
        self.block_cut = False  # whether the open block was already cut


_thread = _Thread()


class trace:
    """Captures what runs inside, optimises it, and replays it when the same operations are recorded again.

    A context manager and a decorator in one object. The body runs as Python every time, so nothing can go stale; its
    tensor work is deferred to the end of the block, or to the point where a value is read (a *cut*).

    strict: a cut is a `TraceError` instead. check: notice foreign writes to inputs that NumPy also sees.
    backend: "cpu" compiles C, "interpret" runs the slow reference.

    >>> step = neurlang.trace()
    >>> x = neurlang.arange(4.0)
    >>> for _ in range(2):
    ...     with step:
    ...         y = (x * 2 + 1).relu()
    >>> y.tolist(), step.counts.replayed
    ([1.0, 3.0, 5.0, 7.0], 2)
    """

    def __new__(cls, fn: Fn | None = None, **options: Any) -> Any:
        self = super().__new__(cls)
        if fn is None:
            return self
        self.__init__(**options)  # type: ignore[misc]
        return self(fn)

    def __init__(self, fn: None = None, *, strict: bool = False, check: bool = False, backend: str = "cpu") -> None:
        self.strict = strict
        self.check = check
        self.backend = backend
        self.counts = Counts()
        self._reasons: OrderedDict[str, int] = OrderedDict()
        self._last: Compiled | None = None
        self._owner: threading.Thread | None = None
        self._want_lines = True  # until the lines of what is recorded are known: finding them costs more than recording

    # ---- context manager and decorator ----

    def __enter__(self) -> trace:
        if not _thread.open:
            _thread.tape.open(self._want_lines, self.check)
            _thread.block_cut = False
        else:
            self._note("inlined into the trace that was already open on this thread")
        _thread.open.append(self)
        self._owner = threading.current_thread()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self not in _thread.open:
            owner = self._owner.name if self._owner else "none"
            raise TraceError(f"the trace was entered on thread {owner!r} and must be left there")
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            _thread.tape.drop("the block was interrupted before this tensor was computed")
        innermost = _thread.open[-1] is self
        outermost = len(_thread.open) == 1
        try:
            if kind is not None:
                _run_segment(_thread.open[0], f"the block raised {kind.__name__}", last=outermost, raised=True)
            elif outermost:
                _run_segment(self, None, last=True)
            elif not innermost:
                _run_segment(_thread.open[0], "traces were left out of order", last=False)
        finally:
            _thread.open.remove(self)
            if not _thread.open:
                _thread.tape.close()
                _thread.tape.clear()

    def __call__(self, fn: Fn) -> Fn:
        if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            raise TraceError(f"{fn.__name__} is a generator or coroutine; its body does not run as one block")

        @functools.wraps(fn)
        def traced(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)

        return TracedFunction(self, fn, traced)  # type: ignore[return-value]

    # ---- what happened ----

    def why(self) -> list[str]:
        """Why the trace was cut, ran op by op, or kept what: one line each, with how often."""
        kept = self._last.notes() if self._last is not None else []
        return [f"{text} ({n} times)" if n > 1 else text for text, n in self._reasons.items()] + kept

    @property
    def program(self) -> Compiled:
        """The program that ran last: its graph, kernels, source and memory plan."""
        if self._last is None:
            raise TraceError("nothing was compiled yet; run the block first" + "".join(f"\n  {w}" for w in self.why()))
        return self._last

    @property
    def graph(self) -> Any:
        """The optimised graph of the last program; prints as text."""
        return self.program.graph

    @property
    def kernels(self) -> Any:
        """The kernels of the last program; each prints as text."""
        return self.program.kernels

    @property
    def memory(self) -> Any:
        """The arena of the last program: peak bytes, lower bound, who lies where and when."""
        return self.program.memory

    @property
    def inputs(self) -> Any:
        """The storages from outside that the last program reads or writes."""
        return self.program.inputs

    def source(self) -> str:
        """The C text of the last program."""
        return self.program.source

    def show(self, path: str = "trace.html") -> str:
        """Writes one self-contained page with the graph, the kernels and the arena; returns the path."""
        from . import view  # only who wants a picture pays for it

        return view.show(self, path)

    # ---- internals ----

    def _note(self, text: str) -> None:
        self._reasons[text] = self._reasons.get(text, 0) + 1


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
    if _thread.open:
        raise TraceError("freeze cannot be called inside a trace")
    inputs, _ = _flatten((args, kwargs))
    tape = _thread.tape
    _thread.open.append(owner)
    strict, owner.strict = owner.strict, True  # a cut would leave part of the function out of the program
    tape.open(True, False)
    try:
        result = fn(*args, **kwargs)
        results, layout = _flatten(result)
        tape.close()
        tape.seal()
        compiled = compile_tape(tape.records(), tape.slots(), tape.outputs(), tape.lines, owner.backend)
        frozen = _tensor.freeze_tape(tape, compiled.handle, tuple(inputs), tuple(results))
    finally:
        owner.strict = strict
        _thread.open.remove(owner)
        tape.close()
        tape.drop("this tensor was recorded to freeze a program and never computed")
    return FrozenFunction(frozen, layout, frozen.input_descriptions, compiled)


def _user_line() -> str:
    """file:line of the nearest frame outside the package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "neurlang":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _line_text(line: Line) -> str:
    """file:line of a recorded (code, instruction offset)."""
    if line is None:
        return "an unknown line"
    code, offset = line
    for start, end, number in code.co_lines():
        if start <= offset < end and number is not None:
            return f"{code.co_filename}:{number}"
    return f"{code.co_filename}:{code.co_firstlineno}"


def _flush(reason: str) -> None:
    """The hot door's way up: values are needed now, so what was recorded runs and recording goes on."""
    owner = _thread.open[0]
    if any(t.strict for t in _thread.open):
        raise TraceError(f"{reason}, at {_user_line()}: a strict trace is not cut")
    _thread.block_cut = True
    owner.counts.cut += 1
    owner._note(f"cut at {_user_line()}: {reason}")
    _run_segment(owner, reason, last=False)


def _run_segment(owner: trace, reason: str | None, last: bool, raised: bool = False) -> None:
    """Runs what was recorded: a matching program, a new one, or op by op. `reason` is None at a block's regular end."""
    tape = _thread.tape
    if tape.n_ops == 0:
        tape.clear()
        return
    tape.close()
    try:
        if tape.foreign_write() >= 0:
            raise TraceError("an input that shares memory with NumPy was written during the block; copy it first")
        segment = _programs.find(tape, tape.seal(), owner.backend)
        segment.lines = segment.lines or tape.lines
        owner._want_lines = not segment.lines
        compiled, why_not = (None, str(reason)) if raised else _choose(owner, tape, segment, reason is None)
        try:
            if compiled is None:
                owner.counts.interpreted += 1
                owner._note(f"ran op by op: {why_not}")
                tape.run()
            else:
                owner.counts.replayed += 1
                owner._last = compiled
                compiled.run(tape)
        except IndexError as e:
            if compiled is not None:
                tape.forgive(compiled.made_before(tape.failed_step()))
            n, lines = tape.failed_op(), tape.lines or segment.lines
            where = _line_text(lines[n]) if 0 <= n < len(lines) else "an unknown line"
            raise IndexError(f"{e} (recorded at {where})") from None
    finally:
        tape.clear()
        if not last:
            tape.open(owner._want_lines, owner.check)


def _choose(owner: trace, tape: Any, segment: Segment, at_end: bool) -> tuple[Compiled | None, str]:
    """The program for the tape, or None and why it runs op by op."""
    segment.met += 1
    if tape.leaves_overlap():
        return None, "two inputs from NumPy lie over each other and one is written"
    for compiled in segment.programs:
        if tape.fits(compiled.outputs):
            return compiled, ""
    if segment.failure:
        return None, segment.failure
    complete_block = at_end and not _thread.block_cut
    if segment.met == 1 and not complete_block:
        return None, "the segment was met for the first time"
    outputs = _union(tape.outputs(), *(p.outputs for p in segment.programs))
    try:
        compiled = compile_tape(tape.records(), tape.slots(), outputs, tape.lines, owner.backend)
    except Exception as e:  # whatever fails here, the op-by-op run is right and the user is told
        segment.failure = f"compiling failed: {type(e).__name__}: {e}"
        return None, segment.failure
    segment.programs.append(compiled)
    owner.counts.compiled += 1
    _programs.trim()
    return compiled, ""


def _union(first: bytes, *others: bytes) -> bytes:
    """Slots that any of the programs must produce."""
    return bytes(max(column) for column in zip(first, *others, strict=True))


connect(_tensor)
_tensor.set_hooks(flush=_flush, compile=compile_row)
