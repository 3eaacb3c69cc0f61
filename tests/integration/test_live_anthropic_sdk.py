"""The real anthropic SDK against the real server and the real models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from anthropic.types import Message, MessageParam, ToolParam
from pydantic import BaseModel

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT, EMBEDDING

pytestmark = pytest.mark.integration

ASK: list[MessageParam] = [{"role": "user", "content": "What is the weather in Oslo?"}]
GREEDY = {"temperature": 0}
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather in a city",
    "strict": True,
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


class Verdict(BaseModel):
    """Of bounded length: the SDK takes bounds of texts out of schemas."""

    is_blue: bool
    certainty: Literal["high", "low"]


@pytest.fixture
def sdk(live_server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=live_server.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def user(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_has_text_usage_and_the_reason_for_its_end(sdk: anthropic.Anthropic) -> None:
    message = sdk.messages.create(
        model=CHAT, max_tokens=16, messages=user("Write one sentence about cats."), extra_body=GREEDY
    )

    assert "cat" in text_of(message).lower()
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 1 <= message.usage.output_tokens <= 16
    assert message._request_id


def test_a_streamed_message_is_the_one_that_comes_in_a_piece(sdk: anthropic.Anthropic) -> None:
    ask = user("Count to ten.")
    whole = sdk.messages.create(model=CHAT, max_tokens=16, messages=ask, extra_body=GREEDY)

    with sdk.messages.stream(model=CHAT, max_tokens=16, messages=ask, extra_body=GREEDY) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()

    assert len(pieces) > 2
    assert "".join(pieces) == text_of(streamed) == text_of(whole)
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert _num_input_tokens(streamed) == _num_input_tokens(whole)


@pytest.mark.parametrize(
    "choice", [{"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "get_weather"}]
)
def test_a_tool_is_used_and_its_result_goes_back(sdk: anthropic.Anthropic, choice: Any) -> None:
    called = sdk.messages.create(model=CHAT, max_tokens=200, messages=ASK, tools=[WEATHER], tool_choice=choice)

    [use] = called.content
    assert use.type == "tool_use" and use.name == "get_weather"
    assert set(use.input) == {"city", "unit"}
    assert called.stop_reason == "tool_use"

    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "-3 degrees, snow"}],
    }
    answer = sdk.messages.create(
        model=CHAT,
        max_tokens=30,
        messages=[*ASK, {"role": "assistant", "content": called.content}, result],
        tools=[WEATHER],
        tool_choice={"type": "none"},
        extra_body=GREEDY,
    )

    assert text_of(answer)
    assert answer.stop_reason in ("end_turn", "max_tokens")


def test_the_input_of_a_tool_is_streamed_in_pieces_that_fit_together(sdk: anthropic.Anthropic) -> None:
    with sdk.messages.stream(
        model=CHAT, max_tokens=200, messages=ASK, tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"}
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        [use] = stream.get_final_message().content

    assert len(pieces) > 3
    assert use.type == "tool_use" and json.loads("".join(pieces)) == use.input


def test_what_is_counted_is_what_is_used(sdk: anthropic.Anthropic) -> None:
    prompt: dict[str, Any] = {"model": CHAT, "messages": ASK, "system": "Be kind.", "tools": [WEATHER]}
    begun: list[MessageParam] = [*ASK, {"role": "assistant", "content": "It is"}]

    for more in ({}, {"tool_choice": {"type": "none"}}, {"messages": begun}):
        counted = sdk.messages.count_tokens(**{**prompt, **more}).input_tokens
        used = sdk.messages.create(**{**prompt, **more}, max_tokens=1)

        assert counted == _num_input_tokens(used)


def test_an_answer_goes_on_where_it_was_begun(sdk: anthropic.Anthropic) -> None:
    asked: list[MessageParam] = [
        {"role": "user", "content": "Count from one to ten."},
        {"role": "assistant", "content": "One, two, three, four,"},
    ]

    answer = sdk.messages.create(model=CHAT, max_tokens=4, messages=asked, extra_body=GREEDY)

    assert text_of(answer).lower().startswith(" five")


def test_a_stop_sequence_is_told(sdk: anthropic.Anthropic) -> None:
    answer = sdk.messages.create(
        model="script", max_tokens=50, messages=user("one two three"), stop_sequences=["four", "three"]
    )

    assert text_of(answer) == "you said one two "
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "three")


def test_a_stop_sequence_of_a_real_model_is_told(sdk: anthropic.Anthropic) -> None:
    asked: list[MessageParam] = [
        {"role": "user", "content": "Count from one to ten."},
        {"role": "assistant", "content": "One, two, three, four,"},
    ]

    answer = sdk.messages.create(
        model=CHAT, max_tokens=20, messages=asked, stop_sequences=["nothing", "five"], extra_body=GREEDY
    )

    assert (text_of(answer), answer.stop_reason, answer.stop_sequence) == (" ", "stop_sequence", "five")


def test_parse_gives_the_type_that_was_asked_for(sdk: anthropic.Anthropic) -> None:
    message = sdk.messages.parse(
        model=CHAT, max_tokens=200, messages=user("Is the sky blue?"), output_format=Verdict, extra_body=GREEDY
    )

    assert isinstance(message.parsed_output, Verdict)


def test_a_script_thinks_and_uses_tools(sdk: anthropic.Anthropic) -> None:
    thinking = sdk.messages.create(model="script", max_tokens=50, messages=user("think"))
    calling = sdk.messages.create(model="script", max_tokens=50, messages=user("tool, please"), tools=[WEATHER])

    assert [block.type for block in thinking.content] == ["thinking", "text"]
    assert thinking.usage.output_tokens_details is not None
    assert thinking.usage.output_tokens_details.thinking_tokens == 2
    [use] = calling.content
    assert use.type == "tool_use" and use.input == {"city": "Paris"}


def test_an_effort_that_a_model_cannot_be_told_is_refused_by_its_name_here(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="thinking 'low' is not supported"):
        sdk.messages.create(
            model=CHAT, max_tokens=2000, messages=ASK, thinking={"type": "enabled", "budget_tokens": 1024}
        )


def test_errors_become_the_sdks_classes(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as not_found:
        sdk.messages.create(model="claude-none", max_tokens=10, messages=ASK)
    with pytest.raises(anthropic.BadRequestError, match="chat models here"):
        sdk.messages.create(model=EMBEDDING, max_tokens=10, messages=ASK)
    with pytest.raises(
        anthropic.BadRequestError, match=r"\d{4,} tokens, but .* maximum context length is 8192"
    ) as too_long:
        sdk.messages.create(model=CHAT, max_tokens=10, messages=user("hello " * 9000))
    with (
        pytest.raises(anthropic.APIStatusError, match="as the script says") as overloaded,
        sdk.messages.stream(model="script", max_tokens=10, messages=user("fail")) as stream,
    ):
        stream.until_done()

    assert (not_found.value.type, not_found.value.error_code) == ("not_found_error", "model_not_found")
    assert not_found.value.request_id
    assert too_long.value.error_code == "context_length_exceeded"
    assert overloaded.value.type == "overloaded_error"


def test_a_document_is_cited(sdk: anthropic.Anthropic) -> None:
    text = "Knead the dough for ten minutes, then let it rise in a warm place for an hour."
    asked: list[MessageParam] = [
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "title": "Bread",
                    "source": {"type": "text", "media_type": "text/plain", "data": text},
                    "citations": {"enabled": True},
                },
                {"type": "text", "text": "For how many minutes do I knead the dough?"},
            ],
        }
    ]

    answer = sdk.messages.create(model=CHAT, max_tokens=60, messages=asked, extra_body=GREEDY)

    [block] = answer.content
    assert block.type == "text"
    for citation in block.citations or []:
        assert citation.type == "char_location" and citation.document_index == 0
        assert citation.cited_text == text[citation.start_char_index : citation.end_char_index]


async def test_the_asynchronous_client(live_server: ServerProcess) -> None:
    async with anthropic.AsyncAnthropic(base_url=live_server.url, api_key="any", max_retries=0, timeout=60) as client:
        message = await client.messages.create(model=CHAT, max_tokens=4, messages=ASK)
        async with client.messages.stream(model="script", max_tokens=50, messages=user("hello")) as stream:
            pieces = [text async for text in stream.text_stream]

    assert text_of(message)
    assert "".join(pieces) == "you said hello"


def _num_input_tokens(message: Message) -> int:
    usage = message.usage
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
