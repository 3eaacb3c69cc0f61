"""The sentences of a document that matter for a query, found by the cross-encoder that ranked the document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from server.protocols import RerankModel
from server.services.pair_scoring import ScoringOptions, score_documents
from server.services.sentence_windows import split_windows


@dataclass(frozen=True, kw_only=True)
class SpanOptions:
    """Which spans of a document to give: those that score `threshold` (0..1) or more, the best `max_spans` of them."""

    threshold: float = 0.1
    max_spans: int | None = None


@dataclass(frozen=True)
class RelevantSpan:
    """A stretch of a document, `start` to `end` in code points, half-open; `score` is 0..1."""

    start: int
    end: int
    score: float


Spans = tuple[RelevantSpan, ...]


class TokenCounts(NamedTuple):
    """Tokens that were scored, and how many of them without a forward pass."""

    num_tokens: int = 0
    num_cached_tokens: int = 0


async def find_spans(
    reranker: RerankModel,
    query: str,
    documents: Sequence[str],
    *,
    wanted: SpanOptions,
    max_windows: int,
    scoring: ScoringOptions,
    timeout_s: float | None,
) -> tuple[list[Spans], TokenCounts]:
    """Score windows of sentences and keep the relevant ones.

    Args:
        max_windows: At most so many windows of each document are scored; longer documents get longer windows.
        scoring: As the documents were scored. Windows that are too long are cut at their end in any case.
        timeout_s: Windows that are not scored by then are not relevant; the first documents come first.

    Returns:
        For each document its spans, best first; and what that took.
    """
    # Large documents take a while to cut, and the event loop has streams to feed.
    windows = await asyncio.to_thread(lambda: [split_windows(text, max_windows) for text in documents])
    parts = [text[start:end] for text, its in zip(documents, windows, strict=True) for start, end in its]
    if not parts:
        return [() for _ in documents], TokenCounts()
    scoring = replace(scoring, truncate="end", max_tokens_per_doc=None, raw_scores=False)
    result = await score_documents(reranker, query, parts, scoring, timeout_s=timeout_s)
    scores = iter(result.scores.tolist())
    spans = [[RelevantSpan(start, end, next(scores)) for start, end in its] for its in windows]
    counts = TokenCounts(result.num_prompt_tokens, result.num_cached_tokens)
    return [_choose(its, wanted) for its in spans], counts


def _choose(spans: Sequence[RelevantSpan], wanted: SpanOptions) -> Spans:
    relevant = [span for span in spans if span.score >= wanted.threshold]  # never so for NaN
    return tuple(sorted(relevant, key=lambda span: -span.score)[: wanted.max_spans])
