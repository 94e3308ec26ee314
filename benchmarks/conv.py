"""Convolution layers of ResNet-50, MobileNetV2 (224) and YOLOv8n (640), float32: forward and both gradients.

Layers that `set_conv_precision("medium")` computes in larger tiles run forward a second time, frozen under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import neurlang as nl
from neurlang import _tensor
from neurlang.ops.shapes import winograd_tile

from . import peers
from .timing import Case

BATCHES = (1, 16)
ROUNDS = 5  # of each of some 500 cases


@dataclass(frozen=True)
class Layer:
    """`channels` of `size` x `size` to `outputs`, padded so that stride 1 keeps the size."""

    channels: int
    size: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def maps(self) -> int:
        return (self.size - 1) // self.stride + 1

    @property
    def flops(self) -> float:
        return 2.0 * self.maps**2 * self.outputs * self.channels // self.groups * self.kernel**2

    def __str__(self) -> str:
        kind = "depthwise" if self.groups > 1 else f"to {self.outputs}"
        return f"{self.channels} {kind} {self.kernel}x{self.kernel}/{self.stride} at {self.size}"


def resnet50() -> Iterator[Layer]:
    yield Layer(3, 224, 64, 7, 2)
    channels, size = 64, 56
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        yield Layer(channels, size, width, 1)
        yield Layer(width, size, width, 3, stride)
        yield Layer(channels, size, 4 * width, 1, stride)
        channels, size = 4 * width, size // stride
        yield Layer(width, size, channels, 1)
        yield Layer(channels, size, width, 1)
        yield Layer(width, size, width, 3)


def mobilenet_v2() -> Iterator[Layer]:
    yield Layer(3, 224, 32, 3, 2)
    channels, size = 32, 112
    for expand, outputs, blocks, first_stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(blocks):
            stride, hidden = first_stride if block == 0 else 1, expand * channels
            if expand > 1:
                yield Layer(channels, size, hidden, 1)
            yield Layer(hidden, size, hidden, 3, stride, groups=hidden)
            size //= stride
            yield Layer(hidden, size, outputs, 1)
            channels = outputs
    yield Layer(320, 7, 1280, 1)


def yolo_v8n() -> Iterator[Layer]:
    def c2f(channels: int, size: int, outputs: int, blocks: int) -> Iterator[Layer]:
        yield Layer(channels, size, outputs, 1)
        yield Layer(outputs // 2, size, outputs // 2, 3)
        yield Layer((2 + blocks) * outputs // 2, size, outputs, 1)

    yield Layer(3, 640, 16, 3, 2)
    for channels, size, blocks in ((16, 320, 1), (32, 160, 2), (64, 80, 2), (128, 40, 1)):
        yield Layer(channels, size, 2 * channels, 3, 2)
        yield from c2f(2 * channels, size // 2, 2 * channels, blocks)
    yield from (Layer(256, 20, 128, 1), Layer(512, 20, 256, 1))
    for channels, size, outputs in ((384, 40, 128), (192, 80, 64), (192, 40, 128), (384, 20, 256)):
        yield from c2f(channels, size, outputs, 1)
    yield from (Layer(64, 80, 64, 3, 2), Layer(128, 40, 128, 3, 2))
    for channels, size in ((64, 80), (128, 40), (256, 20)):
        for outputs in (64, 80):
            yield Layer(channels, size, outputs, 3)
            yield Layer(outputs, size, outputs, 3)
            yield Layer(outputs, size, outputs, 1)


NETWORKS = {"ResNet-50": resnet50, "MobileNetV2": mobilenet_v2, "YOLOv8n": yolo_v8n}


def cases() -> Iterator[Case]:
    for batch in BATCHES:
        seen: set[Layer] = set()
        for network, layers in NETWORKS.items():
            for layer in layers():
                if layer not in seen:
                    seen.add(layer)
                    yield from layer_cases(network, layer, batch)


def layer_cases(network: str, layer: Layer, batch: int) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, layer.channels, layer.size, layer.size)).astype(np.float32)
    fan_in = layer.channels // layer.groups * layer.kernel**2
    w = rng.standard_normal((layer.outputs, layer.channels // layer.groups, layer.kernel, layer.kernel)) / fan_in**0.5
    g = rng.standard_normal((batch, layer.outputs, layer.maps, layer.maps)).astype(np.float32)
    name, w = f"{network}: {batch} x {layer}", w.astype(np.float32)

    def case(what: str, contenders: Callable[[], dict[str, peers.Call]], scale: float) -> Case:
        return Case(
            f"{name}, {what}", contenders, work=batch * layer.flops, rate_unit="GFLOP/s",
            rtol=1e-3, atol=1e-3 * scale, rounds=ROUNDS,
        )  # fmt: skip

    yield case("forward", lambda: forward(layer, x, w), 1.0)
    if winograd_tile("float32", w.shape[1], w.shape[0], layer.maps, layer.maps, w.shape[2:], attributes(layer, 4)) == 4:
        yield case("forward, medium", lambda: medium(layer, x, w), 1.0)
    yield case("input gradient", lambda: input_gradient(layer, x, w, g), (layer.outputs / layer.channels) ** 0.5)
    yield case("weight gradient", lambda: weight_gradient(layer, x, w, g), g[:, 0].size ** 0.5)


def forward(layer: Layer, x: np.ndarray, w: np.ndarray, precision: str = "high") -> dict[str, peers.Call]:
    stride, padding, groups = layer.stride, layer.padding, layer.groups

    def form(lib: Any, x: Any, w: Any) -> Any:
        return lib.conv2d(x, w, None, stride, padding, 1, groups)

    onnx = peers.onnx_model("Conv", x, w, strides=[stride] * 2, pads=[padding] * 4, group=groups)
    return contenders(form, x, w, onnx, precision)


def contenders(
    form: Callable[..., Any], x: np.ndarray, w: np.ndarray, onnx: bytes, precision: str = "high"
) -> dict[str, peers.Call]:
    """We also run frozen: like OpenVINO and ONNX Runtime, which know their weights beforehand."""
    weight, image = nl.tensor(w), nl.tensor(x)
    with nl.set_conv_precision(precision):
        frozen = nl.trace(lambda x: form(nl, x, weight)).freeze(image)
        last = channels_last(lambda x: form(nl, x, weight), x)
    calls = peers.contenders(form, x, w) | {"neurlang frozen": lambda: frozen(image)}
    if x.ndim > 3:
        calls["neurlang frozen channels last"] = last
        if peers.torch is not None:
            calls["torch channels last"] = peers.without_gradients(peers.bound(form, *peers.channels_last(x, w)))
    return calls | peers.onnx_calls(onnx, x)


def channels_last(form: Callable[[nl.Tensor], nl.Tensor], x: np.ndarray) -> peers.Call:
    """Frozen, from images [N, H, W, C] to such images, as the peers of that name have them."""
    image = lying_last(x)
    frozen = nl.trace(lambda x: from_first(form(channels_first(x))).contiguous()).freeze(image)
    return lambda: channels_first(frozen(image))


def lying_last(images: np.ndarray) -> nl.Tensor:
    """Images [N, C, H, W] as [N, H, W, C]."""
    return nl.tensor(np.ascontiguousarray(np.moveaxis(images, 1, -1)))


def channels_first(x: nl.Tensor) -> nl.Tensor:
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


def from_first(x: nl.Tensor) -> nl.Tensor:
    """A view of images with their channels first as one with channels last."""
    return x.permute(0, *range(2, x.ndim), 1)


def medium(layer: Layer, x: np.ndarray, w: np.ndarray) -> dict[str, peers.Call]:
    """Frozen at that precision; what is called by its own follows the caller's."""
    calls = forward(layer, x, w, "medium")
    return {name: call for name, call in calls.items() if name not in ("neurlang", "neurlang traced")}


