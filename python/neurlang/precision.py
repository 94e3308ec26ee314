"""How exactly convolutions of float32 are computed, where a shape leaves a choice."""

from __future__ import annotations

from . import _tensor
from .switch import Switch

# Results a way of the largest Winograd tile that each allows (the attribute `tile` of the rows).
_TILES = {"highest": 1, "high": 2, "medium": 4}


class set_conv_precision(Switch):
    """How exactly this thread computes convolutions of float32: from now on, for a `with` block or a function.

    "highest" is sums of products only. "high" (the default) also takes Winograd's transforms of 2x2 results at a time,
    nearly as exact. "medium" also takes those of 4x4 results, for 3x3 kernels of stride 1: up to 1.8 times as fast,
    with errors some 3 times as large, 3e-6 of the largest result. Where a shape does not gain by the one asked for,
    the next more exact one is taken, a function of the shape without the batch (ARCHITECTURE.md, section 3).

    A call keeps what held when it was made: its gradients follow (those by weights have "high" at most), traces are
    recorded anew, and a frozen program stays as it was frozen. Convolutions of 1 and 3 axes, transposed ones and 16-bit
    floats, which are computed in float32, follow too; float64 is always sums of products. ValueError for other names.

    >>> x, w = neurlang.ones(1, 32, 16, 16), neurlang.ones(32, 32, 3, 3)
    >>> with neurlang.set_conv_precision("medium"):
    ...     y = neurlang.conv2d(x, w)
    >>> neurlang.get_conv_precision()
    'high'
    """

    _exchange = staticmethod(_tensor.set_conv_tile)

    def __init__(self, precision: str) -> None:
        if precision not in tuple(_TILES):
            raise ValueError(f"set_conv_precision: {precision!r} is none of {', '.join(map(repr, _TILES))}")
        super().__init__(_TILES[precision])


def get_conv_precision() -> str:
    """What `set_conv_precision` was given on this thread: "highest", "high" or "medium".

    >>> neurlang.get_conv_precision()
    'high'
    """
    return next(name for name, tile in _TILES.items() if tile == _tensor.conv_tile())
