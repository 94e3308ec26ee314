"""Five seconds that touch every floor: `make smoke` says whether a build works at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bounds import assert_close

import neurlang as nl


def test_eager_against_numpy(rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal((33, 70)).astype(np.float32) for _ in range(2))
    x, y = nl.from_numpy(a), nl.from_numpy(b)
    np.testing.assert_array_equal((x[::2, 3:] * y[::2, 3:] - 1).numpy(), a[::2, 3:] * b[::2, 3:] - np.float32(1))
    exact, scale = a.astype(np.float64) @ b.T, np.abs(a) @ np.abs(b.T)
    assert_close((x @ y.t()).numpy(), exact, "dot", n=70, scale=scale)


def test_a_network_learns_the_same_eagerly_and_traced(tmp_path: Path) -> None:
    results = []
    for traced in (False, True):
        nl.manual_seed(0)
        model = nl.nn.Sequential(
            nl.nn.Conv2d(1, 4, 3),
            nl.nn.ReLU(),
            nl.nn.Flatten(),
            nl.nn.Linear(144, 32),
            nl.nn.GELU(),
            nl.nn.Linear(32, 4),
        )
        optimizer, step = nl.optim.AdamW(model.parameters(), lr=1e-2), nl.trace()
        x, target = nl.randn(32, 1, 8, 8), nl.arange(32) % 4
        losses = []
        for _ in range(20):
            with step if traced else nl.enable_grad():
                loss = nl.nn.functional.cross_entropy(model(x), target)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        if traced:
            assert (step.counts.replayed, step.counts.cut, step.counts.interpreted) == (20, 0, 0), step.why()
        nl.save(model.state_dict(), tmp_path / "weights.safetensors")
        model.load_state_dict(nl.load(tmp_path / "weights.safetensors"))
        results.append([value.numpy().tobytes() for value in model.state_dict().values()])
    assert results[0] == results[1]


def test_frozen_equals_eager(rng: np.random.Generator) -> None:
    x, w = (nl.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in ((5, 16), (16, 3)))
    layer = nl.trace(lambda x: (x @ w).softmax(-1))
    program = layer.freeze(x)
    assert program(x).numpy().tobytes() == layer(x).numpy().tobytes() == (x @ w).softmax(-1).numpy().tobytes()
