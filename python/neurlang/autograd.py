"""Reverse-mode differentiation: the walk over recorded nodes, the switches, custom gradients and their checks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, TypeVar

import numpy as np

from . import _tensor as F
from ._tensor import Node, Tensor, is_grad_enabled, python_node
from .errors import DTypeError
from .switch import Switch

Fn = TypeVar("Fn", bound=Callable[..., Any])
Edge = Any  # where a gradient flows: None, a Node, or a leaf Tensor
Roots = list[tuple[Edge, int, Tensor]]  # edges, the number of the node's output, gradients


# ---- switches ----


class set_grad_enabled(Switch):
    """Turns the recording of gradients on or off for this thread: from now on, for a `with` block or a function.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> with neurlang.set_grad_enabled(False):
    ...     (x * 2).requires_grad
    False
    """

    _exchange = staticmethod(F.set_grad_enabled)

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)


class _Mode:
    """A fixed setting, for `with` blocks (which may nest) and functions."""

    mode: bool

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        return self if fn is None else self(fn)

    def __init__(self) -> None:
        self.before: list[bool] = []

    def __enter__(self) -> None:
        self.before.append(F.set_grad_enabled(self.mode))

    def __exit__(self, *error: object) -> None:
        F.set_grad_enabled(self.before.pop())

    def __call__(self, fn: Fn) -> Fn:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with type(self)():  # a fresh one, because threads may call the function at once
                return fn(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


class no_grad(_Mode):
    """Records no gradients in the block or function.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> with neurlang.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """

    mode = False


class enable_grad(_Mode):
    """Records gradients in the block or function, also inside `no_grad`.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> with neurlang.no_grad(), neurlang.enable_grad():
    ...     (x * 2).requires_grad
    True
    """

    mode = True


# ---- the walk ----


class _Walk:
    """One backward pass: nodes are visited newest first, so each has all of its output gradients when it is reached.

    With `targets`, only what leads to them is visited, and the gradients that arrive there are kept.
    """

    def __init__(self, roots: Roots, targets: Sequence[Edge] | None = None) -> None:
        self.roots = roots
        self.newest: list[int] = []  # a heap of negated sequence numbers
        self.pending: dict[int, tuple[Node, list[Tensor | None]]] = {}  # by sequence number: gradients so far
        self.leaves: dict[int, list[Tensor]] = {}  # by id: leaf and gradient so far
        self.stops: dict[int, list[Tensor | None]] = {id(edge): [] for edge in targets or ()}
        self.through = None if targets is None else _paths((edge for edge, _, _ in roots), targets)

    def run(self, retain_graph: bool, create_graph: bool) -> None:
        with set_grad_enabled(create_graph):
            for edge, output, gradient in self.roots:
                self._send(edge, output, gradient)
            self._visit_all(retain_graph)

    def _send(self, edge: Edge, output: int, grad: Tensor) -> None:
        """Adds `grad` to what has arrived at the end of an edge."""
        if self.through is not None and id(edge) not in self.through and id(edge) not in self.stops:
            return
        if type(edge) is not Node:
            arrived = self.leaves.get(id(edge))
            self.leaves[id(edge)] = [edge, grad if arrived is None else F.add(arrived[1], grad)]
            return
        seq = edge.seq
        entry = self.pending.get(seq)
        if entry is None:
            entry = self.pending[seq] = (edge, [None] * edge.n_outputs)
            heappush(self.newest, -seq)
        grads = entry[1]
        grads[output] = grad if grads[output] is None else F.add(grads[output], grad)

    def _visit_all(self, retain_graph: bool) -> None:
        send, through, newest, pending = self._send, self.through, self.newest, self.pending
        while newest:
            node, grads = pending.pop(-heappop(newest))
            if through is not None:
                if id(node) in self.stops:
                    self.stops[id(node)] = grads
                if id(node) not in through:
                    continue
            for edge, output, grad in node.flows(F, tuple(grads)):
                send(edge, output, grad)
            if not retain_graph:
                node.release()

    def gradient(self, x: Tensor) -> Tensor | None:
        """What arrived at a target."""
        edge = _edge(x)
        if type(edge) is not Node:
            return self.leaves[id(edge)][1] if id(edge) in self.leaves else None
        arrived = self.stops[id(edge)]
        return arrived[x.output_nr] if arrived else None


def _edge(tensor: Tensor) -> Edge:
    """Where the gradient of `tensor` flows."""
    return tensor if tensor.is_leaf else tensor.grad_fn


def _need_tensor(op: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise DTypeError(f"{op}: expected a Tensor, got {type(x).__name__}")


def _roots(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Roots:
    """The edges the walk starts from, with their gradients (1 where none is given)."""
    roots = []
    for x in (*outputs, *(g for g in gradients if g is not None)):
        _need_tensor("backward", x)
    for output, gradient in zip(outputs, gradients, strict=True):
        if not output.requires_grad:
            raise RuntimeError("backward: the tensor does not require grad, so nothing it came from was recorded")
        if gradient is None:
            if output.numel() != 1:
                raise RuntimeError(
                    f"backward: a gradient must be given for a tensor of shape {list(output.shape)}; "
                    "only one element has the gradient 1 implied"
                )
            gradient = F.ones_like(output)
        elif gradient.shape != output.shape:
            raise RuntimeError(
                f"backward: the gradient has shape {list(gradient.shape)}, the tensor {list(output.shape)}"
            )
        roots.append((_edge(output), output.output_nr, gradient.to(output.dtype)))
    return roots


def _paths(roots: Iterable[Edge], targets: Iterable[Edge]) -> set[int]:
    """Ids of the nodes from which some target is reached along at least one edge."""
    nodes: dict[int, Node] = {}
    stack = [edge for edge in roots if type(edge) is Node]
    while stack:
        node = stack.pop()
        if node.seq not in nodes:
            nodes[node.seq] = node
            stack.extend(edge for edge in node.edges if type(edge) is Node)
    reaches = {id(target) for target in targets}
    through = set()
    for seq in sorted(nodes):  # operands come before results
        node = nodes[seq]
        if any(id(edge) in reaches for edge in node.edges if edge is not None):
            reaches.add(id(node))
            through.add(id(node))
    return through


def _gradients(roots: Roots, inputs: Sequence[Tensor], retain_graph: bool, create_graph: bool) -> list[Tensor | None]:
    """The gradients with respect to `inputs` alone; nothing is accumulated anywhere."""
    walk = _Walk(roots, [_edge(x) for x in inputs])
    walk.run(retain_graph, create_graph)
    return [walk.gradient(x) for x in inputs]


def _accumulate(leaves: Iterable[list[Tensor]], create_graph: bool) -> None:
    """Adds gradients to `.grad`; takes them out of their lists of leaf and gradient."""
    with set_grad_enabled(create_graph):
        for entry in leaves:
            leaf = entry[0]
            if leaf.grad is None:
                leaf.grad = F.take_gradient(entry)
            elif create_graph:
                leaf.grad = leaf.grad + entry.pop()
            else:
                leaf.grad.add_(entry.pop())


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Adds the gradients of `tensors` to the `.grad` of the leaves (or of `inputs` only).

    A gradient may be left out (1) where a tensor has one element. The graph is freed unless `retain_graph` or
    `create_graph` (which records the gradient itself) is set. RuntimeError where nothing requires grad, a gradient is
    missing or has another shape, or the graph is gone or was overwritten.

    >>> x = neurlang.tensor(3.0, requires_grad=True)
    >>> neurlang.autograd.backward([x * x, 2 * x])
    >>> x.grad
    tensor(8.)
    """
    outputs = _as_tuple(tensors)
    gradients = (None,) * len(outputs) if grad_tensors is None else _as_tuple(grad_tensors)
    retain = create_graph if retain_graph is None else retain_graph
    roots = _roots(outputs, gradients)
    if inputs is None:
        walk = _Walk(roots)
        walk.run(retain, create_graph)
        _accumulate(walk.leaves.values(), create_graph)
    else:
        wanted = _as_tuple(inputs)
        found = zip(wanted, _gradients(roots, wanted, retain, create_graph), strict=True)
        _accumulate([[x, g] for x, g in found if g is not None], create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Returns the gradients of `outputs` (weighted by `grad_outputs`) with respect to `inputs`.

    RuntimeError where an input does not require grad or has no influence (None with `allow_unused`); else as
    `backward`.

    >>> x = neurlang.tensor(3.0, requires_grad=True)
    >>> neurlang.grad(x * x, x)
    (tensor(6.),)
    """
    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    gradients = (None,) * len(outputs) if grad_outputs is None else _as_tuple(grad_outputs)
    for position, x in enumerate(inputs):
        _need_tensor("grad", x)
        if not x.requires_grad:
            raise RuntimeError(f"grad: input {position} does not require grad")
    retain = create_graph if retain_graph is None else retain_graph
    results = _gradients(_roots(outputs, gradients), inputs, retain, create_graph)
    unused = [position for position, g in enumerate(results) if g is None]
    if unused and not allow_unused:
        raise RuntimeError(
            f"grad: input {unused[0]} does not influence the outputs; allow_unused=True gives None for it"
        )
    return tuple(results)


F.set_hooks(backward=backward)


def zero_grads(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """Drops the gradients, or overwrites them with zeros.

    >>> x = neurlang.ones(2, requires_grad=True)
    >>> x.sum().backward()
    >>> neurlang.autograd.zero_grads([x], set_to_none=False)
    >>> x.grad.tolist()
    [0.0, 0.0]
    """
    for tensor in tensors:
        if set_to_none:
            tensor.grad = None
        elif tensor.grad is not None:
            tensor.grad.detach_().zero_()


# ---- custom gradients ----


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
        self._saved: list[tuple[Tensor | None, int]] = []
        self._dirty: set[int] = set()
        self._constant: set[int] = set()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors; `saved_tensors` raises if one was modified in place meanwhile."""
        self._saved = [(t, 0 if t is None else t._version) for t in tensors]

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What was saved; RuntimeError if one was modified in place meanwhile."""
        for tensor, version in self._saved:
            if tensor is not None and tensor._version != version:
                raise RuntimeError(
                    f"a tensor of shape {list(tensor.shape)} saved for backward was modified in place "
                    f"(it is at version {tensor._version}, {version} was saved)"
                )
        return tuple(tensor for tensor, _ in self._saved)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which inputs `forward` overwrote and returns.

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
        outputs = tuple(x.detach() if id(x) in given else x for x in _as_tuple(result))
        active = [
            position
            for position, (x, original) in enumerate(zip(outputs, _as_tuple(result), strict=True))
            if isinstance(x, Tensor) and x.is_floating_point() and id(original) not in ctx._constant
        ]
        rule = cls._rule(ctx, len(args), [outputs[position] for position in active], active, len(outputs))
        python_node(cls.__name__, rule, args, tuple(outputs[position] for position in active))
        return outputs if isinstance(result, tuple | list) else outputs[0]

    @classmethod
    def _rule(
        cls, ctx: FunctionContext, n_args: int, outputs: list[Tensor], active: list[int], n_outputs: int
    ) -> Callable[..., tuple[Tensor | None, ...]]:
        """The node's rule: `backward` with a gradient for every result and one gradient back for every argument."""
        geometry = [(x.shape, x.dtype) for x in outputs]

        def rule(_: Any, *arrived: Tensor | None) -> tuple[Tensor | None, ...]:
            grads: list[Tensor | None] = [None] * n_outputs
            for position, grad, (shape, dtype) in zip(active, arrived, geometry, strict=True):
                missing = grad is None and ctx.materialize_grads
                grads[position] = F.zeros(shape, dtype=dtype) if missing else grad
            results = _as_tuple(cls.backward(ctx, *grads))
            if len(results) != n_args:
                raise RuntimeError(f"{cls.__name__}.backward returned {len(results)} gradients for {n_args} arguments")
            return results

        return rule


# ---- checks by finite differences ----


class GradcheckError(RuntimeError):
    """An analytic gradient that finite differences do not confirm.

    >>> class Wrong(neurlang.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         return grad
    >>> x = neurlang.ones(1, dtype=neurlang.float64, requires_grad=True)
    >>> neurlang.autograd.gradcheck(Wrong.apply, x)
    Traceback (most recent call last):
        ...
    neurlang.autograd.GradcheckError: gradcheck: d output 0 / d input 0 differs from finite ...
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
    inputs = _as_tuple(inputs)
    checked = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires grad")
    for x in checked:
        if x.dtype != F.float64 or not x.is_leaf:
            raise ValueError("gradcheck: inputs that require grad must be float64 leaves; differences need the digits")

    def differentiable(result: Any) -> list[Tensor]:
        return [y for y in _as_tuple(result) if isinstance(y, Tensor) and y.is_floating_point()]

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
    inputs = _as_tuple(inputs)
    random = np.random.default_rng(0)

    def outputs_of(arguments: Sequence[Any]) -> list[Tensor]:
        return [y for y in _as_tuple(func(*arguments)) if isinstance(y, Tensor) and y.requires_grad]

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
