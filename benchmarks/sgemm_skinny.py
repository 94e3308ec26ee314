"""Matrix products in float32 of shapes that layers have: few rows, few columns, batches of small ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .sgemm import product
from .timing import Case

FORMS = ("NN", "NT", "TN")
ROWS = (1, 2, 4, 8, 16, 32)
# M, N, K
LAYERS = (
    (4096, 16, 4096), (197, 768, 768), (3136, 64, 576), (128, 512, 784), (16, 256, 128), (2048, 2, 512), (2048, 3, 512),
)  # fmt: skip
SMALL = (8, 16, 24, 32)  # cubes of which batches are multiplied
# rows to choose from, M, N, K
NAMED = ((50000, 4096, 64, 512), (50000, 4096, 256, 512), (8000, 8192, 128, 128))


def cases() -> Iterator[Case]:
    shapes = [(m, 4096, 4096) for m in ROWS] + list(LAYERS)
    for m, n, k in shapes:
        for form in FORMS:
            yield product(f"{m} x {n} x {k} {form}", (m, k), (k, n), form)
    for form in FORMS:
        yield product(f"96 of 64 x 64 x 64 {form}", (96, 64, 64), (96, 64, 64), form)
    for n in SMALL:
        yield product(f"96 of {n} x {n} x {n}", (96, n, n), (96, n, n))
    yield product("48 of 64 x 64 x 32", (48, 64, 32), (48, 32, 64))
    for rows, m, n, k in NAMED:
        yield of_named_rows(rows, m, n, k)


def of_named_rows(rows: int, m: int, n: int, k: int) -> Case:
    """A product of `m` rows that an index picks out of `rows`, as embeddings and experts have them."""
    rng = np.random.default_rng(0)
    table, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, k), (k, n)))
    index = rng.integers(0, rows, m)

    def form(lib: Any, x: Any, index: Any, w: Any) -> Any:
        return lib.index_select(x, 0, index) @ w

    calls = peers.contenders(
        form, table, index, w, numpy=lambda x, i, w: x[i] @ w, jax_form=lambda x, i, w: x[i] @ w
    )  # fmt: skip
    name = f"{m} x {n} x {k}, rows out of {rows}"
    return Case(name, lambda: calls, work=2.0 * m * n * k, rate_unit="GFLOP/s", rtol=1e-3, atol=1e-3 * k**0.5)
