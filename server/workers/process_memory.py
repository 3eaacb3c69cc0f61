"""What a worker and its children hold of the machine's memory, as the kernel counts it. Linux only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COUNTER = re.compile(r"^(Pss|Pss_Anon):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes. What several processes share counts in equal parts.

    Attributes:
        total: All that is in memory, mapped files included.
        private: Of that, what no file could give back.
    """

    total: int = 0
    private: int = 0


def measure_memory(pid: int) -> ProcessMemory:
    """Measure a process with its descendants; nothing of those that are gone. Takes some milliseconds per gigabyte."""
    total = private = 0
    for each in _with_descendants(pid):
        counters = {name: int(kib) << 10 for name, kib in _COUNTER.findall(_read(each, "smaps_rollup"))}
        total += counters.get("Pss", 0)
        private += counters.get("Pss_Anon", 0)
    return ProcessMemory(total, private)


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for thread in threads:  # a child belongs to the thread that started it
        for child in _read(pid, f"task/{thread.name}/children").split():
            yield from _with_descendants(int(child))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it has ended
        return ""
