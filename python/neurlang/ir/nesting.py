"""In which order the loops of a kernel are nested: along memory, as far as all its operands allow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .kernel import LANES, Axis, Kernel, KernelStep, Param


def reduced_across(kernel: Kernel) -> Kernel:
    """The kernel with another axis innermost than the reduced one, if what is read runs along that one alone."""
    ins = [p.strides for p in kernel.params if p.kind == "in" or kernel.at_points(p)]
    for axis in range(kernel.reduce):
        runs = {s[axis] for s in ins}
        if kernel.axes[axis].extent >= LANES and 1 in runs and runs <= {0, 1} and all(s[-1] != 1 for s in ins):
            others = [other for other in range(kernel.reduce + 1) if other != axis]
            return replace(reordered(kernel, [*others, axis]), reduce=kernel.reduce - 1)
    return kernel


def reordered(kernel: Kernel, order: Sequence[int]) -> Kernel:
    """The same loops nested in another order."""
    params = (
        p if p.kind == "scalar" else replace(p, strides=tuple(p.strides[a] for a in order)) for p in kernel.params
    )
    return replace(kernel, axes=tuple(kernel.axes[a] for a in order), params=tuple(params))


def ordered_axes(kernel: Kernel, row_major: bool) -> Kernel:
    """The kernel with its axes in the order that walks through memory best, merged where every operand allows it."""
    memory = [p for p in kernel.params if p.kind != "scalar"]
    order = list(range(len(kernel.axes)))
    if len(order) > 1 and not row_major:
        inner = max(order, key=lambda axis: (_run_score(memory, axis), axis))
        order.remove(inner)
        leader = next((p for p in memory if p.kind != "in"), memory[0])
        order.sort(key=lambda axis: -abs(leader.strides[axis]))
        order.append(inner)
    axes: list[int] = []
    columns: list[tuple[int, ...]] = []
    for axis in order:
        extent, strides = kernel.axes[axis].extent, tuple(p.strides[axis] for p in memory)
        if axes and all(outer == inner * extent for outer, inner in zip(columns[-1], strides, strict=True)):
            axes[-1] *= extent
            columns[-1] = strides
        else:
            axes.append(extent)
            columns.append(strides)
    by_name = {p.name: tuple(c[k] for c in columns) for k, p in enumerate(memory)}
    params = tuple(Param(p.name, p.kind, p.dtype, by_name.get(p.name, ()), p.stream) for p in kernel.params)
    return Kernel(kernel.name, tuple(Axis(f"i{k}", n) for k, n in enumerate(axes)), params, kernel.body)


def _run_score(memory: list[Param], axis: int) -> float:
    """How much of the memory traffic runs along the axis: contiguous operands count most, outputs twice."""
    worth = {0: 0.75, 1: 1.0}
    return sum(worth.get(p.strides[axis], 0.0) * (1 if p.kind == "in" else 2) for p in memory)


def turned(step: KernelStep) -> KernelStep:
    """A kernel on tiles with their rows and columns exchanged."""
    assert step.tile is not None
    rows, columns, axes = step.tile.rows, step.tile.columns, range(len(step.kernel.axes))
    lead = len(axes) - rows - columns
    order = [*axes[:lead], *axes[lead + rows :], *axes[lead : lead + rows]]
    tile = replace(step.tile, rows=columns, columns=rows)
    return replace(step, kernel=reordered(step.kernel, order), tile=tile)
