"""Files, vector stores, documents and chunks as SQLite keeps them: the only truth; every index can be made from it.

Each method is one transaction; what it returned is on the disk. SQL lives in `rows/`, one file a concept. Where a
client's ids are taken, `tenant` comes first, and what is another tenant's does not exist (`ObjectNotFound`).
Knows no parser, no model, no FAISS; the bytes of uploads are `FileStore`'s.

Any method raises StorageError, and one that adds something StorageFull, with nothing changed; both may pass.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from server.rag.allowed_chunks import AllowedCache, AllowedChunks
from server.rag.documents import (
    Attributes,
    BatchRecord,
    Chunk,
    ChunkChange,
    ChunkedDocument,
    ChunkingStrategy,
    DocumentRecord,
    DocumentStatus,
    Expired,
    FailureCode,
    FileRecord,
    Parent,
    ParsedDocument,
    StoreChanges,
    StoreRecord,
    Vectors,
)
from server.rag.filters import Filter, allowed_chunks
from server.rag.paging import FIRST_PAGE, Page
from server.rag.rows import batches, chunks, documents, expiry, files, jobs, pending, stores, sweeps, texts, word_tables
from server.storage.database import Database

T = TypeVar("T")

NewDocument = tuple[str, Attributes, ChunkingStrategy]
"""What is asked of a file that goes into a store: its id, its attributes, how it is cut."""

_UPGRADE_SLICE_S = 1.0  # of one transaction: what is committed need not be done again


class DocumentStore:
    """The one door to what is stored of documents. Methods may run side by side; writes take turns.

    A store's generation grows by one with each change of its chunks, and each growth is told by exactly one
    `ChunkChange`, for the index that follows the store.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """Take an open database; closing it stays with the caller."""
        self._database = database
        self._clock = clock
        self._allowed = AllowedCache()
        self._uses: dict[str, int] = {}  # of stores, by id, that are not written down yet

    async def replace_word_tables(self) -> None:
        """Bring what an older version has stored of words to today's form. Before anything else works on the directory.

        Takes half a minute for each 100,000 chunks, once; what is broken off is gone on with.
        """

        def work(db: sqlite3.Connection) -> bool:
            deadline: float | None = None

            def is_over() -> bool:
                nonlocal deadline
                if deadline is None:  # what there is to do was looked up before, which may take as long
                    deadline = time.monotonic() + _UPGRADE_SLICE_S
                return time.monotonic() > deadline

            return word_tables.replace_some(db, is_over)

        while await self._database.write(work):
            pass

    # ---- files

    async def add_file(self, tenant: str, file: FileRecord) -> None:
        """Record an upload, once its bytes are safe. `file.id` is new."""
        await self._database.write(lambda db: files.insert(db, tenant, file))

    async def file(self, tenant: str, file_id: str) -> FileRecord:
        return await self._database.read(lambda db: files.find(db, tenant, file_id))

    async def files(
        self, tenant: str, *, purpose: str | None = None, page: Page = FIRST_PAGE
    ) -> tuple[list[FileRecord], bool]:
        """List uploads, in the order in which they came. The flag tells whether there are more."""
        return await self._database.read(lambda db: files.select(db, tenant, purpose=purpose, page=page))

    async def delete_file(self, tenant: str, file_id: str, *, if_unused: bool = False) -> list[ChunkChange]:
        """Forget a file, and take it out of every vector store: one change for each store that it was in.

        Raises:
            Conflict: It was to be forgotten `if_unused`, but a store has it.
        """
        return await self._database.write(
            lambda db: files.delete(db, tenant, file_id, if_unused=if_unused), use_reserve=True
        )

    async def file_ids(self) -> set[str]:
        """Ids of all tenants' files: what `FileStore.sweep` may keep."""
        return await self._database.read(files.all_ids)

    async def expire(self, now: int) -> Expired:
        """Delete files past their time, whose bytes the caller removes, and end stores past theirs, which stay listed.

        The contents of such stores go later: see `Sweeper`.
        """
        uses, self._uses = self._uses, {}

        def work(db: sqlite3.Connection) -> Expired:
            stores.note_uses(db, uses)
            return expiry.expire(db, now)

        try:
            return await self._database.write(work, use_reserve=True)
        except BaseException:
            self._uses = uses | self._uses
            raise

    # ---- vector stores

    async def create_store(
        self,
        tenant: str,
        *,
        name: str = "",
        description: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
        embedding_model: str,
        fingerprint: str,
        dimensions: int,
        chunking: ChunkingStrategy,
    ) -> StoreRecord:
        """Make an empty store with an id of its own, `vs_...`. The attributes are `StoreRecord`'s."""
        new = stores.NewStore(
            name=name,
            description=description,
            metadata=dict(metadata or {}),
            expires_after_days=expires_after_days,
            embedding_model=embedding_model,
            fingerprint=fingerprint,
            dimensions=dimensions,
            chunking=chunking,
        )
        return await self._database.write(lambda db: stores.insert(db, tenant, new, now=self._now()))

    async def store(self, tenant: str, store_id: str) -> StoreRecord:
        return self._as_used(await self._database.read(lambda db: stores.find(db, tenant, store_id)))

    async def store_ids(self, tenant: str, name: str) -> list[str]:
        """Return the ids of all stores of a name, or of that id, that have not expired."""
        return await self._database.read(lambda db: stores.ids_of(db, tenant, name))

    async def stores(self, tenant: str, page: Page = FIRST_PAGE) -> tuple[list[StoreRecord], bool]:
        """List stores, in the order in which they were made. The flag tells whether there are more."""
        found, has_more = await self._database.read(lambda db: stores.select(db, tenant, page))
        return [self._as_used(each) for each in found], has_more

    async def update_store(self, tenant: str, store_id: str, **changes: Unpack[StoreChanges]) -> StoreRecord:
        """Replace what is named of what a client may change; the rest stays."""
        return self._as_used(await self._database.write(lambda db: stores.update(db, tenant, store_id, changes)))

    async def delete_store(self, tenant: str, store_id: str) -> None:
        """Delete a store with its documents; the files stay. Its index is the caller's to drop.

        What it held takes room until a `Sweeper` has removed it.
        """
        await self._database.write(lambda db: sweeps.delete_store(db, tenant, store_id), use_reserve=True)

    def touch(self, store_id: str, now: int) -> None:
        """Note that a store is used; what expires is counted from it.

        Written down by `expire`, so that no search waits for the disk; a crash forgets what came since the last one.
        A clock that was set back does not shorten a store's life.
        """
        self._uses[store_id] = max(now, self._uses.get(store_id, 0))

    async def generation(self, store_id: str) -> int:
        return await self._database.read(lambda db: stores.generation(db, store_id))

    # ---- documents: files in a vector store

    async def add_documents(
        self, tenant: str, store_id: str, new: Sequence[NewDocument], batch_id: str | None = None
    ) -> list[DocumentRecord]:
        """Put files into a store as jobs, all or none; a `batch_id` is new.

        A file that is in it already becomes a new job, with a new `DocumentRecord.id`, so that the old job's end
        changes nothing; its old chunks stay, and are searched, until the new ones replace them.

        Returns:
            One record for each distinct file, in order; the last mention of a file counts.

        Raises:
            ObjectNotFound: No such store or file.
            Conflict: The store has expired.
        """
        return await self._database.write(
            lambda db: documents.insert(db, tenant, store_id, new, batch_id=batch_id, now=self._now())
        )

    async def document(self, tenant: str, store_id: str, file_id: str) -> DocumentRecord:
        return await self._database.read(lambda db: documents.find(db, tenant, store_id, file_id))

    async def documents(
        self,
        tenant: str,
        store_id: str,
        *,
        status: DocumentStatus | None = None,
        batch_id: str | None = None,
        page: Page = FIRST_PAGE,
    ) -> tuple[list[DocumentRecord], bool]:
        """List documents in the order in which they came first; cursors are file ids. The flag tells whether there are
        more.
        """
        return await self._database.read(
            lambda db: documents.select(db, tenant, store_id, status=status, batch_id=batch_id, page=page)
        )

    async def set_attributes(self, tenant: str, store_id: str, file_id: str, attributes: Attributes) -> DocumentRecord:
        """Replace a document's attributes; searches that start later filter by them."""
        return await self._database.write(
            lambda db: documents.set_attributes(db, tenant, store_id, file_id, attributes)
        )

    async def remove_document(self, tenant: str, store_id: str, file_id: str) -> ChunkChange:
        """Take a file out of a store, whatever the state of its job. The file itself stays."""
        return await self._database.write(lambda db: documents.remove(db, tenant, store_id, file_id), use_reserve=True)

    async def document_text(self, tenant: str, store_id: str, file_id: str) -> str:
        """Return what its parser made of a document.

        Raises:
            Conflict: Nothing is stored of it: not completed yet, or its store has expired.
        """
        return await self._database.read(lambda db: documents.text(db, tenant, store_id, file_id))

    async def batch(self, tenant: str, store_id: str, batch_id: str) -> BatchRecord:
        """Return a file batch; a document that was removed or added again since no longer counts in it."""
        return await self._database.read(lambda db: batches.find(db, tenant, store_id, batch_id))

    async def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> list[int]:
        """Cancel what is in progress of a batch.

        Returns:
            Ids of the documents whose jobs can stop; should one complete nevertheless, that changes nothing.
        """
        return await self._database.write(
            lambda db: jobs.cancel(db, batches.in_progress(db, tenant, store_id, batch_id)), use_reserve=True
        )

    # ---- jobs: documents on their way in, of all tenants

    async def unfinished(self) -> list[tuple[str, DocumentRecord]]:
        """List all documents in progress with their tenants, oldest first."""
        return await self._database.read(jobs.unfinished)

    async def begin(self, document_id: int) -> int | None:
        """Note that a job takes a document up; return how many have since it last got on, None if the job is over.

        It gets on when something is kept of it (`keep_pending`, `keep_contexts`). The note outlives this process, but
        perhaps not a power cut.
        """
        return await self._database.write(
            lambda db: jobs.begin(db, document_id), use_reserve=True, survives_power_cut=False
        )

    async def take_back(self, document_id: int) -> None:
        """Undo `begin`, for a job that is stopped."""
        await self._database.write(
            lambda db: jobs.take_back(db, document_id), use_reserve=True, survives_power_cut=False
        )

    async def fail(self, document_id: int, code: FailureCode, message: str) -> bool:
        """End a job without success; its pending vectors go. False, and no change, if it was over already."""
        return await self._database.write(lambda db: jobs.fail(db, document_id, code, message), use_reserve=True)

    async def known_vectors(self, store_id: str, hashes: Sequence[bytes], *, edition: int = 0) -> dict[bytes, bytes]:
        """Return the vectors, fp16 little-endian, that the store's chunks or its pending rows have of some hashes.

        `hashes` name what was embedded, whatever the caller puts into them; 16 bytes suffice. Those that are not
        among the keys of the answer are not known. `edition` is the one that the caller has a model for; a store that
        was never reindexed is of edition 0.

        Raises:
            Reindexed: The store is of another edition now.
        """
        return await self._database.read(lambda db: pending.known_vectors(db, store_id, hashes, edition=edition))

    async def keep_pending(self, document_id: int, vectors: Mapping[bytes, bytes], *, edition: int = 0) -> bool:
        """Keep what is embedded of a job, hash -> fp16 vector, for its resumption. False if the job is over.

        Raises:
            Reindexed: As `known_vectors`.
        """
        return await self._database.write(lambda db: jobs.keep_pending(db, document_id, vectors, edition=edition))

    async def known_contexts(self, store_id: str, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Return the contexts that the store's chunks or its pending rows have of some keys; others are not known."""
        return await self._database.read(lambda db: pending.known_contexts(db, store_id, keys))

    async def keep_contexts(self, document_id: int, contexts: Mapping[bytes, str]) -> bool:
        """Keep what is written for a job, by key, for its resumption. False if the job is over."""
        return await self._database.write(lambda db: jobs.keep_contexts(db, document_id, contexts))

    async def complete(
        self,
        document_id: int,
        parsed: ParsedDocument,
        chunked: ChunkedDocument,
        vectors: Vectors,
        hashes: Sequence[bytes],
        *,
        edition: int = 0,
    ) -> ChunkChange | None:
        """Commit a document at once: its text, parents, chunks, terms and vectors, in place of the old ones.

        Args:
            vectors: float32 [num_chunks, dimensions of the store]; kept as fp16.
            hashes: One for each chunk, as `known_vectors` shall know it.

        Returns:
            The change, with the vectors as any later reader finds them, rounded to fp16; None if the job is over
            (removed, replaced, cancelled, failed), and nothing was changed.

        Raises:
            Reindexed: As `known_vectors`.
        """
        terms = await asyncio.to_thread(chunks.terms_of, parsed.text, chunked)
        return await self._database.write(
            lambda db: jobs.complete(
                db, document_id, parsed, chunked, vectors=vectors, terms=terms, hashes=hashes, edition=edition
            )
        )

    # ---- chunks: what searches find, of one store or another

    async def chunks(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> list[Chunk]:
        """Return chunks in the order of `ids`, without those that are gone."""
        return await self._database.read(lambda db: chunks.select(db, ids))

    async def headings(self, store_id: str) -> list[tuple[int, str, str]]:
        """Return chunk id, file id and heading of all chunks of a store, without the texts."""
        return await self._database.read(lambda db: chunks.headings(db, store_id))

    async def parents(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> list[Parent]:
        """Return parents in the order of `ids`, without those that are gone."""
        return await self._database.read(lambda db: chunks.select_parents(db, ids))

    async def pages(self, places: Sequence[tuple[int, int]]) -> list[int | None]:
        """Return the page of each place, which is a chunk's id and an offset in its document; None where it is not
        known.
        """
        return await self._database.read(lambda db: [texts.page_at(db, *place) for place in places])

    async def vectors(self, store_id: str) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float16]]:
        """Return generation, chunk ids (ascending) and vectors of a store, all of one moment, to build an index of."""
        return await self._database.read(lambda db: chunks.vectors(db, store_id))

    async def allowed_chunks(self, store_id: str, wanted: Filter) -> AllowedChunks:
        """Return which chunks of a store a filter leaves."""
        version, text = self._database.version, repr(wanted)  # by its text: 1 and True are equal, but not the same
        if known := self._allowed.get(store_id, text, version):
            return known
        found = await self._database.read(
            lambda db: AllowedChunks(stores.generation(db, store_id), allowed_chunks(db, store_id, wanted))
        )
        self._allowed.put(store_id, text, version, found)
        return found

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run queries of somebody else (words, filters) in one snapshot, off the event loop."""
        return await self._database.read(work)

    def _as_used(self, store: StoreRecord) -> StoreRecord:
        """With the uses that are not written down yet."""
        last_active_at = max(store.last_active_at, self._uses.get(store.id, 0))
        return replace(store, last_active_at=last_active_at)

    def _now(self) -> int:
        return int(self._clock())
