"""NEON gives the bits of AVX2 and AVX-512: the same programs on an emulated 64-bit ARM processor and on this one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends.replay import difference, run_oracle
from fuzz.programs import Generator
from fuzz.test_random_graphs import bits, run_eager, run_traced
from kernels.convolution import Geometry, record
from kernels.families import compute, draw_operands
from ops.draws import draw, wide_dtypes
from ops.test_ops import MAPS, function, types_of

import neurlang as nl
from neurlang import _tensor, compile
from neurlang.backends.cpu.compile import FLAGS, LEVEL_FLAGS
from neurlang.backends.cpu.device import VECTOR_BYTES
from neurlang.backends.cpu.render import render
from neurlang.ops.row import Row

from . import player


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := player.missing():
        pytest.skip(f"not installed: {missing}; so it is not known whether the kernels compile for 64-bit ARM")
    return player.build(tmp_path_factory.mktemp("aarch64"))


def test_it_compiles(program: Path) -> None:
    assert program.is_file()


@pytest.fixture(params=[1, 3])
def play(program: Path, request: pytest.FixtureRequest, isa: str) -> Any:
    """Runs graphs in the player."""
    if player.emulator() is None:
        pytest.skip("no qemu-aarch64: the NEON kernels are compiled but were not run")
    if isa == "baseline":
        pytest.skip("the baseline level has no fma and bits of its own")
    return player.executor(program, request.param)


@pytest.fixture
def neon(play: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trace that does so."""
    monkeypatch.setattr(compile, "interpret", play)
    return nl.trace(backend="interpret")


Results = Iterable[tuple[str, nl.Tensor]]


def compare(neon: Any, compute: Callable[[], Results]) -> None:
    """Computes everything, each result with its name, here and there."""
    want = [bits(x.detach().numpy()) for _, x in compute()]
    with neon:
        got = list(compute())
    assert neon.counts.replayed == 1, neon.why()
    different = [name for (name, x), there in zip(got, want, strict=True) if bits(x.detach().numpy()) != there]
    assert not different


@pytest.mark.slow
def test_every_map(neon: Any, rng: np.random.Generator) -> None:
    calls: list[tuple[Row, list[nl.Tensor]]] = []
    for row in MAPS:
        for dtype in wide_dtypes(row):
            for shape in ((37, 5), (5,)):
                operands = [draw(rng, row, i, t, shape) for i, t in enumerate(types_of(row, dtype))]
                calls.append((row, [nl.from_numpy(x) for x in operands]))
    compare(neon, lambda: ((row.name, function(row)(*ins)) for row, ins in calls))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_family_of_kernels(neon: Any, dtype: str, rng: np.random.Generator) -> None:
    operands = draw_operands(rng, dtype)
    compare(neon, lambda: compute(operands))


PIXELS = {
    "one tap": Geometry((2, 48, 9, 11), 32, (1, 1)),
    "several taps": Geometry((2, 16, 20, 41), 32, (3, 3), (2, 2), (1, 1)),
    "Winograd's transforms": Geometry((1, 48, 14, 16), 48, (3, 3), padding=(1, 1)),
    "depthwise": Geometry((2, 24, 9, 11), 24, (3, 3), padding=(1, 1), groups=24),
    "depthwise, stride 2": Geometry((2, 24, 18, 21), 24, (3, 3), (2, 2), (1, 1), groups=24),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PIXELS)
def test_images_with_channels_last(play: Any, name: str, rng: np.random.Generator) -> None:
    t = record(PIXELS[name], "f32", "last to last", negated=False)
    graph, leaves = t.graph(), t.leaves(rng)
    expected = run_oracle(graph, t, leaves)
    assert not difference(t, graph, expected, play(graph, leaves, t.offsets, t.scalars, None))


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
