"""What is computed of whole rows and channels, and its gradients: the bits of their definitions, in any layout."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK, assert_close

import neurlang as nl
from neurlang import _tensor
from neurlang.autograd import gradcheck, gradgradcheck
from neurlang.ir.interpret import apply
from neurlang.nn import functional as F
from neurlang.ops.composite import bits_of_double as bits_of

from .contraction import Array, assert_same_bits, fma, tensor
from .reduction import largest, numbers, on_all_threads, shape_around, tree

FLOATS = [np.float32, np.float64]
LENGTHS = [1, 2, 7, 31, 32, 33, 64, 100, 511, 513, 1100, 1500]
SUMS = ["sum_squares", "sum_square_deviations", "logsumexp"]
SHAPES = [(1, 1), (3, 5), (31, 64), (33, 100), (70, 33), (511, 20), (1100, 70), (130, 600), (2, 700), (40, 1025)]


def from_definition(op: str, operands: list[Array], *attrs: int) -> list[Array]:
    with np.errstate(all="ignore"):
        return list(apply(op, operands, attrs, fma, ()))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", range(4))
def test_softmax_gradients(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    g, y = numbers(rng, shape, dtype), numbers(rng, shape, dtype)
    for op, call in (("softmax_grad", _tensor._softmax_grad), ("log_softmax_grad", _tensor._log_softmax_grad)):
        (want,) = from_definition(op, [g, y], axis)
        for got in on_all_threads(lambda call=call: call(tensor(g), tensor(y), axis)):
            assert_same_bits(got, want)


@pytest.mark.parametrize("length", [*LENGTHS, 20_000])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", range(4))
def test_what_a_row_leaves(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    for op in SUMS:
        (want,) = from_definition(op, [x], axis)
        for got in on_all_threads(lambda op=op: getattr(_tensor, f"_{op}")(tensor(x), axis)):
            assert_same_bits(got, want)


@pytest.mark.parametrize("length", [*LENGTHS, 20_000])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", range(4))
def test_deviations_from_given_centers(rng: np.random.Generator, dtype: type, length: int, case: int) -> None:
    shape, axis = shape_around(rng, length)
    x = numbers(rng, shape, dtype)
    kept = tuple(1 if d == axis else n for d, n in enumerate(shape))
    center = np.broadcast_to(numbers(rng, tuple(n if rng.random() < 0.6 else 1 for n in kept), dtype), kept)
    wanted = from_definition("deviations", [x, center], axis)
    for k, want in enumerate(wanted):
        for got in on_all_threads(lambda k=k: _tensor._deviations(tensor(x), tensor(center), axis)[k]):
            assert_same_bits(got, want)


def test_deviations_refuse_centers_of_another_shape() -> None:
    with pytest.raises(nl.ShapeError, match="centers"):
        _tensor._deviations(nl.ones(3, 4), nl.ones(1, 4), 1)


# How the axes lie as rows: the first four join, as long as rows have 4096 elements at most.
ROWS_OF_AXES = [
    ((3, 5, 7, 7), (0, 2, 3), (3, 5, 49), (0, 2)),
    ((5, 64, 64), (1, 2), (5, 4096), (1,)),
    ((2, 65, 64), (1, 2), (2, 65, 64), (1, 2)),
    ((4, 3, 2, 600), (0, 1, 2), (24, 600), (0,)),
    ((4, 3, 2, 6), (0, 2), (4, 3, 2, 6), (0, 2)),
    ((70, 80, 3, 40), (0, 1, 3), (70, 80, 3, 40), (0, 1, 3)),
]


@pytest.mark.parametrize(("shape", "axes", "rows", "joined"), ROWS_OF_AXES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_variance_over_several_axes_has_defined_bits(
    rng: np.random.Generator, dtype: type, shape: tuple[int, ...], axes: tuple[int, ...], rows: tuple[int, ...],
    joined: tuple[int, ...],
) -> None:  # fmt: skip
    def total(x: Array) -> Array:
        for axis in reversed(joined):
            x = tree(x, axis)
        return x

    x = numbers(rng, shape, dtype)
    n = dtype(np.prod([shape[d] for d in axes]))
    with np.errstate(all="ignore"):
        centred = x.reshape(rows) - total(x.reshape(rows)) / n
        rest = total(centred)
        squares = total(centred * centred)
        left = squares - rest * (rest / n)
        want = np.where(np.isnan(left), squares, np.maximum(left, dtype(0))) / n
    want = want.reshape([1 if d in axes else size for d, size in enumerate(shape)])
    for got in on_all_threads(lambda: nl.var(tensor(x), axes, unbiased=False, keepdim=True)):
        assert_same_bits(got, want)
    traced = nl.trace(lambda x: nl.var(x, axes, unbiased=False, keepdim=True))
    assert_same_bits(traced(tensor(x)).numpy(), want)


@pytest.mark.parametrize("axes", [(0, 1), (0, 2, 3), (1, 3), (2, 3), None])
def test_gradients_of_variances_over_several_axes(rng: np.random.Generator, axes: tuple[int, ...] | None) -> None:
    x = nl.from_numpy(rng.standard_normal((2, 3, 2, 3))).requires_grad_()
    assert gradcheck(lambda x: nl.var(x, axes), [x], **GRADCHECK)
    assert gradgradcheck(lambda x: nl.std(x, axes), [x], **GRADCHECK)


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1), (0, 2), (0, 1, 2)])
def test_variance_beside_a_large_mean(rng: np.random.Generator, axis: int | tuple[int, ...]) -> None:
    for shape in (300, 4, 400), (4, 170, 8):
        x = (rng.standard_normal(shape) + 1e6).astype(np.float32)
        exact = x.astype(np.float64).var(axis, ddof=1)
        assert_close(nl.var(tensor(x), axis).numpy(), exact, "variance", n=x.size // exact.size)
        assert (nl.var(nl.full(shape, 0.1), axis, unbiased=False).numpy() < 1e-14).all()


def test_variance_of_a_number() -> None:
    for dim in (0, -1, (0,), None):
        assert nl.var(nl.tensor(3.0), dim, correction=0).item() == 0


@pytest.mark.parametrize("shape", [(0, 5), (0, 64), (64, 0), (2, 0, 64)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_along_an_axis(dtype: type, shape: tuple[int, ...]) -> None:
    x = tensor(np.zeros(shape, dtype))
    for axis in range(len(shape)):
        for op in (*SUMS, "softmax", "log_softmax"):
            call = getattr(_tensor, f"_{op}", None) or getattr(nl, op)
            with np.errstate(all="ignore"):
                assert_same_bits(call(x, axis).numpy(), from_definition(op, [x.numpy()], axis)[0])
        kept = [n for d, n in enumerate(shape) if d != axis]
        assert list(nl.var(x, axis).shape) == kept and nl.isnan(nl.var(x, axis)).all().item()
        over = tuple({axis, len(shape) - 1})
        assert nl.var(x, over).numel() == np.prod([n for d, n in enumerate(shape) if d not in over])
        assert nl.isnan(nl.var(x)).item()


@pytest.mark.parametrize("shape", [(0, 6, 5, 5), (2, 0, 4, 4), (2, 6, 0, 4)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_channels_without_elements(dtype: type, shape: tuple[int, ...]) -> None:
    x = tensor(np.zeros(shape, dtype)).requires_grad_()
    weight, bias = (tensor(np.ones(shape[1], dtype)).requires_grad_() for _ in range(2))
    for y in (F.batch_norm(x, None, None, weight, bias, training=True), F.group_norm(x, 1, weight, bias)):
        gradients = nl.grad(y.sum(), (x, weight, bias))
        assert y.shape == x.shape and [g.shape for g in gradients] == [x.shape, weight.shape, bias.shape]


@pytest.mark.parametrize("n", [1, 5, 16, 17, 33, 64, 100, 255, 256])
@pytest.mark.parametrize("dtype", FLOATS)
def test_short_rows_go_side_by_side(rng: np.random.Generator, dtype: type, n: int) -> None:
    """Rows in groups of a vector's width, and those that are left over, in whole steps of memory and not."""
    for rows in (7, 16, 40, 2 * 16 + 1):
        x, g = numbers(rng, (rows, n), dtype), numbers(rng, (rows, n), dtype)
        for op, operands in (("softmax", [x]), ("log_softmax", [x]), ("softmax_grad", [g, x]),
                             ("log_softmax_grad", [g, x]), *((op, [x]) for op in SUMS)):  # fmt: skip
            (want,) = from_definition(op, operands, 1)
            call = getattr(_tensor, f"_{op}", None) or getattr(nl, op)
            for got in on_all_threads(lambda call=call, operands=operands: call(*map(tensor, operands), 1)):
                assert_same_bits(got, want)
        with np.errstate(all="ignore"):
            for got in on_all_threads(lambda x=x: nl.sum(tensor(x), 1, True)):
                assert_same_bits(got, tree(x, 1))
            for got in on_all_threads(lambda x=x: nl.amax(tensor(x), 1, True)):
                assert_same_bits(got, largest(x, 1))


