"""Every op of the table, eager: layouts and dtypes against float64 references and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bounds import assert_agrees, assert_close

import neurlang as nl
from neurlang import _tensor
from neurlang.ops.dtypes import DTYPES, WIDE
from neurlang.ops.row import Row
from neurlang.ops.table import ROWS, TABLE

from .draws import (
    MAPS,
    NUMBERS,
    REDUCTIONS,
    TEXT,
    draw,
    function,
    ids,
    reference,
    tolerance,
    types_of,
    wide_dtypes,
)

SHAPE = (3, 4, 5)


# ---- layouts: the same values, laid out differently in memory ----


def stepped(a: np.ndarray) -> nl.Tensor:
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return nl.from_numpy(wide)[..., ::2]


def transposed(a: np.ndarray) -> nl.Tensor:
    return nl.from_numpy(np.ascontiguousarray(a.T)).permute(*reversed(range(a.ndim)))


def reversed_(a: np.ndarray) -> nl.Tensor:
    return nl.from_numpy(np.flip(a).copy())[(slice(None, None, -1),) * a.ndim]


def offset(a: np.ndarray) -> nl.Tensor:
    """A window in the middle of a larger memory."""
    padded = np.zeros([n + 3 for n in a.shape], a.dtype)
    padded[tuple(slice(1, n + 1) for n in a.shape)] = a
    return nl.from_numpy(padded)[tuple(slice(1, n + 1) for n in a.shape)]


def contiguous(a: np.ndarray) -> nl.Tensor:
    return nl.from_numpy(a.copy())


LAYOUTS: dict[str, Callable[[np.ndarray], nl.Tensor]] = {
    "contiguous": contiguous,
    "transposed": transposed,
    "stepped": stepped,
    "reversed": reversed_,
    "offset": offset,
}
# Shapes of the even and of the odd operands.
BROADCAST = [(SHAPE, (4, 1)), ((1,), SHAPE), ((), SHAPE), ((3, 1, 5), (4, 1))]
SHAPE_PAIRS = [*BROADCAST, ((), ()), ((0, 5), (1, 5)), ((70_001,), (70_001,))]
PLACEMENTS = [*((name, (SHAPE, SHAPE)) for name in LAYOUTS), *(("contiguous", pair) for pair in SHAPE_PAIRS),
              ("transposed", (SHAPE, (4, 1))), ("reversed", ((1, 5), SHAPE))]


def laid_out(a: np.ndarray, layout: str, operand: int) -> nl.Tensor:
    """Operands of one call take different layouts, beginning with the named one."""
    names = list(LAYOUTS)
    return LAYOUTS[names[(names.index(layout) + operand) % len(names)]](a) if a.ndim else contiguous(a)


# ---- rows ----


def check(row: Row, got: nl.Tensor, expected: Any) -> None:
    values, expected = got.detach().numpy(), np.asarray(expected)
    assert values.shape == expected.shape
    if values.dtype.kind != "f":
        np.testing.assert_array_equal(values, expected.astype(values.dtype))
        return
    error = np.abs(values.astype(np.float64) - expected)
    excess = np.where(np.isnan(expected) & np.isnan(values), -1, error - tolerance(row, values.dtype, expected))
    assert (excess <= 0).all(), f"{row.name}: error {error.max():.3g} at {np.argmax(excess)}"


TYPED = [(row, dtype) for row in MAPS for dtype in wide_dtypes(row)]


@pytest.mark.parametrize("case", TYPED, ids=ids)
def test_map_in_every_layout(case: tuple[Row, str], rng: np.random.Generator) -> None:
    row, dtype = case
    for layout, shapes in PLACEMENTS:
        arrays = [draw(rng, row, i, t, shapes[i % 2]) for i, t in enumerate(types_of(row, dtype))]
        got = function(row)(*(laid_out(a, layout, i) for i, a in enumerate(arrays)))
        out_type = row.out_types[0]
        assert TEXT[got.numpy().dtype] == (dtype if out_type == "T" else out_type), layout
        assert got.is_contiguous()
        check(row, got, reference(row, arrays))


@pytest.mark.parametrize("row", [r for r in MAPS if len(r.ins) > 1 and "b8" not in r.in_types], ids=ids)
def test_map_with_numbers(row: Row, rng: np.random.Generator) -> None:
    dtype = row.dtypes[-1]
    arrays = [draw(rng, row, i, dtype, SHAPE if i == 0 else ()) for i in range(len(row.ins))]
    got = function(row)(nl.from_numpy(arrays[0]), *(a.item() for a in arrays[1:]))
    check(row, got, reference(row, arrays))


@pytest.mark.parametrize("row", [r for r in MAPS if r.inplace_method], ids=ids)
def test_inplace_equals_out_of_place(row: Row, rng: np.random.Generator) -> None:
    for dtype in wide_dtypes(row):
        arrays = [draw(rng, row, i, t, SHAPE) for i, t in enumerate(types_of(row, dtype))]
        for layout in LAYOUTS:
            x, *rest = (laid_out(a, layout, i) for i, a in enumerate(arrays))
            expected = function(row)(x, *rest).numpy().copy()
            version, address = x._version, x.data_ptr()
            assert getattr(x, f"{row.name}_")(*rest) is x
            assert x._version > version and x.data_ptr() == address
            np.testing.assert_array_equal(x.numpy(), expected)


@pytest.mark.parametrize("row", [r for r in MAPS if r.binding == "method"], ids=ids)
def test_method_equals_function(row: Row, rng: np.random.Generator) -> None:
    arrays = [draw(rng, row, i, t, SHAPE) for i, t in enumerate(types_of(row, row.dtypes[-1]))]
    x, *rest = (nl.from_numpy(a) for a in arrays)
    for name in (row.name, *row.aliases):
        np.testing.assert_array_equal(getattr(x, name)(*rest).numpy(), getattr(nl, name)(x, *rest).numpy())


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "truediv": lambda a, b: a / b,
    "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "and": lambda a, b: a & b, "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b, "lshift": lambda a, b: a << b, "rshift": lambda a, b: a >> b, "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b, "neg": lambda a: -a, "abs": abs, "invert": lambda a: ~a, "matmul": lambda a, b: a @ b,
}


@pytest.mark.parametrize("row", [r for r in TABLE if r.operator], ids=ids)
def test_operators(row: Row, rng: np.random.Generator) -> None:
    dtype = row.dtypes[-1]
    shape = (4, 4)
    arrays = [draw(rng, row, i, dtype, shape) for i in range(len(row.ins))]
    tensors = [nl.from_numpy(a) for a in arrays]
    apply = OPERATORS[row.operator]
    expected = function(row)(*tensors).numpy()
    np.testing.assert_array_equal(apply(*tensors).numpy(), expected)
    if len(arrays) == 2 and row.operator != "matmul":
        number = arrays[0].flat[0].item()
        np.testing.assert_array_equal(apply(number, tensors[1]).numpy(), function(row)(number, tensors[1]).numpy())


def test_operators_refuse_strangers() -> None:
    x = nl.ones(2)
    for apply in (OPERATORS["add"], OPERATORS["lt"]):
        with pytest.raises(TypeError):
            apply(x, "text")
        with pytest.raises(TypeError):
            apply(None, x)
    assert (x == "text") is False and (x != None) is True  # noqa: E711


def test_alpha_scales_the_second_operand() -> None:
    x, y = nl.tensor([1.0, 2.0]), nl.tensor([10.0, 20.0])
    assert nl.add(x, y, alpha=0.5).tolist() == [6.0, 12.0]
    assert x.sub(y, alpha=2).tolist() == [-19.0, -38.0]
    assert x.add_(y, alpha=-1).tolist() == [-9.0, -18.0]
    narrow, count = nl.ones(2, dtype=nl.bfloat16), nl.tensor([1, 3], dtype=nl.uint8)
    for made in (nl.add(narrow, count, alpha=0.5), nl.sub(narrow[0], -0.5, alpha=1.5)):
        assert made.dtype is nl.bfloat16
    assert nl.add(narrow, count, alpha=0.5).tolist() == [1.5, 2.5]


# ---- PyTorch ----

NO_PEER = {"gelu_tanh", "copy", "gelu", "div_trunc"}
PEERS = [r for r in MAPS if r.name not in NO_PEER and not r.name.startswith("to_") and not r.name.endswith("_grad")]


@pytest.mark.parametrize("row", PEERS, ids=ids)
def test_map_against_torch(row: Row, rng: np.random.Generator, torch: Any) -> None:
    peer = getattr(torch, row.name, None) or getattr(torch.nn.functional, row.name)
    keywords = {"value"} & set(row.ins)
    for dtype in wide_dtypes(row):
        if dtype == "b8" and row.name in ("clamp",):
            continue
        arrays = [draw(rng, row, i, t, SHAPE) for i, t in enumerate(types_of(row, dtype))]
        numbers = NUMBERS | {"value"} | set(row.defaults)
        arrays = [a.flat[0] if name in numbers else a for name, a in zip(row.ins, arrays, strict=True)]
        operands = [nl.from_numpy(a) if a.ndim else a.item() for a in arrays]
        theirs = [torch.from_numpy(a) if a.ndim else a.item() for a in arrays]
        extra = {k: theirs.pop(row.ins.index(k)) for k in keywords if row.name.startswith("addc")}
        try:
            expected = peer(*theirs, **extra)
        except (RuntimeError, NotImplementedError):
            continue  # a dtype that PyTorch leaves out
        got = function(row)(*operands)
        assert repr(got.dtype).split(".")[1] == str(expected.dtype).split(".")[1], dtype
        if expected.is_floating_point():
            info = np.finfo(got.numpy().dtype)
            bound = (row.ulp + 4) * info.eps * np.abs(expected.numpy()) + (row.slack + 8) * info.eps
            assert (np.abs(got.numpy() - expected.numpy()) <= bound).all(), dtype
        else:
            np.testing.assert_array_equal(got.numpy(), expected.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lerp_ends_where_it_should(dtype: Any, rng: np.random.Generator, torch: Any) -> None:
    x, y = ((rng.standard_normal(4000) * 10.0 ** rng.integers(-12, 12, 4000)).astype(dtype) for _ in range(2))
    w = rng.uniform(0, 1, 4000).astype(dtype)
    w[:300], w[300:600], w[600:900] = 0, 1, 0.5
    got = nl.lerp(*map(nl.tensor, (x, y, w))).numpy()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got[:300], x[:300])
    np.testing.assert_array_equal(got[300:600], y[300:600])
    exact = np.longdouble(x) + np.longdouble(w) * (np.longdouble(y) - np.longdouble(x))
    assert_close(got, exact, "elementwise", scale=np.maximum(np.abs(x), np.abs(y)))
    edges = np.array([(x, y) for x in (0, 1, -1e8, np.inf, -np.inf) for y in (0, 2, 1e8, np.inf, np.nan)], dtype)
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, -0.5):
        want = torch.lerp(*map(torch.tensor, edges.T.copy()), weight).numpy()
        assert_agrees(nl.lerp(*map(nl.tensor, edges.T.copy()), weight).numpy(), want, what=f"{weight}")


def test_gradients_of_lerp_are_exact_at_its_ends() -> None:
    x, y = nl.tensor([3e38], requires_grad=True), nl.tensor([1.0], requires_grad=True)
    for weight in (0.0, 1.0, 1 - 2.0**-24):
        x.grad = y.grad = None
        nl.lerp(x, y, nl.tensor(weight)).backward(nl.tensor([0.1]))
        for got, factor in ((x.grad, 1 - weight), (y.grad, weight)):
            assert got.item() == np.float32(0.1) * np.float32(factor)


# ---- promotion ----


def test_promotion_follows_torch(torch: Any) -> None:
    kinds = [info.name for info in DTYPES.values()]
    for a in kinds:
        for b in [*kinds, True, 2, 2.5]:
            for rank_a, rank_b in ((1, 1), (0, 1), (1, 0)):
                ours, theirs = [], []
                for kind, rank in ((a, rank_a), (b, rank_b)):
                    if isinstance(kind, str):
                        ours.append(nl.ones((2,) * rank, dtype=getattr(nl, f"{kind}_" if kind == "bool" else kind)))
                        theirs.append(torch.ones((2,) * rank, dtype=getattr(torch, kind)))
                    else:
                        ours.append(kind)
                        theirs.append(kind)
                for name in ("mul", "div", "maximum", "eq", "pow"):
                    if not isinstance(b, str) and name == "maximum":
                        continue
                    if name == "pow" and "bool" in (a, b):
                        continue
                    got = getattr(nl, name)(*ours).dtype.name
                    assert got == str(getattr(torch, name)(*theirs).dtype).split(".")[1], (name, a, b, rank_a, rank_b)


# ---- reductions ----


def reduced(row: Row, a: np.ndarray, dim: Any, keepdim: bool) -> Any:
    """NumPy's result over several axes."""
    names = {"sum": np.sum, "prod": np.prod, "amax": np.max, "amin": np.min, "any": np.any, "all": np.all,
             "argmax": np.argmax, "argmin": np.argmin}
    a = a.astype(np.float64) if a.dtype.kind == "f" else a.astype(np.int64) if row.name in ("sum", "prod") else a
    return names[row.name](a, axis=tuple(dim) if isinstance(dim, list) else dim, keepdims=keepdim)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("row", REDUCTIONS, ids=ids)
