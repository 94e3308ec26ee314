"""The C-family renderer: from a kernel to the text of one C function over the vector dialect of csrc/simd/vec.h.

A function is rendered once per structure: extents and strides are run-time integers, so equal kernels of different
sizes share it. Loop bodies are written once; vectors that reach beyond the end of a run go through small buffers.
"""

from .eager import render_row
from .function import integers, render, structure
from .prelude import PRELUDE
from .reducers import helpers

__all__ = ["PRELUDE", "helpers", "integers", "render", "render_row", "structure"]
