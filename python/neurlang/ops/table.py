"""The one table of operations: every op's name, rules, gradient, meaning and tests come from its row here.

Standard library only: the build loads this file by path, before the package exists. The place in `TABLE` is the op's
number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import composite
from . import dtypes as types
from . import elementary as el
from . import expressions as ex
from . import gradients as d
from . import reference as ref
from . import scalar as s
from . import trigonometric as trig

KINDS = ("map", "source", "reduce", "scan", "sort", "contract", "window", "index", "composite", "opaque")
_KINDS_OVER = {
    "all": ("bool", "integer", "float"), "number": ("integer", "float"), "float": ("float",),
    "int": ("bool", "integer"), "integer": ("integer",),
}  # fmt: skip
OVER = {
    name: tuple(d.text for d in types.DTYPES.values() if d.kind in kinds) for name, kinds in _KINDS_OVER.items()
}
PROMOTE = ("same", "float", "int64", "first")
BINDINGS = ("method", "function", "composite", "internal", "manual")
SHAPES = (
    "broadcast", "reduce", "matmul", "conv2d", "conv2d_input", "conv2d_weight", "pool2d", "adaptive_pool2d", "gather",
    "scatter", "index_select", "index_add", "checked",
)

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One operation.

    `types` is the signature over dtypes, e.g. ``"T,T->T"``, ``"T,T->b8"``, ``"b8,T,T->T"``: `T` is the compute dtype
    that promotion chose, other letters are fixed dtypes. `over` says which dtypes `T` may be: ``all``, ``number`` (not
    bool), ``float``, ``int`` (integers and bool), ``integer`` (no bool). With ``promote="float"`` integer and bool
    operands become the default float dtype first (as PyTorch's `exp`, `/`, `mean` do), with ``promote="int64"`` they
    become int64 (`sum`), with ``promote="first"`` the first operand's dtype is the others' too (`masked_fill`).

    `inplace[k]` is the index of the operand that output `k` overwrites, for rows that exist only in place. The last
    operand of a `variadic` row may repeat.

    `grad(F, g, *ins, [out], *attrs)` returns one gradient (or None) per input, before broadcasting is undone. A
    parameter whose name starts with `_` is not saved: the rule gets only its shape and dtype; one whose name ends with
    `_` is saved where another operand wants a gradient, which alone reads it. A parameter named `out` is the saved
    result, `outs` the tuple of all results; with either a reduction is given all its axes at once, else one at a time.
    Attributes are integers; a float travels as its 64 bits.

    `binding` says how Python reaches a map or reduce: ``method`` (function and method of Tensor), ``function``,
    ``internal`` (a function with a leading underscore, for gradient rules, composites and optimisers), ``composite``
    (internal; the public function and method of its name, with PyTorch's special arguments, are those of
    ops/composite.py), ``manual`` (written by hand in hot/). `ins` and `defaults` are PyTorch's argument names and
    defaults.

    >>> row = neurlang.Row("triple", "map", ("input",), "T->T", "3 x", over="float", expr=lambda x: 3 * x)
    >>> row.in_types, row.out_types, row.outs, row.dtypes
    (('T',), ('T',), 1, ('f16', 'bf16', 'f32', 'f64'))
    >>> row.function, row.interval(0), row.kernels
    ('triple', (-8.0, 8.0), ('f32', 'f64'))
    """

    name: str
    kind: str
    ins: tuple[str, ...]
    types: str
    doc: str
    attrs: tuple[str, ...] = ()
    over: str = "all"
    promote: str = "same"
    shape: str = "broadcast"  # the shape rule's name in ops/shapes.py and, after `shape_`, in csrc/base/shapes.hpp
    expr: Callable[..., Any] | None = None  # map: E values -> E value(s)
    monoid: str = ""  # reduce: sum | prod | max | min | argmax | argmin | any | all
    define: Callable[..., Any] | None = None  # composite: the meaning over a namespace F, with the kernel's bits
    native: str = ""  # the C++ function in csrc/kernels that runs it
    grad: Callable[..., Any] | None = None
    numpy: Callable[..., Any] | None = None  # (np, *ins, *attrs) -> reference result in float64 or exact integers
    domain: tuple[Interval, ...] = ((-8.0, 8.0),)  # where tests draw each operand from; the last interval repeats
    ulp: float = 0.5  # bound of a float result against the exact value
    ulp_f64: float = 0.0  # the bound in float64, where it is larger
    slack: float = 0.0  # beside it an absolute error in epsilons, for formulas whose terms may cancel
    inplace: tuple[int, ...] = ()
    inplace_method: bool = False  # also a method `name_`
    variadic: bool = False
    direct: bool = False  # runs on narrow dtypes as they lie in memory; other rows compute in the wide ones (dtypes.py)
    binding: str = "method"
    defaults: dict[str, float] = field(default_factory=dict)  # of scalar operands
    scaled: bool = False  # takes PyTorch's keyword `alpha`, a factor of the second operand
    aliases: tuple[str, ...] = ()  # other public names: the Array API's, PyTorch's synonyms
    operator: str = ""  # Python operator slot: "add" for __add__, __radd__, __iadd__
    example: tuple[str, str] = ("", "")  # arguments and result, for the documentation
    stablehlo: str = "composite"  # the op it is exported as; "composite" carries its definition along

    @property
    def in_types(self) -> tuple[str, ...]:
        """The types of the operands."""
        return tuple(t for t in self.types.split("->")[0].split(",") if t)

    @property
    def out_types(self) -> tuple[str, ...]:
        """The types of the results."""
        return tuple(self.types.split("->")[1].split(","))

    @property
    def outs(self) -> int:
        """The number of results."""
        return len(self.out_types)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """What `T` may be."""
        return OVER[self.over]

    @property
    def kernels(self) -> tuple[str, ...]:
        """What `T` may be in kernels of its own: narrow dtypes run in the wide ones' unless the row is `direct`."""
        return self.dtypes if self.direct else tuple(t for t in self.dtypes if t in types.WIDE)

    @property
    def checks(self) -> bool:
        """Whether it looks at the values of an operand, an index, and may raise.

        >>> neurlang.Row("pick", "index", ("input", "index"), "T,i64->T", "x[index]").checks
        True
        """
        return self.kind == "index" or (self.kind in ("composite", "contract") and "i64" in self.in_types)

    def accuracy(self, dtype: str) -> float:
        """The bound in ULP of a float result of this dtype.

        >>> row = neurlang.Row("triple", "map", ("input",), "T->T", "3 x", ulp=1.0, ulp_f64=2.0)
        >>> row.accuracy("f32"), row.accuracy("f64")
        (1.0, 2.0)
        """
        return max(self.ulp, self.ulp_f64) if dtype == "f64" else self.ulp

    @property
    def function(self) -> str:
        """The name of the generated function."""
        return self.name if self.binding in ("method", "function") else f"_{self.name}"

    def interval(self, operand: int) -> Interval:
        """Where tests draw an operand from."""
        return self.domain[min(operand, len(self.domain) - 1)]


# ---- kinds of rows that are frequent ----


