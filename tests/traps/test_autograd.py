"""Traps of autograd and training: toggled gradients, saved tensors, version errors, optimisers and modes."""

from __future__ import annotations

from typing import Any

import pytest

import neurlang as nl
import neurlang.functional as F

from .harness import data, same


def leaf(*shape: int, seed: int = 0) -> Any:
    return data(*shape, seed=seed).requires_grad_()


def make_mlp(seed: int) -> Any:
    nl.manual_seed(seed)
    return nl.nn.Sequential(nl.nn.Linear(6, 8), nl.nn.ReLU(), nl.nn.Linear(8, 3))


def test_requires_grad_toggles() -> None:
    def scenario(step: Any) -> Any:
        x, w, results = data(3, 4), leaf(4, 2, seed=1), []
        for wanted in (True, False, True, False):
            w.requires_grad_(wanted)
            w.grad = None
            with step:
                y = (x @ w).sum()
                if y.requires_grad:
                    y.backward()
            results.append((y, w.grad))
        return results

    same(scenario, compiled=2, replayed=4, cut=0)


def test_no_grad_toggles() -> None:
    # With gradients wanted a backward may follow, so what it needs is kept; without, it is not.
    def scenario(step: Any) -> Any:
        x, results = leaf(4), []
        f = step(lambda x: (x * x).exp())
        for wanted in (True, False, False, True):
            with nl.set_grad_enabled(wanted):
                y = f(x)
            results.append((y, y.requires_grad))
        return results

    same(scenario, compiled=(1, 2), replayed=4, cut=0)


def test_backward_outside_the_block() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(4):
            x = leaf(5, seed=seed)
            with step:
                y = (x.tanh() * x).sum()
            y.backward()
            results.append((y, x.grad))
        return results

    same(scenario, compiled=1, replayed=4, cut=0)


def test_backward_in_another_block() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(4):
            x = leaf(5, seed=seed)
            with step:
                y = (x.tanh() * x).sum()
            with step:
                y.backward()
            results.append((y, x.grad))
        return results

    same(scenario, compiled=2, replayed=8, cut=0)


def test_gradients_accumulate() -> None:
    # The first backward makes `.grad`, the second adds to it: two programs, then replay.
    def scenario(step: Any) -> Any:
        x, results = leaf(4), []
        for _ in range(5):
            with step:
                (x * x).sum().backward()
            results.append(x.grad.clone())
        return results

    same(scenario, compiled=2, replayed=5, cut=0)


def test_held_gradient_is_not_overwritten() -> None:
    def scenario(step: Any) -> Any:
        x, held = leaf(4), []
        for k in range(4):
            x.grad = None
            with step:
                (x * float(k)).sum().backward()
            held.append(x.grad)
        return held

    same(scenario, compiled=1, replayed=4, cut=0)


def test_version_error_on_the_same_line() -> None:
    # The saved tensor is changed before its backward: the error comes while recording, where eager has it.
    def scenario(step: Any) -> Any:
        results = []
        for spoil in (False, True, False):
            x = leaf(4)
            line = "none"
            try:
                with step:
                    y = x * 2.0
                    z = (y * y).sum()
                    line = "before"
                    if spoil:
                        y.add_(1.0)
                    line = "backward"
                    z.backward()
                    line = "after"
            except RuntimeError as error:
                results.append(type(error).__name__)
            results.append((line, x.grad))
        return results

    same(scenario, compiled=1, replayed=2)


def test_backward_twice_is_refused_alike() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for _ in range(2):
            x = leaf(4)
            with step:
                y = (x * x).sum()
                y.backward()
            try:
                with step:
                    y.backward()
            except RuntimeError as error:
                results.append(type(error).__name__)
            results.append(x.grad)
        return results

    same(scenario, compiled=1, replayed=2)


def test_in_place_on_a_leaf_is_refused_alike() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for _ in range(2):
            x = leaf(4)
            try:
                with step:
                    x.add_(1.0)
            except RuntimeError as error:
                results.append(type(error).__name__)
            with nl.no_grad(), step:
                x.add_(1.0)
            results.append(x.detach())
        return results

    same(scenario, compiled=1, replayed=2)


def test_detach_shares_memory() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            x = leaf(4, seed=seed)
            with step:
                y = x * 2.0
                y.detach().mul_(3.0)
                z = y + 1.0
            results.append(z)
        return results

    same(scenario, compiled=1, replayed=3, cut=0)


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adam", "AdamW"])
def test_training_step(name: str) -> None:
    def optimizer(model: Any) -> Any:
        if name == "momentum":
            return nl.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        return getattr(nl.optim, name)(model.parameters(), lr=0.05)

    def scenario(step: Any) -> Any:
        model = make_mlp(1)
        opt, losses = optimizer(model), []
        for k in range(6):
            x, target = data(10, 6, seed=k), nl.tensor([k % 3] * 10)
            with step:
                loss = F.cross_entropy(model(x), target)
                loss.backward()
                opt.step()
                opt.zero_grad()
            losses.append(loss.item())
        return losses, list(model.parameters())

    # The first step makes the optimiser's state; from the second on the tape is the same.
    same(scenario, compiled=(1, 2), replayed=6, cut=0)


