"""Elements and slices that indices name: gathered, added, written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = ((1024, 1024), (64, 512), (2000, 30), (30, 2000), (4, 100_000))

# By name: what PyTorch and we compute of x, one index for every element and one for every place along the axis; what
# NumPy does.
Form = Callable[[Any, Any, Any, Any, int], Any]
OPS: dict[str, tuple[Form, Form]] = {
    "gather": (
        lambda lib, x, each, line, d: lib.gather(x, d, each),
        lambda np, x, each, line, d: np.take_along_axis(x, each, d),
    ),
    "index_select": (
        lambda lib, x, each, line, d: lib.index_select(x, d, line),
        lambda np, x, each, line, d: np.take(x, line, d),
    ),
    "scatter_add": (
        lambda lib, x, each, line, d: lib.scatter_add(x, d, each, x),
        lambda np, x, each, line, d: added(x, each, d),
    ),
    "index_add": (
        lambda lib, x, each, line, d: lib.index_add(x, d, line, x),
        lambda np, x, each, line, d: added(x, line, d),
    ),
}


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        for dim in (0, 1):
            each, line = (rng.integers(0, shape[dim], s) for s in (shape, shape[dim]))
            for name, (form, of_numpy) in OPS.items():
                yield case(f"{name} of {' x '.join(map(str, shape))} along {dim}", [x, each, line], dim, form, of_numpy)


def case(name: str, arrays: list[np.ndarray], dim: int, form: Form, of_numpy: Form) -> Case:
    calls = peers.contenders(lambda lib, *a: form(lib, *a, dim), *arrays, numpy=lambda *a: of_numpy(np, *a, dim))
    return Case(name, calls, work=float(arrays[0].size), rate_unit="G/s", rounds=5)


def added(x: np.ndarray, index: np.ndarray, dim: int) -> np.ndarray:
    """x plus its elements, or slices, at the places that an index names."""
    places = list(np.indices(x.shape, sparse=True))
    places[dim] = index if index.ndim > 1 else index.reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    out = x.copy()
    np.add.at(out, tuple(places), x)
    return out
