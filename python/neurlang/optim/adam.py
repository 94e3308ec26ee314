"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from .. import _tensor
from .._tensor import Tensor, zeros_like
from .optimizer import Optimizer


class Adam(Optimizer):
    """Steps scaled by running means of the gradient and of its square; `weight_decay` is added to the gradient.

    m += (1 - β1) (g - m); v += (1 - β2) (g² - v); p -= lr m / (1 - β1ᵗ) / (√(v / (1 - β2ᵗ)) + eps) at step t.
    Kingma & Ba 2015.

    >>> p = neurlang.tensor([1.0, 2.0], requires_grad=True)
    >>> p.grad = neurlang.tensor([3.0, -0.25])
    >>> neurlang.optim.Adam([p], lr=0.5).step()
    >>> [round(x, 4) for x in p.tolist()]
    [0.5, 2.5]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, settings)

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, exp_avg=zeros_like(p), exp_avg_sq=zeros_like(p))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        # The bias corrections of both means, moved out of the element's formula: lr m / c1 / (sqrt(v / c2) + eps).
        root = math.sqrt(1.0 - beta2 ** state["step"])
        step_size = float(group["lr"]) * root / (1.0 - beta1 ** state["step"])
        moments = state["exp_avg"], state["exp_avg_sq"]
        self._row(p, grad, *moments, step_size, 1.0 - beta1, 1.0 - beta2, group["eps"] * root, self._decay(group))

    _row: Callable[..., None] = staticmethod(_tensor._adam_)

    @staticmethod
    def _decay(group: dict[str, Any]) -> float:
        return group["weight_decay"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `Optimizer.load_state_dict`; step counts that are tensors, as PyTorch's, become integers."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["step"] = int(state["step"])  # PyTorch's is a tensor


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter directly, by lr * weight_decay.

    Loshchilov & Hutter 2019.

    >>> p = neurlang.tensor([4.0], requires_grad=True)
    >>> p.grad = neurlang.zeros(1)
    >>> neurlang.optim.AdamW([p], lr=0.5, weight_decay=0.5).step()
    >>> p.tolist()
    [3.0]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)

    _row = staticmethod(_tensor._adamw_)

    @staticmethod
    def _decay(group: dict[str, Any]) -> float:
        return float(group["lr"]) * group["weight_decay"]
