"""One server per data directory. The kernel frees the lock when its holder is gone, however it ended."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.errors import StorageError


@contextmanager
def data_lock(folder: Path) -> Iterator[None]:
    """Hold the data directory alone; make it if need be. The lock file stays: removing it would let two in.

    Raises:
        StorageError: Another process holds it, or it cannot be made or written. Tells paths: this one is for the
            operator.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as exc:
        message = f"data_dir {folder} cannot be written ({exc.strerror}); change its owner, or name another one"
        raise StorageError(message) from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            message = f"data_dir {folder} is in use by another server (process {holder}); stop it, or name another one"
            raise StorageError(message) from exc
        except OSError as exc:  # a file system that knows no locks
            message = f"data_dir {folder} cannot be locked ({exc.strerror}); use a local disk"
            raise StorageError(message) from exc
        with suppress(OSError):  # on a full disk: it is held all the same
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), str(os.getpid()).encode(), 0)
        yield
