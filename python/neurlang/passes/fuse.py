"""Fusion: from a graph to a schedule of generated kernels and native calls.

Every node begins as a group of its own; groups merge along what they share. A group is one loop nest over one index
space, counted by its row-major index: two accesses fit when they are the same function of that index, whatever shapes
they were written with. A group with a reduction has two levels, all points and what the reduction keeps; groups over
the kept elements join it at that level.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..ir.graph import Access, Const, Graph, Node, Operand, Scalar, count, predecessors
from ..ir.kernel import (
    REDUCERS,
    Axis,
    Form,
    Kernel,
    KernelStep,
    Map,
    NativeStep,
    Param,
    Reduce,
    Schedule,
    Statement,
    Step,
    Store,
    Tile,
    cuts,
    extents,
    finished_matrix,
    is_chain,
    is_shallow,
    lift,
    linear_form,
    strides_over,
)
from ..ir.nesting import ordered_axes, reduced_across, turned
from ..ir.types import DTYPES, row_exprs
from ..ops import scalar as s
from . import prologue

MAX_NODES = 96  # of one kernel: beyond, registers spill and nothing is gained
MAX_STORAGES = 96  # that one kernel touches, its own intermediates included
WINDOW = 2048  # nodes that are looked at together: the order of merged groups is kept as bit sets
MAX_NEIGHBOURS = 16  # users of one storage that a node tries to join
SERIAL_ELEMENTS = (
    1 << 16
)  # a reduction with more behind too few independent results is better split by the native kernel


@dataclass(frozen=True, slots=True)
class Touch:
    """One access of one node, as a function of its group's index."""

    node: int
    access: Access
    form: Form
    write: bool
    kept: bool  # at the level of what the reduction keeps


@dataclass(eq=False)
class Group:
    """Nodes that will be one step."""

    nodes: list[int]
    touches: list[Touch]
    numel: int
    cuts: frozenset[int]
    reduce: tuple[int, int] | None = None  # (extent, elements behind) of the reduced axis
    native: bool = False
    index: bool = False  # reads the row-major index, which only a plain map has at hand
    fixed: frozenset[int] = frozenset()  # the cuts of matrices in whose rectangles it runs, of a contraction's result
    prologues: tuple[Group, ...] = ()  # of a contraction: what makes its operands
    mask: int = 0  # bit set of its nodes
    before: int = 0  # of the nodes of groups that must run before
    after: int = 0
    places: dict[int, set[tuple[Form, int, str]]] = field(default_factory=dict)  # storage -> how it is touched
    written: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for t in self.touches:
            self.places.setdefault(t.access.storage, set()).add((t.form, t.access.offset, t.access.dtype))
            if t.write:
                self.written.add(t.access.storage)


def fuse(graph: Graph) -> Schedule:
    """Groups the nodes and turns every group into a step."""
    order, users = predecessors(graph), _users(graph)
    steps: list[Step] = []
    for begin in range(0, len(graph.nodes), WINDOW):
        steps += _Fusion(graph, order, users, range(begin, min(begin + WINDOW, len(graph.nodes)))).steps()
    return Schedule(graph.storages, tuple(_named(steps)))


