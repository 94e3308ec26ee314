"""Matrix products in float32 of shapes that layers have: few rows, few columns, batches of small ones."""

from __future__ import annotations

from collections.abc import Iterator

from .sgemm import product
from .timing import Case

FORMS = ("NN", "NT", "TN")
ROWS = (1, 2, 4, 8, 16, 32)
# M, N, K
LAYERS = ((4096, 16, 4096), (197, 768, 768), (3136, 64, 576), (128, 512, 784), (2048, 2, 512), (2048, 3, 512))


def cases() -> Iterator[Case]:
    shapes = [(m, 4096, 4096) for m in ROWS] + list(LAYERS)
    for m, n, k in shapes:
        for form in FORMS:
            yield product(f"{m} x {n} x {k} {form}", (m, k), (k, n), form)
    for form in FORMS:
        yield product(f"96 of 64 x 64 x 64 {form}", (96, 64, 64), (96, 64, 64), form)
    yield product("48 of 64 x 64 x 32", (48, 64, 32), (48, 32, 64))
