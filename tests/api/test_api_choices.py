"""`n`, `best_of`, `echo` and `suffix`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from server.errors import WorkerCrashed
from server.types import (
    Delta,
    Finished,
    GenerateRequest,
    ModelFacts,
    Started,
    TextPrompt,
    TokenChance,
    TokenLogprob,
    Usage,
)
from tests.api.conftest import RAG, Stack
from tests.fakes.asgi import AsgiConnection
from tests.fakes.models import FakeChatModel, saying

CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"
HELLO: dict[str, Any] = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}
ONCE: dict[str, Any] = {"model": "talker", "prompt": "Once"}


@dataclass
class Doubtful(FakeChatModel):
    """Answers the i-th request with "i", one token less likely than all before; the first finds nothing cached."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        index = len(self.requests)
        logprob = TokenLogprob(TokenChance(str(index).encode(), -5.0 + index))
        usage = Usage(prompt_tokens=5, completion_tokens=1, cached_tokens=4 if index else 0)
        self.steps = (Started(5), Delta(str(index), logprobs=(logprob,)), Finished("stop", usage))
        async with aclosing(super().generate(request)) as events:
            async for event in events:
                yield event


@pytest.fixture
def stack(stack: Stack) -> Stack:
    stack.chat = Doubtful(facts=ModelFacts(context_length=4096))
    return stack


def chunks_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [orjson.loads(line) for line in lines if line != "[DONE]"]


async def test_a_chat_has_n_choices_and_one_prompt(client: httpx.AsyncClient, stack: Stack) -> None:
    body = (await client.post(CHAT_URL, json={**HELLO, "n": 3, "seed": 7})).json()

    assert [(choice["index"], choice["message"]["content"]) for choice in body["choices"]] == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (5, 3)
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert [request.sampling.seed for request in stack.chat.requests] == [7, 8, 9]
    assert len({request.request_id for request in stack.chat.requests}) == 3


async def test_streamed_choices_have_a_role_text_and_an_ending_each(client: httpx.AsyncClient) -> None:
    body = {**HELLO, "n": 2, "stream": True, "stream_options": {"include_usage": True}}

    *chunks, last = chunks_of(await client.post(CHAT_URL, json=body))

    for index in (0, 1):
        mine = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert [choice["delta"].get("content") for choice in mine] == ["", str(index), None]
        assert [choice["finish_reason"] for choice in mine] == [None, None, "stop"]
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 5)


async def test_a_failed_choice_fails_the_request_and_ends_the_others(client: httpx.AsyncClient, stack: Stack) -> None:
    class HalfBroken(Doubtful):
        async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
            self.steps = (Started(5), asyncio.Event()) if self.requests else (Started(5), WorkerCrashed("it has died"))
            async with aclosing(FakeChatModel.generate(self, request)) as events:
                async for event in events:
                    yield event

    stack.chat = HalfBroken()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        response = await client.post(CHAT_URL, json={**HELLO, "n": 2})

    assert response.status_code == 503
    assert len(stack.chat.aborted) == 1


async def test_a_client_that_leaves_aborts_every_choice(stack: Stack) -> None:
    stack.chat = FakeChatModel(steps=(Started(5), asyncio.Event()))
    connection = AsgiConnection(stack.app(), CHAT_URL, {**HELLO, "n": 3, "stream": True})
    await connection.read_status()

    connection.disconnect()

    await connection.done
    assert len(stack.chat.aborted) == 3


async def test_grounded_answers_come_one_at_a_time(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.rag_models = (RAG,)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        for body in ({**HELLO, "documents": ["a text"]}, {**HELLO, "model": "handbook"}):
            response = await client.post(CHAT_URL, json={**body, "n": 2})

            assert (response.status_code, response.json()["error"]["param"]) == (400, "n")


async def test_the_choices_of_each_prompt_stand_together(client: httpx.AsyncClient, stack: Stack) -> None:
    body = (await client.post(COMPLETION_URL, json={**ONCE, "prompt": ["a", "b"], "n": 2})).json()

    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert [request.prompt for request in stack.chat.requests] == [TextPrompt(text) for text in "aabb"]
    assert body["usage"]["prompt_tokens"] == 10


async def test_the_best_of_several_are_those_that_the_model_thinks_likeliest(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    body = (await client.post(COMPLETION_URL, json={**ONCE, "prompt": ["a", "b"], "best_of": 3, "n": 2})).json()

    assert [choice["text"] for choice in body["choices"]] == ["2", "1", "5", "4"]
    assert {choice["logprobs"] for choice in body["choices"]} == {None}  # nobody asked for them
    assert body["usage"]["completion_tokens"] == 6
    assert stack.chat.requests[0].sampling.num_logprobs == 0


async def test_an_answer_that_says_nothing_is_not_the_best(client: httpx.AsyncClient, stack: Stack) -> None:
    class OnceSilent(Doubtful):
        async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
            async for event in super().generate(request):  # to its end
                if not isinstance(event, Delta) or len(self.requests) == 1:
                    yield event

    stack.chat = OnceSilent()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        body = (await client.post(COMPLETION_URL, json={**ONCE, "best_of": 2})).json()

    assert [choice["text"] for choice in body["choices"]] == ["0"]


async def test_echo_and_suffix_reach_the_model(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(COMPLETION_URL, json={**ONCE, "echo": True, "suffix": "the end"})
    await client.post(COMPLETION_URL, json={**ONCE, "suffix": ""})

    assert stack.chat.requests[0].echoes
    assert [request.prompt for request in stack.chat.requests] == [TextPrompt("Once", "the end"), TextPrompt("Once")]


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        (CHAT_URL, {**HELLO, "n": 0}, "n"),
        (CHAT_URL, {**HELLO, "n": 17}, "n"),
        (CHAT_URL, {**HELLO, "n": "2"}, "n"),
        (COMPLETION_URL, {**ONCE, "n": 3, "best_of": 2}, "best_of"),
        (COMPLETION_URL, {**ONCE, "best_of": 2, "stream": True}, "best_of"),
        (COMPLETION_URL, {**ONCE, "best_of": 17}, "best_of"),
        (COMPLETION_URL, {**ONCE, "prompt": ["x"] * 65, "n": 2}, "n"),
        (COMPLETION_URL, {**ONCE, "prompt": ["x"] * 65, "best_of": 2}, "best_of"),
        (COMPLETION_URL, {**ONCE, "prompt": [1, 2], "suffix": "x"}, "suffix"),
        (COMPLETION_URL, {**ONCE, "model": "actor", "suffix": "x"}, "suffix"),
        (COMPLETION_URL, {**ONCE, "model": "actor", "best_of": 2}, "best_of"),
        (COMPLETION_URL, {**ONCE, "echo": 1}, "echo"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], param: str
) -> None:
    response = await client.post(url, json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_scripts_have_choices_too(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.actor.steps = saying("Hello")

    body = (await client.post(CHAT_URL, json={**HELLO, "model": "actor", "n": 2})).json()

    assert [choice["message"]["content"] for choice in body["choices"]] == ["Hello", "Hello"]
