from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from server.errors import ModelUnavailable, ObjectNotFound
from server.rag.documents import ChunkingStrategy
from server.rag.filters import parse_filter
from server.rag.reranking import RerankPolicy
from server.rag.retriever import Retriever
from server.rag.search import SearchOptions, SearchOutcome
from tests.fakes.models import FakeReranker
from tests.fakes.searched_store import TENANT, SearchedStores, TopicEmbedder, open_stores

EXPLAINED = SearchOptions(explain=True)
QUICK = RerankPolicy(num_candidates=3, timeout_s=5.0)


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[SearchedStores]:
    async with open_stores(tmp_path) as stores:
        yield stores


def retriever(
    stores: SearchedStores,
    reranker: FakeReranker | None = None,
    *,
    embedder: TopicEmbedder | None = None,
    policy: RerankPolicy = QUICK,
) -> Retriever:
    return Retriever(stores.documents, stores.shelf, embedder or TopicEmbedder(), reranker, policy)


def names(outcome: SearchOutcome) -> list[str]:
    return [hit.chunk.filename for hit in outcome.hits]


# ---- arms and fusion


async def test_what_both_arms_find_comes_first(stores: SearchedStores) -> None:
    store = await stores.add_store("some auto that is red", "my red dog", "a red car here", "plain words")

    outcome = await retriever(stores).search(TENANT, [store], ["red car"])

    assert names(outcome)[:2] == ["3.txt", "1.txt"]
    best = outcome.hits[0]
    assert (best.places["dense"].rank, best.places["lexical"].rank, best.places["fused"].rank) == (1, 1, 1)
    assert best.score == 1.0


async def test_an_arm_without_weight_is_not_searched(stores: SearchedStores) -> None:
    store = await stores.add_store("the auto", "red car", "red herring")
    search = retriever(stores).search

    by_words = await search(TENANT, [store], ["red"], SearchOptions(embedding_weight=0, explain=True))
    by_meaning = await search(TENANT, [store], ["vehicle"], SearchOptions(text_weight=0, explain=True))

    assert sorted(names(by_words)) == ["2.txt", "3.txt"]
    assert names(by_meaning)[:2] in (["1.txt", "2.txt"], ["2.txt", "1.txt"])
    for outcome, arm in ((by_words, "lexical"), (by_meaning, "dense")):
        assert outcome.explanation is not None
        assert {stage.name for stage in outcome.explanation.stages} - {"fused", "rerank", "final"} == {arm}


async def test_weights_decide_between_the_arms(stores: SearchedStores) -> None:
    store = await stores.add_store("an auto", "the zebra words")
    search = retriever(stores).search

    for options, first in (
        (SearchOptions(embedding_weight=200), "1.txt"),
        (SearchOptions(text_weight=200), "2.txt"),
    ):
        assert names(await search(TENANT, [store], ["zebra car"], options))[0] == first


async def test_queries_get_the_models_prompt_and_go_first(stores: SearchedStores) -> None:
    store = await stores.add_store("a car")
    embedder = TopicEmbedder()

    await retriever(stores, embedder=embedder).search(TENANT, [store], ["car", "dog", "car"])

    assert embedder.calls == [["car", "dog"]]
    assert embedder.options == [{"truncate": "mean", "prompt": "query: ", "lane": "interactive", "normalize": True}]


async def test_several_queries_find_what_each_of_them_finds(stores: SearchedStores) -> None:
    store = await stores.add_store("rain and snow", "the auto is old", "a hound barks", "cups and plates")

    outcome = await retriever(stores).search(TENANT, [store], ["old auto", "hound barks"], SearchOptions(max_results=2))

    assert sorted(names(outcome)) == ["2.txt", "3.txt"]
    assert outcome.queries == ("old auto", "hound barks")


async def test_several_stores_are_searched_as_one(stores: SearchedStores) -> None:
    first = await stores.add_store("a dog in the rain", "a cup of tea")
    second = await stores.add_store("dog and hound and puppy")

    outcome = await retriever(stores).search(TENANT, [first, second, first], ["hound"], SearchOptions(max_results=1))

    assert outcome.hits[0].chunk.text == "dog and hound and puppy"


async def test_an_empty_store_has_no_hits(stores: SearchedStores) -> None:
    outcome = await retriever(stores, FakeReranker()).search(TENANT, [await stores.add_store()], ["car"], EXPLAINED)

    assert (outcome.hits, outcome.rerank_failure) == ((), None)


async def test_a_store_of_somebody_else_does_not_exist(stores: SearchedStores) -> None:
    store = await stores.add_store("a car")

    with pytest.raises(ObjectNotFound):
        await retriever(stores).search("eve", [store], ["car"])


