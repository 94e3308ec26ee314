"""Scalar expressions: compiled code has NumPy's bits, primitives mean what they say, functions are accurate."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from neurlang.ops import elementary as el
from neurlang.ops import expressions, to_c, to_numpy
from neurlang.ops import scalar as s
from neurlang.ops import trigonometric as trig
from neurlang.ops.table import ROWS

from .compiled import NUMPY, Kernel, Run, compile_kernels, fma_of, levels, same_bits
from .values import FLOATS, INTEGERS, any_bits, operands

UNARY = (
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "sigmoid", "rsqrt",
)  # fmt: skip
BINARY = ("pow", "atan2")


def args(dtypes: tuple[str, ...]) -> list[s.E]:
    return [s.arg(i, t) for i, t in enumerate(dtypes)]


def check_bits(kernel: Kernel, name: str, run: Run, level: str, arrays: list[Any]) -> None:
    expected = to_numpy.evaluate(kernel.outputs, arrays, np, fma_of(level))
    for got, want in zip(run(name, arrays), expected, strict=True):
        good = same_bits(got, want)
        at = np.flatnonzero(~good)[:3]
        assert good.all(), f"{name} on {level}: at {[a[at] for a in arrays]} got {got[at]}, NumPy says {want[at]}"


# ---- the functions: bits ----------------------------------------------------------------------------------------


def function_kernels() -> dict[str, Kernel]:
    cases = itertools.chain(((f, 1) for f in UNARY), ((f, 2) for f in BINARY))
    return {f"{name}_{t}": Kernel([ROWS[name].expr(*args((t,) * n))], (t,) * n)
            for (name, n), t in itertools.product(cases, FLOATS)}


FUNCTIONS = function_kernels()


@pytest.fixture(scope="module", params=levels())
def functions(request: pytest.FixtureRequest) -> tuple[str, Run]:
    return request.param, compile_kernels(FUNCTIONS, request.param)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_functions_have_numpys_bits(name: str, functions: tuple[str, Run], rng: np.random.Generator) -> None:
    level, run = functions
    kernel = FUNCTIONS[name]
    check_bits(kernel, name, run, level, operands(rng, kernel.dtypes, 2000))


# ---- the functions: accuracy ------------------------------------------------------------------------------------

OWN_EXACT: dict[str, Callable[..., Any]] = {
    "exp2": lambda x: mp.power(2, x),
    "log2": lambda x: mp.log(x) / mp.log(2),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "pow": mp.power,
}
EXACT = {f: OWN_EXACT.get(f) or getattr(mp, f) for f in (*UNARY, *BINARY)}


def around(centres: Any, rng: np.random.Generator, reach: float = 1e-3) -> Any:
    return centres + rng.uniform(-reach, reach, len(centres))


def domain(name: str, dtype: str, rng: np.random.Generator, n: int = 150) -> Any:
    """Where the function's result is finite: its whole range, and densely where formulas change or cancel."""
    u = rng.uniform
    tiny = np.sign(u(-1, 1, n)) * np.exp(u(-80, 0, n))
    every = any_bits(rng, dtype, 2 * n)
    every = every[np.isfinite(every)].astype(np.float64)
    top = {"f32": 88.0, "f64": 709.0}[dtype]
    if name in ("exp", "expm1", "sinh", "cosh"):
        return np.concatenate([u(-top, top, n), u(-2, 2, n), tiny])
    if name == "exp2":
        return np.concatenate([u(-1.5 * top, 1.4 * top, n), u(-2, 2, n), tiny])
    if name in ("log", "log2", "log10", "rsqrt"):
        return np.concatenate([np.abs(every), u(0.5, 2, n), around(np.ones(n), rng)])
    if name == "log1p":
        return np.concatenate([np.abs(every), u(-1, 2, n), tiny[tiny > -0.9], around(np.zeros(n), rng)])
    if name in ("sin", "cos", "tan"):
        return np.concatenate([every, u(-10, 10, n), rng.integers(-10**6, 10**6, n) * (math.pi / 2), tiny])
    if name in ("asin", "acos", "atanh", "erfinv"):
        return np.concatenate([u(-1, 1, n), 1 - np.exp(u(-15 if dtype == "f32" else -36, 0, n)), tiny])
    if name == "acosh":
        return np.concatenate([1 + np.exp(u(-15 if dtype == "f32" else -36, 80, n))])
    return np.concatenate([u(-6, 6, n), u(-25, 25, n), u(-1, 1, n), tiny])


