"""Traps of scalars: run-time operands against attributes, their types, promotion, offsets that move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import neurlang as nl

from .harness import data, same


def test_scalar_types_are_in_the_key() -> None:
    # 2, 2.0 and True are equal in Python and hash alike; they promote differently.
    def scenario(step: Any) -> Any:
        f = step(lambda x, k: x + k)
        x = data(4, dtype="int32")
        return [f(x, k) for k in (2, 2.0, True, 3, 4.5, False)]

    same(scenario, compiled=(2, 3), replayed=6, cut=0)


def test_numpy_scalars_count_as_python_scalars() -> None:
    # np.float64 is a Python float; np.float32 and np.int64 are not, and must not widen the result.
    def scenario(step: Any) -> Any:
        f = step(lambda x, k: x * k)
        x = data(4)
        return [f(x, k) for k in (0.1, np.float64(0.1), np.float32(0.1), np.float64(0.3))]

    same(scenario, compiled=1, replayed=4, cut=0)


def test_integers_beyond_the_dtype() -> None:
    # Raised while recording, like eager; the block before it has run.
    def scenario(step: Any) -> Any:
        x, results = data(4, dtype="int32"), []
        for k in (2**31 - 1, -(2**31), 2**70, 5):
            try:
                with step:
                    x.add_(1)
                    y = x + k
                results.append(y)
            except (OverflowError, ValueError, TypeError, RuntimeError) as error:
                results.append(type(error).__name__)
        return results, x

    same(scenario, compiled=1, replayed=3)


def test_zero_dimensional_promotion() -> None:
    # A 0-d tensor is weak within its category; a 1-d tensor of one element is not.
    def scenario(step: Any) -> Any:
        f = step(lambda x, k: x * k)
        x = data(4)
        others = [nl.tensor(2.0, dtype=nl.float64), nl.tensor([2.0], dtype=nl.float64), nl.tensor(3), nl.tensor(2.5)]
        return [f(x, k) for k in others * 2]

    same(scenario, compiled=4, replayed=8, cut=0)


def test_a_scalar_and_a_zero_dimensional_tensor_are_not_confused() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x, k: x + k)
        x, k = data(4), nl.tensor(2.0)
        return [f(x, 2.0), f(x, k), f(x, 3.0), f(x, k)]

    same(scenario, compiled=2, replayed=4, cut=0)


def test_exponent_is_an_attribute() -> None:
    # x ** 2 may be x * x, x ** 0.5 a root: such an exponent chooses the operation, so it is in the key.
    def scenario(step: Any) -> Any:
        f = step(lambda x, n: x.abs() ** n)
        x = data(9)
        return [f(x, n) for n in (2, 3, 0.5, 2, 0, -1, 0.5, 2.5)]

    same(scenario, compiled=(2, 6), replayed=8, cut=0)


def test_adding_zero_and_multiplying_by_one_is_not_folded() -> None:
    # -0.0 + 0.0 is 0.0, and the value may be another one next time.
    def scenario(step: Any) -> Any:
        f = step(lambda x, a, b: (x + a) * b)
        x = nl.tensor([-0.0, 0.0, 1.0, float("inf"), float("nan")])
        return [f(x, a, b) for a, b in ((0.0, 1.0), (-0.0, 1.0), (1.0, 0.0), (0.0, -1.0))]

    same(scenario, compiled=1, replayed=4, cut=0)


def test_division_by_a_scalar_is_a_division() -> None:
    # Multiplying by the reciprocal would round twice.
    def scenario(step: Any) -> Any:
        f = step(lambda x, k: (x / k, k / x, x // k, x % k))
        return [f(data(50), k) for k in (3.0, 7.0, 0.1, 1e-30)]

    same(scenario, compiled=1, replayed=4, cut=0)


def test_item_used_as_a_scalar() -> None:
    # The read cuts; its value is a run-time operand of the next segment.
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(4):
            x = data(6, seed=seed)
            with step:
                y = x * 2.0
                k = y.sum().item()
                z = y + k
            results.append((z, k))
        return results

    same(scenario, compiled=2, replayed=(6, 7), cut=4)


def test_learning_rate_changes() -> None:
    def scenario(step: Any) -> Any:
        w, results = data(3, 4), []
        for lr in (0.1, 0.05, 0.0, -1.0, 0.1):
            with step:
                w.sub_(w * lr)
                loss = (w * w).sum()
            results.append(loss)
        return results, w

    same(scenario, compiled=1, replayed=5, cut=0)


def test_clamp_limits_change() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x, lo, hi: x.clamp(lo, hi))
        x = data(20)
        return [f(x, lo, hi) for lo, hi in ((-1.0, 1.0), (0.0, 2.0), (1.0, -1.0))]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_moving_index() -> None:
    # x[t] in a loop over time: the offset is an operand, so one program serves every t.
    def scenario(step: Any) -> Any:
        x, h, results = data(12, 5), nl.zeros(5), []
        for t in range(12):
            with step:
                h = (h * 0.5 + x[t]).tanh()
            results.append(h)
        return results

    same(scenario, compiled=(1, 2), replayed=12, cut=0)


def test_moving_index_in_a_write() -> None:
    def scenario(step: Any) -> Any:
        out = nl.zeros(6, 9, 4)
        for pos in (0, 3, 8, -1, -9, 4):
            with step:
                out[:, pos] = out[:, pos] + data(6, 4, seed=abs(pos))
        return out

    same(scenario, compiled=(1, 2), replayed=6, cut=0)


def test_moving_window_of_changing_length() -> None:
    # Extents are shape: another length is another program; another start is not.
    def scenario(step: Any) -> Any:
        x, results = data(20), []
        for start, length in ((0, 4), (5, 4), (16, 4), (3, 5), (10, 5), (1, 4)):
            with step:
                y = x[start : start + length] * 2.0
            results.append(y)
        return results

    same(scenario, compiled=(2, 3), replayed=6, cut=0)


def test_index_out_of_range_while_recording() -> None:
    def scenario(step: Any) -> Any:
        x, results = data(4, 3), []
        for t in (0, 3, 4, -4, -5, 1):
            try:
                with step:
                    y = x[t] + 1.0
                results.append(y)
            except IndexError as error:
                results.append(type(error).__name__)
        return results

    same(scenario, compiled=(1, 2), replayed=4)


def test_two_offsets_into_one_storage() -> None:
    # Equal offsets share a number in the key: x[i] * x[i] must not serve x[i] * x[j].
    def scenario(step: Any) -> Any:
        f = step(lambda x, i, j: x[i] * 2.0 - x[j])
        x = data(5, 4)
        return [f(x, i, j) for i, j in ((1, 1), (1, 2), (3, 3), (4, 1), (0, 0), (0, 4))]

    same(scenario, compiled=(1, 4), replayed=6, cut=0)


def test_writes_at_offsets_that_come_to_overlap() -> None:
    # The rows are distinct, then equal, then overlapping: the order of the writes must hold each time.
    def scenario(step: Any) -> Any:
        results = []
        for i, j in ((0, 3), (2, 2), (1, 2), (3, 0), (1, 1)):
            x = data(12)
            with step:
                x[i : i + 4].mul_(2.0)
                x[j : j + 4].add_(x[i : i + 4])
            results.append(x)
        return results

    same(scenario, compiled=(1, 5), replayed=5, cut=0)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integer_arithmetic_wraps_alike(dtype: str) -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x, k: (x * k, x + k, x - k, x // k, x % k))
        x = nl.tensor(np.array([0, 1, 2, 200, 255], dtype))
        return [f(x, k) for k in (3, 7, 200)]

    same(scenario, compiled=1, replayed=3, cut=0)
