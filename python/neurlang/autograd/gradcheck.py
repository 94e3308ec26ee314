"""Checks of gradients by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import _tensor as F
from .._tensor import Tensor
from .engine import as_tuple, grad
from .modes import enable_grad, no_grad


class GradcheckError(RuntimeError):
    """An analytic gradient that finite differences do not confirm.

    >>> x = neurlang.ones(1, dtype=neurlang.float64, requires_grad=True)
    >>> neurlang.autograd.gradcheck(lambda x: x * x.detach(), x)
    Traceback (most recent call last):
        ...
    neurlang.autograd.gradcheck.GradcheckError: gradcheck: d output 0 / d input 0 differs from finite ...
    """


def _numeric_jacobian(fn: Callable[[], list[np.ndarray]], x: Tensor, eps: float) -> list[np.ndarray]:
    """Central differences: for every output an array [elements of x, elements of the output]."""
    values = x.detach().numpy()
    columns: list[list[np.ndarray]] = []
    for index in np.ndindex(values.shape):
        original = values[index]
        values[index] = original + eps
        above = fn()
        values[index] = original - eps
        below = fn()
        values[index] = original
        columns.append([((a - b) / (2 * eps)).reshape(-1) for a, b in zip(above, below, strict=True)])
    return [np.stack(rows) for rows in zip(*columns, strict=True)]


def _analytic_jacobian(output: Tensor, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """The same by one backward pass for every element of the output: an array for every input."""
    jacobians = [np.zeros((x.numel(), output.numel())) for x in inputs]
    if not output.requires_grad:
        return jacobians
    for element in range(output.numel()):
        seed = np.zeros(output.numel())
        seed[element] = 1.0
        weights = F.from_numpy(seed.reshape(output.shape))
        grads = grad(output, inputs, weights, retain_graph=True, allow_unused=True)
        for jacobian, g in zip(jacobians, grads, strict=True):
            if g is not None:
                jacobian[:, element] = g.detach().numpy().reshape(-1)
    return jacobians


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compares the gradients of `func(*inputs)` with central differences, for all float64 inputs that require grad.

    |analytic - numeric| must be at most atol + rtol |numeric|, with (f(x + eps) - f(x - eps)) / (2 eps) for the numeric
    one; else GradcheckError, or False. ValueError where no input requires grad or one that does is no float64 leaf.

    >>> x = neurlang.tensor([1.0, 2.0], dtype=neurlang.float64, requires_grad=True)
    >>> neurlang.autograd.gradcheck(lambda x: x * x, x)
    True
    """
    inputs = as_tuple(inputs)
    checked = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires grad")
    for x in checked:
        if x.dtype != F.float64 or not x.is_leaf:
            raise ValueError("gradcheck: inputs that require grad must be float64 leaves; differences need the digits")

    def differentiable(result: Any) -> list[Tensor]:
        return [y for y in as_tuple(result) if isinstance(y, Tensor) and y.is_floating_point()]

    @no_grad()
    def values() -> list[np.ndarray]:
        return [y.detach().numpy().copy() for y in differentiable(func(*inputs))]

    outputs = differentiable(func(*inputs))
    analytic = [_analytic_jacobian(output, checked) for output in outputs]
    for i, x in enumerate(checked):
        if x.numel() == 0:
            continue
        for o, numeric in enumerate(_numeric_jacobian(values, x, eps)):
            error = np.abs(analytic[o][i] - numeric) - rtol * np.abs(numeric)
            if error.size and not error.max() <= atol:
                if not raise_exception:
                    return False
                raise GradcheckError(
                    f"gradcheck: d output {o} / d input {i} differs from finite differences\n"
                    f"analytic:\n{analytic[o][i]}\nnumeric:\n{numeric}"
                )
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Sequence[Tensor] | None = None,
    **tolerances: Any,
) -> bool:
    """`gradcheck` of the gradient itself, as a function of the inputs and of (random) output gradients.

    >>> x = neurlang.tensor([1.0, 2.0], dtype=neurlang.float64, requires_grad=True)
    >>> neurlang.autograd.gradgradcheck(lambda x: x * x * x, x)
    True
    """
    inputs = as_tuple(inputs)
    random = np.random.default_rng(0)

    def outputs_of(arguments: Sequence[Any]) -> list[Tensor]:
        return [y for y in as_tuple(func(*arguments)) if isinstance(y, Tensor) and y.requires_grad]

    if grad_outputs is None:
        grad_outputs = [F.from_numpy(np.asarray(random.standard_normal(y.shape))) for y in outputs_of(inputs)]
    weights = [g.detach().clone().requires_grad_() for g in grad_outputs]

    def first_order(*arguments: Any) -> tuple[Tensor, ...]:
        arguments, seeds = arguments[: len(inputs)], arguments[len(inputs) :]
        with enable_grad():
            wanted = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
            grads = grad(outputs_of(arguments), wanted, seeds, create_graph=True, allow_unused=True)
        return tuple(F.zeros_like(x) if g is None else g for g, x in zip(grads, wanted, strict=True))

    return gradcheck(first_order, (*inputs, *weights), **tolerances)
