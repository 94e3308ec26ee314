"""Tensors as PyTorch's and NumPy's users expect them: axes of 0-d tensors, arguments, protocols."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import neurlang as nl
from neurlang.nn import functional as F

Use = Callable[[nl.Tensor], Any]

# ---- 0-d tensors: an axis argument of 0 or -1 means the one element, but there is no extent and nothing to cut ----

ZERO = nl.tensor(0)
WITH_AXIS: dict[str, Use] = {
    "sum": lambda x: x.sum(-1),
    "max": lambda x: x.max(0).values,
    "argmin": lambda x: x.argmin(0),
    "softmax": lambda x: x.softmax(0),
    "transpose": lambda x: x.transpose(0, -1),
    "gather": lambda x: x.gather(0, ZERO),
    "gather by a vector": lambda x: x.gather(0, nl.tensor([0, 0])),
    "index_select": lambda x: x.index_select(0, nl.tensor([0])),
    "index_add": lambda x: x.index_add(0, ZERO, nl.tensor(2.5)),
    "scatter_add": lambda x: x.scatter_add(0, nl.tensor([0, 0]), nl.tensor([0.5, 2.0])),
}
WITHOUT_AXIS: dict[str, Use] = {
    "size": lambda x: x.size(0),
    "stride": lambda x: x.stride(0),
    "split": lambda x: x.split(1),
    "chunk": lambda x: x.chunk(1),
    "unbind": lambda x: x.unbind(),
    "narrow": lambda x: x.narrow(0, 0, 1),
    "select": lambda x: x.select(0, 0),
    "unflatten": lambda x: x.unflatten(0, (1, 1)),
    "cat": lambda x: nl.cat([x]),
}


@pytest.mark.parametrize("name", WITH_AXIS)
def test_a_0d_tensor_is_its_one_element(name: str) -> None:
    results = []
    for shape in ((), (1,)):
        x = nl.full(shape, 3.5, requires_grad=True)
        y = WITH_AXIS[name](x)
        if y.requires_grad:
            (y * y).sum().backward()
        results.append((y.flatten().tolist(), None if x.grad is None else x.grad.item()))
    assert results[0] == results[1]
    assert WITH_AXIS[name](nl.tensor(3.5)).shape == ((2,) if name == "gather by a vector" else ())


@pytest.mark.parametrize("name", WITHOUT_AXIS)
def test_a_0d_tensor_has_no_axis(name: str) -> None:
    with pytest.raises(nl.ShapeError, match=name):
        WITHOUT_AXIS[name](nl.tensor(3.5))


# ---- arguments as in PyTorch ----


def test_operands_have_pytorchs_names() -> None:
    x, rows = nl.rand(3, 4), nl.tensor([2, 0])
    assert nl.zeros_like(input=x).shape == (3, 4)
    assert nl.softmax(input=x, dim=1).tolist() == x.softmax(1).tolist()
    assert nl.matmul(input=x, other=x.t()).tolist() == (x @ x.t()).tolist()
    assert nl.index_select(input=x, dim=0, index=rows).tolist() == x[rows].tolist()
    assert nl.where(x > 0.5, input=x, other=0.0).tolist() == x.where(x > 0.5, 0.0).tolist()
    assert nl.pow(input=x, exponent=3).tolist() == (x**3).tolist()
    assert nl.div(input=x, other=2).tolist() == (x / 2).tolist()
    assert nl.reshape(input=x, shape=(2, -1)).tolist() == x.reshape(shape=(2, -1)).tolist() == x.reshape(2, 6).tolist()


def test_arguments_of_scripts_for_several_devices() -> None:
    x = nl.arange(3)
    assert x.to("cpu", nl.float64, non_blocking=True).copy_(x, non_blocking=True).tolist() == [0.0, 1.0, 2.0]
    for make in (x.new_zeros, x.new_ones, x.new_empty):
        assert make((2, 3), dtype=nl.float32, device=x.device, requires_grad=True).requires_grad
    assert x.new_full((2,), 7, dtype=nl.float32, device="cpu", requires_grad=True).requires_grad
    assert x.new_tensor([1.0], dtype=nl.float32, device="cpu", requires_grad=True).requires_grad
    for like in (nl.rand_like, nl.randn_like):
        assert like(x, dtype=nl.float32, device="cpu", requires_grad=True).requires_grad


def test_a_maximum_keeps_its_axes_or_is_of_two() -> None:
    x = nl.rand(3, 4)
    assert x.max(keepdim=True).shape == nl.min(x, keepdim=True).shape == (1, 1)
    for wrong in (lambda: x.max(0, other=x), lambda: nl.min(x, other=x, keepdim=True)):
        with pytest.raises(TypeError, match="another tensor is given"):
            wrong()


BITS = ["bool", "uint8", "int16", "float16", "bfloat16", "int32", "float32", "int64", "float64"]
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda x: x,
    "one element": lambda x: x[0, 0],
    "rows behind others": lambda x: x[2:],
    "some columns": lambda x: x[:, 2:6],
    "an odd place": lambda x: x[:, 1:5],
    "every second": lambda x: x[:, ::2],
    "turned": lambda x: x.t(),
}


def test_a_view_as_the_same_dtype_keeps_its_history() -> None:
    x = nl.tensor([1.0, 2.0], requires_grad=True)
    (x.view(x.dtype) * 3).sum().backward()
    assert x.grad.tolist() == [3, 3]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kind", BITS)
def test_memory_viewed_as_another_dtype(kind: str, name: str, rng: np.random.Generator, torch: Any) -> None:
    for wanted in BITS:
        numbers = rng.integers(0, 2, (4, 8 * getattr(nl, kind).itemsize)).astype(np.uint8)
        memory, theirs = (lib.tensor(numbers).view(getattr(lib, kind)) for lib in (nl, torch))
        try:
            expected = LAYOUTS[name](theirs).view(getattr(torch, wanted))
        except RuntimeError:
            with pytest.raises(nl.ShapeError, match="view"):
                LAYOUTS[name](memory).view(getattr(nl, wanted))
            continue
        got = LAYOUTS[name](memory).view(getattr(nl, wanted))
        assert got.stride() == expected.stride() and got.tolist() == expected.tolist()
        for x in (got, expected):
            x.zero_()
        assert memory.tolist() == theirs.tolist()


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_a_power_of_bools_is_an_integer(exponent: int, torch: Any) -> None:
    ours, theirs = (lib.tensor([True, False]) ** exponent for lib in (nl, torch))
    assert ours.dtype is nl.int64
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("function", [nl.mean, nl.var, nl.std, nl.sum])
def test_no_axes_are_all_axes(function: Callable[..., nl.Tensor]) -> None:
    x = nl.rand(3, 4)
    assert function(x, ()).tolist() == function(x).tolist()
    assert function(x, [], keepdim=True).tolist() == function(x, (0, 1), keepdim=True).tolist()


def test_variance_takes_unbiased_by_place_and_by_name(rng: np.random.Generator) -> None:
    a = rng.standard_normal((3, 4))
    x = nl.from_numpy(a)
    for got in (nl.var(x, 1, False), x.var(1, False), x.var(1, unbiased=False), x.var(1, correction=0)):
        np.testing.assert_array_equal(got.numpy(), x.var(dim=1, correction=0).numpy())
    assert x.var(False).item() == x.var(unbiased=False).item() == x.var(correction=0).item()
    assert nl.std(x, 0, True, True).shape == (1, 4)
    assert x.var(0, correction=5).isinf().all()


def test_a_kept_axis_of_the_place_of_the_maximum() -> None:
    x = nl.tensor([[1, 5], [7, 2]])
    assert x.argmax(keepdim=True).tolist() == [[2]]
    assert x.argmin(None, True).tolist() == [[0]]


def test_numbers_may_be_tensors_of_one_element() -> None:
    assert nl.arange(nl.tensor(3)).dtype is nl.int64
    assert nl.arange(nl.tensor(1), nl.tensor([7]), nl.tensor(2.0)).tolist() == [1.0, 3.0, 5.0]
    assert nl.full((2,), nl.tensor(4.0), requires_grad=True).requires_grad
    assert 2 <= nl.empty(1).uniform_(nl.tensor(2), nl.tensor(3.0)).item() < 3


@pytest.mark.parametrize("bounds", [(nl.ones(3), 2), (0, nl.zeros(0)), (None, 1), ("0", 1)])
def test_a_bound_that_is_no_number(bounds: tuple[Any, Any]) -> None:
    for draw in (nl.empty(2).uniform_, nl.empty(2).normal_):
        with pytest.raises((TypeError, ValueError)):
            draw(*bounds)


def test_one_boolean_is_no_index() -> None:
    with pytest.raises(IndexError, match="boolean"):
        nl.ones(2)[nl.tensor(True)]


def test_nan_to_num_of_integers_is_a_copy() -> None:
    x = nl.tensor([1, 2])
    y = nl.nan_to_num(x)
    assert y.tolist() == [1, 2]
    assert not nl.shares_memory(x, y)


def test_an_f_string_shows_the_number_of_a_0d_tensor() -> None:
    assert f"{nl.tensor(1.5)} {nl.tensor(3)} {nl.tensor(1.25):.1f}" == "1.5 3 1.2"
    assert f"{nl.tensor([1, 2])}" == "tensor([1, 2])"


# ---- arguments that make no sense ----


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(nl.ShapeError, match="nested"):
        nl.tensor(endless)


LOGITS, CLASSES, HALVES = nl.zeros(3, 4), nl.tensor([0, 1, 2]), nl.full((3,), 0.5)
SENSELESS: dict[str, Callable[[], Any]] = {
    "cross_entropy: weight": lambda: F.cross_entropy(LOGITS, CLASSES, weight=nl.ones(3)),
    "cross_entropy: label_smoothing": lambda: F.cross_entropy(LOGITS, CLASSES, label_smoothing=1.5),
    "nll_loss: weight": lambda: F.nll_loss(LOGITS, CLASSES, weight=nl.ones(5)),
    "binary_cross_entropy: target": lambda: F.binary_cross_entropy(HALVES, nl.ones(1)),
    "binary_cross_entropy_with_logits: target": lambda: F.binary_cross_entropy_with_logits(HALVES, nl.ones(3, 1)),
    "interpolate: .0": lambda: F.interpolate(nl.zeros(1, 2, 3, 4), size=0),
    "interpolate: .nan": lambda: F.interpolate(nl.zeros(1, 2, 3, 4), scale_factor=float("nan")),
    "interpolate: .2, 2, 2": lambda: F.interpolate(nl.zeros(1, 2, 3, 4), size=(2, 2, 2)),
    "tril: at least 2": lambda: nl.zeros(3).tril(),
    "triu: at least 2": lambda: nl.triu(nl.tensor(1.0)),
    "cross_entropy: at least 1": lambda: F.cross_entropy(nl.tensor(1.0), nl.tensor(0)),
    "nll_loss: at least 1": lambda: F.nll_loss(nl.tensor(1.0), nl.tensor(0)),
    "group_norm: at least 2": lambda: F.group_norm(nl.zeros(3), 1),
    "pixel_shuffle: at least 3": lambda: F.pixel_shuffle(nl.zeros(4, 4), 2),
    "pixel_shuffle: 4 channels": lambda: F.pixel_shuffle(nl.zeros(4, 4, 4), 0),
    "scaled_dot_product_attention: at least 2": lambda: F.scaled_dot_product_attention(LOGITS, LOGITS, nl.zeros(4)),
    "adaptive_avg_pool2d: output_size": lambda: F.adaptive_avg_pool2d(nl.zeros(1, 2, 3, 4), (1, 2, 3)),
}


NO_TENSORS: dict[str, Callable[[], Any]] = {
    "cross_entropy: target must be a Tensor, got int": lambda: F.cross_entropy(LOGITS, 3),
    "cross_entropy: input must be a Tensor, got str": lambda: F.cross_entropy("a", CLASSES),
    "mse_loss: target must be a Tensor, got list": lambda: F.mse_loss(HALVES, target=[1, 2, 3]),
    "linear: expected a Tensor, got NoneType": lambda: F.linear(LOGITS, None),
    "batch_norm: weight must be a Tensor, got int": lambda: F.batch_norm(LOGITS, None, None, 2, training=True),
    "clamp: expected a Tensor, got int": lambda: nl.clamp(3, 1),
    "full_like: expected a Tensor, got int": lambda: nl.full_like(3, 1),
    "rand_like: expected a Tensor, got tuple": lambda: nl.rand_like((2, 3)),
    "view_as: expected a Tensor, got tuple": lambda: LOGITS.view_as((4, 3)),
    "reshape_as: expected a Tensor, got int": lambda: LOGITS.reshape_as(3),
    "expand_as: expected a Tensor, got int": lambda: LOGITS.expand_as(3),
    "expected a Tensor or a number, got object": lambda: object() in LOGITS,
    "hardswish: input must be a Tensor, got tuple": lambda: F.hardswish((1, 2), inplace=True),
    "backward: expected a Tensor, got int": lambda: nl.ones(1, requires_grad=True).backward(3),
    "grad: expected a Tensor, got float": lambda: nl.grad(nl.ones(1, requires_grad=True), 1.5),
    "isclose: expected a Tensor, got int": lambda: LOGITS.isclose(0),
    "outer: vec2 must be a Tensor, got list": lambda: nl.outer(HALVES, [1.0]),
    "tril: input must be a Tensor, got tuple": lambda: nl.tril((1, 2)),
}


@pytest.mark.parametrize("message", NO_TENSORS)
def test_an_argument_that_had_to_be_a_tensor_is_named(message: str) -> None:
    with pytest.raises(nl.DTypeError, match=message):
        NO_TENSORS[message]()


def test_other_errors_of_functions_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match="target"):
        F.mse_loss(HALVES)
    with pytest.raises(TypeError, match="foo"):
        F.mse_loss(HALVES, HALVES, foo=1)


NO_INTEGERS: dict[str, Callable[[], Any]] = {
    "sum: expected an integer, got None": lambda: LOGITS.sum([None]),
    "reshape: expected an integer, got 1.5": lambda: LOGITS.reshape(1.5, 8),
    "softmax: expected an integer, got 'a'": lambda: LOGITS.softmax("a"),
    "transpose: expected an integer, got None": lambda: LOGITS.transpose(0, None),
    "mean: expected an integer, got 'a'": lambda: LOGITS.mean("a"),
    "var: expected an integer, got 'a'": lambda: LOGITS.var("a"),
    "std: expected an integer, got 1.5": lambda: nl.std(LOGITS, 1.5),
    "norm: expected an integer, got 'a'": lambda: nl.norm(LOGITS, 2, (0, "a")),
    "normalize: expected an integer, got None": lambda: F.normalize(LOGITS, dim=[None]),
    "logsumexp: expected an integer, got 0.5": lambda: LOGITS.logsumexp(0.5),
    "count_nonzero: expected an integer, got 'a'": lambda: nl.count_nonzero(LOGITS, "a"),
    "roll: expected an integer, got 1.5": lambda: nl.roll(LOGITS, 1.5, 0),
    "movedim: expected an integer, got 'a'": lambda: nl.movedim(LOGITS, "a", 0),
    r"argmax: expected an integer, got \(0, 1\)": lambda: LOGITS.argmax((0, 1)),
    r"max: expected an integer, got \(\)": lambda: LOGITS.max(()),
}


@pytest.mark.parametrize("message", NO_INTEGERS)
def test_an_argument_that_had_to_be_an_integer_is_named(message: str) -> None:
    with pytest.raises(nl.DTypeError, match=message):
        NO_INTEGERS[message]()


OVER_AXES = ["mean", "var", "std", "norm", "normalize", "logsumexp", "count_nonzero", "sum", "amax", "argmax", "roll"]


@pytest.mark.parametrize("name", OVER_AXES)
def test_integers_of_numpy_name_axes_as_pythons_do(name: str, rng: np.random.Generator) -> None:
    x = nl.from_numpy(rng.standard_normal((3, 4)))
    key = "dims" if name == "roll" else "dim"
    function = functools.partial(getattr(F, name, None) or getattr(nl, name), x, *([1] if name == "roll" else []))
    for axis in (0, 1, -1):
        for given in (np.int64(axis), np.int8(axis)):
            assert function(**{key: given}).tolist() == function(**{key: axis}).tolist()
    for axis in (2, -3):
        with pytest.raises(nl.ShapeError, match=f"^{name}: axis {axis} is out of range"):
            function(**{key: np.int64(axis)})


ABSURD: dict[str, Callable[[], Any]] = {
    "interpolate": lambda: F.interpolate(nl.ones(1, 1, 3, 3), size=2**40),
    "interpolate to a multiple": lambda: F.interpolate(nl.ones(1, 1, 4, 4), size=2**40),
    "pad": lambda: F.pad(nl.ones(3), (2**40, 0), mode="replicate"),
    "repeat_interleave": lambda: nl.repeat_interleave(nl.ones(3), 2**50),
    "arange": lambda: nl.arange(0, 1e300, 1e-300),
    "linspace": lambda: nl.linspace(0, 1, 2**60),
    "randperm": lambda: nl.randperm(-1),
    "one_hot": lambda: F.one_hot(nl.tensor([0]), 2**45),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_sizes_are_refused_at_once(name: str) -> None:
    with pytest.raises((nl.ShapeError, MemoryError)):
        ABSURD[name]()


def test_keys_of_too_many_parts_are_refused() -> None:
    x = nl.zeros(1, 1, 1, 1, 1, 1, 1, 1)
    for key in ((None,) * 14 + (...,), (..., *(None,) * 14), (None,) * 14 + (np.ones(x.shape, bool),), (None,) * 40):
        with pytest.raises(nl.ShapeError, match="more than the 8 axes"):
            x[key]
        with pytest.raises(nl.ShapeError, match="more than the 8 axes"):
            x[key] = 1.0


def test_numbers_beyond_64_bits_index_as_in_numpy() -> None:
    x, far = nl.arange(5), 10**30
    for key in (slice(None, None, far), slice(None, None, -far), slice(1, far), slice(-far, 3, far), slice(far, None)):
        assert x[key].tolist() == x.numpy()[key].tolist()
    for index in (far, -far):
        with pytest.raises(IndexError, match="axis 0"):
            x[index]


def test_counts_of_integers_are_exact() -> None:
    assert nl.arange(2**62, 2**62 + 3).tolist() == [2**62, 2**62 + 1, 2**62 + 2]
    assert nl.arange(5, -4, -3).tolist() == list(range(5, -4, -3))
    assert nl.arange(5, 9, -1).shape == (0,)


@pytest.mark.parametrize("name", ["mm", "bmm", "mv", "dot"])
def test_products_by_rank(name: str, torch: Any, rng: np.random.Generator) -> None:
    shapes = [(2,), (2, 2), (3, 2, 2), (1, 2, 2)]
    for a in shapes:
        for b in shapes:
            x, y = (rng.integers(-9, 9, shape) for shape in (a, b))
            try:
                expected = getattr(torch, name)(torch.from_numpy(x), torch.from_numpy(y))
            except RuntimeError:
                for call in (getattr(nl, name), getattr(nl.Tensor, name)):
                    with pytest.raises(nl.ShapeError, match=name):
                        call(nl.from_numpy(x), nl.from_numpy(y))
            else:
                got = getattr(nl, name)(nl.from_numpy(x), nl.from_numpy(y))
                np.testing.assert_array_equal(got.numpy(), expected.numpy())


def test_empty_parts_of_cat_promote(torch: Any) -> None:
    for lib in (nl, torch):
        joined = lib.cat([lib.ones(2, 2, dtype=lib.int64), lib.zeros(0)])
        assert joined.dtype is lib.float32 and tuple(joined.shape) == (2, 2)


def test_a_shallow_copy_shares_memory(torch: Any) -> None:
    for lib in (nl, torch):
        x = lib.ones(2, requires_grad=True)
        for y in (copy.copy(x), copy.copy(x * 1), copy.copy(lib.nn.Parameter(x.detach()))):
            assert y.requires_grad and y.is_leaf
        assert copy.copy(x).data_ptr() == x.data_ptr()
        assert isinstance(copy.copy(lib.nn.Parameter(x.detach())), lib.nn.Parameter)


@pytest.mark.parametrize("message", SENSELESS)
def test_senseless_arguments_are_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SENSELESS[message]()


# ---- numbers and arrays beside tensors ----


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
@pytest.mark.parametrize("value", [2.7, 0.5, 9.5])
def test_an_integer_tensor_takes_numbers_rounded_towards_zero(dtype: str, value: float, torch: Any) -> None:
    results = []
    for lib in (nl, torch):
        kind = getattr(lib, dtype)
        x = lib.zeros(4, dtype=kind)
        x[2] = value
        mask = lib.tensor([True, False, False, True])
        made = lib.full((2,), value, dtype=kind)
        filled = lib.zeros(2, dtype=kind).fill_(value)
        x[mask] = value
        results.append([t.tolist() for t in (x, x.masked_fill(~mask, value), filled, made)])
    assert results[0] == results[1]
    assert nl.arange(0, 5, 1.5, dtype=nl.int64).tolist() == torch.arange(0, 5, 1.5, dtype=torch.int64).tolist()


def test_a_number_that_an_integer_tensor_cannot_hold_is_refused() -> None:
    x = nl.tensor([1], dtype=nl.uint8)
    for call in (lambda: x + 300, lambda: nl.full((2,), -1, dtype=nl.uint8), lambda: x.fill_(256), lambda: x * -1,
                 lambda: x.to(nl.int32) + 2**31, lambda: x.to(nl.int64) + 2**63):
        with pytest.raises(OverflowError, match="does not fit"):
            call()
    for value in (float("nan"), float("inf")):
        with pytest.raises(nl.DTypeError, match="integer"):
            x.fill_(value)


@pytest.mark.parametrize("number", [300, -1, 2**40, -(2**40), 7])
def test_comparisons_with_numbers_of_any_size(number: int) -> None:
    for dtype in ("uint8", "int32", "int64"):
        for compare in ("eq", "ne", "lt", "le", "gt", "ge"):
            got = getattr(nl.tensor([0, 7, 255], dtype=getattr(nl, dtype)), compare)(number)
            assert got.tolist() == [getattr(operator, compare)(x, number) for x in (0, 7, 255)], (dtype, compare)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
def test_arrays_beside_tensors_are_tensors(kind: Any, rng: np.random.Generator, torch: Any) -> None:
    values, array = rng.random((2, 3), np.float32), (rng.random(3) * 9).astype(kind)
    x, theirs = nl.from_numpy(values), torch.from_numpy(values)
    for op in (lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a / (b + 1), lambda a, b: a < b):
        got, expected = op(x, array), op(theirs, torch.from_numpy(array))
        assert isinstance(got, nl.Tensor) and str(got.dtype).split(".")[1] == str(expected.dtype).split(".")[1]
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    assert isinstance(array + x, nl.Tensor) and (array - x).tolist() == (nl.from_numpy(array) - x).tolist()


def test_plus() -> None:
    x = nl.tensor([1.0, -2.0], requires_grad=True)
    assert (+x).tolist() == [1.0, -2.0] and (+x).requires_grad
    with pytest.raises(nl.DTypeError, match="bool"):
        _ = +(x > 0)


def test_limits_of_dtypes(torch: Any) -> None:
    for name in ("float32", "float64"):
        ours, theirs = nl.finfo(getattr(nl, name)), torch.finfo(getattr(torch, name))
        assert [float(getattr(ours, a)) for a in ("eps", "max", "min", "tiny")] == [
            getattr(theirs, a) for a in ("eps", "max", "min", "tiny")]
    for name in ("uint8", "int32", "int64"):
        ours, theirs = nl.iinfo(getattr(nl, name)), torch.iinfo(getattr(torch, name))
        assert (ours.min, ours.max, ours.bits) == (theirs.min, theirs.max, theirs.bits)
    with pytest.raises(nl.DTypeError, match="finfo"):
        nl.finfo(nl.int32)
    with pytest.raises(nl.DTypeError, match="iinfo"):
        nl.iinfo(nl.float32)


def test_a_device_is_an_object_that_equals_its_name() -> None:
    device = nl.device("cpu")
    x = nl.zeros(2, device=device).to(device)
    assert x.device == device == "cpu" and x.device.type == str(device) == "cpu" and device.index is None
    assert device != "cuda" and hash(device) == hash(nl.device("cpu:0")) and copy.deepcopy(device) == device
    with pytest.raises(ValueError, match="cuda"):
        nl.device("cuda")
