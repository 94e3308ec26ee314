"""The shape rules of C++ and of ops/shapes.py are the same, results and error texts, and both are right."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neurlang import ShapeError, _tensor
from neurlang.ops import shapes as python_rules

CASES = 10_000
HUGE = (1 << 31, 1 << 40, 1 << 59, 1 << 60, 1 << 61, (1 << 63) - 1)

cpp_rules = _tensor.shape_rules
Draw = random.Random


# ---- random arguments: mostly fitting, often wrong in one place, sometimes absurd ----


def size(d: Draw) -> int:
    """An extent as people have them, or an edge."""
    return d.choice((1, 1, 2, 2, 3, 4, 6, 12, 0)) if d.random() < 0.97 else d.choice(HUGE)


def small_shape(d: Draw, low: int = 0, high: int = 5) -> list[int]:
    return [d.choice((1, 1, 2, 3, 4, 6, 0)) for _ in range(d.randint(low, high))]


def fits(shape: list[int]) -> bool:
    return np.prod([max(n, 1) for n in shape], dtype=object) <= python_rules.MAX_ELEMENTS


def shape(d: Draw, low: int = 0, high: int = 5) -> list[int]:
    while not fits(s := [size(d) for _ in range(d.randint(low, high))]):
        pass
    return s


def spoil(d: Draw, numbers: list[int], chance: float = 0.3) -> list[int]:
    """Now and then another number in one place."""
    result = list(numbers)
    if result and d.random() < chance:
        result[d.randrange(len(result))] = d.choice((-2, -1, 0, 1, 2, 3, 5, 7, *HUGE, *(-n for n in HUGE)))
    return result


def axis_of(d: Draw, s: list[int]) -> int:
    return d.randrange(max(len(s), 1))


def draw_checked(d: Draw) -> tuple[Any, ...]:
    return (spoil(d, [size(d) for _ in range(d.randint(0, 10))]),)


def draw_broadcast(d: Draw) -> tuple[Any, ...]:
    whole = shape(d)
    parts = [[n if d.random() < 0.6 else 1 for n in whole[d.randint(0, len(whole)) :]] for _ in range(d.randint(0, 4))]
    return ([p if d.random() < 0.9 else shape(d) for p in parts],)


def draw_reshape(d: Draw) -> tuple[Any, ...]:
    s = shape(d)
    factors = [f for n in s for f in ((n,) if n not in (4, 6, 12) else (2, n // 2))]
    d.shuffle(factors)
    while len(factors) > 1 and d.random() < 0.5:
        factors[-2:] = [factors[-2] * factors[-1]]
    if factors and d.random() < 0.4:
        factors[d.randrange(len(factors))] = -1
    return s, [f for f in spoil(d, factors) if -(1 << 63) <= f < 1 << 63]


def draw_expand(d: Draw) -> tuple[Any, ...]:
    s = shape(d, high=4)
    wanted = [n if n != 1 else d.choice((1, 2, 5, -1)) for n in s]
    return s, spoil(d, [size(d) for _ in range(d.choice((0, 0, 1, 2, 6)))] + wanted)


def draw_permute(d: Draw) -> tuple[Any, ...]:
    s = shape(d)
    axes = [a if d.random() < 0.5 else a - len(s) for a in d.sample(range(len(s)), len(s))]
    return s, spoil(d, axes) + ([0] if d.random() < 0.05 else [])


def bound(d: Draw) -> int:
    return d.choice((*range(-15, 15), *HUGE, *(-n for n in HUGE)))


def draw_slice(d: Draw) -> tuple[Any, ...]:
    s = shape(d, low=1)
    return s, axis_of(d, s), bound(d), bound(d), d.choice((-3, -2, -1, 0, 1, 1, 2, 3, 1 << 62, -(1 << 63)))


def draw_slice_span(d: Draw) -> tuple[Any, ...]:
    return d.randrange(12), bound(d), bound(d), d.choice((-5, -2, -1, 1, 2, 5, 1 << 62, -(1 << 63)))


def draw_axis(d: Draw) -> tuple[Any, ...]:
    return d.choice((*range(-9, 9), *HUGE)), d.randint(0, 8)


def draw_reduce(d: Draw) -> tuple[Any, ...]:
    s = shape(d)
    return s, axis_of(d, s)


def draw_matmul(d: Draw) -> tuple[Any, ...]:
    batch = shape(d, high=3)
    m, k, n = (d.choice((0, 1, 2, 3, 5)) for _ in range(3))
    a = d.choice(([k], [m, k], [*batch, m, k]))
    b = d.choice(([k], [k, n], [*batch, k, n], [*[1] * len(batch), k, n]))
    return tuple(t if fits(t) else [2] for t in (list(map(abs, spoil(d, a, 0.1))), list(map(abs, spoil(d, b, 0.1)))))


def draw_cat(d: Draw) -> tuple[Any, ...]:
    first = shape(d, low=1)
    axis = axis_of(d, first)
    parts = [[size(d) if i == axis else n for i, n in enumerate(first)] for _ in range(d.randint(0, 4))]
    parts = [p if d.random() < 0.9 else shape(d) for p in parts]
    return [first, *(p for p in parts if fits(p))], axis


def draw_pad(d: Draw) -> tuple[Any, ...]:
    s = shape(d)
    return s, spoil(d, [d.randint(-3, 5) for _ in range(2 * len(s))]) + ([1] if d.random() < 0.05 else [])


def draw_conv(d: Draw) -> tuple[list[int], list[int], list[int]]:
    """Input, weight and attributes of a convolution that mostly fits."""
    groups = d.choice((1, 1, 2, 3))
    c, o = groups * d.randint(1, 3), groups * d.randint(1, 3)
    x = [d.randint(0, 3), c, d.randint(0, 9), d.randint(0, 9)]
    w = [o, c // groups, d.randint(1, 4), d.randint(1, 4)]
    attr = [d.choice((1, 1, 2, 3)) if i < 2 or i >= 4 else d.randint(0, 2) for i in range(6)]
    return x, w, [*attr, groups, d.choice((1, 2, 4))]


def positive(numbers: list[int]) -> list[int]:
    """Sizes that a tensor can have: what is spoilt must still be one."""
    bounded = [min(abs(n), 1 << 31) for n in numbers]
    return bounded if fits(bounded) else [min(n, 9) for n in bounded]


def draw_conv2d(d: Draw) -> tuple[Any, ...]:
    x, w, attr = draw_conv(d)
    short = d.random() < 0.03
    return positive(spoil(d, x))[short:], positive(spoil(d, w)), spoil(d, attr)


def forward(x: list[int], w: list[int], attr: list[int]) -> list[int]:
    try:
        return list(python_rules.conv2d("conv2d", tuple(x), tuple(w), attr))
    except ShapeError:
        return [x[0], w[0], 3, 3]


def draw_conv2d_input(d: Draw) -> tuple[Any, ...]:
    x, w, attr = draw_conv(d)
    return positive(spoil(d, forward(x, w, attr))), positive(spoil(d, w)), spoil(d, [*attr, *x[2:]])


def draw_conv2d_weight(d: Draw) -> tuple[Any, ...]:
    x, w, attr = draw_conv(d)
    return positive(spoil(d, x)), positive(spoil(d, forward(x, w, attr))), spoil(d, [*attr, *w[2:]])


def draw_pool2d(d: Draw) -> tuple[Any, ...]:
    x = [d.randint(0, 3), d.randint(0, 3), d.randint(0, 12), d.randint(0, 12)]
    kernel = [d.randint(1, 4) for _ in range(2)]
    attr = [*kernel, d.randint(1, 3), d.randint(1, 3), *(d.randint(0, k // 2) for k in kernel), 1, d.randint(1, 2)]
    return positive(spoil(d, x)), [*spoil(d, attr), d.randrange(2)]


def draw_adaptive_pool2d(d: Draw) -> tuple[Any, ...]:
    return [d.randint(0, 3), d.randint(0, 3), d.randint(0, 4), d.randint(0, 4)], spoil(d, [d.randint(0, 5)] * 2)


def draw_gather(d: Draw) -> tuple[Any, ...]:
    x = shape(d)
    axis = axis_of(d, x)
    index = [d.randint(0, 7) if i == axis else d.randint(0, min(n, 9)) for i, n in enumerate(x)]
    return x, positive(spoil(d, index))[d.random() < 0.05 :], axis


def draw_scatter(d: Draw) -> tuple[Any, ...]:
    x, index, axis = draw_gather(d)
    return x, index, positive(spoil(d, [n + d.randint(0, 2) for n in index])), axis


def draw_index_select(d: Draw) -> tuple[Any, ...]:
    x = shape(d)
    return x, d.choice(([d.randint(0, 9)], [1], small_shape(d))), axis_of(d, x)


def draw_index_add(d: Draw) -> tuple[Any, ...]:
    x, index, axis = draw_index_select(d)
    src = [index[0] if i == axis and index else n for i, n in enumerate(x)]
    return x, index, positive(spoil(d, src)), axis


def as_python(argument: Any) -> Any:
    """Shapes are tuples there."""
    if isinstance(argument, list):
        return tuple(as_python(a) for a in argument)
    return argument


def outcome(rule: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the error's text."""
    try:
        return rule("some_op", *arguments)
    except ShapeError as error:
        return str(error)