async def test_an_embedding_model_that_is_down_is_told(stores: SearchedStores) -> None:
    store = await stores.add_store("a car")
    embedder = TopicEmbedder(error=ModelUnavailable("the model is loading; try again"))

    with pytest.raises(ModelUnavailable, match="is loading"):
        await retriever(stores, embedder=embedder).search(TENANT, [store], ["car"])


# ---- filters, and what is committed


async def test_a_filter_counts_in_both_arms(stores: SearchedStores) -> None:
    store = await stores.add_store("a red car", "the red auto", "a red vehicle")
    await stores.add(store, "a red car of 1999", name="old.txt", attributes={"year": 1999})
    wanted = SearchOptions(filter=parse_filter({"type": "lt", "key": "year", "value": 2000}))

    outcome = await retriever(stores).search(TENANT, [store], ["red car"], wanted)

    assert names(outcome) == ["old.txt"]
    assert {"dense", "lexical"} <= outcome.hits[0].places.keys()
    assert outcome.hits[0].chunk.attributes == {"year": 1999}


async def test_a_filter_that_nothing_passes_leaves_no_hits(stores: SearchedStores) -> None:
    store = await stores.add_store("a red car")
    wanted = SearchOptions(filter=parse_filter({"type": "eq", "key": "year", "value": 1}))

    assert (await retriever(stores).search(TENANT, [store], ["red car"], wanted)).hits == ()


async def test_a_search_waits_for_what_is_committed(stores: SearchedStores) -> None:
    """By the vectors: words are found at once."""
    store = await stores.add_store("a dog")
    search, by_meaning = retriever(stores).search, SearchOptions(text_weight=0)
    await search(TENANT, [store], ["dog"], by_meaning)
    _, change = await stores.commit(store, "an auto", name="new.txt")

    searching = asyncio.create_task(search(TENANT, [store], ["vehicle"], by_meaning))
    stores.shelf.apply(change)

    assert names(await searching)[0] == "new.txt"


async def test_what_was_deleted_is_not_found(stores: SearchedStores) -> None:
    store = await stores.add_store("a red car")
    gone = await stores.add(store, "red car red car", name="gone.txt")
    stores.shelf.apply(await stores.documents.remove_document(TENANT, store, gone))

    assert names(await retriever(stores).search(TENANT, [store], ["red car"])) == ["1.txt"]


@pytest.mark.parametrize("is_filtered", [False, True])
@pytest.mark.parametrize("is_told", [False, True], ids=["the index lacks it", "the index has it"])
async def test_a_document_that_is_replaced_during_a_search_is_found(
    stores: SearchedStores, *, is_filtered: bool, is_told: bool
) -> None:
    """In one version or the other: what an arm, or the filter, has seen of the old one is gone by then."""
    store = await stores.add_store("a dog")
    file_id = await stores.add(store, "an auto", name="car.txt", attributes={"year": 1999})
    embedder, wanted = TopicEmbedder(gate=asyncio.Event()), parse_filter({"type": "lt", "key": "year", "value": 2000})
    options = SearchOptions(text_weight=0, filter=wanted if is_filtered else None)
    searching = asyncio.create_task(retriever(stores, embedder=embedder).search(TENANT, [store], ["vehicle"], options))
    await embedder.begun.wait()

    change = await stores.commit_again(store, file_id, "the old auto", attributes={"year": 1999})
    if is_told:
        stores.shelf.apply(change)
        await stores.shelf.index(store)
    assert embedder.gate is not None
    embedder.gate.set()

    assert names(await searching)[0] == "car.txt"


async def test_a_hit_has_its_attributes_though_its_file_is_being_read_again(stores: SearchedStores) -> None:
    store = await stores.add_store()
    file_id = await stores.add(store, "an auto", attributes={"year": 1999})
    reranker = FakeReranker(gate=asyncio.Event())
    searching = asyncio.create_task(retriever(stores, reranker).search(TENANT, [store], ["vehicle"]))
    await reranker.begun.wait()

    await stores.documents.add_documents(TENANT, store, [(file_id, {"year": 2000}, ChunkingStrategy())])
    assert reranker.gate is not None
    reranker.gate.set()

    [hit] = (await searching).hits
    assert hit.chunk.attributes == {"year": 1999}


