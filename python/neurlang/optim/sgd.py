"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import _tensor
from .._tensor import Tensor, zeros_like
from .optimizer import Optimizer


class SGD(Optimizer):
    """p -= lr * d with d = grad + weight_decay * p, or its running sum when there is a momentum.

    With a momentum the sum is b = momentum b + (1 - dampening) d, at first d itself (Polyak 1964); `nesterov` steps by
    d + momentum b (Sutskever et al. 2013), and needs a momentum and no dampening, else ValueError.

    >>> p = neurlang.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = neurlang.optim.SGD([p], lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     p.grad = neurlang.ones(2)
    ...     optimizer.step()
    >>> p.tolist()
    [-0.25, 0.75]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0.0 or group["dampening"] != 0.0):
            raise ValueError("nesterov needs a momentum and no dampening")

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, momentum, weight_decay = float(group["lr"]), group["momentum"], group["weight_decay"]
        if momentum == 0.0:
            _tensor._sgd_(p, grad, lr, weight_decay)
            return
        dampening = group["dampening"]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = zeros_like(p)
            dampening = 0.0  # the first sum is the first d itself, as in PyTorch
        update = _tensor._sgd_nesterov_ if group["nesterov"] else _tensor._sgd_momentum_
        update(p, grad, state["momentum_buffer"], lr, momentum, dampening, weight_decay)
