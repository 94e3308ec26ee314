"""Scalar expressions of the table's rows that take more than a line: functions over `E` values."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

from . import elementary as el
from . import scalar as s
from . import trigonometric as trig
from .scalar import E

SQRT_HALF = 0.5**0.5
SQRT_2_OVER_PI = sqrt(2 / pi)
INV_SQRT_2PI = 1 / sqrt(2 * pi)
GELU_CUBIC = 0.044715
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def is_float(x: E) -> bool:
    return x.dtype in ("f32", "f64")


def truth(x: E) -> E:
    """Whether x is not zero (a NaN is true)."""
    return x if x.dtype == "b8" else s.ne(x, 0)


def isinf(x: E) -> E:
    return s.isinf(x) if is_float(x) else s.ne(x, x)


def isfinite(x: E) -> E:
    return s.isfinite(x) if is_float(x) else s.eq(x, x)


def sign(x: E) -> E:
    one, zero = s.const(1, x.dtype), s.const(0, x.dtype)
    if x.dtype == "u8":
        return s.select(x > 0, one, zero)
    return s.select(x > 0, one, s.select(x < 0, -one, zero))


def relu(x: E) -> E:
    """max(x, 0) that keeps -0, as PyTorch does, and propagates NaN."""
    return s.select(x < 0, s.const(0, x.dtype), x)


def clamp(x: E, lo: E, hi: E) -> E:
    return s.minimum(s.maximum(x, lo), hi)


def lerp(x: E, y: E, weight: E) -> E:
    """x + weight (y - x), begun at the nearer end, so that the rounding of y - x counts half at most between them."""
    way = y - x
    return s.select(s.absolute(weight) < 0.5, s.fma(weight, way, x), s.fma(weight - 1, way, y))


def integer_power(x: E, y: E) -> E:
    """x**y by squaring, wrapping; a negative exponent gives the truncated reciprocal."""
    one, zero = s.const(1, x.dtype), s.const(0, x.dtype)
    result, base = one, x
    for bit in range(8 * s.SIZE[x.dtype] - (x.dtype != "u8")):
        result = s.select(s.ne(y & (1 << bit), 0), result * base, result)
        base = base * base
    if x.dtype == "u8":
        return result
    alternating = s.select(s.ne(y & 1, 0), x, one)
    unit = s.eq(x, 1) | s.eq(x, -1)
    return s.select(y < 0, s.select(unit, alternating, zero), result)


def power(x: E, y: E) -> E:
    return el.pow(x, y) if is_float(x) else integer_power(x, y)


def divide_trunc(x: E, y: E) -> E:
    return s.trunc(x / y) if is_float(x) else s.idiv(x, y)


def hypot(x: E, y: E) -> E:
    """sqrt(x² + y²) without overflow: the larger side times sqrt(1 + ratio²)."""
    a, b = s.absolute(x), s.absolute(y)
    large, small = s.maximum(a, b), s.minimum(a, b)
    ratio = small / large
    length = large * s.sqrt(s.fma(ratio, ratio, s.const(1, x.dtype)))
    edge = s.eq(large, 0) | s.isinf(small)
    infinite = s.isinf(a) | s.isinf(b)
    return s.select(infinite, s.const(float("inf"), x.dtype), s.select(edge, large, length))


def gelu(x: E) -> E:
    return x * 0.5 * (el.erf(x * SQRT_HALF) + 1)


def gelu_grad(g: E, x: E) -> E:
    """g (Φ(x) + x φ(x)) with the normal distribution Φ and its density φ."""
    cdf = (el.erf(x * SQRT_HALF) + 1) * 0.5
    density = el.exp(x * x * -0.5) * INV_SQRT_2PI
    return g * s.fma(x, density, cdf)


def gelu_tanh(x: E) -> E:
    inner = x * SQRT_2_OVER_PI * s.fma(x * x, s.const(GELU_CUBIC, x.dtype), s.const(1, x.dtype))
    return x * 0.5 * (el.tanh(inner) + 1)


def gelu_tanh_grad(g: E, x: E) -> E:
    one = s.const(1, x.dtype)
    square = x * x
    t = el.tanh(x * SQRT_2_OVER_PI * s.fma(square, s.const(GELU_CUBIC, x.dtype), one))
    slope = SQRT_2_OVER_PI * s.fma(square, s.const(3 * GELU_CUBIC, x.dtype), one)
    return g * (s.fma(x * slope, s.fma(-t, t, one), t + 1) * 0.5)


def silu_grad(g: E, x: E) -> E:
    y = el.sigmoid(x)
    return g * (y * s.fma(x, 1 - y, s.const(1, x.dtype)))


def softplus(x: E, beta: E, threshold: E) -> E:
    z = x * beta
    positive = s.maximum(z, s.const(0, x.dtype))
    return s.select(z > threshold, x, (positive + el.log1p(el.exp(-s.absolute(z)))) / beta)


def logsigmoid(x: E) -> E:
    """-log(1 + e⁻ˣ); all is negated at the end, so that it ends in -0 on the right."""
    return -(s.maximum(-x, s.const(0, x.dtype)) + el.log1p(el.exp(-s.absolute(x))))


GATE_LOW = {"f32": -120.0, "f64": -800.0}  # below, x eˣ is 0
GATE_HIGH = {"f32": 20.0, "f64": 40.0}  # above, silu and mish are x


def _gated(x: E, gate: Callable[[E], tuple[E | float, E]]) -> E:
    """x eˣ times the quotient gate(eˣ), of moderate size; eˣ's power of two comes last: small results lose nothing.

    -inf gives NaN, as inf * 0 does.
    """
    low, high = GATE_LOW[x.dtype], GATE_HIGH[x.dtype]
    near = s.smaller(high, s.larger(low, x))
    y, n = el.exp_parts(near)
    above, under = gate(s.ldexp(y, n))
    below = s.ldexp(near * y * above / under, n)
    return s.select(x < high, s.select(x < low, x * 0, below), x)


def silu(x: E) -> E:
    """x / (1 + e⁻ˣ) = x eˣ / (1 + eˣ)."""
    return _gated(x, lambda w: (1, 1 + w))


def mish(x: E) -> E:
    """x tanh(log(1 + eˣ)), where tanh(log(1 + w)) = w (w + 2) / (w² + 2w + 2)."""
    return _gated(x, lambda w: (w + 2, s.fma(w, w + 2, s.const(2, x.dtype))))


def hardsigmoid(x: E) -> E:
    return clamp(x + 3, s.const(0, x.dtype), s.const(6, x.dtype)) / 6


def elu(x: E, alpha: E) -> E:
    return s.select(x > 0, x, alpha * el.expm1(x))


def selu(x: E) -> E:
    return SELU_SCALE * elu(x, s.const(SELU_ALPHA, x.dtype))


def nan_to_num(x: E, nan: E, posinf: E, neginf: E) -> E:
    finite = s.select(s.isinf(x), s.select(x > 0, posinf, neginf), x)
    return s.select(s.isnan(x), nan, finite)


def arange(start: E, step: E) -> E:
    """start + index * step; float32 is computed in float64, as an index beyond 2^24 would be rounded before."""
    wide = "f64" if is_float(start) else start.dtype
    value = s.convert(start, wide) + s.convert(s.index(), wide) * s.convert(step, wide)
    return s.convert(value, start.dtype)


def philox(position: E, seed: E, offset: E) -> tuple[E, E, E, E]:
    """Four random u32 of Philox 4x32-10 for counter (position, offset) and key seed, all i64.

    A word is the lower half of a u64 with anything above it: all that a multiplication looks at.
    """
    bits = [s.bitcast(x, "u64") for x in (position, offset, seed)]
    c = [bits[0], bits[0] >> 32, bits[1], bits[1] >> 32]
    k0, k1 = bits[2], bits[2] >> 32
    for turn in range(10):
        if turn:
            k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
        p0, p1 = s.low_product(c[0], 0xD2511F53), s.low_product(c[2], 0xCD9E8D57)
        c = [p1 >> 32 ^ c[1] ^ k0, p1, p0 >> 32 ^ c[3] ^ k1, p0]
    first, second, third, fourth = (s.convert(word, "u32") for word in c)
    return first, second, third, fourth


def _unit(word: E, dtype: str) -> E:
    """The high 24 bits of a random word as a float in [0, 1)."""
    return s.convert(s.bitcast(word >> 8, "i32"), dtype)


def uniform(seed: E, offset: E, low: E, high: E) -> E:
    """low + u (high - low), where u in [0, 1) is a multiple of 2^-24 (float32) or 2^-53 (float64)."""
    dtype = low.dtype
    a, b, _, _ = philox(s.index(), seed, offset)
    if dtype == "f32":
        u = _unit(a, dtype) * 2.0**-24
    else:
        upper = s.convert(s.bitcast(a >> 5, "i32"), dtype)
        lower = s.convert(s.bitcast(b >> 6, "i32"), dtype)
        u = s.fma(upper, s.const(2.0**26, dtype), lower) * 2.0**-53
    return s.fma(u, high - low, low)


def normal(seed: E, offset: E, mean: E, std: E) -> E:
    """Box-Muller: mean + std sqrt(-2 log u) sin(πv), with u in (0, 1] so fine that the tail reaches 8 deviations.

    Half a turn, v in [-1/2, 1/2), has all sines already, and needs no reduction.
    """
    dtype = mean.dtype
    a, b, c, d = philox(s.index(), seed, offset)
    u = s.fma(_unit(a, dtype), s.const(2.0**-24, dtype), (_unit(b, dtype) + 1) * 2.0**-48)
    v = s.fma(_unit(c, dtype), s.const(2.0**-24, dtype), -0.5)
    if dtype == "f64":
        v = s.fma(_unit(d, dtype), s.const(2.0**-48, dtype), v)
    return s.fma(s.sqrt(el.log_of_normal(u) * -2) * trig.sin_pi(v), std, mean)


def sgd(p: E, g: E, lr: E, weight_decay: E) -> E:
    return s.fma(-lr, s.fma(weight_decay, p, g), p)


def sgd_momentum(
    p: E, g: E, buf: E, lr: E, momentum: E, dampening: E, weight_decay: E, nesterov: bool = False
) -> tuple[E, E]:
    d = s.fma(weight_decay, p, g)
    velocity = s.fma(momentum, buf, (1 - dampening) * d)
    step = s.fma(momentum, velocity, d) if nesterov else velocity
    return s.fma(-lr, step, p), velocity


def sgd_nesterov(
    p: E, g: E, buf: E, lr: E, momentum: E, dampening: E, weight_decay: E
) -> tuple[E, E]:
    return sgd_momentum(p, g, buf, lr, momentum, dampening, weight_decay, nesterov=True)


def _adam_step(p: E, g: E, m: E, v: E, step: E, rate1: E, rate2: E, eps: E) -> tuple[E, E, E]:
    m = s.fma(rate1, g - m, m)
    v = s.fma(rate2 * g, g, (1 - rate2) * v)
    return p - step * m / (s.sqrt(v) + eps), m, v


def adam(p: E, g: E, m: E, v: E, step: E, rate1: E, rate2: E, eps: E, weight_decay: E) -> tuple[E, E, E]:
    return _adam_step(p, s.fma(weight_decay, p, g), m, v, step, rate1, rate2, eps)


def adamw(p: E, g: E, m: E, v: E, step: E, rate1: E, rate2: E, eps: E, decay: E) -> tuple[E, E, E]:
    return _adam_step(s.fma(-decay, p, p), g, m, v, step, rate1, rate2, eps)
