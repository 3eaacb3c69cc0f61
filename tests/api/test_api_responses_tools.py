"""`/v1/responses`: functions, and the search in files."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.types import NO_TOOLS, ToolUse
from tests.api.conftest import RAG, Stack
from tests.api.response_requests import NAMED, TIME, TOOLS, WEATHER, allowed, answer, prompt_of
from tests.fakes.models import saying
from tests.fakes.sources import ANNOTATION, OUTCOME, SEARCH, TEXT

pytestmark = pytest.mark.usefixtures("kept_responses")


@pytest.mark.parametrize(
    ("more", "use"),
    [
        ({}, ToolUse(tools=TOOLS, names=("weather", "time"))),
        ({"parallel_tool_calls": False}, ToolUse(tools=TOOLS, names=("weather", "time"), is_parallel=False)),
        ({"tool_choice": "none"}, NO_TOOLS),
        ({"tool_choice": "required"}, ToolUse(tools=TOOLS, names=("weather", "time"), is_required=True)),
        ({"tool_choice": NAMED}, ToolUse(tools=TOOLS, names=("time",), is_required=True, is_parallel=False)),
        ({"tool_choice": allowed(NAMED)}, ToolUse(tools=TOOLS, names=("time",))),
        (
            {"tool_choice": allowed(NAMED, mode="required")},
            ToolUse(tools=TOOLS, names=("time",), is_required=True),
        ),
    ],
)
async def test_a_choice_says_what_may_and_must_be_called(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], use: ToolUse
) -> None:
    await answer(client, tools=[WEATHER, TIME], **more)

    assert prompt_of(stack).tool_use == use


@pytest.mark.parametrize(
    ("choice", "searches", "names"),
    [
        ("auto", True, ("time",)),
        ("required", True, ("time",)),
        (NAMED, True, ("time",)),
        ({"type": "file_search"}, True, ()),
        (allowed({"type": "file_search"}), True, ()),
        (allowed({"type": "file_search"}, NAMED), True, ("time",)),
        (allowed(NAMED), False, ("time",)),
        ("none", False, ()),
    ],
)
async def test_a_choice_says_whether_files_are_searched(
    client: httpx.AsyncClient, stack: Stack, choice: Any, *, searches: bool, names: tuple[str, ...]
) -> None:
    stack.stores.outcome = OUTCOME

    body = await answer(client, tools=[SEARCH, TIME], tool_choice=choice)

    assert ("search_together" in [call[0] for call in stack.stores.calls]) is searches
    assert ("file_search_call" in [item["type"] for item in body["output"]]) is searches
    assert prompt_of(stack).tool_use.names == names


async def test_a_search_shows_what_the_answer_rests_on(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = saying("Knead ", "for ten minutes [1].", " And [7]")

    body = await answer(client, input="How long?", tools=[SEARCH], include=["file_search_call.results"])

    search, message = body["output"]
    assert search["queries"] == ["How long?"]
    [result] = search["results"]
    assert (result["file_id"], result["filename"], result["score"], result["text"]) == (
        "file-1",
        "bread.pdf",
        0.75,
        TEXT,
    )
    assert message["content"][0]["text"] == "Knead for ten minutes [1]. And"
    assert message["content"][0]["annotations"] == [ANNOTATION]


async def test_a_rag_model_tells_of_its_search(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.rag_models, stack.stores.outcome = (RAG,), OUTCOME
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as asker:
        body = await answer(asker, model="handbook")

    assert body["model"] == "handbook"
    assert [item["type"] for item in body["output"]] == ["file_search_call", "message"]
