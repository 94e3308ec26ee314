"""The loop around the eager kernels of maps: every length and step, at every level that this machine can run."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neurlang.ops import scalar as s
from neurlang.ops import to_c, to_numpy
from neurlang.ops.table import ROWS

from .compiled import LEVELS, NUMPY, ROOT, build, fma_of, levels, same_bits
from .values import values


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_cpp", ROOT / "tools" / "gen_cpp.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOOPED = (("add", "f32"), ("where", "f32"), ("where", "f64"), ("mul", "u8"), ("exp", "f64"), ("adam_", "f32"),
          ("eq", "i64"), ("arange", "f32"))  # fmt: skip


def map_library(level: str) -> ctypes.CDLL:
    """The generated kernels of LOOPED, without the rest of the table."""
    gen = generator()
    kernels = "\n".join("\n".join(gen.map_kernel(ROWS[name], dtype, s, to_c)) for name, dtype in LOOPED)
    header = f'#include "{ROOT}/csrc/simd/map.hpp"\nnamespace nl::NL_ISA {{\nextern "C" {{\n'
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dtypes.gen.hpp").write_text("\n".join(gen.dtypes_header(s.dtypes.DTYPES)) + "\n")
        flags = ("-std=c++17", f"-DNL_ISA={level}", f"-I{folder}", *LEVELS[level])
        return build(header + kernels + "\n}}\n", *flags, language="c++")


@pytest.mark.parametrize("level", levels())
def test_map_kernels_at_every_length_and_step(level: str, rng: np.random.Generator) -> None:
    library, gen = map_library(level), generator()
    for (name, dtype), n in itertools.product(LOOPED, [*range(36), 64, 99]):
        outputs = gen.outputs_of(ROWS[name], dtype, s)
        dtypes = [t if t != "T" else dtype for t in ROWS[name].in_types]
        broadcast = 1.0 if s.reads_index(outputs) else 0.4  # such rows take numbers only
        ins = [np.resize(rng.permutation(values(rng, t, 50)), 1 if rng.random() < broadcast else n) for t in dtypes]
        guard = 8  # elements behind the results that must stay as they are
        outs = [np.zeros(n + guard, NUMPY[e.dtype]) for e in outputs]
        arrays = [*outs, *ins]
        strides = [0 if k >= len(outs) and len(a) == 1 else a.itemsize for k, a in enumerate(arrays)]
        pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        kernel = library[gen.kernel_name(ROWS[name], dtype)]
        kernel(pointers, (ctypes.c_int64 * len(arrays))(*strides), ctypes.c_int64(n), ctypes.c_int64(0))
        whole = [np.broadcast_to(a, n) for a in ins]
        for got, want in zip(outs, to_numpy.evaluate(outputs, whole, np, fma_of(level), shape=(n,)), strict=True):
            assert same_bits(got[:n], want).all(), f"{name} {dtype} on {level}, {n} elements, steps {strides}"
            assert not got[n:].any(), f"{name} {dtype} on {level} writes past {n} elements"