def test_reduction_in_every_layout(row: Row, dtype: str, rng: np.random.Generator) -> None:
    single = row.name.startswith("arg")
    dims = [0, 1, -1] + ([] if single else [None, [0, 2], [-1, 0, 1]])
    for layout in LAYOUTS:
        a = draw(rng, row, 0, dtype, SHAPE)
        for dim in dims:
            for keepdim in (False, True):
                got = getattr(nl, row.name)(LAYOUTS[layout](a), dim, keepdim)
                expected = np.asarray(reduced(row, a, dim, keepdim))
                assert got.shape == expected.shape
                if got.is_floating_point() and row.name in ("sum", "prod"):
                    size = np.finfo(got.numpy().dtype).eps * 16 * np.sum(np.abs(widen(a)))
                    scale = size if row.name == "sum" else 64 * np.finfo(got.numpy().dtype).eps * np.abs(expected)
                    assert (np.abs(got.numpy() - expected) <= scale).all()
                else:
                    np.testing.assert_array_equal(got.numpy(), expected.astype(got.numpy().dtype))


def widen(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


def test_reductions_of_nothing() -> None:
    empty = nl.zeros(0, 3)
    assert empty.sum(0).tolist() == [0.0] * 3 and empty.prod(0).tolist() == [1.0] * 3
    assert empty.any(0).tolist() == [False] * 3 and empty.all(0).tolist() == [True] * 3
    assert np.isnan(empty.mean(0).numpy()).all() and empty.sum(1).shape == (0,)
    for name in ("amax", "amin", "argmax", "argmin"):
        with pytest.raises((ValueError, IndexError), match=name):
            getattr(empty, name)(0)


def test_reductions_with_nan() -> None:
    x = nl.tensor([1.0, float("nan"), 3.0, float("nan")])
    assert np.isnan(x.amax().item()) and np.isnan(x.amin().item())
    assert x.argmax().item() == 1 and x.argmin().item() == 1


@pytest.mark.parametrize("name", ["sum", "prod", "cumsum", "cumprod", "mean", "softmax", "log_softmax"])
def test_dtypes_that_are_asked_for(name: str, rng: np.random.Generator, torch: Any) -> None:
    a = rng.integers(-9, 10, (3, 5)).astype(np.float32)
    for dtype in ("float64", "float32") if name in ("mean", "softmax", "log_softmax") else ("int8", "int32", "float64"):
        want = getattr(torch, name)(torch.tensor(a), 1, dtype=getattr(torch, dtype))
        for got in (
            getattr(nl, name)(nl.tensor(a), 1, dtype=getattr(nl, dtype)),
            getattr(nl.tensor(a), name)(1, dtype=getattr(nl, dtype)),
        ):
            assert got.dtype is getattr(nl, dtype)
            assert_agrees(got.numpy(), want.numpy(), what=f"{name} in {dtype}")
    assert nl.tensor([True, True]).sum().dtype is nl.int64


def test_division_in_place_rounds_as_asked() -> None:
    for mode, want in (("floor", [3, -4]), ("trunc", [3, -3])):
        assert nl.tensor([7, -7]).div_(2, rounding_mode=mode).tolist() == want
        assert nl.tensor([7, -7]).divide_(nl.tensor([2, 2]), rounding_mode=mode).tolist() == want
    with pytest.raises(ValueError, match="rounding_mode"):
        nl.ones(2).div_(2, rounding_mode="up")


# ---- contractions, windows, indices ----


def conv_case(rng: np.random.Generator, dtype: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    groups = int(rng.integers(1, 3))
    kh, kw = (int(k) for k in rng.integers(1, 4, 2))
    options = {
        "stride": tuple(int(s) for s in rng.integers(1, 3, 2)),
        "padding": tuple(int(p) for p in rng.integers(0, 3, 2)),
        "dilation": tuple(int(d) for d in rng.integers(1, 3, 2)),
        "groups": groups,
    }
    x = rng.standard_normal((2, 2 * groups, 7, 8)).astype(dtype)
    w = rng.standard_normal((3 * groups, 2, kh, kw)).astype(dtype)
    return [x, w], options


def attrs_of(options: dict[str, Any]) -> tuple[int, ...]:
    return (*options["stride"], *options["padding"], *options["dilation"], options["groups"], 2)


def near(got: nl.Tensor, expected: np.ndarray, scale: float = 64) -> None:
    values = got.detach().numpy()
    assert values.shape == expected.shape
    bound = scale * np.finfo(values.dtype).eps * (np.abs(expected) + 1)
    assert (np.abs(values - expected) <= bound).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_convolutions_match_their_references(dtype: Any, rng: np.random.Generator) -> None:
    for _ in range(12):
        (x, w), options = conv_case(rng, dtype)
        attrs = attrs_of(options)
        exact_x, exact_w = widen(x), widen(w)
        out = nl.conv2d(transposed(x), stepped(w), None, **options)
        near(out, ROWS["conv2d"].numpy(np, exact_x, exact_w, *attrs))
        g = rng.standard_normal(out.shape).astype(dtype)
        gx = _tensor._conv2d_input(offset(g), nl.from_numpy(w), *attrs, *x.shape[2:])
        near(gx, ROWS["conv2d_input"].numpy(np, widen(g), exact_w, *attrs, *x.shape[2:]))
        gw = _tensor._conv2d_weight(nl.from_numpy(x), reversed_(g), *attrs, *w.shape[2:])
        near(gw, ROWS["conv2d_weight"].numpy(np, exact_x, widen(g), *attrs, *w.shape[2:]))


def test_convolutions_against_torch(rng: np.random.Generator, torch: Any) -> None:
    for _ in range(12):
        (x, w), options = conv_case(rng, np.float64)
        bias = rng.standard_normal(w.shape[0])
        expected = torch.conv2d(torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(bias), **options)
        near(nl.conv2d(*map(nl.from_numpy, (x, w, bias)), **options), expected.numpy())
        back = torch.conv_transpose2d(expected, torch.from_numpy(w), None, options["stride"], options["padding"], 0,
                                      options["groups"], options["dilation"])
        near(nl.conv_transpose2d(nl.from_numpy(expected.numpy()), nl.from_numpy(w), None, options["stride"],
                                 options["padding"], 0, options["groups"], options["dilation"]), back.numpy(), 512)


MATRICES = [((3, 4), (4, 5)), ((1, 4), (4, 5)), ((3, 4), (4, 1)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)),
            ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((0, 4), (4, 5)), ((3, 0), (0, 5)), ((3, 300), (300, 2))]


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64", "u8"])
@pytest.mark.parametrize("shapes", MATRICES, ids=str)
def test_matmul(shapes: tuple[tuple[int, ...], ...], dtype: str, rng: np.random.Generator) -> None:
    a, b = (draw(rng, ROWS["matmul"], 0, dtype, s) for s in shapes)
    expected = np.matmul(*(widen(v) if v.dtype.kind == "f" else v for v in (a, b)))
    for left in (contiguous, transposed, offset):
        got = nl.matmul(left(a), nl.from_numpy(b))
        if got.is_floating_point():
            near(got, expected, 64 * shapes[0][-1] + 1)
        else:
            np.testing.assert_array_equal(got.numpy(), expected)


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 2)},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
]


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_pools_against_torch(options: dict[str, Any], rng: np.random.Generator, torch: Any) -> None:
    functional = torch.nn.functional
    x = rng.standard_normal((2, 3, 7, 9)).astype(np.float32)
    x[0, 0, 2, 2] = np.nan
    for layout in (contiguous, transposed, stepped):
        for dilation in (1, 2) if options["kernel_size"] == 3 and not options.get("ceil_mode") else (1,):
            values, index = nl.max_pool2d(layout(x), **options, dilation=dilation, return_indices=True)
            theirs = functional.max_pool2d(torch.from_numpy(x), **options, dilation=dilation, return_indices=True)
            np.testing.assert_array_equal(values.numpy(), theirs[0].numpy())
            np.testing.assert_array_equal(index.numpy(), theirs[1].numpy())
    x = np.nan_to_num(x)
    for extra in ({}, {"count_include_pad": False}, {"divisor_override": 5}):
        expected = functional.avg_pool2d(torch.from_numpy(widen(x)), **options, **extra).numpy()
        near(nl.avg_pool2d(stepped(x), **options, **extra), expected)
    for size in (1, 3, (2, 5), (7, 9), (4, 11)):
        expected = functional.adaptive_avg_pool2d(torch.from_numpy(widen(x)), size).numpy()
        near(nl.adaptive_avg_pool2d(transposed(x), size), expected)


