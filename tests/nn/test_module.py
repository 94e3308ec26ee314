"""Module: registration, walks, state dicts, modes, containers; names and order are compared with PyTorch's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from bounds import assert_agrees, assert_close

import neurlang as nl
from neurlang import nn


def network(lib: Any) -> Any:
    """A module with everything: own parameters and buffers, absent ones, lists, dictionaries, a shared layer."""
    nn = lib.nn

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(lib.ones(3))
            self.register_parameter("absent", None)
            self.register_buffer("count", lib.zeros(2))
            self.register_buffer("cache", lib.zeros(4), persistent=False)
            self.register_buffer("nothing", None)
            self.plain = lib.zeros(1)
            self.child = None

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.blocks = nn.ModuleList([Inner(), nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.BatchNorm1d(2))])
            self.named = nn.ModuleDict({"a": Inner(), "b": nn.Conv2d(1, 2, 3)})
            self.again = self.first
            self.offset = nn.Parameter(lib.zeros(1))

    return Outer()


def test_names_and_order_are_torch_s(torch: Any) -> None:
    ours, theirs = network(nl), network(torch)
    for walk in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [name for name, _ in getattr(ours, walk)()] == [name for name, _ in getattr(theirs, walk)()], walk
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [tuple(v.shape) for v in ours.state_dict().values()] == [
        tuple(v.shape) for v in theirs.state_dict().values()
    ]
    names = [name for name, _ in theirs.named_parameters("prefix", recurse=False)]
    assert [name for name, _ in ours.named_parameters("prefix", recurse=False)] == names
    assert list(ours.state_dict(prefix="x.")) == list(theirs.state_dict(prefix="x."))
    order: dict[Any, list[str]] = {}
    for lib, model in ((nl, ours), (torch, theirs)):
        model.apply(lambda m, lib=lib: order.setdefault(lib, []).append(type(m).__name__))
    assert order[nl] == order[torch]


def test_reading_attributes() -> None:
    model = network(nl)
    inner = model.blocks[0]
    assert inner.absent is None and inner.nothing is None and inner.child is None
    assert model.get_submodule("blocks.1.0") is model.blocks[1][0]
    assert model.get_submodule("") is model
    with pytest.raises(AttributeError, match="missing"):
        model.get_submodule("blocks.missing")
    with pytest.raises(AttributeError):
        _ = model.unknown
    assert {"first", "offset"} <= set(dir(model))


def test_assignment_follows_the_kind() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="weight"):
        layer.weight = nl.ones(2, 2)
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]
    layer.bias = nn.Parameter(nl.ones(2))
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer.register_buffer("steps", nl.zeros(1))
    layer.steps = nl.ones(1)
    assert layer.state_dict()["steps"].item() == 1.0
    with pytest.raises(TypeError, match="steps"):
        layer.steps = 3
    layer.extra = 5
    layer.extra = nn.ReLU()  # an ordinary attribute becomes a submodule
    assert [name for name, _ in layer.named_children()] == ["extra"]
    del layer.extra, layer.weight
    assert not list(layer.children()) and "weight" not in layer.state_dict()
    assert not hasattr(layer, "weight")


def test_registration_mistakes() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter(nl.ones(1))

    with pytest.raises(AttributeError, match="super"):
        Early()
    module = nn.Module()
    for name in ("", "a.b", "forward", 3):
        with pytest.raises(KeyError):
            module.register_buffer(name, nl.ones(1))
    with pytest.raises(TypeError):
        module.register_parameter("p", nl.ones(1))
    with pytest.raises(TypeError):
        module.register_buffer("b", 3)
    with pytest.raises(TypeError):
        module.add_module("m", nl.ones(1))
    with pytest.raises(NotImplementedError):
        module(1)


def test_parameters_are_leaves_that_require_grad() -> None:
    data = nl.ones(3)
    p = nn.Parameter(data)
    assert isinstance(p, nl.Tensor) and p.is_leaf and p.requires_grad and not data.requires_grad
    with nl.no_grad():
        p.add_(1.0)
    assert data.tolist() == [2.0] * 3  # the memory is shared
    assert type(p * 2) is nl.Tensor
    assert not nn.Parameter(data, requires_grad=False).requires_grad
    assert repr(p).startswith("Parameter containing:\ntensor(")
    twin = copy.deepcopy(p)
    assert type(twin) is nn.Parameter and twin.requires_grad and not nl.shares_memory(p, twin)


# ---- state ----


def test_state_dicts_share_memory_and_load_by_copy() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    state = a.state_dict()
    assert not state["weight"].requires_grad and nl.shares_memory(state["weight"], a.weight)
    assert b.load_state_dict(state) == ([], [])
    assert b.weight.tolist() == a.weight.tolist() and not nl.shares_memory(a.weight, b.weight)
    assert b.weight.is_leaf and b.weight.requires_grad


def test_a_state_dict_that_does_not_fit_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    before = {name: value.tolist() for name, value in model.state_dict().items()}
    good = {name: value + 1 for name, value in model.state_dict().items()}
    for change, words in (
        ({"1.bias": nl.zeros(4)}, "1.bias has shape"),
        ({"1.bias": None}, "missing 1.bias"),
        ({"2.bias": nl.zeros(1)}, "unexpected 2.bias"),
    ):
        state = {name: value for name, value in {**good, **change}.items() if value is not None}
        with pytest.raises(RuntimeError, match=words):
            model.load_state_dict(state)
        assert {name: value.tolist() for name, value in model.state_dict().items()} == before
    del good["0.bias"]
    result = model.load_state_dict({**good, "other": nl.zeros(1)}, strict=False)
    assert result.missing_keys == ["0.bias"] and result.unexpected_keys == ["other"]
    assert model[1].bias.tolist() == good["1.bias"].tolist()


def test_torch_weights_load_and_give_the_same_output(torch: Any, rng: np.random.Generator) -> None:
    def build(lib: Any) -> Any:
        n = lib.nn
        return n.Sequential(n.Conv2d(1, 2, 3), n.BatchNorm2d(2), n.ReLU(), n.Flatten(), n.Linear(8, 3), n.LayerNorm(3))

    theirs, ours = build(torch), build(nl)
    ours.load_state_dict({name: nl.from_numpy(v.numpy().copy()) for name, v in theirs.state_dict().items()})
    x = rng.standard_normal((4, 1, 4, 4)).astype(np.float32)
    for mode in (True, False):
        a = ours.train(mode)(nl.from_numpy(x)).detach().numpy()
        b = theirs.train(mode)(torch.from_numpy(x)).detach().numpy()
        assert_agrees(a, b, n=6)
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert_agrees(a.numpy(), b.numpy(), what=name)


# ---- modes and conversions ----


def test_modes_reach_every_module() -> None:
    model = network(nl)
    assert model.eval() is model and not any(m.training for m in model.modules())
    assert model.train() is model and all(m.training for m in model.modules())
    assert model.requires_grad_(False) is model and not any(p.requires_grad for p in model.parameters())


def test_conversion_keeps_identity_and_integers() -> None:
    model = nn.BatchNorm1d(3)
    weight = model.weight
    assert model.to("cpu") is model and model.double() is model
    assert model.weight is weight and weight.dtype == nl.float64 and weight.is_leaf and weight.requires_grad
    assert model.running_mean.dtype == nl.float64 and model.num_batches_tracked.dtype == nl.int64
    assert model.to(nl.float32).weight.dtype == nl.float32
    with pytest.raises(ValueError, match="cuda"):
        model.to("cuda")


def test_zero_grad() -> None:
    layer = nn.Linear(2, 1)
    layer(nl.ones(1, 2)).sum().backward()
    held = layer.weight.grad
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad is held and held.tolist() == [[0.0, 0.0]]
    layer.zero_grad()
    assert layer.weight.grad is None and layer.bias.grad is None


def test_deepcopy_is_independent() -> None:
    model = network(nl)
    twin = copy.deepcopy(model)
    with nl.no_grad():
        twin.offset.add_(1.0)
    assert model.offset.item() == 0.0 and twin.offset.item() == 1.0
    assert twin.again is twin.first and twin.first is not model.first


# ---- containers ----


def test_sequential() -> None:
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    model = nn.Sequential(*layers)
    assert len(model) == 3 and list(model) == layers and model[-1] is layers[2]
    assert type(model[:2]) is nn.Sequential and list(model[:2]) == layers[:2]
    x = nl.ones(1, 2)
    assert model(x).tolist() == layers[2](layers[1](layers[0](x))).tolist()
    model[1] = nn.Tanh()
    assert isinstance(model[1], nn.Tanh)
    assert list(nn.Sequential({"in": layers[0], "out": layers[1]}).state_dict()) == ["in.weight", "in.bias"]
    assert model.append(nn.Identity()) is model and len(model) == 4
    for index in (4, -5):
        with pytest.raises(IndexError):
            _ = model[index]


def test_module_list_and_dict() -> None:
    items = nn.ModuleList([nn.ReLU()])
    items.extend([nn.Tanh()]).append(nn.Sigmoid())
    items.insert(0, nn.Linear(1, 1))
    assert [type(m).__name__ for m in items] == ["Linear", "ReLU", "Tanh", "Sigmoid"]
    assert list(items.state_dict()) == ["0.weight", "0.bias"]
    named = nn.ModuleDict({"a": nn.ReLU()})
    named["b"] = nn.Linear(1, 1)
    named.update({"c": nn.Tanh()})
    assert list(named) == list(named.keys()) == ["a", "b", "c"] and "b" in named and len(named) == 3
    assert [name for name, _ in named.items()] == list(named) and list(named.values())[1] is named["b"]
    del named["b"]
    assert list(named) == ["a", "c"]


def test_text() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Sequential(nn.LeakyReLU(0.2)), nn.Embedding(4, 2))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(2, 3, bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): LeakyReLU(negative_slope=0.2)\n"
        "  )\n"
        "  (2): Embedding(4, 2)\n"
        ")"
    )


def test_a_pickled_module_keeps_its_parameters() -> None:
    layer = nn.Linear(2, 3)
    layer.bias.requires_grad_(False)
    restored = pickle.loads(pickle.dumps(layer))
    assert isinstance(restored.weight, nn.Parameter) and restored.weight.requires_grad
    assert isinstance(restored.bias, nn.Parameter) and not restored.bias.requires_grad
    assert restored.weight.tolist() == layer.weight.tolist()
    restored.weight.detach().fill_(0.0)
    assert layer.weight.tolist() != restored.weight.tolist()
    assert isinstance(copy.copy(layer.weight), nn.Parameter)


def test_hooks_before_and_after_forward(torch: Any) -> None:
    results = []
    for lib in (nl, torch):
        layer, seen = lib.nn.Flatten(), []
        handles = [
            layer.register_forward_pre_hook(lambda module, args: args[0] * 2),
            layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
            layer.register_forward_hook(lambda module, args, out, seen=seen: seen.append(tuple(args[0].shape))),
            layer.register_forward_hook(lambda module, args, out: out * 10),
        ]
        outs = [layer(lib.ones(1, 2, 2)).tolist()]
        for handle in handles[::2]:
            handle.remove()
        outs.append(layer(lib.ones(1, 2, 2)).tolist())
        results.append((outs, seen))
    assert results[0] == results[1]
    assert results[0][0] == [[[30.0] * 4], [[20.0] * 4]]


def test_parameter_list(torch: Any) -> None:
    results = []
    for lib in (nl, torch):
        items = lib.nn.ParameterList([lib.ones(2), lib.nn.Parameter(lib.zeros(3))])
        items.append(lib.ones(1)).extend([lib.ones(4)])
        assert all(isinstance(p, lib.nn.Parameter) for p in items) and items[-1].shape == (4,)
        named = [(name, p.tolist()) for name, p in items.named_parameters()]
        results.append((len(items), named, list(items.state_dict())))
    assert results[0] == results[1]


def test_unflatten_and_huber_loss(torch: Any) -> None:
    x = np.random.default_rng(3).standard_normal((2, 6)) * 3
    results = []
    for lib in (nl, torch):
        a, b = lib.tensor(x), lib.tensor(x[::-1].copy())
        results.append((lib.nn.Unflatten(1, (2, -1))(a).tolist(), lib.nn.HuberLoss(delta=0.7)(a, b).item()))
    assert results[0][0] == results[1][0]
    assert_close(results[0][1], np.array(results[1][1]), "sum", n=12)
