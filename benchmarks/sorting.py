"""Sorting and what is made of it: values alone, values with their places, the largest few, distinct values, search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

LENGTHS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
DTYPES = (np.float32, np.int64)


def cases() -> Iterator[Case]:
    for dtype in DTYPES:
        for n in LENGTHS:
            yield from sorts(numbers(dtype, n), -1, f"{n} {np.dtype(dtype).name}")
    for shape, axis in (((4096, 256), 1), ((256, 4096), 0), ((10_000, 16), 1)):
        yield from sorts(numbers(np.float32, *shape), axis, f"{' x '.join(map(str, shape))} along {axis}")
    for shape, k in (
        ((1_000_000,), 10), ((256, 32_000), 50), ((1024, 1000), 5), ((1_000_000,), 100_000), ((2000, 30), 3),
    ):
        yield largest(numbers(np.float32, *shape), k)
    for n in (10_000, 1_000_000, 30_000_000):
        yield middle(numbers(np.float32, n))
    for n, values in ((1_000_000, 1000), (1_000_000, 1 << 40)):
        yield distinct(np.random.default_rng(1).integers(0, values, n), values)
    for table, n in ((1000, 1_000_000), (1_000_000, 1_000_000)):
        yield search(np.sort(numbers(np.float32, table)), numbers(np.float32, n))


def numbers(dtype: type, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape)


def sorts(x: np.ndarray, axis: int, name: str) -> Iterator[Case]:
    """The values alone, and their places."""
    jnp = peers.jax.numpy if peers.jax is not None and x.dtype.itemsize < 8 else None  # JAX has no 64 bits by default
    calls = peers.contenders(
        lambda lib, x: lib.sort(x, axis)[0] if lib is peers.torch else values(lib, x, axis), x,
        numpy=lambda x: np.sort(x, axis), jax_form=None if jnp is None else lambda x: jnp.sort(x, axis),
    )
    yield Case(f"sorted values of {name}", calls, work=float(x.size), rate_unit="G/s", rounds=5)
    calls = peers.contenders(
        lambda lib, x: lib.sort(x, axis)[1], x, numpy=lambda x: np.argsort(x, axis),
        jax_form=None if jnp is None else lambda x: jnp.argsort(x, axis),
    )
    yield Case(f"argsort of {name}", agreeing(calls, x, axis), work=float(x.size), rate_unit="G/s", rounds=5)


def middle(x: np.ndarray) -> Case:
    """The lower median."""
    half = (x.size - 1) // 2
    calls = peers.contenders(lambda lib, x: lib.median(x), x, numpy=lambda x: np.partition(x, half)[half])
    return Case(f"median of {x.size}", calls, work=float(x.size), rate_unit="G/s", rounds=5)


def values(lib: Any, x: Any, axis: int) -> Any:
    """PyTorch's one function for values without places, which sorts along the first axis."""
    if x.ndim == 1:
        return lib.msort(x)
    return lib.msort(x.movedim(axis, 0)).movedim(0, axis)


def agreeing(calls: dict[str, Callable[[], Any]], x: np.ndarray, axis: int) -> dict[str, Callable[[], Any]]:
    """Unstable sorts may order equal elements as they like: what is compared is where the places lead."""
    first = [True] * len(calls)

    def checked(i: int, call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            result = call()
            if first[i]:
                first[i] = False
                return np.take_along_axis(x, np.asarray(result), axis)
            return result

        return run

    return {name: checked(i, call) for i, (name, call) in enumerate(calls.items())}


def largest(x: np.ndarray, k: int) -> Case:
    calls = peers.contenders(
        lambda lib, x: lib.topk(x, k)[0], x, numpy=lambda x: by_partition(x, k),
        jax_form=lambda x: peers.jax.lax.top_k(x, k)[0],
    )
    return Case(f"topk {k} of {' x '.join(map(str, x.shape))}", calls, work=float(x.nbytes), rate_unit="GB/s", rounds=5)


def by_partition(x: np.ndarray, k: int) -> np.ndarray:
    """With their places, as the others find them."""
    places = np.argpartition(-x, k - 1)[..., :k]
    return -np.sort(-np.take_along_axis(x, places, -1))


def distinct(x: np.ndarray, values: int) -> Case:
    calls = peers.contenders(lambda lib, x: lib.unique(x), x, numpy=np.unique)
    return Case(f"unique of {x.size} integers below {values}", calls, work=float(x.size), rate_unit="G/s", rounds=5)


def search(table: np.ndarray, x: np.ndarray) -> Case:
    calls = peers.contenders(
        lambda lib, table, x: lib.searchsorted(table, x), table, x, numpy=np.searchsorted,
        jax_form=lambda table, x: peers.jax.numpy.searchsorted(table, x),
    )
    return Case(f"searchsorted of {x.size} among {table.size}", calls, work=float(x.size), rate_unit="G/s", rounds=5)
