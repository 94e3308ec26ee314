"""Calls of every family of native kernels with their gradients, to compare what computes them: levels and processors.

`python -m kernels.families SEED` prints a digest of every result, at the level that NEURLANG_ISA names.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator

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
    "gather": (lambda x: x.gather(1, nl.tensor([[0, 4, -1], [2, 2, 1]])), ((2, 5),)),
    "index_select": (lambda x: x[nl.tensor([3, 0, 3, -1])], ((4, 37),)),
    "attention": (F.scaled_dot_product_attention, ((2, 3, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
    "attention of one query": (F.scaled_dot_product_attention, ((2, 3, 1, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
    "gelu": (F.gelu, ((9, 130),)),
    "cumsum": (lambda x: x.cumsum(1), ((9, 130),)),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), ((9, 130),)),
    "sort": (lambda x: nl.sort(x, 1)[0], ((9, 700),)),
    "topk": (lambda x: nl.topk(x, 5)[0], ((9, 130),)),
    "median": (lambda x: x.median(1).values, ((3, 40000),)),
}
FAMILIES = CONTRACTIONS | PIXELS | ROWS


def draw_operands(rng: np.random.Generator, dtype: str) -> dict[str, list[np.ndarray]]:
    return {name: [rng.standard_normal(s).astype(dtype) for s in shapes] for name, (_, shapes) in FAMILIES.items()}


def compute(operands: dict[str, list[np.ndarray]]) -> Iterator[list[nl.Tensor]]:
    """Of every family the result and the gradients of a sum of its squares."""
    for name, arrays in operands.items():
        tensors = [nl.tensor(x, requires_grad=True) for x in arrays]
        out = FAMILIES[name][0](*tensors)
        yield [out, *nl.autograd.grad((out * out).sum(), tensors)]


def digests(seed: int) -> dict[str, list[str]]:
    """Of every result's bits, for float32 and float64."""
    found = {}
    for dtype in ("float32", "float64"):
        operands = draw_operands(np.random.default_rng(seed), dtype)
        for name, results in zip(operands, compute(operands), strict=True):
            bits = [x.detach().numpy().tobytes() for x in results]
            found[f"{name}, {dtype}"] = [hashlib.sha256(b).hexdigest() for b in bits]
    return found


if __name__ == "__main__":
    json.dump(digests(int(sys.argv[1])), sys.stdout)
