"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio

import httpx
import orjson
import pytest

from server.api.sse import PING
from server.errors import InvalidRequest, WorkerCrashed
from server.types import Delta, Started, TextPrompt, TokensPrompt
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection

URL = "/v1/completions"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Once", [TextPrompt("Once")]),
        (["Once", "Twice"], [TextPrompt("Once"), TextPrompt("Twice")]),
        ([1, 2], [TokensPrompt([1, 2])]),
        ([[1], [2, 3]], [TokensPrompt([1]), TokensPrompt([2, 3])]),
    ],
)
async def test_each_form_of_prompt_reaches_the_model(
    client: httpx.AsyncClient, stack: Stack, prompt: object, expected: list[object]
) -> None:
    response = await client.post(URL, json={"model": "talker", "prompt": prompt})

    assert [request.prompt for request in stack.chat.requests] == expected
    choices = response.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(len(expected)))
    assert {choice["text"] for choice in choices} == {"Hello there"}
    assert response.json()["usage"]["completion_tokens"] == 2 * len(expected)


async def test_a_stream_carries_all_prompts_then_the_sum_of_usage(client: httpx.AsyncClient) -> None:
    body = {"model": "talker", "prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}}

    response = await client.post(URL, json=body)

    *data, last, done = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    choices = [orjson.loads(line)["choices"][0] for line in data]
    for index in (0, 1):
        assert "".join(choice["text"] for choice in choices if choice["index"] == index) == "Hello there"
    assert orjson.loads(last)["choices"] == []
    assert orjson.loads(last)["usage"]["prompt_tokens"] == 10
    assert done == "[DONE]"


async def test_a_refused_prompt_still_gets_its_status_in_a_stream(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (InvalidRequest("prompt is wrong", param="prompt"),)

    response = await client.post(URL, json={"model": "talker", "prompt": ["a", "b"], "stream": True})

    assert response.status_code == 400


@pytest.mark.parametrize("prompts", [["fine", "too long"], ["too long", "fine"], ["fine"] * 127 + ["too long"]])
async def test_one_refused_prompt_of_several_still_gets_its_status_in_a_stream(
    client: httpx.AsyncClient, stack: Stack, prompts: list[str]
) -> None:
    stack.chat.too_long = TextPrompt("too long")

    response = await client.post(URL, json={"model": "talker", "prompt": prompts, "stream": True})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_headers_are_sent_when_all_prompts_are_accepted(stack: Stack) -> None:
    stack.chat.steps = (Started(1), asyncio.Event())
    connection = AsgiConnection(stack.app(), URL, {"model": "talker", "prompt": ["a", "b"], "stream": True})

    assert await connection.read_status() == 200
    assert await connection.read_chunk() == PING
    assert len(stack.chat.requests) == 2
    connection.disconnect()
    await connection.done


async def test_an_error_of_one_prompt_ends_all(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(1), Delta("x"), WorkerCrashed("the worker has died"))

    response = await client.post(URL, json={"model": "talker", "prompt": ["a", "b"]})

    assert response.status_code == 503


async def test_a_client_that_leaves_aborts_every_generation(stack: Stack) -> None:
    stack.chat.steps = (Started(1), asyncio.Event())
    connection = AsgiConnection(stack.app(), URL, {"model": "talker", "prompt": ["a", "b"], "stream": True})
    await connection.read_status()

    connection.disconnect()

    await connection.done
    assert len(stack.chat.aborted) == 2
