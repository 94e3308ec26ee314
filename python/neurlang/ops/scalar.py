"""Scalar expressions: a small language in which the meaning of every elementwise op is written once.

A row's `expr` is a function over `E` values. Calling it builds a DAG; to_c.py renders it to the vector C of
csrc/simd/vec.h (eager kernels at build, traced kernels at run time), to_numpy.py computes it with NumPy. Both follow
the same rounded operations in the same places, so the bits agree. Standard library only: the build loads this file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import dtypes

# Beside the element types there are unsigned words. Narrow types are loaded, stored, selected and converted only.
SIZE = {"u32": 4, "u64": 8} | {text: info.itemsize for text, info in dtypes.DTYPES.items()}
FLOATS = ("f32", "f64")
MANTISSA = {"f32": 23, "f64": 52}  # stored bits of the significand
INT_OF = {"f32": "i32", "f64": "i64"}  # the signed integer with a float's bits
SIGNED = ("i8", "i16", "i32", "i64")
_serial = itertools.count()

Number = int | float | bool


class E:
    """A node of an expression DAG, numbered after its arguments: sorting by `serial` is an order of evaluation."""

    __slots__ = ("args", "dtype", "op", "serial", "value")

    def __init__(self, op: str, args: tuple[E, ...], dtype: str, value: Any = None) -> None:
        self.op, self.args, self.dtype, self.value = op, args, dtype, value
        self.serial = next(_serial)

    def __repr__(self) -> str:
        inner = ", ".join(map(repr, self.args)) if self.args else repr(self.value)
        return f"{self.op}({inner})"

    def __bool__(self) -> bool:
        raise TypeError("a scalar expression has no truth value; use select, logical_and, logical_or")

    def __add__(self, other: E | Number) -> E:
        return _binary("add", self, other)

    def __radd__(self, other: Number) -> E:
        return _binary("add", other, self)

    def __sub__(self, other: E | Number) -> E:
        return _binary("sub", self, other)

    def __rsub__(self, other: Number) -> E:
        return _binary("sub", other, self)

    def __mul__(self, other: E | Number) -> E:
        return _binary("mul", self, other)

    def __rmul__(self, other: Number) -> E:
        return _binary("mul", other, self)

    def __truediv__(self, other: E | Number) -> E:
        return _float_binary("div", self, other)

    def __rtruediv__(self, other: Number) -> E:
        return _float_binary("div", other, self)

    def __neg__(self) -> E:
        return E("neg", (self,), self.dtype)

    def __and__(self, other: E | Number) -> E:
        return _binary("and", self, other)

    def __or__(self, other: E | Number) -> E:
        return _binary("or", self, other)

    def __xor__(self, other: E | Number) -> E:
        return _binary("xor", self, other)

    def __invert__(self) -> E:
        return E("not", (self,), self.dtype)

    def __lshift__(self, amount: E | int) -> E:
        return _shift("shl", self, amount)

    def __rshift__(self, amount: E | int) -> E:
        return _shift("shr", self, amount)

    def __lt__(self, other: E | Number) -> E:
        return _compare("lt", self, other)

    def __le__(self, other: E | Number) -> E:
        return _compare("le", self, other)

    def __gt__(self, other: E | Number) -> E:
        return _compare("lt", other, self)

    def __ge__(self, other: E | Number) -> E:
        return _compare("le", other, self)


# ---- leaves -----------------------------------------------------------------------------------------------------


def arg(i: int, dtype: str) -> E:
    """The i-th operand."""
    return E("arg", (), dtype, i)


def const(value: Number, dtype: str) -> E:
    """A number rounded (floats) or wrapped (integers) to `dtype`."""
    return E("const", (), dtype, as_dtype(value, dtype))


def index() -> E:
    """The row-major index of the element, an i64."""
    return E("index", (), "i64")


def as_dtype(value: Number, dtype: str) -> Number:
    if dtype == "b8":
        return bool(value)
    if dtype in dtypes.DTYPES and dtypes.DTYPES[dtype].floating:
        return dtypes.rounded(value, dtype)
    bits = 8 * SIZE[dtype]
    wrapped = int(value) & ((1 << bits) - 1)
    return wrapped - (1 << bits) if dtype in SIGNED and wrapped >> (bits - 1) else wrapped


def _pair(a: E | Number, b: E | Number) -> tuple[E, E]:
    """Both as expressions of one dtype; a Python number takes the other's."""
    if not isinstance(a, E):
        assert isinstance(b, E)
        a = const(a, b.dtype)
    if not isinstance(b, E):
        b = const(b, a.dtype)
    if a.dtype != b.dtype:
        raise TypeError(f"operands of dtypes {a.dtype} and {b.dtype}: convert one of them")
    return a, b


