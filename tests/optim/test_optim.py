"""Optimisers against float64 formulas and PyTorch; their state, groups and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import assert_agrees, assert_close

import neurlang as nl

CASES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd decay": ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "momentum dampening decay": ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam betas": ("Adam", {"lr": 0.01, "betas": (0.7, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    "adam no beta": ("Adam", {"lr": 0.01, "betas": (0.0, 0.0)}),
    "sgd maximize": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "maximize": True}),
    "adam maximize": ("Adam", {"lr": 0.01, "maximize": True}),
    "adamw maximize": ("AdamW", {"lr": 0.01, "maximize": True}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw decay": ("AdamW", {"lr": 0.02, "betas": (0.8, 0.99), "weight_decay": 0.3}),
}
SHAPES = ((), (1,), (7,), (33, 5), (2, 0))


def run(lib: Any, case: str, values: list[np.ndarray], grads: list[list[np.ndarray | None]]) -> list[np.ndarray]:
    """The parameters after one step for each list of gradients."""
    name, settings = CASES[case]
    params = [lib.nn.Parameter(lib.from_numpy(v.copy())) for v in values]
    optimizer = getattr(lib.optim, name)(params, **settings)
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = None if g is None else lib.from_numpy(g.copy())
        optimizer.step()
    return [p.detach().numpy() for p in params]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_agree_with_torch(case: str, dtype: str, rng: np.random.Generator, torch: Any) -> None:
    steps = 12
    values = [np.asarray(rng.standard_normal(s)).astype(dtype) for s in SHAPES]
    grads = [[np.asarray(rng.standard_normal(s)).astype(dtype) for s in SHAPES] for _ in range(steps)]
    grads[3][2] = None  # a parameter without a gradient is left alone, and so is its state
    wide_grads = [[None if g is None else g.astype(np.float64) for g in step] for step in grads]
    exact = run(torch, case, [v.astype(np.float64) for v in values], wide_grads)
    for ours, reference in zip(run(nl, case, values, grads), exact, strict=True):
        assert_close(ours, reference, "chain of ops", n=steps, scale=np.abs(reference) + 1.0)


def test_sgd_by_hand() -> None:
    p = nl.nn.Parameter(nl.tensor([1.0, 2.0]))
    p.grad = nl.tensor([0.5, -1.0])
    nl.optim.SGD([p], lr=0.5).step()
    assert p.tolist() == [0.75, 2.5]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_rate_may_be_a_tensor_of_one_element(name: str, shape: tuple[int, ...]) -> None:
    ends = []
    for lr in (0.25, nl.full(shape, 0.25)):
        p = nl.nn.Parameter(nl.tensor([1.0, 2.0]))
        optimizer = getattr(nl.optim, name)([p], lr=lr)
        with nl.trace():
            for _ in range(3):
                p.grad = p.detach() * 2
                optimizer.step()
        ends.append(p.tolist())
    assert ends[0] == ends[1]
    with pytest.raises(ValueError, match="2 elements"):
        getattr(nl.optim, name)([p], lr=nl.ones(2))


def test_transposed_parameters_and_gradients(rng: np.random.Generator) -> None:
    values, grads = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    p = nl.nn.Parameter(nl.from_numpy(values.T.copy()).t())
    q = nl.nn.Parameter(nl.from_numpy(values.copy()))
    p.grad, q.grad = nl.from_numpy(grads.copy()), nl.from_numpy(grads.T.copy()).t()
    optimizer = nl.optim.Adam([p, q])
    for _ in range(3):
        optimizer.step()
    assert p.tolist() == q.tolist()


def test_settings_may_change_between_steps() -> None:
    p = nl.nn.Parameter(nl.zeros(1))
    optimizer = nl.optim.SGD([p], lr=1.0)
    for lr in (1.0, 0.5, 0.25):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = nl.ones(1)
        optimizer.step()
    assert p.item() == -1.75


def test_groups_have_their_own_settings() -> None:
    a, b, c = (nl.nn.Parameter(nl.zeros(1)) for _ in range(3))
    optimizer = nl.optim.SGD([{"params": [a]}, {"params": b, "lr": 3.0}], lr=1.0)
    optimizer.add_param_group({"params": iter([c]), "lr": 5.0})
    for p in (a, b, c):
        p.grad = nl.ones(1)
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == [-1.0, -3.0, -5.0]


def test_closure_and_zero_grad() -> None:
    p = nl.nn.Parameter(nl.tensor([3.0]))
    optimizer = nl.optim.SGD([p], lr=0.1)

    def closure() -> nl.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with nl.no_grad():  # a step may be taken here; the closure records all the same
        assert optimizer.step(closure).item() == 9.0
    assert_close(p.detach().numpy(), [2.4], "elementwise")
    held = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is held and held.item() == 0.0
    optimizer.zero_grad()
    assert p.grad is None


def test_a_step_is_not_recorded() -> None:
    p = nl.nn.Parameter(nl.ones(2))
    (p * p).sum().backward()
    nl.optim.AdamW([p]).step()
    assert p.is_leaf and p.requires_grad and p.grad_fn is None


def test_an_update_invalidates_graphs_recorded_before() -> None:
    p = nl.nn.Parameter(nl.ones(2))
    y = (p * p).sum()
    p.grad = nl.ones(2)
    nl.optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified in place"):
        y.backward()


@pytest.mark.parametrize("case", CASES)
def test_training_resumes_from_the_state_dict(case: str, rng: np.random.Generator) -> None:
    name, settings = CASES[case]
    grads = rng.standard_normal((6, 5)).astype(np.float32)

    def resume_after(steps: int) -> list[float]:
        p = nl.nn.Parameter(nl.ones(5))
        optimizer = getattr(nl.optim, name)([p], **settings)
        for i in range(6):
            if i == steps:
                state, p = optimizer.state_dict(), nl.nn.Parameter(p.detach().clone())
                optimizer = getattr(nl.optim, name)([p], lr=123.0)
                optimizer.load_state_dict(state)
            p.grad = nl.from_numpy(grads[i].copy())
            optimizer.step()
        return p.tolist()

    assert resume_after(3) == resume_after(6) == resume_after(1)


def test_torch_state_dicts_load(torch: Any, rng: np.random.Generator) -> None:
    values, grads = rng.standard_normal(5).astype(np.float32), rng.standard_normal((4, 5)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(values.copy()))
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    for g in grads[:2]:
        theirs.grad = torch.from_numpy(g.copy())
        optimizer.step()
    state = optimizer.state_dict()
    state["state"] = {n: {k: nl.from_numpy(v.numpy().copy()) for k, v in s.items()} for n, s in state["state"].items()}
    ours = nl.nn.Parameter(nl.from_numpy(theirs.detach().numpy().copy()))
    continued = nl.optim.Adam([ours])
    continued.load_state_dict(state)
    for g in grads[2:]:
        theirs.grad, ours.grad = torch.from_numpy(g.copy()), nl.from_numpy(g.copy())
        optimizer.step()
        continued.step()
    assert_close(ours.detach().numpy(), theirs.detach().numpy(), "chain of ops", n=4, scale=1.0)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda p: nl.optim.SGD([], lr=0.1), ValueError),
        (lambda p: nl.optim.SGD([p], lr=-0.1), ValueError),
        (lambda p: nl.optim.SGD([p], lr=float("nan")), ValueError),
        (lambda p: nl.optim.SGD([p, p], lr=0.1), ValueError),
        (lambda p: nl.optim.SGD([p], lr=0.1, nesterov=True), ValueError),
        (lambda p: nl.optim.SGD([p], lr=0.1, momentum=0.9, dampening=0.1, nesterov=True), ValueError),
        (lambda p: nl.optim.SGD([p * 2], lr=0.1), ValueError),
        (lambda p: nl.optim.SGD([1.0], lr=0.1), TypeError),
        (lambda p: nl.optim.Adam([p], betas=(0.9, 1.0)), ValueError),
        (lambda p: nl.optim.Adam([p], eps=-1.0), ValueError),
        (lambda p: nl.optim.Adam([p], weight_decay=-1.0), ValueError),
        (lambda p: nl.optim.Adam([p]).load_state_dict({"state": {}, "param_groups": []}), ValueError),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make(nl.nn.Parameter(nl.ones(2)))


# ---- schedules ----

SCHEDULES = {
    "step": lambda lib, o: lib.optim.lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    "multi": lambda lib, o: lib.optim.lr_scheduler.MultiStepLR(o, [2, 7, 11], gamma=0.3),
    "exponential": lambda lib, o: lib.optim.lr_scheduler.ExponentialLR(o, 0.9),
    "lambda": lambda lib, o: lib.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "lambdas": lambda lib, o: lib.optim.lr_scheduler.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1.0 + t]),
    "linear": lambda lib, o: lib.optim.lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=6),
    "cosine": lambda lib, o: lib.optim.lr_scheduler.CosineAnnealingLR(o, T_max=15, eta_min=0.001),
    "one cycle": lambda lib, o: lib.optim.lr_scheduler.OneCycleLR(o, max_lr=[0.5, 1.0], total_steps=21),
    "one cycle and a step": lambda lib, o: lib.optim.lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=20),
    "one cycle linear": lambda lib, o: lib.optim.lr_scheduler.OneCycleLR(
        o, max_lr=0.5, epochs=3, steps_per_epoch=7, anneal_strategy="linear", pct_start=0.5
    ),
    "warm-up and cosine": lambda lib, o: lib.optim.lr_scheduler.SequentialLR(
        o,
        [
            lib.optim.lr_scheduler.LinearLR(o, start_factor=0.25, total_iters=4),
            lib.optim.lr_scheduler.CosineAnnealingLR(o, T_max=16),
        ],
        milestones=[4],
    ),
}


def two_groups(lib: Any) -> Any:
    a, b = (lib.nn.Parameter(lib.zeros(1)) for _ in range(2))
    return lib.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.7}], lr=1.0, momentum=0.9)


@pytest.mark.filterwarnings("ignore")  # torch warns about the order of steps, and of its own deprecations
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_agree_with_torch(name: str, torch: Any) -> None:
    curves = []
    for lib in (nl, torch):
        optimizer = two_groups(lib)
        schedule = SCHEDULES[name](lib, optimizer)
        curve = [[(g["lr"], g["momentum"]) for g in optimizer.param_groups]]
        for _ in range(20):
            optimizer.step()
            schedule.step()
            curve.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
            assert schedule.get_last_lr() == [g["lr"] for g in optimizer.param_groups]
        curves.append(curve)
    assert_agrees(*curves, n=20)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_resume(name: str) -> None:
    optimizer = two_groups(nl)
    schedule = SCHEDULES[name](nl, optimizer)
    for _ in range(6):
        schedule.step()
    saved, settings = schedule.state_dict(), optimizer.state_dict()
    schedule.step()
    expected = schedule.get_last_lr()
    optimizer = two_groups(nl)
    again = SCHEDULES[name](nl, optimizer)
    optimizer.load_state_dict(settings)
    again.load_state_dict(saved)
    again.step()
    assert again.get_last_lr() == expected


def test_bad_schedules() -> None:
    optimizer = two_groups(nl)
    schedule = nl.optim.lr_scheduler.OneCycleLR(two_groups(nl), 0.1, total_steps=2)
    schedule.step()
    schedule.step()
    with pytest.raises(ValueError, match="past the 2 steps"):
        schedule.step()
    with pytest.raises(ValueError):
        nl.optim.lr_scheduler.OneCycleLR(optimizer, 0.1)
    with pytest.raises(ValueError):
        nl.optim.lr_scheduler.LinearLR(optimizer, start_factor=2.0)
    with pytest.raises(ValueError):
        nl.optim.lr_scheduler.LambdaLR(optimizer, [lambda t: 1.0])
    with pytest.raises(KeyError):
        nl.optim.lr_scheduler.StepLR(optimizer, 3, last_epoch=5)
