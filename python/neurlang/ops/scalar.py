"""Scalar expressions: a small language in which the meaning of every elementwise op is written once.

A row's `expr` is a function over `E` values. Calling it builds a DAG; `emit` renders the DAG to the vector C of
csrc/simd/vec.h (eager kernels at build, traced kernels at run time), `evaluate` computes it with NumPy. Both follow the
same rounded operations in the same places, so the bits agree. Standard library only: the build loads this file by path.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import dtypes

# Beside the element types there are unsigned words. Narrow types are loaded, stored, selected and converted only.
SIZE = {"u32": 4, "u64": 8} | {text: info.itemsize for text, info in dtypes.DTYPES.items()}
FLOATS = ("f32", "f64")
MANTISSA = {"f32": 23, "f64": 52}  # stored bits of the significand
INT_OF = {"f32": "i32", "f64": "i64"}  # the signed integer with a float's bits
_SIGNED = ("i8", "i16", "i32", "i64")
_UNSIGNED_OF = {"i32": "u32", "i64": "u64"}
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
    return E("const", (), dtype, _as_dtype(value, dtype))


def index() -> E:
    """The row-major index of the element, an i64."""
    return E("index", (), "i64")


def _as_dtype(value: Number, dtype: str) -> Number:
    if dtype == "b8":
        return bool(value)
    if dtype in dtypes.DTYPES and dtypes.DTYPES[dtype].floating:
        return dtypes.rounded(value, dtype)
    bits = 8 * SIZE[dtype]
    wrapped = int(value) & ((1 << bits) - 1)
    return wrapped - (1 << bits) if dtype in _SIGNED and wrapped >> (bits - 1) else wrapped


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
    inside = (amount >= 0) & (amount < bits) if amount.dtype in _SIGNED else amount < bits
    safe = select(inside, amount, bits - 1)
    shifted = E(op, _pair(x, safe), x.dtype)
    return shifted if op == "shr" and x.dtype in _SIGNED else select(inside, shifted, 0)


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
    padded = tuple(_as_dtype(v, dtype) for v in values) + (0,) * (n - len(values))
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
        low, high = (-(1 << (8 * SIZE[dtype] - 1)), (1 << (8 * SIZE[dtype] - 1)) - 1) if dtype in _SIGNED else (0, 255)
        inside = select(x < high, select(x > low, x, low), select(x >= high, const(high, x.dtype), 0))
        return E("convert", (E("convert", (inside,), "i32"),), dtype)
    bits = 8 * SIZE[dtype]
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if dtype in _SIGNED else (0, 1 << bits)
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
    return select(x < 0, -x, x) if x.dtype in _SIGNED else x


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
    winner = larger(a, b) if is_max else smaller(a, b)  # b when they are equal or unordered
    if not (b.op == "const" and b.value):  # only zeros are equal and differ
        x, y = bitcast(a, INT_OF[a.dtype]), bitcast(b, INT_OF[a.dtype])
        winner = select(eq(a, b), bitcast(x & y if is_max else x | y, a.dtype), winner)
    return select(isnan(a), a, winner)


def idiv(a: E | Number, b: E | Number) -> E:
    """Integer quotient towards zero; x / 0 = 0 and INT_MIN / -1 = INT_MIN."""
    a, b = _pair(a, b)
    zero = eq(b, 0)
    if a.dtype not in _SIGNED:
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
    if a.dtype not in _SIGNED:
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


def reads_index(outputs: Iterable[E]) -> bool:
    return any(e.op == "index" for e in nodes(outputs))


def is_wide(outputs: Iterable[E]) -> bool:
    """Whether a kernel of these expressions must run W8 lanes: some value in it has 64 bits."""
    return any(SIZE[e.dtype] == 8 for e in nodes(outputs))


def lanes(wide: bool) -> str:
    """The C name of the number of lanes."""
    return "W8" if wide else "W4"


def vector_type(dtype: str, wide: bool) -> str:
    """The C type of a vector of `dtype` as it lies in memory (a bool is a byte)."""
    if dtype == "b8":
        dtype = "u8"
    return _part(SIZE[dtype], wide) + ("u16" if dtype in ("f16", "bf16") else dtype)


def _part(size: int, wide: bool) -> str:
    """The letter of the part of a register that W4 (wide: W8) lanes of a size fill."""
    return {8: "v", 4: "h", 2: "q", 1: "e"}[size] if wide else {4: "v", 2: "h", 1: "q"}[size]


# ---- C ----------------------------------------------------------------------------------------------------------

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>"}
_COMPARE = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_OF_MASKS = {
    "and": "{} & {}", "or": "{} | {}", "xor": "{} ^ {}", "not": "~{}", "eq": "~({} ^ {})", "ne": "{} ^ {}",
    "lt": "~{} & {}", "le": "~{} | {}",
}  # fmt: skip
_SUFFIX = {"f32": "f", "f64": "", "i64": "l", "u64": "ul", "u32": "u"}


def emit(
    outputs: Sequence[E], args: Sequence[str], wide: bool | None = None, index: str = "i", prefix: str = "t"
) -> tuple[list[str], list[str]]:
    """C statements that compute `outputs`, and the names of the results.

    args[k] names a variable of type vector_type(dtype, wide) holding operand k (a bool as bytes 0 or 1), and so do the
    results. `index` names the int64 row-major index of lane 0. New variables are prefix1, prefix2, ….
    """
    writer = _Writer(args, is_wide(outputs) if wide is None else wide, index, prefix)
    writer.compute(outputs)
    results = [writer.stored(e) for e in outputs]
    return writer.lines, results


class _Writer:
    """Renders nodes to statements. Equal nodes are rendered once; what a rare branch computes is forgotten after it."""

    def __init__(self, args: Sequence[str], wide: bool, index: str, prefix: str) -> None:
        self.args, self.wide, self.index, self.prefix = args, wide, index, prefix
        self.full = 8 if wide else 4  # lane width of a mask that fills a register
        self.lines: list[str] = []
        self.indent = ""
        self.count = 0
        self.number: dict[E, int] = {}  # equal nodes have equal numbers
        self.numbers: dict[tuple[Any, ...], int] = {}
        self.names: dict[tuple[int, int], str] = {}  # (number, mask width or 0) -> variable

    # -- naming

    def number_of(self, e: E) -> int:
        if e not in self.number:
            value = struct.pack("d", e.value) if isinstance(e.value, float) else e.value
            key = (e.op, e.dtype, value, *(self.number_of(a) for a in e.args))
            self.number[e] = self.numbers.setdefault(key, len(self.numbers))
        return self.number[e]

    def type_of(self, dtype: str) -> str:
        return vector_type(dtype, self.wide)

    def mask_type(self, width: int) -> str:
        return f"{_part(width, self.wide)}i{8 * width}"

    def declare(self, ctype: str, text: str, constant: bool = True) -> str:
        self.count += 1
        name = f"{self.prefix}{self.count}"
        self.line(f"{'const ' if constant else ''}{ctype} {name} = {text};")
        return name

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    # -- order

    def compute(self, outputs: Sequence[E]) -> None:
        for e in nodes(outputs, into_slow=False):
            self.number_of(e)
            if e.op not in ("arg", "const"):
                self.render(e)

    def render(self, e: E) -> None:
        key = (self.number_of(e), self.natural_width(e))
        if key in self.names:
            return
        if e.op == "rare":
            self.names[key] = self.rare(e)
        elif e.op == "table":
            self.names[key] = self.table(e)
        elif e.dtype == "b8":
            self.names[key] = self.declare(self.mask_type(key[1]), self.mask_text(e, key[1]))
        else:
            self.names[key] = self.declare(self.type_of(e.dtype), self.text(e))

    def rare(self, e: E) -> str:
        condition, fast, slow = e.args
        name = self.declare(self.type_of(e.dtype), self.value(fast), constant=False)
        outside = dict(self.names)
        self.line(f"if (UNLIKELY(ANY({self.mask(condition, self.full)}))) {{")
        self.indent += "  "
        self.compute([slow])
        self.line(f"{name} = {self.select_text(e.dtype, condition, self.value(slow), name)};")
        self.indent = self.indent[2:]
        self.line("}")
        self.names = outside
        return name

    def table(self, e: E) -> str:
        position = self.value(e.args[0])
        self.count += 1
        name = f"{self.prefix}{self.count}"
        ctype = {"u32": "unsigned", "u64": "__UINT64_TYPE__"}[e.dtype]
        values = ", ".join(literal(v, e.dtype) for v in e.value)
        self.line(f"static const {ctype} {name}_values[] = {{{values}}};")
        self.line(f"{self.type_of(e.dtype)} {name};")
        self.line(f"for (int l = 0; l < {lanes(self.wide)}; ++l) {name}[l] = {name}_values[{position}[l]];")
        return name

    # -- values

    def value(self, e: E) -> str:
        """The name of a vector variable."""
        key = (self.number_of(e), 0)
        if e.op == "arg":
            return self.args[e.value]
        if key not in self.names:  # only constants are made on demand
            ctype = self.type_of(e.dtype)
            self.names[key] = self.declare(ctype, f"SPLAT({ctype}, {literal(e.value, e.dtype)})")
        return self.names[key]

    def operand(self, e: E, other: E | None = None) -> str:
        """For an infix operator: a constant may stay a scalar when the other side is a vector."""
        if e.op == "const" and (other is None or other.op != "const"):
            return literal(e.value, e.dtype)
        return self.value(e)

    def text(self, e: E) -> str:
        ctype = self.type_of(e.dtype)
        if e.op in _INFIX:
            return self.infix(e, ctype)
        if e.op == "neg" and e.dtype in _SIGNED:
            return f"({ctype})(-({self.type_of(_UNSIGNED_OF[e.dtype])}){self.value(e.args[0])})"
        if e.op in ("neg", "not"):
            return f"{'-' if e.op == 'neg' else '~'}{self.value(e.args[0])}"
        if e.op == "select":
            return self.select_text(e.dtype, e.args[0], self.value(e.args[1]), self.value(e.args[2]))
        if e.op == "bitcast":
            return f"({ctype}){self.value(e.args[0])}"
        if e.op == "convert":
            return self.convert(e, ctype)
        if e.op == "index":
            return f"SPLAT(vi64, {self.index}) + (vi64)NL_LANES8"
        if e.op == "fmod":
            return f"{ctype}_fmod({self.value(e.args[0])}, {self.value(e.args[1])})"
        return f"{ctype}_{e.op}({', '.join(self.value(a) for a in e.args)})"

    def convert(self, e: E, ctype: str) -> str:
        x = e.args[0]
        if x.dtype in ("f16", "bf16"):
            return f"{ctype}_from_{x.dtype}({self.value(x)})"
        if e.dtype in ("f16", "bf16"):
            return f"{self.type_of(x.dtype)}_to_{e.dtype}({self.value(x)})"
        return f"CONVERT({ctype}, {self.value(x)})"

    def infix(self, e: E, ctype: str) -> str:
        a, b = e.args
        if e.dtype in _SIGNED and e.op in ("add", "sub", "mul", "shl"):  # signed overflow is undefined, ours wraps
            unsigned = _UNSIGNED_OF[e.dtype]
            x, y = (self.unsigned(p, q, unsigned) for p, q in ((a, b), (b, a)))
            return f"({ctype})({x} {_INFIX[e.op]} {y})"
        return f"{self.operand(a, b)} {_INFIX[e.op]} {self.operand(b, a)}"

    def unsigned(self, e: E, other: E, dtype: str) -> str:
        if e.op == "const" and other.op != "const":
            return literal(_as_dtype(e.value, dtype), dtype)
        return f"({self.type_of(dtype)}){self.value(e)}"

    def select_text(self, dtype: str, condition: E, a: str, b: str) -> str:
        width = SIZE[dtype]
        return f"SELECT({self.type_of(dtype)}, {self.mask_type(width)}, {self.mask(condition, width)}, {a}, {b})"

    # -- bools

    def natural_width(self, e: E) -> int:
        """The lane width in which a bool arises (0 for any other dtype)."""
        if e.dtype != "b8":
            return 0
        if e.op in _COMPARE and e.args[0].dtype != "b8":
            return SIZE[e.args[0].dtype]
        return max((self.natural_width(a) for a in e.args), default=1)

    def mask(self, e: E, width: int) -> str:
        """The name of `e` as a lane mask of the given width."""
        key = (self.number_of(e), width)
        if key not in self.names:
            ctype = self.mask_type(width)
            if e.op == "const":
                text = f"SPLAT({ctype}, {-1 if e.value else 0})"
            elif e.op == "arg":
                text = f"({self.mask_type(1)})({self.args[e.value]} != 0)"
                text = text if width == 1 else f"CONVERT({ctype}, {text})"
            else:
                text = f"CONVERT({ctype}, {self.names[key[0], self.natural_width(e)]})"
            self.names[key] = self.declare(ctype, text)
        return self.names[key]

    def mask_text(self, e: E, width: int) -> str:
        if e.op in _COMPARE and e.args[0].dtype != "b8":
            a, b = e.args
            return f"({self.mask_type(width)})({self.operand(a, b)} {_COMPARE[e.op]} {self.operand(b, a)})"
        parts = [self.mask(a, width) for a in e.args]
        return _OF_MASKS[e.op].format(*parts)

    def stored(self, e: E) -> str:
        """The name of a result as it lies in memory."""
        if e.dtype != "b8" or e.op == "arg":
            return self.value(e)
        return self.declare(self.type_of("b8"), f"({self.type_of('b8')})({self.mask(e, 1)} & 1)")


def literal(value: Number, dtype: str) -> str:
    """A C literal of exactly this value."""
    if dtype in ("f16", "bf16"):
        return str(dtypes.to_bits(value, dtype))
    suffix = _SUFFIX.get(dtype, "")
    if dtype in FLOATS:
        if math.isnan(value):
            return f'__builtin_nan{suffix}("")'
        if math.isinf(value):
            return f"{'-' if value < 0 else ''}__builtin_inf{suffix}()"
        if float(value).is_integer() and abs(value) < 1e6:
            return f"{float(value)!r}{suffix}"
        digits, exponent = float(value).hex().split("p")
        return f"{digits.rstrip('0').rstrip('.')}p{exponent}{suffix}"
    if dtype in _SIGNED and value == -1 << (8 * SIZE[dtype] - 1):
        return f"({int(value) + 1}{suffix} - 1)"
    return f"{int(value)}{suffix}"


# ---- NumPy ------------------------------------------------------------------------------------------------------

Fma = Callable[[Any, Any, Any], Any]


def evaluate(
    outputs: Sequence[E], arrays: Sequence[Any], np: Any, fma: Fma, shape: tuple[int, ...] = ()
) -> list[Any]:
    """The outputs as NumPy arrays with the bits of the compiled code.

    `fma` is fused for the levels that have it, a * b + c for the baseline. The arrays are broadcast; `shape` is the
    index space that index() counts.
    """
    whole = np.broadcast_shapes(shape, *(np.shape(a) for a in arrays))
    values: dict[E, Any] = {}
    with np.errstate(all="ignore"):
        for e in nodes(outputs):
            if e.op == "arg":
                result = arrays[e.value]
            elif e.op == "const":
                result = dtypes.to_bits(e.value, e.dtype) if e.dtype == "bf16" else e.value
            elif e.op == "index":
                result = np.arange(math.prod(whole)).reshape(whole)
            else:
                result = _numpy_value(e, [values[a] for a in e.args], np, fma)
            values[e] = np.asarray(result, _numpy_type(e.dtype, np))
    results = (values[e] for e in outputs)
    return [r if r.shape == whole else np.broadcast_to(r, whole) for r in results]


def _numpy_type(dtype: str, np: Any) -> Any:
    return np.dtype(dtypes.DTYPES[dtype].numpy if dtype in dtypes.DTYPES else f"u{SIZE[dtype]}")


_UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "not": "invert", "shl": "left_shift", "shr": "right_shift", "lt": "less", "le": "less_equal", "eq": "equal",
    "ne": "not_equal", "select": "where", "sqrt": "sqrt", "fmod": "fmod",
}  # fmt: skip


def _numpy_value(e: E, a: list[Any], np: Any, fma: Fma) -> Any:
    match e.op:
        case "neg":
            return np.negative(a[0]) if e.dtype in FLOATS else 0 - a[0]
        case "div":
            return a[0] / a[1] if e.dtype in FLOATS else _truncated_quotient(*a)
        case "fma":
            return fma(*a)
        case "ldexp":
            return np.ldexp(a[0], a[1].astype(np.int32))
        case "max":
            return np.where(a[0] > a[1], *a)
        case "min":
            return np.where(a[0] < a[1], *a)
        case "rare":
            return np.where(a[0], a[2], a[1])
        case "bitcast":
            return a[0].view(_numpy_type(e.dtype, np))
        case "convert":
            return _numpy_convert(a[0], e.args[0].dtype, e.dtype, np)
        case "table":
            return np.array(e.value, _numpy_type(e.dtype, np))[a[0]]
        case "mulhi":
            return (a[0].astype(np.uint64) * a[1]) >> np.uint64(32)
        case "low_product":
            return (a[0] & np.uint64(0xFFFFFFFF)) * (a[1] & np.uint64(0xFFFFFFFF))
        case _:
            return getattr(np, _UFUNCS[e.op])(*a)


def _numpy_convert(x: Any, source: str, target: str, np: Any) -> Any:
    """A conversion; bfloat16 is the upper half of a float32, as integers."""
    if source == "bf16":
        return (x.astype(np.uint32) << 16).view(np.float32)
    if target != "bf16":
        return x.astype(_numpy_type(target, np))
    bits = np.asarray(x, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, nearest).astype(np.uint16)


def _truncated_quotient(a: Any, b: Any) -> Any:
    down = a // b
    return down + ((a - down * b != 0) & ((a < 0) ^ (b < 0)))
