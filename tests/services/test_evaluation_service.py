"""Evaluations over a real data directory, with a fake parser and fake models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import DeadlineExceeded, InvalidRequest, ModelUnavailable, ObjectNotFound
from server.rag.documents import ChunkingStrategy, StoreRecord
from server.rag.evaluation import Judgements
from server.rag.search import SearchOptions
from server.services.evaluation import Configuration, Evaluation, EvaluationService, KnownItems
from server.services.library import LibraryDoor
from server.services.vector_stores import VectorStoreService
from tests.fakes.library import TENANT, Rig, jobs_done, open_rig

TEXTS = ("apples grow slowly", "pears ripen early", "plums taste sweet")
WHOLE = ChunkingStrategy(kind="static", max_tokens=100, overlap_tokens=0)
DEFAULT = Configuration(name="default", options=SearchOptions())
WORDS = Configuration(name="words", options=SearchOptions(embedding_weight=0, ranker="none"))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def stores(rig: Rig) -> VectorStoreService:
    door = LibraryDoor()
    door.open(rig.library)
    return VectorStoreService(door, rig.models)


@pytest.fixture
def service(rig: Rig, stores: VectorStoreService) -> EvaluationService:
    door = LibraryDoor()
    door.open(rig.library)
    return EvaluationService(door, stores)


@pytest.fixture
async def store(rig: Rig, stores: VectorStoreService) -> StoreRecord:
    """A file for each of `TEXTS`: file-1, file-2, file-3."""
    file_ids = [await rig.add_file(text) for text in TEXTS]
    store = await stores.create(TENANT, chunking=WHOLE, file_ids=file_ids)
    await jobs_done()
    return store


def asking(text: str, *items: str) -> Judgements:
    return Judgements({"q": text}, {"q": dict.fromkeys(items, 1)})


async def evaluate(
    service: EvaluationService, store: StoreRecord, questions: Any, *ways: Any, **more: Any
) -> Evaluation:
    options = {"timeout_s": 10.0, **more}
    return await service.evaluate(TENANT, store.id, questions, ways or (DEFAULT,), **options)


async def test_every_stage_is_measured(service: EvaluationService, store: StoreRecord) -> None:
    found = await evaluate(service, store, asking("sweet plums", "file-3"))

    [(_, measured)] = found.results
    assert set(measured.stages) == {"dense", "lexical", "fused", "rerank", "final"}
    assert measured.stages["lexical"].estimate("MRR").mean == 1.0
    assert (measured.failures, found.unknown_items) == ((), ())


async def test_ways_to_search_are_measured_side_by_side(service: EvaluationService, store: StoreRecord) -> None:
    found = await evaluate(service, store, asking("sweet plums", "file-3"), DEFAULT, WORDS)

    [(first, _), (second, words)] = found.results
    assert (first, second) == (DEFAULT, WORDS)
    assert set(words.stages) == {"lexical", "fused", "final"}


async def test_a_score_threshold_leaves_out_what_it_would_in_a_search(
    service: EvaluationService, store: StoreRecord
) -> None:
    strict = Configuration(name="strict", options=SearchOptions(score_threshold=1.0, ranker="none"))

    found = await evaluate(service, store, asking("sweet plums", "file-3", "file-1"), DEFAULT, strict)

    recalls = [measured.stages["final"].estimate("recall@100").mean for _, measured in found.results]
    assert recalls[1] < recalls[0] == 1.0


async def test_chunks_can_be_judged_in_place_of_files(rig: Rig, service: EvaluationService, store: StoreRecord) -> None:
    [(chunk_id, _, _)] = [each for each in await rig.documents.headings(store.id) if each[1] == "file-3"]

    found = await evaluate(service, store, asking("sweet plums", str(chunk_id)), judged="chunk")

    assert found.results[0][1].stages["lexical"].estimate("MRR").mean == 1.0


async def test_what_is_judged_but_not_there_is_told(service: EvaluationService, store: StoreRecord) -> None:
    found = await evaluate(service, store, asking("sweet plums", "file-3", "file-9"))

    assert found.unknown_items == ("file-9",)
    assert found.results[0][1].stages["final"].estimate("recall@100").mean == 0.5


async def test_without_judgements_the_texts_ask_for_their_files(service: EvaluationService, store: StoreRecord) -> None:
    found = await evaluate(service, store, KnownItems(num_questions=2, seed=1))
    same = await evaluate(service, store, KnownItems(num_questions=2, seed=1))

    assert len(found.judgements.judged) == 2
    assert set(found.judgements.queries.values()) < set(TEXTS)
    assert found.judgements == same.judgements
    assert found.results[0][1].stages["lexical"].estimate("MRR").mean == 1.0


async def test_a_store_without_texts_asks_nothing(service: EvaluationService, stores: VectorStoreService) -> None:
    with pytest.raises(InvalidRequest, match="no question can be made"):
        await evaluate(service, await stores.create(TENANT), KnownItems(num_questions=2))


async def test_the_models_are_asked_in_the_bulk_lane(rig: Rig, service: EvaluationService, store: StoreRecord) -> None:
    rig.embedder.options.clear()

    await evaluate(service, store, asking("sweet plums", "file-3"))

    assert {options["lane"] for options in [*rig.embedder.options, *rig.reranker.options]} == {"bulk"}


async def test_the_reranker_gets_all_the_time_there_is(
    rig: Rig, service: EvaluationService, store: StoreRecord
) -> None:
    await evaluate(service, store, asking("sweet plums", "file-3"), timeout_s=60.0)

    [options] = rig.reranker.options
    assert isinstance(options["timeout_s"], float)
    assert options["timeout_s"] > 30


async def test_what_takes_too_long_ends(rig: Rig, service: EvaluationService, store: StoreRecord) -> None:
    rig.embedder.gate = asyncio.Event()

    with pytest.raises(DeadlineExceeded, match="ask fewer questions"):
        await evaluate(service, store, asking("sweet plums", "file-3"), timeout_s=0.05)

    assert rig.embedder.cancelled.is_set()


async def test_one_evaluation_at_a_time(rig: Rig, service: EvaluationService, store: StoreRecord) -> None:
    rig.embedder.gate, rig.embedder.begun = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(evaluate(service, store, asking("sweet plums", "file-3")))
    await rig.embedder.begun.wait()
    num_calls = len(rig.embedder.calls)

    with pytest.raises(DeadlineExceeded):
        await evaluate(service, store, asking("early pears", "file-2"), timeout_s=0.05)

    assert len(rig.embedder.calls) == num_calls
    rig.embedder.gate.set()
    await first


async def test_errors_come_out_as_they_are(rig: Rig, service: EvaluationService, store: StoreRecord) -> None:
    with pytest.raises(ObjectNotFound):
        await service.evaluate("eve", store.id, KnownItems(num_questions=1), [DEFAULT], timeout_s=1)
    rig.embedder.error = ModelUnavailable("it is down")
    with pytest.raises(ModelUnavailable):
        await evaluate(service, store, asking("sweet plums", "file-3"))
