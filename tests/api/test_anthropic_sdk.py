"""Anthropic's SDK against the API: what it sends is understood, and it understands what it gets."""

from __future__ import annotations

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

from server.errors import Overloaded, WorkerCrashed
from server.types import ChatPrompt, Delta, Finished, Started, ToolCallDelta, Usage
from tests.api.conftest import Stack
from tests.fakes.models import saying

HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
WEATHER: ToolParam = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLING = (
    Started(5),
    Delta("Look.", reasoning="Hm."),
    Delta(tool_calls=(ToolCallDelta(0, "call_1", "weather"),)),
    Delta(tool_calls=(ToolCallDelta(0, arguments='{"city": '),)),
    Delta(
        tool_calls=(ToolCallDelta(0, arguments='"Oslo"}'), ToolCallDelta(1, "call_2", "weather", '{"city": "Rome"}'))
    ),
    Finished("tool_calls", Usage(prompt_tokens=5, completion_tokens=9, cached_tokens=2, reasoning_tokens=1)),
)


class Verdict(BaseModel):
    answer: bool


async def test_create(anthropic_client: AsyncAnthropic) -> None:
    message = await anthropic_client.messages.create(model="talker", max_tokens=10, messages=HI)

    [block] = message.content
    assert block.type == "text" and block.text == "Hello there"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (3, 2)
    assert message._request_id


async def test_the_beta_client_is_answered_too(anthropic_client: AsyncAnthropic) -> None:
    message = await anthropic_client.beta.messages.create(
        model="talker", max_tokens=10, messages=[{"role": "user", "content": "Hi"}], betas=["any-2026-01-01"]
    )

    assert message.stop_reason == "end_turn"


async def test_a_streamed_message_is_the_one_that_comes_in_a_piece(
    anthropic_client: AsyncAnthropic, stack: Stack
) -> None:
    stack.chat.steps = CALLING

    whole = await anthropic_client.messages.create(model="talker", max_tokens=10, messages=HI, tools=[WEATHER])
    async with anthropic_client.messages.stream(model="talker", max_tokens=10, messages=HI, tools=[WEATHER]) as stream:
        streamed = await stream.get_final_message()

    assert {**streamed.to_dict(), "id": ""} == {**whole.to_dict(), "id": ""}
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert whole.stop_reason == "tool_use"


async def test_the_stream_helper_gives_text_thoughts_and_inputs_as_they_come(
    anthropic_client: AsyncAnthropic, stack: Stack
) -> None:
    stack.chat.steps = CALLING

    async with anthropic_client.messages.stream(model="talker", max_tokens=10, messages=HI, tools=[WEATHER]) as stream:
        events = [event async for event in stream]

    assert [event.text for event in events if event.type == "text"] == ["Look."]
    assert [event.thinking for event in events if event.type == "thinking"] == ["Hm."]
    assert [event.snapshot for event in events if event.type == "input_json"] == [
        {},
        {"city": "Oslo"},
        {"city": "Rome"},
    ]


async def test_an_answer_goes_back_as_it_came(anthropic_client: AsyncAnthropic, stack: Stack) -> None:
    stack.chat.steps = CALLING
    called = await anthropic_client.messages.create(model="talker", max_tokens=10, messages=HI, tools=[WEATHER])
    stack.chat.steps = saying("Cold.")

    results: list[MessageParam] = [
        *HI,
        {"role": "assistant", "content": called.content},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": block.id, "content": "-3"}
                for block in called.content
                if block.type == "tool_use"
            ],
        },
    ]
    await anthropic_client.messages.create(model="talker", max_tokens=10, messages=results, tools=[WEATHER])

    prompt = stack.chat.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    said = prompt.messages[1]
    assert (said.content, said.reasoning) == ("Look.", "Hm.")
    assert [message.tool_call_id for message in prompt.messages[2:]] == [call.id for call in said.tool_calls]


async def test_parse_gives_the_type_that_was_asked_for(anthropic_client: AsyncAnthropic, stack: Stack) -> None:
    stack.chat.steps = saying('{"answer": true}')

    message = await anthropic_client.messages.parse(model="talker", max_tokens=10, messages=HI, output_format=Verdict)

    assert message.parsed_output == Verdict(answer=True)
    grammar = stack.chat.requests[-1].grammar
    assert grammar is not None and '"answer"' in grammar.text


async def test_count_tokens(anthropic_client: AsyncAnthropic) -> None:
    count = await anthropic_client.messages.count_tokens(
        model="talker", messages=HI, system="Be kind.", tools=[WEATHER], thinking={"type": "adaptive"}
    )

    assert count.input_tokens == 7


async def test_errors_become_the_sdks_classes(anthropic_client: AsyncAnthropic, stack: Stack) -> None:
    create = anthropic_client.messages.create

    with pytest.raises(anthropic.NotFoundError) as not_found:
        await create(model="nobody", max_tokens=10, messages=HI)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens") as bad_request:
        await create(model="talker", max_tokens=-1, messages=HI)
    stack.chat.steps = (Overloaded("full"),)
    with pytest.raises(anthropic.InternalServerError) as overloaded:
        await create(model="talker", max_tokens=10, messages=HI)
    with pytest.raises(anthropic.RequestTooLargeError):
        await create(model="talker", max_tokens=10, messages=[{"role": "user", "content": "x" * 2_000_000}])

    assert (not_found.value.type, not_found.value.error_code) == ("not_found_error", "model_not_found")
    assert bad_request.value.type == "invalid_request_error"
    assert (overloaded.value.status_code, overloaded.value.type) == (529, "overloaded_error")
    assert overloaded.value.request_id
    assert overloaded.value.response.headers["retry-after"]


async def test_an_error_inside_a_stream_is_raised(anthropic_client: AsyncAnthropic, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), WorkerCrashed("the worker has died"))

    with pytest.raises(anthropic.APIStatusError, match="the worker has died") as crashed:
        async with anthropic_client.messages.stream(model="talker", max_tokens=10, messages=HI) as stream:
            await stream.until_done()

    assert crashed.value.type == "api_error"
