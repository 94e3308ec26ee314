"""NEON gives the bits of AVX2 and AVX-512: the same programs on an emulated 64-bit ARM processor and on this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.programs import Generator
from fuzz.test_random_graphs import bits, run_eager, run_traced
from ops.draws import draw, wide_dtypes
from ops.test_ops import MAPS, function, types_of

import neurlang as nl
from neurlang import _tensor, compile
from neurlang.backends.cpu.compile import FLAGS, LEVEL_FLAGS
from neurlang.backends.cpu.device import VECTOR_BYTES
from neurlang.backends.cpu.render import render
from neurlang.ops.table import Row

from . import player

F = nl.nn.functional


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := player.missing():
        pytest.skip(f"not installed: {missing}; so it is not known whether the kernels compile for 64-bit ARM")
    return player.build(tmp_path_factory.mktemp("aarch64"))


def test_it_compiles(program: Path) -> None:
    assert program.is_file()


@pytest.fixture(params=[1, 3])
def neon(program: Path, request: pytest.FixtureRequest, isa: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trace that runs its graphs in the player."""
    if player.emulator() is None:
        pytest.skip("no qemu-aarch64: the NEON kernels are compiled but were not run")
    if isa == "baseline":
        pytest.skip("the baseline level has no fma and bits of its own")
    monkeypatch.setattr(compile, "interpret", player.executor(program, request.param))
    return nl.trace(backend="interpret")


Results = list[nl.Tensor]


def compare(neon: Any, names: list[str], compute: Callable[[], Results]) -> None:
    """Runs everything here and there; `names` say what each result is."""
    want = [bits(x.detach().numpy()) for x in compute()]
    with neon:
        got = compute()
    assert neon.counts.replayed == 1, neon.why()
    different = [name for name, x, y in zip(names, want, got, strict=True) if x != bits(y.detach().numpy())]
    assert not different


@pytest.mark.slow
def test_every_map(neon: Any, rng: np.random.Generator) -> None:
    calls: list[tuple[Row, list[nl.Tensor]]] = []
    for row in MAPS:
        for dtype in wide_dtypes(row):
            for shape in ((37, 5), (5,)):
                operands = [draw(rng, row, i, t, shape) for i, t in enumerate(types_of(row, dtype))]
                calls.append((row, [nl.from_numpy(x) for x in operands]))
    compare(neon, [row.name for row, _ in calls], lambda: [function(row)(*ins) for row, ins in calls])


def gradients(fn: Callable[..., nl.Tensor], *arrays: np.ndarray) -> Results:
    """The result and the gradients of a sum of its squares."""
    tensors = [nl.tensor(x, requires_grad=True) for x in arrays]
    out = fn(*tensors)
    return [out, *nl.autograd.grad((out * out).sum(), tensors)]


CONTRACTIONS: dict[str, tuple[Callable[..., nl.Tensor], tuple[tuple[int, ...], ...]]] = {
    "matmul": (nl.matmul, ((67, 300), (300, 45))),
    "matmul, batched and transposed": (lambda a, b: a @ b.transpose(1, 2), ((3, 8, 33), (3, 9, 33))),
    "vector by matrix": (nl.matmul, ((1, 700), (700, 50))),
    "matrix by vector": (nl.matmul, ((50, 700), (700,))),
    "conv2d": (lambda x, w: F.conv2d(x, w, padding=1), ((2, 5, 9, 11), (7, 5, 3, 3))),
    "strided conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=3), ((1, 3, 19, 23), (8, 3, 7, 7))),
    "1 x 1 conv2d": (F.conv2d, ((1, 40, 6, 6), (24, 40, 1, 1))),
    "depthwise conv2d": (lambda x, w: F.conv2d(x, w, padding=1, groups=6), ((1, 6, 10, 9), (6, 1, 3, 3))),
    "linear": (F.linear, ((5, 64), (10, 64), (10,))),
}
ROWS: dict[str, tuple[Callable[..., nl.Tensor], tuple[tuple[int, ...], ...]]] = {
    "sum of the last axis": (lambda x: x.sum(-1), ((7, 1100),)),
    "sum of the first axis": (lambda x: x.sum(0), ((1100, 7),)),
    "mean": (lambda x: x.mean(), ((70, 41),)),
    "amax": (lambda x: x.amax(1), ((9, 130),)),
    "prod": (lambda x: x.prod(1), ((9, 13),)),
    "var": (lambda x: x.var(1), ((9, 130),)),
    "softmax": (lambda x: x.softmax(-1), ((9, 130),)),
    "softmax of the first axis": (lambda x: x.softmax(0), ((40, 19),)),
    "log_softmax": (lambda x: x.log_softmax(-1), ((9, 600),)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (130,), w, b), ((9, 130), (130,), (130,))),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), ((2, 3, 13, 17),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), ((2, 3, 13, 17),)),
    "pooling across planes": (lambda x: F.max_pool2d(F.avg_pool2d(x, 3, 1, 1), 2), ((2, 10, 13, 12),)),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 3), ((2, 3, 13, 17),)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 3), ((2, 3, 13, 17),)),
    "gather": (lambda x: x.gather(1, nl.tensor([[0, 4, -1], [2, 2, 1]])), ((2, 5),)),
    "index_select": (lambda x: x[nl.tensor([3, 0, 3, -1])], ((4, 37),)),
    "attention": (F.scaled_dot_product_attention, ((2, 3, 20, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
    "gelu": (F.gelu, ((9, 130),)),
    "cumsum": (lambda x: x.cumsum(1), ((9, 130),)),
    "sort": (lambda x: nl.sort(x, 1)[0], ((9, 700),)),
    "topk": (lambda x: nl.topk(x, 5)[0], ((9, 130),)),
    "rms_norm": (lambda x, w: F.rms_norm(x, (130,), w), ((9, 130), (130,))),
    "attention of one query": (F.scaled_dot_product_attention, ((2, 3, 1, 16), (2, 3, 33, 16), (2, 3, 33, 16))),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_contractions_rows_and_their_gradients(neon: Any, dtype: str, rng: np.random.Generator) -> None:
    cases = CONTRACTIONS | ROWS
    arrays = {name: [rng.standard_normal(s).astype(dtype) for s in shapes] for name, (_, shapes) in cases.items()}
    names = [f"{name}, result {k}" for name, given in arrays.items() for k in range(len(given) + 1)]

    def compute() -> Results:
        return [x for name, (fn, _) in cases.items() for x in gradients(fn, *arrays[name])]

    compare(neon, names, compute)


def test_a_few_random_programs(neon: Any) -> None:
    check_programs(neon, range(8))


@pytest.mark.slow
def test_random_programs(neon: Any) -> None:
    check_programs(neon, range(8, 150))


def check_programs(neon: Any, seeds: range) -> None:
    for seed in seeds:
        program = Generator(seed, nl).make()
        assert run_traced(program, neon) == run_eager(program), f"seed {seed}\n{program}"


def test_traced_kernels_compile() -> None:
    if player.missing():
        pytest.skip(f"not installed: {player.missing()}; so it is not known whether traced kernels compile for ARM")
    for seed in range(12):
        step = nl.trace()
        run_traced(Generator(seed, nl).make(), step)
        files = render(step.program.schedule, _tensor.simd_header(), VECTOR_BYTES["neon"]).files
        for text in files:
            command = [player.COMPILER.replace("g++", "gcc"), *FLAGS, *LEVEL_FLAGS["neon"], "-", "-o", os.devnull]
            done = subprocess.run(command, input=text, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[:2000]
