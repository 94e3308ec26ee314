"""The oracle: runs a graph op by op with NumPy, from the definitions alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ops import to_numpy
from ..ops.row import Row
from ..ops.table import ROWS
from . import definitions
from .definitions import Fma
from .graph import Access, Const, Graph, Node, Operand
from .types import DTYPES, array_of, narrowed, row_exprs, widened


def interpret(
    graph: Graph, leaves: dict[int, Any], offsets: Sequence[int], scalars: Sequence[int], fma: Fma
) -> dict[int, Any]:
    """Runs the graph; `leaves` are byte arrays per storage, changed in place. Returns the bytes of every storage.

    `scalars` are 8-byte cells holding each value's bits. Memory that nothing has written reads as zeros.
    """
    memory = {i: leaves[i] if x.kind == "leaf" else np.zeros(x.nbytes, np.uint8) for i, x in enumerate(graph.storages)}
    machine = _Machine(memory, offsets, scalars, fma)
    for node in graph.nodes:
        machine.run(node)
    return memory


class _Machine:
    def __init__(self, memory: dict[int, Any], offsets: Sequence[int], scalars: Sequence[int], fma: Fma) -> None:
        self.memory, self.offsets, self.fma = memory, offsets, fma
        self.cells = np.array(scalars, np.uint64).view(np.uint8).reshape(-1, 8)

    def run(self, node: Node) -> None:
        outs = [self.view(x) for x in node.outs]
        if node.kind == "source":
            return  # uninitialised memory
        results = apply(node.op, [self.value(x) for x in node.ins], node.attrs, self.fma, node.outs[0].shape)
        for out, result in zip(outs, results, strict=True):
            if out.size:
                out[...] = result

    def value(self, x: Operand) -> Any:
        if isinstance(x, Access):
            return self.view(x).copy()  # operands are read before results are written
        if isinstance(x, Const):
            return array_of(x.bits, x.dtype)
        return self.cells[x.index, : DTYPES[x.dtype].itemsize].copy().view(DTYPES[x.dtype].numpy)[0]

    def view(self, x: Access) -> Any:
        flat = self.memory[x.storage].view(DTYPES[x.dtype].numpy)
        if x.numel == 0:
            return np.zeros(x.shape, flat.dtype)
        start = self.offsets[x.offset] if x.offset >= 0 else 0
        strides = [n * flat.itemsize for n in x.strides]
        return np.lib.stride_tricks.as_strided(flat[start:], x.shape, strides)


# ---- the meaning of one op --------------------------------------------------------------------------------------


def apply(op: str, ins: Sequence[Any], attrs: Sequence[int], fma: Fma, shape: tuple[int, ...]) -> Sequence[Any]:
    """The results of one op on arrays; `shape` is that of a map's results."""
    row = ROWS[op]
    if row.kind == "map":
        return _map(row, ins, fma, shape)
    narrow = next((_NAMES[x.dtype.name] for x in ins if DTYPES[_NAMES[x.dtype.name]].wide), "")
    if narrow and not row.direct:
        return _in_wide(row, narrow, ins, attrs, fma, shape)
    if row.kind == "reduce":
        return [definitions.reduce(row.monoid, ins[0], attrs[0])]
    if row.kind == "composite":
        assert row.define is not None
        results = row.define(_Namespace(fma), *(_Tensor(fma, x) for x in ins), *attrs)
        return [x.array for x in (results if isinstance(results, tuple) else (results,))]
    if op in definitions.CONTRACTIONS:
        return [definitions.CONTRACTIONS[op](*ins, attrs, fma)]
    assert row.numpy is not None, f"{op} has no reference"
    made = row.numpy(_Functions(fma), *ins, *attrs)
    return made if isinstance(made, tuple) else [made]


def _in_wide(
    row: Row, narrow: str, ins: Sequence[Any], attrs: Sequence[int], fma: Fma, shape: tuple[int, ...]
) -> Sequence[Any]:
    """A row on a narrow dtype: computed in the wide one, the results rounded once."""
    results = apply(row.name, [widened(x, _NAMES[x.dtype.name]) for x in ins], attrs, fma, shape)
    return [narrowed(x, narrow) if t == "T" else x for x, t in zip(results, row.out_types, strict=True)]


def _map(row: Row, ins: Sequence[Any], fma: Fma, shape: tuple[int, ...]) -> Sequence[Any]:
    exprs = row_exprs(row.name, tuple(_NAMES[x.dtype.name] for x in ins))
    arrays = [np.broadcast_to(x, shape).copy() for x in ins]
    return to_numpy.evaluate(exprs, arrays, np, fma, shape)


_NAMES = {info.numpy: name for name, info in DTYPES.items()}


class _Functions:
    """NumPy for references, but with the elementary functions that are defined by an expression."""

    def __init__(self, fma: Fma) -> None:
        self.fma = fma

    def __getattr__(self, name: str) -> Any:
        row = ROWS.get(name)
        if row is None or row.kind != "map" or row.ulp <= 0.5:  # NumPy rounds correctly
            return getattr(np, name)
        return lambda x: apply(name, [x], (), self.fma, x.shape)[0]


class _Tensor:
    """An array with the operators that composite definitions use."""

    def __init__(self, fma: Fma, array: Any) -> None:
        self.fma, self.array = fma, array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __add__(self, other: Any) -> _Tensor:
        return _Namespace(self.fma).add(self, other)

    def __sub__(self, other: Any) -> _Tensor:
        return _Namespace(self.fma).sub(self, other)

    def __mul__(self, other: Any) -> _Tensor:
        return _Namespace(self.fma).mul(self, other)

    def __truediv__(self, other: Any) -> _Tensor:
        return _Namespace(self.fma).div(self, other)

    def __neg__(self) -> _Tensor:
        return _Namespace(self.fma).neg(self)


class _Namespace:
    """The `F` of composite definitions, over arrays."""

    def __init__(self, fma: Fma) -> None:
        self.fma = fma

    def __getattr__(self, op: str) -> Callable[..., _Tensor]:
        row = ROWS[op.removeprefix("_")]
        if row.kind == "reduce":
            return lambda x, axis, keepdim: _Tensor(self.fma, apply(op, [x.array], [axis], self.fma, ())[0])
        if row.kind == "index":
            return lambda *args: self._indexed(row, args)
        return lambda *args: self._map(op, args)

    def _indexed(self, row: Row, args: tuple[Any, ...]) -> _Tensor:
        arrays, attrs = [x.array for x in args if isinstance(x, _Tensor)], [x for x in args if isinstance(x, int)]
        return _Tensor(self.fma, apply(row.name, arrays, attrs, self.fma, ())[0])

    def _map(self, op: str, args: tuple[Any, ...]) -> _Tensor:
        dtype = next(a.array.dtype for a in args if isinstance(a, _Tensor))
        arrays = [a.array if isinstance(a, _Tensor) else np.array(a, dtype) for a in args]
        return _Tensor(self.fma, apply(op, arrays, (), self.fma, np.broadcast_shapes(*(a.shape for a in arrays)))[0])
