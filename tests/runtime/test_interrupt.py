"""Ctrl-C in the middle of long computations: it arrives soon, and what is computed afterwards is right."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PREAMBLE = """
import os, random, signal, statistics, threading, time
import neurlang as nl
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
nl.manual_seed(0)
random.seed(SEED)
nl.set_num_threads(THREADS)
a, b = nl.rand(96, 200), nl.rand(200, 64)
product = (a @ b).tolist()

clocks = time.CLOCK_MONOTONIC, time.pthread_getcpuclockid(threading.get_ident())

def interrupted(work):
    "Seconds, and those that this thread computed, from a signal at a random time within the work to the exception."
    sent = []
    def send():
        sent.extend(map(time.clock_gettime, clocks))
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(random.uniform(0.001, 0.03), send)
    try:
        timer.start()
        while True:
            work()
    except KeyboardInterrupt:
        return [time.clock_gettime(clock) - begin for clock, begin in zip(clocks, sent)]
    finally:
        timer.join()
"""
LOOP = """
delays = []
for _ in range(8):
    delays.append(interrupted(work))
    assert (a @ b).tolist() == product
passed, computed = zip(*delays)
print(statistics.median(passed), max(passed), sorted(computed)[-2])
"""
WORK = {
    "matmul": "x = nl.rand(2500, 2500)\nwork = lambda: x @ x",
    "matmul of float64": "x = nl.rand(1500, 1500, dtype=nl.float64)\nwork = lambda: x @ x",
    "elementwise": "x = nl.rand(1 << 23)\nwork = lambda: x.pow(x)",
    "strided": "x = nl.rand(3000, 3000)\nwork = lambda: nl.exp(x.T + x)",
    "in place": "x = nl.rand(1 << 23)\nwork = lambda: x.pow_(0.9)",
    "sum": "x = nl.rand(1 << 25)\nwork = lambda: x.sum()",
    "softmax": "x = nl.rand(4096, 4096)\nwork = lambda: nl.softmax(x, 1)",
    "conv2d": "x, w = nl.rand(32, 64, 56, 56), nl.rand(64, 64, 3, 3)\nwork = lambda: nl.conv2d(x, w, padding=1)",
    "conv2d of one image": "x, w = nl.rand(1, 64, 300, 300), nl.rand(64, 64, 3, 3)\nwork = lambda: nl.conv2d(x, w)",
    "conv2d in large tiles": (
        "x, w = nl.rand(32, 64, 56, 56), nl.rand(64, 64, 3, 3)\nnl.set_conv_precision('medium')\n"
        "work = lambda: nl.conv2d(x, w, padding=1)"
    ),
    "sort of one row": "x = nl.rand(1 << 23)\nwork = lambda: nl.sort(x)",
    "scan of one row": "x = nl.rand(1 << 25)\nwork = lambda: nl.logcumsumexp(x, 0)",
    "median": "x = nl.rand(1 << 22, 4)\nwork = lambda: nl.median(x, 0)",
    "scatter_add": (
        "x, places = nl.rand(1 << 24), (nl.rand(1 << 24) * (1 << 23)).long()\n"
        "work = lambda: x.scatter_add(0, places, x)"
    ),
    "gather": "x, p = nl.rand(6000, 3000), (nl.rand(2000, 3000) * 6000).long()\nwork = lambda: nl.gather(x, 0, p)",
    "mask": "x = nl.rand(6000, 6000)\nmask = x > 0.5\nwork = lambda: x[mask]",
    "compilation": (
        "import tempfile\nos.environ['NEURLANG_CACHE'] = tempfile.mkdtemp()\n"
        "def f(x, n):\n"
        "    for _ in range(n):\n        x = x.exp().sum(1, keepdim=True) + x.sin().softmax(0)\n    return x\n"
        "x, g, more = nl.rand(8, 64), nl.trace(f), iter(range(40, 10**9))\nwork = lambda: g(x, next(more))"
    ),
    "attention backward": (
        "q = nl.rand(1, 1, 3000, 64, requires_grad=True)\n"
        "work = lambda: nl.scaled_dot_product_attention(q, q, q).sum().backward()"
    ),
    "norm of one group": "x = nl.rand(1 << 13, 1 << 12).T[None]\nwork = lambda: nl.group_norm(x, 1)",
    "matmul of float16": "x = nl.rand(2000, 2000).half()\nwork = lambda: x @ x",
    "int_mm": "x = nl.ones(4096, 4096, dtype=nl.int8)\nwork = lambda: nl.int_mm(x, x)",
    "conv3d": "x, w = nl.rand(2, 32, 16, 56, 56), nl.rand(32, 32, 3, 3, 3)\nwork = lambda: nl.conv3d(x, w, padding=1)",
    "conv_transpose2d": (
        "x, w = nl.rand(8, 64, 56, 56), nl.rand(64, 64, 4, 4)\nwork = lambda: nl.conv_transpose2d(x, w, stride=2)"
    ),
    "conv2d backward": (
        "x, w = (nl.rand(s, requires_grad=True) for s in ((16, 64, 56, 56), (64, 64, 5, 5)))\n"
        "y = nl.conv2d(x, w)\nwork = lambda: y.backward(y.detach(), retain_graph=True)"
    ),
    "argsort": "x = nl.rand(1 << 20, 8)\nwork = lambda: nl.argsort(x, 0)",
    "argsort of short rows": "x = nl.rand(1 << 20, 16)\nwork = lambda: nl.argsort(x, 1)",
    "topk": "x = nl.rand(1 << 24)\nwork = lambda: nl.topk(x, 1 << 22)",
    "unique": "x = nl.randint(0, 1 << 20, (1 << 22,))\nwork = lambda: nl.unique(x, return_inverse=True)",
    "searchsorted": "x = nl.rand(1 << 23)\nrow = nl.rand(1 << 20).sort()[0]\nwork = lambda: nl.searchsorted(row, x)",
    "cummax": "x = nl.rand(1 << 25)\nwork = lambda: nl.cummax(x, 0)",
    "nonzero": "x = nl.rand(6000, 6000) > 0.5\nwork = lambda: nl.nonzero(x)",
    "batch_norm": (
        "x = nl.rand(64, 64, 112, 112)\nwork = lambda: nl.nn.functional.batch_norm(x, None, None, training=True)"
    ),
    "cross_entropy backward": (
        "x, y = nl.rand(4096, 8192, requires_grad=True), nl.randint(0, 8192, (4096,))\n"
        "work = lambda: nl.cross_entropy(x, y).backward()"
    ),
    "permutation": "work = lambda: nl.randperm(1 << 23)",
    "softmax down columns": "x = nl.rand(3 << 20, 32)\nwork = lambda: nl.softmax(x, 0)",
    "logsumexp down columns": "x = nl.rand(3 << 21, 32)\nwork = lambda: nl.logsumexp(x, 0)",
    "depthwise weights": (
        "x = nl.rand(1, 16, 1500, 2000)\nw = nl.rand(16, 1, 15, 15, requires_grad=True)\n"
        "y = nl.conv2d(x, w, padding=7, groups=16)\n"
        "work = lambda: y.backward(y.detach(), retain_graph=True)"
    ),
    "max_pool2d of a plane": (
        "x = nl.rand(1, 1, 1 << 13, 1 << 13)\nwork = lambda: nl.max_pool2d(x, 1 << 13, return_indices=True)"
    ),
    "max_pool2d backward": (
        "x = nl.rand(1, 1, 1 << 12, 1 << 12, requires_grad=True)\ny = nl.max_pool2d(x, 3, 1, 1)\n"
        "work = lambda: y.backward(y.detach(), retain_graph=True)"
    ),
    # Results of 4 and 6 GiB, which one thread clears.
    "max_pool2d backward to one place": (
        "g, place = nl.ones(1, 1, 1, 1), nl.zeros(1, 1, 1, 1, dtype=nl.int64)\n"
        "work = lambda: nl._tensor._max_pool2d_grad(g, place, 1 << 15, 1 << 15)"
    ),
    "conv2d of no weights": (
        "x, w = nl.rand(1, 0, 3 << 14, 1 << 15), nl.rand(1, 0, 1, 1)\nwork = lambda: nl.conv2d(x, w)"
    ),
    "layer_norm backward of short rows": (
        "x = nl.rand(1 << 23, 4, requires_grad=True)\nw = nl.rand(4, requires_grad=True)\n"
        "y = nl.layer_norm(x, 4, w)\nwork = lambda: y.backward(y.detach(), retain_graph=True)"
    ),
    "layer_norm backward of one row": (
        "x = nl.rand(1, 1 << 24, requires_grad=True)\n"
        "y = nl.layer_norm(x, 1 << 24)\nwork = lambda: y.backward(y.detach(), retain_graph=True)"
    ),
    "avg_pool2d in large windows": "x = nl.rand(1, 1, 700, 700)\nwork = lambda: nl.avg_pool2d(x, 351, 1)",
    "avg_pool2d backward": (
        "x = nl.rand(1, 1, 512, 512, requires_grad=True)\ny = nl.avg_pool2d(x, 255, 1)\n"
        "work = lambda: y.backward(y.detach(), retain_graph=True)"
    ),
    "windows across planes": (
        "x = nl.rand(1, 10, 1, 1).expand(1, 10, 6000, 6000)\nwork = lambda: nl.adaptive_avg_pool2d(x, (2, 1))"
    ),
    "product of integers": (
        "x, y = nl.ones(1, 1 << 21, dtype=nl.int32).expand(64, 1 << 21), nl.ones(1, 32, dtype=nl.int32)\n"
        "work = lambda: x @ y.expand(1 << 21, 32)"
    ),
    "depthwise by a large kernel": (
        "x, w = nl.rand(1, 1, 500, 500), nl.rand(1, 1, 201, 201)\nwork = lambda: nl.conv2d(x, w)"
    ),
    "normal numbers": "work = lambda: nl.randn(1 << 24)",
    "backward": "x = nl.rand(1500, 1500, requires_grad=True)\nwork = lambda: (x @ x).sum().backward()",
    "trace": "x = nl.rand(1 << 22)\nf = nl.trace(lambda x: (x.pow(x) @ x).exp())\nf(x)\nwork = lambda: f(x).item()",
}


def run(text: str, threads: int, seed: int = 0) -> subprocess.CompletedProcess[str]:
    program = PREAMBLE.replace("THREADS", str(threads)).replace("SEED", str(seed)) + text
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env={**os.environ}
    )


@pytest.mark.parametrize("name", WORK)
def test_ctrl_c_arrives_within_a_tenth_of_a_second(name: str) -> None:
    result = run(f"{WORK[name]}\nwork()\n{LOOP}", threads=1 + len(name) % 2)
    assert result.returncode == 0, result.stderr
    median, longest, computed = map(float, result.stdout.split())
    # 99 of 100 arrive within a tenth of a second where nobody else computes. What this thread itself computes until
    # the exception is the same on a busy machine, where it waits for its turns besides. It is held to that bound, but
    # for the longest of eight, which a host that hands out memory slowly may stretch (0.21 s once); of the time that
    # passes only the median is, and the longest to one that tells a missing check from a late turn.
    assert computed < 0.1
    assert median < 0.1
    assert longest < 1.0


def test_other_threads_are_not_interrupted() -> None:
    text = """
