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
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from .timing import OURS

NAMED = 40  # cases of a workload; those of larger ones are drawn in order of their ratio, without names
ROW_INCHES = 0.115
COLOURS = {
    "NumPy": "#4c72b0", "torch": "#dd8452", "torch channels last": "#e8b48f", "torch.compile": "#c44e52",
    "torch.compile channels last": "#da8bc3", "JAX": "#55a868", "ONNX Runtime": "#8172b3", "OpenVINO": "#937860",
    "OpenVINO channels last": "#c9b7a3",
}  # fmt: skip
Cases = list[dict[str, Any]]


def speedups(case: dict[str, Any]) -> dict[str, float]:
    """Each peer's time over ours: above 1 we are faster."""
    return {peer: 1 / ratio["median"] for peer, ratio in case.get("ratios", {}).items() if not peer.startswith(OURS)}


def style(axes: Axes, values: list[float]) -> None:
    """A logarithmic scale of powers of two about 1."""
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    low, high = math.floor(math.log2(min(values))), math.ceil(math.log2(max(values)))
    axes.xaxis.set_major_locator(FixedLocator([2.0**e for e in range(low, high + 1)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.tick_params(labelsize=6, length=2)
    axes.grid(axis="x", linewidth=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_named(axes: Axes, workloads: dict[str, Cases]) -> None:
    """A row for each case, workloads one below the other."""
    names, rows, everything = [], 0, []
    for workload, cases in workloads.items():
        names.append((rows, workload.upper()))
        rows += 1
        for case in cases:
            for peer, value in speedups(case).items():
                axes.plot(value, rows, "o", markersize=2.6, color=COLOURS.get(peer, "#8c8c8c"))
                everything.append(value)
            names.append((rows, case["name"]))
            rows += 1
    style(axes, everything)
    axes.set_yticks(*zip(*names, strict=True), fontsize=4.5)
    axes.set_ylim(rows, -1)


def draw_sorted(axes: Axes, name: str, cases: Cases) -> None:
    """A curve for each peer: its ratios in order."""
    by_peer: dict[str, list[float]] = {}
    for case in cases:
        for peer, value in speedups(case).items():
            by_peer.setdefault(peer, []).append(value)
    for peer, values in by_peer.items():
        axes.plot(sorted(values), range(len(values)), ".", markersize=2, color=COLOURS.get(peer, "#8c8c8c"))
    style(axes, [value for values in by_peer.values() for value in values])
    axes.set_title(f"{name}: {len(cases)} cases, in order", fontsize=7, loc="left")
    axes.set_yticks([])


def picture(workloads: dict[str, Cases]) -> Figure:
    """All workloads that have peers: those of few cases on the left, the others in panels on the right."""
    with_peers = {name: [case for case in cases if speedups(case)] for name, cases in workloads.items()}
    named = {name: cases for name, cases in with_peers.items() if 0 < len(cases) <= NAMED}
    large = {name: cases for name, cases in with_peers.items() if len(cases) > NAMED}
    rows = sum(len(cases) + 1 for cases in named.values())
    figure = Figure(figsize=(11 if large else 7, max(4.0, rows * ROW_INCHES + 1)), layout="constrained")
    grid = figure.add_gridspec(max(len(large), 1), 2 if large else 1)
    draw_named(figure.add_subplot(grid[:, 0]), named)
    for place, (name, cases) in enumerate(large.items()):
        draw_sorted(figure.add_subplot(grid[place, 1]), name, cases)
    peers = {peer for cases in with_peers.values() for case in cases for peer in speedups(case)}
    marks = [
        Line2D([], [], marker="o", markersize=4, linestyle="", label=peer, color=colour)
        for peer, colour in COLOURS.items()
        if peer in peers
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=4, fontsize=7, frameon=False)
    figure.supxlabel("how many times faster than the peer, medians (right of the line: faster)", fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description=__doc__)
    parser.add_argument("figures", type=Path, help="the file that `python -m benchmarks --json` wrote")
    parser.add_argument("picture", type=Path, help="an .svg or .png file")
    options = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "neurlang"  # the same figures give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text, not outlines: half of the size
    figure = picture(json.loads(options.figures.read_text())["workloads"])
    figure.savefig(options.picture, metadata={"Date": None} if options.picture.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    main()
