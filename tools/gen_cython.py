"""Writes what Python sees of the op table: functions and methods of Tensor as Cython text, and the stub `_tensor.pyi`.

Run at build time by tools/gen_ops.py; `python tools/gen_cython.py` rewrites the committed stub.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tempfile
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent / "python" / "neurlang"
ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
FOREIGN = "if not is_operand(other):\n    return NotImplemented\n"
REDUCE_ARGUMENTS = ("dim=None", "bint keepdim=False")


def indented(text: str, by: str = "    ") -> str:
    return "".join(by + line if line.strip() else line for line in text.splitlines(keepends=True))


def definition(name: str, parameters: Iterable[str], doc: str, body: str) -> str:
    """A Python function."""
    quoted = indented(f'"""{doc}"""\n') if doc else ""
    return f"def {name}({', '.join(parameters)}):\n{quoted}{indented(body)}\n\n"


# ---- rows to text ----


def documentation(row: Any, full: bool) -> str:
    """The row's line; the full text also says what it takes and has an example that can be run."""
    doc = f"{row.doc}."
    if not full:
        return doc
    if facts := operand_facts(row):
        doc += f"\n\n{facts}"
    arguments, result = row.example
    if not result:
        return f"{doc}\n"
    call = re.sub(r"\[[^]]*\]", lambda found: f"neurlang.tensor({found.group()})", arguments)
    read = "item" if row.kind == "reduce" else "tolist"
    return f"{doc}\n\n>>> neurlang.{row.name}({call}).{read}()\n{result}\n"


TAKES = {
    "all": "", "number": "Takes numbers but no bools, else DTypeError.", "float": "Takes floats, else DTypeError.",
    "int": "Takes integers and bools, else DTypeError.", "integer": "Takes integers, else DTypeError.",
}
CONVERTS = {
    "float": "Integers and bools become the default float dtype first.",
    "int64": "Integers and bools become int64 first.",
    "first": "The result has the first operand's dtype.",
}


def operand_facts(row: Any) -> str:
    """What the row does to its operands before it computes, and which it refuses."""
    facts = [CONVERTS.get(row.promote) or TAKES[row.over]]
    if len(row.ins) > 1:
        promoted = "" if row.promote == "first" else "promoted to one dtype and "
        facts.append(f"Operands are {promoted}broadcast; shapes that do not fit are a ShapeError.")
    return " ".join(fact for fact in facts if fact)


def full_text(function: Any) -> str:
    """The docstring of a composite, to be put into another function."""
    doc = inspect.getdoc(function) or ""
    return f"{doc}\n" if "\n" in doc else doc


def summary(function: Any) -> str:
    """The first paragraph of a docstring: a method's example is that of its function."""
    return full_text(function).split("\n\n")[0]


def parameters(row: Any) -> list[str]:
    """The operands as PyTorch names them, with their defaults."""
    names = [f"{name}={row.defaults[name]!r}" if name in row.defaults else name for name in row.ins]
    return [*names, "*", "alpha=1"] if row.scaled else names


def operands(row: Any, first: str) -> list[str]:
    """What is handed to the call, the first operand under another name."""
    names = [first, *row.ins[1:]]
    if row.scaled:
        names[1] = f"{names[1]} if alpha == 1 else scaled({first}, {names[1]}, alpha)"
    return names


def as_tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def map_call(row: Any, numbers: dict[str, int], first: str) -> str:
    """The call that computes a map row out of place."""
    args = operands(row, first)
    if row.inplace:
        return f"update_into({numbers[row.name]}, {as_tuple(args)})"
    if len(args) > 3:
        return f"mapn({numbers[row.name]}, {as_tuple(args)})"
    return f"map{len(args)}({numbers[row.name]}, {', '.join(args)})"


def map_function(row: Any, numbers: dict[str, int]) -> str:
    body = f"return {map_call(row, numbers, row.ins[0])}\n"
    return definition(row.function, parameters(row), documentation(row, row.function == row.name), body)


def map_method(row: Any, numbers: dict[str, int]) -> str:
    body = f"return {map_call(row, numbers, 'self')}\n"
    return definition(row.name, ["self", *parameters(row)[1:]], documentation(row, False), body)


def inplace_method(row: Any, numbers: dict[str, int]) -> str:
    rest = operands(row, "self")[1:]
    body = f"return map_into({numbers[row.name]}, self, {as_tuple(rest)})\n"
    doc = f"In place: {documentation(row, False)}"
    return definition(f"{row.name}_", ["self", *parameters(row)[1:]], doc, body)


