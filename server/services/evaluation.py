"""How well a vector store is searched: questions with known answers are put to it, in several ways side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from server.errors import DeadlineExceeded, InvalidRequest
from server.rag.evaluation import Judgements
from server.rag.evaluation_runs import Measured, measure
from server.rag.known_items import HeadedText, Questions, drawn, heading_questions, worded_questions
from server.rag.retriever import NUM_CANDIDATES
from server.rag.search import SearchOptions
from server.services.library import LibraryDoor
from server.services.vector_stores import VectorStoreService

NUM_AT_A_TIME = 2
"""Searches side by side: one is prepared while the models compute another one, and other clients' get their turn."""

MAX_SAMPLED_CHUNKS = 2000
"""That questions are made of where headings do not suffice."""

Judged = Literal["file", "chunk"]


@dataclass(frozen=True, kw_only=True)
class KnownItems:
    """How many questions shall be made of what is in the store, and which: the same for the same seed."""

    num_questions: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One way to search. Of `options`, how many results there are and the lane are the evaluation's."""

    name: str
    options: SearchOptions


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found out.

    Attributes:
        judgements: What was asked, and what should have been found: ids of files, or of chunks.
        unknown_items: Those that should have been found, but are not in the store.
        results: By configuration, in the order in which they came.
    """

    judgements: Judgements
    judged: Judged
    unknown_items: tuple[str, ...]
    results: tuple[tuple[Configuration, Measured], ...]


class EvaluationService:
    """Evaluates one store at a time; whoever comes meanwhile waits. The models are asked in the bulk lane."""

    def __init__(self, door: LibraryDoor, stores: VectorStoreService) -> None:
        self._door = door
        self._stores = stores
        self._turn = asyncio.Semaphore()

    async def evaluate(
        self,
        tenant: str,
        store_id: str,
        questions: Judgements | KnownItems,
        configurations: Sequence[Configuration],
        *,
        judged: Judged = "file",
        timeout_s: float,
    ) -> Evaluation:
        """Search for every question in every way. Errors besides as of `VectorStoreService.search`.

        Args:
            judged: What the ids in judgements name. Questions that are made ask for files.

        Raises:
            InvalidRequest: No question can be made of the store.
            DeadlineExceeded: It was not done in time.
        """
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                return await self._evaluate(
                    tenant, store_id, questions, configurations, judged=judged, timeout_s=timeout_s
                )
        except TimeoutError:
            raise DeadlineExceeded(
                f"the evaluation was not done within timeout_s = {timeout_s:g}; ask fewer questions, compare fewer "
                "configurations, or allow more time"
            ) from None

    async def _evaluate(
        self,
        tenant: str,
        store_id: str,
        questions: Judgements | KnownItems,
        configurations: Sequence[Configuration],
        *,
        judged: Judged,
        timeout_s: float,
    ) -> Evaluation:
        # How good the reranker is, is asked here, not how fast.
        retriever = await self._stores.retriever(tenant, store_id, rerank_timeout_s=timeout_s)
        chunks = await self._door.library.documents.headings(store_id)
        if isinstance(questions, KnownItems):
            judgements, judged = await self._known_items(chunks, questions), "file"
        else:
            judgements = questions
        item_of = {chunk_id: file_id if judged == "file" else str(chunk_id) for chunk_id, file_id, _ in chunks}
        wanted = {item for gains in judgements.gains.values() for item, gain in gains.items() if gain > 0}

        async def items_of(chunk_ids: Sequence[int]) -> Mapping[int, str]:
            return {chunk_id: item_of[chunk_id] for chunk_id in chunk_ids if chunk_id in item_of}

        async def measured(options: SearchOptions) -> Measured:
            explained = replace(options, max_results=NUM_CANDIDATES, explain=True, lane="bulk")
            return await measure(
                judgements,
                lambda query: retriever.search(tenant, [store_id], [query], explained),
                items_of,
                num_at_a_time=NUM_AT_A_TIME,
            )

        return Evaluation(
            judgements=judgements,
            judged=judged,
            unknown_items=tuple(sorted(wanted.difference(item_of.values()))),
            results=tuple([(each, await measured(each.options)) for each in configurations]),
        )

    async def _known_items(self, chunks: Sequence[tuple[int, str, str]], wanted: KnownItems) -> Judgements:
        asked = await asyncio.to_thread(heading_questions, [(file_id, heading) for _, file_id, heading in chunks])
        others: Questions = {}
        if len(asked) < wanted.num_questions:
            sample = np.random.default_rng(wanted.seed).permutation(len(chunks))[:MAX_SAMPLED_CHUNKS]
            texts = [
                HeadedText(chunk.file_id, chunk.span.heading, chunk.text)
                for chunk in await self._door.library.documents.chunks([chunks[index][0] for index in sorted(sample)])
            ]
            others = await asyncio.to_thread(worded_questions, texts)
        if not asked and not others:
            raise InvalidRequest(
                "no question can be made of what is in the vector store; send queries and qrels", param="known_item"
            )
        return drawn(asked, wanted.num_questions, wanted.seed, others=others)
