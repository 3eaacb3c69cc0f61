"""Tools with the real server, the real SDK and a model that was made for none: the grammar sees to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
    ChatCompletionUserMessageParam,
)

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT

pytestmark = pytest.mark.integration

ASK: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather in a city", "parameters": CITY, "strict": True},
}
TIME: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"hours": {"type": "integer", "minimum": 0, "maximum": 23}}},
    },
}


@pytest.fixture
def sdk(live_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


def check_weather(arguments: str) -> None:
    said = json.loads(arguments)
    assert set(said) == {"city", "unit"}
    assert isinstance(said["city"], str) and len(said["city"]) <= 20
    assert said["unit"] in ("celsius", "fahrenheit")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_call_that_must_come_comes_and_fits_its_schema(sdk: openai.OpenAI, choice: Any, seed: int) -> None:
    answer = sdk.chat.completions.create(
        model=CHAT,
        messages=ASK,
        tools=[WEATHER],
        tool_choice=choice,
        temperature=1,
        seed=seed,
        parallel_tool_calls=False,
    )

    [only] = answer.choices
    (call,) = only.message.tool_calls or []
    assert call.type == "function" and call.function.name == "get_weather"
    check_weather(call.function.arguments)
    assert (only.finish_reason, only.message.content) == ("tool_calls", None)


def test_a_named_function_is_called_among_others(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=CHAT,
        messages=ASK,
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
    )

    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "get_time"
    assert 0 <= json.loads(call.function.arguments).get("hours", 0) <= 23


def test_a_streamed_call_comes_in_pieces_that_fit_together(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=CHAT, messages=ASK, tools=[WEATHER], tool_choice="required", seed=5
    ) as stream:
        events = list(stream)
        message = stream.get_final_completion().choices[0].message

    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert len(deltas) > 3
    assert message.tool_calls
    for call in message.tool_calls:
        check_weather(call.function.arguments)


def test_a_conversation_goes_on_with_the_result(sdk: openai.OpenAI) -> None:
    first = sdk.chat.completions.create(model=CHAT, messages=ASK, tools=[WEATHER], tool_choice="required", seed=1)
    called = first.choices[0].message
    assert called.tool_calls
    results: list[ChatCompletionMessageParam] = [
        {"role": "tool", "tool_call_id": call.id, "content": "-3 degrees, snow"} for call in called.tool_calls
    ]

    answer = sdk.chat.completions.create(
        model=CHAT,
        messages=[*ASK, called.to_dict(), *results],  # type: ignore[list-item]  # as clients echo it
        tools=[WEATHER],
        tool_choice="none",
        max_tokens=40,
        temperature=0,
    )

    assert answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None


def test_an_answer_that_may_call_is_text_or_calls_that_are_right(sdk: openai.OpenAI) -> None:
    for seed in range(2):
        answer = sdk.chat.completions.create(
            model=CHAT, messages=ASK, tools=[WEATHER, TIME], temperature=1, seed=seed, max_tokens=60
        )

        [only] = answer.choices
        for call in only.message.tool_calls or []:
            assert call.type == "function"
            if only.finish_reason != "length":
                json.loads(call.function.arguments)
        assert only.message.content or only.message.tool_calls


@pytest.mark.parametrize(
    ("tools", "param", "text"),
    [
        (
            [{**WEATHER, "function": {**WEATHER["function"], "parameters": {**CITY, "not": {}}}}],
            "tools[0].function.parameters",
            "cannot be honoured",
        ),
        (
            [
                {
                    **WEATHER,
                    "function": {
                        **WEATHER["function"],
                        "parameters": {"type": "object", "properties": {"a": {"type": 1}}},
                    },
                }
            ],
            "tools[0].function.parameters",
            "properties.a.type",
        ),
    ],
)
def test_a_strict_schema_that_cannot_be_enforced_is_refused_by_name(
    sdk: openai.OpenAI, tools: Any, param: str, text: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=text) as refusal:
        sdk.chat.completions.create(model=CHAT, messages=ASK, tools=tools)

    assert refusal.value.param == param


def test_tools_beside_a_response_format(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=CHAT, messages=ASK, tools=[WEATHER], response_format={"type": "json_object"}, seed=1, max_tokens=80
    )

    [only] = answer.choices
    if only.finish_reason == "stop":
        assert isinstance(json.loads(only.message.content or ""), dict)
    elif only.finish_reason == "tool_calls":
        for call in only.message.tool_calls or []:
            check_weather(call.function.arguments)


def test_a_script_streams_its_calls(sdk: openai.OpenAI) -> None:
    tool: ChatCompletionFunctionToolParam = {"type": "function", "function": {"name": "get_weather"}}
    ask: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "tool, please"}]

    with sdk.chat.completions.stream(model="script", messages=ask, tools=[tool]) as stream:
        message = stream.get_final_completion().choices[0].message

    (call,) = message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})


def test_a_script_thinks_before_it_speaks(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="script", messages=[{"role": "user", "content": "think"}])

    message = answer.choices[0].message.to_dict()
    assert (message["reasoning_content"], message["content"]) == ("well then", "yes")
    assert answer.usage is not None and answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2
