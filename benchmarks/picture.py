"""Draws a run's figures: `python -m benchmarks.picture figures.json picture.svg` (needs matplotlib)."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from .timing import OURS

COLUMNS = 3
LABELLED = 24  # cases; more are drawn in order of size, without names
COLOURS = {
    "NumPy": "#4c72b0", "torch": "#dd8452", "torch.compile": "#c44e52", "JAX": "#55a868", "ONNX Runtime": "#8172b3",
    "OpenVINO": "#937860", "torch channels last": "#da8bc3",
}  # fmt: skip
Cases = list[dict[str, Any]]


def speedups(cases: Cases) -> dict[str, list[tuple[int, float]]]:
    """For each peer (case number, its time over ours): above 1 we are faster."""
    found: dict[str, list[tuple[int, float]]] = {}
    for number, case in enumerate(cases):
        for peer, ratio in case.get("ratios", {}).items():
            if not peer.startswith(OURS):
                found.setdefault(peer, []).append((number, 1 / ratio["median"]))
    return found


def draw(axes: Axes, name: str, cases: Cases) -> None:
    """One panel: a point for each case and peer, on a logarithmic scale about 1."""
    series = speedups(cases)
    axes.axhline(1.0, color="black", linewidth=0.8)
    for peer, points in sorted(series.items()):
        if len(cases) > LABELLED:
            points = list(enumerate(sorted(value for _, value in points)))
        numbers, values = zip(*points, strict=True)
        axes.plot(numbers, values, "o", markersize=3, label=peer, color=COLOURS.get(peer, "#8c8c8c"))
    axes.set_yscale("log", base=2)
    reach = max((abs(math.log2(v)) for points in series.values() for _, v in points), default=1.0)
    exponents = range(-math.ceil(reach), math.ceil(reach) + 1, max(1, math.ceil(reach / 4)))
    axes.yaxis.set_major_locator(FixedLocator([2.0**e for e in exponents]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.set_title(name, fontsize=9)
    axes.grid(axis="y", linewidth=0.3)
    labels = [case["name"] for case in cases] if len(cases) <= LABELLED else []
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=5)
    axes.tick_params(axis="y", labelsize=6)
    axes.legend(fontsize=5, loc="upper left")


def picture(workloads: dict[str, Cases]) -> Figure:
    """All workloads that have peers, a panel each."""
    panels = {name: cases for name, cases in workloads.items() if speedups(cases)}
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 3.4 * rows), layout="constrained")
    for place, (name, cases) in enumerate(panels.items(), 1):
        draw(figure.add_subplot(rows, COLUMNS, place), name, cases)
    figure.suptitle("how many times faster than each peer (medians; above the line is faster)", fontsize=10)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description=__doc__)
    parser.add_argument("figures", type=Path, help="the file that `python -m benchmarks --json` wrote")
    parser.add_argument("picture", type=Path, help="an .svg or .png file")
    options = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "neurlang"  # the same figures give the same file
    figure = picture(json.loads(options.figures.read_text())["workloads"])
    figure.savefig(options.picture, metadata={"Date": None} if options.picture.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    main()
