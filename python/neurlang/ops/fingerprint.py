"""A hash of what the generated C++ follows from: compiled in, so that an editable install notices a stale one."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCES = (
    "dtypes.py", "elementary.py", "exact.py", "expressions.py", "row.py", "scalar.py", "table.py", "to_c.py",
    "trigonometric.py",
)  # fmt: skip


def fingerprint() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]
