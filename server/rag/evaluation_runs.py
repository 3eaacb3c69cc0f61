"""Asks a retriever the questions of an evaluation, and tells what each of its stages made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from server.rag.document_store import DocumentStore
from server.rag.documents import Chunk
from server.rag.search import SearchOutcome, StageName

MAX_RUNNING = 8
"""Questions that are asked side by side, so that the models can fill their batches."""

_STAGES: tuple[StageName, ...] = ("dense", "lexical", "fused", "rerank", "final")

StageRuns = dict[StageName, dict[str, list[str]]]
"""By stage: query id to item ids, best first, as `evaluation.Run`."""


async def ask_all(
    queries: Mapping[str, str],
    search: Callable[[str], Awaitable[SearchOutcome]],
    *,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, SearchOutcome]:
    """Search for each query; `advance` is called after each. The first error of a search ends it."""
    outcomes: dict[str, SearchOutcome] = {}
    waiting = iter(queries.items())

    async def ask_some() -> None:
        for query_id, query in waiting:
            outcomes[query_id] = await search(query)
            advance()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_RUNNING):
                group.create_task(ask_some())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return outcomes


async def stage_runs(
    outcomes: Mapping[str, SearchOutcome], documents: DocumentStore, item_of: Callable[[Chunk], str]
) -> StageRuns:
    """Say what each stage of explained searches would have answered by itself; one that found nothing is left out.

    Args:
        outcomes: By query id; of searches with one query each.
        item_of: What is judged of a chunk, e.g. its file. An item stands where the best of its chunks does.
    """
    rankings = {query_id: _rankings(outcome) for query_id, outcome in outcomes.items()}
    chunk_ids = {chunk_id for by_stage in rankings.values() for ids in by_stage.values() for chunk_id in ids}
    items = {chunk.id: item_of(chunk) for chunk in await documents.chunks(sorted(chunk_ids))}
    return {
        stage: {
            query_id: list(dict.fromkeys(items[chunk_id] for chunk_id in by_stage.get(stage, ()) if chunk_id in items))
            for query_id, by_stage in rankings.items()
        }
        for stage in _STAGES
        if stage == "final" or any(stage in by_stage for by_stage in rankings.values())
    }


def _rankings(outcome: SearchOutcome) -> dict[StageName, list[int]]:
    assert outcome.explanation is not None
    rankings = {stage.name: list(stage.ids) for stage in outcome.explanation.stages if stage.ids}
    if "rerank" in rankings:  # what it has not scored comes after what it has
        rankings["rerank"] = list(dict.fromkeys([*rankings["rerank"], *rankings["fused"]]))
    return rankings
