"""The elementary functions as scalar expressions: no libm, the same bits in eager code, traced code and NumPy.

Every function reduces its argument, evaluates a minimax polynomial (found with Sollya's fpminimax, coefficients per
dtype) and undoes the reduction. What cancels is kept in two parts. Products that must be exact are exact without fma
too, so the baseline level is as accurate; the bounds are the rows' `ulp`. Functions that are rarely a bottleneck
compute float32 in float64 and round once.
"""

from __future__ import annotations

import math

from .exact import (
    LINEAR,
    hex_float,
    hex_floats,
    magic,
    poly,
    rint_small,
    short,
    two_product,
    two_sum,
    via_f64,
    with_sign,
)
from .scalar import (
    INT_OF,
    MANTISSA,
    E,
    absolute,
    bitcast,
    const,
    convert,
    copysign,
    eq,
    fma,
    isnan,
    larger,
    ldexp,
    rint,
    select,
    smaller,
    sqrt,
)

# ---- exponentials -----------------------------------------------------------------------------------------------

_LN2 = math.log(2)
_LN2_SHORT = {  # the upper part times an exponent is exact
    "f32": (hex_float("0x1.62e4p-1"), hex_float("0x1.7f7d1cp-20")),
    "f64": (hex_float("0x1.62e42fefa2p-1"), hex_float("0x1.9ef35793c7673p-41")),
}
_LN2_FULL = {
    "f32": (hex_float("0x1.62e43p-1"), hex_float("-0x1.05c61p-29")),
    "f64": (_LN2, hex_float("0x1.abc9e3b39803fp-56")),
}
# (eˣ - 1 - x) / x² for |x| <= ln 2 / 2
_EXP = {
    "f32": hex_floats("0x1.fffffap-2 0x1.55549p-3 0x1.555a22p-5 0x1.123b1p-7 0x1.69546ap-10"),
    "f64": hex_floats(
        "0x1p-1 0x1.5555555555559p-3 0x1.555555555554dp-5 0x1.111111110f62bp-7 0x1.6c16c16c1ab14p-10"
        " 0x1.a01a01b020824p-13 0x1.a01a018e133f4p-16 0x1.71ddf7acb2d08p-19 0x1.27e512fe0a153p-22"
        " 0x1.af5ffebed6641p-26 0x1.1f1afc382abb6p-29"
    ),
}
_EXP_RANGE = {"f32": (-104.0, 88.8), "f64": (-745.2, 709.9)}  # beyond lie 0 and infinity
_EXP2_RANGE = {"f32": (-151.0, 128.5), "f64": (-1077.0, 1024.5)}
_EXPM1_LOW = {"f32": -18.0, "f64": -38.0}  # below, it is -1


def _clamp(x: E, low: float, high: float) -> E:
    """Into [low, high]; NaN stays NaN."""
    return smaller(high, larger(low, x))


def _reduce_ln2(x: E, x_low: E | None = None) -> tuple[E, E, E]:
    """n, r, r_low with x + x_low = n ln 2 + r + r_low and |r| <= ln 2 / 2, where r is exact and may end in few bits."""
    high, low = _LN2_SHORT[x.dtype]
    n = fma(x, 1 / _LN2, magic(x)) - magic(x)
    return n, fma(n, -high, x), n * -low if x_low is None else fma(n, -low, x_low)


def _exp_reduced(r: E, r_low: E) -> E:
    """exp(r + r_low), little more than half an ULP off."""
    whole = r + r_low
    top = 1 + r
    rest = ((1 - top) + r) + r_low
    return top + fma(whole * whole, poly(whole, _EXP[r.dtype]), rest)


def exp_parts(x: E) -> tuple[E, E]:
    """y and n with eˣ = y 2ⁿ and y about 1, for |x| up to half more than where eˣ ends: keeps what x eˣ would lose."""
    n, r, r_low = _reduce_ln2(x)
    return _exp_reduced(r, r_low), n


def exp(x: E) -> E:
    return ldexp(*exp_parts(_clamp(x, *_EXP_RANGE[x.dtype])))


def exp2(x: E) -> E:
    x = _clamp(x, *_EXP2_RANGE[x.dtype])
    high, low = _LN2_FULL[x.dtype]
    n = rint_small(x)
    part = x - n
    r = part * high
    return ldexp(_exp_reduced(r, fma(part, high, -r) + part * low), n)


