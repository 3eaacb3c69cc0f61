"""`POST /v1/chat/completions` with sources: what is asked, and how citations are written."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import httpx
import pytest

from server.errors import Conflict, ObjectNotFound, StorageUnavailable
from server.rag.prompt import NO_SOURCE_ANSWER
from server.rag.search import SearchOutcome
from server.types import NO_TOOLS, ChatPrompt, ModelFacts
from tests.api.conftest import Stack
from tests.api.grounded_requests import ASK, DOCUMENTS, HI, error_of, message_of
from tests.api.test_api_chat import TOOLS, URL, events_of
from tests.api.test_api_store_search import ASKED, OPTIONS
from tests.fakes.models import saying
from tests.fakes.sources import ANNOTATION, CITATION, SEARCH, SOURCE, TEXT

pytestmark = pytest.mark.usefixtures("kneading")


async def test_citations_are_written_as_openai_and_cohere_write_them(client: httpx.AsyncClient) -> None:
    message = await message_of(client, ASK)

    timings = message["x"].pop("timings_ms")
    assert message == {
        "role": "assistant",
        "content": "Knead for ten minutes [1]. And rest.",
        "refusal": None,
        "annotations": [ANNOTATION],
        "citations": [CITATION],
        "x": {
            "queries": ["How long do I knead?"],
            "sources": [SOURCE],
            "num_dropped_sources": 0,
            "num_irrelevant_hits": 0,
            "rerank_failure": None,
            "num_removed_citations": 1,
        },
    }
    assert {"search", "prompt", "total"} <= timings.keys()


async def test_a_stream_has_the_sources_first_and_the_citations_last(client: httpx.AsyncClient) -> None:
    *chunks, done = events_of(await client.post(URL, json={**ASK, "stream": True}))

    role, sources, *text, citations, end = (chunk["choices"][0]["delta"] for chunk in chunks)
    assert role["role"] == "assistant"
    assert sources["x"]["sources"] == [SOURCE]
    assert "".join(delta["content"] for delta in text) == "Knead for ten minutes [1]. And rest."
    assert citations == {"annotations": [ANNOTATION], "citations": [CITATION], "x": {"num_removed_citations": 1}}
    assert (end, chunks[-1]["choices"][0]["finish_reason"], done) == ({}, "stop", "[DONE]")


async def test_a_stream_says_what_the_whole_answer_says(client: httpx.AsyncClient) -> None:
    whole = await message_of(client, ASK)
    *chunks, _done = events_of(await client.post(URL, json={**ASK, "stream": True}))

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == whole["content"]
    assert [delta["citations"] for delta in deltas if "citations" in delta] == [whole["citations"]]


async def test_an_answer_that_has_to_be_of_some_form_is_not_cited(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = saying('{"minutes": [10]}')

    message = await message_of(client, {**ASK, "response_format": {"type": "json_object"}})

    assert message["content"] == '{"minutes": [10]}'
    assert (message["annotations"], message["citations"], message["x"]["num_removed_citations"]) == ([], [], 0)
    assert message["x"]["sources"] == [SOURCE]


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_relevant_is_an_answer_of_its_own(
    client: httpx.AsyncClient, stack: Stack, *, stream: bool
) -> None:
    stack.stores.outcome = SearchOutcome(queries=(), hits=())

    response = await client.post(URL, json={**ASK, "stream": stream, "stream_options": {"include_usage": True}})

    body = events_of(response)[-2] if stream else response.json()
    assert NO_SOURCE_ANSWER in response.text
    assert body["usage"]["total_tokens"] == 0
    assert stack.chat.requests == []


async def test_a_grounded_answer_can_be_echoed_as_it_came(client: httpx.AsyncClient) -> None:
    message = await message_of(client, ASK)

    assert await message_of(client, {**ASK, "messages": [*HI, message, *HI]})


async def test_the_log_tells_what_became_of_sources(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="server.api.middleware.access_log"):
        await client.post(URL, json=ASK)
        await client.post(URL, json={**ASK, "tools": []})

    grounded, plain = (record.__dict__ for record in caplog.records if record.message == "request")
    assert (grounded["num_sources"], grounded["num_removed_citations"]) == (1, 1)
    assert "num_sources" not in plain


# ---- the tool


async def test_what_the_tool_says_reaches_the_search(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(URL, json={**ASK, "tools": [{**SEARCH, **ASKED, "vector_store_ids": ["vs_1", "vs_2"]}]})

    name, (_, queries, options), _ = stack.stores.last_search
    assert (name, queries) == ("search_together", ["How long do I knead?"])
    assert [call[1] for call in stack.stores.calls if call[0] == "get"] == [("vs_1",), ("vs_2",)]
    assert options == replace(OPTIONS, parent_tokens=options.parent_tokens)
    assert options.parent_tokens > 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [{"type": "file_search"}]}, "tools[0].vector_store_ids"),
        ({"tools": [{**SEARCH, "vector_store_ids": []}]}, "tools[0].vector_store_ids"),
        ({"tools": [{**SEARCH, "max_num_results": 51}]}, "tools[0].max_num_results"),
        ({"tools": [{**SEARCH, "filters": {"type": "like"}}]}, "tools[0].filters.type"),
        ({"tools": [{**SEARCH, "ranking_options": {"ranker": "best"}}]}, "tools[0].ranking_options.ranker"),
        ({"tools": [SEARCH, SEARCH]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"documents": TEXT}, "documents"),
        ({"documents": [7]}, "documents"),
        ({"documents": [" "]}, "documents"),
        ({"documents": [{}]}, "documents"),
        ({"documents": [{"data": {"text": [1]}}]}, "documents"),
        ({"documents": [{"data": {"text": "a"}, "text": "b"}]}, "documents"),
        ({"documents": [{"id": "a", "text": "b"}, {"id": "a", "text": "c"}]}, "documents"),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    client: httpx.AsyncClient, changes: dict[str, Any], param: str
) -> None:
    status, error = await error_of(client, {**ASK, **changes})

    assert (status, error["param"]) == (400, param), error


async def test_functions_beside_the_search_behave_as_ever(client: httpx.AsyncClient, stack: Stack) -> None:
    both = {**ASK, "tools": [SEARCH, *TOOLS]}

    message = await message_of(client, {**both, "model": "actor"})

    assert message["content"] == "Hello there"
    [asked] = stack.actor.requests
    assert isinstance(asked.prompt, ChatPrompt)
    assert [tool.name for tool in asked.prompt.tool_use.tools] == ["weather"]


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "file_search"}, None])
async def test_files_are_searched_unless_tools_are_forbidden(
    client: httpx.AsyncClient, stack: Stack, choice: object
) -> None:
    await client.post(URL, json={**ASK, "tool_choice": choice})
    assert "search_together" in [call[0] for call in stack.stores.calls]
    stack.stores.calls.clear()

    message = await message_of(client, {**ASK, "tool_choice": "none"})

    assert stack.stores.calls == []
    assert "annotations" not in message


async def test_the_search_may_be_chosen_in_place_of_functions(client: httpx.AsyncClient, stack: Stack) -> None:
    both = {**ASK, "tools": [SEARCH, *TOOLS]}

    await client.post(URL, json={**both, "tool_choice": {"type": "file_search"}})

    [asked] = stack.chat.requests
    assert isinstance(asked.prompt, ChatPrompt)
    assert asked.prompt.tool_use == NO_TOOLS
    assert stack.stores.last_search[0] == "search_together"


@pytest.mark.parametrize(
    ("tools", "choice", "complaint"),
    [
        (TOOLS, {"type": "file_search"}, "it names 'file_search', which is not among the tools"),
        ([SEARCH], {"type": "function", "function": {"name": "weather"}}, "it needs tools that are functions"),
        ([SEARCH], "always", "expected"),
    ],
)
async def test_a_choice_of_what_is_not_there_is_refused(
    client: httpx.AsyncClient, tools: list[Any], choice: object, complaint: str
) -> None:
    status, error = await error_of(client, {**ASK, "tools": tools, "tool_choice": choice})

    assert (status, error["param"]) == (400, "tool_choice")
    assert complaint in error["message"]


# ---- documents


@pytest.mark.parametrize(
    ("document", "text", "shown"),
    [
        (TEXT, TEXT, {"id": "doc:0", "text": TEXT}),
        ({"data": TEXT}, TEXT, {"id": "doc:0", "text": TEXT}),
        ({"id": "a", "data": {"snippet": TEXT}}, TEXT, {"id": "a", "snippet": TEXT}),
        ({"title": "Bread", "text": TEXT}, TEXT, {"id": "doc:0", "title": "Bread", "text": TEXT}),
        (
            {"data": {"text": TEXT, "year": 1999}},
            f"text: {TEXT}\nyear: 1999",
            {"id": "doc:0", "text": TEXT, "year": "1999"},
        ),
    ],
)
async def test_documents_come_in_the_forms_of_cohere_and_vllm(
    client: httpx.AsyncClient, document: object, text: str, shown: dict[str, str]
) -> None:
    message = await message_of(client, {**DOCUMENTS, "documents": [document]})

    [source] = message["x"]["sources"]
    assert source["text"] == text
    assert source["filename"] == shown.get("title", shown["id"])
    assert message["citations"][0]["sources"] == [{"type": "document", "id": shown["id"], "document": shown}]
    assert message["annotations"][0]["file_id"] == shown["id"]


async def test_documents_need_no_data_directory(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.error = StorageUnavailable("the data directory is not open")

    assert (await message_of(client, DOCUMENTS))["citations"]


async def test_no_documents_are_no_grounding(client: httpx.AsyncClient) -> None:
    assert "citations" not in await message_of(client, {**DOCUMENTS, "documents": []})


# ---- errors


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ObjectNotFound("no vector store with id 'vs_1'"), 404),
        (Conflict("vector store 'vs_1' holds vectors of another model"), 409),
        (StorageUnavailable("the data directory is not open"), 503),
    ],
)
async def test_what_is_wrong_with_a_store_keeps_its_status(
    client: httpx.AsyncClient, stack: Stack, error: Any, status: int, *, stream: bool
) -> None:
    stack.stores.error = error

    answered, body = await error_of(client, {**ASK, "stream": stream})

    assert (answered, body["code"], body["message"]) == (status, error.code, error.message)


async def test_a_context_too_small_for_a_source_is_refused_with_numbers(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    stack.chat.facts = ModelFacts(context_length=64)

    status, error = await error_of(client, ASK)

    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert "tokens are left for sources" in error["message"]
