"""The load generator against a server of a few lines."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from benchmarks.encoder_traffic import Ask, Reply, closed_loop, connected, open_loop

ASK = Ask("/v1/embeddings", {"input": ["a", "b"]}, num_items=2)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def serving(answer: Callable[[dict[str, object]], bytes]) -> AsyncIterator[tuple[int, list[int]]]:
    """A server that keeps connections; yields its port, and how many requests each connection has had."""
    counts: list[int] = []
    handling: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = len(counts)
        counts.append(0)
        handling.append(asyncio.current_task())
        while head := await read_head(reader):
            length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"Content-Length"))
            body = orjson.loads(await reader.readexactly(length))
            counts[connection] += 1
            sent = answer(body)
            writer.write(sent)
            await writer.drain()
            if not sent:
                break
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], counts
        await asyncio.gather(*(task for task in handling if task))


async def read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def ask_once(sent: bytes) -> Reply:
    async with serving(lambda _: sent) as (port, _), connected(port) as connection:
        return await connection.send(ASK)


async def test_a_client_keeps_its_connection() -> None:
    async with serving(lambda _: OK) as (port, counts):
        replies = await closed_loop(port, itertools.repeat(ASK, 6), num_clients=2, is_over=lambda: False)

    assert sum(counts) == len(replies) == 6
    assert len(counts) == 2
    assert {reply.error for reply in replies} == {""}


async def test_no_request_begins_once_it_is_over() -> None:
    async with serving(lambda _: OK) as (port, counts):
        replies = await closed_loop(port, itertools.repeat(ASK), num_clients=3, is_over=lambda: sum(counts) >= 6)

    assert 6 <= len(replies) <= 8


@pytest.mark.parametrize("keep", [True, False])
async def test_contents_are_kept_where_they_are_wanted(keep: bool) -> None:
    async with serving(lambda _: OK) as (port, _):
        [reply] = await closed_loop(port, iter([ASK]), num_clients=1, is_over=lambda: False, keep=keep)

    assert reply.content == (b"{}" if keep else b"")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 7\r\n\r\nno room", "status 503: no room"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "ValueError: an answer without content-length"),
        (b"", "IncompleteReadError"),
    ],
)
async def test_a_failure_is_kept_as_its_reason(sent: bytes, error: str) -> None:
    assert error in (await ask_once(sent)).error


async def test_a_broken_connection_is_opened_again() -> None:
    answers = iter([b"", OK])
    async with serving(lambda _: next(answers)) as (port, counts), connected(port) as connection:
        errors = [bool((await connection.send(ASK)).error) for _ in range(2)]

    assert (errors, counts) == ([True, False], [1, 1])


async def test_an_open_loop_measures_from_when_requests_were_due() -> None:
    async with serving(lambda _: OK) as (port, _):
        first, second = await open_loop(port, itertools.repeat(ASK), [0.0, 0.02])

    assert second.due_s - first.due_s == pytest.approx(0.02)
    assert second.done_s >= second.due_s