def expm1(x: E) -> E:
    """2ⁿ (r + q) + 2ⁿ - 1 with the exact parts first; all is halved so that 2ⁿ overflows no earlier than the result."""
    low, high = _EXPM1_LOW[x.dtype], _EXP_RANGE[x.dtype][1]
    n, first, tail = _reduce_ln2(larger(low, x))
    r = first + tail
    q = fma(r * r, poly(r, _EXP[x.dtype]), (first - r) + tail)
    power = ldexp(const(0.5, x.dtype), n)
    half = fma(power, q, fma(power, r, power - 0.5))
    y = select(x > high, math.inf, half + half)
    return select(absolute(x) < LINEAR[x.dtype], x, y)


def sigmoid(x: E) -> E:
    """1 - q on the right and e - e q on the left, where its small values are kept; e = e⁻|ˣ|, q = e / (1 + e)."""
    e = exp(-absolute(x))
    below = 1 + e
    lost = (1 - below) + e
    q = e / below
    q = fma(-q, lost, q)
    base = select(x < 0, e, 1)
    return fma(-base, q, base)


# tanh(x) / x - 1 in x², |x| <= 5/8
_TANH = {
    "f32": hex_floats("-0x1.555532p-2 0x1.1107p-3 -0x1.b837c4p-5 0x1.520a88p-6 -0x1.75699p-8"),
    "f64": hex_floats(
        "-0x1.5555555555552p-2 0x1.1111111110c4ep-3 -0x1.ba1ba1b9d136ep-5 0x1.664f4870a86bbp-6"
        " -0x1.226e32cbb455fp-7 0x1.d6d3598b9a58fp-9 -0x1.7d9c29940265dp-10 0x1.350b30c02abbep-11"
        " -0x1.f10f470cfc348p-13 0x1.800c947a1aabdp-14 -0x1.fa86601649034p-16 0x1.95918cd0f1bd8p-18"
    ),
}
_TANH_HIGH = {"f32": 10.0, "f64": 20.0}  # from here on the result is 1


def tanh(x: E) -> E:
    """A polynomial near 0, else 1 - 2 e / (1 + e) with e = e⁻²ˣ, whose errors shrink with e."""
    size = absolute(x)
    twice = smaller(_TANH_HIGH[x.dtype], size) * -2
    n = fma(twice, 1 / _LN2, magic(x)) - magic(x)
    r = fma(n, -_LN2, twice)
    e = ldexp(fma(fma(poly(r, _EXP[x.dtype]), r, 1), r, 1), n)
    z = size * size
    near = fma(size * z, poly(z, _TANH[x.dtype]), size)
    return with_sign(select(size < 0.625, near, fma(e / (1 + e), -2, 1)), x)


def _half_exp(x: E) -> E:
    """eˣ / 2, which does not overflow before sinh and cosh do."""
    n, r, r_low = _reduce_ln2(_clamp(x, -745.0, 711.0))
    return ldexp(_exp_reduced(r, r_low), n - 1)


# sinh(x) / x - 1 in x², |x| <= 1, float64
_SINH = hex_floats(
    "0x1.5555555555556p-3 0x1.111111111104p-7 0x1.a01a01a0318d8p-13 0x1.71de3a40565e2p-19 0x1.ae646b4d5f194p-26"
    " 0x1.6118df7177367p-33 0x1.b52ebddfb4fbp-41"
)


@via_f64
def sinh(x: E) -> E:
    z = x * x
    near = fma(x * z, poly(z, _SINH), x)
    half = _half_exp(absolute(x))
    return select(absolute(x) < 1, near, with_sign(half - 0.25 / half, x))


@via_f64
def cosh(x: E) -> E:
    half = _half_exp(absolute(x))
    return half + 0.25 / half


# ---- logarithms -------------------------------------------------------------------------------------------------

