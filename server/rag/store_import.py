"""Makes a vector store of a file that was exported, with ids of its own: all of it, or nothing.

What it puts into the database belongs to nobody until the last document is in. If that does not happen, be it that the
file is broken or the server is killed, what is there is swept away.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from server.errors import InvalidRequest, StorageError
from server.rag.documents import StoredDocument, StoreRecord
from server.rag.embedded_text import embedded_texts, hash_of
from server.rag.rows.stores import NewStore
from server.rag.store_file import Head
from server.rag.store_file_reader import StoreFileReader
from server.rag.sweeper import Sweeper
from server.rag.threaded import threaded
from server.rag.transfer_store import TransferStore
from server.rag.uninterrupted import uninterrupted
from server.storage.file_store import FileStore

logger = logging.getLogger(__name__)


class StoreImport:
    """Imports stores into one data directory, one after the other."""

    def __init__(self, transfers: TransferStore, files: FileStore, sweeper: Sweeper, *, max_text_bytes: int) -> None:
        """`max_text_bytes` are of one document."""
        self._transfers = transfers
        self._files = files
        self._sweeper = sweeper
        self._max_text_bytes = max_text_bytes
        self._turn = asyncio.Lock()

    async def run(
        self, tenant: str, path: Path, *, name: str | None = None, model_of: Callable[[Head], str]
    ) -> StoreRecord:
        """Import the store in a file.

        Args:
            name: Default: as it is in the file.
            model_of: Says what this server calls the model that the vectors are of.

        Raises:
            InvalidRequest: The file is no whole export.
            RequestTooLarge: One of its files is larger than this server takes.
            StorageFull: There is no room for it.
        """
        async with self._turn:
            with await asyncio.to_thread(path.open, "rb") as file:
                reader = await asyncio.to_thread(StoreFileReader, file, max_text_bytes=self._max_text_bytes)
                new = _new_store(reader.head, name, model_of(reader.head))
                store_id = await uninterrupted(self._transfers.begin_import(new))
                file_ids: list[str] = []
                try:
                    await self._fill(store_id, reader, file_ids)
                except BaseException:
                    await uninterrupted(self._abandon(store_id, file_ids))
                    raise
            return await uninterrupted(self._finish(tenant, store_id, file_ids))

    async def _fill(self, store_id: str, reader: StoreFileReader, file_ids: list[str]) -> None:
        """Take over all documents; `file_ids` get the ids under which there are bytes, or may be."""
        async for document in threaded(reader.documents()):
            file_ids.append(f"file-{secrets.token_hex(12)}")
            found = await self._files.write(file_ids[-1], threaded(reader.content()))
            if found != (document.file.num_bytes, document.file.sha256):
                raise InvalidRequest(
                    f"the file {document.file.filename!r} in it is not as long as it should be, or has other content",
                    param="file",
                )
            hashes = await asyncio.to_thread(_hashes_of, document)
            await self._transfers.add(store_id, file_ids[-1], document, hashes)

    async def _finish(self, tenant: str, store_id: str, file_ids: list[str]) -> StoreRecord:
        try:
            store = await self._transfers.finish_import(tenant, store_id)
        except BaseException:
            await self._abandon(store_id, file_ids)
            raise
        logger.info("imported", extra={"store": store.id, "documents": len(file_ids)})
        return store

    async def _abandon(self, store_id: str, file_ids: list[str]) -> None:
        try:
            await self._transfers.abandon_import(store_id)
            for file_id in file_ids:
                await self._files.delete(file_id)
        except StorageError as exc:
            logger.warning("a broken import stays until the next start", extra={"reason": exc.message})
        self._sweeper.wake()


def _new_store(head: Head, name: str | None, embedding_model: str) -> NewStore:
    return NewStore(
        name=head.name if name is None else name,
        description=head.description,
        metadata=dict(head.metadata),
        expires_after_days=head.expires_after_days,
        embedding_model=embedding_model,
        fingerprint=head.fingerprint,
        dimensions=head.dimensions,
        chunking=head.chunking,
    )


def _hashes_of(document: StoredDocument) -> list[bytes]:
    """As an ingestion job would have made them."""
    return [hash_of(text) for text in embedded_texts(document.text, document.chunked)]
