"""matmul against its definition, bit for bit: random shapes, layouts, batches, threads; integers, edges, epilogues."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from bounds import assert_close

import neurlang as nl
from neurlang.blas import OWN, PROVIDERS, find

from .contraction import Array, assert_same_bits, dot, layout, normal, tensor, tree

# Our kernels give the bits of the definition for any number of threads; a library that is found, a result in bounds.
LIBRARIES = [name for name in PROVIDERS if find(name)]
pytestmark = [
    pytest.mark.usefixtures("threads", "gemm"),
    pytest.mark.parametrize(
        ("threads", "gemm"), [*((n, OWN) for n in (1, 2, 3, 8)), *((2, name) for name in LIBRARIES)], indirect=True
    ),
]


@pytest.fixture
def gemm(request: pytest.FixtureRequest) -> Iterator[str]:
    nl.set_gemm(request.param)
    yield request.param
    nl.set_gemm(OWN)


FLOATS = [np.float32, np.float64]


def definition(a: Array, b: Array) -> Array:
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    products = [(a[..., :, k, None], b[..., None, k, :]) for k in range(a.shape[-1])]
    return (tree if 1 in shape[-2:] else dot)(products, shape, a.dtype)


def check(a: Array, b: Array) -> None:
    got = nl.matmul(tensor(a), tensor(b)).numpy()
    with np.errstate(all="ignore"):
        if nl.get_gemm() == OWN:
            assert_same_bits(got, definition(a, b))
        else:
            exact, magnitude = (np.matmul(f(a).astype(np.float64), f(b).astype(np.float64)) for f in (np.array, np.abs))
            assert_close(got, exact.astype(a.dtype), "dot", n=a.shape[-1], scale=magnitude)


def extent(rng: np.random.Generator) -> int:
    return int(rng.choice([rng.integers(0, 4), rng.integers(1, 40), rng.integers(1, 200)]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", range(40))
def test_random_shapes_and_layouts(rng: np.random.Generator, dtype: type, case: int) -> None:
    m, n = extent(rng), extent(rng)
    k = int(rng.choice([extent(rng), 255, 256, 257, 512, 513, rng.integers(1, 900)]))
    batch = [(), (3,), (2, 3), (1, 4)][rng.integers(4)]
    a, b = normal(rng, (*batch, m, k), dtype), normal(rng, (*batch, k, n), dtype)
    if batch and rng.random() < 0.5:  # one matrix for all of the batch
        repeated = np.broadcast_to((a, b)[which := rng.integers(2)][(0,) * len(batch)], (a, b)[which].shape)
        a, b = (repeated, b) if which == 0 else (a, repeated)
    check(a, b)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("pitch", [1024, 1040])  # rows that crowd each other out of L1, and others
def test_products_of_views_of_wide_matrices(rng: np.random.Generator, dtype: type, pitch: int) -> None:
    wide = normal(rng, (pitch, pitch), dtype)
    for m, k, n in [(20, 20, 20), (33, 64, 70), (15, 200, 90), (80, 80, 80), (130, 129, 131)]:
        for a, b in itertools.product((wide[:m, :k], wide[:k, :m].T), (wide[:k, :n], wide[:n, :k].T)):
            check(a, b)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("m", "k"), [(17, 9), (130, 70), (90, 270)])  # small, in tiles, in two blocks of k
def test_every_remainder_of_columns(rng: np.random.Generator, dtype: type, m: int, k: int) -> None:
    a, b = normal(rng, (m, k), dtype), normal(rng, (k, 140), dtype)
    for n in (*range(2, 40), *range(100, 140)):
        check(a, np.ascontiguousarray(b[:, :n]))
        check(a, np.ascontiguousarray(b[:, :n].T).T)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(60, 5, 8, 7), (7, 40, 64, 33), (3, 80, 80, 80), (2, 90, 64, 90)])
def test_batches_of_small_products(rng: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> None:
    batch, m, k, n = shape
    a, b = normal(rng, (batch, m, k), dtype), normal(rng, (batch, k, n), dtype)
    turned = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (a, b)]
    for operands in itertools.product((a, turned[0], a[::-1]), (b, turned[1], b[:1].repeat(batch, 0))):
        check(*operands)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(64, 64, 64), (81, 80, 79), (5, 200, 300), (300, 256, 9), (3, 250, 700), (127, 128, 129)]
)
def test_threads_share_small_products(rng: np.random.Generator, dtype: type, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype)
    for x, y in itertools.product((a, a.T.copy().T), (b, b.T.copy().T)):
        for _ in range(3):  # threads are woken for products that follow each other
            tensor(x) @ tensor(y)
        check(x, y)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 700, 1300), (700, 1300, 1), (1, 20_000, 1), (3, 5000, 2), (1, 40, 300)])
def test_vectors_and_long_sums(rng: np.random.Generator, dtype: type, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    for _ in range(3):
        check(normal(rng, (m, k), dtype), normal(rng, (k, n), dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [1, 15, 31, 32, 33, 40, 48, 63, 64, 100, 530])
def test_lanes_of_vanishing_products_get_nothing_more(dtype: type, k: int) -> None:
    """Products that round to -0 leave lanes at -0, which a missing element may not make +0 in any layout."""
    small = np.sqrt(np.finfo(dtype).tiny) * 1e-6
    a, x = np.full((5, k), small, dtype), np.full((k, 1), -small, dtype)
    for rows in (a, a.T.copy().T, a.repeat(2, 1)[:, ::2], a[::-1]):
        check(rows, x)
        check(x.T, rows.T)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("m", "n"), [(50, 8), (40, 9), (30, 24), (25, 28), (15, 40)])
def test_threads_share_long_sums(rng: np.random.Generator, dtype: type, m: int, n: int) -> None:
    a, b = normal(rng, (m, 8300), dtype), normal(rng, (8300, n), dtype)
    check(a, b)
    check(np.ascontiguousarray(a.T).T, b)


@pytest.mark.parametrize("order", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize(
    "shape", [(128, 300, 96), (14, 256, 32), (15, 257, 33), (500, 64, 70), (7, 520, 400), (400, 300, 9)]
)
def test_orders_of_storage(rng: np.random.Generator, order: str, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a = rng.standard_normal((k, m) if order[0] == "T" else (m, k)).astype(np.float32)
    b = rng.standard_normal((n, k) if order[1] == "T" else (k, n)).astype(np.float32)
    check(a.T if order[0] == "T" else a, b.T if order[1] == "T" else b)


@pytest.mark.parametrize("order", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 515, 600),
        (1, 2100, 37),
        (1, 700, 9),
        (2, 515, 600),
        (5, 600, 515),
        (32, 257, 1025),
        (600, 515, 1),
        (1027, 256, 7),
        (521, 513, 16),
        (40, 273, 2),
        (3, 16, 35),
        (17, 529, 4),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_few_lines_times_a_large_matrix(
    rng: np.random.Generator, order: str, shape: tuple[int, int, int], dtype: type
) -> None:
    m, k, n = shape
    a = rng.standard_normal((k, m) if order[0] == "T" else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if order[1] == "T" else (k, n)).astype(dtype)
    check(a.T if order[0] == "T" else a, b.T if order[1] == "T" else b)


@pytest.mark.parametrize("n", range(5, 9))  # half a vector of columns, which threads pack block by block
def test_threads_pack_few_columns_beside_each_other(rng: np.random.Generator, n: int) -> None:
    a, b = rng.standard_normal((514, 2303)).astype(np.float32), rng.standard_normal((n, 2303)).astype(np.float32)
    check(a, b.T)
    once = nl.matmul(tensor(a), tensor(b).T).numpy()
    for _ in range(100):
        assert_same_bits(nl.matmul(tensor(a), tensor(b).T).numpy(), once)


@pytest.mark.parametrize("dtype", FLOATS)
def test_batches_of_few_lines_times_large_matrices(rng: np.random.Generator, dtype: type) -> None:
    for m, n in (3, 701), (701, 3):
        a, b = rng.standard_normal((2, m, 400)).astype(dtype), rng.standard_normal((2, 400, n)).astype(dtype)
        check(a, b)
        check(*(np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (a, b)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_error_is_bounded(rng: np.random.Generator, dtype: type) -> None:
    # 256 roundings in a block, then one a block: the bound of any such order of sums.
    a, b = rng.standard_normal((300, 2000)).astype(dtype), rng.standard_normal((2000, 200)).astype(dtype)
    exact, magnitude = (
        np.matmul(x.astype(np.longdouble), y.astype(np.longdouble)) for x, y in ((a, b), (abs(a), abs(b)))
    )
    error = abs(nl.matmul(tensor(a), tensor(b)).numpy() - exact)
    assert (error <= (256 + 8 + 1) * np.finfo(dtype).eps / 2 * magnitude).all()


@pytest.mark.parametrize("dtype", [nl.float16, nl.bfloat16])
@pytest.mark.parametrize("shape", [(1, 300, 701), (701, 300, 1), (1, 2100, 9), (5, 31, 1), (1, 1, 1), (1, 0, 3)])
def test_vectors_times_matrices_of_16_bits(rng: np.random.Generator, dtype: nl.dtype, shape: tuple[int, ...]) -> None:
    if nl.get_gemm() != OWN:
        pytest.skip("a library's sums depend on how we cut the product")
    m, k, n = shape
    for _ in range(4):
        a, b = (tensor(normal(rng, size, np.float32)).to(dtype) for size in ((2, m, k), (2, k, n)))
        if rng.random() < 0.5:
            a, b = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (a, b))
        want = (a.float() @ b.float()).to(dtype)
        assert_same_bits((a @ b).float().numpy(), want.float().numpy())


@pytest.mark.parametrize("dtype", [nl.float16, nl.bfloat16])
@pytest.mark.parametrize("shape", [(70, 300, 90), (66, 520, 65), (130, 129, 131), (300, 5, 300)])
@pytest.mark.parametrize("batches", [((), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), ())])
def test_matrices_of_16_bits_are_widened_as_they_are_packed(
    rng: np.random.Generator, dtype: nl.dtype, shape: tuple[int, ...], batches: tuple[tuple[int, ...], ...]
) -> None:
    if nl.get_gemm() != OWN:
        pytest.skip("a library's sums depend on how we cut the product")
    m, k, n = shape
    a, b = normal(rng, (*batches[0], m, k), np.float32), normal(rng, (*batches[1], k, n), np.float32)
    for _ in range(3):
        x, y = (laid_out(rng, tensor(z).to(dtype)) for z in (a, b))
        want = (x.float() @ y.float()).to(dtype)
        assert_same_bits((x @ y).float().numpy(), want.float().numpy())
    frozen = nl.trace(lambda x: x @ y).freeze(x)
    assert_same_bits(frozen(x).float().numpy(), want.float().numpy())
    assert_same_bits(frozen(x).float().numpy(), want.float().numpy())


@pytest.mark.parametrize("dtype", [nl.float16, nl.bfloat16])
def test_lines_of_16_bits_in_any_stride(rng: np.random.Generator, dtype: nl.dtype) -> None:
    """Over one k the strides of a matrix do not tell which way its line lies."""
    a, b = (tensor(rng.standard_normal(shape, np.float32)).to(dtype) for shape in ((3, 5, 70), (20000, 2)))
    for x in (a[0, :1].T, a.transpose(1, 2)[..., :1]):
        for y in (b[:, :1].T, b.T.contiguous()[:1]):
            want = (x.float() @ y.float()).to(dtype)
            assert_same_bits((x @ y).float().numpy(), want.float().numpy())


def laid_out(rng: np.random.Generator, x: nl.Tensor) -> nl.Tensor:
    """The same elements as they are, transposed in memory, every second of a larger matrix, or backwards."""
    ways = (
        lambda: x,
        lambda: x.transpose(-1, -2).contiguous().transpose(-1, -2),
        lambda: nl.stack([x, x], -1).flatten(-2)[..., ::2],
        lambda: nl.cat([x, x], -2)[..., : x.shape[-2], :],
        lambda: x.flip(-1).contiguous()[..., ::-1],
    )
    return ways[rng.integers(len(ways))]()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_integers_wrap_exactly(rng: np.random.Generator, dtype: type) -> None:
    limits = np.iinfo(dtype)
    for most in (1, 2, 30, 30, 30, 150, 150):
        m, k, n = rng.integers(0, most + 1, 3)
        a = rng.integers(limits.min, limits.max, (2, m, k), dtype, endpoint=True)
        b = rng.integers(limits.min, limits.max, (2, k, n), dtype, endpoint=True)
        a, b = layout(rng, a), layout(rng, b)
        wide = np.matmul(a.astype(np.uint64), b.astype(np.uint64))  # wraps at 64 bits, which are enough
        assert np.array_equal(nl.matmul(tensor(a), tensor(b)).numpy(), wide.astype(dtype))


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 0, 1), (1, 0, 5), (5, 0, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_empty_sums_are_plus_zero(shape: tuple[int, int, int], dtype: type) -> None:
    m, k, n = shape
    got = nl.matmul(nl.from_numpy(np.ones((2, m, k), dtype)), nl.from_numpy(np.ones((2, k, n), dtype))).numpy()
    assert got.shape == (2, m, n) and not got.any() and not np.signbit(got).any()
    one = nl.matmul(nl.from_numpy(np.ones((2, m, k), dtype)), nl.from_numpy(np.ones((k, n), dtype))).numpy()
    assert one.shape == (2, m, n) and not one.any()


EPILOGUES = [
    ((37, 65), (65, 50)),
    ((70, 65), (65, 80)),
    ((9, 200), (200, 256)),
    ((4, 9, 33), (33, 40)),
    ((3, 300), (300, 500)),
    ((1, 300), (300, 80)),
    ((2, 70, 20), (2, 20, 70)),
    ((2, 3, 300), (2, 300, 900)),
    ((900, 300), (300, 5)),
    ((2, 40, 65), (2, 65, 3)),
]


@pytest.mark.parametrize("shapes", EPILOGUES)
@pytest.mark.parametrize("transposed", [False, True])
def test_epilogues_of_a_trace_see_finished_tiles(
    rng: np.random.Generator, shapes: tuple[tuple[int, ...], tuple[int, ...]], transposed: bool
) -> None:
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    if transposed:  # a matrix that is contiguous in k
        b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    bias = rng.standard_normal(b.shape[-1]).astype(np.float32)

    def layer() -> nl.Tensor:
        return nl.relu(nl.matmul(tensor(a), tensor(b)) + tensor(bias)) * 3

    traced = nl.trace(layer)
    for _ in range(3):
        assert_same_bits(traced().numpy(), layer().numpy())
