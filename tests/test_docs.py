"""What the documents show works as pasted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
import neurlang as nl
from neurlang.ops import table
row = eval({source!r}, vars(table))
nl.register(row)
x = nl.linspace(-3.0, 3.0, 41).requires_grad_()
y = nl.softsign(x)
y.sum().backward()
want = row.numpy(np, x.detach().numpy().astype(np.float64))
assert np.abs(y.detach().numpy() - want).max() < 1e-6
assert np.abs(x.grad.numpy() - 1 / (1 + np.abs(x.detach().numpy())) ** 2).max() < 1e-6
step = nl.trace(lambda x: nl.softsign(x) * 2.0)
assert (step(x).detach().numpy() == (y * 2.0).detach().numpy()).all()
assert step.counts.compiled == 1
"""


def test_contributing_row_registered_at_run_time() -> None:
    (source,) = (block for block in blocks("CONTRIBUTING.md") if "softsign" in block)
    command = [sys.executable, "-c", ROW_PROGRAM.format(source=source.strip().rstrip(","))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
