"""Traps of aliasing: views, shared storages, outputs that are inputs, writes seen through other names."""

from __future__ import annotations

from typing import Any

import numpy as np

import neurlang as nl

from .harness import data, same


def test_the_same_buffer_returned_twice() -> None:
    # MLX and tinygrad returned one buffer for two calls: the first result changed under its holder.
    def scenario(step: Any) -> Any:
        f = step(lambda x: x + 1.0)
        first = f(data(4))
        second = f(data(4, seed=1))
        third = f(data(4, seed=2))
        return [first, second, third]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_one_result_under_two_names() -> None:
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any) -> Any:
            y = x * 2.0
            return y, y

        results = []
        for seed in range(3):
            a, b = f(data(4, seed=seed))
            a.add_(1.0)  # both names are one tensor, in eager and here
            results.append((a, b, a is b))
        return results

    same(scenario, compiled=1, replayed=3, cut=0)


def test_two_views_of_one_result() -> None:
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any) -> Any:
            y = x * 2.0
            return y[0], y[1:], y.t()

        results = []
        for seed in range(3):
            row, rest, flipped = f(data(3, 4, seed=seed))
            row.zero_()
            rest.mul_(-1.0)
            results.append((row, rest, flipped))
        return results

    same(scenario, compiled=1, replayed=3, cut=0)


def test_views_of_inputs_as_outputs() -> None:
    # A view of an input shares its storage after the block too; nothing is recorded for it.
    def scenario(step: Any) -> Any:
        results = []
        f = step(lambda x: (x[1:], x.t(), x * 1.5))
        for seed in range(3):
            x = data(3, 4, seed=seed)
            tail, flipped, scaled = f(x)
            tail.fill_(9.0)
            results.append((x, flipped, scaled))
        return results

    same(scenario, compiled=1, replayed=3, cut=0)


def test_input_returned_unchanged() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x: x)
        x = data(3)
        results = [f(x) is x for _ in range(3)]
        f(x).add_(1.0)
        return [*results, x]

    same(scenario, compiled=0, replayed=0, cut=0)


def test_output_aliases_an_input_written_in_place() -> None:
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any) -> Any:
            x.mul_(2.0)
            return x[1:], x.sum()

        x = data(4, 3)
        return [tuple(t.clone() for t in f(x)) for _ in range(4)], x

    same(scenario, compiled=1, replayed=4, cut=0)


def test_same_tensor_passed_twice() -> None:
    # pytorch #139789: a program for two distinct inputs must not serve one tensor passed twice, and the reverse.
    def scenario(step: Any) -> Any:
        @step
        def f(a: Any, b: Any) -> Any:
            a.add_(1.0)
            return a * b

        x, y = data(4), data(4, seed=1)
        return [f(x, y), f(x, x), f(y, x), f(y, y), f(x, y)], x, y

    same(scenario, compiled=2, replayed=5, cut=0)


def test_overlapping_views_as_inputs() -> None:
    def scenario(step: Any) -> Any:
        @step
        def f(a: Any, b: Any) -> Any:
            a.mul_(2.0)
            return b + 1.0

        x, y = data(8), data(8, seed=1)
        results = [f(x[:5], x[3:]), f(x[:5], y[3:]), f(x[2:7], x[3:]), f(x[:5], x[3:]), f(y[:5], x[3:])]
        return results, x, y

    # Offsets of views are run-time operands, so overlapping or not is one program per pattern of storages.
    same(scenario, compiled=(2, 3), replayed=5, cut=0)


def test_write_through_one_view_read_through_another() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(4):
            x = data(4, 6, seed=seed)
            with step:
                column, row = x[:, 2], x[1]
                before = row * 1.0
                column.fill_(7.0)
                after = row * 1.0
            results.append((before, after, x))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_read_before_write_keeps_the_old_value() -> None:
    # Write-after-read: fusing or reordering must not let the reader see the new version.
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(4):
            x = data(64, 33, seed=seed)
            with step:
                y = x.sum(1)
                z = x + y.unsqueeze(1)
                x.zero_()
                x[3].add_(1.0)
                w = x * 2.0 + z
            results.append((y, z, w, x))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_overlapping_in_place_shift() -> None:
    # x[1:] += x[:-1] reads what it writes: the result is that of a copy, as in NumPy.
    def scenario(step: Any) -> Any:
        x = data(70)
        for _ in range(3):
            with step:
                x[1:] += x[:-1]
        return x

    same(scenario, compiled=1, replayed=3, cut=0)


def test_transposed_in_place() -> None:
    def scenario(step: Any) -> Any:
        x = data(33, 33)
        for _ in range(3):
            with step:
                x.add_(x.t())
        return x

    same(scenario, compiled=1, replayed=3, cut=0)