@pytest.mark.parametrize("is_filtered", [False, True])
async def test_no_search_is_done_twice_for_a_new_document(stores: SearchedStores, *, is_filtered: bool) -> None:
    store = await stores.add_store("a dog")
    await stores.add(store, "an auto", name="car.txt", attributes={"year": 1999})
    embedder, wanted = TopicEmbedder(gate=asyncio.Event()), parse_filter({"type": "lt", "key": "year", "value": 2000})
    options = SearchOptions(text_weight=0, filter=wanted if is_filtered else None)
    searching = asyncio.create_task(retriever(stores, embedder=embedder).search(TENANT, [store], ["vehicle"], options))
    await embedder.begun.wait()

    await stores.add(store, "a vehicle", name="new.txt", attributes={"year": 1999})
    assert embedder.gate is not None
    embedder.gate.set()

    assert "car.txt" in names(await searching)
    assert len(embedder.calls) == 1


# ---- repetitions


async def test_repetitions_make_room_for_others(stores: SearchedStores) -> None:
    text = "this page says at some length that the car is red and that it is for sale to anybody who asks"
    store = await stores.add_store(text, text + " today", text, "a red car", "a car")
    options = SearchOptions(max_results=3, explain=True)

    outcome = await retriever(stores).search(TENANT, [store], ["red car for sale"], options)

    assert sorted(hit.chunk.text for hit in outcome.hits)[:2] == ["a car", "a red car"]
    assert outcome.explanation is not None
    original = next(hit.chunk.id for hit in outcome.hits if hit.chunk.text.startswith(text))
    assert f"repeats chunk {original}" in outcome.explanation.dropped.values()


async def test_a_text_with_the_name_that_is_asked_for_repeats_none_without(stores: SearchedStores) -> None:
    text = "this page says at some length that the car is red and that it is for sale to anybody who asks "
    store = await stores.add_store(text + "alice", text + "bob")

    outcome = await retriever(stores).search(TENANT, [store], ["car of alice", "car of bob"])

    assert {hit.chunk.text.split()[-1] for hit in outcome.hits} == {"alice", "bob"}


# ---- the reranker


async def test_the_reranker_has_a_say_about_the_best(stores: SearchedStores) -> None:
    store = await stores.add_store("car auto vehicle", "where is my old car", "some car")
    reranker = FakeReranker()

    outcome = await retriever(stores, reranker).search(TENANT, [store], ["where is my old car"])

    assert names(outcome)[0] == "2.txt"
    assert outcome.hits[0].places["rerank"].rank == 1
    assert (outcome.num_reranked, outcome.rerank_failure) == (3, None)
    assert 0 < outcome.hits[0].places["rerank"].score < 1


async def test_ranker_none_does_without(stores: SearchedStores) -> None:
    store = await stores.add_store("a car", "the auto")
    reranker = FakeReranker()

    outcome = await retriever(stores, reranker).search(TENANT, [store], ["car"], SearchOptions(ranker="none"))

    assert (reranker.calls, outcome.num_reranked, outcome.rerank_failure) == ([], 0, None)


async def test_only_the_best_candidates_are_scored_and_the_others_stay_behind(stores: SearchedStores) -> None:
    store = await stores.add_store("car auto", "car one", "car two", "car three", "dog car")
    reranker = FakeReranker()

    outcome = await retriever(stores, reranker).search(TENANT, [store], ["car"], EXPLAINED)

    assert len(reranker.calls[0]) == outcome.num_reranked == 3
    assert ["rerank" in hit.places for hit in outcome.hits] == [True] * 3 + [False] * 2


async def test_each_candidate_is_scored_against_the_query_that_found_it(stores: SearchedStores) -> None:
    store = await stores.add_store("the auto is old", "a hound barks")
    reranker = FakeReranker()

    outcome = await retriever(stores, reranker).search(TENANT, [store], ["old auto", "hound barks"])

    assert sorted(reranker.calls) == [["a hound barks"], ["the auto is old"]]
    assert outcome.num_reranked == 2


async def test_headings_are_read_along(stores: SearchedStores) -> None:
    store = await stores.add_store()
    await stores.add(store, "a car", heading="Garage > Inventory")
    reranker = FakeReranker()

    await retriever(stores, reranker).search(TENANT, [store], ["car"])

    assert reranker.calls == [["Garage > Inventory\na car"]]


@pytest.mark.parametrize("ranker", ["auto", "default-2024-11-15"])
async def test_a_reranker_that_is_down_is_done_without_and_told(stores: SearchedStores, ranker: str) -> None:
    store = await stores.add_store("a car", "the auto")
    reranker = FakeReranker(error=ModelUnavailable("model 'r' has failed"))
    search = retriever(stores, reranker).search

    outcome = await search(TENANT, [store], ["car"], SearchOptions(ranker=ranker))  # type: ignore[arg-type]

    plain = await search(TENANT, [store], ["car"], SearchOptions(ranker="none"))
    assert outcome.hits == plain.hits
    assert outcome.rerank_failure == "model 'r' has failed"


