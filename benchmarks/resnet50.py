"""ResNet-50 on one image of 224 x 224, float32, without gradients: frozen beside runtimes that know their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import neurlang as nl

from . import peers
from .timing import Case

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first one
EPS = 1e-5


def network(ops: Any, x: Any) -> Any:
    """With the stride in the 3x3 convolutions, as torchvision has it."""
    x, channels = ops.max_pool(ops.conv(x, "stem", 3, 64, 7, 2, relu=True)), 64
    for stage, (width, blocks, first_stride) in enumerate(STAGES):
        for block in range(blocks):
            name, stride = f"{stage}.{block}", first_stride if block == 0 else 1
            y = ops.conv(x, f"{name}.reduce", channels, width, 1, 1, relu=True)
            y = ops.conv(y, f"{name}.conv", width, width, 3, stride, relu=True)
            y = ops.conv(y, f"{name}.expand", width, 4 * width, 1, 1)
            if block == 0:
                x = ops.conv(x, f"{name}.project", channels, 4 * width, 1, stride)
            x, channels = ops.relu(ops.add(y, x)), 4 * width
    return ops.linear(ops.average(x), "classify", channels, 1000)


class Weights:
    """Made when first asked for, from the name alone, so that everyone has the same."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        if name not in self.arrays:
            rng = np.random.default_rng(list(name.encode()))
            spread = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1
            self.arrays[name] = (spread * rng.standard_normal(shape)).astype(np.float32)
        return self.arrays[name]

    def norm(self, name: str, channels: int) -> list[np.ndarray]:
        """Scale, shift, mean and variance."""
        scale, shift, mean, variance = (self(f"{name}.{k}", channels) for k in range(4))
        return [scale + np.float32(0.5), shift, mean, np.abs(variance) + np.float32(0.9)]


class Eager:
    """PyTorch's idiom, for us and for torch. The first run makes the tensors."""

    def __init__(self, lib: Any, weights: Weights) -> None:
        self.lib, self.weights = lib, weights
        self.layers: dict[str, list[Any]] = {}

    def tensors(self, name: str, arrays: Callable[[], list[np.ndarray]]) -> list[Any]:
        if name not in self.layers:
            self.layers[name] = [self.lib.tensor(a) for a in arrays()]
        return self.layers[name]

    def conv(self, x: Any, name: str, c: int, outputs: int, kernel: int, stride: int, relu: bool = False) -> Any:
        def arrays() -> list[np.ndarray]:
            return [self.weights(name, outputs, c, kernel, kernel), *self.weights.norm(name, outputs)]

        w, scale, shift, mean, var = self.tensors(name, arrays)
        y = self.lib.conv2d(x, w, None, stride, kernel // 2)
        y = self.lib.nn.functional.batch_norm(y, mean, var, scale, shift, eps=EPS)
        return self.relu(y) if relu else y

    def linear(self, x: Any, name: str, c: int, outputs: int) -> Any:
        def arrays() -> list[np.ndarray]:
            return [self.weights(name, outputs, c), self.weights(f"{name}.bias", outputs)]

        return self.lib.nn.functional.linear(x, *self.tensors(name, arrays))

    def relu(self, x: Any) -> Any:
        return self.lib.relu(x)

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def max_pool(self, x: Any) -> Any:
        return self.lib.nn.functional.max_pool2d(x, 3, 2, 1)

    def average(self, x: Any) -> Any:
        return x.mean((2, 3))


class InJax:
    def __init__(self, weights: Weights) -> None:
        self.weights, self.np, self.lax = weights, peers.jax.numpy, peers.jax.lax

    def conv(self, x: Any, name: str, c: int, outputs: int, kernel: int, stride: int, relu: bool = False) -> Any:
        w, pad = self.weights(name, outputs, c, kernel, kernel), kernel // 2
        scale, shift, mean, var = (a[:, None, None] for a in self.weights.norm(name, outputs))
        y = self.lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2)
        y = (y - mean) * (scale / np.sqrt(var + np.float32(EPS))) + shift
        return self.relu(y) if relu else y

    def linear(self, x: Any, name: str, c: int, outputs: int) -> Any:
        return x @ self.weights(name, outputs, c).T + self.weights(f"{name}.bias", outputs)

    def relu(self, x: Any) -> Any:
        return self.np.maximum(x, 0)

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def max_pool(self, x: Any) -> Any:
        padding = ((0, 0), (0, 0), (1, 1), (1, 1))
        return self.lax.reduce_window(x, -np.inf, self.lax.max, (1, 1, 3, 3), (1, 1, 2, 2), padding)

    def average(self, x: Any) -> Any:
        return x.mean((2, 3))


class Onnx:
    """The nodes of a model file; values are names."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.nodes, self.constants = weights, [], []  # type: ignore[var-annotated]

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(peers.onnx.helper.make_node(op, inputs, [f"v{len(self.nodes)}"], **attributes))
        return f"v{len(self.nodes) - 1}"

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(peers.onnx.numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, name: str, c: int, outputs: int, kernel: int, stride: int, relu: bool = False) -> str:
        w = self.constant(name, self.weights(name, outputs, c, kernel, kernel))
        y = self.node("Conv", x, w, strides=[stride] * 2, pads=[kernel // 2] * 4)
        norm = [self.constant(f"{name}.{k}", a) for k, a in enumerate(self.weights.norm(name, outputs))]
        y = self.node("BatchNormalization", y, *norm, epsilon=EPS)
        return self.relu(y) if relu else y

    def linear(self, x: str, name: str, c: int, outputs: int) -> str:
        w, b = self.weights(name, outputs, c), self.weights(f"{name}.bias", outputs)
        return self.node("Gemm", x, self.constant(name, w), self.constant(f"{name}.bias", b), transB=1)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def add(self, x: str, y: str) -> str:
        return self.node("Add", x, y)

    def max_pool(self, x: str) -> str:
        return self.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def average(self, x: str) -> str:
        return self.node("Flatten", self.node("GlobalAveragePool", x))

    def model(self, x: np.ndarray) -> bytes:
        network(self, "x")
        return peers.onnx_file(self.nodes, self.constants, x)


def cases() -> Iterator[Case]:
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    yield Case("ResNet-50, one image", lambda: contenders(image), rtol=1e-3, atol=1e-3, work=8.2e9, rate_unit="GFLOP/s")


def contenders(image: np.ndarray) -> dict[str, peers.Call]:
    weights, x = Weights(), nl.tensor(image)
    ours = Eager(nl, weights)
    network(ours, x)
    frozen = nl.trace(lambda x: network(ours, x)).freeze(x)
    calls = {"neurlang frozen": lambda: frozen(x), "neurlang": lambda: network(ours, x)}
    if peers.torch is not None:
        theirs, layouts = Eager(peers.torch, weights), {"torch": peers.torch.tensor(image)}
        layouts["torch channels last"] = peers.channels_last(image)[0]
        network(theirs, layouts["torch"])
        for name, t in layouts.items():
            calls[name] = peers.without_gradients(lambda t=t: network(theirs, t))
        if peers.with_torch_compile:
            compiled = peers.torch.compile(lambda t: network(theirs, t))
            calls["torch.compile"] = peers.without_gradients(lambda: compiled(layouts["torch"]))
    if peers.jax is not None:
        calls["JAX"] = peers.jax_call(lambda x: network(InJax(weights), x), image)
    if peers.onnx is not None:
        calls |= peers.onnx_calls(Onnx(weights).model(image), image)
    return calls
