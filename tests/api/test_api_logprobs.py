"""`logprobs` of chat and of completions."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
from openai import AsyncOpenAI

from server.types import Delta, Finished, Started, TokenChance, TokenLogprob, ToolCallDelta, Usage
from tests.api.conftest import Stack

CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"
HELLO: dict[str, Any] = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}
ONCE: dict[str, Any] = {"model": "talker", "prompt": "Once"}
YES = TokenLogprob(TokenChance(b"Yes", -0.25), (TokenChance(b"Yes", -0.25), TokenChance(b"No", -1.5)))
E_1 = TokenLogprob(TokenChance("é".encode()[:1], -2.0), (TokenChance(b"e", -0.5),))
E_2 = TokenLogprob(TokenChance("é".encode()[1:], -3.0), (TokenChance(b"e", -0.75),))
DONE = Finished("stop", Usage(prompt_tokens=5, completion_tokens=3))
ANSWER = (Started(5), Delta("Yes", logprobs=(YES,)), Delta("é", logprobs=(E_1, E_2)), DONE)


def chunks_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [orjson.loads(line) for line in lines if line != "[DONE]"]


async def test_a_chat_has_them_in_openais_shape(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = ANSWER

    response = await client.post(CHAT_URL, json={**HELLO, "logprobs": True, "top_logprobs": 2})

    [choice] = response.json()["choices"]
    first, *parts = choice["logprobs"]["content"]
    assert first == {
        "token": "Yes",
        "logprob": -0.25,
        "bytes": [89, 101, 115],
        "top_logprobs": [
            {"token": "Yes", "logprob": -0.25, "bytes": [89, 101, 115]},
            {"token": "No", "logprob": -1.5, "bytes": [78, 111]},
        ],
    }
    assert bytes(byte for part in parts for byte in part["bytes"]).decode() == "é"
    assert stack.chat.requests[0].sampling.num_logprobs == 2


@pytest.mark.parametrize(
    ("wanted", "num_logprobs"),
    [({}, None), ({"logprobs": False, "top_logprobs": 0}, None), ({"logprobs": True}, 0), ({"logprobs": None}, None)],
)
async def test_only_who_asks_gets_them(
    client: httpx.AsyncClient, stack: Stack, wanted: dict[str, Any], num_logprobs: int | None
) -> None:
    response = await client.post(CHAT_URL, json={**HELLO, **wanted})

    assert stack.chat.requests[0].sampling.num_logprobs == num_logprobs
    assert (response.json()["choices"][0]["logprobs"] is None) == (num_logprobs is None)


async def test_in_a_stream_they_come_with_their_text(client: httpx.AsyncClient, stack: Stack) -> None:
    call = ToolCallDelta(0, "call_1", "weather", "{}")
    stack.chat.steps = (Started(5), Delta("Yes", (call,), "Hm", (YES,)), DONE)

    chunks = chunks_of(await client.post(CHAT_URL, json={**HELLO, "logprobs": True, "stream": True}))

    told = [(chunk["choices"][0]["delta"], chunk["choices"][0]["logprobs"]) for chunk in chunks]
    assert [(list(delta), bool(logprobs)) for delta, logprobs in told[1:]] == [
        (["reasoning_content"], False),
        (["content"], True),
        (["tool_calls"], False),
        ([], False),
    ]
    assert told[2][1]["content"][0]["token"] == "Yes"


async def test_a_completion_has_them_in_its_own_shape(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = ANSWER

    response = await client.post(COMPLETION_URL, json={**ONCE, "logprobs": 2})

    [choice] = response.json()["choices"]
    assert choice["logprobs"] == {
        "tokens": ["Yes", "bytes:\\xc3", "bytes:\\xa9"],
        "token_logprobs": [-0.25, -2.0, -3.0],
        "top_logprobs": [
            {"Yes": -0.25, "No": -1.5},
            {"e": -0.5, "bytes:\\xc3": -2.0},
            {"e": -0.75, "bytes:\\xa9": -3.0},
        ],
        "text_offset": [0, 3, 3],
    }


async def test_offsets_go_on_from_chunk_to_chunk(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Yes", logprobs=(YES,)), Delta("Yes", logprobs=(YES,)), DONE)

    chunks = chunks_of(await client.post(COMPLETION_URL, json={**ONCE, "logprobs": 0, "stream": True}))

    told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [each["text_offset"] for each in told[:2]] == [[0], [3]]
    assert told[2] is None


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        (CHAT_URL, {**HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT_URL, {**HELLO, "top_logprobs": 1}, "top_logprobs"),
        (CHAT_URL, {**HELLO, "logprobs": 1}, "logprobs"),
        (COMPLETION_URL, {**ONCE, "logprobs": True}, "logprobs"),
        (COMPLETION_URL, {**ONCE, "logprobs": -1}, "logprobs"),
        (COMPLETION_URL, {**ONCE, "logprobs": 0, "echo": True}, "echo"),
        (CHAT_URL, {**HELLO, "logprobs": True, "model": "actor"}, "logprobs"),
        (COMPLETION_URL, {**ONCE, "logprobs": 0, "model": "actor"}, "logprobs"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], param: str
) -> None:
    response = await client.post(url, json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_the_sdk_reads_them(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps = ANSWER

    chat = await openai_client.chat.completions.create(**HELLO, logprobs=True, top_logprobs=2)
    completion = await openai_client.completions.create(**ONCE, logprobs=2)

    assert chat.choices[0].logprobs is not None and chat.choices[0].logprobs.content is not None
    assert chat.choices[0].logprobs.content[0].top_logprobs[1].token == "No"
    assert completion.choices[0].logprobs is not None
    assert completion.choices[0].logprobs.token_logprobs == [-0.25, -2.0, -3.0]
