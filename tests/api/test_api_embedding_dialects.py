"""Embeddings as TEI, Ollama and Cohere have them."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from server.types import ModelFacts
from tests.api.conftest import Stack

A, BB = [np.cos(1), np.sin(1)], [np.cos(2), np.sin(2)]
LONG = "x" * 101  # too long for the model


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


# ---- text-embeddings-inference


@pytest.mark.parametrize(("inputs", "rows"), [("a", [A]), (["a", "bb"], [A, BB])])
async def test_tei_answers_with_bare_rows(client: httpx.AsyncClient, inputs: object, rows: list[list[float]]) -> None:
    np.testing.assert_allclose(await post(client, "/embed", inputs=inputs), rows, rtol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({}, "error"),
        ({"truncate": False}, "error"),
        ({"truncate": True}, "end"),
        ({"truncate": True, "truncation_direction": "Left"}, "start"),
        ({"truncate": True, "truncation_direction": "right"}, "end"),
    ],
)
async def test_tei_truncates_on_the_side_asked_for(
    client: httpx.AsyncClient, stack: Stack, wanted: dict[str, object], told: str
) -> None:
    await post(client, "/embed", inputs="a", **wanted)

    assert stack.embedder.options[0]["truncate"] == told


async def test_tei_honours_prompt_norm_and_length(client: httpx.AsyncClient, stack: Stack) -> None:
    rows = await post(client, "/embed", inputs="a", prompt_name="query", normalize=False, dimensions=1)

    assert stack.embedder.options[0]["prompt"] == "query: "
    assert rows == [[pytest.approx(2 * np.cos(1))]]


async def test_teis_token_ids_are_the_models_own(client: httpx.AsyncClient, stack: Stack) -> None:
    await post(client, "/embed", inputs=[[101, 102], [7]])

    assert stack.embedder.calls == [[[101, 102], [7]]]


async def test_tei_tells_tokens_and_where_they_stand(client: httpx.AsyncClient) -> None:
    (tokens,) = await post(client, "/tokenize", inputs=["ab"])

    assert tokens[0] == {"id": 1, "text": "<s>", "special": True, "start": None, "stop": None}
    assert tokens[2] == {"id": 98, "text": "b", "special": False, "start": 1, "stop": 2}


async def test_tei_leaves_out_special_tokens_if_told_so(client: httpx.AsyncClient) -> None:
    (tokens,) = await post(client, "/tokenize", inputs="ab", add_special_tokens=False)

    assert [token["text"] for token in tokens] == ["a", "b"]


async def test_tei_info_tells_clients_how_much_they_may_send(client: httpx.AsyncClient) -> None:
    body = (await client.get("/info")).json()

    assert body["model_id"] == "embedder"
    assert body["model_type"] == {"embedding": {"pooling": "cls"}}
    assert (body["max_input_length"], body["max_client_batch_size"]) == (512, 8)


async def test_tei_info_waits_for_no_model(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.embedder.facts = None

    response = await client.get("/info")

    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")


# ---- Ollama


@pytest.mark.parametrize(("inputs", "rows"), [("a", [A]), (["a", "bb"], [A, BB])])
async def test_ollama_answers_with_rows_and_nanoseconds(
    client: httpx.AsyncClient, inputs: object, rows: list[list[float]]
) -> None:
    body = await post(client, "/api/embed", model="embedder", input=inputs)

    np.testing.assert_allclose(body["embeddings"], rows, rtol=1e-6)
    assert (body["model"], body["prompt_eval_count"]) == ("embedder", len("".join(inputs)))  # type: ignore[arg-type]
    assert body["total_duration"] > 0 and body["load_duration"] == 0


async def test_ollama_truncates_unless_told_otherwise_and_says_so(client: httpx.AsyncClient) -> None:
    cut = await client.post("/api/embed", json={"model": "embedder", "input": LONG})
    refused = await client.post("/api/embed", json={"model": "embedder", "input": LONG, "truncate": False})

    assert cut.headers["x-hearth-truncated-inputs"] == "1"
    assert refused.json()["error"]["code"] == "context_length_exceeded"


async def test_ollamas_older_route_embeds_one_text(client: httpx.AsyncClient) -> None:
    body = await post(
        client, "/api/embeddings", model="embedder", prompt="a", options={"use_mmap": True}, keep_alive=-1
    )

    np.testing.assert_allclose(body["embedding"], A, rtol=1e-6)


# ---- Cohere

SEARCH = {"model": "embedder", "texts": ["a", "bb"], "input_type": "search_document"}


async def test_cohere_v2_answers_by_type(client: httpx.AsyncClient, stack: Stack) -> None:
    body = await post(client, "/v2/embed", **SEARCH, embedding_types=["float", "int8", "ubinary", "base64"])

    np.testing.assert_allclose(body["embeddings"]["float"], [A, BB], rtol=1e-6)
    assert body["embeddings"]["int8"] == [[69, 107], [-53, 115]]
    assert body["embeddings"]["ubinary"] == [[0b11000000], [0b01000000]]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(body["embeddings"]["base64"][1]), "<f4"), BB, rtol=1e-6)
    assert stack.embedder.options[0]["prompt"] == "passage: "


async def test_cohere_v2_has_floats_by_default_and_counts_tokens(client: httpx.AsyncClient) -> None:
    body = await post(client, "/v2/embed", **SEARCH)

    assert list(body["embeddings"]) == ["float"]
    assert (body["texts"], body["response_type"]) == (["a", "bb"], "embeddings_by_type")
    assert body["meta"]["api_version"] == {"version": "2"}
    assert body["meta"]["billed_units"] == {"input_tokens": 3}


async def test_cohere_v1_without_types_has_bare_rows(client: httpx.AsyncClient) -> None:
    bare = await post(client, "/v1/embed", **SEARCH)
    typed = await post(client, "/v1/embed", **SEARCH, embedding_types=["float"])

    assert bare["response_type"] == "embeddings_floats"
    assert typed["embeddings"]["float"] == bare["embeddings"]


async def test_cohere_truncates_unless_told_otherwise_and_warns(client: httpx.AsyncClient) -> None:
    cut = await post(client, "/v2/embed", **{**SEARCH, "texts": [LONG, "a"]})
    refused = await client.post("/v2/embed", json={**SEARCH, "texts": [LONG], "truncate": "NONE"})

    assert cut["meta"]["warnings"] == ["1 of 2 texts were too long and were cut"]
    assert refused.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/embed", {}, "inputs"),
        ("/embed", {"inputs": []}, "inputs"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        ("/embed", {"inputs": "a", "prompt_name": "x"}, "prompt_name"),
        ("/tokenize", {"inputs": [[1]]}, "inputs"),
        ("/api/embed", {"input": "a"}, "model"),
        ("/api/embed", {"model": "embedder", "input": [1, 2]}, "input"),
        ("/api/embeddings", {"model": "embedder", "prompt": ""}, "prompt"),
        ("/v2/embed", {**SEARCH, "texts": []}, "texts"),
        ("/v2/embed", {**SEARCH, "embedding_types": []}, "embedding_types"),
        ("/v2/embed", {**SEARCH, "embedding_types": ["int4"]}, "embedding_types[0]"),
        ("/v2/embed", {**SEARCH, "images": ["data:image/png;base64,"]}, "images"),
        ("/v2/embed", {**SEARCH, "max_tokens": 5}, "max_tokens"),
        ("/v2/embed", {**SEARCH, "output_dimension": 256}, "dimensions"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    client: httpx.AsyncClient, path: str, body: dict[str, object], param: str
) -> None:
    response = await client.post(path, json=body)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": ["a"] * 9}),
        ("/tokenize", {"inputs": ["a"] * 9}),
        ("/api/embed", {"model": "embedder", "input": ["a"] * 9}),
        ("/v2/embed", {"texts": ["a"] * 9}),
    ],
)
async def test_limits_hold_in_every_dialect(client: httpx.AsyncClient, path: str, body: dict[str, object]) -> None:
    assert (await client.post(path, json=body)).status_code == 413


async def test_tei_info_of_a_server_that_only_reranks_is_a_rerankers(stack: Stack) -> None:
    stack.reranker.facts = ModelFacts(context_length=256)
    app = stack.app(without=("embedder",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        body = (await client.get("/info")).json()

    assert (list(body["model_type"]), body["max_input_length"]) == (["reranker"], 256)
