"""The page of a trace: self-contained, well-formed, and showing every kernel and every intermediate."""

from __future__ import annotations

import html
import re
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any
from xml.dom import minidom

import neurlang as nl
from neurlang import view


def traced() -> Any:
    step = nl.trace()
    x, w = nl.randn(16, 32), nl.randn(32, 8, requires_grad=True)
    for _ in range(2):
        with step:
            (x @ w).softmax(-1).square().sum().backward()
        w.grad = None
    return step


def test_page_is_self_contained(tmp_path: Path) -> None:
    path = tmp_path / "trace.html"
    traced().show(str(path))
    text = path.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_pictures_are_well_formed() -> None:
    text = view.page("t", [*view.trace_sections(traced()), view.chart({"a": [1.0, 0.5], "b": []})])
    pictures = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(pictures) >= 4
    for picture in pictures:
        minidom.parseString(picture)


def test_every_kernel_and_intermediate_is_shown() -> None:
    step = traced()
    text = view.page("t", view.trace_sections(step))
    for kernel in step.kernels:
        assert html.escape(str(kernel.kernel)) in text
    memory = step.memory
    assert text.count("<title>s") == len(memory.offsets)
    assert html.escape(view.megabytes(memory.peak_bytes)) in text
    assert html.escape(view.megabytes(memory.lower_bound)) in text
    assert html.escape(step.source()[:200]) in text


def test_layers_lead_downward() -> None:
    edges = [(0, 2), (1, 2), (2, 3), (0, 4)]
    depth = {n: k for k, layer in enumerate(view.layered(5, edges)) for n in layer}
    assert sorted(depth) == [0, 1, 2, 3, 4]
    assert all(depth[a] < depth[b] for a, b in edges)


def test_texts_are_escaped() -> None:
    assert "<b>" not in view.folded("<b>", "<b>") + view.table([("<b>", "<b>")]) + view.gallery([([[0.0]], "<b>")])


def test_png_holds_the_pixels() -> None:
    data = b64decode(view.png([[0.0, 0.5, 2.0], [1.0, -1.0, 0.25]]).split(",")[1])
    start = data.index(b"IDAT") + 4
    rows = zlib.decompress(data[start : data.index(b"IEND") - 8])
    assert rows == bytes([0, 0, 127, 255, 0, 255, 0, 63])
