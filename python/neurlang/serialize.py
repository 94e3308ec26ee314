"""Saves and loads tensors as safetensors files: a strict, memory-mapped reader that trusts nothing in the file.

Stricter than the reference reader: fields it does not know, ranks above 8 and more than a million tensors are refused.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ._tensor import Tensor, _from_bits, _to_bits, bfloat16, from_numpy
from .errors import DTypeError, FormatError

MAX_HEADER = 100_000_000  # bytes, the format's own limit
MAX_TENSORS = 1_000_000
MAX_RANK = 8
MAX_ELEMENTS = 2**62

# Bytes of an element of every dtype of the format, so that sizes are checked even where the dtype is not ours.
_ITEMSIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "F16": "<f2", "BF16": "<u2", "I32": "<i4", "F32": "<f4",
    "F64": "<f8", "I64": "<i8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _NUMPY.items()}
# The reference writer puts the tensors in descending order of dtype, which also keeps each one aligned.
_RANK_ON_DISK = {name: position for position, name in enumerate(_NUMPY)}

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"')
_INTEGER = re.compile(rb"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `begin` and `end` count after the header; `offset` is its entry's in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    offset: int


class _Scanner:
    """Reads the header's few kinds of tokens; recursion and unbounded numbers cannot arise, unlike in general JSON."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    @property
    def offset(self) -> int:
        return 8 + self.at

    def fail(self, message: str, field: str = "header") -> NoReturn:
        raise FormatError(f"{message} at byte {self.offset}", offset=self.offset, field=field)

    def take(self, token: bytes) -> bool:
        """Skips white space and then `token`, if it comes next."""
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        found = self.text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def expect(self, token: bytes) -> None:
        if not self.take(token):
            self.fail(f"expected {token.decode()!r}")

    def match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        self.take(b"")
        found = pattern.match(self.text, self.at)
        if found is None:
            self.fail(f"expected {what}")
        self.at = found.end()
        return found[0]

    def integer(self) -> int:
        return int(self.match(_INTEGER, "a whole number"))

    def string(self) -> str:
        start = self.at
        token = self.match(_STRING, "a string")
        try:
            text = json.loads(token.decode("utf-8"))
            text.encode("utf-8")  # an escaped lone surrogate is not text
        except ValueError:
            self.at = start
            self.fail("invalid string")
        return text

    def elements(self, opening: bytes, closing: bytes, limit: int) -> Iterator[None]:
        """Yields before each of the comma-separated elements of a list or an object."""
        self.expect(opening)
        if self.take(closing):
            return
        for _ in range(limit):
            yield
            if self.take(closing):
                return
            self.expect(b",")
        self.fail(f"more than {limit} elements")

    def members(self, limit: int) -> Iterator[str]:
        """Yields the keys of an object, each before its value, and refuses to see one twice."""
        seen: set[str] = set()
        for _ in self.elements(b"{", b"}", limit):
            key = self.string()
            if key in seen:
                self.fail(f"duplicate name {key!r}", field=key)
            seen.add(key)
            self.expect(b":")
            yield key

    def integers(self, limit: int) -> tuple[int, ...]:
        return tuple(self.integer() for _ in self.elements(b"[", b"]", limit))


def _scan_entry(scan: _Scanner, name: str) -> Entry:
    offset = scan.offset
    fields: dict[str, Any] = {}
    for key in scan.members(limit=3):
        if key == "dtype":
            fields[key] = scan.string()
        elif key == "shape":
            fields[key] = scan.integers(MAX_RANK)
        elif key == "data_offsets":
            fields[key] = scan.integers(2)
        else:
            scan.fail(f"unknown field {key!r}", field=f"{name}.{key}")
    for key in ("dtype", "shape", "data_offsets"):
        if key not in fields:
            scan.fail(f"tensor {name!r} has no {key}", field=f"{name}.{key}")
    if len(fields["data_offsets"]) != 2:
        scan.fail(f"tensor {name!r} needs two data_offsets", field=f"{name}.data_offsets")
    begin, end = fields["data_offsets"]
    return Entry(fields["dtype"], fields["shape"], begin, end, offset)


