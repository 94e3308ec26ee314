"""The text of graphs and kernels: printing and parsing back to the same object, with positions in the errors."""

from __future__ import annotations

from .graph import Access, Const, Graph, Node, Operand, Scalar, Storage, contiguous_strides
from .kernel import REDUCERS, Axis, Kernel, Map, Param, Reduce, Statement, Store
from .reader import ParseError, Reader
from .types import DTYPES, to_bits

__all__ = ["ParseError", "parse_graph", "parse_kernel", "print_graph", "print_kernel", "print_node"]


# ---- printing ---------------------------------------------------------------------------------------------------


def print_graph(graph: Graph) -> str:
    """One line per storage and node; parses back with `parse_graph`."""
    lines = [f"  s{i}: {_storage(s)}" for i, s in enumerate(graph.storages)]
    lines += [f"  {print_node(n)}" for n in graph.nodes]
    return "\n".join(["graph {", *lines, "}"]) + "\n"


def _storage(s: Storage) -> str:
    return f"{s.kind} {s.nbytes} {s.device}" + (" live" if s.live else "")


def print_node(n: Node) -> str:
    """What a node writes, its op, and what it reads."""
    outs = ", ".join(_access(x) for x in n.outs)
    ins = ", ".join(_operand(x) for x in n.ins)
    regions = "".join(f" {print_graph(g).rstrip()}" for g in n.regions)
    return f"{outs} = {n.op}{_attrs(n.attrs)}({ins}){regions}"


def _operand(x: Operand) -> str:
    if isinstance(x, Access):
        return _access(x)
    return f"${x.index} {x.dtype}" if isinstance(x, Scalar) else _const(x)


def _access(x: Access) -> str:
    offset = f"+o{x.offset}" if x.offset >= 0 else ""
    shape = ", ".join(map(str, x.shape))
    strides = "" if x.strides == contiguous_strides(x.shape) else "; " + ", ".join(map(str, x.strides))
    return f"s{x.storage}.{x.version}{offset} {x.dtype}[{shape}{strides}]"


def _const(x: Const) -> str:
    """A number in parentheses behind its dtype; NaNs that are not the usual one are spelled by their bits."""
    text = repr(x.value)
    exact = text != "nan" or x.bits == to_bits(float("nan"), x.dtype)
    return f"{x.dtype}({text if exact else hex(x.bits)})"


def _attrs(attrs: tuple[int, ...]) -> str:
    return "{" + ", ".join(map(str, attrs)) + "}" if attrs else ""


def print_kernel(kernel: Kernel) -> str:
    """Index space, operands with their affine accesses, one statement a line; parses back with `parse_kernel`."""
    space = ", ".join(f"{a.name}: {a.extent}" + (f" <= {a.length}" if a.length else "") for a in kernel.axes)
    lines = [f"  {_param(p, kernel)}" for p in kernel.params]
    lines += [f"  {_statement(s, kernel)}" for s in kernel.body]
    over = f" reduce {kernel.axes[kernel.reduce].name}" if kernel.reduce >= 0 else ""
    return "\n".join([f"kernel {kernel.name} [{space}]{over} {{", *lines, "}"]) + "\n"


def _param(p: Param, kernel: Kernel) -> str:
    if p.kind == "scalar":
        return f"scalar {p.name}: {p.dtype}"
    terms = [_term(a.name, s) for a, s in zip(kernel.axes, p.strides, strict=True) if s != 0]
    via, stream = f" via {p.via}" if p.via else "", " stream" if p.stream else ""
    return f"{p.kind} {p.name}: {p.dtype}[{' + '.join(terms) or '0'}]{via}{stream}"


def _term(name: str, stride: int) -> str:
    return name if stride == 1 else f"{name}*{stride}"


def _statement(s: Statement, kernel: Kernel) -> str:
    if isinstance(s, Store):
        return f"{s.param} = {s.value}"
    if isinstance(s, Reduce):
        return f"{s.name} = {s.reducer} {{ {s.arg} : {kernel.axes[kernel.reduce].name} }}"
    args = ", ".join(a if isinstance(a, str) else _const(a) for a in s.args)
    return f"{', '.join(s.names)} = {s.op}{_attrs(s.attrs)}({args})"


# ---- parsing ----------------------------------------------------------------------------------------------------


def parse_graph(text: str) -> Graph:
    """The graph that `print_graph` printed."""
    r = Reader(text)
    graph = _parse_graph(r)
    r.end()
    return graph