class _Fusion:
    """The groups of a window of a graph's nodes while they grow. Earlier windows have run, later ones have not."""

    def __init__(
        self, graph: Graph, order: list[set[int]], users: list[tuple[list[int], list[int]]], window: range
    ) -> None:
        self.graph, self.users, self.window = graph, users, window
        self.of = {number: _group(number, graph.nodes[number]) for number in window}
        self.groups = list(self.of.values())
        self.is_native = {number: g.native for number, g in self.of.items()}
        self._close_order({number: [p for p in order[number] if p in self.of] for number in window})

    def _close_order(self, preds: dict[int, list[int]]) -> None:
        """What must run before and after each node, as bit sets."""
        for number in self.window:
            group = self.of[number]
            group.mask = self._bit(number)
            for p in preds[number]:
                group.before |= self._bit(p) | self.of[p].before
        for number in reversed(self.window):
            for p in preds[number]:
                self.of[p].after |= self._bit(number) | self.of[number].after

    def _bit(self, number: int) -> int:
        return 1 << (number - self.window.start)

    # -- merging

    def steps(self) -> Iterator[Step]:
        for number in self.window:
            if not self.of[number].native:
                self._grow(number)
        for number in self.window:
            node = self.graph.nodes[number]
            if node.kind == "contract" and node.outs[0].numel > 0:
                self._attach_epilogue(number)
        for number in self.window:
            if self.graph.nodes[number].op == "matmul":
                self._attach_prologues(number)
        for group in self._ordered():
            yield from self._step(group)

    def _grow(self, number: int) -> None:
        tried: set[int] = set()
        for neighbour in self._neighbours(number):
            group, other = self.of[number], self.of[neighbour]
            if other is not group and not other.native and id(other) not in tried and not self._try_merge(other, group):
                tried.add(id(other))

    def _neighbours(self, number: int) -> list[int]:
        """Earlier nodes that touch the same memory, latest first."""
        node = self.graph.nodes[number]
        found: set[int] = set()
        for access in (*node.reads(), *node.outs):
            for users in self.users[access.storage]:
                end = bisect_left(users, number)
                found.update(n for n in users[max(end - MAX_NEIGHBOURS, 0) : end] if n in self.of)
        return sorted(found, reverse=True)

    def _may_join(self, a: Group, b: Group) -> bool:
        if len(a.nodes) + len(b.nodes) > MAX_NODES or len(a.places.keys() | b.places.keys()) > MAX_STORAGES:
            return False
        between = a.after & b.before | b.after & a.before
        return not between & ~(a.mask | b.mask)

    def _try_merge(self, a: Group, b: Group) -> bool:
        if not self._may_join(a, b):
            return False
        for x, y in ((a, b), (b, a)):
            merged = _fit(x, y)
            if merged is not None:
                self._replace(a, b, merged)
                return True
        return False

    def _replace(self, a: Group, b: Group, merged: Group) -> None:
        merged.nodes = sorted(a.nodes + b.nodes)
        merged.mask = a.mask | b.mask
        merged.before = (a.before | b.before) & ~merged.mask
        merged.after = (a.after | b.after) & ~merged.mask
        self.groups[self.groups.index(a)] = merged
        self.groups.remove(b)
        for number in merged.nodes:
            self.of[number] = merged
        for g in self.groups:
            if g.mask & merged.after:
                g.before |= merged.mask | merged.before
            elif g.mask & merged.before:
                g.after |= merged.mask | merged.after

    def _attach_epilogue(self, number: int) -> None:
        """Merges a loop over a contraction's result into it, to run on tiles or rows that are still in cache."""
        native = self.of[number]
        out = self.graph.nodes[number].outs[0]
        if len(native.nodes) > 1 or not (out.contiguous or out.channels_last):
            return
        for reader in self.users[out.storage][1]:
            group = self.of.get(reader)
            if group is None or group.native or reader < number:
                continue
            if group.reduce is not None and not self._gives_rows(number, group):
                continue
            if self._try_merge(native, group):
                return

    def _gives_rows(self, number: int, loop: Group) -> bool:
        """Whether a contraction finishes rows; a native reduction alone is as fast, and waits for no compiler."""
        node = self.graph.nodes[number]
        return node.op == "matmul" and node.outs[0].contiguous and (len(loop.nodes) > 1 or is_shallow(node))

    def _attach_prologues(self, number: int) -> None:
        """Merges the maps that make a product's operands into it, to run where they are packed."""
        node = self.graph.nodes[number]
        for side, x in enumerate(node.reads()):
            native, maps = self.of[number], self._maker(number, x)
            if maps is None or not self._may_join(native, maps):
                continue
            run = min((c for c in maps.cuts if c > 1), default=maps.numel)
            pays = prologue.pays(node, side, map(self.graph.nodes.__getitem__, maps.nodes), run)
            merged = _fit_prologue(native, maps, x) if pays else None
            if merged is not None:
                self._replace(native, maps, merged)

    def _maker(self, number: int, x: Access) -> Group | None:
        """The group that makes a node's operand, and nothing else that anybody sees, when nobody else sees that."""
        storage, (writers, readers) = self.graph.storages[x.storage], self.users[x.storage]
        maps = self.of.get(writers[-1]) if writers else None
        if storage.outside or maps is None or maps.native or not set(maps.nodes).issuperset(writers):
            return None
        seen = {i for i in maps.written if _is_seen(self.graph, self.users, i, maps.nodes)}
        alone = seen == {x.storage} and [r for r in readers if r not in maps.nodes] == [number]
        made = next(y for y in self.graph.nodes[writers[-1]].outs if y.storage == x.storage)
        return maps if alone and made.value == x.value and made.whole(storage) else None

    # -- steps

    def _step(self, group: Group) -> Iterator[Step]:
        node = self.graph.nodes[group.nodes[0]]
        if group.native:
            yield from self._native_step(group)
        elif len(group.nodes) == 1 and node.kind == "reduce":
            yield NativeStep(node)
        else:
            yield _Builder(self.graph, group, self.users).step(group.nodes)

    def _native_step(self, group: Group) -> Iterator[Step]:
        """The hand-written kernel, with what was merged into it; none when there is nothing to do."""
        nodes = self.graph.nodes
        native = next(n for n in group.nodes if self.is_native[n])
        before = {n for p in group.prologues for n in p.nodes}
        maps = [n for n in group.nodes if n != native and n not in before]
        if group.prologues or maps:
            prologues = tuple(_Builder(self.graph, p, self.users).step(p.nodes) for p in group.prologues)
            epilogue = _Builder(self.graph, group, self.users).step(maps) if maps else None
            if epilogue is not None and nodes[native].outs[0].channels_last:
                epilogue = turned(epilogue)  # pixels are the rows of its rectangles
            yield NativeStep(nodes[native], epilogue, prologues)
        elif nodes[native].op != "empty" and any(x.numel for x in nodes[native].outs):
            yield NativeStep(nodes[native])

    def _ordered(self) -> list[Group]:
        """Groups in an order in which they may run: by the first node, among those that are ready."""
        waiting = sorted(self.groups, key=lambda g: g.nodes[0])
        done, ordered = 0, []
        while waiting:
            ready = next(g for g in waiting if not g.before & ~done)
            waiting.remove(ready)
            ordered.append(ready)
            done |= ready.mask
        return ordered


