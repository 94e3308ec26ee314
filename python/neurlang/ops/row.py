"""What a row of the op table says: its fields, their vocabulary, and makers of the kinds of rows that are frequent.

Standard library only, as the table itself (table.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import dtypes as types
from . import reference as ref
from . import scalar as s

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


# ---- kinds of rows that are frequent ----


def _over(fields: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """A row's own fields over those of its kind."""
    return defaults | fields


def unary(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input",), "T->T", doc, **_over(fields, inplace_method=True))


def float_unary(name: str, doc: str, **fields: Any) -> Row:
    """Integers become floats first."""
    return unary(name, doc, **_over(fields, over="float", promote="float"))


def rounding(name: str, doc: str, **fields: Any) -> Row:
    return unary(name, doc, over="number", grad=lambda F, g, _x: (F.zeros_like(g),), **fields)


def test(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input",), "T->b8", doc, **fields)


def binary(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input", "other"), "T,T->T", doc, **_over(fields, inplace_method=True))


def comparison(name: str, doc: str, **fields: Any) -> Row:
    return Row(name, "map", ("input", "other"), "T,T->b8", doc, stablehlo="compare", **fields)


def activation(name: str, doc: str, *limits: str, **fields: Any) -> Row:
    """A function of one tensor and scalar operands."""
    signature = ",".join("T" * (1 + len(limits))) + "->T"
    return Row(name, "map", ("input", *limits), signature, doc, **_over(fields, over="float"))


def derivative(name: str, doc: str, *ins: str, **fields: Any) -> Row:
    return Row(name, "map", ("grad", *ins), "T,T->T", doc, over="float", binding="internal", **fields)


def cast(dtype: str, text: str) -> Row:
    return Row(
        f"to_{dtype}", "map", ("input",), f"T->{text}", f"the values as {dtype}; floats saturate, NaN gives 0",
        expr=lambda x: s.convert(x, text),
        grad=(lambda F, g, _x: (g.to(_x.dtype),)) if text in OVER["float"] else None,
        numpy=lambda np, x: ref.cast(np, x, dtype), direct=True, binding="internal", stablehlo="convert",
    )


def source(name: str, types: str, doc: str, *ins: str, **fields: Any) -> Row:
    return Row(name, "map", ins, types, doc, shape="checked", binding="manual", **fields)


def update(name: str, doc: str, tensors: str, scalars: str, **fields: Any) -> Row:
    """An optimiser's step on one parameter; the parameter and the optimiser's state are overwritten."""
    ins = (*tensors.split(), *scalars.split())
    outs = tuple(i for i, t in enumerate(tensors.split()) if t != "g")
    types = ",".join("T" * len(ins)) + "->" + ",".join("T" * len(outs))
    return Row(name, "map", ins, types, doc, over="float", inplace=outs, binding="internal", **fields)


def reduction(name: str, doc: str, monoid: str, types: str = "T->T", **fields: Any) -> Row:
    return Row(
        name, "reduce", ("input",), types, doc, attrs=("axis",), shape="reduce", monoid=monoid,
        native=name, **_over(fields, stablehlo="reduce"),
    )


def scan(name: str, doc: str, **fields: Any) -> Row:
    """Every element of the result joins all elements up to its place along the axis."""
    return Row(
        name, "scan", ("input",), "T->T", doc, attrs=("axis",), native=name,
        **_over(fields, over="number", promote="int64", binding="manual", stablehlo="reduce_window"),
    )


def kernel(name: str, kind: str, types: str, doc: str, ins: str, attrs: str, **fields: Any) -> Row:
    """A row that runs as hand-written C++ behind a hand-written public function."""
    return Row(
        name, kind, tuple(ins.split()), types, doc, attrs=tuple(attrs.split()), native=name,
        **_over(fields, binding="manual"),
    )
