"""The official SDK against `/v1/responses`: its helpers follow our streams, and it reads what is kept."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import FileSearchToolParam, FunctionToolParam, ResponseInputParam
from pydantic import BaseModel

from server.errors import ModelUnavailable, WorkerCrashed
from server.types import Delta, Finished, Started, ToolCallDelta, Usage
from tests.api.conftest import Stack
from tests.fakes.models import saying
from tests.fakes.sources import OUTCOME

pytestmark = pytest.mark.usefixtures("kept_responses")

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False},
    "strict": True,
}
SEARCH: FileSearchToolParam = {"type": "file_search", "vector_store_ids": ["vs_1"]}
CALLING = (
    Started(5),
    Delta(reasoning="Hm."),
    Delta(tool_calls=(ToolCallDelta(0, "call_1", "weather"),)),
    Delta(tool_calls=(ToolCallDelta(0, arguments='{"city":'), ToolCallDelta(0, arguments='"Oslo"}'))),
    Finished("tool_calls", Usage(prompt_tokens=5, completion_tokens=9, reasoning_tokens=1)),
)


class City(BaseModel):
    name: str


async def test_create(openai_client: AsyncOpenAI) -> None:
    response = await openai_client.responses.create(model="talker", input="Hi")

    assert (response.output_text, response.status) == ("Hello there", "completed")
    assert response.usage is not None
    assert response.usage.total_tokens == 7


async def test_the_stream_helper_puts_the_answer_together(openai_client: AsyncOpenAI) -> None:
    async with openai_client.responses.stream(model="talker", input="Hi") as stream:
        texts = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        response = await stream.get_final_response()

    assert texts == ["Hello", "Hello there"]
    assert response.output_text == "Hello there"


async def test_a_plain_stream(openai_client: AsyncOpenAI) -> None:
    stream = await openai_client.responses.create(model="talker", input="Hi", stream=True)
    events = [event async for event in stream]

    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_parse(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps = saying('{"name":', '"Oslo"}')

    response = await openai_client.responses.parse(model="talker", input="Where?", text_format=City)

    assert response.output_parsed == City(name="Oslo")
    grammar = stack.chat.requests[0].grammar
    assert grammar is not None
    assert grammar.kind == "json_schema"


async def test_a_parsed_stream(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps = saying('{"name":', '"Oslo"}')

    async with openai_client.responses.stream(model="talker", input="Where?", text_format=City) as stream:
        response = await stream.get_final_response()

    assert response.output_parsed == City(name="Oslo")


@pytest.mark.parametrize("stream", [False, True])
async def test_functions_in_a_round_trip(openai_client: AsyncOpenAI, stack: Stack, *, stream: bool) -> None:
    stack.chat.steps = CALLING
    if stream:
        async with openai_client.responses.stream(model="talker", input="Weather?", tools=[WEATHER]) as events:
            first: Any = await events.get_final_response()
    else:
        first = await openai_client.responses.create(model="talker", input="Weather?", tools=[WEATHER])
    _reasoning, call = first.output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city":"Oslo"}')
    stack.chat.steps = saying("Snow.")
    output: ResponseInputParam = [{"type": "function_call_output", "call_id": call.call_id, "output": "snow"}]

    second = await openai_client.responses.create(model="talker", input=output, previous_response_id=first.id)

    assert second.output_text == "Snow."


async def test_items_are_sent_back_as_they_came(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps, stack.stores.outcome = CALLING, OUTCOME
    first = await openai_client.responses.create(
        model="talker", input="Weather?", tools=[WEATHER, SEARCH], include=["file_search_call.results"], store=False
    )
    stack.chat.steps = saying("Snow.")
    items: list[Any] = [{"role": "user", "content": "Weather?"}, *first.output]
    items.append({"type": "function_call_output", "call_id": "call_1", "output": "snow"})

    second = await openai_client.responses.create(model="talker", input=items, store=False)

    assert second.output_text == "Snow."


async def test_citations_are_annotations(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps, stack.stores.outcome = saying("Knead for ten minutes [1]."), OUTCOME

    async with openai_client.responses.stream(
        model="talker", input="How long?", tools=[SEARCH], include=["file_search_call.results"]
    ) as stream:
        events = [event async for event in stream]
        response = await stream.get_final_response()

    assert "response.output_text.annotation.added" in [event.type for event in events]
    search, message = response.output
    assert search.type == "file_search_call" and search.results is not None
    assert message.type == "message" and message.content[0].type == "output_text"
    [annotation] = message.content[0].annotations
    assert annotation.type == "file_citation"
    assert annotation.filename == search.results[annotation.index].filename == "bread.pdf"


async def test_what_is_kept_is_retrieved_listed_and_deleted(openai_client: AsyncOpenAI) -> None:
    made = await openai_client.responses.create(model="talker", input="Hi", metadata={"a": "b"})

    kept = await openai_client.responses.retrieve(made.id, include=["file_search_call.results"])
    items = [item async for item in openai_client.responses.input_items.list(made.id, order="asc")]
    await openai_client.responses.delete(made.id)

    assert kept.to_dict() == made.to_dict()
    [item] = items
    assert item.type == "message" and item.content[0].type == "input_text"
    assert item.content[0].text == "Hi"
    with pytest.raises(openai.NotFoundError):
        await openai_client.responses.retrieve(made.id)


async def test_errors_become_the_sdks_classes(openai_client: AsyncOpenAI, stack: Stack) -> None:
    create = openai_client.responses.create

    with pytest.raises(openai.NotFoundError) as not_found:
        await create(model="talker", input="Hi", previous_response_id="resp_none")
    with pytest.raises(openai.BadRequestError) as bad_request:
        await create(model="talker", input="Hi", background=True)
    stack.chat.steps = (ModelUnavailable("loading"),)
    with pytest.raises(openai.InternalServerError) as unavailable:
        await create(model="talker", input="Hi", stream=True)

    assert not_found.value.param == "previous_response_id"
    assert bad_request.value.param == "background"
    assert unavailable.value.status_code == 503
    assert unavailable.value.request_id


async def test_an_error_inside_a_stream_ends_it_with_what_there_is(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), WorkerCrashed("the worker has died"))

    async with openai_client.responses.stream(model="talker", input="Hi") as stream:
        events = [event async for event in stream]

    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "the worker has died"
    assert last.response.output_text == "Hel"
    assert [event.type for event in events].count("response.failed") == 1
