"""Holds the floors of ARCHITECTURE.md: every import, cimport and include leads downward, lazy ones too."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The first pattern that a path (from the root) matches decides its floor.
FLOORS: tuple[tuple[str, float], ...] = (
    (r"python/neurlang/__init__\.py", 9.5),  # puts the public names together
    (r"examples/.*|benchmarks/.*", 9.9),  # use the package from outside
    (r"python/neurlang/(nn|optim)/.*", 8),
    (r"python/neurlang/((autograd|tracing)/.*|(blas|functional|precision|random|serialize)\.py)", 7),
    (r"python/neurlang/(_tensor\.pyx|hot/.*)", 6),
    (r"python/neurlang/(compile|view)\.py", 5),
    (r"python/neurlang/(passes|backends)/.*", 4),
    (r"python/neurlang/ir/.*", 3),
    (r"python/neurlang/ops/.*", 2),
    (r"python/neurlang/(config|errors|lines|switch)\.py", 1),
    (r"csrc/(bind|player)/.*", 0.4),
    (r"csrc/eager/.*", 0.3),
    (r"csrc/kernels/.*", 0.2),
    (r"csrc/runtime/.*", 0.1),
    (r"csrc/(base|simd)/.*", 0.0),
)

# Files of these folders form one unit and may know each other; elsewhere files on one floor do not, but for MATES.
UNITS = r"python/neurlang/(ops|ir|nn|optim|hot|autograd|tracing|backends/\w+)|csrc/\w+|benchmarks"
MATES = (
    (r"python/neurlang/passes/__init__\.py", r"python/neurlang/passes/.*"),  # PIPELINE names them all
    (r"python/neurlang/passes/fuse\.py", r"python/neurlang/passes/prologue\.py"),  # a part of the pass
    (r"python/neurlang/backends/.*", r"python/neurlang/backends/(__init__\.py|cstyle/.*)"),  # it renders C
    (r"python/neurlang/_tensor\.pyx", r"python/neurlang/hot/.*"),  # one module in several files
    (r"csrc/simd/.*", r"csrc/base/.*"),
    (r"python/neurlang/functional\.py", r"python/neurlang/(autograd/.*|random\.py)"),
)

Edge = tuple[str, str]


def floor(path: str) -> float:
    for pattern, number in FLOORS:
        if re.fullmatch(pattern, path):
            return number
    raise AssertionError(f"{path} stands on no floor: give it one in ARCHITECTURE.md and here")


def violation(source: str, target: str) -> bool:
    """Whether `source` may not know `target`."""
    if source == target or floor(target) < floor(source):
        return False
    if floor(target) > floor(source):
        return True
    source_folder, target_folder = Path(source).parent.as_posix(), Path(target).parent.as_posix()
    if source_folder == target_folder and re.fullmatch(UNITS, source_folder):
        return False
    return not any(re.fullmatch(a, source) and re.fullmatch(b, target) for a, b in MATES)


# --- what a file imports ---


def module_path(root: Path, name: str) -> str | None:
    """The file of a module of ours by its dotted name."""
    base = root / "python" / Path(*name.split("."))
    for candidate in (base.with_suffix(".py"), base.with_suffix(".pyx"), base / "__init__.py"):
        if candidate.is_file():
            return candidate.relative_to(root).as_posix()
    return None


def package_of(path: Path, root: Path) -> list[str]:
    return list(path.relative_to(root / "python").parent.parts) if (root / "python") in path.parents else []


def from_import(path: Path, root: Path, level: int, module: str, names: Iterable[str]) -> Iterator[str]:
    """The modules that `from <module> import <names>` at `path` reaches."""
    package = package_of(path, root)
    prefix = package[: len(package) - level + 1] if level else []
    base = ".".join([*prefix, *([module] if module else [])])
    for name in names:
        yield f"{base}.{name}" if module_path(root, f"{base}.{name}") else base


def python_imports(path: Path, root: Path) -> Iterator[str]:
    """Dotted names of all modules that a Python file imports, in functions too, `import_module("…")` included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from from_import(path, root, node.level, node.module or "", [alias.name for alias in node.names])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def cython_imports(path: Path, root: Path) -> Iterator[str]:
    text = re.sub(r"#.*", "", path.read_text())
    for level, module, names in re.findall(r"^\s*from\s+(\.*)([\w.]*)\s+c?import\s+\(?([\w ,\n]+)", text, re.M):
        yield from from_import(path, root, len(level), module, re.findall(r"\w+", names.split("\n")[0]))
    for names in re.findall(r"^\s*c?import\s+([\w., ]+)", text, re.M):
        yield from (name.split(" as ")[0].strip() for name in names.split(","))


def includes(path: Path) -> list[str]:
    text = path.read_text()
    if path.suffix in (".pyx", ".pxi", ".pxd"):
        return re.findall(r"""(?:cdef extern from|include)\s+["']([^"'<]+)["']""", text)
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M)


def include_path(path: Path, root: Path, name: str) -> str | None:
    """The file of ours that an include names; generated ones have no file in the tree."""
    for folder in (path.parent, root / "csrc", *(root / "csrc").glob("*")):
        if (folder / name).is_file():
            return (folder / name).resolve().relative_to(root.resolve()).as_posix()
    return None