def _named(steps: Iterable[Step]) -> Iterator[Step]:
    """Gives the kernels names: k0, k1, …"""
    numbers = itertools.count()

    def named(step: KernelStep) -> KernelStep:
        return replace(step, kernel=replace(step.kernel, name=f"k{next(numbers)}"))

    for step in steps:
        if isinstance(step, KernelStep):
            yield named(step)
        else:
            prologues = tuple(map(named, step.prologues))
            yield replace(step, prologues=prologues, epilogue=named(step.epilogue) if step.epilogue else None)


def _users(graph: Graph) -> list[tuple[list[int], list[int]]]:
    """For every storage the numbers of the nodes that write and that read it."""
    users: list[tuple[list[int], list[int]]] = [([], []) for _ in graph.storages]
    for number, node in enumerate(graph.nodes):
        for access in node.reads():
            users[access.storage][1].append(number)
        for access in node.outs:
            users[access.storage][0].append(number)
    return users


# ---- groups of one node -----------------------------------------------------------------------------------------


def _group(number: int, node: Node) -> Group:
    if _is_map(node):
        return _over(number, node, node.outs[0].shape, None)
    if node.kind == "reduce" and _is_fusible_reduce(node):
        (x,) = node.reads()
        axis = node.attrs[0] % len(x.shape)
        return _over(number, node, x.shape, (x.shape[axis], count(x.shape[axis + 1 :])))
    return _native(number, node)


