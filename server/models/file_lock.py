"""A lock between processes. The kernel frees it when its holders are gone, however they ended."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, *, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold `path` alone; make it and its folder if need be. The file stays: removing it would let two in.

    Args:
        on_wait: Called once if another process holds the lock, before waiting for it.

    Yields:
        The descriptor of the lock. A child process that inherits it keeps the lock until it ends too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
