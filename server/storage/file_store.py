"""The bytes of uploads: one file each, named by its id. A name appears only once all its bytes are on the disk.

Knows nothing of names, owners and purposes: those are rows in the database, written after the bytes and removed
before them. What a crash leaves without a row is swept at start.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from server.errors import ObjectNotFound, RequestTooLarge
from server.storage.disk_errors import disk_errors
from server.storage.disk_room import check_room

T = TypeVar("T")

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_BYTES_PER_WRITE = 1 << 20  # a chunk of a request has some 64 KiB, and each write is a trip to a thread


class FileStore:
    """A folder of uploads. Methods may run side by side for different ids."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Make `root` if need be.

        Args:
            max_bytes: Of one upload.

        Raises:
            StorageError: It cannot be made.
        """
        self._root = root
        self._max_bytes = max_bytes
        with disk_errors():
            root.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def write(self, file_id: str, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
        """Write an upload, of a new id, as it comes in; on return it survives a power cut. If it fails, nothing stays.

        Returns:
            Its number of bytes, and its SHA-256 in hexadecimal.

        Raises:
            RequestTooLarge: It has more than `max_bytes`; the rest is not read.
            StorageFull: There is no room for it.
            StorageError: It cannot be written.
        """
        upload = _Upload(self.path(file_id))
        try:
            with disk_errors():
                await _in_thread(upload.open)
            await self._receive(chunks, upload)
            with disk_errors():
                await _in_thread(upload.publish)
        except BaseException:
            await _in_thread(upload.discard)
            raise
        return upload.num_bytes, upload.sha256

    def path(self, file_id: str) -> Path:
        """Tell where the bytes of an upload are. Parsers read them there; nobody writes.

        Raises:
            ObjectNotFound: This can be no id of ours.
        """
        if not _ID.fullmatch(file_id):
            raise ObjectNotFound(f"no file with id {file_id[:140]!r}")
        return self._root / file_id

    async def delete(self, file_id: str) -> None:
        """Remove the bytes, if they are there. Their row must be gone already."""
        path = self.path(file_id)
        with disk_errors():
            await _in_thread(lambda: path.unlink(missing_ok=True))

    async def sweep(self, known_ids: Collection[str]) -> int:
        """Remove what has no row, and what was not finished. Only at start, when nothing is being written.

        Returns:
            How many files were removed.
        """

        def work() -> int:
            lost = [path for path in self._root.iterdir() if path.name not in known_ids]
            for path in lost:
                path.unlink()
            return len(lost)

        with disk_errors():
            return await _in_thread(work)

    async def _receive(self, chunks: AsyncIterator[bytes], upload: _Upload) -> None:
        num_bytes = 0
        waiting = bytearray()
        async for chunk in chunks:
            num_bytes += len(chunk)
            if num_bytes > self._max_bytes:
                raise RequestTooLarge(
                    f"the file has more than {self._max_bytes} bytes, which is the most that is accepted; split it",
                    param="file",
                )
            waiting += chunk
            if len(waiting) >= _BYTES_PER_WRITE:
                content, waiting = waiting, bytearray()
                with disk_errors():
                    await _in_thread(partial(upload.write, content))
        with disk_errors():
            await _in_thread(partial(upload.write, waiting))


class _Upload:
    """A file that is being written beside its name. For threads; one call at a time."""

    def __init__(self, path: Path) -> None:
        self.num_bytes = 0
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def open(self) -> None:
        self._file = self._part.open("wb", buffering=0)

    def write(self, content: bytearray) -> None:
        assert self._file is not None
        check_room(self._path.parent, len(content))
        self._digest.update(content)
        left = memoryview(content)
        while left:  # a disk that is nearly full takes a part first
            left = left[self._file.write(left) :]
        self.num_bytes += len(content)

    def publish(self) -> None:
        """Give the file its name, in the order that a power cut cannot break: bytes, name, folder."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Leave nothing, if that is possible; what stays is swept at the next start."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
            self._part.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)  # if its name was not certain to last, it was not accepted


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread to its end, also when the caller is cancelled: what follows may close its file."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
