"""The C-family renderer: from a kernel to the text of one C function over the vector dialect of csrc/simd/vec.h.

A function is rendered once per structure: extents and strides are run-time integers, so equal kernels of different
sizes share it. Loop bodies are written once; vectors that reach beyond the end of a run go through small buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from ..ir.kernel import BLOCK, LANES, Arg, Kernel, Map, Param, Reduce, Store
from ..ir.types import row_exprs
from ..ops import scalar as s
from ..ops.scalar import E
from ..ops.table import ROWS

CHUNK = 4096  # elements of a long run that are one unit of work
SEGMENT = 80  # operations of one loop body: a processor then overlaps several vectors, where one long chain would wait
SEGMENT_BLOCK = 512  # elements that go from one segment to the next through L1
COLUMNS = 4  # vectors of columns that one task reduces together: their 32 lanes stay in L1
ROW_BUFFER_BYTES = 64 << 10  # of values kept between sweeps over a row
CHEAP = 4  # a value of at most so many operations is computed again rather than kept

C_TYPES = {"b8": "unsigned char", "u8": "unsigned char", "i32": "int", "i64": "i64", "f32": "float", "f64": "double"}

COMBINE = {"sum": lambda a, b: a + b, "prod": lambda a, b: a * b, "max": s.maximum, "min": s.minimum}
NEUTRAL = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}

# What every file of kernels begins with, after the text of vec.h.
PRELUDE = """\
typedef __INT64_TYPE__ i64;
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#if defined(__clang__)
#define STREAM(T, p, x) __builtin_nontemporal_store(x, (T*)(p))
#elif NL_VEC_BYTES == 64
#define STREAM(T, p, x) __builtin_ia32_movntps512((float*)(p), (vf32)(x))
#elif NL_VEC_BYTES == 32
#define STREAM(T, p, x) __builtin_ia32_movntps256((float*)(p), (vf32)(x))
#elif defined(__SSE2__)
#define STREAM(T, p, x) __builtin_ia32_movntps((float*)(p), (vf32)(x))
#else
#define STREAM(T, p, x) STORE(T, p, x)
#endif
#if defined(__clang__)
#define SHUFFLE(T, I, x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define SHUFFLE(T, I, x, ...) __builtin_shuffle(x, (I){__VA_ARGS__})
#endif
// Whether a whole register may be read at p although not all of it is ours: it does not reach into another page.
#define READABLE(p) (((__UINTPTR_TYPE__)(p) & 4095) <= 4096 - NL_VEC_BYTES)
#if defined(__SSE2__)
#define STREAM_END() __builtin_ia32_sfence()
#else
#define STREAM_END()
#endif
// Lane masks of the first `count` lanes: loaded at distance `count` from the middle.
static const int nl_first32[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
static const i64 nl_first64[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
#define FIRST32(I, count) LOAD(I, nl_first32 + 16 - MAX(0, MIN(count, 16)))
#define FIRST64(I, count) LOAD(I, nl_first64 + 8 - MAX(0, MIN(count, 8)))
"""


@cache
def weight(op: str, dtypes: tuple[str, ...]) -> int:
    """How many operations an elementwise op takes."""
    return sum(e.op not in ("arg", "const") for e in s.nodes(row_exprs(op, dtypes), into_slow=False))


def kernel_weight(kernel: Kernel) -> int:
    """Operations per point."""
    return sum(weight(m.op, _dtypes(kernel, m.args)) for m in kernel.body if isinstance(m, Map)) + 1


def _dtypes(kernel: Kernel, args: Iterable[Arg]) -> tuple[str, ...]:
    return tuple(kernel.dtypes[a] if isinstance(a, str) else a.dtype for a in args)


def structure(kernel: Kernel, epilogue: bool) -> tuple:
    """What the text depends on: kernels of equal structure share a function."""
    inner = len(kernel.axes) - 1
    params = tuple((p.name, p.kind, p.dtype, _mode(p, inner), kernel.at_points(p), p.stream) for p in kernel.params)
    capacity = (_capacity(kernel), kernel.axes[inner].extent <= BLOCK) if kernel.reduce == inner else ()
    chunked = kernel.axes[inner].extent > chunk(kernel)
    return (len(kernel.axes), kernel.reduce, params, kernel.body, capacity, chunked, epilogue)


def integers(kernel: Kernel) -> list[int]:
    """The run-time integers of a kernel: extents, then the strides of every operand in memory."""
    found = [a.extent for a in kernel.axes]
    for p in kernel.params:
        found.extend(p.strides)
    return found


def work(kernel: Kernel, lanes: int) -> tuple[int, int]:
    """How many units of work a kernel has and how many elements are in one."""
    extents = list(kernel.extents)
    inner = extents.pop()
    if kernel.reduce == len(extents):
        return _product(extents), inner
    if kernel.reduce >= 0:
        depth = extents.pop(kernel.reduce)
        columns = COLUMNS * lanes
        return _product(extents) * -(-inner // columns), depth * min(columns, inner)
    size = chunk(kernel)
    return _product(extents) * -(-inner // size), min(inner, size)


def chunk(kernel: Kernel) -> int:
    """Elements of a run in one unit of work: fewer when each takes long, so that there is something to share."""
    return CHUNK if kernel_weight(kernel) < SEGMENT else CHUNK // 4


def _product(numbers: Iterable[int]) -> int:
    result = 1
    for n in numbers:
        result *= n
    return result


def _mode(p: Param, axis: int) -> str:
    """How an operand runs along an axis: a vector, one value, or elements apart."""
    if p.kind == "scalar" or p.strides[axis] == 0:
        return "one"
    return "run" if p.strides[axis] == 1 else "apart"


def _capacity(kernel: Kernel) -> int:
    """Elements of a row buffer: the row's length rounded up to a power of two."""
    return max(LANES, 1 << (kernel.axes[-1].extent - 1).bit_length())


def render(kernel: Kernel, name: str, epilogue: bool, vector_bytes: int) -> str:
    """The C function of a kernel."""
    return _Function(kernel, name, epilogue, vector_bytes).text()


def is_wide(kernel: Kernel) -> bool:
    """Whether the kernel touches 64-bit values and so runs half as many lanes."""
    if any(p.dtype in ("f64", "i64") for p in kernel.params):
        return True
    return any(s.is_wide(row_exprs(m.op, _dtypes(kernel, m.args))) for m in kernel.body if isinstance(m, Map))


def helpers(kernels: Iterable[Kernel], vector_bytes: int) -> str:
    """The functions that the reductions of some kernels call."""
    needed = {}
    for kernel in kernels:
        for r in kernel.body:
            if isinstance(r, Reduce):
                needed[r.reducer, kernel.dtypes[r.arg], is_wide(kernel)] = None
    return "".join(_reducer(*key, vector_bytes) for key in sorted(needed))


def _reducer(reducer: str, dtype: str, wide: bool, vector_bytes: int) -> str:
    """Combining two vectors, 32 lanes held in vectors, and the results of blocks in adjacent pairs."""
    vector, scalar, name = s.vector_type(dtype, wide), C_TYPES[dtype], _reducer_name(reducer, dtype, wide)
    lines, (result,) = s.emit([COMBINE[reducer](s.arg(0, dtype), s.arg(1, dtype))], ["a", "b"], wide)
    body = "\n".join(f"  {line}" for line in lines)
    fold = "\n".join(f"  {line}" for line in _halving(name, dtype, wide, vector_bytes))
    lanes = ", ".join(f"{vector} x{k}" for k in range(LANES // _width(wide, vector_bytes)))
    return f"""
static inline {vector} {name}({vector} a, {vector} b) {{
{body}
  return {result};
}}
static inline {scalar} {name}_lanes({lanes}) {{
{fold}
  return x0[0];
}}
static inline {scalar} {name}_two({scalar} a, {scalar} b) {{
  return {name}(SPLAT({vector}, a), SPLAT({vector}, b))[0];
}}
static inline int {name}_push({scalar}* stack, int depth, i64 count, {scalar} x) {{
  for (; count & 1; count >>= 1) x = {name}_two(stack[--depth], x);
  stack[depth] = x;
  return depth + 1;
}}
"""


def _halving(name: str, dtype: str, wide: bool, vector_bytes: int) -> Iterator[str]:
    """Statements that combine lane l with lane l + h for h = 16, 8, 4, 2, 1: whole vectors first, then within one."""
    width = _width(wide, vector_bytes)
    vectors = LANES // width
    while vectors > 1:
        vectors //= 2
        for k in range(vectors):
            yield f"x{k} = {name}(x{k}, x{k + vectors});"
    while width > 1:
        width //= 2
        indices = ", ".join(
            str((lane + width) % _width(wide, vector_bytes)) for lane in range(_width(wide, vector_bytes))
        )
        types = f"{s.vector_type(dtype, wide)}, {s.vector_type(s.INT_OF[dtype], wide)}"
        yield f"x0 = {name}(x0, SHUFFLE({types}, x0, {indices}));"


def _width(wide: bool, vector_bytes: int) -> int:
    """Lanes of a kernel's vectors."""
    return vector_bytes // (8 if wide else 4)


def _reducer_name(reducer: str, dtype: str, wide: bool) -> str:
    return f"nl_{reducer}_{s.vector_type(dtype, wide)}"


def render_row(op: str, dtypes: tuple[str, ...], name: str) -> str:
    """A row's eager kernel, a `MapFn` of csrc/base/view.hpp: pointers and byte steps, outputs first.

    An operand with step 0 is spread over a buffer once; the last, incomplete vector goes through buffers too.
    """
    exprs = row_exprs(op, dtypes)
    wide = s.is_wide(exprs) or any(d in ("f64", "i64") for d in dtypes)
    lanes, outs = s.lanes(wide), [e.dtype for e in exprs]
    lines = [f"void {name}(char* const* ptr, const i64* step, i64 n, i64 first) {{"]
    for k, d in enumerate([*outs, *dtypes]):
        lines.append(f"  {C_TYPES[d]} b{k}[{lanes}] __attribute__((aligned(64))) = {{0}};")
        if k >= len(outs):
            lines.append(
                f"  if (step[{k}] == 0) for (int l = 0; l < {lanes}; ++l) b{k}[l] = *(const {C_TYPES[d]}*)ptr[{k}];"
            )
    lines.append(f"  for (i64 j = 0; j < n; j += {lanes}) {{")
    lines += [f"    const i64 rest = n - j, at = first + j, some = MIN(rest, {lanes});"]
    for k, d in enumerate([*outs, *dtypes]):
        lines.append(f"    {C_TYPES[d]}* p{k} = step[{k}] == 0 ? b{k} : ({C_TYPES[d]}*)ptr[{k}] + j;")
        if k >= len(outs):
            copy = f"{{ __builtin_memcpy(b{k}, p{k}, some * sizeof *b{k}); p{k} = b{k}; }}"
            lines.append(f"    if (rest < {lanes} && step[{k}] != 0) {copy}")
            vector = s.vector_type(d, wide)
            lines.append(f"    const {vector} a{k - len(outs)} = LOAD({vector}, p{k});")
    body, results = s.emit(exprs, [f"a{k}" for k in range(len(dtypes))], wide, "at")
    lines += [f"    {line}" for line in body]
    for k, (d, result) in enumerate(zip(outs, results, strict=True)):
        lines.append(f"    STORE({s.vector_type(d, wide)}, rest < {lanes} ? b{k} : p{k}, {result});")
        lines.append(f"    if (rest < {lanes}) __builtin_memcpy(p{k}, b{k}, some * sizeof *b{k});")
    return "\n".join([*lines, "  }", "}"]) + "\n"


class _Function:
    """Writes one function."""

    def __init__(self, kernel: Kernel, name: str, epilogue: bool, vector_bytes: int) -> None:
        self.kernel, self.name, self.epilogue = kernel, name, epilogue
        self.wide = is_wide(kernel)
        self.lanes = s.lanes(self.wide)
        self.turns = LANES // _width(self.wide, vector_bytes)  # vectors that make up 32 lanes
        self.rank = len(kernel.axes)
        self.inner = self.rank - 1
        self.params = {p.name: p for p in kernel.params}
        self.number = {p.name: k for k, p in enumerate(kernel.params)}
        self.maps = {name: m for m in kernel.body if isinstance(m, Map) for name in m.names}
        self.reduces = [r for r in kernel.body if isinstance(r, Reduce)]
        self.stores = [x for x in kernel.body if isinstance(x, Store)]
        self.segments = self._segments()
        self.kept = [name for keeps in self.segments for name in keeps] or self._kept_between_sweeps()
        self.lines: list[str] = []
        self.depth = 0
        self.prefix = 0

    # -- text

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head + " {")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    def text(self) -> str:
        tail = "i64 b, i64 i0, i64 i1, i64 j0, i64 j1" if self.epilogue else "i64 begin, i64 end"
        with self.block(f"void {self.name}(void* const* ptr, const i64* n, {tail})"):
            if self.epilogue:
                self._tiles()
            elif self.kernel.reduce < 0:
                self._runs()
            elif self.kernel.reduce == self.inner:
                self._rows()
            else:
                self._columns()
            if any(p.stream for p in self.kernel.params):
                self.line("STREAM_END();")
        return "\n".join(self.lines) + "\n"

    # -- operands

    def vector(self, name: str) -> str:
        return s.vector_type(self.kernel.dtypes[name], self.wide)

    def scalar(self, name: str) -> str:
        return C_TYPES[self.kernel.dtypes[name]]

    def stride(self, p: Param, axis: int) -> str:
        position = self.rank + sum(len(q.strides) for q in self.kernel.params[: self.number[p.name]]) + axis
        return f"n[{position}]"

    def _pointers(self, axes: Sequence[int], names: dict[int, str], base: str = "") -> None:
        """Declares every operand's pointer at the current indices of `axes`."""
        for p in self.kernel.params:
            if p.kind == "scalar":
                continue
            constant = "const " if p.kind == "in" else ""
            offset = "".join(f" + {names[a]} * {self.stride(p, a)}" for a in axes)
            self.line(
                f"{constant}{self.scalar(p.name)}* p{p.name} = ({constant}{self.scalar(p.name)}*)ptr[{self.number[p.name]}]{offset};"
            )

    def _indices(self, of: str, axes: Sequence[int], innermost: str = "") -> dict[int, str]:
        """Splits the number `of` into indices of `axes`, the last running fastest (but for `innermost` parts of a run)."""
        self.line(f"i64 q = {of};")
        if innermost:
            self.line(f"const i64 part = q % {innermost};")
            self.line(f"q /= {innermost};")
        names = {}
        for k, axis in reversed(list(enumerate(axes))):
            names[axis] = f"x{axis}"
            if k == 0:
                self.line(f"const i64 x{axis} = q;")
            else:
                self.line(f"const i64 x{axis} = q % n[{axis}];")
                self.line(f"q /= n[{axis}];")
        return names

    def _scalars(self) -> None:
        for p in self.kernel.params:
            if p.kind == "scalar":
                self.line(
                    f"const {self.vector(p.name)} {p.name} = SPLAT({self.vector(p.name)}, *(const {self.scalar(p.name)}*)ptr[{self.number[p.name]}]);"
                )

    def _splats(self, params: Iterable[Param]) -> None:
        for p in params:
            self.line(f"const {self.vector(p.name)} {p.name} = SPLAT({self.vector(p.name)}, *p{p.name});")

    # -- the four loop nests

    def _runs(self) -> None:
        """A map: runs along the innermost axis, long ones in chunks."""
        outer = range(self.inner)
        self._scalars()
        self._buffers(self.kernel.params)
        self._row_buffers()
        size = chunk(self.kernel)
        chunked = self.kernel.axes[self.inner].extent > size
        if chunked:
            self.line(f"const i64 parts = (n[{self.inner}] + {size - 1}) / {size};")
        with self.block("for (i64 r = begin; r < end; ++r)"):
            names = self._indices("r", list(outer), "parts" if chunked else "")
            self._pointers(list(outer), names)
            self.line(f"const i64 start = {f'part * {size}' if chunked else '0'};")
            self.line(f"const i64 stop = {f'MIN(n[{self.inner}], start + {size})' if chunked else f'n[{self.inner}]'};")
            row = "(r / parts)" if chunked else "r"
            self._one_run("start", "stop", f"{row} * n[{self.inner}] + j")

    def _tiles(self) -> None:
        """An epilogue: the rectangle [i0, i1) x [j0, j1) of matrix b."""
        row = self.inner - 1
        self._scalars()
        self._buffers(self.kernel.params)
        self._row_buffers()
        names = self._indices("b", list(range(row)))
        names[row] = "i"
        with self.block("for (i64 i = i0; i < i1; ++i)"):
            self._pointers(list(range(self.inner)), names)
            self._one_run("j0", "j1", "")

    def _one_run(self, start: str, stop: str, index: str) -> None:
        """All stores of a map kernel along one run: in one loop, or in several over blocks when the body is long."""
        self._streams(start)
        self._splats(p for p in self.kernel.params if p.kind in ("in", "inout") and self._is_one(p))
        known = {p.name for p in self.kernel.params}
        if not self.segments:
            self._sweep(start, stop, known, self.stores, [], [], index)
            return
        with self.block(f"for (i64 block = {start}; block < {stop}; block += {SEGMENT_BLOCK})"):
            self.line(f"const i64 end = MIN({stop}, block + {SEGMENT_BLOCK});")
            for keeps in self.segments:
                self._sweep("block", "end", known, [], [], keeps, index)
                known.update(keeps)
            self._sweep("block", "end", known, self.stores, [], [], index)

    def _segments(self) -> list[list[str]]:
        """For every segment but the last the values that later ones need. Stores come last: they may hit operands."""
        maps = [m for m in self.kernel.body if isinstance(m, Map)]
        weights = [weight(m.op, _dtypes(self.kernel, m.args)) for m in maps]
        count = -(-sum(weights) // SEGMENT)
        if self.kernel.reduce >= 0 or count < 2:
            return []
        ends, done = [], 0
        for k, w in enumerate(weights):
            done += w
            if done * count >= sum(weights) * (len(ends) + 1):
                ends.append(k + 1)
        stored = {x.value for x in self.stores}
        segments, begin = [], 0
        for end in ends[:-1]:
            later = {a for m in maps[end:] for a in m.args} | stored
            segments.append([name for m in maps[begin:end] for name in m.names if name in later])
            begin = end
        return segments

    def _rows(self) -> None:
        """A reduction along the innermost axis: sweeps over the row, with what they keep between them."""
        self._scalars()
        self._buffers(p for p in self.kernel.params if self.kernel.at_points(p))
        self._row_buffers()
        self.line(f"const i64 count = n[{self.inner}];")
        with self.block("for (i64 r = begin; r < end; ++r)"):
            outer = list(range(self.inner))
            self._pointers(outer, self._indices("r", outer))
            self._streams("0")
            self._splats(p for p in self.kernel.params if p.kind in ("in", "inout") and not self.kernel.at_points(p))
            known = {p.name for p in self.kernel.params}
            for phase in range(self.kernel.last_sweep + 1):
                self._kept_values(phase, known)
                self._row_sweep(phase, known)
            self._kept_values(self.kernel.last_sweep + 1, known)
            for store in self.stores:
                if not self.kernel.at_points(self.params[store.param]):
                    self.line(f"*p{store.param} = {store.value}[0];")

    def _row_buffers(self) -> None:
        size = _capacity(self.kernel) if self.kernel.reduce >= 0 else SEGMENT_BLOCK
        for name in self.kept:
            self.line(f"{self.scalar(name)} row_{name}[{size}] __attribute__((aligned(64)));")

    def _place(self, name: str) -> str:
        """Where a kept value's vector lies."""
        return f"row_{name} + j" + (" - block" if self.segments else "")

    def _kept_values(self, phase: int, known: set[str]) -> None:
        """Row values that are needed, and known, before a sweep begins: the same value in every lane."""
        wanted = [
            name
            for name in self.maps
            if name not in self.kernel.point_names and self.kernel.phases[name] == phase and self._is_needed(name)
        ]
        for name, result in zip(wanted, self._compute(wanted, known, ""), strict=True):
            self.line(f"const {self.vector(name)} {name} = {result};")
        known.update(wanted)

    def _is_needed(self, name: str) -> bool:
        """Whether a row value reaches a point, a reduction or a store (others are parts of those)."""
        used = {x.value for x in self.stores} | {x.arg for x in self.reduces}
        for made, m in self.maps.items():
            if made in self.kernel.point_names or self.kernel.phases[made] > self.kernel.phases[name]:
                used.update(a for a in m.args if isinstance(a, str))
        return name in used

    def _row_sweep(self, phase: int, known: set[str]) -> None:
        phases = self.kernel.phases
        stores = [x for x in self.stores if self.kernel.store_phases.get(x.param) == phase]
        reduces = [r for r in self.reduces if phases[r.arg] == phase]
        keeps = [name for name in self.kept if phases[name] == phase]
        if not reduces:
            self._sweep("0", "count", known, stores, [], keeps, f"r * n[{self.inner}] + j")
        elif self.kernel.axes[self.inner].extent <= BLOCK:
            self._lane_sweep("0", "count", known, stores, reduces, keeps)
            for r in reduces:
                self._known_reduction(r, f"{self._reducer(r)}_lanes({self._lane_names(r)})")
        else:
            self._block_sweep(phase, known, stores, reduces, keeps)
        known.update(keeps)
        known.update(r.name for r in reduces)

    def _block_sweep(
        self, phase: int, known: set[str], stores: list[Store], reduces: list[Reduce], keeps: list[str]
    ) -> None:
        """Blocks of 512, their results combined in adjacent pairs."""
        for r in reduces:
            self.line(f"{self.scalar(r.name)} {r.name}_stack[48];")
        depth = f"depth{phase}"
        self.line(f"int {depth} = 0;")
        with self.block(f"for (i64 block = 0; block < count; block += {BLOCK})"):
            self.line(f"const i64 stop = MIN(count, block + {BLOCK});")
            self._lane_sweep("block", "stop", known, stores, reduces, keeps)
            for r in reduces:
                last = f"{depth} = " if r is reduces[-1] else ""
                lanes = f"{self._reducer(r)}_lanes({self._lane_names(r)})"
                self.line(f"{last}{self._reducer(r)}_push({r.name}_stack, {depth}, block / {BLOCK}, {lanes});")
        for r in reduces:
            self.line(f"{self.scalar(r.name)} {r.name}_total = {r.name}_stack[{depth} - 1];")
            two = f"{self._reducer(r)}_two({r.name}_stack[d], {r.name}_total)"
            self.line(f"for (int d = {depth} - 2; d >= 0; --d) {r.name}_total = {two};")
            self._known_reduction(r, f"{r.name}_total")

    def _lane_sweep(
        self, start: str, stop: str, known: set[str], stores: list[Store], reduces: list[Reduce], keeps: list[str]
    ) -> None:
        """Vectors combined into 32 lanes. The vectors of lanes take turns: the one that is next is always the first."""
        for r in reduces:
            neutral = s.literal(NEUTRAL[r.reducer], self.kernel.dtypes[r.arg])
            vector = self.vector(r.name)
            self.line(f"{vector} {', '.join(f'{r.name}_{k} = SPLAT({vector}, {neutral})' for k in range(self.turns))};")
        self.line(f"i64 {start}_j = {start};" if start != "0" else f"i64 j_{reduces[0].name} = 0;")
        j = f"{start}_j" if start != "0" else f"j_{reduces[0].name}"
        with self.block(f"for (; {j} < {stop}; {j} += {self.lanes})"):
            self.line(f"const i64 j = {j};")
            self._vector_body(known, stores, reduces, keeps, f"r * n[{self.inner}] + j", stop)
        with self.block(f"for (; ({j} - {start}) % {LANES} != 0; {j} += {self.lanes})"):
            for r in reduces:
                self._turn(r, f"{r.name}_0")

    def _turn(self, r: Reduce, first: str) -> None:
        """Moves every vector of lanes one place up; `first`, the one whose turn it was, goes to the end."""
        self.line(f"const {self.vector(r.name)} {r.name}_was = {first};")
        for k in range(self.turns - 1):
            self.line(f"{r.name}_{k} = {r.name}_{k + 1};")
        self.line(f"{r.name}_{self.turns - 1} = {r.name}_was;")

    def _lane_names(self, r: Reduce) -> str:
        return ", ".join(f"{r.name}_{k}" for k in range(self.turns))

    def _known_reduction(self, r: Reduce, value: str) -> None:
        self.line(f"const {self.vector(r.name)} {r.name} = SPLAT({self.vector(r.name)}, {value});")

    def _reducer(self, r: Reduce) -> str:
        return _reducer_name(r.reducer, self.kernel.dtypes[r.arg], self.wide)

    def _columns(self) -> None:
        """A reduction along an outer axis: a few vectors of columns at a time, their 32 lanes in L1."""
        axis, width = self.kernel.reduce, f"({COLUMNS} * {self.lanes})"
        outer = [a for a in range(self.inner) if a != axis]
        self._scalars()
        self._buffers(self.kernel.params)
        for r in self.reduces:
            scalar = self.scalar(r.name)
            self.line(f"{scalar} {r.name}_lanes[{LANES}][{COLUMNS} * {self.lanes}] __attribute__((aligned(64)));")
            self.line(f"{scalar} {r.name}_stack[40][{COLUMNS} * {self.lanes}] __attribute__((aligned(64)));")
        self.line(f"const i64 count = n[{axis}], parts = (n[{self.inner}] + {width} - 1) / {width};")
        with self.block("for (i64 r = begin; r < end; ++r)"):
            names = self._indices("r", outer, "parts")
            self.line(f"const i64 start = part * {width}, stop = MIN(n[{self.inner}], start + {width});")
            self._pointers(outer, names)
            self.line("int depth = 0;")
            with self.block(f"for (i64 block = 0; block < count; block += {BLOCK})"):
                self._column_block(axis)
            self._column_results()

    def _column_block(self, axis: int) -> None:
        width = f"{COLUMNS} * {self.lanes}"
        for r in self.reduces:
            neutral = s.literal(NEUTRAL[r.reducer], self.kernel.dtypes[r.arg])
            with self.block(f"for (int l = 0; l < {LANES} * {width}; l += {self.lanes})"):
                self.line(
                    f"STORE({self.vector(r.name)}, {r.name}_lanes[0] + l, SPLAT({self.vector(r.name)}, {neutral}));"
                )
        known = {p.name for p in self.kernel.params}
        with self.block(f"for (i64 i = block; i < MIN(count, block + {BLOCK}); ++i)"):
            for p in self.kernel.params:
                if self.kernel.at_points(p):
                    constant = "const " if p.kind == "in" else ""
                    self.line(f"{constant}{self.scalar(p.name)}* q{p.name} = p{p.name};")
                    self.line(f"{constant}{self.scalar(p.name)}* p{p.name} = q{p.name} + i * {self.stride(p, axis)};")
            points = [p for p in self.kernel.params if p.kind in ("in", "inout")]
            self._splats(p for p in points if self._is_one(p))
            stores = [x for x in self.stores if self.kernel.at_points(self.params[x.param])]
            self._sweep("start", "stop", known, stores, self.reduces, [], "")
        for r in self.reduces:
            self._fold_columns(r)
        self.line(f"for (i64 k = block / {BLOCK}; k & 1; k >>= 1) --depth;")
        self.line("++depth;")

    def _fold_columns(self, r: Reduce) -> None:
        """Halves the lanes of every column and combines the block with its neighbours."""
        f = self._reducer(r)
        vector, width = self.vector(r.name), f"{COLUMNS} * {self.lanes}"
        with (
            self.block(f"for (int h = {LANES // 2}; h > 0; h /= 2)"),
            self.block(f"for (int l = 0; l < h * {width}; l += {self.lanes})"),
        ):
            self.line(f"{self.scalar(r.name)}* x = {r.name}_lanes[0] + l;")
            self.line(f"STORE({vector}, x, {f}(LOAD({vector}, x), LOAD({vector}, x + h * {width})));")
        with self.block(f"for (int l = 0; l < {width}; l += {self.lanes})"):
            self.line(f"{vector} x = LOAD({vector}, {r.name}_lanes[0] + l);")
            self.line("int d = depth;")
            self.line(
                f"for (i64 k = block / {BLOCK}; k & 1; k >>= 1) x = {f}(LOAD({vector}, {r.name}_stack[--d] + l), x);"
            )
            self.line(f"STORE({vector}, {r.name}_stack[d] + l, x);")

    def _column_results(self) -> None:
        """The whole tree of every column, and what is computed from it."""
        stores = [x for x in self.stores if not self.kernel.at_points(self.params[x.param])]
        loads = self._loads({x.value for x in stores}, {r.name for r in self.reduces} | set(self.params))
        self._splats(
            self.params[name]
            for name in loads
            if name in self.params and self._is_one(self.params[name]) and self.params[name].kind != "scalar"
        )
        with self.block(f"for (i64 j = start; j < stop; j += {self.lanes})"):
            for r in self.reduces:
                f = self._reducer(r)
                vector = self.vector(r.name)
                self.line(f"{vector} {r.name} = LOAD({vector}, {r.name}_stack[depth - 1] + (j - start));")
                self.line(
                    f"for (int d = depth - 2; d >= 0; --d) {r.name} = {f}(LOAD({vector}, {r.name}_stack[d] + (j - start)), {r.name});"
                )
            known = set(self.params) | {r.name for r in self.reduces}
            self._vector_body(known, stores, [], [], "", "stop")

    # -- one sweep

    def _sweep(
        self,
        start: str,
        stop: str,
        known: set[str],
        stores: list[Store],
        reduces: list[Reduce],
        keeps: list[str],
        index: str,
        end: str = "",
    ) -> None:
        """Vectors from `start` to `stop`; elements exist up to `end`."""
        with self.block(f"for (i64 j = {start}; j < {stop}; j += {self.lanes})"):
            self._vector_body(known, stores, reduces, keeps, index, end or stop)

    def _vector_body(
        self, known: set[str], stores: list[Store], reduces: list[Reduce], keeps: list[str], index: str, end: str
    ) -> None:
        wanted = list(dict.fromkeys([x.value for x in stores] + [r.arg for r in reduces] + keeps))
        loads = self._loads(wanted, known)
        memory = [self.params[name] for name in loads if name in self.params and not self._is_one(self.params[name])]
        outs = [self.params[x.param] for x in stores]
        self.line(f"const i64 rest = {end} - j;")
        self._vector_pointers(memory, outs)
        for p in memory:
            self.line(f"const {self.vector(p.name)} {p.name} = LOAD({self.vector(p.name)}, x{p.name});")
        for name in loads:
            if name in self.kept:
                self.line(f"const {self.vector(name)} {name} = LOAD({self.vector(name)}, {self._place(name)});")
        if index and self._reads_index(wanted, known):
            self.line(f"const i64 first = {index};")
        results = dict(zip(wanted, self._compute(wanted, known, "first"), strict=True))
        for name in keeps:
            self.line(f"STORE({self.vector(name)}, {self._place(name)}, {results[name]});")
        for x in stores:
            self._store(self.params[x.param], results[x.value])
        for r in reduces:
            self._accumulate(r, results[r.arg])
        self._copy_back(outs)

    def _loads(self, wanted: Iterable[str], known: set[str]) -> list[str]:
        """The known names that `wanted` is computed from, as far as they must be loaded here."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in known:
                found[name] = None
            else:
                stack.extend(a for a in self.maps[name].args if isinstance(a, str))
        return [name for name in found if name in self.params or name in self.kept]

    def _vector_pointers(self, ins: list[Param], outs: list[Param]) -> None:
        """Where this vector's operands are: in place, or in buffers beyond the end of the run or when apart."""
        self.line(f"const i64 some = MIN(rest, {self.lanes});") if any(
            not self._is_run(p) for p in [*ins, *outs]
        ) else None
        for p in ins:
            if self._is_run(p):
                self.line(f"const {self.scalar(p.name)}* x{p.name} = p{p.name} + j;")
            else:
                self.line(f"const {self.scalar(p.name)}* x{p.name} = b{p.name};")
                self.line(
                    f"for (i64 l = 0; l < some; ++l) b{p.name}[l] = p{p.name}[(j + l) * {self.stride(p, self.inner)}];"
                )
        for p in outs:
            self.line(f"{self.scalar(p.name)}* y{p.name} = {f'p{p.name} + j' if self._is_run(p) else f'o{p.name}'};")
        runs_in = [p for p in ins if self._is_run(p)]
        runs_out = [p for p in outs if self._is_run(p)]
        if not runs_in and not runs_out:
            return
        with self.block(f"if (UNLIKELY(rest < {self.lanes}))"):
            for p in runs_in:
                with self.block(f"if (!READABLE(x{p.name}))"):
                    self.line(f"__builtin_memcpy(b{p.name}, x{p.name}, rest * sizeof *x{p.name});")
                    self.line(f"x{p.name} = b{p.name};")
            for p in runs_out:
                self.line(f"y{p.name} = o{p.name};")

    def _copy_back(self, outs: list[Param]) -> None:
        runs = [p for p in outs if self._is_run(p)]
        if runs:
            with self.block(f"if (UNLIKELY(rest < {self.lanes}))"):
                for p in runs:
                    self.line(f"__builtin_memcpy(p{p.name} + j, o{p.name}, rest * sizeof *p{p.name});")
        for p in outs:
            if not self._is_run(p):
                self.line(
                    f"for (i64 l = 0; l < some; ++l) p{p.name}[(j + l) * {self.stride(p, self.inner)}] = o{p.name}[l];"
                )

    def _store(self, p: Param, value: str) -> None:
        vector = self.vector(p.name)
        if p.stream and vector.startswith("v"):
            self.line(f"if (s{p.name} && rest >= {self.lanes}) STREAM({vector}, y{p.name}, {value});")
            self.line(f"else STORE({vector}, y{p.name}, {value});")
        else:
            self.line(f"STORE({vector}, y{p.name}, {value});")

    def _streams(self, start: str) -> None:
        """Streaming stores need aligned addresses: known per run."""
        for p in self.kernel.params:
            if p.stream:
                self.line(
                    f"const int s{p.name} = {int(self._is_run(p))} && (__UINTPTR_TYPE__)(p{p.name} + {start}) % NL_VEC_BYTES == 0;"
                )

    def _accumulate(self, r: Reduce, value: str) -> None:
        dtype = self.kernel.dtypes[r.arg]
        f, vector = self._reducer(r), self.vector(r.name)
        if self.kernel.reduce != self.inner:
            place = f"{r.name}_lanes[(i - block) % {LANES}] + (j - start)"
            self.line(f"STORE({vector}, {place}, {f}(LOAD({vector}, {place}), {value}));")
            return
        integer = s.vector_type(s.INT_OF[dtype], self.wide)
        neutral = s.literal(NEUTRAL[r.reducer], dtype)
        mask = f"FIRST{8 * s.SIZE[dtype]}({integer}, rest)"
        self.line(f"{vector} {r.name}_now = {value};")
        self.line(
            f"if (UNLIKELY(rest < {self.lanes})) {r.name}_now = SELECT({vector}, {integer}, {mask}, {value}, SPLAT({vector}, {neutral}));"
        )
        self._turn(r, f"{f}({r.name}_0, {r.name}_now)")

    def _buffers(self, params: Iterable[Param]) -> None:
        """Where the elements of an incomplete vector, or of one whose elements lie apart, are put together."""
        for p in params:
            if p.kind in ("in", "inout") and not self._is_one(p):
                self.line(f"{self.scalar(p.name)} b{p.name}[{self.lanes}] __attribute__((aligned(64))) = {{0}};")
            if p.kind in ("out", "inout"):
                self.line(f"{self.scalar(p.name)} o{p.name}[{self.lanes}] __attribute__((aligned(64)));")

    def _is_one(self, p: Param) -> bool:
        return _mode(p, self.inner) == "one"

    def _is_run(self, p: Param) -> bool:
        return _mode(p, self.inner) == "run"

    # -- values

    def _kept_between_sweeps(self) -> list[str]:
        """Point values that a later sweep needs and that are dear: kept in a row buffer while that fits into L1."""
        if self.kernel.reduce != self.inner:
            return []
        phases, kept = self.kernel.phases, []
        later = [
            (x.value, self.kernel.store_phases[x.param]) for x in self.stores if x.param in self.kernel.store_phases
        ]
        later += [(r.arg, phases[r.arg]) for r in self.reduces]
        room = ROW_BUFFER_BYTES // _capacity(self.kernel)
        seen: set[tuple[str, int]] = set()
        while later:
            name, sweep = later.pop()
            if name not in self.maps or name not in self.kernel.point_names or (name, sweep) in seen:
                continue
            seen.add((name, sweep))
            if phases[name] < sweep and self._cost(name) > CHEAP:
                size = s.SIZE[self.kernel.dtypes[name]]
                if name not in kept and size <= room:
                    kept.append(name)
                    room -= size
                if name in kept:
                    later.append((name, phases[name]))
                    continue
            later += [(a, sweep) for a in self.maps[name].args if isinstance(a, str)]
        return kept

    def _cost(self, name: str) -> int:
        """Operations to compute a point value from memory and row values."""
        if name not in self.maps or name not in self.kernel.point_names:
            return 0
        m = self.maps[name]
        own = weight(m.op, _dtypes(self.kernel, m.args))
        return own + sum(self._cost(a) for a in m.args if isinstance(a, str)) if own <= CHEAP else own

    def _expressions(self, wanted: Sequence[str], known: set[str]) -> tuple[list[E], list[str]]:
        """`wanted` as expressions over the names they need from outside."""
        names: list[str] = []
        values: dict[str, E] = {}

        def value(a: Arg) -> E:
            if not isinstance(a, str):
                return s.const(a.value, a.dtype)
            if a not in values:
                if a in known or a not in self.maps:
                    values[a] = s.arg(len(names), self.kernel.dtypes[a])
                    names.append(a)
                else:
                    m = self.maps[a]
                    made = ROWS[m.op].expr(*(value(x) for x in m.args))
                    values.update(zip(m.names, made if isinstance(made, tuple) else (made,), strict=True))
            return values[a]

        return [value(name) for name in wanted], names

    def _compute(self, wanted: Sequence[str], known: set[str], index: str) -> list[str]:
        """Writes the statements that compute `wanted`, and names their results."""
        outputs, names = self._expressions(wanted, known)
        self.prefix += 1
        lines, results = s.emit(outputs, names, self.wide, index, f"t{self.prefix}_")
        for text in lines:
            self.line(text)
        return results

    def _reads_index(self, wanted: Sequence[str], known: set[str]) -> bool:
        return s.reads_index(self._expressions(wanted, known)[0])
