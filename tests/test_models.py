"""Whole models in PyTorch's idiom, with PyTorch's weights: as close to float64 as PyTorch's own float32, times two."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bounds import KINK, PEER_RATIO

import neurlang as nl

MODELS = ("gpt", "resnet18", "vae", "unet", "mobilenetv2")
BATCHES = 6


def to_library(lib: Any, array: np.ndarray, dtype: Any) -> Any:
    tensor = lib.from_numpy(array.copy())
    return tensor.to(dtype) if array.dtype == np.float32 else tensor


def run(lib: Any, module: Any, model: Any, batch: tuple[np.ndarray, ...], dtype: Any) -> dict[str, np.ndarray]:
    """The loss and the gradient of every parameter, in float64 arrays."""
    model.zero_grad()
    loss = module.loss(lib, model, *(to_library(lib, array, dtype) for array in batch))
    loss.backward()
    results = {name: p.grad for name, p in model.named_parameters()}
    return {name: value.detach().numpy().astype(np.float64) for name, value in {"loss": loss, **results}.items()}


def build_all(torch: Any, module: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(library, model, dtype) of ours, PyTorch's float32 and PyTorch's float64, all with the same weights."""
    torch.manual_seed(0)
    theirs = module.build(torch)
    state = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    ours = module.build(nl)
    ours.load_state_dict({name: nl.from_numpy(value.copy()) for name, value in state.items()})
    exact = module.build(torch).double()
    exact.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return ((nl, ours, nl.float32), (torch, theirs, torch.float32), (torch, exact, torch.float64))


def distance_to_kinks(torch: Any, module: Any, model: Any, batch: tuple[np.ndarray, ...]) -> float:
    """How close an element comes to a jump of relu's or relu6's gradient, relative to the mean size."""
    kinks = {"relu": (0,), "relu_": (0,), "relu6": (0, 6), "hardtanh_": (0, 6)}
    nearest = [float("inf")]

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for kink in kinks.get(getattr(function, "__name__", ""), ()):
                x = args[0].detach()
                nearest.append(float((x - kink).abs().min() / x.abs().mean()))
            return function(*args, **(kwargs or {}))

    with Watch(), torch.no_grad():
        module.loss(torch, model, *(to_library(torch, array, torch.float64) for array in batch))
    return min(nearest)


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_as_close_to_float64_as_torch(name: str, torch: Any) -> None:
    """In the maximum norm over some batches; those are left out at which the gradient is not defined in float32."""
    module = importlib.import_module(f"models.{name}")
    libraries = list(build_all(torch, module))
    exact_model = libraries[-1][1]
    drawn = (module.batch(np.random.default_rng(seed)) for seed in range(200))
    smooth = (batch for batch in drawn if distance_to_kinks(torch, module, exact_model, batch) >= KINK)
    errors: dict[str, list[tuple[float, float]]] = {}
    for batch in itertools.islice(smooth, BATCHES):
        ours, theirs, exact = (run(lib, module, model, batch, dtype) for lib, model, dtype in libraries)
        assert ours.keys() == exact.keys()
        for key, value in exact.items():
            assert ours[key].shape == value.shape, key
            distances = [float(np.abs(other[key] - value).max()) for other in (ours, theirs)]
            errors.setdefault(key, []).append((distances[0], distances[1]))
    assert len(errors["loss"]) == BATCHES
    largest = {key: [max(column) for column in zip(*rows, strict=True)] for key, rows in errors.items()}
    too_far = {
        key: f"{ours:.3g} from float64, torch {theirs:.3g}"
        for key, (ours, theirs) in largest.items()
        if not ours <= PEER_RATIO * theirs
    }
    assert not too_far


@pytest.mark.parametrize("name", MODELS)
def test_state_dicts_have_torch_s_names_shapes_and_dtypes(name: str, torch: Any) -> None:
    module = importlib.import_module(f"models.{name}")
    ours, theirs = module.build(nl).state_dict(), module.build(torch).state_dict()
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert (
            ours[key].shape == tuple(value.shape)
            and str(ours[key].dtype).split(".")[1] == str(value.dtype).split(".")[1]
        )


@pytest.mark.parametrize("name", MODELS)
def test_traced_training_steps_have_eager_s_bits(name: str) -> None:
    """Loss, gradients and statistics of two steps, the second one replayed, are bit for bit those of eager code."""
    module = importlib.import_module(f"models.{name}")
    results = []
    for traced in (False, True):
        nl.manual_seed(0)
        model = module.build(nl)
        optimizer = nl.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        step, losses = nl.trace(), []
        for seed in range(2):
            batch = [nl.from_numpy(array) for array in module.batch(np.random.default_rng(seed))]
            with step if traced else nl.enable_grad():
                loss = module.loss(nl, model, *batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        if traced:
            assert step.counts.replayed >= 1, step.why()
        results.append((losses, {key: value.numpy().tobytes() for key, value in model.state_dict().items()}))
    assert results[0] == results[1]
