"""From C text to a shared library: the compiler found at run time, and a cache on disk that is verified before use."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from ... import config
from ...errors import CacheWarning

FLAGS = (
    *("-std=c11", "-O2", "-fPIC", "-shared", "-nostdlib", "-fvisibility=default", "-w", "-x", "c"),
    *("-ffp-contract=off", "-fno-fast-math", "-fno-math-errno", "-fno-trapping-math", "-fwrapv"),
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
)
LEVEL_FLAGS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": ("-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    "neon": (),
    "generic": (),
}
COMPILERS = ("cc", "gcc", "clang")
TIMEOUT_SECONDS = 120
MAGIC = b"NLKERN01"
FORMAT = 1


class CompileError(RuntimeError):
    """There is no compiler, or it failed; the trace then runs op by op."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler: the words that start it, and the file whose change means another compiler."""

    words: tuple[str, ...]
    file: str

    def command(self, level: str) -> list[str]:
        return [*self.words, *FLAGS, *LEVEL_FLAGS[level]]


def compile_files(files: tuple[str, ...], level: str, version: str) -> list[bytes]:
    """A shared library for each file, from the cache or compiled side by side."""
    compiler = find_compiler()
    command = compiler.command(level)
    cache = Cache(config.cache_folder())
    keys = [_key(text, compiler, level, version) for text in files]
    found = [cache.load(key) for key in keys]
    with tempfile.TemporaryDirectory(prefix="neurlang-") as folder:
        running: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}
        try:
            for k in (k for k, elf in enumerate(found) if elf is None):
                running[k] = _start(command, files[k], Path(folder) / f"k{k}.so")
            for k, (process, path) in running.items():
                elf = found[k] = _finish(process, path)
                cache.store(keys[k], elf)
        finally:  # after a failure or an interrupt nothing goes on in the background
            for process, _ in running.values():
                _stop(process)
    return [elf for elf in found if elf is not None]


def find_compiler() -> Compiler:
    """What the user asks for, or the first of cc, gcc, clang and the ziglang wheel. No shell is involved."""
    chosen = shlex.split(config.compiler_command())
    for words in [chosen] if chosen else [[name] for name in COMPILERS]:
        path = shutil.which(words[0])
        if path is not None:
            return Compiler((path, *words[1:]), path)
    zig = None if chosen else importlib.util.find_spec("ziglang")
    if zig is not None and zig.origin is not None:  # by default it compiles for the machine, whatever the level
        return Compiler((sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"), zig.origin)
    looked = chosen[0] if chosen else ", ".join(COMPILERS)
    raise CompileError(f"no C compiler found (looked for {looked}); install gcc, or neurlang[cc], or set CC")


def _start(command: list[str], text: str, path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts a compiler in a process group of its own. What it prints goes to a file: a pipe could fill up."""
    source = path.with_suffix(".c")
    source.write_text(text)
    try:
        with path.with_suffix(".err").open("wb") as errors:
            process = subprocess.Popen(
                [*command, "-o", str(path), str(source)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
    except OSError as error:
        raise CompileError(f"cannot run {command[0]}: {error}") from error
    return process, path


def _finish(process: subprocess.Popen[bytes], path: Path) -> bytes:
    late = threading.Event()

    def stop() -> None:
        late.set()
        _stop(process)

    limit = threading.Timer(TIMEOUT_SECONDS, stop)  # Popen's own limit polls, and sleeps up to 50 ms past the end
    limit.daemon = True  # an interrupt may leave it running, and nobody should wait for it at the end of the program
    try:
        limit.start()
        if hasattr(os, "waitid"):  # an interrupt ends it at once, and Popen.wait only a quarter of a second later
            with contextlib.suppress(ChildProcessError):  # stopped, and waited for, in the meantime
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process.wait()
    finally:
        limit.cancel()
    if late.is_set():
        raise CompileError(f"the C compiler did not end within {TIMEOUT_SECONDS} s")
    if process.returncode != 0 or not path.exists():
        printed = path.with_suffix(".err").read_text(errors="replace")
        raise CompileError(f"the C compiler failed ({process.returncode}): {printed[:2000]}")
    return path.read_bytes()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a compiler that still runs, with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _key(text: str, compiler: Compiler, level: str, version: str) -> bytes:
    """Everything the library depends on; the compiler is known by its file."""
    file = os.stat(compiler.file)
    facts = [
        f"neurlang {version} format {FORMAT}",
        f"source {hashlib.sha256(text.encode()).hexdigest()}",
        f"command {shlex.join(compiler.command(level))}",
        f"compiler {os.path.realpath(compiler.file)} {file.st_size} {file.st_mtime_ns}",
    ]
    return "\n".join(facts).encode()


# ---- the cache --------------------------------------------------------------------------------------------------


class Cache:
    """Single-file entries: magic, key, size, SHA-256 of all that, and the ELF file.

    Whatever is wrong with an entry or the directory, the answer is to compile again, with at most one warning.
    """

    warned = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory if self._is_safe(directory) else None

    def load(self, key: bytes) -> bytes | None:
        """The library stored for `key`, verified, or None."""
        if self.directory is None:
            return None
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                foreign = os.fstat(fd).st_uid != os.getuid()
                entry = b"" if foreign else file.read()
        except OSError:
            return None
        if foreign:
            self._warn(f"{self._path(key)} belongs to another user")
            return None
        elf = _unpack(entry, key)
        if elf is None:
            self._warn(f"{self._path(key)} is damaged; compiling again")
        return elf

    def store(self, key: bytes, elf: bytes) -> None:
        """Writes a temporary file beside the entry and renames it: another process sees all of it or nothing."""
        if self.directory is None:
            return
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(6).hex()}")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(_pack(key, elf))
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        except OSError as error:
            self._warn(f"cannot write {path}: {error.strerror}")
            temporary.unlink(missing_ok=True)

    def _path(self, key: bytes) -> Path:
        assert self.directory is not None
        return self.directory / hashlib.sha256(key).hexdigest()

    def _is_safe(self, directory: Path) -> bool:
        """Ours, private and no link: what lies in it will be executed."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = os.lstat(directory)
        except OSError as error:
            self._warn(f"cannot use {directory}: {error.strerror}")
            return False
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            self._warn(f"{directory} must be a directory of yours that others cannot enter (mode 0700)")
            return False
        return True

    def _warn(self, reason: str) -> None:
        if not Cache.warned:
            Cache.warned = True
            warnings.warn(f"kernel cache: {reason}", CacheWarning, stacklevel=2)


def _pack(key: bytes, elf: bytes) -> bytes:
    body = struct.pack("<QQ", len(key), len(elf)) + key + elf
    return MAGIC + hashlib.sha256(body).digest() + body


def _unpack(entry: bytes, key: bytes) -> bytes | None:
    digest, body = entry[8:40], entry[40:]
    if entry[:8] != MAGIC or len(body) < 16 or hashlib.sha256(body).digest() != digest:
        return None
    key_bytes, elf_bytes = struct.unpack("<QQ", body[:16])
    elf = body[16 + key_bytes :]
    return elf if body[16 : 16 + key_bytes] == key and len(elf) == elf_bytes else None
