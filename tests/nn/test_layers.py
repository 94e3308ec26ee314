"""Every layer and loss against PyTorch in float64 (values, gradients of input and parameters), and its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bounds import GRADCHECK, assert_agrees, assert_close, assert_drawn_alike, assert_share

import neurlang as nl
from neurlang import nn
from neurlang.autograd import gradcheck

IMAGE = (2, 4, 9, 8)
SIGNAL = (2, 4, 13)
VOLUME = (2, 4, 5, 6, 7)

# name -> (how to make the layer, shape of its input)
LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "identity": (lambda n: n.Identity(54, unused=1), (2, 3)),
    "linear": (lambda n: n.Linear(5, 3), (7, 5)),
    "linear no bias": (lambda n: n.Linear(5, 3, bias=False), (2, 4, 5)),
    "linear vector": (lambda n: n.Linear(5, 3), (5,)),
    "linear empty": (lambda n: n.Linear(5, 3), (0, 5)),
    "conv": (lambda n: n.Conv2d(4, 6, 3), IMAGE),
    "conv all arguments": (
        lambda n: n.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        IMAGE,
    ),
    "conv depthwise": (lambda n: n.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), IMAGE),
    "conv same": (lambda n: n.Conv2d(4, 2, 3, padding="same", dilation=2), IMAGE),
    "conv one image": (lambda n: n.Conv2d(4, 2, 3), IMAGE[1:]),
    "conv transposed": (lambda n: n.ConvTranspose2d(4, 6, 3), IMAGE),
    "conv transposed all arguments": (
        lambda n: n.ConvTranspose2d(
            4, 6, (3, 2), stride=(2, 3), padding=1, output_padding=(1, 2), groups=2, dilation=2
        ),
        IMAGE,
    ),
    "conv 1d": (lambda n: n.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 11)),
    "conv 1d of one series": (lambda n: n.Conv1d(4, 6, 3, padding="same", bias=False), (4, 11)),
    "conv 3d": (lambda n: n.Conv3d(4, 6, (2, 3, 1), stride=(2, 1, 2), padding=1, dilation=(2, 1, 1), groups=2), VOLUME),
    "conv 3d of one volume": (lambda n: n.Conv3d(4, 6, 3, padding="same", bias=False), VOLUME[1:]),
    "conv 1d transposed": (lambda n: n.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, dilation=2), (2, 4, 11)),
    "conv 3d transposed": (lambda n: n.ConvTranspose3d(4, 6, (2, 3, 1), (3, 1, 2), 1, (2, 0, 1), 2), VOLUME),
    "conv 3d of one volume, transposed": (lambda n: n.ConvTranspose3d(4, 6, 2, dilation=2, bias=False), VOLUME[1:]),
    "batch norm 1d": (lambda n: n.BatchNorm1d(3), (8, 3)),
    "batch norm 1d of sequences": (lambda n: n.BatchNorm1d(3, eps=1e-2), (4, 3, 5)),
    "batch norm 2d": (lambda n: n.BatchNorm2d(4, momentum=0.3), IMAGE),
    "batch norm averaging": (lambda n: n.BatchNorm2d(4, momentum=None), IMAGE),
    "batch norm not affine": (lambda n: n.BatchNorm2d(4, affine=False), IMAGE),
    "batch norm without statistics": (lambda n: n.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "batch norm 3d": (lambda n: n.BatchNorm3d(4), VOLUME),
    "layer norm": (lambda n: n.LayerNorm(8), IMAGE),
    "layer norm of two axes": (lambda n: n.LayerNorm((9, 8), eps=1e-3), IMAGE),
    "layer norm not affine": (lambda n: n.LayerNorm(8, elementwise_affine=False), IMAGE),
    "layer norm no bias": (lambda n: n.LayerNorm(8, bias=False), IMAGE),
    "group norm": (lambda n: n.GroupNorm(2, 4), IMAGE),
    "group norm not affine": (lambda n: n.GroupNorm(4, 4, affine=False), (3, 4)),
    "max pool": (lambda n: n.MaxPool2d(2), IMAGE),
    "max pool all arguments": (lambda n: n.MaxPool2d((3, 2), stride=(2, 1), padding=1, dilation=(1, 2)), IMAGE),
    "max pool ceil": (lambda n: n.MaxPool2d(3, stride=2, ceil_mode=True), IMAGE),
    "avg pool": (lambda n: n.AvgPool2d(2), IMAGE),
    "avg pool all arguments": (
        lambda n: n.AvgPool2d((3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        IMAGE,
    ),
    "avg pool divisor": (lambda n: n.AvgPool2d(3, padding=1, divisor_override=5), IMAGE),
    "adaptive avg pool": (lambda n: n.AdaptiveAvgPool2d((4, 3)), IMAGE),
    "max pool of rows": (lambda n: n.MaxPool1d(3, 2, 1), SIGNAL),
    "max pool of volumes": (lambda n: n.MaxPool3d(2, ceil_mode=True), VOLUME),
    "avg pool of rows": (lambda n: n.AvgPool1d(3, padding=1, count_include_pad=False), SIGNAL),
    "avg pool of volumes": (lambda n: n.AvgPool3d(2, 1, divisor_override=3), VOLUME),
    "adaptive pools of rows": (lambda n: n.Sequential(n.AdaptiveAvgPool1d(5), n.AdaptiveMaxPool1d(2)), SIGNAL),
    "adaptive pools of volumes": (
        lambda n: n.Sequential(n.AdaptiveAvgPool3d((3, None, 2)), n.AdaptiveMaxPool3d(2)),
        VOLUME,
    ),
    "adaptive max pool": (lambda n: n.AdaptiveMaxPool2d((4, 3)), IMAGE),
    "adaptive avg pool to one": (lambda n: n.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive avg pool keeping an axis": (lambda n: n.AdaptiveAvgPool2d((None, 3)), IMAGE),
    "upsample": (lambda n: n.Upsample(scale_factor=2), IMAGE),
    "upsample to a size": (lambda n: n.Upsample(size=(13, 20)), IMAGE),
    "upsample by fractions": (lambda n: n.Upsample(scale_factor=(1.5, 0.6)), IMAGE),
    "pixel shuffle": (lambda n: n.PixelShuffle(2), (2, 12, 3, 5)),
    "flatten": (lambda n: n.Flatten(), IMAGE),
    "flatten some": (lambda n: n.Flatten(2, 3), IMAGE),
    "relu": (lambda n: n.ReLU(), (3, 5)),
    "relu6": (lambda n: n.ReLU6(), (3, 5)),
    "leaky relu": (lambda n: n.LeakyReLU(0.2), (3, 5)),
    "elu": (lambda n: n.ELU(0.7), (3, 5)),
    "selu": (lambda n: n.SELU(), (3, 5)),
    "gelu": (lambda n: n.GELU(), (3, 5)),
    "gelu tanh": (lambda n: n.GELU(approximate="tanh"), (3, 5)),
    "silu": (lambda n: n.SiLU(), (3, 5)),
    "mish": (lambda n: n.Mish(), (3, 5)),
    "hardswish": (lambda n: n.Hardswish(), (3, 5)),
    "hardtanh": (lambda n: n.Hardtanh(-0.5, 0.7), (3, 5)),
    "softplus": (lambda n: n.Softplus(2.0, threshold=3.0), (3, 5)),
    "sigmoid": (lambda n: n.Sigmoid(), (3, 5)),
    "log sigmoid": (lambda n: n.LogSigmoid(), (3, 5)),
    "tanh": (lambda n: n.Tanh(), (3, 5)),
    "softmax": (lambda n: n.Softmax(dim=1), (3, 5, 2)),
    "log softmax": (lambda n: n.LogSoftmax(dim=-1), (3, 5)),
    "dropout of nothing": (lambda n: n.Dropout(0.0), (3, 5)),
}


def run(lib: Any, layer: Any, x: np.ndarray, weights: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """The output, and the gradients of sum(weights * output)."""
    leaf = lib.from_numpy(x.copy()).requires_grad_()
    output = layer(leaf)
    if output.requires_grad:
        (output * lib.from_numpy(weights.reshape(output.shape).copy())).sum().backward()
    grads = {"input": leaf.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    return output.detach().numpy(), {name: None if g is None else g.numpy() for name, g in grads.items()}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_agree_with_torch(name: str, training: bool, rng: np.random.Generator, torch: Any) -> None:
    make, shape = LAYERS[name]
    theirs = make(torch.nn).double().train(training)
    ours = make(nn).double().train(training)
    state = {
        k: np.asarray(rng.standard_normal(v.shape)) ** 2 if v.dtype.is_floating_point else v.numpy()
        for k, v in theirs.state_dict().items()
    }
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
    ours.load_state_dict({k: nl.from_numpy(v.copy()) for k, v in state.items()})
    for _ in range(2):  # the second time with moved statistics, and gradients that add up
        x = rng.standard_normal(shape)
        weights = rng.standard_normal(theirs(torch.from_numpy(x)).numel())
        theirs.load_state_dict({k: torch.from_numpy(v.numpy().copy()) for k, v in ours.state_dict().items()})
        output, grads = run(nl, ours, x, weights)
        expected, expected_grads = run(torch, theirs, x, weights)
        assert_agrees(output, expected)
        assert grads.keys() == expected_grads.keys()
        for key, g in grads.items():
            assert_agrees(g, expected_grads[key], n=2, what=key)
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert_agrees(a.numpy(), b.numpy(), what=key)


@pytest.mark.parametrize(
    "name",
    ["ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "Hardtanh", "Dropout"],
)
def test_in_place_activations_write_and_differentiate(name: str, rng: np.random.Generator) -> None:
    x = nl.from_numpy(rng.standard_normal(40) * 3).requires_grad_()
    nl.manual_seed(5)
    out_of_place = getattr(nn, name)()(x)
    expected = nl.grad(out_of_place.sum(), x)[0].tolist()
    nl.manual_seed(5)
    h = x * 1
    y = getattr(nn, name)(inplace=True)(h)
    assert y is h and h.tolist() == out_of_place.tolist()
    assert nl.grad(y.sum(), x)[0].tolist() == expected


def test_embedding(torch: Any, rng: np.random.Generator) -> None:
    tokens = rng.integers(0, 7, (3, 4))
    tokens[0, :2] = 5
    for padding in (None, 5, -2):
        theirs, ours = torch.nn.Embedding(7, 3, padding_idx=padding), nn.Embedding(7, 3, padding_idx=padding)
        ours.load_state_dict({"weight": nl.from_numpy(theirs.weight.detach().numpy().copy())})
        weights = rng.standard_normal((3, 4, 3)).astype(np.float32)
        for lib, layer in ((torch, theirs), (nl, ours)):
            (layer(lib.from_numpy(tokens)) * lib.from_numpy(weights)).sum().backward()
        assert ours(nl.from_numpy(tokens)).tolist() == theirs(torch.from_numpy(tokens)).tolist()
        assert_close(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), "window", n=12, scale=abs(weights).max())
        assert ours.padding_idx == theirs.padding_idx
    assert nn.Embedding(7, 3, padding_idx=5).weight[5].tolist() == [0.0] * 3
    with pytest.raises(IndexError):
        nn.Embedding(7, 3)(nl.tensor([7]))
    with pytest.raises(ValueError):
        nn.Embedding(7, 3, padding_idx=7)


def test_dropout() -> None:
    x = nl.ones(100, 100)
    layer = nn.Dropout(0.25)
    nl.manual_seed(3)
    y = layer(x)
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    assert_share((y == 0).numpy(), 0.25)
    nl.manual_seed(3)
    assert layer(x).tolist() == y.tolist()
    assert layer(x).tolist() != y.tolist()
    assert layer.eval()(x) is x
    assert nn.Dropout(1.0)(x).sum().item() == 0.0
    leaf = x.clone().requires_grad_()
    z = layer.train()(leaf)
    z.sum().backward()
    assert leaf.grad.tolist() == z.tolist()
    with pytest.raises(ValueError):
        nn.Dropout(1.5)


def test_max_pool_indices(torch: Any, rng: np.random.Generator) -> None:
    x = rng.integers(0, 3, IMAGE).astype(np.float64)  # ties: the first place counts
    values, indices = nn.MaxPool2d(3, stride=2, return_indices=True)(nl.from_numpy(x))
    expected, places = torch.nn.MaxPool2d(3, stride=2, return_indices=True)(torch.from_numpy(x))
    assert values.tolist() == expected.tolist() and indices.tolist() == places.tolist()


# ---- losses ----

LOSSES: dict[str, tuple[Any, str]] = {
    "mse": (lambda n, w, **k: n.MSELoss(**k), "real"),
    "l1": (lambda n, w, **k: n.L1Loss(**k), "real"),
    "smooth l1": (lambda n, w, **k: n.SmoothL1Loss(beta=0.3, **k), "real"),
    "smooth l1 of beta 0": (lambda n, w, **k: n.SmoothL1Loss(beta=0.0, **k), "real"),
    "bce": (lambda n, w, **k: n.BCELoss(**k), "probability"),
    "bce weighted": (lambda n, w, **k: n.BCELoss(weight=w[:5], **k), "probability"),
    "bce logits": (lambda n, w, **k: n.BCEWithLogitsLoss(**k), "logit"),
    "bce logits weighted": (lambda n, w, **k: n.BCEWithLogitsLoss(w[:5], pos_weight=w[:5] + 1, **k), "logit"),
    "kl": (lambda n, w, **k: n.KLDivLoss(**k), "distribution"),
    "kl of logarithms": (lambda n, w, **k: n.KLDivLoss(log_target=True, **k), "log distribution"),
    "nll": (lambda n, w, **k: n.NLLLoss(**k), "classes"),
    "nll weighted": (lambda n, w, **k: n.NLLLoss(w, ignore_index=2, **k), "classes"),
    "cross entropy": (lambda n, w, **k: n.CrossEntropyLoss(**k), "classes"),
    "cross entropy all arguments": (
        lambda n, w, **k: n.CrossEntropyLoss(w, ignore_index=1, label_smoothing=0.1, **k),
        "classes",
    ),
    "cross entropy of pixels": (lambda n, w, **k: n.CrossEntropyLoss(w, label_smoothing=0.2, **k), "pixels"),
    "cross entropy of probabilities": (
        lambda n, w, **k: n.CrossEntropyLoss(w, label_smoothing=0.2, **k),
        "class probabilities",
    ),
}


def loss_arguments(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    real = rng.standard_normal((6, 5))
    shares = np.exp(rng.standard_normal((6, 5)))
    shares /= shares.sum(1, keepdims=True)
    return {
        "real": lambda: (real, rng.standard_normal((6, 5))),
        "probability": lambda: (rng.uniform(0.01, 0.99, (6, 5)), rng.uniform(0, 1, (6, 5))),
        "logit": lambda: (real * 5, rng.uniform(0, 1, (6, 5))),
        "distribution": lambda: (real, shares * (shares > 0.1)),
        "log distribution": lambda: (real, np.log(shares)),
        "classes": lambda: (real, rng.integers(0, 5, 6)),
        "pixels": lambda: (rng.standard_normal((2, 5, 3, 4)), rng.integers(0, 5, (2, 3, 4))),
        "class probabilities": lambda: (real, shares),
    }[kind]()


@pytest.mark.filterwarnings("ignore")  # torch advises another reduction for KLDivLoss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_agree_with_torch(name: str, reduction: str, rng: np.random.Generator, torch: Any) -> None:
    make, kind = LOSSES[name]
    x, target = loss_arguments(kind, rng)
    class_weights = rng.uniform(0.5, 2.0, 5)
    results = []
    for lib in (nl, torch):
        leaf = lib.from_numpy(x.copy()).requires_grad_()
        layer = make(lib.nn, lib.from_numpy(class_weights.copy()), reduction=reduction)
        value = layer(leaf, lib.from_numpy(target.copy()))
        (value * value).sum().backward()
        results.append((value.detach().numpy(), leaf.grad.numpy()))
    for ours, theirs in zip(*results, strict=True):
        assert_agrees(ours, theirs)


def test_cross_entropy_of_large_logits_and_its_errors() -> None:
    logits = nl.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], requires_grad=True)
    loss = nn.CrossEntropyLoss()(logits, nl.tensor([0, 2]))
    loss.backward()
    assert_close(loss.detach().numpy(), np.log(3.0) / 2, "log_softmax", n=3)
    assert np.isfinite(logits.grad.numpy()).all()
    for target in ([3, 0], [-1, 0]):
        with pytest.raises(IndexError):
            nn.CrossEntropyLoss()(logits, nl.tensor(target))
    with pytest.raises(ValueError):
        nn.CrossEntropyLoss()(logits, nl.tensor([0, 1, 2]))
    with pytest.raises(ValueError):
        nn.MSELoss(reduction="average")(logits, logits)


# ---- errors ----


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        lambda: nn.Conv2d(3, 4, 3, groups=0),
        lambda: nn.Conv2d(3, 4, 3, padding_mode="reflect"),
        lambda: nn.GroupNorm(3, 4),
        lambda: nn.BatchNorm2d(4)(nl.ones(2, 4)),
        lambda: nn.BatchNorm1d(4)(nl.ones(2, 5)),
        lambda: nn.BatchNorm3d(4)(nl.ones(2, 4, 3, 3)),
        lambda: nn.PixelShuffle(2)(nl.ones(1, 6, 2, 2)),
        lambda: nn.BatchNorm1d(4)(nl.ones(1, 4)),  # one value a channel has no variance
        lambda: nn.LayerNorm(4)(nl.ones(2, 5)),
        lambda: nn.Linear(4, 3)(nl.ones(2, 5)),
        lambda: nn.Conv2d(3, 4, 3)(nl.ones(1, 3, 2, 2)),
        lambda: nn.Conv2d(3, 4, 3)(nl.ones(1, 2, 8, 8)),
        lambda: nn.MaxPool2d(3, padding=2)(nl.ones(1, 1, 8, 8)),
        lambda: nn.Upsample(scale_factor=2, mode="cubic")(nl.ones(1, 1, 2, 2)),
    ],
)
def test_bad_arguments_raise_value_errors(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


# ---- initial values ----


def test_initial_distributions_are_torch_s(torch: Any) -> None:
    """Parameters of large layers are drawn from the same distributions, or are the same constants."""
    makes = [
        lambda n: n.Linear(300, 400),
        lambda n: n.Conv2d(20, 60, (3, 5), groups=2),
        lambda n: n.ConvTranspose2d(40, 30, 3, groups=2),
        lambda n: n.Embedding(300, 200),
        lambda n: n.BatchNorm2d(10),
        lambda n: n.LayerNorm(10),
        lambda n: n.GroupNorm(2, 10),
    ]
    for make in makes:
        for (name, ours), theirs in zip(make(nn).named_parameters(), make(torch.nn).parameters(), strict=True):
            assert ours.shape == theirs.shape
            assert_drawn_alike(ours.detach().numpy(), theirs.detach().numpy(), what=f"{make(nn)} {name}")


INITIALISERS = {
    "kaiming_uniform_": {"a": 0.3, "mode": "fan_out", "nonlinearity": "leaky_relu"},
    "kaiming_normal_": {"nonlinearity": "relu"},
    "xavier_uniform_": {"gain": 1.7},
    "xavier_normal_": {},
    "uniform_": {"a": -3.0, "b": 2.0},
    "normal_": {"mean": 4.0, "std": 0.3},
    "trunc_normal_": {"mean": 0.2, "std": 0.8, "a": -0.5, "b": 1.0},
    "constant_": {"val": 1.25},
    "ones_": {},
    "zeros_": {},
}


@pytest.mark.parametrize("name", INITIALISERS)
def test_initialisers_agree_with_torch(name: str, torch: Any) -> None:
    samples = []
    for lib in (nl, torch):
        p = lib.nn.Parameter(lib.empty(60, 50, 3, 3))
        assert getattr(lib.nn.init, name)(p, **INITIALISERS[name]) is p
        assert p.is_leaf
        samples.append(p.detach().numpy())
    assert_drawn_alike(*samples)


def test_initialiser_errors() -> None:
    for bad in (
        lambda: nn.init.kaiming_uniform_(nl.empty(3)),
        lambda: nn.init.kaiming_uniform_(nl.empty(3, 3), mode="fan"),
        lambda: nn.init.calculate_gain("unknown"),
    ):
        with pytest.raises(ValueError):
            bad()
    assert nn.init.calculate_gain("tanh") == 5 / 3


# ---- gradients ----


@pytest.mark.parametrize("norm", [2.0, 1.0, float("inf")])
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clip_grad_norm(norm: float, limit: float, rng: np.random.Generator, torch: Any) -> None:
    grads = [rng.standard_normal(s) for s in ((3, 4), (5,), ())]
    results = []
    for lib in (nl, torch):
        params = [lib.nn.Parameter(lib.zeros(g.shape, dtype=lib.float64)) for g in grads]
        for p, g in zip(params, grads, strict=True):
            p.grad = lib.from_numpy(np.asarray(g).copy())
        params.append(lib.nn.Parameter(lib.zeros(2)))  # has no gradient
        total = lib.nn.utils.clip_grad_norm_(params, limit, norm)
        results.append([total.item(), *(p.grad.numpy() for p in params[:-1])])
    for ours, theirs in zip(*results, strict=True):
        assert_agrees(ours, theirs)


def test_clip_grad_edges() -> None:
    p = nn.Parameter(nl.zeros(3))
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == 0.0
    p.grad = nl.tensor([1.0, float("inf"), -5.0])
    with pytest.raises(RuntimeError, match="inf"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    nn.utils.clip_grad_value_([p], 2.0)
    assert p.grad.tolist() == [1.0, 2.0, -2.0]


def test_layers_pass_gradcheck(rng: np.random.Generator) -> None:
    """First order of layers that keep no state, by differences instead of a peer."""
    for make, shape in (
        (lambda: nn.Linear(3, 2), (4, 3)),
        (lambda: nn.Conv2d(2, 2, 2, padding=1), (1, 2, 3, 3)),
        (lambda: nn.ConvTranspose2d(2, 2, 2, stride=2), (1, 2, 2, 2)),
        (lambda: nn.LayerNorm(4), (2, 4)),
        (lambda: nn.GroupNorm(2, 4), (2, 4, 2)),
        (lambda: nn.AvgPool2d(2), (1, 2, 4, 4)),
        (lambda: nn.MaxPool2d(2), (1, 2, 4, 4)),
        (lambda: nn.BatchNorm1d(3), (4, 3)),
        (lambda: nn.Hardsigmoid(), (3, 5)),  # PyTorch's own float64 gradient holds a float32 constant
    ):
        layer = make().double()
        x = nl.from_numpy(rng.standard_normal(shape)).requires_grad_()
        assert gradcheck(lambda x, *_, layer=layer: layer(x), (x, *layer.parameters()), **GRADCHECK), layer