def test_write_into_a_fresh_view_of_a_fresh_tensor() -> None:
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any) -> Any:
            y = nl.zeros(4, 5)
            y[1:3, ::2] = x
            y[:, -1] += 2.0
            z = y.t()
            z[0] *= 3.0
            return y + 0.5

        return [f(data(2, 3, seed=seed)) for seed in range(4)]

    same(scenario, compiled=1, replayed=4, cut=0)


def test_outputs_of_the_last_replay_still_held() -> None:
    # Also through a view only: the storage counts, not the tensor object.
    def scenario(step: Any) -> Any:
        f = step(lambda x: x.exp() - 1.0)
        held = []
        for seed in range(6):
            y = f(data(300, seed=seed))
            held.append(y[10:20] if seed % 2 else y)
            del y
        return held

    same(scenario, compiled=1, replayed=6, cut=0)


def test_output_fed_back_as_input() -> None:
    # tinygrad's `graph_input_output_aliasing`: a cache loop, then a fresh input, then the old one again.
    def scenario(step: Any) -> Any:
        f = step(lambda cache, x: cache * 0.5 + x)
        first = data(16, seed=1)
        cache, results = first, []
        for seed in range(4):
            cache = f(cache, data(16, seed=seed))
            results.append(cache)
        results.append(f(data(16, seed=9), data(16, seed=8)))
        results.append(f(first, data(16, seed=0)))
        return results

    same(scenario, compiled=1, replayed=6, cut=0)


def test_result_written_in_place_between_replays() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x: x * 3.0)
        x, results = data(8), []
        for k in range(4):
            y = f(x)
            y.add_(float(k))
            results.append(y)
        return results, x

    same(scenario, compiled=1, replayed=4, cut=0)


def test_key_value_cache_written_in_place() -> None:
    def scenario(step: Any) -> Any:
        cache, results = nl.zeros(8, 4), []

        @step
        def attend(q: Any, pos: int) -> Any:
            cache[pos] = q * 0.5
            return (cache @ q.unsqueeze(1)).squeeze(1)

        for pos in range(8):
            results.append(attend(data(4, seed=pos), pos))
        return results, cache

    same(scenario, compiled=1, replayed=8, cut=0)


def test_swap_by_two_writes() -> None:
    def scenario(step: Any) -> Any:
        a, b = data(5), data(5, seed=1)
        for _ in range(3):
            with step:
                saved = a.clone()
                a.copy_(b)
                b.copy_(saved)
        return a, b

    same(scenario, compiled=1, replayed=3, cut=0)


def test_double_buffers_change_roles() -> None:
    # The storages swap slots from step to step: slots are numbered by first appearance, so one program fits both.
    def scenario(step: Any) -> Any:
        now, old = data(32), data(32, seed=1)
        for _ in range(5):
            with step:
                old.copy_(now * 0.9 + 0.1)
            now, old = old, now
        return now, old

    same(scenario, compiled=1, replayed=5, cut=0)


def test_strides_of_results_are_eagers() -> None:
    def scenario(step: Any) -> Any:
        f = step(lambda x: (x.t() * 2.0, (x + 1.0).permute(1, 0), x.t() @ x, x.reshape(-1)[::2] - 1.0))
        return [f(data(4, 6, seed=seed)) for seed in range(3)]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_expanded_input_read_and_its_source_written() -> None:
    def scenario(step: Any) -> Any:
        x = data(1, 6)
        wide, results = x.expand(4, 6), []
        for _ in range(3):
            with step:
                y = wide * 2.0
                x.add_(1.0)
                z = wide * 2.0
            results.append((y, z))
        return results, x

    same(scenario, compiled=1, replayed=3, cut=0)


def test_reversed_views() -> None:
    def scenario(step: Any) -> Any:
        x = data(9)
        for _ in range(3):
            with step:
                x[::-1].add_(nl.arange(9).to(nl.float32))
                x[::2] -= x[-1::-2] * 0.25
        return x

    same(scenario, compiled=1, replayed=3, cut=0)


def test_two_overlapping_arrays_from_numpy() -> None:
    # Two storages over one memory: slots alone would not see the overlap.
    def scenario(step: Any) -> Any:
        memory = np.arange(12, dtype=np.float32)
        a, b = nl.from_numpy(memory[:8]), nl.from_numpy(memory[4:])
        results = []
        for _ in range(3):
            with step:
                a.mul_(2.0)
                y = b + 1.0
            results.append(y)
        return results, memory

    same(scenario, cut=(0, 6))