def pairs(name: str, dtype: str, rng: np.random.Generator, n: int = 400) -> tuple[Any, Any]:
    if name == "atan2":
        return tuple(np.sign(rng.uniform(-1, 1, n)) * np.exp(rng.uniform(-30, 30, n)) for _ in range(2))
    top = {"f32": 85.0, "f64": 700.0}[dtype]
    x = np.concatenate([np.exp(rng.uniform(-0.9 * top, 0.9 * top, n)), around(np.ones(n), rng)]).astype(NUMPY[dtype])
    y = rng.uniform(-top, top, 2 * n) / np.maximum(np.abs(np.log(x.astype(np.float64))), 1e-6)
    return x, np.where(rng.random(2 * n) < 0.3, np.round(rng.uniform(-9, 9, 2 * n)), y)


def ulps(got: float, exact: Any, dtype: str) -> float:
    """The distance in units of the last place of the exact value."""
    digits, least = {"f32": (24, -125), "f64": (53, -1021)}[dtype]
    exponent = max(int(mp.frexp(exact)[1]), least) if exact else least
    return float(abs(mp.mpf(got) - exact) / mp.ldexp(1, exponent - digits))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_accurate(name: str, functions: tuple[str, Run], rng: np.random.Generator) -> None:
    _, run = functions
    function, dtype = name.rsplit("_", 1)
    drawn = pairs(function, dtype, rng) if function in BINARY else (domain(function, dtype, rng),)
    arrays = [a.astype(NUMPY[dtype]) for a in drawn]
    with mp.workprec(1200 if function in ("sin", "cos", "tan") else 200):
        for got, *x in zip(*run(name, arrays), *arrays, strict=True):
            exact = EXACT[function](*(mp.mpf(float(v)) for v in x))
            largest = mp.mpf(float(np.finfo(got).max))
            if abs(exact) > largest and np.isinf(got):
                exact, got = mp.sign(exact), np.sign(got)
            error = ulps(float(got), exact, dtype)
            assert error <= ROWS[function].accuracy(dtype), f"{function}({x}) = {got!r}, off by {error:.3f} ULP"


def near_quarter_turns(dtype: str) -> Any:
    """For every exponent the number closest to a multiple of π/2: a convergent of π/2 / 2^e with a full significand."""
    digits, exponents = {"f32": (24, range(-23, 104)), "f64": (53, range(-52, 971, 3))}[dtype]
    found = []
    for e in exponents:
        ratio = mp.ldexp(mp.pi / 2, -e)
        numerators = (1, int(mp.floor(ratio)))
        while numerators[1] < 1 << digits:
            ratio = 1 / (ratio - mp.floor(ratio))
            numerators = (numerators[1], int(mp.floor(ratio)) * numerators[1] + numerators[0])
        found.append(math.ldexp(numerators[0], e))
    return np.array(found, NUMPY[dtype])


@pytest.mark.parametrize(("function", "dtype"), list(itertools.product(("sin", "cos", "tan"), FLOATS)))
def test_arguments_close_to_quarter_turns(function: str, dtype: str, functions: tuple[str, Run]) -> None:
    _, run = functions
    with mp.workprec(1400):
        x = near_quarter_turns(dtype)
        assert min(abs(mp.sin(2 * mp.mpf(float(v)))) for v in x) < 2.0 ** {"f32": -28, "f64": -57}[dtype]
        for got, v in zip(*run(f"{function}_{dtype}", [x]), x, strict=True):
            error = ulps(float(got), EXACT[function](mp.mpf(float(v))), dtype)
            assert error <= ROWS[function].accuracy(dtype), f"{function}({v!r}) = {got!r}, off by {error:.3f} ULP"


