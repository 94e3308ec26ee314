"""Pictures of a trace: one self-contained HTML page with the graph, the kernels and the arena; needs no network."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ir.graph import Graph, Versions
from .ir.kernel import KernelStep, Memory, Schedule, Step, touched

Edge = tuple[int, int]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6672; --line: #d5dae0; --paper: #fbfbfa; --card: #ffffff;
  --map: #dcebfb; --reduce: #e4dcfb; --native: #fbe6d4; --accent: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #98a2ad; --line: #343b43; --paper: #14171a;
  --card: #1c2024; --map: #1e3a56; --reduce: #3a2f5e; --native: #54351d; --accent: #fb923c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 92rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, figcaption { color: var(--soft); margin: .25rem 0 .75rem; max-width: 60rem; }
pre { margin: 0; padding: .75rem; overflow: auto; font: 12px/1.45 ui-monospace, monospace; }
table { border-collapse: collapse; } td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 0; } svg { display: block; } svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
svg text.soft { fill: var(--soft); }
.frame { border: 1px solid var(--line); border-radius: 8px; background: var(--card); overflow: auto;
  max-height: 42rem; }
.columns { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); align-items: start; }
details { border-bottom: 1px solid var(--line); } summary { padding: .4rem .75rem; cursor: pointer; }
summary:target, details:target > summary { background: var(--map); }
.box rect { stroke: var(--line); } .map rect { fill: var(--map); } .reduce rect { fill: var(--reduce); }
.native rect { fill: var(--native); } a:hover rect { stroke: var(--accent); stroke-width: 2; }
.edge { fill: none; stroke: var(--soft); stroke-opacity: .55; }
.axis { stroke: var(--line); } .limit { stroke: var(--accent); stroke-dasharray: 5 4; }
.gallery { display: flex; flex-wrap: wrap; gap: 1rem; }
.gallery img { width: 96px; height: 96px; image-rendering: pixelated; }
"""

SERIES = ("#2563eb", "#ea580c", "#16a34a", "#9333ea")


# ---- the page ---------------------------------------------------------------------------------------------------


def show(trace: Any, path: str = "trace.html") -> str:
    """Writes the page of a trace's last program and returns its path."""
    Path(path).write_text(page("Trace", trace_sections(trace)), encoding="utf-8")
    return path


def page(title: str, sections: Iterable[str]) -> str:
    """A whole document from sections of HTML."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *sections])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def section(title: str, about: str, *content: str) -> str:
    return "\n".join([f"<h2>{html.escape(title)}</h2>", f"<p>{html.escape(about)}</p>", *content])


def trace_sections(trace: Any) -> list[str]:
    """What there is to see of a trace: its counts and reasons, graph before and after, kernels, arena."""
    program = trace.program
    return [
        counts_section(trace),
        graph_section(program.captured, program.schedule),
        arena_section(program.schedule),
        section("Source", "The C text of all kernels, as the compiler got it.", folded("source", program.source)),
    ]


def counts_section(trace: Any) -> str:
    names = ("compiled", "replayed", "cut", "interpreted")
    rows = [(name, f"{getattr(trace.counts, name):,}") for name in names]
    why = "".join(f"<li>{html.escape(line)}</li>" for line in trace.why())
    return section(
        "What happened", "How often the trace did what, and why.", table(rows), f"<ul>{why}</ul>" if why else ""
    )


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of a name and numbers."""
    lines = []
    for name, *numbers in rows:
        cells = "".join(f'<td class="number">{html.escape(text)}</td>' for text in numbers)
        lines.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def folded(title: str, text: str, anchor: str = "") -> str:
    name = f' id="{anchor}"' if anchor else ""
    return f"<details{name}><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


# ---- the graph --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """A node of a picture: its lines of text, its kind (a style class) and the anchor that it leads to."""

    lines: tuple[str, ...]
    kind: str
    link: str = ""

    @property
    def width(self) -> float:
        return 18 + 6.8 * max(map(len, self.lines))

    @property
    def height(self) -> float:
        return 10 + 14 * len(self.lines)


