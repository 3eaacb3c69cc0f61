"""`/v1/responses`: what a conversation is made of, and how it goes on."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.types import ChatMessage, Delta, Started, ToolCall
from tests.api.conftest import Stack
from tests.api.response_requests import CALLING, HELLO, URL, WEATHER, answer, error_of, prompt_of, said, user
from tests.fakes.responses import events_of
from tests.fakes.sources import ANNOTATION, OUTCOME, SEARCH

pytestmark = pytest.mark.usefixtures("kept_responses")


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([{"role": "user", "content": "Hi"}], (user("Hi"),)),
        (
            [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]}],
            (ChatMessage(role="developer", content="a"),),
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
            (user("a\nb"),),
        ),
        (
            [
                {"role": "user", "content": "a"},
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "b", "annotations": [ANNOTATION], "logprobs": []}],
                },
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "c"}]},
            ],
            (user("a"), said("b"), said("c")),
        ),
        (
            [
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "h"}],
                },
                {"role": "assistant", "content": "b"},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}", "status": "completed"},
                {"type": "function_call_output", "call_id": "c2", "output": "two"},
                {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
            ],
            (
                ChatMessage(
                    role="assistant",
                    content="b",
                    reasoning="h",
                    tool_calls=(ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")),
                ),
                ChatMessage(role="tool", content="two", name="g", tool_call_id="c2"),
                ChatMessage(role="tool", content="one", name="f", tool_call_id="c1"),
            ),
        ),
        (
            [
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{", "status": "incomplete"},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "nothing came of it"}]},
                {"role": "user", "content": "a"},
                {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed", "results": None},
            ],
            (user("a"),),
        ),
    ],
)
async def test_items_make_a_conversation(
    client: httpx.AsyncClient, stack: Stack, items: list[Any], messages: tuple[ChatMessage, ...]
) -> None:
    await answer(client, input=items)

    assert prompt_of(stack).messages == messages


async def test_a_conversation_goes_on_without_its_instructions(client: httpx.AsyncClient, stack: Stack) -> None:
    first = await answer(client, instructions="Be brief.")
    second = await answer(client, input="And?", previous_response_id=first["id"])

    await answer(client, input="So?", previous_response_id=second["id"], instructions="Be rude.")

    assert second["previous_response_id"] == first["id"]
    assert prompt_of(stack).messages == (
        ChatMessage(role="system", content="Be rude."),
        user("Hi"),
        said(),
        user("And?"),
        said(),
        user("So?"),
    )


async def test_going_on_is_the_same_as_sending_everything(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Look.", reasoning="Hm."), *CALLING[1:])
    first = await answer(client, tools=[WEATHER])
    result = {"type": "function_call_output", "call_id": "call_1", "output": "snow"}

    await answer(client, input=[result], previous_response_id=first["id"], tools=[WEATHER])
    await answer(client, input=[{"role": "user", "content": "Hi"}, *first["output"], result], tools=[WEATHER])

    _, by_id, by_items = stack.chat.requests
    assert by_id.prompt == by_items.prompt


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_answered_in_the_next_response(
    client: httpx.AsyncClient, stack: Stack, *, stream: bool
) -> None:
    stack.chat.steps = CALLING
    response = await client.post(URL, json={**HELLO, "tools": [WEATHER], "stream": stream})
    first = events_of(response)[-1]["response"] if stream else response.json()
    output = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "snow"}

    await answer(client, input=[output], previous_response_id=first["id"], tools=[WEATHER])

    assert prompt_of(stack).messages == (
        user("Hi"),
        ChatMessage(role="assistant", tool_calls=(ToolCall("call_1", "weather", '{"city":"Oslo"}'),)),
        ChatMessage(role="tool", content="snow", name="weather", tool_call_id="call_1"),
    )


async def test_a_whole_output_may_be_sent_back(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = (Started(5), Delta("Knead [1].", reasoning="Hm."), *CALLING[1:])
    first = await answer(
        client, tools=[SEARCH, WEATHER], include=["file_search_call.results"], model="talker", store=False
    )
    assert [item["type"] for item in first["output"]] == [
        "file_search_call",
        "reasoning",
        "message",
        "function_call",
    ]

    await answer(client, input=[{"role": "user", "content": "Hi"}, *first["output"]])

    assert prompt_of(stack).messages[1:] == (
        ChatMessage(
            role="assistant",
            content="Knead [1].",
            reasoning="Hm.",
            tool_calls=(ToolCall("call_1", "weather", '{"city":"Oslo"}'),),
        ),
    )


async def test_references_stand_for_stored_items(client: httpx.AsyncClient, stack: Stack) -> None:
    first = await answer(client)
    message_id = first["output"][0]["id"]

    second = await answer(client, input=[{"id": message_id}, {"type": "item_reference", "id": message_id}])

    assert prompt_of(stack).messages == (said(), said())
    listed = (await client.get(f"{URL}/{second['id']}/input_items")).json()["data"]
    assert [item["content"][0]["text"] for item in listed] == ["Hello there"] * 2


async def test_an_output_of_no_call_is_refused(client: httpx.AsyncClient) -> None:
    output = {"type": "function_call_output", "call_id": "c9", "output": "snow"}

    status, error = await error_of(client, input=[output])

    assert (status, error["param"]) == (400, "input")
    assert "'c9'" in error["message"]
