"""Sine, cosine and tangent, and their inverses, made like the functions of elementary.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from .exact import (
    LINEAR,
    hex_float,
    hex_floats,
    magic,
    poly,
    two_product,
    via_f64,
    with_sign,
)
from .scalar import (
    INT_OF,
    SIZE,
    E,
    absolute,
    bitcast,
    const,
    convert,
    eq,
    fma,
    isnan,
    maximum,
    mulhi,
    ne,
    negate_if,
    rare,
    select,
    sign_bit,
    sqrt,
    table,
)

# sin(x) / x - 1 and cos(x) - 1 + x²/2 over x⁴, in x², |x| <= π/4
_SIN = {
    "f32": hex_floats("-0x1.555556p-3 0x1.111164p-7 -0x1.a0485p-13 0x1.77d726p-19"),
    "f64": hex_floats(
        "-0x1.5555555555548p-3 0x1.111111110f739p-7 -0x1.a01a019beaec6p-13 0x1.71de35571f757p-19"
        " -0x1.ae5e4d47bbd49p-26 0x1.5d8be6842fa47p-33"
    ),
}
_COS = {
    "f32": hex_floats("0x1.55554ap-5 -0x1.6c0c26p-10 0x1.99e71cp-16"),
    "f64": hex_floats(
        "0x1.555555555554ap-5 -0x1.6c16c16c14e32p-10 0x1.a01a019c64875p-16 -0x1.27e4f7d50dac1p-22"
        " 0x1.1ee9c98ca43d2p-29 -0x1.8f9d802420d28p-37"
    ),
}
# π/2 in pieces: products of all but the last with n are exact while |x| is below the limit
_HALF_PI = {
    "f32": hex_floats("0x1.92p0 0x1.fbp-12 0x1.51p-22 0x1.0bp-34 0x1.184698p-44"),
    "f64": hex_floats("0x1.921fb544p0 0x1.0b4611a6p-34 0x1.3198a2ep-69 0x1.b839a252049c1p-104"),
}
_TRIG_LIMIT = {"f32": 25600.0, "f64": 1.6e6}
# the bits of 2/π, after two words of zeros
_TWO_OVER_PI = (
    0, 0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB, 0xDEBBC561, 0xB7246E3A,
    0x424DD2E0, 0x06492EEA, 0x09D1921C, 0xFE1DEB1C, 0xB129A73E, 0xE88235F5, 0x2EBB4484, 0xE99C7026, 0xB45F7E41,
    0x3991D639, 0x835339F4, 0x9C845F8B, 0xBDF9283B, 0x1FF897FF, 0xDE05980F, 0xEF2F118B, 0x5A0A6D1F, 0x6D367ECF,
    0x27CB09B7, 0x4F463F66, 0x9E5FEA2D, 0x7527BAC7, 0xEBE5F17B, 0x3D0739F7, 0x8A5292EA, 0x6BFB5FB1, 0x1F8D5D08,
    0x56033046,
)  # fmt: skip
Reduced = tuple[E, E, E]  # r, r_low, and the quadrant in the lowest two bits of an integer


def _reduce_half_pi(x: E) -> Reduced:
    """x = n π/2 + r + r_low with |r| <= π/4, for x of moderate size."""
    shifted = fma(x, 2 / math.pi, magic(x))
    n = shifted - magic(x)
    *short, last = _HALF_PI[x.dtype]
    exact = len(short) - 2  # so many differences are exact as well
    rest = x
    for piece in short[:exact]:
        rest = fma(n, -piece, rest)
    r = fma(n, -short[exact], rest)
    r_low = fma(n, -short[exact], rest - r)
    r_low = fma(n, -last, fma(n, -short[exact + 1], r_low))
    total = r + r_low
    return total, (r - total) + r_low, bitcast(shifted, INT_OF[x.dtype])


def _reduce_huge_f32(x: E) -> Reduced:
    """Payne and Hanek: the 24-bit significand times the 96 bits of 2/π that decide x modulo 2π."""
    bits = bitcast(x, "u32")
    significand = (bits & 0x7FFFFF) | 0x800000
    at = ((bits >> 23) & 0xFF) - (150 + 2 - 32)  # the first bit of the window; the table begins with 32 zeros here
    words = [table(_TWO_OVER_PI[1:9], (at >> 5) + k, "u32") for k in range(4)]
    shift = at & 31
    w0, w1, w2 = ((a << shift) | ((b >> 1) >> (31 - shift)) for a, b in pairwise(words))
    product = significand * w1
    middle = product + mulhi(significand, w2)
    carry = bitcast(select(middle < product, const(1, "i32"), 0), "u32")
    top = significand * w0 + mulhi(significand, w1) + carry
    quadrant = (top + (1 << 29)) >> 30
    return _scale_fraction(
        x, top - (quadrant << 30), middle, quadrant, hex_float("0x1.921fb6p-30"), hex_float("-0x1.777a5cp-55")
    )


def _reduce_huge_f64(x: E) -> Reduced:
    """Payne and Hanek: the 53-bit significand times the 192 bits of 2/π that decide x modulo 2π, in 32-bit limbs."""
    mask = 0xFFFFFFFF
    bits = bitcast(x, "u64")
    significand = (bits & ((1 << 52) - 1)) | (1 << 52)
    m0, m1 = significand & mask, significand >> 32
    at = ((bits >> 52) & 0x7FF) - (1075 + 2 - 64)
    words = [table(_TWO_OVER_PI, (at >> 5) + k, "u64") for k in range(7)]
    shift = 32 - (at & 31)
    limbs = [(((a << 32) | b) >> shift) & mask for a, b in pairwise(words)][::-1]
    carry, columns = (m0 * limbs[0]) >> 32, []
    for below, limb in pairwise(limbs):
        a = m0 * limb + carry
        b = m1 * below + (a & mask)
        columns.append(b & mask)
        carry = (a >> 32) + (b >> 32)
    top, rest = (columns[4] << 32) | columns[3], (columns[2] << 32) | columns[1]
    quadrant = (top + (1 << 61)) >> 62
    unit, unit_low = hex_float("0x1.921fb54442d18p-62"), hex_float("0x1.1a62633145c07p-116")
    return _scale_fraction(x, top - (quadrant << 62), rest, quadrant, unit, unit_low)


def _scale_fraction(x: E, fraction: E, rest: E, quadrant: E, unit: float, unit_low: float) -> Reduced:
    """The signed two-word number `fraction`.`rest` times the unit, with the sign of x, in two parts."""
    dtype, integer = x.dtype, INT_OF[x.dtype]
    negative = bitcast(fraction, integer) < 0
    fraction, rest = select(negative, ~fraction, fraction), select(negative, ~rest, rest)
    few = {"f32": 63, "f64": 1023}[dtype]  # the bits of the fraction that its float would not hold
    high = convert(bitcast(fraction & ~few, integer), dtype)
    low = convert(bitcast(fraction & few, integer), dtype) + convert(rest, dtype) * 2.0 ** -(8 * SIZE[dtype])
    r, error = two_product(high, const(unit, dtype))
    r_low = error + fma(high, unit_low, fma(low, unit, low * unit_low))
    total = r + r_low
    sign = sign_bit(x)
    flip = select(negative, ~sign, sign) & (1 << (8 * SIZE[dtype] - 1))
    signed = bitcast(quadrant, integer)
    return negate_if(total, flip), negate_if((r - total) + r_low, flip), select(ne(sign, 0), -signed, signed)


Parts = tuple[E, E]  # a value as the unevaluated sum of a large and a small part


def _sin_cos_parts(reduced: Reduced) -> tuple[Parts, Parts, E]:
    """sin and cos of r + r_low, and the quadrant."""
    r, r_low, quadrant = reduced
    z = r * r
    half = z * 0.5
    near_one = 1 - half
    sine = r, fma(r * z, poly(z, _SIN[r.dtype]), r_low * near_one)
    cosine = near_one, ((1 - near_one) - half) + fma(z * z, poly(z, _COS[r.dtype]), -(r * r_low))
    return sine, cosine, quadrant


def _sin_in(reduced: Reduced, turn: int) -> E:
    """The sine, `turn` quadrants further."""
    sine, cosine, quadrant = _sin_cos_parts(reduced)
    q = quadrant + turn if turn else quadrant
    y = select(ne(q & 1, 0), cosine[0] + cosine[1], sine[0] + sine[1])
    return negate_if(y, (q & 2) << (8 * SIZE[y.dtype] - 2))


def _tan_in(reduced: Reduced) -> E:
    """sin / cos, or -cos / sin, with the quotient corrected for what rounding the two lost."""
    sine, cosine, quadrant = _sin_cos_parts(reduced)
    odd = ne(quadrant & 1, 0)
    over = [select(odd, -c, s) for s, c in zip(sine, cosine, strict=True)]
    under = [select(odd, s, c) for s, c in zip(sine, cosine, strict=True)]
    (a, a_low), (b, b_low) = ((x + low, (x - (x + low)) + low) for x, low in (over, under))
    q = a / b
    return q + (a_low - q * b_low) / b


def _trigonometric(x: E, finish: Callable[[Reduced], E]) -> E:
    huge = ~(absolute(x) < _TRIG_LIMIT[x.dtype])
    fast = finish(_reduce_half_pi(x))
    reduce_huge = {"f32": _reduce_huge_f32, "f64": _reduce_huge_f64}[x.dtype]
    slow = select(absolute(x) < math.inf, finish(reduce_huge(x)), math.nan)
    return rare(huge, fast, slow)


def sin(x: E) -> E:
    y = _trigonometric(x, lambda reduced: _sin_in(reduced, 0))
    return select(absolute(x) < LINEAR[x.dtype], x, y)


def cos(x: E) -> E:
    return _trigonometric(x, lambda reduced: _sin_in(reduced, 1))


# sin(πx) / x in x², |x| <= 1/2
_SIN_PI = {
    "f32": hex_floats("0x1.921fb6p1 -0x1.4abbc4p2 0x1.4668fp1 -0x1.32531ep-1 0x1.3e142p-4"),
    "f64": hex_floats(
        "0x1.921fb54442d18p1 -0x1.4abbce625be52p2 0x1.466bc6775aa7dp1 -0x1.32d2cce627c86p-1 0x1.5078348551854p-4"
        " -0x1.e3074dfaf87afp-8 0x1.e8f3675ee37ddp-12 -0x1.6f7acdb8f658p-16 0x1.9d462020fcc78p-21"
    ),
}


def sin_pi(x: E) -> E:
    """sin(πx) for |x| <= 1/2, up to 2.6 ULP off in float32 and 2.0 in float64."""
    return x * poly(x * x, _SIN_PI[x.dtype])


@via_f64
def tan(x: E) -> E:
    return select(absolute(x) < LINEAR[x.dtype], x, _trigonometric(x, _tan_in))


# ---- their inverses ---------------------------------------------------------------------------------------------

# atan(x) / x - 1 in x², |x| <= 1/2
_ATAN = {
    "f32": hex_floats("-0x1.55555p-2 0x1.99968ep-3 -0x1.2444dp-3 0x1.bfcc86p-4 -0x1.45d978p-4 0x1.3a2a9ap-5"),
    "f64": hex_floats(
        "-0x1.5555555555555p-2 0x1.99999999998cp-3 -0x1.249249248be93p-3 0x1.c71c71c403c17p-4 -0x1.745d16d1eb099p-4"
        " 0x1.3b13a62420a8fp-4 -0x1.11105606677fep-4 0x1.e1d05df3fa304p-5 -0x1.ae9071c5ccdd4p-5 0x1.8256073db37bap-5"
        " -0x1.52d15d4d5b829p-5 0x1.0dcee06a77df3p-5 -0x1.4ccd5d5243e7bp-6 0x1.c19e6bc3247fdp-8"
    ),
}
# asin(x) / x - 1 in x², |x| <= 1/2, float64
_ASIN = hex_floats(
    "0x1.5555555555577p-3 0x1.333333332e133p-4 0x1.6db6db721247bp-5 0x1.f1c71a95002fbp-6 0x1.6e8bdedebf9e1p-6"
    " 0x1.1c49f077d5b5ap-6 0x1.ca1f8af1f1d9ap-7 0x1.75859dacf6aedp-7 0x1.613c1e6f4a2fp-7 0x1.e5fbe8857f6f5p-9"
    " 0x1.639a895132223p-6 -0x1.57fad0e39eaf7p-6 0x1.0b45e9f8e6b15p-5"
)
_PI_PARTS = {
    "f32": (hex_float("0x1.921fb4p1"), hex_float("0x1.4442d2p-23")),
    "f64": (hex_float("0x1.921fb54442d18p1"), hex_float("0x1.1a62633145c07p-53")),
}


def _arc(y: E, x: E, left: E | None = None) -> E:
    """The angle of (x, y), both not negative, measured from the negative axis where `left` holds.

    It is a multiple of π/4 plus or minus the arc tangent of a ratio up to 1/2; so `small - large` is exact.
    """
    steep = y > x
    small, large = select(steep, x, y), select(steep, y, x)
    diagonal = small > large * 0.5
    t = select(diagonal, small - large, small) / select(diagonal, small + large, large)
    z = t * t
    series = z * poly(z, _ATAN[x.dtype])
    high, low = _PI_PARTS[x.dtype]
    eighths = select(steep, select(diagonal, const(0.25, x.dtype), 0.5), select(diagonal, const(0.25, x.dtype), 0))
    falls = steep
    if left is not None:
        eighths = select(left, 1 - eighths, eighths)
        falls = steep ^ left
    t = select(falls, -t, t)
    return eighths * high + (t + fma(t, series, eighths * low))


def atan(x: E) -> E:
    size = absolute(x)
    return with_sign(_arc(size, const(1, x.dtype)), x)


@via_f64
def atan2(y: E, x: E) -> E:
    a, b = absolute(y), absolute(x)
    same = eq(a, b)  # 0/0 and inf/inf have a meaning here
    scale = select(maximum(a, b) > 2.0**1020, const(0.25, x.dtype), 1)
    a, b = (select(same, select(eq(a, 0), const(0, x.dtype), 1), v * scale) for v in (a, b))
    b = select(same, 1, b)
    left = ne(sign_bit(x), 0)
    return select(isnan(x) | isnan(y), math.nan, with_sign(_arc(a, b, left), y))


def _asin_tail(size: E) -> tuple[E, E]:
    """s, c with asin(1 - 2s²) = π/2 - 2 (s + c), and for sizes up to 1/2: s = size, asin(s) = s + c."""
    half = size < 0.5
    z = select(half, size * size, (1 - size) * 0.5)
    s = select(half, size, sqrt(z))
    return s, s * (z * poly(z, _ASIN))


@via_f64
def asin(x: E) -> E:
    size = absolute(x)
    s, c = _asin_tail(size)
    high, low = (v * 0.5 for v in _PI_PARTS["f64"])
    y = select(size < 0.5, s + c, (high - 2 * s) - (2 * c - low))
    return with_sign(y, x)


@via_f64
def acos(x: E) -> E:
    s, c = _asin_tail(absolute(x))
    high, low = _PI_PARTS["f64"]
    signed_s, signed_c = with_sign(s, x), with_sign(c, x)
    centre = 0.5 * high - (signed_s + (signed_c - 0.5 * low))
    side = select(x < 0, high - (2 * (s + c) - low), 2 * (s + c))
    return select(absolute(x) < 0.5, centre, side)