@pytest.mark.parametrize("shape", [(600, 40), (1100, 130), (2, 700, 96)], ids=str)
def test_tall_columns(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """More rows than a block: softmax and its gradient down columns."""
    x, g = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    axis = len(shape) - 2
    for op in ("softmax", "log_softmax"):
        want = from_definition(op, [x], axis)[0]
        for got in on_all_threads(lambda op=op: getattr(nl, op)(tensor(x), axis)):
            assert_same_bits(got, want)
        (by_x,) = from_definition(f"{op}_grad", [g, want], axis)
        for got in on_all_threads(lambda op=op, y=want: getattr(_tensor, f"_{op}_grad")(tensor(g), tensor(y), axis)):
            assert_same_bits(got, by_x)


@pytest.mark.parametrize("length", [1, 2, 4, 7, 28, 32, 33, 128, 130, 512, 514])
@pytest.mark.parametrize("columns", [2, 3, 4, 7, 8, 14, 15, 17, 28, 40, 1039, 2047])
@pytest.mark.parametrize("dtype", FLOATS)
def test_columns_of_any_width(rng: np.random.Generator, dtype: type, columns: int, length: int) -> None:
    """Several items of columns that do not fill a vector, fill some, or are cut into tiles; whole and in a window."""
    items = 5 if length * columns < 10_000 else 1
    whole = [numbers(rng, (items, length, columns + 3), dtype) for _ in range(2)]
    for cut in (lambda a: np.ascontiguousarray(a[..., 3:]), lambda a: a[:, :, 1:-2], lambda a: a[:, ::-1, 3:]):
        x, g = map(cut, whole)
        for op, operands in (("softmax", [x]), ("log_softmax", [x]), ("softmax_grad", [g, x]),
                             ("log_softmax_grad", [g, x]), *((op, [x]) for op in SUMS)):  # fmt: skip
            (want,) = from_definition(op, operands, 1)
            call = getattr(_tensor, f"_{op}", None) or getattr(nl, op)
            assert_same_bits(call(*map(tensor, operands), 1).numpy(), want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_norms(rng: np.random.Generator, dtype: type, shape: tuple[int, int], eps: float) -> None:
    g, x = numbers(rng, shape, dtype), numbers(rng, shape, dtype)
    weight = numbers(rng, shape[1:], dtype)
    (want,) = from_definition("rms_norm", [x, weight], bits_of(eps))
    for got in on_all_threads(lambda: F.rms_norm(tensor(x), shape[1:], tensor(weight), eps)):
        assert_same_bits(got, want)
    for op, call in (("layer_norm_grad", _tensor._layer_norm_grad), ("rms_norm_grad", _tensor._rms_norm_grad)):
        wanted = from_definition(op, [g, x, weight], bits_of(eps))
        for i, want in enumerate(wanted):
            for got in on_all_threads(
                lambda call=call, i=i: call(tensor(g), tensor(x), tensor(weight), bits_of(eps))[i]
            ):
                assert_same_bits(got, want)


def test_rms_norm_against_torch(rng: np.random.Generator, torch: Any) -> None:
    x, weight = rng.standard_normal((5, 6, 7)), rng.standard_normal((6, 7))
    for eps in (None, 0.1):
        want = torch.nn.functional.rms_norm(torch.tensor(x), (6, 7), torch.tensor(weight), eps).numpy()
        assert_close(F.rms_norm(tensor(x), (6, 7), tensor(weight), eps).numpy(), want, "layer_norm", n=42)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_gradients_of_both_orders(rng: np.random.Generator, rows: int) -> None:
    x, w, b = (nl.from_numpy(rng.standard_normal(s)).requires_grad_() for s in ((rows, 4), (4,), (4,)))
    calls = [
        (lambda x, w, b: F.layer_norm(x, (4,), w, b), [x, w, b]),
        (lambda x, w: F.rms_norm(x, (4,), w), [x, w]),
        (lambda x: nl.softmax(x, 0), [x]),
        (lambda x: nl.log_softmax(x, 1), [x]),
        (lambda x: F.group_norm(x.reshape(rows, 2, 2), 1), [x]),
    ]
    for call, inputs in calls[:2] if rows == 0 else calls:
        assert gradcheck(call, inputs, **GRADCHECK)
        assert gradgradcheck(call, inputs, **GRADCHECK)


# Short pieces in whole groups and not, pieces longer than a block, one piece, one element; vectors of whole pieces, of
# the ends of two, and as many as one piece has.
CHANNELS = [
    (1, 1, 1, 1),
    (2, 3, 4, 5),
    (33, 2, 3, 49),
    (3, 5, 16, 49),
    (2, 2, 40, 17),
    (2, 3, 7, 16),
    (2, 2, 5, 95),
    (3, 2, 20, 130),
    (5, 1, 2, 700),
    (2, 2, 1, 1030),
    (2, 40, 1, 16),
    (2, 40, 30, 3),
    (600, 1, 5, 2),
]


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("shape", CHANNELS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_channel_norm_and_its_gradients(
    rng: np.random.Generator, dtype: type, shape: tuple[int, ...], axis: int
) -> None:
    x, g = numbers(rng, shape, dtype), numbers(rng, shape, dtype)
    weight, bias = (numbers(rng, (*shape[1:3], 1), dtype) for _ in range(2))
    attrs = axis, bits_of(1e-5)
    want = from_definition("channel_norm", [x, weight, bias], *attrs)
    backward = [g, x, weight, *want[1:]]
    wanted = want + from_definition("channel_norm_grad", backward, *attrs)
    forward = lambda: _tensor._channel_norm(tensor(x), tensor(weight), tensor(bias), *attrs)  # noqa: E731
    gradient = lambda: _tensor._channel_norm_grad(*map(tensor, backward), *attrs)  # noqa: E731
    for k in range(6):
        for got in on_all_threads(lambda k=k: (forward() if k < 3 else gradient())[k % 3]):
            assert_same_bits(got, wanted[k])


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("size", [49, 513, 4096])
@pytest.mark.parametrize("dtype", FLOATS)
def test_channel_norms_of_mixed_layouts(rng: np.random.Generator, dtype: type, size: int, axis: int) -> None:
    """The input and the gradient with pieces side by side, pieces apart, channels last; one number for a gradient."""
    shape, attrs = (2, 3, 2, size), (axis, bits_of(1e-5))
    x, g = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal((*shape[1:3], 1)).astype(dtype) for _ in range(2))
    wanted = from_definition("channel_norm", [x, weight, bias], *attrs)
    backward = [g, x, weight, *wanted[1:]]
    want = from_definition("channel_norm_grad", backward, *attrs)
    layouts = (
        np.ascontiguousarray,
        lambda a: np.pad(a, [(0, 0)] * 3 + [(0, 3)])[..., :size],
        lambda a: np.ascontiguousarray(a.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0),
    )
    for of_g, of_x in itertools.product(layouts, repeat=2):
        backward[:2] = of_g(g), of_x(x)
        got = _tensor._channel_norm(*map(tensor, (of_x(x), weight, bias)), *attrs)
        got += _tensor._channel_norm_grad(*map(tensor, backward), *attrs)
        for one, right in zip(got, wanted + want, strict=True):
            assert_same_bits(one.numpy(), right)
    one = np.broadcast_to(np.ones(1, dtype), shape)
    want = from_definition("channel_norm_grad", [np.array(one), *backward[1:]], *attrs)
    ones = tensor(np.ones(1, dtype)).expand(*shape)
    for got, right in zip(_tensor._channel_norm_grad(ones, *map(tensor, backward[1:]), *attrs), want, strict=True):
        assert_same_bits(got.numpy(), right)


@pytest.mark.parametrize("shape", [(2, 3, 5), (17, 4, 300), (3, 70, 49), (2, 40, 900), (1, 1, 1), (4, 2, 1)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_channel_affine(rng: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> None:
    operands = [numbers(rng, s, dtype) for s in (shape, *[(shape[1], 1)] * 3)]
    (want,) = from_definition("channel_affine", operands)
    for got in on_all_threads(lambda: _tensor._channel_affine(*map(tensor, operands))):
        assert_same_bits(got, want)


@pytest.mark.parametrize("form", ["batch_norm", "group_norm", "batch_norm of vectors", "batch_norm, not training"])
def test_gradients_of_channel_norms(rng: np.random.Generator, form: str) -> None:
    shape = (4, 6) if "vectors" in form else (3, 6, 5)
    x, weight, bias = (nl.tensor(rng.standard_normal(s), requires_grad=True) for s in (shape, (6,), (6,)))
    mean, var = nl.tensor(rng.standard_normal(6)), nl.tensor(rng.random(6) + 0.5)
    run = {
        "group_norm": lambda x, w, b: F.group_norm(x, 2, w, b),
        "batch_norm, not training": lambda x, w, b: F.batch_norm(x, mean, var, w, b),
    }.get(form, lambda x, w, b: F.batch_norm(x, None, None, w, b, True))
    assert gradcheck(run, (x, weight, bias), **GRADCHECK)
    assert gradgradcheck(run, (x, weight, bias), **GRADCHECK)


@pytest.mark.parametrize("shape", [(4, 6, 3, 5), (2, 8, 40)])
def test_channel_norms_hold_to_pytorch(rng: np.random.Generator, torch: Any, shape: tuple[int, ...]) -> None:
    """Beside a mean of 1e6 too: the variance takes two passes."""
    for offset in (0.0, 1e6):
        x = (rng.standard_normal(shape) + offset).astype(np.float32)
        exact = torch.tensor(x).double()
        ours, theirs = F.batch_norm(tensor(x), None, None, training=True), torch.nn.functional.batch_norm
        want = theirs(exact, None, None, training=True).numpy()
        assert_close(ours.numpy(), want, "rounding of a large mean", scale=1 + offset)
        ours, theirs = F.group_norm(tensor(x), 2), torch.nn.functional.group_norm
        assert_close(ours.numpy(), theirs(exact, 2).numpy(), "rounding of a large mean", scale=1 + offset)
