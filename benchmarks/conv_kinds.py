"""Convolutions of one and three axes, transposed, dilated, grouped, of large and oblong kernels, as networks have them.

Forward, and forward with both gradients; float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

import neurlang as nl

from . import conv, peers
from .timing import Case

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """`x` is [N, C, ...]; sizes of one element count for all axes."""

    name: str
    x: Sizes
    outputs: int
    kernel: Sizes
    stride: Sizes = (1,)
    padding: Sizes = (0,)
    dilation: int = 1
    groups: int = 1
    transposed: bool = False

    @property
    def axes(self) -> int:
        return len(self.x) - 2

    @property
    def weight(self) -> Sizes:
        ends = (self.x[1], self.outputs // self.groups) if self.transposed else (self.outputs, self.x[1] // self.groups)
        return (*ends, *self.kernel)

    def sizes(self, given: Sizes) -> list[int]:
        return list(given) * (self.axes // len(given))

    def form(self, lib: Any, x: Any, w: Any) -> Any:
        stride, padding, dilation = self.sizes(self.stride), self.sizes(self.padding), self.sizes((self.dilation,))
        if self.transposed:
            function = getattr(lib, f"conv_transpose{self.axes}d")
            return function(x, w, None, stride, padding, 0, self.groups, dilation)
        return getattr(lib, f"conv{self.axes}d")(x, w, None, stride, padding, dilation, self.groups)

    def in_onnx(self, x: np.ndarray, w: np.ndarray) -> bytes:
        return peers.onnx_model(
            "ConvTranspose" if self.transposed else "Conv", x, w, strides=self.sizes(self.stride),
            pads=2 * self.sizes(self.padding), dilations=self.sizes((self.dilation,)), group=self.groups,
        )  # fmt: skip


def one_axis() -> Iterator[Kind]:
    yield Kind("wav2vec 2, first", (1, 1, 16000), 512, (10,), (5,))
    yield Kind("wav2vec 2", (1, 512, 3199), 512, (3,), (2,))
    yield Kind("Whisper, first", (1, 80, 3000), 384, (3,), padding=(1,))
    yield Kind("Whisper, second", (1, 384, 3000), 384, (3,), (2,), (1,))
    yield Kind("WaveNet, dilated by 64", (4, 64, 4000), 64, (2,), dilation=64)
    yield Kind("TCN, dilated by 8", (16, 64, 1000), 64, (3,), padding=(8,), dilation=8)
    yield Kind("Conformer, depthwise of 31", (8, 256, 500), 256, (31,), padding=(15,), groups=256)
    yield Kind("one tap", (8, 256, 500), 512, (1,))
    yield Kind("HiFi-GAN, transposed by 8", (1, 512, 128), 256, (16,), (8,), (4,), transposed=True)


def two_axes() -> Iterator[Kind]:
    for channels, size in ((128, 56), (256, 28), (512, 14), (1024, 7)):
        yield Kind("ResNeXt", (1, channels, size, size), channels, (3, 3), padding=(1,), groups=32)
    yield Kind("ResNeXt", (16, 256, 28, 28), 256, (3, 3), padding=(1,), groups=32)
    yield Kind("ResNeXt, by 2", (1, 256, 56, 56), 256, (3, 3), (2,), (1,), groups=32)
    yield Kind("RegNet", (1, 224, 28, 28), 224, (3, 3), padding=(1,), groups=2)
    yield Kind("ShuffleNet", (1, 240, 28, 28), 240, (1, 1), groups=3)
    yield Kind("EfficientNet, depthwise", (1, 240, 28, 28), 240, (5, 5), padding=(2,), groups=240)
    yield Kind("EfficientNet, depthwise by 2", (1, 144, 56, 56), 144, (5, 5), (2,), (2,), groups=144)
    yield Kind("ConvNeXt, depthwise", (1, 96, 56, 56), 96, (7, 7), padding=(3,), groups=96)
    yield Kind("ConvNeXt, depthwise", (8, 384, 14, 14), 384, (7, 7), padding=(3,), groups=384)
    yield Kind("dilated by 2", (1, 256, 28, 28), 256, (3, 3), padding=(2,), dilation=2)
    yield Kind("DeepLab, dilated by 12", (1, 512, 33, 33), 256, (3, 3), padding=(12,), dilation=12)
    yield Kind("AlexNet, second", (4, 64, 27, 27), 192, (5, 5), padding=(2,))
    yield Kind("Inception", (1, 192, 17, 17), 192, (1, 7), padding=(0, 3))
    yield Kind("Inception", (1, 192, 17, 17), 192, (7, 1), padding=(3, 0))
    yield Kind("ViT, patches", (1, 3, 224, 224), 768, (16, 16), (16,))
    yield Kind("U-Net, transposed by 2", (1, 128, 64, 64), 64, (2, 2), (2,), transposed=True)
    yield Kind("DCGAN, transposed from 1", (16, 100, 1, 1), 512, (4, 4), transposed=True)
    yield Kind("DCGAN, transposed by 2", (16, 512, 4, 4), 256, (4, 4), (2,), (1,), transposed=True)
    yield Kind("DCGAN, transposed by 2", (16, 128, 16, 16), 64, (4, 4), (2,), (1,), transposed=True)
    yield Kind("DCGAN, last", (16, 64, 32, 32), 3, (4, 4), (2,), (1,), transposed=True)
    yield Kind("transposed, not strided", (1, 64, 56, 56), 64, (3, 3), padding=(1,), transposed=True)


def three_axes() -> Iterator[Kind]:
    yield Kind("R3D, first", (1, 3, 16, 112, 112), 64, (3, 7, 7), (1, 2, 2), (1, 3, 3))
    yield Kind("R3D", (1, 64, 8, 28, 28), 64, (3, 3, 3), padding=(1,))
    yield Kind("R3D, by 2", (1, 64, 8, 28, 28), 128, (3, 3, 3), (2,), (1,))
    yield Kind("R(2+1)D, time", (1, 144, 8, 28, 28), 64, (3, 1, 1), padding=(1, 0, 0))
    yield Kind("3D U-Net", (1, 32, 32, 32, 32), 32, (3, 3, 3), padding=(1,))
    yield Kind("one tap", (1, 64, 16, 28, 28), 128, (1, 1, 1))
    yield Kind("3D U-Net, transposed by 2", (1, 64, 16, 16, 16), 32, (2, 2, 2), (2,), transposed=True)


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for kind in (*one_axis(), *two_axes(), *three_axes()):
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (kind.x, kind.weight))
        w /= np.float32(kind.x[1] // kind.groups * prod(kind.kernel)) ** 0.5
        yield from kind_cases(kind, x, w)


def kind_cases(kind: Kind, x: np.ndarray, w: np.ndarray) -> Iterator[Case]:
    maps = kind.form(nl, nl.tensor(x), nl.tensor(w)).shape
    g = np.random.default_rng(1).standard_normal(maps).astype(np.float32)
    name = f"{kind.name}: {' x '.join(map(str, kind.x))} by {' x '.join(map(str, kind.weight))}"
    work = 2.0 * w.size * prod((kind.x if kind.transposed else maps)[2:]) * kind.x[0]
    common = {"rate_unit": "GFLOP/s", "rtol": 1e-3, "rounds": conv.ROUNDS}
    yield Case(
        f"{name}, forward", lambda: conv.contenders(kind.form, x, w, kind.in_onnx(x, w)), work=work, atol=1e-3, **common
    )
    both, scale = lambda: gradients(kind.form, g, x, w), g[:, 0].size ** 0.5
    yield Case(f"{name}, and its gradients", both, work=3 * work, atol=1e-3 * scale, **common)


def gradients(form: Callable[..., Any], g: np.ndarray, x: np.ndarray, w: np.ndarray) -> dict[str, peers.Call]:
    calls = peers.gradients(form, g, x, w)
    if x.ndim == 3:
        return calls
    calls["neurlang channels last"] = pixels_gradients(form, g, x, w)
    if peers.torch is not None:
        torch = peers.torch
        step = peers.gradient_step(torch, torch.autograd.grad, lambda *t: form(torch, *t))
        theirs = peers.channels_last(g, x, w)
        calls["torch channels last"] = lambda: step(*theirs)
    return calls


def pixels_gradients(form: Callable[..., Any], g: np.ndarray, x: np.ndarray, w: np.ndarray) -> peers.Call:
    """Traced, from images and maps with channels last to such ones."""
    step = peers.gradient_step(nl, nl.grad, lambda *t: form(nl, *t))

    def by_pixels(g: nl.Tensor, x: nl.Tensor, w: nl.Tensor) -> tuple[nl.Tensor, ...]:
        y, dx, dw = step(conv.channels_first(g), conv.channels_first(x), w)
        return conv.from_first(y).contiguous(), conv.from_first(dx).contiguous(), dw

    traced, weight = nl.trace(by_pixels), nl.tensor(w)
    maps, images = conv.lying_last(g), conv.lying_last(x)

    def run() -> tuple[nl.Tensor, ...]:
        y, dx, dw = traced(maps, images, weight)
        return conv.channels_first(y), conv.channels_first(dx), dw

    return run