def input_gradient(layer: Layer, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> dict[str, peers.Call]:
    def form(maps: nl.Tensor, weight: nl.Tensor) -> nl.Tensor:
        return _tensor._conv2d_input(maps, weight, *attributes(layer), layer.size, layer.size)

    weight, maps = nl.tensor(w), nl.tensor(g)
    calls = {"neurlang": lambda: form(maps, weight), "neurlang channels last": pixels_gradient(form, g, weight)}
    return calls | torch_gradients(layer, x, w, g, 0)


def pixels_gradient(form: Callable[..., nl.Tensor], g: np.ndarray, weight: nl.Tensor) -> peers.Call:
    """Traced, from maps [N, H, W, C] to such images; the weight, which a step of training changes, is an operand."""
    maps = lying_last(g)
    traced = nl.trace(lambda g, w: from_first(form(channels_first(g), w)).contiguous())
    return lambda: channels_first(traced(maps, weight))


def weight_gradient(layer: Layer, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> dict[str, peers.Call]:
    def ours(images: nl.Tensor, maps: nl.Tensor) -> peers.Call:
        return lambda: _tensor._conv2d_weight(images, maps, *attributes(layer), layer.kernel, layer.kernel)

    calls = {"neurlang": ours(nl.tensor(x), nl.tensor(g))}
    calls["neurlang channels last"] = ours(*(channels_first(lying_last(a)) for a in (x, g)))
    return calls | torch_gradients(layer, x, w, g, 1)


def attributes(layer: Layer, tile: int = 2) -> tuple[int, ...]:
    return layer.stride, layer.stride, layer.padding, layer.padding, 1, 1, layer.groups, tile


def torch_gradients(layer: Layer, x: np.ndarray, w: np.ndarray, g: np.ndarray, which: int) -> dict[str, peers.Call]:
    """torch.compile calls the same function."""
    if peers.torch is None:
        return {}
    wanted = [which == 0, which == 1, False]

    def gradient(torch: Any, g: Any, x: Any, w: Any) -> Any:
        geometry = [layer.stride] * 2, [layer.padding] * 2, [1, 1], False, [0, 0], layer.groups
        return torch.ops.aten.convolution_backward(g, x, w, None, *geometry, wanted)[which]

    layouts = {"torch": map(peers.torch.tensor, (g, x, w)), "torch channels last": peers.channels_last(g, x, w)}
    return {name: peers.without_gradients(peers.bound(gradient, *t)) for name, t in layouts.items()}
