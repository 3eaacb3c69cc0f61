"""Asks a retriever the questions of an evaluation, and tells what each of its stages made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from server.rag.document_store import DocumentStore
from server.rag.documents import Chunk
from server.rag.evaluation import Assessment, Judgements, assess
from server.rag.search import SearchOutcome, StageName

MAX_RUNNING = 8
"""Questions that are asked side by side, so that the models can fill their batches."""

_STAGES: tuple[StageName, ...] = ("dense", "lexical", "fused", "rerank", "final")

StageRuns = dict[StageName, dict[str, list[str]]]
"""By stage: query id to item ids, best first, as `evaluation.Run`."""

Rankings = dict[StageName, list[int]]
"""Chunk ids of one search by stage, best first."""

ItemsOf = Callable[[Sequence[int]], Awaitable[Mapping[int, str]]]
"""Tells what is judged of chunks, by chunk id, e.g. their files. Those that are gone are left out."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one way to search is worth.

    Attributes:
        stages: Each by itself; one that never found anything is left out.
        failures: Why some searches did without the reranker.
    """

    stages: dict[StageName, Assessment]
    failures: tuple[str, ...]


async def measure(
    judgements: Judgements,
    search: Callable[[str], Awaitable[SearchOutcome]],
    items_of: ItemsOf,
    *,
    num_at_a_time: int = MAX_RUNNING,
    advance: Callable[[], None] = lambda: None,
) -> Measured:
    """Search for each question that is judged; `search` explains. Otherwise as `ask_all`."""

    async def ask(query: str) -> tuple[Rankings, str | None]:
        outcome = await search(query)  # which holds the texts of a hundred chunks, and is not kept
        return _rankings(outcome), outcome.rerank_failure

    answers = await ask_all(judgements.judged, ask, num_at_a_time=num_at_a_time, advance=advance)
    rankings = {query_id: by_stage for query_id, (by_stage, _) in answers.items()}
    runs = _stage_runs(rankings, await items_of(_chunk_ids(rankings)))
    return Measured(
        stages={stage: await asyncio.to_thread(assess, run, judgements) for stage, run in runs.items()},
        failures=tuple(sorted({failure for _, failure in answers.values() if failure})),
    )


async def ask_all(
    queries: Mapping[str, str],
    search: Callable[[str], Awaitable[Result]],
    *,
    num_at_a_time: int = MAX_RUNNING,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Result]:
    """Search for each query; `advance` is called after each. The first error of a search ends it."""
    answers: dict[str, Result] = {}
    waiting = iter(queries.items())

    async def ask_some() -> None:
        for query_id, query in waiting:
            answers[query_id] = await search(query)
            advance()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(num_at_a_time):
                group.create_task(ask_some())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return answers


async def stage_runs(
    outcomes: Mapping[str, SearchOutcome], documents: DocumentStore, item_of: Callable[[Chunk], str]
) -> StageRuns:
    """Say what each stage of explained searches would have answered by itself; one that found nothing is left out.

    Args:
        outcomes: By query id; of searches with one query each.
        item_of: What is judged of a chunk, e.g. its file. An item stands where the best of its chunks does.
    """
    rankings = {query_id: _rankings(outcome) for query_id, outcome in outcomes.items()}
    chunks = await documents.chunks(_chunk_ids(rankings))
    return _stage_runs(rankings, {chunk.id: item_of(chunk) for chunk in chunks})


def _chunk_ids(rankings: Mapping[str, Rankings]) -> list[int]:
    return sorted({chunk_id for by_stage in rankings.values() for ids in by_stage.values() for chunk_id in ids})


def _stage_runs(rankings: Mapping[str, Rankings], items: Mapping[int, str]) -> StageRuns:
    return {
        stage: {
            query_id: list(dict.fromkeys(items[chunk_id] for chunk_id in by_stage.get(stage, ()) if chunk_id in items))
            for query_id, by_stage in rankings.items()
        }
        for stage in _STAGES
        if stage == "final" or any(stage in by_stage for by_stage in rankings.values())
    }


def _rankings(outcome: SearchOutcome) -> Rankings:
    assert outcome.explanation is not None
    rankings = {stage.name: list(stage.ids) for stage in outcome.explanation.stages if stage.ids}
    rankings["final"] = [hit.chunk.id for hit in outcome.hits]  # without those below a threshold
    if "rerank" in rankings:  # what it has not scored comes after what it has
        rankings["rerank"] = list(dict.fromkeys([*rankings["rerank"], *rankings["fused"]]))
    return rankings
