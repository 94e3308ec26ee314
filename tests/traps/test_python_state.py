"""Traps of Python state: constants, closures, globals, attributes and containers that change between runs."""

from __future__ import annotations

from typing import Any

import pytest

import neurlang as nl

from .harness import data, same

SCALE = 1.0


def test_changed_constant() -> None:
    # tinygrad's jit freezes Python numbers that it met at capture.
    def scenario(step: Any) -> Any:
        x, results = data(5, 7), []
        for k in (2.0, 3.0, -0.0, 3.0, float("inf")):
            with step:
                y = x * k + k
            results.append(y)
        return results

    same(scenario, compiled=1, replayed=5, cut=0)


def test_changed_closure() -> None:
    def scenario(step: Any) -> Any:
        x, scale = data(6), [1.0]

        @step
        def f(x: Any) -> Any:
            return x * scale[0] - 1.0

        results = []
        for value in (1.0, 4.0, 0.5, 0.5):
            scale[0] = value
            results.append(f(x))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_changed_global(monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario(step: Any) -> Any:
        x, results = data(6), []

        @step
        def f(x: Any) -> Any:
            return x + SCALE

        for value in (1.0, 7.0, -3.0):
            monkeypatch.setitem(globals(), "SCALE", value)
            results.append(f(x))
        return results

    same(scenario, compiled=1, replayed=3, cut=0)


def test_changed_tensor_in_closure() -> None:
    # Another tensor object of equal shape is another leaf of the same program.
    def scenario(step: Any) -> Any:
        x, weight = data(4, 4), [data(4, seed=1)]

        @step
        def f(x: Any) -> Any:
            return (x * weight[0]).sum(1)

        results = []
        for seed in (1, 2, 3, 2):
            weight[0] = data(4, seed=seed)
            results.append(f(x))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_changed_attribute() -> None:
    class Model:
        def __init__(self) -> None:
            self.mode, self.bias = "add", 1.0

        def __call__(self, x: Any) -> Any:
            return x + self.bias if self.mode == "add" else x * self.bias

    def scenario(step: Any) -> Any:
        x, model, results = data(3, 3), Model(), []
        f = step(lambda x: model(x))
        for mode, bias in (("add", 1.0), ("mul", 2.0), ("add", 5.0), ("mul", 0.5), ("mul", 3.0)):
            model.mode, model.bias = mode, bias
            results.append(f(x))
        return results

    same(scenario, compiled=2, replayed=5, cut=0)


def test_one_trace_shared_by_two_instances() -> None:
    # tinygrad's `class_method_shared_across_instances`: the first instance's weights must not serve the second.
    class Layer:
        def __init__(self, seed: int) -> None:
            self.weight = data(4, 4, seed=seed)

    def scenario(step: Any) -> Any:
        @step
        def forward(layer: Layer, x: Any) -> Any:
            return x @ layer.weight

        x, layers = data(3, 4), [Layer(1), Layer(2)]
        return [forward(layer, x) for layer in layers * 3]

    same(scenario, compiled=1, replayed=6, cut=0)


def test_list_mutation() -> None:
    # A list that grows is a longer program each time; a list whose items change is the same program.
    def scenario(step: Any) -> Any:
        items, results = [data(4, seed=1)], []

        @step
        def total() -> Any:
            result = items[0] * 1.5
            for item in items[1:]:
                result = result + item
            return result

        for seed in (2, 3):
            results += [total(), total()]
            items.append(data(4, seed=seed))
        items[0] = data(4, seed=9)
        return [*results, total(), total()]

    same(scenario, compiled=3, replayed=6, cut=0)


def test_append_inside_the_block() -> None:
    # JAX leaks tracers here; the appended tensors must be real and stay what they were.
    def scenario(step: Any) -> Any:
        x, history = data(4), []
        for k in range(4):
            with step:
                h = x * float(k)
                history.append(h + 1.0)
                del h
        return history

    same(scenario, compiled=1, replayed=4, cut=0)


def test_assignment_to_an_attribute_in_a_trace() -> None:
    class State:
        total: Any

    def scenario(step: Any) -> Any:
        state, seen = State(), []
        state.total = nl.zeros(3)
        for k in range(5):
            with step:
                state.total = state.total + data(3, seed=k)
            seen.append(state.total)
        return seen

    same(scenario, compiled=1, replayed=5, cut=0)


def test_rebinding_a_name_in_a_trace() -> None:
    def scenario(step: Any) -> Any:
        x = data(3, 3)
        for _ in range(4):
            with step:
                x = x * 0.5 + 1.0
        return x

    same(scenario, compiled=1, replayed=4, cut=0)


def test_python_side_effects_happen_every_time() -> None:
    # PyTorch and JAX run them while capturing only.
    def scenario(step: Any) -> Any:
        calls, x = [], data(4)

        @step
        def f(x: Any) -> Any:
            calls.append(len(calls))
            return x + float(len(calls))

        return [f(x) for _ in range(4)], calls

    same(scenario, compiled=1, replayed=4, cut=0)


def test_loop_length_changes() -> None:
    def scenario(step: Any) -> Any:
        x, results = data(4), []

        @step
        def power(x: Any, n: int) -> Any:
            result = x
            for _ in range(n):
                result = result * x
            return result

        for n in (1, 2, 1, 3, 2, 3):
            results.append(power(x, n))
        return results

    same(scenario, compiled=3, replayed=6, cut=0)


def test_branch_on_python_flag() -> None:
    def scenario(step: Any) -> Any:
        x = data(4, 4)

        @step
        def f(x: Any, training: bool) -> Any:
            return x * 2.0 if training else x.sum(0)

        return [f(x, flag) for flag in (True, False, True, False, False)]

    same(scenario, compiled=2, replayed=5, cut=0)


def test_keyword_and_default_arguments() -> None:
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any, *, scale: float = 2.0, other: Any = None) -> Any:
            y = x * scale
            return y if other is None else y + other

        x, z = data(5), data(5, seed=1)
        return [f(x), f(x, scale=3.0), f(x, other=z), f(x, other=z, scale=-1.0)]

    same(scenario, compiled=2, replayed=4, cut=0)


