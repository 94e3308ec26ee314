"""Inlines the includes of a .pyx, also those inside a class body, which Cython itself does not allow there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'^(\s*)include "(.+)"$')


def assemble(source: Path, folders: list[Path]) -> str:
    """The text of `source` with every include replaced by the file's text, indented as the include was."""
    lines = []
    for line in source.read_text().splitlines():
        found = INCLUDE.match(line)
        if not found:
            lines.append(line)
            continue
        indent, name = found.groups()
        path = next(folder / name for folder in folders if (folder / name).exists())
        lines += [indent + part if part else "" for part in assemble(path, folders).splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    source, target, *folders = map(Path, sys.argv[1:])
    target.write_text(assemble(source, [source.parent, *folders]))
