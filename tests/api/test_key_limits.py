"""Limits of keys as clients meet them: every route that asks a model, every dialect, every ending."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import RateLimitError

from server.access.day_quota import Amount
from server.access.key_account import Expected
from server.access.key_limiter import KeyLimiter
from server.api.model_paths import MODEL_PATHS, is_model_path
from server.api.openapi.operations import OPERATIONS
from server.api.token_estimate import BYTES_PER_TOKEN, expected_of
from server.caller import Caller, KeyLimits
from server.errors import StorageUnavailable, WorkerCrashed
from server.types import Delta, Finished, Started, Usage
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection
from tests.fakes.called import CalledBy
from tests.fakes.described import CheckedTransport
from tests.fakes.models import saying

URL = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 40}
HELLO_TOKENS = len(httpx.Request("POST", "http://test", json=HELLO).content) // BYTES_PER_TOKEN
"""Of that body, as it is expected."""

FREE = {
    "POST /admin/reload",
    "POST /v1/models/{model}/load",
    "POST /v1/models/{model}/unload",
    "POST /v1/files",
    "POST /v1/vector_stores",
    "POST /v1/vector_stores/import",
    "POST /v1/vector_stores/{store_id}",
    "POST /v1/vector_stores/{store_id}/reindex",
    "POST /v1/vector_stores/{store_id}/reindex/cancel",
    "POST /v1/vector_stores/{store_id}/files",
    "POST /v1/vector_stores/{store_id}/files/{file_id}",
    "POST /v1/vector_stores/{store_id}/file_batches",
    "POST /v1/vector_stores/{store_id}/file_batches/{batch_id}/cancel",
}
"""Routes that ask no model while they are waited for."""

MODEL_OPERATIONS = [each for each in OPERATIONS if is_model_path(each.method, each.path)]


def limited(stack: Stack, **limits: Any) -> CalledBy:
    return CalledBy(stack.app(), Caller(key_id="key_a", tenant="ada", limits=KeyLimits(**limits)))


@contextmanager
def client_of(stack: Stack, **limits: Any) -> Iterator[httpx.AsyncClient]:
    yield httpx.AsyncClient(transport=CheckedTransport(limited(stack, **limits)), base_url="http://test")


def remaining_tokens(stack: Stack, **limits: Any) -> int:
    return stack.limiter.standings(Caller(key_id="key_a", limits=KeyLimits(**limits)))["tokens"].remaining


def test_no_route_was_forgotten() -> None:
    """A new route stands in one of the two lists."""
    posts = {f"{each.method} {each.path}" for each in OPERATIONS if each.method == "POST"}

    assert {f"{each.method} {each.path}" for each in MODEL_OPERATIONS} == posts - FREE
    assert {each.path for each in OPERATIONS} >= MODEL_PATHS


@pytest.mark.parametrize("operation", MODEL_OPERATIONS, ids=lambda each: each.id)
def test_what_every_body_may_take_is_known(operation: Any) -> None:
    """Tokenising and templates compute nothing."""
    body = operation.body.model_validate(operation.example)

    expected = expected_of(body, 400)

    if any(word in operation.path for word in ("token", "template")):
        assert expected is None
    else:
        assert expected is not None and expected.num_prompt_tokens >= 100
        assert bool(expected.num_answers) is (operation.topic == "generation")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (URL, {**HELLO, "n": 3}, Expected(model="talker", num_answers=3, max_answer_tokens=40)),
        (URL, {**HELLO, "max_completion_tokens": 7}, Expected(model="talker", num_answers=1, max_answer_tokens=7)),
        (
            "/v1/completions",
            {"model": "talker", "prompt": ["a", "b"], "n": 2, "best_of": 4},
            Expected(model="talker", num_answers=8),
        ),
        (
            "/v1/responses",
            {"model": "talker", "input": "a", "max_output_tokens": 9},
            Expected(model="talker", num_answers=1, max_answer_tokens=9),
        ),
        (
            "/v1/rerank",
            {"query": "x" * 40, "documents": ["a", "b", "c"]},
            Expected(num_prompt_tokens=20),
        ),
    ],
)
def test_answers_count_as_often_as_they_are_made(path: str, body: dict[str, Any], expected: Expected) -> None:
    operation = next(each for each in OPERATIONS if each.method == "POST" and each.path == path)
    assert operation.body is not None

    assert expected_of(operation.body.model_validate(body), 0) == expected


@pytest.mark.parametrize("operation", MODEL_OPERATIONS, ids=lambda each: each.id)
async def test_every_route_that_asks_a_model_refuses_a_key_that_has_used_up_its_requests(
    stack: Stack, operation: Any
) -> None:
    with client_of(stack, requests_per_minute=1) as client:
        await client.post(URL, json=HELLO)

        response = await client.post(operation.path.replace("{store_id}", "vs_1"), json=operation.example)

    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 120
    assert 0 < int(response.headers["retry-after-ms"]) <= 60_000
    assert response.headers["x-should-retry"] == "true"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


async def test_what_asks_no_model_is_never_refused_and_says_how_the_key_stands(stack: Stack) -> None:
    with client_of(stack, requests_per_minute=1) as client:
        await client.post(URL, json=HELLO)

        response = await client.get("/v1/models")

    assert response.status_code == 200
    assert response.headers["x-ratelimit-limit-requests"] == "1"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert response.headers["x-ratelimit-reset-requests"] in ("1m0s", "60s", "59s")


async def test_a_refusal_has_openais_shape(stack: Stack) -> None:
    with client_of(stack, concurrent_requests=0) as client:
        response = await client.post(URL, json=HELLO)

    error = response.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("rate_limit_exceeded", "rate_limit_error", None)


async def test_a_refusal_has_anthropics_shape(stack: Stack) -> None:
    with client_of(stack, concurrent_requests=0) as client:
        response = await client.post("/v1/messages", json=HELLO)

    assert response.status_code == 429
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert response.json()["error"]["details"]["error_code"] == "rate_limit_exceeded"


async def test_a_quota_that_is_used_up_is_not_worth_another_try(stack: Stack) -> None:
    with client_of(stack, tokens_per_day=20) as client:
        first = await client.post(URL, json=HELLO)
        response = await client.post(URL, json={**HELLO, "max_tokens": 10})

    assert first.status_code == 200  # it may take more than all of it, and is alone
    assert response.status_code == 429
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["retry-after"] == "120"


async def test_a_ledger_that_cannot_tell_refuses_for_now(stack: Stack) -> None:
    async def fail(_key_id: str, _since_s: int) -> Amount:
        raise StorageUnavailable("the data directory is not open")

    stack.limiter = KeyLimiter(used_since=fail)
    with client_of(stack, tokens_per_day=20) as client:
        response = await client.post(URL, json=HELLO)

    assert (response.status_code, response.json()["error"]["code"]) == (503, "storage_unavailable")


async def test_headers_count_what_is_reserved_and_then_what_was_used(stack: Stack) -> None:
    with client_of(stack, tokens_per_minute=1000) as client:
        response = await client.post(URL, json=HELLO)

    assert response.headers["x-ratelimit-limit-tokens"] == "1000"
    assert int(response.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(1000 - HELLO_TOKENS - 40, abs=1)
    assert remaining_tokens(stack, tokens_per_minute=1000) == 1000 - 7


async def test_a_request_that_may_take_too_many_tokens_is_refused_when_its_body_is_known(stack: Stack) -> None:
    with client_of(stack, tokens_per_minute=1000) as client:
        await client.post("/rerank", json={"query": "a", "texts": ["b" * 90] * 8})
        refused = await client.post("/rerank", json={"query": "a", "texts": ["b" * 4000]})

    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert len(stack.reranker.calls) == 1
    assert remaining_tokens(stack, tokens_per_minute=1000) < 1000


async def test_a_body_that_is_refused_takes_nothing(stack: Stack) -> None:
    with client_of(stack, tokens_per_minute=1000) as client:
        await client.post(URL, json={**HELLO, "temperature": 9})
        await client.post(URL, json={**HELLO, "model": "nobody"})

    assert remaining_tokens(stack, tokens_per_minute=1000) == 1000


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_fails_costs_what_is_known_of_it(stack: Stack, *, stream: bool) -> None:
    """Before the first word that is nothing; after it, the prompt and what was generated."""
    stack.limiter = KeyLimiter(clock=lambda: 100.0)  # nothing comes back meanwhile
    stack.chat.steps = (WorkerCrashed("it died"),)
    with client_of(stack, tokens_per_minute=1000, concurrent_requests=1) as client:
        await client.post(URL, json={**HELLO, "stream": stream})
        assert remaining_tokens(stack, tokens_per_minute=1000, concurrent_requests=1) == 1000

        stack.chat.steps = (Started(5), Delta("Hel"), WorkerCrashed("it died"))
        await client.post(URL, json={**HELLO, "stream": stream})
        left = remaining_tokens(stack, tokens_per_minute=1000, concurrent_requests=1)
        assert left == 1000 - 5 - 1

        stack.chat.steps = saying("Hello")
        assert (await client.post(URL, json=HELLO)).status_code == 200  # and its place is free again


async def test_a_client_that_leaves_gives_its_place_back_and_pays(stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), asyncio.Event())
    app = limited(stack, concurrent_requests=1, tokens_per_minute=1000)
    connection = AsgiConnection(app, URL, {**HELLO, "stream": True})
    assert await connection.read_status() == 200
    second = AsgiConnection(app, URL, HELLO)
    assert await second.read_status() == 429

    connection.disconnect()
    await asyncio.wait_for(connection.done, timeout=5)

    assert remaining_tokens(stack, concurrent_requests=1, tokens_per_minute=1000) < 1000
    stack.chat.steps = saying("Hello")
    assert await AsgiConnection(app, URL, HELLO).read_status() == 200


async def test_two_hundred_side_by_side_are_as_many_as_are_allowed(stack: Stack) -> None:
    with client_of(stack, requests_per_minute=10) as client:
        answers = await asyncio.gather(*(client.post(URL, json=HELLO) for _ in range(200)))

    assert sorted({answer.status_code for answer in answers}) == [200, 429]
    assert sum(answer.status_code == 200 for answer in answers) == 10
    assert len(stack.chat.requests) == 10


async def test_a_quota_is_never_exceeded_by_requests_side_by_side(stack: Stack) -> None:
    """Each is expected to take what it takes, so that there is no overshoot at all."""
    usage = Usage(prompt_tokens=HELLO_TOKENS, completion_tokens=40)
    stack.chat.steps = (Started(5), Delta("Hello"), Finished("length", usage))
    with client_of(stack, tokens_per_day=1000) as client:
        for _ in range(5):
            await asyncio.gather(*(client.post(URL, json=HELLO) for _ in range(10)))

    assert (len(stack.chat.requests)) * (HELLO_TOKENS + 40) <= 1000
    assert len(stack.chat.requests) >= 14


async def test_embeddings_are_counted_as_the_model_counts_them(stack: Stack) -> None:
    with client_of(stack, tokens_per_minute=1000) as client:
        await client.post("/v1/embeddings", json={"model": "embedder", "input": ["abc", "de"]})

    assert remaining_tokens(stack, tokens_per_minute=1000) == 995


async def test_the_tenants_weight_goes_with_what_is_asked(stack: Stack) -> None:
    app = CalledBy(stack.app(), Caller(key_id="key_a", tenant="ada", limits=KeyLimits(weight=2.5)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.post(URL, json=HELLO)
        await client.post("/v1/messages", json=HELLO)

    assert [each.urgency.weight for each in stack.chat.requests] == [2.5, 2.5]
    assert [each.tenant for each in stack.chat.requests] == ["ada", "ada"]


async def test_the_sdk_sees_a_rate_limit(stack: Stack) -> None:
    import httpx2
    from openai import AsyncOpenAI

    http_client = httpx2.AsyncClient(transport=httpx2.ASGITransport(limited(stack, requests_per_minute=0)))
    async with AsyncOpenAI(base_url="http://test/v1", api_key="k", http_client=http_client, max_retries=0) as client:
        with pytest.raises(RateLimitError) as refused:
            await client.embeddings.create(model="embedder", input="a")

    assert refused.value.code == "rate_limit_exceeded"
