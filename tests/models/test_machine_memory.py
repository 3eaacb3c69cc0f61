"""What the kernel says of memory, as files under another root."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.models.machine_memory import MachineMemory, read_machine_memory

GIB = 1 << 30
MEMINFO = f"MemTotal:       {16 << 20} kB\nMemFree:        100 kB\nMemAvailable:   {10 << 20} kB\nHugePages_Total:  0\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": ""})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def v2(folder: str, limit: str, used: int, cached: int) -> dict[str, str]:
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {cached}\n",
    }


def test_without_a_cgroup_it_is_the_machines(root: Path) -> None:
    assert read_machine_memory(root) == MachineMemory(16 * GIB, 10 * GIB)


def test_the_tightest_cgroup_around_counts_and_its_file_cache_does_not(root: Path) -> None:
    write(root, {"proc/self/cgroup": "0::/outer/inner\n"})
    write(root, v2("sys/fs/cgroup/outer", str(4 * GIB), 3 * GIB, GIB // 2))
    write(root, v2("sys/fs/cgroup/outer/inner", "max", GIB, 0))

    assert read_machine_memory(root) == MachineMemory(4 * GIB, GIB + GIB // 2)


def test_a_container_that_sees_itself_as_the_top(root: Path) -> None:
    write(root, {"proc/self/cgroup": "0::/docker/abc\n"})
    write(root, v2("sys/fs/cgroup", str(2 * GIB), 3 * GIB, 0))  # over its limit for a moment

    assert read_machine_memory(root) == MachineMemory(2 * GIB, 0)


def test_the_first_version_of_cgroups(root: Path) -> None:
    folder = "sys/fs/cgroup/memory/box"
    write(root, {"proc/self/cgroup": "9:cpu:/x\n4:memory,other:/box\n", f"{folder}/memory.limit_in_bytes": f"{GIB}\n"})
    write(root, {f"{folder}/memory.usage_in_bytes": "1024\n", f"{folder}/memory.stat": "total_inactive_file 24\n"})

    assert read_machine_memory(root) == MachineMemory(GIB, GIB - 1000)


def test_this_machine_has_some() -> None:
    found = read_machine_memory()

    assert 0 < found.available <= found.total


@pytest.mark.parametrize(("total", "headroom"), [(GIB, GIB // 4), (16 * GIB, GIB), (256 * GIB, 2 * GIB)])
def test_headroom_is_a_sixteenth_within_bounds(total: int, headroom: int) -> None:
    assert MachineMemory(total, total).headroom == headroom
