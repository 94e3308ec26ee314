"""Convolutions of one and three axes, and their gradients, against PyTorch; their errors; traced as eager."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl


def random_case(rng: np.random.Generator, axes: int, transposed: bool) -> tuple[list[np.ndarray], tuple[Any, ...]]:
    """Input, weight and bias, and the arguments behind them."""
    groups = int(rng.integers(1, 3))
    kernel, stride, dilation, padding = (
        tuple(int(n) for n in rng.integers(low, high, axes)) for low, high in ((1, 4), (1, 3), (1, 4), (0, 2))
    )
    x = rng.standard_normal((2, 2 * groups, *rng.integers(8, 10, axes)))
    weight = (2 * groups, 3, *kernel) if transposed else (3 * groups, 2, *kernel)
    extra = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
    options = (stride, padding, extra, groups, dilation) if transposed else (stride, padding, dilation, groups)
    return [x, rng.standard_normal(weight), rng.standard_normal(3 * groups)], options


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_values_and_gradients(rng: np.random.Generator, torch: Any, axes: int, transposed: bool) -> None:
    name = f"conv_transpose{axes}d" if transposed else f"conv{axes}d"
    for _ in range(8):
        arrays, options = random_case(rng, axes, transposed)
        theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        ours = [nl.tensor(a).requires_grad_() for a in arrays]
        want = getattr(torch.nn.functional, name)(*theirs, *options)
        got = getattr(nl.functional, name)(*ours, *options)
        assert_close(got.detach().numpy(), want.detach().numpy(), "dot", scale=np.abs(want.detach().numpy()).max() + 1)
        (want**2).sum().backward()
        (got**2).sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a.grad.numpy(), b.grad.numpy(), "dot", scale=np.abs(b.grad.numpy()).max() + 1)


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch's: it may copy
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_padding_of_odd_and_even_kernels(rng: np.random.Generator, torch: Any, kernel: int, axes: int) -> None:
    """Where an odd number of zeros is wanted, the last of them stands behind, as in PyTorch."""
    x, w = rng.standard_normal((2, 2) + (7,) * axes), rng.standard_normal((3, 2, kernel) + (2,) * (axes - 1))
    for dilation in (1, 2, 3):
        want = getattr(torch.nn.functional, f"conv{axes}d")(
            torch.tensor(x), torch.tensor(w), padding="same", dilation=dilation
        )
        got = getattr(nl.functional, f"conv{axes}d")(nl.tensor(x), nl.tensor(w), padding="same", dilation=dilation)
        assert_close(got.numpy(), want.numpy(), "dot", scale=np.abs(want.numpy()).max() + 1)


@pytest.mark.parametrize("case", [(1, 5, 1, 2, 1), (2, 7, 1, 3, 1), (1, 3, 1, 2, 4), (2, 4, 2, 2, 1), (3, 2, 3, 1, 2)])
def test_taps_that_padding_crops_altogether(rng: np.random.Generator, torch: Any, case: tuple[int, ...]) -> None:
    extent, kernel, stride, padding, dilation = case
    for axes in (1, 2, 3):
        x, w = rng.standard_normal((2, 3) + (extent,) * axes), rng.standard_normal((3, 2) + (kernel,) * axes)
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        theirs, ours = (getattr(lib, f"conv_transpose{axes}d") for lib in (torch.nn.functional, nl.functional))
        want = theirs(torch.tensor(x), torch.tensor(w), **options).numpy()
        got = ours(nl.tensor(x), nl.tensor(w), **options).numpy()
        assert_close(got, want, "dot", scale=np.abs(want).max() + 1)


@pytest.mark.parametrize("form", ["conv{}d", "conv_transpose{}d"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_no_images(torch: Any, axes: int, form: str) -> None:
    name, x, w = form.format(axes), np.zeros((0, 2) + (5,) * axes), np.zeros((2, 2) + (3,) * axes)
    want = getattr(torch.nn.functional, name)(torch.tensor(x), torch.tensor(w))
    assert getattr(nl.functional, name)(nl.tensor(x), nl.tensor(w)).shape == tuple(want.shape)


@pytest.mark.parametrize("name", ["conv1d", "conv3d", "conv_transpose1d", "conv_transpose3d"])
def test_traced_is_eager(rng: np.random.Generator, name: str) -> None:
    arrays, options = random_case(rng, int(name[-2]), "transpose" in name)
    tensors = [nl.tensor(a.astype(np.float32)) for a in arrays]
    function = getattr(nl.functional, name)
    traced = nl.trace(lambda *t: nl.relu(function(*t, *options)))
    for _ in range(2):
        np.testing.assert_array_equal(traced(*tensors).numpy(), nl.relu(function(*tensors, *options)).numpy())
    assert traced.counts.replayed == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda F: F.conv1d(nl.ones(1, 2, 5, 5), nl.ones(1, 2, 3)),
        lambda F: F.conv1d(nl.ones(1, 2, 5), nl.ones(1, 2, 3), stride=(1, 2)),
        lambda F: F.conv1d(nl.ones(1, 2, 5), nl.ones(1, 3, 3)),
        lambda F: F.conv1d(nl.ones(1, 2, 2), nl.ones(1, 2, 3)),
        lambda F: F.conv3d(nl.ones(1, 2, 5, 5), nl.ones(1, 2, 3)),
        lambda F: F.conv3d(nl.ones(1, 2, 2, 5, 5), nl.ones(1, 2, 3, 1, 1)),
        lambda F: F.conv3d(nl.ones(1, 2, 5, 5, 5), nl.ones(1, 2, 3, 1, 1), stride=0),
        lambda F: F.conv3d(nl.ones(1, 2, 5, 5, 5), nl.ones(1, 2, 2, 2, 2), padding="same", stride=2),
        lambda F: F.conv_transpose3d(nl.ones(1, 2, 1, 1, 1), nl.ones(2, 1, 1, 1, 1), padding=1),
        lambda F: F.conv_transpose3d(nl.ones(1, 2, 3, 3, 3), nl.ones(2, 1, 1, 1, 1), output_padding=1),
        lambda F: F.conv3d(nl.ones(1, 1, 4, 4, 4), nl.ones(1, 1, 2, 2, 2), padding=(-1, 0, 0)),
        lambda F: F.conv3d(nl.ones(1, 1, 4, 4, 4), nl.ones(1, 1, 0, 2, 2)),
        lambda F: F.conv_transpose3d(nl.ones(1, 1, 4, 4, 4), nl.ones(1, 1, 0, 2, 2)),
        lambda F: F.conv_transpose1d(nl.ones(1, 1, 2), nl.ones(1, 1, 3), padding=2),
        lambda F: F.conv_transpose2d(nl.ones(1, 1, 2, 2), nl.ones(1, 1, 3, 3), padding=2),
        lambda F: F.conv2d(nl.ones(1, 1, 4, 4), nl.ones(1, 1, 0, 2), padding="same"),
        lambda F: nl.nn.Conv2d(1, 1, 2, stride=2, padding="same"),
    ],
)
def test_what_does_not_fit_is_named(call: Any) -> None:
    with pytest.raises(nl.ShapeError, match=r"[Cc]onv"):
        call(nl.functional)


def test_padding_by_name_is_checked_of_what_was_given() -> None:
    with pytest.raises(nl.ShapeError, match=r"\[1, 1, 4, 4\]"):
        nl.conv2d(nl.ones(1, 1, 4, 4), nl.ones(1, 2, 2, 2), padding="same")
    with pytest.raises(nl.ShapeError, match=r"conv3d: padding='same' needs stride 1, got \(1, 2, 1\)"):
        nl.conv3d(nl.ones(1, 1, 4, 4, 4), nl.ones(1, 1, 2, 2, 2), padding="same", stride=(1, 2, 1))
    for axes in (1, 2, 3):
        x = nl.ones(1, 1, *(4,) * axes)
        with pytest.raises(ValueError, match=f"conv{axes}d: padding must be .* 'some'"):
            getattr(nl, f"conv{axes}d")(x, x, padding="some")
        with pytest.raises(ValueError, match=f"Conv{axes}d: padding must be .* 'some'"):
            getattr(nl.nn, f"Conv{axes}d")(1, 1, 2, padding="some")


@pytest.mark.parametrize("form", ["conv{}d", "conv_transpose{}d"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_bias_of_another_dtype_is_refused(axes: int, form: str) -> None:
    x = nl.ones(1, 1, *(2,) * axes)
    with pytest.raises(nl.DTypeError, match=r"conv.*one float dtype"):
        getattr(nl, form.format(axes))(x, x, nl.ones(1, dtype=nl.float64))


def test_conv_transpose3d_refuses_a_bias_of_another_length() -> None:
    x, w = nl.ones(1, 2, 1, 1, 1), nl.ones(2, 3, 1, 1, 1)
    for bias in (nl.ones(1), nl.ones(4), nl.ones(3, 1)):
        with pytest.raises(ValueError, match="bias must have shape"):
            nl.conv_transpose3d(x, w, bias)
