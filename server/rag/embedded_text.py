"""What is embedded of a chunk: where it stands, then its text. Why so: docs/decisions/0014-chunks-and-context.md."""

from __future__ import annotations

import hashlib

from server.rag.documents import ChunkedDocument

_HASH_BYTES = 16


def embedded_text(text: str, *, heading: str, columns: str = "", context: str = "") -> str:
    """Put before a chunk's text what it says nothing of itself.

    Args:
        heading: As `Span.heading`.
        columns, context: As `Chunk.columns` and `Chunk.context`.
    """
    return "\n".join(part for part in (context, heading, columns, text) if part)


def embedded_texts(text: str, chunked: ChunkedDocument) -> list[str]:
    """Return what is embedded of each chunk of a document; `text` is the document's."""
    return [
        embedded_text(
            text[each.span.start : each.span.end],
            heading=each.span.heading,
            columns=each.columns,
            context=each.context,
        )
        for each in chunked.chunks
    ]


def hash_of(embedded: str) -> bytes:
    """Name what is embedded, as the chunks of a store are known by."""
    return hashlib.sha256(embedded.encode()).digest()[:_HASH_BYTES]
