"""The allocator: blocks are distinct, aligned, reused and given back; too much memory is an error at once."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from neurlang import _tensor

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    gc.collect()
    before = _tensor.memory_stats()["in_use"]
    yield
    gc.collect()
    assert _tensor.memory_stats()["in_use"] == before


def some_sizes(n: int, rng: np.random.Generator) -> list[int]:
    """Sizes of every magnitude up to 8 MiB, with the edges of the classes among them."""
    edges = [0, 1, 63, 64, 65, 1023, 1024, 1025, 65535, 65536, 65537, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1]
    drawn = np.exp(rng.uniform(0, np.log(8 * MIB), n)).astype(int)
    return [*edges, *map(int, drawn)]


def test_blocks_are_aligned_and_do_not_overlap(rng: np.random.Generator) -> None:
    sizes = some_sizes(300, rng)
    blocks = [_tensor.Block(n) for n in sizes]
    ranges = sorted((b.address, b.address + n) for b, n in zip(blocks, sizes, strict=True))
    assert all(begin % 64 == 0 for begin, _ in ranges)
    assert all(b.address % (2 * MIB) == 0 for b, n in zip(blocks, sizes, strict=True) if n >= 2 * MIB)
    assert all(a_end <= b_begin for (_, a_end), (b_begin, _) in itertools.pairwise(ranges))
    assert len({b.address for b in blocks}) == len(blocks)


def test_blocks_hold_what_is_written(rng: np.random.Generator) -> None:
    # Random allocation and freeing; every block is filled to its last byte and checked before it goes.
    live: list[tuple[Any, int, int]] = []
    draw = random.Random(int(rng.integers(1 << 30)))
    for step in range(4000):
        if live and (draw.random() < 0.5 or len(live) > 200):
            block, n, value = live.pop(draw.randrange(len(live)))
            assert ctypes.string_at(block.address, n) == bytes([value]) * n
        else:
            n = int(np.exp(draw.uniform(0, np.log(300_000))))
            block = _tensor.Block(n)
            ctypes.memset(block.address, step % 256, n)
            live.append((block, n, step % 256))
    for block, n, value in live:
        assert ctypes.string_at(block.address, n) == bytes([value]) * n


def test_blocks_cross_threads(rng: np.random.Generator) -> None:
    # Every thread frees what another allocated, and ends; its blocks come back to the others.
    def allocate(seed: int, out: list[Any]) -> None:
        draw = random.Random(seed)
        for _ in range(2000):
            n = int(np.exp(draw.uniform(0, np.log(100_000))))
            block = _tensor.Block(n)
            ctypes.memset(block.address, seed, n)
            out.append((block, n, seed))

    def check(blocks: list[Any], wrong: list[Any]) -> None:
        while blocks:
            block, n, seed = blocks.pop()
            if ctypes.string_at(block.address, n) != bytes([seed]) * n:
                wrong.append(n)

    boxes: list[list[Any]] = [[] for _ in range(4)]
    wrong: list[Any] = []
    for run in (allocate, check):
        arguments = enumerate(boxes) if run is allocate else [(b, wrong) for b in boxes[1:] + boxes[:1]]
        threads = [threading.Thread(target=run, args=a) for a in arguments]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
    assert not wrong
    mapped = _tensor.memory_stats()["mapped"]
    again: list[Any] = []
    allocate(0, again)
    assert _tensor.memory_stats()["mapped"] == mapped  # the ended threads' blocks served this one


@pytest.mark.parametrize("n", [1, 200, 5000, 65_536, 100_000, 3 * MIB, 70 * MIB])
def test_steady_use_asks_the_system_for_nothing(n: int) -> None:
    def step() -> None:
        blocks = [_tensor.Block(n) for _ in range(3)]
        del blocks

    step()
    mapped = _tensor.memory_stats()["mapped"]
    for _ in range(50):
        step()
    assert _tensor.memory_stats()["mapped"] == mapped


def test_what_waits_for_reuse_is_bounded() -> None:
    # Blocks of ever other sizes, which never serve again; only the first bytes of each are touched.
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    _tensor.release_cached_memory()
    small = _tensor.memory_stats()["cached"]  # small blocks are kept
    freed, n = 0, 100 * MIB
    while freed < total:
        _tensor.Block(n)
        freed, n = freed + n, n + n // 8
    assert _tensor.memory_stats()["cached"] <= total // 3
    _tensor.release_cached_memory()
    assert _tensor.memory_stats()["cached"] <= small


def resident() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_released_memory_goes_back_to_the_system() -> None:
    block = _tensor.Block(200 * MIB)
    ctypes.memset(block.address, 1, 200 * MIB)
    before = resident()
    del block
    assert _tensor.memory_stats()["cached"] >= 200 * MIB
    _tensor.release_cached_memory()
    assert resident() < before - 190 * MIB


@pytest.mark.parametrize("n", [70_000, 80_000, 300_000, MIB])
def test_what_blocks_were_cut_from_goes_back_whole(n: int) -> None:
    # Whatever they leave of it that is too short for another one.
    mapped = []
    for _ in range(60):
        blocks = [_tensor.Block(n) for _ in range(200)]
        del blocks
        _tensor.release_cached_memory()
        mapped.append(_tensor.memory_stats()["mapped"])
    assert mapped[-1] - mapped[0] <= 4 * MIB  # what is being cut now


def test_large_blocks_lie_in_huge_pages() -> None:
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as f:
        if "[never]" in f.read():
            pytest.skip("the system has no transparent huge pages")

    def huge() -> int:
        with open("/proc/self/smaps_rollup") as f:
            return sum(int(line.split()[1]) << 10 for line in f if line.startswith("AnonHugePages"))

    before = huge()
    block = _tensor.Block(64 * MIB)
    ctypes.memset(block.address, 1, 64 * MIB)
    assert huge() - before >= 32 * MIB  # all of it, unless memory is fragmented


@pytest.mark.parametrize("n", [-1, -(1 << 63), (1 << 63) - 1, 1 << 62, 1 << 47, (1 << 47) + 1, 1 << 44])
def test_absurd_sizes_fail_at_once(n: int) -> None:
    start = time.perf_counter()
    with pytest.raises(MemoryError, match="out of memory"):
        _tensor.Block(n)
    assert time.perf_counter() - start < 0.05


def memory_available() -> int:
    with open("/proc/meminfo") as f:
        fields = dict(line.split(":") for line in f)
    return sum(int(fields[name].split()[0]) << 10 for name in ("MemAvailable", "SwapFree"))


def test_more_than_the_machine_has_fails_before_anything_is_touched() -> None:
    # In pieces, none of them touched: the system would promise them all.
    blocks: list[Any] = []
    _tensor.release_cached_memory()
    available, own = memory_available(), resident()
    with pytest.raises(MemoryError):
        for _ in range(10_000):
            start = time.perf_counter()
            blocks.append(_tensor.Block(512 * MIB))
    assert time.perf_counter() - start < 0.5
    # Others may have freed some meanwhile, and the process's own touched pages cannot be told from those of blocks.
    assert len(blocks) * 512 * MIB <= max(available, memory_available()) + own
    del blocks
    _tensor.release_cached_memory()
    _tensor.Block(64 * MIB)


def test_a_limited_process_gets_an_error_and_goes_on() -> None:
    program = """