RULES = {
    "checked": draw_checked,
    "normalize_axis": draw_axis,
    "broadcast": draw_broadcast,
    "reshape": draw_reshape,
    "expand": draw_expand,
    "permute": draw_permute,
    "slice": draw_slice,
    "slice_span": draw_slice_span,
    "reduce": draw_reduce,
    "matmul": draw_matmul,
    "cat": draw_cat,
    "pad": draw_pad,
    "conv2d": draw_conv2d,
    "conv2d_input": draw_conv2d_input,
    "conv2d_weight": draw_conv2d_weight,
    "pool2d": draw_pool2d,
    "adaptive_pool2d": draw_adaptive_pool2d,
    "gather": draw_gather,
    "scatter": draw_scatter,
    "index_select": draw_index_select,
    "index_add": draw_index_add,
}


@pytest.mark.parametrize("name", RULES)
def test_cpp_equals_python(name: str, seed: int) -> None:
    draw = Draw(seed)
    cpp, python = getattr(cpp_rules, name), getattr(python_rules, name)
    good = bad = 0
    for _ in range(CASES):
        arguments = RULES[name](draw)
        got = outcome(cpp, *arguments)
        assert got == outcome(python, *map(as_python, arguments)), arguments
        good += not isinstance(got, str)
        bad += isinstance(got, str)
        assert not isinstance(got, str) or got.startswith("some_op: ")
    assert good > CASES // 20  # the test means something only if both happen
    assert bad > CASES // 200 or name in ("reduce", "slice_span")


