"""A BLAS library of the system for products of float matrices, where one is asked for; and what this build uses."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import _tensor
from .backends.cpu.compile import CompileError, find_compiler
from .config import cache_folder

OWN = "neurlang"


@dataclass(frozen=True)
class Provider:
    """The files that hold a library, the likeliest first, and its function that sets the number of threads."""

    files: tuple[str, ...]
    set_threads: tuple[str, ...] = ()


PROVIDERS = {
    "mkl": Provider(("libmkl_rt.so*", "libmkl_rt*.dylib"), ("MKL_Set_Num_Threads",)),
    "openblas": Provider(
        ("libopenblas.so*", "libopenblas*.dylib", "libscipy_openblas*"),
        tuple(f"{lead}openblas_set_num_threads{tail}" for lead in ("", "scipy_") for tail in ("", "64_")),
    ),
    "blis": Provider(("libblis.so*", "libblis-mt.so*", "libblis*.dylib"), ("bli_thread_set_num_threads",)),
    "accelerate": Provider(("Accelerate.framework/Accelerate",)),
}
# How libraries spell sgemm of the Fortran interface: plain, with 64-bit integers, and NumPy's own OpenBLAS.
SPELLINGS = ("{}_", "{}_64_", "scipy_{}_", "scipy_{}_64_")


@dataclass(frozen=True)
class Loaded:
    """A library that has been found, with the addresses of its functions (0: it has none)."""

    name: str
    path: str
    sgemm: int
    dgemm: int
    set_threads: int


_used: Loaded | None = None
_loaded: dict[str, Any] = {}  # by path; none is unloaded: another thread may still be in a product of the one before


def folders() -> list[Path]:
    """Where libraries are looked for: beside this Python, with NumPy, and where systems keep them."""
    system = ("/usr/local/lib", "/usr/lib", "/usr/lib64", f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}")
    beside = [Path(sys.prefix) / "lib", Path(np.__file__).parent.parent / "numpy.libs"]
    return [*beside, *map(Path, system), Path("/opt/homebrew/lib"), Path("/System/Library/Frameworks")]


def _files(provider: Provider, places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        for pattern in provider.files:
            yield from sorted(place.glob(pattern))


def _address(library: Any, names: Iterable[str]) -> int:
    for name in names:
        try:
            return library.symbol(name)
        except KeyError:
            continue
    return 0


def _load(name: str, path: str, set_threads: Iterable[str]) -> Loaded:
    """The library in this file. RuntimeError where the system cannot load it, ValueError where it has no gemm."""
    library = _loaded.get(path) or _loaded.setdefault(path, _tensor.load_library(path))
    sgemm, dgemm = (_address(library, (s.format(gemm) for s in SPELLINGS)) for gemm in ("sgemm", "dgemm"))
    if not (sgemm and dgemm):
        spellings = ", ".join(s.format("sgemm") for s in SPELLINGS)
        raise ValueError(f"set_gemm: {path!r} has no sgemm and dgemm ({spellings})")
    return Loaded(name, path, sgemm, dgemm, _address(library, set_threads))


def find(name: str, places: Iterable[Path] | None = None) -> Loaded | None:
    """The first library of that name in these folders (None: in `folders()`)."""
    provider = PROVIDERS[name]
    for path in _files(provider, folders() if places is None else places):
        with contextlib.suppress(RuntimeError, ValueError):  # another file of that name may be whole
            return _load(name, str(path), provider.set_threads)
    return None


def set_gemm(name: str) -> None:
    """Which library computes products of float32 and float64 matrices from now on, in compiled programs too.

    "neurlang" (the default) is our own kernels; "mkl", "openblas", "blis", "accelerate" or the path of a shared library
    with the Fortran interface (sgemm_, dgemm_) is that library, found while the program runs. 16-bit floats are
    computed in float32 by it; integers, extents of 2^31 or more and everything that is not `matmul` stay with us. A
    library's sums have an order of its own: what ARCHITECTURE.md promises of bits does not hold then. It is told the
    number of threads that `set_num_threads` asks for, which all who share it in this process see.

    FileNotFoundError where there is no such library, naming where it was looked for; RuntimeError where the system
    cannot load a file, ValueError where it has no gemm.

    >>> neurlang.set_gemm("neurlang")
    >>> neurlang.get_gemm()
    'neurlang'
    """
    global _used
    if name == OWN:
        _tensor.use_blas(0, 0, 0)
        _used = None
        return
    if name in PROVIDERS:
        found = find(name)
        if found is None:
            places = ", ".join(map(str, folders()))
            raise FileNotFoundError(f"set_gemm: no library {name!r} ({', '.join(PROVIDERS[name].files)}) in {places}")
    elif not Path(name).is_file():
        raise FileNotFoundError(f"set_gemm: {name!r} is neither a file nor one of {', '.join((OWN, *PROVIDERS))}")
    else:
        path = str(Path(name).resolve())
        found = _load(path, path, [s for p in PROVIDERS.values() for s in p.set_threads])
    _tensor.use_blas(found.sgemm, found.dgemm, found.set_threads)
    _used = found


def get_gemm() -> str:
    """The library that computes products of float matrices: "neurlang", or what `set_gemm` was given.

    >>> neurlang.get_gemm()
    'neurlang'
    """
    return OWN if _used is None else _used.name


def _compiler() -> str | None:
    try:
        return " ".join(find_compiler().command(_tensor.isa()))
    except CompileError:
        return None


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """What this build runs on: processor, threads, compiler of traced kernels, the BLAS libraries that were found.

    mode "stdout" prints it; "dicts" returns it, as in NumPy. A library that is absent is None.

    >>> config = neurlang.show_config("dicts")
    >>> config["gemm"]["used"], sorted(config["gemm"]["found"])
    ('neurlang', ['accelerate', 'blis', 'mkl', 'openblas'])
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"show_config: mode must be 'stdout' or 'dicts', got {mode!r}")
    found = {name: find(name) for name in PROVIDERS}
    config: dict[str, Any] = {
        "cpu": {"level": _tensor.isa(), "levels": list(_tensor.isa_supported())},
        "threads": {"used": _tensor.get_num_threads(), "processors": _tensor.available_cpus()},
        "traces": {"compiler": _compiler(), "cache": str(cache_folder())},
        "gemm": {"used": get_gemm(), "found": {name: lib.path if lib else None for name, lib in found.items()}},
    }
    if mode == "dicts":
        return config
    for part, entries in config.items():
        print(f"{part}:")
        for key, value in entries.items():
            if isinstance(value, dict):
                print(f"  {key}:", *(f"    {k}: {v or 'not found'}" for k, v in value.items()), sep="\n")
            else:
                print(f"  {key}: {value or 'not found'}")
    return None
