"""Custom gradients: a Function's forward and backward in place of a row's rule."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from .. import _tensor as F
from .._tensor import Tensor, is_grad_enabled, python_node, result_of
from .engine import as_tuple
from .modes import no_grad


class FunctionContext:
    """What a Function's `forward` leaves for its `backward`; any attribute may be set on it.

    >>> class Cube(neurlang.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         return grad * 3 * ctx.saved_tensors[0].square()
    >>> x = neurlang.tensor(2.0, requires_grad=True)
    >>> neurlang.grad(Cube.apply(x), x)
    (tensor(12.),)
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.materialize_grads = True
        self._saved: list[tuple[Tensor | None, int, int | None]] = []  # with its version; which result of the node
        self._node: Callable[[], Any] = lambda: None
        self._dirty: set[int] = set()
        self._constant: set[int] = set()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors; `saved_tensors` raises if one was modified in place meanwhile."""
        self._saved = [(t, 0 if t is None else t._version, None) for t in tensors]

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What was saved; RuntimeError if one was modified in place meanwhile."""
        for tensor, version, _ in self._saved:
            if tensor is not None and tensor._version != version:
                raise RuntimeError(
                    f"a tensor of shape {list(tensor.shape)} saved for backward was modified in place "
                    f"(it is at version {tensor._version}, {version} was saved)"
                )
        node = self._node()
        return tuple(
            tensor if node is None or tensor is None or result is None else result_of(node, result, tensor)
            for tensor, _, result in self._saved
        )

    def _let_go(self, results: tuple[Tensor, ...], node: Any) -> None:
        """Keeps only the memory of saved results: they keep `node`, which keeps this, and no backward may ever come."""
        number = {id(x): i for i, x in enumerate(results)}
        self._saved = [
            (x if x is None or id(x) not in number else x.detach(), version, number.get(id(x)))
            for x, version, _ in self._saved
        ]
        self._node = weakref.ref(node)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which inputs `forward` overwrote; it must return them.

        >>> class Doubled(neurlang.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.mark_dirty(x)
        ...         return x.mul_(2)
        ...     @staticmethod
        ...     def backward(ctx, grad):
        ...         return grad * 2
        >>> x = neurlang.tensor(3.0, requires_grad=True)
        >>> neurlang.grad(Doubled.apply(x.clone()), x)
        (tensor(2.),)
        """
        self._dirty = {id(t) for t in tensors}

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which results have no gradient.

        >>> class Halves(neurlang.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         whole = x.floor()
        ...         ctx.mark_non_differentiable(whole)
        ...         return whole, x - whole
        ...     @staticmethod
        ...     def backward(ctx, _, grad):
        ...         return grad
        >>> [part.requires_grad for part in Halves.apply(neurlang.tensor(1.5, requires_grad=True))]
        [False, True]
        """
        self._constant = {id(t) for t in tensors}

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (default) or None for results that no gradient reached.

        >>> class Both(neurlang.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.set_materialize_grads(False)
        ...         return x * 1, x * 2
        ...     @staticmethod
        ...     def backward(ctx, first, second):
        ...         return first if second is None else second * 2
        >>> x = neurlang.tensor(1.0, requires_grad=True)
        >>> neurlang.grad(Both.apply(x)[0], x)
        (tensor(1.),)
        """
        self.materialize_grads = value


class Function:
    """A custom gradient: subclass with static `forward(ctx, *args)` and `backward(ctx, *grads)`, call `apply`.

    >>> class Double(neurlang.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         return grad * 2
    >>> x = neurlang.tensor(3.0, requires_grad=True)
    >>> neurlang.grad(Double.apply(x), x)
    (tensor(2.),)
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """The results; `ctx` (a FunctionContext) takes what `backward` needs."""
        raise NotImplementedError("a Function needs a static forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """A gradient, or None, for every argument of `forward`, given one for every result."""
        raise NotImplementedError("a Function needs a static backward(ctx, *grads) to be differentiated")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Runs `forward` and connects its results to the arguments through `backward`."""
        ctx = FunctionContext(tuple(isinstance(x, Tensor) and x.requires_grad for x in args))
        with no_grad():
            result = cls.forward(ctx, *args)
        if not is_grad_enabled() or not any(ctx.needs_input_grad):
            return result
        given = {id(x) for x in args if isinstance(x, Tensor)} - ctx._dirty
        # An argument returned as it is becomes a result of its own, with its own history.
        outputs = tuple(x.detach() if id(x) in given else x for x in as_tuple(result))
        active = [
            position
            for position, (x, original) in enumerate(zip(outputs, as_tuple(result), strict=True))
            if isinstance(x, Tensor) and x.is_floating_point() and id(original) not in ctx._constant
        ]
        if not ctx._dirty <= {id(x) for x in outputs}:
            raise RuntimeError(f"{cls.__name__}: forward must return what it marks as dirty")
        results = tuple(outputs[position] for position in active)
        rule = cls._rule(ctx, len(args), results, active, len(outputs))
        node = python_node(cls.__name__, rule, args, results, tuple(x for x in results if id(x) in ctx._dirty))
        ctx._let_go(results, node)
        return outputs if isinstance(result, tuple | list) else outputs[0]

    @classmethod
    def _rule(
        cls, ctx: FunctionContext, n_args: int, outputs: tuple[Tensor, ...], active: list[int], n_outputs: int
    ) -> Callable[..., tuple[Tensor | None, ...]]:
        """The node's rule: `backward` with a gradient for every result and one gradient back for every argument."""
        geometry = [(x.shape, x.dtype) for x in outputs]

        def rule(_: Any, *arrived: Tensor | None) -> tuple[Tensor | None, ...]:
            grads: list[Tensor | None] = [None] * n_outputs
            for position, grad, (shape, dtype) in zip(active, arrived, geometry, strict=True):
                missing = grad is None and ctx.materialize_grads
                grads[position] = F.zeros(shape, dtype=dtype) if missing else grad
            returned = as_tuple(cls.backward(ctx, *grads))
            if len(returned) != n_args:
                raise RuntimeError(f"{cls.__name__} backward: {len(returned)} gradients for {n_args} arguments")
            return returned

        return rule