CLASSES = ("winograd_tile", "winograd_tile_input", "winograd_tile_weight")


def test_every_rule_is_compared() -> None:
    bound = {name for name in dir(cpp_rules) if not name.startswith("_")}
    assert bound == {*RULES, "reshape_strides", *CLASSES}


@pytest.mark.parametrize("name", CLASSES)
def test_numerics_classes(seed: int, name: str) -> None:
    draw = Draw(seed)
    found: Counter[int] = Counter()
    for _ in range(CASES):
        dtype, sizes = draw.choice(["float32"] * 9 + ["float64"]), [draw.randint(13, 100) for _ in range(2)]
        sizes += [draw.choice((1, 2, 5, 7, 8, 9, 12, 15, 16, 24, 30)) for _ in range(2)]
        stride, padding, tile = draw.choice((1, 2)), draw.choice((0, 1, 1, 2)), draw.choice((1, 2, 2, 4, 4, 4))
        kernel, attr = spoil(draw, [3, 3]), spoil(draw, [stride, stride, padding, padding, 1, 1, 1, tile])
        got = getattr(cpp_rules, name)(dtype, *sizes, kernel, attr)
        assert got == getattr(python_rules, name)(dtype, *sizes, kernel, attr), (dtype, sizes, kernel, attr)
        found[got] += 1
    assert found.keys() == ({1, 2} if name == "winograd_tile_weight" else {1, 2, 4})
    assert min(found.values()) > CASES // 100


