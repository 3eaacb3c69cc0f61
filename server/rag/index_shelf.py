"""The indexes of vector stores in memory, each made when it is first asked for and kept in step with its store.

SQLite says what is in a store; an index is read from its file if that holds exactly this, else made of what SQLite has.
Afterwards the index follows the store's changes, whose generations have no gaps: `index` waits for what was committed
before it was asked, so that a search finds whatever a client has been told of. Should a change never be told, e.g.
because whoever committed it was cancelled, the index is made again.

All methods belong to the event loop; the work is done in threads.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from server.errors import ObjectNotFound, StorageError
from server.rag.document_store import DocumentStore
from server.rag.documents import ChunkChange
from server.rag.index_snapshot import SnapshotStamp, checksum_of
from server.rag.lexical_index import LexicalIndex
from server.rag.postings import Postings, read_postings
from server.rag.rows import chunks, stores
from server.rag.store_index import StoreIndex, VectorSwap, load_index, vectors_file, word_rows, words_file
from server.rag.vector_index import FaissIndex, vector_arrays

logger = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""How long a change may be on its way from its commit to `apply`, before the index is made without it."""


@dataclass(eq=False)
class _Shelved:
    """One store's index, None until it is made; changes that it has not taken over yet, by generation."""

    store_id: str
    index: StoreIndex | None = None
    changes: dict[int, ChunkChange | VectorSwap] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    catching_up: asyncio.Task[None] | None = None
    merging: asyncio.Task[None] | None = None


