"""Scores of pairs over HTTP, in vLLM's shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.errors import Overloaded
from tests.api.conftest import Stack

HIGH, EVEN, LOW = 0.7310586, 0.5, 0.2689414


def scores_of(body: dict[str, Any]) -> list[float]:
    return [item["score"] for item in body["data"]]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_one_text_is_scored_with_many_in_their_order(client: httpx.AsyncClient, path: str) -> None:
    request = {"model": "ranker", "text_1": "red cat", "text_2": ["a dog", "a red cat", "a cat"]}

    body = (await client.post(path, json=request)).json()

    assert body["object"] == "list"
    assert body["model"] == "ranker"
    assert [(item["index"], item["object"]) for item in body["data"]] == [(0, "score"), (1, "score"), (2, "score")]
    assert scores_of(body) == pytest.approx([LOW, HIGH, EVEN])
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")]
)
async def test_lists_of_equal_length_are_scored_pair_by_pair(
    client: httpx.AsyncClient, stack: Stack, names: tuple[str, str]
) -> None:
    request = {names[0]: ["red cat", "a dog", "red cat"], names[1]: ["a cat", "a dog", "a dog"]}

    body = (await client.post("/score", json=request)).json()

    assert scores_of(body) == pytest.approx([EVEN, HIGH, LOW])
    assert sorted(stack.reranker.calls, key=len) == [["a dog"], ["a cat", "a dog"]]  # a call for each query


async def test_two_texts_are_one_pair(client: httpx.AsyncClient) -> None:
    body = (await client.post("/score", json={"text_1": "red cat", "text_2": "red"})).json()

    assert scores_of(body) == [EVEN]


async def test_options_are_those_of_rerank(client: httpx.AsyncClient, stack: Stack) -> None:
    request = {"text_1": "q", "text_2": "q " + "x" * 200, "truncate_prompt_tokens": -1, "use_activation": False}

    body = (await client.post("/score", json={**request, "priority": 3})).json()

    assert scores_of(body) == [0]
    assert body["usage"]["truncated_inputs"] == 1
    assert stack.reranker.options[0]["lane"] == "bulk"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"text_1": ["a", "b"]}, 400, "text_2"),
        ({"text_1": []}, 400, "text_1"),
        ({"text_1": ""}, 400, "text_1"),
        ({"text_1": 5}, 400, "text_1"),
        ({"text_1": None}, 400, "text_1"),
        ({"text_2": [{"content": []}]}, 400, "text_2"),
        ({"text_2": ["x"] * 9}, 413, "text_2"),
        ({"text_2": ["a", "y" * 101, "b"]}, 400, "text_2[1]"),
        ({"text_1": ["p", "q", "p"], "text_2": ["a", "b", "y" * 101]}, 400, "text_2[2]"),
        ({"data_1": "a"}, 400, "data_1"),
    ],
)
async def test_bad_pairs_are_refused_by_name(
    client: httpx.AsyncClient, change: dict[str, Any], status: int, param: str | None
) -> None:
    response = await client.post("/score", json={"text_1": "a", "text_2": ["x", "y", "z"], **change})

    assert response.status_code == status
    assert response.json()["error"]["param"] == param


async def test_one_failed_query_fails_the_request_with_its_error(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.reranker.error = Overloaded("full")

    response = await client.post("/score", json={"text_1": ["a", "b"], "text_2": ["x", "y"]})

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "overloaded"
