"""Import times, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from . import peers
from .timing import Case

PROGRAM = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def cases() -> Iterator[Case]:
    modules = {"neurlang": "neurlang", "NumPy": "numpy"}
    modules |= {"torch": "torch"} if peers.torch is not None else {}
    modules |= {"JAX": "jax.numpy"} if peers.jax is not None else {}
    contenders = {name: lambda module=module: seconds(module) for name, module in modules.items()}
    yield Case("import", contenders, self_timed=True)


def seconds(module: str) -> float:
    command = [sys.executable, "-c", PROGRAM.format(module)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
