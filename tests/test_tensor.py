"""Tensors as PyTorch's and NumPy's users expect them: axes of 0-d tensors, arguments, protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import neurlang as nl

Use = Callable[[nl.Tensor], Any]

# ---- 0-d tensors: an axis argument of 0 or -1 means the one element, but there is no extent and nothing to cut ----

ZERO = nl.tensor(0)
WITH_AXIS: dict[str, Use] = {
    "sum": lambda x: x.sum(-1),
    "max": lambda x: x.max(0).values,
    "argmin": lambda x: x.argmin(0),
    "softmax": lambda x: x.softmax(0),
    "transpose": lambda x: x.transpose(0, -1),
    "gather": lambda x: x.gather(0, ZERO),
    "gather by a vector": lambda x: x.gather(0, nl.tensor([0, 0])),
    "index_select": lambda x: x.index_select(0, nl.tensor([0])),
    "index_add": lambda x: x.index_add(0, ZERO, nl.tensor(2.5)),
    "scatter_add": lambda x: x.scatter_add(0, nl.tensor([0, 0]), nl.tensor([0.5, 2.0])),
}
WITHOUT_AXIS: dict[str, Use] = {
    "size": lambda x: x.size(0),
    "stride": lambda x: x.stride(0),
    "split": lambda x: x.split(1),
    "chunk": lambda x: x.chunk(1),
    "unbind": lambda x: x.unbind(),
    "narrow": lambda x: x.narrow(0, 0, 1),
    "select": lambda x: x.select(0, 0),
    "unflatten": lambda x: x.unflatten(0, (1, 1)),
    "cat": lambda x: nl.cat([x]),
}


@pytest.mark.parametrize("name", WITH_AXIS)
def test_a_0d_tensor_is_its_one_element(name: str) -> None:
    results = []
    for shape in ((), (1,)):
        x = nl.full(shape, 3.5, requires_grad=True)
        y = WITH_AXIS[name](x)
        if y.requires_grad:
            (y * y).sum().backward()
        results.append((y.flatten().tolist(), None if x.grad is None else x.grad.item()))
    assert results[0] == results[1]
    assert WITH_AXIS[name](nl.tensor(3.5)).shape == ((2,) if name == "gather by a vector" else ())


@pytest.mark.parametrize("name", WITHOUT_AXIS)
def test_a_0d_tensor_has_no_axis(name: str) -> None:
    with pytest.raises(nl.ShapeError, match=name):
        WITHOUT_AXIS[name](nl.tensor(3.5))
