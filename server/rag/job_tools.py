"""What ingestion jobs work with, and how they go about it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from server.protocols import EmbeddingModel
from server.rag.contexts import ContextWriter
from server.rag.document_store import DocumentStore
from server.rag.documents import StoreRecord
from server.rag.index_shelf import IndexShelf
from server.rag.parser import Parser
from server.rag.patience import Patience, RetryPolicy
from server.storage.file_store import FileStore


class FindEmbedder(Protocol):
    """Gives the model that a vector store's documents are embedded with."""

    async def __call__(self, store: StoreRecord) -> EmbeddingModel:
        """Wait until the model is loaded, and return it with `facts`.

        Raises:
            Conflict: It is not the model any more that the store's vectors come from.
            ModelUnavailable: It cannot be loaded now.
        """


class IsModelReady(Protocol):
    """Tells whether the model that a vector store's documents are embedded with answers at once."""

    def __call__(self, store: StoreRecord) -> bool:
        """True as well where there is no such model: whoever asks for it hears why."""


@dataclass(frozen=True)
class JobPolicy:
    """How a job goes about it.

    Attributes:
        slice_size: Chunks of one call to the model, after which what is embedded is safe from a crash.
        slices_ahead: Calls that wait in the model's queue, so that it can fill its batches.
        contexts_ahead: The same for contexts; how many are written at a time, for all jobs, is their writer's.
        max_chunks: Of a document, all of whose vectors are held in memory until they are committed together.
    """

    slice_size: int = 64
    slices_ahead: int = 2
    contexts_ahead: int = 2
    max_chunks: int = 100_000
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, kw_only=True)
class JobTools:
    """What all jobs work with.

    Attributes:
        suspects: `Patience`'s.
        cutting: Held by the one job that cuts its document. That may take seconds, of the interpreter and of a thread,
            which searches want too.
    """

    documents: DocumentStore
    files: FileStore
    shelf: IndexShelf
    parser: Parser
    find_embedder: FindEmbedder
    is_model_ready: IsModelReady
    contexts: ContextWriter = field(default_factory=lambda: ContextWriter(lambda: None))
    policy: JobPolicy = field(default_factory=JobPolicy)
    suspects: asyncio.Lock = field(default_factory=asyncio.Lock)
    cutting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ready_embedder(self, store: StoreRecord, patience: Patience) -> EmbeddingModel:
        """The store's model, for work that `patience` awaits. While it is not ready, that is what the job waits for."""
        if self.is_model_ready(store):
            return await self.find_embedder(store)
        patience.note_wait_for_model(f"model {store.embedding_model!r} is not ready yet")
        embedder = await self.find_embedder(store)
        await embedder.embed(["hello"], lane="bulk")  # which is answered as soon as it can be
        return embedder
