"""One C function: a kernel's loops over vectors, written from its structure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...ir.kernel import BLOCK, LANES, Arg, Kernel, Map, Param, Reduce, Store, Tile
from ...ir.loops import (
    GROUP,
    LEAST_COLUMNS,
    SEGMENT_BLOCK,
    chunk,
    columns,
    kept_between_sweeps,
    row_capacity,
    row_group,
    run_mode,
    segments,
)
from ...ir.types import expressions
from ...ops import scalar as s
from ...ops import to_c
from ...ops.scalar import E
from .operands import Operands
from .reducers import NEUTRAL, reducer_name

TILE_ROWS = 16  # of an epilogue or a prologue, that go through its columns together


def structure(kernel: Kernel, tile: Tile | None) -> tuple:
    """What the text depends on: kernels of equal structure share a function."""
    inner = len(kernel.axes) - 1
    extent = kernel.axes[inner].extent
    params = tuple((p.name, p.kind, p.dtype, run_mode(p, inner), kernel.at_points(p), p.stream) for p in kernel.params)
    if kernel.reduce < 0:
        sizes: tuple = (extent > chunk(kernel),)
    else:
        sizes = (row_capacity(kernel), extent <= BLOCK) if kernel.reduce == inner else (columns(kernel),)
    runs = tile is not None and tile.rows == tile.columns == 1
    shared = tuple(p.strides[inner - 1] == 0 for p in kernel.params if runs and p.kind != "scalar")
    return (len(kernel.axes), kernel.reduce, params, kernel.body, sizes, tile, shared)


def integers(kernel: Kernel) -> list[int]:
    """The run-time integers of a kernel: extents, then the strides of every operand in memory."""
    found = [a.extent for a in kernel.axes]
    for p in kernel.params:
        found.extend(p.strides)
    return found


def render(kernel: Kernel, name: str, tile: Tile | None, vector_bytes: int) -> str:
    """The C function of a kernel, for rectangles of a matrix if it has a `tile`."""
    return _Function(kernel, name, tile, vector_bytes).text()


@dataclass
class _Sweep:
    """What one loop over vectors makes: stores, reductions, values kept for later loops. `index` is row-major, in C."""

    stores: list[Store] = field(default_factory=list)
    reduces: list[Reduce] = field(default_factory=list)
    keeps: list[str] = field(default_factory=list)
    index: str = ""

    @property
    def wanted(self) -> list[str]:
        return list(dict.fromkeys([x.value for x in self.stores] + [r.arg for r in self.reduces] + self.keeps))


class _Function(Operands):
    """Writes one function."""

    def __init__(self, kernel: Kernel, name: str, tile: Tile | None, vector_bytes: int) -> None:
        super().__init__(kernel, name, tile, vector_bytes)
        self.maps = {name: m for m in kernel.body if isinstance(m, Map) for name in m.names}
        self.reduces = [r for r in kernel.body if isinstance(r, Reduce)]
        self.stores = [x for x in kernel.body if isinstance(x, Store)]
        self.segments = segments(kernel)
        kept_in_rows = kept_between_sweeps(kernel) if kernel.reduce == self.inner else []
        self.kept = [name for keeps in self.segments for name in keeps] or kept_in_rows
        self.known = set(self.params)  # names that have a variable, or are loaded where they are needed
        self.each: list[str] = []  # of them, values of rows that a sweep has made
        self.prefix = 0

    # -- text

    def text(self) -> str:
        tail = "i64 b, i64 i0, i64 i1, i64 j0, i64 j1" if self.tile is not None else "i64 begin, i64 end"
        if self.made is not None:
            tail += ", void* to, i64 pitch"
        with self.block(f"void {self.name}(void* const* ptr, const i64* n, {tail})"):
            self._scalars()
            self._buffers()
            if self.tile is not None:
                self._tiles(self.tile)
            elif self.kernel.reduce < 0:
                self._runs()
            elif self.kernel.reduce == self.inner:
                self._rows()
            else:
                self._columns()
            if any(p.stream for p in self.memory):
                self.line("STREAM_END();")
        return "\n".join(self.lines) + "\n"

    def _buffers(self) -> None:
        """Where the elements of an incomplete vector, or of one whose elements lie apart, are put together."""
        for p in self.memory:
            if p.kind in ("in", "inout") and not self._is_one(p):
                self.line(f"{self.scalar(p.name)} b{p.name}[{self.lanes}] __attribute__((aligned(64))) = {{0}};")
            if p.kind in ("out", "inout"):
                self.line(f"{self.scalar(p.name)} o{p.name}[{self.lanes}] __attribute__((aligned(64)));")
        size = row_capacity(self.kernel) * row_group(self.kernel) if self.kernel.reduce >= 0 else SEGMENT_BLOCK
        for name in self.kept:
            self.line(f"{self.scalar(name)} row_{name}[{size}] __attribute__((aligned(64)));")

    # -- maps

    def _runs(self) -> None:
        """A map: runs along the innermost axis, long ones in chunks."""
        outer, extent, size = list(range(self.inner)), f"n[{self.inner}]", chunk(self.kernel)
        chunked = self.kernel.axes[self.inner].extent > size
        if chunked:
            self.line(f"const i64 parts = ({extent} + {size - 1}) / {size};")
        with self.block("for (i64 r = begin; r < end; ++r)"):
            self._pointers(self._indices("r", outer, "parts" if chunked else ""))
            self.line(f"const i64 start = {f'part * {size}' if chunked else '0'};")
            self.line(f"const i64 stop = {f'MIN({extent}, start + {size})' if chunked else extent};")
            self._one_run("start", "stop", f"{'r / parts' if chunked else 'r'} * {extent} + j")

    def _tiles(self, tile: Tile) -> None:
        """An epilogue or a prologue: the rectangle [i0, i1) x [j0, j1) of matrix b."""
        axes = list(range(self.rank))
        rows, columns = self.rank - tile.columns - tile.rows, self.rank - tile.columns
        indices = self._indices("b", axes[:rows])
        if tile.rows == tile.columns == 1:
            self._pointers(indices | {rows: "i0"})
            self._made("i0", "j0")
            return self._tile_of_runs(rows)
        with self.block("for (i64 i = i0; i < i1; ++i)"):
            indices |= self._indices("i", axes[rows:columns])
            with self.block("for (i64 at = j0, run; at < j1; at += run)"):
                self.line(f"const i64 inside = at % n[{self.inner}];")
                self.line(f"run = MIN(j1 - at, n[{self.inner}] - inside);")
                self._pointers(indices | self._indices(f"at / n[{self.inner}]", axes[columns : self.inner]))
                self._made("i", "j0 - at + inside")
                self._one_run("inside", "inside + run")

    def _made(self, row: str, first: str) -> None:
        """Where element 0 of a run of what is made goes: `first` elements of the row are left of the rectangle."""
        if self.made is not None:
            p = self.made
            self.line(f"{self.pointer(p)} p{p.name} = ({self.pointer(p)})to + ({row} - i0) * pitch - ({first});")

    def _tile_of_runs(self, row: int) -> None:
        """The rows of a rectangle, whose columns are one run of each."""
        for p in self.memory:  # in variables of their own: what the stores may change is read again in every row
            self.line(f"const i64 d{p.name} = {'pitch' if p is self.made else self.stride(p, row)};")
        self.shared = self._shared_by_rows(row)
        each = TILE_ROWS if self.shared else 1
        steps = "".join(f", p{p.name} += {each} * d{p.name}" for p in self.memory)
        with self.block(f"for (i64 i = i0; i < i1; i += {each}{steps})"):
            if self.shared:
                self._some_rows()
            else:
                self._one_run("j0", "j1")

    def _shared_by_rows(self, row: int) -> list[Param]:
        """Vectors that all rows of a tile read, unless other operands have one value a row."""
        ins = [p for p in self.memory if p.kind == "in"]
        if self.segments or any(self._is_one(p) and p.strides[row] != 0 for p in ins):
            return []
        return [p for p in ins if self._is_run(p) and p.strides[row] == 0]

    def _some_rows(self) -> None:
        """Some rows of a tile, a vector of columns at a time: what they share is loaded once."""
        self._splats(p for p in self.memory if self._is_one(p))
        self.line(f"const i64 rows = MIN(i1 - i, {TILE_ROWS});")
        moving = [p for p in self.memory if p not in self.shared]
        with self.block(f"for (i64 j = j0; j < j1; j += {self.lanes})"):
            self.line("const i64 rest = j1 - j;")
            self._vector_pointers(self.shared, [])
            for p in self.shared:
                self.line(f"const {self.vector(p.name)} {p.name} = LOAD({self.vector(p.name)}, x{p.name});")
            for p in moving:
                self.line(f"{self.pointer(p)} q{p.name} = p{p.name};")
            with self.block("for (i64 r = 0; r < rows; ++r)"):
                for p in moving:
                    self.line(f"{self.pointer(p)} p{p.name} = q{p.name} + r * d{p.name};")
                self._vector_body(_Sweep(self.stores), "j1")

    def _one_run(self, start: str, stop: str, index: str = "") -> None:
        """All stores of a map along one run: in one loop, or in several over blocks when the body is long."""
        self._streams(start)
        self._splats(p for p in self.memory if self._is_one(p))
        if not self.segments:
            self._sweep(start, stop, _Sweep(self.stores, index=index))
            return
        with self.block(f"for (i64 block = {start}; block < {stop}; block += {SEGMENT_BLOCK})"):
            self.line(f"const i64 end = MIN({stop}, block + {SEGMENT_BLOCK});")
            for keeps in self.segments:
                self._sweep("block", "end", _Sweep(keeps=keeps, index=index))
                self.known.update(keeps)
            self._sweep("block", "end", _Sweep(self.stores, index=index))

    # -- reductions along rows

    def _rows(self) -> None:
        """A reduction along the innermost axis: sweeps over the rows of a group, with what they keep between them.

        All rows of a group go through one sweep before the next begins: a short row alone would wait for its halvings.
        """
        rows = row_group(self.kernel)
        self.line(f"const i64 count = n[{self.inner}];")
        for name in [*self._row_maps(), *(r.name for r in self.reduces)]:
            self.line(f"{self.scalar(name)} each_{name}[{GROUP}] __attribute__((aligned(64))) = {{0}};")
        with self.block(f"for (i64 group = begin; group < end; group += {rows})"):
            self.line(f"const i64 last = MIN(end, group + {rows});")
            for phase in range(self.kernel.last_sweep + 1):
                self._row_phase(phase)
            if not all(map(self._at_points, self.stores)):
                self._row_phase(self.kernel.last_sweep + 1)

    def _row_phase(self, phase: int) -> None:
        """One sweep over every row of the group or, behind the last, what is stored of the rows' values."""
        last = self.kernel.last_sweep
        wanted = [name for name in self._row_maps() if self.kernel.phases[name] == phase]
        self._values_across_rows([name for name in wanted if self._is_across_rows(name)])
        with self.block("for (i64 r = group; r < last; ++r)"):
            self._pointers(self._indices("r", list(range(self.inner))))
            self._streams("0")
            self._splats(p for p in self.memory if not self.kernel.at_points(p))
            for name in self.each:
                self.line(f"const {self.vector(name)} {name} = SPLAT({self.vector(name)}, each_{name}[r - group]);")
            self._row_values([name for name in wanted if name not in self.known])
            if phase <= last:
                self._row_sweep(phase)
            for x in self.stores:
                if phase > last and not self._at_points(x):
                    self.line(f"*p{x.param} = {x.value}[0];")

    def _row_maps(self) -> list[str]:
        """Values computed once for a row."""
        return [name for name in self.maps if name not in self.kernel.point_names and self._is_needed(name)]

    def _is_across_rows(self, name: str) -> bool:
        """Whether a row's value is made of scalars and of what earlier sweeps left of every row."""
        return all(x in self.each or self.params[x].kind == "scalar" for x in self._needed([name]))

    def _values_across_rows(self, wanted: list[str]) -> None:
        """Values of the group's rows, one row to a lane."""
        if not wanted:
            return
        with self.block(f"for (i64 l = 0; l < {row_group(self.kernel)}; l += {self.lanes})"):
            for name in self._needed(wanted):
                if name in self.each:
                    self.line(f"const {self.vector(name)} {name} = LOAD({self.vector(name)}, each_{name} + l);")
            for name, result in zip(wanted, self._compute(wanted), strict=True):
                self.line(f"STORE({self.vector(name)}, each_{name} + l, {result});")
        self._know(wanted)

    def _row_values(self, wanted: list[str]) -> None:
        """Values of a row that its operands take part in: the same in every lane."""
        for name, result in zip(wanted, self._compute(wanted), strict=True):
            self.line(f"const {self.vector(name)} {name} = {result};")
            self.line(f"each_{name}[r - group] = {name}[0];")
        self._know(wanted)

    def _know(self, names: Iterable[str]) -> None:
        """Later sweeps find these values of rows in arrays."""
        self.each += names
        self.known.update(self.each)

    def _is_needed(self, name: str) -> bool:
        """Whether a row value reaches a point, a reduction or a store (others are parts of those)."""
        used = {x.value for x in self.stores} | {x.arg for x in self.reduces}
        for made, m in self.maps.items():
            if made in self.kernel.point_names or self.kernel.phases[made] > self.kernel.phases[name]:
                used.update(a for a in m.args if isinstance(a, str))
        return name in used

    def _row_sweep(self, phase: int) -> None:
        phases = self.kernel.phases
        sweep = _Sweep(
            [x for x in self.stores if self.kernel.store_phases.get(x.param) == phase],
            [r for r in self.reduces if phases[r.arg] == phase],
            [name for name in self.kept if phases[name] == phase],
            f"r * n[{self.inner}] + j",
        )
        if not sweep.reduces:
            self._sweep("0", "count", sweep)
        elif self.kernel.axes[self.inner].extent <= BLOCK:
            self._lane_sweep("0", "count", sweep)
            for r in sweep.reduces:
                self._reduced(r, self._folded(r))
        else:
            self._block_sweep(sweep)
        self.known.update(sweep.keeps)
        self._know(r.name for r in sweep.reduces)

    def _block_sweep(self, sweep: _Sweep) -> None:
        """Blocks of 512, their results combined in adjacent pairs on a stack."""
        for r in sweep.reduces:
            self.line(f"{self.scalar(r.name)} {r.name}_stack[48];")
        self.line("int depth = 0;")
        with self.block(f"for (i64 block = 0; block < count; block += {BLOCK})"):
            self.line(f"const i64 stop = MIN(count, block + {BLOCK});")
            self._lane_sweep("block", "stop", sweep)
            for r in sweep.reduces:
                result = "depth = " if r is sweep.reduces[-1] else ""
                push = f"{self._reducer(r)}_push({r.name}_stack, depth, block / {BLOCK}, {self._folded(r)});"
                self.line(result + push)
        for r in sweep.reduces:
            total = f"{r.name}_total"
            self.line(f"{self.scalar(r.name)} {total} = {r.name}_stack[depth - 1];")
            two = f"{self._reducer(r)}_two({r.name}_stack[d], {total})"
            self.line(f"for (int d = depth - 2; d >= 0; --d) {total} = {two};")
            self._reduced(r, total)

    def _lane_sweep(self, start: str, stop: str, sweep: _Sweep) -> None:
        """Vectors combined into 32 lanes. The vectors of lanes take turns: the one that is next is always the first."""
        for r in sweep.reduces:
            vector, neutral = self.vector(r.name), self._neutral(r)
            lanes = ", ".join(f"{r.name}_{k} = {neutral}" for k in range(self.turns))
            self.line(f"{vector} {lanes};")
        self.line(f"i64 at = {start};")
        with self.block(f"for (; at < {stop}; at += {self.lanes})"):
            self.line("const i64 j = at;")
            self._vector_body(sweep, stop)
        with self.block(f"for (; (at - {start}) % {LANES} != 0; at += {self.lanes})"):
            for r in sweep.reduces:
                self._turn(r, f"{r.name}_0")

    def _turn(self, r: Reduce, first: str) -> None:
        """Moves every vector of lanes one place up; `first`, the one whose turn it was, goes to the end."""
        self.line(f"const {self.vector(r.name)} {r.name}_was = {first};")
        for k in range(self.turns - 1):
            self.line(f"{r.name}_{k} = {r.name}_{k + 1};")
        self.line(f"{r.name}_{self.turns - 1} = {r.name}_was;")

    def _folded(self, r: Reduce) -> str:
        """The 32 lanes as one value."""
        return f"{self._reducer(r)}_lanes({', '.join(f'{r.name}_{k}' for k in range(self.turns))})"

    def _reduced(self, r: Reduce, value: str) -> None:
        self.line(f"each_{r.name}[r - group] = {value};")

    def _reducer(self, r: Reduce) -> str:
        return reducer_name(r.reducer, self.kernel.dtypes[r.arg], self.wide)

    def _neutral(self, r: Reduce) -> str:
        return f"SPLAT({self.vector(r.name)}, {to_c.literal(NEUTRAL[r.reducer], self.kernel.dtypes[r.arg])})"

    def _combine_lanes(self, r: Reduce, value: str) -> None:
        """One vector of a row into its lanes; elements beyond the end are neutral."""
        dtype, vector, now = self.kernel.dtypes[r.arg], self.vector(r.name), f"{r.name}_now"
        integer = to_c.vector_type(s.INT_OF[dtype], self.wide)
        first = f"FIRST{8 * s.SIZE[dtype]}({integer}, rest)"
        self.line(f"{vector} {now} = {value};")
        with self.block(f"if (UNLIKELY(rest < {self.lanes}))"):
            self.line(f"{now} = SELECT({vector}, {integer}, {first}, {value}, {self._neutral(r)});")
        self._turn(r, f"{self._reducer(r)}({r.name}_0, {now})")

    # -- reductions down columns

    def _columns(self) -> None:
        """A reduction along an outer axis: a tile of columns at a time, with its 32 lanes."""
        width = columns(self.kernel)
        for r in self.reduces:
            self.line(f"{self.scalar(r.name)} {r.name}_lanes[{LANES}][{width}] __attribute__((aligned(64)));")
            self.line(f"{self.scalar(r.name)} {r.name}_stack[40][{width}] __attribute__((aligned(64)));")
        self.line(f"const i64 count = n[{self.kernel.reduce}];")
        self.line(f"const i64 parts = (n[{self.inner}] + {width - 1}) / {width};")
        with self.block("for (i64 r = begin; r < end; ++r)"):
            self._pointers(self._indices("r", [a for a in range(self.inner) if a != self.kernel.reduce], "parts"))
            self.line(f"const i64 start = part * {width}, stop = MIN(n[{self.inner}], start + {width});")
            self.line("int depth = 0;")
            with self.block(f"for (i64 block = 0; block < count; block += {BLOCK})"):
                self._column_block()
            self._column_results()

    def _column_block(self) -> None:
        """512 rows: each goes into its lane, then the lanes are halved and the block meets its neighbours."""
        self._splats(p for p in self.memory if self._is_one(p) and not self.kernel.at_points(p))
        self._lane_by_lane() if self._is_wide_tile() else self._row_by_row()
        for r in self.reduces:
            self._fold_columns(r)
        self.line(f"for (i64 k = block / {BLOCK}; k & 1; k >>= 1) --depth;")
        self.line("++depth;")

    def _is_wide_tile(self) -> bool:
        """Whether rows of a tile are long enough to be read as streams, side by side."""
        return columns(self.kernel) > LEAST_COLUMNS

    def _lane_by_lane(self) -> None:
        """The 16 rows of a lane side by side: as many streams as hardware prefetches; 0.4-0.6 of the time of rows."""
        with (
            self.block(f"for (i64 l = 0; l < {LANES}; ++l)"),
            self.block(f"for (i64 j = start; j < stop; j += {self.lanes})"),
        ):
            for r in self.reduces:
                self.line(f"{self.vector(r.name)} {r.name}_lane = {self._neutral(r)};")
            with self.block(f"for (i64 i = block + l; i < MIN(count, block + {BLOCK}); i += {LANES})"):
                self._row_pointers("j")
                self._vector_body(self._points(), "stop")
            for r in self.reduces:
                self.line(f"STORE({self.vector(r.name)}, {r.name}_lanes[l] + (j - start), {r.name}_lane);")

    def _row_by_row(self) -> None:
        for r in self.reduces:
            with self.block(f"for (int l = 0; l < {LANES * columns(self.kernel)}; l += {self.lanes})"):
                self.line(f"STORE({self.vector(r.name)}, {r.name}_lanes[0] + l, {self._neutral(r)});")
        with self.block(f"for (i64 i = block; i < MIN(count, block + {BLOCK}); ++i)"):
            self._row_pointers("start")
            self._sweep("start", "stop", self._points())

    def _points(self) -> _Sweep:
        return _Sweep([x for x in self.stores if self._at_points(x)], self.reduces)

    def _row_pointers(self, first: str) -> None:
        """The operands' pointers at row i, and what is known of them from column `first` on."""
        points = [p for p in self.memory if self.kernel.at_points(p)]
        for p in points:
            self.line(f"{self.pointer(p)} q{p.name} = p{p.name};")
            self.line(f"{self.pointer(p)} p{p.name} = q{p.name} + i * {self.stride(p, self.kernel.reduce)};")
        self._streams(first)
        self._splats(p for p in points if self._is_one(p))

    def _combine_columns(self, r: Reduce, value: str) -> None:
        """One vector of a row into the row's lane."""
        f, place, vector = self._reducer(r), f"{r.name}_lanes[(i - block) % {LANES}] + (j - start)", self.vector(r.name)
        if self._is_wide_tile():
            self.line(f"{r.name}_lane = {f}({r.name}_lane, {value});")
        else:
            self.line(f"STORE({vector}, {place}, {f}(LOAD({vector}, {place}), {value}));")

    def _fold_columns(self, r: Reduce) -> None:
        f, vector, each = self._reducer(r), self.vector(r.name), f"for (i64 c = 0; c < stop - start; c += {self.lanes})"
        with (
            self.block(f"for (int h = {LANES // 2}; h > 0; h /= 2)"),
            self.block("for (int l = 0; l < h; ++l)"),
            self.block(each),
        ):
            lower, upper = (f"LOAD({vector}, {r.name}_lanes[{lane}] + c)" for lane in ("l", "l + h"))
            self.line(f"STORE({vector}, {r.name}_lanes[l] + c, {f}({lower}, {upper}));")
        with self.block(each):
            self.line(f"{vector} x = LOAD({vector}, {r.name}_lanes[0] + c);")
            self.line("int d = depth;")
            pushed = f"{f}(LOAD({vector}, {r.name}_stack[--d] + c), x)"
            self.line(f"for (i64 k = block / {BLOCK}; k & 1; k >>= 1) x = {pushed};")
            self.line(f"STORE({vector}, {r.name}_stack[d] + c, x);")

    def _column_results(self) -> None:
        """The whole tree of every column, and what is computed from it."""
        self.known.update(r.name for r in self.reduces)
        sweep = _Sweep([x for x in self.stores if not self._at_points(x)])
        needed = [self.params[name] for name in self._needed(sweep.wanted) if name in self.params]
        self._splats(p for p in needed if self._is_one(p))
        with self.block(f"for (i64 j = start; j < stop; j += {self.lanes})"):
            for r in self.reduces:
                vector = self.vector(r.name)
                self.line(f"{vector} {r.name} = LOAD({vector}, {r.name}_stack[depth - 1] + (j - start));")
                total = f"{self._reducer(r)}(LOAD({vector}, {r.name}_stack[d] + (j - start)), {r.name})"
                self.line(f"for (int d = depth - 2; d >= 0; --d) {r.name} = {total};")
            self._vector_body(sweep, "stop")

    # -- one vector

    def _sweep(self, start: str, stop: str, sweep: _Sweep) -> None:
        with self.block(f"for (i64 j = {start}; j < {stop}; j += {self.lanes})"):
            self._vector_body(sweep, stop)

    def _vector_body(self, sweep: _Sweep, stop: str) -> None:
        """Loads, computes and stores the vector at j, of which `rest` elements exist."""
        needed = self._needed(sweep.wanted)
        ins = [self.params[name] for name in needed if name in self.params and not self._is_loaded(self.params[name])]
        outs = [self.params[x.param] for x in sweep.stores]
        self.line(f"const i64 rest = {stop} - j;")
        self._vector_pointers(ins, outs)
        for p in ins:
            self.line(f"const {self.vector(p.name)} {p.name} = LOAD({self.vector(p.name)}, x{p.name});")
        for name in needed:
            if name in self.kept:
                self.line(f"const {self.vector(name)} {name} = LOAD({self.vector(name)}, {self._place(name)});")
        if sweep.index and s.reads_index(self._expressions(sweep.wanted)[0]):
            self.line(f"const i64 first = {sweep.index};")
        results = dict(zip(sweep.wanted, self._compute(sweep.wanted), strict=True))
        for name in sweep.keeps:
            self.line(f"STORE({self.vector(name)}, {self._place(name)}, {results[name]});")
        for x in sweep.stores:
            self._store(self.params[x.param], results[x.value])
        for r in sweep.reduces:
            combine = self._combine_lanes if self.kernel.reduce == self.inner else self._combine_columns
            combine(r, results[r.arg])
        self._copy_back(outs)

    def _needed(self, wanted: Iterable[str]) -> list[str]:
        """The known names that `wanted` is computed from."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.known:
                found[name] = None
            else:
                stack.extend(a for a in self.maps[name].args if isinstance(a, str))
        return list(found)

    def _place(self, name: str) -> str:
        """Where a kept value's vector lies."""
        row = "" if self.segments else f"(r - group) * {row_capacity(self.kernel)} + "
        return f"row_{name} + {row}j" + (" - block" if self.segments else "")

    def _vector_pointers(self, ins: list[Param], outs: list[Param]) -> None:
        """Where this vector's operands are: in place, or in buffers beyond the end of the run or when apart."""
        if not all(self._is_run(p) for p in [*ins, *outs]):
            self.line(f"const i64 some = MIN(rest, {self.lanes});")
        for p in ins:
            self.line(f"{self.pointer(p)} x{p.name} = {f'p{p.name} + j' if self._is_run(p) else f'b{p.name}'};")
            if not self._is_run(p):
                self.line(f"for (i64 l = 0; l < some; ++l) b{p.name}[l] = {self._element(p)};")
        for p in outs:
            self.line(f"{self.pointer(p)} y{p.name} = {f'p{p.name} + j' if self._is_run(p) else f'o{p.name}'};")
        if not any(self._is_run(p) for p in [*ins, *outs]):
            return
        with self.block(f"if (UNLIKELY(rest < {self.lanes}))"):
            for p in filter(self._is_run, ins):
                with self.block(f"if (!READABLE(x{p.name}))"):
                    self.line(f"__builtin_memcpy(b{p.name}, x{p.name}, rest * sizeof *x{p.name});")
                    self.line(f"x{p.name} = b{p.name};")
            for p in filter(self._is_run, outs):
                self.line(f"y{p.name} = o{p.name};")

    def _element(self, p: Param) -> str:
        """Lane l of an operand whose elements lie apart."""
        return f"p{p.name}[(j + l) * {self.stride(p, self.inner)}]"

    def _store(self, p: Param, value: str) -> None:
        vector = self.vector(p.name)
        if p.stream and vector.startswith("v"):
            self.line(f"if (s{p.name} && rest >= {self.lanes}) STREAM({vector}, y{p.name}, {value});")
            self.line(f"else STORE({vector}, y{p.name}, {value});")
        else:
            self.line(f"STORE({vector}, y{p.name}, {value});")

    def _copy_back(self, outs: list[Param]) -> None:
        runs = [p for p in outs if self._is_run(p)]
        if runs:
            with self.block(f"if (UNLIKELY(rest < {self.lanes}))"):
                for p in runs:
                    self.line(f"__builtin_memcpy(p{p.name} + j, o{p.name}, rest * sizeof *p{p.name});")
        for p in outs:
            if not self._is_run(p):
                self.line(f"for (i64 l = 0; l < some; ++l) {self._element(p)} = o{p.name}[l];")

    # -- values

    def _expressions(self, wanted: Sequence[str]) -> tuple[list[E], list[str]]:
        """`wanted` as expressions over known names, and those names."""
        names: list[str] = []
        values: dict[str, E] = {}

        def value(a: Arg) -> E:
            if not isinstance(a, str):
                return s.const(a.value, a.dtype)
            if a not in values and a in self.known:
                values[a] = s.arg(len(names), self.kernel.dtypes[a])
                names.append(a)
            elif a not in values:
                m = self.maps[a]
                values.update(zip(m.names, expressions(m.op, [value(x) for x in m.args]), strict=True))
            return values[a]

        return [value(name) for name in wanted], names

    def _compute(self, wanted: Sequence[str]) -> list[str]:
        """Writes the statements that compute `wanted`, and names their results."""
        outputs, names = self._expressions(wanted)
        self.prefix += 1
        lines, results = to_c.emit(outputs, names, self.wide, "first", f"t{self.prefix}_")
        for text in lines:
            self.line(text)
        return results