import resource
from neurlang import _tensor
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), used + (300 << 20)))
first = _tensor.Block(100 << 20)
del first                               # stays cached, and has to go for the next one
second = _tensor.Block(250 << 20)
try:
    third = _tensor.Block(250 << 20)
except MemoryError as error:
    print("MemoryError", "250 MiB" in str(error))
del second
again = _tensor.Block(250 << 20)
small = [_tensor.Block(1000) for _ in range(1000)]
print("fine")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["MemoryError", "True", "fine"], result.stderr


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_fork_while_others_allocate() -> None:
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            blocks = [_tensor.Block(n) for n in (100, 5000, 70_000, 3 * MIB)]
            del blocks

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        for _ in range(50):
            pid = os.fork()
            if pid == 0:
                blocks = [_tensor.Block(n) for n in (1, 100, 5000, 70_000, 3 * MIB) * 20]
                del blocks
                worker = threading.Thread(target=_tensor.Block, args=(100,))
                worker.start()
                worker.join()
                os._exit(0 if _tensor.memory_stats()["mapped"] > 0 else 1)
            deadline = time.monotonic() + 10
            while not (done := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < deadline:
                time.sleep(0.002)
            if not done[0]:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            assert done == (pid, 0)
    finally:
        stop.set()
        for t in threads:
            t.join(60)


def test_the_sum_over_threads_is_right() -> None:
    before = _tensor.memory_stats()["in_use"]
    kept: list[Any] = []
    threads = [threading.Thread(target=lambda: kept.extend(_tensor.Block(1000) for _ in range(100))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert _tensor.memory_stats()["in_use"] - before == 400 * 1024
    stats = _tensor.memory_stats()
    assert stats["mapped"] == stats["in_use"] + stats["cached"]
    assert stats["peak"] >= stats["mapped"]
