"""`POST /v1/vector_stores/{id}/search`: what is asked reaches the service; what is found is as OpenAI has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from server.rag.documents import Chunk, Span
from server.rag.filters import Comparison
from server.rag.search import Explanation, Hit, Place, SearchOptions, SearchOutcome, Stage
from tests.api.conftest import Stack

SEARCH = "/v1/vector_stores/vs_1/search"
ASKED: dict[str, Any] = {
    "max_num_results": 3,
    "filters": {"type": "eq", "key": "year", "value": 1999},
    "ranking_options": {
        "ranker": "none",
        "score_threshold": 0.5,
        "hybrid_search": {"embedding_weight": 2, "text_weight": 0},
    },
}
"""How a search may be asked for, here and by the tool `file_search`, and what that means:"""
OPTIONS = SearchOptions(
    max_results=3,
    filter=Comparison("eq", "year", 1999),
    ranker="none",
    score_threshold=0.5,
    embedding_weight=2.0,
    text_weight=0.0,
)
CHUNK = Chunk(
    id=7,
    document_id=1,
    file_id="file-1",
    filename="a.pdf",
    ordinal=0,
    text="The hearth is warm.",
    span=Span(10, 29, page=3, heading="House > Hearth"),
    parent_id=4,
    num_tokens=5,
    attributes={"year": 1999},
)
HIT = Hit(
    chunk=CHUNK,
    score=0.75,
    places={"dense": Place(1, 0.9), "fused": Place(1, 0.5), "final": Place(1, 0.75)},
)
OUTCOME = SearchOutcome(queries=("warm",), hits=(HIT,), num_reranked=0, timings_ms={"total": 1.5})


@pytest.fixture(autouse=True)
def _outcome(stack: Stack) -> None:
    stack.stores.outcome = OUTCOME


async def test_a_hit_is_written_as_openai_writes_it(client: httpx.AsyncClient) -> None:
    body = (await client.post(SEARCH, json={"query": "warm"})).json()

    assert body == {
        "object": "vector_store.search_results.page",
        "search_query": ["warm"],
        "data": [
            {
                "file_id": "file-1",
                "filename": "a.pdf",
                "score": 0.75,
                "attributes": {"year": 1999},
                "content": [{"type": "text", "text": "The hearth is warm."}],
                "x": {
                    "chunk_id": 7,
                    "page": 3,
                    "heading": "House > Hearth",
                    "start": 10,
                    "end": 29,
                    "parent_id": 4,
                    "ranks": {"dense": 1, "lexical": None, "rrf": 1, "rerank": None},
                },
            }
        ],
        "has_more": False,
        "next_page": None,
        "x": {"num_reranked": 0, "rerank_failure": None, "timings_ms": {"total": 1.5}},
    }


async def test_a_bare_query_takes_the_defaults(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(SEARCH, json={"query": "warm"})

    assert stack.stores.last == ("search", ("vs_1", ["warm"], SearchOptions()), {"rewrites_queries": False})


async def test_everything_that_can_be_asked_is_passed_on(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(SEARCH, json={"query": ["warm", "cold"], **ASKED, "rewrite_query": True, "explain": True})

    options = replace(OPTIONS, explain=True)
    assert stack.stores.last == ("search", ("vs_1", ["warm", "cold"], options), {"rewrites_queries": True})


async def test_explain_tells_every_stage_and_what_was_dropped(client: httpx.AsyncClient, stack: Stack) -> None:
    explanation = Explanation(
        stages=(
            Stage(name="dense", ids=(7, 8), scores=(0.9, 0.1), query="warm"),
            Stage(name="fused", ids=(7,), scores=(1.0,)),
        ),
        chunks={7: CHUNK},
        dropped={8: "below the threshold"},
    )
    stack.stores.outcome = SearchOutcome(queries=("warm",), hits=(), explanation=explanation)

    body = (await client.post(SEARCH, json={"query": "warm", "explain": True})).json()

    explained = body["x"]["explanation"]
    assert explained["stages"] == [
        {
            "name": "dense",
            "query": "warm",
            "candidates": [{"chunk_id": 7, "rank": 1, "score": 0.9}, {"chunk_id": 8, "rank": 2, "score": 0.1}],
        },
        {"name": "rrf", "query": None, "candidates": [{"chunk_id": 7, "rank": 1, "score": 1.0}]},
    ]
    assert explained["chunks"][0]["heading"] == "House > Hearth"
    assert explained["dropped"] == [{"chunk_id": 8, "reason": "below the threshold"}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "  "}, "query"),
        ({"query": []}, "query"),
        ({"query": ["a"] * 17}, "query"),
        ({"query": 1}, "query"),
        ({"query": "a", "max_num_results": 51}, "max_num_results"),
        ({"query": "a", "rewrite_query": "yes"}, "rewrite_query"),
        ({"query": "a", "ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
        ({"query": "a", "ranking_options": {"score_threshold": 2}}, "ranking_options.score_threshold"),
        (
            {"query": "a", "ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 0}}},
            "ranking_options.hybrid_search.text_weight",
        ),
        ({"query": "a", "filters": []}, "filters"),
        ({"query": "a", "filters": {"type": "like", "key": "a", "value": "b"}}, "filters.type"),
        ({"query": "a", "filters": {"type": "and", "filters": [{"type": "eq"}]}}, "filters.filters[0]"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, stack: Stack, body: dict[str, Any], param: str
) -> None:
    response = await client.post(SEARCH, json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert stack.stores.calls == []
