"""Calls of every family of native kernels with their gradients, to compare what computes them: levels and processors.

`python -m kernels.families SEED` prints a digest of every result, at the level that NEURLANG_ISA names.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import neurlang as nl

F = nl.nn.functional
Family = tuple[Callable[..., nl.Tensor], tuple[tuple[int, ...], ...]]  # of operands with these shapes


def with_channels_last(layer: Callable[..., nl.Tensor]) -> Callable[..., nl.Tensor]:
    """Of images [N, H, W, C]."""
    return lambda x, *weights: layer(x.permute(0, 3, 1, 2), *weights).permute(0, 2, 3, 1).contiguous()


def rough(layer: Callable[..., nl.Tensor]) -> Callable[..., nl.Tensor]:
    """With Winograd's large tiles, where there are any."""

    def call(*operands: nl.Tensor) -> nl.Tensor:
        with nl.set_conv_precision("medium"):
            return layer(*operands)

    return call


def same(x: nl.Tensor, w: nl.Tensor) -> nl.Tensor:
    return F.conv2d(x, w, padding=1)


def halved(x: nl.Tensor, w: nl.Tensor) -> nl.Tensor:
    return F.conv2d(x, w, stride=2, padding=1)


def depthwise(x: nl.Tensor, w: nl.Tensor) -> nl.Tensor:
    return F.conv2d(x, w, padding=1, groups=len(w))


def narrow(layer: Callable[..., nl.Tensor], dtype: str) -> Callable[..., nl.Tensor]:
    """Of operands in 16 bits."""
    return lambda *operands: layer(*(x.to(getattr(nl, dtype)) for x in operands)).to(operands[0].dtype)


def equals(x: nl.Tensor) -> nl.Tensor:
    """The same, rounded to a few numbers, zeros of both signs among them."""
    return (2 * x).round()


def places(count: int, n: int) -> nl.Tensor:
    """Of rows among n, in no order, some of them twice, some counted from the end."""
    return nl.arange(count) * 7 % (2 * n - 1) - n


def assigned(x: nl.Tensor, y: nl.Tensor) -> nl.Tensor:
    out = x.clone()
    out[places(len(y), len(x))] = y
    return out


def attend(q: nl.Tensor, k: nl.Tensor, v: nl.Tensor, **options: Any) -> nl.Tensor:
    """Attention with keyword arguments, dropout with the same draws every time."""
    nl.manual_seed(0)
    return F.scaled_dot_product_attention(q, k, v, **options)