# ---- the rules against NumPy, and against the definition ----


def strides_of(d: Draw, s: list[int]) -> tuple[int, ...]:
    """Strides as views have them: of a permuted, sliced or expanded array."""
    base = np.empty([n * 2 for n in s], np.int8).transpose(d.sample(range(len(s)), len(s)))
    base = base[tuple(slice(None, None, d.choice((1, 1, 2, -1))) for _ in s)]
    return tuple(0 if d.random() < 0.1 else stride for stride in base.strides)


def test_reshape_strides(seed: int) -> None:
    # A view must name the same elements in the same order; None only where no view can.
    draw = Draw(seed)
    found = refused = 0
    for _ in range(CASES):
        s, wanted = draw_reshape(draw)
        target = outcome(cpp_rules.reshape, s, wanted)
        if isinstance(target, str) or max([*s, *target], default=0) > 10_000:
            continue
        strides = strides_of(draw, s) if draw.random() < 0.7 else tuple(np.empty(s, np.int8).strides)
        got = cpp_rules.reshape_strides(s, list(strides), list(target))
        assert got == python_rules.reshape_strides(tuple(s), strides, target)
        offsets = sum_of_outer(s, strides)
        if got is not None:
            assert np.array_equal(sum_of_outer(list(target), got).ravel(), offsets.ravel())
            found += 1
        else:
            assert not is_strided(offsets.ravel(), target)
            refused += 1
    assert found > 1000
    assert refused > 100


