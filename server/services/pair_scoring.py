"""Scores of one query with many documents: options in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.protocols import RerankModel, RerankResult
from server.types import Lane, Truncate


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How pairs are scored.

    Attributes:
        truncate: "error" or "end"; see `RerankModel.rerank`.
        max_tokens_per_doc: Documents are cut to this many tokens, whatever `truncate` says.
        raw_scores: Give logits in place of 0..1.
    """

    truncate: Truncate = "error"
    max_tokens_per_doc: int | None = None
    raw_scores: bool = False
    lane: Lane = "interactive"


async def score_documents(
    reranker: RerankModel,
    query: str,
    documents: Sequence[str],
    options: ScoringOptions,
    *,
    timeout_s: float | None = None,
) -> RerankResult:
    """Scores of all documents in their order, 0..1 or raw.

    Errors and `timeout_s` as in `RerankModel.rerank`: what was not scored in time is NaN.
    """
    # Equal documents as well: the model computes them once, and numbers them in its errors as the request does.
    result = await reranker.rerank(
        query,
        documents,
        truncate=options.truncate,
        lane=options.lane,
        max_tokens_per_doc=options.max_tokens_per_doc,
        timeout_s=timeout_s,
    )
    return result if options.raw_scores else replace(result, scores=result.relevance)