CONTRACTIONS: dict[str, Family] = {
    "matmul": (nl.matmul, ((67, 300), (300, 45))),
    "matmul, batched and transposed": (lambda a, b: a @ b.transpose(1, 2), ((3, 8, 33), (3, 9, 33))),
    "few rows by matrix": (nl.matmul, ((3, 700), (700, 50))),
    "vector by matrix": (nl.matmul, ((1, 700), (700, 50))),
    "matrix by vector": (nl.matmul, ((50, 700), (700,))),
    "linear": (F.linear, ((5, 64), (10, 64), (10,))),
    "conv1d": (lambda x, w: F.conv1d(x, w, padding=2), ((2, 5, 90), (7, 5, 5))),
    "conv2d": (same, ((2, 5, 9, 11), (7, 5, 3, 3))),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=1), ((1, 3, 5, 6, 7), (4, 3, 3, 3, 3))),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, stride=2), ((2, 6, 7, 5), (6, 4, 3, 3))),
    "strided conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=3), ((1, 3, 19, 23), (8, 3, 7, 7))),
    "dilated conv2d in groups": (lambda x, w: F.conv2d(x, w, dilation=2, groups=2), ((2, 6, 11, 12), (8, 3, 3, 3))),
    "1 x 1 conv2d": (F.conv2d, ((1, 40, 6, 6), (24, 40, 1, 1))),
    "1 x 1 conv2d, small maps": (F.conv2d, ((2, 300, 7, 7), (96, 300, 1, 1))),
    "conv2d to 16 channels": (halved, ((2, 3, 41, 43), (16, 3, 3, 3))),
    "depthwise conv2d": (depthwise, ((1, 6, 10, 9), (6, 1, 3, 3))),
    "depthwise conv2d, long rows": (depthwise, ((1, 18, 9, 90), (18, 1, 3, 3))),
    "conv2d by Winograd's transforms": (same, ((2, 40, 13, 15), (33, 40, 3, 3))),
    "conv2d by them at stride 2": (halved, ((1, 64, 27, 30), (64, 64, 3, 3))),
    "conv2d by large tiles": (rough(same), ((1, 64, 13, 15), (64, 64, 3, 3))),
}
PRODUCTS_IN_16_BITS: dict[str, Family] = {
    f"{name} in {dtype}": (narrow(layer, dtype), shapes)
    for dtype in ("float16", "bfloat16")
    for name, layer, shapes in (
        ("matmul", nl.matmul, ((67, 300), (300, 45))),
        ("few rows by matrix", nl.matmul, ((3, 700), (700, 50))),
        ("vector by matrix", nl.matmul, ((1, 700), (700, 50))),
        ("matrix by vector", nl.matmul, ((50, 700), (700,))),
        ("linear", F.linear, ((5, 64), (10, 64), (10,))),
        ("conv2d", same, ((2, 5, 9, 11), (7, 5, 3, 3))),
        ("Winograd", same, ((2, 40, 13, 15), (33, 40, 3, 3))),
        ("depthwise conv2d", depthwise, ((1, 6, 10, 9), (6, 1, 3, 3))),
        ("attention", attend, ((2, 3, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
    )
}
PIXELS: dict[str, Family] = {
    "conv2d, channels last": (with_channels_last(halved), ((2, 20, 41, 16), (32, 16, 3, 3))),
    "1 x 1 conv2d, channels last": (with_channels_last(F.conv2d), ((2, 9, 11, 48), (32, 48, 1, 1))),
    "depthwise conv2d, channels last": (with_channels_last(depthwise), ((2, 9, 11, 24), (24, 1, 3, 3))),
    "Winograd, channels last": (with_channels_last(same), ((1, 14, 16, 48), (48, 48, 3, 3))),
}
ROWS: dict[str, Family] = {
    "sum of the last axis": (lambda x: x.sum(-1), ((7, 1100),)),
    "sum of the first axis": (lambda x: x.sum(0), ((1100, 7),)),
    "mean": (lambda x: x.mean(), ((70, 41),)),
    "amax": (lambda x: x.amax(1), ((9, 130),)),
    "prod": (lambda x: x.prod(1), ((9, 13),)),
    "var": (lambda x: x.var(1), ((9, 130),)),
    "logsumexp": (lambda x: x.logsumexp(1), ((40, 61),)),
    "softmax": (lambda x: x.softmax(-1), ((9, 130),)),
    "softmax of the first axis": (lambda x: x.softmax(0), ((40, 19),)),
    "log_softmax": (lambda x: x.log_softmax(-1), ((9, 600),)),
    "cross_entropy": (lambda x: F.cross_entropy(x, nl.arange(33) % 10), ((33, 10),)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (130,), w, b), ((9, 130), (130,), (130,))),
    "rms_norm": (lambda x, w: F.rms_norm(x, (130,), w), ((9, 130), (130,))),
    "group_norm": (lambda x, w, b: F.group_norm(x, 3, w, b), ((2, 12, 7, 9), (12,), (12,))),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        ((5, 12, 7, 9), (12,), (12,)),
    ),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), ((2, 3, 13, 17),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), ((2, 3, 13, 17),)),
    "pooling by 2 x 2": (lambda x: F.max_pool2d(F.avg_pool2d(x, 2), 2), ((1, 3, 36, 72),)),
    "pooling across planes": (lambda x: F.max_pool2d(F.avg_pool2d(x, 3, 1, 1), 2), ((2, 10, 13, 12),)),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 3), ((2, 3, 13, 17),)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 3), ((2, 3, 13, 17),)),
    "gelu": (F.gelu, ((9, 130),)),
    "norm": (lambda x: x.norm(), ((70, 41),)),
    "norm of rows": (lambda x: x.norm(dim=1), ((9, 130),)),
    "norm with p = 3": (lambda x: x.norm(3, 0), ((40, 19),)),
    "cumsum": (lambda x: x.cumsum(1), ((9, 130),)),
    "cumprod": (lambda x: x.cumprod(1), ((9, 130),)),
    "cumprod of the first axis": (lambda x: x.cumprod(0), ((130, 9),)),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), ((9, 130),)),
}
ATTENTION: dict[str, Family] = {
    "attention": (attend, ((2, 3, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
    "attention of one query": (attend, ((2, 3, 1, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
    "attention of many keys": (attend, ((1, 2, 40, 24), (1, 2, 1100, 24), (1, 2, 1100, 20))),
    "attention with a mask": (
        lambda q, k, v, m: attend(q, k, v, attn_mask=m),
        ((2, 3, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16), (20, 33)),
    ),
    "attention where a mask holds": (
        lambda q, k, v, m: attend(q, k, v, attn_mask=m > 0),
        ((2, 3, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16), (2, 1, 20, 33)),
    ),
    "causal attention": (partial(attend, is_causal=True), ((2, 3, 45, 16), (2, 3, 45, 16), (2, 3, 45, 16))),
    "attention of groups": (partial(attend, enable_gqa=True), ((2, 6, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
    "attention of groups of one query": (
        partial(attend, enable_gqa=True),
        ((2, 6, 1, 16), (2, 3, 1100, 16), (2, 3, 1100, 16)),
    ),
    "attention with dropout": (partial(attend, dropout_p=0.3), ((2, 3, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
}
PLACES: dict[str, Family] = {
    "argmax": (lambda x: equals(x).argmax(1), ((9, 130),)),
    "argmax of short rows": (lambda x: equals(x).argmax(1), ((70, 6),)),
    "argmin": (lambda x: equals(x).argmin(), ((9, 130),)),
    "argmin of the first axis": (lambda x: equals(x).argmin(0), ((130, 70),)),
    "cummax": (lambda x: x.cummax(1)[0], ((9, 130),)),
    "places of cummax": (lambda x: equals(x).cummax(1)[1], ((9, 130),)),
    "cummin of the first axis": (lambda x: x.cummin(0)[0], ((130, 70),)),
    "places of cummin of the first axis": (lambda x: equals(x).cummin(0)[1], ((130, 70),)),
    "sort": (lambda x: nl.sort(x, 1)[0], ((9, 700),)),
    "argsort": (lambda x: equals(x).argsort(1), ((9, 700),)),
    "argsort, falling, of short rows": (lambda x: equals(x).argsort(1, descending=True), ((70, 9),)),
    "argsort of the first axis": (lambda x: equals(x).argsort(0), ((300, 20),)),
    "topk": (lambda x: nl.topk(x, 5)[0], ((9, 130),)),
    "median": (lambda x: x.median(1).values, ((3, 40000),)),
    "searchsorted": (lambda row, x: nl.searchsorted(equals(row).sort(1)[0], equals(x)), ((9, 130), (9, 70))),
    "searchsorted from the right": (
        lambda row, x: nl.searchsorted(equals(row).sort()[0], equals(x), right=True),
        ((700,), (9, 70)),
    ),
    "gather": (lambda x: x.gather(1, nl.tensor([[0, 4, -1], [2, 2, 1]])), ((2, 5),)),
    "index_select": (lambda x: x[nl.tensor([3, 0, 3, -1])], ((4, 37),)),
    "scatter_add": (lambda x, y: x.scatter_add(1, places(8 * 90, 40).view(8, 90), y), ((9, 40), (8, 90))),
    "index_add": (lambda x, y: x.index_add(0, places(60, 20), y), ((20, 37), (60, 37))),
    "index_add to columns": (lambda x, y: x.index_add(1, places(60, 20), y), ((9, 20), (9, 60))),
    "selection by two indices": (lambda x: x[places(90, 20), places(90, 37)], ((20, 37, 5),)),
    "assignment to an index": (assigned, ((20, 37), (60, 37))),
}
INTEGERS: dict[str, Family] = {
    "int_mm": (lambda a, b: nl.int_mm((60 * a).to(nl.int8), (60 * b).to(nl.int8)), ((67, 300), (300, 45))),
    "int_mm of few rows": (lambda a, b: nl.int_mm((60 * a).to(nl.int8), (60 * b).to(nl.int8)), ((3, 700), (700, 50))),
}
FAMILIES = CONTRACTIONS | PRODUCTS_IN_16_BITS | PIXELS | ROWS | ATTENTION | PLACES | INTEGERS


def draw_operands(rng: np.random.Generator, dtype: str) -> dict[str, list[np.ndarray]]:
    return {name: [rng.standard_normal(s).astype(dtype) for s in shapes] for name, (_, shapes) in FAMILIES.items()}


def compute(operands: dict[str, list[np.ndarray]]) -> Iterator[tuple[str, nl.Tensor]]:
    """Of every family the result and, where it has a gradient, those of a sum of its squares, each with its name."""
    for name, arrays in operands.items():
        tensors = [nl.tensor(x, requires_grad=True) for x in arrays]
        out = FAMILIES[name][0](*tensors)
        yield name, out
        if out.requires_grad:
            found = nl.autograd.grad((out * out).sum(), tensors, allow_unused=True)
            yield from ((f"{name}, gradient {i}", g) for i, g in enumerate(found) if g is not None)


def digests(seed: int) -> dict[str, str]:
    """Of every result's bits, for float32 and float64."""
    found = {}
    for dtype in ("float32", "float64"):
        for name, x in compute(draw_operands(np.random.default_rng(seed), dtype)):
            found[f"{name}, {dtype}"] = hashlib.sha256(x.detach().numpy().tobytes()).hexdigest()
    return found


if __name__ == "__main__":
    json.dump(digests(int(sys.argv[1])), sys.stdout)