# (2 atanh(s) / s - 2) / s² in s², |s| <= (√2 - 1) / (√2 + 1)
_LOG = {
    "f32": hex_floats("0x1.555556p-1 0x1.99986ep-2 0x1.24c108p-2 0x1.ce9982p-3"),
    "f64": hex_floats(
        "0x1.5555555555558p-1 0x1.99999999951f8p-2 0x1.2492492e16644p-2 0x1.c71c62b08202cp-3 0x1.7462c4925912cp-3"
        " 0x1.39fc40052809ep-3 0x1.2b730c8fca7bbp-3"
    ),
}
_LOG10_2 = {
    "f32": (hex_float("0x1.344p-2"), hex_float("0x1.3509f8p-18")),
    "f64": (hex_float("0x1.34413509f6p-2"), hex_float("0x1.9fef311f12b36p-42")),
}
_INV_LN2 = {
    "f32": (hex_float("0x1.714p0"), hex_float("0x1.47652cp-12")),
    "f64": (hex_float("0x1.71547p0"), hex_float("0x1.94ae0bf85ddf4p-22")),
}
_INV_LN10 = {
    "f32": (hex_float("0x1.bcap-2"), hex_float("0x1.7b1526p-14")),
    "f64": (hex_float("0x1.bcb7bp-2"), hex_float("0x1.526e50e32a6abp-26")),
}
_MIN_NORMAL = {"f32": 2.0**-126, "f64": 2.0**-1022}


def _split(x: E) -> tuple[E, E]:
    """e, f with x = 2ᵉ (1 + f) and √½ <= 1 + f < √2, for positive finite x; e is integral."""
    dtype, mantissa = x.dtype, MANTISSA[x.dtype]
    tiny = x < _MIN_NORMAL[dtype]
    e, f = _split_normal(select(tiny, x * 2.0**mantissa, x))
    return e - select(tiny, const(mantissa, dtype), 0), f


def _split_normal(x: E) -> tuple[E, E]:
    dtype, mantissa = x.dtype, MANTISSA[x.dtype]
    bits = bitcast(x, INT_OF[dtype])
    root_half = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}[dtype]
    e = (bits - root_half) >> mantissa
    return convert(e, dtype), bitcast(bits - (e << mantissa), dtype) - 1


def _log1p_parts(f: E) -> tuple[E, E]:
    """f²/2 and c with log(1 + f) = f - (f²/2 - c)."""
    s = f / (f + 2)
    z = s * s
    half_square = f * f * 0.5
    return half_square, s * (half_square + z * poly(z, _LOG[f.dtype]))


def _log_edges(x: E, y: E) -> E:
    """The values of a logarithm outside (0, infinity)."""
    y = select(x < math.inf, y, x)
    return select(x <= 0, select(eq(x, 0), const(-math.inf, x.dtype), math.nan), y)


def log(x: E) -> E:
    return _log_edges(x, _log_joined(*_split(x)))


def log_of_normal(x: E) -> E:
    """Of positive normal numbers only, at two thirds of the price."""
    return _log_joined(*_split_normal(x))


def _log_joined(e: E, f: E) -> E:
    """log(2ᵉ (1 + f))."""
    high, low = _LN2_SHORT[f.dtype]
    half_square, c = _log1p_parts(f)
    return fma(e, high, f - (half_square - fma(e, low, c)))


def log1p(x: E) -> E:
    u = x + 1
    back = u - 1
    lost = (1 - (u - back)) + (x - back)  # u + lost = 1 + x
    e, f = _split(u)
    high, low = _LN2_SHORT[x.dtype]
    half_square, c = _log1p_parts(f)
    y = fma(e, high, f - (half_square - fma(e, low, c + lost / u)))
    return select(absolute(x) < LINEAR[x.dtype], x, _log_edges(u, y))


def _log_base(x: E, per_e: tuple[float, float], log_2: tuple[float, float]) -> E:
    """e log_2 + log(1 + f) per_e, every factor in two parts of which the upper is short."""
    e, f = _split(x)
    half_square, c = _log1p_parts(f)
    high = short(f - half_square)
    low = ((f - high) - half_square) + c
    tail = fma(high + low, per_e[1], low * per_e[0])
    top, bottom = e * log_2[0], high * per_e[0]
    total = top + bottom
    return _log_edges(x, total + (fma(e, log_2[1], tail) + ((top - total) + bottom)))


def log2(x: E) -> E:
    return _log_base(x, _INV_LN2[x.dtype], (1.0, 0.0))


def log10(x: E) -> E:
    return _log_base(x, _INV_LN10[x.dtype], _LOG10_2[x.dtype])


_BIG = 2.0**28  # from here on x² swallows 1


@via_f64
def asinh(x: E) -> E:
    size = absolute(x)
    square = size * size
    big = size > _BIG
    y = log1p(select(big, size - 1, size + square / (1 + sqrt(1 + square))))
    return with_sign(select(big, y + _LN2, y), x)


