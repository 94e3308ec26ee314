"""What takes long releases the GIL: other threads of Python go on meanwhile."""

from __future__ import annotations

import ctypes
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import neurlang as nl

Work = Callable[[], object]
Measure = Callable[[Work], float]


class Counter(threading.Thread):
    """Counts for as long as it may."""

    count, stopped = 0, False

    def run(self) -> None:
        while not self.stopped:
            self.count += 1

    def rate(self, work: Work) -> float:
        """Counts in each second of the work."""
        begin, before = time.perf_counter(), self.count
        work()
        return (self.count - before) / (time.perf_counter() - begin)


def usual(counter: Counter, work: Work) -> float:
    return statistics.median(counter.rate(work) for _ in range(5))


@pytest.fixture
def share() -> Iterator[Measure]:
    """Measures how fast others go on during some work, as a share of their speed while nothing is done.

    A short interval, because what holds the GIL gives it away for one when it returns.
    """
    nl.set_num_threads(1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    counter = Counter(daemon=True)
    counter.start()
    try:
        yield lambda work: usual(counter, work) / usual(counter, lambda: time.sleep(0.1))
    finally:
        counter.stopped = True
        counter.join()
        sys.setswitchinterval(interval)


def of(function: Callable[..., object], *shapes: tuple[int, ...]) -> Work:
    """The function of random numbers in these shapes."""
    return partial(function, *map(nl.rand, shapes))


def gradients(layer: Callable[..., nl.Tensor], *shapes: tuple[int, ...]) -> Work:
    out = layer(*(nl.rand(s, requires_grad=True) for s in shapes))
    return lambda: out.backward(out.detach(), retain_graph=True)


def marked(n: int) -> nl.Tensor:
    return nl.rand(n) > 0.9


# Each takes about a tenth of a second.
WORK: dict[str, Callable[[], Work]] = {
    "elementwise": lambda: of(nl.pow, (1 << 25,), (1 << 25,)),
    "a copy": lambda: of(lambda x: x.t().contiguous(), (8000, 8000)),
    "sum": lambda: of(lambda x: x.expand(1 << 13, 1 << 15).sum(), (1 << 13, 1)),
    "logsumexp": lambda: of(lambda x: x.logsumexp(1), (1 << 13, 1 << 13)),
    "matmul": lambda: of(nl.matmul, (2000, 2000), (2000, 2000)),
    "conv2d": lambda: of(nl.conv2d, (16, 64, 56, 56), (128, 64, 5, 5)),
    "attention": lambda: of(nl.scaled_dot_product_attention, *[(1, 2, 3000, 64)] * 3),
    "sort": lambda: of(nl.sort, (1 << 23,)),
    "cumsum": lambda: of(lambda x: x.cumsum(0), (1 << 26,)),
    "gather": lambda: partial(nl.index_select, nl.rand(1 << 23), 0, nl.randperm(1 << 23)),
    "nonzero": lambda: partial(nl.nonzero, marked(1 << 26)),
    "a mask": lambda: partial(nl.Tensor.masked_select, nl.rand(1 << 26), marked(1 << 26)),
    "unique": lambda: partial(nl.unique, nl.randint(0, 1000, (1 << 23,))),
    "random numbers": lambda: partial(nl.randn, 1 << 24),
    "a permutation": lambda: partial(nl.randperm, 1 << 22),
    "backward of a matmul": lambda: gradients(nl.matmul, (1500, 1500), (1500, 1500)),
    "backward of a conv2d": lambda: gradients(nl.conv2d, (8, 64, 56, 56), (128, 64, 5, 5)),
    "a trace": lambda: of(nl.trace(lambda x: (x.pow(x) @ x).softmax(1)), (1500, 1500)),
}


@pytest.mark.parametrize("name", WORK)
def test_other_threads_go_on(name: str, share: Measure) -> None:
    # Beside what holds the GIL the share is nearly 0, beside what releases it 1, on a single core 1/2, and less where
    # other processes get their turns, which take from the time of work and of sleep alike.
    work = WORK[name]()
    work()
    assert share(work) > 0.25


def test_that_they_do_not_is_noticed(share: Measure) -> None:
    holding = ctypes.PyDLL(None)  # whose calls keep the GIL
    assert share(lambda: holding.usleep(100_000)) < 0.25
