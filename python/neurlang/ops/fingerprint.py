"""A hash of the op table's sources: compiled in, so that an editable install notices when Python and C++ disagree."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint() -> str:
    """Of everything in this folder that the generated code depends on."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
