"""The two arms of a search: by meaning, among vectors, and by words. They run at the same time, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from server.protocols import EmbeddingModel, VectorIndex
from server.rag.search import SearchOptions, Stage, StageName
from server.rag.stopwatch import Stopwatch
from server.rag.store_index import StoreIndex
from server.types import Lane

Ids = npt.NDArray[np.int64]
Found = tuple[Ids, npt.NDArray[np.float32]]
"""Chunk ids and scores, [n] each, best first."""


@dataclass(frozen=True, eq=False)
class SearchedStore:
    """A vector store as one search sees it.

    Attributes:
        generation: Of the store when the search began; the index has all of it, and may have more.
        allowed_ids: Chunks of that generation which the search's filter leaves; None: all.
    """

    id: str
    index: StoreIndex
    generation: int
    allowed_ids: Ids | None = None

    @property
    def has_lost_chunks(self) -> bool:
        """Whether chunks have gone since the search began. Others may have come for them, which no filter has seen."""
        return self.index.last_removal > self.generation


class Arms:
    """Searches stores for each of several queries."""

    def __init__(self, embedding: EmbeddingModel, num_candidates: int) -> None:
        self._embedding = embedding
        self._num_candidates = num_candidates

    async def search(
        self, stores: Sequence[SearchedStore], queries: Sequence[str], options: SearchOptions, watch: Stopwatch
    ) -> list[Stage]:
        """Return what each arm found for each query; of several stores, the best of all. First all of the dense arm."""
        dense = partial(self._dense, lane=options.lane)
        try:
            async with asyncio.TaskGroup() as group:
                arms = [
                    group.create_task(arm(stores, queries, watch))
                    for arm, weight in ((dense, options.embedding_weight), (self._lexical, options.text_weight))
                    if weight > 0
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [stage for arm in arms for stage in arm.result()]

    async def _dense(
        self, stores: Sequence[SearchedStore], queries: Sequence[str], watch: Stopwatch, *, lane: Lane
    ) -> list[Stage]:
        with watch.lap("embed"):
            facts = self._embedding.facts
            prompt = facts.prompt_for("query") if facts else ""
            vectors = (await self._embedding.embed(queries, truncate="mean", prompt=prompt, lane=lane)).vectors
        with watch.lap("dense"):
            found = [await asyncio.to_thread(self._nearest, store, vectors) for store in stores]
        return self._stages("dense", queries, found)

    async def _lexical(self, stores: Sequence[SearchedStore], queries: Sequence[str], watch: Stopwatch) -> list[Stage]:
        with watch.lap("lexical"):
            found = [await asyncio.to_thread(self._by_words, store, queries) for store in stores]
        return self._stages("lexical", queries, found)

    def _nearest(self, store: SearchedStore, vectors: npt.NDArray[np.float32]) -> list[Found]:
        index: VectorIndex = store.index.vectors
        ids, scores = index.search(vectors, self._num_candidates, allowed_ids=store.allowed_ids)
        return [(ids[row][ids[row] >= 0], scores[row][ids[row] >= 0]) for row in range(len(vectors))]

    def _by_words(self, store: SearchedStore, queries: Sequence[str]) -> list[Found]:
        words = store.index.words
        return [words.search(query, self._num_candidates, allowed_ids=store.allowed_ids) for query in queries]

    def _stages(self, name: StageName, queries: Sequence[str], found: Sequence[Sequence[Found]]) -> list[Stage]:
        """Join what stores have for each query; `found` is by store and query. Scores of one arm compare."""
        stages = []
        for row, query in enumerate(queries):
            ids = np.concatenate([in_store[row][0] for in_store in found])
            scores = np.concatenate([in_store[row][1] for in_store in found])
            best = np.argsort(-scores, kind="stable")[: self._num_candidates]
            stages.append(Stage(name, tuple(ids[best].tolist()), tuple(scores[best].tolist()), query))
        return stages
