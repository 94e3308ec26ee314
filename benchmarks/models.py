"""The networks that are trained, in PyTorch's idiom for us and torch, as pure functions for JAX, and a step of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import neurlang as nl

from . import peers

Weights = dict[str, np.ndarray]
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Workload:
    """A network and one batch. `build(lib)` makes the module, `apply(jnp, weights, x)` is the same for JAX."""

    build: Callable[[Any], Any]
    apply: Callable[[Any, Any, Any], Any]
    x: np.ndarray
    target: np.ndarray
    lr: float = 1e-4  # Adam's first steps are signs of gradients: small ones keep equal networks close
    images: bool = False  # four-dimensional input: torch also runs with channels last


# --- the networks ---


def mlp(lib: Any) -> Any:
    nn = lib.nn
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def mlp_in_jax(jnp: Any, w: Any, x: Any) -> Any:
    for layer in ("0", "2", "4"):
        x = x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]
        x = jnp.maximum(x, 0.0) if layer != "4" else x
    return x


def cnn(lib: Any) -> Any:
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def cnn_in_jax(jnp: Any, w: Any, x: Any) -> Any:
    lax = peers.jax.lax
    for layer in ("0", "2"):
        x = lax.conv_general_dilated(x, w[f"{layer}.weight"], (1, 1), "VALID")
        x = jnp.maximum(x + w[f"{layer}.bias"][:, None, None], 0.0)
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID").reshape(x.shape[0], -1)
    x = jnp.maximum(x @ w["6.weight"].T + w["6.bias"], 0.0)
    return x @ w["8.weight"].T + w["8.bias"]


VOCABULARY = 65


@dataclass(frozen=True)
class Size:
    """Of a GPT; with `fused` PyTorch's and our attention is one call, without it is written out with masked_fill."""

    width: int
    layers: int
    heads: int
    context: int
    fused: bool = False