def _binary(op: str, a: E | Number, b: E | Number) -> E:
    a, b = _pair(a, b)
    return E(op, (a, b), a.dtype)


def _float_binary(op: str, a: E | Number, b: E | Number) -> E:
    a, b = _pair(a, b)
    if a.dtype not in FLOATS:
        raise TypeError(f"{op} of {a.dtype}: use idiv, floor_divide, or convert to a float")
    return E(op, (a, b), a.dtype)


def _compare(op: str, a: E | Number, b: E | Number) -> E:
    return E(op, _pair(a, b), "b8")


def _shift(op: str, x: E, amount: E | int) -> E:
    """Shifts by the width or more (or by a negative amount) give 0, or the sign."""
    bits = 8 * SIZE[x.dtype]
    if isinstance(amount, int):
        if not 0 <= amount < bits:
            raise ValueError(f"shift of {x.dtype} by {amount}")
        return E(op, (x, const(amount, x.dtype)), x.dtype)
    inside = (amount >= 0) & (amount < bits) if amount.dtype in SIGNED else amount < bits
    safe = select(inside, amount, bits - 1)
    shifted = E(op, _pair(x, safe), x.dtype)
    return shifted if op == "shr" and x.dtype in SIGNED else select(inside, shifted, 0)


# ---- primitives -------------------------------------------------------------------------------------------------


def fma(a: E | Number, b: E | Number, c: E | Number) -> E:
    """a * b + c, rounded once; on a level without the instruction, twice."""
    like = next(x for x in (a, b, c) if isinstance(x, E))
    a, b, c = (_pair(x, like)[0] for x in (a, b, c))
    return E("fma", (a, b, c), a.dtype)


def sqrt(x: E) -> E:
    """The correctly rounded square root."""
    return E("sqrt", (x,), x.dtype)


def ldexp(y: E, n: E) -> E:
    """y * 2**n rounded once, for an integral float n of at most twice the exponent range and y of moderate size."""
    return E("ldexp", _pair(y, n), y.dtype)


def larger(a: E | Number, b: E | Number) -> E:
    """a > b ? a : b, one instruction: b when they are equal or unordered. See `maximum` for a symmetric one."""
    return _float_binary("max", a, b)


def smaller(a: E | Number, b: E | Number) -> E:
    """a < b ? a : b, one instruction: b when they are equal or unordered. See `minimum` for a symmetric one."""
    return _float_binary("min", a, b)


def select(condition: E, a: E | Number, b: E | Number) -> E:
    """a where the condition holds, else b."""
    a, b = _pair(a, b)
    if a.dtype == "b8":
        return (condition & a) | (~condition & b)
    return E("select", (condition, a, b), a.dtype)


def rare(condition: E, fast: E, slow: E) -> E:
    """select(condition, slow, fast), where `slow` is computed only when some lane's condition holds."""
    fast, slow = _pair(fast, slow)
    return E("rare", (condition, fast, slow), fast.dtype)


def bitcast(x: E, dtype: str) -> E:
    """The same bits as another dtype of the same size."""
    if SIZE[x.dtype] != SIZE[dtype]:
        raise TypeError(f"bitcast from {x.dtype} to {dtype}")
    return E("bitcast", (x,), dtype) if x.dtype != dtype else x


