"""Machine facts of this run: processor, threads, FMA peak and memory bandwidth, measured by a small C file."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

BLOCK = 256 << 20
REPEATS = 4
PACKAGES = ("numpy", "torch", "jax", "jaxlib", "onnxruntime", "openvino")


def facts(threads: int) -> dict[str, Any]:
    """What a reader needs to judge the figures, by name."""
    known: dict[str, Any] = {
        "processor": processor(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := installed(name))},
    }
    library = build()
    if library is not None:
        known |= measured(library, threads)
    return known


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def build() -> ctypes.CDLL | None:
    """Compiles machine.c for this processor; None where there is no compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "machine.so"
        source = Path(__file__).with_name("machine.c")
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        if subprocess.run([compiler, *flags, "-o", str(target), str(source)], check=False).returncode != 0:
            return None
        library = ctypes.CDLL(str(target))
    for name in ("fma_rate", "read_rate", "scale_rate"):
        getattr(library, name).restype = ctypes.c_double
    library.huge_block.restype = ctypes.c_void_p
    return library


def measured(library: ctypes.CDLL, threads: int) -> dict[str, float]:
    """The limits of one thread and of all of them; ctypes releases the interpreter's lock during a call."""
    size = ctypes.c_int64(BLOCK)
    blocks = [[ctypes.c_void_p(library.huge_block(size)) for _ in "xy"] for _ in range(threads)]

    def fma(_: int) -> float:
        return float(library.fma_rate(ctypes.c_double(0.1)))

    def read(n: int) -> float:
        return float(library.read_rate(blocks[n][0], size))

    def scale(n: int) -> float:
        return float(library.scale_rate(blocks[n][0], blocks[n][1], size))

    limits = {}
    for name, work, unit in (("FMA GFLOP/s", fma, 1e9), ("read GB/s", read, 1e9), ("read+write GB/s", scale, 1e9)):
        limits[f"{name}, 1 thread"] = best(work, 1) / unit
        limits[f"{name}, {threads} threads"] = best(work, threads) / unit
    return limits


def best(work: Callable[[int], float], threads: int) -> float:
    """The best total rate of several runs."""
    with ThreadPoolExecutor(threads) as pool:
        return max(sum(pool.map(work, range(threads))) for _ in range(REPEATS))
