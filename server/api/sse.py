"""Server-sent events: framing, what fills silence, the ending, and a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

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


def sse_named(payload: dict[str, Any]) -> bytes:
    """One event, under the name that its `type` is."""
    return f"event: {payload['type']}\n".encode() + sse_data(payload)


@dataclass(frozen=True)
class StreamStyle:
    """What an API's streams say besides the answer.

    Attributes:
        done: The last words after all went well; may be none.
        error: The event for an error, from its body.
    """

    ping: bytes
    done: bytes
    error: Callable[[dict[str, Any]], bytes]


OPENAI_STYLE = StreamStyle(PING, DONE, sse_data)
ANTHROPIC_STYLE = StreamStyle(sse_named({"type": "ping"}), b"", sse_named)


class EventStream(StreamingResponse):
    """Sends the chunks of a generator as they come, and closes the generator whatever happens.

    The headers wait for the first chunk, but not for long, as while a model loads: an error before them is an ordinary
    error response. Later errors become one event, and the stream then ends without the words for a good end.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        style: StreamStyle = OPENAI_STYLE,
        ping_after_s: float = PING_AFTER_S,
    ) -> None:
        super().__init__(chunks, headers=HEADERS)
        self._chunks = chunks
        self._style = style
        self._ping_after_s = ping_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):  # nobody is left to hear of it
            await run_while_connected(receive, self._run(scope, send))

    async def _run(self, scope: Scope, send: Send) -> None:
        async with aclosing(self._chunks):
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await _Sender(send, start, self._style, self._ping_after_s).send_all(self._chunks, scope)


class _Sender:
    """Writes body messages, the headers before the first of them, and fills silence with pings."""

    def __init__(self, send: Send, start: Message, style: StreamStyle, ping_after_s: float) -> None:
        self._send = send
        self._start = start
        self._style = style
        self._ping_after_s = ping_after_s
        self._has_started = False
        self._one_at_a_time = asyncio.Lock()
        self._last_sent_s = asyncio.get_running_loop().time()

    async def send_all(self, chunks: AsyncGenerator[bytes, None], scope: Scope) -> None:
        """Send everything; what is raised before the headers is passed on."""
        pinger = asyncio.create_task(self._ping_in_silence())
        try:
            async for chunk in chunks:
                await self._write(chunk)
            ending = self._style.done
        except Exception as exc:
            if not self._has_started:
                raise
            ending = self._style.error(error_body(exc, scope)[1])  # the status is sent: it can only be an event
        finally:
            pinger.cancel()
            await asyncio.gather(pinger, return_exceptions=True)
        if ending:
            await self._write(ending)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, chunk: bytes) -> None:
        async with self._one_at_a_time:
            if not self._has_started:
                self._has_started = True
                await self._send(self._start)
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._last_sent_s = asyncio.get_running_loop().time()

    async def _ping_in_silence(self) -> None:
        while True:
            silence_s = asyncio.get_running_loop().time() - self._last_sent_s
            if silence_s >= self._ping_after_s:
                await self._write(self._style.ping)
            else:
                await asyncio.sleep(self._ping_after_s - silence_s)