def table(values: Sequence[int], position: E, dtype: str) -> E:
    """values[position mod n], n the number of values rounded up to a power of two; the rest is 0."""
    n = 1 << (len(values) - 1).bit_length()
    padded = tuple(as_dtype(v, dtype) for v in values) + (0,) * (n - len(values))
    return E("table", (position & (n - 1),), dtype, padded)


def mulhi(a: E, b: E | int) -> E:
    """The upper 32 bits of the product of two u32."""
    a, b = _pair(a, b)
    if a.dtype != "u32":
        raise TypeError(f"mulhi of {a.dtype}")
    return E("mulhi", (a, b), "u32")


def low_product(a: E, b: E | int) -> E:
    """The product, of 64 bits, of the lower halves of two u64."""
    a, b = _pair(a, b)
    if a.dtype != "u64":
        raise TypeError(f"low_product of {a.dtype}")
    return E("low_product", (a, b), "u64")


def eq(a: E | Number, b: E | Number) -> E:
    return _compare("eq", a, b)


def ne(a: E | Number, b: E | Number) -> E:
    return _compare("ne", a, b)


def convert(x: E, dtype: str) -> E:
    """To another dtype: integers wrap, floats round, float to integer truncates and saturates (NaN gives 0)."""
    if x.dtype == dtype:
        return x
    if x.dtype in dtypes.DTYPES and x.dtype != dtypes.wide(x.dtype):
        return convert(_widened(x), dtype)
    if dtype == "b8":
        return ne(x, 0)
    if x.dtype == "b8":
        return select(x, const(1, dtype), const(0, dtype))
    if dtype in ("f16", "bf16"):
        return E("convert", (_before_rounding(x, dtype),), dtype)
    if x.dtype in FLOATS and dtype not in FLOATS:
        return _saturate(x, dtype)
    if dtype in ("i8", "i16"):
        x = convert(x, "i32")
    return E("convert", (x,), dtype)


def _widened(x: E) -> E:
    wide = dtypes.wide(x.dtype)
    return const(x.value, wide) if x.op == "const" else E("convert", (x,), wide)


def _before_rounding(x: E, dtype: str) -> E:
    """A float32 that rounds to what x itself rounds to in a 16-bit float: where it is not x, it is odd."""
    if x.dtype == "i64":
        # Beyond 2**53 the lowest bits become one that says whether any was set. float16 is infinite from 2**16 on.
        sticky = ((x >> 11) | convert(ne(x & 0x7FF, 0), "i64")) << 11
        x = select((x < 1 << 53) & (x > -(1 << 53)), x, sticky)
    if x.dtype in ("i32", "i64"):
        x = convert(x, "f64")
    if x.dtype != "f64":
        return convert(x, "f32")
    near = E("convert", (x,), "f32")
    back = E("convert", (near,), "f64")
    bits = bitcast(near, "i32")
    towards_zero = bits - convert(absolute(back) > absolute(x), "i32")
    return select(eq(back, x) | isnan(x), near, bitcast(towards_zero | 1, "f32"))


def computed(expr: Callable[..., Any], operands: Sequence[E], direct: bool = False) -> tuple[E, ...]:
    """A row's expressions over operands of any dtype.

    Narrow operands are widened and results of the wide type rounded back, once. A `direct` row takes all as they lie
    in memory.
    """
    narrow = next((e.dtype for e in operands if dtypes.wide(e.dtype) != e.dtype), "")
    if narrow and not direct:
        operands = [convert(e, dtypes.wide(e.dtype)) for e in operands]
    made = expr(*operands)
    outputs = made if isinstance(made, tuple) else (made,)
    if not narrow or direct:
        return outputs
    return tuple(convert(e, narrow) if e.dtype == dtypes.wide(narrow) else e for e in outputs)


