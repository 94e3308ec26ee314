"""Which peers are installed, each set up for its best: threads, compiled functions, donated buffers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import neurlang as nl

torch: Any = None  # the module, or None where it is not installed or not wanted
jax: Any = None
with_torch_compile = False

Call = Callable[[], Any]


def setup(threads: int, without: Iterable[str]) -> None:
    """Imports the installed peers that are wanted and gives each the same number of threads."""
    global torch, jax, with_torch_compile
    left_out = set(without)
    nl.set_num_threads(threads)
    torch = None if "torch" in left_out else find("torch")
    jax = None if "jax" in left_out else find("jax")
    if torch is not None:
        torch.set_num_threads(threads)
        with_torch_compile = "torch.compile" not in left_out
        logging.getLogger("torch._inductor").setLevel(logging.ERROR)


def find(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def contenders(
    form: Callable[..., Any],
    *arrays: np.ndarray,
    numpy: Callable[..., Any] | None = None,
    jax_form: Callable[..., Any] | None = None,
) -> dict[str, Call]:
    """One function for everyone. `form(lib, *tensors)` is in PyTorch's idiom and serves us and torch alike."""
    calls = ours(form, *arrays)
    if numpy is not None:
        calls["NumPy"] = lambda: numpy(*arrays)
    if torch is not None:
        calls |= torch_calls(form, *arrays)
    if jax is not None and jax_form is not None:
        calls["JAX"] = jax_call(jax_form, *arrays)
    return calls


def ours(form: Callable[..., Any], *arrays: np.ndarray) -> dict[str, Call]:
    tensors = [nl.tensor(a) for a in arrays]
    traced = nl.trace(lambda *t: form(nl, *t))
    return {"neurlang": lambda: form(nl, *tensors), "neurlang traced": lambda: traced(*tensors)}


def torch_calls(form: Callable[..., Any], *arrays: np.ndarray) -> dict[str, Call]:
    tensors = [torch.tensor(a) for a in arrays]
    calls = {"torch": without_gradients(lambda: form(torch, *tensors))}
    if with_torch_compile:
        compiled = torch.compile(lambda *t: form(torch, *t))
        calls["torch.compile"] = without_gradients(lambda: compiled(*tensors))
    return calls


def without_gradients(call: Call) -> Call:
    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run


def jax_call(form: Callable[..., Any], *arrays: np.ndarray) -> Call:
    compiled = jax.jit(form)
    tensors = [jax.numpy.asarray(a) for a in arrays]
    return lambda: compiled(*tensors).block_until_ready()
