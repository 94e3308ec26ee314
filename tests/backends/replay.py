"""Runs graphs in the ways that must agree: the oracle, and a compiled program on NumPy memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from ir.programs import Tape

from neurlang import passes
from neurlang.backends import cpu
from neurlang.ir.graph import Graph
from neurlang.ir.interpret import interpret
from neurlang.ir.kernel import Schedule
from neurlang.ir.types import DTYPES, widened
from neurlang.ops.table import ROWS
from neurlang.tracing import compiler

Memory = dict[int, np.ndarray]


def machine() -> Any:
    """The extension module."""
    return sys.modules["neurlang._tensor"]


def run_oracle(graph: Graph, tape: Tape, leaves: Memory) -> Memory:
    copies = {i: x.copy() for i, x in leaves.items()}
    return interpret(graph, copies, tape.offsets, tape.scalars, compiler().fma())


def build(schedule: Schedule) -> cpu.Built:
    return cpu.build(schedule, {name: n for n, name in enumerate(ROWS)}, machine(), compiler().VERSION)


def run_program(built: cpu.Built, graph: Graph, tape: Tape, leaves: Memory) -> Memory:
    """Every storage gets memory of its own, exactly as long as it is, between guards that must survive."""
    guard = 64
    blocks = {}
    for i, x in enumerate(graph.storages):
        if x.outside:
            block = np.full(x.nbytes + 2 * guard, 0xA5, np.uint8)
            if i in leaves:
                block[guard : guard + x.nbytes] = leaves[i]
            blocks[i] = block
    addresses = [blocks[i].ctypes.data + guard if i in blocks else 0 for i in range(len(graph.storages))]
    built.program.run(addresses + [0] * (len(tape.slots) - len(addresses)), tape.offsets, tape.scalars)
    for block in blocks.values():
        assert (block[:guard] == 0xA5).all() and (block[len(block) - guard :] == 0xA5).all(), (
            "wrote outside of an output"
        )
    return {i: block[guard : len(block) - guard].copy() for i, block in blocks.items()}


def difference(tape: Tape, graph: Graph, expected: Memory, got: Memory) -> str:
    """The first storage that outlives the graph and differs in a bit (NaNs are one), or an empty string."""
    for i, x in enumerate(graph.storages):
        if not x.outside:
            continue
        a, b = (m[i].view(DTYPES[tape.dtypes[i]].numpy) for m in (expected, got))
        same = (
            a.view(np.uint8).reshape(len(a), -1) == b.view(np.uint8).reshape(len(b), -1)
            if len(a)
            else np.ones((0, 1), bool)
        )
        same = same.all(1)
        if DTYPES[tape.dtypes[i]].floating:
            same |= np.isnan(widened(a, tape.dtypes[i])) & np.isnan(widened(b, tape.dtypes[i]))
        if not same.all():
            at = int(np.argmin(same))
            return f"s{i} {tape.dtypes[i]} element {at}: expected {a[at]!r}, got {b[at]!r}"
    return ""


def compiled(tape: Tape) -> tuple[Graph, Schedule, cpu.Built]:
    graph = tape.graph()
    schedule = passes.run(graph)
    return graph, schedule, build(schedule)
