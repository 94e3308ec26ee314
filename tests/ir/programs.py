"""Random tapes for the compiler's tests: views, broadcasts, writes through views, reductions, contractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neurlang.ir.graph import Graph, contiguous_strides, count, from_tape
from neurlang.ir.types import DTYPES, narrowed, row_dtypes, to_bits
from neurlang.ops.dtypes import wide
from neurlang.ops.table import ROWS

UNARY = (
    "neg",
    "copy",
    "copy",
    "abs",
    "exp",
    "tanh",
    "sigmoid",
    "relu",
    "sqrt",
    "square",
    "floor",
    "gelu",
    "gelu_tanh",
    "sin",
)
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARE = ("lt", "ge", "eq", "ne")
REDUCE = ("sum", "amax", "amin", "prod", "argmax", "any")
CASTS = tuple(f"to_{info.name}" for info in DTYPES.values())
FLOATS = "f16 bf16 f32 f64"
MAX_ELEMENTS = 6000


@dataclass(frozen=True)
class View:
    """A tensor of a tape."""

    slot: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def elements(self) -> np.ndarray:
        """The offsets of its elements in its storage."""
        index = np.full(self.shape, self.offset)
        for axis, stride in enumerate(self.strides):
            steps = np.arange(self.shape[axis]) * stride
            index = index + steps.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return index


@dataclass
class Tape:
    """What the recorder writes: records over slots, with run-time offsets and scalars beside them."""

    records: list[Any] = field(default_factory=list)
    slots: list[tuple[str, int, bool, str]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    scalars: list[int] = field(default_factory=list)
    classes: dict[tuple[int, int], int] = field(default_factory=dict)
    dtypes: list[str] = field(default_factory=list)  # of the slots

    def leaf(self, dtype: str, shape: Sequence[int], live: bool = True) -> View:
        return self._new("leaf", dtype, shape, live)

    def fresh(self, dtype: str, shape: Sequence[int], live: bool = False) -> View:
        return self._new("fresh", dtype, shape, live)

    def _new(self, kind: str, dtype: str, shape: Sequence[int], live: bool) -> View:
        self.dtypes.append(dtype)
        self.slots.append((kind, count(shape) * DTYPES[dtype].itemsize, live, "cpu"))
        return View(len(self.slots) - 1, dtype, tuple(shape), contiguous_strides(shape))

    def scalar(self, value: float, dtype: str) -> tuple[str, int, str]:
        self.scalars.append(to_bits(value, dtype))
        return ("s", len(self.scalars) - 1, dtype)

    def operand(self, x: Any) -> tuple[Any, ...]:
        if not isinstance(x, View):
            return x
        reach = [(n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)]
        size = self.slots[x.slot][1] // DTYPES[x.dtype].itemsize
        offset = -1
        if x.offset != 0 or min(reach, default=0) < 0 or sum(reach) + 1 != size:  # it may start anywhere
            offset = self.classes.setdefault((x.slot, x.offset), len(self.offsets))
            if offset == len(self.offsets):
                self.offsets.append(x.offset)
        return ("t", x.slot, x.dtype, offset, x.shape, x.strides)

    def write(self, op: str, ins: Sequence[Any], outs: Sequence[View], attrs: Sequence[int] = ()) -> None:
        self.records.append((op, [self.operand(x) for x in ins], [self.operand(x) for x in outs], tuple(attrs)))

    def map(self, op: str, *ins: Any) -> View:
        shape = np.broadcast_shapes(*(x.shape for x in ins if isinstance(x, View)))
        dtypes = [x.dtype if isinstance(x, View) else x[2] for x in ins]
        out = self.fresh(row_dtypes(op, dtypes)[0], shape)
        self.write(op, ins, [out])
        return out

    def reduce(self, op: str, x: View, axis: int) -> View:
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        dtype = "i64" if op in ("sum", "prod") and x.dtype[0] != "f" else row_dtypes(op, [x.dtype])[0]
        out = self.fresh(dtype, shape)
        self.write(op, [x], [out], (axis,))
        return out

    def composite(self, op: str, ins: Sequence[View], attrs: Sequence[int]) -> View:
        out = self.fresh(ins[0].dtype, ins[0].shape)
        self.write(op, ins, [out], attrs)
        return out

    def matmul(self, a: View, b: View) -> View:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = expand(a, (*batch, *a.shape[-2:])), expand(b, (*batch, *b.shape[-2:]))
        out = self.fresh(a.dtype, (*batch, a.shape[-2], b.shape[-1]))
        self.write("matmul", [a, b], [out])
        return out

    def keep(self, x: View) -> None:
        """Lets a storage outlive the tape."""
        kind, nbytes, _, device = self.slots[x.slot]
        self.slots[x.slot] = (kind, nbytes, True, device)

    def graph(self) -> Graph:
        return from_tape(self.records, self.slots)

    def leaves(self, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Bytes for every leaf: all dtypes read them as usual numbers."""
        made = {}
        for slot, (kind, nbytes, _, _) in enumerate(self.slots):
            if kind == "leaf":
                dtype = self.dtypes[slot]
                numbers = rng.standard_normal(nbytes // DTYPES[dtype].itemsize) * 2
                scaled = {"bool": numbers > 0, "integer": np.abs(numbers) * 9 if dtype == "u8" else numbers * 5}
                array = scaled.get(DTYPES[dtype].kind, numbers)
                array = narrowed(array, dtype) if dtype == "bf16" else array.astype(DTYPES[dtype].numpy)
                made[slot] = np.ascontiguousarray(array).view(np.uint8)
        return made


# ---- views ------------------------------------------------------------------------------------------------------


def expand(x: View, shape: Sequence[int]) -> View:
    lead = len(shape) - len(x.shape)
    strides = (0,) * lead + tuple(s if n == m else 0 for n, m, s in zip(x.shape, shape[lead:], x.strides, strict=True))
    return replace(x, shape=tuple(shape), strides=strides)


def permute(x: View, order: Sequence[int]) -> View:
    return replace(x, shape=tuple(x.shape[a] for a in order), strides=tuple(x.strides[a] for a in order))


def reshape(x: View, shape: Sequence[int]) -> View:
    assert x.strides == contiguous_strides(x.shape)
    return replace(x, shape=tuple(shape), strides=contiguous_strides(shape))


def narrow(x: View, axis: int, start: int, step: int, length: int) -> View:
    shape, strides = list(x.shape), list(x.strides)
    shape[axis], strides[axis] = length, x.strides[axis] * step
    return replace(x, shape=tuple(shape), strides=tuple(strides), offset=x.offset + start * x.strides[axis])


# ---- random tapes -----------------------------------------------------------------------------------------------


class Generator:
    """Grows a tape op by op."""

    def __init__(self, seed: int, ops: int = 14) -> None:
        self.rng = np.random.default_rng(seed)
        self.tape = Tape()
        self.pool: list[View] = []
        shape = self.shape()
        for _ in range(int(self.rng.integers(2, 5))):
            dtype = str(self.rng.choice(["f32", "f32", *DTYPES]))
            self.pool.append(self.tape.leaf(dtype, self.partner(shape)))
        while len(self.tape.records) < ops:
            self.step()
        for x in self.pool[-3:]:
            self.tape.keep(x)
        for x in self.pool:
            if self.rng.random() < 0.2:
                self.tape.keep(x)

    def shape(self) -> tuple[int, ...]:
        rank = int(self.rng.integers(1, 4))
        sizes = [1, 2, 3, 5, 7, 16, 17, 32, 33, 64, 100, 513, 600, 1100]
        while True:
            shape = tuple(int(self.rng.choice(sizes)) for _ in range(rank))
            if 1 < count(shape) <= MAX_ELEMENTS:
                return shape

    def partner(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with `shape`."""
        kept = tuple(1 if self.rng.random() < 0.25 else n for n in shape)
        return kept[int(self.rng.integers(0, len(kept))) :] if self.rng.random() < 0.2 else kept

    def pick(self, dtypes: str = "") -> View:
        found = [x for x in self.pool if not dtypes or x.dtype in dtypes.split()]
        if not found:
            return self.tape.map("to_float32", self.pick())
        weights = np.linspace(1, 3, len(found))
        return found[int(self.rng.choice(len(found), p=weights / weights.sum()))]

    def step(self) -> None:
        choices = (
            (self.view, 3), (self.unary, 4), (self.binary, 6), (self.scalar_binary, 2), (self.compare, 1),
            (self.cast, 1), (self.reduction, 3), (self.rows, 2), (self.matmul, 1.5), (self.write, 3), (self.where, 1),
            (self.concatenate, 0.7), (self.source, 0.5), (self.update, 0.5), (self.gather, 0.4),
            (self.again, 2),
        )  # fmt: skip
        weights = np.array([w for _, w in choices])
        made = choices[int(self.rng.choice(len(choices), p=weights / weights.sum()))][0]()
        if made is not None and count(made.shape) <= MAX_ELEMENTS:
            self.pool.append(made)

    def view(self) -> View | None:
        x = self.pick()
        kind = int(self.rng.integers(0, 5))
        if kind == 0:
            return permute(x, [int(a) for a in self.rng.permutation(len(x.shape))])
        if kind == 1 and x.shape:
            axis = int(self.rng.integers(0, len(x.shape)))
            start, step = int(self.rng.integers(0, x.shape[axis])), int(self.rng.choice([1, 1, 2, -1]))
            room = (x.shape[axis] - start + step - 1) // step if step > 0 else start + 1
            return narrow(x, axis, start, step, int(self.rng.integers(1, room + 1)))
        if kind == 2 and x.strides == contiguous_strides(x.shape):
            n = count(x.shape)
            divisors = [d for d in (2, 3, 4, 8, 16, 32) if n % d == 0]
            return reshape(x, self.split(n, divisors))
        if kind == 3:
            return expand(x, (int(self.rng.integers(1, 4)), *x.shape)) if len(x.shape) < 4 else None
        return replace(x, shape=(*x.shape, 1), strides=(*x.strides, 1)) if len(x.shape) < 4 else None

    def split(self, n: int, divisors: list[int]) -> tuple[int, ...]:
        if not divisors or self.rng.random() < 0.3:
            return (n,)
        d = int(self.rng.choice(divisors))
        return (d, n // d) if self.rng.random() < 0.5 else (n // d, d)

    def unary(self) -> View:
        op = str(self.rng.choice(UNARY))
        return self.tape.map(op, self.floating(self.pick()))

    def floating(self, x: View) -> View:
        return x if x.dtype in FLOATS.split() else self.tape.map("to_float32", x)

    def matching(self, x: View) -> View:
        """An operand that broadcasts with x, of its dtype."""
        fits = [y for y in self.pool if self.broadcasts(x, y)]
        y = fits[int(self.rng.integers(0, len(fits)))]
        return y if y.dtype == x.dtype else self.to(y, x.dtype)

    def to(self, x: View, dtype: str) -> View:
        return x if x.dtype == dtype else self.tape.map(f"to_{DTYPES[dtype].name}", x)

    def broadcasts(self, x: View, y: View) -> bool:
        try:
            return count(np.broadcast_shapes(x.shape, y.shape)) <= MAX_ELEMENTS
        except ValueError:
            return False

    def binary(self) -> View:
        x = self.pick(f"{FLOATS} i8 i16 i32 i64")
        ops = BINARY if x.dtype in FLOATS.split() else [b for b in BINARY if b != "div"]
        return self.tape.map(str(self.rng.choice(ops)), x, self.matching(x))

    def scalar_binary(self) -> View:
        x = self.pick(f"{FLOATS} i32")
        op = str(self.rng.choice(["add", "sub", "mul"]))
        return self.tape.map(op, x, self.tape.scalar(float(self.rng.integers(-3, 4)) / 3, wide(x.dtype)))

    def compare(self) -> View:
        x = self.pick()
        return self.tape.map(str(self.rng.choice(COMPARE)), x, self.matching(x))

    def cast(self) -> View:
        return self.tape.map(str(self.rng.choice(CASTS)), self.pick())

    def reduction(self) -> View | None:
        op = str(self.rng.choice(REDUCE))
        x = self.pick()
        if not x.shape:
            return None
        if op in ("sum", "prod") and x.dtype[0] != "f":
            x = self.to(x, "i64")
        if op == "prod":
            x = self.tape.map("tanh", self.floating(x))
        return self.tape.reduce(op, x, int(self.rng.integers(0, len(x.shape))))

    def rows(self) -> View | None:
        x = self.floating(self.pick())
        if not x.shape:
            return None
        if self.rng.random() < 0.3 and len(x.shape) == 2:
            w, b = (self.tape.leaf(x.dtype, (x.shape[1],)) for _ in range(2))
            eps = int(np.float64(1e-5).view(np.int64))
            return self.tape.composite("layer_norm", [x, w, b], [eps])
        axis = len(x.shape) - 1 if self.rng.random() < 0.7 else int(self.rng.integers(0, len(x.shape)))
        return self.tape.composite(str(self.rng.choice(["softmax", "log_softmax"])), [x], [axis])

    def matmul(self) -> View | None:
        a = self.floating(self.pick())
        if len(a.shape) < 2 or a.shape[-1] > 300:
            return None
        n = int(self.rng.choice([1, 2, 5, 16, 33]))
        if count(a.shape[:-1]) * n > MAX_ELEMENTS:
            return None
        b = self.tape.leaf(a.dtype, (*([1] * (len(a.shape) - 2)), a.shape[-1], n))
        if self.rng.random() < 0.4:
            b = permute(self.tape.leaf(a.dtype, (n, a.shape[-1])), (1, 0))
            b = replace(
                b, shape=(*([1] * (len(a.shape) - 2)), *b.shape), strides=(*([0] * (len(a.shape) - 2)), *b.strides)
            )
        y = self.tape.matmul(a, b)
        if self.rng.random() < 0.7:
            bias = self.tape.leaf(y.dtype, self.partner(y.shape))
            y = self.tape.map("add", y, bias)
        return y

    def where(self) -> View:
        x = self.pick(f"{FLOATS} i16 i32")
        chosen = self.tape.map("add", x, self.matching(x))
        return self.tape.map("where", self.to(self.matching(chosen), "b8"), x, chosen)

    def write(self) -> View | None:
        """In place, through whatever view was picked."""
        x = self.pick(f"{FLOATS} i32 i64")
        places = x.elements()
        if len(np.unique(places)) != places.size:
            return None
        y = self.matching(x)
        if np.broadcast_shapes(x.shape, y.shape) != x.shape:
            return None
        if y.slot == x.slot and y != x and np.intersect1d(places, y.elements()).size:
            y = self.tape.map("copy", y)
        op = str(self.rng.choice(["add", "mul", "sub", "copy"]))
        self.tape.write(op, [y] if op == "copy" else [x, y], [x])
        return x if self.rng.random() < 0.3 else None

    def concatenate(self) -> View | None:
        """Uninitialised memory, filled piece by piece."""
        x, y = self.pick(), self.pick()
        if x.dtype != y.dtype or len(x.shape) != len(y.shape) or not x.shape or x.shape[1:] != y.shape[1:]:
            y = x
        if not x.shape:
            return None
        out = self.tape.fresh(x.dtype, (x.shape[0] + y.shape[0], *x.shape[1:]))
        self.tape.write("empty", [], [out])
        self.tape.write("copy", [x], [narrow(out, 0, 0, 1, x.shape[0])])
        self.tape.write("copy", [y], [narrow(out, 0, x.shape[0], 1, y.shape[0])])
        return out

    def source(self) -> View:
        shape = self.shape()
        out = self.tape.fresh("f32", shape)
        if self.rng.random() < 0.5:
            self.tape.write("full", [self.tape.scalar(1.5, "f32")], [out])
        else:
            self.tape.write("arange", [self.tape.scalar(0.5, "f32"), self.tape.scalar(0.25, "f32")], [out])
        return out

    def again(self) -> View | None:
        """What was computed before, on whatever its operands hold now."""
        maps = [r for r in self.tape.records if len(r[2]) == 1 and r[0] in (*UNARY, *BINARY, *COMPARE)]
        if not maps:
            return None
        op, ins, (out,), attrs = maps[int(self.rng.integers(0, len(maps)))]
        made = self.tape.fresh(out[2], out[4])
        self.tape.records.append((op, ins, [self.tape.operand(made)], attrs))
        return made

    def update(self) -> None:
        g = self.pick("f32")
        p, buf = (self.tape.leaf("f32", g.shape) for _ in range(2))
        numbers = [self.tape.scalar(v, "f32") for v in (0.1, 0.9, 0.0, 0.01)]
        self.tape.write("sgd_momentum_", [p, g, buf, *numbers], [p, buf])

    def gather(self) -> View | None:
        x = self.pick("f32 i32")
        if not x.shape or x.shape[0] < 2 or "gather" not in ROWS:
            return None
        index = self.tape.reduce("argmax", x, len(x.shape) - 1)
        return self.tape.map("add", *([self.tape_gather(x, index)] * 2))

    def tape_gather(self, x: View, index: View) -> View:
        out = self.tape.fresh(x.dtype, index.shape)
        self.tape.write("gather", [x, index], [out], [len(x.shape) - 1])
        return out