def _over(fields: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """A row's own fields over those of its kind."""
    return defaults | fields


def _unary(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input",), "T->T", doc, **_over(fields, inplace_method=True))


def _float_unary(name: str, doc: str, **fields: Any) -> Row:
    """Integers become floats first."""
    return _unary(name, doc, **_over(fields, over="float", promote="float"))


def _rounding(name: str, doc: str, **fields: Any) -> Row:
    return _unary(name, doc, over="number", grad=lambda F, g, _x: (F.zeros_like(g),), **fields)


def _test(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input",), "T->b8", doc, **fields)


def _binary(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input", "other"), "T,T->T", doc, **_over(fields, inplace_method=True))


def _comparison(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input", "other"), "T,T->b8", doc, stablehlo="compare", **fields)


def _activation(name: str, doc: str, *limits: str, **fields: Any) -> Row:
    """A function of one tensor and scalar operands."""
    signature = ",".join("T" * (1 + len(limits))) + "->T"
    return Row(name, "map", ("input", *limits), signature, doc, **_over(fields, over="float"))


def _derivative(name: str, doc: str, *ins: str, **fields: Any) -> Row:
    return Row(name, "map", ("grad", *ins), "T,T->T", doc, over="float", binding="internal", **fields)


def _cast(dtype: str, text: str) -> Row:
    return Row(
        f"to_{dtype}", "map", ("input",), f"T->{text}", f"the values as {dtype}; floats saturate, NaN gives 0",
        expr=lambda x: s.convert(x, text),
        grad=(lambda F, g, _x: (g.to(_x.dtype),)) if text in OVER["float"] else None,
        numpy=lambda np, x: ref.cast(np, x, dtype), direct=True, binding="internal", stablehlo="convert",
    )


def _source(name: str, types: str, doc: str, *ins: str, **fields: Any) -> Row:
    return Row(name, "map", ins, types, doc, shape="checked", binding="manual", **fields)


def _update(name: str, doc: str, tensors: str, scalars: str, **fields: Any) -> Row:
    """An optimiser's step on one parameter; the parameter and the optimiser's state are overwritten."""
    ins = (*tensors.split(), *scalars.split())
    outs = tuple(i for i, t in enumerate(tensors.split()) if t != "g")
    types = ",".join("T" * len(ins)) + "->" + ",".join("T" * len(outs))
    return Row(name, "map", ins, types, doc, over="float", inplace=outs, binding="internal", **fields)


def _reduction(name: str, doc: str, monoid: str, types: str = "T->T", **fields: Any) -> Row:
    return Row(
        name, "reduce", ("input",), types, doc, attrs=("axis",), shape="reduce", monoid=monoid,
        native=name, **_over(fields, stablehlo="reduce"),
    )


def _scan(name: str, doc: str, **fields: Any) -> Row:
    """Every element of the result joins all elements up to its place along the axis."""
    return Row(
        name, "scan", ("input",), "T->T", doc, attrs=("axis",), native=name,
        **_over(fields, over="number", promote="int64", binding="manual", stablehlo="reduce_window"),
    )


def _kernel(name: str, kind: str, types: str, doc: str, ins: str, attrs: str, **fields: Any) -> Row:
    """A row that runs as hand-written C++ behind a hand-written public function."""
    return Row(
        name, kind, tuple(ins.split()), types, doc, attrs=tuple(attrs.split()), native=name,
        **_over(fields, binding="manual"),
    )


# `tile`: results a way of the largest Winograd tile that is allowed, 1 (sums of products only), 2 or 4.
CONV = "stride_h stride_w pad_h pad_w dilation_h dilation_w groups tile"
MAX_POOL = "kernel_h kernel_w stride_h stride_w pad_h pad_w dilation_h dilation_w ceil_mode"
AVG_POOL = "kernel_h kernel_w stride_h stride_w pad_h pad_w ceil_mode count_include_pad divisor_override"


TABLE: tuple[Row, ...] = (
    # ---- arithmetic ----
    _binary("add", "x + y (bools: or)", expr=lambda x, y: x | y if x.dtype == "b8" else x + y,
            grad=lambda F, g, _x, _y: (g, g), numpy=lambda np, x, y: x + y, scaled=True, operator="add",
            example=("[1, 2], 3", "[4, 5]"), stablehlo="add"),
    _binary("sub", "x - y", expr=lambda x, y: x - y, over="number",
            grad=lambda F, g, _x, _y: (g, -g if d.wanted(_y) else None), numpy=lambda np, x, y: x - y, scaled=True,
            operator="sub", aliases=("subtract",), example=("[1, 2], 3", "[-2, -1]"), stablehlo="subtract"),
    _binary("mul", "x * y (bools: and)", expr=lambda x, y: x & y if x.dtype == "b8" else x * y, grad=d.mul,
            numpy=lambda np, x, y: x * y, operator="mul", aliases=("multiply",), example=("[1, 2], 3", "[3, 6]"),
            stablehlo="multiply"),
    _binary("div", "x / y, of integers too a float", expr=lambda x, y: x / y, over="float", promote="float", grad=d.div,
            numpy=lambda np, x, y: x / y, domain=((-8, 8), (0.5, 8)), operator="truediv", binding="manual",
            stablehlo="divide"),
    _binary("floor_divide", "floor(x / y); an integer by zero is 0", expr=s.floor_divide, over="number",
            grad=lambda F, g, _x, _y: (F.zeros_like(g), F.zeros_like(g)),
            numpy=lambda np, x, y: ref.floor_divide(np, x, y), domain=((-64, 64), (-5, 5)), operator="floordiv",
            example=("[7, -7], 2", "[3, -4]")),
    _binary("div_trunc", "trunc(x / y); an integer by zero is 0", expr=ex.divide_trunc, over="number",
            grad=lambda F, g, _x, _y: (F.zeros_like(g), F.zeros_like(g)),
            numpy=lambda np, x, y: ref.div_trunc(np, x, y), domain=((-64, 64), (-5, 5)), inplace_method=False,
            binding="internal"),
    _binary("remainder", "x - y floor(x / y), with the sign of y", expr=s.remainder, over="number", grad=d.remainder,
            numpy=lambda np, x, y: ref.remainder(np, x, y), domain=((-64, 64), (-5, 5)), operator="mod",
            example=("[7, -7], 3", "[1, 2]")),
    _binary("fmod", "x - y trunc(x / y), with the sign of x", expr=s.fmod, over="number", grad=d.fmod,
            numpy=lambda np, x, y: ref.fmod(np, x, y), domain=((-64, 64), (-5, 5)), example=("[7, -7], 3", "[1, -1]"),
            stablehlo="remainder"),
    _binary("pow", "x to the power y", expr=ex.power, over="number", grad=d.pow,
            numpy=lambda np, x, y: ref.power(np, x, y), domain=((0.25, 4), (-3, 3)), ulp=2.0, binding="manual",
            stablehlo="power"),
    _unary("neg", "-x", expr=lambda x: -x, over="number", grad=lambda F, g, _x: (-g,), numpy=lambda np, x: -x,
           aliases=("negative",), operator="neg", example=("[1.0, -2.0]", "[-1.0, 2.0]"), stablehlo="negate"),
    _unary("abs", "|x|", expr=s.absolute, over="number", grad=lambda F, g, x: (g * F.sign(x),),
           numpy=lambda np, x: np.abs(x), aliases=("absolute",), operator="abs", example=("[-1.5, 2.0]", "[1.5, 2.0]"),
           stablehlo="abs"),
    _rounding("sign", "-1, 0 or 1 as x is negative, zero or positive", expr=ex.sign, numpy=lambda np, x: np.sign(x),
              example=("[-3.0, 0.0, 5.0]", "[-1.0, 0.0, 1.0]"), stablehlo="sign"),
    _unary("square", "x²", expr=lambda x: x * x, over="number", grad=lambda F, g, x: (g * x * 2,),
           numpy=lambda np, x: x * x, example=("[2, -3]", "[4, 9]")),
    _float_unary("reciprocal", "1 / x", expr=lambda x: 1 / x, grad=lambda F, g, _x, out: (-g * out * out,),
                 numpy=lambda np, x: 1 / x, domain=((0.1, 8),), example=("[2.0, 4.0]", "[0.5, 0.25]")),
    Row("hypot", "map", ("input", "other"), "T,T->T", "sqrt(x² + y²) without overflow", over="float", expr=ex.hypot,
        grad=d.hypot, numpy=lambda np, x, y: np.hypot(x, y), domain=((0.1, 8),), ulp=2.0, inplace_method=True,
        example=("[3.0], 4.0", "[5.0]")),
    _binary("maximum", "the larger of x and y; -0 < +0, any NaN gives NaN", expr=s.maximum, grad=d.maximum,
            numpy=lambda np, x, y: np.maximum(x, y), inplace_method=False, example=("[1, 5], 3", "[3, 5]"),
            stablehlo="maximum"),
    _binary("minimum", "the smaller of x and y; -0 < +0, any NaN gives NaN", expr=s.minimum, grad=d.minimum,
            numpy=lambda np, x, y: np.minimum(x, y), inplace_method=False, example=("[1, 5], 3", "[1, 3]"),
            stablehlo="minimum"),
    Row("clamp", "map", ("input", "min", "max"), "T,T,T->T", "min(max(x, lo), hi)", over="number", expr=ex.clamp,
        grad=d.clamp, numpy=lambda np, x, lo, hi: np.minimum(np.maximum(x, lo), hi), domain=((-8, 8), (-4, -1), (1, 4)),
        inplace_method=True, binding="composite", aliases=("clip",), stablehlo="clamp"),
    Row("lerp", "map", ("input", "end", "weight"), "T,T,T->T", "x + weight (end - x)", over="float",
        expr=lambda x, y, w: s.fma(w, y - x, x), grad=d.lerp, numpy=lambda np, x, y, w: x + w * (y - x), slack=256.0,
        inplace_method=True, example=("[1.0, 2.0], [3.0, 6.0], 0.5", "[2.0, 4.0]")),
    Row("addcmul", "map", ("input", "tensor1", "tensor2", "value"), "T,T,T,T->T", "x + value a b", over="number",
        expr=lambda x, a, b, value: x + value * a * b, grad=d.addcmul, numpy=lambda np, x, a, b, v: x + v * a * b,
        slack=1024.0, inplace_method=True, defaults={"value": 1}, example=("[1, 2], [3, 4], [5, 6]", "[16, 26]")),
    Row("addcdiv", "map", ("input", "tensor1", "tensor2", "value"), "T,T,T,T->T", "x + value a / b", over="float",
        expr=lambda x, a, b, value: x + value * a / b, grad=d.addcdiv, numpy=lambda np, x, a, b, v: x + v * a / b,
        domain=((-8, 8), (-8, 8), (0.5, 8), (-8, 8)), slack=256.0, inplace_method=True, defaults={"value": 1},
        example=("[1.0], [3.0], [2.0]", "[2.5]")),

    # ---- roots, exponentials, logarithms ----
    _float_unary("sqrt", "√x", expr=s.sqrt, grad=lambda F, g, _x, out: (g * 0.5 / out,), numpy=lambda np, x: np.sqrt(x),
                 domain=((0.01, 8),), example=("[4.0, 9.0]", "[2.0, 3.0]"), stablehlo="sqrt"),
    _float_unary("rsqrt", "1 / √x", expr=el.rsqrt,
                 grad=lambda F, g, _x, out: (g * out * out * out * -0.5,), numpy=lambda np, x: 1 / np.sqrt(x),
                 domain=((0.05, 8),), ulp=1.0, example=("[4.0, 16.0]", "[0.5, 0.25]"), stablehlo="rsqrt"),
    _float_unary("exp", "eˣ", expr=el.exp, grad=lambda F, g, _x, out: (g * out,),
                 numpy=lambda np, x: np.exp(x), ulp=1.0, example=("[0.0]", "[1.0]"), stablehlo="exponential"),
    _float_unary("exp2", "2ˣ", expr=el.exp2, grad=lambda F, g, _x, out: (g * out * math.log(2),),
                 numpy=lambda np, x: np.exp2(x), ulp=1.0, example=("[0.0, 3.0]", "[1.0, 8.0]")),
    _float_unary("expm1", "eˣ - 1, accurate near 0", expr=el.expm1,
                 grad=lambda F, g, _x, out: (g * (out + 1),), numpy=lambda np, x: np.expm1(x), ulp=1.5,
                 example=("[0.0]", "[0.0]"), stablehlo="exponential_minus_one"),
    _float_unary("log", "the natural logarithm", expr=el.log, grad=lambda F, g, x: (g / x,),
                 numpy=lambda np, x: np.log(x), domain=((0.05, 8),), ulp=1.0, example=("[1.0]", "[0.0]"),
                 stablehlo="log"),
    _float_unary("log2", "the logarithm to base 2", expr=el.log2,
                 grad=lambda F, g, x: (g / (x * math.log(2)),), numpy=lambda np, x: np.log2(x), domain=((0.05, 8),),
                 ulp=1.5, example=("[1.0, 8.0]", "[0.0, 3.0]")),
    _float_unary("log10", "the logarithm to base 10", expr=el.log10,
                 grad=lambda F, g, x: (g / (x * math.log(10)),), numpy=lambda np, x: np.log10(x), domain=((0.05, 8),),
                 ulp=1.5, example=("[1.0]", "[0.0]")),
    _float_unary("log1p", "log(1 + x), accurate near 0", expr=el.log1p,
                 grad=lambda F, g, x: (g / (x + 1),), numpy=lambda np, x: np.log1p(x), domain=((-0.9, 8),), ulp=1.5,
                 example=("[0.0]", "[0.0]"), stablehlo="log_plus_one"),

    # ---- trigonometric and hyperbolic ----
    _float_unary("sin", "sin x, over the whole range", expr=trig.sin, grad=lambda F, g, x: (g * F.cos(x),),
                 numpy=lambda np, x: np.sin(x), ulp=1.5, example=("[0.0]", "[0.0]"), stablehlo="sine"),
    _float_unary("cos", "cos x, over the whole range", expr=trig.cos, grad=lambda F, g, x: (-g * F.sin(x),),
                 numpy=lambda np, x: np.cos(x), ulp=1.5, example=("[0.0]", "[1.0]"), stablehlo="cosine"),
    _float_unary("tan", "tan x", expr=trig.tan, grad=lambda F, g, _x, out: (g * (out * out + 1),),
                 numpy=lambda np, x: np.tan(x), domain=((-1.4, 1.4),), ulp=2.0, example=("[0.0]", "[0.0]"),
                 stablehlo="tan"),
    _float_unary("asin", "arcsin x", expr=trig.asin, grad=lambda F, g, x: (g * F.rsqrt(1 - x * x),),
                 numpy=lambda np, x: np.arcsin(x), domain=((-0.95, 0.95),), ulp=2.0, aliases=("arcsin",),
                 example=("[0.0]", "[0.0]")),
    _float_unary("acos", "arccos x", expr=trig.acos, grad=lambda F, g, x: (-g * F.rsqrt(1 - x * x),),
                 numpy=lambda np, x: np.arccos(x), domain=((-0.95, 0.95),), ulp=2.0, aliases=("arccos",),
                 example=("[1.0]", "[0.0]")),
    _float_unary("atan", "arctan x", expr=trig.atan, grad=lambda F, g, x: (g / (x * x + 1),),
                 numpy=lambda np, x: np.arctan(x), ulp=1.5, aliases=("arctan",), example=("[0.0]", "[0.0]")),
    _binary("atan2", "the angle of the point (y, x)", expr=trig.atan2, over="float", promote="float",
            grad=d.atan2, numpy=lambda np, y, x: np.arctan2(y, x), domain=((0.5, 8), (-8, 8)), ulp=2.0,
            aliases=("arctan2",), example=("[0.0], 1.0", "[0.0]"), stablehlo="atan2"),
    _float_unary("sinh", "(eˣ - e⁻ˣ) / 2", expr=el.sinh, grad=lambda F, g, x: (g * F.cosh(x),),
                 numpy=lambda np, x: np.sinh(x), ulp=2.0, example=("[0.0]", "[0.0]")),
    _float_unary("cosh", "(eˣ + e⁻ˣ) / 2", expr=el.cosh, grad=lambda F, g, x: (g * F.sinh(x),),
                 numpy=lambda np, x: np.cosh(x), ulp=2.0, example=("[0.0]", "[1.0]")),
    _float_unary("tanh", "(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)", expr=el.tanh,
                 grad=lambda F, g, _x, out: (F._tanh_grad(g, out),), numpy=lambda np, x: np.tanh(x),
                 ulp=1.5, ulp_f64=2.0, example=("[0.0]", "[0.0]"), stablehlo="tanh"),
    _float_unary("asinh", "the inverse of sinh", expr=el.asinh,
                 grad=lambda F, g, x: (g * F.rsqrt(x * x + 1),), numpy=lambda np, x: np.arcsinh(x), ulp=2.0,
                 aliases=("arcsinh",), example=("[0.0]", "[0.0]")),
    _float_unary("acosh", "the inverse of cosh on [1, ∞)", expr=el.acosh,
                 grad=lambda F, g, x: (g * F.rsqrt(x * x - 1),), numpy=lambda np, x: np.arccosh(x), domain=((1.1, 8),),
                 ulp=2.0, ulp_f64=2.5, aliases=("arccosh",), example=("[1.0]", "[0.0]")),
    _float_unary("atanh", "the inverse of tanh", expr=el.atanh, grad=lambda F, g, x: (g / (1 - x * x),),
                 numpy=lambda np, x: np.arctanh(x), domain=((-0.95, 0.95),), ulp=2.0, aliases=("arctanh",),
                 example=("[0.0]", "[0.0]")),

    # ---- error functions ----
    _float_unary("erf", "the error function 2/√π ∫₀ˣ exp(-t²) dt", expr=el.erf, grad=d.erf,
                 numpy=lambda np, x: np.vectorize(math.erf, otypes=[float])(x), domain=((-4, 4),), ulp=2.0,
                 example=("[0.0]", "[0.0]")),
    _float_unary("erfc", "1 - erf x, accurate in the tail", expr=el.erfc, grad=d.erfc,
                 numpy=lambda np, x: np.vectorize(math.erfc, otypes=[float])(x), domain=((-4, 4),),
                 ulp=3.0, ulp_f64=4.0, example=("[0.0]", "[1.0]")),
    _float_unary("erfinv", "the inverse of erf", expr=el.erfinv, grad=d.erfinv, numpy=ref.erfinv,
                 domain=((-0.95, 0.95),), ulp=4.0, example=("[0.0]", "[0.0]")),

    # ---- activations ----
    _float_unary("sigmoid", "1 / (1 + e⁻ˣ)", expr=el.sigmoid,
                 grad=lambda F, g, _x, out: (F._sigmoid_grad(g, out),), numpy=lambda np, x: 1 / (1 + np.exp(-x)),
                 ulp=2.0, example=("[0.0]", "[0.5]"), stablehlo="logistic"),
    _activation("logsigmoid", "log sigmoid(x), without overflow", expr=ex.logsigmoid,
                grad=lambda F, g, x: (g * F.sigmoid(-x),), numpy=lambda np, x: -np.logaddexp(0, -x), ulp=3.0,
                binding="function", example=("[-100.0]", "[-100.0]")),
    _activation("softplus", "log(1 + e^(βx)) / β; x itself where βx exceeds the threshold (Dugas et al. 2001)",
                "beta", "threshold", expr=ex.softplus, grad=d.softplus,
                numpy=lambda np, x, b, t: np.where(x * b > t, x, np.logaddexp(0, x * b) / b),
                domain=((-8, 8), (0.5, 2), (15, 25)), ulp=12.0, defaults={"beta": 1.0, "threshold": 20.0},
                binding="function", example=("[100.0]", "[100.0]")),
    _activation("silu", "x sigmoid(x) (Elfwing et al. 2018)", expr=ex.silu,
                grad=lambda F, g, x: (F._silu_grad(g, x),), numpy=lambda np, x: x / (1 + np.exp(-x)), ulp=3.5,
                binding="function", example=("[0.0]", "[0.0]")),
    _activation("mish", "x tanh(softplus(x)) (Misra 2019)", expr=ex.mish, grad=d.mish,
                numpy=lambda np, x: x * np.tanh(np.logaddexp(0, x)), ulp=5.0, binding="function",
                example=("[0.0, 100.0]", "[0.0, 100.0]")),
    _activation("gelu", "x Φ(x), Φ the normal distribution", expr=ex.gelu, grad=lambda F, g, x: (F._gelu_grad(g, x),),
                numpy=lambda np, x: x * 0.5 * np.vectorize(math.erfc, otypes=[float])(-x * math.sqrt(0.5)), ulp=4.0,
                slack=8.0, binding="composite"),
    _activation("gelu_tanh", "x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))", expr=ex.gelu_tanh,
                grad=lambda F, g, x: (F._gelu_tanh_grad(g, x),), numpy=ref.gelu_tanh, ulp=4.0, slack=8.0,
                binding="internal"),
    _activation("relu", "max(x, 0) (Nair & Hinton 2010)", over="number", inplace_method=True, expr=ex.relu,
                grad=lambda F, g, _x, out: (F._relu_grad(g, out),), numpy=lambda np, x: np.maximum(x, 0),
                example=("[-1.0, 2.0]", "[0.0, 2.0]"), stablehlo="maximum"),
    _activation("relu6", "min(max(x, 0), 6)", over="number",
                expr=lambda x: ex.clamp(x, s.const(0, x.dtype), s.const(6, x.dtype)),
                grad=lambda F, g, x: d.hardtanh(F, g, x, 0, 6)[:1], numpy=lambda np, x: np.clip(x, 0, 6),
                binding="function", example=("[-1.0, 2.0, 9.0]", "[0.0, 2.0, 6.0]"), stablehlo="clamp"),
    _activation("leaky_relu", "x, or slope x where x is negative (Maas et al. 2013)", "negative_slope",
                grad=d.leaky_relu, expr=lambda x, slope: s.select(x > 0, x, x * slope),
                numpy=lambda np, x, a: np.where(x > 0, x, a * x),
                domain=((-8, 8), (0.1, 0.5)), defaults={"negative_slope": 0.01}, binding="function",
                example=("[-2.0, 4.0], 0.5", "[-1.0, 4.0]")),
    _activation("elu", "x, or α (eˣ - 1) where x is negative (Clevert et al. 2016)", "alpha", expr=ex.elu, grad=d.elu,
                numpy=lambda np, x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), domain=((-8, 8), (0.5, 2)),
                ulp=3.0, defaults={"alpha": 1.0}, binding="function", example=("[-1000.0, 4.0], 2.0", "[-2.0, 4.0]")),
    _activation("selu", "λ (x, or α (eˣ - 1) where x is negative), λ ≈ 1.0507, α ≈ 1.6733 (Klambauer et al. 2017)",
                expr=ex.selu, grad=d.selu, numpy=ref.selu, ulp=4.0, binding="function", example=("[0.0]", "[0.0]")),
    _activation("hardswish", "x min(max(x + 3, 0), 6) / 6 (Howard et al. 2019)", expr=lambda x: x * ex.hardsigmoid(x),
                grad=d.hardswish, numpy=lambda np, x: x * np.clip(x + 3, 0, 6) / 6, ulp=4.0, slack=8.0,
                binding="function", example=("[0.0, 3.0, 100.0]", "[0.0, 3.0, 100.0]")),
    _activation("hardsigmoid", "min(max(x + 3, 0), 6) / 6 (Howard et al. 2019)", expr=ex.hardsigmoid,
                grad=d.hardsigmoid, numpy=lambda np, x: np.clip(x + 3, 0, 6) / 6, ulp=2.0, slack=2.0,
                binding="function", example=("[-3.0, 0.0, 3.0]", "[0.0, 0.5, 1.0]")),
    _activation("hardtanh", "min(max(x, min_val), max_val)", "min_val", "max_val", over="number", expr=ex.clamp,
                grad=d.hardtanh, numpy=lambda np, x, lo, hi: np.clip(x, lo, hi), domain=((-8, 8), (-4, -1), (1, 4)),
                defaults={"min_val": -1.0, "max_val": 1.0}, binding="function", example=("[-3.0, 0.5]", "[-1.0, 0.5]"),
                stablehlo="clamp"),

    # ---- derivatives of activations ----
    _derivative("relu_grad", "g where relu's output y is positive", "output", grad=d.relu_grad,
                expr=lambda g, y: s.select(y <= 0, s.const(0, g.dtype), g),
                numpy=lambda np, g, y: np.where(y > 0, g, 0.0)),
    _derivative("tanh_grad", "g (1 - y²)", "output", expr=lambda g, y: g * s.fma(-y, y, 1), grad=d.tanh_grad,
                numpy=lambda np, g, y: g * (1 - y * y), domain=((-4, 4), (-0.9, 0.9)), ulp=4.0),
    _derivative("sigmoid_grad", "g y (1 - y)", "output", expr=lambda g, y: g * ((1 - y) * y), grad=d.sigmoid_grad,
                numpy=lambda np, g, y: g * y * (1 - y), domain=((-4, 4), (0.1, 0.9)), ulp=4.0),
    _derivative("silu_grad", "g y (1 + x (1 - y)) with y = sigmoid(x)", "input", expr=ex.silu_grad, grad=d.silu_grad,
                numpy=ref.silu_grad, ulp=8.0, slack=64.0),
    _derivative("gelu_grad", "g (Φ(x) + x φ(x))", "input", expr=ex.gelu_grad, grad=d.gelu_grad, numpy=ref.gelu_grad,
                ulp=8.0, slack=64.0),
    _derivative("gelu_tanh_grad", "g times the derivative of gelu_tanh", "input", expr=ex.gelu_tanh_grad,
                grad=d.gelu_tanh_grad, numpy=ref.gelu_tanh_grad, ulp=8.0, slack=128.0),

    # ---- comparisons, logic, bits ----
    _comparison("eq", "x = y", expr=s.eq, numpy=lambda np, x, y: x == y, operator="eq",
                example=("[1, 2], 2", "[False, True]")),
    _comparison("ne", "x ≠ y", expr=s.ne, numpy=lambda np, x, y: x != y, operator="ne", aliases=("not_equal",),
                example=("[1, 2], 2", "[True, False]")),
    _comparison("lt", "x < y", expr=lambda x, y: x < y, numpy=lambda np, x, y: x < y, operator="lt", aliases=("less",),
                example=("[1, 2], 2", "[True, False]")),
    _comparison("le", "x ≤ y", expr=lambda x, y: x <= y, numpy=lambda np, x, y: x <= y, operator="le",
                aliases=("less_equal",), example=("[1, 3], 2", "[True, False]")),
    _comparison("gt", "x > y", expr=lambda x, y: x > y, numpy=lambda np, x, y: x > y, operator="gt",
                aliases=("greater",), example=("[1, 3], 2", "[False, True]")),
    _comparison("ge", "x ≥ y", expr=lambda x, y: x >= y, numpy=lambda np, x, y: x >= y, operator="ge",
                aliases=("greater_equal",), example=("[1, 2], 2", "[False, True]")),
    _test("logical_not", "x is zero", expr=s.logical_not, numpy=lambda np, x: np.logical_not(x), stablehlo="not",
          example=("[0, 2]", "[True, False]")),
    Row("logical_and", "map", ("input", "other"), "T,T->b8", "x and y are not zero", expr=s.logical_and,
        numpy=lambda np, x, y: np.logical_and(x, y), stablehlo="and", example=("[0, 2], 1", "[False, True]")),
    Row("logical_or", "map", ("input", "other"), "T,T->b8", "x or y is not zero", expr=s.logical_or,
        numpy=lambda np, x, y: np.logical_or(x, y), stablehlo="or", example=("[0, 2], 0", "[False, True]")),
    Row("logical_xor", "map", ("input", "other"), "T,T->b8", "one of x and y is not zero", expr=s.logical_xor,
        numpy=lambda np, x, y: np.logical_xor(x, y), stablehlo="xor", example=("[0, 2], 1", "[True, False]")),
    _unary("bitwise_not", "every bit flipped", expr=lambda x: ~x, over="int", numpy=lambda np, x: np.invert(x),
           aliases=("bitwise_invert",), operator="invert", example=("[0, 5]", "[-1, -6]"), stablehlo="not"),
    _binary("bitwise_and", "the bits in both", expr=lambda x, y: x & y, over="int", numpy=lambda np, x, y: x & y,
            operator="and", example=("[6, 5], 3", "[2, 1]"), stablehlo="and"),
    _binary("bitwise_or", "the bits in either", expr=lambda x, y: x | y, over="int", numpy=lambda np, x, y: x | y,
            operator="or", example=("[6, 5], 3", "[7, 7]"), stablehlo="or"),
    _binary("bitwise_xor", "the bits in one of the two", expr=lambda x, y: x ^ y, over="int",
            numpy=lambda np, x, y: x ^ y, operator="xor", example=("[6, 5], 3", "[5, 6]"), stablehlo="xor"),
    _binary("bitwise_left_shift", "x 2ʸ, 0 when y is the width or more", expr=lambda x, y: x << y, over="integer",
            numpy=lambda np, x, y: ref.left_shift(np, x, y), domain=((-64, 64), (0, 9)), operator="lshift",
            example=("[1, 3], 2", "[4, 12]"), stablehlo="shift_left"),
    _binary("bitwise_right_shift", "floor(x / 2ʸ)", expr=lambda x, y: x >> y, over="integer",
            numpy=lambda np, x, y: ref.right_shift(np, x, y), domain=((-64, 64), (0, 9)), operator="rshift",
            example=("[4, -12], 2", "[1, -3]"), stablehlo="shift_right_arithmetic"),
    _test("isnan", "x is not a number", expr=lambda x: s.ne(x, x), numpy=lambda np, x: np.isnan(x),
          example=("[0.0, 1.0]", "[False, False]")),
    _test("isinf", "x is infinite", expr=ex.isinf, numpy=lambda np, x: np.isinf(x),
          example=("[0.0, 1.0]", "[False, False]")),
    _test("isfinite", "x is neither infinite nor NaN", expr=ex.isfinite, numpy=lambda np, x: np.isfinite(x),
          example=("[0.0, 1.0]", "[True, True]"), stablehlo="is_finite"),

    # ---- choice and rounding ----
    Row("where", "map", ("condition", "input", "other"), "b8,T,T->T", "x where the condition holds, else y",
        expr=s.select, grad=d.where, numpy=lambda np, c, x, y: np.where(c, x, y), direct=True, binding="manual",
        stablehlo="select"),
    Row("masked_fill", "map", ("input", "mask", "value"), "T,b8,T->T", "x, but value where the mask holds",
        expr=lambda x, mask, value: s.select(mask, value, x), grad=d.masked_fill, promote="first", inplace_method=True,
        numpy=lambda np, x, mask, value: np.where(mask, value, x), direct=True, stablehlo="select",
        example=("[1, 2], [True, False], 0", "[0, 2]")),
    Row("nan_to_num", "map", ("input", "nan", "posinf", "neginf"), "T,T,T,T->T", "x with NaN and infinities replaced",
        over="float", expr=ex.nan_to_num, grad=d.nan_to_num,
        numpy=lambda np, x, a, b, c: np.where(np.isnan(x), a, np.where(np.isinf(x), np.where(x > 0, b, c), x)),
        binding="manual"),
    _rounding("floor", "the largest integer ≤ x", expr=s.floor, numpy=lambda np, x: np.floor(x), stablehlo="floor",
              example=("[1.5, -1.5]", "[1.0, -2.0]")),
    _rounding("ceil", "the smallest integer ≥ x", expr=s.ceil, numpy=lambda np, x: np.ceil(x), stablehlo="ceil",
              example=("[1.5, -1.5]", "[2.0, -1.0]")),
    _rounding("round", "the nearest integer, ties to even", expr=s.rint, numpy=lambda np, x: np.rint(x),
              inplace_method=False, binding="manual", stablehlo="round_nearest_even"),
    _rounding("trunc", "the integer part", expr=s.trunc, numpy=lambda np, x: np.trunc(x), aliases=("fix",),
              example=("[1.5, -1.5]", "[1.0, -1.0]")),
    _unary("frac", "x - trunc(x)", expr=lambda x: x - s.trunc(x), over="float", grad=lambda F, g, _x: (g,),
           numpy=lambda np, x: x - np.trunc(x), example=("[1.5, -1.5]", "[0.5, -0.5]")),

    # ---- copies and casts ----
    _unary("copy", "the values in fresh memory", expr=lambda x: x, grad=lambda F, g, _x: (g,), numpy=lambda np, x: x,
           direct=True, binding="internal", inplace_method=False, stablehlo="optimization_barrier"),
    *(_cast(dtype.name, dtype.text) for dtype in types.DTYPES.values()),

    # ---- sources: the output's shape and dtype are given, `T` is the output's dtype ----
    Row("empty", "source", (), "->T", "memory with no particular contents", shape="checked", direct=True,
        binding="manual"),
    _source("full", "T->T", "value everywhere", "value", expr=lambda value: value, direct=True,
            stablehlo="constant"),
    _source("arange", "T,T->T", "start + i step, i the row-major index", "start", "step", over="number", expr=ex.arange,
            stablehlo="iota"),
    _source("uniform", "i64,i64,T,T->T",
            "random numbers in [low, high): Philox, counted by the row-major index and the offset", "seed", "offset",
            "low", "high", over="float", expr=ex.uniform, stablehlo="rng_bit_generator"),
    _source("normal", "i64,i64,T,T->T", "normal random numbers: Philox and Box-Muller", "seed", "offset", "mean", "std",
            over="float", expr=ex.normal, stablehlo="rng_bit_generator"),

    # ---- optimiser updates ----
    _update("sgd_", "p -= lr (g + weight_decay p)", "p g", "lr weight_decay", expr=ex.sgd),
    _update("sgd_momentum_", "buf = momentum buf + (1 - dampening) (g + weight_decay p); p -= lr buf", "p g buf",
            "lr momentum dampening weight_decay", expr=ex.sgd_momentum),
    _update("sgd_nesterov_", "as sgd_momentum_, but p -= lr (g + weight_decay p + momentum buf)", "p g buf",
            "lr momentum dampening weight_decay", expr=ex.sgd_nesterov),
    _update("adam_",
            "m += rate1 (g - m); v += rate2 (g² - v); p -= step m / (√v + eps), with g + weight_decay p for g; the "
            "bias corrections c1, c2 are folded in: step = lr √c2 / c1, rate1 = 1 - β1, rate2 = 1 - β2, eps = eps √c2",
            "p g m v", "step rate1 rate2 eps weight_decay", expr=ex.adam),
    _update("adamw_", "as adam_, but p -= decay p comes before it, decay = lr weight_decay", "p g m v",
            "step rate1 rate2 eps decay", expr=ex.adamw),

    # ---- reductions over one axis, which stays with extent 1 ----
    _reduction("sum", "Σ x in the order of T(n)", "sum", over="number", promote="int64",
               grad=lambda F, g, _x, axis: (g.expand(_x.shape),),
               numpy=lambda np, x, axis: np.sum(x, axis, keepdims=True), example=("[1, 2, 3]", "6")),
    _reduction("prod", "Π x in the order of T(n)", "prod", over="number", promote="int64", grad=d.prod,
               numpy=lambda np, x, axis: np.prod(x, axis, keepdims=True), domain=((0.5, 1.5),),
               example=("[2, 3, 4]", "24")),
    _reduction("amax", "the largest element; any NaN gives NaN", "max", grad=d.extremum,
               numpy=lambda np, x, axis: np.max(x, axis, keepdims=True), example=("[1, 3, 2]", "3")),
    _reduction("amin", "the smallest element; any NaN gives NaN", "min", grad=d.extremum,
               numpy=lambda np, x, axis: np.min(x, axis, keepdims=True), example=("[3, 1, 2]", "1")),
    _reduction("argmax", "the first index of the largest element; a NaN counts as the largest", "argmax", "T->i64",
               numpy=lambda np, x, axis: np.argmax(x, axis, keepdims=True), binding="manual",
               example=("[1, 3, 2]", "1")),
    _reduction("argmin", "the first index of the smallest element; a NaN counts as the smallest", "argmin", "T->i64",
               numpy=lambda np, x, axis: np.argmin(x, axis, keepdims=True), binding="manual",
               example=("[3, 1, 2]", "1")),
    _reduction("any", "some element is not zero", "any", "T->b8",
               numpy=lambda np, x, axis: np.any(x, axis, keepdims=True), example=("[0, 1]", "True")),
    _reduction("all", "no element is zero", "all", "T->b8", numpy=lambda np, x, axis: np.all(x, axis, keepdims=True),
               example=("[0, 1]", "False")),

    # ---- scans along an axis in the order of S(n): what reductions are on their way ----
    _scan("cumsum", "Σ of all elements up to each one", grad=d.cumsum, numpy=ref.cumsum),
    _scan("cumprod", "Π of all elements up to each one", grad=d.cumprod, numpy=ref.cumprod, domain=((0.5, 1.5),)),
    _scan("cummax", "the largest element up to each one; any NaN gives NaN", numpy=ref.cummax, binding="internal"),
    _scan("cummin", "the smallest element up to each one; any NaN gives NaN", numpy=ref.cummin, binding="internal"),
    _scan("logcumsumexp", "log Σ exp of all elements up to each one", over="float", promote="float",
          grad=d.logcumsumexp, numpy=ref.logcumsumexp, ulp=8.0, slack=32.0),

    # ---- sorting along an axis, in stable order: -0 before +0, NaN last; descending, all of it reversed ----
    _kernel("sort", "sort", "T->T,i64", "The elements in order, and their places", "input", "axis descending",
            grad=d.sort, numpy=ref.sort, stablehlo="sort"),
    _kernel("sort_values", "sort", "T->T", "The elements in order", "input", "axis descending",
            numpy=lambda np, *args: ref.sort(np, *args)[0], binding="internal", stablehlo="sort"),
    _kernel("argsort", "sort", "T->i64", "The places of the elements in order", "input", "axis descending",
            numpy=lambda np, *args: ref.sort(np, *args)[1], stablehlo="sort"),
    _kernel("topk", "sort", "T->T,i64", "The first k in order, and their places", "input", "axis k descending",
            shape="checked", grad=d.sort, numpy=ref.topk),
    _kernel("kth", "sort", "T->T,i64", "The element that is number k, from 0, in order, or the first NaN if NaNs win, "
            "and its place", "input", "axis k nan_wins", shape="checked", grad=d.sort, numpy=ref.kth,
            binding="internal"),
    _kernel("searchsorted", "sort", "T,T->i64", "How many elements of a sorted row each of some numbers comes after",
            "sorted_sequence input", "right", shape="checked", numpy=ref.searchsorted),

    # ---- contractions: sums of products in the order of dot ----
    _kernel("matmul", "contract", "T,T->T", "Σₖ a[…, m, k] b[…, k, n] over equal batch axes", "input other", "",
            over="number", shape="matmul", grad=d.matmul, numpy=lambda np, a, b: np.matmul(a, b), operator="matmul",
            stablehlo="dot_general"),
    _kernel("int_mm", "contract", "i8,i8->i32", "Σₖ a[m, k] b[k, n] of int8, exactly in int32", "input mat2", "",
            shape="matmul", direct=True, numpy=lambda np, a, b: np.matmul(a.astype(np.int32), b.astype(np.int32))),
    _kernel("index_matmul", "contract", "i64,T,T->T", "Σₖ a[index[m], k] b[k, n]: `gather` makes it of two rows",
            "index input other", "", over="float", shape="checked", binding="internal", stablehlo="composite",
            numpy=lambda np, index, a, b: np.matmul(np.take(a, index, 0), b)),
    # Of the numerics classes that `shapes.winograd_tile…` name, infinities and NaN spread over the tiles that see them.
    _kernel("conv2d", "contract", "T,T->T", "Σ x[n, c, i s - p + u d, …] w[o, c, u, v]", "input weight", CONV,
            over="float", shape="conv2d", grad=d.conv2d, numpy=ref.conv2d, stablehlo="convolution"),
    _kernel("conv2d_input", "contract", "T,T->T", "conv2d's gradient by its input; also the transposed convolution",
            "grad weight", CONV + " height width", over="float", shape="conv2d_input", grad=d.conv2d_input,
            numpy=ref.conv2d_input, binding="internal", stablehlo="convolution"),
    _kernel("conv2d_weight", "contract", "T,T->T", "conv2d's gradient by its weight", "input grad",
            CONV + " kernel_h kernel_w", over="float", shape="conv2d_weight", grad=d.conv2d_weight,
            numpy=ref.conv2d_weight, binding="internal", stablehlo="convolution"),

    # ---- windows ----
    _kernel("max_pool2d", "window", "T->T,i64", "The largest element of each window, and its flat index in the plane",
            "input", MAX_POOL, over="float", shape="pool2d", grad=d.max_pool2d, numpy=ref.max_pool2d,
            stablehlo="reduce_window"),
    _kernel("max_pool2d_values", "window", "T->T", "The largest element of each window", "input", MAX_POOL,
            over="float", shape="pool2d", numpy=lambda np, *args: ref.max_pool2d(np, *args)[0], binding="internal",
            stablehlo="reduce_window"),
    _kernel("adaptive_max_pool2d", "window", "T->T,i64",
            "The largest element of each of out_h × out_w nearly equal windows, and its flat index in the plane",
            "input", "out_h out_w", over="float", shape="adaptive_pool2d", grad=d.max_pool2d,
            numpy=ref.adaptive_max_pool2d, binding="internal"),
    _kernel("max_pool2d_grad", "window", "T,i64->T", "Each g added at its window's largest element", "grad index",
            "height width", over="float", shape="checked", grad=d.max_pool2d_grad, numpy=ref.max_pool2d_grad,
            binding="internal", stablehlo="select_and_scatter"),
    _kernel("avg_pool2d", "window", "T->T", "The mean of each window", "input", AVG_POOL, over="float", shape="pool2d",
            grad=d.avg_pool2d, numpy=ref.avg_pool2d, stablehlo="reduce_window"),
    _kernel("avg_pool2d_grad", "window", "T->T", "Each g divided among the elements of its window", "grad",
            AVG_POOL + " height width", over="float", shape="checked", grad=d.avg_pool2d_grad,
            numpy=ref.avg_pool2d_grad, binding="internal"),
    _kernel("adaptive_avg_pool2d", "window", "T->T", "The means of out_h × out_w nearly equal windows", "input",
            "out_h out_w", over="float", shape="adaptive_pool2d", grad=d.adaptive_avg_pool2d,
            numpy=ref.adaptive_avg_pool2d),
    _kernel("adaptive_avg_pool2d_grad", "window", "T->T", "Each g divided among the elements of its window", "grad",
            "height width", over="float", shape="checked", grad=d.adaptive_avg_pool2d_grad,
            numpy=ref.adaptive_avg_pool2d_grad, binding="internal"),

    # ---- indices: negative ones count from the end, others out of range raise IndexError before any write ----
    _kernel("gather", "index", "T,i64->T", "out[…, j, …] = x[…, index[…, j, …], …] along the axis", "input index",
            "axis", shape="gather", direct=True, grad=d.gather, numpy=ref.gather, stablehlo="gather"),
    _kernel("scatter_add", "index", "T,i64,T->T",
            "x[…, index[…, j, …], …] += src[…, j, …], in row-major order of the index", "input index src", "axis",
            over="number", shape="scatter", inplace=(0,), grad=d.scatter_add, numpy=ref.scatter_add,
            stablehlo="scatter"),
    _kernel("index_select", "index", "T,i64->T", "The slices of x that a one-dimensional index names", "input index",
            "axis", shape="index_select", direct=True, grad=d.index_select,
            numpy=lambda np, x, index, axis: np.take(x, index, axis), stablehlo="gather"),
    _kernel("index_add", "index", "T,i64,T->T", "The slices of src added to the slices of x that the index names",
            "input index src", "axis", over="number", shape="index_add", inplace=(0,), grad=d.index_add,
            numpy=ref.index_add, stablehlo="scatter"),
    _kernel("index_get", "index", "T,i64->T", "x at the positions that k index tensors of one shape name",
            "input index", "k axes position", shape="checked", variadic=True, direct=True, grad=d.index_get,
            numpy=ref.index_get, binding="internal", stablehlo="gather"),
    _kernel("index_put", "index", "T,T,i64->T", "value written (or added) at such positions; later ones win",
            "input value index", "k axes position accumulate", shape="checked", variadic=True, inplace=(0,),
            grad=d.index_put, numpy=ref.index_put, binding="internal", stablehlo="scatter"),
    _kernel("nonzero", "index", "b8->i64", "The indices of the elements that hold, one row each", "mask", "",
            shape="checked", numpy=lambda np, mask: np.argwhere(mask)),

    # ---- composites with a native kernel ----
    _kernel("softmax", "composite", "T->T", "exp(x - max x) / Σ exp(x - max x)", "input", "axis", over="float",
            define=composite.define_softmax, grad=d.softmax, numpy=ref.softmax, ulp=32.0),
    _kernel("log_softmax", "composite", "T->T", "(x - max x) - log Σ exp(x - max x)", "input", "axis", over="float",
            define=composite.define_log_softmax, grad=d.log_softmax, numpy=ref.log_softmax, ulp=8.0, slack=32.0),
    _kernel("cross_entropy", "composite", "T,i64->T,T,T",
            "-log softmax(x) at the target class along the axis, 0 where it is `ignored`; max x and log Σ exp(x - max)",
            "input target", "axis ignored", over="float", shape="checked", define=composite.define_cross_entropy,
            grad=d.cross_entropy, numpy=ref.cross_entropy, ulp=8.0, slack=32.0, binding="internal"),
    _kernel("cross_entropy_grad", "composite", "T,T,i64,T,T->T", "cross_entropy's gradient (softmax(x) - [target]) g",
            "grad input target max log_sum", "axis ignored", over="float", shape="checked",
            define=composite.define_cross_entropy_grad, numpy=ref.cross_entropy_grad, ulp=8.0, slack=64.0,
            binding="internal"),
    _kernel("sum_squares", "composite", "T->T", "Σ x² over one axis, which stays with extent 1", "input", "axis",
            over="float", shape="reduce", define=composite.define_sum_squares,
            grad=lambda F, g, x, axis: (g * x * 2,), numpy=lambda np, x, axis: np.sum(x * x, axis, keepdims=True),
            binding="internal"),
    _kernel("sum_square_deviations", "composite", "T->T", "Σ (x - mean x)² over one axis, which stays with extent 1",
            "input", "axis", over="float", shape="reduce", define=composite.define_sum_square_deviations,
            grad=d.sum_square_deviations,
            numpy=lambda np, x, axis: np.sum((x - np.mean(x, axis, keepdims=True)) ** 2, axis, keepdims=True),
            ulp=8.0, slack=8.0, binding="internal"),
    _kernel("deviations", "composite", "T,T->T,T",
            "Σ (x - center)² and Σ (x - center) over one axis, which stays with extent 1", "input center", "axis",
            over="float", shape="checked", define=composite.define_deviations, grad=d.deviations, ulp=8.0, slack=8.0,
            binding="internal"),
    _kernel("logsumexp", "composite", "T->T", "log Σ exp x over one axis, which stays with extent 1", "input", "axis",
            over="float", shape="reduce", define=composite.define_logsumexp,
            grad=lambda F, g, x, out, axis: (g * F.exp(x - out),), numpy=ref.logsumexp, ulp=8.0, slack=32.0,
            binding="internal"),
    _kernel("softmax_grad", "composite", "T,T->T", "softmax's gradient y (g - Σ g y), from its result y", "grad output",
            "axis", over="float", define=composite.define_softmax_grad, grad=d.softmax_grad, numpy=ref.softmax_grad,
            ulp=8.0, slack=64.0, binding="internal"),
    _kernel("log_softmax_grad", "composite", "T,T->T", "log_softmax's gradient g - exp(y) Σ g, from its result y",
            "grad output", "axis", over="float", define=composite.define_log_softmax_grad, grad=d.log_softmax_grad,
            numpy=ref.log_softmax_grad, ulp=8.0, slack=64.0, binding="internal"),
    _kernel("layer_norm", "composite", "T,T,T->T", "(x - mean x) / √(var x + eps) weight + bias over rows",
            "input weight bias", "eps_bits", over="float", define=composite.define_layer_norm, grad=d.layer_norm,
            numpy=ref.layer_norm, ulp=16.0, slack=256.0),
    _kernel("layer_norm_grad", "composite", "T,T,T->T,T,T", "layer_norm's gradients by input, weight and bias",
            "grad input weight", "eps_bits", over="float", shape="checked", define=composite.define_layer_norm_grad,
            numpy=ref.layer_norm_grad, ulp=16.0, slack=256.0, binding="internal"),
    _kernel("rms_norm", "composite", "T,T->T", "x / √(mean x² + eps) weight over rows", "input weight", "eps_bits",
            over="float", define=composite.define_rms_norm, grad=d.rms_norm, numpy=ref.rms_norm, ulp=16.0),
    _kernel("rms_norm_grad", "composite", "T,T,T->T,T", "rms_norm's gradients by input and weight",
            "grad input weight", "eps_bits", over="float", shape="checked", define=composite.define_rms_norm_grad,
            numpy=ref.rms_norm_grad, ulp=16.0, slack=256.0, binding="internal"),
    _kernel("channel_affine", "composite", "T,T,T,T->T", "(x - mean) scale + bias of [N, C, S] by vectors [C, 1]",
            "input mean scale bias", "", over="float", shape="checked", define=composite.define_channel_affine,
            grad=d.channel_affine, numpy=lambda np, x, mean, scale, bias: (x - mean) * scale + bias, slack=256.0,
            binding="internal"),
    _kernel("channel_norm", "composite", "T,T,T->T,T,T",
            "(x - mean) / √(var + eps) weight + bias, mean and var over S and N (axis 0) or D (axis 2) of [N, G, D, S]",
            "input weight bias", "axis eps_bits", over="float", shape="checked", define=composite.define_channel_norm,
            grad=d.channel_norm, numpy=ref.channel_norm, ulp=16.0, slack=256.0, binding="internal"),
    _kernel("channel_norm_grad", "composite", "T,T,T,T,T->T,T,T",
            "channel_norm's gradients by input, weight and bias", "grad input weight mean var", "axis eps_bits",
            over="float", shape="checked", define=composite.define_channel_norm_grad, numpy=ref.channel_norm_grad,
            ulp=16.0, slack=256.0, binding="internal"),

    # ---- opaque rows: the native kernel is the meaning of every bit, the reference holds to a bound ----
    _kernel("attention", "opaque", "T,T,T,T,i64->T,T",
            "dropout(softmax(query keyᵀ scale + mask)) value, and log Σ exp of every query's scores",
            "query key value mask draw", "causal scale_bits dropout_bits", over="float", shape="checked",
            grad=d.attention, numpy=ref.attention, binding="internal"),
    _kernel("attention_grad", "opaque", "T,T,T,T,T,i64,T,T->T,T,T", "attention's gradients by query, key and value",
            "grad query key value mask draw out logsumexp", "causal scale_bits dropout_bits", over="float",
            shape="checked", numpy=ref.attention_grad, binding="internal"),
)

ROWS: dict[str, Row] = {row.name: row for row in TABLE}

on_register: list[Callable[[Row], None]] = []  # what must learn of rows that come later


def check(row: Row) -> None:
    """Raises ValueError, naming the row and the field, when its fields do not fit together."""

    def must(holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"row {row.name!r}: {what}")

    must(row.name.isidentifier(), "the name must be an identifier")
    must(row.kind in KINDS, f"kind {row.kind!r} is none of {', '.join(KINDS)}")
    must(row.over in OVER, f"over {row.over!r} is none of {', '.join(OVER)}")
    must(row.promote in PROMOTE, f"promote {row.promote!r} is none of {', '.join(PROMOTE)}")
    must(row.binding in BINDINGS, f"binding {row.binding!r} is none of {', '.join(BINDINGS)}")
    must(row.shape in SHAPES, f"shape {row.shape!r} is none of {', '.join(SHAPES)}")
    must(row.types.count("->") == 1, f"types {row.types!r} must read like 'T,T->T'")
    must(all(t in ("T", *OVER["all"]) for t in (*row.in_types, *row.out_types)), f"types {row.types!r}: unknown dtype")
    must(len(row.in_types) == len(row.ins), f"{len(row.ins)} operands, but types {row.types!r}")
    must(bool(row.doc), "a doc line is missing")
    must((row.kind == "map") == (row.expr is not None), "a map, and nothing else, has an expr")
    must((row.kind == "reduce") == bool(row.monoid), "a reduce, and nothing else, has a monoid")
    must((row.kind == "composite") == (row.define is not None), "a composite, and nothing else, has a definition")
    must(not row.inplace or len(row.inplace) == row.outs, "inplace names one operand for each output")
    must(set(row.defaults) <= set(row.ins), "defaults of unknown operands")


def register(row: Row) -> None:
    """Adds a row from outside, at run time; it works at once, its kernels are compiled when first used.

    ValueError where the name is taken or the row's fields do not fit together.

    >>> double = neurlang.Row("double_it", "map", ("input",), "T->T", "2 x", over="float", expr=lambda x: x + x)
    >>> neurlang.register(double)
    >>> neurlang.double_it(neurlang.tensor([1.5])).tolist()
    [3.0]
    """
    check(row)
    if row.name in ROWS:
        raise ValueError(f"there is an op {row.name!r} already")
    for hook in on_register:
        hook(row)
    ROWS[row.name] = row