def sum_of_outer(s: list[int] | tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The offset of every element."""
    offsets = np.zeros(s, np.int64)
    for axis, (n, stride) in enumerate(zip(s, strides, strict=True)):
        offsets += (np.arange(n) * stride).reshape([-1 if i == axis else 1 for i in range(len(s))])
    return offsets


def is_strided(offsets: np.ndarray[Any, Any], s: tuple[int, ...]) -> bool:
    """Whether some strides give these offsets over shape s."""
    shaped = offsets.reshape(s)
    start = (0,) * len(s)
    strides = [int(shaped[(*start[:i], 1, *start[i + 1 :])] - shaped[start]) if n > 1 else 0 for i, n in enumerate(s)]
    return np.array_equal(sum_of_outer(s, tuple(strides)) + shaped[start], shaped)


def numpy_outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ValueError:
        return None


def cpp_outcome(name: str, *arguments: Any) -> Any:
    result = outcome(getattr(cpp_rules, name), *arguments)
    return None if isinstance(result, str) else result


def test_against_numpy(seed: int) -> None:
    draw = Draw(seed)
    for _ in range(CASES // 5):
        shapes = [small_shape(draw, high=4) for _ in range(draw.randint(1, 3))]
        assert cpp_outcome("broadcast", shapes) == numpy_outcome(np.broadcast_shapes, *map(tuple, shapes))
        a, b = (np.empty(small_shape(draw, 1, 4), np.int8) for _ in range(2))
        if draw.random() < 0.7:
            b = np.empty([*a.shape[:-2], a.shape[-1], 3], np.int8)
        expected = numpy_outcome(lambda a=a, b=b: (a @ b).shape)
        assert cpp_outcome("matmul", list(a.shape), list(b.shape)) == expected
        wanted = [draw.choice((-1, 1, 2, 3, 4, 6, 12, 0)) for _ in range(draw.randint(0, 4))]
        expected = numpy_outcome(lambda a=a, wanted=wanted: a.reshape(wanted).shape)
        assert cpp_outcome("reshape", list(a.shape), wanted) == expected
        start, stop = (draw.randint(-12, 12) for _ in range(2))
        n, step = draw.randrange(9), draw.choice((-2, -1, 1, 3))
        begin, end, _ = slice(start, stop, step).indices(n)
        got = cpp_rules.slice_span("op", n, start, stop, step)
        assert got[1] == len(range(begin, end, step))
        assert got[1] == 0 or got[0] == begin


def places(extent: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """Counts the places of a window by trying them."""
    reach = dilation * (kernel - 1) + 1
    count = 0
    for at in itertools.count(-padding, stride):
        whole = at + reach <= extent + padding
        started = at + reach - (extent + padding) < stride and at < extent  # the last, partial window
        if not whole and not (ceil and started):
            return count
        count += 1
    return count


def test_windows_by_counting(seed: int) -> None:
    draw = Draw(seed)
    for _ in range(CASES // 5):
        x, w, attr = draw_conv(draw)
        expected = [places(x[2 + i], w[2 + i], attr[i], attr[2 + i], attr[4 + i], False) for i in range(2)]
        got = cpp_outcome("conv2d", x, w, attr)
        assert got == ((x[0], w[0], *expected) if all(expected) else None)
        x, attr = [2, 3, draw.randint(1, 14), draw.randint(1, 14)], draw_pool2d(draw)[1]
        if min(attr[:4]) < 1 or min(attr[4:6]) < 0 or max(attr) > 9 or min(attr[6:8]) < 1:
            continue
        expected = [places(x[2 + i], *attr[i:8:2], bool(attr[8])) for i in range(2)]
        fine = all(expected) and all(attr[4 + i] <= attr[i] // 2 for i in range(2))
        assert cpp_outcome("pool2d", x, attr) == ((2, 3, *expected) if fine else None), (x, attr)


# ---- texts ----


@pytest.mark.parametrize(
    ("rule", "arguments", "parts"),
    [
        ("broadcast", ([[2, 3], [4, 3]],), ["[2, 3]", "[4, 3]", "axis -2", "2 and 4"]),
        ("matmul", ([2, 3], [4, 5]), ["[2, 3] @ [4, 5]", "axis 1", "(3)", "axis 0", "(4)"]),
        ("reshape", ([2, 3], [4, -1]), ["[4, -1]", "[2, 3]", "6 elements"]),
        ("conv2d", ([1, 3, 8, 8], [4, 2, 3, 3], [1, 1, 0, 0, 1, 1, 1, 2]), ["[1, 3, 8, 8]", "[4, 2, 3, 3]", "= 3"]),
        ("conv2d", ([1, 3, 8, 8], [4, 3, 9, 3], [1, 1, 0, 0, 1, 1, 1, 2]), ["height", "9 elements", "into 8"]),
        ("conv2d", ([1, 3, 8, 8], [4, 3, 3, 3], [1, 0, 0, 0, 1, 1, 1, 2]), ["stride 0", "width", "positive"]),
        ("conv2d", ([1, 1, 2, 1], [1, 1, 2, 2], [1, 1, *[2**31 - 16] * 2, *[2**32 - 32] * 2, 1, 2]), ["padding"]),
        ("pool2d", ([1, 16, 64, 64], [2**40] * 4 + [2**39] * 2 + [1] * 2 + [0]), ["[1, 16, 64, 64]", "padding"]),
        ("cat", ([[2, 3], [2, 4]], 0), ["[2, 4]", "[2, 3]", "axis 0"]),
        ("checked", ([3, -1],), ["-1", "axis 1", "[3, -1]"]),
        ("checked", ([1 << 40, 1 << 40],), ["too many elements"]),
        ("gather", ([2, 3], [3, 3], 1), ["axis 0", "(3)", "(2)"]),
    ],
)
def test_errors_name_the_call_the_shapes_and_the_axis(rule: str, arguments: Any, parts: list[str]) -> None:
    with pytest.raises(ShapeError, match=r"^conv1x1: ") as error:
        getattr(cpp_rules, rule)("conv1x1", *arguments)
    for part in parts:
        assert part in str(error.value)
    assert isinstance(error.value, ValueError)
