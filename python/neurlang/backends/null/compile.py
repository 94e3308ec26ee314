"""Compiling for no machine: the text is what runs."""

from __future__ import annotations


def compile_text(text: str) -> bytes:
    """The code that a device loads."""
    return text.encode()
