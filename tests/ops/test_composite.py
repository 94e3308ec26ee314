"""Composites against PyTorch: results and gradients in float64, over their options; and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bounds import assert_agrees, assert_share

import neurlang as nl

R = np.random.default_rng(7)
X, Y = R.standard_normal((2, 6, 5)), R.standard_normal((2, 6, 5))
P, Q = R.uniform(0.05, 0.95, (2, 6, 5)), R.uniform(0.05, 0.95, (2, 6, 5))
IMAGE = R.standard_normal((2, 4, 5, 6))
LOGITS, CLASSES, WEIGHTS = R.standard_normal((7, 4)), R.integers(0, 4, 7), R.uniform(0.5, 2, 4)
IGNORED = np.where(np.arange(7) % 3 == 0, -100, CLASSES)
MAPS, MAP_CLASSES = R.standard_normal((2, 4, 3, 5)), R.integers(0, 4, (2, 3, 5))
SOFT = R.dirichlet(np.ones(4), 7)
Q3, K3, V3 = R.standard_normal((2, 3, 5, 4)), R.standard_normal((2, 3, 6, 4)), R.standard_normal((2, 3, 6, 2))
ROWS, NAMES = R.standard_normal((6, 3)), R.integers(0, 6, (2, 4))


def F(T: Any) -> Any:
    return T.nn.functional


Case = tuple[Callable[..., Any], tuple[np.ndarray, ...]]
CASES: dict[str, Case] = {
    "mean": (lambda T, x: T.mean(x, (0, 2), True), (X,)),
    "mean of all": (lambda T, x: x.mean(), (X,)),
    "var": (lambda T, x: T.var(x, 1), (X,)),
    "var without correction": (lambda T, x: T.var(x, (0, 1), correction=0, keepdim=True), (X,)),
    "std": (lambda T, x: x.std(-1), (X,)),
    "std of equal numbers": (lambda T, x: T.std(x, 1), (np.ones((2, 3, 5)),)),
    "max of all, with ties": (lambda T, x: x.max(), (np.round(X),)),
    "min of all, with ties": (lambda T, x: T.min(x), (np.round(X),)),
    "amax of two axes, with ties": (lambda T, x: T.amax(x, (0, 2), True), (np.round(X),)),
    "max with another": (lambda T, x, y: T.max(x, other=y), (X, Y)),
    "min with another": (lambda T, x, y: x.min(other=y), (X, Y)),
    "logsumexp": (lambda T, x: T.logsumexp(x * 300, 1), (X,)),
    "logsumexp of nothing": (lambda T, x: T.logsumexp(x, 1), (X[:, :0],)),
    "logsumexp keepdim": (lambda T, x: T.logsumexp(x, (0, 2), True), (X,)),
    "norm": (lambda T, x: T.norm(x), (X,)),
    "norm of no p": (lambda T, x: T.norm(x, None, 1) + F(T).normalize(x, None).sum(), (X,)),
    "norm 1": (lambda T, x: T.norm(x, 1, 1), (X,)),
    "norm 3": (lambda T, x: T.norm(x, 3, (0, 2)), (X,)),
    "norm in more digits": (lambda T, x: x * T.norm(x.detach().float(), dtype=T.float64), (X,)),
    "norm inf": (lambda T, x: T.norm(x, float("inf"), 2), (X,)),
    "normalize": (lambda T, x: F(T).normalize(x, dim=2), (X,)),
    "atan2 at the origin": (
        lambda T, y, x: T.atan2(y, x), (np.array([0, -0.0, 0, 2, 0, 1e-170]), np.array([0, 0, -0.0, 0, -3.0, 1e-170]))),
    "cumsum": (lambda T, x: T.cumsum(x, 1), (X,)),
    "cumprod": (lambda T, x: T.cumprod(x, 2), (X,)),
    "batch_norm training": (
        lambda T, x, w, b: F(T).batch_norm(x, None, None, w, b, True), (IMAGE, WEIGHTS, R.standard_normal(4))
    ),
    "batch_norm of vectors": (lambda T, x: F(T).batch_norm(x, None, None, training=True, eps=1e-3), (LOGITS,)),
    "group_norm": (lambda T, x, w, b: F(T).group_norm(x, 2, w, b), (IMAGE, WEIGHTS, R.standard_normal(4))),
    "layer_norm": (lambda T, x, w, b: F(T).layer_norm(x, (6, 5), w, b), (X, Y[0], P[0])),
    "layer_norm plain": (lambda T, x: F(T).layer_norm(x, (5,), eps=1e-3), (X,)),
    "softmax": (lambda T, x: F(T).softmax(x, 1), (X,)),
    "log_softmax": (lambda T, x: F(T).log_softmax(x, 0), (X,)),
    "gelu": (lambda T, x: F(T).gelu(x), (X,)),
    "gelu tanh": (lambda T, x: F(T).gelu(x, approximate="tanh"), (X,)),
    "clamp": (lambda T, x: T.clamp(x, -0.5, 0.7) + x.clamp(min=0.1) + x.clamp(max=0.2), (X,)),
    "mse_loss": (lambda T, x, y: F(T).mse_loss(x, y), (X, Y)),
    "l1_loss": (lambda T, x, y: F(T).l1_loss(x, y, reduction="sum"), (X, Y)),
    "smooth_l1_loss": (lambda T, x, y: F(T).smooth_l1_loss(x, y, beta=0.7), (X, Y)),
    "smooth_l1_loss beta 0": (lambda T, x, y: F(T).smooth_l1_loss(x, y, beta=0.0), (X, Y)),
    "huber_loss": (lambda T, x, y: F(T).huber_loss(x, y, reduction="none", delta=0.8), (X, Y)),
    "bce": (lambda T, p, q: F(T).binary_cross_entropy(p, q), (P, Q)),
    "bce weighted": (lambda T, p, q, w: F(T).binary_cross_entropy(p, q, w.detach(), reduction="sum"), (P, Q, P)),
    "bce with logits": (lambda T, x, q: F(T).binary_cross_entropy_with_logits(x * 200, q), (X, Q)),
    "bce pos_weight": (
        lambda T, x, q, w: F(T).binary_cross_entropy_with_logits(x, q, pos_weight=w.detach()), (X, Q, P[0])
    ),
    "kl_div": (lambda T, x, q: F(T).kl_div(x, q, reduction="batchmean"), (X, Q)),
    "kl_div log": (lambda T, x, y: F(T).kl_div(x, y, reduction="sum", log_target=True), (X, Y)),
    "nll_loss of maps": (
        lambda T, x: F(T).nll_loss(x, T.tensor(MAP_CLASSES.transpose(0, 2, 1)).mT, T.tensor(WEIGHTS), ignore_index=3),
        (MAPS,)),
    "nll_loss ignore": (lambda T, x: F(T).nll_loss(x, T.tensor(IGNORED), reduction="none"), (LOGITS,)),
    "nll_loss": (lambda T, x: F(T).nll_loss(x, T.tensor(CLASSES)), (LOGITS,)),
    "cross_entropy": (lambda T, x: F(T).cross_entropy(x, T.tensor(CLASSES)), (LOGITS,)),
    "cross_entropy sum": (lambda T, x: F(T).cross_entropy(x, T.tensor(CLASSES), reduction="sum"), (LOGITS,)),
    "cross_entropy none": (lambda T, x: F(T).cross_entropy(x, T.tensor(CLASSES), reduction="none"), (LOGITS,)),
    "cross_entropy ignore": (lambda T, x: F(T).cross_entropy(x, T.tensor(IGNORED)), (LOGITS,)),
    "cross_entropy ignore 2": (lambda T, x: F(T).cross_entropy(x, T.tensor(CLASSES), ignore_index=2), (LOGITS,)),
    "cross_entropy weight": (
        lambda T, x: F(T).cross_entropy(x, T.tensor(IGNORED), T.tensor(WEIGHTS)), (LOGITS,)
    ),
    "cross_entropy smoothed": (
        lambda T, x: F(T).cross_entropy(x, T.tensor(IGNORED), T.tensor(WEIGHTS), label_smoothing=0.2), (LOGITS,)
    ),
    "cross_entropy maps": (lambda T, x: F(T).cross_entropy(x, T.tensor(MAP_CLASSES), label_smoothing=0.1), (MAPS,)),
    "cross_entropy one": (lambda T, x: F(T).cross_entropy(x, T.tensor(2)), (LOGITS[0],)),
    "cross_entropy soft": (
        lambda T, x, q: F(T).cross_entropy(x, q, T.tensor(WEIGHTS), label_smoothing=0.1), (LOGITS, SOFT)
    ),
    "linear": (lambda T, x, w, b: F(T).linear(x, w, b), (X, R.standard_normal((3, 5)), R.standard_normal(3))),
    "embedding": (lambda T, w: F(T).embedding(T.tensor(NAMES), w), (ROWS,)),
    "embedding padding": (lambda T, w: F(T).embedding(T.tensor(NAMES), w, padding_idx=int(NAMES[0, 0])), (ROWS,)),
    "attention": (lambda T, q, k, v: F(T).scaled_dot_product_attention(q, k, v), (Q3, K3, V3)),
    "attention causal": (
        lambda T, q, k, v: F(T).scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3), (Q3, K3, V3)
    ),
    "attention mask": (
        lambda T, q, k, v: F(T).scaled_dot_product_attention(q, k, v, T.tensor(MASK)), (Q3, K3, V3)
    ),
    "attention bias": (
        lambda T, q, k, v, m: F(T).scaled_dot_product_attention(q, k, v, m), (Q3, K3, V3, R.standard_normal((5, 6)))
    ),
    "tril": (lambda T, x: T.tril(x, 1), (X,)),
    "triu": (lambda T, x: T.triu(x, -1), (X,)),
    "tile": (lambda T, x: T.tile(x, (2, 3)) + x.tile(2, 1, 1, 1).sum(), (X,)),
    "roll": (lambda T, x: T.roll(x, (2, -7), (1, -1)) + x.roll(4), (X,)),
    "movedim": (lambda T, x: T.movedim(x, (0, 2), (-1, 0)) * x.movedim(0, 2).sum(), (X,)),
    "hstack": (lambda T, x, y: T.hstack([x, y]), (X, Y)),
    "hstack of vectors": (lambda T, x, y: T.hstack([x, y]), (X[0, 0], Y[0, 1])),
    "vstack": (lambda T, x, y: T.vstack([x, y]), (X[0, 0], Y[0])),
    "masked_select": (lambda T, x: T.masked_select(x, T.tensor([True, False, True, True, False])), (X,)),
    "outer": (lambda T, x, y: T.outer(x, y), (X[0, 0], Y[0, :, 0])),
    "addmm": (lambda T, b, x, y: T.addmm(b, x, y, beta=0.5, alpha=2.0) + b.addmm(x, y), (X[0, 0], X[1, :5], Y[1, 1:])),
    "addmm without input": (
        lambda T, b, x, y: T.addmm(b, x, y, beta=0) + T.addmm(T.full_like(y[0], T.nan), x, y, beta=0, alpha=3),
        (X[0, 0], X[1, :5], Y[1, 1:]),
    ),
    "narrow": (lambda T, x: T.narrow(x, 1, 2, 3) * T.select(x, 0, 1).sum(), (X,)),
    "ravel": (lambda T, x: T.ravel(x) + T.unflatten(x, 1, (2, -1)).ravel(), (X,)),
    "swapaxes": (lambda T, x: T.swapaxes(x, 0, 2) + T.t(x[:, :, 0]).sum(), (X,)),
    "cumsum method": (lambda T, x: x.cumsum(-1) + x.cumprod(1), (X,)),
    "pad": (lambda T, x: F(T).pad(x, (1, 2, 0, 3), value=0.5), (X,)),
    "pad crop": (lambda T, x: F(T).pad(x, (-1, 2, 1, -3, 0, -1)), (X,)),
    "pad reflect": (lambda T, x: F(T).pad(x, (2, 1, 3, 0), mode="reflect"), (IMAGE,)),
    "pad reflect and crop": (lambda T, x: F(T).pad(x, (-2, 3, 4, -1), mode="reflect"), (IMAGE,)),
    "pad replicate": (lambda T, x: F(T).pad(x, (2, 1, 0, 3), mode="replicate"), (IMAGE,)),
    "pad circular": (lambda T, x: F(T).pad(x, (2, 1, 0, 3), mode="circular"), (IMAGE,)),
    "interpolate": (lambda T, x: F(T).interpolate(x, scale_factor=2), (IMAGE,)),
    "interpolate size": (lambda T, x: F(T).interpolate(x, size=(7, 4)), (IMAGE,)),
    "interpolate to less": (lambda T, x: F(T).interpolate(x, size=(3, 1)), (IMAGE,)),
    "interpolate factors": (lambda T, x: F(T).interpolate(x, scale_factor=(1.5, 0.5)), (IMAGE,)),
    "pixel_shuffle": (lambda T, x: F(T).pixel_shuffle(x, 2), (IMAGE,)),
    "repeat": (lambda T, x: x.repeat(2, 1, 3, 2), (X,)),
    "repeat_interleave": (lambda T, x: T.repeat_interleave(x, 3, 1), (X,)),
    "repeat_interleave by counts": (
        lambda T, x: (
            T.repeat_interleave(x, T.tensor([0, 2, 1, 3, 0, 1]), 1) + x.repeat_interleave(T.tensor([2]), 0).sum()
        ),
        (X,),
    ),
    "flip": (lambda T, x: T.flip(x, (0, 2)) * x.flip(1), (X,)),
    "diagonal": (lambda T, x: T.diagonal(x, 1, -1, 0) * x.diagonal(-2, 2, 1).sum(), (X,)),
    "diagonal of a matrix": (lambda T, x: x[0].t().diagonal() * x[0, ::2].diagonal(offset=-2).sum(), (X,)),
    "diagonal of nothing": (lambda T, x: x.diagonal(7), (X,)),
    "index_add": (lambda T, x, y: T.index_add(x, 1, T.tensor([0, 3]), y[:, 2:4], alpha=2.5), (X, Y)),
    "cat": (lambda T, x, y: T.cat([x, y, x], -1), (X, Y)),
    "stack": (lambda T, x, y: T.stack([x, y], 1), (X, Y)),
}
MASK = R.uniform(size=(5, 6)) < 0.7
MASK[:, 0] = True


@pytest.mark.parametrize("name", CASES)
def test_result_and_gradients_against_torch(name: str, torch: Any) -> None:
    call, arrays = CASES[name]
    ours = [nl.from_numpy(a.copy()).requires_grad_() for a in arrays]
    theirs = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    got, expected = call(nl, *ours), call(torch, *theirs)
    assert tuple(got.shape) == tuple(expected.shape)
    assert_agrees(got.detach().numpy(), expected.detach().numpy())
    g = R.standard_normal(tuple(expected.shape))
    got.backward(nl.from_numpy(np.asarray(g)))
    expected.backward(torch.from_numpy(np.asarray(g)))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if b.grad is not None:
            assert_agrees(a.grad.numpy(), b.grad.numpy())


def test_running_statistics_follow_torch(torch: Any) -> None:
    mean, var = nl.zeros(4, dtype=nl.float64), nl.ones(4, dtype=nl.float64)
    their_mean, their_var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for momentum in (0.1, 0.5):
        nl.nn.functional.batch_norm(nl.tensor(IMAGE), mean, var, training=True, momentum=momentum)
        torch.nn.functional.batch_norm(torch.tensor(IMAGE), their_mean, their_var, training=True, momentum=momentum)
    assert_agrees(mean.numpy(), their_mean.numpy())
    assert_agrees(var.numpy(), their_var.numpy())
    ours = nl.nn.functional.batch_norm(nl.tensor(IMAGE), mean, var)
    assert_agrees(ours.numpy(), torch.nn.functional.batch_norm(torch.tensor(IMAGE), their_mean, their_var).numpy())


def test_probabilities_of_zero_and_one_cost_a_hundred(torch: Any) -> None:
    p, t = [0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]
    for dtype in ("float32", "float64"):
        loss = nl.nn.functional.binary_cross_entropy(
            nl.tensor(p, dtype=getattr(nl, dtype), requires_grad=True), nl.tensor(t, dtype=getattr(nl, dtype)),
            reduction="none",
        )
        assert loss.tolist() == [100.0, 100.0, 0.0, 0.0]
        loss.sum().backward()


def test_bools_are_close_where_they_are_equal() -> None:
    x = nl.tensor([True, False])
    assert nl.isclose(x, nl.tensor([True, True])).tolist() == [True, False]
    assert nl.allclose(x, x)


def test_closeness_and_counts(torch: Any) -> None:
    special = np.array([0.0, 1.0, 1.0 + 1e-6, 1.1, np.inf, -np.inf, np.nan])
    for equal_nan in (False, True):
        results = []
        for lib in (nl, torch):
            a, b = lib.tensor(special).unsqueeze(1), lib.tensor(special)
            results.append((lib.isclose(a, b, equal_nan=equal_nan).tolist(), lib.allclose(b, b, equal_nan=equal_nan)))
        assert results[0] == results[1]
    for dim in (None, 0, (0, 1)):
        counts = [lib.count_nonzero(lib.tensor(special > 1).reshape(7, 1) * 3, dim=dim).tolist() for lib in (nl, torch)]
        assert counts[0] == counts[1]
    assert nl.count_nonzero(nl.tensor([True, False])).item() == 1


FRESH: dict[str, Callable[[nl.Tensor], nl.Tensor]] = {
    "flip": lambda x: x.flip(0),
    "repeat": lambda x: x.repeat(1, 3, 1),
    "tile": lambda x: x.tile(1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "repeat_interleave once": lambda x: x.repeat_interleave(1),
    "interpolate": lambda x: nl.interpolate(x, scale_factor=1),
    "pixel_shuffle": lambda x: nl.pixel_shuffle(x, 1),
}


@pytest.mark.parametrize("name", FRESH)
def test_what_pytorch_copies_shares_no_memory(name: str) -> None:
    x = nl.ones(2, 1, 3)
    y = FRESH[name](x)
    assert not nl.shares_memory(x, y)
    y.zero_()
    assert x.tolist() == nl.ones(2, 1, 3).tolist()


LOSSES = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy_with_logits"]


@pytest.mark.parametrize("name", [*LOSSES, "cross_entropy"])
def test_losses_of_two_floats_promote(name: str) -> None:
    narrow, wide = nl.tensor(Q[0]).bfloat16(), nl.tensor(P[0]).float()
    loss = getattr(nl, name)
    for input, target in ((narrow, wide), (wide, narrow)):
        assert loss(input, target).dtype is nl.float32
        assert loss(input, target).item() == loss(input.float(), target.float()).item()
    assert loss(narrow, narrow).dtype is nl.bfloat16


def test_a_divergence_of_nan_is_nan() -> None:
    assert nl.kl_div(nl.zeros(2), nl.tensor([0.0, nl.nan]), reduction="none").isnan().tolist() == [False, True]


def test_one_hot() -> None:
    x = nl.tensor([[0, 2], [1, 1]])
    np.testing.assert_array_equal(nl.nn.functional.one_hot(x).numpy(), np.eye(3, dtype=int)[x.numpy()])
    assert nl.nn.functional.one_hot(x, 5).shape == (2, 2, 5)
    assert nl.nn.functional.one_hot(x[:0], 3).shape == (0, 2, 3)


@pytest.mark.parametrize(("shifts", "dims"), [(0, 0), (8, None), (4, 1), ((2, -3), (0, 1)), ((), ())])
def test_roll_by_nothing_is_a_copy(shifts: int | tuple[int, ...], dims: int | tuple[int, ...] | None) -> None:
    x = nl.tensor(np.arange(8).reshape(2, 4))
    rolled = nl.roll(x, shifts, dims)
    assert not nl.shares_memory(rolled, x)
    np.testing.assert_array_equal(rolled.numpy(), np.roll(x.numpy(), shifts, dims) if shifts != () else x.numpy())


def test_tril_keeps_the_dtype() -> None:
    for dtype in (nl.bool_, nl.uint8, nl.int64, nl.float32):
        x = nl.ones(4, 3, dtype=dtype)
        assert nl.tril(x).dtype is dtype and nl.triu(x).dtype is dtype
        np.testing.assert_array_equal(nl.tril(x).numpy(), np.tril(np.ones((4, 3), x.numpy().dtype)))


def test_dropout() -> None:
    x = nl.ones(200, 500, requires_grad=True)
    y = nl.nn.functional.dropout(x, 0.3)
    kept = y.detach().numpy() != 0
    assert_share(kept, 0.7)
    assert_agrees(y.detach().numpy()[kept], np.full(kept.sum(), 1 / 0.7))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert nl.nn.functional.dropout(x, 0.3, training=False) is x
    assert not nl.nn.functional.dropout(x, 1.0).detach().numpy().any()
    channels = nl.nn.functional.dropout2d(nl.ones(8, 16, 4, 4), 0.5).numpy()
    assert (channels.min((2, 3)) == channels.max((2, 3))).all()
    assert_share(channels[:, :, 0, 0] != 0, 0.5)


def test_attention_dropout_is_random_and_scaled() -> None:
    q, v = nl.zeros(1, 1, 64, 8), nl.eye(64)[None, None]  # the results are the weights
    weights = nl.nn.functional.scaled_dot_product_attention(q, q, v, dropout_p=0.25).numpy()
    assert_share(weights == 0, 0.25)
    assert_agrees(weights[weights != 0], np.full((weights != 0).sum(), 1 / 64 / 0.75))


Refusal = tuple[Callable[[], Any], type[Exception], str]
REFUSALS: dict[str, Refusal] = {
    "class": (lambda: nl.nn.functional.cross_entropy(nl.zeros(2, 3), nl.tensor([0, 3])), IndexError, "3"),
    "negative class": (lambda: nl.nn.functional.cross_entropy(nl.zeros(2, 3), nl.tensor([0, -1])), IndexError, "range"),
    "one_hot class": (lambda: nl.nn.functional.one_hot(nl.tensor([0, 2]), 2), IndexError, "index 2"),
    "one_hot of no classes": (lambda: nl.nn.functional.one_hot(nl.tensor([0, 0]), 0), IndexError, "index 0"),
    "one_hot of half a class": (
        lambda: nl.nn.functional.one_hot(nl.tensor([0, 0]), 2.5), nl.DTypeError, "one_hot: num_classes"),
    "embedding of numbers": (
        lambda: nl.nn.functional.embedding(nl.tensor([0]), nl.ones(3)), nl.ShapeError, "embedding: weight"),
    "one_hot negative class": (lambda: nl.nn.functional.one_hot(nl.tensor([0, -1]), 3), IndexError, "index -1"),
    "nll_loss target": (lambda: nl.nn.functional.nll_loss(nl.zeros(2, 3), nl.tensor([0])), nl.ShapeError, "nll_loss"),
    "target shape": (lambda: nl.nn.functional.cross_entropy(nl.zeros(2, 3), nl.tensor([0])), ValueError, "target"),
    "soft shape": (lambda: nl.nn.functional.cross_entropy(nl.zeros(2, 3), nl.zeros(2, 4)), ValueError, "probabilities"),
    "reduction": (lambda: nl.nn.functional.mse_loss(nl.zeros(2), nl.zeros(2), "max"), ValueError, "reduction"),
    "roll": (lambda: nl.roll(nl.zeros(2, 2), (1, 2), 0), nl.ShapeError, "roll: 2 shifts"),
    "roll axis": (lambda: nl.roll(nl.zeros(2, 2), 1, 2), nl.ShapeError, "roll: axis 2"),
    "movedim": (lambda: nl.movedim(nl.zeros(2, 2), (0, 0), (0, 1)), nl.ShapeError, "movedim"),
    "outer": (lambda: nl.outer(nl.zeros(2, 2), nl.zeros(2)), nl.ShapeError, "outer"),
    "addmm": (lambda: nl.addmm(nl.zeros(3, 1, 1), nl.zeros(2, 2), nl.zeros(2, 2)), nl.ShapeError, "addmm"),
    "masked_select": (lambda: nl.masked_select(nl.zeros(2), nl.zeros(2)), nl.DTypeError, "masked_select"),
    "groups": (lambda: nl.nn.functional.group_norm(nl.zeros(1, 4, 2), 3), ValueError, "groups"),
    "one value": (
        lambda: nl.nn.functional.batch_norm(nl.zeros(1, 4), None, None, training=True), ValueError, "more than one"
    ),
    "no statistics": (lambda: nl.nn.functional.batch_norm(nl.zeros(1, 4), None, None), ValueError, "running"),
    "probability": (lambda: nl.nn.functional.dropout(nl.zeros(2), 1.5), ValueError, "between 0 and 1"),
    "a mask of too many axes": (
        lambda: nl.nn.functional.scaled_dot_product_attention(
            nl.zeros(1, 3, 4, 8), nl.zeros(1, 3, 4, 8), nl.zeros(1, 3, 4, 8), nl.zeros(1, 3, 1, 4, 4)),
        nl.ShapeError, "more axes",
    ),
    "cross_entropy index": (
        lambda: nl.cross_entropy(nl.zeros(2, 3), nl.tensor([0, 1]), ignore_index=1.5), nl.DTypeError, "ignore_index"
    ),
    "nll_loss index": (
        lambda: nl.nll_loss(nl.zeros(2, 3), nl.tensor([0, 1]), ignore_index=1.5), nl.DTypeError, "ignore_index"
    ),
    "addmm of integers": (
        lambda: nl.addmm(nl.tensor([1]), nl.tensor([[1]]), nl.tensor([[1]]), alpha=0.5), nl.DTypeError, "alpha"
    ),
    "norm by name": (lambda: nl.norm(nl.zeros(2, 2), "nuc"), ValueError, "'fro'"),
    "window count": (lambda: nl.nn.functional.adaptive_max_pool2d(nl.zeros(1, 1, 2, 2), 1.0), nl.DTypeError, "integer"),
    "two masks": (
        lambda: nl.nn.functional.scaled_dot_product_attention(
            nl.zeros(2, 2), nl.zeros(2, 2), nl.zeros(2, 2), nl.zeros(2, 2), is_causal=True),
        ValueError, "not both",
    ),
    "pad mode": (lambda: nl.nn.functional.pad(nl.zeros(2, 2), (1, 1), "mirror"), ValueError, "mode"),
    "pad too long": (lambda: nl.nn.functional.pad(nl.zeros(2), (1, 1, 1, 1)), ValueError, "axes"),
    "pad reflect": (lambda: nl.nn.functional.pad(nl.zeros(1, 2), (2, 0), "reflect"), ValueError, "reflect"),
    "pad circular": (lambda: nl.nn.functional.pad(nl.zeros(1, 2), (0, 3), "circular"), nl.ShapeError, "axis 1"),
    "pad nothing": (lambda: nl.nn.functional.pad(nl.zeros(1, 0), (0, 3), "replicate"), nl.ShapeError, "axis 1"),
    "pad numbers": (lambda: nl.nn.functional.pad(nl.zeros(2), (1, None)), nl.DTypeError, "pad"),
    "pad crop": (lambda: nl.nn.functional.pad(nl.zeros(2), (-2, -1)), ValueError, "crops"),
    "interpolate": (lambda: nl.nn.functional.interpolate(nl.zeros(1, 1, 2, 2)), ValueError, "size"),
    "interpolate mode": (
        lambda: nl.nn.functional.interpolate(nl.zeros(1, 1, 2, 2), 4, mode="cubic"), ValueError, "nearest"
    ),
    "pixel_shuffle": (lambda: nl.nn.functional.pixel_shuffle(nl.zeros(1, 3, 2, 2), 2), ValueError, "channels"),
    "clamp": (lambda: nl.clamp(nl.zeros(2)), ValueError, "min"),
    "cumsum axis": (lambda: nl.cumsum(nl.zeros(2), 1), nl.ShapeError, "cumsum: axis 1"),
    "cumprod axis": (lambda: nl.cumprod(nl.zeros(2), None), nl.DTypeError, "cumprod"),
    "repeats": (lambda: nl.repeat_interleave(nl.zeros(2), -1), nl.ShapeError, "repeat_interleave"),
    "gelu": (lambda: nl.nn.functional.gelu(nl.zeros(2), approximate="fast"), ValueError, "approximate"),
    "repeat": (lambda: nl.zeros(2, 2).repeat(3), ValueError, "fewer"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    call, error, text = REFUSALS[name]
    with pytest.raises(error, match=text):
        call()


# ---- random sources ----


def test_random_numbers_depend_on_seed_draw_and_index_only() -> None:
    nl.manual_seed(5)
    first, second = nl.rand(6), nl.rand(2, 5)
    nl.manual_seed(5)
    np.testing.assert_array_equal(nl.rand(6).numpy(), first.numpy())
    assert not np.isin(second.numpy(), first.numpy()).any()
    nl.manual_seed(5)
    np.testing.assert_array_equal(nl.rand(2, 3).numpy().ravel(), first.numpy())
    nl.manual_seed(5)
    np.testing.assert_array_equal(nl.rand(1000).numpy()[:6], first.numpy())
    nl.manual_seed(6)
    assert not np.isin(nl.rand(6).numpy(), first.numpy()).any()


def test_addmm_promotes_whatever_beta_is() -> None:
    matrices = nl.ones(2, 2), nl.ones(2, 2)
    for beta in (0, 1, 0.5):
        assert nl.addmm(nl.ones(2, dtype=nl.float64), *matrices, beta=beta).dtype is nl.float64


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, -1, -0.5, np.inf, -np.inf])
def test_norms_of_edge_values_are_torchs(p: float, torch: Any) -> None:
    for values in ([np.inf, 1], [np.inf, -np.inf], [0, 1], [np.nan, 0], [0, 0], [-np.inf, 0], [1e150, 1e150]):
        ours, theirs = (lib.norm(lib.tensor(values, dtype=lib.float64), p) for lib in (nl, torch))
        assert_agrees(ours.numpy(), theirs.numpy(), what=f"{values}")


def test_a_padding_row_has_no_gradient_however_it_is_named(rng: np.random.Generator) -> None:
    table, index = rng.standard_normal((4, 3)), rng.integers(-4, 4, (5, 6))
    g = rng.integers(-9, 9, (5, 6, 3)).astype(np.float64)
    for padding in range(-4, 4):
        want = np.zeros((4, 3))
        np.add.at(want, index % 4, g)
        want[padding] = 0
        weight = nl.tensor(table, requires_grad=True)
        rows = nl.embedding(nl.tensor(index), weight, padding)
        rows.backward(nl.tensor(g))
        np.testing.assert_array_equal(rows.detach().numpy(), table[index])
        np.testing.assert_array_equal(weight.grad.numpy(), want)


@pytest.mark.parametrize(("before", "after"), [(-2, 3), (3, -1), (-1, -1), (-4, 4), (2, -3), (0, 5)])
def test_what_is_cropped_does_not_come_round(before: int, after: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 5))
    kept = x[..., max(-before, 0) : 5 - max(-after, 0)]
    want = np.pad(kept, [(0, 0), (0, 0), (max(before, 0), max(after, 0))], mode="wrap")
    np.testing.assert_array_equal(nl.pad(nl.tensor(x), (before, after), "circular").numpy(), want)


def test_a_median_of_all_keeps_its_axes(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 5))
    for made in (nl.median(nl.tensor(x), keepdim=True), nl.tensor(x).median(None, True)):
        np.testing.assert_array_equal(made.numpy(), np.median(x, keepdims=True), strict=True)
