"""Files: uploaded, listed, read again, deleted. What vector stores make of them is `vector_stores.py`."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.rag.documents import FileRecord
from server.rag.paging import FIRST_PAGE, Page
from server.rag.uninterrupted import uninterrupted
from server.services.library import LibraryDoor


@dataclass(frozen=True, kw_only=True)
class UploadDetails:
    """What a client says about a file.

    Attributes:
        filename: Shown, and a hint of what is in the file; never a path of ours.
        expires_after_s: Counted from its creation; None: never.
    """

    filename: str
    purpose: str
    expires_after_s: int | None = None


class FileService:
    """Keeps the bytes of a file and its record together. Everything of other tenants does not exist.

    Every method raises StorageUnavailable where the data directory is not open, and StorageError or StorageFull where
    it cannot be used.
    """

    def __init__(self, door: LibraryDoor, *, clock: Callable[[], float] = time.time) -> None:
        self._door = door
        self._clock = clock

    async def upload(
        self, tenant: str, chunks: AsyncIterator[bytes], details: Callable[[], UploadDetails]
    ) -> FileRecord:
        """Store a file as it arrives; on return it survives a power cut.

        Args:
            details: Asked for once all chunks have come, since that is when they are known.

        Raises:
            RequestTooLarge: It is larger than `server.limits.max_upload_mb`.
        """
        library = self._door.library
        file_id = f"file-{secrets.token_hex(12)}"
        num_bytes, sha256 = await library.files.write(file_id, chunks)

        async def record() -> FileRecord:
            try:
                told, now = details(), int(self._clock())
                file = FileRecord(
                    id=file_id,
                    filename=told.filename,
                    purpose=told.purpose,
                    num_bytes=num_bytes,
                    sha256=sha256,
                    created_at=now,
                    expires_at=None if told.expires_after_s is None else now + told.expires_after_s,
                )
                await library.documents.add_file(tenant, file)
            except BaseException:
                await library.files.delete(file_id)
                raise
            return file

        return await uninterrupted(record())

    async def list(
        self, tenant: str, *, purpose: str | None = None, page: Page = FIRST_PAGE
    ) -> tuple[Sequence[FileRecord], bool]:
        """List files; the flag tells whether there are more."""
        return await self._door.library.documents.files(tenant, purpose=purpose, page=page)

    async def get(self, tenant: str, file_id: str) -> FileRecord:
        """Return a file's record. Raises ObjectNotFound."""
        return await self._door.library.documents.file(tenant, file_id)

    async def content(self, tenant: str, file_id: str) -> tuple[FileRecord, Path]:
        """Return a file's record and where its bytes lie, to be read at once. Raises ObjectNotFound."""
        library = self._door.library
        record = await library.documents.file(tenant, file_id)
        return record, library.files.path(file_id)

    async def delete(self, tenant: str, file_id: str, *, if_unused: bool = False) -> None:
        """Delete a file, and take it out of every vector store.

        Args:
            if_unused: Only if no store has it.

        Raises:
            ObjectNotFound: There is no such file.
            Conflict: A store has it, and it should be unused.
        """
        await uninterrupted(self._delete(tenant, file_id, if_unused=if_unused))

    async def _delete(self, tenant: str, file_id: str, *, if_unused: bool) -> None:
        library = self._door.library
        for change in await library.documents.delete_file(tenant, file_id, if_unused=if_unused):
            library.shelf.apply(change)
        library.ingestion.cancel(lambda document: document.file_id == file_id)
        await library.files.delete(file_id)
