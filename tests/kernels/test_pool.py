"""Pooling and its gradients against plain loops, bit for bit, and against PyTorch: random geometry and layouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl
import neurlang.nn.functional as F
from neurlang import _tensor
from neurlang.ops.table import ROWS

from .contraction import Array, assert_same_bits, tensor
from .reduction import numbers, on_all_threads

FLOATS = [np.float32, np.float64]
CASES = range(25)


class Axis(NamedTuple):
    """The windows along one axis of a plane."""

    size: int
    kernel: int
    stride: int
    pad: int
    dilation: int = 1
    ceil: bool = False

    def outputs(self) -> int:
        span = self.size + 2 * self.pad - self.dilation * (self.kernel - 1) - 1
        count = (span + (self.stride - 1 if self.ceil else 0)) // self.stride + 1
        return count - 1 if self.ceil and (count - 1) * self.stride >= self.size + self.pad else count

    def window(self, o: int) -> list[int]:
        """The positions inside the plane that output `o` sees."""
        taps = (o * self.stride - self.pad + t * self.dilation for t in range(self.kernel))
        return [p for p in taps if 0 <= p < self.size]

    def padded(self, o: int) -> int:
        """How many positions of the window lie inside the padded plane."""
        begin = o * self.stride - self.pad
        return min(begin + self.kernel, self.size + self.pad) - begin


def geometry(rng: np.random.Generator, dilate: bool) -> tuple[Axis, Axis]:
    dilation = [int(d) for d in rng.integers(1, 3, 2)] if dilate and rng.random() < 0.4 else [1, 1]
    ceil = bool(rng.integers(2))
    axes = []
    for d, limit in zip(dilation, (20, 50), strict=True):
        axis = Axis(0, 1, 1, 0)
        while axis.outputs() < 1:
            kernel, stride = (int(n) for n in rng.integers(1, 5, 2))
            size = int(rng.integers(1, limit if rng.random() < 0.8 else 4))  # a window may hang over on both sides
            axis = Axis(size, kernel, stride, int(rng.integers(0, kernel // 2 + 1)), d, ceil)
        axes.append(axis)
    return axes[0], axes[1]


def windows(rows: Axis, columns: Axis) -> Iterator[tuple[int, int]]:
    return np.ndindex(rows.outputs(), columns.outputs())


def images(rng: np.random.Generator, rows: Axis, columns: Axis, dtype: type) -> Array:
    x = numbers(rng, (int(rng.integers(0, 3)), int(rng.integers(1, 12)), rows.size, columns.size), dtype)
    return np.round(x) if rng.random() < 0.3 else x  # ties


def max_pool(x: Array, rows: Axis, columns: Axis) -> tuple[Array, Array]:
    best = np.full((*x.shape[:2], rows.outputs(), columns.outputs()), -np.inf, x.dtype)
    index = np.full(best.shape, -1, np.int64)
    for o in windows(rows, columns):
        places = [(h, w) for h in rows.window(o[0]) for w in columns.window(o[1])]
        if not places:
            continue
        taps = np.stack([x[:, :, h, w] for h, w in places])
        first = np.argmax(taps, 0)  # the first NaN, else the first of the largest
        best[..., o[0], o[1]] = np.take_along_axis(taps, first[None], 0)[0]
        index[..., o[0], o[1]] = np.array([h * columns.size + w for h, w in places])[first]
    return best, index


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_max_pool2d(rng: np.random.Generator, dtype: type, case: int) -> None:
    rows, columns = geometry(rng, dilate=True)
    x = images(rng, rows, columns, dtype)
    attrs = [(getattr(rows, name), getattr(columns, name)) for name in ("kernel", "stride", "pad", "dilation")]
    want, index = max_pool(x, rows, columns)
    pool = lambda: F.max_pool2d(tensor(x), *attrs, ceil_mode=rows.ceil, return_indices=True)  # noqa: E731
    for got in on_all_threads(lambda: pool()[0]):
        assert_same_bits(got, want)
    for got in on_all_threads(lambda: pool()[1]):
        np.testing.assert_array_equal(got, index)
    for got in on_all_threads(lambda: F.max_pool2d(tensor(x), *attrs, ceil_mode=rows.ceil)):
        assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_max_pool2d_gradient(rng: np.random.Generator, dtype: type, case: int) -> None:
    rows, columns = geometry(rng, dilate=False)
    n, c = int(rng.integers(0, 3)), int(rng.integers(1, 6))
    outputs = (n, c, int(rng.integers(1, 20)), int(rng.integers(1, 20)))
    g = numbers(rng, outputs, dtype)
    index = rng.integers(-1, rows.size * columns.size, outputs)
    want = np.zeros((n, c, rows.size * columns.size), dtype)
    with np.errstate(all="ignore"):
        for at in np.ndindex(outputs):
            if index[at] >= 0:
                want[(*at[:2], index[at])] += g[at]
    gradient = lambda: _tensor._max_pool2d_grad(tensor(g), tensor(index), rows.size, columns.size)  # noqa: E731
    for got in on_all_threads(gradient):
        assert_same_bits(got, want.reshape(n, c, rows.size, columns.size))


def test_gradient_of_one_place_a_plane(rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        g, index = rng.standard_normal((5, 130, 1, 1)).astype(dtype), rng.integers(0, 49, (5, 130, 1, 1))
        g[0, :9] = -0.0
        want = np.zeros((5, 130, 49), dtype)
        np.put_along_axis(want, index.reshape(5, 130, 1), g.reshape(5, 130, 1) + dtype(0), 2)
        for got in on_all_threads(lambda g=g, index=index: _tensor._max_pool2d_grad(tensor(g), tensor(index), 7, 7)):
            assert_same_bits(got, want.reshape(5, 130, 7, 7))


@pytest.mark.parametrize("outputs", [(2, 2), (1, 1)])
@pytest.mark.parametrize("bad", [-2, 30])
def test_max_pool2d_gradient_refuses_a_place_outside_the_plane(bad: int, outputs: tuple[int, int]) -> None:
    index = np.zeros((2, 3, *outputs), np.int64)
    index[1, 2, 0, -1] = bad
    with pytest.raises(IndexError, match=str(bad)):
        _tensor._max_pool2d_grad(nl.ones(2, 3, *outputs), tensor(index), 5, 6)


def average(x: Array, places: list[tuple[int, int]], divisor: int) -> Array:
    total = np.zeros(x.shape[:2], x.dtype)
    for h, w in places:
        total = total + x[:, :, h, w]
    return total / x.dtype.type(divisor)


def spread(g: Array, shape: tuple[int, ...], seen: list[tuple[tuple[int, int], list, int]]) -> Array:
    """Each output's share added to what it saw, in row-major order of the outputs."""
    out = np.zeros(shape, g.dtype)
    for o, places, divisor in seen:
        share = g[..., o[0], o[1]] / g.dtype.type(divisor)
        for h, w in places:
            out[:, :, h, w] += share
    return out


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("include_pad", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_avg_pool2d_and_its_gradient(rng: np.random.Generator, dtype: type, include_pad: bool, case: int) -> None:
    rows, columns = geometry(rng, dilate=False)
    x = images(rng, rows, columns, dtype)
    override = int(rng.choice([0, 0, 3, -2]))
    seen = []
    for o in windows(rows, columns):
        places = [(h, w) for h in rows.window(o[0]) for w in columns.window(o[1])]
        area = rows.padded(o[0]) * columns.padded(o[1]) if include_pad else len(places)
        seen.append((o, places, override or area))
    want = np.empty((*x.shape[:2], rows.outputs(), columns.outputs()), dtype)
    attrs = [(getattr(rows, name), getattr(columns, name)) for name in ("kernel", "stride", "pad")]
    g = numbers(rng, want.shape, dtype)
    with np.errstate(all="ignore"):
        for o, places, divisor in seen:
            want[..., o[0], o[1]] = average(x, places, divisor)
        gradient = spread(g, x.shape, seen)
    for got in on_all_threads(lambda: F.avg_pool2d(tensor(x), *attrs, rows.ceil, include_pad, override or None)):
        assert_same_bits(got, want)
    flat = [n for pair in attrs for n in pair] + [int(rows.ceil), int(include_pad), override, rows.size, columns.size]
    for got in on_all_threads(lambda: _tensor._avg_pool2d_grad(tensor(g), *flat)):
        assert_same_bits(got, gradient)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_adaptive_avg_pool2d_and_its_gradient(rng: np.random.Generator, dtype: type, case: int) -> None:
    height, width, out_h, out_w = (int(n) for n in rng.integers(1, 15, 4))
    x = numbers(rng, (int(rng.integers(0, 3)), int(rng.integers(1, 20)), height, width), dtype)
    seen = []
    for o in np.ndindex(out_h, out_w):
        rows = range(o[0] * height // out_h, -(-(o[0] + 1) * height // out_h))
        columns = range(o[1] * width // out_w, -(-(o[1] + 1) * width // out_w))
        seen.append((o, [(h, w) for h in rows for w in columns], len(rows) * len(columns)))
    want = np.empty((*x.shape[:2], out_h, out_w), dtype)
    g = numbers(rng, want.shape, dtype)
    with np.errstate(all="ignore"):
        for o, places, divisor in seen:
            want[..., o[0], o[1]] = average(x, places, divisor)
        gradient = spread(g, x.shape, seen)
    for got in on_all_threads(lambda: _tensor._adaptive_avg_pool2d(tensor(x), out_h, out_w)):
        assert_same_bits(got, want)
    for got in on_all_threads(lambda: _tensor._adaptive_avg_pool2d_grad(tensor(g), height, width)):
        assert_same_bits(got, gradient)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_adaptive_max_pool2d(rng: np.random.Generator, dtype: type, case: int) -> None:
    height, width, out_h, out_w = (int(n) for n in rng.integers(1, 15, 4))
    x = numbers(rng, (int(rng.integers(0, 3)), int(rng.integers(1, 20)), height, width), dtype)
    want, index = ROWS["adaptive_max_pool2d"].numpy(np, x, out_h, out_w)
    for got in on_all_threads(lambda: F.adaptive_max_pool2d(tensor(x), (out_h, out_w), True)[0]):
        assert_same_bits(got, want)
    np.testing.assert_array_equal(F.adaptive_max_pool2d(tensor(x), (out_h, out_w), True)[1].numpy(), index)


# Channels last, in whole groups of planes and not; planes in several tiles; windows too large for a panel.
LAYOUTS = [(2, 32, 9, 11), (1, 20, 9, 11), (1, 17, 90, 70), (1, 3, 3, 5000), (2, 16, 130, 100)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", LAYOUTS)
def test_no_way_through_memory_shows(rng: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> None:
    x = rng.standard_normal(shape).astype(dtype)
    x[rng.random(shape) < 1e-3] = np.nan
    last = tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
    apart = tensor(np.repeat(x, 2, 3))[..., ::2]
    for size in ((1, 1), (3, 2), (7, 8)):
        means = ROWS["adaptive_avg_pool2d"].numpy(np, x, *size)
        best, index = ROWS["adaptive_max_pool2d"].numpy(np, x, *size)
        for layout in (tensor(x), last, apart):
            assert_same_bits(_tensor._adaptive_avg_pool2d(layout, *size).numpy(), means)
            assert_same_bits(F.adaptive_max_pool2d(layout, size).numpy(), best)
            np.testing.assert_array_equal(F.adaptive_max_pool2d(layout, size, True)[1].numpy(), index)
    for geometry in ((3, 3, 2, 2, 1, 1), (2, 3, 2, 3, 0, 1)):
        pairs = [geometry[i : i + 2] for i in (0, 2, 4)]
        best, index = ROWS["max_pool2d"].numpy(np, x, *geometry, 1, 1, 0)
        means = ROWS["avg_pool2d"].numpy(np, x, *geometry, 0, 1, 0)
        g = rng.standard_normal(means.shape).astype(dtype)
        gradient = ROWS["avg_pool2d_grad"].numpy(np, g, *geometry, 0, 1, 0, *shape[2:])
        assert_same_bits(_tensor._avg_pool2d_grad(tensor(g), *geometry, 0, 1, 0, *shape[2:]).numpy(), gradient)
        for layout in (tensor(x), last, apart):
            assert_same_bits(F.avg_pool2d(layout, *pairs).numpy(), means)
            assert_same_bits(F.max_pool2d(layout, *pairs).numpy(), best)
            np.testing.assert_array_equal(F.max_pool2d(layout, *pairs, return_indices=True)[1].numpy(), index)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [2, 4, 5, 8, 11, 16, 18, 22, 28, 33, 40, 66])
def test_windows_of_two_by_two(rng: np.random.Generator, dtype: type, width: int) -> None:
    # Rows of few results write on into the next one's place, but not beyond a plane that another thread has.
    rows, columns = Axis(int(rng.integers(2, 9)), 2, 2, 0), Axis(width, 2, 2, 0)
    x = numbers(rng, (2, 45_000 // (rows.size * width), rows.size, width), dtype)
    for given in (x, np.ascontiguousarray(x)):
        want = np.empty((*x.shape[:2], rows.outputs(), columns.outputs()), dtype)
        with np.errstate(all="ignore"):
            for o in windows(rows, columns):
                want[..., o[0], o[1]] = average(x, [(h, w) for h in rows.window(o[0]) for w in columns.window(o[1])], 4)
        for got in on_all_threads(lambda given=given: F.avg_pool2d(tensor(given), 2)):
            assert_same_bits(got, want)
        for got in on_all_threads(lambda given=given: F.max_pool2d(tensor(given), 2)):
            assert_same_bits(got, max_pool(x, rows, columns)[0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [(7, 7), (1, 33), (40, 50), (1, 1)])
def test_one_window_over_the_plane(rng: np.random.Generator, dtype: type, size: tuple[int, int]) -> None:
    x = np.ascontiguousarray(numbers(rng, (3, 300, *size), dtype))
    x[:, ::3] = rng.choice([0.0, -0.0, -1.0], x[:, ::3].shape)  # the first of zeros wins, whatever its sign
    want, index = ROWS["adaptive_max_pool2d"].numpy(np, x, 1, 1)
    for got in on_all_threads(lambda: F.adaptive_max_pool2d(tensor(x), 1)):
        assert_same_bits(got, want)
    np.testing.assert_array_equal(F.adaptive_max_pool2d(tensor(x), 1, True)[1].numpy(), index)
    for planes in (x[0, :3], x[0, ::2], x[0].transpose(2, 1, 0).copy().transpose(2, 1, 0)):  # few, apart, channels last
        want, index = ROWS["adaptive_max_pool2d"].numpy(np, planes[None], 1, 1)
        assert_same_bits(F.adaptive_max_pool2d(tensor(planes), 1).numpy(), want[0])
        got = F.adaptive_max_pool2d(tensor(planes), 1, True)
        assert_same_bits(got[0].numpy(), want[0])
        np.testing.assert_array_equal(got[1].numpy(), index[0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [(7, 7), (3, 5), (2, 2), (14, 14)])
def test_one_window_over_planes_of_which_few_are_special(
    rng: np.random.Generator, dtype: type, size: tuple[int, int]
) -> None:
    x = rng.standard_normal((3, 300, *size)).astype(dtype)
    flat = x.reshape(900, -1)
    for value in (np.nan, np.inf, -np.inf, 100.0):
        flat[rng.integers(0, 900, 5), rng.integers(0, flat.shape[1], 5)] = value
    flat[500:503] = rng.choice([0.0, -0.0, -1.0], flat[500:503].shape)
    for planes in (x, x[:, 7:290], x[:, ::2]):
        want, index = ROWS["adaptive_max_pool2d"].numpy(np, planes, 1, 1)
        for got in on_all_threads(lambda planes=planes: F.adaptive_max_pool2d(tensor(planes), 1)):
            assert_same_bits(got, want)
        np.testing.assert_array_equal(F.adaptive_max_pool2d(tensor(planes), 1, True)[1].numpy(), index)


def test_adaptive_pooling_to_nothing_and_back() -> None:
    x = nl.ones(2, 3, 4, 5, requires_grad=True)
    for y in (F.adaptive_avg_pool2d(x, (0, 2)), F.adaptive_max_pool2d(x, (0, 2))):
        assert y.shape == (2, 3, 0, 2)
        (grad,) = nl.grad(y.sum(), (x,))
        np.testing.assert_array_equal(grad.numpy(), np.zeros(x.shape))


@pytest.mark.parametrize("stride", [9, 4096, 2**28, 2**40, 2**62, 6148914691236517206])
@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_a_stride_beyond_the_plane_leaves_one_window(rng: np.random.Generator, pool: Any, stride: int) -> None:
    x = tensor(rng.standard_normal((2, 3, 6, 7))).requires_grad_()
    results = []
    for s in (stride, 8):
        y = pool(x, 3, s, 1)
        results.append([y.detach().numpy(), nl.grad(y.sum(), (x,))[0].numpy()])
    assert results[0][0].shape == (2, 3, 1, 1)
    for got, want in zip(*results, strict=True):
        assert_same_bits(got, want)


# ---- one and three axes ----


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("case", range(12))
def test_pytorch_agrees_in_other_dimensions(rng: np.random.Generator, torch: Any, axes: int, case: int) -> None:
    theirs, name = torch.nn.functional, f"pool{axes}d"
    kernel = [int(n) for n in rng.integers(1, 4, axes)]
    padding = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
    stride, dilation = ([int(n) for n in rng.integers(1, 4, axes)] for _ in range(2))
    ceil, include_pad, override = bool(rng.integers(2)), bool(rng.integers(2)), [None, 5][int(rng.integers(2))]
    lead = (2, 3) if rng.integers(2) else (3,)
    x = np.round(rng.standard_normal((*lead, *(int(n) for n in rng.integers(7, 11, axes)))), 1)  # ties
    rest = (override,) if axes == 3 else ()
    size = [None if rng.random() < 0.2 else int(rng.integers(1, 7)) for _ in range(axes)]
    forms = {
        f"max_{name}": (kernel, stride, padding, dilation, ceil, True),
        f"avg_{name}": (kernel, stride, padding, ceil, include_pad, *rest),
        f"adaptive_avg_{name}": (size if axes > 1 else size[0] or 3,),
        f"adaptive_max_{name}": (size if axes > 1 else size[0] or 3, True),
    }
    for form, args in forms.items():
        ours, mine = getattr(F, form), nl.tensor(x, requires_grad=True)
        leaf = torch.tensor(x, requires_grad=True)
        got, want = ours(mine, *args), getattr(theirs, form)(leaf, *args)
        if isinstance(got, tuple):
            np.testing.assert_array_equal(got[1].numpy(), want[1].numpy(), err_msg=form)
            got, want = got[0], want[0]
            np.testing.assert_array_equal(ours(nl.tensor(x), *args[:-1]).numpy(), want.detach().numpy())
        assert_close(got.detach().numpy(), want.detach().numpy(), "window", n=x.size, scale=abs(x).max(), what=form)
        g = rng.standard_normal(got.shape)
        (grad,) = nl.grad(got, (mine,), nl.tensor(g))
        want.backward(torch.tensor(g))
        assert_close(grad.numpy(), leaf.grad.numpy(), "window", n=g.size, scale=abs(g).max(), what=form)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("form", ["max_pool{}d", "avg_pool{}d", "adaptive_avg_pool{}d", "adaptive_max_pool{}d"])
def test_sizes_may_be_integers_of_numpy(rng: np.random.Generator, form: str, axes: int) -> None:
    x = tensor(rng.standard_normal((2,) + (6,) * axes))
    pool = getattr(F, form.format(axes))
    for size in (np.int64(2), (np.int32(2),) * axes, [2] * axes):
        assert_same_bits(pool(x, size).numpy(), pool(x, 2).numpy())


@pytest.mark.parametrize("form", ["max_pool1d", "max_pool3d", "avg_pool1d", "avg_pool3d"])
def test_other_dimensions_refuse_what_does_not_fit(form: str) -> None:
    pool, axes = getattr(F, form), int(form[-2])
    for shape, args in (((4,) * (axes + 3), (2,)), ((3,) * (axes + 2), (4,)), ((8,) * (axes + 2), (3, 1, 2))):
        with pytest.raises(nl.ShapeError, match="pool"):
            pool(nl.ones(*shape), *args)
    with pytest.raises(nl.ShapeError, match="kernel_size"):
        pool(nl.ones(*(4,) * (axes + 2)), (2,) * (axes + 1))


@pytest.mark.parametrize("case", CASES)
def test_pytorch_agrees(rng: np.random.Generator, torch: Any, case: int) -> None:
    rows, columns = geometry(rng, dilate=True)
    x = rng.standard_normal((2, 3, rows.size, columns.size))
    attrs = [(getattr(rows, name), getattr(columns, name)) for name in ("kernel", "stride", "pad")]
    dilation = (rows.dilation, columns.dilation)
    theirs, their_index = torch.nn.functional.max_pool2d(torch.from_numpy(x), *attrs, dilation, rows.ceil, True)
    ours, index = F.max_pool2d(tensor(x), *attrs, dilation, rows.ceil, True)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_array_equal(index.numpy(), their_index.numpy())
    for include_pad in (True, False):
        theirs = torch.nn.functional.avg_pool2d(torch.from_numpy(x), *attrs, rows.ceil, include_pad)
        ours = F.avg_pool2d(tensor(x), *attrs, rows.ceil, include_pad)
        assert_close(ours.numpy(), theirs.numpy(), "window", n=x[0, 0].size, scale=abs(x).max())
    size = (int(rng.integers(1, 7)), int(rng.integers(1, 7)))
    theirs = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), size)
    ours = F.adaptive_avg_pool2d(tensor(x), size)
    assert_close(ours.numpy(), theirs.numpy(), "window", n=x[0, 0].size, scale=abs(x).max())


@pytest.mark.parametrize("dtype", FLOATS)
def test_few_large_planes(rng: np.random.Generator, dtype: type) -> None:
    # Threads share parts of a plane and windows; equals lie in several, of which the first wins, whatever its sign.
    x = rng.integers(-9, 9, (1, 5, 300, 331)).astype(dtype)
    x[0, 1] = rng.choice([0.0, -0.0, -1.0], x[0, 1].shape)
    x[0, 2] = -np.inf
    x[0, 3, 200:, ::7] = np.nan
    for size in ((1, 1), (2, 2), (3, 7)):
        want, index = ROWS["adaptive_max_pool2d"].numpy(np, x, *size)
        means = ROWS["adaptive_avg_pool2d"].numpy(np, x, *size)
        for got in on_all_threads(lambda size=size: F.adaptive_max_pool2d(tensor(x), size)):
            assert_same_bits(got, want)
        got = F.adaptive_max_pool2d(tensor(x), size, True)
        assert_same_bits(got[0].numpy(), want)
        np.testing.assert_array_equal(got[1].numpy(), index)
        for mean in on_all_threads(lambda size=size: _tensor._adaptive_avg_pool2d(tensor(x), *size)):
            assert_same_bits(mean, means)
    for planes in (x, x[:, ::2], x[..., :200, :]):
        want, index = ROWS["adaptive_max_pool2d"].numpy(np, planes, 1, 1)
        for place in on_all_threads(lambda x=planes: F.max_pool2d(tensor(x), x.shape[2:], return_indices=True)[1]):
            np.testing.assert_array_equal(place, index)


def test_large_planes_go_in_bands(rng: np.random.Generator) -> None:
    # A plane larger than a band is pooled in several; their seams must not show.
    rows, columns = Axis(211, 3, 2, 1), Axis(400, 3, 2, 1)
    x = rng.standard_normal((1, 2, rows.size, columns.size)).astype(np.float32)
    want, index = max_pool(x, rows, columns)
    for got in on_all_threads(lambda: F.max_pool2d(tensor(x), 3, 2, 1)):
        assert_same_bits(got, want)
    np.testing.assert_array_equal(F.max_pool2d(tensor(x), 3, 2, 1, return_indices=True)[1].numpy(), index)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_window_may_hang_over_far(rng: np.random.Generator, dtype: type) -> None:
    """What it reads and counts is bounded by the plane, whatever its size."""
    x, far = rng.standard_normal((2, 3, 5, 7)).astype(dtype), 1 << 40
    values, index = F.max_pool2d(tensor(x), far, far, ceil_mode=True, return_indices=True)
    want, places = ROWS["adaptive_max_pool2d"].numpy(np, x, 1, 1)
    assert_same_bits(values.numpy(), want)
    np.testing.assert_array_equal(index.numpy(), places)
    means = F.avg_pool2d(tensor(x), far, far, ceil_mode=True)
    assert_close(means.numpy(), x.mean((2, 3), keepdims=True), "window", n=35, scale=abs(x).max())
    for stride in (far - 5, (far, far - 7)):
        with pytest.raises(nl.ShapeError, match="does not fit"):
            F.max_pool2d(tensor(x), far, stride, ceil_mode=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("planes", [1, 40])
@pytest.mark.parametrize("width", [0, 1])
def test_windows_that_see_nothing(dtype: type, planes: int, width: int) -> None:
    """Dilated ones on either side of a plane: -inf of the place -1, and no gradient of any order."""
    x = tensor(np.ones((1, planes, 17, width), dtype)).requires_grad_()
    geometry = 2, 60, (0, 1), 2, True
    values, index = F.max_pool2d(x, *geometry, return_indices=True)
    assert bool((values == -np.inf).all()) and bool((index == -1).all())
    assert bool((F.max_pool2d(x.detach(), *geometry) == -np.inf).all())
    g = tensor(np.ones((1, planes, 1, 1), dtype)).requires_grad_()
    for traced in (False, True):
        with nl.trace() if traced else nullcontext():
            (first,) = nl.grad(F.max_pool2d(x, *geometry), (x,), g, create_graph=True)
            (second,) = nl.grad(first, (g,), nl.ones_like(first))
        assert first.shape == x.shape and bool((first == 0).all())
        assert second.shape == g.shape and bool((second == 0).all())


@pytest.mark.parametrize("depth", [1, 4])
def test_places_in_three_dimensions_of_windows_that_see_nothing(depth: int) -> None:
    x = nl.arange(4.0 * depth * 2).reshape(2, 1, depth, 4, 1).requires_grad_()
    values, places = F.max_pool3d(x, 2, (1, 2, 1), (1, 0, 1), (2, 1, 2), return_indices=True)
    assert bool((values == -np.inf).all()) and bool((places == -1).all())
    (grad,) = nl.grad(values, (x,), nl.ones_like(values))
    assert bool((grad == 0).all())