def _saturate(x: E, dtype: str) -> E:
    if SIZE[dtype] < 4:
        low, high = (-(1 << (8 * SIZE[dtype] - 1)), (1 << (8 * SIZE[dtype] - 1)) - 1) if dtype in SIGNED else (0, 255)
        inside = select(x < high, select(x > low, x, low), select(x >= high, const(high, x.dtype), 0))
        return E("convert", (E("convert", (inside,), "i32"),), dtype)
    bits = 8 * SIZE[dtype]
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if dtype in SIGNED else (0, 1 << bits)
    inside = (x >= low) & (x < high)
    whole = E("convert", (select(inside, x, 0),), dtype)
    outside = select(x > 0, const(high - 1, dtype), select(x < 0, const(low, dtype), 0))
    return select(inside, whole, outside)


# ---- what the primitives make -----------------------------------------------------------------------------------


def logical_not(a: E) -> E:
    return ~convert(a, "b8")


def logical_and(a: E, b: E) -> E:
    return convert(a, "b8") & convert(b, "b8")


def logical_or(a: E, b: E) -> E:
    return convert(a, "b8") | convert(b, "b8")


def logical_xor(a: E, b: E) -> E:
    return convert(a, "b8") ^ convert(b, "b8")


def isnan(x: E) -> E:
    return ne(x, x) if x.dtype in FLOATS else const(False, "b8")


def isinf(x: E) -> E:
    return eq(absolute(x), math.inf) if x.dtype in FLOATS else const(False, "b8")


def isfinite(x: E) -> E:
    return absolute(x) < math.inf if x.dtype in FLOATS else const(True, "b8")


def sign_bit(x: E) -> E:
    """The sign bit of a float, alone, as an integer."""
    return bitcast(x, INT_OF[x.dtype]) & (1 << (8 * SIZE[x.dtype] - 1))


def absolute(x: E) -> E:
    if x.dtype in FLOATS:
        bits = bitcast(x, INT_OF[x.dtype])
        return bitcast(bits & ((1 << (8 * SIZE[x.dtype] - 1)) - 1), x.dtype)
    return select(x < 0, -x, x) if x.dtype in SIGNED else x


def copysign(magnitude: E | Number, sign: E) -> E:
    magnitude = _pair(magnitude, sign)[0]
    return bitcast(bitcast(absolute(magnitude), INT_OF[sign.dtype]) | sign_bit(sign), sign.dtype)


def negate_if(x: E, sign: E) -> E:
    """x with its sign flipped where `sign` (an integer holding a sign bit alone) says so."""
    return bitcast(bitcast(x, sign.dtype) ^ sign, x.dtype)


def rint(x: E) -> E:
    """To the nearest integer, ties to even; the sign of zero is kept."""
    if x.dtype not in FLOATS:
        return x
    big = float(1 << MANTISSA[x.dtype])  # from here on every float is an integer
    size = absolute(x)
    return select(size < big, copysign((size + big) - big, x), x)


def floor(x: E) -> E:
    if x.dtype not in FLOATS:
        return x
    near = rint(x)
    return select(near > x, near - 1, near)


def ceil(x: E) -> E:
    return -floor(-x) if x.dtype in FLOATS else x


def trunc(x: E) -> E:
    return copysign(floor(absolute(x)), x) if x.dtype in FLOATS else x


def maximum(a: E | Number, b: E | Number) -> E:
    """The larger one; -0 < +0 and any NaN gives NaN."""
    return _extremum(*_pair(a, b), "max")


def minimum(a: E | Number, b: E | Number) -> E:
    """The smaller one; -0 < +0 and any NaN gives NaN."""
    return _extremum(*_pair(a, b), "min")


def _extremum(a: E, b: E, which: str) -> E:
    is_max = which == "max"
    if a.dtype == "b8":
        return a | b if is_max else a & b
    if a.dtype not in FLOATS:
        return select(a > b if is_max else a < b, a, b)
    if a.op == "const":
        a, b = b, a
    if b.op == "const" and not math.isnan(b.value):
        zero = 0 if b.value else math.copysign(1, b.value)  # the sign of a zero
        if is_max:
            return larger(b, a + b if zero > 0 else a)  # -0 + 0 is +0
        if zero >= 0:
            return smaller(b, a)
    return E("maximum" if is_max else "minimum", (a, b), a.dtype)


