"""Writes the C++ and Cython that follow from the op table: ``python -I tools/gen_ops.py OUTDIR``.

The table is loaded by path in an isolated interpreter: importing neurlang would import the extension being built.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).resolve().parent
OPS = TOOLS.parent / "python" / "neurlang" / "ops"


def load_ops(name: str) -> ModuleType:
    """A module of neurlang.ops, without neurlang."""
    package = types.ModuleType("neurlang_ops")
    package.__path__ = [str(OPS)]
    sys.modules.setdefault("neurlang_ops", package)
    return importlib.import_module(f"neurlang_ops.{name}")


def main(outdir: Path) -> None:
    sys.path.insert(0, str(TOOLS))
    gen_cpp, gen_cython = importlib.import_module("gen_cpp"), importlib.import_module("gen_cython")
    table, scalar, to_c, elementary = (load_ops(name) for name in ("table", "scalar", "to_c", "elementary"))
    outdir.mkdir(parents=True, exist_ok=True)
    gen_cpp.write(table.TABLE, outdir, scalar, to_c, elementary, load_ops("fingerprint").fingerprint())
    gen_cython.write(table.TABLE, outdir)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
