"""The thread pool: every element once, any number of threads and callers, forks, floating-point modes, limits."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from neurlang import _tensor

from . import native

HAS_MXCSR = os.uname().machine == "x86_64"


def visits(n: int, grain: int) -> np.ndarray[Any, Any]:
    """How often each of n elements was visited."""
    counts = np.zeros(n + 1, np.uint8)
    native.program([native.loop("visit", [native.slot(0)], n, grain)], 1).run([counts.ctypes.data], [], [])
    assert counts[n] == 0
    return counts[:n]


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 16])
def test_every_element_once(threads: int, rng: np.random.Generator) -> None:
    _tensor.set_num_threads(threads)
    for n in [0, 1, 2, 63, 64, 65, 4097, *rng.integers(0, 100_000, 60)]:
        for grain in (1, 5, 64, 1000, 1 << 40):
            assert np.all(visits(int(n), grain) == 1), (n, grain)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_chunks_begin_at_multiples_of_the_grain(threads: int, rng: np.random.Generator) -> None:
    _tensor.set_num_threads(threads)
    for n, grain in rng.integers(1, [5000, 100], (100, 2)):
        lengths = np.zeros(n, np.int64)
        step = native.loop("chunks", [native.slot(0)], int(n), int(grain))
        native.program([step], 1).run([lengths.ctypes.data], [], [])
        begins = np.flatnonzero(lengths)
        assert lengths.sum() == n
        assert np.all(begins % grain == 0)
        assert np.all(lengths[begins[:-1]] >= grain)
        assert len(begins) == 1 or n > grain


def test_work_is_shared() -> None:
    # With two threads both must be seen; a pool that never starts workers passes all other tests.
    _tensor.set_num_threads(2)
    n = 1 << 14
    lengths = np.zeros(n, np.int64)
    run = native.program([native.loop("chunks", [native.slot(0)], n, 64)], 1).run
    run([lengths.ctypes.data], [], [])
    assert np.count_nonzero(lengths) > 2  # the share of one claim is at most a quarter
    before = set(os.listdir("/proc/self/task"))
    _tensor.set_num_threads(len(before) + 3)
    run([lengths.ctypes.data], [], [])
    assert set(os.listdir("/proc/self/task")) - before


def test_many_callers_at_once(rng: np.random.Generator) -> None:
    _tensor.set_num_threads(3)
    failures: list[Any] = []

    def call(seed: int) -> None:
        mine = np.random.default_rng(seed)
        for _ in range(150):
            n = int(mine.integers(0, 20_000))
            if not np.all(visits(n, int(mine.integers(1, 300))) == 1):
                failures.append(n)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(60)
    assert not failures
    assert not any(t.is_alive() for t in callers)


def test_nested_loops_run_serially() -> None:
    # The inner program is run from inside the outer one's loop, on the caller and on a worker.
    _tensor.set_num_threads(2)
    n = 4096
    counts = np.zeros(n, np.uint8)
    inner = native.program([native.loop("visit", [native.slot(0)], n, 1)], 1)
    rounds = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    def body(ptr: int, ints: int, begin: int, end: int) -> None:
        for _ in range(begin, end):
            inner.run([counts.ctypes.data], [], [])
            rounds.append(threading.get_ident())

    address = ctypes.cast(body, ctypes.c_void_p).value
    step = {"kind": "generated", "address": address, "refs": [], "ints": [], "range": 16, "grain": 1}
    native.program([step], 0).run([], [], [])
    assert len(rounds) == 16
    assert np.all(counts == 16)


def in_child(work: Any) -> int:
    """Runs work() in a forked child and returns its exit status; 10 seconds at most."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = work()
        finally:
            os._exit(status)
    for _ in range(1000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    pytest.fail("the forked child hangs")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_fork_while_others_compute() -> None:
    _tensor.set_num_threads(4)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            visits(50_000, 16)

    def grandchild() -> int:
        return 0 if np.all(visits(10_000, 16) == 1) else 3

    def child() -> int:
        if not np.all(visits(10_000, 16) == 1):
            return 2
        if len(os.listdir("/proc/self/task")) == 1:  # the child has workers of its own
            return 4
        return in_child(grandchild)

    callers = [threading.Thread(target=busy) for _ in range(2)]
    for t in callers:
        t.start()
    try:
        for _ in range(40):
            assert in_child(child) == 0
            assert np.all(visits(10_000, 16) == 1)
    finally:
        stop.set()
        for t in callers:
            t.join(60)


@pytest.mark.skipif(not HAS_MXCSR, reason="the mode register is x86's")
@pytest.mark.parametrize("threads", [1, 4])
def test_a_callers_float_mode_changes_nothing_and_comes_back(threads: int) -> None:
    _tensor.set_num_threads(threads)
    set_mode = native.function("set_mode", ctypes.c_uint)
    get_mode = native.function("get_mode", result=ctypes.c_uint)
    n = 20_000
    x = np.full(n, 3e-38, np.float32)
    out = np.zeros(n, np.float32)
    step = native.loop("work", [native.slot(0), native.slot(1)], n, 16, (10,))
    program = native.program([step], 2)
    before = get_mode()
    mode = 0x1F80 | 0x8040 | 0x6000  # flush to zero, denormals are zero, round towards zero
    try:
        set_mode(mode)
        program.run([out.ctypes.data, x.ctypes.data], [], [])
        after = get_mode()
    finally:
        set_mode(before)
    assert after & ~0x3F == mode
    expected = np.float32(3e-38) * np.float32(2.0**-10)
    assert expected != 0
    assert np.all(out == expected)


@pytest.mark.parametrize("n", [0, -1, 1025, 10**9])
def test_bad_numbers_of_threads(n: int) -> None:
    before = _tensor.get_num_threads()
    with pytest.raises(ValueError, match=str(n)):
        _tensor.set_num_threads(n)
    assert _tensor.get_num_threads() == before


def threads_in_a_process(setup: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"import os\n{setup}\nfrom neurlang import _tensor\nprint(_tensor.get_num_threads())"
    clean = {k: v for k, v in os.environ.items() if k != "NL_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", program], env={**clean, **environment}, capture_output=True, text=True, timeout=60
    )


def test_the_environment_sets_the_threads() -> None:
    assert threads_in_a_process(NL_NUM_THREADS="5").stdout.strip() == "5"
    for wrong in ("0", "-3", "two", "1e3", "99999"):
        result = threads_in_a_process(NL_NUM_THREADS=wrong)
        assert result.returncode == 1
        assert "ValueError" in result.stderr
        assert wrong in result.stderr


def test_affinity_limits_the_threads() -> None:
    cpu = min(os.sched_getaffinity(0))
    assert threads_in_a_process(f"os.sched_setaffinity(0, {{{cpu}}})").stdout.strip() == "1"
    assert 1 <= int(threads_in_a_process().stdout) <= len(os.sched_getaffinity(0))


def test_the_interpreter_exits_with_idle_and_with_spinning_workers() -> None:
    setup = "import time"
    for pause in ("", "time.sleep(0.05)"):
        program = f"""
{setup}
from tests.runtime import native
from neurlang import _tensor
import numpy as np
_tensor.set_num_threads(6)
x = np.zeros(10_000, np.uint8)
native.program([native.loop("visit", [native.slot(0)], 10_000, 16)], 1).run([x.ctypes.data], [], [])
{pause}
"""
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        for _ in range(3):
            result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, timeout=60)
            assert result.returncode == 0, result.stderr
