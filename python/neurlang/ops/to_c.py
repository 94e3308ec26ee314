"""Scalar expressions as C: statements over the vector dialect of csrc/simd/vec.h.

Standard library only: the build loads this file by path.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from . import dtypes
from .scalar import FLOATS, SIGNED, SIZE, E, Number, as_dtype, is_wide, nodes

_UNSIGNED_OF = {"i32": "u32", "i64": "u64"}


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
        if e.op == "neg" and e.dtype in SIGNED:
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
        return _converted(self.value(x), self.type_of(x.dtype), ctype)

    def infix(self, e: E, ctype: str) -> str:
        a, b = e.args
        if e.dtype in SIGNED and e.op in ("add", "sub", "mul", "shl"):  # signed overflow is undefined, ours wraps
            unsigned = _UNSIGNED_OF[e.dtype]
            x, y = (self.unsigned(p, q, unsigned) for p, q in ((a, b), (b, a)))
            return f"({ctype})({x} {_INFIX[e.op]} {y})"
        return f"{self.operand(a, b)} {_INFIX[e.op]} {self.operand(b, a)}"

    def unsigned(self, e: E, other: E, dtype: str) -> str:
        if e.op == "const" and other.op != "const":
            return literal(as_dtype(e.value, dtype), dtype)
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
                text = text if width == 1 else _converted(text, self.mask_type(1), ctype)
            else:
                natural = self.natural_width(e)
                text = _converted(self.names[key[0], natural], self.mask_type(natural), ctype)
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


def _converted(x: str, source: str, to: str) -> str:
    """A vector in another type, each lane's value as C converts it."""
    if source in ("qi8", "qu8") and to[0] == "v":
        x, source = f"vi32_from_{source[1:]}({x})", "vi32"
    elif source in ("vi32", "vu32") and to in ("qi8", "qu8"):
        x, source = f"vi32_to_i8((vi32){x})", "qi8"
    return x if source == to else f"CONVERT({to}, {x})"


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
    if dtype in SIGNED and value == -1 << (8 * SIZE[dtype] - 1):
        return f"({int(value) + 1}{suffix} - 1)"
    return f"{int(value)}{suffix}"
