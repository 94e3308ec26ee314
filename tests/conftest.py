"""Shared fixtures: seeds, the instruction level under test, the marker of long tests."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("NEURLANG_CACHE", str(ROOT / "build" / "test-cache"))  # the user's own cache is left alone


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="shifts every test's random seed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; runs only where -m names it")


def pytest_report_header(config: pytest.Config) -> str:
    return f"instruction level: {os.environ.get('NEURLANG_ISA', 'best')}, seed: {config.getoption('--seed')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="slow; run with -m slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed that is the test's own and the same in every run; `--seed` shifts them all."""
    return zlib.crc32(request.node.nodeid.encode()) + request.config.getoption("--seed")


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def _library_state(seed: int) -> Iterator[None]:
    """Every test that uses the library starts from a seeded generator (so does PyTorch) and an empty program cache, and
    whatever threads and precision it sets, those that held come back."""
    if (peer := sys.modules.get("torch")) is not None:
        peer.manual_seed(seed)
    if (nl := sys.modules.get("neurlang")) is None:
        yield
        return
    nl.manual_seed(seed)
    nl.reset_programs()
    threads, precision = nl.get_num_threads(), nl.get_conv_precision()
    yield
    if nl.get_num_threads() != threads:
        nl.set_num_threads(threads)
    nl.set_conv_precision(precision)


@pytest.fixture(scope="session")
def isa() -> str:
    """The instruction level that this process runs; NEURLANG_ISA forces a lower one (`make test` runs several)."""
    from neurlang import _tensor

    return str(_tensor.isa())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real artefacts beside the repository; a test that needs one skips where it is absent."""
    folder = Path(os.environ.get("NEURLANG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}")
    return folder


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed: not compared with it")


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> int:
    """So many threads while the test runs; a test says how many: parametrize("threads", …, indirect=True)."""
    sys.modules["neurlang"].set_num_threads(request.param)
    return int(request.param)
