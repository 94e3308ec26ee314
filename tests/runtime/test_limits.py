"""What cgroups leave to a process: /proc and /sys as containers and services see them, written below a folder."""

import os
from pathlib import Path

import pytest

from neurlang import _tensor

GIB = 1 << 30
CPUS, TOTAL, AVAILABLE = _tensor._limits()


def limits(root: Path, groups: str, files: dict[str, str], free_kib: int = 1 << 40) -> tuple[int, int, int]:
    """What is left to a process of these groups, with these files below /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": groups, "proc/meminfo": f"MemAvailable: {free_kib} kB\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return _tensor._limits(f"{root}/")


def test_this_process_has_processors_and_memory() -> None:
    assert 1 <= CPUS <= len(os.sched_getaffinity(0))
    assert AVAILABLE > 0 and TOTAL > 0


@pytest.mark.parametrize("groups", ["0::/a/b\n", "0::/a/b/\n", "1:name=systemd:/x\n0::/a/b"])
def test_the_least_limit_of_a_group_and_its_parents_counts(tmp_path: Path, groups: str) -> None:
    files = {
        "a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000",
        "a/b/memory.max": str(3 * GIB), "a/memory.max": str(GIB), "a/memory.current": str(GIB // 2),
        "a/memory.stat": f"anon 5\ninactive_file {GIB // 8}\n",
    }  # fmt: skip
    assert limits(tmp_path, groups, files) == (1, GIB, GIB // 2 + GIB // 8)


@pytest.mark.parametrize("path", ["/", "/docker/abc", "/not/mounted"])
def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path, path: str) -> None:
    """A container may name a path of the host's, whose limits then lie at the top of what it sees."""
    group = "/docker/abc" if path == "/docker/abc" else ""
    files = {
        f"cpu{group}/cpu.cfs_quota_us": "100000", f"cpu{group}/cpu.cfs_period_us": "100000",
        f"memory{group}/memory.limit_in_bytes": str(GIB), f"memory{group}/memory.usage_in_bytes": str(GIB // 4),
        f"memory{group}/memory.stat": f"cache 1\ntotal_inactive_file {GIB // 8}",
    }  # fmt: skip
    groups = f"12:cpu,cpuacct:{path}\n3:memory:{path}\n1:name=systemd:/elsewhere\n"
    assert limits(tmp_path, groups, files) == (1, GIB, GIB - GIB // 4 + GIB // 8)


def test_a_group_of_another_controller_does_not_count(tmp_path: Path) -> None:
    files = {"cpuset/cpu.cfs_quota_us": "100000", "cpuset/cpu.cfs_period_us": "100000", "cpuset/memory.max": "1"}
    cpus, total, _ = limits(tmp_path, "4:cpuset:/\n", files)
    assert (cpus, total) == (len(os.sched_getaffinity(0)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000", "memory.max": "max"},
        {"cpu.max": "", "memory.max": ""},
        {"cpu.max": "what is this", "memory.max": "nothing"},
        {"cpu.max": "-1 100000", "memory.stat": "inactive_file"},
        {"cpu.max": "100000 0"},
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
    ],
)
def test_no_limit_and_files_without_sense_leave_the_machine(tmp_path: Path, files: dict[str, str]) -> None:
    cpus, total, available = limits(tmp_path, "0::/\n2:cpu:/\n", files, free_kib=77)
    assert (cpus, total) == (len(os.sched_getaffinity(0)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    assert available == 77 << 10


@pytest.mark.parametrize("groups", ["", "\n", "0::\n", "::::\n", "0\n", "0::relative\n", "0::" + "/x" * 3000])
def test_group_files_without_sense_are_no_limit(tmp_path: Path, groups: str) -> None:
    assert limits(tmp_path, groups, {})[0] == len(os.sched_getaffinity(0))


def test_used_up_memory_leaves_nothing(tmp_path: Path) -> None:
    assert limits(tmp_path, "0::/g\n", {"g/memory.max": str(GIB), "g/memory.current": str(2 * GIB)})[2] == 0