def graph_section(captured: Graph, schedule: Schedule) -> str:
    kernels = "".join(kernel_text(n, step) for n, step in enumerate(schedule.kernels))
    before, after = dag(*graph_boxes(captured)), dag(*schedule_boxes(schedule))
    about = (
        f"{len(captured.nodes)} operations were recorded; {len(schedule.steps)} steps run, "
        f"{len(schedule.kernels)} of them or their endings generated. A box leads to its kernel's text."
    )
    frames = [
        f"<figure><figcaption>before</figcaption>{frame(before)}</figure>",
        f"<figure><figcaption>after</figcaption>{frame(after)}</figure>",
        f"<figure><figcaption>kernels</figcaption>{frame(kernels)}</figure>",
    ]
    return section("Graph", about, f'<div class="columns">{"".join(frames)}</div>')


def frame(content: str) -> str:
    return f'<div class="frame">{content}</div>'


def kernel_text(number: int, step: KernelStep) -> str:
    ops = ", ".join(node.op for node in step.nodes)
    return folded(f"{step.kernel.name}: {ops}", str(step.kernel), f"kernel{number}")


def graph_boxes(graph: Graph) -> tuple[list[Box], list[Edge]]:
    """The nodes of a graph; edges lead from the writer of a value to its readers."""
    boxes = [Box((node.op, dims(node.outs)), "map" if node.kind == "map" else style(node.kind)) for node in graph.nodes]
    versions = Versions(graph)
    edges = [(versions.writer[value], n) for value, readers in versions.readers.items() if value in versions.writer
             for n in readers]  # fmt: skip
    return boxes, edges


def style(kind: str) -> str:
    return "reduce" if kind in ("reduce", "composite") else "native"


def dims(accesses: Sequence[Any]) -> str:
    return " ".join(f"{a.dtype}[{', '.join(map(str, a.shape))}]" for a in accesses[:1])


def schedule_boxes(schedule: Schedule) -> tuple[list[Box], list[Edge]]:
    """The steps of a schedule; edges lead from a storage's last writer to its readers."""
    numbers = {id(step): n for n, step in enumerate(schedule.kernels)}
    boxes, edges = [], []
    writer: dict[Any, int] = {}
    for n, step in enumerate(schedule.steps):
        boxes.append(step_box(step, numbers))
        accesses = touched(step)
        edges += [(writer[a.value], n) for a, writes in accesses if not writes and writer.get(a.value, n) != n]
        writer.update({a.value: n for a, writes in accesses if writes})
    return boxes, edges


def step_box(step: Step, numbers: dict[int, int]) -> Box:
    if isinstance(step, KernelStep):
        kind = "reduce" if step.kernel.reduce >= 0 else "map"
        return Box((step.kernel.name, *wrapped(step)), kind, f"kernel{numbers[id(step)]}")
    lines = (step.node.op, dims(step.node.outs))
    if not step.kernels:
        return Box(lines, "native")
    before = [line for p in step.prologues for line in (p.kernel.name, *wrapped(p), "inside of")]
    after = [] if step.epilogue is None else ["then " + step.epilogue.kernel.name, *wrapped(step.epilogue)]
    return Box((*before, *lines, *after), "native", f"kernel{numbers[id(step.kernels[-1])]}")


def wrapped(step: KernelStep, limit: int = 6) -> list[str]:
    """The fused operations, four a line, cut off where there are many."""
    ops = [node.op for node in step.nodes]
    lines = [" ".join(ops[n : n + 4]) for n in range(0, len(ops), 4)]
    return lines if len(lines) <= limit else [*lines[: limit - 1], f"… {len(ops)} operations"]


