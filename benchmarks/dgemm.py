"""Matrix products in float64: square ones, and of few rows, of views that lie transposed, of batches."""

from __future__ import annotations

from collections.abc import Iterator

from .sgemm import product
from .timing import Case

SQUARE = (8, 16, 32, 33, 64, 67, 96, 128, 129, 256, 257, 512, 1024, 2048)
LAYERS = ((1, 4096, 4096), (4, 4096, 4096), (32, 4096, 4096), (128, 512, 784), (1000, 10, 1000))  # M, N, K
FORMS = ("NN", "NT", "TN")


def cases() -> Iterator[Case]:
    for n in SQUARE:
        yield product(f"{n} x {n} x {n}", (n, n), (n, n), dtype="float64")
    for m, n, k in LAYERS:
        for form in FORMS:
            yield product(f"{m} x {n} x {k} {form}", (m, k), (k, n), form, "float64")
    for n in (8, 64):
        yield product(f"96 of {n} x {n} x {n}", (96, n, n), (96, n, n), dtype="float64")