x = nl.rand(1200, 1200)
right = (x @ x).tolist()
results = []
other = threading.Thread(target=lambda: results.extend((x @ x).tolist() == right for _ in range(20)))
other.start()
interrupted(lambda: x @ x)
other.join()
assert results == [True] * 20
"""
    result = run(text, threads=2)
    assert result.returncode == 0, result.stderr


def test_a_handler_may_compute_and_let_the_work_go_on() -> None:
    text = """
x = nl.rand(1000, 1500)
right = (x @ x.T).tolist()
handled = []
def handler(number, frame):
    handled.append((a @ b).tolist() == product)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
traced = nl.trace(lambda x: (x @ x.T) + 0)
for _ in range(20):
    assert (x @ x.T).tolist() == right
    assert traced(x).tolist() == right
signal.setitimer(signal.ITIMER_REAL, 0)
assert handled and all(handled)
"""
    result = run(text, threads=2)
    assert result.returncode == 0, result.stderr


def test_a_block_that_raises_in_a_handler_does_not_run_the_tape_again() -> None:
    text = """
x = nl.rand(1500, 1500) / 1500
total, blocks = nl.zeros(4), []
@nl.trace
def outer():
    total.add_(1.0)
    y = x
    for _ in range(8):
        y = y @ x
    return y
