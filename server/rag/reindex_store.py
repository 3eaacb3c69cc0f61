"""Reindexes as SQLite keeps them. Each method is one transaction; the stores themselves are `DocumentStore`'s.

Any method raises StorageError, and one that adds something StorageFull, with nothing changed; both may pass. Those that
take an edition raise ObjectNotFound when the reindex that makes it is over, however it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from server.rag.documents import ReindexRecord
from server.rag.halves import Halves
from server.rag.rows import editions
from server.rag.rows.chunks import Ids
from server.rag.rows.editions import NewModel, Swapped
from server.storage.database import Database


class ReindexStore:
    """What is embedded of the next editions of stores, and how one takes the place of another."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """Take an open database; closing it stays with the caller."""
        self._database = database
        self._clock = clock

    async def begin(self, tenant: str, store_id: str, model: NewModel) -> ReindexRecord:
        """Note that a store shall be embedded with a model.

        Returns:
            The reindex that is doing that already, if there is one; one that is completed if the store's vectors are
            the model's.

        Raises:
            ObjectNotFound: No such store.
            Conflict: It has expired, or is being embedded with another model.
        """
        now = int(self._clock())
        return await self._database.write(lambda db: editions.begin(db, tenant, store_id, model, now=now))

    async def find(self, tenant: str, store_id: str) -> ReindexRecord:
        """Return the newest reindex of a store.

        Raises:
            ObjectNotFound: No such store, or it has never been reindexed.
        """
        return await self._database.read(lambda db: editions.find(db, tenant, store_id))

    async def cancel(self, tenant: str, store_id: str) -> ReindexRecord:
        """End a reindex if it is in progress; the store stays as it is. What was embedded is left to the `Sweeper`."""
        return await self._database.write(lambda db: editions.cancel(db, tenant, store_id), use_reserve=True)

    async def unfinished(self) -> list[ReindexRecord]:
        """List what is in progress, of all tenants, oldest first."""
        return await self._database.read(editions.unfinished)

    async def fail(self, edition: int, reason: str) -> None:
        """End a reindex without success, unless it is over."""
        await self._database.write(lambda db: editions.fail(db, edition, reason), use_reserve=True)

    async def next_chunks(self, edition: int, *, after_id: int, num_chunks: int) -> list[tuple[int, str]]:
        """Return the first chunks behind an id that have no vector of this edition, fewer at the end: ids, and what is
        embedded of them.
        """
        return await self._database.read(lambda db: editions.next_chunks(db, edition, after_id, num_chunks))

    async def keep(self, edition: int, vectors: Mapping[int, bytes]) -> None:
        """Keep vectors, chunk id -> fp16 little-endian. Those of chunks that are gone meanwhile are dropped."""
        await self._database.write(lambda db: editions.keep(db, edition, vectors))

    async def vectors(self, edition: int) -> tuple[int, Ids, Halves]:
        """Return the store's generation, and chunk ids (ascending) and vectors of an edition, all of one moment."""
        return await self._database.read(lambda db: editions.vectors(db, edition))

    async def swap(self, edition: int) -> Swapped | None:
        """Put an edition in the place of the store's: vectors, model, dimensions and generation, all at once.

        Returns:
            None, and nothing was changed, if a chunk has no vector of it yet.
        """
        return await self._database.write(lambda db: editions.swap(db, edition))
