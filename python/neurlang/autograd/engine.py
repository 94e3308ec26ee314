"""Reverse-mode differentiation: the walk over recorded nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

from .. import _tensor as F
from .._tensor import Node, Tensor
from ..errors import DTypeError
from .modes import set_grad_enabled

Edge = Any  # where a gradient flows: None, a Node, or a leaf Tensor
Roots = list[tuple[Edge, int, Tensor]]  # edges, the number of the node's output, gradients


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


def _roots(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Roots:
    """The edges the walk starts from, with their gradients (1 where none is given)."""
    roots = []
    if len(gradients) != len(outputs):
        raise RuntimeError(f"backward: {len(gradients)} gradients are given for {len(outputs)} tensors")
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
    roots = _roots(outputs, gradients)
    if inputs is None:
        walk = _Walk(roots)
        walk.run(retain, create_graph)
        _accumulate(walk.leaves.values(), create_graph)
    else:
        wanted = _inputs("backward", inputs)
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
