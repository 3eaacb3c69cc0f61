"""What is read of a store to be exported, and written of one that is imported. Each method is one transaction.

Any method raises StorageError, and one that adds something StorageFull, with nothing changed; both may pass.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence

from server.rag.documents import StoredDocument, StoreRecord
from server.rag.rows import chunks, stores, sweeps, transfers
from server.rag.rows.stores import NewStore
from server.storage.database import Database


class TransferStore:
    """Reads stores document by document, and makes stores so that nobody sees one before it is whole."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """Take an open database; closing it stays with the caller."""
        self._database = database
        self._clock = clock

    async def begin_export(self, tenant: str, store_id: str) -> tuple[StoreRecord, list[str]]:
        """Return a store, and the ids of the files in it.

        Raises:
            ObjectNotFound: No such store.
            Conflict: It has expired.
        """
        return await self._database.read(lambda db: transfers.begin_export(db, tenant, store_id))

    async def read(self, tenant: str, store: StoreRecord, file_id: str) -> StoredDocument | None:
        """Return a document as it is searched now; None if it is not.

        Raises:
            Reindexed: The store's vectors are another model's by now.
            ObjectNotFound, Conflict: The store is gone, or has expired.
        """
        return await self._database.read(
            lambda db: transfers.read(db, tenant, store.id, file_id, edition=store.edition)
        )

    async def begin_import(self, new: NewStore) -> str:
        """Make a store that nobody sees; return its id."""
        return await self._database.write(lambda db: transfers.begin_import(db, new, now=self._now()))

    async def add(self, store_id: str, file_id: str, document: StoredDocument, hashes: Sequence[bytes]) -> None:
        """Put a document into a store that nobody sees.

        Args:
            file_id: New, and its bytes are safe.
            hashes: As `DocumentStore.complete` has them.
        """
        terms = await asyncio.to_thread(chunks.terms_of, document.text, document.chunked)
        await self._database.write(
            lambda db: transfers.add(db, store_id, file_id, document, terms=terms, hashes=hashes, now=self._now())
        )

    async def finish_import(self, tenant: str, store_id: str) -> StoreRecord:
        """Give a store that nobody sees, and its files, to a tenant."""
        return await self._database.write(lambda db: transfers.finish_import(db, tenant, store_id))

    async def abandon_import(self, store_id: str) -> None:
        """Leave a store that nobody sees to the `Sweeper`; the bytes of its files are the caller's."""

        def work(db: sqlite3.Connection) -> None:
            sweeps.begin(db, stores.row_of(db, stores.NOBODY, store_id))

        await self._database.write(work, use_reserve=True)

    def _now(self) -> int:
        return int(self._clock())
