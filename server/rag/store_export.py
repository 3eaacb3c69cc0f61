"""Writes a vector store into a file that other servers read, as it is asked for. What the file looks like is
`store_file.py`'s.

Documents are read one by one, each in a moment of its own: one that comes or goes meanwhile is in the file or is not,
but never in part, and a slow client keeps nobody from writing. What searches do not find is left out: what is on its
way in, or has failed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from server.rag.documents import StoredDocument, StoreRecord
from server.rag.store_file import CONTENT_BYTES
from server.rag.store_file_writer import StoreFileWriter
from server.rag.threaded import threaded
from server.rag.transfer_store import TransferStore
from server.storage.file_store import FileStore

logger = logging.getLogger(__name__)


class StoreExport:
    """Exports the stores of one data directory, any number side by side."""

    def __init__(self, transfers: TransferStore, files: FileStore) -> None:
        self._transfers = transfers
        self._files = files

    async def begin(self, tenant: str, store_id: str) -> tuple[StoreRecord, AsyncIterator[bytes]]:
        """Return a store, and its file, which is made as it is read.

        Reading raises Reindexed, Conflict or ObjectNotFound when the store is another one now, has expired or is gone:
        what was read until then is of no use.

        Raises:
            ObjectNotFound: No such store.
            Conflict: It has expired.
        """
        store, file_ids = await self._transfers.begin_export(tenant, store_id)
        return store, self._write(tenant, store, file_ids)

    async def _write(self, tenant: str, store: StoreRecord, file_ids: list[str]) -> AsyncIterator[bytes]:
        writer = StoreFileWriter()
        yield writer.head(store)
        for file_id in file_ids:
            document = await self._transfers.read(tenant, store, file_id)
            if document is not None:
                async for part in threaded(_write_document(writer, document, self._files.path(file_id))):
                    yield part
        yield writer.end()
        logger.info("exported", extra={"store": store.id})


def _write_document(writer: StoreFileWriter, document: StoredDocument, path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # deleted just now
    with file:
        yield from writer.document(document)
        while content := file.read(CONTENT_BYTES):
            yield writer.content(content)
