"""Gather, scatter and indexing against plain loops: dtypes, layouts, duplicates, order of additions, bad indices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import neurlang as nl
from neurlang import _tensor

from .contraction import Array, assert_same_bits, layout, same, tensor
from .reduction import numbers, on_all_threads

DTYPES = [np.float32, np.float64, np.bool_, np.uint8, np.int32, np.int64]
CASES = range(12)


def on_copies(x: Array, write: Callable[[nl.Tensor], object]) -> list[Array]:
    """What `write` makes of a copy of x, contiguous or not, for each number of threads."""
    apart = np.zeros([2 * n for n in x.shape], x.dtype)[(slice(None, None, 2),) * x.ndim]

    def run(memory: Array) -> nl.Tensor:
        memory[...] = x
        write(t := tensor(memory))
        return t

    memories = (np.empty(x.shape, x.dtype), apart)
    return [got.copy() for memory in memories for got in on_all_threads(lambda m=memory: run(m))]


def random_shape(rng: np.random.Generator) -> tuple[tuple[int, ...], int]:
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 16, 40], rng.integers(1, 5)))
    return shape, int(rng.integers(len(shape)))


def random_index(rng: np.random.Generator, shape: tuple[int, ...], extent: int) -> Array:
    """Indices from both ends, some of them repeated, in a random layout."""
    return layout(rng, np.asarray(rng.integers(-extent, extent, shape), np.int64)) if shape else np.array(extent - 1)


def element_index(rng: np.random.Generator, shape: tuple[int, ...], axis: int) -> Array:
    """An index for gather: as large as x or smaller along the other axes."""
    sizes = [int(rng.integers(0 if rng.random() < 0.1 else 1, n + 1)) for n in shape]
    sizes[axis] = int(rng.integers(0, 30))
    while np.prod(sizes) > 3000:
        sizes[int(np.argmax(sizes))] //= 2
    return random_index(rng, tuple(sizes), shape[axis])


def add_at(out: Array, place: tuple, value: Array) -> None:
    with np.errstate(all="ignore"):
        out[place] = out[place] | value if out.dtype == np.bool_ else out[place] + value


def names_place(index: Array, axis: int, at: tuple[int, ...]) -> tuple[int, ...]:
    return (*at[:axis], int(index[at]), *at[axis + 1 :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_gather(rng: np.random.Generator, dtype: type, case: int) -> None:
    shape, axis = random_shape(rng)
    x, index = numbers(rng, shape, dtype), element_index(rng, shape, axis)
    want = np.empty(index.shape, dtype)
    for at in np.ndindex(index.shape):
        want[at] = x[names_place(index, axis, at)]
    for got in on_all_threads(lambda: nl.gather(tensor(x), axis, tensor(index))):
        same(got, want)


def scattered(x: np.ndarray, index: np.ndarray, axis: int, src: np.ndarray) -> np.ndarray:
    """x with the elements of src added where the index leads along an axis, in row-major order of the index."""
    result = x.copy()
    for at in np.ndindex(index.shape):
        add_at(result, names_place(index, axis, at), src[at])
    return result


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not np.bool_])
@pytest.mark.parametrize("case", CASES)
def test_scatter_add_in_row_major_order(rng: np.random.Generator, dtype: type, case: int) -> None:
    shape, axis = random_shape(rng)
    x, index = numbers(rng, shape, dtype), element_index(rng, shape, axis)
    src = numbers(rng, tuple(n + int(rng.integers(2)) for n in index.shape), dtype)
    want = scattered(x, index, axis, src)
    for got in on_copies(x, lambda t: t.scatter_add_(axis, tensor(index), tensor(src))):
        same(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_index_select(rng: np.random.Generator, dtype: type, case: int) -> None:
    shape, axis = random_shape(rng)
    x, index = numbers(rng, shape, dtype), random_index(rng, (int(rng.integers(0, 20)),), shape[axis])
    for got in on_all_threads(lambda: nl.index_select(tensor(x), axis, tensor(index))):
        same(got, np.take(x, index, axis))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not np.bool_])
@pytest.mark.parametrize("case", CASES)
def test_index_add_in_ascending_order(rng: np.random.Generator, dtype: type, case: int) -> None:
    shape, axis = random_shape(rng)
    x, index = numbers(rng, shape, dtype), random_index(rng, (int(rng.integers(0, 20)),), shape[axis])
    source = numbers(rng, np.take(x, index, axis).shape, dtype)
    want = x.copy()
    for i, place in enumerate(index):
        add_at(np.moveaxis(want, axis, 0), (place,), np.moveaxis(source, axis, 0)[i])
    for got in on_copies(x, lambda t: t.index_add_(axis, tensor(index), tensor(source))):
        same(got, want)


LONG = [((3, 1300), 1), ((1300, 3), 0), ((90, 70), 1), ((1, 20_000), 1), ((5, 33, 40), 1), ((40, 1100), 0)]


@pytest.mark.parametrize(("shape", "axis"), LONG)
@pytest.mark.parametrize("lying", ["dense", "one for all lines", "one for all elements of a line", "transposed"])
def test_lines_longer_than_what_is_looked_at_together(
    rng: np.random.Generator, shape: tuple[int, ...], axis: int, lying: str
) -> None:
    x, src = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    index = rng.integers(-shape[axis], shape[axis], shape)
    if lying == "one for all lines":
        index = np.broadcast_to(np.take(index, [0], 1 - axis), shape)
    elif lying == "one for all elements of a line":
        index = np.broadcast_to(index[..., :1], shape)
    elif lying == "transposed":
        index = np.asfortranarray(index)
    for got in on_all_threads(lambda: nl.gather(tensor(x), axis, tensor(index))):
        assert_same_bits(got, np.take_along_axis(x, index, axis))
    want = scattered(x, index, axis, src)
    for got in on_copies(x, lambda t: t.scatter_add_(axis, tensor(index), tensor(src))):
        assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "length", "count"), [(1, 9000, 9000), (70, 30, 600), (3, 5, 1), (2000, 28, 40)])
def test_along_the_last_axis(rng: np.random.Generator, dtype: type, rows: int, length: int, count: int) -> None:
    x = numbers(rng, (rows, length), dtype)
    index = random_index(rng, (count,), length)
    source = numbers(rng, (rows, count), dtype)
    for got in on_all_threads(lambda: nl.index_select(tensor(x), 1, tensor(index))):
        same(got, x[:, index])
    for accumulate in (False, True):
        want = x.copy()
        for k, place in enumerate(index):
            if accumulate:
                add_at(want, (slice(None), place), source[:, k])
            else:
                want[:, place] = source[:, k]

        def write(t: nl.Tensor, accumulate: bool = accumulate) -> None:
            _tensor._index_put(t, tensor(source), tensor(index), 1, 1, 1, accumulate)

        for got in on_copies(x, write):
            same(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("run", [1, 2, 3, 7, 12, 15, 16, 17, 28, 31, 40, 63, 65, 130, 300])
def test_slices_of_any_length(rng: np.random.Generator, dtype: type, run: int) -> None:
    """Slices that do not fill vectors are moved in parts; what lies behind them stays."""
    x, source = numbers(rng, (9, run), dtype), numbers(rng, (6, run), dtype)
    index = rng.permutation(9)[:6]
    for got in on_all_threads(lambda: nl.index_select(tensor(x), 0, tensor(index))):
        same(got, x[index])
    for accumulate in (False, True):
        want = x.copy()
        for k, place in enumerate(index):
            if accumulate:
                add_at(want, (place,), source[k])
            else:
                want[place] = source[k]

        def write(t: nl.Tensor, accumulate: bool = accumulate) -> None:
            _tensor._index_put(t, tensor(source), tensor(index), 1, 0, 0, accumulate)

        for got in on_copies(x, write):
            same(got, want)


def points(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[list[Array], list[int], int]:
    """k index arrays of one shape, the axes they index, and where their axes stand in the result."""
    k = int(rng.integers(1, len(shape) + 1))
    axes = sorted(int(a) for a in rng.choice(len(shape), k, replace=False))
    sizes = tuple(int(n) for n in rng.integers(0 if rng.random() < 0.1 else 1, 7, rng.integers(0, 3)))
    indices = [random_index(rng, sizes, shape[a]) for a in axes]
    return indices, axes, int(rng.integers(len(shape) - k + 1))


def at_front(x: Array, axes: list[int]) -> Array:
    return np.moveaxis(x, axes, range(len(axes)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_several_index_arrays(rng: np.random.Generator, dtype: type, case: int) -> None:
    shape, _ = random_shape(rng)
    x = numbers(rng, shape, dtype)
    indices, axes, position = points(rng, shape)
    rank = indices[0].ndim
    where = range(position, position + rank)
    picked = np.moveaxis(at_front(x, axes)[tuple(indices)], range(rank), where)
    tensors = [tensor(i) for i in indices]
    for got in on_all_threads(lambda: _tensor._index_get(tensor(x), *tensors, len(axes), *axes, position)):
        same(got, picked)
    value = numbers(rng, picked.shape, dtype) if picked.ndim else np.array(3).astype(dtype)
    for accumulate in (False, True):
        want = x.copy()
        target, source = at_front(want, axes), np.moveaxis(value, where, range(rank))
        for at in np.ndindex(indices[0].shape):
            place = tuple(int(i[at]) for i in indices)
            if accumulate:
                add_at(target, place, source[at])
            else:
                target[place] = source[at]

        def write(t: nl.Tensor, accumulate: bool = accumulate) -> None:
            _tensor._index_put(t, tensor(value), *tensors, len(axes), *axes, position, accumulate)

        for got in on_copies(x, write):
            same(got, want)


def test_wide_embeddings_are_added_in_order(rng: np.random.Generator) -> None:
    # Many additions to few rows, wide enough for several threads: float addition shows any other order.
    x, index = np.zeros((5, 4000), np.float32), rng.integers(0, 5, 200)
    source = (rng.standard_normal((200, 4000)) * 10.0 ** rng.integers(-6, 6, (200, 1))).astype(np.float32)
    want = x.copy()
    for i, place in enumerate(index):
        want[place] += source[i]
    for got in on_copies(x, lambda t: t.index_add_(0, tensor(index), tensor(source))):
        assert_same_bits(got, want)
    wide = np.ascontiguousarray(np.broadcast_to(index[:, None], source.shape))
    for got in on_copies(x, lambda t: t.scatter_add_(0, tensor(wide), tensor(source))):
        assert_same_bits(got, want)


@pytest.mark.parametrize("case", CASES)
def test_nonzero(rng: np.random.Generator, case: int) -> None:
    shape, _ = random_shape(rng)
    mask = numbers(rng, shape, np.bool_)
    np.testing.assert_array_equal(nl.nonzero(tensor(mask)).numpy(), np.argwhere(mask))


@pytest.mark.parametrize("held", [0.0, 0.003, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(100_003,), (7, 15_013), (15_013, 7), (41, 43, 61), (20_000, 1, 5)])
def test_nonzero_of_parts_shared_by_threads(rng: np.random.Generator, shape: tuple[int, ...], held: float) -> None:
    mask = rng.random(shape) < held
    for laid in (mask, mask.T, np.broadcast_to(mask[:1], (5, *mask.shape[1:])), layout(rng, mask)):
        for got in on_all_threads(lambda laid=laid: nl.nonzero(tensor(laid))):
            np.testing.assert_array_equal(got, np.argwhere(laid))


@pytest.mark.parametrize("case", CASES)
def test_a_mask_of_several_axes_picks_slices(rng: np.random.Generator, case: int) -> None:
    shape = tuple(int(n) for n in rng.integers(0, 6, int(rng.integers(2, 5))))
    x = rng.standard_normal(shape).astype(np.float32)
    mask = layout(rng, rng.random(shape[: int(rng.integers(1, len(shape) + 1))]) < 0.5)
    for laid in (x, layout(rng, x)):
        t = tensor(laid).requires_grad_()
        picked = t[tensor(mask)]
        assert_same_bits(picked.detach().numpy(), laid[mask])
        weights = rng.standard_normal(picked.shape).astype(np.float32)
        (gradient,) = nl.autograd.grad((picked * tensor(weights)).sum(), [t])
        want = np.zeros_like(x)
        want[mask] = weights
        assert_same_bits(gradient.numpy(), want)


def test_of_no_elements_there_may_be_many() -> None:
    """Nothing is done for each of them: every line would take minutes."""
    many = 1 << 40
    x, none = nl.zeros(many, 0), nl.zeros(many, 0, dtype=nl.int64)
    assert nl.rand(3)[none].shape == (many, 0)
    for dim in (0, 1):
        assert nl.gather(x, dim, none).shape == (many, 0)
        assert nl.scatter_add(x, dim, none, x).shape == (many, 0)
    slices, two = nl.zeros(5, many, 0), nl.tensor([0, 1])
    assert slices[two].shape == nl.index_select(slices, 0, two).shape == (2, many, 0)
    assert slices.index_add(0, two, nl.zeros(2, many, 0)).shape == (5, many, 0)
    slices[two] = 1.0
    assert nl.nonzero(none).shape == (0, 2)
    assert x[none != 0].shape == (0,)
    with pytest.raises(IndexError):
        nl.index_select(slices, 0, nl.tensor([5]))


BAD = [3, -4, 2**62, -(2**63)]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_index_is_named_and_nothing_is_written(rng: np.random.Generator, bad: int) -> None:
    x = rng.standard_normal((4, 3, 5)).astype(np.float32)
    index = rng.integers(-3, 3, (4, 7, 5))
    index[2, 3, 1] = bad
    flat = index[2, :, 1].copy()
    calls: list[Callable[[nl.Tensor], object]] = [
        lambda t: nl.gather(t, 1, tensor(index)),
        lambda t: t.scatter_add_(1, tensor(index), nl.ones(4, 7, 5)),
        lambda t: nl.index_select(t, 1, tensor(flat)),
        lambda t: t.index_add_(1, tensor(flat), nl.ones(4, 7, 5)),
        lambda t: _tensor._index_get(t, tensor(flat), 1, 1, 1),
        lambda t: _tensor._index_put(t, nl.ones(4, 7, 5), tensor(flat), 1, 1, 1, False),
    ]
    for call in calls:
        copy = tensor(x.copy())
        with pytest.raises(IndexError, match=str(bad)):
            call(copy)
        np.testing.assert_array_equal(copy.numpy(), x)


@pytest.mark.parametrize("places", [(123_456,), (7, 99_000, 123_456)])
def test_the_first_of_many_bad_indices_is_named(rng: np.random.Generator, places: tuple[int, ...]) -> None:
    """Whichever thread meets one first; what an index of no place would read is not read."""
    index = rng.integers(-50, 50, 200_000)
    for k, place in enumerate(places):
        index[place] = 1000 + k
    x = rng.standard_normal((2, 50)).astype(np.float32)
    calls: list[Callable[[nl.Tensor], object]] = [
        lambda t: nl.gather(t[0], 0, tensor(index)),
        lambda t: nl.gather(t, 1, tensor(index.reshape(2, -1))),
        lambda t: nl.gather(t.T.contiguous(), 0, tensor(index.reshape(-1, 2))),
        lambda t: nl.index_select(t, 1, tensor(index)),
        lambda t: t[0][tensor(index)],
        lambda t: t.index_add_(1, tensor(index), nl.ones(2, len(index))),
        lambda t: t[0].scatter_add_(0, tensor(index), nl.ones(len(index))),
    ]
    for call in calls:
        copy = tensor(x.copy())
        for threads in (1, 3):
            nl.set_num_threads(threads)
            with pytest.raises(IndexError, match="1000"):
                call(copy)
        np.testing.assert_array_equal(copy.numpy(), x)
    for dim in (0, 1):
        with pytest.raises(IndexError, match="0"):
            nl.gather(nl.zeros(3, 3).narrow(dim, 0, 0), dim, nl.zeros(3, 3, dtype=nl.int64))