def edges(root: Path) -> Iterator[Edge]:
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        modules: Iterable[str] = ()
        if path.suffix == ".py":
            modules = python_imports(path, root)
        elif path.suffix in (".pyx", ".pxi", ".pxd"):
            modules = cython_imports(path, root)
        for module in modules:
            if module.split(".")[0] == "neurlang" and (target := module_path(root, module)):
                yield name, target
        if path.suffix != ".py":
            yield from ((name, target) for include in includes(path) if (target := include_path(path, root, include)))


def sources(root: Path) -> Iterator[Path]:
    for top, suffixes in (("python/neurlang", ".py .pyx .pxi .pxd"), ("csrc", ".h .hpp .cpp"), ("examples", ".py")):
        yield from sorted(p for p in (root / top).rglob("*") if p.suffix in suffixes.split())
    yield from sorted((root / "benchmarks").glob("*.py"))


# --- the tests ---


def test_every_edge_leads_downward() -> None:
    found = list(edges(ROOT))
    assert len(found) > 50, "the scan found next to nothing: it is broken"
    wrong = [f"{a} (F{floor(a)}) -> {b} (F{floor(b)})" for a, b in found if violation(a, b)]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_every_file_has_a_floor() -> None:
    for path in sources(ROOT):
        floor(path.relative_to(ROOT).as_posix())


def test_only_compile_knows_passes_and_backends() -> None:
    both: dict[str, set[str]] = {}
    for a, b in edges(ROOT):
        if match := re.match(r"python/neurlang/(passes|backends)/", b):
            both.setdefault(a, set()).add(match[1])
    assert [a for a, known in both.items() if len(known) == 2] == ["python/neurlang/compile.py"]


def test_ops_need_only_the_standard_library() -> None:
    # The build runs them in an isolated interpreter, before numpy or the package exist.
    for path in [*(ROOT / "python/neurlang/ops").glob("*.py"), ROOT / "python/neurlang/errors.py"]:
        for module in python_imports(path, ROOT):
            if not re.match(r"neurlang\.(ops|errors)\b", module):
                assert module.split(".")[0] in sys.stdlib_module_names, f"{path.name} imports {module}"


def test_passes_do_no_input_or_output() -> None:
    forbidden = {"os", "io", "sys", "pathlib", "subprocess", "ctypes", "socket", "shutil", "tempfile"}
    for path in sorted((ROOT / "python/neurlang/passes").glob("*.py")):
        used = {module.split(".")[0] for module in python_imports(path, ROOT)}
        assert not used & forbidden, f"{path.name} imports {used & forbidden}"
        assert not re.search(r"\b(open|print|input)\(", path.read_text()), f"{path.name} does I/O"


def test_the_hot_door_calls_upward_through_three_hooks_only() -> None:
    text = "".join(p.read_text() for p in sources(ROOT) if p.suffix in (".pyx", ".pxi"))
    (signature,) = re.findall(r"def set_hooks\(([^)]*)\)", text, re.S)
    names = {re.split(r"[=:]", part)[0].split()[-1] for part in signature.split(",") if part.strip(" *\n")}
    assert names == {"flush", "backward", "compile"}


@pytest.mark.parametrize(
    ("path", "text", "wrong"),
    [
        ("python/neurlang/ir/graph.py", "from ..passes import fold\n", True),
        ("python/neurlang/ir/graph.py", "def f():\n    from ..compile import g\n", True),
        ("python/neurlang/ir/graph.py", "import importlib\nimportlib.import_module('neurlang.compile')\n", True),
        ("python/neurlang/ir/graph.py", "from . import verify\n", False),
        ("python/neurlang/passes/fold.py", "from .cse import x\n", True),
        ("python/neurlang/passes/fold.py", "from ..backends.cpu import render\n", True),
        ("python/neurlang/compile.py", "from .passes import fold\nfrom .backends.cpu import render\n", False),
        ("python/neurlang/_tensor.pyx", "from .tracing.trace import f\n", True),
        ("python/neurlang/_tensor.pyx", "cdef extern from 'base/a.hpp':\n    pass\n", False),
        ("csrc/base/a.hpp", '#include "runtime/b.hpp"\n', True),
        ("csrc/runtime/b.hpp", '#include "../base/a.hpp"\n', False),
        ("csrc/runtime/b.hpp", '  #include "kernels/c.hpp"\n', True),
    ],
)
def test_the_scan_sees_what_it_should(tmp_path: Path, path: str, text: str, wrong: bool) -> None:
    names = (
        "__init__ compile ir/graph ir/verify passes/fold passes/cse passes/__init__ backends/cpu/render tracing/trace"
    )
    for name in names.split():
        file = tmp_path / "python/neurlang" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    for name in ("base/a", "runtime/b", "kernels/c"):
        file = tmp_path / "csrc" / f"{name}.hpp"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / path).write_text(text)
    found = list(edges(tmp_path))
    assert found
    assert any(violation(a, b) for a, b in found) == wrong