def test_learning_rate_schedule() -> None:
    def scenario(step: Any) -> Any:
        model = make_mlp(2)
        opt = nl.optim.SGD(model.parameters(), lr=0.5)
        schedule = nl.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.5)
        for k in range(5):
            with step:
                F.mse_loss(model(data(4, 6, seed=k)), data(4, 3, seed=k + 50)).backward()
                opt.step()
                opt.zero_grad()
            schedule.step()
        return list(model.parameters())

    same(scenario, compiled=1, replayed=5, cut=0)


def test_train_and_eval_modes() -> None:
    # Batch norm's running statistics are outside writes of the training program only.
    def scenario(step: Any) -> Any:
        norm, results = nl.nn.BatchNorm1d(5), []
        f = step(lambda x: norm(x) * 2.0)
        for k, training in enumerate((True, True, False, True, False)):
            norm.train(training)
            results.append(f(data(7, 5, seed=k)))
        return results, dict(norm.state_dict())

    same(scenario, compiled=2, replayed=5, cut=0)


def test_frozen_parameters() -> None:
    def scenario(step: Any) -> Any:
        model, results = make_mlp(3), []
        first = next(iter(model.parameters()))
        for k in range(4):
            first.requires_grad_(k < 2)
            with step:
                model(data(4, 6)).sum().backward()
            results.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
            model.zero_grad()
        return results

    same(scenario, compiled=2, replayed=4, cut=0)


def test_weights_replaced_by_load_state_dict() -> None:
    def scenario(step: Any) -> Any:
        model, x, results = make_mlp(4), data(5, 6), []
        f = step(lambda x: model(x))
        for seed in (5, 6, 7):
            results.append(f(x))
            model.load_state_dict(make_mlp(seed).state_dict())
        return [*results, f(x)]

    same(scenario, compiled=1, replayed=4, cut=0)


def test_double_backward() -> None:
    def scenario(step: Any) -> Any:
        results = []
        for seed in range(3):
            x = leaf(5, seed=seed)
            with step:
                (g,) = nl.grad((x.tanh() * x).sum(), [x], create_graph=True)
                (g * g).sum().backward()
            results.append(x.grad)
        return results

    same(scenario, compiled=1, replayed=3, cut=0)


def test_gradient_clipping_by_a_read() -> None:
    # Clipping branches on the norm: one cut, and both segments are replayed.
    def scenario(step: Any) -> Any:
        x, results = leaf(6), []
        for k in range(5):
            x.grad = None
            with step:
                (x * x * float(k)).sum().backward()
                norm = (x.grad * x.grad).sum().sqrt()
                if norm.item() > 10.0:
                    x.grad.mul_(0.1)
            results.append((norm, x.grad))
        return results

    same(scenario, compiled=(1, 2), replayed=(4, 10), cut=5)


def test_parameters_shared_by_two_layers() -> None:
    def scenario(step: Any) -> Any:
        first, second = nl.nn.Linear(4, 4), nl.nn.Linear(4, 4)
        with nl.no_grad():
            first.weight.copy_(data(4, 4))
            second.weight.copy_(data(4, 4, seed=1))
            first.bias.zero_()
            second.bias.zero_()
        results = []
        for tied in (False, False, True, True):
            if tied:
                second.weight = first.weight
            first.zero_grad()
            second.zero_grad()
            with step:
                second(first(data(3, 4))).sum().backward()
            results.append((first.weight.grad, second.weight.grad))
        return results

    same(scenario, compiled=2, replayed=4, cut=0)


def test_backward_to_some_inputs() -> None:
    x, y = nl.ones(2, requires_grad=True), nl.ones(2, requires_grad=True)
    middle = x * 2
    for inputs in (y, [y, middle]):
        (middle * y).sum().backward(inputs=inputs, retain_graph=True)
    assert x.grad is None
    assert y.grad is not None
    assert y.grad.tolist() == [4.0, 4.0]
    assert middle.grad is not None
    assert middle.grad.tolist() == [1.0, 1.0]


def test_a_rule_that_cuts_what_was_overwritten_says_so() -> None:
    x = nl.ones(2, 3, requires_grad=True)
    y = x.cumprod(0)
    x.data.mul_(2)
    with pytest.raises(RuntimeError, match=r"cumprod backward: .* was modified in place"):
        y.sum().backward()
