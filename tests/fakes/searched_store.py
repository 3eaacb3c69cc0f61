"""A vector store in a real database, filled in a line, and an embedder that knows what a few words are about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from server.protocols import EmbeddingResult
from server.rag.document_store import DocumentStore
from server.rag.documents import (
    Attributes,
    ChunkChange,
    ChunkDraft,
    ChunkedDocument,
    ChunkingStrategy,
    FileRecord,
    ParsedDocument,
    Span,
)
from server.rag.index_shelf import IndexShelf
from server.storage.database import Database
from server.types import Lane, ModelFacts, TokenIds, Truncate
from tests.fakes.models import FakeEmbedder

TENANT = "ada"

TOPICS = ("car auto vehicle", "dog hound puppy", "tea coffee cocoa", "rain snow hail")
"""Words of one topic have the same vector; all others have one more."""


def topic_vector(text: str) -> np.ndarray:
    """Of norm 1: how much a text is about each topic, and about none."""
    words = text.casefold().split()
    counts = [sum(word in topic.split() for word in words) for topic in TOPICS]
    vector = np.array([*counts, 0.1 * (len(words) - sum(counts)) + 0.01], np.float32)
    return vector / np.linalg.norm(vector)


@dataclass
class TopicEmbedder(FakeEmbedder):
    """Embeds by `topic_vector`."""

    facts: ModelFacts | None = field(
        default_factory=lambda: ModelFacts(context_length=512, dimensions=5, prompts={"query": "query: "})
    )

    async def embed(
        self,
        inputs: Sequence[str] | Sequence[TokenIds],
        *,
        truncate: Truncate = "error",
        prompt: str = "",
        lane: Lane = "interactive",
        normalize: bool = True,
    ) -> EmbeddingResult:
        await super().embed(inputs, truncate=truncate, prompt=prompt, lane=lane, normalize=normalize)
        return EmbeddingResult(np.stack([topic_vector(str(text)) for text in inputs]), 1)


@dataclass
class SearchedStores:
    """The data directory of one tenant. Every document is one chunk, or several pieces in one parent."""

    documents: DocumentStore
    shelf: IndexShelf
    num_files: int = 0

    async def add_store(self, *texts: str) -> str:
        """Make a store of documents named 1.txt, 2.txt, ...; return its id."""
        store = await self.documents.create_store(
            TENANT, embedding_model="topics", fingerprint="f", dimensions=5, chunking=ChunkingStrategy()
        )
        for number, text in enumerate(texts, start=1):
            await self.add(store.id, text, name=f"{number}.txt")
        return store.id

    async def add(
        self, store_id: str, *pieces: str, name: str = "a.txt", attributes: Attributes | None = None, heading: str = ""
    ) -> str:
        """Put a document into a store, as an ingestion job does; return the file's id."""
        file_id, change = await self.commit(store_id, *pieces, name=name, attributes=attributes, heading=heading)
        self.shelf.apply(change)
        return file_id

    async def commit(
        self, store_id: str, *pieces: str, name: str = "a.txt", attributes: Attributes | None = None, heading: str = ""
    ) -> tuple[str, ChunkChange]:
        """As `add`, without telling the index."""
        self.num_files += 1
        file = FileRecord(
            id=f"file-{self.num_files}", filename=name, purpose="assistants", num_bytes=1, sha256="0", created_at=1
        )
        await self.documents.add_file(TENANT, file)
        return file.id, await self.commit_again(store_id, file.id, *pieces, attributes=attributes, heading=heading)

    async def commit_again(
        self, store_id: str, file_id: str, *pieces: str, attributes: Attributes | None = None, heading: str = ""
    ) -> ChunkChange:
        """Put a file into a store, in place of what was made of it before, without telling the index."""
        [document] = await self.documents.add_documents(
            TENANT, store_id, [(file_id, attributes or {}, ChunkingStrategy())]
        )
        text = "\n".join(pieces)
        starts = np.cumsum([0, *(len(piece) + 1 for piece in pieces)]).tolist()
        spans = [Span(start, start + len(piece), heading=heading) for start, piece in zip(starts, pieces, strict=False)]
        change = await self.documents.complete(
            document.id,
            ParsedDocument(text, (), "text/plain"),
            ChunkedDocument(
                (Span(0, len(text)),),
                tuple(ChunkDraft(span, 0, len(piece)) for span, piece in zip(spans, pieces, strict=True)),
            ),
            np.stack([topic_vector(piece) for piece in pieces]),
            [piece.encode() for piece in pieces],
        )
        assert change is not None
        return change


@asynccontextmanager
async def open_stores(folder: Path) -> AsyncIterator[SearchedStores]:
    database = await asyncio.to_thread(Database.open, folder / "hearth.db")
    try:
        documents = DocumentStore(database)
        yield SearchedStores(documents, IndexShelf(documents, folder / "indexes"))
    finally:
        await asyncio.to_thread(database.close)
