"""Optimizer: groups of parameters with their settings, and the state kept for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .._tensor import Tensor
from ..autograd import enable_grad, no_grad, zero_grads


class Optimizer:
    """Base of all optimisers: subclasses give the defaults and `_update` one parameter.

    `param_groups` holds the settings, which may change between steps; inside a trace they are run-time operands, so
    a change compiles nothing anew.

    Groups are dictionaries with "params" and settings of their own. ValueError for settings out of range, no
    parameters, one given twice or one that is no leaf.

    >>> p, q = neurlang.ones(2, requires_grad=True), neurlang.ones(2, requires_grad=True)
    >>> optimizer = neurlang.optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=1.0)
    >>> [group["lr"] for group in optimizer.param_groups]
    [1.0, 0.5]
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError("the optimiser got no parameters")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with settings of their own; what they leave out is the optimiser's default.

        >>> optimizer = neurlang.optim.SGD([neurlang.ones(2, requires_grad=True)], lr=1.0)
        >>> optimizer.add_param_group({"params": neurlang.ones(3, requires_grad=True), "lr": 0.5})
        >>> [group["lr"] for group in optimizer.param_groups]
        [1.0, 0.5]
        """
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"an optimiser takes tensors, got {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError("an optimiser takes leaves, not results of an operation")
            if id(p) in known:
                raise ValueError(f"a parameter of shape {list(p.shape)} was given twice")
            known.add(id(p))
        group = {**self.defaults, **param_group, "params": params}
        self._check(group)
        self.param_groups.append(group)

    def _check(self, group: dict[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for name in ("lr", "eps", "weight_decay", "momentum"):
            if not group.get(name, 0.0) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {group[name]}")
        for beta in group.get("betas", ()):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"betas must lie in [0, 1), got {group['betas']}")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; `closure`, if given, computes the loss first.

        Returns the closure's loss, or None.

        >>> p = neurlang.tensor([1.0, 2.0], requires_grad=True)
        >>> p.grad = neurlang.tensor([1.0, 1.0])
        >>> neurlang.optim.SGD([p], lr=0.5).step()
        >>> p.tolist()
        [0.5, 1.5]
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        grad = -p.grad if group.get("maximize") else p.grad
                        self._update(p, grad, self.state.setdefault(p, {}), group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or overwrites them with zeros.

        >>> p = neurlang.ones(2, requires_grad=True)
        >>> p.sum().backward()
        >>> neurlang.optim.SGD([p]).zero_grad()
        >>> p.grad is None
        True
        """
        zero_grads((p for group in self.param_groups for p in group["params"]), set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Returns settings and state, parameters numbered in the order of the groups, as in PyTorch.

        >>> neurlang.optim.SGD([neurlang.ones(2, requires_grad=True)], lr=0.5).state_dict()["param_groups"][0]["lr"]
        0.5
        """
        numbers = {id(p): n for n, p in enumerate(p for group in self.param_groups for p in group["params"])}
        groups = [{**group, "params": [numbers[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": {numbers[id(p)]: dict(state) for p, state in self.state.items()}, "param_groups": groups}

    @no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over settings and (copies of) the state of an optimiser with the same groups.

        ValueError where the groups have other numbers of parameters.

        >>> p = neurlang.ones(2, requires_grad=True)
        >>> state = neurlang.optim.SGD([p], lr=0.5).state_dict()
        >>> optimizer = neurlang.optim.SGD([p], lr=0.25)
        >>> optimizer.load_state_dict(state)
        >>> optimizer.param_groups[0]["lr"]
        0.5
        """
        groups = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(f"the state is of groups with {sizes} parameters, which are not this optimiser's")
        by_number: dict[int, Tensor] = {}
        for group, loaded in zip(self.param_groups, groups, strict=True):
            by_number.update(zip(loaded["params"], group["params"], strict=True))
            group.update({name: value for name, value in loaded.items() if name != "params"})
        self.state = {
            by_number[number]: {name: _own(value) for name, value in state.items()}
            for number, state in state_dict["state"].items()
        }

    def __repr__(self) -> str:
        groups = [
            "(" + ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params") + ")"
            for group in self.param_groups
        ]
        return f"{type(self).__name__}{' '.join(groups)}"


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
