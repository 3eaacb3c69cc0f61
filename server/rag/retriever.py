"""Finds the chunks of vector stores that answer queries: two arms search, their rankings are fused, repetitions are
dropped, and a cross-encoder has a say about the best.

What is committed when a search begins is found by it, or what has taken its place since. Knows nothing of HTTP, nor
which models serve a store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.errors import Reindexed
from server.protocols import EmbeddingModel, RerankModel
from server.rag.arms import Arms, SearchedStore
from server.rag.document_store import DocumentStore
from server.rag.documents import Chunk, Parent, StoreRecord
from server.rag.filters import Filter
from server.rag.fusion import Ranking, fuse
from server.rag.index_shelf import IndexShelf
from server.rag.near_duplicates import NearDuplicates
from server.rag.reranking import RerankPolicy, SecondOpinion, blend, rerank
from server.rag.search import Hit, SearchOptions, SearchOutcome, Stage
from server.rag.search_trace import SearchTrace, best_query
from server.rag.stopwatch import Stopwatch

NUM_CANDIDATES = 100
"""Chunks that an arm finds for a query, and that fusion leaves."""

MAX_TRIES = 3
"""Of a search beside which documents are replaced or removed: the last one passes over what it misses."""

DEFAULT_OPTIONS = SearchOptions()
DEFAULT_POLICY = RerankPolicy()

Scores = dict[int, float]
"""By chunk id, best first."""


@dataclass(frozen=True)
class _Found:
    """What one try has found. `has_gaps`: chunks have gone meanwhile, and what came for them may be missing."""

    arms: Sequence[Stage]
    fused: Scores
    chunks: Sequence[Chunk]
    trace: SearchTrace
    has_gaps: bool


class Retriever:
    """Searches vector stores whose vectors all come from one embedding model."""

    def __init__(
        self,
        documents: DocumentStore,
        shelf: IndexShelf,
        embedding: EmbeddingModel,
        reranker: RerankModel | None,
        policy: RerankPolicy = DEFAULT_POLICY,
    ) -> None:
        self._documents = documents
        self._shelf = shelf
        self._embedding = embedding
        self._arms = Arms(embedding, NUM_CANDIDATES)
        self._reranker = reranker
        self._policy = policy

    async def search(
        self, tenant: str, store_ids: Sequence[str], queries: Sequence[str], options: SearchOptions = DEFAULT_OPTIONS
    ) -> SearchOutcome:
        """Find what answers the queries best, all of them together.

        Args:
            store_ids: At least one.
            queries: At least one, none empty.

        Raises:
            ObjectNotFound: The tenant has no such store.
            Reindexed: A store's vectors are not the embedding model's, or not any more.
            ModelUnavailable: The embedding model cannot answer; without the reranker, a search goes on.
            StorageError: The database cannot be read.
        """
        watch = Stopwatch()
        for _ in range(MAX_TRIES):
            found = await self._find(tenant, store_ids, queries, options, watch)
            if not found.has_gaps:
                break
        chunks, trace = found.chunks, found.trace
        with watch.lap("rerank"):
            opinion = await self._rerank(found.arms, chunks, options)
        trace.add_ranking("rerank", _best_first(opinion.relevance))
        final = _best_first(_final_score(chunks, found.fused, opinion))
        trace.add_ranking("final", final)
        with watch.lap("show"):
            hits = await self._show(chunks, final, trace, options)
        return SearchOutcome(
            queries=tuple(queries),
            hits=tuple(hits),
            num_reranked=len(opinion.relevance),
            rerank_failure=opinion.failure,
            timings_ms=watch.times_ms(),
            explanation=trace.explanation() if options.explain else None,
        )

    async def _find(
        self,
        tenant: str,
        store_ids: Sequence[str],
        queries: Sequence[str],
        options: SearchOptions,
        watch: Stopwatch,
    ) -> _Found:
        """Ask both arms, and read the best that they have found together."""
        trace = SearchTrace()
        with watch.lap("open"):
            searched = [await self._open(tenant, store_id, options.filter) for store_id in dict.fromkeys(store_ids)]
        arms = await self._arms.search(searched, list(dict.fromkeys(queries)), options, watch)
        trace.add(arms)
        fused = _fuse(arms, options)
        trace.add_ranking("fused", fused)
        with watch.lap("select"):
            chunks, is_complete = await self._select(fused, queries, self._num_needed(options), trace)
        has_gaps = not is_complete or (options.filter is not None and any(each.has_lost_chunks for each in searched))
        return _Found(arms, fused, chunks, trace, has_gaps)

    async def _open(self, tenant: str, store_id: str, wanted: Filter | None) -> SearchedStore:
        """Wait until the index of a store has what is committed now."""
        record = await self._documents.store(tenant, store_id)
        generation, allowed_ids = record.generation, None
        if wanted is not None:
            generation, allowed_ids = await self._documents.allowed_chunks(store_id, wanted)
        index = await self._shelf.at_least(store_id, generation)
        if index.vectors.generation > record.generation:  # perhaps of another model by now
            record = await self._documents.store(tenant, store_id)
        self._check_model(record)
        return SearchedStore(store_id, index, generation, allowed_ids)

    def _check_model(self, record: StoreRecord) -> None:
        facts = self._embedding.facts
        if facts is not None and facts.fingerprint and facts.fingerprint != record.fingerprint:
            raise Reindexed(f"vector store {record.id!r} was reindexed while it was searched; try again")

    def _num_needed(self, options: SearchOptions) -> int:
        if options.ranker == "none" or self._reranker is None:
            return options.max_results
        return max(options.max_results, self._policy.num_candidates)

    async def _select(
        self, chunk_ids: Iterable[int], queries: Iterable[str], num_needed: int, trace: SearchTrace
    ) -> tuple[list[Chunk], bool]:
        """Read the best chunks that do not repeat a better one, as many as are needed. False: some are no more."""
        duplicates = NearDuplicates(queries)
        selected: list[Chunk] = []
        asked: list[Chunk] = []
        waiting = list(chunk_ids)
        num_gone = 0
        while waiting and len(selected) < num_needed:
            count = num_needed - len(selected)
            some, waiting = waiting[:count], waiting[count:]
            found = await self._documents.chunks(some)
            trace.look_at(found)
            trace.drop(set(some) - {chunk.id for chunk in found}, "deleted meanwhile")
            num_gone += len(some) - len(found)
            asked += found
            originals = await asyncio.to_thread(_originals, duplicates, found)
            for chunk, original in zip(found, originals, strict=True):
                if original is None:
                    selected.append(chunk)
                else:
                    trace.drop([chunk.id], f"repeats chunk {asked[original].id}")
        trace.drop(waiting, f"behind the best {num_needed}")
        return selected, num_gone == 0

    async def _rerank(self, arms: Sequence[Stage], chunks: Sequence[Chunk], options: SearchOptions) -> SecondOpinion:
        """Score the best chunks, each against the query that found it best: several queries cost no more than one."""
        if options.ranker == "none" or not chunks:
            return SecondOpinion()
        if self._reranker is None:
            is_expected = options.ranker != "auto"
            return SecondOpinion(failure="this server has no rerank model" if is_expected else None)
        queries = best_query(arms)
        by_query: dict[str, list[Chunk]] = {}
        for chunk in chunks[: self._policy.num_candidates]:
            by_query.setdefault(queries[chunk.id], []).append(chunk)
        return await rerank(self._reranker, by_query, timeout_s=self._policy.timeout_s, lane=options.lane)

    async def _show(
        self, chunks: Sequence[Chunk], final: Scores, trace: SearchTrace, options: SearchOptions
    ) -> list[Hit]:
        """Make hits of the best that are good enough."""
        good = [chunk_id for chunk_id, score in final.items() if score >= options.score_threshold]
        trace.drop(final.keys() - good, "below score_threshold")
        trace.drop(good[options.max_results :], "behind max_num_results")
        by_id = {chunk.id: chunk for chunk in chunks}
        shown = [by_id[chunk_id] for chunk_id in good[: options.max_results]]
        parents = await self._parents(shown, options.parent_tokens)
        return [
            Hit(
                chunk=chunk,
                score=final[chunk.id],
                places=trace.places(chunk.id),
                parent=parents.get(chunk.parent_id),
            )
            for chunk in shown
        ]

    async def _parents(self, chunks: Sequence[Chunk], max_tokens: int) -> dict[int, Parent]:
        """Read the parents of the best chunks; one that there is no room for is left out, and smaller ones may follow.

        Tokens are guessed by those of the chunk: whoever writes the prompt counts with another tokenizer anyhow.
        """
        if not max_tokens:
            return {}
        parents = {parent.id: parent for parent in await self._documents.parents([each.parent_id for each in chunks])}
        fitting: dict[int, Parent] = {}
        for chunk in chunks:
            parent = parents.get(chunk.parent_id)
            if parent is None or parent.id in fitting:
                continue
            num_tokens = math.ceil(chunk.num_tokens * len(parent.text) / len(chunk.text))
            if num_tokens <= max_tokens:
                fitting[parent.id] = parent
                max_tokens -= num_tokens
        return fitting


def _originals(duplicates: NearDuplicates, chunks: Iterable[Chunk]) -> list[int | None]:
    return [duplicates.original_of(chunk.text) for chunk in chunks]


def _fuse(arms: Iterable[Stage], options: SearchOptions) -> Scores:
    weights = {"dense": options.embedding_weight, "lexical": options.text_weight}
    return dict(fuse((Ranking(arm.ids, weights[arm.name]) for arm in arms), NUM_CANDIDATES))


def _final_score(chunks: Iterable[Chunk], fused: Scores, opinion: SecondOpinion) -> Scores:
    if not opinion.relevance:
        return {chunk.id: fused[chunk.id] for chunk in chunks}
    return {chunk.id: blend(fused[chunk.id], opinion.relevance.get(chunk.id)) for chunk in chunks}


def _best_first(scores: Mapping[int, float]) -> Scores:
    """Ties stay as they are."""
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
