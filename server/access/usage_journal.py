"""Usage records on their way into the database: lines of JSON, appended to files that come and go.

A line is written with one call and not synced: what the call has taken survives the end of this process, however it
ends, for the price of a copy (2 us). A power cut may cost the lines of the last second; see decision 0027.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from server.access.usage_record import RUNNING, SERVER_DIED, UsageRecord
from server.errors import StorageError, StorageUnavailable
from server.storage.data_lock import data_lock
from server.storage.disk_errors import disk_errors

logger = logging.getLogger(__name__)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(UsageRecord)


class JournalFile:
    """One file that lines are appended to, by one thread."""

    def __init__(self, path: Path) -> None:
        """Make it.

        Raises:
            OSError: It cannot be made.
        """
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._is_torn = False
        self.is_empty = True

    def write(self, line: bytes) -> None:
        """Append a line, which ends with a line break.

        Raises:
            OSError: It is not there; a part of it may be, which readers pass over.
        """
        if self._is_torn:
            line = b"\n" + line
        num_written = self._file.write(line)
        self.is_empty = False
        self._is_torn = num_written < len(line)
        if self._is_torn:
            raise OSError(f"only {num_written} of {len(line)} bytes could be written")

    def close(self) -> None:
        self._file.close()


class JournalFolder:
    """The files of one data directory, whose names tell their order. Everything here is for threads: it blocks.

    One process at a time has it: to another one, the files that are written just now would be left by the dead.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last_number = 0
        self._lock = ExitStack()

    def take(self) -> list[Path]:
        """Take the folder, until `release`; return the files that an earlier process has left, oldest first.

        Raises:
            StorageUnavailable: It cannot be made, or another process has it.
        """
        try:
            self._lock.enter_context(data_lock(self._folder))
        except StorageError as exc:
            logger.warning("the usage journal cannot be taken", extra={"reason": exc.message})
            raise StorageUnavailable("the data directory cannot be used; the server's log says why") from exc
        with disk_errors():
            paths = sorted(self._folder.glob("*.jsonl"))
        self._last_number = max((int(path.stem) for path in paths if path.stem.isdigit()), default=0)
        return paths

    def release(self) -> None:
        self._lock.close()

    def begin(self) -> JournalFile:
        """Make the next file.

        Raises:
            StorageError: The disk is full, or cannot be written.
        """
        with disk_errors():
            self._last_number += 1
            return JournalFile(self._folder / f"{self._last_number:012}.jsonl")

    def remove(self, paths: Iterable[Path]) -> None:
        """Raises StorageError."""
        with disk_errors():
            for path in paths:
                path.unlink(missing_ok=True)


def to_line(record: UsageRecord) -> bytes:
    return _encoder.encode(record) + b"\n"


def read_ended(paths: Sequence[Path]) -> list[UsageRecord]:
    """Return the records of requests that are over.

    Raises:
        StorageError: A file cannot be read.
    """
    return [record for record in _read(paths) if record.status != RUNNING]


def read_all(paths: Sequence[Path]) -> list[UsageRecord]:
    """Return one record for each request, what was left running by a process that died included. Errors as above."""
    last = {record.id: record for record in _read(paths)}
    return [
        msgspec.structs.replace(record, status=SERVER_DIED) if record.status == RUNNING else record
        for record in last.values()
    ]


def _read(paths: Sequence[Path]) -> Iterator[UsageRecord]:
    for path in paths:
        with disk_errors(), path.open("rb") as file:
            for line in file:  # a database that was gone for long has left a large one
                try:
                    yield _decoder.decode(line)
                except msgspec.DecodeError:
                    if line.strip():
                        logger.warning("a torn line of the usage journal is left out", extra={"file": path.name})
