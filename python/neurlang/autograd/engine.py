"""Reverse-mode differentiation: where walks over recorded nodes begin and end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from .. import _tensor as F
from .._tensor import Node, Tensor
from ..errors import DTypeError
from .modes import set_grad_enabled

Edge = Any  # where a gradient flows: None, a Node, or a leaf Tensor
Roots = list[tuple[Edge, int, Tensor]]  # edges, the number of the node's output, gradients


def _edge(tensor: Tensor) -> Edge:
    """Where the gradient of `tensor` flows."""
    return tensor if tensor.is_leaf else tensor.grad_fn


def _need_tensor(op: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise DTypeError(f"{op}: expected a Tensor, got {type(x).__name__}")


def _inputs(op: str, inputs: Any) -> tuple[Tensor, ...]:
    """The tensors whose gradients are asked for."""
    wanted = as_tuple(inputs)
    if not wanted:
        raise RuntimeError(f"{op}: inputs is empty; name at least one tensor")
    for position, x in enumerate(wanted):
        _need_tensor(op, x)
        if not x.requires_grad:
            raise RuntimeError(f"{op}: input {position} does not require grad")
    return wanted


def _roots(op: str, outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Roots:
    """The edges the walk starts from, with their gradients (1 where none is given)."""
    roots = []
    if len(gradients) != len(outputs):
        raise RuntimeError(f"{op}: {len(gradients)} gradients are given for {len(outputs)} tensors")
    for x in (*outputs, *(g for g in gradients if g is not None)):
        _need_tensor(op, x)
    for output, gradient in zip(outputs, gradients, strict=True):
        if not output.requires_grad:
            raise RuntimeError(f"{op}: the tensor does not require grad, so nothing it came from was recorded")
        if gradient is None:
            if output.numel() != 1:
                raise RuntimeError(
                    f"{op}: a gradient must be given for a tensor of shape {list(output.shape)}; "
                    "only one element has the gradient 1 implied"
                )
            gradient = F.ones_like(output)
        elif gradient.shape != output.shape:
            raise RuntimeError(f"{op}: the gradient has shape {list(gradient.shape)}, the tensor {list(output.shape)}")
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


def _gradients(roots: Roots, inputs: Collection[Tensor], retain_graph: bool, create_graph: bool) -> list[Tensor | None]:
    """The gradients with respect to `inputs` alone; nothing is accumulated anywhere."""
    targets = [_edge(x) for x in inputs]
    walk = F.Walk(_paths((edge for edge, _, _ in roots), targets), targets)
    with set_grad_enabled(create_graph):
        walk.run(roots, retain_graph)
    return [walk.arrived(edge, x.output_nr) for edge, x in zip(targets, inputs, strict=True)]


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


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One value, or several, as a tuple."""
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
    `create_graph` (which records the gradient itself) is set. RuntimeError where nothing requires grad, an input does
    not, a gradient is missing or has another shape, or the graph is gone or was overwritten.

    >>> x = neurlang.tensor(3.0, requires_grad=True)
    >>> neurlang.autograd.backward([x * x, 2 * x])
    >>> x.grad
    tensor(8.)
    """
    outputs = as_tuple(tensors)
    gradients = (None,) * len(outputs) if grad_tensors is None else as_tuple(grad_tensors)
    retain = create_graph if retain_graph is None else retain_graph
    roots = _roots("backward", outputs, gradients)
    if inputs is None:
        walk = F.Walk()
        with set_grad_enabled(create_graph):
            walk.run(roots, retain)
        _accumulate(walk.leaves.values(), create_graph)
    else:
        wanted = {id(x): x for x in _inputs("backward", inputs)}.values()  # each of them once
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
    outputs, inputs = as_tuple(outputs), _inputs("grad", inputs)
    gradients = (None,) * len(outputs) if grad_outputs is None else as_tuple(grad_outputs)
    retain = create_graph if retain_graph is None else retain_graph
    results = _gradients(_roots("grad", outputs, gradients), inputs, retain, create_graph)
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