def test_gather_and_scatter(rng: np.random.Generator) -> None:
    for dtype in ("f32", "f64", "i64", "i32", "u8", "b8"):
        x = draw(rng, ROWS["gather"], 0, dtype, (4, 5, 6))
        for axis in range(3):
            shape = tuple(int(rng.integers(1, n + 1)) for n in x.shape)
            index = rng.integers(-x.shape[axis], x.shape[axis], shape)
            got = nl.gather(transposed(x), axis, offset(index))
            np.testing.assert_array_equal(got.numpy(), ROWS["gather"].numpy(np, x, index, axis))
            flat = rng.integers(-x.shape[axis], x.shape[axis], 7)
            got = nl.index_select(reversed_(x), axis, nl.from_numpy(flat))
            np.testing.assert_array_equal(got.numpy(), np.take(x, flat, axis))
            if dtype == "b8":
                continue
            src = draw(rng, ROWS["gather"], 0, dtype, x.shape)
            got = nl.scatter_add(stepped(x), axis, nl.from_numpy(index), nl.from_numpy(src))
            np.testing.assert_array_equal(got.numpy(), ROWS["scatter_add"].numpy(np, x, index, src, axis))
            part = draw(rng, ROWS["gather"], 0, dtype, (*x.shape[:axis], 7, *x.shape[axis + 1 :]))
            got = nl.index_add(nl.from_numpy(x), axis, nl.from_numpy(flat), transposed(part))
            np.testing.assert_array_equal(got.numpy(), ROWS["index_add"].numpy(np, x, flat, part, axis))