INF, NAN = math.inf, math.nan
SPECIAL: dict[str, list[tuple[float, float]]] = {  # (argument, result)
    "exp": [(-INF, 0.0), (INF, INF), (-0.0, 1.0)],
    "exp2": [(-INF, 0.0), (INF, INF), (10.0, 1024.0), (-3.0, 0.125)],
    "expm1": [(-INF, -1.0), (INF, INF), (-0.0, -0.0), (1e-40, 1e-40), (-1e30, -1.0), (1e30, INF)],
    "log": [(0.0, -INF), (-0.0, -INF), (-1.0, NAN), (INF, INF), (1.0, 0.0), (-INF, NAN)],
    "log2": [(0.0, -INF), (-0.0, -INF), (8.0, 3.0), (-2.0, NAN), (2.0**-140, -140.0)],
    "log10": [(0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN)],
    "log1p": [(-1.0, -INF), (-0.0, -0.0), (-2.0, NAN), (INF, INF), (1e-40, 1e-40)],
    "sin": [(-0.0, -0.0), (INF, NAN), (1e-40, 1e-40)],
    "cos": [(0.0, 1.0), (-INF, NAN)],
    "tan": [(-0.0, -0.0), (INF, NAN)],
    "asin": [(-0.0, -0.0), (1.5, NAN)],
    "acos": [(1.0, 0.0), (-1.5, NAN)],
    "atan": [(-0.0, -0.0), (1e-40, 1e-40)],
    "sinh": [(-0.0, -0.0), (INF, INF), (-INF, -INF)],
    "cosh": [(INF, INF), (-INF, INF), (0.0, 1.0)],
    "tanh": [(-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e-40, 1e-40), (100.0, 1.0)],
    "asinh": [(-0.0, -0.0), (INF, INF), (-INF, -INF)],
    "acosh": [(1.0, 0.0), (0.5, NAN), (-3.0, NAN), (INF, INF)],
    "atanh": [(-0.0, -0.0), (1.0, INF), (-1.0, -INF), (2.0, NAN)],
    "erf": [(-0.0, -0.0), (INF, 1.0), (-INF, -1.0)],
    "erfc": [(INF, 0.0), (-INF, 2.0), (0.0, 1.0), (100.0, 0.0)],
    "erfinv": [(1.0, INF), (-1.0, -INF), (1.5, NAN), (-0.0, -0.0)],
    "sigmoid": [(INF, 1.0), (-INF, 0.0), (0.0, 0.5)],
    "rsqrt": [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-INF, NAN), (-1.0, NAN), (4.0, 0.5)],
}


@pytest.mark.parametrize(("function", "dtype"), list(itertools.product(SPECIAL, FLOATS)))
def test_functions_at_special_values(function: str, dtype: str, functions: tuple[str, Run]) -> None:
    _, run = functions
    x, want = (np.array(column, NUMPY[dtype]) for column in zip(*SPECIAL[function], (NAN, NAN), strict=True))
    (got,) = run(f"{function}_{dtype}", [x])
    assert same_bits(got, want).all(), f"{function} at {x}: {got}, expected {want}"


@pytest.mark.parametrize(("function", "dtype"), list(itertools.product(BINARY, FLOATS)))
def test_binary_functions_at_special_values(function: str, dtype: str, functions: tuple[str, Run]) -> None:
    """C's rules for signed zeros, infinities, NaN and fractional exponents, which NumPy follows."""
    _, run = functions
    points = np.array([0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 2.5, 1e30, -1e30, np.inf, -np.inf, np.nan, 2.0**53 + 2])
    x, y = (a.ravel().astype(NUMPY[dtype]) for a in np.meshgrid(points, points))
    (got,) = run(f"{function}_{dtype}", [x, y])
    with np.errstate(all="ignore"):
        want = {"pow": np.power, "atan2": np.arctan2}[function](x, y)
    exact = np.isnan(want) | np.isinf(want) | (want == 0) | (np.abs(want) == 1)
    assert same_bits(got[exact], want[exact]).all()
    np.testing.assert_array_max_ulp(got[~exact], want[~exact], ROWS[function].ulp + 1)


# ---- the primitives ---------------------------------------------------------------------------------------------


def wrap(value: int, dtype: str) -> int:
    return int(np.array(value % (1 << 8 * s.SIZE[dtype]), np.uint64).astype(NUMPY[dtype]))


