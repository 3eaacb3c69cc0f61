"""`POST /v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64

import httpx
import numpy as np
import pytest

from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection

URL = "/v1/embeddings"


async def test_an_answer_has_openais_shape(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json={"model": "embedder", "input": ["a", "bb"]})).json()

    assert body["object"] == "list"
    assert [item["index"] for item in body["data"]] == [0, 1]
    np.testing.assert_allclose(body["data"][1]["embedding"], [np.cos(2), np.sin(2)], rtol=1e-6)
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "truncated_inputs": 0}


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


async def test_too_many_texts_are_refused_before_the_model_sees_them(client: httpx.AsyncClient, stack: Stack) -> None:
    response = await client.post(URL, json={"model": "embedder", "input": ["x"] * 9})

    assert response.status_code == 413
    assert response.json()["error"]["param"] == "input"
    assert not stack.embedder.calls


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2]]])
async def test_token_ids_are_refused_by_name(client: httpx.AsyncClient, tokens: object) -> None:
    error = (await client.post(URL, json={"model": "embedder", "input": tokens})).json()["error"]

    assert error["param"] == "input"
    assert error["code"] == "unsupported_value"


async def test_a_client_that_leaves_cancels_the_work(stack: Stack) -> None:
    stack.embedder.gate = asyncio.Event()
    connection = AsgiConnection(stack.app(), URL, {"model": "embedder", "input": "abc"})
    await asyncio.wait_for(stack.embedder.begun.wait(), timeout=5)

    connection.disconnect()

    await asyncio.wait_for(stack.embedder.cancelled.wait(), timeout=5)
    await connection.done
    assert not connection.has_unread
