"""The examples do what they say: the demo learns to the promised accuracy, MNIST gives the known answer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bounds import LOGIT_ULPS

import neurlang as nl

ROOT = Path(__file__).resolve().parent.parent


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_demo(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: the demo was not run")
    page = tmp_path / "demo.html"
    command = [sys.executable, str(ROOT / "examples" / "digits.py"), "--page", str(page)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr + result.stdout
    assert result.stdout.count("equal bit for bit") == 2
    text = page.read_text()
    assert text.count("<polyline") == 4
    assert "Arena" in text
    assert "kernels" in text


def test_mnist_answer_is_the_known_one(shared_data: Path) -> None:
    mnist = example("mnist")
    before = nl.get_num_threads()
    try:
        for threads in (1, 2):
            nl.set_num_threads(threads)
            assert mnist.classify(shared_data) == 9831
    finally:
        nl.set_num_threads(before)


def test_mnist_logits_against_float64_and_across_batches(shared_data: Path) -> None:
    mnist = example("mnist")
    model, x, _ = mnist.load(shared_data)
    state = {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}
    hidden = np.maximum(x.numpy() @ state["fc1.weight"].T + state["fc1.bias"], 0)
    exact = hidden @ state["fc2.weight"].T + state["fc2.bias"]
    with nl.no_grad():
        whole = model(x).numpy()
        sevens = np.concatenate([model(x[n : n + 7]).numpy() for n in range(0, len(x), 7)])
        ones = np.concatenate([model(x[n : n + 1]).numpy() for n in range(len(x))])
    assert whole.tobytes() == sevens.tobytes()
    ulp_of_largest = np.spacing(np.abs(exact).max(1, keepdims=True).astype(np.float32))
    for got in (whole, ones):
        assert (np.abs(got - exact) <= LOGIT_ULPS[nl._tensor.isa() != "baseline"] * ulp_of_largest).all()
