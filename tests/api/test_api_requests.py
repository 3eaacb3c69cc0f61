"""`/admin/requests`: what the server is doing, and an end to it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from server.types import Delta, Started
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection

URL = "/v1/chat/completions"
HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def stuck(stack: Stack) -> Stack:
    """The model says a word and then nothing, for ever."""
    stack.chat.steps = (Started(5), Delta("half"), asyncio.Event())
    return stack


async def begun(stack: Stack, *, stream: bool, **headers: str) -> tuple[AsgiConnection, httpx.AsyncClient]:
    """A request that the model is at, and somebody else's client of the same server."""
    app = stack.app()
    connection = AsgiConnection(app, URL, {**HELLO, "stream": stream}, headers)
    await asyncio.wait_for(stack.chat.begun.wait(), timeout=5)
    return connection, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_live_request_is_told_with_what_it_has_so_far(stuck: Stack) -> None:
    connection, client = await begun(stuck, stream=True, **{"x-request-id": "r1", "x-hearth-sender": "eve"})
    await connection.read_status()
    while b"half" not in await connection.read_chunk():
        pass

    async with client:
        [live] = (await client.get("/admin/requests")).json()["live"]

    assert (live["request_id"], live["sender"], live["model"], live["path"]) == ("r1", "eve", "talker", URL)
    assert (live["stage"], live["status"]) == ("decode", None)
    assert (live["prompt_tokens"], live["completion_tokens"]) == (5, 1)
    connection.disconnect()
    await connection.done


async def test_a_stream_that_is_cancelled_ends_with_an_error_event(stuck: Stack) -> None:
    connection, client = await begun(stuck, stream=True, **{"x-request-id": "r1"})

    async with client:
        cancelled = await client.delete("/admin/requests/r1")
        await connection.done
        recent = (await client.get("/admin/requests")).json()["recent"]

    assert cancelled.json() == {"id": "r1", "object": "request.cancelled", "num_cancelled": 1}
    assert await connection.read_status() == 200
    chunks = []
    while connection.has_unread:
        chunks.append(await connection.read_chunk())
    *_, last, _end = chunks
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "cancelled"
    assert [request["status"] for request in recent] == ["cancelled"]
    assert stuck.chat.aborted


async def test_a_whole_answer_that_is_cancelled_is_a_499(stuck: Stack) -> None:
    connection, client = await begun(stuck, stream=False, **{"x-request-id": "r1"})

    async with client:
        await client.delete("/admin/requests/r1")
    await connection.done

    assert await connection.read_status() == 499
    assert json.loads(await connection.read_chunk())["error"]["code"] == "cancelled"


async def test_what_is_over_cannot_be_cancelled(client: httpx.AsyncClient) -> None:
    await client.post(URL, json=HELLO, headers={"x-request-id": "r1"})

    response = await client.delete("/admin/requests/r1")

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


async def test_whoever_lists_requests_is_not_among_them(client: httpx.AsyncClient) -> None:
    await client.get("/v1/models")

    assert (await client.get("/admin/requests")).json() == {"object": "list", "live": [], "recent": []}
