"""Parameter: a tensor that a module registers as trainable."""

from __future__ import annotations

from .._tensor import Tensor, empty


class Parameter(Tensor):
    """A leaf over the memory of `data` that requires grad; a module it is assigned to registers it.

    >>> neurlang.nn.Parameter(neurlang.zeros(2)).requires_grad
    True
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        self.data = empty(0) if data is None else data
        self.requires_grad = requires_grad

    def __reduce__(self) -> tuple[type[Parameter], tuple[Tensor, bool]]:
        return type(self), (self.detach(), self.requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
