"""The answer to a search, as OpenAI writes it; `x` holds what it has no field for."""

from __future__ import annotations

from typing import Any

from server.rag.documents import Chunk
from server.rag.search import Explanation, Hit, SearchOutcome, Stage, StageName

STAGES: dict[StageName, str] = {
    "dense": "dense",
    "lexical": "lexical",
    "fused": "rrf",
    "rerank": "rerank",
    "final": "final",
}
"""What clients know the stages by."""
_RANKED: tuple[StageName, ...] = ("dense", "lexical", "fused", "rerank")


def search_body(outcome: SearchOutcome) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "num_reranked": outcome.num_reranked,
        "rerank_failure": outcome.rerank_failure,
        "timings_ms": outcome.timings_ms,
    }
    if outcome.explanation is not None:
        extra["explanation"] = _explanation_body(outcome.explanation)
    return {
        "object": "vector_store.search_results.page",
        "search_query": outcome.queries,
        "data": [_hit_body(hit) for hit in outcome.hits],
        "has_more": False,
        "next_page": None,
        "x": extra,
    }


def _hit_body(hit: Hit) -> dict[str, Any]:
    ranks = {STAGES[stage]: hit.places[stage].rank if stage in hit.places else None for stage in _RANKED}
    return {
        "file_id": hit.chunk.file_id,
        "filename": hit.chunk.filename,
        "score": hit.score,
        "attributes": hit.chunk.attributes,
        "content": [{"type": "text", "text": hit.chunk.text}],
        "x": {**_place_body(hit.chunk), "parent_id": hit.chunk.parent_id, "ranks": ranks},
    }


def _place_body(chunk: Chunk) -> dict[str, Any]:
    """Where a chunk stands in its document; `start` and `end` count code points of the document's text."""
    span = chunk.span
    return {
        "chunk_id": chunk.id,
        "page": span.page,
        "heading": span.heading,
        "start": span.start,
        "end": span.end,
    }


def _explanation_body(explanation: Explanation) -> dict[str, Any]:
    chunks = [
        {"file_id": chunk.file_id, "filename": chunk.filename, **_place_body(chunk)}
        for chunk in explanation.chunks.values()
    ]
    dropped = [{"chunk_id": chunk_id, "reason": reason} for chunk_id, reason in explanation.dropped.items()]
    return {"stages": [_stage_body(stage) for stage in explanation.stages], "chunks": chunks, "dropped": dropped}


def _stage_body(stage: Stage) -> dict[str, Any]:
    candidates = [
        {"chunk_id": chunk_id, "rank": rank, "score": score}
        for rank, (chunk_id, score) in enumerate(zip(stage.ids, stage.scores, strict=True), start=1)
    ]
    return {"name": STAGES[stage.name], "query": stage.query, "candidates": candidates}