def _parse_graph(r: Reader) -> Graph:
    r.expect("graph")
    r.expect("{")
    storages: list[Storage] = []
    nodes: list[Node] = []
    while not r.accept("}"):
        at = r.start
        number = r.prefixed("s")
        if r.accept(":"):
            if number != len(storages):
                r.fail(f"storage s{number} is out of order", at)
            storages.append(_parse_storage(r))
        else:
            r.back_to(at)
            nodes.append(_parse_node(r))
    return Graph(tuple(storages), tuple(nodes))


def _parse_storage(r: Reader) -> Storage:
    if r.token not in ("leaf", "fresh"):
        r.fail(f"unknown kind of storage {r.token!r}")
    kind, nbytes, device = r.name(), r.integer(), r.name()
    return Storage(kind, nbytes, r.accept("live"), device)


def _parse_node(r: Reader) -> Node:
    outs = r.several(lambda: _parse_access(r), "=")
    op = r.name()
    attrs = r.attrs()
    r.expect("(")
    ins = r.several(lambda: _parse_operand(r), ")")
    regions = []
    while r.token == "graph":
        regions.append(_parse_graph(r))
    return Node(op, ins, outs, attrs, tuple(regions))


def _parse_operand(r: Reader) -> Operand:
    if r.accept("$"):
        index = r.integer()
        return Scalar(index, r.dtype())
    return r_const if (r_const := _maybe_const(r)) is not None else _parse_access(r)


def _maybe_const(r: Reader) -> Const | None:
    return r.const(r.next()) if r.token in DTYPES else None


def _parse_access(r: Reader) -> Access:
    storage = r.prefixed("s")
    r.expect(".")
    version = r.integer()
    offset = r.prefixed("o") if r.accept("+") else -1
    dtype = r.dtype()
    r.expect("[")
    shape: list[int] = []
    while r.token not in ("]", ";"):
        if shape:
            r.expect(",")
        shape.append(r.integer())
    strides = r.several(r.integer, "]") if r.accept(";") else None
    if strides is None:
        r.expect("]")
    return Access(
        storage, version, dtype, tuple(shape), contiguous_strides(shape) if strides is None else strides, offset
    )


def parse_kernel(text: str) -> Kernel:
    """The kernel that `print_kernel` printed."""
    r = Reader(text)
    r.expect("kernel")
    name = r.name()
    r.expect("[")
    axes = r.several(lambda: _parse_axis(r), "]")
    names = [a.name for a in axes]
    reduce = -1
    if r.accept("reduce"):
        reduce = _axis_number(r, names)
    r.expect("{")
    params: list[Param] = []
    body: list[Statement] = []
    while not r.accept("}"):
        if r.token in ("in", "out", "inout", "scalar"):
            params.append(_parse_param(r, names))
        else:
            body.append(_parse_statement(r, {p.name for p in params}, names))
    r.end()
    return Kernel(name, axes, tuple(params), tuple(body), reduce)


def _parse_axis(r: Reader) -> Axis:
    name = r.name()
    r.expect(":")
    extent = r.integer()
    return Axis(name, extent, r.name() if r.accept("<=") else "")


def _axis_number(r: Reader, names: list[str]) -> int:
    if r.token not in names:
        r.fail(f"no axis is called {r.token!r}")
    return names.index(r.next())


def _parse_param(r: Reader, names: list[str]) -> Param:
    kind, name = r.next(), r.name()
    r.expect(":")
    dtype = r.dtype()
    if kind == "scalar":
        return Param(name, kind, dtype)
    strides = [0] * len(names)
    r.expect("[")
    if not r.accept("0"):
        while True:
            axis = _axis_number(r, names)
            strides[axis] = r.integer() if r.accept("*") else 1
            if not r.accept("+"):
                break
    r.expect("]")
    via = r.name() if r.accept("via") else ""
    return Param(name, kind, dtype, tuple(strides), r.accept("stream"), via)


def _parse_statement(r: Reader, params: set[str], axes: list[str]) -> Statement:
    names = r.several(r.name, "=")
    op = r.name()
    if op in REDUCERS.values() and r.token == "{" and len(names) == 1:
        r.expect("{")
        arg = r.name()
        r.expect(":")
        _axis_number(r, axes)
        r.expect("}")
        return Reduce(names[0], op, arg)
    if r.token not in ("(", "{"):
        if names[0] not in params:
            r.fail(f"{names[0]!r} is not a parameter")
        return Store(names[0], op)
    attrs = r.attrs()
    r.expect("(")
    return Map(names, op, r.several(lambda: _parse_arg(r), ")"), attrs)


def _parse_arg(r: Reader) -> str | Const:
    const = _maybe_const(r)
    return const if const is not None else r.name()
