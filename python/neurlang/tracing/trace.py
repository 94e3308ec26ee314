"""trace(): record what a block would compute, then match, compile and replay it (ARCHITECTURE.md, section 6)."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from .. import _tensor, config
from ..errors import TraceError
from ..lines import line_text
from .frozen import TracedFunction
from .recording import Segment, compiler, programs, thread

if TYPE_CHECKING:
    from ..compile import Compiled

Fn = TypeVar("Fn", bound=Callable[..., Any])


@dataclass
class Counts:
    """How often a trace compiled a program, replayed one, was cut, and ran a segment op by op.

    >>> step = neurlang.trace()
    >>> for n in range(3):
    ...     with step:
    ...         y = neurlang.zeros(2) + n
    >>> step.counts.replayed, step.counts.cut
    (3, 0)
    """

    compiled: int = 0
    replayed: int = 0
    cut: int = 0
    interpreted: int = 0


class trace:
    """Captures what runs inside, optimises it, and replays it when the same operations are recorded again.

    A context manager and a decorator in one object. The body runs as Python every time, so nothing can go stale; its
    tensor work is deferred to the end of the block, or to the point where a value is read (a *cut*).

    strict: a cut is a `TraceError` instead. check: notice foreign writes to inputs that NumPy also sees.
    backend: "cpu" compiles C, "interpret" runs the slow reference, "null" runs op by op; ValueError for other names.

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
        if backend not in config.BACKENDS:
            raise ValueError(f"trace: there is no backend {backend!r}; use one of {', '.join(config.BACKENDS)}")
        self.strict = strict
        self.check = check
        self.backend = backend
        self.counts = Counts()
        self._reasons: OrderedDict[str, int] = OrderedDict()
        self._last: tuple[Compiled, Segment] | None = None
        self._owner: threading.Thread | None = None
        self._want_lines = True  # finding them costs more than recording: only until all that comes again has its own
        self._without_lines: WeakSet[Segment] = WeakSet()

    # ---- context manager and decorator ----

    def __enter__(self) -> trace:
        depth = len(thread.open)
        try:  # a signal's handler may compute or raise between any two lines: the tape is opened last
            thread.open.append(self)
            self._owner = threading.current_thread()
            if depth == 0:
                thread.block_cut = False
                thread.tape.open(self._want_lines, self.check)
            else:
                self._note("inlined into the trace that was already open on this thread")
        except BaseException:
            del thread.open[depth:]
            if depth == 0:
                thread.tape.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self not in thread.open:
            owner = self._owner.name if self._owner else "none"
            raise TraceError(f"the trace was entered on thread {owner!r} and must be left there")
        if kind is not None and issubclass(kind, KeyboardInterrupt) and not thread.runs:
            thread.tape.drop("the block was interrupted before this tensor was computed")
        innermost = thread.open[-1] is self
        outermost = len(thread.open) == 1
        try:
            if kind is not None:
                _run_segment(thread.open[0], f"the block raised {kind.__name__}", last=outermost, raised=True)
            elif outermost:
                _run_segment(self, None, last=True)
            elif not innermost:
                _run_segment(thread.open[0], "traces were left out of order", last=False)
        finally:
            thread.open.remove(self)
            if not thread.open:
                thread.tape.close()
                thread.tape.clear()

    def __call__(self, fn: Fn) -> Fn:
        if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            raise TraceError(f"{fn.__name__} is a generator or coroutine; its body does not run as one block")

        return TracedFunction(self, fn)  # type: ignore[return-value]

    # ---- what happened ----

    def why(self) -> list[str]:
        """Why the trace was cut, ran op by op, or kept what: one line each, with how often.

        >>> step = neurlang.trace()
        >>> with step:
        ...     value = (neurlang.zeros(1) + 1).item()
        >>> step.why()[0]
        'cut at ...: item(): a value is read'
        """
        kept = self._last[0].notes(self._last[1].lines) if self._last is not None else []
        return [f"{text} ({n} times)" if n > 1 else text for text, n in self._reasons.items()] + kept

    @property
    def program(self) -> Compiled:
        """The program that ran last: its graph, kernels, source and memory plan.

        TraceError where nothing was compiled yet; so with what is taken from it.

        >>> double = neurlang.trace(lambda x: x * 2)
        >>> y = double(neurlang.ones(2))
        >>> len(double.program.kernels)
        1
        """
        if self._last is None:
            raise TraceError("nothing was compiled yet; run the block first" + "".join(f"\n  {w}" for w in self.why()))
        return self._last[0]

    @property
    def graph(self) -> Any:
        """The optimised graph of the last program; prints as text.

        >>> double = neurlang.trace(lambda x: x * 2)
        >>> y = double(neurlang.ones(2))
        >>> [node.op for node in double.graph.nodes]
        ['mul']
        """
        return self.program.graph

    @property
    def kernels(self) -> Any:
        """The kernels of the last program; each prints as text.

        >>> double = neurlang.trace(lambda x: (x * 2).relu())
        >>> y = double(neurlang.ones(2))
        >>> print(double.kernels[0], end="")
        // mul, relu
        kernel k0 [i0: 2] {
          in a0: f32[i0]
          scalar c1: f32
          out o2: f32[i0]
          v0 = mul(a0, c1)
          v1 = relu(v0)
          o2 = v1
        }
        """
        return self.program.kernels

    @property
    def memory(self) -> Any:
        """The arena of the last program: peak bytes, lower bound, who lies where and when.

        >>> chain = neurlang.trace(lambda x: (x @ x @ x).sum())
        >>> y = chain(neurlang.ones(4, 4))
        >>> chain.memory.peak_bytes
        128
        """
        return self.program.memory

    @property
    def inputs(self) -> Any:
        """The storages from outside that the last program reads or writes.

        >>> double = neurlang.trace(lambda x: x * 2)
        >>> y = double(neurlang.ones(2))
        >>> len(double.inputs)
        1
        """
        return self.program.inputs

    def source(self) -> str:
        """The C text of the last program.

        >>> double = neurlang.trace(lambda x: x * 2)
        >>> y = double(neurlang.ones(2))
        >>> "void k0" in double.source()
        True
        """
        return self.program.source

    def show(self, path: str = "trace.html") -> str:
        """Writes one self-contained page with the graph, the kernels and the arena; returns the path.

        >>> import tempfile
        >>> double = neurlang.trace(lambda x: x * 2)
        >>> y = double(neurlang.ones(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     double.show(f"{folder}/trace.html")
        '...trace.html'
        """
        from .. import view  # only who wants a picture pays for it

        return view.show(self, path)

    # ---- internals ----

    def _note(self, text: str) -> None:
        self._reasons[text] = self._reasons.get(text, 0) + 1

    def _know_lines(self, segment: Segment, tape: Any) -> None:
        """Keeps where the segment's operations stand, or asks for it once the segment has come a second time."""
        if not segment.lines:
            segment.lines = tape.lines
            if segment.lines:
                self._without_lines.discard(segment)
            elif segment.met:
                self._without_lines.add(segment)
        self._want_lines = bool(self._without_lines)


