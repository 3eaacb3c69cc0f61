"""A bound on the memory of some processes and their children, as a container has one: a memory cgroup, v1 or v2."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@contextmanager
def memory_limit(pids: Sequence[int], num_bytes: int) -> Iterator[bool]:
    """Bound what these processes, and those that they start, take from now on; what they have stays uncounted.

    Yields whether it is so: only root may make a cgroup, and in a container mostly not even root. All of the processes
    must be gone when the block is left.
    """
    found = _limit_file()
    if found is None:
        yield False
        return
    limit, members = found
    try:
        limit.write_text(str(num_bytes), encoding="ascii")
        for pid in pids:
            members.write_text(str(pid), encoding="ascii")
        yield True
    finally:
        limit.parent.rmdir()


def _limit_file() -> tuple[Path, Path] | None:
    """Make a cgroup; return its files for the bound and for the processes."""
    base, limit = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
    group = base / f"hearth-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    if not os.access(group / limit, os.W_OK):  # not a cgroup, or memory is not counted in it
        group.rmdir()
        return None
    return group / limit, group / "cgroup.procs"
