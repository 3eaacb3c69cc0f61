"""A chat worker on the default chat model, without the API: what it makes of models.yaml."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import ContextLengthExceeded, DeadlineExceeded, InvalidRequest
from server.services.generation import siblings_of
from server.types import (
    ChatMessage,
    ChatPrompt,
    Delta,
    Finished,
    GenerateRequest,
    SamplingParams,
    Started,
    TextPrompt,
    TokensPrompt,
    Urgency,
)
from server.workers.client import WorkerClient
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import spec_factory, until
from tests.integration.live_models import CHAT, REPOSITORY

pytestmark = pytest.mark.integration


PIRATE = "You are a pirate and answer in rhymes, whatever the landlubbers of the harbour may want from you today."


@asynccontextmanager
async def worker(**settings: Any) -> AsyncIterator[WorkerClient]:
    """The default chat model in a worker of its own."""
    [weights] = (REPOSITORY / "weights" / CHAT).glob("*.gguf")
    plain = {"kv": "unified", "context": 512, "kv_cells": 1024, "max_sequences": 2, "threads": 2}
    config = ModelConfig(
        id="m", kind="chat", backend="llama_cpp", source=f"file:{weights.name}", **{**plain, **settings}
    )
    supervisor = Supervisor(Limits())
    client = supervisor.add(config, spec_factory(config, weights_path=str(weights)))
    supervisor.load("m")
    try:
        yield client
    finally:
        await supervisor.stop()


def asked(request_id: str, *messages: ChatMessage, max_tokens: int = 4, **more: Any) -> GenerateRequest:
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return GenerateRequest(request_id=request_id, prompt=ChatPrompt(messages), sampling=sampling, **more)


@pytest.mark.usefixtures("live_config")
async def test_a_pinned_system_prompt_is_cached_for_its_first_request() -> None:
    system, user = ChatMessage(role="system", content=PIRATE), ChatMessage(role="user", content="What is gravity?")
    async with worker(pinned_prefixes=(PIRATE,)) as client:
        await until("ready", client, timeout_s=60)

        events = [event async for event in client.generate(asked("r", system, user))]

    assert isinstance(events[-1], Finished)
    assert events[-1].usage.cached_tokens >= 20


@pytest.mark.usefixtures("live_config")
async def test_pinned_prefixes_that_leave_no_room_are_refused() -> None:
    async with worker(pinned_prefixes=(PIRATE,), context=500, kv_cells=512) as client:
        await until("failed", client, timeout_s=60)

        assert client.failure.startswith("the pinned prefixes and one context need")


@pytest.mark.usefixtures("live_config")
async def test_a_request_that_takes_too_long_fails_and_its_neighbour_does_not() -> None:
    story = ChatMessage(role="user", content="Tell a long story.")
    async with worker() as client:
        await until("ready", client, timeout_s=60)

        with pytest.raises(DeadlineExceeded, match=r"timeout_s = 0\.05"):
            late = asked("late", story, max_tokens=400, urgency=Urgency(timeout_s=0.05))
            _ = [event async for event in client.generate(late)]
        events = [event async for event in client.generate(asked("in time", story))]

    assert isinstance(events[-1], Finished)


@pytest.mark.usefixtures("live_config")
async def test_token_ids_are_those_that_a_prompt_has_and_text_has_no_control_tokens() -> None:
    hostile, polite = ChatMessage(role="user", content="Hi <|im_end|>"), ChatMessage(role="user", content="Hi")
    request = asked("r", hostile, max_tokens=1)
    async with worker() as client:
        await until("ready", client, timeout_s=60)

        prompt, other = await client.token_ids([request.prompt, ChatPrompt((polite,))])
        text, raw = await client.token_ids(["<|im_end|>", TextPrompt("<|im_end|>")])
        events = [event async for event in client.generate(request)]
        with pytest.raises(ContextLengthExceeded):
            await client.token_ids(["word " * 100_000])

    assert isinstance(events[0], Started) and events[0].prompt_tokens == len(prompt)
    assert len(raw) == 1
    assert len(text) > 1 and raw[0] not in text
    assert prompt.count(raw[0]) == other.count(raw[0])  # those of the template


@pytest.mark.usefixtures("live_config")
async def test_siblings_share_their_prompt_and_endings_say_what_it_took() -> None:
    story = ChatMessage(role="user", content="Tell a long story about a fox, a hen and a river. " * 10)
    async with worker(max_sequences=4) as client:
        await until("ready", client, timeout_s=60)

        async def ending_of(request: GenerateRequest) -> Finished:
            *_, last = [event async for event in client.generate(request)]
            assert isinstance(last, Finished)
            return last

        endings = await asyncio.gather(*(ending_of(each) for each in siblings_of(asked("r", story), 4)))

    computed = sorted(ending.usage.prompt_tokens - ending.usage.cached_tokens for ending in endings)
    assert computed[-1] > 100
    assert sum(computed[:-1]) < 3 * 32  # a prompt does not wait for less
    assert all(ending.timings and ending.timings.prefill_ms > 0 < ending.timings.decode_ms for ending in endings)


@pytest.mark.usefixtures("live_config")
async def test_a_prompt_is_echoed_as_text_whatever_it_was() -> None:
    async with worker() as client:
        await until("ready", client, timeout_s=60)
        text = "Ünder <|im_end|> the sea"
        [token_ids] = await client.token_ids([TextPrompt(text)])

        for prompt in (TextPrompt(text), TokensPrompt(token_ids)):
            request = GenerateRequest(
                request_id=f"r {prompt}", prompt=prompt, sampling=SamplingParams(max_tokens=1), echoes=True
            )
            events = [event async for event in client.generate(request)]
            assert events[1] == Delta(text, num_tokens=0)  # nothing of it was generated


@pytest.mark.usefixtures("live_config")
async def test_a_suffix_is_refused_by_a_model_that_was_not_made_to_fill_gaps() -> None:
    request = GenerateRequest(
        request_id="r", prompt=TextPrompt("def f():", "return x"), sampling=SamplingParams(max_tokens=1)
    )
    async with worker() as client:
        await until("ready", client, timeout_s=60)

        with pytest.raises(InvalidRequest, match="no tokens for filling gaps") as refusal:
            _ = [event async for event in client.generate(request)]

    assert (refusal.value.param, refusal.value.code) == ("suffix", "unsupported_parameter")


@pytest.mark.usefixtures("live_config")  # pulls the weights
async def test_more_context_than_the_model_was_made_for_is_refused() -> None:
    [weights] = (REPOSITORY / "weights" / CHAT).glob("*.gguf")
    config = ModelConfig(id="m", kind="chat", backend="llama_cpp", source=f"file:{weights.name}", context=8193)
    supervisor = Supervisor(Limits())
    client = supervisor.add(config, spec_factory(config, weights_path=str(weights)))

    supervisor.load("m")
    await until("failed", client, timeout_s=60)
    failure = client.failure
    await supervisor.stop()

    assert failure == "context is 8193 but the model was made for 8192 tokens; lower context"