def dag(boxes: Sequence[Box], edges: Sequence[Edge], gap: float = 18, level: float = 34) -> str:
    """A layered drawing: every box below all that it depends on."""
    if not boxes:
        return "<p>nothing was recorded</p>"
    layers = layered(len(boxes), edges)
    widths = [sum(boxes[n].width + gap for n in layer) for layer in layers]
    total, y = max(widths), gap
    place: dict[int, tuple[float, float]] = {}
    for layer, width in zip(layers, widths, strict=True):
        x = (total - width + gap) / 2 + gap
        for n in layer:
            place[n] = (x, y)
            x += boxes[n].width + gap
        y += max(boxes[n].height for n in layer) + level
    drawn = [curve(boxes, place, a, b) for a, b in dict.fromkeys(edges)]
    drawn += [draw(box, *place[n]) for n, box in enumerate(boxes)]
    return svg(total + 2 * gap, y, drawn)


def layered(count: int, edges: Iterable[Edge]) -> list[list[int]]:
    """Box numbers by depth; in a layer ordered by the mean place of what they depend on."""
    before: dict[int, list[int]] = {}
    for a, b in edges:
        before.setdefault(b, []).append(a)
    depth: list[int] = []
    for n in range(count):  # edges lead forward: whoever is needed has its depth already
        depth.append(1 + max((depth[m] for m in before.get(n, ())), default=-1))
    layers: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    place = [0.0] * count
    for layer in range(len(layers)):
        members = [n for n in range(count) if depth[n] == layer]
        members.sort(key=lambda n: sum(place[m] for m in before.get(n, ())) / max(1, len(before.get(n, ()))))
        for order, n in enumerate(members):
            place[n] = (order + 0.5) / len(members)
        layers[layer] = members
    return layers


def curve(boxes: Sequence[Box], place: dict[int, tuple[float, float]], a: int, b: int) -> str:
    x0, y0 = place[a][0] + boxes[a].width / 2, place[a][1] + boxes[a].height
    x1, y1 = place[b][0] + boxes[b].width / 2, place[b][1]
    middle = (y0 + y1) / 2
    return f'<path class="edge" d="M{x0:.0f} {y0:.0f}C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1:.0f}"/>'


def draw(box: Box, x: float, y: float) -> str:
    text = "".join(
        f'<text class="{"soft" if n else "title"}" x="{x + 8:.0f}" y="{y + 17 + 14 * n:.0f}">{html.escape(line)}</text>'
        for n, line in enumerate(box.lines)
    )
    shape = f'<rect x="{x:.0f}" y="{y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="5"/>'
    group = f'<g class="box {box.kind}">{shape}{text}</g>'
    return f'<a href="#{box.link}">{group}</a>' if box.link else group


def svg(width: float, height: float, content: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">{"".join(content)}</svg>'
    )


# ---- the arena --------------------------------------------------------------------------------------------------


def arena_section(schedule: Schedule) -> str:
    memory = schedule.memory or Memory()
    rows = [
        ("arena (peak)", megabytes(memory.peak_bytes)),
        ("lower bound: the most that lives at one step", megabytes(memory.lower_bound)),
        ("all intermediates, each with its own memory", megabytes(memory.intermediate_bytes)),
    ]
    about = "Every intermediate lies in one arena at a fixed place. Across: the steps in order. Up: the arena's bytes."
    return section("Arena", about, table(rows), frame(arena(schedule, memory)))


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.3f} MB" if count >= 1000 else f"{count} bytes"


def arena(schedule: Schedule, memory: Memory, width: float = 1100, height: float = 360, margin: float = 48) -> str:
    """Who lies where in the arena and when, with its peak and the lower bound."""
    if not memory.peak_bytes:
        return "<p>this program has no intermediates</p>"
    steps, scale = max(1, len(schedule.steps)), height / memory.peak_bytes
    column = (width - 2 * margin) / steps
    makers = first_writers(schedule)
    drawn = []
    for number, (storage, offset) in enumerate(memory.offsets.items()):
        first, last = memory.lifetimes[storage]
        size, maker = memory.sizes[storage], makers.get(storage, "")
        x, y = margin + first * column, margin + height - (offset + size) * scale
        across, up = max(1, (last - first + 1) * column - 1), max(1, size * scale - 0.5)
        title = f"s{storage} of {maker}: {megabytes(size)} at byte {offset:,}, steps {first} to {last}"
        drawn.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{across:.1f}" height="{up:.1f}" '
            f'fill="hsl({number * 137 % 360} 55% 58%)" fill-opacity=".6"><title>{html.escape(title)}</title></rect>'
        )
        if across > 8 * len(maker) + 8 and up > 15:
            drawn.append(f'<text x="{x + 5:.1f}" y="{y + up / 2 + 4:.1f}">{html.escape(maker)}</text>')
    drawn += level("peak", memory.peak_bytes, scale, width, height, margin, "axis")
    drawn += level("lower bound", memory.lower_bound, scale, width, height, margin, "limit")
    drawn.append(f'<text class="soft" x="{margin}" y="{height + margin + 16}">step 0</text>')
    drawn.append(f'<text class="soft" x="{width - margin - 40}" y="{height + margin + 16}">step {steps - 1}</text>')
    return svg(width, height + 2 * margin, drawn)


