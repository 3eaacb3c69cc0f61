"""The real openai SDK against the real server and the real models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openai
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT, EMBEDDING, RERANK

pytestmark = pytest.mark.integration


@pytest.fixture
def sdk(live_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


def test_a_chat_has_text_usage_and_the_reason_for_its_end(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Write one sentence about cats."}],
        max_tokens=16,
        temperature=0,
    )

    assert "cat" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None and answer.usage.prompt_tokens > 5 and 1 <= answer.usage.completion_tokens <= 16


def test_a_streamed_chat_comes_in_pieces_and_ends_with_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Count to ten."}],
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},  # however the dice fall, it goes on
    )

    chunks = list(stream)

    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(texts) > 4
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens >= len(texts)


def test_log_probabilities_are_those_of_the_words(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=12,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    text = b"".join(bytes(token.bytes or ()) for token in logprobs.content).decode()
    assert text == answer.choices[0].message.content
    for token in logprobs.content:
        assert token.logprob <= 0
        assert [each.logprob for each in token.top_logprobs] == sorted(
            (each.logprob for each in token.top_logprobs), reverse=True
        )
        assert token.top_logprobs[0].token == token.token  # greedy


def test_choices_are_several_and_their_prompt_counts_once(sdk: openai.OpenAI) -> None:
    def ask(n: int) -> openai.types.chat.ChatCompletion:
        return sdk.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "Name an animal."}], max_tokens=8, n=n, seed=5
        )

    one, three = ask(1), ask(3)

    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in three.choices}) > 1
    assert one.usage is not None and three.usage is not None
    assert three.usage.prompt_tokens == one.usage.prompt_tokens


def test_streamed_choices_are_put_together_by_index(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Count to ten."}],
        max_tokens=8,
        n=2,
        logprobs=True,
        stream=True,
        extra_body={"ignore_eos": True, "timings": True},
    )

    texts, tokens, last = ["", ""], [0, 0], None
    for chunk in stream:
        last = chunk
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += len((choice.logprobs and choice.logprobs.content) or ())

    assert all(texts)
    assert tokens == [8, 8]
    assert last is not None and last.model_extra is not None
    assert last.model_extra["timings"]["predicted_n"] == 16


def test_a_prediction_is_taken_and_accounted_for(sdk: openai.OpenAI) -> None:
    poem = "Roses are red, violets are blue, sugar is sweet, and so are you. " * 3
    answer = sdk.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": f"Repeat this word by word: {poem}"}],
        max_tokens=48,
        temperature=0,
        prediction={"type": "content", "content": poem},
    )

    assert answer.usage is not None and answer.usage.completion_tokens_details is not None
    details = answer.usage.completion_tokens_details
    assert details.accepted_prediction_tokens is not None
    assert 0 <= details.accepted_prediction_tokens <= answer.usage.completion_tokens


def test_timings_and_the_header_agree(sdk: openai.OpenAI) -> None:
    response = sdk.chat.completions.with_raw_response.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=8,
        extra_body={"timings": True, "ignore_eos": True},
    )

    timings = response.parse().model_extra or {}
    stages = dict(stage.split(";dur=") for stage in response.headers["server-timing"].split(", ") if ";dur=" in stage)
    assert timings["timings"]["predicted_n"] == 8
    assert float(stages["prefill"]) == pytest.approx(timings["timings"]["prompt_ms"], abs=0.06)
    assert float(stages["decode"]) == pytest.approx(timings["timings"]["predicted_ms"], abs=0.06)


def test_a_completion_has_echo_log_probabilities_and_a_best_one(sdk: openai.OpenAI) -> None:
    echoed = sdk.completions.create(model=CHAT, prompt="One, two,", max_tokens=4, temperature=0, echo=True)
    told = sdk.completions.create(model=CHAT, prompt="One, two,", max_tokens=4, temperature=0, logprobs=2)
    best = sdk.completions.create(model=CHAT, prompt="One, two,", max_tokens=4, best_of=4, n=2, seed=1)

    assert echoed.choices[0].text == "One, two," + told.choices[0].text
    logprobs = told.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.text_offset is not None
    assert "".join(logprobs.tokens) == told.choices[0].text
    for at, token in zip(logprobs.text_offset, logprobs.tokens, strict=True):
        assert told.choices[0].text.startswith(token, at)
    assert len(best.choices) == 2
    assert best.usage is not None and best.usage.completion_tokens > 8


def test_a_completion_continues_the_prompt(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model=CHAT, prompt="One, two, three, four,", max_tokens=4, temperature=0)

    assert "five" in answer.choices[0].text


def test_scripted_tool_calls_arrive_as_tool_calls(sdk: openai.OpenAI) -> None:
    tool: openai.types.chat.ChatCompletionFunctionToolParam = {
        "type": "function",
        "function": {"name": "get_weather", "parameters": {"type": "object"}},
    }

    answer = sdk.chat.completions.create(
        model="script", messages=[{"role": "user", "content": "tool, please"}], tools=[tool]
    )

    (call,) = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.type == "function" and (call.function.name, call.function.arguments) == (
        "get_weather",
        '{"city": "Paris"}',
    )


def test_embeddings_are_unit_vectors_and_the_same_as_base64_and_floats(sdk: openai.OpenAI) -> None:
    texts = ["a red cat", "a blue car"]

    as_base64 = sdk.embeddings.create(model=EMBEDDING, input=texts)  # what the SDK asks for by itself
    as_floats = sdk.embeddings.create(model=EMBEDDING, input=texts, encoding_format="float")

    vectors = np.array([item.embedding for item in as_base64.data])
    assert vectors.shape == (2, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors, [item.embedding for item in as_floats.data], atol=1e-6)


def test_models_are_listed_and_retrieved(sdk: openai.OpenAI) -> None:
    listed = {model.id: model for model in sdk.models.list()}

    assert {CHAT, EMBEDDING, RERANK} <= listed.keys()
    assert listed[CHAT] == sdk.models.retrieve(CHAT)
    assert listed[CHAT].owned_by == "local"


def test_an_unknown_model_is_not_found(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert CHAT in caught.value.message
    assert caught.value.response.json()["detail"] == "Model 'gpt-4o' not found"


def test_too_long_a_prompt_names_both_counts(sdk: openai.OpenAI) -> None:
    with pytest.raises(
        openai.BadRequestError, match=r"prompt has \d{4,} tokens, but .* maximum context length is 8192"
    ) as caught:
        sdk.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "hello " * 9000}])

    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_a_model_of_another_kind_is_a_bad_request(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as chat:
        sdk.chat.completions.create(model=EMBEDDING, messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError) as embedding:
        sdk.embeddings.create(model=CHAT, input="hi")

    assert (chat.value.code, embedding.value.code) == ("model_kind_mismatch", "model_kind_mismatch")
    assert "chat models here: smollm2" in chat.value.message
