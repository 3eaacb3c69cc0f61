from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from server.errors import Overloaded
from server.rag.short_answer import ShortAnswer, ask
from server.types import ChatMessage, ChatPrompt, Urgency, Usage
from tests.fakes.models import FakeChatModel, saying

MESSAGES = (ChatMessage(role="user", content="hello"),)


async def test_an_answer_is_asked_for_greedily_and_collected() -> None:
    model = FakeChatModel(steps=saying("Hel", "lo \n"))

    answer = await ask(model, MESSAGES, max_tokens=7, urgency=Urgency(priority=9), tenant="ada")

    [request] = model.requests
    assert answer == ShortAnswer("Hello", usage=Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=2))
    assert request.prompt == ChatPrompt(MESSAGES)
    assert (request.sampling.max_tokens, request.sampling.temperature) == (7, 0.0)
    assert (request.urgency.priority, request.tenant) == (9, "ada")


async def test_an_answer_that_was_cut_says_so() -> None:
    assert (await ask(FakeChatModel(steps=saying("Hel", reason="length")), MESSAGES, max_tokens=1)).is_cut


@pytest.mark.parametrize("said", ["<think>hm\nhm</think>yes", "yes<think>and on and on"])
async def test_thoughts_are_no_answer(said: str) -> None:
    assert (await ask(FakeChatModel(steps=saying(said)), MESSAGES, max_tokens=9)).text == "yes"


async def test_a_failure_comes_out_as_it_is() -> None:
    with pytest.raises(Overloaded):
        await ask(FakeChatModel(steps=(Overloaded("full"),)), MESSAGES, max_tokens=9)


async def test_whoever_is_cancelled_lets_go_of_the_model() -> None:
    model = FakeChatModel(steps=(asyncio.Event(),))
    asking = asyncio.create_task(ask(model, MESSAGES, max_tokens=9))
    await model.begun.wait()

    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking

    assert model.aborted
