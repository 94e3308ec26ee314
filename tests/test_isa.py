"""Instruction levels: code of a newer one never runs on an older one, and those that have an FMA give equal bits."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels.families import digests

from neurlang import _tensor

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
ALLOWED_HEADERS = {"stdint.h", "stddef.h"}


def levels() -> list[str]:
    """The instruction levels, from the one list in the build: x86-64's, 64-bit ARM's, that of all other machines."""
    x86, arm, generic = re.findall(r"set\(NL_LEVELS ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    by_machine = {"x86_64": x86, "amd64": x86, "aarch64": arm, "arm64": arm}
    return str(by_machine.get(platform.machine().lower(), generic)).split()


def isa_objects() -> dict[str, list[Path]]:
    """The object files of each level's target in the build folder."""
    found: dict[str, list[Path]] = {}
    for folder in (ROOT / "build").rglob("CMakeFiles/*.dir"):
        for level in levels():
            if level in folder.name:
                found.setdefault(level, []).extend(folder.rglob("*.o"))
    return found


def symbols(path: Path) -> Iterator[tuple[str, str]]:
    """(kind, name) of every symbol, names demangled."""
    text = subprocess.run(["nm", "-C", "--format=posix", str(path)], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        if match := re.match(r"(.*?) ([A-Za-z?])(?: [0-9a-f]+)*\s*$", line):
            yield match[2], match[1]


@pytest.fixture(scope="module")
def objects() -> dict[str, list[Path]]:
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed: the symbols of the levels were not looked at")
    found = isa_objects()
    if not found:
        pytest.skip("no build folder with object files: the symbols of the levels were not looked at")
    return found


def test_isa_units_hold_no_weak_symbol(objects: dict[str, list[Path]]) -> None:
    # A weak symbol is an inline function or a template that the linker merges over levels: by link order, AVX code
    # would come into the baseline path.
    assert set(objects) == set(levels())
    for paths in objects.values():
        assert paths
        for path in paths:
            weak = [name for kind, name in symbols(path) if kind in "WwVvu"]
            assert not weak, f"{path.name}: {weak[:5]}"


def test_isa_units_define_nothing_outside_their_namespace(objects: dict[str, list[Path]]) -> None:
    for level, paths in objects.items():
        for path in paths:
            outside = [name for kind, name in symbols(path) if kind in "TDBRC" and f"nl::{level}::" not in name]
            assert not outside, f"{path.name}: {outside[:5]}"


def test_isa_units_call_only_the_runtime(objects: dict[str, list[Path]]) -> None:
    # No libm, no C++ runtime: what the compiler itself emits (memory, wide integers) and the services of csrc/runtime.
    emitted = r"mem(cpy|set|move|cmp)|__[a-z]+[dt]i[234]|_GLOBAL_OFFSET_TABLE_|__(asan|ubsan|stack_chk)_\w+"
    allowed = re.compile(rf"nl_\w+|nl::\w+::.*|{emitted}")
    for level, paths in objects.items():
        for path in paths:
            foreign = [name for kind, name in symbols(path) if kind == "U" and not allowed.fullmatch(name)]
            others = re.compile(rf"nl::(?!{level}\b)\w+::")
            crossed = [name for kind, name in symbols(path) if kind == "U" and others.match(name)]
            assert not foreign + crossed, f"{path.name}: {(foreign + crossed)[:5]}"


def included(path: Path, seen: set[Path]) -> Iterator[tuple[Path, str]]:
    """(file, header) for every <header> that `path` reaches."""
    if path in seen:
        return
    seen.add(path)
    for kind, name in re.findall(r'^\s*#\s*include\s+(["<])([^">]+)[">]', path.read_text(), re.M):
        if kind == "<":
            yield path, name
            continue
        for folder in (path.parent, CSRC, *ROOT.glob("build/**/generated")):
            if (folder / name).is_file():
                yield from included((folder / name).resolve(), seen)


def isa_units() -> list[Path]:
    """The sources compiled once per level: the kernels, but not the dispatcher that chooses among the levels."""
    return sorted(p for p in (CSRC / "kernels").glob("*.cpp") if p.stem != "dispatch")


def test_isa_units_include_no_standard_header() -> None:
    units = isa_units()
    assert units
    for unit in units:
        foreign = {name for _, name in included(unit, set())} - ALLOWED_HEADERS
        assert not foreign, f"{unit.name} reaches {sorted(foreign)}"


def test_the_vector_header_includes_nothing() -> None:
    # Its text begins every generated C file.
    assert not re.search(r"^\s*#\s*include", (CSRC / "simd" / "vec.h").read_text(), re.M)


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512", "none such"])
def test_the_environment_forces_a_level(level: str) -> None:
    # A level that this build has and this processor too is taken; any other is an error, never a crash.
    program = "from neurlang import _tensor; print(_tensor.isa())"
    environment = {**os.environ, "NEURLANG_ISA": level}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if level in _tensor.isa_supported():
        assert result.stdout.strip() == level, result.stderr
    else:
        assert result.returncode == 1, result.stderr
        assert level in result.stderr


@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_levels_give_the_same_bits(level: str, seed: int, isa: str) -> None:
    if isa == "baseline" or level == isa:
        pytest.skip("the baseline level has no fma and bits of its own; a level agrees with itself")
    if level not in _tensor.isa_supported():
        pytest.skip(f"this processor, or this build, has no {level}: its bits were not compared")
    command = [sys.executable, "-m", "kernels.families", str(seed)]
    environment = {**os.environ, "NEURLANG_ISA": level, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    there, here = json.loads(done.stdout), digests(seed)
    assert [name for name in here if here[name] != there[name]] == []
