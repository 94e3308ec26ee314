"""The passes, and PIPELINE: the order in which they turn a graph into a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .coalesce import coalesce
from .cse import cse
from .dce import dce
from .expand import expand
from .fold import fold
from .fuse import fuse
from .gather import gather
from .layout import layout
from .orient import orient
from .plan import plan
from .reuse import reuse

Pass = Callable[[Any], Any]

PIPELINE: tuple[Pass, ...] = (expand, fold, cse, dce, orient, layout, coalesce, gather, fuse, reuse, plan)


def run(
    graph: Any, pipeline: tuple[Pass, ...] = PIPELINE, after: Callable[[str, Any], None] = lambda name, made: None
) -> Any:
    """Applies passes in order; `after` sees every result (the tests verify it there)."""
    for step in pipeline:
        graph = step(graph)
        after(step.__name__, graph)
    return graph