def _is_map(node: Node) -> bool:
    return node.kind == "map" and node.outs[0].numel > 0


def _is_fusible_reduce(node: Node) -> bool:
    (x,) = node.reads()
    extent = x.shape[node.attrs[0]]
    if node.op not in REDUCERS or x.dtype not in ("f32", "f64") or extent < 2 or x.numel == 0:
        return False
    behind = count(x.shape[node.attrs[0] % len(x.shape) + 1 :])
    results = x.numel // extent if behind == 1 else max(x.numel // extent // 64, 1)
    return x.numel <= SERIAL_ELEMENTS or results >= 4


def _reads_index(node: Node) -> bool:
    return node.kind == "map" and s.reads_index(row_exprs(node.op, tuple(x.dtype for x in node.ins)))


def _over(number: int, node: Node, shape: tuple[int, ...], reduce: tuple[int, int] | None) -> Group:
    touches = [Touch(number, x, linear_form(shape, x), False, False) for x in node.reads()]
    touches += [Touch(number, x, linear_form(shape, x), True, reduce is not None) for x in node.outs]
    return Group([number], touches, count(shape), _all_cuts(touches, reduce), reduce, index=_reads_index(node))


def _native(number: int, node: Node) -> Group:
    out = node.outs[0]
    touches = [Touch(number, x, linear_form(x.shape, x), write, False) for x, write in _accesses(node)]
    rows, inner = finished_matrix(node)
    in_tiles = node.kind == "contract" and not DTYPES[out.dtype].wide  # a narrow result is rounded behind its tiles
    fixed = frozenset({inner, inner * rows}) if in_tiles else frozenset()
    return Group([number], touches, out.numel, frozenset(), native=True, fixed=fixed)


def _accesses(node: Node) -> Iterator[tuple[Access, bool]]:
    yield from ((x, False) for x in node.reads())
    yield from ((x, True) for x in node.outs)


def _all_cuts(touches: Iterable[Touch], reduce: tuple[int, int] | None) -> frozenset[int]:
    found = frozenset[int]().union(*(cuts(t.form) for t in touches))
    return found | {reduce[1], reduce[0] * reduce[1]} if reduce else found


# ---- fitting two groups together --------------------------------------------------------------------------------


def _fit(a: Group, b: Group) -> Group | None:
    """The group of both, with `b` at a's points or among a's kept elements; None when they do not fit."""
    if a.native:
        return _fit_epilogue(a, b)
    if b.native:
        return None
    touches = _aligned(a, b)
    if touches is None:
        return None
    reduce = a.reduce or b.reduce
    if reduce is not None and (a.index or b.index):
        return None
    cut = a.cuts | _all_cuts(touches, b.reduce)
    merged = Group([], a.touches + touches, a.numel, cut, reduce, index=a.index or b.index)
    if not is_chain(merged.cuts) or not _same_elements(a, touches):
        return None
    return merged if reduce is None or _reduction_fits(merged) else None


def _aligned(a: Group, b: Group) -> list[Touch] | None:
    """b's touches as functions of a's index, when the index spaces correspond."""
    if a.numel == b.numel and (a.reduce is None or b.reduce is None or a.reduce == b.reduce):
        return b.touches
    if a.reduce is None or b.reduce is not None or b.numel * a.reduce[0] != a.numel:
        return None
    touches = []
    for t in b.touches:
        form = lift(t.form, *a.reduce)
        if form is None:
            return None
        touches.append(Touch(t.node, t.access, form, t.write, True))
    return touches


def _same_elements(a: Group, touches: list[Touch]) -> bool:
    """Whether every storage that one side writes and both touch is touched at the same element for the same index."""
    b = Group([], touches, a.numel, frozenset())
    shared = a.places.keys() & b.places.keys()
    return all(len(a.places[x] | b.places[x]) == 1 for x in shared if x in a.written or x in b.written)


