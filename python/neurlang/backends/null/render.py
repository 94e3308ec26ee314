"""Rendering for no machine: the kernels' own text."""

from __future__ import annotations

from ...ir.kernel import Schedule


def render(schedule: Schedule) -> str:
    """What a backend would turn into its language."""
    return "\n".join(str(step.kernel) for step in schedule.kernels)
