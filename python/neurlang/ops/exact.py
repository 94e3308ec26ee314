"""What elementary functions are made of: polynomials, sums and products with their errors, exact without fma too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from .scalar import (
    INT_OF,
    MANTISSA,
    E,
    bitcast,
    convert,
    fma,
    negate_if,
    sign_bit,
)

hex_float = float.fromhex
Coefficients = Sequence[float]
LINEAR = {"f32": 2.0**-26, "f64": 2.0**-55}  # below, f(x) rounds to x where f'(0) = 1


def hex_floats(text: str) -> tuple[float, ...]:
    return tuple(hex_float(word) for word in text.split())


def poly(x: E, coefficients: Coefficients) -> E:
    """c0 + c1 x + c2 x² + …"""
    value: E | float = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        value = fma(value, x, c)
    assert isinstance(value, E)
    return value


def magic(x: E) -> float:
    """Added to a float of moderate size it leaves the nearest integer in the lowest bits."""
    return 1.5 * 2.0 ** MANTISSA[x.dtype]


def rint_small(x: E) -> E:
    """The nearest integer of a float of moderate size."""
    return (x + magic(x)) - magic(x)


def with_sign(size: E, x: E) -> E:
    """`size`, which is not negative, with the sign of x."""
    return negate_if(size, sign_bit(x))


def short(x: E) -> E:
    """x with the lower half of its mantissa zero, so that the product with another such number is exact."""
    low_bits = {"f32": 12, "f64": 27}[x.dtype]
    return bitcast(bitcast(x, INT_OF[x.dtype]) & (-1 << low_bits), x.dtype)


def two_sum(a: E, b: E) -> tuple[E, E]:
    """a + b and its rounding error, for any a and b."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def two_product(a: E, b: E) -> tuple[E, E]:
    """a * b and its rounding error, exact without fma."""
    product = a * b
    a_high, b_high = short(a), short(b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + (a_high * b_low + a_low * b_high)) + a_low * b_low
    return product, error


def via_f64(function: Callable[..., E]) -> Callable[..., E]:
    """float32 is computed in float64 and rounded once: half an ULP, at the price of half the lanes."""

    @functools.wraps(function)
    def wrapped(*args: E) -> E:
        if args[0].dtype == "f64":
            return function(*args)
        return convert(function(*(convert(a, "f64") for a in args)), "f32")

    return wrapped
