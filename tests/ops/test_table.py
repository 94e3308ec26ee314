"""The op table is consistent: rows fit together, expressions mean what references say, generated text is current."""

from __future__ import annotations

import ast
import inspect
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import assert_agrees

from neurlang.ops import scalar, shapes, table, to_numpy
from neurlang.ops.row import Row, check
from neurlang.ops.table import ROWS, TABLE

from .draws import NUMPY, draw, reference, tolerance, wide_dtypes

ROOT = Path(__file__).resolve().parents[2]
MAPS = [row for row in TABLE if row.kind == "map"]
COMPARED = [(row, dtype) for row in MAPS if row.numpy is not None for dtype in wide_dtypes(row)]


def dtypes_of(types: tuple[str, ...], dtype: str) -> list[str]:
    return [dtype if t == "T" else t for t in types]


def outputs(row: Row, dtype: str) -> list[scalar.E]:
    result = row.expr(*(scalar.arg(i, t) for i, t in enumerate(dtypes_of(row.in_types, dtype))))
    return list(result) if isinstance(result, tuple) else [result]


def fma(a: Any, b: Any, c: Any) -> Any:
    """Close to fused: products of float32 are exact in float64, those of float64 nearly so in long double."""
    wide = np.float64 if np.result_type(a, b, c) == np.float32 else np.longdouble
    return (np.asarray(a, wide) * b + c).astype(np.result_type(a, b, c))


def ids(case: tuple[Row, str]) -> str:
    return f"{case[0].name}-{case[1]}"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_row_is_well_formed(row: Row) -> None:
    check(row)
    assert hasattr(shapes, row.shape), f"ops/shapes.py has no rule {row.shape}"
    assert row.native or row.kind in ("map", "source"), "neither an expression nor a kernel"
    assert row.stablehlo and "\n" not in row.doc and not row.doc.endswith(".")
    assert row.numpy is not None or row.inplace or row.shape == "checked", "a reference is missing"


def test_names_are_unique() -> None:
    names = [name for row in TABLE for name in (row.name, *row.aliases)]
    assert len(set(names)) == len(names)
    assert list(ROWS) == [row.name for row in TABLE]


@pytest.mark.parametrize("row", [row for row in TABLE if row.grad], ids=lambda row: row.name)
def test_gradient_rule_names_its_operands(row: Row) -> None:
    # The engine reads from the names which operands to keep, so all of them must be positional parameters.
    code = row.grad.__code__
    names = code.co_varnames[: code.co_argcount]
    assert len(names) >= 2 + len(row.ins)
    rest = names[2 + len(row.ins) :]
    assert {"out", "outs"} & set(rest) <= {rest[0] if rest else ""}, "out follows the operands"
    assert ("outs" in rest) == (row.outs > 1 and "out" not in rest and bool(rest))
    attrs = len(rest) - ("out" in rest or "outs" in rest)
    takes_any = bool(code.co_flags & inspect.CO_VARARGS)
    assert takes_any or attrs == len(row.attrs)


@pytest.mark.parametrize("row", MAPS, ids=lambda row: row.name)
def test_expression_has_the_declared_types(row: Row) -> None:
    for dtype in row.kernels:
        assert [e.dtype for e in outputs(row, dtype)] == dtypes_of(row.out_types, dtype)


@pytest.mark.parametrize("case", COMPARED, ids=ids)
def test_expression_matches_reference(case: tuple[Row, str], rng: np.random.Generator) -> None:
    row, dtype = case
    arrays = [draw(rng, row, i, t, (999,)) for i, t in enumerate(dtypes_of(row.in_types, dtype))]
    (got,) = to_numpy.evaluate(outputs(row, dtype), arrays, np, fma, (999,))
    expected = reference(row, arrays)
    assert got.dtype == NUMPY[dtypes_of(row.out_types, dtype)[0]]
    excess = np.abs(got.astype(np.float64) - expected) - tolerance(row, got.dtype, expected)
    worst = int(np.argmax(excess))
    assert excess[worst] <= 0, f"{[a[worst] for a in arrays]}: {got[worst]!r}, reference {expected[worst]!r}"


SPECIAL = np.array(
    [0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-40, -1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e10, -7.25],
    np.float32,
)
EXACT = [
    "add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "neg", "abs", "square", "reciprocal", "maximum",
    "minimum", "sqrt", "eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "isnan", "isinf", "isfinite",
    "floor", "ceil", "round", "trunc", "masked_fill", "where",
]


