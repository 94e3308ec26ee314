"""Layer, RMS, batch and group norm with weight and bias, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import peers
from .timing import Case

SHAPES = ((8192, 1024), (4096, 768), (768, 128))
IMAGES = ((32, 64, 56, 56), (32, 256, 14, 14), (32, 512, 7, 7), (2, 64, 32, 32))
EPS = 1e-5


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for rows, n in SHAPES:
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((rows, n), (n,), (n,))]
        calls = peers.contenders(layer_norm, *arrays, numpy=written_out, jax_form=written_out)
        yield Case(f"layer norm of {rows} x {n}", calls, work=8.0 * rows * n, rate_unit="GB/s", rtol=1e-3, atol=1e-4)
        seed = rng.standard_normal((rows, n)).astype(np.float32)
        calls = peers.gradients(layer_norm, seed, *arrays, jax_form=written_out)
        yield Case(f"layer norm of {rows} x {n} and its gradients", calls, work=20.0 * rows * n, rate_unit="GB/s",
                   rtol=1e-3, atol=1e-3)  # fmt: skip
        calls = peers.gradients(rms_norm, seed, *arrays[:2], jax_form=rms_written_out)
        yield Case(f"RMS norm of {rows} x {n} and its gradients", calls, work=20.0 * rows * n, rate_unit="GB/s",
                   rtol=1e-3, atol=1e-3)  # fmt: skip
    for shape in IMAGES:
        arrays = [rng.standard_normal(n).astype(np.float32) for n in (shape, shape[1], shape[1])]
        seed = rng.standard_normal(shape).astype(np.float32)
        for name, form, in_jax in (
            ("batch norm", batch_norm, lambda x, w, b: over_axes(x, w, b, (0, 2, 3))),
            ("group norm", group_norm, grouped),
        ):
            title, work = f"{name} of {' x '.join(map(str, shape))}", 8.0 * arrays[0].size
            calls = peers.contenders(form, *arrays, jax_form=in_jax)
            yield Case(f"{title}", calls, work=work, rate_unit="GB/s", rtol=1e-3, atol=1e-4)
            calls = peers.gradients(form, seed, *arrays, jax_form=in_jax)
            yield Case(f"{title} and its gradients", calls, work=2.5 * work, rate_unit="GB/s", rtol=1e-3, atol=1e-2)
        arrays += [rng.standard_normal(shape[1]).astype(np.float32), rng.random(shape[1], np.float32)]
        calls = peers.contenders(by_running, *arrays, jax_form=running_in_jax)
        yield Case(f"batch norm of {' x '.join(map(str, shape))}, not training", calls, work=work, rate_unit="GB/s",
                   rtol=1e-3, atol=1e-4)  # fmt: skip


def batch_norm(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
    return lib.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.1, EPS)


def by_running(lib: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
    return lib.nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.1, EPS)


def running_in_jax(x: Any, *vectors: Any) -> Any:
    weight, bias, mean, var = (v.reshape(1, -1, 1, 1) for v in vectors)
    return (x - mean) / (var + EPS) ** 0.5 * weight + bias


def group_norm(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
    return lib.nn.functional.group_norm(x, 32, weight, bias, EPS)


def over_axes(x: Any, weight: Any, bias: Any, axes: tuple[int, ...]) -> Any:
    d = x - x.mean(axes, keepdims=True)
    normal = d / ((d * d).mean(axes, keepdims=True) + EPS) ** 0.5
    return normal * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)


def grouped(x: Any, weight: Any, bias: Any) -> Any:
    groups = x.reshape(x.shape[0], 32, -1)
    d = groups - groups.mean(2, keepdims=True)
    normal = (d / ((d * d).mean(2, keepdims=True) + EPS) ** 0.5).reshape(x.shape)
    return normal * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)


def rms_norm(lib: Any, x: Any, weight: Any) -> Any:
    return lib.nn.functional.rms_norm(x, weight.shape, weight, EPS)


def rms_written_out(x: Any, weight: Any) -> Any:
    return x / ((x * x).mean(-1, keepdims=True) + EPS) ** 0.5 * weight


def layer_norm(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
    return lib.nn.functional.layer_norm(x, weight.shape, weight, bias, EPS)


def written_out(x: Any, weight: Any, bias: Any) -> Any:
    d = x - x.mean(-1, keepdims=True)
    return d / ((d * d).mean(-1, keepdims=True) + EPS) ** 0.5 * weight + bias
