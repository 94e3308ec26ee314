"""Operands of products made where they are packed: the bits of the product of what would lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl
from neurlang.blas import OWN, PROVIDERS, find
from neurlang.ir.kernel import NativeStep
from neurlang.passes import prologue

from .contraction import assert_same_bits

FORMS = {
    "rows": lambda w, s, z: (w.float() - z[:, None]) * s[:, None],
    "columns": lambda w, s, z: w.float() * s[: w.shape[1]] + z[: w.shape[1]],
    "cast": lambda w, s, z: w.float(),
    "groups": lambda w, s, z: (w.float().reshape(w.shape[0], -1, 4) * s[: w.shape[1] // 4, None]).reshape(*w.shape),
    "groups of rows": lambda w, s, z: (w.float().reshape(-1, 4, w.shape[1]) * s[: w.shape[0] // 4, None, None]).reshape(
        *w.shape
    ),
    "double": lambda w, s, z: w.double() * 0.3,
    "in place": lambda w, s, z: w.float().sub_(z[:, None]).mul_(s[:, None]),
}
DTYPES = [nl.int8, nl.uint8, nl.int16, nl.float16, nl.bfloat16, nl.float32, nl.int32]
SHAPES = [
    (1, 300, 70),
    (70, 300, 1),
    (2, 5, 3),
    (7, 300, 40),
    (33, 520, 130),
    (100, 256, 40),
    (65, 7, 64),
    (1, 1100, 9),
    (70, 1, 65),
    (33, 1, 40),
]


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prologues at sizes at which they do not pay, too."""
    monkeypatch.setattr(prologue, "pays", lambda *args: True)
    nl.reset_programs()
    yield
    nl.reset_programs()


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: nl.dtype) -> nl.Tensor:
    x = rng.standard_normal(shape) * 50
    if not dtype.is_floating_point:
        return nl.tensor(x.astype(np.int32)).to(dtype)
    x.ravel()[::97] = rng.choice([np.inf, -np.inf, np.nan, -0.0, 1e-40])
    return nl.tensor(x.astype(np.float32)).to(dtype)