@pytest.mark.parametrize("name", EXACT)
def test_exact_rows_on_special_values(name: str) -> None:
    # Infinities, NaN, subnormals and signed zeros: NumPy computes the same operation in the same dtype.
    row = ROWS[name]
    axes = [np.array([True, False]) if t == "b8" else SPECIAL for t in row.in_types]
    arrays = [a.ravel() for a in np.meshgrid(*axes, indexing="ij")]
    (got,) = to_numpy.evaluate(outputs(row, "f32"), arrays, np, fma, arrays[0].shape)
    with np.errstate(all="ignore"):
        expected = np.asarray(row.numpy(np, *arrays))
    np.testing.assert_array_equal(got, expected)
    if name not in ("maximum", "minimum", "floor_divide", "remainder"):  # where zeros are equal NumPy takes either
        signs = np.signbit(got) == np.signbit(expected) if got.dtype.kind == "f" else np.array(True)
        assert (signs | np.isnan(expected)).all()


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_extrema_order_zeros_and_keep_nan(name: str) -> None:
    pairs = np.array([[0.0, -0.0], [-0.0, 0.0], [np.nan, 1], [1, np.nan], [-np.inf, np.nan]], np.float32).T
    (got,) = to_numpy.evaluate(outputs(ROWS[name], "f32"), list(pairs), np, fma, (5,))
    assert list(np.signbit(got[:2])) == [name == "minimum"] * 2
    assert np.isnan(got[2:]).all()


def test_relu_keeps_negative_zero_and_nan() -> None:
    x = np.array([-0.0, 0.0, np.nan, -np.inf, np.inf, -1e-40], np.float32)
    (got,) = to_numpy.evaluate(outputs(ROWS["relu"], "f32"), [x], np, fma, x.shape)
    np.testing.assert_array_equal(got, [-0.0, 0.0, np.nan, 0.0, np.inf, 0.0])
    assert list(np.signbit(got[:2])) == [True, False]


