"""The CPU backend: header-free C, compiled by the machine's C compiler when a trace is first met."""

from .device import RowKernel, build, build_row

__all__ = ["RowKernel", "build", "build_row"]
