"""Real sockets against the protocol, before an application that tells what it was asked.

Each shape is followed by a second request on the same connection, which nobody may answer in its place.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from server.api.request_head import MAX_HEAD_BYTES, MAX_HEADERS
from server.cli import http_protocol
from server.cli.http_protocol import MIN_UPLOAD_BYTES_PER_S, ConnectionBounds, HttpProtocol
from tests.fakes.http_shapes import CHUNKED, GET, POST, SECOND, SHAPES, statuses
from tests.fakes.scripted import until_true

READ_S = 5.0


@dataclass
class House:
    """A server in this process, and what its application has seen.

    Attributes:
        seen: Path and body of each request whose body came whole.
        gone: Paths of requests whose client left, or was sent away.
        release: Requests to `/held` are answered when it is set.
        dropped: Set when a request to `/endless` was dropped.
    """

    port: int
    seen: list[tuple[str, bytes]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)

    async def exchange(self, sent: bytes) -> bytes:
        """Everything that comes until the server ends the connection."""
        reader, writer = await self.connect()
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.read(-1), READ_S)
        finally:
            writer.close()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        path, body, more = scope["path"], b"", True
        self.has_begun.set()
        if path == "/early":
            await _respond(send, b"early", status=413)
            return
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append(path)
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append((path, body))
        if path == "/held":
            await self.release.wait()
        if path == "/endless":
            await self._send_for_ever(receive, send)
            return
        await _respond(send, f"{path} {len(body)}".encode())

    async def _send_for_ever(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.create_task(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
        self.dropped.set()


async def _respond(send: Callable[[Any], Awaitable[None]], body: bytes, *, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def open_house(*, keep_alive_s: int = 5, **bounds: Any) -> AsyncIterator[House]:
    house = House(port=0)
    config = uvicorn.Config(
        house.app,
        http="httptools",
        ws="none",
        log_config=None,
        lifespan="off",
        interface="asgi3",
        timeout_keep_alive=keep_alive_s,
    )
    config.load()
    state = ServerState()
    limits = ConnectionBounds(
        **{
            "receive_timeout_s": 30.0,
            "max_connections": 10,
            "upload_paths": ("/upload",),
            "always_open": ("/health",),
            **bounds,
        }
    )
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config, state, {}, bounds=limits), "127.0.0.1", 0
    )
    house.port = server.sockets[0].getsockname()[1]
    try:
        yield house
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0.01)  # `connection_lost` is on its way, here and at the clients
        await asyncio.gather(*state.tasks, return_exceptions=True)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


def error_of(answer: bytes) -> Any:
    return json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
async def test_a_smuggling_shape_is_refused_and_what_follows_is_not_read(house: House, shape: bytes) -> None:
    answer = await house.exchange(shape + SECOND)

    assert statuses(answer) == [400]
    assert b"\r\nconnection: close\r\n" in answer
    assert error_of(answer)["code"] == "invalid_http"
    assert house.seen == []


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
async def test_behind_a_good_request_it_gets_no_answer_but_the_end(house: House, shape: bytes) -> None:
    answer = await house.exchange(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n" + shape + SECOND)

    assert statuses(answer)[0] == 200
    assert b"/good 0" in answer
    assert statuses(answer)[1:] in ([], [400])
    assert house.seen == [("/good", b"")]


async def test_an_answer_that_is_under_way_is_not_cut_by_a_refusal(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reader, writer = await house.connect()
    writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
    await house.has_begun.wait()
    writer.write(b"nonsense\r\n\r\n" + SECOND)
    await until_true(lambda: "request refused" in caplog.text)

    house.release.set()
    answer = await asyncio.wait_for(reader.read(-1), READ_S)
    writer.close()

    assert statuses(answer) == [200]
    assert answer.endswith(b"/held 0")
    assert ("/second", b"") not in house.seen


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    body = b"POST /third HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"

    answer = await house.exchange(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND + body)

    assert statuses(answer) == [200, 200, 200]
    assert [answer.index(path) for path in (b"/first", b"/second", b"/third")] == sorted(
        answer.index(path) for path in (b"/first", b"/second", b"/third")
    )
    assert house.seen[-1] == ("/third", b"hello")


async def test_thousands_of_pipelined_requests_are_not_held(house: House) -> None:
    reader, writer = await house.connect()
    writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND * 5000)
    await house.has_begun.wait()

    house.release.set()
    answer = await asyncio.wait_for(reader.read(-1), READ_S)
    writer.close()

    assert statuses(answer) == [200] * (1 + http_protocol.MAX_PIPELINED)


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
        (b"GET /" + b"a" * 2 * MAX_HEAD_BYTES, 414, "uri_too_long"),
        (GET + b"a: b\r\n" * MAX_HEADERS + b"\r\n", 431, "headers_too_large"),
        (GET + b"a: b\r\n" * MAX_HEAD_BYTES, 431, "headers_too_large"),
        (GET + b"cookie: " + b"x" * 1_000_000, 431, "headers_too_large"),
        (GET + b"x" * MAX_HEAD_BYTES, 431, "headers_too_large"),
        (b"\r\n" * MAX_HEAD_BYTES, 431, "headers_too_large"),
    ],
    ids=["long", "endless line", "many", "endless", "large", "endless name", "blank lines"],
)
async def test_a_head_is_bounded(house: House, head: bytes, status: int, code: str) -> None:
    answer = await house.exchange(head)

    assert statuses(answer) == [status]
    assert error_of(answer)["code"] == code


async def test_a_large_body_is_no_large_head(house: House) -> None:
    size = 4 * MAX_HEAD_BYTES
    head = b"POST /first HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size

    answer = await house.exchange(head + b"x" * size)

    assert answer.endswith(b"/first %d" % size)


# ---- slow clients


@pytest.mark.parametrize(
    "part",
    [b"G", GET, POST + b"Content-Length: 10\r\n\r\nabc", CHUNKED + b"\r\n5\r\nab"],
    ids=["line", "headers", "body", "chunk"],
)
async def test_a_request_that_does_not_arrive_is_refused(part: bytes) -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await house.exchange(part)

        assert statuses(answer) == [408]
        assert error_of(answer)["code"] == "request_timeout"
        assert house.seen == []


async def test_trickling_does_not_help() -> None:
    async with open_house(receive_timeout_s=0.2) as house:
        reader, writer = await house.connect()

        async def trickle() -> None:
            while True:
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.01)

        writer.write(GET)
        trickling = asyncio.create_task(trickle())
        answer = await asyncio.wait_for(reader.read(-1), READ_S)
        trickling.cancel()
        writer.close()

        assert statuses(answer) == [408]


async def test_who_connects_and_says_nothing_is_let_go_without_a_word() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        assert await house.exchange(b"") == b""


async def test_between_two_requests_a_connection_is_kept_for_a_moment() -> None:
    async with open_house(keep_alive_s=1) as house:
        answer = await house.exchange(GET + b"\r\n")

        assert statuses(answer) == [200]
        assert b"connection: close" not in answer


async def test_a_request_that_is_being_answered_has_no_deadline() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        reader, writer = await house.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await house.has_begun.wait()
        asyncio.get_running_loop().call_later(0.3, house.release.set)

        answer = await asyncio.wait_for(reader.read(-1), READ_S)
        writer.close()

        assert statuses(answer) == [200]


async def test_the_next_request_of_a_connection_has_a_deadline_too() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await house.exchange(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HT")

        assert statuses(answer) == [200, 408]


async def test_what_is_left_of_a_request_that_was_answered_early_keeps_nothing_open() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        sent = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        reader, writer = await house.connect()
        writer.write(sent)
        first = await reader.readuntil(b"early")
        writer.write(b"0123456789")

        rest = await asyncio.wait_for(reader.read(-1), READ_S)
        writer.close()

        assert (statuses(first), rest) == ([413], b"")


async def _upload(house: House, *, pieces: int, size: int, pause_s: float) -> bytes:
    reader, writer = await house.connect()
    head = b"POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (pieces * size))
    reading = asyncio.create_task(reader.read(-1))
    for _ in range(pieces):
        writer.write(b"x" * size)
        await asyncio.wait((reading,), timeout=pause_s)
    answer = await asyncio.wait_for(reading, READ_S)
    writer.close()
    return answer


async def test_an_upload_may_take_longer_when_it_gets_on() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await _upload(house, pieces=20, size=MIN_UPLOAD_BYTES_PER_S, pause_s=0.02)

        assert statuses(answer) == [200]


async def test_an_upload_that_hardly_gets_on_is_refused() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await _upload(house, pieces=1000, size=1, pause_s=0.02)

        assert statuses(answer) == [408]
        assert house.gone == ["/upload"]


async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SEND_STALL_S", 0.1)
    async with open_house() as house:
        _, writer = await house.connect()
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")

        await asyncio.wait_for(house.dropped.wait(), READ_S)
        writer.transport.abort()


async def test_a_client_that_reads_slowly_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SEND_STALL_S", 0.2)
    async with open_house() as house:
        reader, writer = await house.connect()
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(30):
            await asyncio.wait_for(reader.readexactly(512 * 1024), READ_S)
            await asyncio.sleep(0.02)

        assert not house.dropped.is_set()
        writer.transport.abort()
        await asyncio.wait_for(house.dropped.wait(), READ_S)


# ---- too many of them


async def test_a_connection_too_many_is_told_so_and_health_is_not_refused() -> None:
    async with open_house(max_connections=1) as house:
        _, writer = await house.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await house.has_begun.wait()

        refused = await house.exchange(SECOND)
        healthy = await house.exchange(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        house.release.set()
        writer.close()

        assert (statuses(refused), error_of(refused)["code"]) == ([503], "overloaded")
        assert b"\r\nretry-after: 1\r\n" in refused
        assert statuses(healthy) == [200]


# ---- what is not refused


@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_an_offered_upgrade_is_declined_and_the_request_is_served(house: House, body: bytes) -> None:
    """Java's client offers h2c; the parser would take the body for another protocol."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    length = b"Content-Length: %d\r\n" % len(body)

    last = SECOND.replace(b"x\r\n", b"x\r\nConnection: close\r\n")

    answer = await house.exchange(POST + offer + length + b"\r\n" + body + last)

    assert statuses(answer) == [200, 200]
    assert house.seen == [("/first", body), ("/second", b"")]


async def test_a_body_is_asked_for_when_its_client_waits_for_that(house: House) -> None:
    reader, writer = await house.connect()
    writer.write(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")

    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert await reader.readuntil(b"/first 5")
    writer.close()