def reduce_parameters(row: Any) -> list[str]:
    return [*REDUCE_ARGUMENTS, "*", "dtype=None"] if row.promote == "int64" else list(REDUCE_ARGUMENTS)


def reduce_body(row: Any, numbers: dict[str, int], first: str) -> str:
    call = "reduce_in(dtype, " if row.promote == "int64" else "reduce1("
    return f"return {call}{numbers[row.name]}, {first}, dim, keepdim)\n"


def over_axes(doc: str) -> str:
    """The text with the axes named where its first clause ends."""
    return re.sub(r"[.;]", r" over `dim` (None: all axes)\g<0>", doc, count=1)


def reduce_function(row: Any, numbers: dict[str, int]) -> str:
    arguments = ["input", *reduce_parameters(row)]
    doc = over_axes(documentation(row, True))
    return definition(row.name, arguments, doc, reduce_body(row, numbers, "input"))


def reduce_method(row: Any, numbers: dict[str, int]) -> str:
    doc = over_axes(documentation(row, False))
    return definition(row.name, ["self", *reduce_parameters(row)], doc, reduce_body(row, numbers, "self"))


# ---- functions of ops/composite.py that stand in front of a row ----


def composite_parameters(function: Any) -> tuple[list[str], list[str]]:
    """The parameters after `F` as they are declared, and as they are passed on."""
    declared, passed = [], []
    starred = False
    for p in list(inspect.signature(function).parameters.values())[1:]:
        keyword = p.kind is inspect.Parameter.KEYWORD_ONLY
        if keyword and not starred:
            declared.append("*")
            starred = True
        declared.append(p.name if p.default is p.empty else f"{p.name}={p.default!r}")
        passed.append(f"{p.name}={p.name}" if keyword else p.name)
    return declared, passed


def composite_function(row: Any, composite: Any) -> str:
    function = getattr(composite, row.name)
    declared, passed = composite_parameters(function)
    if declared[0] == "input":
        passed[0] = f'need_tensor(input, "{row.name}")'
    return definition(row.name, declared, full_text(function), f"return composite.{row.name}(F, {', '.join(passed)})\n")


def composite_methods(row: Any, composite: Any) -> str:
    """The method, and its in-place form, of a function whose first argument is the tensor."""
    function = getattr(composite, row.name)
    declared, passed = composite_parameters(function)
    if declared[0] != "input":
        return ""
    rest = "".join(f", {name}" for name in passed[1:])
    text = definition(
        row.name, ["self", *declared[1:]], summary(function), f"return composite.{row.name}(F, self{rest})\n"
    )
    if row.inplace_method:
        doc = f"In place: {summary(function)}"
        body = f"copy_into(self, composite.{row.name}(F, kept_whole(self){rest}))\nreturn self\n"
        text += definition(f"{row.name}_", ["self", *declared[1:]], doc, body)
    return text


# ---- operators ----


def operator_methods(row: Any, numbers: dict[str, int]) -> str:
    slot, op = row.operator, numbers[row.name]
    if slot in COMPARISONS:
        return definition(f"__{slot}__", ("self", "other"), "", f"{FOREIGN}return map2({op}, self, other)\n")
    if slot in ARITHMETIC:
        return (
            definition(f"__{slot}__", ("self", "other"), "", f"{FOREIGN}return map2({op}, self, other)\n")
            + definition(f"__r{slot}__", ("self", "other"), "", f"{FOREIGN}return map2({op}, other, self)\n")
            + definition(f"__i{slot}__", ("self", "other"), "", f"{FOREIGN}return map_into({op}, self, (other,))\n")
        )
    return definition(f"__{slot}__", ("self",), "", f"return map1({op}, self)\n")


# ---- the two includes ----


def alias_lines(rows: Iterable[Any], suffix: str = "") -> str:
    lines = [f"{alias}{suffix} = {row.name}{suffix}\n" for row in rows for alias in row.aliases]
    return "".join(lines) + "\n" if lines else ""


def functions(rows: Iterable[Any], composite: Any) -> str:
    """Module level: every map and reduce row, internal ones with a leading underscore."""
    rows = list(rows)
    numbers = {row.name: number for number, row in enumerate(rows)}
    parts = ["# functions.gen.pxi: the table's maps and reductions as functions. Made by tools/gen_cython.py.\n\n"]
    for row in rows:
        if row.binding == "manual" or row.kind not in ("map", "reduce"):
            continue
        parts.append(map_function(row, numbers) if row.kind == "map" else reduce_function(row, numbers))
        if row.binding == "composite":
            parts.append(composite_function(row, composite))
    return "".join(parts) + alias_lines(named(rows))


