"""What recording keeps: each thread's open traces and tape, and the programs of all sequences met so far."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import _tensor, config
from ..lines import Line

if TYPE_CHECKING:
    from ..compile import Compiled


@dataclass(eq=False)
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


programs = Programs()


def reset_programs() -> None:
    """Forgets every compiled program of the process (the on-disk cache stays).

    >>> double = neurlang.trace(lambda x: x * 2)
    >>> neurlang.reset_programs()
    >>> y = double(neurlang.ones(2))
    >>> double.counts.compiled
    1
    """
    programs.clear()


class Thread(threading.local):
    """What is open on this thread: the traces in the order they were entered, and their one tape."""

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.tape: Any = _tensor.TapeRecorder()
        self.block_cut = False  # whether the open block was already cut
        self.runs = False  # whether what was recorded is being computed: a signal's handler may come in between


thread = Thread()


@functools.cache
def compiler() -> Any:
    """The compiler, imported when something is first compiled: who only computes eagerly does not wait for it."""
    from .. import compile

    compile.connect(_tensor)
    return compile


_tensor.set_hooks(compile=lambda row, dtype: compiler().compile_row(row, dtype))
