"""The official SDK and grounded answers: citations come through it."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AsyncOpenAI

from server.types import Delta, Finished, Started, ToolCallDelta, Usage
from tests.api.conftest import Stack
from tests.api.grounded_requests import HI
from tests.api.test_api_chat import TOOLS
from tests.fakes.sources import ANNOTATION, CITATION, SEARCH, SOURCE

pytestmark = pytest.mark.usefixtures("kneading")


async def test_the_sdk_passes_citations_through(openai_client: AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model="handbook", messages=HI)

    message = answer.choices[0].message
    assert message.annotations is not None
    assert message.annotations[0].to_dict() == ANNOTATION
    assert message.model_extra is not None
    assert message.model_extra["citations"] == [CITATION]


async def test_the_sdks_stream_puts_citations_together(openai_client: AsyncOpenAI) -> None:
    async with openai_client.chat.completions.stream(model="handbook", messages=HI) as stream:
        async for _event in stream:
            pass
        message = (await stream.get_final_completion()).choices[0].message

    assert message.content == "Knead for ten minutes [1]. And rest."
    assert message.annotations is not None
    assert message.annotations[0].to_dict().items() >= ANNOTATION.items()  # the SDK adds empty fields
    assert message.model_extra is not None
    assert message.model_extra["citations"] == [CITATION]
    assert message.model_extra["x"]["sources"] == [SOURCE]
    assert message.model_extra["x"]["num_removed_citations"] == 1


async def test_the_sdk_calls_functions_beside_the_search(openai_client: AsyncOpenAI, stack: Stack) -> None:
    call = ToolCallDelta(0, "call_1", "weather", "{}")
    stack.actor.steps = (Started(3), Delta(tool_calls=(call,)), Finished("tool_calls", Usage(prompt_tokens=3)))
    tools: Any = [SEARCH, *TOOLS]

    answer = await openai_client.chat.completions.create(model="actor", messages=HI, tools=tools)

    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].id == "call_1"
