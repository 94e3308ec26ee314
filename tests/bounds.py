"""The one table of tolerances: no test carries its own.

Bounds are relative to a `scale` that the caller states (what the algorithm's error is proportional to, for example
`abs(A) @ abs(B)` for a product), in units of the dtype's rounding error `u`. A row's accuracy in ULP is in the table of
operations (`Row.ulp`); what is defined bit for bit needs no bound and has none here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK, LANES, KC = 512, 32, 256  # the sums of ARCHITECTURE.md section 3


def tree(n: int) -> float:
    """Additions on the longest path of T(n): serial in a lane, halving of the lanes, pairs of blocks."""
    blocks = max(1, math.ceil(n / BLOCK))
    return BLOCK / LANES + math.log2(LANES) + math.ceil(math.log2(blocks))


def chain(k: int) -> float:
    """Roundings on the longest path of `dot`: one FMA chain per block of k, then the blocks."""
    return KC + math.ceil(k / KC) + 2


# name -> error bound in units of u for a reduction length n, against the caller's scale.
BOUNDS: dict[str, Callable[[int], float]] = {
    "elementwise": lambda n: 8.0,  # a handful of operations, or one transcendental
    "normal numbers": lambda n: 12.0,  # relative: a root, a logarithm and a sine of some ULP each
    "chain of ops": lambda n: 8.0 * n,  # n such operations one after another, scale = the largest value on the way
    "sum": tree,  # scale: sum(abs(x))
    "window": lambda n: 2.0 + n,  # the mean of n elements one after another, scale: the largest abs(x)
    "scan": lambda n: 64.0 + n / 64.0,  # S(n), scale: the last sum of abs(x)
    "scan of logarithms": lambda n: 32.0,  # scale: abs(result) + 1; an error shrinks with every later step
    "dot": chain,  # scale: abs(A) @ abs(B)
    "winograd": lambda n: 8.0 * chain(n),  # scale: the largest abs(x) conv abs(w); its transforms mix 4 results
    # Roundings of the transforms both ways: 4 of inputs, 6 of weights, 4 of elements. Scale: max(abs(x)) * the largest
    # sum(abs(w)) of an output.
    "winograd of 4x4 tiles": lambda n: LARGE_TILES_GAIN * (chain(n) + 2 * (4 + 6 + 4)),
    "softmax": lambda n: 8.0 * (1.0 + math.log2(max(2, n)) / 8.0),  # relative to the result
    "log_softmax": lambda n: 16.0 + tree(n),  # scale: max(abs(x)) + 1
    "attention": lambda n: 32.0 + n / 8.0,  # scale: (1 + largest |query| @ |key|) * weights @ |value|
    "variance": lambda n: 32.0 + 2.0 * tree(n),  # scale: mean of squares about the mean
    "layer_norm": lambda n: 64.0 + 2.0 * tree(n),  # scale: 1 + abs(weight) + abs(bias)
    "rounding of a large mean": lambda n: 16.0,  # scale: 1 + the mean over the standard deviation
    "norms": lambda n: 32.0,  # scale: 1 + abs(result), or + abs(what meets it), over the standard deviation
    "16-bit gradients": lambda n: 42.0,  # of a few layers, each rounded; scale: the largest gradient
    "another library": lambda n: 512.0 * n,  # of n layers or steps; scale: the largest value, or 1
    "training": lambda n: 4096.0 * n,  # n steps of training of a small network, relative to the loss
}

GRADCHECK = {"eps": 1e-6, "atol": 1e-6, "rtol": 1e-5}  # finite differences in float64
DEVIATIONS = 5.0  # of a statistic of random numbers from what is expected, in standard deviations
PEER_RATIO = 2.0  # |ours - float64| <= PEER_RATIO * |torch - float64| in the maximum norm
LARGE_TILES_GAIN = 152.2  # of errors, by the norms of the transforms of Winograd's tiles of 4x4 results
LARGE_TILES_GROWTH = 4.0  # their root mean square error over that of tiles of 2x2: 2.9 for random numbers
LOGIT_ULPS = {True: 8, False: 10}  # with fma and without: of a classifier's largest logit in a row
KINK = 1e-5  # of its mean size: nearer to 0, rounding decides relu's gradient in any library

_UNIT = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}


def unit(dtype: Any) -> float:
    """The rounding error u of a float dtype: half an ULP of 1."""
    return _UNIT[np.dtype(dtype)]


def assert_close(actual: Any, exact: Any, bound: str, *, n: int = 1, scale: Any = None, what: str = "") -> None:
    """Holds `actual` to `exact` within the named bound; NaN equals NaN and infinities must be equal."""
    actual, exact = np.asarray(actual), np.asarray(exact)
    assert actual.shape == exact.shape, f"{what}: shape {actual.shape}, expected {exact.shape}"
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(np.where(finite, 0, actual), np.where(finite, 0, exact), err_msg=what)
    scale = np.abs(exact) if scale is None else np.broadcast_to(np.asarray(scale), exact.shape)
    allowed = np.zeros(exact.shape)
    if actual.dtype.kind == "f":
        allowed = BOUNDS[bound](n) * unit(actual.dtype) * scale + np.finfo(actual.dtype).smallest_subnormal
    error = np.abs(np.where(finite, actual, 0).astype(np.float64) - np.where(finite, exact, 0))
    bad = finite & (np.isnan(actual) | (error > allowed))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{what or bound}: {int(bad.sum())} of {bad.size} beyond the bound {bound!r} (n={n}); first at {at}: "
            f"{actual[at]!r}, exact {exact[at]!r}, error {error[at]:.3g}, allowed {allowed[at]:.3g}"
        )


def assert_agrees(ours: Any, theirs: Any, *, n: int = 1, what: str = "") -> None:
    """Holds a result to that of another library, for which `n` layers or steps were taken."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert_close(ours, theirs, "another library", n=n, scale=np.max(np.abs(theirs), initial=1.0), what=what)


