"""The algebra of accesses: forms, cuts, strides over refined axes, lifting over a reduced axis."""

from __future__ import annotations

import numpy as np
import pytest

from neurlang.ir.graph import Access, count
from neurlang.ir.kernel import cuts, extents, is_chain, lift, linear_form, merge, strides_over


def addresses(shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """The element offsets of a view in row-major order."""
    index = np.zeros(shape, np.int64)
    for axis, stride in enumerate(strides):
        index = index + (np.arange(shape[axis]) * stride).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return index.ravel()


def random_access(rng: np.random.Generator, rank: int) -> Access:
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 4, 6], rank))
    order, strides, step = rng.permutation(rank), [0] * rank, 1
    for axis in order:
        if rng.random() < 0.8:
            strides[axis] = step * int(rng.choice([1, 1, 1, 2, -1]))
            step *= shape[axis] * int(rng.choice([1, 1, 2]))
    return Access(0, 0, "f32", shape, tuple(strides))


def form_addresses(form: tuple[tuple[int, int], ...]) -> np.ndarray:
    return addresses(tuple(n for n, _ in form), tuple(s for _, s in form))


@pytest.mark.parametrize("rank", range(5))
def test_forms_walk_through_the_same_elements(rng: np.random.Generator, rank: int) -> None:
    for _ in range(200):
        x = random_access(rng, rank)
        form = linear_form(x.shape, x)
        assert np.array_equal(form_addresses(form), addresses(x.shape, x.strides))
        axes = extents(count(x.shape), cuts(form) | {6} if is_chain(cuts(form) | {6, count(x.shape)}) else cuts(form))
        assert count(axes) == count(x.shape)
        assert np.array_equal(addresses(axes, strides_over(form, axes)), addresses(x.shape, x.strides))


def test_equal_forms_mean_equal_walks(rng: np.random.Generator) -> None:
    pool: dict[tuple[int, ...], set[tuple[tuple[int, int], ...]]] = {}
    for _ in range(3000):
        x = random_access(rng, int(rng.integers(1, 4)))
        walk = tuple(addresses(x.shape, x.strides))
        pool.setdefault(walk, set()).add(linear_form(x.shape, x))
    assert sum(len(forms) > 1 for forms in pool.values()) == 0
    assert len(pool) > 500


def test_broadcast_operands_stand_still() -> None:
    x = Access(0, 0, "f32", (3, 1), (1, 1))
    assert linear_form((2, 3, 4), x) == ((2, 0), (3, 1), (4, 0))
    assert linear_form((2, 3, 4), Access(0, 0, "f32", (), ())) == ((24, 0),)


def test_lift_inserts_a_still_axis(rng: np.random.Generator) -> None:
    for _ in range(500):
        x = random_access(rng, 3)
        kept = int(np.prod(x.shape))
        axis, extent = int(rng.integers(0, 4)), int(rng.integers(2, 5))
        behind = count(x.shape[axis:])
        lifted = lift(linear_form(x.shape, x), extent, behind)
        walk = addresses(x.shape, x.strides).reshape(kept // behind, 1, behind)
        expected = np.broadcast_to(walk, (kept // behind, extent, behind)).ravel()
        assert np.array_equal(form_addresses(lifted), expected)


def test_lift_does_not_cut_a_run() -> None:
    assert lift(((5, 1), (4, 5)), 3, 5) is None  # of columns of 4 elements
    assert lift(((5, 1), (4, 5)), 3, 2) == ((5, 1), (2, 10), (3, 0), (2, 5))


def test_chains() -> None:
    assert is_chain([2, 12, 4])
    assert not is_chain([4, 6])
    assert merge([(2, 12), (1, 99), (3, 4), (4, 1)]) == ((24, 1),)
    assert extents(24, {4, 12}) == (2, 3, 4)
