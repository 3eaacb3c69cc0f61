"""Writes the file that a store is exported to: `store_file.py` says what it looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from server.rag.documents import ChunkDraft, Span, StoredDocument, StoreRecord
from server.rag.halves import HALF, Halves
from server.rag.store_file import (
    LENGTH,
    MAGIC,
    MAX_FRAME_BYTES,
    VERSION,
    ChunkRow,
    Chunks,
    Content,
    Document,
    End,
    Head,
    Message,
    ParentRow,
    Parents,
    Text,
)

_TEXT_CHARS = 1 << 18  # of a message: 1 MiB at the most
_ROWS = 128  # of a message, and fewer if their vectors are long
_VECTOR_BYTES = 1 << 20


class StoreFileWriter:
    """Makes the bytes of a file, one call after another; what the methods return belongs together in that order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._num_documents = 0

    def head(self, store: StoreRecord) -> bytes:
        self._digest.update(MAGIC)
        head = Head(
            version=VERSION,
            name=store.name,
            description=store.description,
            metadata=store.metadata,
            expires_after_days=store.expires_after_days,
            embedding_model=store.embedding_model,
            fingerprint=store.fingerprint,
            dimensions=store.dimensions,
            chunking=store.chunking,
        )
        return MAGIC + self._frame(head)

    def document(self, document: StoredDocument) -> Iterator[bytes]:
        """All of a document but the bytes of its file, which follow."""
        file, text, chunked = document.file, document.text, document.chunked
        self._num_documents += 1
        yield self._frame(
            Document(
                filename=file.filename,
                purpose=file.purpose,
                num_bytes=file.num_bytes,
                sha256=file.sha256,
                created_at=file.created_at,
                attributes=dict(document.attributes),
                chunking=document.chunking,
                pages=list(chunked.pages),
            )
        )
        for start in range(0, len(text), _TEXT_CHARS):
            yield self._frame(Text(text=text[start : start + _TEXT_CHARS]))
        for start in range(0, len(chunked.parents), _ROWS):
            spans = chunked.parents[start : start + _ROWS]
            yield self._frame(Parents(rows=[ParentRow(*_place(span)) for span in spans]))
        yield from self._chunks(chunked.chunks, document.vectors)

    def content(self, content: bytes) -> bytes:
        """At most `CONTENT_BYTES` of a document's file."""
        return self._frame(Content(content=content))

    def end(self) -> bytes:
        return self._frame(End(num_documents=self._num_documents, sha256=self._digest.digest()))

    def _chunks(self, chunks: Sequence[ChunkDraft], vectors: Halves) -> Iterator[bytes]:
        halves = vectors.astype(HALF, copy=False)
        num_rows = max(1, min(_ROWS, _VECTOR_BYTES // (halves.shape[1] * HALF.itemsize)))
        for start in range(0, len(chunks), num_rows):
            rows = [
                ChunkRow(*_place(each.span), each.parent, each.num_tokens, each.context, each.context_key, each.columns)
                for each in chunks[start : start + num_rows]
            ]
            yield self._frame(Chunks(rows=rows, vectors=halves[start : start + num_rows].tobytes()))

    def _frame(self, message: Message) -> bytes:
        content = msgspec.msgpack.encode(message)
        assert len(content) <= MAX_FRAME_BYTES, "nobody would read it"
        frame = LENGTH.pack(len(content)) + content
        self._digest.update(frame)
        return frame


def _place(span: Span) -> tuple[int, int, int | None, str]:
    return span.start, span.end, span.page, span.heading