def test_indexing_with_arrays(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 5, 6))
    i, j = rng.integers(-4, 4, (3, 2)), rng.integers(-5, 5, (2,))
    pair, every = np.array([0, 5]), slice(None)
    keys: list[Any] = [(i,), (i, j), (every, j), (i, every, pair), (slice(1, 3), j, pair), (2, j), (i, 1)]
    for key in keys:
        ours = tuple(nl.from_numpy(k) if isinstance(k, np.ndarray) else k for k in key)
        np.testing.assert_array_equal(transposed(x)[ours].numpy(), x[key])
        expected, got = x.copy(), nl.from_numpy(x.copy())
        value = rng.standard_normal(x[key].shape)
        expected[key] = value
        got[ours] = nl.from_numpy(value)
        np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_writes_where_a_mask_holds(axes: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 5, 6))
    mask = rng.uniform(size=x.shape[:axes]) < 0.5
    values = rng.standard_normal(x[mask].shape)
    keys: list[Any] = [mask, mask.tolist(), (mask, ..., slice(None, None, 2)) if axes < 3 else mask]
    for key in keys:
        ours = tuple(nl.tensor(k) if isinstance(k, np.ndarray) else k for k in key) if isinstance(key, tuple) else key
        ours = nl.tensor(mask) if key is mask else ours
        key = np.array(key) if isinstance(key, list) else key
        for value in (2.5, np.float64(-1.5), values[..., ::2] if isinstance(key, tuple) else values):
            expected, got = x.copy(), nl.from_numpy(x.copy())
            expected[key] = value
            got[ours] = nl.tensor(value) if isinstance(value, np.ndarray | np.float64) else value
            np.testing.assert_array_equal(got.numpy(), expected)