UPDATES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd_": ("SGD", {"lr": 0.1, "weight_decay": 0.3}),
    "sgd_momentum_": ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.2, "weight_decay": 0.3}),
    "sgd_nesterov_": ("SGD", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3, "nesterov": True}),
    "adam_": ("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
    "adamw_": ("AdamW", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
}


def scalars_of(name: str, options: dict[str, Any], step: int) -> list[float]:
    """The scalar operands of an update's row, as its doc says."""
    lr, decay = options["lr"], options["weight_decay"]
    if name == "sgd_":
        return [lr, decay]
    if name.startswith("sgd"):
        return [lr, options["momentum"], 0.0 if step == 1 else options.get("dampening", 0.0), decay]
    beta1, beta2 = options["betas"]
    root = math.sqrt(1 - beta2**step)
    last = decay if name == "adam_" else lr * decay
    return [lr * root / (1 - beta1**step), 1 - beta1, 1 - beta2, options["eps"] * root, last]


@pytest.mark.parametrize("name", UPDATES)
def test_updates_follow_torch(name: str, rng: np.random.Generator, torch: Any) -> None:
    row, (peer, options) = ROWS[name], UPDATES[name]
    p = rng.standard_normal(50)
    theirs = torch.from_numpy(p.copy()).requires_grad_()
    optimiser = getattr(torch.optim, peer)([theirs], **options)
    state = [np.zeros(50) for _ in row.inplace[1:]]
    for step in range(1, 6):
        g = rng.standard_normal(50)
        operands = [p, g, *state, *(np.array(v) for v in scalars_of(name, options, step))]
        p, *state = to_numpy.evaluate(outputs(row, "f64"), operands, np, fma, (50,))
        theirs.grad = torch.from_numpy(g)
        optimiser.step()
        assert_agrees(p, theirs.detach().numpy(), n=step)


@pytest.mark.parametrize("dtype", ["u8", "i32", "i64"])
@pytest.mark.parametrize("name", ["floor_divide", "div_trunc", "remainder", "fmod", "pow", "bitwise_left_shift",
                                  "bitwise_right_shift", "add", "sub", "mul", "neg", "abs"])
def test_integer_rows_at_the_limits(name: str, dtype: str) -> None:
    # Division by zero gives 0, the minimum by -1 itself; shifts by the width or more 0 or the sign; all else wraps.
    row, info = ROWS[name], np.iinfo(NUMPY[dtype])
    values = sorted({info.min, info.min + 1, 0, 1, 2, 3, 7, info.bits - 1, info.bits, info.max, max(info.min, -1)})
    bits, signed = info.bits, info.min < 0

    def wrapped(n: int) -> int:
        n &= (1 << bits) - 1
        return n - (1 << bits) if signed and n >> (bits - 1) else n

    for x in values:
        for y in values:
            if name == "pow" and y > 70:
                continue
            ins = (x, y)[: len(row.ins)]
            arrays = [np.array([v], NUMPY[dtype]) for v in ins]
            (got,) = to_numpy.evaluate(outputs(row, dtype), arrays, np, fma, (1,))
            assert int(got[0]) == wrapped(INTEGER[name](bits, *ins)), ins


def _pow(x: int, y: int) -> int:
    if y >= 0:
        return x**y
    return {1: 1, -1: -1 if y % 2 else 1}.get(x, 0)


def _truncated(x: int, y: int) -> int:
    return 0 if y == 0 else abs(x) // abs(y) * (-1 if (x < 0) != (y < 0) else 1)


INTEGER: dict[str, Any] = {
    "floor_divide": lambda bits, x, y: x // y if y else 0,
    "div_trunc": lambda bits, x, y: _truncated(x, y),
    "remainder": lambda bits, x, y: x % y if y else 0,
    "fmod": lambda bits, x, y: x - _truncated(x, y) * y if y else 0,
    "pow": lambda bits, x, y: _pow(x, y),
    "bitwise_left_shift": lambda bits, x, y: x << y if 0 <= y < bits else 0,
    "bitwise_right_shift": lambda bits, x, y: x >> y if 0 <= y < bits else -(x < 0),
    "add": lambda bits, x, y: x + y,
    "sub": lambda bits, x, y: x - y,
    "mul": lambda bits, x, y: x * y,
    "neg": lambda bits, x: -x,
    "abs": lambda bits, x: abs(x),
}


@pytest.mark.parametrize("text", ["u8", "i32", "i64"])
def test_casts_from_floats_saturate(text: str) -> None:
    info = np.iinfo(NUMPY[text])
    x = np.array([0.0, 2.9, -2.9, 1e30, -1e30, np.inf, -np.inf, np.nan, 255, 256, 2.0**31, -(2.0**31), 2.0**63])
    (got,) = to_numpy.evaluate(outputs(ROWS[f"to_{NUMPY[text].__name__}"], "f64"), [x], np, fma, x.shape)
    exact = [0 if math.isnan(v) else max(info.min, min(info.max, math.trunc(v) if math.isfinite(v) else v)) for v in x]
    assert [int(v) for v in got] == [info.max if v == math.inf else info.min if v == -math.inf else v for v in exact]


# ---- references of windows ----


def test_convolution_references_against_torch(rng: np.random.Generator, torch: Any) -> None:
    for _ in range(30):
        groups, kh, kw = (int(n) for n in rng.integers(1, 4, 3))
        sizes = [int(n) for n in (*rng.integers(1, 3, 2), *rng.integers(0, 3, 2), *rng.integers(1, 3, 2))]
        x, w = (torch.from_numpy(rng.standard_normal(s)) for s in ((2, 2 * groups, 7, 8), (3 * groups, 2, kh, kw)))
        x.requires_grad_()
        w.requires_grad_()
        y = torch.conv2d(x, w, None, tuple(sizes[:2]), tuple(sizes[2:4]), tuple(sizes[4:]), groups)
        g = rng.standard_normal(tuple(y.shape))
        gx, gw = (v.numpy() for v in torch.autograd.grad(y, (x, w), torch.from_numpy(g)))
        a, b = x.detach().numpy(), w.detach().numpy()
        assert_agrees(ROWS["conv2d"].numpy(np, a, b, *sizes, groups, 2), y.detach().numpy())
        assert_agrees(ROWS["conv2d_input"].numpy(np, g, b, *sizes, groups, 2, 7, 8), gx)
        assert_agrees(ROWS["conv2d_weight"].numpy(np, a, g, *sizes, groups, 2, kh, kw), gw)


def test_pool_references_against_torch(rng: np.random.Generator, torch: Any) -> None:
    functional = torch.nn.functional
    for _ in range(30):
        k, s, d = (int(n) for n in rng.integers(1, 4, 3))
        p, ceil, include = int(rng.integers(0, k // 2 + 1)), bool(rng.integers(2)), bool(rng.integers(2))
        oh, ow = (int(n) for n in rng.integers(1, 9, 2))
        x = torch.from_numpy(rng.standard_normal((2, 3, 7, 8))).requires_grad_()
        a = x.detach().numpy()

        def gradient(y: Any, x: Any = x) -> tuple[np.ndarray, np.ndarray]:
            g = rng.standard_normal(tuple(y.shape))
            return g, torch.autograd.grad(y, x, torch.from_numpy(g))[0].numpy()

        average = (k, k, s, s, p, p, ceil, include, 0)
        y = functional.avg_pool2d(x, k, s, p, ceil, include)
        g, gx = gradient(y)
        assert_agrees(ROWS["avg_pool2d"].numpy(np, a, *average), y.detach().numpy())
        assert_agrees(ROWS["avg_pool2d_grad"].numpy(np, g, *average, 7, 8), gx)
        y = functional.adaptive_avg_pool2d(x, (oh, ow))
        g, gx = gradient(y)
        assert_agrees(ROWS["adaptive_avg_pool2d"].numpy(np, a, oh, ow), y.detach().numpy())
        assert_agrees(ROWS["adaptive_avg_pool2d_grad"].numpy(np, g, 7, 8), gx)
        y, index = functional.max_pool2d(x, k, s, p, d, ceil, True)
        g, gx = gradient(y)
        values, places = ROWS["max_pool2d"].numpy(np, a, k, k, s, s, p, p, d, d, ceil)
        np.testing.assert_array_equal(values, y.detach().numpy())
        np.testing.assert_array_equal(places, index.numpy())
        assert_agrees(ROWS["max_pool2d_grad"].numpy(np, g, places, 7, 8), gx)


# ---- register ----


def row(**changes: Any) -> Row:
    good = Row("test_row", "map", ("input",), "T->T", "x", over="float", expr=lambda x: x)
    return replace(good, **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": "mop"}, "kind"),
        ({"over": "complex"}, "over"),
        ({"types": "T,T->T"}, "operands"),
        ({"types": "T"}, "types"),
        ({"types": "f8->T"}, "types"),
        ({"expr": None}, "expr"),
        ({"doc": ""}, "doc"),
        ({"shape": "round"}, "shape"),
        ({"binding": "loose"}, "binding"),
        ({"promote": "up"}, "promote"),
        ({"inplace": (0, 0)}, "inplace"),
        ({"defaults": {"nothing": 1.0}}, "defaults"),
        ({"name": "add"}, "already"),
        ({"name": "no name"}, "identifier"),
    ],
)
def test_register_refuses(changes: dict[str, Any], complaint: str) -> None:
    before = dict(ROWS)
    with pytest.raises(ValueError, match=complaint):
        table.register(row(**changes))
    assert before == ROWS


def test_a_row_that_a_hook_refuses_is_not_registered() -> None:
    before = dict(ROWS)
    wide = row(name="test_wide", ins=tuple(f"x{i}" for i in range(12)), types=",".join("T" * 12) + "->T")
    with pytest.raises(ValueError, match="at most"):
        table.register(wide)
    assert before == ROWS


def test_register_tells_its_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Row] = []
    monkeypatch.setattr(table, "on_register", [seen.append])
    monkeypatch.setattr(table, "ROWS", dict(ROWS))
    new = row(name="test_registered")
    table.register(new)
    assert seen == [new] and table.ROWS["test_registered"] is new


# ---- generated text ----


@pytest.fixture(scope="module")
def generator() -> Any:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return __import__("gen_cython")
    finally:
        sys.path.remove(str(ROOT / "tools"))


def test_generated_functions_cover_the_table(generator: Any) -> None:
    text = generator.functions(TABLE, generator.load("composite"))
    defined = re.findall(r"^def (\w+)", text, re.MULTILINE)
    expected = {row.function for row in TABLE if row.kind in ("map", "reduce") and row.binding != "manual"}
    assert expected <= set(defined) and len(set(defined)) == len(defined)
    ast.parse(re.sub(r"\bbint ", "", text))


def test_generated_methods_are_python(generator: Any) -> None:
    text = generator.methods(TABLE, generator.load("composite"))
    ast.parse(re.sub(r"\bbint ", "", text))
    defined = re.findall(r"^def (\w+)", text, re.MULTILINE)
    assert len(set(defined)) == len(defined)
    assert {"add", "add_", "__radd__", "sum", "clamp", "clamp_", "__eq__"} <= set(defined)


def test_examples_are_right() -> None:
    for row in TABLE:
        arguments, result = row.example
        if not result:
            continue
        operands = [np.array(v) for v in ast.literal_eval(f"({arguments},)")]
        attrs = [0] if row.kind == "reduce" else []
        with np.errstate(all="ignore"):
            filled = [*operands, *(np.array(row.defaults[name]) for name in row.ins[len(operands) :])]
            expected = np.asarray(row.numpy(np, *filled, *attrs))
        expected = expected.reshape(()) if row.kind == "reduce" else expected
        assert expected.tolist() == ast.literal_eval(result), row.name


def test_stub_is_current(generator: Any) -> None:
    committed = (ROOT / "python" / "neurlang" / "_tensor.pyi").read_text()
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        current = generator.stub(TABLE, generator.extension_source(TABLE))
    finally:
        sys.path.remove(str(ROOT / "tools"))
    assert committed == current, "run `python tools/gen_cython.py`"
