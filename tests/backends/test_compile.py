"""The compiler's process and the cache on disk: a bad entry, folder or compiler breaks nothing."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.replay import machine
from neurlang import config
from neurlang.backends.cpu import compile as cc
from neurlang.errors import CacheWarning

TEXT = "int answer(void) { return 42; }\n"
LEVEL = "baseline"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NEURLANG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cc.Cache, "warned", False)
    yield tmp_path / "cache"


def compile_text(text: str = TEXT, level: str = LEVEL, version: str = "1") -> bytes:
    return cc.compile_files((text,), level, version)[0]


def compiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the compiler's runs."""
    runs: list[int] = []
    start = cc._start
    monkeypatch.setattr(cc, "_start", lambda *a: runs.append(1) or start(*a))
    return runs


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_the_library_works() -> None:
    import ctypes

    address = machine().load_library(compile_text()).symbol("answer")
    library = machine().load_library(compile_text())
    assert address and ctypes.CFUNCTYPE(ctypes.c_int)(library.symbol("answer"))() == 42


def test_a_second_request_compiles_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = compiles(monkeypatch)
    assert compile_text() == compile_text()
    assert len(runs) == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(folder).stat().st_mode) == 0o600


@pytest.mark.parametrize("change", ["text", "level", "version", "command", "compiler"])
def test_everything_that_matters_is_in_the_key(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = compiles(monkeypatch)
    compile_text()
    if change == "text":
        compile_text(TEXT + "\n")
    elif change == "level":
        compile_text(level="avx2")
    elif change == "version":
        compile_text(version="2")
    elif change == "command":
        monkeypatch.setenv("CC", f"{cc.find_compiler().words[0]} -g")
        compile_text()
    else:  # the same name, another file
        other = tmp_path / "bin" / "cc"
        other.parent.mkdir()
        other.write_text(f'#!/bin/sh\nexec {cc.find_compiler().words[0]} "$@"\n')
        other.chmod(0o755)
        monkeypatch.setenv("CC", str(other))
        compile_text()
    assert len(runs) == 2


def test_every_flipped_bit_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elf = compile_text()
    path = entry(folder)
    good = path.read_bytes()
    key = cc._key(TEXT, cc.find_compiler(), LEVEL, "1")
    assert cc._unpack(good, key) == elf
    for bit in range(0, 8 * len(good), 37):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert cc._unpack(bytes(bad), key) is None
    assert all(cc._unpack(good[:n], key) is None for n in range(0, len(good), 101))


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other_key", "directory"])
def test_a_damaged_entry_is_compiled_again(damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elf = compile_text()
    path, runs = entry(folder), compiles(monkeypatch)
    data = path.read_bytes()
    if damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes(
            {"empty": b"", "cut": data[:99], "flipped": flipped, "other_key": cc._pack(b"other", elf)}[damage]
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert compile_text() == elf
        compile_text(TEXT + "\n\n")
    assert len(runs) == 2
    assert [w.category for w in caught] == [CacheWarning]


@pytest.mark.parametrize("problem", ["group", "link", "file", "unwritable_parent"])
def test_an_unsafe_folder_is_refused(
    problem: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if problem == "group":
        folder.mkdir(mode=0o700)
        folder.chmod(0o770)
    elif problem == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    elif problem == "file":
        folder.write_text("")
    else:
        (tmp_path / "not_a_folder").write_text("")
        monkeypatch.setenv("NEURLANG_CACHE", str(tmp_path / "not_a_folder" / "cache"))
    with pytest.warns(CacheWarning):
        assert compile_text()
    assert not (tmp_path / "real").exists() or not list((tmp_path / "real").iterdir())


def test_a_foreign_entry_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_text()
    runs = compiles(monkeypatch)
    own = os.getuid()
    real_fstat = os.fstat
    monkeypatch.setattr(cc.os, "fstat", lambda fd: _owned(real_fstat(fd), own + 1))
    with pytest.warns(CacheWarning, match="another user"):
        compile_text()
    assert runs


def _owned(facts: os.stat_result, uid: int) -> os.stat_result:
    values = list(facts)
    values[stat.ST_UID] = uid
    return os.stat_result(values)


def test_a_link_in_place_of_an_entry_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_text()
    path = entry(folder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    runs = compiles(monkeypatch)
    compile_text()
    assert runs


def test_no_home_is_no_error(tmp_path: Path) -> None:
    code = """
        import warnings; warnings.simplefilter("ignore")
        import neurlang as nl
        f = nl.trace(lambda x: (x * 2).exp())
        f(nl.ones(3)); print(f(nl.ones(3)).shape, f.counts.compiled, f.counts.interpreted)
    """
    env = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "NEURLANG_CACHE")}
    env["HOME"] = str(tmp_path / "missing" / "file")
    (tmp_path / "missing").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["1", "0"]


FAKES = {
    "fails": "echo no >&2; exit 1",
    "silent": "exit 0",
    "garbage": 'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo garbage > "$2"; shift; done',
    "chatty": "",  # the real one, with noise on both streams
}


@pytest.mark.parametrize("kind", ["fails", "silent", "missing", "hangs", "chatty"])
def test_bad_compilers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fake"
    real = cc.find_compiler().words[0]
    body = {"hangs": "sleep 60", "chatty": f'echo hello; echo warning >&2; exec {real} "$@"'} | {
        k: v for k, v in FAKES.items() if v
    }
    if kind != "missing":
        path.write_text(f"#!/bin/sh\n{body[kind]}\n")
        path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    monkeypatch.setattr(cc, "TIMEOUT_SECONDS", 0.5 if kind == "hangs" else 60)
    if kind == "chatty":
        assert compile_text()
        return
    with pytest.raises(cc.CompileError):
        compile_text()


def test_an_interrupt_leaves_no_thread_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends soon after would wait for the compiler's time limit."""
    start = threading.Timer.start

    def start_and_raise(timer: threading.Timer) -> None:
        start(timer)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Timer, "start", start_and_raise)
    with pytest.raises(KeyboardInterrupt):
        compile_text()
    limits = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    assert all(t.daemon and t.finished.is_set() for t in limits)


def test_a_garbage_library_is_an_error_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fake"
    path.write_text(f"#!/bin/sh\n{FAKES['garbage']}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    with pytest.raises(RuntimeError):
        machine().load_library(compile_text())


def test_no_shell_ever_sees_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "created"
    monkeypatch.setenv("CC", f"{cc.find_compiler().words[0]} ';touch' {target} '$(touch {target})'")
    with pytest.raises(cc.CompileError):
        compile_text()
    assert not target.exists()
    assert config.compiler_command().startswith("/")


def test_the_wheel_with_a_compiler_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("NEURLANG_CC", raising=False)
    monkeypatch.setattr(cc.shutil, "which", lambda name: None)
    if importlib.util.find_spec("ziglang") is None:
        with pytest.raises(cc.CompileError, match="no C compiler"):
            cc.find_compiler()
        return
    assert machine().load_library(compile_text(level=machine().isa())).symbol("answer")


def test_a_trace_without_a_compiler_runs_op_by_op(monkeypatch: pytest.MonkeyPatch) -> None:
    import neurlang as nl

    monkeypatch.setenv("CC", "/no/such/compiler")
    f = nl.trace(lambda x: (x * 2 + 1).exp())
    x = nl.arange(5.0)
    assert f(x).tolist() == f(x).tolist() == (x * 2 + 1).exp().tolist()
    assert (f.counts.compiled, f.counts.interpreted) == (0, 2)
    assert any("no C compiler" in line for line in f.why())


def test_processes_race_for_one_entry(folder: Path) -> None:
    code = f"""
        from neurlang.backends.cpu import compile as cc
        assert len(cc.compile_files(({TEXT!r},), "baseline", "1")[0]) > 1000
    """
    started = [subprocess.Popen([sys.executable, "-W", "error", "-c", textwrap.dedent(code)]) for _ in range(6)]
    assert [p.wait(timeout=120) for p in started] == [0] * 6
    assert len(list(folder.iterdir())) == 1
