"""Documents that come with a request become sources: whole where there is room for all, else their best parts."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from server.errors import RequestTooLarge
from server.protocols import RerankModel
from server.rag.documents import Span
from server.rag.prompt import Source
from server.rag.relevance import relevance
from server.rag.reranking import RerankPolicy
from server.rag.words import words_of
from server.services.grounding import GivenDocument
from server.services.sentence_windows import split_passages

MAX_CHARS = 1_000_000
"""Of all documents of a request: what is searched anew for each request must be small."""


def whole_sources(documents: Sequence[GivenDocument]) -> list[Source]:
    """A source for each document, in their order, which is that of the prompt too.

    Raises:
        RequestTooLarge: They have more than `MAX_CHARS` characters.
    """
    num_chars = sum(len(document.text) for document in documents)
    if num_chars > MAX_CHARS:
        raise RequestTooLarge(
            f"documents has {num_chars} characters but at most {MAX_CHARS} are accepted; put them into a vector store",
            param="documents",
        )
    return [
        Source(
            document_id=index - len(documents),  # below 0, before those of stores
            file_id=document.id,
            filename=document.title or document.id,
            span=Span(0, len(document.text)),
            text=document.text,
            fields=document.fields,
        )
        for index, document in enumerate(documents)
    ]


async def best_parts(
    sources: Sequence[Source], query: str, reranker: RerankModel | None, policy: RerankPolicy
) -> list[Source]:
    """Cut documents into parts, best first: those with the query's words, sorted by the reranker as far as it gets."""
    parts = await asyncio.to_thread(_parts_by_words, sources, query)
    best, rest = parts[: policy.num_candidates], parts[policy.num_candidates :]
    if reranker is None or not query.strip():
        return parts
    scores = await relevance(reranker, query, [part.text for part in best], timeout_s=policy.timeout_s)
    scored = [replace(part, score=score or 0.0) for part, score in zip(best, scores, strict=True)]
    return sorted(scored, key=lambda part: -part.score) + rest


def _parts_by_words(sources: Sequence[Source], query: str) -> list[Source]:
    """All parts; first those that have most of the query's words, of which rare ones count more."""
    parts = [_part(source, *window) for source in sources for window in split_passages(source.text)]
    wanted = set(words_of(query))
    found = [wanted.intersection(words_of(part.text)) for part in parts]
    num_parts_with = Counter(word for words in found for word in words)
    worth = {word: math.log(1 + len(parts) / number) for word, number in num_parts_with.items()}
    ranked = sorted(zip(parts, found, strict=True), key=lambda pair: -math.fsum(worth[word] for word in pair[1]))
    return [part for part, _ in ranked]


def _part(source: Source, start: int, end: int) -> Source:
    return replace(source, span=replace(source.span, start=start, end=end), text=source.text[start:end])