def first_writers(schedule: Schedule) -> dict[int, str]:
    """For every storage with memory of its own the op or kernel that first writes it."""
    makers: dict[int, str] = {}
    for step in schedule.steps:
        name = step.kernel.name if isinstance(step, KernelStep) else step.node.op
        for access, writes in touched(step):
            if writes:
                makers.setdefault(schedule.home.get(access.storage, access.storage), name)
    return makers


def level(name: str, size: int, scale: float, width: float, height: float, margin: float, kind: str) -> list[str]:
    """A horizontal line at `size` bytes, with its name."""
    y = margin + height - size * scale
    line = f'<line class="{kind}" x1="{margin}" x2="{width - margin}" y1="{y:.1f}" y2="{y:.1f}"/>'
    at = y - 5 if kind == "axis" else y + 13
    return [line, f'<text class="soft" x="{margin + 4}" y="{at:.1f}">{name} {megabytes(size)}</text>']


# ---- charts and images ------------------------------------------------------------------------------------------


def chart(series: dict[str, Sequence[float]], width: float = 760, height: float = 260, margin: float = 44) -> str:
    """Lines over a common axis of steps, from 0 up to the largest value."""
    top = max((max(values) for values in series.values() if values), default=0.0) or 1.0
    drawn = [f'<line class="axis" x1="{margin}" x2="{width - margin}" y1="{height - margin}" y2="{height - margin}"/>']
    drawn.append(f'<text class="soft" x="4" y="{margin}">{top:.3g}</text>')
    drawn.append(f'<text class="soft" x="4" y="{height - margin}">0</text>')
    for n, (name, values) in enumerate(series.items()):
        across, up = (width - 2 * margin) / max(1, len(values) - 1), (height - 2 * margin) / top
        points = " ".join(f"{margin + i * across:.1f},{height - margin - v * up:.1f}" for i, v in enumerate(values))
        pen = f'fill="none" stroke="{SERIES[n % len(SERIES)]}" stroke-width="{5 if n == 0 else 1.5}"'
        opacity = 0.4 if n == 0 else 1  # the first line is broad and pale, so that equal ones over it can be seen
        drawn.append(f'<polyline points="{points}" {pen} stroke-opacity="{opacity}"/>')
        drawn.append(f'<text x="{width - margin - 170}" y="{margin + 18 * n}">{html.escape(name)}</text>')
        key = width - margin - 200
        drawn.append(f'<path d="M{key} {margin + 18 * n - 4}h22" {pen} stroke-opacity="{opacity}"/>')
    return frame(svg(width, height, drawn))


def gallery(images: Iterable[tuple[Any, str]]) -> str:
    """Grey images (rows of values from 0 to 1) with captions."""
    figures = [
        f'<figure><img alt="" src="{png(pixels)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for pixels, caption in images
    ]
    return f'<div class="gallery">{"".join(figures)}</div>'


def png(pixels: Any) -> str:
    """A grey image as a data address: header, one compressed block of rows, end."""
    rows = [bytes([0, *(int(max(0.0, min(1.0, float(value))) * 255) for value in row)]) for row in pixels]
    header = struct.pack(">IIBBBBB", len(rows[0]) - 1, len(rows), 8, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