def test_a_mask_of_another_shape_is_no_index() -> None:
    for value in (1.0, nl.ones(2)):
        with pytest.raises(IndexError, match="does not match"):
            nl.zeros(3, 2)[nl.ones(3, 1, dtype=nl.bool_)] = value


@pytest.mark.parametrize("call", ["gather", "index_select", "scatter_add", "index_add"])
@pytest.mark.parametrize("bad", [-5, 4])
def test_indices_out_of_range(call: str, bad: int) -> None:
    x = nl.zeros(4, 4)
    index = nl.tensor([bad] * 4) if call.startswith("index") else nl.full((4, 4), bad, dtype=nl.int64)
    source = () if call in ("gather", "index_select") else (nl.ones(4, 4),)
    with pytest.raises(IndexError, match=str(bad)):
        getattr(nl, call)(x, 0, index, *source)
    assert not x.numpy().any()


@pytest.mark.parametrize("row", [r for r in TABLE if r.name in ("softmax", "log_softmax")], ids=ids)
def test_softmax_in_every_layout(row: Row, rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        for shape in [(3, 4, 5), (1, 700), (2, 1), (3, 0), (0, 3)]:
            x = (rng.standard_normal(shape) * 10).astype(dtype)
            for axis in range(len(shape)):
                if shape[axis] == 0:
                    continue
                for layout in (contiguous, transposed, reversed_):
                    check(row, getattr(nl, row.name)(layout(x), axis), reference(row, [x], axis))


# ---- arguments that reach outside of memory, or of 64 bits ----


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.narrow(0, 1, 2**63 - 1),
        lambda x: x.as_strided((2,), (1,), 2**63 - 1),
        lambda x: x.as_strided((2**32 + 1,), (2**32,)),
        lambda x: x.as_strided((2,), (-1,)),
        lambda x: x.as_strided((3,), (3,)),
    ],
)
def test_views_stay_inside_their_storage(view: Callable[[nl.Tensor], nl.Tensor]) -> None:
    with pytest.raises((IndexError, nl.ShapeError)):
        view(nl.arange(6.0))


