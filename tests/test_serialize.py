"""Saving and loading: round trips, agreement with the reference implementation, damaged and hostile files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neurlang as nl
from neurlang import serialize
from neurlang.errors import DTypeError, FormatError

MISSING = "no safetensors: the reference did not read our files, nor we its"
DTYPES = ("float64", "int64", "float32", "int32", "float16", "int16", "int8", "uint8", "bool")
SHAPES = ((), (0,), (1,), (3,), (2, 3), (4, 1, 5), (2, 0, 3))


def random_array(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.integers(0, 256, size=(*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    array = values.view(dtype).reshape(shape) if dtype != "bool" else (values % 2).astype(bool).reshape(shape)
    return array.copy()  # any bit pattern: NaN payloads and subnormals must survive


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {f"{dtype}.{i}": random_array(rng, dtype, s) for dtype in DTYPES for i, s in enumerate(SHAPES)}


def tensors(values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: nl.from_numpy(array) for name, array in values.items()}


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (text, or what becomes JSON) and this data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---- what is written comes back ----


def test_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    values = arrays(rng)
    nl.save(tensors(values), tmp_path / "a.safetensors", metadata={"note": 'é"\\\n'})
    loaded = nl.load(tmp_path / "a.safetensors")
    assert set(loaded) == set(values)
    assert all(same_bits(loaded[name].numpy(), array) for name, array in values.items())
    assert serialize.load_metadata(tmp_path / "a.safetensors") == {"note": 'é"\\\n'}


def test_layouts_are_written_in_row_major_order(tmp_path: Path, rng: np.random.Generator) -> None:
    base = rng.standard_normal((4, 6)).astype(np.float32)
    views = {"t": base.T, "step": base[::2, ::-3], "row": np.broadcast_to(base[0], (3, 6)), "one": base[1, 2]}
    x = nl.from_numpy(base)
    nl.save({"t": x.t(), "step": x[::2, ::-1][:, ::3], "row": x[0].expand(3, 6), "one": x[1, 2]}, tmp_path / "a")
    loaded = nl.load(tmp_path / "a")
    assert all(same_bits(loaded[name].numpy(), np.ascontiguousarray(v).reshape(v.shape)) for name, v in views.items())


def test_save_load_save_gives_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    nl.save(tensors(arrays(rng)), tmp_path / "a", metadata={"k": "v"})
    nl.save(nl.load(tmp_path / "a"), tmp_path / "b", metadata={"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loading_copies_nothing_and_cannot_write_to_the_file(tmp_path: Path) -> None:
    nl.save({"x": nl.ones(1000)}, tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    x = nl.load(tmp_path / "a")["x"]
    with pytest.raises(nl.AliasError):
        x.add_(1.0)
    y = x.clone().add_(1.0)
    assert (x.sum().item(), y.sum().item()) == (1000.0, 2000.0)
    assert (tmp_path / "a").read_bytes() == before


def test_a_file_may_be_replaced_while_it_is_mapped(tmp_path: Path) -> None:
    nl.save({"x": nl.zeros(5000)}, tmp_path / "a")
    old = nl.load(tmp_path / "a")["x"]
    nl.save({"x": old + 1}, tmp_path / "a")
    assert old.sum().item() == 0.0
    assert nl.load(tmp_path / "a")["x"].sum().item() == 5000.0


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    nl.save({"x": nl.zeros(3)}, tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    for bad in ({1: nl.zeros(2)}, {"__metadata__": nl.zeros(2)}, {"lone \ud800": nl.zeros(2)}):
        with pytest.raises(ValueError):
            nl.save(bad, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_state_dict_of_a_model(tmp_path: Path) -> None:
    model = nl.nn.Sequential(nl.nn.Linear(3, 4), nl.nn.BatchNorm1d(4))
    nl.save(model.state_dict(), tmp_path / "m")
    other = nl.nn.Sequential(nl.nn.Linear(3, 4), nl.nn.BatchNorm1d(4))
    other.load_state_dict(nl.load(tmp_path / "m"))
    for (name, a), (_, b) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
        assert same_bits(a.numpy(), b.numpy()), name


# ---- the reference implementation ----


def test_the_reference_reads_ours_and_writes_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    reference = pytest.importorskip("safetensors.numpy", reason=MISSING)
    values = {name: array for name, array in arrays(rng).items() if array.ndim}
    nl.save(tensors(values), tmp_path / "a")
    loaded = reference.load_file(tmp_path / "a")
    assert all(same_bits(loaded[name], array) for name, array in values.items())
    assert reference.save(values) == (tmp_path / "a").read_bytes()


def test_we_read_the_reference(tmp_path: Path, rng: np.random.Generator) -> None:
    reference = pytest.importorskip("safetensors.numpy", reason=MISSING)
    values = arrays(rng)
    reference.save_file(values, tmp_path / "a", metadata={"a": "b"})
    loaded = nl.load(tmp_path / "a")
    assert all(same_bits(loaded[name].numpy(), array) for name, array in values.items())
    assert serialize.load_metadata(tmp_path / "a") == {"a": "b"}


def test_real_weights(shared_data: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy", reason=MISSING)
    path = shared_data / "mnist-mlp.safetensors"
    loaded = nl.load(path)
    for name, array in reference.load_file(path).items():
        assert same_bits(loaded[name].numpy(), array), name


@pytest.mark.parametrize("n", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_what_we_accept_after_mutation_the_reference_accepts_too(
    tmp_path: Path, rng: np.random.Generator, n: int
) -> None:
    reference = pytest.importorskip("safetensors.numpy", reason=MISSING)
    seed_file = raw({"a": entry("F32", [2, 2], 0, 16), "b": entry("U8", [3], 16, 19)}, bytes(range(19)))
    accepted = 0
    for _ in range(n):
        content = bytearray(seed_file)
        for _ in range(int(rng.integers(1, 3))):
            at = int(rng.integers(0, len(content)))
            content[at] = int(rng.choice([rng.integers(0, 256), *b'{}[]",:0129 ']))
        try:
            loaded = nl.load(write(tmp_path / "m", bytes(content)))
        except (FormatError, DTypeError):
            continue
        accepted += 1
        expected = reference.load(bytes(content))
        assert {name: t.numpy().tobytes() for name, t in loaded.items()} == {
            name: array.tobytes() for name, array in expected.items()
        }
    assert 0 < accepted < n


# ---- damaged and hostile files ----

GOOD = raw(
    {"__metadata__": {"k": "v"}, "a": entry("F32", [2, 3], 0, 24), "b": entry("I64", [], 24, 32)}, bytes(range(32))
)


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    assert set(nl.load(write(tmp_path / "t", GOOD))) == {"a", "b"}
    for size in range(len(GOOD)):
        with pytest.raises(FormatError) as error:
            nl.load(write(tmp_path / "t", GOOD[:size]))
        assert 0 <= error.value.offset <= len(GOOD)
        assert error.value.field


def test_every_byte_flipped(tmp_path: Path) -> None:
    """Each either gives an error of ours or tensors of the right sizes: never another exception, never a crash."""
    for at in range(len(GOOD) - 32):
        content = bytearray(GOOD)
        for flip in (0x01, 0x20, 0x80, 0xFF):
            content[at] = GOOD[at] ^ flip
            try:
                loaded = nl.load(write(tmp_path / "t", bytes(content)))
            except (FormatError, DTypeError):
                continue
            assert sum(t.nbytes for t in loaded.values()) == 32


def test_misaligned_tensors_are_copied(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    content = raw({"u": entry("U8", [1], 0, 1), "f": entry("F32", [4], 1, 17)}, b"\7" + values.tobytes())
    assert nl.load(write(tmp_path / "t", content))["f"].tolist() == values.tolist()


def test_bools_become_zero_and_one(tmp_path: Path) -> None:
    x = nl.load(write(tmp_path / "t", raw({"b": entry("BOOL", [4], 0, 4)}, b"\0\1\2\xff")))["b"]
    assert x.numpy().tobytes() == b"\0\1\1\1"


def test_known_dtypes_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(DTypeError, match="U16"):
        nl.load(write(tmp_path / "t", raw({"x": entry("U16", [2], 0, 4)}, bytes(4))))


def member(name: str, **changes: Any) -> bytes:
    fields = {**entry("F32", [1], 0, 4), **changes}
    return raw({name: {key: value for key, value in fields.items() if value is not None}}, bytes(4))


BAD: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "header length"),
    "no header": (b"\0" * 8, "header"),
    "header longer than the file": (raw({}, length=1000), "header length"),
    "header length 2^64 - 8": (raw({}, length=2**64 - 8), "header length"),
    "header over the limit": (raw({}, b" " * 100, length=100_000_001), "header length"),
    "not an object": (raw([]), "header"),
    "leading space": (raw(b" {}"), "header"),
    "not closed": (raw(b"{"), "header"),
    "comma at the end": (raw(b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},}', b"\0"), "header"),
    "text after the end": (raw(b"{} x"), "header"),
    "zero bytes as padding": (raw(b"{}\0\0"), "header"),
    "deep nesting": (raw(b'{"a":' + b"[" * 100_000), "header"),
    "deep shape": (raw(b'{"a":{"shape":' + b"[" * 100_000), "header"),
    "invalid UTF-8": (raw(b'{"\xff":{}}'), "header"),
    "lone surrogate": (raw(b'{"\\ud800":{}}'), "header"),
    "control character": (raw(b'{"a\x01":{}}'), "header"),
    "bad escape": (raw(b'{"\\x":{}}'), "header"),
    "overlap": (raw({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, bytes(6)), "b.data_offsets"),
    "shared bytes": (raw({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 0, 4)}, bytes(4)), "b.data_offsets"),
    "hole": (raw({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 4, 6)}, bytes(6)), "b.data_offsets"),
    "hole at the start": (raw({"a": entry("U8", [2], 2, 4)}, bytes(4)), "a.data_offsets"),
    "trailing data": (raw({"a": entry("U8", [2], 0, 2)}, bytes(3)), "data_offsets"),
    "data missing": (raw({"a": entry("U8", [2], 0, 2)}, bytes(1)), "data_offsets"),
    "end before begin": (raw({"a": entry("U8", [2], 2, 0)}, bytes(2)), "a.data_offsets"),
    "duplicate tensor": (raw(b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{}}', b"\0"), "a"),
    "duplicate field": (raw(b'{"a":{"dtype":"U8","dtype":"U8"}}'), "dtype"),
    "duplicate metadata": (raw(b'{"__metadata__":{"k":"1","k":"2"}}'), "k"),
    "metadata is no text": (raw(b'{"__metadata__":{"k":1}}'), "header"),
    "unknown dtype": (member("a", dtype="F31"), "a.dtype"),
    "no dtype": (member("a", dtype=None), "a.dtype"),
    "no shape": (member("a", shape=None), "a.shape"),
    "no offsets": (member("a", data_offsets=None), "a.data_offsets"),
    "unknown field": (member("a", shape=None, strides=[1]), "a.strides"),
    "too many fields": (member("a", strides=[1]), "header"),
    "one offset": (member("a", data_offsets=[0]), "a.data_offsets"),
    "three offsets": (member("a", data_offsets=[0, 4, 4]), "header"),
    "negative extent": (member("a", shape=[-1]), "header"),
    "fraction": (member("a", shape=[1.0]), "header"),
    "exponent": (raw(b'{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', bytes(4)), "header"),
    "1e400": (raw(b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}', bytes(4)), "header"),
    "minus zero": (raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-0,4]}}', bytes(4)), "header"),
    "leading zero": (raw(b'{"a":{"dtype":"F32","shape":[01],"data_offsets":[0,4]}}', bytes(4)), "header"),
    "20 digits": (member("a", shape=[10**20]), "header"),
    "100,000 digits": (raw(b'{"a":{"shape":[' + b"1" * 100_000 + b"]}}"), "header"),
    "rank 9": (member("a", shape=[1] * 9), "header"),
    "wrong size": (member("a", shape=[2]), "a.data_offsets"),
    "size that wraps": (member("a", shape=[2**31, 2**31, 4]), "a.shape"),
    "size that wraps but for a zero": (member("a", shape=[2**40, 2**40, 0], data_offsets=[0, 0]), "a.shape"),
    "shape is text": (member("a", shape="1"), "header"),
    "dtype is a number": (member("a", dtype=1), "header"),
    "null": (raw(b'{"a":null}'), "header"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path) -> None:
    content, field = BAD[name]
    with pytest.raises(FormatError) as error:
        nl.load(write(tmp_path / "bad", content))
    assert error.value.field == field
    assert 0 <= error.value.offset <= max(len(content), 8)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nl.load(tmp_path / "absent")
    with pytest.raises(OSError):
        nl.load(tmp_path)


def scaling(make: Callable[[int], bytes], sizes: tuple[int, int], path: Path) -> float:
    """How much longer loading takes at the second size than in proportion to the first."""
    times = []
    for n in sizes:
        write(path, make(n))
        best = min(_seconds(lambda: nl.load(path)) for _ in range(3))
        times.append(best / n)
    return times[1] / times[0]


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def test_time_grows_linearly_with_the_number_of_tensors(tmp_path: Path) -> None:
    def make(n: int) -> bytes:
        return raw({f"t{i}": entry("U8", [1], i, i + 1) for i in range(n)}, bytes(n))

    assert scaling(make, (1000, 8000), tmp_path / "many") < 3.0