@via_f64
def acosh(x: E) -> E:
    t = x - 1
    big = x > _BIG
    y = log1p(select(big, t, t + sqrt(t + t + t * t)))
    return select(x < 1, math.nan, select(big, y + _LN2, y))


@via_f64
def atanh(x: E) -> E:
    size = absolute(x)
    return with_sign(0.5 * log1p((size + size) / (1 - size)), x)


# ---- powers -----------------------------------------------------------------------------------------------------


def rsqrt(x: E) -> E:
    """The square root halves the division's error; a power of 2 keeps 1 / x a normal number."""
    power = {"f32": 32, "f64": 256}[x.dtype]
    below = absolute(x) < 1
    y = sqrt(1 / (x * select(below, const(4.0**power, x.dtype), 4.0**-power)))
    y = y * select(below, const(2.0**power, x.dtype), 2.0**-power)
    y = select(eq(x, -math.inf), math.nan, y)  # whose reciprocal is -0, which has a square root
    return select(eq(x, 0), copysign(math.inf, x), y)


# log2((1 + s) / (1 - s)) / s and 2ˣ, |x| <= 1/2, in float64 with float32's accuracy to spare
_POW32_LOG2 = hex_floats(
    "0x1.71547652b824dp1 0x1.ec709dc54492ep-1 0x1.2776c2891cd25p-1 0x1.a61a3762c8739p-2 0x1.4793df392dd4cp-2"
    " 0x1.21c6fe831103ep-2"
)
_POW32_EXP2 = hex_floats(
    "0x1.000000026b15ep0 0x1.62e430ca7d065p-1 0x1.ebfbdaccf8e51p-3 0x1.c6aed1374c948p-5 0x1.3b2dc1f06c66ep-7"
    " 0x1.5f4730a969399p-10 0x1.41d1f6c17b994p-13"
)


def _power_f32(x: E, y: E) -> E:
    """2^(y log2 x) for positive finite x, in float64."""
    e, f = _split_normal(convert(x, "f64"))  # which has no subnormal numbers of float32
    s = f / (f + 2)
    exponent = _clamp(convert(y, "f64") * fma(s, poly(s * s, _POW32_LOG2), e), *_EXP2_RANGE["f32"])
    n = rint_small(exponent)
    return convert(ldexp(poly(exponent - n, _POW32_EXP2), n), "f32")


# 2 atanh(s) / s = 2 + z (2/3 + z R(z)) with z = s²: 2/3 in two parts and R, float64
_TWO_THIRDS = (2 / 3, hex_float("0x1.5555555555555p-55"))
_POW64_LOG = hex_floats(
    "0x1.999999999999ap-2 0x1.24924924923p-2 0x1.c71c71c74ba2ap-3 0x1.745d173dc23d4p-3 0x1.3b13a964e954ep-3"
    " 0x1.11156893a97cdp-3 0x1.e01440d1f4bebp-4 0x1.daddfffad134ap-4"
)


def _quotient(a: E, b: E, b_low: E) -> tuple[E, E]:
    """a / (b + b_low) in two parts."""
    q = a / b
    product, error = two_product(q, b)
    return q, (((a - product) - error) - q * b_low) / b


def _log_two_parts(e: E, f: E) -> tuple[E, E]:
    """e ln 2 + log(1 + f) in two parts, good to about 2^-68."""
    s, s_low = _quotient(f, *two_sum(f, const(2, f.dtype)))
    z, z_error = two_product(s, s)
    z_low = fma(s * 2, s_low, z_error)
    c, c_low = two_sum(const(_TWO_THIRDS[0], f.dtype), z * poly(z, _POW64_LOG))
    zc, zc_error = two_product(z, c)
    zc_low = zc_error + fma(z, c_low + _TWO_THIRDS[1], z_low * c)
    szc, szc_error = two_product(s, zc)
    szc_low = szc_error + fma(s, zc_low, s_low * zc)
    series, series_error = two_sum(s * 2, szc)
    low = series_error + (szc_low + s_low * 2)
    high, error = two_sum(e * _LN2_SHORT["f64"][0], series)  # the product is exact
    return high, error + fma(e, _LN2_SHORT["f64"][1], low)


def _power_f64(x: E, y: E) -> E:
    """exp(y log x) for positive finite x, with the logarithm in two parts; out of range it is 0 or infinity."""
    high, low = _log_two_parts(*_split(x))
    product, error = two_product(y, high)
    inside = absolute(product) < 800
    clamped = _clamp(product, *_EXP_RANGE["f64"])
    n, r, r_low = _reduce_ln2(clamped, select(inside, fma(y, low, error), 0))
    return ldexp(_exp_reduced(r, r_low), n)


