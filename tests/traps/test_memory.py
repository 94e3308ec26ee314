"""Traps of memory shared with NumPy: exported storages written or read inside a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import neurlang as nl

from .harness import data, same


def test_exported_tensor_written_in_a_block() -> None:
    # `a = x.numpy()` before the block: the array must show the write at once, so the write cuts.
    def scenario(step: Any) -> Any:
        x, seen = data(4), []
        a = x.numpy()
        for _ in range(4):
            with step:
                x.add_(1.0)
                seen.append(a.copy())
                y = x * 2.0
            seen.append(y)
        return seen

    same(scenario, compiled=2, replayed=(6, 7), cut=4)


def test_array_changed_between_blocks() -> None:
    def scenario(step: Any) -> Any:
        memory = np.arange(6, dtype=np.float32)
        x, results = nl.from_numpy(memory), []
        for k in range(4):
            with step:
                y = x * 2.0
            memory[:] += k
            results.append(y)
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_write_through_the_tensor_shows_in_the_array() -> None:
    def scenario(step: Any) -> Any:
        memory, results = np.zeros((3, 4), np.float32), []
        x = nl.from_numpy(memory)
        for k in range(3):
            with step:
                x[1] += float(k)
            results.append(memory.copy())
        return results

    same(scenario, cut=(3, 6))  # `+=` on an item is an addition and an assignment


def test_result_exported_then_written() -> None:
    def scenario(step: Any) -> Any:
        f, results = step(lambda x: x + 1.0), []
        for seed in range(4):
            y = f(data(4, seed=seed))
            a = y.numpy()
            y.mul_(2.0)
            a[0] = 7.0
            results.append((y, a))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_array_outlives_its_tensor() -> None:
    # The storage lives through the array; the next replay must not reuse it.
    def scenario(step: Any) -> Any:
        f = step(lambda x: x.sqrt())
        return [f(data(200, seed=seed).abs()).numpy() for seed in range(5)]

    same(scenario, compiled=1, replayed=5, cut=0)


def test_check_finds_a_foreign_write() -> None:
    # The one documented difference: a foreign write to an exported input before the block ends is seen late.
    memory = np.ones(8, np.float32)
    x = nl.from_numpy(memory)
    step = nl.trace(check=True)
    with pytest.raises(nl.TraceError), step:
        y = x + 1.0
        memory[:] = 0.0
        del y
    memory[:] = 2.0
    with step:
        z = x + 1.0
    assert z.tolist() == [3.0] * 8


def test_reading_an_exported_input_is_no_cut() -> None:
    def scenario(step: Any) -> Any:
        x = nl.from_numpy(np.arange(5, dtype=np.float32))
        f = step(lambda: x * 2.0)
        return [f() for _ in range(3)]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_numpy_called_in_a_block() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            with step:
                y = data(6, seed=seed) * 2.0
                z = nl.tensor(np.sort(y.numpy())) + 1.0
            results.append(z)
        return results

    same(scenario, cut=3)


def test_out_of_memory_leaves_everything_as_it_was() -> None:
    # Arena and outputs are obtained before the first kernel, so the write before the failure has not happened either.
    step, x = nl.trace(), nl.zeros(1)
    with pytest.raises(MemoryError), step:
        x.add_(1.0)
        y = x.expand(1 << 50) + 1.0
    with pytest.raises((MemoryError, nl.TraceError)):
        y.numpy()
    before = x.item()
    with step:
        x.add_(1.0)
    assert x.item() == before + 1.0


def test_memory_viewed_as_another_dtype() -> None:
    # Two views of one memory, with places counted in elements of different sizes, in one program would pass each other.
    def scenario(step: Any) -> Any:
        x, results = data(4, 6), []
        outside = x.view(nl.int32)
        for _ in range(3):
            with step:
                outside[1].mul_(2)
                y = x * 2.0
                y.view(nl.float16)[:, 3:] = 1.0
                z = y + x.view(nl.float64).float().sum()
            results += [x.clone(), y, z]
        return results

    same(scenario)
