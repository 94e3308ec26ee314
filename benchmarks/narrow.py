"""Operations on bfloat16, float16 and int8: half or a quarter of the bytes, computed in float32 or int32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import neurlang as nl

from . import peers
from .timing import Case

SIZE = 1 << 22
FORMS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "add, 1,024 elements": (lambda lib, x, y: x + y, ((1024,), (1024,))),
    "add, 4 Mi elements": (lambda lib, x, y: x + y, ((SIZE,), (SIZE,))),
    "exp, 4 Mi elements": (lambda lib, x: lib.exp(x), ((SIZE,),)),
    "to float32, 4 Mi elements": (lambda lib, x: x.float(), ((SIZE,),)),
    "sum of the rows of 2048 x 2048": (lambda lib, x: x.sum(1), ((2048, 2048),)),
    "softmax of 2048 x 2048": (lambda lib, x: lib.softmax(x, -1), ((2048, 2048),)),
    "matmul of 1 x 4096 x 4096": (lambda lib, x, w: x @ w.T, ((1, 4096), (4096, 4096))),
    "matmul of 16 x 4096 x 4096": (lambda lib, x, w: x @ w.T, ((16, 4096), (4096, 4096))),
    "matmul of 197 x 768 x 768": (lambda lib, x, w: x @ w.T, ((197, 768), (768, 768))),
    "matmul of 64 x 64 x 64": (lambda lib, x, w: x @ w, ((64, 64), (64, 64))),
    "matmul of 256 x 256 x 256": (lambda lib, x, w: x @ w, ((256, 256), (256, 256))),
    "matmul of 1024 x 1024 x 1024": (lambda lib, x, w: x @ w, ((1024, 1024), (1024, 1024))),
    "matmul of 96 of 64 x 64 x 64": (lambda lib, x, w: x @ w, ((96, 64, 64), (96, 64, 64))),
}
INT8 = ((64, 64, 64), (256, 256, 256), (1, 4096, 4096), (16, 4096, 4096), (1024, 1024, 1024))  # M, N, K


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for dtype in ("bfloat16", "float16"):
        for name, (form, shapes) in FORMS.items():
            atol = 0.5 if "matmul" in name or "sum" in name else 1e-3  # a rounding of sums near 0 of large terms
            arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
            yield Case(f"{dtype} {name}", contenders(form, dtype, arrays), rtol=0.02, atol=atol)
    for m, n, k in INT8:
        a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((m, k), (k, n)))
        calls = contenders(product, "int8", [a, b])
        yield Case(f"int8 {m} x {n} x {k} to int32", calls, rtol=0, atol=0, work=2.0 * m * n * k, rate_unit="Gop/s")
    for rows in (1, 8, 64, 256):
        for weights in ("int8", "float16"):
            yield Case(f"{rows} rows by {weights} weights of 4096 x 4096", by_weights(rng, rows, weights), atol=1e-2)


def product(lib: Any, a: Any, b: Any) -> Any:
    return lib.int_mm(a, b) if lib is nl else lib._int_mm(a, b)


def quantised(lib: Any, x: Any, w: Any, zero: Any, scale: Any) -> Any:
    return x @ ((w.float() - zero) * scale).T


def cast(lib: Any, x: Any, w: Any) -> Any:
    return x @ w.float().T


def by_weights(rng: np.random.Generator, rows: int, dtype: str) -> dict[str, peers.Call]:
    """A layer whose weights are narrow, one row an output; frozen programs keep what they make of them."""
    x = rng.standard_normal((rows, 4096)).astype(np.float32)
    if dtype == "int8":
        w = rng.integers(-128, 128, (4096, 4096)).astype(np.int8)
        form, arrays = quantised, [w, *(rng.standard_normal((2, 4096, 1)) / 100).astype(np.float32)]
    else:
        form, arrays = cast, [rng.standard_normal((4096, 4096)).astype(dtype)]
    mine, weights = nl.tensor(x), [nl.tensor(a) for a in arrays]
    frozen = nl.trace(lambda x: form(nl, x, *weights)).freeze(mine)
    return peers.contenders(form, x, *arrays) | {"neurlang frozen": lambda: frozen(mine)}


def contenders(form: Callable[..., Any], dtype: str, arrays: list[np.ndarray]) -> dict[str, peers.Call]:
    """Calls on tensors of a dtype that NumPy may not have; results are compared as float32."""
    tensors = [nl.tensor(a).to(getattr(nl, dtype)) for a in arrays]
    traced = nl.trace(lambda *t: form(nl, *t))
    calls: dict[str, peers.Call] = {"neurlang": lambda: form(nl, *tensors), "neurlang traced": lambda: traced(*tensors)}
    if peers.torch is not None:
        theirs = [peers.torch.tensor(a).to(getattr(peers.torch, dtype)) for a in arrays]
        calls["torch"] = peers.without_gradients(lambda: form(peers.torch, *theirs))
    return calls
