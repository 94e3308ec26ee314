"""The null backend: makes no code at all.

Copy this folder to begin a new one: fill render, compile and build, and name it in `config.BACKENDS`.
"""

from .device import build

__all__ = ["build"]
