"""The private folder of the sockets between the server and its workers, and the end of those that were left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "hearth-ipc-"

_MIN_AGE_S = 60.0
"""Younger folders may belong to a server that is about to lock its own."""


class SocketFolder:
    """A folder that is locked for as long as its server lives, however it ends.

    A lock, not a process id in the name: containers that share /tmp do not see each other's processes. And cleaners of
    /tmp leave locked folders alone.
    """

    def __init__(self) -> None:
        """Make the folder, and remove those of servers that were killed."""
        _sweep(Path(tempfile.gettempdir()))
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX)
        self.path = Path(self._folder.name)
        self._handle = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def remove(self) -> None:
        self._folder.cleanup()
        os.close(self._handle)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime > _MIN_AGE_S:
                _remove_if_abandoned(folder)
        except OSError:
            continue  # somebody else's, or gone already


def _remove_if_abandoned(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(handle)