def pow(x: E, y: E) -> E:
    """C's pow: exact at its special values, NaN for a negative base with a fractional exponent."""
    power = _power_f32 if x.dtype == "f32" else _power_f64
    size = absolute(x)
    whole, even = eq(rint(y), y), eq(rint(y * 0.5), y * 0.5)
    regular = (size > 0) & (size < math.inf)
    magnitude = power(select(regular, size, 1), y)
    grows = (size > 1) ^ (y < 0)  # where |x| or |y| is infinite or x is 0
    limit = select(grows, const(math.inf, x.dtype), 0)
    magnitude = select(regular & (absolute(y) < math.inf), magnitude, limit)
    magnitude = select(eq(size, 1), 1, magnitude)
    signed = select(whole & ~even, with_sign(magnitude, x), magnitude)
    invalid = isnan(x) | isnan(y) | ((x < 0) & ~whole & regular)
    return select(eq(x, 1) | eq(y, 0), 1, select(invalid, math.nan, signed))


# ---- the error function -----------------------------------------------------------------------------------------

# erf(x) / x - 1 in x², for |x| below the bound
_ERF = {
    "f32": hex_floats(
        "0x1.06eba8p-3 -0x1.812742p-2 0x1.ce2deap-4 -0x1.b80c86p-6 0x1.54b6b8p-8 -0x1.a9b192p-11 0x1.5b13fep-14"
    ),
    "f64": hex_floats(
        "0x1.06eba8214db69p-3 -0x1.812746b0379fdp-2 0x1.ce2f21a04362dp-4 -0x1.b82ce312abf08p-6 0x1.565bcd12991cp-8"
        " -0x1.c02db49b09506p-11 0x1.f9a335388d2f5p-14 -0x1.f4d333884b5cap-17 0x1.b9ee95850f6f3p-20"
        " -0x1.5f9828c55d9fap-23 0x1.fc78cbccf59p-27 -0x1.46794feb13d2ep-30 0x1.2978304258b17p-34"
    ),
}
_ERF_BOUND = {"f32": 0.9375, "f64": 1.0}
# log(erfc(x)) for 0.9 <= x <= 4, float32
_LOG_ERFC = hex_floats(
    "0x1.34cb9ap-12 -0x1.21505ap0 -0x1.4394b8p-1 -0x1.c24222p-4 0x1.af7dep-6 -0x1.36046ep-8 0x1.35ba0cp-11"
    " -0x1.7c8044p-15 0x1.ae39b6p-20"
)
# (1 + 2x) exp(x²) erfc(x) in (x - 3) / (x + 3), 1/2 <= x <= 27.5, float64
_ERFC = hex_floats(
    "0x1.40c522d7e4987p0 -0x1.15c084bb9e8fp-3 -0x1.85a15c58a9c45p-5 0x1.098366a5b44fp-3 -0x1.e88b803a5c18cp-4"
    " 0x1.17ca2877fc17fp-4 -0x1.8574c404855acp-6 0x1.4b884e24fdc1dp-9 0x1.ef1bd78ca5848p-10"
    " -0x1.98db4b11e2e28p-11 -0x1.b90fd93f757a3p-14 0x1.0659867d5f5dfp-13 0x1.4b6a1dbc9a1f2p-18"
    " -0x1.512225b1ba71bp-16 -0x1.77e4056f72011p-21 0x1.cfca728f1fd5fp-19 0x1.432df66dd03d7p-22"
    " -0x1.3b18125f711c3p-21 -0x1.609d0cf2ad05ap-24 0x1.36daa1bff948fp-24 0x1.08d3bc8ac4e6ep-27"
)