def _reduction_fits(g: Group) -> bool:
    """The reduced axis is whole, and results of a reduction over an outer axis are not needed in the same sweep."""
    assert g.reduce is not None
    extent, behind = g.reduce
    if any(behind < c < behind * extent for c in g.cuts):
        return False
    if behind == 1:
        return True
    kept_writes = {t.access.storage for t in g.touches if t.kept and t.write}
    return not any(t.access.storage in kept_writes for t in g.touches if not t.kept)


def _fit_epilogue(native: Group, loop: Group) -> Group | None:
    """A contraction with a loop over its result, when that touches its operands in no other way."""
    if not native.fixed or loop.native or loop.index or loop.numel != native.numel:
        return None
    if not (_runs_on_tiles(native, loop) if loop.reduce is None else _runs_on_rows(native, loop)):
        return None
    operands = {t.access.storage for t in native.touches if not t.write}
    if operands & loop.written:
        return None
    result = next(t for t in native.touches if t.write)
    place = {(result.form, result.access.offset, result.access.dtype)}
    if loop.places.get(result.access.storage, place) != place:
        return None
    touches = native.touches + loop.touches
    return Group([], touches, native.numel, loop.cuts, loop.reduce, native=True, fixed=native.fixed)


def _runs_on_tiles(native: Group, maps: Group) -> bool:
    """Whether rectangles of the contraction's matrices are rectangles of the maps."""
    tile = max(native.fixed)
    return all(c in native.fixed or c % tile == 0 for c in maps.cuts) and is_chain(maps.cuts | native.fixed)


def _runs_on_rows(native: Group, loop: Group) -> bool:
    """Whether a row of the contraction's matrices is one or several rows along which the loop reduces."""
    assert loop.reduce is not None
    extent, behind = loop.reduce
    return behind == 1 and min(native.fixed) % extent == 0


def _fit_prologue(native: Group, maps: Group, x: Access) -> Group | None:
    """A product with the maps that make its operand `x`, when neither writes what the other touches."""
    matrix = prologue.matrix(x)
    if matrix is None or maps.reduce is not None or maps.index:
        return None
    fixed = frozenset({matrix[1], matrix[0] * matrix[1]})
    along = all(form[-1][1] in (0, 1) for t in maps.touches if (form := t.form))
    if not along or not is_chain(maps.cuts | fixed | {maps.numel}):
        return None
    if maps.written & native.places.keys() != {x.storage} or native.written & maps.places.keys():
        return None
    before = Group(maps.nodes, maps.touches, maps.numel, maps.cuts, fixed=fixed)
    touches = native.touches + maps.touches
    return replace(native, touches=touches, prologues=(*native.prologues, before), places={}, written=set())


# ---- from a group to a kernel -----------------------------------------------------------------------------------


