"""Server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from server.api.middleware.request_id import RequestIdMiddleware
from server.api.sse import ANTHROPIC_STYLE, DONE, OPENAI_STYLE, PING, EventStream, StreamStyle
from server.errors import NoRoom
from tests.fakes.asgi import AsgiConnection


def app_streaming(chunks: AsyncGenerator[bytes, None], style: StreamStyle = OPENAI_STYLE) -> RequestIdMiddleware:
    async def endpoint(_request: Request) -> EventStream:
        return EventStream(chunks, style=style, ping_after_s=0.005)

    return RequestIdMiddleware(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))


async def test_silence_is_filled_with_pings() -> None:
    proceed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await proceed.wait()
        yield b"second"

    connection = AsgiConnection(app_streaming(chunks()), "/", {})
    assert await connection.read_status() == 200
    assert await connection.read_chunk() == b"first"
    assert await connection.read_chunk() == PING
    proceed.set()

    rest = [chunk async for chunk in _until_end(connection)]
    assert [chunk for chunk in rest if chunk != PING] == [b"second", DONE, b""]


async def test_anthropics_pings_are_events_and_its_streams_end_without_a_word() -> None:
    proceed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await proceed.wait()

    connection = AsgiConnection(app_streaming(chunks(), ANTHROPIC_STYLE), "/", {})
    await connection.read_status()
    assert await connection.read_chunk() == b"first"
    ping = await connection.read_chunk()
    proceed.set()

    assert ping == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert {chunk async for chunk in _until_end(connection)} <= {ping, b""}


async def test_the_headers_do_not_wait_for_a_first_event_that_takes_long() -> None:
    """As while a model loads: whoever waits for the status would give up, or be cut off."""
    proceed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        await proceed.wait()
        yield b"first"

    connection = AsgiConnection(app_streaming(chunks()), "/", {})
    assert await connection.read_status() == 200
    assert await connection.read_chunk() == PING
    proceed.set()

    rest = [chunk async for chunk in _until_end(connection)]
    assert [chunk for chunk in rest if chunk != PING] == [b"first", DONE, b""]


async def test_an_error_after_such_headers_is_the_last_event() -> None:
    proceed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        await proceed.wait()
        raise NoRoom("needs 5.1 GiB")
        yield b"never"

    connection = AsgiConnection(app_streaming(chunks()), "/", {})
    await connection.read_status()
    proceed.set()

    rest = [chunk async for chunk in _until_end(connection) if chunk != PING]
    assert len(rest) == 2
    assert b'"code":"insufficient_memory"' in rest[0]
    assert rest[1] == b""


async def test_the_generator_is_closed_when_sending_fails() -> None:
    closed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            closed.set()

    connection = AsgiConnection(app_streaming(chunks()), "/", {})
    await connection.read_status()
    connection.disconnect()

    await connection.done
    assert closed.is_set()


async def _until_end(connection: AsgiConnection) -> AsyncGenerator[bytes, None]:
    while True:
        chunk = await connection.read_chunk()
        yield chunk
        if chunk == b"":
            return
