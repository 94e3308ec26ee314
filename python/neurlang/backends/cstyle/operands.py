"""The operands of a C function: their types, pointers, strides and values that a whole run shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ...ir.kernel import LANES, Kernel, Param, Store, Tile
from ...ir.loops import is_wide, run_mode
from ...ops import to_c
from .prelude import C_TYPES, lanes_of


class Operands:
    """Lines of C, and what they call the operands.

    Names in C: p… is an operand's pointer, b… and o… its buffers, row_… a kept value's; each_… has a value of each row.
    """

    def __init__(self, kernel: Kernel, name: str, tile: Tile | None, vector_bytes: int) -> None:
        self.kernel, self.name, self.tile = kernel, name, tile
        self.wide = is_wide(kernel)
        self.lanes = to_c.lanes(self.wide)
        self.turns = LANES // lanes_of(self.wide, vector_bytes)  # vectors that make up 32 lanes
        self.rank = len(kernel.axes)
        self.inner = self.rank - 1
        self.memory = [p for p in kernel.params if p.kind != "scalar"]
        self.made = self.memory[-1] if tile is not None and tile.made else None
        self.params = {p.name: p for p in kernel.params}
        self.shared: list[Param] = []  # operands that the rows of a tile have in common
        self.lines: list[str] = []
        self.depth = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head + " {")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    # -- operands

    def vector(self, name: str) -> str:
        return to_c.vector_type(self.kernel.dtypes[name], self.wide)

    def scalar(self, name: str) -> str:
        return C_TYPES[self.kernel.dtypes[name]]

    def pointer(self, p: Param) -> str:
        """The C type of an operand's pointer."""
        return f"{'const ' if p.kind == 'in' else ''}{self.scalar(p.name)}*"

    def number(self, p: Param) -> int:
        return self.kernel.params.index(p)

    def stride(self, p: Param, axis: int) -> str:
        """The run-time integer that holds a stride (see `integers`)."""
        position = self.rank + sum(len(q.strides) for q in self.kernel.params[: self.number(p)]) + axis
        return f"n[{position}]"

    def _is_one(self, p: Param) -> bool:
        return run_mode(p, self.inner) == "one"

    def _is_loaded(self, p: Param) -> bool:
        """Whether its vector is at hand before the loop over vectors, or over the rows of a tile."""
        return self._is_one(p) or p in self.shared

    def _is_run(self, p: Param) -> bool:
        return run_mode(p, self.inner) == "run"

    def _at_points(self, x: Store) -> bool:
        return self.kernel.at_points(self.params[x.param])

    def _scalars(self) -> None:
        for p in self.kernel.params:
            if p.kind == "scalar":
                self._splat(p, f"*(const {self.scalar(p.name)}*)ptr[{self.number(p)}]")

    def _splats(self, params: Iterable[Param]) -> None:
        """Operands that have one value along the run."""
        for p in params:
            if p.kind in ("in", "inout"):
                self._splat(p, f"*p{p.name}")

    def _splat(self, p: Param, value: str) -> None:
        self.line(f"const {self.vector(p.name)} {p.name} = SPLAT({self.vector(p.name)}, {value});")

    def _indices(self, of: str, axes: Sequence[int], parts: str = "") -> dict[int, str]:
        """Splits the number `of` into indices of `axes`, the last running fastest, behind the `parts` of a run."""
        if len(axes) == 1 and not parts:
            return {axes[0]: of}
        self.line(f"i64 q = {of};")
        if parts:
            self.line(f"const i64 part = q % {parts};")
            self.line(f"q /= {parts};")
        for axis in reversed(axes[1:]):
            self.line(f"const i64 x{axis} = q % n[{axis}];")
            self.line(f"q /= n[{axis}];")
        if axes:
            self.line(f"const i64 x{axes[0]} = q;")
        return {axis: f"x{axis}" for axis in axes}

    def _pointers(self, indices: dict[int, str]) -> None:
        """Every operand's pointer at these indices."""
        for p in self.memory:
            if p is self.made:
                continue
            offset = "".join(f" + {index} * {self.stride(p, axis)}" for axis, index in indices.items())
            self.line(f"{self.pointer(p)} p{p.name} = ({self.pointer(p)})ptr[{self.number(p)}]{offset};")

    def _streams(self, start: str) -> None:
        """Streaming stores need aligned addresses, which is known per run."""
        for p in self.memory:
            if p.stream:
                aligned = f"(__UINTPTR_TYPE__)(p{p.name} + {start}) % NL_VEC_BYTES == 0"
                self.line(f"const int s{p.name} = {aligned if self._is_run(p) else 0};")