class _Builder:
    """Writes a group's nodes down as one kernel."""

    def __init__(self, graph: Graph, group: Group, users: list[tuple[list[int], list[int]]]) -> None:
        self.graph, self.group, self.users = graph, group, users
        self.axes = self._axes()
        self.params: dict[tuple, Param] = {}
        self.operands: dict[tuple, Operand] = {}
        self.values: dict[tuple[int, int], str] = {}  # (storage, version) made in the group -> name
        self.body: list[Statement] = []
        self.forms = {(t.node, t.access, t.write): t.form for t in group.touches}

    @property
    def _in_tiles(self) -> bool:
        return bool(self.group.fixed) and self.group.reduce is None

    def _axes(self) -> tuple[int, ...]:
        return tuple(itertools.chain.from_iterable(self._parts()))

    def _parts(self) -> list[tuple[int, ...]]:
        """The axes that number matrices, their rows and their columns, where it runs in rectangles of matrices."""
        if not self._in_tiles:
            return [extents(self.group.numel, self.group.cuts)]
        bounds = [1, min(self.group.fixed), max(self.group.fixed), self.group.numel]
        inside = [{c // low for c in self.group.cuts if low < c < high} for low, high in itertools.pairwise(bounds)]
        sizes = [high // low for low, high in itertools.pairwise(bounds)]
        return [extents(n, c) for n, c in zip(sizes, inside, strict=True)][::-1]

    def _tile(self) -> Tile | None:
        if not self._in_tiles:
            return None
        _, rows, columns = self._parts()
        return Tile(len(rows), len(columns), made=not self.group.native)

    def step(self, numbers: list[int]) -> KernelStep:
        nodes = [self.graph.nodes[n] for n in numbers]
        for number, node in zip(numbers, nodes, strict=True):
            self._statement(number, node)
        self._stores(numbers)
        reduce = self._reduced_axis()
        axes = tuple(Axis(f"i{k}", extent) for k, extent in enumerate(self.axes))
        kernel = Kernel("k", axes, tuple(self.params.values()), tuple(self.body), reduce)
        if reduce < 0 and not self.group.fixed:
            kernel = ordered_axes(kernel, self.group.index)
        if reduce == len(axes) - 1 and kernel.last_sweep == 0 and not self.group.fixed:
            kernel = reduced_across(kernel)
        return KernelStep(kernel, tuple(self.operands.values()), tuple(nodes), self._tile())

    def _reduced_axis(self) -> int:
        if self.group.reduce is None:
            return -1
        size = 1
        for axis in reversed(range(len(self.axes))):
            if size == self.group.reduce[1] and self.axes[axis] == self.group.reduce[0]:
                return axis
            size *= self.axes[axis]
        raise AssertionError("the reduced axis is an axis of the kernel")

    def _statement(self, number: int, node: Node) -> None:
        args = tuple(self._read(number, x) for x in node.ins)
        names = tuple(f"v{len(self.values) + k}" for k in range(len(node.outs)))
        if node.kind == "reduce":
            self.body.append(Reduce(names[0], REDUCERS[node.op], self._named(args[0])))
        else:
            self.body.append(Map(names, node.op, args, node.attrs))
        self.values.update(zip((x.value for x in node.outs), names, strict=True))

    def _named(self, arg: str | Const) -> str:
        assert isinstance(arg, str)
        return arg

    def _read(self, number: int, x: Operand) -> str | Const:
        if isinstance(x, Const):
            return x
        if isinstance(x, Scalar):
            key = ("scalar", x.index, x.dtype)
            return self._param(key, Param(f"c{len(self.params)}", "scalar", x.dtype), x)
        if x.value in self.values:
            return self.values[x.value]
        return self._memory("in", x, self.forms[number, x, False])

    def _memory(self, kind: str, x: Access, form: Form) -> str:
        key = (x.storage, x.offset, form, x.dtype)
        strides = strides_over(form, self.axes)
        return self._param(key, Param(f"{'a' if kind == 'in' else 'o'}{len(self.params)}", kind, x.dtype, strides), x)

    def _param(self, key: tuple, param: Param, operand: Operand) -> str:
        if key not in self.params:
            self.params[key] = param
            self.operands[key] = operand
        return self.params[key].name

    def _stores(self, numbers: list[int]) -> None:
        """Stores the last version of every storage that anything outside of the group looks at."""
        last = {x.storage: (number, x) for number in numbers for x in self.graph.nodes[number].outs}
        for storage, (number, x) in last.items():
            if not _is_seen(self.graph, self.users, storage, self.group.nodes):
                continue
            form = self.forms[number, x, True]
            key = (storage, x.offset, form, x.dtype)
            if key in self.params:
                old = self.params[key]
                self.params[key] = Param(old.name, "inout", old.dtype, old.strides)
                self.operands[key] = x
                name = old.name
            else:
                name = self._memory("out", x, form)
            self.body.append(Store(name, self.values[x.value]))


def _is_seen(graph: Graph, users: list[tuple[list[int], list[int]]], storage: int, inside: Iterable[int]) -> bool:
    """Whether anything but these nodes, an epilogue's with its contraction, looks at a storage."""
    return graph.storages[storage].outside or not set(inside).issuperset(users[storage][1])
