"""Functions written by hand in map-reduce form: parsed, checked, and turned into a graph.

    fn linear<B, I, O>(x: [B, I; f32], w: [O, I; f32], b: [O; f32]) -> [B, O; f32] {
        return [n, o] -> max(dot { x[n, i] * w[o, i] : i } + b[o], 0.0);
    }

`[n, o] -> e` is the tensor with element e at n, o; an index runs over the dims in whose places it stands. `sum`,
`prod`, `max` and `min` reduce over one index; `dot` is the chain of fma of a product, as matmul computes it. Other
names are ops of the table. `let h = [n] -> e;` names a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ops.table import ROWS
from .graph import Access, Const, Graph, Node, Operand, Storage, contiguous_strides, count
from .kernel import REDUCERS
from .reader import Reader
from .types import DTYPES, nbytes, row_dtypes, to_bits

_REDUCE_ROWS = {reducer: row for row, reducer in REDUCERS.items()}
_OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
_CALLS = {"max": "maximum", "min": "minimum"}  # as calls; with braces they reduce

Dims = tuple[str, ...]


# ---- the tree ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    text: str
    place: int


@dataclass(frozen=True)
class Element:
    """`x[n, i]`, or the scalar `x`."""

    name: str
    indices: tuple[str, ...]
    place: int


@dataclass(frozen=True)
class Call:
    """An op of the table on elements."""

    op: str
    args: tuple[Expr, ...]
    place: int


@dataclass(frozen=True)
class Reduction:
    """`reducer { body : index }`."""

    reducer: str
    body: Expr
    index: str
    place: int


Expr = Number | Element | Call | Reduction


@dataclass(frozen=True)
class Tensor:
    """The type of a parameter, local or result."""

    dims: Dims
    dtype: str


@dataclass(frozen=True)
class Binding:
    """`name = [indices] -> value`; the result of the function has no name."""

    name: str
    indices: tuple[str, ...]
    value: Expr
    place: int


@dataclass(frozen=True)
class Function:
    """A parsed and checked function."""

    name: str
    dims: Dims
    params: dict[str, Tensor]
    result: Tensor
    bindings: tuple[Binding, ...]  # the last one is the result
    extents: tuple[dict[str, str], ...]  # of every binding: index -> dim
    locals: dict[str, Tensor]

    def graph(self, sizes: Mapping[str, int]) -> Graph:
        """The function for given dims: leaf k is parameter k, the live storage the result."""
        return _Lowering(self, sizes).graph()


# ---- parsing ----------------------------------------------------------------------------------------------------


def parse_function(text: str) -> Function:
    """Raises ParseError, with the position, for anything that has no meaning."""
    r = Reader(text)
    r.expect("fn")
    name = r.name()
    r.expect("<")
    dims = r.several(r.name, ">")
    r.expect("(")
    params = dict(r.several(lambda: _parameter(r, dims), ")"))
    r.expect("->")
    result = _tensor(r, dims)
    r.expect("{")
    bindings = []
    while r.accept("let"):
        local = r.name()
        r.expect("=")
        bindings.append(_binding(r, local))
    r.expect("return")
    bindings.append(_binding(r, ""))
    r.expect("}")
    r.end()
    return _Checker(r, name, dims, params, result).function(tuple(bindings))


def _parameter(r: Reader, dims: Dims) -> tuple[str, Tensor]:
    name = r.name()
    r.expect(":")
    return name, Tensor((), r.dtype()) if r.token in DTYPES else _tensor(r, dims)


def _tensor(r: Reader, dims: Dims) -> Tensor:
    r.expect("[")
    own: list[str] = []
    while r.token != ";":
        if own:
            r.expect(",")
        if r.token not in dims:
            r.fail(f"no dim is called {r.token!r}")
        own.append(r.name())
    r.expect(";")
    dtype = r.dtype()
    r.expect("]")
    return Tensor(tuple(own), dtype)


def _binding(r: Reader, name: str) -> Binding:
    place = r.start
    r.expect("[")
    indices = r.several(r.name, "]")
    r.expect("->")
    value = _sum(r)
    r.expect(";")
    return Binding(name, indices, value, place)


def _sum(r: Reader) -> Expr:
    left = _product(r)
    while r.token in ("+", "-"):
        place = r.start
        left = Call(_OPERATORS[r.next()], (left, _product(r)), place)
    return left


def _product(r: Reader) -> Expr:
    left = _factor(r)
    while r.token in ("*", "/"):
        place = r.start
        left = Call(_OPERATORS[r.next()], (left, _factor(r)), place)
    return left


def _factor(r: Reader) -> Expr:
    place = r.start
    if r.accept("-"):
        return Call("neg", (_factor(r),), place)
    if r.accept("("):
        inner = _sum(r)
        r.expect(")")
        return inner
    if r.kind == "number":
        return Number(r.next(), place)
    name = r.name()
    if name in ("inf", "nan"):
        return Number(name, place)
    if r.accept("("):
        return Call(_CALLS.get(name, name), r.several(lambda: _sum(r), ")"), place)
    if (name in _REDUCE_ROWS or name == "dot") and r.accept("{"):
        body = _sum(r)
        r.expect(":")
        index = r.name()
        r.expect("}")
        return Reduction(name, body, index, place)
    return Element(name, r.several(r.name, "]") if r.accept("[") else (), place)


# ---- checking ---------------------------------------------------------------------------------------------------


class _Checker:
    """Resolves names, infers what every index runs over, and checks types."""

    def __init__(self, r: Reader, name: str, dims: Dims, params: dict[str, Tensor], result: Tensor) -> None:
        self.r, self.name, self.dims, self.params, self.result = r, name, dims, params, result
        self.tensors = dict(params)

    def function(self, bindings: tuple[Binding, ...]) -> Function:
        extents = tuple(self.binding(b) for b in bindings)
        made = {b.name: self.tensors[b.name] for b in bindings if b.name}
        return Function(self.name, self.dims, self.params, self.result, bindings, extents, made)

    def binding(self, b: Binding) -> dict[str, str]:
        extents: dict[str, str] = {}
        if len(set(b.indices)) < len(b.indices):
            self.r.fail("an index stands twice", b.place)
        if not b.name and len(b.indices) == len(self.result.dims):
            extents.update(zip(b.indices, self.result.dims, strict=True))
        dtype = self.expr(b.value, (*b.indices,), extents)
        for index in b.indices:
            if index not in extents:
                self.r.fail(f"what {index!r} runs over is not known: it stands in no tensor", b.place)
        made = Tensor(tuple(extents[i] for i in b.indices), dtype or "f32")
        if not b.name and made != self.result:
            self.r.fail(f"the result is {_spell(made)}, declared is {_spell(self.result)}", b.place)
        if b.name in self.tensors:
            self.r.fail(f"there is a tensor {b.name!r} already", b.place)
        if b.name:
            self.tensors[b.name] = made
        return extents

    def expr(self, e: Expr, scope: tuple[str, ...], extents: dict[str, str]) -> str:
        """The dtype of an expression; numbers have none."""
        if isinstance(e, Number):
            return ""
        if isinstance(e, Element):
            return self.element(e, scope, extents)
        if isinstance(e, Reduction):
            return self.reduction(e, scope, extents)
        return self.call(e, scope, extents)

    def element(self, e: Element, scope: tuple[str, ...], extents: dict[str, str]) -> str:
        if e.name not in self.tensors:
            self.r.fail(f"no tensor or scalar is called {e.name!r}", e.place)
        tensor = self.tensors[e.name]
        if len(e.indices) != len(tensor.dims):
            self.r.fail(f"{e.name} is {_spell(tensor)}, but has {len(e.indices)} indices here", e.place)
        for index, dim in zip(e.indices, tensor.dims, strict=True):
            if index not in scope:
                self.r.fail(f"index {index!r} is not known here", e.place)
            if extents.setdefault(index, dim) != dim:
                self.r.fail(f"index {index!r} runs over {extents[index]}, but {dim} is its place in {e.name}", e.place)
        return tensor.dtype

    def reduction(self, e: Reduction, scope: tuple[str, ...], extents: dict[str, str]) -> str:
        if e.index in scope:
            self.r.fail(f"index {e.index!r} is in use already", e.place)
        dtype = self.expr(e.body, (*scope, e.index), extents)
        if e.index not in extents:
            self.r.fail(f"what {e.index!r} runs over is not known: it stands in no tensor", e.place)
        if not dtype or not DTYPES[dtype].floating:
            self.r.fail(f"{e.reducer} is defined over f32 and f64", e.place)
        if e.reducer == "dot":
            self.dot(e)
        return dtype

    def dot(self, e: Reduction) -> None:
        """A product of two factors; beside shared indices each side has one index of its own at most."""
        body = e.body
        if not isinstance(body, Call) or body.op != "mul":
            self.r.fail("dot takes a product of two factors", e.place)
        left, right = (_indices(x) for x in body.args)
        if e.index not in left & right:
            self.r.fail(f"index {e.index!r} must stand in both factors of a dot", e.place)
        if max(len(left - right), len(right - left)) > 1:
            self.r.fail("beside shared ones each factor of a dot has one index of its own at most", e.place)

    def call(self, e: Call, scope: tuple[str, ...], extents: dict[str, str]) -> str:
        if e.op not in ROWS or ROWS[e.op].kind != "map" or not ROWS[e.op].ins:
            self.r.fail(f"no elementwise op is called {e.op!r}", e.place)
        if len(e.args) != len(ROWS[e.op].in_types):
            self.r.fail(f"{e.op} takes {len(ROWS[e.op].in_types)} operands, not {len(e.args)}", e.place)
        found = [self.expr(a, scope, extents) for a in e.args]
        typed = [d for d, t in zip(found, ROWS[e.op].in_types, strict=True) if d and t == "T"]
        if not typed:
            self.r.fail(f"{e.op} needs an operand that is no number", e.place)
        for dtype, expected in zip(found, ROWS[e.op].in_types, strict=True):
            if dtype and dtype != (typed[0] if expected == "T" else expected):
                self.r.fail(f"{e.op} on {', '.join(d or 'number' for d in found)}: convert one of them", e.place)
        if typed[0] not in ROWS[e.op].dtypes:
            self.r.fail(f"{e.op} is not defined on {typed[0]}", e.place)
        return row_dtypes(e.op, [d or typed[0] for d in found])[0]


def _spell(t: Tensor) -> str:
    return f"[{', '.join(t.dims)}; {t.dtype}]"


def _indices(e: Expr) -> set[str]:
    """The indices that an expression depends on."""
    if isinstance(e, Element):
        return set(e.indices)
    if isinstance(e, Call):
        return set().union(*(_indices(a) for a in e.args))
    return _indices(e.body) - {e.index} if isinstance(e, Reduction) else set()


# ---- to a graph -------------------------------------------------------------------------------------------------

Scope = tuple[str, ...]


class _Lowering:
    """Appends nodes; every expression becomes an operand over its scope, with extent 1 along indices it ignores."""

    def __init__(self, function: Function, sizes: Mapping[str, int]) -> None:
        self.function, self.sizes = function, sizes
        self.storages: list[Storage] = []
        self.nodes: list[Node] = []
        self.tensors: dict[str, Access] = {}
        self.extents: dict[str, int] = {}

    def graph(self) -> Graph:
        for name, tensor in self.function.params.items():
            shape = tuple(self.sizes[d] for d in tensor.dims)
            self.tensors[name] = self.memory("leaf", shape, tensor.dtype, 0)
        for b, extents in zip(self.function.bindings, self.function.extents, strict=True):
            self.extents = {index: self.sizes[dim] for index, dim in extents.items()}
            self.bind(b)
        return Graph(tuple(self.storages), tuple(self.nodes))

    def memory(self, kind: str, shape: tuple[int, ...], dtype: str, version: int) -> Access:
        self.storages.append(Storage(kind, nbytes(dtype, count(shape)), False))
        return Access(len(self.storages) - 1, version, dtype, shape, contiguous_strides(shape))

    def bind(self, b: Binding) -> None:
        """The value in memory of its own, whole."""
        shape = tuple(self.extents[i] for i in b.indices)
        dtype = (self.function.locals[b.name] if b.name else self.function.result).dtype
        value = self.expr(b.value, b.indices, dtype)
        out = self.append("copy", (value,), shape, dtype)
        if b.name:
            self.tensors[b.name] = out
        else:
            last = self.storages[out.storage]
            self.storages[out.storage] = Storage(last.kind, last.nbytes, True)

    def append(self, op: str, ins: tuple[Operand, ...], shape: tuple[int, ...], dtype: str, *attrs: int) -> Access:
        out = self.memory("fresh", shape, dtype, 1)
        self.nodes.append(Node(op, ins, (out,), attrs))
        return out

    def expr(self, e: Expr, scope: Scope, number: str) -> Operand:
        """`number` is the dtype that a number takes here."""
        if isinstance(e, Number):
            return Const(to_bits(float(e.text), number), number)
        if isinstance(e, Element):
            return self.element(e, scope)
        if isinstance(e, Call):
            return self.call(e, scope)
        return self.dot(e, scope) if e.reducer == "dot" else self.reduction(e, scope)

    def element(self, e: Element, scope: Scope) -> Access:
        x = self.tensors[e.name]
        strides = dict.fromkeys(scope, 0)
        for index, stride in zip(e.indices, x.strides, strict=True):
            strides[index] += stride  # an index in two places walks the diagonal
        shape = tuple(self.extents[i] if i in e.indices else 1 for i in scope)
        return Access(x.storage, x.version, x.dtype, shape, tuple(strides.values()))

    def call(self, e: Call, scope: Scope) -> Access:
        types = ROWS[e.op].in_types
        typed = next(self.dtype(a) for a, t in zip(e.args, types, strict=True) if t == "T" and self.dtype(a))
        ins = tuple(self.expr(a, scope, typed if t == "T" else t) for a, t in zip(e.args, types, strict=True))
        used = _indices(e)
        shape = tuple(self.extents[i] if i in used else 1 for i in scope)
        return self.append(e.op, ins, shape, row_dtypes(e.op, [x.dtype for x in ins])[0])

    def dtype(self, e: Expr) -> str:
        if isinstance(e, Element):
            return self.tensors[e.name].dtype
        if isinstance(e, Call):
            found = [self.dtype(a) for a in e.args]
            typed = next(d for d, t in zip(found, ROWS[e.op].in_types, strict=True) if d and t == "T")
            return row_dtypes(e.op, [d or typed for d in found])[0]
        return self.dtype(e.body) if isinstance(e, Reduction) else ""

    def reduction(self, e: Reduction, scope: Scope) -> Access:
        inner = (*scope, e.index)
        x = self.expr(e.body, inner, self.dtype(e))
        assert isinstance(x, Access)
        if x.shape[-1] == 1:  # the same term at every place
            shape = (*x.shape[:-1], self.extents[e.index])
            x = Access(x.storage, x.version, x.dtype, shape, (*x.strides[:-1], 0))
        made = self.append(_REDUCE_ROWS[e.reducer], (x,), (*x.shape[:-1], 1), x.dtype, len(scope))
        return Access(made.storage, 1, made.dtype, made.shape[:-1], made.strides[:-1])

    def dot(self, e: Reduction, scope: Scope) -> Access:
        """As a matmul over the shared indices: [..., rows, k] x [..., k, columns]."""
        assert isinstance(e.body, Call)
        left, right = e.body.args
        inner, dtype = (*scope, e.index), self.dtype(e)
        a, b = self.expr(left, inner, dtype), self.expr(right, inner, dtype)
        rows, columns = _indices(left) - _indices(right), _indices(right) - _indices(left)
        shared = [i for i in scope if i in _indices(left) & _indices(right)]
        row, column = next(iter(rows), ""), next(iter(columns), "")
        ins = (_matrix(a, inner, [*shared, row, e.index]), _matrix(b, inner, [*shared, e.index, column]))
        shape = (*(self.extents[i] for i in shared), *ins[0].shape[-2:-1], *ins[1].shape[-1:])
        made = self.append("matmul", ins, shape, dtype)
        walk = dict(zip([*shared, row, column], made.strides, strict=True))
        own = tuple(self.extents[i] if i in walk else 1 for i in scope)
        return Access(made.storage, 1, dtype, own, tuple(walk.get(i, 0) for i in scope))


def _matrix(x: Operand, scope: Scope, order: list[str]) -> Access:
    """The operand with its axes in this order; an empty name is an axis of extent 1."""
    assert isinstance(x, Access)
    axes = dict(zip(scope, zip(x.shape, x.strides, strict=True), strict=True)) | {"": (1, 0)}
    shape, strides = zip(*(axes[i] for i in order), strict=True)
    return Access(x.storage, x.version, x.dtype, shape, strides)
