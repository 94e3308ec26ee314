"""Latency of eager operations on a few elements, where only the way to the kernel counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import neurlang as nl

from . import peers
from .timing import Case

REPEAT = 200  # operations in a timed call, so that calling it counts for nothing

# Name, expression in the idiom that NumPy, torch and we share, shapes of its operands.
OPERATIONS = (
    ("add of 4 floats", "a + b", ((4,), (4,))),
    ("add of 64 floats", "a + b", ((64,), (64,))),
    ("add of 1,024 floats", "a + b", ((1024,), (1024,))),
    ("add of a number to 4 floats", "a + 1.5", ((4,),)),
    ("add of 4 floats to a 4 x 4 matrix", "a + b", ((4, 4), (4,))),
    ("matmul 8 x 8", "a @ b", ((8, 8), (8, 8))),
    ("sum of 16 floats", "a.sum()", ((16,),)),
    ("sum of the rows of a 4 x 4 matrix", "a.sum(1)", ((4, 4),)),
    ("slice x[1:3]", "a[1:3]", ((8, 8),)),
    ("row x[2]", "a[2]", ((8, 8),)),
    ("column x[:, 3]", "a[:, 3]", ((8, 8),)),
    ("element x[2, 3]", "a[2, 3]", ((8, 8),)),
    ("mask x[x > 0]", "a[a > 0]", ((16,),)),
    ("reshape", "a.reshape(4, 16)", ((8, 8),)),
    ("transpose", "a.T", ((8, 8),)),
    ("write x[1:3] = 0", "a.__setitem__(rows, 0.0)", ((8, 8),)),
    ("in place x += y", "a.__iadd__(b)", ((4,), (4,))),
)


def cases() -> Iterator[Case]:
    for name, expression, shapes in OPERATIONS:
        yield operation(name, expression, shapes)
    yield gradient()
    yield mlp_forward()


def operation(name: str, expression: str, shapes: tuple[tuple[int, ...], ...]) -> Case:
    """An expression in the idiom that all eager libraries share."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    calls = {"neurlang": repeated(expression, *[nl.tensor(a) for a in arrays])}
    calls["NumPy"] = repeated(expression, *[a.copy() for a in arrays])
    if peers.torch is not None:
        calls["torch"] = repeated(expression, *[peers.torch.tensor(a) for a in arrays])
    if peers.jax is not None and "set" not in expression and "iadd" not in expression:
        calls["JAX"] = repeated(expression, *[peers.jax.numpy.asarray(a) for a in arrays])
    return Case(name, calls, per=REPEAT, rtol=1e-3)


def repeated(expression: str, *operands: Any) -> peers.Call:
    """A function that evaluates the expression over a, b, … REPEAT times, with nothing but a loop around it."""
    names = dict(zip("ab", operands, strict=False)) | {"repeat": range(REPEAT), "rows": slice(1, 3)}
    source = f"def call(*, {', '.join(f'{n}={n}' for n in names)}):\n for _ in repeat: r = {expression}\n return r"
    exec(source, names)
    return names["call"]


def gradient() -> Case:
    """Forward and backward of three operations on 16 floats."""
    x = np.random.default_rng(0).standard_normal(16).astype(np.float32)

    def form(lib: Any) -> peers.Call:
        a = lib.tensor(x, requires_grad=True)

        def call() -> Any:
            a.grad = None
            (a * a + a).sum().backward()
            return a.grad

        return call

    calls = {"neurlang": form(nl)}
    if peers.torch is not None:
        calls["torch"] = form(peers.torch)
    return Case("forward and backward of 3 operations", calls)


def mlp_forward() -> Case:
    """One row through an MLP 784-128-10, recording what a backward pass would need, as eager code does."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype(np.float32) / 28 for shape in ((128, 784), (128,), (10, 128), (10,))]
    x = rng.standard_normal((1, 784)).astype(np.float32)

    def form(lib: Any) -> peers.Call:
        nn = lib.nn
        model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
        names = list(model.state_dict())
        model.load_state_dict({name: lib.tensor(w) for name, w in zip(names, weights, strict=True)})
        row = lib.tensor(x)
        return lambda: model(row)

    calls = {"neurlang": form(nl)}
    if peers.torch is not None:
        calls["torch"] = form(peers.torch)
    return Case("MLP 784-128-10 forward, batch 1", calls)
