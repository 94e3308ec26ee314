"""The oracle's arithmetic against plain loops over Python and NumPy scalars, written from ARCHITECTURE.md section 3."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from bounds import assert_close

from neurlang.ir import definitions
from neurlang.tracing import compiler

FMA = compiler().fma()
HAS_FMA = FMA(np.float32(1 + 2**-12), np.float32(1 + 2**-12), np.float32(-1 - 2**-11)) != 0


def scalar_fma(a: np.floating, b: np.floating, c: np.floating) -> np.floating:
    """a * b + c in exact arithmetic, rounded once (or twice without the instruction)."""
    if not HAS_FMA:
        return a * b + c
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    return _nearest(exact, type(a))


def _nearest(exact: Fraction, kind: type) -> np.floating:
    """The float of `kind` nearest to a fraction, ties to even."""
    guess = kind(float(exact))
    candidates = [np.nextafter(guess, kind(-np.inf)), guess, np.nextafter(guess, kind(np.inf))]
    even = lambda x: int(x.view({4: np.uint32, 8: np.uint64}[x.itemsize])) & 1  # noqa: E731
    return min(candidates, key=lambda x: (abs(Fraction(float(x)) - exact), even(x)))


def naive_tree(terms: list[np.floating], kind: type, product: bool = False) -> np.floating:
    combine = (lambda a, b: a * b) if product else (lambda a, b: a + b)
    blocks = []
    for start in range(0, len(terms), 512):
        lanes = [kind(1 if product else 0)] * 32
        for i, term in enumerate(terms[start : start + 512]):
            lanes[i % 32] = combine(lanes[i % 32], term)
        for half in (16, 8, 4, 2, 1):
            for lane in range(half):
                lanes[lane] = combine(lanes[lane], lanes[lane + half])
        blocks.append(lanes[0])
    while len(blocks) > 1:
        merged = [combine(blocks[i], blocks[i + 1]) for i in range(0, len(blocks) - 1, 2)]
        blocks = merged + ([blocks[-1]] if len(blocks) % 2 else [])
    return blocks[0]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b, a.dtype).tobytes()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 5, 31, 32, 33, 100, 511, 512, 513, 1024, 1537, 2600])
def test_sum_and_prod_are_trees(rng: np.random.Generator, n: int, kind: type) -> None:
    x = (rng.standard_normal((n, 2)) * 10.0 ** rng.integers(-6, 6, (n, 2))).astype(kind)
    near_one = (1 + rng.standard_normal((n, 2)) * 0.01).astype(kind)
    for column in range(2):
        assert same_bits(definitions.reduce("sum", x, 0)[0, column], naive_tree(list(x[:, column]), kind))
        assert same_bits(
            definitions.reduce("prod", near_one, 0)[0, column], naive_tree(list(near_one[:, column]), kind, True)
        )


def test_sum_of_minus_zero_is_plus_zero() -> None:
    assert not np.signbit(definitions.reduce("sum", np.full((1, 3), -0.0, np.float32), 0)).any()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [0, 1, 7, 255, 256, 257, 600])
def test_matmul_is_dot(rng: np.random.Generator, depth: int, kind: type) -> None:
    a, b = rng.standard_normal((2, depth)).astype(kind), rng.standard_normal((depth, 3)).astype(kind)
    got = definitions.matmul(a, b, (), FMA)
    for i in range(2):
        for j in range(3):
            total, chain = None, kind(0)
            for k in range(depth):
                if k and k % 256 == 0:
                    total = chain if total is None else total + chain
                    chain = kind(0)
                chain = scalar_fma(a[i, k], b[k, j], chain)
            assert same_bits(got[i, j], chain if total is None else total + chain)


@pytest.mark.parametrize("depth", [1, 33, 700])
@pytest.mark.parametrize("rows", [1, 3])
def test_matvec_is_a_tree_of_fma(rng: np.random.Generator, depth: int, rows: int) -> None:
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((rows, depth), (depth, 1)))
    got = definitions.matmul(a, b, (), FMA)
    for i in range(rows):
        blocks = []
        for start in range(0, depth, 512):
            lanes = [np.float32(0)] * 32
            for k in range(start, min(start + 512, depth)):
                lanes[k % 32] = scalar_fma(a[i, k], b[k, 0], lanes[k % 32])
            for half in (16, 8, 4, 2, 1):
                lanes = [lanes[lane] + lanes[lane + half] for lane in range(half)]
            blocks.append(lanes[0])
        assert same_bits(got[i, 0], blocks[0] if len(blocks) == 1 else blocks[0] + blocks[1])


def test_extrema_order_zeros_and_propagate_nan() -> None:
    x = np.array([[0.0, -0.0, 1.0], [-0.0, -0.0, np.nan], [-1.0, -5.0, 2.0]], np.float32)
    largest, smallest = definitions.reduce("max", x, 0)[0], definitions.reduce("min", x, 0)[0]
    assert largest[0] == 0 and not math.copysign(1, largest[0]) < 0
    assert math.copysign(1, largest[1]) < 0 and np.isnan(largest[2]) and np.isnan(smallest[2])
    assert list(smallest[:2]) == [-1, -5]
    assert definitions.reduce("argmax", x, 0)[0].tolist() == [0, 0, 1]
    assert definitions.reduce("max", np.zeros((0, 2), np.float32), 0).tolist() == [[-np.inf, -np.inf]]


@pytest.mark.parametrize(
    "geometry",
    [(1, 1, 0, 0, 1, 1, 1, 2), (2, 1, 1, 2, 1, 2, 1, 2), (1, 2, 1, 1, 2, 1, 2, 2), (3, 3, 1, 1, 1, 1, 2, 2)],
)
def test_convolutions_agree_with_sums_of_products(rng: np.random.Generator, geometry: tuple[int, ...]) -> None:
    groups = geometry[6]
    x, w = rng.standard_normal((2, 2 * groups, 7, 8)), rng.standard_normal((3 * groups, 2, 3, 2))
    y = definitions.conv2d(x, w, geometry, FMA)
    expected = _conv(x, w, geometry)
    assert_close(y, expected, "dot", scale=_conv(abs(x), abs(w), geometry))
    g = rng.standard_normal(y.shape)
    by_input = definitions.conv2d_input(g, w, (*geometry, 7, 8), FMA)
    by_weight = definitions.conv2d_weight(x, g, (*geometry, 3, 2), FMA)
    # Both are gradients of the same bilinear form.
    scale = (abs(g) * _conv(abs(x), abs(w), geometry)).sum()
    for form in ((by_input * x).sum(), (by_weight * w).sum()):
        assert_close(form, (g * expected).sum(), "dot", n=g.size, scale=scale)
    other = rng.standard_normal(x.shape)
    scale = (abs(g) * _conv(abs(other), abs(w), geometry)).sum()
    assert_close((by_input * other).sum(), (g * _conv(other, w, geometry)).sum(), "dot", n=g.size, scale=scale)


def _conv(x: np.ndarray, w: np.ndarray, geometry: tuple[int, ...]) -> np.ndarray:
    sh, sw, ph, pw, dh, dw, groups, _ = geometry
    n, o = x.shape[0], w.shape[0]
    oh = (x.shape[2] + 2 * ph - dh * (w.shape[2] - 1) - 1) // sh + 1
    ow = (x.shape[3] + 2 * pw - dw * (w.shape[3] - 1) - 1) // sw + 1
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    out = np.zeros((n, o, oh, ow))
    for i, k, y, z in np.ndindex(n, o, oh, ow):
        first = k // (o // groups) * w.shape[1]
        for c, r, q in np.ndindex(*w.shape[1:]):
            out[i, k, y, z] += padded[i, first + c, y * sh + r * dh, z * sw + q * dw] * w[k, c, r, q]
    return out