def assert_share(holds: Any, p: float) -> None:
    """Holds the share of random numbers of which something is true to its probability."""
    holds = np.asarray(holds)
    assert abs(holds.mean() - p) <= DEVIATIONS * math.sqrt(p * (1 - p) / holds.size), f"{holds.mean()}, expected {p}"


def assert_drawn_alike(ours: Any, theirs: Any, *, what: str = "") -> None:
    """Holds two samples to one distribution: by means, standard deviations and the shares below any number."""
    a, b = (np.sort(np.ravel(x)).astype(np.float64) for x in (ours, theirs))
    allowed = DEVIATIONS * math.sqrt(1 / a.size + 1 / b.size)
    assert abs(a.mean() - b.mean()) <= allowed * b.std(), f"{what}: means {a.mean()}, {b.mean()}"
    assert abs(a.std() - b.std()) <= allowed * b.std(), f"{what}: standard deviations {a.std()}, {b.std()}"
    below = [np.searchsorted(x, np.concatenate([a, b]), "right") / x.size for x in (a, b)]
    assert np.abs(below[0] - below[1]).max() <= allowed / 2, f"{what}: shares"


def ulp_error(actual: Any, exact: Any) -> np.ndarray:
    """The error of float `actual` against a more exact result, in units in the last place of the exact value."""
    actual, exact = np.asarray(actual), np.asarray(exact)
    spacing = np.spacing(np.abs(exact).astype(actual.dtype)).astype(np.float64)
    spacing = np.where(np.isfinite(spacing) & (spacing > 0), spacing, np.finfo(actual.dtype).smallest_subnormal)
    same = (actual == exact) | (np.isnan(actual) & np.isnan(exact))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(same, 0.0, np.abs(actual.astype(np.float64) - exact) / spacing)
