"""Rerank: a query and documents in, the documents by relevance out. And scores of pairs, in their order."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import ContextLengthExceeded, RequestTooLarge
from server.models.registry import ModelRegistry
from server.protocols import RerankModel, RerankResult
from server.services.pair_scoring import ScoringOptions, score_documents
from server.services.relevant_spans import SpanOptions, Spans, TokenCounts, find_spans

MAX_WINDOWS = 32
"""Pieces of one document that are scored to find its relevant spans."""

MIN_TIMEOUT_S = 0.001
"""What the search for spans gets when the ranking has used up the time."""

MAX_CONCURRENT_QUERIES = 16
"""Of one list of pairs: a model holds a limited number of requests, and others have some too."""

DEFAULT_SCORING = ScoringOptions()


@dataclass(frozen=True)
class RankedDocument:
    """`index` into the request's documents; `spans` is None where they were not asked for."""

    index: int
    score: float
    spans: Spans | None = None


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Documents by falling relevance, ties by index; those that were not scored in time are not among them.

    Attributes:
        num_documents: How many there were.
        num_scored: How many were scored in time.
        num_prompt_tokens: Tokens of all pairs that were scored, for spans too.
        num_truncated: Documents that were scored and lost text to truncation.
        num_cached: Documents that were scored without a forward pass.
        num_cached_tokens: Tokens of the pairs that no forward pass was made for, for spans too.
    """

    model_id: str
    documents: tuple[RankedDocument, ...]
    num_documents: int
    num_scored: int
    num_prompt_tokens: int
    num_truncated: int
    num_cached: int
    num_cached_tokens: int


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Scores of pairs in their order; counts as in `Ranking`."""

    model_id: str
    scores: tuple[float, ...]
    num_prompt_tokens: int
    num_truncated: int
    num_cached: int


class RerankService:
    """Finds the model, keeps the limits, scores, sorts."""

    def __init__(self, registry: ModelRegistry, limits: Limits) -> None:
        self._registry = registry
        self._max_documents = limits.max_documents

    async def rerank(
        self,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        timeout_s: float | None = None,
        spans: SpanOptions | None = None,
        scoring: ScoringOptions = DEFAULT_SCORING,
    ) -> Ranking:
        """Rank documents by relevance to the query; all of them, or the best `top_n`.

        Args:
            model: Id or alias; None takes the first configured reranker.
            query: Non-empty.
            documents: At least one; empty ones are scored like others.
            top_n: How many to return; more than there are means all.
            timeout_s: Documents are scored in their order as long as there is time; at least one is.
            spans: Find the sentences that matter in each document that is returned.

        Raises:
            ModelNotFound: No model of that name.
            RequestTooLarge: More documents than `limits.max_documents`.
            InvalidRequest: The model does not rerank.
            ContextLengthExceeded: A document is too long and is not to be truncated.
        """
        config, reranker = self._find(model, len(documents), param="documents")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        result = await score_documents(reranker, query, documents, scoring, timeout_s=timeout_s)
        ranked = _best_first(result, top_n)
        in_spans = TokenCounts()
        if spans is not None:
            found, in_spans = await find_spans(
                reranker,
                query,
                [documents[each.index] for each in ranked],
                wanted=spans,
                # No more in all than a request may have documents.
                max_windows=min(MAX_WINDOWS, max(1, self._max_documents // max(1, len(ranked)))),
                scoring=scoring,
                timeout_s=None if deadline is None else max(deadline - time.monotonic(), MIN_TIMEOUT_S),
            )
            ranked = [replace(each, spans=its) for each, its in zip(ranked, found, strict=True)]
        return Ranking(
            model_id=config.id,
            documents=tuple(ranked),
            num_documents=len(documents),
            num_scored=int(np.count_nonzero(~np.isnan(result.scores))),
            num_prompt_tokens=result.num_prompt_tokens + in_spans.num_tokens,
            num_truncated=result.num_truncated,
            num_cached=result.num_cached,
            num_cached_tokens=result.num_cached_tokens + in_spans.num_cached_tokens,
        )

    async def score(
        self,
        model: str | None,
        queries: Sequence[str],
        documents: Sequence[str],
        *,
        scoring: ScoringOptions = DEFAULT_SCORING,
    ) -> PairScores:
        """Score each query with the document at the same place. Errors as in `rerank`.

        Args:
            queries: As many as `documents`; none empty.
        """
        config, reranker = self._find(model, len(documents), param="text_2")
        places: dict[str, list[int]] = {}  # of each distinct query
        for index, query in enumerate(queries):
            places.setdefault(query, []).append(index)
        gate = asyncio.Semaphore(MAX_CONCURRENT_QUERIES)

        async def score_one(query: str) -> RerankResult:
            its = places[query]
            async with gate:
                try:
                    return await score_documents(reranker, query, [documents[index] for index in its], scoring)
                except ContextLengthExceeded as exc:
                    raise _of_pairs(exc, its) from exc

        results = await _gather([score_one(query) for query in places])
        scores = np.empty(len(documents), dtype=np.float32)
        for indexes, result in zip(places.values(), results, strict=True):
            scores[indexes] = result.scores
        return PairScores(
            model_id=config.id,
            scores=tuple(scores.tolist()),
            num_prompt_tokens=sum(result.num_prompt_tokens for result in results),
            num_truncated=sum(result.num_truncated for result in results),
            num_cached=sum(result.num_cached for result in results),
        )

    def _find(self, model: str | None, num_documents: int, *, param: str) -> tuple[ModelConfig, RerankModel]:
        found = self._registry.rerank(model)
        if num_documents > self._max_documents:
            raise RequestTooLarge(
                f"{param} has {num_documents} items but at most {self._max_documents} are accepted; "
                "send several requests",
                param=param,
            )
        return found


def _best_first(result: RerankResult, top_n: int | None) -> list[RankedDocument]:
    order = np.argsort(-result.scores, kind="stable")
    scored = order[~np.isnan(result.scores[order])]
    return [RankedDocument(int(index), float(result.scores[index])) for index in scored[:top_n]]


def _of_pairs(error: ContextLengthExceeded, places: Sequence[int]) -> ContextLengthExceeded:
    """What a model says of the query and of `documents[n]`, said of the pairs at these places."""
    if error.param == "query":
        name = f"text_1[{places[0]}]"
        return ContextLengthExceeded(error.message.replace("the query", name), param=name)
    if error.param and (found := re.fullmatch(r"documents\[(\d+)\]", error.param)):
        name = f"text_2[{places[int(found[1])]}]"
        return ContextLengthExceeded(error.message.replace(error.param, name), param=name)
    return error


async def _gather(work: Sequence[Coroutine[Any, Any, RerankResult]]) -> list[RerankResult]:
    """Results in order; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
