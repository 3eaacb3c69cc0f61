"""A vector store with real storage and indexes and without models: what fills and searches it in benchmarks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.vector_corpus import Corpus, CorpusDocument
from server.protocols import EmbeddingModel, EmbeddingResult
from server.rag.document_store import DocumentStore
from server.rag.documents import (
    Attributes,
    ChunkDraft,
    ChunkedDocument,
    ChunkingStrategy,
    FileRecord,
    ParsedDocument,
    Span,
)
from server.rag.index_shelf import IndexShelf
from server.rag.retriever import Retriever
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from server.types import DEFAULT_TENANT, ModelFacts


@dataclass(frozen=True)
class StoreRig:
    """A data directory and what searches it."""

    documents: DocumentStore
    shelf: IndexShelf
    retriever: Retriever
    corpus: Corpus


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[StoreRig]:
    layout, corpus = DataLayout(folder), Corpus()
    database = await asyncio.to_thread(Database.open, layout.database)
    documents = DocumentStore(database)
    shelf = IndexShelf(documents, layout.indexes)
    embedding = cast(EmbeddingModel, StubEmbedding(corpus))  # the state of a served model is not asked for
    yield StoreRig(documents, shelf, Retriever(documents, shelf, embedding, None), corpus)
    await shelf.save_all()
    await asyncio.to_thread(database.close)


class StubEmbedding:
    """Has a vector for everything, at once."""

    facts: ModelFacts | None = None

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    async def embed(self, inputs: Sequence[str], **_options: object) -> EmbeddingResult:
        return EmbeddingResult(self._corpus.vectors(len(inputs)), num_prompt_tokens=0)


async def insert(rig: StoreRig, store_id: str, document: CorpusDocument) -> float:
    """Put a document into the store; return the milliseconds from its commit's begin until searches see it."""
    file_id = f"file-{document.number}"
    file = FileRecord(id=file_id, filename="a.txt", purpose="assistants", num_bytes=1, sha256="", created_at=0)
    await rig.documents.add_file(DEFAULT_TENANT, file)
    attributes: Attributes = {"percent": document.number % 100, "lang": "en", "draft": False}
    [record] = await rig.documents.add_documents(DEFAULT_TENANT, store_id, [(file_id, attributes, ChunkingStrategy())])
    text, spans = "", []
    for chunk in document.texts:
        spans.append(Span(len(text), len(text) + len(chunk)))
        text += f"{chunk}\n"
    drafts = tuple(ChunkDraft(span, position, len(document.texts)) for position, span in enumerate(spans))
    hashes = [b"%d %d" % (document.number, position) for position in range(len(spans))]

    async def commit() -> None:
        change = await rig.documents.complete(
            record.id,
            ParsedDocument(text, (), "text/plain"),
            ChunkedDocument(tuple(spans), drafts),
            document.vectors,
            hashes,
        )
        assert change is not None
        rig.shelf.apply(change)
        await rig.shelf.at_least(store_id, change.generation)

    return await timed_ms(commit)


async def timed_ms(work: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - started)