def check(f: Callable[..., nl.Tensor], *tensors: nl.Tensor, made: int = 1) -> Any:
    """A traced function gives eager's bits for any number of threads, with so many operands made in its last step."""
    traced = nl.trace(f)
    for threads in (1, 2, 3, 8):
        nl.set_num_threads(threads)
        assert_same_bits(traced(*tensors).numpy(), f(*tensors).numpy())
    step = traced.program.schedule.steps[-1]
    assert isinstance(step, NativeStep) and len(step.prologues) == made, str(step)
    return traced


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_right_operands(rng: np.random.Generator, shape: tuple[int, ...], turned: bool, form: str) -> None:
    (m, k, n), make = shape, FORMS[form]
    if form.startswith("groups"):
        k, n = -(-k // 4) * 4, -(-n // 4) * 4
    dtype = DTYPES[rng.integers(len(DTYPES))]
    if form == "in place" and dtype == nl.float32:
        dtype = nl.int8  # float() would be no copy
    w = numbers(rng, (n, k) if turned else (k, n), dtype)
    s, z = (nl.tensor(rng.standard_normal(max(k, n)).astype(np.float32)) for _ in range(2))
    s, z = (y[: w.shape[0]] if form in ("rows", "in place") else y for y in (s, z))
    x = numbers(rng, (m, k), nl.float64 if form == "double" else nl.float32)
    is_map = not (form == "cast" and dtype == nl.float32)
    check(lambda x, w, s, z: x @ (make(w, s, z).T if turned else make(w, s, z)), x, w, s, z, made=int(is_map))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_left_operands_and_both(rng: np.random.Generator, shape: tuple[int, ...], turned: bool) -> None:
    m, k, n = shape
    x, w = numbers(rng, (k, m) if turned else (m, k), nl.float16), numbers(rng, (k, n), nl.int8)
    y = numbers(rng, (k, n), nl.float32)
    check(lambda x, y: nl.relu((x.float().T if turned else x.float()) @ y + 1), x, y)
    check(lambda x, w: (x.float().T if turned else x.float()) @ w.float(), x, w, made=2)


def test_columns_of_one_element_by_what_all_share(rng: np.random.Generator) -> None:
    """Both strides of such a matrix are 1: what makes it has to know which of its axes has one element."""
    x, s = numbers(rng, (70, 1), nl.float32), numbers(rng, (1, 1), nl.float32)
    w, v = numbers(rng, (1, 65), nl.float32), numbers(rng, (1, 1), nl.float32).expand(70, 1)
    check(lambda x, s, w: (x * s) @ w, x, s, w)
    check(lambda v, w: (v * 0.3) @ w, v, w)
    check(lambda x, s, w: w.T @ (x * s).T, x, s, w)
    halves = numbers(rng, (300, 3), nl.float16)
    column, row = halves[:, 1:2], numbers(rng, (1, 64), nl.float16)
    assert_same_bits((column @ row).numpy(), (column.float() @ row.float()).half().numpy())
    assert_same_bits((row.T @ column.T).numpy(), (row.T.float() @ column.T.float()).half().numpy())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("m", [1, 5, 40])
@pytest.mark.parametrize("batches", [((3,), (3,)), ((2, 3), (2, 3)), ((4,), ()), ((2, 3), (3,)), ((), (3,))])
def test_batches(rng: np.random.Generator, batches: tuple[tuple[int, ...], ...], m: int, turned: bool) -> None:
    x, w = (
        numbers(rng, (*batches[0], m, 50), nl.float32),
        numbers(rng, (*batches[1], *((33, 50) if turned else (50, 33))), nl.int8),
    )
    s = numbers(rng, (*batches[1], 1, 1), nl.float32)
    check(lambda x, w, s: x @ (w.float() * s).transpose(-1, -2) if turned else x @ (w.float() * s), x, w, s)
    check(lambda x, w: (x + 1.0) @ w, x, w.float().transpose(-1, -2) if turned else w.float())


def test_operands_of_any_strides(rng: np.random.Generator) -> None:
    w = numbers(rng, (90, 200), nl.int8)
    x = numbers(rng, (20, 40), nl.float32)
    for view in (w[::2, 3:43], w[5:, 100:140], w[:1, :40].expand(30, 40), w[:, 10:50]):
        check(lambda x, w: x @ (w.float() * 0.5).T, x, view)
    check(lambda x, w: x @ (w.float() * 0.5), x, w[::2, 3:43][:40])
    check(lambda x, w: x @ w.float().T, x, w[:, :80:2], made=0)  # one by one is no way to read what is read again


@pytest.mark.parametrize("case", range(40))
def test_random_products(rng: np.random.Generator, case: int) -> None:
    def extent() -> int:
        return int(rng.choice([rng.integers(1, 4), rng.integers(1, 40), rng.integers(1, 150)]))

    m, n, k = extent(), extent(), int(rng.choice([extent(), 255, 256, 257, 513, 700]))
    batch = [(), (3,), (2, 2)][rng.integers(3)]
    dtypes = [DTYPES[i] for i in rng.integers(0, len(DTYPES), 2)]
    x, w = numbers(rng, (*batch, m, k), dtypes[0]), numbers(rng, (*batch, n, k), dtypes[1])
    scale, bias = numbers(rng, (n, 1), nl.float32), numbers(rng, (n,), nl.float32)
    check(lambda x, w, s, b: (x.float() * 2.0) @ (w.float() * s).transpose(-1, -2) + b, x, w, scale, bias, made=2)


def test_nothing_of_it_lies_in_memory(rng: np.random.Generator) -> None:
    x, w = numbers(rng, (40, 300), nl.float32), numbers(rng, (70, 300), nl.int8)
    traced = check(lambda x, w: x @ (w.float() * 0.1).T, x, w)
    assert len(traced.program.schedule.steps) == 1 and traced.memory.peak_bytes == 0
    assert "to_float32, mul" in str(traced.kernels[0])


def test_what_others_see_lies_in_memory(rng: np.random.Generator) -> None:
    x, w = numbers(rng, (40, 300), nl.float32), numbers(rng, (300, 70), nl.int8)

    def kept(x: nl.Tensor, w: nl.Tensor) -> tuple[nl.Tensor, nl.Tensor]:
        d = w.float() * 2.0
        return x @ d, d

    for f in (
        lambda x, w: kept(x, w)[0].sum() + kept(x, w)[1].sum(),
        kept,
        lambda x, w: (d := w.float() * 2.0).T @ d,
        lambda x, w: x @ (d := w.float() * 2.0) + (x + 1.0) @ d,
        lambda x, w: x @ (w.float() * 2.0).softmax(0),
    ):
        traced = nl.trace(f)
        got, want = traced(x, w), f(x, w)
        for a, b in zip(
            got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True
        ):
            assert_same_bits(a.numpy(), b.numpy())
        right = [p for s in traced.program.schedule.steps if isinstance(s, NativeStep) for p in s.prologues]
        assert all("to_float32" not in [n.op for n in p.nodes] for p in right)


def test_writes_to_what_is_read_stay_behind_the_product(rng: np.random.Generator) -> None:
    x, first = numbers(rng, (40, 50), nl.float32), nl.tensor(rng.standard_normal((50, 33)).astype(np.float32))

    def f(w: nl.Tensor) -> nl.Tensor:
        y = x @ (w * 2.0)
        w.mul_(3.0)
        w.sub_(x.T @ y)  # the update of a weight in the epilogue of a product
        return y

    ours, theirs = first.clone(), first.clone()
    traced = nl.trace(lambda: f(ours))
    for _ in range(3):
        assert_same_bits(traced().numpy(), f(theirs).numpy())
        assert_same_bits(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("m", [1, 3, 40])
def test_kept_panels_follow_what_they_were_made_of(rng: np.random.Generator, m: int) -> None:
    w, s = numbers(rng, (70, 300), nl.int8), nl.tensor(rng.standard_normal((70, 1)).astype(np.float32))
    frozen = nl.trace(lambda x: x @ (w.float() * s).T).freeze(nl.zeros(m, 300))
    assert len(frozen.program.schedule.steps) == 1
    for change in (
        lambda: None,
        lambda: s.mul_(2.0),
        lambda: w.add_(1),
        lambda: w.copy_(numbers(rng, (70, 300), nl.int8)),
    ):
        change()
        for _ in range(2):
            x = numbers(rng, (m, 300), nl.float32)
            assert_same_bits(frozen(x).numpy(), (x @ (w.float() * s).T).numpy())


def test_operands_that_are_given_are_made_anew(rng: np.random.Generator) -> None:
    w = numbers(rng, (70, 300), nl.int8)
    frozen = nl.trace(lambda x, s: x @ (w.float() * s).T).freeze(nl.zeros(40, 300), nl.zeros(70, 1))
    for _ in range(3):
        x, s = numbers(rng, (40, 300), nl.float32), nl.tensor(rng.standard_normal((70, 1)).astype(np.float32))
        assert_same_bits(frozen(x, s).numpy(), (x @ (w.float() * s).T).numpy())


def test_gradients(rng: np.random.Generator) -> None:
    """They read once more what the product has read, which is then made in memory."""
    w, x = numbers(rng, (70, 300), nl.int8), nl.tensor(rng.standard_normal((40, 300)).astype(np.float32))
    first = nl.tensor(rng.standard_normal((70, 1)).astype(np.float32))

    def step(x: nl.Tensor, s: nl.Tensor) -> tuple[nl.Tensor, ...]:
        x, s = x.detach().requires_grad_(), s.detach().requires_grad_()
        return nl.grad((x @ (w.float() * s).T).sigmoid().sum(), [x, s])

    traced = nl.trace(step)
    for _ in range(2):
        for a, b in zip(traced(x, first), step(x, first), strict=True):
            assert_same_bits(a.numpy(), b.numpy())
    assert not any(step.prologues for step in traced.program.schedule.steps if isinstance(step, NativeStep))


def test_products_of_a_library(rng: np.random.Generator) -> None:
    x, w = numbers(rng, (2, 40, 300), nl.int8), numbers(rng, (2, 300, 70), nl.int8)

    def f(x: nl.Tensor, w: nl.Tensor) -> nl.Tensor:
        return x.float() @ w.float() + x.float() @ (w.transpose(1, 2).float() + 1.0).transpose(1, 2)[:, :, :70]

    wide, weights = x.numpy().astype(np.float64), w.numpy().astype(np.float64)
    want, scale = wide @ (2 * weights + 1), np.abs(wide) @ (np.abs(weights) + np.abs(weights + 1))
    traced = nl.trace(f)
    try:
        for name in [name for name in PROVIDERS if find(name)]:
            nl.set_gemm(name)
            assert_close(traced(x, w).numpy(), want, "dot", n=300, scale=scale)
    finally:
        nl.set_gemm(OWN)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_empty_products(rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    x, w = nl.ones(m, k), nl.ones(k, n).to(nl.int8)
    assert_same_bits(nl.trace(lambda: x @ w.float())().numpy(), (x @ w.float()).numpy())
