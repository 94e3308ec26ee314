"""A small GPT: token and position embeddings, pre-norm blocks, causal attention written out, tanh-gelu."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Config:
    vocabulary: int = 65
    length: int = 32
    width: int = 64
    layers: int = 2
    heads: int = 4
    batch: int = 4


def build(torch: Any, config: Config = Config()) -> Any:
    nn = torch.nn
    F = torch.nn.functional

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(config.width, 3 * config.width)
            self.proj = nn.Linear(config.width, config.width)
            future = torch.triu(torch.ones(config.length, config.length), diagonal=1) == 1
            self.register_buffer("future", future, persistent=False)

        def forward(self, x):
            B, T, C = x.shape
            q, k, v = self.qkv(x).split(C, dim=2)
            q, k, v = (t.view(B, T, config.heads, C // config.heads).transpose(1, 2) for t in (q, k, v))
            scores = q @ k.transpose(-2, -1) / math.sqrt(C // config.heads)
            scores = scores.masked_fill(self.future[:T, :T], float("-inf"))
            y = F.softmax(scores, dim=-1) @ v
            return self.proj(y.transpose(1, 2).contiguous().view(B, T, C))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = nn.LayerNorm(config.width)
            self.attn = Attention()
            self.ln_2 = nn.LayerNorm(config.width)
            self.mlp = nn.Sequential(
                nn.Linear(config.width, 4 * config.width),
                nn.GELU(approximate="tanh"),
                nn.Linear(4 * config.width, config.width),
            )

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(config.vocabulary, config.width)
            self.wpe = nn.Embedding(config.length, config.width)
            self.blocks = nn.ModuleList([Block() for _ in range(config.layers)])
            self.ln_f = nn.LayerNorm(config.width)
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)

        def forward(self, tokens):
            positions = torch.arange(tokens.shape[1])
            x = self.wte(tokens) + self.wpe(positions)
            for block in self.blocks:
                x = block(x)
            return self.head(self.ln_f(x))

    return GPT()


def batch(random: np.random.Generator, config: Config = Config()) -> tuple[np.ndarray, ...]:
    text = random.integers(0, config.vocabulary, (config.batch, config.length + 1))
    return text[:, :-1].copy(), text[:, 1:].copy()


def loss(torch: Any, model: Any, tokens: Any, targets: Any) -> Any:
    logits = model(tokens)
    return torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))
