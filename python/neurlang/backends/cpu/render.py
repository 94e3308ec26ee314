"""From a schedule to files of C: every kernel's function once, in one file or, for many, in one per core."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.kernel import Kernel, KernelStep, Schedule
from .. import cstyle

SPLIT_FUNCTIONS = 8  # from here on two compilers side by side are faster than one
MAX_FILES = 2


@dataclass(frozen=True)
class Source:
    """The C files of a trace, and for every kernel the function that runs it."""

    files: tuple[str, ...]
    symbols: dict[tuple, tuple[int, str]]  # structure -> (file, function)

    def find(self, step: KernelStep) -> tuple[int, str]:
        return self.symbols[cstyle.structure(step.kernel, step.tile)]

    @property
    def text(self) -> str:
        return "\n".join(self.files)


def render(schedule: Schedule, header: str, vector_bytes: int) -> Source:
    """`header` is the text of csrc/simd/vec.h; `vector_bytes` the size of a register."""
    steps: dict[tuple, KernelStep] = {}
    for step in schedule.kernels:
        steps.setdefault(cstyle.structure(step.kernel, step.tile), step)
    functions = [
        _Function(key, step.kernel, cstyle.render(step.kernel, step.kernel.name, step.tile, vector_bytes))
        for key, step in steps.items()
    ]
    parts = _parts(functions)
    symbols = {f.key: (number, f.kernel.name) for number, part in enumerate(parts) for f in part}
    return Source(tuple(_file(part, header, vector_bytes) for part in parts), symbols)


@dataclass(frozen=True)
class _Function:
    key: tuple
    kernel: Kernel
    text: str


def _parts(functions: list[_Function]) -> list[list[_Function]]:
    """Files of about equal length: the longest function goes to the shortest file."""
    if not functions:
        return []
    parts: list[list[_Function]] = [[] for _ in range(MAX_FILES if len(functions) >= SPLIT_FUNCTIONS else 1)]
    for f in sorted(functions, key=lambda f: -len(f.text)):
        min(parts, key=lambda part: sum(len(g.text) for g in part)).append(f)
    return parts


def _file(functions: list[_Function], header: str, vector_bytes: int) -> str:
    parts = [header, cstyle.PRELUDE, cstyle.helpers((f.kernel for f in functions), vector_bytes)]
    for f in functions:
        comment = "".join(f"// {line}\n" for line in str(f.kernel).rstrip().split("\n"))
        parts.append(comment + f.text)
    return "\n".join(parts)
