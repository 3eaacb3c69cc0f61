"""Server-sent events: framing, keep-alive comments, the ending, and a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.api.disconnect import run_while_connected
from server.api.errors import error_body

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"

PING_AFTER_S = 15.0
"""Silence after which a comment is sent; proxies commonly cut connections that are silent for 60 s."""

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def sse_data(payload: Any) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


class EventStream(StreamingResponse):
    """Sends the chunks of a generator as they come, and closes the generator whatever happens.

    The headers wait for the first chunk: an error before it is an ordinary error response. Later errors become one
    event, and the stream then ends without `[DONE]`.
    """

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[bytes, None], *, ping_after_s: float = PING_AFTER_S) -> None:
        super().__init__(chunks, headers=HEADERS)
        self._chunks = chunks
        self._ping_after_s = ping_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):  # nobody is left to hear of it
            await run_while_connected(receive, self._run(scope, send))

    async def _run(self, scope: Scope, send: Send) -> None:
        async with aclosing(self._chunks):
            first = await anext(self._chunks)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await _Sender(send, self._ping_after_s).send_all(first, self._chunks, scope)


class _Sender:
    """Writes body messages and fills silence with pings."""

    def __init__(self, send: Send, ping_after_s: float) -> None:
        self._send = send
        self._ping_after_s = ping_after_s
        self._last_sent_s = asyncio.get_running_loop().time()

    async def send_all(self, first: bytes, chunks: AsyncGenerator[bytes, None], scope: Scope) -> None:
        pinger = asyncio.create_task(self._ping_in_silence())
        try:
            await self._write(first)
            async for chunk in chunks:
                await self._write(chunk)
            ending = DONE
        except Exception as exc:  # the status is sent: the error can only be an event
            ending = sse_data(error_body(exc, scope)[1])
        finally:
            pinger.cancel()
            await asyncio.gather(pinger, return_exceptions=True)
        await self._write(ending)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._last_sent_s = asyncio.get_running_loop().time()

    async def _ping_in_silence(self) -> None:
        while True:
            silence_s = asyncio.get_running_loop().time() - self._last_sent_s
            if silence_s >= self._ping_after_s:
                await self._write(PING)
            else:
                await asyncio.sleep(self._ping_after_s - silence_s)
