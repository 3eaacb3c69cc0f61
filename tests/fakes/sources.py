"""What a search finds in a vector store, and how answers that rest on it cite it."""

from __future__ import annotations

from typing import Any

from server.rag.documents import Chunk, Span
from server.rag.search import Hit, Place, SearchOutcome

TEXT = "Knead the dough for ten minutes. Then let it rest."
CHUNK = Chunk(
    id=7,
    document_id=1,
    file_id="file-1",
    filename="bread.pdf",
    ordinal=0,
    text=TEXT,
    span=Span(10, 10 + len(TEXT), page=3, heading="Bread > Dough"),
    parent_id=4,
    num_tokens=10,
)
OUTCOME = SearchOutcome(queries=(), hits=(Hit(chunk=CHUNK, score=0.75, places={"rerank": Place(1, 0.9)}),))
SEARCH: dict[str, Any] = {"type": "file_search", "vector_store_ids": ["vs_1"]}
ANNOTATION = {
    "type": "file_citation",
    "index": 0,
    "file_id": "file-1",
    "filename": "bread.pdf",
    "start_index": 22,
    "end_index": 25,
    "x": {
        "number": 1,
        "by": "model",
        "supported": True,
        "page": 3,
        "section": "Bread > Dough",
        "start": 10,
        "end": 42,
        "quote": "Knead the dough for ten minutes.",
    },
}
CITATION = {
    "start": 0,
    "end": 26,
    "text": "Knead for ten minutes [1].",
    "type": "TEXT_CONTENT",
    "sources": [
        {
            "type": "document",
            "id": "file-1",
            "document": {"id": "file-1", "title": "bread.pdf", "snippet": "Knead the dough for ten minutes."},
        }
    ],
    "x": {"numbers": [1], "by": "model", "supported": True, "overlap": 1.0, "score": None},
}
SOURCE = {
    "number": 1,
    "file_id": "file-1",
    "filename": "bread.pdf",
    "page": 3,
    "section": "Bread > Dough",
    "start": 10,
    "end": 10 + len(TEXT),
    "score": 0.75,
    "text": TEXT,
}
