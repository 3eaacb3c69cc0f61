"""One client's connection: HTTP/1.1 on asyncio and httptools, so that the client is not the bottleneck.

It hands on what arrives, when it arrives; what that means is its receivers' business. Times are `time.perf_counter()`
seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import AsyncIterator
from typing import Protocol, cast

import httptools

from server.loadgen.target import Target

TIMEOUT_S = 300.0
"""After so long a request counts as failed: a server that hangs must not hang whoever measures it."""


class BrokenAnswer(Exception):
    """The connection ended too early, or what came is not HTTP; the message says which."""


class Receiver(Protocol):
    """Takes what happens to one request, in order. Its methods must not raise."""

    def on_sent(self, at_s: float) -> None: ...

    def on_status(self, status: int, retry_after_s: float | None) -> None: ...

    def on_body(self, data: bytes, at_s: float) -> None: ...


@contextlib.asynccontextmanager
async def connected(target: Target, *, is_kept: bool = True, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Connection]:
    """A connection, opened at the first request and closed at the end."""
    connection = Connection(target, is_kept=is_kept, timeout_s=timeout_s)
    try:
        yield connection
    finally:
        connection.close()


class Connection:
    """Sends one request after the other; opened again where it has to be.

    Args:
        is_kept: Use one TCP connection for many requests, as SDKs do; false: a new one for each.
    """

    def __init__(self, target: Target, *, is_kept: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        self._target = target
        self._is_kept = is_kept
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None

    async def post(self, path: str, payload: bytes, receiver: Receiver) -> None:
        """Send JSON to `path` below the target's base, and return when the answer is complete.

        A kept connection that the server has closed meanwhile is opened again, as every HTTP client does.

        Raises:
            BrokenAnswer: The answer is not whole.
            OSError: The server cannot be reached, or not trusted.
            TimeoutError: It took longer than `timeout_s`.
        """
        request = self._target.request(path, payload, is_kept=self._is_kept)
        may_go_on = False
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._wire is None or not await self._went_out_again(self._wire, request, receiver):
                    self._wire = await self._open()
                    await self._wire.exchange(request, receiver)
            may_go_on = self._is_kept and self._wire.may_go_on
        except TimeoutError as exc:
            raise TimeoutError(f"not answered within {self._timeout_s:g} s") from exc
        finally:
            if not may_go_on:
                self.close()

    def close(self) -> None:
        if self._wire:
            self._wire.close()
        self._wire = None

    @staticmethod
    async def _went_out_again(wire: _Wire, request: bytes, receiver: Receiver) -> bool:
        """Whether a connection that has been used before could be used once more."""
        try:
            await wire.exchange(request, receiver)
        except (BrokenAnswer, OSError):
            if wire.has_begun:
                raise
            return False
        return True

    async def _open(self) -> _Wire:
        _, wire = await asyncio.get_running_loop().create_connection(
            _Wire, self._target.host, self._target.port, ssl=_tls_context() if self._target.is_tls else None
        )
        return wire


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """What the system trusts; reading it takes 20 ms, too long for each connection."""
    return ssl.create_default_context()


class _Wire(asyncio.Protocol):
    """A TCP connection, with one answer at a time on it.

    Attributes:
        has_begun: Something of the current answer has arrived.
        may_go_on: The last answer is complete, and another request may follow.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self.may_go_on = False
        self._is_open = False
        self._has_end = False  # whether the answer says where it ends
        self._retry_after_s: float | None = None
        self._receiver: Receiver | None = None
        self._answered: asyncio.Future[None] | None = None
        self._arrived_s = 0.0

    async def exchange(self, request: bytes, receiver: Receiver) -> None:
        self.has_begun = self.may_go_on = False
        if not self._is_open:
            raise BrokenAnswer("the server has closed the connection")
        self._has_end, self._retry_after_s = False, None
        self._parser = httptools.HttpResponseParser(self)
        self._answered = asyncio.get_running_loop().create_future()
        self._receiver = receiver
        try:
            self._transport.write(request)
            receiver.on_sent(time.perf_counter())
            await self._answered
        finally:
            self._receiver = None
            del self._parser  # it refers to us, and we to it

    def close(self) -> None:
        self._transport.close()

    # ---- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._is_open = True

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:  # nobody asked
            self.close()
            return
        self.has_begun = True
        self._arrived_s = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._end(BrokenAnswer(f"the answer is not HTTP/1.1: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        if exc is not None:
            self._end(exc)
        elif not self.has_begun:
            self._end(BrokenAnswer("the server closed the connection without an answer"))
        elif self._has_end:
            self._end(BrokenAnswer("the server closed the connection in the middle of its answer"))
        else:
            self._end(None)  # an answer without a length is over when the connection is

    # ---- called by httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_end = True
        elif name.lower() == b"retry-after" and value.isdigit():
            self._retry_after_s = float(value)

    def on_headers_complete(self) -> None:
        if self._receiver and (status := self._parser.get_status_code()) >= 200:
            self._receiver.on_status(status, self._retry_after_s)

    def on_body(self, data: bytes) -> None:
        if self._receiver:
            self._receiver.on_body(data, self._arrived_s)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # what is below announces the answer
            self.may_go_on = self._parser.should_keep_alive()
            self._end(None)

    def _end(self, exc: Exception | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if exc is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(exc)