def methods(rows: Iterable[Any], composite: Any) -> str:
    """The body of `cdef class Tensor`, without indentation."""
    rows = list(rows)
    numbers = {row.name: number for number, row in enumerate(rows)}
    parts = ["# methods.gen.pxi: the table's maps and reductions as methods. Made by tools/gen_cython.py.\n\n"]
    for row in rows:
        if row.binding == "method" and row.kind == "map":
            parts.append(map_method(row, numbers))
            parts.append(inplace_method(row, numbers) if row.inplace_method else "")
        elif row.binding == "method" and row.kind == "reduce":
            parts.append(reduce_method(row, numbers))
        elif row.binding == "composite":
            parts.append(composite_methods(row, composite))
        if row.operator and row.binding != "manual":
            parts.append(operator_methods(row, numbers))
    with_method = [row for row in named(rows) if row.binding in ("method", "composite")]
    return "".join(parts) + alias_lines(with_method) + alias_lines([r for r in with_method if r.inplace_method], "_")


def named(rows: Iterable[Any]) -> list[Any]:
    """The generated rows that have a public name."""
    return [r for r in rows if r.kind in ("map", "reduce") and r.binding in ("method", "function", "composite")]


def load(name: str) -> Any:
    """A module of python/neurlang/ops, without importing neurlang (which needs the extension)."""
    if "neurlang_ops" not in sys.modules:
        package = types.ModuleType("neurlang_ops")
        package.__path__ = [str(ROOT / "ops")]
        sys.modules["neurlang_ops"] = package
    return importlib.import_module(f"neurlang_ops.{name}")


def dtype_objects(dtypes: dict[str, Any]) -> str:
    """The numbers of the dtypes, in the order of promotion, and the objects that Python sees."""
    texts = list(dtypes)
    names = ["bool_" if d.name == "bool" else d.name for d in dtypes.values()]
    numbers = "".join(f"    {text.upper()} = {i}\n" for i, text in enumerate(texts))
    objects = "".join(f'{name} = dtype({i}, dtypes.DTYPES["{texts[i]}"])\n' for i, name in enumerate(names))
    first = next(text for text, d in dtypes.items() if d.floating).upper()
    return f"""cdef enum:
{numbers}    ANY = -1  # the compute dtype T in a row's signature
    N_DTYPES = {len(texts)}

{objects}
cdef tuple DTYPES = ({', '.join(names)})


cdef inline bint is_float(int t):
    return t >= {first}
"""


# ---- the stub ----

STUB_HEAD = '''"""The extension module's types, made by tools/gen_cython.py from its sources; a test compares them."""
# ruff: noqa

from builtins import bool as _bool, float as _float, int as _int, str as _str
from typing import Any
'''
STUB_TAIL = "\ndef __getattr__(name: _str) -> Any: ...  # what csrc/bind adds\n"
C_TYPES = {"bint": "_bool", "int": "_int", "int64_t": "_int", "str": "_str", "tuple": "tuple", "list": "list"}
RESULTS = {
    "__init__": "None", "__len__": "_int", "__hash__": "_int", "__int__": "_int", "__index__": "_int",
    "__bool__": "_bool", "__float__": "_float", "__repr__": "_str", "__format__": "_str", "__contains__": "_bool",
    "__getitem__": "Tensor", "shape": "tuple[_int, ...]", "ndim": "_int", "numel": "_int",
}
OBJECTS = ("Tensor", "dtype", "Node")
HIDDEN = ("__cinit__", "__dealloc__")
DEFINED = re.compile(r"(?P<indent> *)def (?P<name>\w+)\((?P<parameters>.*)\):.*")
CLASS = re.compile(r"(?:cdef )?class (?P<name>\w+)(?:\((?P<base>\w+)\))?:")
FIELD = re.compile(r"    cdef (?:readonly|public) (?P<type>\w+) (?P<name>\w+).*")
DECORATOR = re.compile(r" *@(property|classmethod|staticmethod|\w+\.setter)")
ALIAS = re.compile(r"(?P<indent>(?:    )?)(?P<names>(?:[a-z]\w* = )+)(?P<value>\w+)")
RENAMED = re.compile(r"F\.[\w, .]+ = [\w, ]+")
DTYPE = re.compile(r"(?P<name>\w+) = dtype\(.*")


