"""One reindex of a vector store: every chunk embedded anew from its stored text, then all vectors swapped at once.

Documents come, go and change meanwhile as ever, with the vectors of the store's present edition. What came is embedded
for the next edition as well before it takes over: only a complete one does. A document whose job embeds for an edition
that is no more begins anew by itself (`Reindexed`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from server.errors import HearthError, ObjectNotFound, StorageError
from server.protocols import EmbeddingModel, VectorIndex
from server.rag.bulk_embedding import embed_documents
from server.rag.documents import ReindexRecord
from server.rag.index_shelf import IndexShelf
from server.rag.job_tools import JobPolicy
from server.rag.patience import Patience
from server.rag.reindex_store import ReindexStore
from server.rag.rows.chunks import Ids
from server.rag.rows.editions import Swapped
from server.rag.store_index import VectorSwap
from server.rag.uninterrupted import uninterrupted
from server.rag.vector_index import FaissIndex, vector_arrays

logger = logging.getLogger(__name__)


class FindNewEmbedder(Protocol):
    """Gives the model that a store is embedded with anew."""

    async def __call__(self, reindex: ReindexRecord) -> EmbeddingModel:
        """Wait until the model is loaded, and return it with `facts`.

        Raises:
            Conflict: It is not the model any more that the reindex was begun with.
            ModelUnavailable: It cannot be loaded now.
        """


@dataclass(frozen=True, kw_only=True)
class ReindexTools:
    """What all reindexes work with.

    Attributes:
        hold: Begins no ingestion job of a store for as long as it is open.
        suspects: The lock of ingestion jobs; see `Patience`.
    """

    reindexes: ReindexStore
    shelf: IndexShelf
    find_embedder: FindNewEmbedder
    hold: Callable[[str], AbstractContextManager[None]]
    suspects: asyncio.Lock
    policy: JobPolicy


class ReindexJob:
    """Brings a reindex that is in progress to its end, whatever that is.

    Cancelled, it leaves the reindex in progress, and what is embedded safe: another job goes on from there. While it
    waits for its model, it holds no ingestion job back.
    """

    def __init__(self, reindex: ReindexRecord, tools: ReindexTools) -> None:
        self._reindex = reindex
        self._tools = tools
        self._name: dict[str, object] = {"store": reindex.store_id, "model": reindex.embedding_model}
        self._patience = Patience(tools.policy.retry, tools.suspects, name=self._name, on_wait=self._let_go)
        self._hold = ExitStack()
        self._is_holding = False
        self._last_id = 0  # of the chunks that are embedded, or being so
        self._reading = asyncio.Lock()
        self._begun_at: float | None = None
        self._num_embedded = 0

    @property
    def is_begun(self) -> bool:
        return self._begun_at is not None

    @property
    def waiting_for(self) -> str | None:
        """Why it does not get on; None if it does."""
        return self._patience.waiting_for

    def with_progress(self, reindex: ReindexRecord) -> ReindexRecord:
        """Return the reindex as it was read from the database, with what only its job knows."""
        return replace(
            reindex,
            eta_s=self._eta_s(reindex.num_chunks - reindex.num_chunks_done),
            waiting_for=self.waiting_for,
        )

    async def run(self) -> None:
        try:
            await self._embed_and_swap()
        except ObjectNotFound:
            logger.debug("reindex is over", extra=self._name)  # cancelled, or deleted with its store
        except HearthError as exc:
            await self._fail(exc.message)
        except Exception:
            logger.exception("reindex failed", extra=self._name)
            await self._fail("internal error; the server's log has the details")

    async def _embed_and_swap(self) -> None:
        self._begun_at = time.monotonic()
        await self._embed_all()
        # Now few are missing: those that came meanwhile. Jobs wait for a moment, or there would always be some.
        with self._hold:
            self._hold_jobs()
            while not await self._swap():
                await self._embed_all()
                self._hold_jobs()

    def _hold_jobs(self) -> None:
        if not self._is_holding:
            self._hold.enter_context(self._tools.hold(self._reindex.store_id))
            self._is_holding = True

    def _let_go(self) -> None:
        """Its model may be away for long, and jobs need the other one: let them begin until it is back."""
        if self._patience.waits_for_model and self._is_holding:
            self._is_holding = False
            self._hold.close()

    async def _fail(self, reason: str) -> None:
        try:
            await self._patience.call(lambda: self._tools.reindexes.fail(self._reindex.edition, reason))
        except StorageError:
            logger.exception("a failure cannot be noted; the next start goes on with it", extra=self._name)
            return
        logger.warning("reindex failed", extra={**self._name, "reason": reason})

    # ---- embed

    async def _embed_all(self) -> None:
        """Embed all chunks that have no vector of the new edition yet."""
        self._last_id = 0
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._tools.policy.slices_ahead):
                    group.create_task(self._embed_slices())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _embed_slices(self) -> None:
        while chunks := await self._patience.call(self._next_slice):
            await self._patience.call(partial(self._embed, chunks))
            self._num_embedded += len(chunks)

    async def _next_slice(self) -> list[tuple[int, str]]:
        async with self._reading:
            chunks = await self._tools.reindexes.next_chunks(
                self._reindex.edition, after_id=self._last_id, num_chunks=self._tools.policy.slice_size
            )
            if chunks:
                self._last_id = chunks[-1][0]
        return chunks

    async def _embed(self, chunks: list[tuple[int, str]]) -> None:
        texts = [text for _, text in chunks]
        rows = await embed_documents(texts, self._find_embedder)
        vectors = {chunk_id: row.tobytes() for (chunk_id, _), row in zip(chunks, rows, strict=True)}
        await self._tools.reindexes.keep(self._reindex.edition, vectors)

    async def _find_embedder(self) -> EmbeddingModel:
        embedder = await self._tools.find_embedder(self._reindex)
        if embedder.state != "ready":
            self._patience.note_wait_for_model(f"model {self._reindex.embedding_model!r} is not ready yet")
        return embedder

    def _eta_s(self, num_left: int) -> float | None:
        if self._begun_at is None or not self._num_embedded or self._patience.waiting_for is not None:
            return None
        return (time.monotonic() - self._begun_at) / self._num_embedded * num_left

    # ---- swap

    async def _swap(self) -> bool:
        """Put the new edition in the old one's place; false if chunks have come that it does not have."""
        vectors, ids = await self._patience.call(self._make_index)
        return await self._patience.call(lambda: uninterrupted(self._commit(vectors, ids)))

    async def _make_index(self) -> tuple[FaissIndex | None, Ids]:
        """Make the index beforehand, so that no search waits for it; none for a store that nobody has searched."""
        if not self._tools.shelf.holds(self._reindex.store_id):
            return None, np.empty(0, np.int64)
        generation, ids, vectors = await self._tools.reindexes.vectors(self._reindex.edition)
        return await asyncio.to_thread(lambda: FaissIndex(generation, [vector_arrays(ids, vectors)])), ids

    async def _commit(self, vectors: FaissIndex | None, ids: Ids) -> bool:
        done = await self._tools.reindexes.swap(self._reindex.edition)
        if done is None:
            return False
        if vectors is not None:
            await asyncio.to_thread(_remove_others, vectors, self._reindex.dimensions, ids, done)
        self._tools.shelf.apply(VectorSwap(store_id=done.store_id, generation=done.generation, vectors=vectors))
        logger.info("reindexed", extra={**self._name, "chunks": len(done.chunk_ids)})
        return True


def _remove_others(vectors: VectorIndex, dimensions: int, ids: Ids, swapped: Swapped) -> None:
    """Bring an index of some chunks to those that a store has; it has all of these."""
    gone = np.setdiff1d(ids, swapped.chunk_ids, assume_unique=True)
    nothing = np.empty(0, np.int64), np.empty((0, dimensions), np.float32)
    vectors.apply(swapped.generation, *nothing, gone)
