"""Kernel: one loop nest in map-reduce form, and Schedule: the kernels and native calls that a graph becomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from .graph import Access, Const, Node, Operand, Storage, count
from .types import row_dtypes

Form = tuple[
    tuple[int, int], ...
]  # (extent, stride) from the outermost axis in, merged where one stride continues another

REDUCERS = {"sum": "sum", "prod": "prod", "amax": "max", "amin": "min"}  # reduce row -> reducer in the text
LANES = 32  # of T(n), the defined order of sums
BLOCK = 512
SHALLOW, LARGE = 256, 1 << 16  # terms in each sum of a product, and elements


# ---- accesses over one linear index space -----------------------------------------------------------------------


def linear_form(shape: Sequence[int], access: Access) -> Form:
    """`access`, broadcast to `shape`, as a function of the row-major index of `shape`.

    Two accesses have equal forms exactly when they touch the same element for every index, whatever their shapes.
    """
    lead = len(shape) - len(access.shape)
    form: list[tuple[int, int]] = []
    for axis, extent in enumerate(shape):
        if extent == 1:
            continue
        own = axis - lead
        stride = 0 if own < 0 or access.shape[own] == 1 else access.strides[own]
        form.append((extent, stride))
    return merge(form)


def merge(axes: Iterable[tuple[int, int]]) -> Form:
    """Drops axes of extent 1 and merges neighbours that one stride walks through."""
    form: list[tuple[int, int]] = []
    for extent, stride in axes:
        if extent == 1:
            continue
        if form and form[-1][1] == stride * extent:
            form[-1] = (form[-1][0] * extent, stride)
        else:
            form.append((extent, stride))
    return tuple(form)


def cuts(form: Form) -> frozenset[int]:
    """Where the form's axes begin, counted in elements from the innermost end."""
    inside, size = set(), 1
    for extent, _ in reversed(form[1:]):
        size *= extent
        inside.add(size)
    return frozenset(inside)


def is_chain(sizes: Iterable[int]) -> bool:
    """Whether every size divides the next: the sizes are cuts of one common index space."""
    previous = 1
    for size in sorted(sizes):
        if size % previous:
            return False
        previous = size
    return True


