"""The exceptions of the library; csrc/base/errors.hpp holds the same names for C++."""

from __future__ import annotations


class ShapeError(ValueError):
    """Shapes, axes or sizes that do not fit; the text names the call, the shapes and the axis."""


class DTypeError(TypeError):
    """Element types an operation does not take."""


class AliasError(ValueError):
    """A write whose destination partly overlaps what it reads, or names one element twice."""


class TraceError(RuntimeError):
    """Something a trace cannot do, or a tensor read whose value was never computed."""

    def __init__(self, message: str, reason: str = "", file: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.file = file
        self.line = line


class FormatError(ValueError):
    """A file that does not hold what it should, with the byte and the field where that shows."""

    def __init__(self, message: str, offset: int = 0, field: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.field = field


class CacheWarning(UserWarning):
    """The cache of compiled programs cannot be used; everything still works, only compiled anew."""
