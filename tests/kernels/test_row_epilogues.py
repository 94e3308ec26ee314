"""Loops with reductions that end a product: the bits of eager code, whatever the shape, the layout and the threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import neurlang as nl
import neurlang.nn.functional as F
from neurlang import _tensor
from neurlang.ir.kernel import NativeStep

from .contraction import Array, assert_same_bits, normal, tensor

Loop = Callable[[nl.Tensor, nl.Tensor], nl.Tensor]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = nl.get_num_threads()
    yield
    nl.set_num_threads(before)


def row_epilogues(traced: nl.trace) -> list[NativeStep]:
    steps = [s for s in traced.program.schedule.steps if isinstance(s, NativeStep)]
    return [s for s in steps if s.epilogue is not None and not s.ends_in_tiles]


def check(run: Callable[[], nl.Tensor], epilogues: int = 1) -> None:
    """`run` traced, with any number of threads, against `run` in eager code."""
    want, traced = run().numpy(), nl.trace(run)
    traced()
    assert len(row_epilogues(traced)) == epilogues
    for threads in (1, 2, 3, 8):
        nl.set_num_threads(threads)
        assert_same_bits(traced().numpy(), want)


LOOPS: dict[str, Loop] = {
    "softmax": lambda y, v: F.softmax(y * 0.25 + v, -1),
    "masked": lambda y, v: F.log_softmax(nl.where(v > 0, y, -np.inf), -1),
    "norm": lambda y, v: F.layer_norm(nl.relu(y) + v, (y.shape[-1],), v, v),
    "rms": lambda y, v: F.rms_norm(y + v, (y.shape[-1],), v),
    "largest": lambda y, v: nl.amax(y + v, -1),
    "mean": lambda y, v: y - nl.mean(y * v, -1, keepdim=True),
    "logsumexp": lambda y, v: nl.logsumexp(y + v, -1),
}

# What cuts them: tiles, one block of k or several, rows stacked from batches, small, narrow and streamed products,
# rows longer than a tile is wide, vectors, blocks of k shared between threads (all at once, in turns), sums of nothing.
SHAPES = [
    ((37, 65), (65, 50)),
    ((200, 64), (64, 130)),
    ((3, 130, 70), (3, 70, 200)),
    ((2, 3, 33, 40), (2, 3, 40, 33)),
    ((4, 9, 33), (33, 40)),
    ((2, 300, 600), (600, 257)),
    ((9, 9), (9, 9)),
    ((3, 300), (300, 500)),
    ((1, 300), (300, 80)),
    ((5, 1, 64), (5, 64, 96)),
    ((500, 300), (300, 3)),
    ((2, 70, 20), (2, 20, 2)),
    ((8, 700), (700, 2000)),
    ((70, 40), (40, 1500)),
    ((40, 20), (20, 5000)),
    ((40, 3000), (3000, 30)),
    ((40, 4500), (4500, 60)),
    ((20, 0), (0, 33)),
    ((300, 0), (0, 700)),
    ((150, 30), (30, 513)),
]


def operands(rng: np.random.Generator, shapes: tuple[tuple[int, ...], ...], dtype: type) -> tuple[Array, Array, Array]:
    a, b = normal(rng, shapes[0], dtype), normal(rng, shapes[1], dtype)
    if rng.integers(2):  # a matrix that is contiguous in k
        b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    return a, b, normal(rng, b.shape[-1:], dtype)


@pytest.mark.parametrize("shapes", SHAPES)
def test_any_shape(rng: np.random.Generator, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    dtype = np.float64 if rng.random() < 0.3 else np.float32
    a, b, v = map(tensor, operands(rng, shapes, dtype))
    for name in rng.choice(list(LOOPS), 2, replace=False):
        check(lambda name=name: LOOPS[name](nl.matmul(a, b), v))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOOPS)
def test_any_loop(rng: np.random.Generator, name: str, dtype: type) -> None:
    a, b, v = operands(rng, ((2, 90, 48), (48, 70)), dtype)
    a = a.copy()
    a[0, 3], a[1, 4, 0] = np.inf, np.nan
    tensors = tensor(a), tensor(b), tensor(v)
    check(lambda: LOOPS[name](nl.matmul(*tensors[:2]), tensors[2]))


def test_what_else_reads_the_product(rng: np.random.Generator) -> None:
    """A product that outlives the program, one that a later step reads, and one that is overwritten."""
    a, b = (tensor(rng.standard_normal(s).astype(np.float32)) for s in ((80, 30), (30, 40)))

    def outlives() -> nl.Tensor:
        y = nl.matmul(a, b)
        return nl.cat([y, F.softmax(y * 2, -1)])

    def read_later() -> nl.Tensor:
        y = nl.matmul(a, b)
        return nl.matmul(F.softmax(y * 2, -1), y.T)

    def overwritten() -> nl.Tensor:
        y = nl.matmul(a, b)
        y += 1
        y *= F.softmax(y, -1)
        return y

    for run in (outlives, read_later, overwritten):
        check(run)


def test_more_operands_than_rows_elsewhere_may_have(rng: np.random.Generator) -> None:
    a, b = (tensor(rng.standard_normal(s).astype(np.float32)) for s in ((80, 30), (30, 40)))
    count = _tensor.Program.MAX_TAKEN // 2
    values = tensor(rng.standard_normal((count, 40)).astype(np.float32))
    chosen = tensor(rng.random((count, 40)) < 0.01)

    def run() -> nl.Tensor:
        y = nl.matmul(a, b)
        for i in range(count):
            y = nl.where(chosen[i], values[i], y)
        return F.softmax(y, -1)

    check(run)


def test_rows_of_heads(rng: np.random.Generator) -> None:
    """Rows of the product are several rows of the loop."""
    a, b = (tensor(rng.standard_normal(s).astype(np.float32)) for s in ((4, 50, 64), (64, 96)))
    check(lambda: F.rms_norm(nl.matmul(a, b).reshape(4, 50, 6, 16) * 2, (16,)))


def test_a_block_and_its_gradients(rng: np.random.Generator) -> None:
    """Residual and norm behind a layer, attention scores, and what goes back through them."""
    x, r, w, q = (
        tensor(rng.standard_normal(s).astype(np.float32)) for s in ((2, 70, 32), (2, 70, 32), (32, 32), (2, 32, 70))
    )

    def run() -> nl.Tensor:
        leaves = [nl.tensor(t.numpy(), requires_grad=True) for t in (x, r, w, q)]
        x_, r_, w_, q_ = leaves
        h = F.layer_norm(nl.matmul(x_, w_) + r_, (32,))
        scores = F.softmax(nl.matmul(h, q_) * 0.2, -1)
        nl.matmul(scores, h).sum().backward()
        return nl.cat([t.grad.reshape(-1) for t in leaves])

    want, traced = run().numpy(), nl.trace(run)
    for threads in (1, 2, 3):
        nl.set_num_threads(threads)
        assert_same_bits(traced().numpy(), want)
    assert len(row_epilogues(traced)) >= 2


def test_frozen_weights(rng: np.random.Generator) -> None:
    w, v = (tensor(rng.standard_normal(s).astype(np.float32)) for s in ((300, 200), (200,)))
    x = tensor(rng.standard_normal((150, 300)).astype(np.float32))

    def layer(x: nl.Tensor) -> nl.Tensor:
        return LOOPS["norm"](nl.matmul(x, w), v)

    frozen = nl.trace(layer).freeze(x)
    for _ in range(3):
        assert_same_bits(frozen(x).numpy(), layer(x).numpy())


def test_deep_products_keep_the_native_reduction(rng: np.random.Generator) -> None:
    """Alone it is as fast behind them, and needs no compiler."""
    a, b = (tensor(rng.standard_normal(s).astype(np.float32)) for s in ((1700, 300), (300, 40)))
    check(lambda: nl.amax(nl.matmul(a, b), -1), 0)
    check(lambda: F.softmax(nl.matmul(a, b), -1), 0)
    a, b = a[:, :64], b[:64]
    check(lambda: nl.amax(nl.matmul(a, b), -1))
    check(lambda: F.softmax(nl.matmul(a, b), -1))
