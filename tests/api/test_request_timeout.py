"""`x-request-timeout`: what nobody waits for any more is not worked on."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from server.api.model_paths import is_model_path
from server.api.openapi.operations import OPERATIONS
from server.asker import current_asker
from tests.api.conftest import Stack

URL = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 40}


@pytest.mark.parametrize(
    ("header", "body_s", "expected_s"),
    [("2.5", None, 2.5), ("2500ms", None, 2.5), ("30 s", 7.0, 7.0), ("3", 7.0, 3.0)],
)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (URL, HELLO),
        ("/v1/messages", HELLO),
        ("/v1/completions", {"model": "talker", "prompt": "a"}),
        ("/v1/responses", {"model": "talker", "input": "a", "store": False}),
    ],
)
async def test_generations_get_no_more_time_than_it_says(
    client: httpx.AsyncClient,
    stack: Stack,
    path: str,
    body: dict[str, Any],
    header: str,
    body_s: float | None,
    expected_s: float,
) -> None:
    if body_s and path == "/v1/messages":
        body_s, expected_s = None, float(header.rstrip(" s"))
    timeout = {"timeout_s": body_s} if body_s else {}

    response = await client.post(path, json={**body, **timeout}, headers={"x-request-timeout": header})

    assert response.status_code == 200, response.text
    assert stack.chat.requests[0].urgency.timeout_s == pytest.approx(expected_s, abs=0.3)


@pytest.mark.parametrize("header", ["0", "-1", "soon", "1e3", "nan", "86401", "5m", "", "1" * 20])
async def test_what_is_no_time_is_refused_by_name(client: httpx.AsyncClient, stack: Stack, header: str) -> None:
    response = await client.post(URL, json=HELLO, headers={"x-request-timeout": header})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-request-timeout"
    assert not stack.chat.requests


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if is_model_path(each.method, each.path)], ids=lambda each: each.id
)
async def test_every_route_that_asks_a_model_reads_it(client: httpx.AsyncClient, operation: Any) -> None:
    path = operation.path.replace("{store_id}", "vs_1")

    response = await client.post(path, json=operation.example, headers={"x-request-timeout": "never"})

    assert response.status_code == 400


async def test_encoders_are_asked_with_the_deadline_of_the_request(client: httpx.AsyncClient, stack: Stack) -> None:
    seen: list[float] = []

    async def look(*_args: Any, **_more: Any) -> Any:
        seen.append(current_asker().left_s)
        raise asyncio.CancelledError

    stack.embedder.embed = look  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await client.post(
            "/v1/embeddings", json={"model": "embedder", "input": "a"}, headers={"x-request-timeout": "9"}
        )

    assert seen == [pytest.approx(9, abs=1)]


async def test_other_routes_take_no_notice_of_it(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models", headers={"x-request-timeout": "soon"})).status_code == 200
