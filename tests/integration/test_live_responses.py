"""`/v1/responses` with the real server, the real SDK and real models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml
from openai.types.responses import FileSearchToolParam, FunctionToolParam
from pydantic import BaseModel, Field

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT, SCRIPT

pytestmark = pytest.mark.integration

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
BREAD = "# Bread\n\n## Dough\n\nKnead the dough for ten minutes. Then let it rest for an hour.\n"


class City(BaseModel):
    name: str = Field(max_length=20)
    is_large: bool


@pytest.fixture
def sdk(live_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


def test_a_conversation_is_kept_and_goes_on(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model="script", input="first", instructions="Be brief.")
    second = sdk.responses.create(model="script", input="second", previous_response_id=first.id)

    assert (first.output_text, second.output_text) == ("you said first", "you said second")
    assert sdk.responses.retrieve(second.id).to_dict() == second.to_dict()
    sdk.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match=first.id):
        sdk.responses.create(model="script", input="third", previous_response_id=second.id)


def test_a_stream_of_a_real_model_is_what_is_kept(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model=CHAT, input="Count to ten.", max_output_tokens=16, temperature=0) as stream:
        events = list(stream)

    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    kept = sdk.responses.retrieve(last.response.id)
    assert text and kept.output_text == text
    assert kept.usage is not None and kept.usage.input_tokens > 5


def test_parsed_output_fits_its_class(sdk: openai.OpenAI) -> None:
    response = sdk.responses.parse(model=CHAT, input="Oslo?", text_format=City, temperature=0, max_output_tokens=60)

    assert isinstance(response.output_parsed, City)


def test_a_call_that_must_come_comes_and_is_answered(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(
        model=CHAT,
        input="What is the weather in Oslo?",
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
    ) as stream:
        first = stream.get_final_response()
    [call] = first.output
    assert call.type == "function_call" and set(json.loads(call.arguments)) == {"city"}

    second = sdk.responses.create(
        model=CHAT,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "-3 degrees, snow"}],
        max_output_tokens=30,
        temperature=0,
    )

    assert second.output_text


def test_a_strict_schema_that_cannot_be_enforced_is_refused_by_name(sdk: openai.OpenAI) -> None:
    impossible: FunctionToolParam = {**WEATHER, "parameters": {"type": "object", "not": {}}}
    search: FileSearchToolParam = {"type": "file_search", "vector_store_ids": ["vs_none"]}

    with pytest.raises(openai.BadRequestError, match="cannot be honoured") as refusal:
        sdk.responses.create(
            model=CHAT,
            input="Hi",
            tools=[search, impossible],
            tool_choice={
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "get_weather"}],
            },
        )

    assert refusal.value.param == "tools[1].parameters"


def test_an_answer_rests_on_a_real_store(sdk: openai.OpenAI) -> None:
    file = sdk.files.create(file=("bread.md", BREAD.encode()), purpose="assistants")
    store = sdk.vector_stores.create(name="kitchen")
    sdk.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, poll_interval_ms=50)

    with sdk.responses.stream(
        model=CHAT,
        input="How long do I knead the dough?",
        tools=[{"type": "file_search", "vector_store_ids": [store.id]}],
        include=["file_search_call.results"],
        max_output_tokens=60,
        temperature=0,
    ) as stream:
        events = list(stream)

    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    search, message = last.response.output
    assert search.type == "file_search_call" and search.results
    assert (search.results[0].file_id, search.results[0].filename) == (file.id, "bread.md")
    assert message.type == "message" and message.content[0].type == "output_text"
    for annotation in message.content[0].annotations:
        assert annotation.type == "file_citation"
        assert annotation.file_id == search.results[annotation.index].file_id
    told = [event for event in events if event.type == "response.output_text.annotation.added"]
    assert len(told) == len(message.content[0].annotations)
    sdk.vector_stores.delete(store.id)
    sdk.files.delete(file.id)


def test_an_error_inside_a_stream_is_its_last_event(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="script", input="fail") as stream:
        *_, last = list(stream)

    assert last.type == "response.failed"
    assert last.response.error is not None and "as the script says" in last.response.error.message


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump({"server": {"data_dir": str(tmp_path / "data")}, "models": [SCRIPT]}))
    with ServerProcess(config, tmp_path / "log") as server:
        server.wait_until_settled()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as sdk:
            for event in sdk.responses.create(model="script", input="first", stream=True):
                if event.type == "response.completed":
                    server.process.kill()
                    acknowledged = event.response

    with ServerProcess(config, tmp_path / "log") as server:
        server.wait_until_settled()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as sdk:
            kept = sdk.responses.retrieve(acknowledged.id)

    assert kept.to_dict() == acknowledged.to_dict()