# erfinv(x) / x with w = -log(1 - x²): in w - 2.5 for w <= 5, in √w - 3 for √w <= 3.75, in √w - 4.875 beyond, float64
_ERFINV_CENTRE = hex_floats(
    "0x1.805c5cfcedef5p0 0x1.f91e8993f0d14p-3 -0x1.11c3c302dfe24p-8 -0x1.4863cdfb617c9p-10"
    " 0x1.c9b437ed29474p-13 -0x1.4f47fe72d1d77p-18 -0x1.ca9227c9f25b1p-19 0x1.01037e3612b23p-21"
    " 0x1.ccff72d0a455ap-27 -0x1.752fd9da3ac5dp-27 0x1.f2cbb436eed9fp-31 0x1.0704b36ae55dcp-33"
    " -0x1.1195c4c091549p-35 0x1.0097618c1ed6cp-40 0x1.2d93526b40e46p-41 -0x1.56df8c9f75f18p-44"
    " -0x1.a13ffcfd6f06bp-49 0x1.1178cf7af34d0p-49 -0x1.3704a895c5b86p-53 -0x1.f0161c66acb76p-56"
    " 0x1.616087a953a1dp-58 0x1.966f679d1cc5ep-63 -0x1.3475f9012270ap-64"
)
_ERFINV_SIDE = hex_floats(
    "0x1.6a9efbd66eae6p1 0x1.006dca7a9c226p0 0x1.3582c8114d20cp-7 -0x1.f4f1c6f09afa8p-8 0x1.7495888e2564fp-8"
    " -0x1.d2754fdd28526p-9 0x1.84f3ed9c6c2d7p-10 -0x1.384303f6dff36p-13 -0x1.28e0a973fb67dp-12"
    " 0x1.aeff731c6a239p-13 -0x1.85bb2d84b7708p-15 -0x1.7fab7a7af467dp-16 0x1.6feeae4081936p-16"
    " -0x1.903baf25a6403p-18 -0x1.b859438853e8ep-20 0x1.11403b275da50p-19 -0x1.65926b72ae7d4p-21"
    " -0x1.12c3fe8ed09afp-23 0x1.9b896cc69bdf9p-23 -0x1.e23391e9aad35p-26 -0x1.27206b733fd2dp-26"
)
_ERFINV_EDGE = hex_floats(
    "0x1.2e4fbe28e61acp2 0x1.02a49f7855b37p0 -0x1.a819f17786b96p-15 -0x1.0cbcfbbf8e1c0p-12"
    " 0x1.7717f02ed3298p-14 -0x1.891512230d89fp-16 0x1.71a2621d66de0p-18 -0x1.54770f3d74dd4p-20"
    " 0x1.63eb391a94ce6p-22 -0x1.03cd14c05edf0p-23 0x1.032e2bfb71c2dp-24 -0x1.15c8a95436c48p-25"
    " 0x1.0f3b4d59ecc6ep-26 -0x1.befc4249a28adp-28 0x1.252bd87d7ee39p-29 -0x1.ff210ce50b944p-32"
    " -0x1.b77e701b1a324p-36 0x1.6821814c1898ap-34 -0x1.2b79836537360p-35 0x1.67157c9ef6c96p-38"
)


def _erf_near_zero(x: E) -> E:
    return fma(x, poly(x * x, _ERF[x.dtype]), x)


def _erfc_tail(size: E) -> E:
    """erfc of a float64 from 1/2 on: exp(-x²) with the square in two exact parts, times a polynomial."""
    x = select(size > 27.5, 27.5, size)
    high = short(x)
    n, r, r_low = _reduce_ln2(-(high * high), (high - x) * (high + x))
    rest = poly((x - 3) / (x + 3), _ERFC) / fma(x, 2, 1)
    return ldexp(_exp_reduced(r, r_low) * rest, n)


def erf(x: E) -> E:
    size = absolute(x)
    if x.dtype == "f32":
        log_erfc = poly(smaller(4, size), _LOG_ERFC)  # from -18 to 0, where exp needs no bounds
        tail = 1 - ldexp(*exp_parts(log_erfc))
    else:
        tail = 1 - _erfc_tail(size)
    return select(size < _ERF_BOUND[x.dtype], _erf_near_zero(x), with_sign(tail, x))


@via_f64
def erfc(x: E) -> E:
    size = absolute(x)
    tail = _erfc_tail(size)
    return select(size < 0.5, 1 - _erf_near_zero(x), select(x < 0, 2 - tail, tail))


@via_f64
def erfinv(x: E) -> E:
    size = absolute(x)
    w = -log((1 - size) * (1 + size))
    root = sqrt(w)
    tail = select(root <= 3.75, poly(root - 3, _ERFINV_SIDE), poly(root - 4.875, _ERFINV_EDGE))
    y = x * select(w <= 5, poly(w - 2.5, _ERFINV_CENTRE), tail)
    return select(size < 1, y, select(eq(size, 1), copysign(math.inf, x), math.nan))
