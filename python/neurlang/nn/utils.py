"""Helpers around parameters and gradients."""

from __future__ import annotations

from collections.abc import Iterable

from .._tensor import Tensor, stack, zeros
from ..autograd import no_grad


@no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scales all gradients in place so that their joint norm is at most `max_norm`; returns the norm before.

    Nothing is read unless `error_if_nonfinite` asks for it, so inside a trace this does not cut.

    Pascanu, Mikolov & Bengio 2013.

    >>> x = neurlang.zeros(2, requires_grad=True)
    >>> x.grad = neurlang.tensor([30.0, 40.0])
    >>> neurlang.nn.utils.clip_grad_norm_(x, 5.0).item(), round(x.grad.norm().item(), 4)
    (50.0, 5.0)
    """
    grads = _grads(parameters)
    if not grads:
        return zeros(())
    norms = stack([grad.norm(norm_type) for grad in grads])
    total = norms.norm(norm_type)
    if error_if_nonfinite and not total.isfinite():
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {total.item()}")
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limits every element of the gradients to [-clip_value, clip_value], in place.

    >>> x = neurlang.zeros(2, requires_grad=True)
    >>> x.grad = neurlang.tensor([30.0, -0.5])
    >>> neurlang.nn.utils.clip_grad_value_(x, 1.0)
    >>> x.grad.tolist()
    [1.0, -0.5]
    """
    for grad in _grads(parameters):
        grad.clamp_(-clip_value, clip_value)


def _grads(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
