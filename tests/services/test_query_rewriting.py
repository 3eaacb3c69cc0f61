from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from server.errors import HearthError, InvalidRequest, ModelUnavailable
from server.services.query_rewriting import MAX_MESSAGES, MAX_QUERY_CHARS, QueryRewriter
from server.types import ChatMessage, ChatPrompt
from tests.fakes.models import FakeChatModel, saying

QUESTION = "How long does it take to bake bread?"


async def rewritten(said: str, *, reason: str = "stop", question: str = QUESTION) -> Sequence[str]:
    """What is searched for besides the question, when a model has `said` something."""
    model = FakeChatModel(steps=saying(said, reason=reason))
    first, *others = await rewrite(model, ChatMessage(role="user", content=question))
    assert first == question
    return others


async def rewrite(model: FakeChatModel, *messages: ChatMessage, timeout_s: float = 5.0) -> list[str]:
    return (await QueryRewriter().rewrite(model, messages, timeout_s=timeout_s)).queries


@pytest.mark.parametrize(
    "said",
    [
        "baking time of bread\nbread oven temperature",
        "1. baking time of bread\n2) bread oven temperature",
        '- "baking time of bread"\n- "bread oven temperature"',
        "Here are the search queries:\n\n* baking time of bread\n* bread oven temperature\n",
        "Query 1: baking time of bread\nQuery 2: bread oven temperature",
        '["baking time of bread",\n "bread oven temperature"]',
        "<think>\nThe user wants bread.\n</think>\nbaking time of bread\nbread oven temperature",
        "```\nbaking time of bread\nbread oven temperature\n```",
    ],
)
async def test_queries_are_read_however_they_are_listed(said: str) -> None:
    assert await rewritten(said) == ["baking time of bread", "bread oven temperature"]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "\n \n",
        "how long does it take, to bake bread",
        "bread " * MAX_QUERY_CHARS,
        "I am a helpful assistant.",
        "Sure!",
        "Queries about bread:",
        "???\n1.\n---",
    ],
    ids=["nothing", "white space", "the question again", "too long", "about itself", "small talk", "heading", "signs"],
)
async def test_what_is_no_query_is_left_out(said: str) -> None:
    assert await rewritten(said) == []


async def test_a_query_that_was_cut_off_is_left_out() -> None:
    assert await rewritten("baking time of bread\nbread and the", reason="length") == ["baking time of bread"]


async def test_three_queries_are_enough() -> None:
    assert len(await rewritten("\n".join(f"bread number {number}" for number in range(9)))) == 3


async def test_numbers_of_a_query_are_not_taken_for_its_number() -> None:
    assert await rewritten("3.5 release notes", question="What is new in release 3.5?") == ["3.5 release notes"]


async def test_scripts_without_spaces_are_queries_too() -> None:
    assert await rewritten("面包 烤多久", question="烤面包要多长时间?") == ["面包 烤多久"]


async def test_the_model_sees_the_end_of_the_conversation() -> None:
    model = FakeChatModel(steps=saying("Bake bread for 40 minutes"))
    turns = [ChatMessage(role="user", content=f"turn {number}") for number in range(MAX_MESSAGES + 1)]
    turns.insert(1, ChatMessage(role="tool", content="{}"))
    turns.insert(0, ChatMessage(role="system", content="be brief"))

    await rewrite(model, *turns, ChatMessage(role="assistant", content="Rye\nbread."))

    [request] = model.requests
    assert isinstance(request.prompt, ChatPrompt)
    prompt = "\n".join(message.content for message in request.prompt.messages)
    assert "assistant: Rye bread." in prompt
    assert f"turn {MAX_MESSAGES}" in prompt
    assert all(said not in prompt for said in ("be brief", "{}", "turn 1\n"))


async def test_a_word_of_an_earlier_turn_makes_a_query() -> None:
    turns = (
        ChatMessage(role="user", content="Tell me about sourdough."),
        ChatMessage(role="assistant", content="It rises slowly."),
        ChatMessage(role="user", content="And how long?"),
    )

    found = await rewrite(FakeChatModel(steps=saying("sourdough rising time")), *turns)

    assert found == ["And how long?", "sourdough rising time"]


@pytest.mark.parametrize("error", [ModelUnavailable("it is loading"), InvalidRequest("no rule matches")])
async def test_a_model_that_fails_leaves_the_question(error: HearthError) -> None:
    found = await rewrite(FakeChatModel(steps=(error,)), ChatMessage(role="user", content=QUESTION))

    assert found == [QUESTION]


async def test_a_model_that_is_slow_leaves_the_question_and_is_stopped() -> None:
    model = FakeChatModel(steps=(asyncio.Event(),))

    found = await rewrite(model, ChatMessage(role="user", content=QUESTION), timeout_s=0.01)

    assert found == [QUESTION]
    assert model.aborted


async def test_without_a_question_there_is_nothing_to_search_for() -> None:
    model = FakeChatModel()

    assert await rewrite(model, ChatMessage(role="system", content="be brief")) == []
    assert model.requests == []
