"""Narrow dtypes (int8, int16, float16, bfloat16): what the wide ones compute, rounded once, wherever it is computed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import BOUNDS, assert_agrees, assert_drawn_alike

import neurlang as nl
import neurlang.nn.functional as F
from neurlang import _tensor
from neurlang.ops import scalar as s
from neurlang.ops import to_numpy
from neurlang.ops.dtypes import DTYPES, from_bits, rounded, to_bits
from neurlang.ops.row import Row
from neurlang.ops.table import TABLE

from .compiled import Kernel, compile_kernels, fma_of, levels, same_bits
from .draws import draw

HALVES = {"f16": nl.float16, "bf16": nl.bfloat16}
NARROW = {"i8": nl.int8, "i16": nl.int16, **HALVES}
STEP = {"f16": 2.0**-10, "bf16": 2.0**-7}
WIDE = {"i8": nl.int32, "i16": nl.int32, "f16": nl.float32, "bf16": nl.float32}
MAPS = [row for row in TABLE if row.kind == "map" and not row.direct and row.in_types and not row.name.startswith("_")]
COMPUTED = [(row, t) for row in MAPS if row.shape == "broadcast" for t in row.dtypes if t in NARROW]
EVERY = np.arange(65536, dtype=np.uint16)


def from_patterns(patterns: np.ndarray, text: str) -> nl.Tensor:
    """A tensor of a 16-bit float with these bits."""
    patterns = np.ascontiguousarray(patterns)
    return _tensor._from_bits(patterns) if text == "bf16" else nl.from_numpy(patterns.view(np.float16))


def bits(x: nl.Tensor) -> np.ndarray:
    """The bits of a tensor, every NaN made the same."""
    values = x.detach().contiguous()
    words = _tensor._to_bits(values) if x.dtype is nl.bfloat16 else values.numpy()
    words = words.view(f"u{words.itemsize}").copy() if words.dtype != np.bool_ else words.view(np.uint8).copy()
    if x.is_floating_point():
        words[np.isnan(np.asarray(values))] = 0
    return words


def same(a: nl.Tensor, b: nl.Tensor, what: Any = "") -> None:
    assert a.dtype is b.dtype, what
    np.testing.assert_array_equal(bits(a), bits(b), err_msg=str(what))


def narrow(array: np.ndarray, text: str) -> nl.Tensor:
    return nl.tensor(array).to(NARROW[text])


def ids(value: Any) -> str | None:
    return f"{value[0].name}-{value[1]}" if isinstance(value, tuple) else None


# ---- conversions ----


@pytest.mark.parametrize("text", HALVES)
def test_every_pattern_widens_and_comes_back(text: str) -> None:
    x = from_patterns(EVERY, text)
    exact = EVERY.view(np.float16) if text == "f16" else (EVERY.astype(np.uint32) << 16).view(np.float32)
    for dtype in (nl.float32, nl.float64):
        wide = x.to(dtype)
        np.testing.assert_array_equal(wide.numpy(), exact)
        same(wide.to(x.dtype), x)
    np.testing.assert_array_equal(x.to(nl.int64).numpy()[np.abs(exact) < 1e4], np.trunc(exact[np.abs(exact) < 1e4]))
    assert [from_bits(int(b), text) for b in EVERY[::97]] == pytest.approx(exact[::97].tolist(), abs=0, nan_ok=True)


def near_ties(text: str, rng: np.random.Generator) -> np.ndarray:
    """float64 values at and just beside the middle of neighbouring floats, and any others."""
    low = np.sort(from_patterns(EVERY[: {"f16": 0x7C00, "bf16": 0x7F80}[text]], text).to(nl.float64).numpy())
    middle = (low[:-1] + low[1:]) / 2
    ends = [low[-1] * 1.0019, low[1] / 2]
    around = np.concatenate([middle, np.nextafter(middle, np.inf), np.nextafter(middle, 0), ends])
    random = rng.integers(0, 2**64, 20000, dtype=np.uint64).view(np.float64)
    return np.concatenate([around, -around, random, rng.standard_normal(20000), [np.nan, np.inf, -np.inf, 0.0, -0.0]])


@pytest.mark.parametrize("text", HALVES)
def test_floats_round_once_to_nearest_even(text: str, rng: np.random.Generator) -> None:
    x = near_ties(text, rng)
    with np.errstate(all="ignore"):
        singles = x.astype(np.float32)
        for values in (x, singles):
            exact = values.astype(np.float64)
            expected = [to_bits(v, text) for v in exact[::7].tolist()]
            same(nl.tensor(values[::7]).to(HALVES[text]), from_patterns(np.array(expected, np.uint16), text))
            if text == "f16":
                same(nl.tensor(values).half(), nl.tensor(values.astype(np.float16)))
    assert rounded(1 + 2.0**-9, "bf16") == 1.0 and rounded(3 * 2.0**-134, "bf16") == 2.0**-132


@pytest.mark.parametrize("text", HALVES)
def test_integers_round_once(text: str, rng: np.random.Generator) -> None:
    x = np.concatenate([rng.integers(-(2**e), 2**e, 200) for e in range(1, 64)])
    powers = np.arange(20, 62)
    x = np.concatenate([x, (1 << powers) + (1 << powers - 8), [2**63 - 1, -(2**63), 65519, 65520]])
    x = np.concatenate([x, x + 1, x - 1])
    for values in (x, x.astype(np.int32), x.astype(np.uint8)):
        digits = {"f16": 11, "bf16": 8}[text]
        sizes = [abs(int(v)) for v in values]
        units = [1 << max(n.bit_length() - digits, 0) for n in sizes]
        nearest = [round(n / u) * u if n < 2**53 else (n + u // 2 - (n // u % 2 == 0 and n % u == u // 2)) // u * u
                   for n, u in zip(sizes, units, strict=True)]  # fmt: skip
        expected = [to_bits(float(n if v >= 0 else -n), text) for n, v in zip(nearest, values, strict=True)]
        same(nl.tensor(values).to(HALVES[text]), from_patterns(np.array(expected, np.uint16), text))


def test_integers_wrap_and_floats_saturate(rng: np.random.Generator) -> None:
    whole = rng.integers(-(2**40), 2**40, 1000)
    x = np.concatenate([rng.standard_normal(1000) * 200, rng.standard_normal(1000) * 5e4, [np.nan, np.inf, -np.inf]])
    x = x.astype(np.float32).astype(np.float64)
    for dtype, kind in ((nl.int8, np.int8), (nl.int16, np.int16)):
        np.testing.assert_array_equal(nl.tensor(whole).to(dtype).numpy(), whole.astype(kind))
        info = np.iinfo(kind)
        expected = np.clip(np.trunc(np.nan_to_num(x, nan=0.0)), info.min, info.max).astype(kind)
        for values in (x, x.astype(np.float32)):
            np.testing.assert_array_equal(nl.tensor(values).to(dtype).numpy(), expected)
        np.testing.assert_array_equal(nl.tensor(expected).to(nl.int64).numpy(), expected)
    assert nl.tensor([1e9, -1e9, 0.5]).half().char().tolist() == [127, -128, 0]


CONVERSIONS = {
    f"{a}_to_{b}": Kernel([s.convert(s.arg(0, a), b)], (a,)) for a in DTYPES for b in DTYPES if {a, b} & {*NARROW}
}


@pytest.mark.parametrize("level", levels())
def test_conversions_are_the_same_on_every_level(level: str, rng: np.random.Generator) -> None:
    run = compile_kernels(CONVERSIONS, level)
    floats = np.concatenate([near_ties(text, rng) for text in HALVES])
    for name, kernel in CONVERSIONS.items():
        (source,) = kernel.dtypes
        with np.errstate(all="ignore"):
            x = floats.astype(DTYPES[source].numpy) if DTYPES[source].floating and source != "bf16" else None
        if DTYPES[source].itemsize == 2:
            x = EVERY.view(DTYPES[source].numpy)
        if x is None:
            x = rng.integers(0, 2 if source == "b8" else 256, 9999 * DTYPES[source].itemsize, np.uint8)
            x = x.view(DTYPES[source].numpy)
        (expected,), (got,) = to_numpy.evaluate(kernel.outputs, [x], np, fma_of(level)), run(name, [x])
        assert same_bits(got, expected).all(), name


# ---- rows ----


@pytest.mark.parametrize("case", COMPUTED, ids=ids)
def test_rows_round_the_wide_result_once(case: tuple[Row, str], rng: np.random.Generator) -> None:
    row, text = case
    function = getattr(_tensor, row.function, None) or getattr(_tensor, row.name)
    types = [text if t == "T" else t for t in row.in_types]
    for shapes in (((700,), (700,)), ((5, 37), (37,)), ((3, 4, 5), ())):
        wide_types = [{nl.int32: "i32", nl.float32: "f32"}.get(WIDE.get(t), t) for t in types]
        ins = [nl.tensor(draw(rng, row, i, t, shapes[i % 2])) for i, t in enumerate(wide_types)]
        ins = [x.to(NARROW[text]) if t == text else x for x, t in zip(ins, types, strict=True)]
        if row.inplace:
            ins = [x.expand(shapes[0]).clone() for x in ins]
        wide = [x.to(WIDE[text]) if t == text else x for x, t in zip(ins, types, strict=True)]
        if ins[0].ndim == 2 and not row.inplace:
            ins[0], wide[0] = ins[0].t().contiguous().t(), wide[0].t().contiguous().t()
        got, expected = function(*ins), function(*wide)
        if row.inplace:
            for k in row.inplace:
                same(ins[k], wide[k].to(NARROW[text]), shapes)
            continue
        same(got, expected.to(NARROW[text]) if row.out_types[0] == "T" else expected, shapes)


UNARY = [row for row in MAPS if row.types == "T->T" and row.over == "float" and row.numpy and not row.slack]


@pytest.mark.parametrize("text", HALVES)
@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.name)
def test_functions_of_every_pattern(row: Row, text: str) -> None:
    x = from_patterns(EVERY, text)
    x = x[nl.isfinite(x)]
    with np.errstate(all="ignore"):
        exact = np.asarray(row.numpy(np, x.double().numpy()))
    known = np.isfinite(exact) & (np.abs(exact) < {"f16": 65000.0, "bf16": 3.3e38}[text])
    if row.name in ("sin", "cos", "tan"):
        known &= np.abs(x.double().numpy()) < 1e15  # beyond, NumPy's own reduction is not exact enough
    if row.name in ("log1p", "logsigmoid", "sigmoid", "erfc", "asinh", "atanh", "acosh", "erfinv"):
        known &= np.abs(exact) > 1e-30
    got = getattr(_tensor, row.function)(x).double().numpy()
    digits, least = {"f16": (11, -24), "bf16": (8, -133)}[text]
    unit = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - digits, least))
    error = np.zeros(exact.shape)
    error[known] = np.abs(got[known] - exact[known]) / unit[known]
    worst = int(error.argmax())
    assert error[worst] <= 0.501, f"{row.name}({x[worst].item()!r}) is off by {error[worst]:.4f} ULP"


def by_rounding(fn: Callable[..., nl.Tensor], text: str, *arrays: np.ndarray) -> None:
    """fn on narrow tensors is fn on the widened ones, rounded."""
    ins = [narrow(a, text) if a.dtype.kind == "f" else nl.tensor(a) for a in arrays]
    wide = [x.float() if x.is_floating_point() else x for x in ins]
    same(fn(*ins), fn(*wide).to(NARROW[text]))


@pytest.mark.parametrize("text", HALVES)
def test_kernels_accumulate_in_float32(text: str, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((70, 300)), rng.standard_normal((300, 33))
    image, filters = rng.standard_normal((2, 6, 9, 11)), rng.standard_normal((4, 3, 3, 3))
    index = rng.integers(0, 70, (70, 300))
    by_rounding(nl.matmul, text, a, b)
    by_rounding(lambda x, y: x.t() @ y, text, a, rng.standard_normal(70))
    for m, n in ((1, 999), (2, 513), (65, 513), (513, 1), (70, 33)):  # 513: slabs must not end in a vector
        p, q = rng.standard_normal((2, m, 9000)), rng.standard_normal((9000, n))
        by_rounding(nl.matmul, text, p, q)
        by_rounding(lambda x, y: x @ y.t(), text, p[0], q.T)
    by_rounding(lambda x, w: F.conv2d(x, w, padding=1, groups=2), text, image, filters)
    for form in ("avg_pool{}d", "max_pool{}d", "adaptive_avg_pool{}d", "adaptive_max_pool{}d"):
        for axes, x in ((1, image[0]), (2, image), (3, image)):
            pool = getattr(F, form.format(axes))
            by_rounding(lambda x, pool=pool: pool(x, 3), text, x)
    for dim in (0, 1, -1):
        by_rounding(lambda x, dim=dim: nl.softmax(x, dim), text, a)
        by_rounding(lambda x, dim=dim: nl.log_softmax(x, dim), text, a)
        by_rounding(lambda x, dim=dim: nl.cumsum(x, dim), text, a)
        by_rounding(lambda x, dim=dim: nl.logsumexp(x, dim), text, a)
        by_rounding(lambda x, dim=dim: x.sum(dim), text, a)
        by_rounding(lambda x, dim=dim: x.var(dim), text, a)
        by_rounding(lambda x, dim=dim: x.amax(dim), text, a)
        by_rounding(lambda x, dim=dim: nl.sort(x, dim)[0], text, a)
        by_rounding(lambda x, dim=dim: nl.topk(x, 5, dim)[0], text, a)
        by_rounding(lambda x, dim=dim: nl.cummax(x, dim)[0], text, a)
    for fn in (nl.sum, nl.mean, nl.std, nl.norm, lambda x: nl.mean(x, (0, 1))):
        by_rounding(fn, text, a)
    by_rounding(lambda x: F.layer_norm(x, (300,)), text, a)
    by_rounding(lambda x: F.scaled_dot_product_attention(x[:, :32], x[:, 32:64], x[:, 64:80]), text, a)
    by_rounding(lambda x: x.t().gather(1, nl.tensor(index.T)), text, a)
    by_rounding(lambda x: nl.scatter_add(x, 0, nl.tensor(index), x), text, a)
    by_rounding(lambda x: nl.index_add(x, 0, nl.tensor(index[0]), x[:1].expand(300, 300)), text, a)
    same(narrow(a, text).argmax(1), narrow(a, text).float().argmax(1))


@pytest.mark.parametrize("text", HALVES)
def test_norms_of_rows_beside_wide_vectors(text: str, rng: np.random.Generator, torch: Any) -> None:
    """PyTorch's in float32, rounded; its own way back rounds the vectors' gradients too."""
    kind = getattr(torch, HALVES[text].name)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((5, 7), (7,), (7,))]
    for name, count in (("layer_norm", 3), ("layer_norm", 2), ("rms_norm", 2)):
        made = []
        for lib, dtype in ((nl, HALVES[text]), (torch, kind)):
            x, *vectors = (lib.tensor(a, requires_grad=True) for a in arrays[:count])
            rows = x.to(dtype) if lib is nl else x.to(dtype).float()
            y = getattr(lib.nn.functional, name)(rows, (7,), *vectors, eps=1e-5)
            assert y.dtype is rows.dtype
            y = y.to(dtype)
            y.sum().backward()
            made += [[np.asarray(t.detach().to(lib.float32)) for t in (y, *(v.grad for v in vectors))]]
        (y, *gradients), (peer, *wanted) = made
        assert (abs(y - peer) <= STEP[text] * abs(peer)).all(), name  # a last bit may round either way
        for ours, theirs in zip(gradients, wanted, strict=True):
            assert_agrees(ours, theirs, what=name)


def test_sums_beyond_the_range_of_float16() -> None:
    x = nl.ones(70000, dtype=nl.float16)
    assert x.mean().item() == 1.0 and x.sum().item() == float("inf") and x.bfloat16().sum().item() == 70144.0
    assert x.reshape(700, 100).sum((0, 1)).item() == float("inf")


def test_integers_of_8_bits(rng: np.random.Generator) -> None:
    a, b = (rng.integers(-128, 128, s).astype(np.int8) for s in ((9, 33), (33, 7)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(nl.matmul(nl.tensor(a), nl.tensor(b)).numpy(), np.matmul(a, b))
    x = nl.tensor(a)
    assert x.sum().dtype is nl.int64 and x.sum().item() == int(a.sum(dtype=np.int64))
    np.testing.assert_array_equal(x.amax(1).numpy(), a.max(1))
    np.testing.assert_array_equal((x * x).numpy(), (a.astype(np.int64) ** 2).astype(np.int8))
    np.testing.assert_array_equal((-x).numpy(), -a)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
def test_products_of_int8_in_int32(rng: np.random.Generator) -> None:
    shapes = [(1, 1, 1), (7, 5, 3), (1, 33, 70), (13, 1, 64), (65, 130, 200), (6, 2050, 65), (200, 3, 9), (4, 0, 5)]
    for m, k, n in shapes:
        a, b = (rng.integers(-128, 128, s).astype(np.int8) for s in ((m, k), (k, n)))
        expected = a.astype(np.int32) @ b.astype(np.int32)
        x, y = nl.tensor(a), nl.tensor(b)
        for left, right in ((x, y), (x.t().contiguous().t(), y), (x, y.t().contiguous().t())):
            np.testing.assert_array_equal(nl.int_mm(left, right).numpy(), expected)
    full = nl.full((8, 3000), -128, dtype=nl.int8)
    np.testing.assert_array_equal(nl.int_mm(full, full.t()).numpy(), 3000 * 128 * 128)
    traced = nl.trace(lambda a, b: nl.int_mm(a, b) + 1)
    for _ in range(3):
        np.testing.assert_array_equal(traced(x[:4], y[:, :0]).numpy(), np.zeros((4, 0)))
        np.testing.assert_array_equal(traced(full, full.t()).numpy(), 3000 * 128 * 128 + 1)
    for bad in ((x.float(), y.float()), (x, y.long())):
        with pytest.raises(nl.DTypeError, match="int8"):
            nl.int_mm(*bad)
    with pytest.raises(nl.ShapeError):
        nl.int_mm(full, full)


# ---- what Python sees ----


def test_numbers_beside_16_bits_are_float32s(rng: np.random.Generator) -> None:
    for text in HALVES:
        x = narrow(rng.standard_normal(100), text)
        for fn in (lambda v: v * 0.1, lambda v: 1 - v, lambda v: v + 1e-3, lambda v: 2 / v, lambda v: v**1.3):
            same(fn(x), fn(x.float()).to(x.dtype))
        assert (nl.tensor([0.1]).to(x.dtype) == 0.1).item()
        same(nl.full((2,), 0.1, dtype=x.dtype), nl.tensor([0.1, 0.1], dtype=x.dtype))
        same(x.masked_fill(x > 0, 0.1), nl.where(x > 0, nl.tensor(0.1).to(x.dtype), x))


def test_objects() -> None:
    for text, dtype in NARROW.items():
        x = nl.arange(6, dtype=dtype).reshape(2, 3)
        assert x.dtype is dtype and x.element_size() == DTYPES[text].itemsize and x.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert f"dtype={dtype!r}" in repr(x) and x[1, 2].item() == 5
        same(pickle.loads(pickle.dumps(x)), x)
        same(copy.deepcopy(x), x)
        same(nl.tensor(x.tolist(), dtype=dtype), x)
        same(x.t().contiguous(), nl.tensor(x.float().numpy().T.copy(), dtype=dtype))
    assert nl.tensor([1.5]).half().dtype is nl.half and nl.tensor([1.5]).bfloat16().item() == 1.5
    assert nl.tensor([3]).char().dtype is nl.int8 and nl.tensor([3]).short().dtype is nl.int16
    assert (nl.finfo(nl.float16).max, nl.finfo(nl.bfloat16).eps, nl.iinfo(nl.int8).min) == (65504, 2.0**-7, -128)
    with pytest.raises(OverflowError):
        nl.tensor([1], dtype=nl.int8) + 300
    with pytest.raises(OverflowError):
        nl.full((2,), 40000, dtype=nl.int16)


def test_limits_of_bfloat16_are_torchs(torch: Any) -> None:
    ours, theirs = nl.finfo(nl.bfloat16), torch.finfo(torch.bfloat16)
    for name in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_numpy(rng: np.random.Generator) -> None:
    for kind in (np.int8, np.int16, np.float16):
        array = (rng.standard_normal((3, 4)) * 50).astype(kind)
        x = nl.from_numpy(array)
        x[0, 0] = 7
        assert array[0, 0] == 7 and x.numpy().dtype == kind
        same(nl.tensor(array), x)
    with pytest.raises(TypeError, match="bfloat16"):
        nl.ones(2, dtype=nl.bfloat16).numpy()
    assert np.asarray(nl.ones(2, dtype=nl.bfloat16)).dtype == np.float32


def test_files(tmp_path: Path, torch: Any) -> None:
    values = {text: nl.arange(5, dtype=dtype) for text, dtype in NARROW.items()}
    nl.save(values, tmp_path / "a.safetensors")
    for name, x in nl.load(tmp_path / "a.safetensors").items():
        same(x, values[name])
    safetensors = pytest.importorskip("safetensors.torch", reason="no safetensors: no other reader read our files")
    for name, x in safetensors.load_file(tmp_path / "a.safetensors").items():
        assert str(x.dtype).split(".")[1] == values[name].dtype.name and x.tolist() == values[name].tolist()


def test_random_numbers() -> None:
    for dtype in HALVES.values():
        u, z = nl.rand(100000, dtype=dtype), nl.randn(100000, dtype=dtype)
        assert u.dtype is dtype and u.min().item() >= 0 and u.max().item() < 1
        assert_drawn_alike(u.double().numpy(), nl.rand(100000).numpy())
        assert_drawn_alike(z.double().numpy(), nl.randn(100000).numpy())


# ---- gradients and training ----


@pytest.mark.parametrize("text", HALVES)
def test_gradients_have_the_tensors_dtype(text: str, rng: np.random.Generator) -> None:
    def loss(x: nl.Tensor, w: nl.Tensor) -> nl.Tensor:
        return F.gelu(F.layer_norm(x @ w, (8,))).softmax(-1).square().mean()

    a, b = rng.standard_normal((5, 16)), rng.standard_normal((16, 8))
    ins = [narrow(v, text).requires_grad_() for v in (a, b)]
    exact = [nl.tensor(x.detach().double().numpy(), requires_grad=True) for x in ins]
    got = nl.autograd.grad(loss(*ins), ins)
    allowed = BOUNDS["16-bit gradients"](1) * 2.0 ** -{"f16": 11, "bf16": 8}[text]
    for g, e in zip(got, nl.autograd.grad(loss(*exact), exact), strict=True):
        assert g.dtype is HALVES[text]
        assert (g.double() - e).abs().max().item() <= allowed * e.abs().max().item()


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("text", HALVES)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_a_network_trains(optimizer: str, text: str, traced: bool) -> None:
    nl.manual_seed(0)
    model = nl.nn.Sequential(nl.nn.Linear(4, 32), nl.nn.ReLU(), nl.nn.Linear(32, 3)).to(HALVES[text])
    options = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01}, "AdamW": {"lr": 0.01}}[optimizer]
    opt = getattr(nl.optim, optimizer)(model.parameters(), **options)
    x = nl.randn(64, 4)
    y = (x @ nl.randn(4, 3)).argmax(1)
    x = x.to(HALVES[text])

    def step() -> nl.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss

    step = nl.trace(step) if traced else step
    losses = [step().item() for _ in range(60)]
    assert all(p.dtype is HALVES[text] for p in model.parameters())
    assert losses[-1] < 0.35 * losses[0]


@pytest.mark.parametrize("text", NARROW)
def test_traced_bits_are_eagers(text: str, rng: np.random.Generator) -> None:
    def program(x: nl.Tensor, y: nl.Tensor) -> list[nl.Tensor]:
        z = x * y + 3
        results = [z, z.float() * 0.5, z.t().contiguous(), nl.where(z > x, z, y), z.sum(1), z.amax(0), z.char()]
        if x.is_floating_point():
            results += [z.softmax(-1), z @ z.t(), (z.exp() / 3).tanh(), z.mean(), F.layer_norm(z, (37,)) + 1]
        return results

    ins = [narrow(rng.standard_normal((21, 37)) * 3, text) for _ in range(2)]
    eager = program(*ins)
    traced = nl.trace(program)
    for _ in range(3):
        for k, (got, want) in enumerate(zip(traced(*ins), eager, strict=True)):
            same(got, want, k)
    assert traced.counts.replayed


def test_products_of_different_narrow_dtypes_promote_as_sums_do() -> None:
    a, b = nl.tensor([[200, 100]], dtype=nl.uint8), nl.tensor([[-1], [-1]], dtype=nl.int8)
    assert (a @ b).dtype == (a + b.t()).dtype == nl.int16
    assert (a @ b).tolist() == [[-300]]
    h, w = nl.tensor([[1.0009765625]], dtype=nl.float16), nl.tensor([[1.0]], dtype=nl.bfloat16)
    assert (h @ w).dtype == nl.float32 and (h @ w).item() == 1.0009765625


def test_rms_norm_of_halves_takes_the_eps_of_float32() -> None:
    x = nl.zeros(2, 4, dtype=nl.float16)
    x[0, 0] = number = 2.0**-9
    assert nl.rms_norm(x, 4)[0, 0].item() == np.float16(number / (number**2 / 4 + 2.0**-23) ** 0.5)
