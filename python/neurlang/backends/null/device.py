"""A device that runs nothing: shows passes and plans without a compiler, and what a backend must provide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...ir.kernel import Schedule
from .compile import compile_text
from .render import render


@dataclass(frozen=True)
class Built:
    """What every backend's `build` returns: a program (here none), its source, and the bytes that it holds."""

    program: Any
    source: str
    nbytes: int


def build(schedule: Schedule, op_numbers: dict[str, int], machine: Any, version: str) -> Built:
    """Renders a schedule and keeps the text."""
    source = render(schedule)
    return Built(None, source, len(compile_text(source)))