@nl.trace
def inner():
    nl.zeros(3) + 1
    raise ValueError
def handler(number, frame):
    try:
        inner()
    except ValueError:
        blocks.append((nl.ones(2) + 1).tolist())
signal.signal(signal.SIGALRM, handler)
right = outer().tolist()
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
for _ in range(5):
    assert outer().tolist() == right
signal.setitimer(signal.ITIMER_REAL, 0)
assert total.tolist() == [6.0] * 4, total
assert blocks and all(b == [2.0, 2.0] for b in blocks)
"""
    result = run(text, threads=2)
    assert result.returncode == 0, result.stderr


def test_no_interrupt_keeps_later_blocks_from_running() -> None:
    text = """
from neurlang.tracing.recording import thread
def handler(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
x, step, interrupts = nl.ones(8), nl.trace(), 0
def block():
    with step:
        y = (x + 1) * 2
    return y
end = time.perf_counter() + 4
while time.perf_counter() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 80e-6))
        for _ in range(30):
            block()
        time.sleep(1e-4)
    except KeyboardInterrupt:
        interrupts += 1
    if thread.open:  # it came as the block was left, before Python called for that
        thread.open.clear(), thread.tape.close(), thread.tape.clear()
    assert not thread.runs, interrupts
assert interrupts > 100 and block().tolist() == [4.0] * 8
"""
    result = run(text, threads=1)
    assert result.returncode == 0, result.stderr


def test_what_was_interrupted_in_a_trace_is_lost_and_the_next_call_right() -> None:
    text = """
f = nl.trace(lambda x: (x.pow(x) * 2).exp())
x = nl.rand(1 << 22)
right = f(x).sum().item()
for _ in range(5):
    interrupted(lambda: f(x).sum().item())
    assert f(x).sum().item() == right
"""
    result = run(text, threads=2)
    assert result.returncode == 0, result.stderr
