"""A load generator for embeddings and rerank: JSON over kept-alive connections, on raw asyncio.

It runs in a process of its own, that of the benchmark, while all servers are others. It speaks just enough HTTP/1.1 for
them, and counts answers without parsing them: the client shares the cores with the servers that it measures. Times are
`time.perf_counter()` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks.load import HOST, TIMEOUT_S

_BUFFER_BYTES = 2**22
"""Of a connection: an answer with 64 vectors in base64 has 130 kB, and waiting for each 64 kB of it costs time."""


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        num_items: Texts or documents in it.
    """

    path: str
    body: dict[str, Any]
    num_items: int


@dataclass
class Reply:
    """What became of one request.

    Attributes:
        due_s: When it was to be sent; latencies count from here.
        content: The answer's body; empty where it failed.
        error: Why it failed; empty when it ended well.
    """

    num_items: int
    due_s: float
    done_s: float = 0.0
    content: bytes = field(default=b"", repr=False)
    error: str = ""

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)


async def closed_loop(
    port: int, asks: Iterator[Ask], *, num_clients: int, is_over: Callable[[], bool], keep: bool = False
) -> list[Reply]:
    """Clients send one request after the other until it is over (or there are no more), and wait for the last answers.

    Args:
        keep: Keep the contents of the answers.
    """
    replies: list[Reply] = []

    async def client() -> None:
        async with connected(port) as connection:
            while not is_over() and (ask := next(asks, None)):
                reply = await connection.send(ask)
                if not keep:
                    reply.content = b""
                replies.append(reply)

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return replies


async def open_loop(port: int, asks: Iterator[Ask], arrivals_s: Sequence[float]) -> list[Reply]:
    """Send each request at its time after the start, however many are being answered; one connection each."""
    start_s = time.perf_counter()

    async def client(ask: Ask, due_s: float) -> Reply:
        await asyncio.sleep(due_s - time.perf_counter())
        async with connected(port) as connection:
            return await connection.send(ask, due_s=due_s)

    return await asyncio.gather(*(client(next(asks), start_s + arrival_s) for arrival_s in arrivals_s))


def after(seconds: float) -> Callable[[], bool]:
    """True once so many seconds have passed from now."""
    end_s = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end_s


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection, opened at the first request and closed at the end."""
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.close()


class Connection:
    """One client's connection; opened again after a failure."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, ask: Ask, *, due_s: float | None = None) -> Reply:
        """Send a request and wait for its answer. Never raises: failures are in `error`. Cancelling closes nothing."""
        payload = _request(ask)
        reply = Reply(ask.num_items, time.perf_counter() if due_s is None else due_s)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, content = await self._exchange(payload)
                if status == 200:
                    reply.content = content
                else:
                    reply.error = f"status {status}: {content[:500].decode(errors='replace')}"
        except (OSError, ValueError, LookupError, EOFError, TimeoutError) as exc:
            reply.error = f"{type(exc).__name__}: {exc}"
            self.close()
        reply.done_s = time.perf_counter()
        return reply

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None

    async def _exchange(self, payload: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port, limit=_BUFFER_BYTES)
        reader, writer = self._streams
        writer.write(payload)
        head = await reader.readuntil(b"\r\n\r\n")
        status_line, *headers = head.decode("latin-1").splitlines()
        lengths = [line.partition(":")[2] for line in headers if line.lower().startswith("content-length:")]
        if not lengths:
            raise ValueError("an answer without content-length")
        return int(status_line.split()[1]), await reader.readexactly(int(lengths[0]))


def _request(ask: Ask) -> bytes:
    payload = orjson.dumps(ask.body)
    head = (
        f"POST {ask.path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload
