"""Where the user's code stood when something was recorded: what messages name."""

from __future__ import annotations

from types import CodeType

Line = tuple[CodeType, int] | None  # code and instruction offset, turned into text when it is asked for


def line_text(line: Line) -> str:
    """file:line of a recorded (code, instruction offset)."""
    if line is None:
        return "an unknown line"
    code, offset = line
    number = next((n for start, end, n in code.co_lines() if start <= offset < end and n), code.co_firstlineno)
    return f"{code.co_filename}:{number}"
