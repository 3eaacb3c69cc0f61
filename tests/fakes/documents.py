"""Small documents for tests of what stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from server.rag.document_store import DocumentStore
from server.rag.documents import (
    ChunkChange,
    ChunkDraft,
    ChunkedDocument,
    ChunkingStrategy,
    FileRecord,
    ParsedDocument,
    Span,
    StoreRecord,
    Vectors,
)
from server.rag.rows import sweeps
from server.storage.database import Database

DIMENSIONS = 8


def a_file(file_id: str, *, expires_at: int | None = None) -> FileRecord:
    return FileRecord(
        id=file_id,
        filename=f"{file_id}.txt",
        purpose="assistants",
        num_bytes=3,
        sha256="0" * 64,
        created_at=1000,
        expires_at=expires_at,
    )


async def a_store(
    documents: DocumentStore, tenant: str = "default", *, expires_after_days: int | None = None
) -> StoreRecord:
    return await documents.create_store(
        tenant,
        expires_after_days=expires_after_days,
        embedding_model="mini",
        fingerprint="f",
        dimensions=DIMENSIONS,
        chunking=ChunkingStrategy(),
    )


async def swept(database: Database) -> None:
    """Have done in one go what a `Sweeper` would do in slices."""
    assert (await database.write(lambda db: sweeps.sweep(db, lambda: False))).is_last


def cut(text: str, spans: Sequence[Span]) -> tuple[ParsedDocument, ChunkedDocument, Vectors, list[bytes]]:
    """A document with these chunks under one parent: what `DocumentStore.complete` takes, embedded by hash."""
    parents = (Span(0, len(text), page=1, heading="all"),)
    drafts = tuple(ChunkDraft(span, parent=0, num_tokens=span.end - span.start) for span in spans)
    hashes = [hashlib.sha256(text[span.start : span.end].encode()).digest() for span in spans]
    vectors = np.array([vector_of(each) for each in hashes], np.float32).reshape(len(spans), DIMENSIONS)
    return ParsedDocument(text, (), "text/plain"), ChunkedDocument(parents, drafts), vectors, hashes


def vector_of(content: bytes) -> Vectors:
    """A vector that tells contents apart, and that fp16 holds exactly."""
    return np.frombuffer(hashlib.sha256(content).digest()[:DIMENSIONS], np.uint8).astype(np.float32) / 256


async def completed(
    documents: DocumentStore, store_id: str, file_id: str, text: str, *spans: Span, tenant: str = "default"
) -> ChunkChange:
    """Put a file that is there already into a store, to the end; one chunk of everything unless spans are given."""
    [document] = await documents.add_documents(tenant, store_id, [(file_id, {}, ChunkingStrategy())])
    change = await documents.complete(document.id, *cut(text, spans or (Span(0, len(text)),)))
    assert change is not None
    return change
