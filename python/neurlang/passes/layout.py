"""Layouts: images behind convolutions lie with their channels last where nothing that touches them objects.

Convolutions of one tap are then products of matrices as they lie, and Winograd's transforms go through vectors of
channels: no copies of rows between zeros, no transposes, no vectors that maps of 7 x 7 or 14 x 14 do not fill.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.graph import Access, Graph, Node, count
from ..ir.types import Dim

VECTOR, HALF_VECTOR = 16, 8  # channels come in vectors of up to 16 lanes; from three halves on few lanes stay empty
CONVOLUTIONS = ("conv2d", "conv2d_input")  # from images, their first operand, to images


@dataclass(frozen=True, slots=True)
class Family:
    """Storages that maps read or write together, all of them images of so many channels and pixels."""

    storages: frozenset[int]
    numel: int
    channels: int
    pixels: int

    def turned(self, x: Access) -> Access | None:
        """`x`, if it is one of the images, with their channels last; None where it cannot be."""
        return x.turned(self.channels, self.pixels) if x.storage in self.storages else x

    def suits(self, x: Access, node: Node) -> bool:
        """Whether a map may go over `x` beside the images once they are turned: it is one, or lies as they do then."""
        turned = (self.turned(y) for y in _accesses(node) if y.storage in self.storages)
        return x.storage in self.storages or any(y is not None and _steps(x) == _steps(y) for y in turned)


def layout(graph: Graph) -> Graph:
    """Turns the images [N, C, H, W] inside of the graph, family by family: what maps join lies alike."""
    if all(node.op not in CONVOLUTIONS for node in graph.nodes):
        return graph
    touching: dict[int, list[int]] = {}
    for number, node in enumerate(graph.nodes):
        for storage in {x.storage for x in _accesses(node)}:
            touching.setdefault(storage, []).append(number)
    families = []
    for storages in _joined(graph, touching):
        nodes = [graph.nodes[n] for n in sorted({n for s in storages for n in touching[s]})]
        family = _family(storages, nodes)
        if family is not None:
            families.append((family, nodes))
    turned: dict[int, Family] = {}
    for family in _fitting(families):
        turned |= dict.fromkeys(family.storages, family)
    return graph.with_nodes([node.map_accesses(lambda x: _turned(x, turned)) for node in graph.nodes])


def _fitting(families: list[tuple[Family, list[Node]]]) -> list[Family]:
    """The families that fit while all of them are turned: those that do not are left out, until all that stay do.

    One that is left out may keep its neighbours from fitting. Rounds go forwards and backwards in turn, so that this
    spreads along a chain of layers in one of them.
    """
    turned = {storage for family, _ in families for storage in family.storages}
    while True:
        fitting = []
        for family, nodes in families:
            if all(_fits(node, family, turned) for node in nodes):
                fitting.append((family, nodes))
            else:
                turned -= family.storages
        if len(fitting) == len(families):
            return [family for family, _ in families]
        families = fitting[::-1]


def _turned(x: Access, families: dict[int, Family]) -> Access:
    return (families[x.storage].turned(x) or x) if x.storage in families else x


def _accesses(node: Node) -> Iterator[Access]:
    yield from node.reads()
    yield from node.outs


def _steps(x: Access) -> list[tuple[Dim, int]]:
    """The axes along which an access goes on, with their strides."""
    return [(extent, stride) for extent, stride in zip(x.shape, x.strides, strict=True) if extent > 1]


def _joined(graph: Graph, touching: dict[int, list[int]]) -> list[list[int]]:
    """Storages that nobody outside sees and that are made whole, those that maps join in one list."""
    of = {storage: [storage] for storage, numbers in touching.items() if _is_private(graph, storage, numbers[0])}
    for node in graph.nodes:
        joined = [x.storage for x in _accesses(node) if x.storage in of and x.numel == node.outs[0].numel]
        if node.kind == "map":
            for storage in joined[1:]:
                other, family = sorted((of[joined[0]], of[storage]), key=len)  # the shorter list moves
                if other is not family:
                    family.extend(other)
                    of.update(dict.fromkeys(other, family))
    return list({id(family): family for family in of.values()}.values())


def _is_private(graph: Graph, storage: int, first: int) -> bool:
    place = graph.storages[storage]
    return not place.outside and any(x.storage == storage and x.whole(place) for x in graph.nodes[first].outs)


def _family(storages: list[int], nodes: list[Node]) -> Family | None:
    """The storages as images, of the shape that a convolution sees; None where none does, or channels are few."""
    images = (x for node in nodes if node.op in CONVOLUTIONS for x in (next(node.reads()), *node.outs))
    x = next((x for x in images if x.storage in storages), None)
    if x is None or x.shape[1] % HALF_VECTOR != 0 or x.shape[1] == HALF_VECTOR:
        return None
    if x.numel == 0 or count(x.shape[2:]) == 1:
        return None
    return Family(frozenset(storages), x.numel, x.shape[1], count(x.shape[2:]))


def _fits(node: Node, family: Family, turned: set[int]) -> bool:
    """Whether the node's kernel is at its best with the family's channels last, and its accesses can be turned.

    `turned` are the storages of all families that are.
    """
    images = [x for x in _accesses(node) if x.storage in family.storages]
    if any(x.numel != family.numel or family.turned(x) is None for x in images):
        return False
    reads = any(x.storage in family.storages for x in node.reads())
    writes = any(x.storage in family.storages for x in node.outs)
    if node.kind == "map":
        return all(family.suits(x, node) for x in _accesses(node) if x.numel == family.numel)
    if node.op in CONVOLUTIONS:
        (out,) = node.outs
        whole = not writes or out.shape[1] == family.channels  # it writes pixels that follow each other, no others
        return whole and _knows_pixels(node, turned) and (not reads or _reads_pixels(node, family))
    if node.op == "max_pool2d_values":
        return family.channels % VECTOR == 0  # else its vectors go across images
    return node.kind == "reduce" and not writes


def _lies_last(x: Access, turned: set[int]) -> bool:
    return x.storage in turned or x.strides[1] == 1


def _knows_pixels(node: Node, turned: set[int]) -> bool:
    """Whether a convolution has a kernel for pixels: of all channels, or of single ones between pixels or from them.

    Gradients go from pixels to pixels only.
    """
    x, w = node.reads()
    if node.op == "conv2d_input" and not (_lies_last(x, turned) and _lies_last(node.outs[0], turned)):
        return False
    return node.attrs[6] == 1 or (w.shape[:2] == (node.attrs[6], 1) and _lies_last(x, turned))


def _reads_pixels(node: Node, family: Family) -> bool:
    """Whether a convolution's images, and not its weights, are in the family, and are worth to be turned for it."""
    _, w = node.reads()
    return w.storage not in family.storages and (w.shape[2:] != (1, 1) or node.attrs[2:4] == (0, 0))
