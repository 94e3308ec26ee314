"""From a schedule to files of C: every kernel's function once, in one file or, for many, in one per core."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.kernel import Kernel, NativeStep, Schedule
from .. import cstyle

SPLIT_FUNCTIONS = 8  # from here on two compilers side by side are faster than one
MAX_FILES = 2


@dataclass(frozen=True)
class Source:
    """The C files of a trace, and for every kernel the function that runs it."""

    files: tuple[str, ...]
    symbols: dict[tuple, tuple[int, str]]  # structure -> (file, function)

    def find(self, kernel: Kernel, epilogue: bool) -> tuple[int, str]:
        return self.symbols[cstyle.structure(kernel, epilogue)]

    @property
    def text(self) -> str:
        return "\n".join(self.files)


def render(schedule: Schedule, header: str) -> Source:
    """`header` is the text of csrc/simd/vec.h."""
    kernels: dict[tuple, tuple[Kernel, bool]] = {}
    for step in schedule.steps:
        epilogue = isinstance(step, NativeStep)
        kernel_step = step.epilogue if epilogue else step
        if kernel_step is not None:
            kernels.setdefault(cstyle.structure(kernel_step.kernel, epilogue), (kernel_step.kernel, epilogue))
    parts = _parts(list(kernels))
    symbols = {key: (number, f"k{k}") for number, part in enumerate(parts) for k, key in part}
    files = tuple(_file([(symbols[key][1], *kernels[key]) for _, key in part], header) for part in parts)
    return Source(files, symbols)


def _parts(keys: list[tuple]) -> list[list[tuple[int, tuple]]]:
    """Functions dealt out in turn, so that large neighbours do not meet in one file."""
    if not keys:
        return []
    files = MAX_FILES if len(keys) >= SPLIT_FUNCTIONS else 1
    numbered = list(enumerate(keys))
    return [numbered[k::files] for k in range(files)]


def _file(functions: list[tuple[str, Kernel, bool]], header: str) -> str:
    parts = [header, cstyle.PRELUDE, cstyle.helpers(kernel for _, kernel, _ in functions)]
    for name, kernel, epilogue in functions:
        comment = "".join(f"// {line}\n" for line in str(kernel).rstrip().split("\n"))
        parts.append(comment + cstyle.render(kernel, name, epilogue))
    return "\n".join(parts)