async def test_a_reranker_that_does_not_answer_is_not_waited_for(stores: SearchedStores) -> None:
    store = await stores.add_store("a car", "the auto")
    reranker = FakeReranker(gate=asyncio.Event())  # never opens

    outcome = await retriever(stores, reranker, policy=RerankPolicy(timeout_s=0.01)).search(TENANT, [store], ["car"])

    assert len(outcome.hits) == 2
    assert outcome.rerank_failure == "the reranker did not answer within 0.01 s"
    assert reranker.cancelled.is_set()


async def test_what_is_not_scored_in_time_keeps_its_place_behind(stores: SearchedStores) -> None:
    store = await stores.add_store("red car", "red car auto", "red car here")
    reranker = FakeReranker(max_in_time=1)

    outcome = await retriever(stores, reranker).search(TENANT, [store], ["red car"])

    assert ["rerank" in hit.places for hit in outcome.hits] == [True, False, False]
    assert outcome.rerank_failure == "1 of 3 chunks were reranked within 5 s"
    assert [hit.places["fused"].rank for hit in outcome.hits] == [1, 2, 3]


async def test_asking_for_a_reranker_that_is_not_there_is_told(stores: SearchedStores) -> None:
    store = await stores.add_store("a car")
    search = retriever(stores).search

    asked = await search(TENANT, [store], ["car"], SearchOptions(ranker="default-2024-11-15"))
    not_asked = await search(TENANT, [store], ["car"])

    assert asked.rerank_failure == "this server has no rerank model"
    assert not_asked.rerank_failure is None


# ---- what comes back


@pytest.mark.parametrize("reranker", [None, FakeReranker()])
async def test_scores_fall_from_hit_to_hit_between_1_and_0(
    stores: SearchedStores, reranker: FakeReranker | None
) -> None:
    store = await stores.add_store("red car", "red auto", "red dog", "a dog", "tea", "rain and tea", "the car of red")

    outcome = await retriever(stores, reranker).search(TENANT, [store], ["red car", "dog in the rain"])

    scores = [hit.score for hit in outcome.hits]
    assert len(scores) == 7
    assert scores[0] <= 1 and scores[-1] >= 0
    assert all(better >= worse for better, worse in pairwise(scores))


async def test_hits_below_the_threshold_are_left_out(stores: SearchedStores) -> None:
    store = await stores.add_store("red car", "tea", "rain")
    search = retriever(stores).search
    scores = [hit.score for hit in (await search(TENANT, [store], ["red car"])).hits]

    outcome = await search(TENANT, [store], ["red car"], SearchOptions(score_threshold=scores[1], explain=True))

    assert [hit.score for hit in outcome.hits] == scores[:2]
    assert outcome.explanation is not None
    assert list(outcome.explanation.dropped.values()) == ["below score_threshold"]


async def test_parents_come_along_while_there_is_room(stores: SearchedStores) -> None:
    store = await stores.add_store()
    await stores.add(store, "a red car", "much more about it", name="first.txt")
    await stores.add(store, "one car", "x" * 500, name="long.txt")
    await stores.add(store, "my car", "and more", name="short.txt")

    outcome = await retriever(stores).search(TENANT, [store], ["red car"], SearchOptions(parent_tokens=60))

    parents = {hit.chunk.text: hit.parent.text for hit in outcome.hits if hit.parent}
    assert parents["a red car"] == "a red car\nmuch more about it"
    assert parents["my car"] == "my car\nand more"
    assert "one car" not in parents


async def test_nobody_gets_parents_unasked(stores: SearchedStores) -> None:
    store = await stores.add_store("a car")

    assert (await retriever(stores).search(TENANT, [store], ["car"])).hits[0].parent is None


async def test_an_explanation_tells_every_stage(stores: SearchedStores) -> None:
    store = await stores.add_store("red car", "red auto", "red dog", "tea")
    options = SearchOptions(max_results=2, explain=True)

    outcome = await retriever(stores, FakeReranker()).search(TENANT, [store], ["red car", "dog"], options)

    assert outcome.explanation is not None
    stages = outcome.explanation.stages
    assert [(stage.name, stage.query) for stage in stages] == [
        ("dense", "red car"),
        ("dense", "dog"),
        ("lexical", "red car"),
        ("lexical", "dog"),
        ("fused", None),
        ("rerank", None),
        ("final", None),
    ]
    assert [hit.chunk.id for hit in outcome.hits] == list(stages[-1].ids[:2])
    assert outcome.explanation.dropped[stages[-1].ids[2]] == "behind max_num_results"
    assert outcome.explanation.chunks.keys() >= set(stages[-1].ids)
    assert outcome.timings_ms.keys() >= {"open", "embed", "dense", "lexical", "select", "rerank", "show", "total"}