def extents(numel: int, sizes: Iterable[int]) -> tuple[int, ...]:
    """The axes of an index space of `numel` elements cut at `sizes`."""
    bounds = [1, *sorted(s for s in sizes if 1 < s < numel), numel]
    return tuple(b // a for a, b in pairwise(bounds))[::-1]


def strides_over(form: Form, axes: Sequence[int]) -> tuple[int, ...]:
    """The strides of `form` over refined axes (whose cuts include the form's)."""
    pieces = list(form)
    strides = []
    extent, stride = pieces.pop() if pieces else (1, 0)
    walked = 1
    for axis in reversed(axes):
        if walked == extent and pieces:
            extent, stride = pieces.pop()
            walked = 1
        strides.append(stride * walked if axis > 1 else 1)
        walked *= axis
    return tuple(reversed(strides))


def lift(form: Form, extent: int, behind: int) -> Form | None:
    """A form over the kept elements of a reduction as one over all elements: stride 0 along the reduced axis.

    The reduced axis has `extent` elements and `behind` elements lie inside of it; None where it falls inside a run.
    """
    axes: list[tuple[int, int]] = []
    size, done = 1, behind == 1
    if done:
        axes.append((extent, 0))
    for length, stride in reversed(form):
        if not done and size * length >= behind:
            inner = behind // size
            if size * inner != behind or length % inner:
                return None
            axes += [(inner, stride), (extent, 0), (length // inner, stride * inner)]
            done = True
        else:
            axes.append((length, stride))
        size *= length
    return merge(reversed(axes))


# ---- kernels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Axis:
    name: str
    extent: int
    length: str = ""  # a scalar operand that holds how much of the extent is in use (ragged rows, cache lengths)


@dataclass(frozen=True, slots=True)
class Param:
    """An operand: strides per axis in elements. `inout` memory is read and then written at the same place."""

    name: str
    kind: str  # in | out | inout | scalar
    dtype: str
    strides: tuple[int, ...] = ()
    stream: bool = False  # nobody reads it soon: write around the cache
    via: str = ""  # an operand of positions through which the first axis goes (indirect rows)


Arg = str | Const


@dataclass(frozen=True, slots=True)
class Map:
    """Elementwise: `names = op(args)`."""

    names: tuple[str, ...]
    op: str
    args: tuple[Arg, ...]
    attrs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reduce:
    """`name = reducer { arg : axis }` over the kernel's reduced axis."""

    name: str
    reducer: str
    arg: str


@dataclass(frozen=True, slots=True)
class Store:
    """`param = value`."""

    param: str
    value: str


Statement = Map | Reduce | Store


@dataclass(frozen=True)
class Kernel:
    """A loop nest over `axes`. With a reduced axis (number `reduce`) values are of every point, or of what is kept."""

    name: str
    axes: tuple[Axis, ...]
    params: tuple[Param, ...]
    body: tuple[Statement, ...]
    reduce: int = -1

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple(a.extent for a in self.axes)

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """The dtype of every name."""
        known = {p.name: p.dtype for p in self.params}
        for s in self.body:
            if isinstance(s, Map):
                ins = [known[a] if isinstance(a, str) else a.dtype for a in s.args]
                known.update(zip(s.names, row_dtypes(s.op, ins), strict=True))
            elif isinstance(s, Reduce):
                known[s.name] = known[s.arg]
        return known

    @cached_property
    def point_names(self) -> frozenset[str]:
        """Names whose value changes along the reduced axis (without one: every name that is not a scalar)."""
        points = {p.name for p in self.params if self.at_points(p)}
        for s in self.body:
            if isinstance(s, Map) and (self.reduce < 0 or self._reads_point(s, points)):
                points.update(s.names)
        return frozenset(points)

    def _reads_point(self, s: Map, points: set[str]) -> bool:
        return any(a in points for a in s.args if isinstance(a, str))

    @cached_property
    def phases(self) -> dict[str, int]:
        """For every name the sweep over the reduced axis after which, or in which, it is known.

        A point value of phase p is computed in sweep p; a kept value of phase p is known before sweep p begins.
        """
        phase = {p.name: 0 for p in self.params}
        for s in self.body:
            if isinstance(s, Map):
                at = max((phase[a] for a in s.args if isinstance(a, str)), default=0)
                phase.update(dict.fromkeys(s.names, at))
            elif isinstance(s, Reduce):
                phase[s.name] = phase[s.arg] + 1
        return phase

    @cached_property
    def store_phases(self) -> dict[str, int]:
        """For every parameter stored at all points the sweep that writes it: the last one if it is also read."""
        params = {p.name: p for p in self.params}
        stores = [s for s in self.body if isinstance(s, Store) and self.at_points(params[s.param])]
        return {s.param: self.last_sweep if params[s.param].kind == "inout" else self.phases[s.value] for s in stores}

    @cached_property
    def last_sweep(self) -> int:
        """The number of the last sweep over the reduced axis."""
        params = {p.name: p for p in self.params}
        ends = [s.value for s in self.body if isinstance(s, Store) and self.at_points(params[s.param])]
        ends += [s.arg for s in self.body if isinstance(s, Reduce)]
        return max((self.phases[name] for name in ends), default=0)

    def at_points(self, param: Param) -> bool:
        """Whether the operand's element changes along the reduced axis."""
        return param.kind != "scalar" and (self.reduce < 0 or param.strides[self.reduce] != 0)

    def __str__(self) -> str:
        from .text import print_kernel

        return print_kernel(self)


# ---- schedules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tile:
    """How a kernel inside of a native step is called: for a rectangle of a matrix, as often as it takes.

    The kernel's last axes are those of the matrix's rows and of its columns, those before number the matrices.
    """

    rows: int = 1  # axes
    columns: int = 1
    made: bool = False  # what the kernel stores lies in no memory: the rectangle goes where the caller says


@dataclass(frozen=True)
class KernelStep:
    """A generated kernel and its operands, in the order of its parameters."""

    kernel: Kernel
    operands: tuple[Operand, ...]
    nodes: tuple[Node, ...]  # what was fused, for people
    tile: Tile | None = None  # of a kernel that is no step of its own

    def __str__(self) -> str:
        return f"// {', '.join(n.op for n in self.nodes)}\n{self.kernel}"


@dataclass(frozen=True)
class NativeStep:
    """One op run by the prebuilt kernel of its row, with a generated kernel on its finished tiles or rows.

    Prologues make operands that do not lie in memory, part by part, where the native kernel packs them.
    """

    node: Node
    epilogue: KernelStep | None = None
    prologues: tuple[KernelStep, ...] = ()

    @property
    def kernels(self) -> tuple[KernelStep, ...]:
        return self.prologues if self.epilogue is None else (*self.prologues, self.epilogue)

    def input_of(self, prologue: KernelStep) -> int:
        """The number of the operand that a prologue makes."""
        (made,) = (x.value for x, write in touched(prologue) if write)
        return next(k for k, x in enumerate(self.node.ins) if isinstance(x, Access) and x.value == made)

    @property
    def ends_in_tiles(self) -> bool:
        """Whether the epilogue is a map, for any rectangle of the result; one with a reduction takes whole rows."""
        return self.epilogue is not None and self.epilogue.tile is not None

    def __str__(self) -> str:
        from .text import print_node

        prologues = "".join(f"{p}\n" for p in self.prologues)
        return f"{prologues}// native\n{print_node(self.node)}\n{self.epilogue or ''}"


Step = KernelStep | NativeStep


def is_shallow(node: Node) -> bool:
    """Whether a node is a product so large, and so soon done, that where the next loop finds its rows shows."""
    return node.op == "matmul" and next(node.reads()).shape[-1] <= SHALLOW and node.outs[0].numel >= LARGE


def finished_matrix(node: Node) -> tuple[int, int]:
    """Rows and columns of the matrices in which a contraction finishes (`Epilogue` in csrc/base/view.hpp)."""
    shape = node.outs[0].shape
    if node.op == "conv2d_weight":
        return shape[0], count(shape[1:])
    lead = 1 if node.op.startswith("conv2d") else len(shape) - 2
    return count(shape[lead : lead + 1]), count(shape[lead + 1 :])


@dataclass(frozen=True)
class Memory:
    """Where the intermediates lie: offsets into the arena, and how good the plan is."""

    offsets: dict[int, int] = field(default_factory=dict)  # storage -> byte offset
    sizes: dict[int, int] = field(default_factory=dict)  # storage -> bytes, rounded to the alignment
    lifetimes: dict[int, tuple[int, int]] = field(default_factory=dict)  # storage -> first and last step
    peak_bytes: int = 0  # the arena's size
    lower_bound: int = 0  # the most bytes alive at one step
    intermediate_bytes: int = 0  # the sum over intermediates, had each its own memory


@dataclass(frozen=True)
class Schedule:
    """Steps in the order in which they run. `home[s]` is the storage in whose memory storage `s` lies."""

    storages: tuple[Storage, ...]
    steps: tuple[Step, ...]
    home: dict[int, int] = field(default_factory=dict)
    memory: Memory | None = None

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))

    @property
    def kernels(self) -> tuple[KernelStep, ...]:
        """Every generated kernel, those inside of native steps included."""
        return tuple(k for step in self.steps for k in ((step,) if isinstance(step, KernelStep) else step.kernels))


def touched(step: Step) -> list[tuple[Access, bool]]:
    """What a step reads (False) and writes (True)."""
    if isinstance(step, KernelStep):
        pairs = zip(step.kernel.params, step.operands, strict=True)
        found = []
        for p, x in pairs:
            if isinstance(x, Access):
                found += [
                    (x, w) for w, kinds in ((False, ("in", "inout")), (True, ("out", "inout"))) if p.kind in kinds
                ]
        return found
    own = [(x, False) for x in step.node.reads()] + [(x, True) for x in step.node.outs]
    prologues = [pair for p in step.prologues for pair in touched(p)]
    made = {x.storage for x, write in prologues if write}  # in no memory
    found = [*own, *prologues, *(touched(step.epilogue) if step.epilogue is not None else [])]
    return [(x, write) for x, write in found if x.storage not in made]
