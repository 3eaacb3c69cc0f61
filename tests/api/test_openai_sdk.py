"""The official SDK against the API: what it sends is understood, and it understands what it gets."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionUserMessageParam

from server.errors import DeadlineExceeded, ModelUnavailable, WorkerCrashed
from server.types import Delta, Finished, Started, ToolCallDelta, Usage
from tests.api.conftest import Stack
from tests.fakes.models import saying

HI: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hi"}]


async def test_chat_create(openai_client: AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model="talker", messages=HI)

    assert answer.choices[0].message.content == "Hello there"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


async def test_chat_stream(openai_client: AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model="talker", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 5


async def test_an_error_inside_a_stream_is_raised(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), WorkerCrashed("the worker has died"))
    stream = await openai_client.chat.completions.create(model="talker", messages=HI, stream=True)

    with pytest.raises(openai.APIError, match="the worker has died"):
        async for _chunk in stream:
            pass


async def test_completions_create(openai_client: AsyncOpenAI) -> None:
    answer = await openai_client.completions.create(model="talker", prompt=["a", "b"])

    assert [choice.text for choice in answer.choices] == ["Hello there", "Hello there"]


async def test_embeddings_create_asks_for_base64_and_decodes_it(openai_client: AsyncOpenAI) -> None:
    answer = await openai_client.embeddings.create(model="embedder", input=["", "bb"][1:])

    assert answer.data[0].embedding == pytest.approx([-0.41614684, 0.90929743])


async def test_models_list_and_retrieve(openai_client: AsyncOpenAI) -> None:
    models = [model.id async for model in openai_client.models.list()]

    assert models == ["talker", "actor", "embedder", "ranker"]
    assert (await openai_client.models.retrieve("talker")).owned_by == "local"


async def test_errors_become_the_sdks_classes(openai_client: AsyncOpenAI, stack: Stack) -> None:
    create = openai_client.chat.completions.create

    with pytest.raises(openai.NotFoundError) as not_found:
        await create(model="nobody", messages=HI)
    with pytest.raises(openai.BadRequestError) as bad_request:
        await create(model="talker", messages=HI, temperature=3)
    stack.chat.steps = (ModelUnavailable("loading"),)
    with pytest.raises(openai.InternalServerError) as unavailable:
        await create(model="talker", messages=HI)

    assert not_found.value.code == "model_not_found"
    assert bad_request.value.param == "temperature"
    assert unavailable.value.status_code == 503
    assert unavailable.value.request_id


async def test_what_may_pass_is_sent_again(
    openai_client: AsyncOpenAI, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that the server names, which the SDK sleeps."""
    waits: list[float] = []

    async def mend(seconds: float) -> None:
        waits.append(seconds)
        stack.chat.steps = saying("Hello")

    monkeypatch.setattr("openai._base_client.anyio.sleep", mend)
    stack.chat.steps = (ModelUnavailable("loading", retry_after_s=7),)

    answer = await openai_client.with_options(max_retries=1).chat.completions.create(model="talker", messages=HI)

    assert answer.choices[0].message.content == "Hello"
    assert waits == [7]


async def test_what_would_fail_again_is_not_sent_again(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps = (DeadlineExceeded("not answered within timeout_s = 1"),)

    with pytest.raises(openai.InternalServerError):
        await openai_client.with_options(max_retries=2).chat.completions.create(model="talker", messages=HI)

    assert len(stack.chat.requests) == 1


async def test_streamed_tool_calls_fit_together(openai_client: AsyncOpenAI, stack: Stack) -> None:
    stack.chat.steps = (
        Started(5),
        Delta("Look.", reasoning="Hm."),
        Delta(tool_calls=(ToolCallDelta(0, "call_1", "weather"),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments='{"city": '),)),
        Delta(tool_calls=(ToolCallDelta(0, arguments='"Oslo"}'), ToolCallDelta(1, "call_2", "weather", "{}"))),
        Finished("tool_calls", Usage(prompt_tokens=5, completion_tokens=9)),
    )
    tool: ChatCompletionFunctionToolParam = {"type": "function", "function": {"name": "weather"}}

    async with openai_client.chat.completions.stream(model="talker", messages=HI, tools=[tool]) as stream:
        choice = (await stream.get_final_completion()).choices[0]

    calls = choice.message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_1", "weather", '{"city": "Oslo"}'),
        ("call_2", "weather", "{}"),
    ]
    assert (choice.message.content, choice.finish_reason) == ("Look.", "tool_calls")