def truncated(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def shifted(x: int, by: int, dtype: str, left: bool) -> int:
    by = by if 0 <= by < 8 * s.SIZE[dtype] else 200
    return wrap(x << by if left else x >> by, dtype)


def saturated(x: float, dtype: str) -> int:
    if math.isnan(x):
        return 0
    low, high = int(np.iinfo(NUMPY[dtype]).min), int(np.iinfo(NUMPY[dtype]).max)
    return low if x <= low else high if x >= high else int(x)


def larger(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return math.nan
    return max((a, b), key=lambda v: (v, math.copysign(1, v)))


# name: (dtypes, expression, meaning on Python numbers); the meanings know nothing of the implementation
Case = tuple[tuple[str, ...], Callable[..., s.E], Callable[..., Any]]


def integer_cases(t: str) -> dict[str, Case]:
    two = (t, t)
    return {
        f"add_{t}": (two, operator.add, lambda a, b: wrap(a + b, t)),
        f"sub_{t}": (two, operator.sub, lambda a, b: wrap(a - b, t)),
        f"mul_{t}": (two, operator.mul, lambda a, b: wrap(a * b, t)),
        f"neg_{t}": ((t,), operator.neg, lambda a: wrap(-a, t)),
        f"and_{t}": (two, operator.and_, operator.and_),
        f"or_{t}": (two, operator.or_, operator.or_),
        f"xor_{t}": (two, operator.xor, operator.xor),
        f"not_{t}": ((t,), operator.invert, lambda a: wrap(~a, t)),
        f"shl_{t}": (two, operator.lshift, lambda a, b: shifted(a, b, t, True)),
        f"shr_{t}": (two, operator.rshift, lambda a, b: shifted(a, b, t, False)),
        f"idiv_{t}": (two, s.idiv, lambda a, b: wrap(truncated(a, b), t)),
        f"fmod_{t}": (two, s.fmod, lambda a, b: a - b * truncated(a, b) if b else 0),
        f"remainder_{t}": (two, s.remainder, lambda a, b: a % b if b else 0),
        f"floor_divide_{t}": (two, s.floor_divide, lambda a, b: wrap(a // b, t) if b else 0),
        f"maximum_{t}": (two, s.maximum, max),
        f"minimum_{t}": (two, s.minimum, min),
        f"absolute_{t}": ((t,), s.absolute, lambda a: wrap(abs(a), t)),
        f"lt_{t}": (two, operator.lt, operator.lt),
        f"le_{t}": (two, operator.le, operator.le),
        f"eq_{t}": (two, s.eq, operator.eq),
        f"ne_const_{t}": ((t,), lambda a: s.ne(a, 1), lambda a: a != 1),
        **{f"to_{u}_from_{t}": ((t,), lambda a, u=u: s.convert(a, u), lambda a, u=u: wrap(a, u)) for u in INTEGERS},
        **{f"to_{u}_from_{t}": ((t,), lambda a, u=u: s.convert(a, u), lambda a, u=u: NUMPY[u](a)) for u in FLOATS},
        f"to_b8_from_{t}": ((t,), lambda a: s.convert(a, "b8"), bool),
    }


def float_cases(t: str) -> dict[str, Case]:
    two, number = (t, t), NUMPY[t]
    return {
        f"add_{t}": (two, operator.add, lambda a, b: number(a) + number(b)),
        f"sub_{t}": (two, operator.sub, lambda a, b: number(a) - number(b)),
        f"mul_{t}": (two, operator.mul, lambda a, b: number(a) * number(b)),
        f"div_{t}": (two, operator.truediv, lambda a, b: number(a) / number(b)),
        f"neg_{t}": ((t,), operator.neg, operator.neg),
        f"sqrt_{t}": ((t,), s.sqrt, lambda a: np.sqrt(number(a))),
        f"rint_{t}": ((t,), s.rint, np.rint),
        f"floor_{t}": ((t,), s.floor, np.floor),
        f"ceil_{t}": ((t,), s.ceil, np.ceil),
        f"trunc_{t}": ((t,), s.trunc, np.trunc),
        f"fmod_{t}": (two, s.fmod, lambda a, b: np.fmod(number(a), number(b))),
        f"remainder_{t}": (two, s.remainder, lambda a, b: np.remainder(number(a), number(b))),
        f"maximum_{t}": (two, s.maximum, larger),
        f"minimum_{t}": (two, s.minimum, lambda a, b: -larger(-a, -b)),
        **{f"{name}_{which}_{t}": ((t,), lambda a, f=f, c=c: f(c, a) if c == 2 else f(a, c),
             lambda a, w=w, c=c: w(a, c))
           for name, f, w in (("maximum", s.maximum, larger), ("minimum", s.minimum, lambda a, b: -larger(-a, -b)))
           for which, c in (("two", 2.0), ("zero", 0.0), ("minus_zero", -0.0), ("nan", math.nan))},
        f"larger_{t}": (two, s.larger, lambda a, b: a if a > b else b),
        f"smaller_{t}": (two, s.smaller, lambda a, b: a if a < b else b),
        f"absolute_{t}": ((t,), s.absolute, abs),
        f"copysign_{t}": (two, s.copysign, math.copysign),
        f"isnan_{t}": ((t,), s.isnan, math.isnan),
        f"isinf_{t}": ((t,), s.isinf, math.isinf),
        f"isfinite_{t}": ((t,), s.isfinite, math.isfinite),
        f"lt_{t}": (two, operator.lt, operator.lt),
        f"ge_{t}": (two, operator.ge, operator.ge),
        f"ne_{t}": (two, s.ne, operator.ne),
        f"select_{t}": (("b8", t, t), s.select, lambda c, a, b: a if c else b),
        f"select_lt_{t}": (two, lambda a, b: s.select(a < b, a, 7.0), lambda a, b: a if a < b else 7.0),
        f"rare_{t}": (two, lambda a, b: s.rare(a > 3, a * b, s.sqrt(a)),
                      lambda a, b: np.sqrt(number(a)) if a > 3 else number(a) * number(b)),
        f"ldexp_{t}": ((t, "u8"), lambda a, n: s.ldexp(s.larger(-4.0, s.smaller(a, 4.0)), s.convert(n, t) - 128),
                       lambda a, n: np.ldexp(number(4 if math.isnan(a) else min(max(a, -4), 4)), n - 128)),
        f"bits_{t}": ((t,), lambda a: s.bitcast(a, s.INT_OF[t]), lambda a: int(number(a).view(NUMPY[s.INT_OF[t]]))),
        **{f"to_{u}_from_{t}": ((t,), lambda x, u=u: s.convert(x, u), lambda x, u=u: saturated(x, u))
           for u in INTEGERS},
        **{f"to_{u}_from_{t}": ((t,), lambda x, u=u: s.convert(x, u), lambda x, u=u: NUMPY[u](x)) for u in FLOATS},
        f"to_b8_from_{t}": ((t,), lambda a: s.convert(a, "b8"), bool),
        f"from_b8_to_{t}": (("b8",), lambda a: s.convert(a, t), float),
    }


def low_product(a: s.E, b: s.E) -> s.E:
    return s.low_product(s.bitcast(a, "u64"), s.bitcast(b, "u64"))


CASES: dict[str, Case] = {
    **integer_cases("u8"), **integer_cases("i32"), **integer_cases("i64"), **float_cases("f32"), **float_cases("f64"),
    "mulhi": (("u32", "u32"), s.mulhi, lambda a, b: a * b >> 32),
    "mulhi_wide": (("u32", "i64"), lambda a, b: s.mulhi(a, s.convert(b, "u32")), lambda a, b: a * (b % 2**32) >> 32),
    **{f"low_product_{name}": (("i64", "i64"), lambda a, b, shift=shift: s.convert(low_product(a, b) >> shift, "u32"),
                               lambda a, b, shift=shift: (a % 2**32) * (b % 2**32) >> shift & 0xFFFFFFFF)
       for name, shift in (("low", 0), ("high", 32))},
    "table": (("u32",), lambda a: s.table([5, 7, 11], a, "u32"), lambda a: [5, 7, 11, 0][a & 3]),
    "logic": (("b8", "b8"), lambda a, b: s.logical_xor(a, ~b) | (a & b), lambda a, b: (a != (not b)) | (a and b)),
    "logic_of_widths": (("f32", "b8", "f64", "u8"),
                        lambda a, b, c, d: (((a > 0) & b) | (c < 0)) ^ s.convert(d, "b8"),
                        lambda a, b, c, d: ((a > 0 and b) or c < 0) != bool(d)),
    "order_of_bools": (("b8", "b8"), lambda a, b: (a < b) | s.eq(a, b), lambda a, b: a <= b),
    "select_bool": (("b8", "b8", "b8"), s.select, lambda c, a, b: a if c else b),
    "mixed_select": (("f64", "f32", "u8"), lambda a, b, c: s.select(a < 1, s.convert(c, "f32"), b),
                     lambda a, b, c: c if a < 1 else b),
}  # fmt: skip


def to_kernel(case: Case) -> Kernel:
    dtypes, expression, _ = case
    return Kernel([expression(*args(dtypes))], dtypes)


KERNELS = {name: to_kernel(case) for name, case in CASES.items()}


@pytest.fixture(scope="module", params=levels())
def primitives(request: pytest.FixtureRequest) -> tuple[str, Run]:
    return request.param, compile_kernels(KERNELS, request.param)


def meaning(case: Case, dtype: str, arrays: list[Any]) -> Any:
    with np.errstate(all="ignore"):
        return np.array([case[2](*(v.item() for v in x)) for x in zip(*arrays, strict=True)]).astype(NUMPY[dtype])


@pytest.mark.parametrize("name", CASES)
def test_primitives(name: str, primitives: tuple[str, Run], rng: np.random.Generator) -> None:
    level, run = primitives
    kernel = KERNELS[name]
    arrays = operands(rng, kernel.dtypes, 200)
    want = meaning(CASES[name], kernel.outputs[0].dtype, arrays)
    check_bits(kernel, name, run, level, arrays)
    (got,) = run(name, arrays)
    good = same_bits(got, want)
    at = np.flatnonzero(~good)[:3]
    assert good.all(), f"{name} on {level}: at {[a[at] for a in arrays]} got {got[at]}, expected {want[at]}"


@pytest.mark.parametrize("dtype", FLOATS)
def test_fma_rounds_once_or_twice_as_the_level_does(dtype: str, rng: np.random.Generator) -> None:
    kernel = Kernel([s.fma(*args((dtype,) * 3))], (dtype,) * 3)
    arrays = operands(rng, kernel.dtypes, 300)
    for level in levels():
        check_bits(kernel, "fma", compile_kernels({"fma": kernel}, level), level, arrays)


def test_floor_divide_agrees_with_remainder(rng: np.random.Generator) -> None:
    a, b = (rng.normal(size=400) * 10.0 ** rng.integers(-3, 6, 400) for _ in range(2))
    x, y = args(("f64", "f64"))
    got, rest = to_numpy.evaluate([s.floor_divide(x, y), s.remainder(x, y)], [a, b], np, fma_of("avx2"))
    np.testing.assert_array_equal(got, np.floor_divide(a, b))
    np.testing.assert_array_equal(rest, np.remainder(a, b))


# ---- whole expressions ------------------------------------------------------------------------------------------


def steps(a: s.E, b: s.E, flag: s.E, dtype: str) -> list[Callable[[], s.E]]:
    """What can be made of two expressions of one dtype, a bool and another dtype."""
    common = [
        lambda: a + b, lambda: a * b, lambda: a - 3, lambda: a < b, lambda: s.eq(a, b), lambda: flag & (a >= b),
        lambda: ~flag, lambda: s.select(flag, a, b), lambda: s.select(a < b, b, a), lambda: s.maximum(a, b),
        lambda: s.convert(a, dtype), lambda: s.rare(flag, a + 1, a * b),
    ]  # fmt: skip
    if a.dtype in FLOATS:
        more = lambda: s.fma(a, b, a), lambda: a / b, lambda: s.rint(a), lambda: el.exp(a), lambda: trig.sin(b)
        return [*common, *more]
    return [*common, lambda: a & b, lambda: a << b, lambda: a >> 2, lambda: s.idiv(a, b), lambda: s.remainder(a, b)]


def random_expression(rng: np.random.Generator, size: int) -> Kernel:
    """A DAG over operands of all dtypes, with rare branches and shared parts."""
    dtypes = ("f32", "f64", "i32", "i64", "u8", "b8", "f32")
    pool = args(dtypes)

    def pick(dtype: str) -> s.E:
        fitting = [e for e in pool if e.dtype == dtype]
        return fitting[rng.integers(len(fitting))]

    for _ in range(size):
        t, other = (str(v) for v in rng.choice([*FLOATS, *INTEGERS], 2))
        made = steps(pick(t), pick(t), pick("b8"), other)
        pool.append(made[rng.integers(len(made))]())
    return Kernel([*pool[-2:], pick("b8")], dtypes)


@pytest.mark.parametrize("level", levels())
def test_random_expressions(level: str, rng: np.random.Generator) -> None:
    kernels = {f"random{k}": random_expression(rng, int(rng.integers(3, 25))) for k in range(40)}
    run = compile_kernels(kernels, level)
    for name, kernel in kernels.items():
        check_bits(kernel, name, run, level, operands(rng, kernel.dtypes, 60))


def test_index_counts_in_row_major_order() -> None:
    kernel = Kernel([s.index() * 3 + s.arg(0, "i64")], ("i64",))
    (got,) = to_numpy.evaluate(kernel.outputs, [np.zeros((2, 5), np.int64)], np, fma_of("avx2"), shape=(2, 5))
    np.testing.assert_array_equal(got, 3 * np.arange(10).reshape(2, 5))
    for level in levels():
        (flat,) = compile_kernels({"index": kernel}, level)("index", [np.zeros(35, np.int64)])
        np.testing.assert_array_equal(flat, 3 * np.arange(35))


PHILOX = [  # counter, key, output: the known answers of Random123
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


def test_philox_gives_the_published_numbers() -> None:
    def joined(low: int, high: int) -> Any:
        return np.array(low | high << 32, np.uint64).astype(np.int64).reshape(1)

    kernel = Kernel(expressions.philox(*args(("i64", "i64", "i64"))), ("i64", "i64", "i64"))
    for counter, key, want in PHILOX:
        arrays = [joined(*counter[:2]), joined(*key), joined(*counter[2:])]
        assert [int(o[0]) for o in to_numpy.evaluate(kernel.outputs, arrays, np, fma_of("avx2"))] == list(want)
        for level in levels():
            assert [int(o[0]) for o in compile_kernels({"philox": kernel}, level)("philox", arrays)] == list(want)


# ---- building and rendering -------------------------------------------------------------------------------------


def test_equal_parts_are_rendered_once() -> None:
    x, y = args(("f32", "f32"))
    statements, results = to_c.emit([(x + y) * (x + y), (x + y) - 1], ["a", "b"])
    assert sum(" + " in line for line in statements) == 1 and len(results) == 2


def test_signed_zero_and_nan_constants_are_not_confused() -> None:
    x = s.arg(0, "f64")
    outputs = [s.select(x > 0, 0.0, s.const(-0.0, "f64")), s.select(x > 0, x, math.nan)]
    run = compile_kernels({"zeros": Kernel(outputs, ("f64",))}, "baseline")
    zeros, nans = run("zeros", [np.array([1.0, -1.0])])
    assert list(np.signbit(zeros)) == [False, True] and list(np.isnan(nans)) == [False, True]


def test_deep_expressions_need_no_recursion() -> None:
    e = x = s.arg(0, "f64")
    for _ in range(20_000):
        e = e * 0.5 + x
    statements, _ = to_c.emit([e], ["x"])
    assert len(statements) == 40_000
    (value,) = to_numpy.evaluate([e], [np.ones(1)], np, fma_of("avx2"))
    assert value[0] == 2.0


def test_what_is_rare_stays_in_its_branch() -> None:
    x = s.arg(0, "f32")
    statements, _ = to_c.emit([s.rare(x > 9, x + 1, s.sqrt(x) * x)], ["x"])
    opening = next(i for i, line in enumerate(statements) if "UNLIKELY" in line)
    root = next(i for i, line in enumerate(statements) if "sqrt" in line)
    assert opening < root and statements[root].startswith("  ")


@pytest.mark.parametrize("wrong", [
    lambda: s.arg(0, "f32") + s.arg(1, "f64"), lambda: s.arg(0, "i32") / 2, lambda: bool(s.arg(0, "f32") < 1),
    lambda: s.bitcast(s.arg(0, "f32"), "i64"), lambda: s.mulhi(s.arg(0, "i32"), 3),
    lambda: s.larger(s.arg(0, "i32"), 3),
])  # fmt: skip
def test_mistakes_are_type_errors(wrong: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        wrong()


def test_shift_amounts_are_checked() -> None:
    with pytest.raises(ValueError, match="shift of i32 by 32"):
        s.arg(0, "i32") << 32
