"""`POST /v1/chat/completions`."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from server.api.schemas.chat import ChatRequest
from server.errors import Conflict, ContextLengthExceeded, DeadlineExceeded, Overloaded, Reindexed, WorkerCrashed
from server.types import (
    ChatMessage,
    ChatPrompt,
    Delta,
    Finished,
    SamplingParams,
    Started,
    ToolCall,
    ToolCallDelta,
    Urgency,
    Usage,
)
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection
from tests.fakes.models import saying

URL = "/v1/chat/completions"
HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}
CALL = ToolCall("call_1", "weather", '{"city":"Oslo"}')
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def events_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else orjson.loads(line) for line in lines]


async def test_an_answer_has_openais_shape(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json=HELLO)).json()

    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == "talker"
    assert body["system_fingerprint"] == "hearth-1.2.3"
    assert body["service_tier"] == "default"
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello there", "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 7
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 2


async def test_a_stream_starts_with_the_role_and_ends_with_done(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={**HELLO, "stream": True})

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    *chunks, done = events_of(response)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert deltas[1:] == [{"content": "Hello"}, {"content": " there"}, {}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


async def test_the_usage_chunk_comes_last_and_has_no_choices(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={**HELLO, "stream": True, "stream_options": {"include_usage": True}})

    *chunks, last, _done = events_of(response)
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 5
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_the_request_reaches_the_model_with_its_defaults_filled_in(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    request = {**HELLO, "model": "openai/talker", "top_p": 0.9, "stop": "END", "seed": None, "logit_bias": {"7": -100}}

    response = await client.post(URL, json=request)

    assert response.json()["model"] == "talker"
    assert stack.chat.requests[0].prompt == ChatPrompt((ChatMessage(role="user", content="Hi"),))
    assert stack.chat.requests[0].sampling == SamplingParams(
        temperature=0.5, max_tokens=77, top_p=0.9, stop=("END",), logit_bias={7: -100.0}
    )


async def test_urgency_reaches_the_model(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(URL, json={**HELLO, "priority": 3, "timeout_s": 2.5})
    await client.post(URL, json=HELLO)

    assert [request.urgency for request in stack.chat.requests] == [Urgency(priority=3, timeout_s=2.5), Urgency()]


async def test_null_means_the_default_of_every_parameter(client: httpx.AsyncClient, stack: Stack) -> None:
    nulls = dict.fromkeys(ChatRequest.model_fields.keys() - HELLO.keys())

    await client.post(URL, json=HELLO)
    response = await client.post(URL, json={**HELLO, **nulls})

    assert response.status_code == 200
    assert stack.chat.requests[1].prompt == stack.chat.requests[0].prompt
    assert stack.chat.requests[1].sampling == stack.chat.requests[0].sampling


async def test_the_newer_name_of_max_tokens_wins(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(URL, json={**HELLO, "max_tokens": 5, "max_completion_tokens": 9})

    assert stack.chat.requests[0].sampling.max_tokens == 9


async def test_every_role_and_form_of_content_is_understood(client: httpx.AsyncClient, stack: Stack) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "user", "content": "Weather?", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {"id": CALL.id, "type": "function", "function": {"name": CALL.name, "arguments": CALL.arguments}}
            ],
        },
        {"role": "tool", "content": "12 degrees", "tool_call_id": "call_1"},
    ]

    await client.post(URL, json={"model": "talker", "messages": messages})

    assert stack.chat.requests[0].prompt == ChatPrompt(
        (
            ChatMessage(role="system", content="Be brief."),
            ChatMessage(role="developer", content="one\ntwo"),
            ChatMessage(role="user", content="Weather?", name="ann"),
            ChatMessage(role="assistant", tool_calls=(CALL,)),
            ChatMessage(role="tool", content="12 degrees", tool_call_id="call_1"),
        )
    )


async def test_an_answer_can_be_echoed_as_it_came(client: httpx.AsyncClient) -> None:
    message = (await client.post(URL, json=HELLO)).json()["choices"][0]["message"]

    response = await client.post(URL, json={**HELLO, "messages": [*HELLO["messages"], message]})

    assert response.status_code == 200


@pytest.mark.parametrize(
    "echoed",
    [
        {"content": [{"type": "refusal", "refusal": "No."}]},  # OpenAI
        {  # LiteLLM's `message.model_dump()`
            "content": "No.",
            "tool_calls": None,
            "function_call": None,
            "reasoning_content": "Hm",
            "provider_specific_fields": {"refusal": None},
        },
    ],
)
async def test_an_answer_can_be_echoed_as_clients_keep_it(
    client: httpx.AsyncClient, stack: Stack, echoed: dict[str, Any]
) -> None:
    message = {"role": "assistant", **echoed}

    response = await client.post(URL, json={**HELLO, "messages": [message, *HELLO["messages"]]})

    assert response.status_code == 200
    prompt = stack.chat.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == "No."


async def test_tool_calls_are_answered_and_streamed(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (
        Started(5),
        Delta("Look."),
        Delta(tool_calls=(ToolCallDelta(0, "call_1", "weather", '{"city":'),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments='"Oslo"}'), ToolCallDelta(1, "call_2", "weather"))),
        Delta(tool_calls=(ToolCallDelta(1, arguments="{}"),)),
        Finished("tool_calls", Usage(prompt_tokens=5, completion_tokens=9)),
    )
    request = {**HELLO, "tools": TOOLS}

    [choice] = (await client.post(URL, json=request)).json()["choices"]
    _role, content, *calls, end, _done = events_of(await client.post(URL, json={**request, "stream": True}))

    assert choice["message"]["content"] == "Look."
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ]
    assert choice["finish_reason"] == end["choices"][0]["finish_reason"] == "tool_calls"
    assert content["choices"][0]["delta"] == {"content": "Look."}
    assert [event["choices"][0]["delta"]["tool_calls"] for event in calls] == [
        [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}],
        [
            {"index": 0, "function": {"arguments": '"Oslo"}'}},
            {"index": 1, "id": "call_2", "type": "function", "function": {"name": "weather", "arguments": ""}},
        ],
        [{"index": 1, "function": {"arguments": "{}"}}],
    ]


async def test_an_answer_of_calls_alone_has_no_content(client: httpx.AsyncClient, stack: Stack) -> None:
    call = ToolCallDelta(0, "call_1", "weather", "{}")
    stack.chat.steps = (Started(5), Delta(tool_calls=(call,)), Finished("tool_calls", Usage(prompt_tokens=5)))

    [choice] = (await client.post(URL, json={**HELLO, "tools": TOOLS})).json()["choices"]

    assert choice["message"]["content"] is None


async def test_reasoning_is_apart_from_content_and_counted(client: httpx.AsyncClient, stack: Stack) -> None:
    usage = Usage(prompt_tokens=5, completion_tokens=9, reasoning_tokens=4)
    stack.chat.steps = (Started(5), Delta("Yes", reasoning="Hm"), Delta("."), Finished("stop", usage))

    body = (await client.post(URL, json=HELLO)).json()
    _role, *chunks, _end, _done = events_of(await client.post(URL, json={**HELLO, "stream": True}))

    assert body["choices"][0]["message"]["reasoning_content"] == "Hm"
    assert body["choices"][0]["message"]["content"] == "Yes."
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 4
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"reasoning_content": "Hm"},
        {"content": "Yes"},
        {"content": "."},
    ]


async def test_echoed_reasoning_effort_and_template_options_reach_the_model(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    thought = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm"}
    request = {
        **HELLO,
        "messages": [*HELLO["messages"], thought, *HELLO["messages"]],
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": True, "budget": 3},
    }

    await client.post(URL, json=request)

    prompt = stack.chat.requests[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[1] == ChatMessage(role="assistant", content="Yes.", reasoning="Hm")
    assert (prompt.reasoning_effort, prompt.template_options) == ("low", {"enable_thinking": True, "budget": 3})


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_start_keeps_its_status(
    client: httpx.AsyncClient, stack: Stack, *, stream: bool
) -> None:
    stack.chat.steps = (ContextLengthExceeded("prompt has 9 tokens but model 'talker' accepts 8", param="messages"),)

    response = await client.post(URL, json={**HELLO, "stream": stream})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert response.json()["error"]["param"] == "messages"


async def test_an_overloaded_model_says_when_to_come_back(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Overloaded("queue is full", retry_after_s=7),)

    response = await client.post(URL, json=HELLO)

    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("raised", "should_retry"),
    [
        (Overloaded("full"), "true"),
        (WorkerCrashed("died"), "true"),
        (Reindexed("another model's vectors now"), "true"),
        (Conflict("another model's vectors"), "false"),
        (DeadlineExceeded("too late"), "false"),
        (ContextLengthExceeded("too long"), None),
        (ValueError("a bug"), None),
    ],
)
async def test_errors_say_whether_the_same_request_may_succeed_soon(
    client: httpx.AsyncClient, stack: Stack, raised: Exception, should_retry: str | None
) -> None:
    stack.chat.steps = (raised,)

    response = await client.post(URL, json=HELLO)

    assert response.headers.get("x-should-retry") == should_retry


async def test_an_error_inside_a_stream_is_one_event_without_done(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), WorkerCrashed("the worker has died"))

    response = await client.post(URL, json={**HELLO, "stream": True})

    assert response.status_code == 200
    events = events_of(response)
    assert events[-1]["error"]["code"] == "worker_crashed"
    assert [event for event in events if "error" in event] == [events[-1]]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stream_without_an_ending_is_an_error(client: httpx.AsyncClient, stack: Stack, *, stream: bool) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"))

    response = await client.post(URL, json={**HELLO, "stream": stream})

    assert '"code":"internal_error"' in response.text
    assert "[DONE]" not in response.text


async def test_headers_are_sent_when_the_prompt_is_accepted_not_before(stack: Stack) -> None:
    accepted, decoding = asyncio.Event(), asyncio.Event()
    stack.chat.steps = (accepted, Started(5), decoding, *saying("Hi")[1:])
    connection = AsgiConnection(stack.app(), URL, {**HELLO, "stream": True})
    await asyncio.wait_for(stack.chat.begun.wait(), timeout=5)
    assert not connection.has_unread

    accepted.set()

    assert await connection.read_status() == 200
    assert b'"role":"assistant"' in await connection.read_chunk()
    decoding.set()
    await connection.done


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("steps_before", [(), (Started(5), Delta("Hel"))], ids=["queued", "decoding"])
async def test_a_client_that_leaves_aborts_the_generation(
    stack: Stack, steps_before: tuple[Started | Delta, ...], *, stream: bool
) -> None:
    never = asyncio.Event()
    stack.chat.steps = (*steps_before, never)
    connection = AsgiConnection(stack.app(), URL, {**HELLO, "stream": stream})
    await asyncio.wait_for(stack.chat.begun.wait(), timeout=5)

    connection.disconnect()

    await asyncio.wait_for(stack.chat.abort_seen.wait(), timeout=5)
    await connection.done
    assert stack.chat.aborted == [stack.chat.requests[0].request_id]


async def test_a_server_that_stops_aborts_the_generation(stack: Stack) -> None:
    stack.chat.steps = (Started(5), asyncio.Event())
    connection = AsgiConnection(stack.app(), URL, {**HELLO, "stream": True})
    await connection.read_status()

    connection.done.cancel()

    with pytest.raises(asyncio.CancelledError):
        await connection.done
    assert stack.chat.aborted


async def test_each_generation_has_an_id_of_its_own(client: httpx.AsyncClient, stack: Stack) -> None:
    for _ in range(2):
        await client.post(URL, json=HELLO, headers={"x-request-id": "same"})

    first, second = stack.chat.requests
    assert first.request_id != second.request_id
