"""Tokens of the project's texts (graphs, kernels, functions), with the position of everything that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from .graph import Const
from .types import DTYPES, to_bits

T = TypeVar("T")

_TOKEN = re.compile(
    r"(?:\s|//[^\n]*)*(?:(?P<number>(?:0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![A-Za-z_]))"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<mark>->|<=|[][{}()<>=:;,.+*/$-]))"
)
_SPACE = re.compile(r"(?:\s|//[^\n]*)*")


class ParseError(ValueError):
    """Text that is not what it should be; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line, self.column = line, column


class Reader:
    """Walks through the tokens of a text: `token` is the current one, `start` its place."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.token, self.kind, self.start = "", "", 0
        self.next()

    def next(self) -> str:
        """Moves on and returns the token that was current."""
        was = self.token
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            space = _SPACE.match(self.text, self.at)
            self.start = space.end() if space else self.at
            if self.start < len(self.text):
                self.fail(f"unexpected {self.text[self.start]!r}")
            self.token, self.kind = "", "end"
            return was
        self.kind = match.lastgroup or ""
        self.token = match.group(self.kind)
        self.start, self.at = match.start(self.kind), match.end()
        return was

    def back_to(self, place: int) -> None:
        """Reads on from an earlier token's place."""
        self.at = place
        self.next()

    def fail(self, message: str, place: int | None = None) -> NoReturn:
        place = self.start if place is None else place
        line = self.text.count("\n", 0, place) + 1
        raise ParseError(message, line, place - self.text.rfind("\n", 0, place))

    def accept(self, token: str) -> bool:
        if self.token != token or self.kind == "end":
            return False
        self.next()
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected {token!r}, found {self.token!r}")

    def end(self) -> None:
        if self.kind != "end":
            self.fail(f"nothing may follow, found {self.token!r}")

    def name(self) -> str:
        if self.kind != "name":
            self.fail(f"expected a name, found {self.token!r}")
        return self.next()

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        if not self.token.isdecimal():
            self.fail(f"expected an integer, found {self.token!r}")
        return sign * int(self.next())

    def several(self, item: Callable[[], T], end: str) -> tuple[T, ...]:
        """Items with commas between them, up to and with `end`."""
        items: list[Any] = []
        while not self.accept(end):
            if items:
                self.expect(",")
            items.append(item())
        return tuple(items)

    def prefixed(self, letter: str) -> int:
        """The number in a name such as `s12`."""
        if not re.fullmatch(letter + r"\d+", self.token):
            self.fail(f"expected {letter} and a number, found {self.token!r}")
        return int(self.next()[1:])

    def dtype(self) -> str:
        if self.token not in DTYPES:
            self.fail(f"unknown dtype {self.token!r}")
        return self.next()

    def const(self, dtype: str) -> Const:
        """A number in parentheses, or the bits of one."""
        self.expect("(")
        sign = "-" if self.accept("-") else ""
        if self.kind != "number" and self.token not in ("inf", "nan"):
            self.fail(f"expected a number, found {self.token!r}")
        text = sign + self.next()
        self.expect(")")
        if text.startswith("0x"):
            return Const(int(text, 16), dtype)
        return Const(to_bits(float(text) if DTYPES[dtype].floating else int(text), dtype), dtype)

    def attrs(self) -> tuple[int, ...]:
        return self.several(self.integer, "}") if self.accept("{") else ()
