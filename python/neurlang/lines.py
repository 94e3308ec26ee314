"""Where an operation was recorded, and where the user's code stands now: what messages name."""

from __future__ import annotations

import sys
from types import CodeType

Line = tuple[CodeType, int] | None  # code and instruction offset, turned into text when it is asked for


def line_text(line: Line) -> str:
    """file:line of a recorded (code, instruction offset)."""
    if line is None:
        return "an unknown line"
    code, offset = line
    number = next((n for start, end, n in code.co_lines() if start <= offset < end and n), code.co_firstlineno)
    return f"{code.co_filename}:{number}"


def user_line() -> str:
    """file:line of the nearest frame outside the package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "neurlang":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
