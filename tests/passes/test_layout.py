"""Images between convolutions with their channels last: which ones, and the bits of what is computed from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ir.programs import Tape, View, permute, reshape

import neurlang as nl
from neurlang.ir.graph import Access, Graph
from neurlang.passes.coalesce import coalesce
from neurlang.passes.layout import layout

# ---- which images ---------------------------------------------------------------------------------------------------


def conv(t: Tape, x: View, outputs: int, kernel: int = 1, padding: int = 0, groups: int = 1) -> View:
    w = t.leaf("f32", (outputs, x.shape[1] // groups, kernel, kernel))
    size = [n + 2 * padding - kernel + 1 for n in x.shape[2:]]
    out = t.fresh("f32", (x.shape[0], outputs, *size))
    t.write("conv2d", [x, w], [out], (1, 1, padding, padding, 1, 1, groups, 2))
    return out


def last(graph: Graph) -> set[int]:
    """The storages that lie with their channels last, wherever they are touched."""
    found: dict[int, set[bool]] = {}
    for node in layout(graph).nodes:
        for x in (*node.reads(), *node.outs):
            found.setdefault(x.storage, set()).add(lies_last(x))
    assert all(len(kinds) == 1 for kinds in found.values())
    return {storage for storage, kinds in found.items() if kinds == {True}}


def lies_last(x: Access) -> bool:
    return x.channels_last if len(x.shape) == 4 else x.strides[-1] == x.shape[1] > 1 and len(x.shape) == 3


def test_images_between_convolutions_turn_and_what_leaves_does_not() -> None:
    t = Tape()
    x = t.leaf("f32", (2, 32, 9, 7))
    a = t.map("relu", conv(t, x, 48))
    b = conv(t, a, 48, 3, 1)
    c = t.map("add", b, a)
    d = conv(t, c, 48, 5)
    t.keep(d)
    assert last(t.graph()) == {y.slot for y in (a, b, c)} | {a.slot - 1}


def test_maps_over_flattened_pixels_belong_to_the_family() -> None:
    t = Tape()
    y = conv(t, t.leaf("f32", (2, 32, 5, 5)), 32)
    z = t.map("mul", reshape(y, (2, 32, 25)), t.leaf("f32", (32, 1)))
    t.keep(conv(t, reshape(z, (2, 32, 5, 5)), 16))
    assert last(t.graph()) == {y.slot, z.slot}


def test_images_that_come_and_go_with_channels_last_leave_those_between_so() -> None:
    t = Tape()
    x = permute(t.leaf("f32", (2, 9, 7, 32)), (0, 3, 1, 2))
    y = conv(t, x, 48)
    z = t.map("add", t.map("relu", y), permute(t.leaf("f32", (2, 9, 7, 48)), (0, 3, 1, 2)))
    t.keep(t.map("copy", permute(z, (0, 2, 3, 1))))
    assert [node.op for node in coalesce(layout(t.graph())).nodes] == ["conv2d", "relu", "add"]


@pytest.mark.parametrize(
    "read",
    [
        lambda t, y: t.matmul(reshape(y, (2, 32 * 25)), t.leaf("f32", (32 * 25, 3))),
        lambda t, y: conv(t, y, 32, 3, groups=16),
        lambda t, y: t.map("mul", y, t.leaf("f32", (2, 32, 5, 5))),
        lambda t, y: t.map("exp", View(y.slot, "f32", (2, 16, 5, 5), y.strides, 400)),
        lambda t, y: conv(t, View(y.slot, "f32", (2, 16, 5, 5), y.strides), 16),
        lambda t, y: conv(t, t.leaf("f32", (1, 32, 9, 9)), 3) if t.keep(y) is None else None,
    ],
    ids=["flattened", "in groups", "beside an image outside", "cut", "cut from 0", "seen outside"],
)
def test_images_that_others_read_stay(read: Callable[[Tape, View], View]) -> None:
    t = Tape()
    y = conv(t, t.leaf("f32", (2, 32, 5, 5)), 32)
    t.keep(conv(t, y, 16))
    t.keep(read(t, y))
    assert last(t.graph()) == set()


@pytest.mark.parametrize("channels", [16, 24, 40])
def test_channels_in_halves_of_vectors_turn(channels: int) -> None:
    t = Tape()
    y = conv(t, t.leaf("f32", (2, 32, 5, 5)), channels)
    t.keep(conv(t, y, 16))
    assert last(t.graph()) == {y.slot}


@pytest.mark.parametrize(("channels", "turn"), [(24, False), (32, True)])
def test_pooled_images_turn_in_whole_vectors(channels: int, turn: bool) -> None:
    t = Tape()
    y = conv(t, t.leaf("f32", (2, 32, 8, 8)), channels)
    pooled = t.fresh("f32", (2, channels, 4, 4))
    t.write("max_pool2d_values", [y], [pooled], (2, 2, 2, 2, 0, 0, 1, 1))
    t.keep(conv(t, pooled, 16))
    assert last(t.graph()) == ({y.slot, pooled.slot} if turn else set())


@pytest.mark.parametrize(("channels", "size"), [(8, 5), (20, 5), (32, 1)])
def test_few_channels_and_single_pixels_stay(channels: int, size: int) -> None:
    t = Tape()
    t.keep(conv(t, conv(t, t.leaf("f32", (2, 32, size, size)), channels), 16))
    assert last(t.graph()) == set()


@pytest.mark.parametrize(("outputs", "kernel"), [(16, 3), (32, 5), (48, 5), (16, 1)])
def test_images_turn_for_any_kernel(outputs: int, kernel: int) -> None:
    t = Tape()
    y = conv(t, conv(t, t.leaf("f32", (2, 32, 9, 9)), 64), outputs, kernel)
    t.keep(conv(t, y, 16))
    assert last(t.graph()) == {y.slot, y.slot - 2}


def test_single_channels_go_from_pixels_to_pixels() -> None:
    t = Tape()
    first = conv(t, t.map("relu", t.leaf("f32", (2, 32, 9, 9))), 32, 3, 1, groups=32)  # from an image that stays
    x = conv(t, first, 48)
    y = conv(t, x, 48, 5, 2, groups=48)
    z = t.map("relu", y)
    t.keep(conv(t, z, 16))
    assert last(t.graph()) == {x.slot, y.slot, z.slot}


def test_weights_that_are_computed_stay() -> None:
    t = Tape()
    x, w = t.leaf("f32", (1, 16, 8, 8)), t.map("neg", t.leaf("f32", (32, 16, 3, 3)))
    out = t.fresh("f32", (1, 32, 6, 6), live=True)
    t.write("conv2d", [x, w], [out], (1, 1, 0, 0, 1, 1, 1, 2))
    assert last(t.graph()) == set()


def gradient(t: Tape, g: View, channels: int, kernel: int = 1, padding: int = 0, groups: int = 1) -> View:
    w = t.leaf("f32", (g.shape[1], channels // groups, kernel, kernel))
    size = [n - 2 * padding + kernel - 1 for n in g.shape[2:]]
    out = t.fresh("f32", (g.shape[0], channels, *size))
    t.write("conv2d_input", [g, w], [out], (1, 1, padding, padding, 1, 1, groups, 2, *size))
    return out


def test_gradients_go_from_pixels_to_pixels() -> None:
    t = Tape()
    g = gradient(t, permute(t.leaf("f32", (2, 9, 7, 32)), (0, 3, 1, 2)), 48, 3, 1)
    y = gradient(t, t.map("mul", g, permute(t.leaf("f32", (2, 9, 7, 48)), (0, 3, 1, 2))), 48, 3, 1, groups=48)
    t.keep(t.map("copy", permute(y, (0, 2, 3, 1))))
    assert [node.op for node in coalesce(layout(t.graph())).nodes] == ["conv2d_input", "mul", "conv2d_input"]


def test_a_chain_of_gradients_stays_where_its_end_does() -> None:
    t = Tape()
    g = permute(t.leaf("f32", (1, 3, 3, 16)), (0, 3, 1, 2))
    for _ in range(300):
        g = gradient(t, g, 16)
    t.keep(g)
    assert last(t.graph()) == {0}  # the maps that are given


@pytest.mark.parametrize("end", ["from", "to"])
def test_gradients_stay_where_one_end_does(end: str) -> None:
    t = Tape()
    g = t.leaf("f32", (2, 32, 9, 7)) if end == "from" else conv(t, t.leaf("f32", (2, 16, 9, 7)), 32)
    y = gradient(t, g, 48)
    t.keep(y if end == "to" else conv(t, y, 16))
    assert last(t.graph()) == set()


def test_what_gradients_by_weights_read_stays() -> None:
    t = Tape()
    g = gradient(t, permute(t.leaf("f32", (2, 9, 7, 32)), (0, 3, 1, 2)), 48)
    out = t.fresh("f32", (48, 16, 1, 1), live=True)
    t.write("conv2d_weight", [t.leaf("f32", (2, 16, 9, 7)), g], [out], (1, 1, 0, 0, 1, 1, 1, 2, 1, 1))
    t.keep(t.map("copy", permute(gradient(t, g, 32), (0, 2, 3, 1))))
    written = {x.storage: lies_last(x) for node in layout(t.graph()).nodes for x in node.outs}
    assert not written[g.slot]


# ---- bits -----------------------------------------------------------------------------------------------------------


class Network:
    """A random network of images; `run` is a pure function of an image and the weights."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.float64 if seed % 4 == 3 else np.float32
        self.weights: list[Any] = []
        self.steps: list[tuple[Callable[..., Any], tuple[int, ...]]] = []
        size = (int(self.rng.integers(6, 17)), int(self.rng.integers(6, 17)))
        self.shape = (int(self.rng.integers(1, 4)), int(self.rng.choice([3, 16, 32, 33])), *size)
        self.shapes = [self.shape]
        while len(self.steps) < 10:
            self.grow()

    def weight(self, *shape: int) -> int:
        spread = np.prod(shape[1:]) ** -0.5
        self.weights.append(nl.tensor((spread * self.rng.standard_normal(shape)).astype(self.dtype)))
        return len(self.weights) - 1

    def add(self, shape: tuple[int, ...], step: Callable[..., Any], *ins: int) -> None:
        self.steps.append((step, ins))
        self.shapes.append(shape)

    def grow(self) -> None:
        i = int(self.rng.integers(max(0, len(self.shapes) - 3), len(self.shapes)))
        kind = self.rng.choice(["conv"] * 6 + ["norm", "relu", "relu", "pool", "average", "cat", "group"])
        getattr(self, kind)(i, self.shapes[i])

    def conv(self, i: int, shape: tuple[int, ...]) -> None:
        n, c, *size = shape
        kernel, stride = int(self.rng.choice([1, 1, 3, 3, 5])), int(self.rng.choice([1, 1, 2]))
        padding = int(self.rng.choice([0, kernel // 2, 1]))
        outputs = int(self.rng.choice([16, 24, 32, 40, 48, 50, 80]))
        made = [(s + 2 * padding - kernel) // stride + 1 for s in size]
        if min(made) < 2:
            return
        w = self.weight(outputs, c, kernel, kernel)
        self.add((n, outputs, *made), lambda x, ws: nl.conv2d(x, ws[w], None, stride, padding), i)

    def norm(self, i: int, shape: tuple[int, ...]) -> None:
        mean, scale, shift = (self.weight(shape[1]) for _ in range(3))
        var = len(self.weights)
        self.weights.append(nl.tensor((self.rng.random(shape[1]) + 0.5).astype(self.dtype)))
        f = nl.nn.functional.batch_norm
        self.add(shape, lambda x, ws: f(x, ws[mean], ws[var], ws[scale], ws[shift]), i)

    def relu(self, i: int, shape: tuple[int, ...]) -> None:
        self.add(shape, lambda x, ws: nl.relu(x), i)

    def pool(self, i: int, shape: tuple[int, ...]) -> None:
        if min(shape[2:]) >= 4:
            made = tuple((s + 2 - 3) // 2 + 1 for s in shape[2:])
            self.add((*shape[:2], *made), lambda x, ws: nl.nn.functional.max_pool2d(x, 3, 2, 1), i)

    def average(self, i: int, shape: tuple[int, ...]) -> None:
        self.add(shape, lambda x, ws: x * x.mean((2, 3), keepdim=True), i)

    def cat(self, i: int, shape: tuple[int, ...]) -> None:
        self.add((shape[0], 2 * shape[1], *shape[2:]), lambda x, ws: nl.cat([x, nl.relu(x)], 1), i)

    def group(self, i: int, shape: tuple[int, ...]) -> None:
        if shape[1] % 4 == 0:
            self.add(shape, lambda x, ws: nl.nn.functional.group_norm(x, 4), i)

    def run(self, x: Any, *weights: Any) -> tuple[Any, ...]:
        images = [x]
        for step, ins in self.steps:
            images.append(step(*(images[i] for i in ins), weights))
        return images[-1], images[len(images) // 2], images[-2].mean((2, 3))

    def loss(self, x: Any, *weights: Any) -> tuple[Any, ...]:
        made = self.run(x, *weights)
        found = nl.grad((made[0] * made[0]).sum() + made[2].sum(), weights, allow_unused=True)
        return tuple(g for g in found if g is not None)


def residual_network(seed: int) -> Network:
    """With sums of images of one shape, which random steps seldom meet."""
    net = Network(seed)
    for _ in range(2):
        i = len(net.shapes) - 1
        n, c, *size = net.shapes[i]
        w = [net.weight(64, c, 1, 1), net.weight(64, 64, 3, 3), net.weight(c, 64, 1, 1)]
        net.add((n, 64, *size), lambda x, ws, w=w: nl.relu(nl.conv2d(x, ws[w[0]])), i)
        net.add((n, 64, *size), lambda x, ws, w=w: nl.relu(nl.conv2d(x, ws[w[1]], None, 1, 1)), i + 1)
        net.add((n, c, *size), lambda x, ws, w=w: nl.conv2d(x, ws[w[2]]), i + 2)
        net.add((n, c, *size), lambda x, y, ws: nl.relu(x + y), i, i + 3)
    return net


def bits(tensors: Any) -> list[bytes]:
    return [t.numpy().tobytes() for t in tensors]


@pytest.mark.parametrize("seed", range(12))
def test_traced_is_eager(seed: int) -> None:
    net = residual_network(seed)
    x = nl.tensor(net.rng.standard_normal(net.shape).astype(net.dtype))
    frozen, traced = nl.trace(lambda x: net.run(x, *net.weights)).freeze(x), nl.trace(net.run)
    before = nl.get_num_threads()
    try:
        expected = bits(net.run(x, *net.weights))
        for threads in (1, 2, 3, 8):
            nl.set_num_threads(threads)
            assert bits(frozen(x)) == expected
            assert bits(traced(x, *net.weights)) == expected
    finally:
        nl.set_num_threads(before)
    assert all(t.stride() == nl.tensor(t.numpy()).stride() for t in frozen(x))


@pytest.mark.parametrize("seed", range(12))
def test_channels_last_in_and_out(seed: int) -> None:
    net = residual_network(200 + seed)

    def run(x: Any) -> Any:
        made = net.run(x.permute(0, 3, 1, 2), *net.weights)
        return *(image.permute(0, 2, 3, 1).contiguous() for image in made[:2]), made[2]

    n, c, *size = net.shape
    x = nl.tensor(net.rng.standard_normal((n, *size, c)).astype(net.dtype))
    expected = bits(run(x))
    assert bits(nl.trace(run)(x)) == expected
    assert bits(nl.trace(run).freeze(x)(x)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_gradients_traced_are_eager(seed: int) -> None:
    net = residual_network(100 + seed)
    x = nl.tensor(net.rng.standard_normal(net.shape).astype(net.dtype))
    weights = [w.requires_grad_() for w in net.weights]
    assert bits(nl.trace(net.loss)(x, *weights)) == bits(net.loss(x, *weights))


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_images_of_another_batch_that_a_view_joins(rng: np.random.Generator, kernel: int) -> None:
    """As many elements, but pixels that do not follow each other once their channels are half of another's."""
    half = kernel // 2

    def f(x: Any, y: Any, first: Any, second: Any, third: Any) -> Any:
        joined = nl.conv2d(x, first, padding=half) + nl.conv2d(y, second, padding=half).reshape(1, 64, 9, 9)
        return nl.conv2d(joined, third)

    shapes = (1, 16, 9, 9), (2, 16, 9, 9), (64, 16, kernel, kernel), (32, 16, kernel, kernel), (16, 64, 1, 1)
    tensors = [nl.tensor(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    np.testing.assert_array_equal(nl.trace(f)(*tensors).numpy(), f(*tensors).numpy())


def test_long_tapes_take_no_longer_for_each_node() -> None:
    def seconds(n: int) -> float:
        t = Tape()
        x = conv(t, t.leaf("f32", (1, 32, 5, 5)), 32)
        for _ in range(n):
            x = t.map("add", t.map("sin", x), x)
        t.keep(conv(t, x, 16))
        graph = t.graph()
        begin = time.perf_counter()
        layout(graph)
        return time.perf_counter() - begin

    assert seconds(4000) < 16 * seconds(1000) + 0.1  # of the square 16, and what it was 30
