"""Makes the indexes of vector stores: of their files, where these hold exactly what the database has, else of that.

Files are written and removed here too, by one at a time.
"""

from __future__ import annotations

import asyncio
import ctypes
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from server.rag.document_store import DocumentStore
from server.rag.index_snapshot import SnapshotStamp, checksum_of
from server.rag.lexical_index import LexicalIndex
from server.rag.postings import Postings, read_postings
from server.rag.rows import chunks, stores
from server.rag.store_index import StoreIndex, load_index, vectors_file, words_file
from server.rag.uninterrupted import uninterrupted
from server.rag.vector_index import FaissIndex, vector_arrays


@dataclass(frozen=True)
class MadeIndex:
    """An index; whether its files hold all of it."""

    index: StoreIndex
    is_saved: bool


class IndexMaker:
    """On one event loop; `folder` is its alone. The work is done in threads."""

    def __init__(self, documents: DocumentStore, folder: Path) -> None:
        self._documents = documents
        self._folder = folder
        self._filing = asyncio.Lock()

    async def load(self, store_id: str) -> MadeIndex:
        """Read an index of its files; what these do not have as it is now is made.

        Raises:
            ObjectNotFound: No such store.
            StorageError: The database cannot be read.
        """
        return await self._make(store_id, await self._documents.read(lambda db: _stamp(db, store_id)))

    async def make(self, store_id: str) -> MadeIndex:
        """Make an index of what the database has. Errors as of `load`."""
        return await self._make(store_id, None)

    async def save(self, store_id: str, index: StoreIndex) -> bool:
        """Write an index to its files; false if it is not what the store is now: such a file is of no use.

        Raises:
            ObjectNotFound, StorageError: As of `load`; StorageFull, too.
            OSError: The files cannot be written.
        """
        async with self._filing:
            generation, mark = await self._documents.read(lambda db: stores.mark(db, store_id))
            if index.generation != generation:
                return False
            writing = asyncio.to_thread(index.save, self._folder, store_id, mark)
            return await uninterrupted(writing) == generation  # else the next to write would find it writing

    async def delete_files(self, store_ids: Iterable[str]) -> None:
        """Delete the files of some stores. Raises OSError."""
        paths = [file(self._folder, store_id) for store_id in store_ids for file in (vectors_file, words_file)]
        async with self._filing:
            await asyncio.to_thread(_delete, paths)

    async def delete_other_files(self) -> None:
        """Delete whatever is there of stores that are not in the database. Raises OSError, StorageError."""
        async with self._filing:
            store_ids = await self._documents.read(_store_ids)
            await asyncio.to_thread(_delete_others, self._folder, store_ids)

    async def _make(self, store_id: str, stamp: SnapshotStamp | None) -> MadeIndex:
        """Make an index, both parts at the same time, of files if they fit the stamp.

        A commit in between makes one of them a generation older; it gets that one's change next.
        """
        (vectors, has_vectors), (words, has_words) = await asyncio.gather(
            self._vectors(store_id, stamp), self._words(store_id, stamp)
        )
        await asyncio.to_thread(return_memory)
        # Whoever read of the store before does not know what has gone since then.
        made = StoreIndex(vectors, words, last_removal=max(vectors.generation, words.generation))
        return MadeIndex(made, is_saved=has_vectors and has_words)

    async def _vectors(self, store_id: str, stamp: SnapshotStamp | None) -> tuple[FaissIndex, bool]:
        path = vectors_file(self._folder, store_id)
        if stamp and (found := await asyncio.to_thread(load_index, FaissIndex.load, path, stamp)):
            return found, True
        generation, ids, vectors = await self._documents.vectors(store_id)
        return await asyncio.to_thread(lambda: FaissIndex(generation, [vector_arrays(ids, vectors)])), False

    async def _words(self, store_id: str, stamp: SnapshotStamp | None) -> tuple[LexicalIndex, bool]:
        path = words_file(self._folder, store_id)
        if stamp and (found := await asyncio.to_thread(load_index, LexicalIndex.load, path, stamp)):
            return found, True
        generation, postings = await self._documents.read(lambda db: _postings(db, store_id))
        return LexicalIndex(generation, [postings]), False


def return_memory() -> None:
    """Give back to the system what making an index has left free: glibc keeps a hundred megabytes otherwise."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _stamp(db: sqlite3.Connection, store_id: str) -> SnapshotStamp:
    """Say what an index of a store must hold."""
    ids = chunks.ids_of(db, stores.row_of_any(db, store_id))
    generation, mark = stores.mark(db, store_id)
    return SnapshotStamp(generation=generation, count=len(ids), checksum=checksum_of(ids), mark=mark)


def _postings(db: sqlite3.Connection, store_id: str) -> tuple[int, Postings]:
    return stores.generation(db, store_id), read_postings(db, stores.row_of_any(db, store_id))


def _store_ids(db: sqlite3.Connection) -> set[str]:
    return {store_id for (store_id,) in db.execute("SELECT id FROM vector_stores WHERE tenant != ?", (stores.NOBODY,))}


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _delete_others(folder: Path, store_ids: set[str]) -> None:
    _delete(path for path in folder.glob("*") if path.stem not in store_ids)