def gpt(size: Size, lib: Any) -> Any:
    """Embedding, pre-norm blocks, causal attention, tanh-gelu."""
    nn, F, width, heads = lib.nn, lib.nn.functional, size.width, size.heads

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def attention(self, x: Any, mask: Any) -> Any:
            b, t, c = x.shape
            q, k, v = (part.view(b, t, heads, c // heads).transpose(1, 2) for part in self.qkv(x).split(c, dim=2))
            if size.fused:
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                return self.out(y.transpose(1, 2).reshape(b, t, c))
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(c // heads))
            weights = F.softmax(scores.masked_fill(mask, float("-inf")), dim=-1)
            return self.out((weights @ v).transpose(1, 2).reshape(b, t, c))

        def forward(self, x: Any, mask: Any) -> Any:
            x = x + self.attention(self.norm1(x), mask)
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(size.context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(size.layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
            self.mask = lib.tensor(np.triu(np.ones((size.context, size.context), bool), 1))

        def forward(self, x: Any) -> Any:
            h = self.tokens(x) + self.positions.weight
            for block in self.blocks:
                h = block(h, self.mask)
            return self.head(self.norm(h)).reshape(-1, VOCABULARY)

    return GPT()


def gpt_in_jax(size: Size, jnp: Any, w: Any, x: Any) -> Any:
    jax = peers.jax

    def norm(name: str, x: Any) -> Any:
        d = x - x.mean(-1, keepdims=True)
        return d / jnp.sqrt((d * d).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(name: str, x: Any) -> Any:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def attention(name: str, x: Any) -> Any:
        b, t, c = x.shape
        qkv = linear(f"{name}.qkv", x).reshape(b, t, 3 * size.heads, c // size.heads).transpose(0, 2, 1, 3)
        q, k, v = jnp.split(qkv, 3, axis=1)
        scores = q @ k.swapaxes(-2, -1) / math.sqrt(c // size.heads)
        weights = jax.nn.softmax(jnp.where(jnp.triu(jnp.ones((t, t), bool), 1), -jnp.inf, scores), axis=-1)
        return linear(f"{name}.out", (weights @ v).transpose(0, 2, 1, 3).reshape(b, t, c))

    h = w["tokens.weight"][x] + w["positions.weight"]
    for n in range(size.layers):
        block = f"blocks.{n}"
        h = h + attention(block, norm(f"{block}.norm1", h))
        h = h + linear(f"{block}.down", jax.nn.gelu(linear(f"{block}.up", norm(f"{block}.norm2", h)), approximate=True))
    return linear("head", norm("norm", h)).reshape(-1, VOCABULARY)


# --- one training step, for each contender ---


def training(workload: Workload) -> dict[str, peers.Call]:
    """Everyone starts from the same weights and takes whole steps: forward, backward, Adam; the loss is read."""
    nl.manual_seed(0)
    model = workload.build(nl)
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    calls = {
        "neurlang": our_step(workload, weights, traced=False),
        "neurlang traced": our_step(workload, weights, traced=True),
    }
    if peers.torch is not None:
        calls |= torch_steps(workload, weights)
    if peers.jax is not None:
        calls["JAX"] = jax_step(workload, weights)
    return calls


def our_step(workload: Workload, weights: Weights, *, traced: bool) -> peers.Call:
    model = workload.build(nl)
    model.load_state_dict({name: nl.tensor(value) for name, value in weights.items()})
    optimizer = nl.optim.Adam(model.parameters(), lr=workload.lr)
    x, target = nl.tensor(workload.x), nl.tensor(workload.target)

    def step() -> Any:
        loss = nl.nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    if traced:
        step = nl.trace(step)
    return lambda: step().item()


def torch_steps(workload: Workload, weights: Weights) -> dict[str, peers.Call]:
    layouts = {"": peers.torch.contiguous_format}
    if workload.images:
        layouts[" channels last"] = peers.torch.channels_last
    calls = {}
    for suffix, layout in layouts.items():
        calls[f"torch{suffix}"] = torch_step(workload, weights, layout, compiled=False)
        if peers.with_torch_compile:
            calls[f"torch.compile{suffix}"] = torch_step(workload, weights, layout, compiled=True)
    return calls


def torch_step(workload: Workload, weights: Weights, layout: Any, *, compiled: bool) -> peers.Call:
    torch = peers.torch
    model = workload.build(torch)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    x, target = torch.tensor(workload.x), torch.tensor(workload.target)
    if workload.images:
        model, x = model.to(memory_format=layout), x.to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.lr, fused=True)

    def loss_of(x: Any, target: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x), target)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        loss = forward(x, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.item())

    return step


def jax_step(workload: Workload, weights: Weights) -> peers.Call:
    """The whole step is one compiled function whose parameters and moments are donated."""
    jax = peers.jax
    jnp = jax.numpy

    def loss_of(w: Any, x: Any, target: Any) -> Any:
        scores = jax.nn.log_softmax(workload.apply(jnp, w, x))
        return -jnp.take_along_axis(scores, target[:, None], axis=1).mean()

    def update(state: Any, x: Any, target: Any) -> Any:
        w, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(w, x, target)
        t = t + 1
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        c1, c2 = 1 - BETA1**t, 1 - BETA2**t
        w = jax.tree.map(lambda w, m, v: w - workload.lr / c1 * m / (jnp.sqrt(v / c2) + EPS), w, m, v)
        return (w, m, v, t), loss

    compiled = jax.jit(update, donate_argnums=0)
    w = {name: jnp.asarray(value) for name, value in weights.items()}
    state = [(w, jax.tree.map(jnp.zeros_like, w), jax.tree.map(jnp.zeros_like, w), jnp.asarray(0.0))]
    x, target = jnp.asarray(workload.x), jnp.asarray(workload.target)

    def step() -> float:
        state[0], loss = compiled(state[0], x, target)
        return float(loss)

    return step
