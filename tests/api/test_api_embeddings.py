"""`POST /v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64

import httpx
import numpy as np
import pytest

from server.config.server_section import Limits
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection

URL = "/v1/embeddings"


async def test_an_answer_has_openais_shape(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json={"model": "embedder", "input": ["a", "bb"]})).json()

    assert body["object"] == "list"
    assert [item["index"] for item in body["data"]] == [0, 1]
    np.testing.assert_allclose(body["data"][1]["embedding"], [np.cos(2), np.sin(2)], rtol=1e-6)
    assert body["model"] == "embedder"
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "truncated_inputs": 0, "cached_inputs": 0}


async def test_without_a_model_the_first_one_that_embeds_answers(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={"input": "abc"})).json()["model"] == "embedder"


async def test_base64_holds_the_same_little_endian_floats(client: httpx.AsyncClient) -> None:
    request = {"model": "embedder", "input": "abc"}

    floats = (await client.post(URL, json=request)).json()["data"][0]["embedding"]
    packed = (await client.post(URL, json={**request, "encoding_format": "base64"})).json()["data"][0]["embedding"]

    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == np.array(floats, "<f4").tolist()


async def test_dimensions_are_accepted_only_as_the_model_has_them(client: httpx.AsyncClient, stack: Stack) -> None:
    request = {"model": "embedder", "input": "abc"}

    assert (await client.post(URL, json={**request, "dimensions": 2})).status_code == 200
    refused = await client.post(URL, json={**request, "dimensions": 3})

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "dimensions"
    assert len(stack.embedder.calls) == 1


async def test_a_long_text_is_refused_or_truncated_and_reported(client: httpx.AsyncClient) -> None:
    request = {"model": "embedder", "input": ["x" * 101, "y"]}

    refused = await client.post(URL, json=request)
    cut = await client.post(URL, json={**request, "truncate": True})

    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert cut.json()["usage"]["truncated_inputs"] == 1
    assert cut.headers["x-hearth-truncated-inputs"] == "1"


async def test_too_many_texts_are_refused_before_the_model_sees_them(client: httpx.AsyncClient, stack: Stack) -> None:
    response = await client.post(URL, json={"model": "embedder", "input": ["x"] * 9})

    assert response.status_code == 413
    assert response.json()["error"]["param"] == "input"
    assert not stack.embedder.calls


@pytest.mark.parametrize(
    ("truncate", "told"),
    [
        (True, "end"),
        (False, "error"),
        ("NONE", "error"),
        ("END", "end"),
        ("START", "start"),
        ("end", "end"),
        ("start", "start"),
        ("mean", "mean"),
        (None, "error"),
    ],
)
async def test_truncation_has_many_names(client: httpx.AsyncClient, stack: Stack, truncate: object, told: str) -> None:
    response = await client.post(URL, json={"model": "embedder", "input": "a", "truncate": truncate})

    assert response.status_code == 200
    assert stack.embedder.options[0]["truncate"] == told


@pytest.mark.parametrize(
    ("priority", "lane"),
    [("bulk", "bulk"), ("interactive", "interactive"), (5, "bulk"), (0, "interactive"), (-1, "interactive")],
)
async def test_priority_chooses_the_lane(client: httpx.AsyncClient, stack: Stack, priority: object, lane: str) -> None:
    await client.post(URL, json={"model": "embedder", "input": "a", "priority": priority})

    assert stack.embedder.options[0]["lane"] == lane


@pytest.mark.parametrize(
    ("wanted", "row"),
    [
        ({}, [np.cos(np.float32(3)), np.sin(np.float32(3))]),
        ({"normalize": False}, [2 * np.cos(np.float32(3)), 2 * np.sin(np.float32(3))]),
        ({"dimensions": 1}, [-1]),
        ({"output_dtype": "int8"}, [-126, 18]),
        ({"output_dtype": "uint8"}, [2, 146]),
        ({"output_dtype": "ubinary"}, [0b01000000]),
        ({"output_dtype": "binary"}, [0b01000000 - 128]),
        ({"output_dtype": "int8", "dimensions": 1}, [-127]),
    ],
)
async def test_vectors_come_in_the_length_and_type_asked_for(
    client: httpx.AsyncClient, wanted: dict[str, object], row: list[float]
) -> None:
    body = (await client.post(URL, json={"model": "embedder", "input": "abc", **wanted})).json()

    assert body["data"][0]["embedding"] == pytest.approx(row)


async def test_small_types_come_as_base64_too(client: httpx.AsyncClient) -> None:
    request = {"model": "embedder", "input": "abc", "encoding_format": "base64", "output_dtype": "int8"}

    packed = (await client.post(URL, json=request)).json()["data"][0]["embedding"]

    assert np.frombuffer(base64.b64decode(packed), np.int8).tolist() == [-126, 18]


async def test_a_large_answer_is_the_same_as_its_parts(client: httpx.AsyncClient, stack: Stack) -> None:
    """Large answers are written elsewhere; see `vector_json`."""
    stack.limits = Limits(max_inputs=10_000)
    texts = ["x" * (index % 7 + 1) for index in range(10_000)]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as large:
        many = (await large.post(URL, json={"input": texts})).json()["data"]
    few = (await client.post(URL, json={"input": texts[:7]})).json()["data"]

    assert [item["embedding"] for item in many[7000:7007]] == [item["embedding"] for item in few]
    assert [item["index"] for item in many] == list(range(10_000))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"truncate": "middle"}, "truncate"),
        ({"truncate": 1}, "truncate"),
        ({"priority": "high"}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 0.5}, "priority"),
        ({"output_dtype": "float16"}, "output_dtype"),
        ({"output_dtype": "int8", "normalize": False}, "normalize"),
        ({"token_encoding": "r50k_base"}, "token_encoding"),
        ({"prompt_name": "x"}, "prompt_name"),
        ({"input_type": "x"}, "input_type"),
        ({"prompt_name": "query", "input_type": "query"}, "prompt_name"),
        ({"input": [[1], []]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [2**31]}, "input"),
        ({"input": [{"text": "a"}]}, "input"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    client: httpx.AsyncClient, stack: Stack, change: dict[str, object], param: str
) -> None:
    response = await client.post(URL, json={"model": "embedder", "input": "abc", **change})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not stack.embedder.calls


@pytest.mark.parametrize("tokens", [[101, 7592, 102], [[101, 7592, 102]]])
async def test_token_ids_of_the_model_are_declared_and_told_of_in_a_header(
    client: httpx.AsyncClient, stack: Stack, tokens: object
) -> None:
    request = {"model": "embedder", "input": tokens, "token_encoding": "model"}

    response = await client.post(URL, json=request)

    assert stack.embedder.calls == [[[101, 7592, 102]]]
    assert response.headers["x-hearth-token-encoding"] == "model"


async def test_texts_have_no_token_encoding(client: httpx.AsyncClient) -> None:
    assert "x-hearth-token-encoding" not in (await client.post(URL, json={"input": "abc"})).headers


async def test_the_same_text_twice_counts_as_cached(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={"input": ["a", "b", "a"]})).json()["usage"]["cached_inputs"] == 1


async def test_a_client_that_leaves_cancels_the_work(stack: Stack) -> None:
    stack.embedder.gate = asyncio.Event()
    connection = AsgiConnection(stack.app(), URL, {"model": "embedder", "input": "abc"})
    await asyncio.wait_for(stack.embedder.begun.wait(), timeout=5)

    connection.disconnect()

    await asyncio.wait_for(stack.embedder.cancelled.wait(), timeout=5)
    await connection.done
    assert not connection.has_unread
