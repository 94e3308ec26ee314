"""Random programs as text: views, aliasing, reductions, broadcasts and in-place writes, in PyTorch's idiom.

A program is lines of Python, so that a failing one is its own reproduction. Lines are made one at a time and kept when
eager accepts them, which keeps every rule about shapes and types where it belongs: in the library.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

EXTENTS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 33)
LONG = (513, 700, 1100)  # longer than a block of the defined sum
LARGEST = 20_000

FLOAT_MAPS = (
    "{a}.tanh()", "{a}.sigmoid()", "{a}.relu()", "{a}.abs()", "-{a}", "{a} ** 2", "({a} * {a} + 1.0).sqrt()",
    "({a}.abs() + 0.5).log()", "(-{a} * {a}).exp()", "{a} * {s}", "{a} + {s}", "{s} - {a}", "{s} / ({a} * {a} + 1.0)",
    "{a}.clamp(-{s}, {s})",
)  # fmt: skip
FLOAT_PAIRS = (
    "{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / ({b}.abs() + 1.0)", "nl.maximum({a}, {b})", "nl.minimum({a}, {b})",
    "nl.where({a} > {b}, {a}, {b} * {s})", "{a}.masked_fill({b} > 0, {s})", "({a} + {b}).tanh()", "{a}.lerp({b}, 0.25)",
)  # fmt: skip
FLOAT_SUMS = (
    "{a}.sum({d})", "{a}.sum()", "{a}.mean({d}, keepdim=True)", "{a}.amax({d}, keepdim=True)", "{a}.amin({d})",
    "{a}.softmax({d})", "{a}.log_softmax({d})", "{a} - {a}.mean({d}, keepdim=True)", "{a}.var({d}, keepdim=True)",
    "({a} * {a}).sum({d})", "{a}.argmax({d}).to(nl.float32)", "{a}.sum({d}, keepdim=True) * {a}",
)  # fmt: skip
INTEGER_MAPS = ("{a} + {k}", "{k} - {a}", "{a} * {k}", "-{a}", "{a}.abs()", "{a}.clamp(-{k}, {k})", "{a} * {a}")
INTEGER_PAIRS = (
    "{a} + {b}", "{a} - {b}", "{a} * {b}", "nl.maximum({a}, {b})", "nl.minimum({a}, {b})",
    "nl.where({a} > {b}, {a}, {b} + {k})", "{a}.masked_fill({b} > 0, {k})",
)  # fmt: skip
INTEGER_SUMS = (
    "{a}.sum({d})", "{a}.sum()", "{a}.amax({d}, keepdim=True)", "{a}.amin({d})", "{a}.sum({d}, keepdim=True) - {a}",
)  # fmt: skip
VIEWS = ("{a}[{i}]", "{a}[{i}]", "{a}[{i}]", "{a}.t()", "{a}.transpose(0, -1)", "{a}.unsqueeze({d})", "{a}.reshape(-1)",
         "{a}.flatten()", "{a}.expand(2, *{a}.shape)", "{a}[None]", "{a}.squeeze()")  # fmt: skip
MAKERS = ("{a}.clone()", "nl.zeros_like({a})", "nl.stack([{a}, {a}])", "nl.cat([{a}, {a}], {d})", "{a}.contiguous()",
          "{a}[nl.tensor([0, -1, 0])]")  # fmt: skip
CASTS = (
    "{a}.to(nl.float64)", "({a} * 3).to(nl.int32)", "{a} > {b}", "{a}.to(nl.float32)", "({a} * 9).to(nl.uint8)",
    "{a}.half()", "{a}.bfloat16()", "({a} * 9).char()",
)  # fmt: skip
PRODUCTS = ("{a} @ {b}", "{a} @ {a}.transpose(-2, -1)", "{b}.transpose(-2, -1) @ {b}")
WRITES = (
    "{a}.add_({b})", "{a}.mul_({k})", "{a}.copy_({b})", "{a}[{i}] = {b}", "{a}[{i}] += {k}", "{a}[{i}] = {k}",
    "{a}.sub_({b})", "{a}[{i}].mul_({k})", "{a}.zero_()", "{a} += {b}", "{a}[{i}] -= {b}", "{a}.fill_({k})",
    "{a}[nl.tensor([-1, 0])] = {k}",
)  # fmt: skip
VIEW_WRITES = tuple(w for w in WRITES if "{i}" in w)


@dataclass(frozen=True)
class Program:
    """`setup` makes the inputs, outside any trace; `body` computes; `results` are the names that live at its end."""

    setup: tuple[str, ...]
    body: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            ("import neurlang as nl", *self.setup, "# --- traced ---", *self.body, f"# live: {self.results}")
        )

    @property
    def ops(self) -> int:
        """Lines that compute: views are free."""
        return sum(not is_view(line) for line in self.body)

    @property
    def writes_through_a_view(self) -> bool:
        """Whether a line of the body writes only a part of a storage."""
        views = {line.split(" = ")[0] for line in self.setup + self.body if is_view(line)}
        writes = [line for line in self.body if not re.match(r"v\d+ = ", line)]
        return any("[" in re.split(r"[.=]", line)[0] or re.split(r"\W", line)[0] in views for line in writes)


def is_view(line: str) -> bool:
    return line.endswith("# view")


class Generator:
    """Makes one program. `exact` restricts it to integer arithmetic, whose results any correct library shares; with
    `gradients` its inputs are leaves and it ends in a backward."""

    def __init__(
        self, seed: int, lib: Any, *, exact: bool = False, reversed_views: bool = True, gradients: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.lib, self.exact, self.reversed_views, self.gradients = lib, exact, reversed_views, gradients
        self.values: dict[str, Any] = {"nl": lib}
        self.names: list[str] = []

    def make(self) -> Program:
        setup = self.lines(self.input, self.random.randint(2, 4))
        wants_views = self.random.random() < 0.5
        body = self.lines(lambda: self.statement(wants_views), self.random.randint(10, 26))
        made = [name for name in self.names if not name.startswith("x")]
        live = tuple(name for name in made if self.random.random() < 0.3) + tuple(made[-1:])
        if self.gradients:
            body += self.lines(self.way_back, 1)
            reached = [name for name in self.names if name.startswith("x") and self.values[name].grad is not None]
            body += [f"g{name} = {name}.grad" for name in reached]
            live += tuple(f"g{name}" for name in reached)
        return Program(tuple(setup), tuple(body), tuple(dict.fromkeys(live)))

    def lines(self, line: Callable[[], str], count: int) -> list[str]:
        """`count` lines that eager accepts."""
        kept: list[str] = []
        for _ in range(40 * count):
            if len(kept) == count:
                break
            text = line()
            if self.accepts(text):
                kept.append(text)
        return kept

    def accepts(self, text: str) -> bool:
        assignment = re.match(r"([xv]\d+) = ", text)
        try:
            exec(text, self.values)
        except (ValueError, TypeError, IndexError, ArithmeticError, RuntimeError):
            return False
        if assignment:
            name = assignment[1]
            if self.values[name].numel() > LARGEST or len(self.values[name].shape) > 4:
                return False
            self.names.append(name)
        return True

    # --- lines ---

    def way_back(self) -> str:
        """From a sum over some of the values that depend on leaves, or in vain from an input."""
        made = [name for name in self.names if self.values[name].requires_grad and not self.values[name].is_leaf]
        chosen = [name for name in made if self.random.random() < 0.5] or made[-1:] or self.names[:1]
        return f"({' + '.join(f'({name} * {name}).double().sum()' for name in chosen)}).backward()"

    def input(self) -> str:
        name = f"x{len(self.names)}"
        if self.gradients and self.random.random() < 0.8:
            return f"{self.numbers(name)}.requires_grad_()"
        if self.names and self.random.random() < 0.3:  # an input that shares its storage with another one
            return self.fill(f"{name} = {{a}}[{{i}}]  # view")
        return self.numbers(name)

    def numbers(self, name: str) -> str:
        rank = self.random.choice((1, 2, 2, 2, 3))
        shape = [self.random.choice(EXTENTS) for _ in range(rank)]
        if self.random.random() < 0.1:
            shape = [self.random.choice(LONG)]
        if self.names and self.random.random() < 0.6:
            shape = list(self.values[self.pick()].shape)
        numel = 1
        for extent in shape:
            numel *= extent
        step, shift = self.random.choice((7, 11, 13)), self.random.randint(-9, 9)
        if self.exact:
            return f"{name} = (nl.arange({numel}) * {step} % 23 + {shift}).reshape({shape})"
        dtype = self.random.choice(("float32", "float32", "float32", "float64", "float16", "bfloat16"))
        return f"{name} = ((nl.arange({numel}) * {step} % 101).to(nl.{dtype}) / 23 + {shift / 8}).reshape({shape})"

    def statement(self, wants_views: bool) -> str:
        kind = self.random.choices(
            ("map", "pair", "sum", "view", "write", "make", "product"), (5, 8, 4, 6 if wants_views else 2, 4, 2, 1)
        )[0]
        name = f"v{len(self.names)}"
        if kind == "write":
            return self.fill(self.random.choice(VIEW_WRITES if wants_views and self.random.random() < 0.5 else WRITES))
        if kind == "view":
            return self.fill(f"{name} = {self.random.choice(VIEWS)}  # view")
        if kind == "product" and self.exact:
            kind = "pair"
        templates = {
            "map": INTEGER_MAPS if self.exact else FLOAT_MAPS,
            "pair": INTEGER_PAIRS if self.exact else FLOAT_PAIRS,
            "sum": INTEGER_SUMS if self.exact else FLOAT_SUMS,
            "make": MAKERS if self.exact else MAKERS + CASTS,
            "product": PRODUCTS,
        }[kind]
        return self.fill(f"{name} = {self.random.choice(templates)}")

    def fill(self, template: str) -> str:
        """The template with operands: `b` is one that broadcasts with `a` where there is one."""
        a = self.pick()
        shape = list(self.values[a].shape)
        fits = [name for name in self.names if broadcasts(list(self.values[name].shape), shape)]
        return template.format(
            a=a,
            b=self.random.choice(fits or self.names),
            d=self.random.randrange(-1, max(1, len(shape))),
            i=self.index(shape),
            k=self.random.choice((2, 3, -1, 5)),
            s=self.random.choice((0.5, 1.25, 2.0, 0.1, 3.0)),
        )

    def pick(self) -> str:
        """Recent names are likelier, so that chains grow."""
        return self.names[-1 - int(len(self.names) * self.random.random() ** 2)]

    def index(self, shape: list[int]) -> str:
        return ", ".join(self.index_of(n) for n in shape[: self.random.randint(1, max(1, len(shape)))]) or "..."

    def index_of(self, n: int) -> str:
        start, stop = sorted((self.random.randint(0, n), self.random.randint(0, n)))
        stride, item = self.random.randint(2, 3), self.random.randrange(-n, n) if n else 0
        forms = [":", f"{start}:", f":{stop}", f"{start}:{stop}", f"::{stride}", f"{item}"]
        if self.reversed_views:
            forms += ["::-1", f"{stop}:{start}:-1", "::-2"]
        return self.random.choice(forms)


def broadcasts(a: list[int], b: list[int]) -> bool:
    return all(m == n or m == 1 for m, n in zip(reversed(a), reversed(b), strict=False)) and len(a) <= len(b)


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """The smallest program found that still fails: taking one line away at a time, or an earlier value in its place."""
    while (smaller := next(filter(fails, candidates(program)), None)) is not None:
        program = smaller
    return program


def candidates(program: Program) -> Iterator[Program]:
    """Programs one step smaller: without a result, without a line, with an earlier name for a line's."""
    if len(program.results) > 1:
        for n in range(len(program.results)):
            yield replace(program, results=program.results[:n] + program.results[n + 1 :])
    for part in ("body", "setup"):
        lines = getattr(program, part)
        for n in reversed(range(len(lines))):
            yield replace(program, **{part: lines[:n] + lines[n + 1 :]})
    for n, line in enumerate(program.body):
        name = line.split(" = ")[0]
        for earlier in re.findall(r"\b[xv]\d+\b", line.removeprefix(name)):
            rename = partial(re.sub, rf"\b{re.escape(name)}\b", earlier)
            rest = tuple(rename(later) for later in program.body[n + 1 :])
            yield replace(program, body=program.body[:n] + rest, results=tuple(map(rename, program.results)))
