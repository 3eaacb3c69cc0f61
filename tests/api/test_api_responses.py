"""`/v1/responses`: what is asked of the model, what is answered, what is refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.errors import InvalidRequest, ModelUnavailable, WorkerCrashed
from server.types import ChatMessage, Delta, Grammar, Started, TokenChance, TokenLogprob
from tests.api.conftest import Stack
from tests.api.response_requests import (
    HELLO,
    NAMED,
    SCHEMA,
    TIME,
    URL,
    WEATHER,
    allowed,
    answer,
    asked,
    error_of,
    prompt_of,
    user,
)
from tests.fakes.asgi import AsgiConnection
from tests.fakes.models import saying
from tests.fakes.responses import check_response, events_of
from tests.fakes.sources import OUTCOME, SEARCH

pytestmark = pytest.mark.usefixtures("kept_responses")


def without_ids(value: Any) -> Any:
    """What two answers to one question have in common."""
    if isinstance(value, dict):
        times = ("id", "created_at", "completed_at", "timings_ms")
        return {key: without_ids(each) for key, each in value.items() if key not in times}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


async def test_an_answer_has_openais_shape(client: httpx.AsyncClient) -> None:
    body = await answer(client)

    assert body["id"].startswith("resp_") and body["output"][0]["id"].startswith("msg_")
    assert body["completed_at"] >= body["created_at"] > 1_700_000_000
    assert without_ids(body) == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "talker",
        "output": [
            {
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello there", "annotations": [], "logprobs": []}],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
        "user": None,
    }


@pytest.mark.parametrize("more", [{}, {"tools": [SEARCH], "include": ["file_search_call.results"]}, {"tools": [TIME]}])
async def test_a_stream_ends_with_what_the_whole_answer_says(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any]
) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = saying("Knead ", "for ten minutes [1].")
    whole = await answer(client, **more)

    streamed = events_of(await client.post(URL, json={**HELLO, **more, "stream": True}))

    assert [event["type"] for event in streamed[:2]] == ["response.created", "response.in_progress"]
    assert streamed[0]["response"]["status"] == "in_progress"
    assert streamed[-1]["type"] == "response.completed"
    assert without_ids(streamed[-1]["response"]) == without_ids(whole)
    assert {event["response"]["id"] for event in streamed if "response" in event} == {streamed[0]["response"]["id"]}


async def test_an_answer_repeats_what_was_asked(client: httpx.AsyncClient) -> None:
    format_ = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}
    request = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "max_tool_calls": 3,
        "metadata": {"topic": "weather"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "temperature": 0.25,
        "text": {"format": format_, "verbosity": "medium"},
        "tool_choice": {"type": "function", "name": "weather"},
        "tools": [WEATHER],
        "top_p": 0.5,
        "user": "u",
    }

    body = await answer(client, **request)

    assert {name: body[name] for name in request} == request


async def test_what_reaches_the_model(client: httpx.AsyncClient, stack: Stack) -> None:
    await answer(
        client,
        instructions="Be brief.",
        max_output_tokens=9,
        max_tokens=8,
        temperature=0.25,
        top_p=0.5,
        reasoning={"effort": "low", "summary": "auto"},
        seed=7,
        priority=2,
        timeout_s=3,
    )

    prompt, sampling = prompt_of(stack), asked(stack).sampling
    assert prompt.messages == (ChatMessage(role="system", content="Be brief."), user("Hi"))
    assert prompt.reasoning_effort == "low"
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (9, 0.25, 0.5, 7)
    assert (asked(stack).urgency.priority, asked(stack).urgency.timeout_s) == (2, 3)


@pytest.mark.parametrize(
    ("text", "grammar"),
    [
        ({"format": {"type": "text"}}, None),
        ({"format": {"type": "json_object"}}, Grammar("json_object", "", "text.format")),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
            Grammar("json_schema", '{"type":"object"}', "text.format"),
        ),
        ({"verbosity": "medium"}, None),
        (None, None),
    ],
)
async def test_the_model_is_told_what_the_text_has_to_be(
    client: httpx.AsyncClient, stack: Stack, text: Any, grammar: Grammar | None
) -> None:
    await answer(client, text=text)

    assert asked(stack).grammar == grammar


@pytest.mark.parametrize("top", [0, 1])
async def test_log_probabilities_are_given_to_those_who_ask(client: httpx.AsyncClient, stack: Stack, top: int) -> None:
    likely, other = TokenChance(b"Hi", -0.5), TokenChance(b"\xf0", -1.5)
    tokens = (TokenLogprob(likely, (likely, other)[:top]), TokenLogprob(other))
    stack.chat.steps = (Started(5), Delta("Hi", logprobs=tokens[:1]), Delta("!", logprobs=tokens[1:]), *saying()[-1:])
    request = {**HELLO, "include": ["message.output_text.logprobs"], "top_logprobs": top, "stream": True}

    *events, last = events_of(await client.post(URL, json=request))

    assert asked(stack).sampling.num_logprobs == top
    given = last["response"]["output"][0]["content"][0]["logprobs"]
    first = {"token": "Hi", "bytes": [72, 105], "logprob": -0.5}
    assert given == [
        {**first, "top_logprobs": [first][:top]},
        {"token": "\ufffd", "bytes": [240], "logprob": -1.5, "top_logprobs": []},
    ]
    told = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert [each for event in told for each in event] == given
    assert [event["logprobs"] for event in events if event["type"] == "response.output_text.done"] == [given]


async def test_what_is_cut_is_incomplete(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = saying("Hel", reason="length")

    body = await answer(client)

    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["status"] == "incomplete"
    assert body["completed_at"] is None


# ---- what is refused


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"input": []}, "input", "invalid_value"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": [5]}, "input[0]", "invalid_type"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "invalid_value"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input[0].encrypted_content", None),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]}]},
            "input[0].output",
            "unsupported_value",
        ),
        ({"input": [{"type": "reasoning"}]}, "input", "invalid_value"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"conversation": "conv_1"}, "conversation", None),
        ({"background": True}, "background", None),
        ({"truncation": "auto"}, "truncation", None),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs", "invalid_value"),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        ({"prompt": {"id": "p"}}, "prompt", None),
        ({"ignore_eos": True}, "ignore_eos", None),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary", None),
        ({"reasoning": {"effort": "maximal"}}, "reasoning.effort", "invalid_value"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", None),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{**TIME, "defer_loading": True}]}, "tools[0].defer_loading", None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0]", "invalid_value"),
        ({"tools": [TIME, TIME]}, "tools", "invalid_value"),
        ({"tools": [SEARCH, SEARCH]}, "tools", "invalid_value"),
        ({"tools": [{**SEARCH, "filters": {"type": "like"}}]}, "tools[0].filters.type", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tool_choice": NAMED, "tools": [WEATHER]}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "file_search"}, "tools": [WEATHER]}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice", "invalid_value"),
        ({"tool_choice": allowed()}, "tool_choice", "invalid_value"),
        ({"tool_choice": allowed({"type": "mcp"})}, "tool_choice", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_wrong_is_refused_by_name(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], param: str, code: str | None, *, stream: bool
) -> None:
    status, error = await error_of(client, **more, stream=stream)

    assert (status, error["param"], error["code"]) == (400, param, code or "unsupported_parameter"), error
    assert stack.chat.requests == []


@pytest.mark.parametrize(
    "more",
    [
        {"include": ["reasoning.encrypted_content", "web_search_call.action.sources"]},
        {"background": False, "truncation": "disabled", "top_logprobs": 0, "conversation": None},
        {"service_tier": "flex", "prompt_cache_retention": "24h", "prompt_cache_options": {"ttl": "30m"}},
        {"stream_options": {"include_obfuscation": True}},
        {"tool_choice": "auto"},
        {"tools": [{**TIME, "parameters": None, "strict": None}], "tool_choice": "none"},
        {"reasoning": {"effort": None, "summary": None}, "text": {}},
    ],
)
async def test_what_changes_nothing_is_taken(client: httpx.AsyncClient, stack: Stack, more: dict[str, Any]) -> None:
    plain = await answer(client)

    body = await answer(client, **more)

    assert without_ids(body["output"]) == without_ids(plain["output"])
    first, second = stack.chat.requests
    assert (second.prompt, second.sampling, second.grammar) == (first.prompt, first.sampling, first.grammar)


@pytest.mark.parametrize(
    ("chats", "ours"),
    [
        ("messages", "input"),
        ("reasoning_effort", "reasoning.effort"),
        ("tools[1].function.parameters", "tools[2].parameters"),
        ("tools", "tools"),
        (None, None),
    ],
)
async def test_errors_of_the_layers_below_name_the_fields_of_this_api(
    client: httpx.AsyncClient, stack: Stack, chats: str | None, ours: str | None
) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = (InvalidRequest("it is wrong", param=chats),)

    status, error = await error_of(client, tools=[TIME, SEARCH, WEATHER])

    assert (status, error["param"]) == (400, ours)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(ModelUnavailable("loading"), 503), (InvalidRequest("no", param="messages"), 400)],
)
async def test_a_refusal_before_the_answer_keeps_its_status(
    client: httpx.AsyncClient, stack: Stack, error: Any, status: int, *, stream: bool
) -> None:
    stack.chat.steps = (error,)

    answered, body = await error_of(client, stream=stream)

    assert (answered, body["code"]) == (status, error.code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerCrashed("the worker has died"), "server_error"),
        (InvalidRequest("the grammar costs too much", param="text.format"), "invalid_prompt"),
    ],
)
async def test_an_error_inside_a_stream_is_its_last_event(
    client: httpx.AsyncClient, stack: Stack, error: Any, code: str
) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), error)

    *_, last = events_of(await client.post(URL, json={**HELLO, "stream": True}))

    response = check_response(last["response"])
    assert (last["type"], response["status"]) == ("response.failed", "failed")
    assert (response["error"]["code"], response["error"]["message"]) == (code, error.message)
    assert response["error"]["x"] == {"code": error.code}
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert (await client.get(f"{URL}/{response['id']}")).status_code == 404


async def test_an_error_in_the_middle_of_a_whole_answer_is_an_error(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), WorkerCrashed("the worker has died"))

    status, error = await error_of(client)

    assert (status, error["code"]) == (503, "worker_crashed")


async def test_a_client_that_leaves_ends_the_work(stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), stack.embedder.begun)  # an event that never comes
    connection = AsgiConnection(stack.app(), URL, {**HELLO, "stream": True})
    await connection.read_status()

    connection.disconnect()
    await connection.done

    assert stack.chat.aborted == [stack.chat.requests[0].request_id]