def _scan_header(text: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    scan = _Scanner(text)
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    if not text.startswith(b"{"):
        scan.fail("the header must begin with '{'")
    for name in scan.members(limit=MAX_TENSORS + 1):
        if name == "__metadata__":
            metadata = {key: scan.string() for key in scan.members(limit=MAX_TENSORS)}
        else:
            entries[name] = _scan_entry(scan, name)
    scan.take(b"")
    if scan.at != len(text):
        scan.fail("the header goes on after its end")
    return entries, metadata


def _check_size(name: str, entry: Entry) -> None:
    """The dtype is known and the shape needs exactly the bytes that the entry claims."""

    def fail(message: str, field: str) -> NoReturn:
        raise FormatError(f"tensor {name!r}: {message}", offset=entry.offset, field=f"{name}.{field}")

    if entry.dtype not in _ITEMSIZE:
        fail(f"unknown dtype {entry.dtype!r}", "dtype")
    if math.prod(max(extent, 1) for extent in entry.shape) > MAX_ELEMENTS:
        fail(f"shape {list(entry.shape)} is too large", "shape")
    needed = math.prod(entry.shape) * _ITEMSIZE[entry.dtype]
    if entry.end - entry.begin != needed:
        fail(
            f"shape {list(entry.shape)} of {entry.dtype} takes {needed} bytes, "
            f"data_offsets say {entry.end - entry.begin}",
            "data_offsets",
        )


def _check_layout(entries: dict[str, Entry], data_bytes: int) -> None:
    """The tensors fill the data exactly: no overlap, no hole, nothing after the last one."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            what = "overlaps another tensor" if entry.begin < position else "leaves a hole before it"
            raise FormatError(f"tensor {name!r} {what}", offset=entry.offset, field=f"{name}.data_offsets")
        _check_size(name, entry)
        position = entry.end
    if position != data_bytes:
        raise FormatError(
            f"the tensors need {position} bytes of data, the file has {data_bytes}", offset=8, field="data_offsets"
        )


def _read_header(data: mmap.mmap) -> tuple[int, dict[str, Entry], dict[str, str]]:
    """Returns where the data begins, the tensors' entries and the metadata, all checked against the file's size."""
    if len(data) < 8:
        raise FormatError(f"a file of {len(data)} bytes has no header", offset=0, field="header length")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER, len(data) - 8):
        raise FormatError(
            f"header of {length} bytes in a file of {len(data)} (at most {MAX_HEADER})", offset=0, field="header length"
        )
    start = 8 + length
    entries, metadata = _scan_header(data[8:start])
    _check_layout(entries, len(data) - start)
    return start, entries, metadata


def _map(path: str | os.PathLike[str]) -> mmap.mmap:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # which mmap refuses with an error of its own
            raise FormatError("the file is empty", offset=0, field="header length")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _as_tensor(name: str, entry: Entry, data: np.ndarray) -> Tensor:
    """Makes a tensor of the entry's bytes; read-only and without a copy where the bytes can be used as they lie."""
    if entry.dtype not in _NUMPY:
        raise DTypeError(f"tensor {name!r} has dtype {entry.dtype}; supported are {', '.join(_NUMPY)}")
    span = data[entry.begin : entry.end]
    if entry.dtype == "BOOL":
        array = span != 0  # kernels rely on 0 and 1, a file may hold any byte
    else:
        array = span.view(_NUMPY[entry.dtype])
        if not array.flags.aligned:
            array = array.copy()
    return (_from_bits if entry.dtype == "BF16" else from_numpy)(array.reshape(entry.shape))


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Loads the tensors of a safetensors file, in the order of its header.

    They are read-only views of the mapped file, so loading costs no memory; `clone()` one to write to it. The file must
    not be truncated while they are in use. A damaged file raises FormatError, with `.offset` and `.field`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     neurlang.save({"x": neurlang.tensor([1, 2])}, f"{folder}/a.safetensors")
    ...     neurlang.load(f"{folder}/a.safetensors")
    {'x': tensor([1, 2])}
    """
    mapped = _map(path)
    start, entries, _ = _read_header(mapped)
    data = np.frombuffer(mapped, np.uint8)[start:]
    return {name: _as_tensor(name, entry, data) for name, entry in entries.items()}


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the file's free-form `__metadata__`."""
    return _read_header(_map(path))[2]


def _as_array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory; of a bfloat16 the bits, as unsigned integers."""
    return _to_bits(tensor) if tensor.dtype is bfloat16 else tensor.detach().numpy()


def _header(arrays: dict[str, np.ndarray], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, array in arrays.items():
        end = position + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return text + b" " * (-len(text) % 8)


def save(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Saves named tensors as a safetensors file. The file appears whole or not at all.

    ValueError where something has no name that the format allows.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     neurlang.save({"x": neurlang.tensor([1, 2])}, f"{folder}/a.safetensors")
    ...     list(neurlang.load(f"{folder}/a.safetensors"))
    ['x']
    """
    for name in tensors:
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"a tensor cannot be named {name!r}")
    named = [(name, np.asarray(_as_array(tensor), order="C")) for name, tensor in tensors.items()]
    named.sort(key=lambda item: (-_RANK_ON_DISK[_NAMES[item[1].dtype]], item[0].encode("utf-8")))
    arrays = dict(named)
    header = _header(arrays, metadata)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for array in arrays.values():
                file.write(array.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
