"""Builds the player for 64-bit ARM and runs recorded graphs in it: an executor in the place of the interpreter."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurlang.ir.graph import Access, Const, Graph, Node, Operand
from neurlang.ir.types import DTYPES
from neurlang.ops.fingerprint import fingerprint
from neurlang.ops.table import ROWS

ROOT = Path(__file__).resolve().parents[2]
COMPILER, EMULATORS = "aarch64-linux-gnu-g++", ("qemu-aarch64", "qemu-aarch64-static")
OPS = {name: number for number, name in enumerate(ROWS)}
TYPES = {name: number for number, name in enumerate(DTYPES)}
Memory = dict[int, Any]


def missing() -> str:
    """What is not installed of what building needs."""
    return ", ".join(tool for tool in (COMPILER, "cmake") if shutil.which(tool) is None)


def emulator() -> str | None:
    return next((path for name in EMULATORS if (path := shutil.which(name))), None)


def build(folder: Path) -> Path:
    """The player, compiled with every warning on."""
    options = [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'tools' / 'aarch64.cmake'}", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (
        ["cmake", "-S", ROOT, "-B", folder, *options, "-DNL_PYTHON=OFF", "-DNL_PLAYER=ON"],
        ["cmake", "--build", folder, "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "neurlang_player"


def executor(player: Path, threads: int = 1) -> Callable[..., Memory]:
    """A function like `interpret`, that runs a graph in the player."""

    def play(graph: Graph, leaves: Memory, offsets: Sequence[int], scalars: Sequence[int], fma: Any) -> Memory:
        sizes = [x.nbytes for x in graph.storages]
        before = [leaves.get(i, np.zeros(n, np.uint8)) for i, n in enumerate(sizes)]
        words = [int(fingerprint(), 16), len(sizes), *sizes, len(graph.nodes)]
        words += [word for node in graph.nodes for word in call(node, offsets, scalars)]
        with tempfile.TemporaryDirectory() as name:
            calls, results = Path(name) / "calls", Path(name) / "results"
            calls.write_bytes(np.array([w % 2**64 for w in words], np.uint64).tobytes() + b"".join(map(padded, before)))
            command = [str(emulator()), "-E", f"NL_NUM_THREADS={threads}", str(player), str(calls), str(results)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert (done.returncode, done.stdout) == (0, "neon\n"), done.stderr
            after = np.frombuffer(results.read_bytes(), np.uint8)
        starts = np.cumsum([0, *(-(-n // 8) * 8 for n in sizes)])
        memory = {i: after[start : start + n].copy() for i, (start, n) in enumerate(zip(starts, sizes, strict=False))}
        for i, leaf in leaves.items():
            leaf[...] = memory[i]
        return memory

    return play


def padded(array: Any) -> bytes:
    data = bytes(np.ascontiguousarray(array).data)
    return data + bytes(-len(data) % 8)


def call(node: Node, offsets: Sequence[int], scalars: Sequence[int]) -> Iterator[int]:
    """The words of one call, as csrc/player/player.cpp reads them."""
    yield from (OPS[node.op], len(node.ins), len(node.outs), len(node.attrs), *node.attrs)
    for x in (*node.ins, *node.outs):
        yield from operand(x, offsets, scalars)


def operand(x: Operand, offsets: Sequence[int], scalars: Sequence[int]) -> Iterator[int]:
    if isinstance(x, Access):
        start = offsets[x.offset] if x.offset >= 0 else 0
        yield from (x.storage, TYPES[x.dtype], len(x.shape), start, *x.shape, *x.strides)
    else:
        yield from (-1, TYPES[x.dtype], x.bits if isinstance(x, Const) else scalars[x.index])