def test_a_view_may_fill_its_storage_and_an_empty_one_lie_at_its_end() -> None:
    x = nl.arange(6.0)
    assert x[5:].as_strided((6,), (-1,)).tolist() == [5, 4, 3, 2, 1, 0]
    assert x.as_strided((0, 3), (2**63, 1), 6).shape == (0, 3)


@pytest.mark.parametrize("call", [lambda x: x.type_as(3), lambda x: nl.nan_to_num(x.numpy())])
def test_what_is_no_tensor_is_refused(call: Callable[[nl.Tensor], Any]) -> None:
    with pytest.raises(nl.DTypeError, match="expected a Tensor"):
        call(nl.zeros(3))


CONV = (1, 1, 1, 1, 1, 1, 1, 2)  # attributes of the rows
AVG = (2, 2, 2, 2, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda F, x: F._conv2d(x, x, *CONV[:-1]),
        lambda F, x: F._conv2d_input(x, x, *CONV),
        lambda F, x: F._conv2d_weight(x, x, *CONV, 3, 3, 3),
        lambda F, x: F._max_pool2d_grad(x, nl.zeros(1, dtype=nl.int64), 8, 8),
        lambda F, x: F._max_pool2d_grad(x, x, 8, 8),
        lambda F, x: F._avg_pool2d_grad(x, *AVG, 8),
        lambda F, x: F._avg_pool2d_grad(x, *AVG, 9, 99),
        lambda F, x: F._avg_pool2d_grad(x, 2, 2, 0, 2, *AVG[4:], 8, 8),
        lambda F, x: F._adaptive_avg_pool2d_grad(x, 0, 4),
        lambda F, x: F._index_get(x, nl.tensor([1]), 1, 4, 0),
        lambda F, x: F._index_get(x, nl.tensor([1]), 1, 0, 4),
        lambda F, x: F._index_get(x, nl.tensor([1]), nl.tensor([1, 2]), 2, 0, 1, 0),
        lambda F, x: F._index_put(x, 0.0, 1, 0, 0, 1),
        lambda F, x: F._layer_norm_grad(1, nl.ones(3, 3), 3, -1),
        lambda F, x: F._channel_affine(None, 1, 0, 3),
        lambda F, x: F._channel_norm_grad(x, x, x[0, :, :, :1], nl.ones(1), nl.ones(1), 0, 0),
        lambda F, x: F._attention(1.0, x, x, 0.0, 0, 0, 0, 0),
        lambda F, x: F._adam_(x, x, -1, -1, 7, 1, 1, 1, 1),
        lambda F, x: F._kth(None, 0, 1, 0),
        lambda F, x: F._to_bits(None),
        lambda F, x: F._axis("op", None, 0),
    ],
)
def test_what_gradient_rules_call_refuses_what_does_not_fit(call: Callable[..., Any]) -> None:
    """They run kernels on what they are given: nothing may be read or written beyond it."""
    with pytest.raises((TypeError, ValueError)):
        call(_tensor, nl.ones(4, 4, 4, 4))


@pytest.mark.parametrize("dtype", [nl.bool, nl.int16, nl.float32, nl.float64])
def test_copies_of_rows_of_one_element(dtype: nl.dtype) -> None:
    for n in (2, 15, 16, 17, 63, 64, 65, 200):
        x = nl.arange(5 * 300).reshape(5, 300, 1).to(dtype)
        np.testing.assert_array_equal(x.expand(5, 300, n).contiguous().numpy(), np.repeat(x.numpy(), n, 2))
        spread = x.permute(1, 0, 2).expand(300, 5, n).contiguous()
        np.testing.assert_array_equal(spread.numpy(), np.repeat(x.numpy().transpose(1, 0, 2), n, 2))