def _flush(reason: str) -> None:
    """The hot door's way up: values are needed now, so what was recorded runs and recording goes on."""
    owner = thread.open[0]
    if any(t.strict for t in thread.open):
        raise TraceError(f"{reason}, at {line_text(_tensor.user_line())}: a strict trace is not cut")
    thread.block_cut = True
    owner.counts.cut += 1
    owner._note(f"cut at {line_text(_tensor.user_line())}: {reason}")
    _run_segment(owner, reason, last=False)


def _run_segment(owner: trace, reason: str | None, last: bool, raised: bool = False) -> None:
    """Runs what was recorded: a matching program, a new one, or op by op. `reason` is None at a block's regular end."""
    if thread.runs:
        return  # a block in a signal's handler was computed op by op, and the tape is running already
    tape = thread.tape
    tape.close()
    thread.runs = True
    try:
        if tape.n_ops == 0:
            return
        if tape.foreign_write() >= 0:
            raise TraceError("an input that shares memory with NumPy was written during the block; copy it first")
        segment = programs.find(tape, tape.seal(), owner.backend)
        owner._know_lines(segment, tape)
        compiled, why_not = (None, str(reason)) if raised else _choose(owner, tape, segment, reason is None)
        try:
            if compiled is None:
                owner.counts.interpreted += 1
                owner._note(f"ran op by op: {why_not}")
                tape.run()
            else:
                owner.counts.replayed += 1
                owner._last = compiled, segment
                compiled.run(tape)
        except IndexError as e:
            if compiled is not None:
                tape.forgive(compiled.made_before(tape.failed_step()))
            n, lines = tape.failed_op(), tape.lines or segment.lines
            where = line_text(lines[n]) if 0 <= n < len(lines) else "an unknown line"
            raise IndexError(f"{e} (recorded at {where})") from None
    finally:
        try:  # an interrupt may come in between, and the next block is to run in any case
            tape.clear()
        finally:
            thread.runs = False
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
    complete_block = at_end and not thread.block_cut
    if segment.met == 1 and not complete_block:
        return None, "the segment was met for the first time"
    outputs = _union(tape.outputs(), *(p.outputs for p in segment.programs))
    try:
        compiled = compiler().compile_tape(tape.records(), tape.slots(), outputs, owner.backend)
    except Exception as e:  # whatever fails here, the op-by-op run is right and the user is told
        segment.failure = f"compiling failed: {type(e).__name__}: {e}"
        return None, segment.failure
    segment.programs.append(compiled)
    owner.counts.compiled += 1
    programs.trim()
    return compiled, ""


def _union(first: bytes, *others: bytes) -> bytes:
    """Slots that any of the programs must produce."""
    return bytes(max(column) for column in zip(first, *others, strict=True))


_tensor.set_hooks(flush=_flush)
