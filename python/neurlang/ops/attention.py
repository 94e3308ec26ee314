"""Attention: what its kernel is given, and what it means written out, as functions over `F` (see composite.py)."""

from __future__ import annotations

import math
from typing import Any

from .composite import bits_of_double, double_of_bits
from .places import lower_triangle
from .statistics import Tensor, in_float32, need_axes

NAME = "scaled_dot_product_attention"
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # of query, key and value


@in_float32
def scaled_dot_product_attention(
    F: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value; a boolean mask keeps where it holds, `is_causal` keeps the past.

    Query […, L, d], key […, S, d], value […, S, e] give […, L, e]; leading axes broadcast. The scale is 1/√d unless
    given; a float mask is added to the scores, a boolean one adds -∞ where it does not hold; a query that sees no key
    gets zeros. With `enable_gqa` each of the key's heads (axis -3) serves as many neighbouring heads of the query.
    In each call `dropout_p` of the weights, drawn anew, are dropped and the others scaled by 1 / (1 - dropout_p).
    ValueError where both mask and `is_causal` are given or heads do not divide, ShapeError where shapes do not fit.
    Vaswani et al. 2017, Dao et al. 2022.

    >>> q, v = neurlang.zeros(2, 4), neurlang.tensor([[2.0], [4.0]])
    >>> neurlang.scaled_dot_product_attention(q, q, v, is_causal=True).tolist()
    [[2.0], [3.0]]
    """
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"{NAME}: dropout_p must be between 0 and 1, got {dropout_p}")
    if is_causal and attn_mask is not None:
        raise ValueError(f"{NAME}: give attn_mask or is_causal, not both")
    shapes = query.shape, key.shape, value.shape  # read once: decoding notices
    if min(map(len, shapes)) < 2:
        for operand in (query, key, value):
            need_axes(F, NAME, operand, 2)
    lead, group = _leading_axes(F, shapes, enable_gqa)
    (length, depth), (keys, width) = shapes[0][-2:], shapes[2][-2:]
    if shapes[1][-2:] != (keys, depth):
        raise _misfit(F, shapes)
    factor = 1 / math.sqrt(max(depth, 1)) if scale is None else scale
    heads = lead[-1] // group if lead else 1
    batch = math.prod(lead[:-1])
    shared = (*lead[:-1], heads) if lead else ()
    q = _viewed(query, (*lead, length, depth), (batch, heads, group, length, depth))
    k = _viewed(key, (*shared, keys, depth), (batch, heads, keys, depth))
    v = _viewed(value, (*shared, keys, width), (batch, heads, keys, width))
    mask: Any = 0.0
    if attn_mask is not None:
        added = _added(F, attn_mask, query.dtype, (*lead, length, keys))
        mask = _viewed(added, (*lead, length, keys), (batch, heads, group, length, keys))
    return _attended(F, q, k, v, mask, dropout_p, is_causal, factor).reshape(*lead, length, width)


def _added(F: Any, mask: Tensor, dtype: Any, scores: tuple[int, ...]) -> Tensor:
    """The mask as what is added to the scores."""
    if mask.ndim > len(scores):
        raise F.ShapeError(f"{NAME}: a mask of shape {list(mask.shape)} has more axes than the scores {list(scores)}")
    return F.where(mask, 0.0, -math.inf).to(dtype) if mask.dtype == F.bool_ else mask


def _attended(
    F: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, dropout_p: float, causal: bool, factor: float
) -> Tensor:
    """By the kernel; written out where the mask wants a gradient, which the kernel does not give."""
    draw = F.next_draw() if dropout_p > 0 else 0
    if getattr(mask, "requires_grad", False):
        weights = _weights(F, q, k, mask, causal, factor)
        return F.matmul(weights * _factors(F, weights, draw, dropout_p), v.unsqueeze(2))
    return F._attention(q, k, v, mask, draw, int(causal), bits_of_double(factor), bits_of_double(dropout_p))


def _viewed(x: Tensor, expanded: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """x broadcast to one shape and seen as another of as many elements; views that change nothing are not made."""
    if x.shape == shape:
        return x
    return (x if x.shape == expanded else x.expand(expanded)).reshape(shape)


def _misfit(F: Any, shapes: Shapes) -> Exception:
    listed = ", ".join(str(list(shape)) for shape in shapes)
    return F.ShapeError(f"{NAME}: query, key and value of shapes {listed} do not fit")


def _leading_axes(F: Any, shapes: Shapes, grouped: bool) -> tuple[tuple[int, ...], int]:
    """The axes before the last two, broadcast, and how many of the query's heads share one of the key's."""
    q, k, v = shapes[0][:-2], shapes[1][:-2], shapes[2][:-2]
    if not grouped:
        return q if q == k == v else _broadcast(F, shapes, q, k, v), 1
    if not (q and k and v) or k[-1] != v[-1] or not k[-1] or q[-1] % k[-1]:
        raise ValueError(f"{NAME}: the query's heads must be a multiple of the key's and value's, got {q}, {k}, {v}")
    return (*_broadcast(F, shapes, q[:-1], k[:-1], v[:-1]), q[-1]), q[-1] // k[-1]


def _broadcast(F: Any, operands: Shapes, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    result = []
    for extents in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        wide = {n for n in extents if n != 1}
        if len(wide) > 1:
            raise _misfit(F, operands)
        result.append(wide.pop() if wide else 1)
    return tuple(result)


# ---- written out; q is [N, H, G, L, d], k and v are [N, H, S, …] ----


def _weights(F: Any, q: Tensor, k: Tensor, mask: Any, causal: int, factor: float) -> Tensor:
    """The softmax of the scores; zeros where no key is seen."""
    scores = F.matmul(q * factor, k.unsqueeze(2).transpose(-2, -1)) + mask
    if causal:
        future = F.logical_not(lower_triangle(F, q.shape[-2], k.shape[-2], 0))
        scores = F.masked_fill(scores, future, -math.inf)
    if not k.shape[-2]:
        return scores
    blind = F.eq(F.amax(scores.detach(), -1, True), -math.inf)
    return F.masked_fill(F.softmax(F.masked_fill(scores, blind, 0.0), -1), blind, 0.0)


def _factors(F: Any, weights: Tensor, draw: Any, chance: float) -> Any:
    """What dropout multiplies the weights by."""
    if chance == 0:
        return 1
    stay = F.ge(F.drawn(draw, weights.shape, weights.dtype), chance)
    return stay.to(weights.dtype) * (1 / (1 - chance) if chance < 1 else 0.0)


def gradients(
    F: Any,
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Any,
    draw: Any,
    causal: int,
    scale_bits: int,
    dropout_bits: int,
) -> tuple:
    """The gradients by q, k and v as functions that can be differentiated again."""
    factor = double_of_bits(scale_bits)
    p = _weights(F, q, k, mask, causal, factor)
    factors = _factors(F, p, draw, double_of_bits(dropout_bits))
    weight_grad = F.matmul(g, v.unsqueeze(2).transpose(-2, -1)) * factors
    score_grad = p * (weight_grad - F.sum(weight_grad * p, -1, True)) * factor
    return (
        F.matmul(score_grad, k.unsqueeze(2)),
        F.sum(F.matmul(score_grad.transpose(-2, -1), q), 2),
        F.sum(F.matmul((p * factors).transpose(-2, -1), g), 2),
    )