class IndexShelf:
    """All indexes of this process. `documents` is asked for what they hold, `folder` is theirs alone."""

    def __init__(self, documents: DocumentStore, folder: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._documents = documents
        self._folder = folder
        self._patience_s = patience_s
        self._shelved: dict[str, _Shelved] = {}

    async def index(self, store_id: str) -> StoreIndex:
        """Return the index of a store, with all that is committed by now.

        Raises:
            ObjectNotFound: No such store.
            StorageError: The database cannot be read.
        """
        return await self.at_least(store_id, await self._documents.generation(store_id))

    async def at_least(self, store_id: str, generation: int) -> StoreIndex:
        """Return the index once it has reached a generation, which is committed. Errors as of `index`."""
        shelved = self._shelved.setdefault(store_id, _Shelved(store_id))
        while shelved.index is None or shelved.index.generation < generation:
            await asyncio.shield(self._catch_up(shelved, generation))
        return shelved.index

    def holds(self, store_id: str) -> bool:
        """Whether there is an index of a store in memory, or one is being made."""
        return store_id in self._shelved

    def apply(self, change: ChunkChange | VectorSwap) -> None:
        """Take note of a committed change; returns at once. Nothing to do for a store that nobody has searched."""
        shelved = self._shelved.get(change.store_id)
        if shelved is not None:
            shelved.changes[change.generation] = change
            shelved.changed.set()
            self._catch_up(shelved, change.generation)

    def drop(self, store_id: str) -> None:
        """Forget the index of a store that was deleted. Its files go with the next `save_all`."""
        self._shelved.pop(store_id, None)

    async def save_all(self) -> None:
        """Write what changed since the last time, and delete files of stores that are gone. Failures are logged."""
        for shelved in list(self._shelved.values()):
            while shelved.catching_up is not None and not shelved.catching_up.done():
                await asyncio.wait((shelved.catching_up,))
            await self._save(shelved)
        try:
            store_ids = await self._documents.read(_store_ids)
            await asyncio.to_thread(_delete_others, self._folder, store_ids)
        except (OSError, StorageError) as exc:
            logger.warning("index files of deleted stores are left", extra={"error": str(exc)})

    @property
    def num_bytes(self) -> int:
        """Memory of all that is searched."""
        return sum(shelved.index.num_bytes for shelved in self._shelved.values() if shelved.index)

    # ---- in step with the store

    def _catch_up(self, shelved: _Shelved, generation: int) -> asyncio.Task[None]:
        """Start to bring an index to a generation, unless something like it is going on."""
        if shelved.catching_up is None or shelved.catching_up.done():
            shelved.catching_up = asyncio.create_task(self._follow(shelved, generation))
            shelved.catching_up.add_done_callback(lambda task: self._caught_up(shelved, task))
        return shelved.catching_up

    def _caught_up(self, shelved: _Shelved, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        if error := task.exception():
            if not isinstance(error, ObjectNotFound):  # deleted meanwhile
                logger.warning("index not brought up to date", extra={"store": shelved.store_id, "error": str(error)})
        elif shelved.changes:  # that came just now
            self._catch_up(shelved, max(shelved.changes))

    async def _follow(self, shelved: _Shelved, generation: int) -> None:
        if shelved.index is None:
            stamp = await self._documents.read(lambda db: _stamp(db, shelved.store_id))
            shelved.index = await self._make(shelved.store_id, stamp)
        while shelved.index.generation < generation:
            change = await self._next_change(shelved, shelved.index.generation + 1)
            if change is None:
                logger.info("index made again, as a change was not told", extra={"store": shelved.store_id})
                shelved.index = await self._make(shelved.store_id)
            elif isinstance(change, VectorSwap):
                shelved.index = await self._swap(shelved.index, change)
            else:
                words = await self._documents.read(partial(word_rows, added_ids=change.added_ids))
                await asyncio.to_thread(shelved.index.apply, change, words)
        reached = shelved.index.generation
        shelved.changes = {number: change for number, change in shelved.changes.items() if number > reached}
        self._merge(shelved)

    async def _swap(self, index: StoreIndex, change: VectorSwap) -> StoreIndex:
        """Searches that hold the old index end with it; the next ones get the new one."""
        if change.vectors is None:
            return await self._make(change.store_id)
        return await asyncio.to_thread(index.swap, change)

    async def _next_change(self, shelved: _Shelved, generation: int) -> ChunkChange | VectorSwap | None:
        """Wait for a change that may have been committed but not told yet; None if it does not come."""
        try:
            async with asyncio.timeout(self._patience_s):
                while generation not in shelved.changes:
                    shelved.changed.clear()
                    await shelved.changed.wait()
        except TimeoutError:
            return None
        return shelved.changes[generation]

    # ---- making indexes

    async def _make(self, store_id: str, stamp: SnapshotStamp | None = None) -> StoreIndex:
        """Make an index, both parts at the same time, of files if they fit the stamp.

        A commit in between makes one of them a generation older; it gets that one's change next.
        """
        vectors, words = await asyncio.gather(self._vectors(store_id, stamp), self._words(store_id, stamp))
        await asyncio.to_thread(_return_memory)
        return StoreIndex(vectors, words)

    async def _vectors(self, store_id: str, stamp: SnapshotStamp | None) -> FaissIndex:
        path = vectors_file(self._folder, store_id)
        if stamp and (found := await asyncio.to_thread(load_index, FaissIndex.load, path, stamp)):
            return found
        generation, ids, vectors = await self._documents.vectors(store_id)
        return await asyncio.to_thread(lambda: FaissIndex(generation, [vector_arrays(ids, vectors)]))

    async def _words(self, store_id: str, stamp: SnapshotStamp | None) -> LexicalIndex:
        path = words_file(self._folder, store_id)
        if stamp and (found := await asyncio.to_thread(load_index, LexicalIndex.load, path, stamp)):
            return found
        generation, postings = await self._documents.read(lambda db: _postings(db, store_id))
        return LexicalIndex(generation, [postings])

    # ---- merging and saving

    def _merge(self, shelved: _Shelved) -> None:
        if shelved.merging is None or shelved.merging.done():
            shelved.merging = asyncio.create_task(self._merge_all(shelved))
            shelved.merging.add_done_callback(lambda task: _report_merge(shelved.store_id, task))

    async def _merge_all(self, shelved: _Shelved) -> None:
        assert shelved.index is not None
        while await asyncio.to_thread(shelved.index.merge):
            pass

    async def _save(self, shelved: _Shelved) -> None:
        if shelved.index is None:
            return
        try:
            generation, mark = await self._documents.read(lambda db: stores.mark(db, shelved.store_id))
            if generation == shelved.index.generation:  # a file that is behind its store is of no use
                await asyncio.to_thread(shelved.index.save, self._folder, shelved.store_id, mark)
        except (OSError, StorageError, ObjectNotFound) as exc:
            logger.warning("index not saved", extra={"store": shelved.store_id, "error": str(exc)})


def _stamp(db: sqlite3.Connection, store_id: str) -> SnapshotStamp:
    """Say what an index of a store must hold."""
    ids = chunks.ids_of(db, stores.row_of_any(db, store_id))
    generation, mark = stores.mark(db, store_id)
    return SnapshotStamp(generation=generation, count=len(ids), checksum=checksum_of(ids), mark=mark)


def _postings(db: sqlite3.Connection, store_id: str) -> tuple[int, Postings]:
    store_row = stores.row_of_any(db, store_id)
    return stores.generation(db, store_id), read_postings(db, store_row, chunks.ids_of(db, store_row))


def _return_memory() -> None:
    """Give back to the system what making an index has left free: glibc keeps a hundred megabytes otherwise."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _report_merge(store_id: str, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("index not merged", extra={"store": store_id}, exc_info=error)


def _store_ids(db: sqlite3.Connection) -> set[str]:
    return {store_id for (store_id,) in db.execute("SELECT id FROM vector_stores WHERE tenant != ?", (stores.NOBODY,))}


def _delete_others(folder: Path, store_ids: set[str]) -> None:
    for path in folder.glob("*"):
        if path.name.partition(".")[0] not in store_ids:
            path.unlink(missing_ok=True)
