"""Attention against float64 written out: shapes, layouts, masks, hard scores; gradients; bits that nothing changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK, assert_close

import neurlang as nl
from neurlang.autograd import gradcheck, gradgradcheck
from neurlang.nn.functional import scaled_dot_product_attention as attention

from .contraction import Array, assert_same_bits, tensor
from .reduction import on_all_threads

FLOATS = [np.float32, np.float64]
# batch, heads, group, queries, keys, depth, width: few queries, several blocks and parts, odd sizes, one key
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1), (2, 3, 1, 5, 7, 8, 6), (1, 2, 1, 33, 170, 3, 2), (2, 2, 4, 70, 90, 48, 33),
    (1, 2, 1, 200, 400, 64, 40), (1, 1, 1, 400, 200, 16, 16), (1, 2, 4, 1, 2100, 64, 64), (2, 1, 3, 1, 300, 20, 50),
    (1, 1, 1, 1, 1025, 128, 128), (1, 1, 3, 10, 2100, 32, 32), (1, 1, 2, 130, 169, 70, 130), (1, 2, 1, 3, 5, 500, 1),
]  # fmt: skip
MASKS = ["none", "causal", "boolean", "float", "keys", "blind"]


class Exact:
    """Attention and its gradients in float64, and the scales that errors are proportional to."""

    def __init__(self, q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float) -> None:
        self.q, self.k, self.v = (x.astype(np.float64) for x in (q, k, v))
        self.k, self.v = (np.repeat(x, q.shape[1] // k.shape[1], 1) for x in (self.k, self.v))
        self.heads, self.factor = k.shape[1], scale
        scores = self.q @ self.k.swapaxes(-1, -2) * scale
        size = np.abs(self.q) @ np.abs(self.k).swapaxes(-1, -2) * abs(scale)
        if mask is not None:
            added = np.where(mask, 0, -np.inf) if mask.dtype == bool else mask.astype(np.float64)
            scores = scores + added
            size = size + np.where(np.isfinite(added), np.abs(added), 0)
        if causal:
            scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
        top = scores.max(-1, keepdims=True)
        e = np.exp(scores - np.where(top == -np.inf, 0, top))
        self.p = e / np.where(e.sum(-1, keepdims=True) == 0, 1, e.sum(-1, keepdims=True))
        self.relative = 1 + np.where(self.p > 0, size, 0).max(-1, keepdims=True)  # error of a weight, in units

        self.factors = np.ones_like(self.p)  # of dropout

    def out(self) -> tuple[Array, Array]:
        weights = self.p * self.factors
        return weights @ self.v, self.relative * (weights @ np.abs(self.v))

    def shared(self, x: Array) -> Array:
        return x.reshape(x.shape[0], self.heads, -1, *x.shape[2:]).sum(2)

    def gradients(self, g: Array) -> list[tuple[Array, Array]]:
        g = g.astype(np.float64)
        by_weight = g @ self.v.swapaxes(-1, -2) * self.factors
        ds = self.p * (by_weight - (by_weight * self.p).sum(-1, keepdims=True)) * self.factor
        size = np.abs(g) @ np.abs(self.v).swapaxes(-1, -2) * self.factors
        size = self.relative * self.p * (size + (size * self.p).sum(-1, keepdims=True)) * abs(self.factor)
        dropped = self.p * self.factors
        return [
            (ds @ self.k, size @ np.abs(self.k)),
            (self.shared(ds.swapaxes(-1, -2) @ self.q), self.shared(size.swapaxes(-1, -2) @ np.abs(self.q))),
            (
                self.shared(dropped.swapaxes(-1, -2) @ g),
                self.shared((self.relative * dropped).swapaxes(-1, -2) @ np.abs(g)),
            ),
        ]


def mask_of(rng: np.random.Generator, kind: str, shape: tuple[int, ...], dtype: type) -> Array | None:
    batch, heads, group, queries, keys, _, _ = shape
    if kind == "boolean":
        return rng.random((queries, keys)) < 0.7
    if kind == "float":
        return rng.standard_normal((batch, 1, queries, keys)).astype(dtype)
    if kind == "keys":
        return rng.random((batch, 1, 1, keys)) < 0.5
    if kind == "blind":  # queries that see nothing, keys that no one sees
        mask = np.zeros((heads * group, queries, keys), dtype)
        mask[:, ::2] = -np.inf
        mask[..., ::3] = -np.inf
        return mask
    return None


def laid_out(x: Array, transposed: bool) -> nl.Tensor:
    """As it is, or a view whose heads lie inside of its rows."""
    return tensor(np.ascontiguousarray(x.swapaxes(1, 2))).transpose(1, 2) if transposed else tensor(x)


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> list[Array]:
    batch, heads, group, queries, keys, depth, width = shape
    all_heads = heads * group
    sizes = [(all_heads, queries, depth), (heads, keys, depth), (heads, keys, width), (all_heads, queries, width)]
    return [rng.standard_normal((batch, *s)).astype(dtype) for s in sizes]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(rng: np.random.Generator, shape: tuple[int, ...], dtype: type, mask: str) -> None:
    q, k, v, g = draw(rng, shape, dtype)
    added, causal, scale = mask_of(rng, mask, shape, dtype), mask == "causal", 1 / np.sqrt(shape[5])
    inputs = [laid_out(x, bool(rng.random() < 0.5)).requires_grad_() for x in (q, k, v)]
    given = None if added is None else tensor(added)
    out = attention(*inputs, attn_mask=given, is_causal=causal, enable_gqa=shape[2] > 1)
    exact = Exact(q, k, v, added, causal, scale)
    n = shape[5] + shape[4]
    want, size = exact.out()
    assert_close(out.detach().numpy(), want, "attention", n=n, scale=size)
    gradients = nl.grad(out, inputs, tensor(g))
    for name, got, (want, size) in zip("qkv", gradients, exact.gradients(g), strict=True):
        assert_close(got.numpy(), want, "attention", n=n + shape[3], scale=size, what=f"gradient of {name}")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dropout(rng: np.random.Generator, shape: tuple[int, ...], dtype: type, causal: bool) -> None:
    q, k, v, g = draw(rng, shape, dtype)
    chance, state = float(rng.choice([0.1, 0.5, 0.9])), nl.get_rng_state()
    exact = Exact(q, k, v, None, causal, 1 / np.sqrt(shape[5]))
    drawn = nl.rand(shape[0], shape[1], shape[2], shape[3], shape[4], dtype=getattr(nl, np.dtype(dtype).name))
    exact.factors = np.where(drawn.numpy().reshape(exact.p.shape) < dtype(chance), 0, 1 / (1 - chance))

    def compute() -> list[Array]:
        nl.set_rng_state(state)
        inputs = [tensor(x).requires_grad_() for x in (q, k, v)]
        out = attention(*inputs, dropout_p=chance, is_causal=causal, enable_gqa=shape[2] > 1)
        return [out.detach().numpy(), *(x.numpy() for x in nl.grad(out, inputs, tensor(g)))]

    wanted = [exact.out(), *exact.gradients(g)]
    for name, got, (want, size) in zip(["out", *"qkv"], compute(), wanted, strict=True):
        assert_close(got, want, "attention", n=sum(shape[3:6]), scale=size, what=name)
    first, *others = on_all_threads(lambda: nl.tensor(np.concatenate([x.reshape(-1) for x in compute()])))
    for other in others:
        assert_same_bits(other, first)


def test_dropout_written_out_is_the_kernels(rng: np.random.Generator) -> None:
    # A mask that is trained takes the path that is written out.
    q, k, v, g = (tensor(x) for x in draw(rng, (1, 2, 1, 20, 30, 8, 8), np.float64))
    q.requires_grad_()
    state, results = nl.get_rng_state(), []
    for trained in (False, True):
        nl.set_rng_state(state)
        out = attention(q, k, v, nl.zeros(20, 30, dtype=nl.float64, requires_grad=trained), 0.1)
        results.append((out.detach().numpy(), nl.grad(out, (q,), g)[0].numpy()))
    for kernel, written in zip(*results, strict=True):
        assert_close(kernel, written, "attention", n=38, scale=np.abs(written).max())


def test_dropout_of_everything_and_its_refusal() -> None:
    x = nl.ones(1, 2, 3, 4, requires_grad=True)
    out = attention(x, x, x, dropout_p=1.0)
    out.sum().backward()
    assert not out.detach().numpy().any() and not x.grad.numpy().any()
    for chance in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="dropout_p must be between 0 and 1"):
            attention(x, x, x, dropout_p=chance)


def hard_scores() -> dict[str, tuple[Array, Array]]:
    """Queries and keys whose scores are hard."""
    rng = np.random.default_rng(0)
    steps = np.ones((300, 4)) * np.arange(300)[:, None]
    return {
        "huge": (rng.choice([-100.0, 100.0], (40, 4)), rng.choice([-25.0, 25.0], (300, 4))),
        "equal": (np.ones((40, 4)), np.ones((300, 4))),
        "rising": (np.ones((40, 4)), steps),
        "falling": (np.ones((40, 4)), -steps),
        "overflowing exponentials": (np.full((40, 4), 1e18), np.full((300, 4), 1e18)),
    }


@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("name", hard_scores())
def test_hard_scores(rng: np.random.Generator, name: str, rows: int) -> None:
    q, k = (x[None, None].astype(np.float32) for x in hard_scores()[name])
    q, v = q[:, :, :rows], rng.standard_normal((1, 1, 300, 5)).astype(np.float32)
    want, size = Exact(q, k, v, None, False, 1.0).out()
    assert_close(attention(tensor(q), tensor(k), tensor(v), scale=1.0).numpy(), want, "attention", n=304, scale=size)


@pytest.mark.parametrize("rows", [2, 40])
def test_nan_and_infinity_go_where_they_belong(rng: np.random.Generator, rows: int) -> None:
    q, k, v, _ = draw(rng, (1, 1, 1, rows, 300, 4, 4), np.float32)
    q[0, 0, 1, 0] = np.nan
    v[0, 0, 7, 2] = np.inf
    out = attention(tensor(q), tensor(k), tensor(v)).numpy()[0, 0]
    assert np.isnan(out[1]).all() and np.isfinite(np.delete(out, 1, 0)[:, [0, 1, 3]]).all()
    assert np.isinf(np.delete(out, 1, 0)[:, 2]).all()
    k[0, 0, 200] = np.nan
    assert np.isnan(attention(tensor(q), tensor(k), tensor(v)).numpy()).all()
    seen = attention(tensor(q), tensor(k), tensor(v), is_causal=True).numpy()[0, 0]
    assert np.isfinite(seen[0, [0, 1, 3]]).all() and np.isnan(seen[1]).all()  # 0 times a hidden infinity may be NaN


def test_queries_that_see_nothing_give_zeros() -> None:
    q = nl.ones(1, 2, 3, 4, requires_grad=True)
    out = attention(q, q, q, attn_mask=nl.zeros(3, 3, dtype=nl.bool_))
    out.sum().backward()
    assert not out.detach().numpy().any() and not q.grad.numpy().any()
    nothing = nl.zeros(1, 2, 0, 4)
    assert attention(q, nothing, nothing).tolist() == nl.zeros(1, 2, 3, 4).tolist()
    assert attention(nothing, q, q).shape == (1, 2, 0, 4)


@pytest.mark.parametrize("shape", [(2, 3, 1, 70, 200, 24, 40), (3, 2, 2, 1, 2500, 40, 24)], ids=str)
def test_bits_depend_on_neither_threads_nor_batch(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    q, k, v, g = draw(rng, shape, np.float32)

    def run(q: Array, k: Array, v: Array, g: Array) -> list[Array]:
        inputs = [tensor(x).requires_grad_() for x in (q, k, v)]
        out = attention(*inputs, is_causal=shape[3] > 1, enable_gqa=shape[2] > 1)
        return [out.detach().numpy(), *(x.numpy() for x in nl.grad(out, inputs, tensor(g)))]

    alone = run(*(x[1:2] for x in (q, k, v, g)))
    first, *others = on_all_threads(lambda: nl.tensor(np.concatenate([x.reshape(-1) for x in run(q, k, v, g)])))
    for other in others:
        assert_same_bits(other, first)
    for one, many in zip(alone, run(q, k, v, g), strict=True):
        assert_same_bits(one, many[1:2])


@pytest.mark.parametrize("chance", [0.0, 0.4])
def test_traced_is_eager(rng: np.random.Generator, chance: float) -> None:
    q, k, v, g = (tensor(x) for x in draw(rng, (2, 2, 1, 40, 50, 16, 16), np.float32))
    bias = nl.randn(40, 50)

    def step(q: Any, k: Any, v: Any, g: Any) -> Any:
        q = (q * 2).detach().requires_grad_()
        out = attention(q, k, v, attn_mask=bias, dropout_p=chance) + 1
        return out.detach() * 1, *nl.grad(out, (q,), g)

    traced = nl.trace(step)
    state = nl.get_rng_state()
    wanted = [step(q, k, v, g) for _ in range(2)]
    assert (wanted[0][0] == wanted[1][0]).all().item() == (chance == 0)  # every call draws anew
    nl.set_rng_state(state)
    for want in wanted:
        for got, eager in zip(traced(q, k, v, g), want, strict=True):
            assert_same_bits(got.numpy(), eager.numpy())
    assert (traced.counts.compiled, traced.counts.replayed) == (1, 2)


@pytest.mark.parametrize(
    "kind", ["plain", "causal", "grouped", "boolean", "bias", "broadcast", "dropout", "bias, dropout"]
)
def test_gradients_of_both_orders(rng: np.random.Generator, kind: str) -> None:
    heads = 2 if kind == "grouped" else 1
    q, k, v = (nl.from_numpy(rng.standard_normal(s)).requires_grad_() for s in ((heads, 2, 3), (1, 3, 3), (1, 3, 2)))
    if kind == "broadcast":
        q = nl.from_numpy(rng.standard_normal((2, 1, 2, 3))).requires_grad_()
    mask = nl.tensor([[True, False, True], [False, False, False]]) if kind == "boolean" else None
    if "bias" in kind:
        mask = nl.from_numpy(rng.standard_normal((2, 3))).requires_grad_()
    state, chance = nl.get_rng_state(), 0.4 if "dropout" in kind else 0.0

    def call(*inputs: Any) -> Any:
        nl.set_rng_state(state)
        given = inputs[3] if "bias" in kind else mask
        return attention(*inputs[:3], given, chance, is_causal=kind == "causal", enable_gqa=kind == "grouped")

    inputs = [q, k, v, mask] if "bias" in kind else [q, k, v]
    assert gradcheck(call, inputs, **GRADCHECK)
    assert gradgradcheck(call, inputs, **GRADCHECK)


def test_refusals() -> None:
    x = nl.zeros(1, 4, 3, 8)
    with pytest.raises(nl.ShapeError, match="do not fit"):
        attention(x, nl.zeros(1, 4, 3, 7), x)
    with pytest.raises(nl.ShapeError, match="do not fit"):
        attention(x, x, nl.zeros(1, 4, 2, 8))
    with pytest.raises(nl.ShapeError, match="do not fit"):
        attention(x, nl.zeros(1, 3, 3, 8), nl.zeros(1, 3, 3, 8))
    with pytest.raises(ValueError, match="multiple"):
        attention(x, nl.zeros(1, 3, 3, 8), nl.zeros(1, 3, 3, 8), enable_gqa=True)
    with pytest.raises(nl.DTypeError, match="float dtype"):
        attention(x, x, x.to(nl.float64))
    with pytest.raises(nl.ShapeError):
        attention(x, x, x, attn_mask=nl.zeros(5, 3))