def idiv(a: E | Number, b: E | Number) -> E:
    """Integer quotient towards zero; x / 0 = 0 and INT_MIN / -1 = INT_MIN."""
    a, b = _pair(a, b)
    zero = eq(b, 0)
    if a.dtype not in SIGNED:
        return select(zero, 0, E("div", (a, select(zero, 1, b)), a.dtype))
    minus = eq(b, -1)
    quotient = E("div", (a, select(zero | minus, 1, b)), a.dtype)
    return select(zero, 0, select(minus, -a, quotient))


def fmod(a: E | Number, b: E | Number) -> E:
    """The remainder with the dividend's sign, exact; integers: x mod 0 = 0."""
    a, b = _pair(a, b)
    if a.dtype not in FLOATS:
        return select(eq(b, 0), 0, a - idiv(a, b) * b)
    x, y = absolute(a), absolute(b)
    quotient = x / y
    # With a short quotient and y in two halves every product and difference is exact, with or without fma.
    bound, low_bits = (1 << 10, 12) if a.dtype == "f32" else (1 << 25, 27)
    n = rint(quotient)
    y_high = bitcast(bitcast(y, INT_OF[y.dtype]) & (-1 << low_bits), y.dtype)
    rest = (x - n * y_high) - n * (y - y_high)
    short = copysign(select(rest < 0, rest + y, rest), a)
    is_short = (quotient < bound) & (y < math.inf)
    return rare(~is_short, short, E("fmod", (a, b), a.dtype))


def remainder(a: E | Number, b: E | Number) -> E:
    """The remainder with the divisor's sign, as Python's %."""
    a, b = _pair(a, b)
    if a.dtype == "u8":
        return fmod(a, b)
    rest = fmod(a, b)
    fixed = select(ne(rest, 0) & ((rest < 0) ^ (b < 0)), rest + b, rest)
    if a.dtype in FLOATS:
        return select(eq(fixed, 0), copysign(0.0, b), fixed)
    return select(eq(b, 0), 0, fixed)


def floor_divide(a: E | Number, b: E | Number) -> E:
    """The quotient rounded down; floats as in NumPy: consistent with `remainder`."""
    a, b = _pair(a, b)
    if a.dtype in FLOATS:
        return _floor_divide_float(a, b)
    quotient = idiv(a, b)
    if a.dtype not in SIGNED:
        return quotient
    rest = a - quotient * b
    down = ne(rest, 0) & ((rest < 0) ^ (b < 0)) & ne(b, 0)
    return select(down, quotient - 1, quotient)


def _floor_divide_float(a: E, b: E) -> E:
    rest = fmod(a, b)
    exact = (a - rest) / b
    exact = select(ne(rest, 0) & ((rest < 0) ^ (b < 0)), exact - 1, exact)
    down = floor(exact)
    near = select(exact - down > 0.5, down + 1, down)
    signed = select(eq(exact, 0), copysign(0.0, a / b), near)
    return select(eq(b, 0), a / b, signed)


# ---- walking ----------------------------------------------------------------------------------------------------


def nodes(outputs: Iterable[E], known: set[E] | None = None, into_slow: bool = True) -> list[E]:
    """Everything that `outputs` depend on, arguments first; nodes in `known` are taken as given."""
    seen: set[E] = set()
    stack = list(outputs)
    while stack:
        e = stack.pop()
        if e in seen or (known is not None and e in known):
            continue
        seen.add(e)
        stack.extend(e.args if into_slow or e.op != "rare" else e.args[:2])
    return sorted(seen, key=lambda e: e.serial)


def weight(outputs: Iterable[E]) -> int:
    """How many operations an element takes, where nothing is rare."""
    return sum(e.op not in ("arg", "const") for e in nodes(outputs, into_slow=False))


def reads_index(outputs: Iterable[E]) -> bool:
    return any(e.op == "index" for e in nodes(outputs))


def is_wide(outputs: Iterable[E]) -> bool:
    """Whether a kernel of these expressions must run W8 lanes: some value in it has 64 bits."""
    return any(SIZE[e.dtype] == 8 for e in nodes(outputs))
