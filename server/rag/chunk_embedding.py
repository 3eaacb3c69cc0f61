"""The chunks of one document, embedded slice by slice: what a crash leaves of them, and how far they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from server.errors import ObjectNotFound
from server.rag.bulk_embedding import embed_documents
from server.rag.documents import ChunkedDocument, ParsedDocument, StoreRecord, Vectors
from server.rag.embedded_text import embedded_texts, hash_of
from server.rag.halves import HALF
from server.rag.job_tools import JobTools
from server.rag.patience import Patience

_Slice = list[tuple[bytes, str]]  # hash and text of some chunks


class ChunkEmbedding:
    """Gets one job the vectors of its chunks.

    Args:
        document_id: The job's.
        on_kept: Called when a slice has become safe from a crash.

    Attributes:
        num_chunks: Of the document; 0 until they are known.
        num_chunks_done: Of these, those with a vector.
    """

    def __init__(self, document_id: int, tools: JobTools, patience: Patience, *, on_kept: Callable[[], None]) -> None:
        self._document_id = document_id
        self._tools = tools
        self._patience = patience
        self._on_kept = on_kept
        self.num_chunks = self.num_chunks_done = 0
        self._since: tuple[float, int] | None = None  # monotonic time, and the chunks that were done then

    async def run(
        self, store: StoreRecord, parsed: ParsedDocument, chunked: ChunkedDocument
    ) -> tuple[Vectors, list[bytes]]:
        """Return a vector and a hash for each chunk. Only texts that the store has no vector of yet are computed."""
        texts, hashes = await asyncio.to_thread(_texts_of, parsed, chunked)
        known = await self._patience.call(
            lambda: self._tools.documents.known_vectors(store.id, hashes, edition=store.edition)
        )
        missing = list({key: text for key, text in zip(hashes, texts, strict=True) if key not in known}.items())
        self.num_chunks, self.num_chunks_done = len(hashes), len(hashes) - len(missing)
        self._since = time.monotonic(), self.num_chunks_done
        slices = _slices(missing, self._tools.policy.slice_size)
        is_long = len(missing) > self._tools.policy.slice_size
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._tools.policy.slices_ahead):
                    group.create_task(self._embed_slices(store, slices, known, keep=is_long))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return await asyncio.to_thread(_vectors_of, known, hashes), hashes

    async def _embed_slices(
        self, store: StoreRecord, slices: Iterator[_Slice], known: dict[bytes, bytes], *, keep: bool
    ) -> None:
        """Take slices until there are none, and add their vectors to `known`. `keep` them from a crash, too."""
        keep_pending = partial(self._tools.documents.keep_pending, edition=store.edition)
        for batch in slices:
            vectors = await self._patience.call(partial(self._embed_slice, store, batch))
            if keep:
                if not await self._patience.call(partial(keep_pending, self._document_id, vectors)):
                    raise ObjectNotFound("the job is over")
                self._on_kept()
            known.update(vectors)
            self.num_chunks_done += len(batch)

    async def _embed_slice(self, store: StoreRecord, batch: _Slice) -> dict[bytes, bytes]:
        await self._tools.ready_embedder(store, self._patience)
        rows = await embed_documents([text for _, text in batch], partial(self._tools.find_embedder, store))
        return {key: row.tobytes() for (key, _), row in zip(batch, rows, strict=True)}

    def eta_s(self) -> float | None:
        """Seconds until all chunks have vectors; None while nothing tells, or the job waits."""
        if self._since is None or self._patience.waiting_for is not None:
            return None
        since, num_known = self._since
        num_embedded = self.num_chunks_done - num_known
        num_left = self.num_chunks - self.num_chunks_done
        return (time.monotonic() - since) / num_embedded * num_left if num_embedded else None


def _texts_of(parsed: ParsedDocument, chunked: ChunkedDocument) -> tuple[list[str], list[bytes]]:
    """The text of each chunk that is embedded, and its hash."""
    texts = embedded_texts(parsed.text, chunked)
    return texts, [hash_of(text) for text in texts]


def _vectors_of(known: dict[bytes, bytes], hashes: list[bytes]) -> Vectors:
    rows = np.frombuffer(b"".join(known[key] for key in hashes), HALF)
    return rows.reshape(len(hashes), -1).astype(np.float32)


def _slices(items: _Slice, size: int) -> Iterator[_Slice]:
    return (items[start : start + size] for start in range(0, len(items), size))