def test_nested_containers_as_results() -> None:
    # The container is made by Python each time: its shape is free, its tensors are fresh.
    def scenario(step: Any) -> Any:
        @step
        def f(x: Any) -> Any:
            return {"a": (x + 1.0, [x * 2.0]), "n": 3}

        x = data(4)
        return [f(x) for _ in range(3)]

    same(scenario, compiled=1, replayed=3, cut=0)


def test_no_tensor_work_at_all() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for k in range(3):
            with step:
                results.append(k + 1)
        return results

    same(scenario, compiled=0, replayed=0, cut=0)


def test_shape_dtype_and_strides_change() -> None:
    # Each new signature is one more program, never a wrong replay; an old one comes back by replay.
    def scenario(step: Any) -> Any:
        inputs = [
            data(4, 6),
            data(6, 4).t(),
            data(4, 12)[:, ::2],
            data(4, 6, dtype="float64"),
            data(4, 6, dtype="int32"),
            data(4, 1).expand(4, 6),
            data(2, 3),
        ]

        @step
        def f(x: Any) -> Any:
            return x * 2 + x.sum(1, keepdim=True)

        return [f(x) for x in inputs + inputs]

    same(scenario, compiled=7, replayed=14, cut=0)


def test_arguments_without_end_or_form() -> None:
    class Pair(tuple):
        def __new__(cls, a: Any, b: Any) -> Any:
            return super().__new__(cls, (a, b))

    double = nl.trace(lambda x, _: x * 2)
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for other in (endless, deep, Pair(data(2), 3)):
        assert double(data(3), other).shape == (3,)
        with pytest.raises(nl.TraceError, match="needs example arguments"):
            double.freeze()
    frozen = nl.trace(lambda x: x * 2).freeze(data(3))
    for other in (endless, deep):
        with pytest.raises(RecursionError):
            frozen(other)
