"""Maps and copies of rows: broadcast, in windows, beside each other, of any length, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import neurlang as nl

LENGTHS = [1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 100, 127, 128, 129, 300, 600]
Array = np.ndarray


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Array:
    return rng.integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("length", LENGTHS)
def test_rows(rng: np.random.Generator, length: int, dtype: type, threads: int) -> None:
    """The results are small integers, exact in every dtype; what lies beside a window stays as it was."""
    rows = int(rng.choice([3, 40, 120_000 // length]))
    wide, x = draw(rng, (rows, length + 3), dtype), draw(rng, (rows, length), dtype)
    line, column = draw(rng, (length,), dtype), draw(rng, (rows, 1), dtype)
    before = nl.get_num_threads()
    nl.set_num_threads(threads)
    try:
        w, a, b, c = (nl.tensor(operand) for operand in (wide, x, line, column))
        window, of_wide = w[:, 1 : length + 1], wide[:, 1 : length + 1]
        for got, want in (
            (nl.maximum(a, b), np.maximum(x, line)),
            (nl.maximum(c, a), np.maximum(column, x)),
            (nl.maximum(window, a), np.maximum(of_wide, x)),
            (nl.maximum(c, b), np.maximum(column, line)),
            (nl.where(c > 50, window, b), np.where(column > 50, of_wide, line)),
            (window.contiguous(), of_wide),
            (nl.flip(window, (0,)), of_wide[::-1]),
            (nl.flip(window, (1,)), of_wide[:, ::-1]),
            (nl.cat([a, window], 1), np.concatenate([x, of_wide], 1)),
            (nl.maximum(a[:, ::2], b[::2]), np.maximum(x[:, ::2], line[::2])),
            (c.expand(rows, length).contiguous(), np.broadcast_to(column, x.shape)),
            (window.unsqueeze(2).expand(rows, length, 3).contiguous(), np.repeat(of_wide[:, :, None], 3, 2)),
        ):
            assert np.array_equal(got.numpy(), want)
        window += b // 2  # no sum is beyond a byte
        wide[:, 1 : length + 1] += line // 2
        assert np.array_equal(w.numpy(), wide)
        w[:, 1 : length + 1] = c
        wide[:, 1 : length + 1] = column
        assert np.array_equal(w.numpy(), wide)
    finally:
        nl.set_num_threads(before)
