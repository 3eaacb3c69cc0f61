"""`POST /v1/rerank`."""

from __future__ import annotations

import httpx
import pytest

from tests.api.conftest import Stack

REQUEST = {"model": "ranker", "query": "red cat", "documents": ["a dog", "a red cat", {"text": "a cat"}, "a dog"]}


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_documents_come_back_best_first_and_ties_by_index(client: httpx.AsyncClient, path: str) -> None:
    body = (await client.post(path, json=REQUEST)).json()

    assert [result["index"] for result in body["results"]] == [1, 2, 0, 3]
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == pytest.approx([0.7310586, 0.5, 0.2689414, 0.2689414])
    assert "document" not in body["results"][0]


async def test_cohere_and_jina_fields_are_both_there(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/rerank", json=REQUEST)).json()

    assert body["meta"]["api_version"] == {"version": "1"}
    assert body["meta"]["tokens"]["input_tokens"] == body["usage"]["total_tokens"] == 19
    assert body["object"] == "list"
    assert body["model"] == "ranker"
    assert body["id"]


async def test_duplicates_are_scored_once(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post("/v1/rerank", json=REQUEST)

    assert stack.reranker.calls == [["a dog", "a red cat", "a cat"]]


@pytest.mark.parametrize(("top_n", "expected"), [(1, 1), (4, 4), (100, 4)])
async def test_top_n_bounds_the_answer(client: httpx.AsyncClient, top_n: int, expected: int) -> None:
    body = (await client.post("/v1/rerank", json={**REQUEST, "top_n": top_n})).json()

    assert len(body["results"]) == expected


@pytest.mark.parametrize("flag", [True, "true"])
async def test_documents_are_returned_as_objects_on_request(client: httpx.AsyncClient, flag: object) -> None:
    body = (await client.post("/v1/rerank", json={**REQUEST, "return_documents": flag})).json()

    assert body["results"][0]["document"] == {"text": "a red cat"}


async def test_without_a_model_the_first_reranker_answers(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/rerank", json={"query": "q", "documents": ["d"]})).json()

    assert body["model"] == "ranker"


async def test_too_many_documents_are_refused_before_the_model_sees_them(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    response = await client.post("/v1/rerank", json={**REQUEST, "documents": ["x"] * 9})

    assert response.status_code == 413
    assert not stack.reranker.calls
