"""The shape rules with symbolic sizes: what a rule says of symbols must hold for every value they may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from neurlang.errors import ShapeError
from neurlang.ops import shapes

Monomial = tuple[str, ...]


class Symbolic:
    """A polynomial in symbols: the least that a size expression must be able to do."""

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.terms = {m: c for m, c in terms.items() if c}

    @staticmethod
    def of(x: Any) -> Symbolic:
        return x if isinstance(x, Symbolic) else Symbolic({(): x})

    def __add__(self, other: Any) -> Symbolic:
        terms = dict(self.terms)
        for m, c in Symbolic.of(other).terms.items():
            terms[m] = terms.get(m, 0) + c
        return Symbolic(terms)

    def __mul__(self, other: Any) -> Symbolic:
        terms: dict[Monomial, int] = {}
        for m, c in self.terms.items():
            for n, d in Symbolic.of(other).terms.items():
                product = tuple(sorted(m + n))
                terms[product] = terms.get(product, 0) + c * d
        return Symbolic(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: Any) -> Symbolic:
        quotient = self.divided(Symbolic.of(other))
        assert quotient is not None
        return quotient

    def __mod__(self, other: Any) -> int:
        return 1 if self.divided(Symbolic.of(other)) is None else 0

    def __rmod__(self, other: Any) -> int:
        return Symbolic.of(other) % self

    def divided(self, other: Symbolic) -> Symbolic | None:
        """The quotient by a single term, if it is exact."""
        ((divisor, factor),) = other.terms.items()
        terms = {}
        for m, c in self.terms.items():
            rest = list(m)
            for name in divisor:
                if name not in rest:
                    return None
                rest.remove(name)
            if c % factor:
                return None
            terms[tuple(rest)] = c // factor
        return Symbolic(terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (int, Symbolic)) and self.terms == Symbolic.of(other).terms

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.terms.items())))

    def __str__(self) -> str:
        return " + ".join("*".join([str(c), *m]) for m, c in self.terms.items())

    def at(self, values: dict[str, int]) -> int:
        total = 0
        for m, c in self.terms.items():
            for name in m:
                c *= values[name]
            total += c
        return total


B, T = Symbolic({("B",): 1}), Symbolic({("T",): 1})

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "checked": (shapes.checked, ((B, 3, T),)),
    "broadcast": (shapes.broadcast, ([(B, T, 8), (8,), (T, 1), (1, 1, 1)],)),
    "reshape": (shapes.reshape, ((B, T, 8), (B * T, 8))),
    "reshape inferred": (shapes.reshape, ((B, T, 8), (-1, 8))),
    "reshape split": (shapes.reshape, ((B, T, 8), (B, T, 2, -1))),
    "expand": (shapes.expand, ((1, T), (B, 4, -1))),
    "permute": (shapes.permute, ((B, T, 8), (0, -1, 1))),
    "slice": (shapes.slice, ((B, 8), 1, -3, 8, 2)),
    "reduce": (shapes.reduce, ((B, T), 1)),
    "matmul": (shapes.matmul, ((B, T, 8), (8, 5))),
    "matmul of batches": (shapes.matmul, ((B, 1, T, 8), (4, 8, T))),
    "cat": (shapes.cat, ([(B, 3), (T, 3), (B, 3)], 0)),
    "pad": (shapes.pad, ((B, T), (0, 0, 1, 2))),
    "conv2d": (shapes.conv2d, ((B, 4, 9, 7), (6, 2, 3, 3), (2, 1, 1, 0, 1, 2, 2, 2))),
    "conv2d_input": (shapes.conv2d_input, ((B, 6, 5, 3), (6, 2, 3, 3), (2, 1, 1, 0, 1, 2, 2, 2, 9, 7))),
    "conv2d_weight": (shapes.conv2d_weight, ((B, 4, 9, 7), (B, 6, 5, 3), (2, 1, 1, 0, 1, 2, 2, 2, 3, 3))),
    "pool2d": (shapes.pool2d, ((B, T, 9, 7), (3, 2, 2, 2, 1, 1, 1, 1, 1))),
    "adaptive_pool2d": (shapes.adaptive_pool2d, ((B, T, 9, 7), (2, 3))),
    "gather": (shapes.gather, ((B, 8), (B, 1), 1)),
    "scatter": (shapes.scatter, ((B, 8), (B, 1), (B, 1), 1)),
    "index_select": (shapes.index_select, ((50, 8), (B * T,), 0)),
    "index_add": (shapes.index_add, ((50, 8), (B * T,), (B * T, 8), 0)),
}


def substituted(x: Any, values: dict[str, int]) -> Any:
    if isinstance(x, Symbolic):
        return x.at(values)
    return type(x)(substituted(part, values) for part in x) if isinstance(x, (tuple, list)) else x


@pytest.mark.parametrize("name", CASES)
def test_symbols_stand_for_every_value(name: str) -> None:
    rule, arguments = CASES[name]
    result = rule("op", *arguments)
    assert any(isinstance(n, Symbolic) for n in result) or name == "slice" or "add" in name or "weight" in name
    for values in ({"B": 2, "T": 3}, {"B": 7, "T": 5}, {"B": 64, "T": 128}):
        assert substituted(result, values) == rule("op", *substituted(arguments, values))


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        (shapes.broadcast, ([(B, 3), (T, 3)],)),
        (shapes.matmul, ((B, T), (B, T))),
        (shapes.reshape, ((B, T), (B, 5))),
        (shapes.cat, ([(B, 3), (B, T)], 0)),
        (shapes.expand, ((B,), (T,))),
    ],
)
def test_symbols_that_may_differ_are_refused(rule: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ShapeError, match="op: "):
        rule("op", *arguments)


def test_reshape_strides_of_symbols() -> None:
    assert shapes.reshape_strides((B, T, 8), (T * 8, 8, 1), (B * T, 8)) == (8, 1)
    assert shapes.reshape_strides((B, T, 8), (8, B * 8, 1), (B * T, 8)) is None
