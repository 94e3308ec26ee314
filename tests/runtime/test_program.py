"""The replay loop: references, offsets, native steps, epilogues, failures; nothing is allocated while it runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from neurlang import _tensor

from . import native


def cell(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_references_of_every_kind() -> None:
    refs: list[tuple[Any, ...]] = [
        native.slot(1),
        native.slot(0, byte_offset=16),
        native.slot(0, itemsize=8, offset_class=1),
        native.slot(0, itemsize=8, byte_offset=8, offset_class=0),
        ("scalar", 1, 0, -1, 8),
        ("const", 0, 8, -1, 8),
    ]
    into_arena = native.loop("add_cells", [("arena", 0, 64, -1, 8), *refs[1:]], 1, 1, (5,))
    from_arena = native.loop("add_cells", [refs[0], ("arena", 0, 64, -1, 8)], 1, 1, (1,))
    program = native.program([into_arena, from_arena], 2, 128, (cell(0) + cell(1_000_000),))
    x, y = np.arange(10), np.zeros(1, np.int64)
    program.run([x.ctypes.data, y.ctypes.data], [3, 7], [5, 10_000])
    assert y[0] == x[2] + x[7] + x[3 + 1] + 10_000 + 1_000_000
    program.run([x.ctypes.data, y.ctypes.data], [0, 9], [5, 20_000])
    assert y[0] == x[2] + x[9] + x[0 + 1] + 20_000 + 1_000_000
    assert program.n_steps == 2
    assert program.arena_bytes == 128


def native_step(factor: int, epilogue: dict[str, Any] | None = None) -> dict[str, Any]:
    x = (native.slot(0), (2, 3), (1, 2), "i64")
    y = (native.slot(1), (2, 3), (3, 1), "i64")
    address = native.library().symbol("scale")
    return {
        "kind": "native", "address": address, "op": 0, "ins": [x], "outs": [y], "attrs": [factor], "epilogue": epilogue,
        "record": 17,
    }  # fmt: skip


def test_native_steps_and_epilogues() -> None:
    x, y = np.arange(6).reshape(3, 2).T, np.zeros((2, 3), np.int64)
    native.program([native_step(3)], 2).run([x.ctypes.data, y.ctypes.data], [], [])
    assert np.array_equal(y, 3 * x)
    address = native.library().symbol("add_epilogue")
    epilogue = {"address": address, "refs": [native.slot(1), ("scalar", 0, 0, -1, 8)], "ints": [3]}
    native.program([native_step(3, epilogue)], 2).run([x.ctypes.data, y.ctypes.data], [], [100])
    assert np.array_equal(y, 3 * x + 100)


def row_step(rows: tuple[int, ...]) -> dict[str, Any]:
    """Scales four rows of three; their sums are added to slot 2."""
    library = native.library()
    refs = [native.slot(1, itemsize=8), native.slot(2, itemsize=8)]
    epilogue = {"address": library.symbol("add_rows"), "refs": refs, "ints": [3], "rows": rows}
    x, y = ((native.slot(n), (4, 3), (3, 1), "i64") for n in (0, 1))
    return native_step(3, epilogue) | {"address": library.symbol("scale_rows"), "ins": [x], "outs": [y]}


@pytest.mark.parametrize(("result", "elsewhere"), [(-1, 0), (0, 3000)])
@pytest.mark.parametrize("grain", [1, 100])
def test_epilogues_of_rows_see_each_row_once(result: int, elsewhere: int, grain: int) -> None:
    x, y, sums = np.arange(12).reshape(4, 3), np.zeros((4, 3), np.int64), np.full(4, 7)
    native.program([row_step((1, 4, 3, 1, grain, result))], 3).run([a.ctypes.data for a in (x, y, sums)], [], [])
    assert np.array_equal(sums, (3 * x).sum(1) + 7 + [0, 0, elsewhere, elsewhere])
    assert np.array_equal(y, 3 * x * [[1], [1], [result < 0], [result < 0]])


@pytest.mark.parametrize(
    "rows",
    [(1, 4, 3), (1, 3, 3, 1, 1, -1), (2, 4, 3, 1, 1, -1), (1, 4, 3, 0, 1, -1), (1, 4, 0, 1, 1, -1), (1, 4, 3, 1, 1, 2)],
)
def test_epilogues_of_other_rows_are_refused(rows: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Program"):
        native.program([row_step(rows)], 3)


def test_rows_elsewhere_have_a_bounded_number_of_operands() -> None:
    step = row_step((1, 4, 3, 1, 1, 0))
    step["epilogue"]["refs"] *= _tensor.Program.MAX_TAKEN // 2
    native.program([step], 3)
    step["epilogue"]["refs"] += step["epilogue"]["refs"][:1]
    with pytest.raises(ValueError, match="Program"):
        native.program([step], 3)


def test_a_failed_check_is_an_index_error_and_stops_the_run() -> None:
    x, y = np.ones(6, np.int64), np.zeros(6, np.int64)
    after = native.loop("add_cells", [native.slot(1), native.slot(0)], 1, 1, (1,))
    program = native.program([native_step(-4), after], 2)
    with pytest.raises(IndexError, match="index -4 is out of range for axis 1 of size 3"):
        program.run([x.ctypes.data, y.ctypes.data], [], [])
    assert not y.any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"refs": [("slot", 1, 0, -1, 1)]},
        {"refs": [("const", 0, 0, -1, 1)]},
        {"refs": [("arena", 0, 65, -1, 1)]},
        {"refs": [("arena", 0, -1, -1, 1)]},
        {"refs": [("heap", 0, 0, -1, 1)]},
        {"refs": [("slot", 0, 0, -1)]},
        {"kind": "other"},
        {"address": 0},
    ],
)
def test_malformed_steps_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Program"):
        native.program([native.loop("visit", [native.slot(0)], 1, 1) | wrong], 1, 64)


def test_an_arena_that_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="arena"):
        native.program([], 0, -1)
    program = native.program([], 0, 1 << 45)
    with pytest.raises(MemoryError):
        program.run([], [], [])
    native.program([], 0, 1 << 20).run([], [], [])


def test_replaying_allocates_nothing() -> None:
    # The counter must be alive: making a program counts, as does the first run, which makes the arena.
    n = 100_000
    x = np.zeros(n, np.uint8)
    before = _tensor.allocation_count()
    steps = [native.loop("visit", [native.slot(0)], n, 64), native_step(2)] * 20
    steps = [s | {"refs": [native.slot(2)]} if s["kind"] == "generated" else s for s in steps]
    program = native.program(steps, 3, 4 << 20)
    assert _tensor.allocation_count() > before
    a, b = np.ones(6, np.int64), np.zeros(6, np.int64)
    run = program.run
    arguments = [a.ctypes.data, b.ctypes.data, x.ctypes.data]
    run(arguments, [], [])
    # `run` of the cold door itself copies its three lists: count what an empty program needs.
    empty = native.program([], 3, 4 << 20)
    before = _tensor.allocation_count()
    empty.run(arguments, [], [])
    door = _tensor.allocation_count() - before
    before = _tensor.allocation_count()
    for _ in range(50):
        run(arguments, [], [])
    assert _tensor.allocation_count() - before == 50 * door


def test_one_program_on_many_threads() -> None:
    step = native.loop("add_cells", [("arena", 0, 0, -1, 8), native.slot(0), ("scalar", 0, 0, -1, 8)], 1, 1, (2,))
    out = native.loop("add_cells", [native.slot(1), ("arena", 0, 0, -1, 8)], 1, 1, (1,))
    program = native.program([step, out], 2, 8)
    wrong: list[Any] = []

    def replay(seed: int) -> None:
        x, y = np.array([seed]), np.zeros(1, np.int64)
        for i in range(2000):
            program.run([x.ctypes.data, y.ctypes.data], [], [i])
            if y[0] != seed + i:
                wrong.append((seed, i))

    threads = [threading.Thread(target=replay, args=(1000 * k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong


def test_libraries_loaded_one_after_the_other_are_different() -> None:
    # The loader knows files by their paths, and descriptor numbers come back.
    elf = native.elf()
    first = [_tensor.load_library(elf) for _ in range(20)]
    addresses = {library.symbol("visit") for library in first}
    assert len(addresses) == 20
    with pytest.raises(KeyError, match="no_such_symbol"):
        first[0].symbol("no_such_symbol")
    for garbage in (b"", b"\x7fELF", elf[:60]):
        with pytest.raises(RuntimeError, match="load_library"):
            _tensor.load_library(garbage)
    with pytest.raises(RuntimeError, match="no/such"):
        _tensor.load_library("/no/such/file.so")
