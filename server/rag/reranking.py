"""A second opinion on the best candidates: a cross-encoder reads query and chunk together.

It has a say, not the last word: on texts unlike those that it was trained on, it alone makes rankings worse. Where it
cannot answer, or not in time, a search does without it and says so.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.errors import HearthError
from server.protocols import RerankModel
from server.rag.documents import Chunk
from server.rag.embedded_text import embedded_text
from server.types import Lane

logger = logging.getLogger(__name__)

WEIGHT = 0.35
"""Of the cross-encoder in the blend: enough to bring a chunk that it is sure of, but that one arm has missed, before
chunks that it takes for irrelevant. On Cranfield, where it alone makes the fused ranking worse, weights up to 0.4 make
it no worse, or better (benchmarks/results/retrieval.json). What it does to texts that had no part in the choice:
docs/decisions/0014-chunks-and-context.md."""

MAX_TOKENS = 512
"""Of a chunk that are read, by models that could read more: 30 chunks have to be read within seconds."""

SOFT_SHARE = 0.75
"""Of the time that scoring gets: what is being computed by then may still be finished."""


@dataclass(frozen=True, kw_only=True)
class RerankPolicy:
    """How many of the best candidates are scored, and how long a search waits for that."""

    num_candidates: int = 30
    timeout_s: float = 2.0


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """Relevance 0..1 of the chunks that were scored, by id; `failure` says why that is not all of them."""

    relevance: Mapping[int, float] = field(default_factory=dict)
    failure: str | None = None


async def rerank(
    model: RerankModel, candidates: Mapping[str, Sequence[Chunk]], *, timeout_s: float, lane: Lane = "interactive"
) -> SecondOpinion:
    """Score chunks against the query that they are listed under, best candidates first. Never fails."""
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            scoring = [
                group.create_task(_score(model, query, chunks, timeout_s=SOFT_SHARE * timeout_s, lane=lane))
                for query, chunks in candidates.items()
            ]
    except TimeoutError:
        return _without(f"the reranker did not answer within {timeout_s:g} s")
    except ExceptionGroup as errors:
        if not isinstance(errors.exceptions[0], HearthError):
            raise
        return _without(errors.exceptions[0].message)
    relevance = {chunk_id: score for each in scoring for chunk_id, score in each.result().items()}
    num_wanted = sum(len(chunks) for chunks in candidates.values())
    if len(relevance) == num_wanted:
        return SecondOpinion(relevance=relevance)
    failure = f"{len(relevance)} of {num_wanted} chunks were reranked within {timeout_s:g} s"
    return SecondOpinion(relevance=relevance, failure=failure)


def blend(fused: float, relevance: float | None) -> float:
    """Average a fused score with the cross-encoder's, both 0..1.

    What was not scored counts as irrelevant, and so stays behind: candidates are scored from the best down.
    """
    return (1 - WEIGHT) * fused + WEIGHT * (relevance or 0.0)


async def _score(
    model: RerankModel, query: str, chunks: Sequence[Chunk], *, timeout_s: float, lane: Lane
) -> dict[int, float]:
    texts = [embedded_text(chunk.text, heading=chunk.span.heading, columns=chunk.columns) for chunk in chunks]
    result = await model.rerank(
        query, texts, truncate="end", lane=lane, max_tokens_per_doc=MAX_TOKENS, timeout_s=timeout_s
    )
    scored = zip(chunks, result.relevance.tolist(), strict=True)
    return {chunk.id: score for chunk, score in scored if not math.isnan(score)}


def _without(failure: str) -> SecondOpinion:
    logger.warning("search without reranker", extra={"reason": failure})
    return SecondOpinion(failure=failure)
