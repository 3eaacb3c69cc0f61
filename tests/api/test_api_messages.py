"""`POST /v1/messages` and `/count_tokens`: what a request comes to, and the answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from server.errors import Overloaded
from server.types import NO_TOOLS, ChatMessage, ChatPrompt, Delta, Grammar, Started, ToolCall, ToolUse
from tests.api.conftest import RAG, Stack
from tests.api.message_requests import (
    COUNT_URL,
    HELLO,
    SCHEMA,
    TIME,
    TOOLS,
    URL,
    USER,
    WEATHER,
    document,
    error_of,
    hello,
    prompt_of,
    text,
)
from tests.fakes.asgi import AsgiConnection
from tests.fakes.models import saying

# ---- the answer


async def test_an_answer(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=HELLO, headers={"anthropic-version": "2023-06-01", "x-api-key": "any"})

    message = response.json()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "talker",
        "content": [{"type": "text", "text": "Hello there"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 2,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "standard",
        },
    }


async def test_a_stream_names_its_events_and_ends_without_done(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={**HELLO, "stream": True})

    events = response.text.removesuffix("\n\n").split("\n\n")
    names = [event.split("\n")[0].removeprefix("event: ") for event in events]
    assert names == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    bodies = [json.loads(event.split("\n")[1].removeprefix("data: ")) for event in events]
    assert [body["type"] for body in bodies] == names
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_an_error_inside_a_stream_is_an_event(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), Overloaded("too much"))

    response = await client.post(URL, json={**HELLO, "stream": True}, headers={"x-request-id": "r1"})

    *_, last = response.text.removesuffix("\n\n").split("\n\n")
    details = {"error_code": "overloaded", "param": None}
    error = {"type": "overloaded_error", "message": "too much", "details": details}
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.split("\n")[1].removeprefix("data: ")) == {
        "type": "error",
        "error": error,
        "request_id": "r1",
    }


async def test_a_client_that_goes_away_aborts_the_answer(stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), asyncio.Event())
    connection = AsgiConnection(stack.app(), URL, {**HELLO, "stream": True})
    await connection.read_status()
    connection.disconnect()

    await connection.done
    assert stack.chat.abort_seen.is_set()


# ---- the conversation


async def test_system_and_sampling_reach_the_model(client: httpx.AsyncClient, stack: Stack) -> None:
    prompt = await prompt_of(
        client,
        stack,
        {
            **HELLO,
            "system": [text("Be kind.", cache_control={"type": "ephemeral"}), text("Be brief.")],
            "temperature": 1,
            "top_p": 0.5,
            "top_k": 3,
            "stop_sequences": ["###"],
            "metadata": {"user_id": "u"},
            "service_tier": "auto",
            "cache_control": {"type": "ephemeral"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        },
    )

    assert prompt.messages == (
        ChatMessage(role="system", content="Be kind.\nBe brief."),
        ChatMessage(role="user", content="Hi"),
    )
    sampling = stack.chat.requests[-1].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (10, 1.0, 0.5, 3)
    assert sampling.stop == ("###",)


async def test_an_empty_system_prompt_is_none(client: httpx.AsyncClient, stack: Stack) -> None:
    prompt = await prompt_of(client, stack, {**HELLO, "system": ""})

    assert prompt.messages == (ChatMessage(role="user", content="Hi"),)


async def test_a_turn_with_tools_becomes_calls_and_results(client: httpx.AsyncClient, stack: Stack) -> None:
    calling = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        text("Look.", citations=None),
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "weather",
            "input": {"city": "Oslo"},
            "caller": {"type": "direct"},
        },
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("-3"), text("snow")]},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no clock", "is_error": True},
        {"type": "tool_result", "tool_use_id": "toolu_3"},
        text("So?"),
    ]
    turns = [USER, {"role": "assistant", "content": calling}, {"role": "user", "content": results}]

    prompt = await prompt_of(client, stack, {**HELLO, "messages": turns})

    calls = (ToolCall("toolu_1", "weather", '{"city": "Oslo"}'), ToolCall("toolu_2", "time", "{}"))
    assert prompt.messages == (
        ChatMessage(role="user", content="Hi"),
        ChatMessage(role="assistant", content="Look.", reasoning="Hm.", tool_calls=calls),
        ChatMessage(role="tool", content="-3\nsnow", tool_call_id="toolu_1", name="weather"),
        ChatMessage(role="tool", content="Error: no clock", tool_call_id="toolu_2", name="time"),
        ChatMessage(role="tool", content="", tool_call_id="toolu_3"),
        ChatMessage(role="user", content="So?"),
    )


async def test_neighbours_of_one_role_are_one_turn(client: httpx.AsyncClient, stack: Stack) -> None:
    said = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("system", "e"), ("user", "f")]
    turns = [{"role": role, "content": content} for role, content in said]

    prompt = await prompt_of(client, stack, {**HELLO, "messages": turns})

    assert [(message.role, message.content) for message in prompt.messages] == [
        ("user", "a\nb"),
        ("assistant", "c\nd"),
        ("system", "e"),
        ("user", "f"),
    ]


async def test_a_last_message_of_the_assistant_begins_the_answer(client: httpx.AsyncClient, stack: Stack) -> None:
    begun = {"role": "assistant", "content": "The best answer is ("}

    prompt = await prompt_of(client, stack, {**HELLO, "messages": [USER, begun]})

    assert prompt.continues_last
    assert prompt.messages[-1] == ChatMessage(role="assistant", content="The best answer is (")
    assert not (await prompt_of(client, stack, HELLO)).continues_last


async def test_documents_are_part_of_what_the_user_says(client: httpx.AsyncClient, stack: Stack) -> None:
    parts = {"type": "document", "source": {"type": "content", "content": [text("one"), text("two")]}}

    prompt = await prompt_of(client, stack, hello(document("Knead.", title="Bread"), parts, text("How?")))

    assert prompt.messages == (ChatMessage(role="user", content="Bread\nKnead.\none\ntwo\nHow?"),)


# ---- tools, thinking, formats


@pytest.mark.parametrize(
    ("choice", "use"),
    [
        (None, ToolUse(tools=TOOLS, names=("weather", "time"))),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            ToolUse(tools=TOOLS, names=("weather", "time"), is_parallel=False),
        ),
        ({"type": "any"}, ToolUse(tools=TOOLS, names=("weather", "time"), is_required=True)),
        (
            {"type": "tool", "name": "time"},
            ToolUse(tools=TOOLS, names=("time",), is_required=True, is_parallel=False),
        ),
        ({"type": "none"}, NO_TOOLS),
    ],
)
async def test_a_choice_says_what_may_and_must_be_called(
    client: httpx.AsyncClient, stack: Stack, choice: dict[str, Any] | None, use: ToolUse
) -> None:
    tools = [{**WEATHER, "type": "custom", "eager_input_streaming": True}, {**TIME, "cache_control": None}]

    prompt = await prompt_of(client, stack, {**HELLO, "tools": tools, "tool_choice": choice})

    assert prompt.tool_use == use


@pytest.mark.parametrize(
    ("more", "effort"),
    [
        ({}, None),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 16_384}}, "high"),
        ({"output_config": {"effort": "max"}}, "xhigh"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, "none"),
    ],
)
async def test_thinking_becomes_an_effort(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], effort: str | None
) -> None:
    assert (await prompt_of(client, stack, {**HELLO, "max_tokens": 20_000, **more})).reasoning_effort == effort


async def test_a_format_becomes_a_grammar(client: httpx.AsyncClient, stack: Stack) -> None:
    wanted = {"type": "json_schema", "schema": SCHEMA}
    grammar = Grammar("json_schema", json.dumps(SCHEMA, separators=(",", ":")), "output_config.format.schema")

    await prompt_of(client, stack, {**HELLO, "output_config": {"format": wanted}})
    assert stack.chat.requests[-1].grammar == grammar
    await prompt_of(client, stack, {**HELLO, "output_format": wanted})
    assert stack.chat.requests[-1].grammar == grammar


# ---- sources


async def test_cited_documents_are_sources(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = saying("Knead it ", "for ten minutes [1].")
    cited = {"enabled": True}
    bread = document("Water boils. Knead the dough for ten minutes.", title="Bread", citations=cited)

    response = await client.post(URL, json=hello(bread, text("How long do I knead?")))

    [block] = response.json()["content"]
    assert block["text"] == "Knead it for ten minutes [1]."
    assert block["citations"] == [
        {
            "type": "char_location",
            "cited_text": "Knead the dough for ten minutes.",
            "document_index": 0,
            "document_title": "Bread",
            "start_char_index": 13,
            "end_char_index": 45,
            "file_id": None,
        }
    ]
    prompt = stack.chat.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[-1].content == "How long do I knead?"


async def test_a_rag_model_answers_too(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.rag_models = (RAG,)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        response = await client.post(URL, json={**HELLO, "model": RAG.id})

    message = response.json()
    assert message["model"] == RAG.id
    assert message["content"][0]["text"] == "No relevant source found."


# ---- counting


async def test_tokens_are_counted_by_the_models_template(client: httpx.AsyncClient) -> None:
    request = {"model": "talker", "system": "a b", "messages": [{"role": "user", "content": "c d e"}]}

    response = await client.post(COUNT_URL, json=request)

    assert response.json() == {"input_tokens": 9}  # the fake's words, and two for each message


async def test_what_makes_no_prompt_is_not_counted(client: httpx.AsyncClient) -> None:
    status, error = await error_of(client, HELLO, COUNT_URL)

    assert (status, error["details"]) == (400, {"error_code": "unknown_parameter", "param": "max_tokens"})
