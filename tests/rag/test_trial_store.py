from __future__ import annotations

import pytest

from server.errors import ModelUnavailable
from server.rag.beir import Passage
from server.rag.documents import ChunkingStrategy
from server.rag.evaluation_runs import ask_all, stage_runs
from server.rag.retriever import Retriever
from server.rag.search import SearchOptions, SearchOutcome
from server.rag.trial_store import open_trial_store, parsed_passage
from server.types import DEFAULT_TENANT
from tests.fakes.models import FakeReranker
from tests.fakes.searched_store import TopicEmbedder

PASSAGES = [
    Passage("about-cars", "Cars", "the auto is red"),
    Passage("about-dogs", "", "a hound barks at the rain"),
    Passage("empty", "", " "),
]
CHUNKING = ChunkingStrategy(kind="static", max_tokens=20, overlap_tokens=0)  # a character is a token of the fake
EXPLAINED = SearchOptions(max_results=100, explain=True)


async def searched(queries: dict[str, str], reranker: FakeReranker | None = None) -> dict[str, dict[str, list[str]]]:
    embedder = TopicEmbedder()
    assert embedder.facts is not None
    async with open_trial_store(PASSAGES, embedder, embedder.facts, CHUNKING) as store:
        retriever = Retriever(store.documents, store.shelf, embedder, reranker)

        async def search(query: str) -> SearchOutcome:
            return await retriever.search(DEFAULT_TENANT, [store.store_id], [query], EXPLAINED)

        runs = await stage_runs(await ask_all(queries, search), store.documents, lambda chunk: chunk.filename)
    return {stage: dict(run) for stage, run in runs.items()}


async def test_passages_are_cut_embedded_and_found_by_their_id() -> None:
    runs = await searched({"1": "red vehicle", "2": "puppy"})

    assert runs["final"]["1"][0] == "about-cars"
    assert runs["dense"]["2"][0] == "about-dogs"
    assert all(sorted(items) == ["about-cars", "about-dogs"] for items in runs["dense"].values())  # each once


async def test_a_stage_that_never_found_anything_is_left_out() -> None:
    assert set(await searched({"1": "xyz"})) == {"dense", "fused", "final"}


async def test_what_the_reranker_has_not_scored_follows_what_it_has() -> None:
    runs = await searched({"1": "hound barks"}, FakeReranker())

    assert runs["rerank"]["1"] == ["about-dogs", "about-cars"]


async def test_progress_is_told_for_each_passage() -> None:
    embedder, told = TopicEmbedder(), []
    assert embedder.facts is not None

    async with open_trial_store(PASSAGES, embedder, embedder.facts, CHUNKING, advance=lambda: told.append(1)):
        assert len(told) == len(PASSAGES)
    assert {options["lane"] for options in embedder.options} == {"bulk"}


async def test_an_error_of_the_model_comes_out_as_it_is() -> None:
    embedder = TopicEmbedder(error=ModelUnavailable("it is down"))
    assert embedder.facts is not None

    with pytest.raises(ModelUnavailable):
        async with open_trial_store(PASSAGES, embedder, embedder.facts, CHUNKING):
            pass


async def test_an_error_of_a_search_comes_out_as_it_is() -> None:
    async def search(_query: str) -> SearchOutcome:
        raise ModelUnavailable("it is down")

    with pytest.raises(ModelUnavailable):
        await ask_all({"1": "a", "2": "b"}, search)


@pytest.mark.parametrize(
    ("passage", "text", "heading"),
    [
        (Passage("1", "A wing", "It lifts."), "A wing\n\nIt lifts.", "A wing"),
        (Passage("1", "a wing", "a wing . it lifts"), "a wing . it lifts", "a wing"),
        (Passage("1", "", "it lifts"), "it lifts", None),
        (Passage("1", "A wing", ""), "A wing", "A wing"),
    ],
    ids=["title and text", "text with its title", "no title", "no text"],
)
def test_a_title_is_a_heading_and_stands_in_the_text_once(passage: Passage, text: str, heading: str | None) -> None:
    parsed = parsed_passage(passage)

    headings = [parsed.text[block.start : block.end] for block in parsed.blocks if block.kind == "heading"]
    assert parsed.text == text
    assert headings == ([heading] if heading else [])