def logical_lines(text: str) -> Iterator[str]:
    """The lines of Cython text, a definition that spans several made one."""
    held = ""
    for line in text.splitlines():
        held = f"{held} {line.strip()}" if held else line
        if not held.lstrip().startswith("def ") or held.count("(") == held.count(")"):
            yield held
            held = ""


def split_parameters(text: str) -> list[str]:
    """The parts between the commas that no bracket encloses."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts if part.strip()]


def python_type(name: str) -> str:
    return name if name in OBJECTS else C_TYPES.get(name, "Any")


def annotated(parameter: str) -> str:
    """A Cython parameter as a stub writes it."""
    if parameter in ("self", "cls", "*", "/"):
        return parameter
    declaration, _, default = parameter.partition("=")
    *kind, name = declaration.split()
    return f"{name}: {python_type(kind[0]) if kind else 'Any'}{' = ...' if default else ''}"


def stub_definition(found: re.Match[str], tensors: set[str]) -> str:
    name = found["name"]
    parameters = split_parameters(found["parameters"])
    if name in ("__pow__", "__rpow__"):
        del parameters[2:]  # Cython wants the modulus of pow(x, y, modulus) as well
    arguments = ", ".join(annotated(p) for p in parameters)
    result = "Tensor" if name in tensors else RESULTS.get(name, "Any")
    override = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
    return f"{found['indent']}def {name}({arguments}) -> {result}: ...{override}"


def stub_lines(source: str, tensors: set[str]) -> Iterator[str]:
    """What of each line a stub shows. Classes are entered; bodies of functions lie deeper and match nothing."""
    depth = 0  # of the definitions that are visible here
    for line in logical_lines(source):
        if line.strip() and not line.startswith(" "):
            depth = 4 if CLASS.fullmatch(line) else 0
        shown = shown_as(line, depth, tensors)
        if shown:
            yield shown


def shown_as(line: str, depth: int, tensors: set[str]) -> str:
    indent = len(line) - len(line.lstrip())
    if found := CLASS.fullmatch(line):
        return f"\nclass {found['name']}({found['base'] or 'object'}):"
    if indent != depth:
        return ""
    if (found := DEFINED.fullmatch(line)) and found["name"] not in HIDDEN:
        return stub_definition(found, tensors)
    if found := FIELD.fullmatch(line):
        return f"    {found['name']}: {python_type(found['type'])}"
    if DECORATOR.fullmatch(line):
        return line
    if found := DTYPE.fullmatch(line):
        return f"{found['name']}: dtype"
    if RENAMED.fullmatch(line):
        names, values = (part.replace("F.", "").split(", ") for part in line.split(" = "))
        return "\n".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
    if found := ALIAS.fullmatch(line):
        names = found["names"].split(" = ")[:-1]
        return "\n".join(f"{found['indent']}{name} = {found['value']}" for name in names)
    return ""


def stub(rows: Iterable[Any], source: str) -> str:
    """The stub of the extension whose Cython text, includes and all, is `source`."""
    tensors = {r.function for r in named(rows)}
    tensors |= {f"{r.name}_" for r in named(rows)} | {f"__{r.operator}__" for r in named(rows) if r.operator}
    tensors |= {f"__{prefix}{slot}__" for slot in ARITHMETIC for prefix in ("r", "i")}
    body = "\n".join(stub_lines(source, tensors)) + "\n"
    return STUB_HEAD + re.sub(r"^(class .*:)\n(?! )", r"\1 ...\n", body, flags=re.MULTILINE) + STUB_TAIL


def extension_source(rows: Iterable[Any]) -> str:
    """The assembled text of _tensor.pyx."""
    assemble = importlib.import_module("assemble").assemble
    with tempfile.TemporaryDirectory() as folder:
        write(rows, folder)
        return assemble(ROOT / "_tensor.pyx", [ROOT, Path(folder)])


def write(rows: Iterable[Any], outdir: Path | str) -> None:
    """Writes `dtypes.gen.pxi`, `functions.gen.pxi` and `methods.gen.pxi`."""
    rows = list(rows)
    composite = load("composite")
    (Path(outdir) / "dtypes.gen.pxi").write_text(dtype_objects(load("dtypes").DTYPES))
    (Path(outdir) / "functions.gen.pxi").write_text(functions(rows, composite))
    (Path(outdir) / "methods.gen.pxi").write_text(methods(rows, composite))


if __name__ == "__main__":
    table = load("table").TABLE
    (ROOT / "_tensor.pyi").write_text(stub(table, extension_source(table)))
