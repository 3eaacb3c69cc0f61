"""Real sockets against the protocol, before an application that tells what it was asked.

Each shape is followed by a second request on the same connection, which nobody may answer in its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from server.api.request_head import MAX_HEAD_BYTES, MAX_HEADERS
from server.cli import http_protocol
from tests.fakes.http_shapes import GET, POST, SECOND, SHAPES, statuses
from tests.fakes.open_house import READ_S, House, error_of, open_house
from tests.fakes.scripted import until_true


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


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
