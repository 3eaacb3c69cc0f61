"""How much memory models may take: what this machine has to give, or the cgroup that it runs in. Linux only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADROOM_SHARE = 16
"""One part in so many of all memory stays free: for the API process, its indexes, and what others begin to use."""

MIN_HEADROOM_BYTES = 256 << 20
MAX_HEADROOM_BYTES = 2 << 30


@dataclass(frozen=True)
class MachineMemory:
    """Bytes. `available` can be had without swapping; of a cgroup, what its limit leaves over counts if it is less."""

    total: int
    available: int

    @property
    def headroom(self) -> int:
        return min(max(self.total // HEADROOM_SHARE, MIN_HEADROOM_BYTES), MAX_HEADROOM_BYTES)


def read_machine_memory(root: Path = Path("/")) -> MachineMemory:
    """Read what is there now; takes well below a millisecond."""
    found = [_machine(root), *_cgroups(root)]
    return MachineMemory(min(each.total for each in found), max(0, min(each.available for each in found)))


def _machine(root: Path) -> MachineMemory:
    text = (root / "proc/meminfo").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return MachineMemory(kib["MemTotal"] << 10, kib["MemAvailable"] << 10)


def _cgroups(root: Path) -> Iterator[MachineMemory]:
    """Of the cgroup that this process is in and of those around it, each that has a limit; of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            yield from _limits(root / "sys/fs/cgroup", name, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limits(root / "sys/fs/cgroup/memory", name, names)


def _limits(mount: Path, name: str, names: tuple[str, str, str]) -> Iterator[MachineMemory]:
    limit_name, usage_name, cache_key = names
    inner = mount / name.lstrip("/")
    for folder in (inner, *inner.parents):
        if not folder.is_relative_to(mount):
            return
        try:
            limit = (folder / limit_name).read_text().strip()
            usage = int((folder / usage_name).read_text())
            stat = (folder / "memory.stat").read_text()
        except (OSError, ValueError):
            continue  # in a container, what lies around it cannot be seen
        if limit.isdigit():
            cached = re.search(rf"^{cache_key} (\d+)$", stat, re.MULTILINE)  # given back when it is needed
            yield MachineMemory(int(limit), int(limit) - usage + (int(cached[1]) if cached else 0))
