"""Documents put into a store without parser, chunker or model: a chunk for each text, with the vector it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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

TENANT = "ada"
EAST, NORTH = (1.0, 0.0), (0.0, 1.0)


async def add_store(documents: DocumentStore, *, dimensions: int = 2) -> str:
    store = await documents.create_store(
        TENANT, embedding_model="m", fingerprint="f", dimensions=dimensions, chunking=ChunkingStrategy()
    )
    return store.id


async def add_document(
    documents: DocumentStore,
    store_id: str,
    chunks: Sequence[tuple[str, Sequence[float]]],
    *,
    file_id: str,
    attributes: Attributes | None = None,
    context: str = "",
) -> ChunkChange:
    """Commit a document of chunks, each a text and a vector; a file of that id is made, or replaced in the store."""
    if file_id not in await documents.file_ids():
        file = FileRecord(id=file_id, filename="a.txt", purpose="assistants", num_bytes=1, sha256="", created_at=0)
        await documents.add_file(TENANT, file)
    [document] = await documents.add_documents(TENANT, store_id, [(file_id, attributes or {}, ChunkingStrategy())])
    text, spans = "", []
    for chunk, _ in chunks:
        spans.append(Span(len(text), len(text) + len(chunk)))
        text += f"{chunk}\n"
    change = await documents.complete(
        document.id,
        ParsedDocument(text, (), "text/plain"),
        ChunkedDocument(tuple(spans), tuple(ChunkDraft(span, parent, 1, context) for parent, span in enumerate(spans))),
        np.array([vector for _, vector in chunks], np.float32),
        [chunk.encode()[:16] for chunk, _ in chunks],
    )
    assert change is not None
    return change
