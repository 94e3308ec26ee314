"""The exceptions of the library; csrc/base/errors.hpp holds the same names for C++."""

from __future__ import annotations


class ShapeError(ValueError):
    """Shapes, axes or sizes that do not fit; the text names the call, the shapes and the axis.

    >>> neurlang.zeros(2) @ neurlang.zeros(3)
    Traceback (most recent call last):
        ...
    neurlang.errors.ShapeError: matmul: [1, 2] @ [3, 1]: axis 1 of the first (2) and axis 0 ...
    """


class DTypeError(TypeError):
    """Element types an operation does not take.

    >>> neurlang.arange(2).requires_grad_()
    Traceback (most recent call last):
        ...
    neurlang.errors.DTypeError: only float tensors can require grad, not int64[2]
    """


class AliasError(ValueError):
    """A write whose destination partly overlaps what it reads, or names one element twice.

    >>> neurlang.zeros(1).expand(3).fill_(1)
    Traceback (most recent call last):
        ...
    neurlang.errors.AliasError: copy_: several elements of the float32[3] share memory (it is ...
    """


class TraceError(RuntimeError):
    """Something a trace cannot do, or a tensor read whose value was never computed.

    >>> with neurlang.trace(strict=True):
    ...     (neurlang.zeros(1) + 1).item()
    Traceback (most recent call last):
        ...
    neurlang.errors.TraceError: item(): a value is read, at ...: a strict trace is not cut
    """

    def __init__(self, message: str, reason: str = "", file: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.file = file
        self.line = line


class FormatError(ValueError):
    """A file that does not hold what it should, with the byte and the field where that shows.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     neurlang.load(file.name)
    Traceback (most recent call last):
        ...
    neurlang.errors.FormatError: the file is empty
    """

    def __init__(self, message: str, offset: int = 0, field: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.field = field


class CacheWarning(UserWarning):
    """The cache of compiled programs cannot be used; everything still works, only compiled anew.

    >>> issubclass(neurlang.CacheWarning, UserWarning)
    True
    """
