"""What the documents show works as pasted; every public name has a text and an example, and every example runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import neurlang

ROOT = Path(__file__).resolve().parent.parent


def blocks(name: str) -> list[str]:
    """The Python blocks of a document."""
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.S)


@pytest.mark.parametrize("number", range(len(blocks("README.md"))))
def test_readme_example(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", blocks("README.md")[number]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_readme_first_screen() -> None:
    screen = (ROOT / "README.md").read_text().splitlines()[:30]
    text = "\n".join(screen)
    assert "make demo" in text
    assert "make test" in text
    assert "import neurlang" in text
    assert len(blocks("README.md")[0].splitlines()) == 5


def test_documents_name_files_that_exist() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        text = (ROOT / name).read_text()
        for path in re.findall(r"`((?:python|csrc|tests|tools|benchmarks|examples)/[\w/.]+\.\w+)`", text):
            if "name" not in path:
                assert (ROOT / path).exists(), f"{name} names {path}"
        for target in re.findall(r"\]\(([\w./]+)\)", text):
            assert (ROOT / target).exists(), f"{name} links to {target}"


ROW_PROGRAM = """
import numpy as np
from bounds import assert_close
import neurlang as nl
from neurlang.ops import table
row = eval({source!r}, vars(table))
nl.register(row)
x = nl.linspace(-3.0, 3.0, 41).requires_grad_()
y = nl.softsign(x)
y.sum().backward()
numbers = x.detach().numpy().astype(np.float64)
assert_close(y.detach().numpy(), row.numpy(np, numbers), "elementwise")
assert_close(x.grad.numpy(), 1 / (1 + np.abs(numbers)) ** 2, "elementwise")
step = nl.trace(lambda x: nl.softsign(x) * 2.0)
assert (step(x).detach().numpy() == (y * 2.0).detach().numpy()).all()
assert step.counts.compiled == 1
"""


def test_contributing_row_registered_at_run_time() -> None:
    (source,) = (block for block in blocks("CONTRIBUTING.md") if "softsign" in block)
    command = [sys.executable, "-c", ROW_PROGRAM.format(source=source.strip().rstrip(","))]
    result = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


# ---- docstrings ----

NAMESPACES = (
    "neurlang", "neurlang.nn", "neurlang.nn.functional", "neurlang.nn.init", "neurlang.nn.utils", "neurlang.optim",
    "neurlang.optim.lr_scheduler", "neurlang.autograd", "neurlang.random",
)  # fmt: skip
PARSER = doctest.DocTestParser()
NAME = re.compile(r"\w+")


def text_of(value: object) -> str:
    """The docstring, without the signature that stands before it where the compiler put one."""
    return re.sub(r"\A[\w.]+\(.*\)( -> .*)?(\n+|\Z)", "", inspect.getdoc(value) or "")


def has_example(value: object) -> bool:
    return ">>>" in text_of(value)


def public_of(namespace: str) -> dict[str, Any]:
    """The functions and classes of ours that a namespace offers; what it only imports for itself is not offered."""
    module = importlib.import_module(namespace)
    offered = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and (namespace == "neurlang" or getattr(value, "__module__", "") == namespace)
    ]  # fmt: skip
    named = {name: getattr(module, name) for name in offered}
    ours = {name: v for name, v in named.items() if str(getattr(v, "__module__", None)).startswith("neurlang")}
    return {name: v for name, v in ours.items() if inspect.isroutine(v) or inspect.isclass(v)}


def members_of(cls: type) -> dict[str, Any]:
    """The public methods and properties that a class defines, or takes from a base that is not public."""
    private = [base for base in cls.__mro__ if base is cls or base.__name__.startswith("_")]
    found = {name: v for base in reversed(private) for name, v in vars(base).items() if not name.startswith("_")}
    members = {name: getattr(cls, name) for name in found}
    return {name: v for name, v in members.items() if inspect.isroutine(v) or inspect.isdatadescriptor(v)}


def public_names() -> dict[str, Any]:
    """Everything that must have a text, by its full name; the same object only under its first name."""
    names: dict[str, Any] = {}
    for namespace in NAMESPACES:
        for name, value in public_of(namespace).items():
            if not any(value is known for known in names.values()):
                names[f"{namespace}.{name}"] = value
    classes = {name: value for name, value in names.items() if inspect.isclass(value)}
    for name, cls in classes.items():
        names |= {f"{name}.{member}": value for member, value in members_of(cls).items()}
    return names


PUBLIC = public_names()


def shown_elsewhere(name: str) -> bool:
    """Whether a method's example is one that stands elsewhere.

    A method of Tensor has the meaning of the function of its name, and `x.add_` that of `x.add`. Other methods may be
    used in the example of their class, or override one of which either holds.
    """
    owner, member = name.rsplit(".", 1)
    if owner not in PUBLIC:
        return False
    cls = PUBLIC[owner]
    alike = member.rstrip("_")
    renamed = getattr(PUBLIC[name], "__name__", member)  # what an alias such as `swapaxes` names
    functions = [getattr(neurlang, n, None) for n in (member, alike, renamed)] + [getattr(cls, alike, None)]
    if cls is neurlang.Tensor and any(has_example(f) for f in functions):
        return True
    used = {word for base in cls.__mro__ for e in PARSER.get_examples(text_of(base)) for word in NAME.findall(e.source)}
    return member in used or any(has_example(getattr(base, member, None)) for base in cls.__mro__[1:])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name: str) -> None:
    field_of = text_of(PUBLIC.get(name.rsplit(".", 1)[0]))  # a class describes its fields
    assert text_of(PUBLIC[name]) or f"`{name.rsplit('.', 1)[1]}`" in field_of, f"{name} has no docstring"
    assert has_example(PUBLIC[name]) or shown_elsewhere(name), f"{name} has no example"


@pytest.fixture
def rows_kept() -> Iterator[None]:
    """An example may register a row; other tests count them."""
    rows = dict(neurlang.ROWS)
    yield
    neurlang.ROWS.clear()
    neurlang.ROWS.update(rows)


@pytest.mark.usefixtures("rows_kept")
@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if has_example(value)])
def test_example_runs(name: str) -> None:
    test = PARSER.get_doctest(text_of(PUBLIC[name]), {"neurlang": neurlang}, name, None, None)
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert results.attempted
    assert not results.failed, "".join(report)
