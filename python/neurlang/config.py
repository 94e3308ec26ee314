"""Limits and settings; what the environment may change is read here, once, and listed in this table.

| variable | meaning |
|---|---|
| NEURLANG_CACHE | folder of compiled programs (default: $XDG_CACHE_HOME/neurlang, ~/.cache/neurlang) |
| NEURLANG_CC | command of the C compiler for traced kernels (default: $CC, then cc, gcc, clang) |
| NEURLANG_ISA | a lower instruction level than the machine's: baseline, avx2 (read by csrc/runtime/cpu.cpp) |
| NL_NUM_THREADS | threads of the pool (read by csrc/runtime/threads.cpp) |
| NL_TAPE_HASH_BITS | bits of a tape's hash that are used; a test makes it small to provoke collisions |
"""

from __future__ import annotations

import os
from pathlib import Path

# The hash of a tape only finds candidates, so any mask gives the same results.
TAPE_HASH_MASK = (1 << int(os.environ.get("NL_TAPE_HASH_BITS", "64"))) - 1
# What `trace(backend=…)` takes: folders of backends/, and the slow reference of ir/interpret.py.
BACKENDS = ("cpu", "null", "interpret")
# Compiled programs of the process, constants and machine code included; the least recently used go first.
PROGRAM_CACHE_BYTES = 256 << 20


def cache_folder() -> Path:
    """Where compiled programs are kept between processes; it need not exist yet."""
    if folder := os.environ.get("NEURLANG_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "neurlang"


def compiler_command() -> str:
    """The C compiler that the user asks for, or an empty string."""
    return os.environ.get("NEURLANG_CC") or os.environ.get("CC") or ""
