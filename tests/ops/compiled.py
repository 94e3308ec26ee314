"""Compiles scalar expressions as the kernels are, for every instruction level of this machine, and runs them."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurlang.ops import scalar as s
from neurlang.ops import to_c
from neurlang.ops.dtypes import DTYPES

ROOT = Path(__file__).resolve().parents[2]
VEC = ROOT / "csrc" / "simd" / "vec.h"
FLAGS = ("-O2", "-ffp-contract=off", "-fno-fast-math", "-fno-math-errno", "-fno-trapping-math")
LEVELS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}
NUMPY = {"u32": np.uint32, "u64": np.uint64} | {t: np.dtype(d.numpy).type for t, d in DTYPES.items()}
PADDING = 16  # no level runs more lanes at a time


@dataclass(frozen=True)
class Kernel:
    """Expressions over operands of the given dtypes."""

    outputs: Sequence[s.E]
    dtypes: tuple[str, ...]


def levels() -> list[str]:
    """The levels whose code this machine can run."""
    try:
        cpu = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ["baseline"]
    needs = {"baseline": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}
    return [level for level, features in needs.items() if features <= cpu]


def compiler() -> str:
    cc = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if cc is None:
        pytest.skip("no C compiler: whether generated C has NumPy's bits is not known")
    return cc


def build(source: str, *flags: str, language: str = "c") -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        path, library = Path(folder) / "kernels", Path(folder) / "kernels.so"
        path.write_text(source)
        command = [compiler(), "-x", language, str(path), *FLAGS, *flags, "-shared", "-fPIC", "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))


def text(name: str, kernel: Kernel) -> str:
    """A C function over `n` elements, a multiple of the lanes."""
    wide = s.is_wide(kernel.outputs) or any(s.SIZE[t] == 8 for t in kernel.dtypes)
    names = [f"x{k}" for k in range(len(kernel.dtypes))]
    statements, results = to_c.emit(kernel.outputs, names, wide)
    dtypes = [*kernel.dtypes, *(e.dtype for e in kernel.outputs)]
    types = [to_c.vector_type(t, wide) for t in dtypes]
    places = [f"(char*)p[{k}] + i * {s.SIZE[t]}" for k, t in enumerate(dtypes)]
    n = len(names)
    loads = [f"const {t} {x} = LOAD({t}, {p});" for t, x, p in zip(types, names, places, strict=False)]
    stores = [f"STORE({t}, {p}, {r});" for t, p, r in zip(types[n:], places[n:], results, strict=True)]
    body = "\n    ".join([*loads, *statements, *stores])
    return (f"void k_{name}(void* const* p, __INT64_TYPE__ n) {{\n"
            f"  for (__INT64_TYPE__ i = 0; i < n; i += {to_c.lanes(wide)}) {{\n    {body}\n  }}\n}}\n")


Run = Callable[[str, Sequence[Any]], list[Any]]


def compile_kernels(kernels: Mapping[str, Kernel], level: str) -> Run:
    """run(name, arrays) -> results of the kernel of that name."""
    source = VEC.read_text() + "\n".join(text(name, kernel) for name, kernel in kernels.items())
    library = build(source, "-std=c11", *LEVELS[level])

    def run(name: str, arrays: Sequence[Any]) -> list[Any]:
        kernel, n = kernels[name], len(arrays[0])
        padded = n + -n % PADDING
        ins = [np.concatenate([np.asarray(a, NUMPY[t]), np.ones(padded - n, NUMPY[t])])
               for a, t in zip(arrays, kernel.dtypes, strict=True)]
        outs = [np.empty(padded, NUMPY[e.dtype]) for e in kernel.outputs]
        pointers = (ctypes.c_void_p * (len(ins) + len(outs)))(*(a.ctypes.data for a in (*ins, *outs)))
        getattr(library, f"k_{name}")(pointers, ctypes.c_int64(padded))
        return [o[:n] for o in outs]

    return run


@functools.cache
def _fma_library() -> ctypes.CDLL:
    loop = "void {0}(const {1}* a, const {1}* b, const {1}* c, {1}* o, __INT64_TYPE__ n) {{ " \
           "for (__INT64_TYPE__ i = 0; i < n; ++i) o[i] = {2}(a[i], b[i], c[i]); }}\n"
    return build(loop.format("f32", "float", "__builtin_fmaf") + loop.format("f64", "double", "__builtin_fma"), "-lm")


def fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once."""
    a, b, c = (np.ascontiguousarray(v) for v in np.broadcast_arrays(a, b, c))
    out = np.empty_like(a)
    function = _fma_library().f32 if a.dtype == np.float32 else _fma_library().f64
    function(*(ctypes.c_void_p(v.ctypes.data) for v in (a, b, c, out)), ctypes.c_int64(a.size))
    return out


def unfused(a: Any, b: Any, c: Any) -> Any:
    return a * b + c


def fma_of(level: str) -> Callable[[Any, Any, Any], Any]:
    return unfused if level == "baseline" else fused


def same_bits(a: Any, b: Any) -> Any:
    """Where two arrays agree: bit for bit, but any NaN equals any NaN."""
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype.kind != "f":
        return a == b
    bits = f"u{a.itemsize}"
    return (np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)) | (np.isnan(a) & np.isnan(b))
